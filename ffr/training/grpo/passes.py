"""A step cut into passes: which prompts and answers go through the model at once.

Shapes: B prompts of the process, G answers to each, N = B·G answers, C tokens of the longest answer
of a pass.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor

from ffr.models.packing import neighbours_of, pack
from ffr.models.rows import Encoded
from ffr.settings import GrpoConfig
from ffr.training.grpo.loader import StepPrompts
from ffr.training.grpo.rollout import Rollout


@dataclass
class Pass:
    """Prompts and answers that go through the model at once.

    Args:
        prompts: The prompts; of prompts on one dialogue, what they have in common.
        branches: The answers' ids to each, in front of them what a prompt has for itself.
        num_scored: For each branch, how many of its ids are the answer.
        answers: Which of the step's N answers these are, in order.
        reference: (len(answers), C) log-probabilities under the model it started from; None where
            they are not needed.
        old: The same under the policy that sampled, known after the first update; with dropout,
            before it.
    """

    prompts: list[Encoded]
    branches: list[list[list[int]]]
    num_scored: list[list[int]]
    answers: list[int]
    reference: Tensor | None = None
    old: Tensor | None = None


def cut_passes(
    batch: StepPrompts, rollout: Rollout, config: GrpoConfig, placeholder_ids: frozenset[int]
) -> list[Pass]:
    """Cuts a step into passes of `batch_size` prompts, each with `answers_per_pass` answers.

    Where prompts on one dialogue are packed, each dialogue has its own pass: beside another one
    its row would be filled up.

    Args:
        batch: The step's B prompts.
        rollout: The N answers to them, those of one prompt side by side.
        config: Settings.
        placeholder_ids: Ids that stand for images; prompts share what holds all of them.
    """
    size, width = config.num_generations, config.batch_size
    at_once = config.answers_per_pass or size
    passes = []
    for start in range(0, len(batch.prompts), width):
        parts = neighbours_of(
            batch.prompts[start : start + width],
            batch.dialogue_numbers[start : start + width],
            placeholder_ids,
        )
        # prompts keep their number in the step: their answers lie at number · G
        numbers = itertools.count(start)
        numbered = [[(next(numbers), prompt) for prompt in part] for part in parts]
        for together in [[part] for part in numbered] if config.pack_queries else [numbered]:
            for first in range(0, size, at_once):
                places = range(first, min(first + at_once, size))
                passes.append(_pass_of(together, places, size, rollout, placeholder_ids))
    return passes


def _pass_of(
    parts: list[list[tuple[int, Encoded]]],
    places: range,
    size: int,
    rollout: Rollout,
    placeholder_ids: frozenset[int],
) -> Pass:
    """Some of the `size` answers to prompts, of which those of a part share a dialogue."""
    item = Pass([], [], [], [])
    for part in parts:
        rows = []
        for number, prompt in part:
            answers = [number * size + place for place in places]
            # answers of a prompt lie side by side, so that `answers` gives rows of advantages
            for ids in (list(rollout.answers[answer].token_ids) for answer in answers):
                rows.append(Encoded(prompt.input_ids + ids, len(ids), prompt.images))
            item.answers += answers
        packed = pack(rows, placeholder_ids)
        item.prompts += packed.prompts
        item.branches += packed.branches
        item.num_scored += packed.num_scored
    return item
