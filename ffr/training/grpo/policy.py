"""What GRPO trains: something that samples answers to prompts, and scores answers.

An answer is a row of decisions, each with its probability. Of a vision-language model they are
tokens; of the reader they are whether a part of the dialogue belongs to the answer. All else of
GRPO (rewards, advantages, loss, orders) sees rows of decisions alone.

Shapes: B prompts of the process, G answers to each, N = B·G answers, C decisions of the longest
answer of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ffr.dialogue import Example
from ffr.embedding import Encoder
from ffr.models.decoding.loop import Generated
from ffr.models.shared_prefix import BranchLogprobs
from ffr.retrieval.interface import Retriever
from ffr.training.common.stage import Subject

Answers = Sequence[Sequence[int]]
"""Answers to a prompt, each a row of decisions."""


class Prompt(Protocol):
    """A dialogue with a query, as a policy takes it."""

    @property
    def num_tokens(self) -> int:
        """How long it is, in what the policy reads one by one."""
        ...


@dataclass
class Pass:
    """Prompts and answers that go through the model at once.

    Args:
        prompts: The prompts; of prompts on one dialogue that are packed, what they have in common.
        branches: The answers' decisions to each, in front of them what a prompt has for itself.
        num_scored: For each branch, how many of its last decisions are the answer.
        answers: Which of the step's N answers these are, in order.
        reference: (len(answers), C) log-probabilities under the model it started from; None where
            they are not needed.
        old: The same under the policy that sampled, known after the first update; with dropout,
            before it.
        importance: (len(answers), C) what each token counts, where what sampled is not what is
            trained; None for 1. Known with `old`.
    """

    prompts: list[Any]
    branches: list[list[list[int]]]
    num_scored: list[list[int]]
    answers: list[int]
    reference: Tensor | None = None
    old: Tensor | None = None
    importance: Tensor | None = None


class Policy(Protocol):
    """What is trained by its own answers."""

    @property
    def model(self) -> nn.Module:
        """Holds the weights, the trained ones among them."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it works."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the weights that it starts from, and all else of it that decides its answers."""
        ...

    @property
    def encoder(self) -> Encoder:
        """Its own vectors: what the setting `encoder=policy` means."""
        ...

    @property
    def subject(self) -> Subject:
        """What is trained, as a run validates and saves it."""
        ...

    def free(self) -> None:
        """Makes weights trainable; before that it is the model that it starts from.

        Raises:
            UsageError: where the settings do not go together.
        """
        ...

    @property
    def samples_still(self) -> bool:
        """Whether sampling drops nothing where training does: the ratio is to what sampled then."""
        ...

    @property
    def samples_apart(self) -> bool:
        """Whether what samples is not, to rounding, what is trained: its answers are weighted then."""
        ...

    def rolling_out(self) -> AbstractContextManager[None]:
        """Holds what sampling needs, for as long as a step's answers are sampled."""
        ...

    def encode(self, example: Example, where: str) -> Prompt:
        """The prompt of an example; called in threads.

        Args:
            example: The example.
            where: Its place in the data, for errors.
        """
        ...

    def text(self, example: Example) -> str:
        """The prompt as rewards see it."""
        ...

    def sample(
        self,
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        generator: torch.Generator,
        earlier: Sequence[Answers],
    ) -> list[list[Generated]]:
        """G answers to each prompt, within `rolling_out`.

        Args:
            prompts: Some prompts of the step.
            dialogue_numbers: Numbers of their dialogues: neighbours of one number are on one.
            generator: Draws, on the policy's device.
            earlier: Of each prompt, answers that it got before, of which the new ones may be
                guessed ahead.
        """
        ...

    def cut(
        self,
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        answers: Sequence[Generated],
    ) -> list[Pass]:
        """A step cut into passes, each of `batch_size` prompts.

        Args:
            prompts: The step's B prompts.
            dialogue_numbers: Numbers of their dialogues.
            answers: The N answers to them, those of one prompt side by side.
        """
        ...

    def score(self, item: Pass, *, with_entropy: bool = False) -> BranchLogprobs:
        """Log-probabilities of a pass's decisions, with gradient, at the sampling temperature.

        Args:
            item: The pass.
            with_entropy: Whether to compute the entropies as well.
        """
        ...

    def score_still(self, item: Pass, *, of_start: bool) -> Tensor:
        """The same as sampling has them, without gradient and dropout: (len(answers), C).

        Args:
            item: The pass.
            of_start: Under the model that training started from.
        """
        ...

    def is_cut_off(self, answer: Generated) -> bool:
        """Whether an answer ended only because it had reached the longest length."""
        ...

    def retriever(self, name: str) -> Retriever:
        """Answers queries as the policy does now, with what difficulties are made of.

        Args:
            name: What tables call it.
        """
        ...

    def try_longest(self, prompt: Any) -> None:
        """Takes the longest prompt through sampling and a backward pass; changes nothing.

        Raises:
            RuntimeError: where the memory does not suffice, as torch says it.
        """
        ...

    def notes(self) -> Sequence[str]:
        """What a person should know of it before training begins, a line each."""
        ...
