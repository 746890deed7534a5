"""A reader as what GRPO trains: its decisions are whether parts of the dialogue belong to the answer.

An answer is one decision that there is anything at all and, if so, one for each unit; they are
independent given dialogue and query.

Shapes: B prompts, n units of one, N of the longest, G answers to each, R answers of a pass, C = 1 + N
decisions of the longest answer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffr.answer import format_answer
from ffr.dialogue import Example, Fragment
from ffr.embedding import CachedEncoder
from ffr.embedding.tagger import TaggerIfInstalled
from ffr.errors import UsageError
from ffr.models.decoding.loop import Generated
from ffr.models.shared_prefix import BranchLogprobs
from ffr.prompt import prompt_of
from ffr.reader.model import Reader
from ffr.reader.units import Units
from ffr.retrieval.reader import ReaderRetriever
from ffr.settings import GrpoConfig, check_of_reader
from ffr.training.common.reader_items import ReaderItem, UnitTable, batch_of, check_lengths, item_of
from ffr.training.common.reader_setup import (
    open_reader,
    open_text_encoder,
    tagger_for,
)
from ffr.training.common.reader_subject import ReaderSubject
from ffr.training.common.stage import Job, Start
from ffr.training.grpo.policy import Answers, Pass

MAX_UNITS = 2_048
"""A longer dialogue is refused: attention between all its units at once would not fit."""

_NOTHING_WEIGHT = 0.3
"""In the validation loss, which nothing is trained by: as `ffr train reader` has it by default."""


@dataclass(frozen=True, slots=True, eq=False)
class ReaderPrompt:
    """A query on a dialogue as the policy takes it.

    Args:
        item: What the networks see.
        units: The dialogue, n units.
    """

    item: ReaderItem
    units: Units

    @property
    def num_tokens(self) -> int:
        """Its units."""
        return len(self.units)


def open_reader_policy(start: Start[GrpoConfig], job: Job) -> ReaderPolicy:
    """The reader that training starts from, with the vectors of the data.

    Args:
        start: Settings and data.
        job: A dry one makes vectors when they are asked for alone.

    Raises:
        UsageError: where a setting means nothing for a reader.
        ModelError: where reader or encoder cannot be loaded.
        DataError: where a dialogue is too long.
    """
    config = start.config
    check_of_reader(config)
    if config.accelerator == "auto" and torch.cuda.is_available():
        raise UsageError("setting accelerator: a reader is trained on a CPU; set accelerator=cpu")
    reader = open_reader(start.source)
    encoder = open_text_encoder(
        reader.settings.encoder_name, config.encoder_cache_dir, config.encoder_cache_mb
    )
    tagger = tagger_for(reader)
    check_lengths(start.train_data, MAX_UNITS, range(len(start.train_data)))
    train = UnitTable(reader, encoder, start.train_data, tagger)
    validation = None
    if start.val_data is not None:
        num_validated = min(config.val_examples, len(start.val_data))
        check_lengths(start.val_data, MAX_UNITS, range(num_validated))
        validation = UnitTable(reader, encoder, start.val_data, tagger)
    if not job.is_dry:
        train.fill(range(len(start.train_data)), job.say, "training data")
        if validation is not None:
            validation.fill(range(num_validated), job.say, "validation data")
    return ReaderPolicy(reader, encoder, config, train=train, validation=validation, tagger=tagger)


class ReaderPolicy:
    """A `Policy`. Nothing is dropped and no likeness jittered, in sampling and training alike.

    Args:
        reader: The reader; its networks are trained together, and its calibration stays.
        encoder: Makes the vectors; frozen.
        config: Settings.
        train: Training data with its vectors.
        validation: Validation data with its vectors; None for none.
        tagger: Gives pictures words; None for none.
    """

    samples_still = False
    samples_apart = False

    def __init__(
        self,
        reader: Reader,
        encoder: CachedEncoder,
        config: GrpoConfig,
        *,
        train: UnitTable,
        validation: UnitTable | None = None,
        tagger: TaggerIfInstalled | None = None,
    ) -> None:
        self.reader = reader
        self.encoder = encoder
        self.model = nn.ModuleList(reader.networks)
        self.device = torch.device("cpu")
        seen_by = None if tagger is None else tagger.digest
        self.fingerprint = f"{reader.fingerprint} {seen_by}"
        self.subject = ReaderSubject(
            reader, validation, nothing_weight=_NOTHING_WEIGHT, calibrates=False
        )
        self._config = config
        self._train = train
        self._tagger = tagger
        # the reference of the divergence
        networks = copy.deepcopy(reader.networks)
        self._start = Reader(networks, reader.background, reader.settings, gate=reader.gate)

    def free(self) -> None:
        self.model.requires_grad_(True)
        self.model.train()

    def rolling_out(self) -> AbstractContextManager[None]:
        return nullcontext()

    def encode(self, example: Example, where: str) -> ReaderPrompt:
        units, query = self._train.find(example)
        labels = torch.zeros(len(units), dtype=torch.bool)
        return ReaderPrompt(item_of(self.reader, units, query, labels), units)

    def text(self, example: Example) -> str:
        return prompt_of(example).user

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        generator: torch.Generator,
        earlier: Sequence[Answers] = (),
    ) -> list[list[Generated]]:
        logits = self._decision_logits(self.reader, prompts)
        found = []
        for prompt, row in zip(prompts, logits, strict=True):
            own = row[: 1 + len(prompt.units)]
            draws = drawn(
                torch.sigmoid(own), self._config.num_generations, self._config.top_p, generator
            )
            found.append([answer_of(prompt.units, decisions, own) for decisions in draws])
        return found

    def cut(
        self,
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        answers: Sequence[Generated],
    ) -> list[Pass]:
        size, width = self._config.num_generations, self._config.batch_size
        passes = []
        for first in range(0, len(prompts), width):
            together = list(prompts[first : first + width])
            numbers = range(first * size, (first + len(together)) * size)
            branches = [
                [list(answer.token_ids) for answer in answers[place * size : (place + 1) * size]]
                for place in range(first, first + len(together))
            ]
            counts = [[len(branch) for branch in group] for group in branches]
            passes.append(Pass(together, branches, counts, list(numbers)))
        return passes

    def score(self, item: Pass, *, with_entropy: bool = False) -> BranchLogprobs:
        return self._scored(self.reader, item, with_entropy=with_entropy)

    @torch.no_grad()
    def score_still(self, item: Pass, *, of_start: bool) -> Tensor:
        return self._scored(self._start if of_start else self.reader, item).logprobs

    def _scored(self, reader: Reader, item: Pass, *, with_entropy: bool = False) -> BranchLogprobs:
        logits = self._decision_logits(reader, item.prompts)
        branches = [branch for group in item.branches for branch in group]
        counts = torch.tensor([len(branch) for branch in branches])
        width = int(counts.max())
        # a prompt's decisions stand once for each of its answers
        repeats = torch.tensor([len(group) for group in item.branches])
        rows = logits.repeat_interleave(repeats, dim=0)[:, :width]  # (R, C)
        mask = torch.arange(width) < counts[:, None]
        decisions = torch.zeros(rows.shape, dtype=torch.bool)
        for number, branch in enumerate(branches):
            decisions[number, : len(branch)] = torch.tensor(branch, dtype=torch.bool)
        logprobs = functional.logsigmoid(torch.where(decisions, rows, -rows))
        entropy = None
        if with_entropy:
            probabilities = torch.sigmoid(rows.detach())
            entropy = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
            entropy = entropy.masked_fill(~mask, 0.0)
        return BranchLogprobs(logprobs.masked_fill(~mask, 0.0), mask, entropy)

    def _decision_logits(self, reader: Reader, prompts: Sequence[ReaderPrompt]) -> Tensor:
        """(B, 1 + N): that there is anything, then each unit; divided by the temperature."""
        inputs, _ = batch_of([prompt.item for prompt in prompts])
        were_training = [network.training for network in reader.networks]
        # sampling and scoring must see the same networks: nothing is dropped in either
        for network in reader.networks:
            network.eval()
        units, nothing = reader.logits(inputs)
        for network, was_training in zip(reader.networks, were_training, strict=True):
            network.train(was_training)
        return torch.cat([-nothing[:, None], units], dim=1) / self._config.temperature

    def is_cut_off(self, answer: Generated) -> bool:
        return False

    def retriever(self, name: str) -> ReaderRetriever:
        return ReaderRetriever(self.reader, self.encoder, name=name, tagger=self._tagger)

    def try_longest(self, prompt: Any) -> None:
        config = self._config
        prompts = [prompt] * config.batch_size
        answers = self.sample(prompts, [], torch.Generator().manual_seed(0))
        flat = [answer for group in answers for answer in group]
        for item in self.cut(prompts, [], flat):
            # times 0: the memory of a backward pass, and gradients that move nothing
            torch.autograd.backward(self.score(item).logprobs.sum() * 0)
        self.model.zero_grad(set_to_none=True)

    def notes(self) -> list[str]:
        return ["an answer's decisions: that there is anything, then each utterance and picture"]


def drawn(
    probabilities: Tensor, num: int, top_p: float, generator: torch.Generator
) -> list[list[int]]:
    """Answers drawn decision by decision; one that begins with "nothing" ends there.

    A decision whose likelier outcome has at least the probability `top_p` is not drawn: it is that
    outcome.

    Args:
        probabilities: (1 + n,) of yes: that there is anything, then of each unit.
        num: How many answers.
        top_p: As in sampling tokens, which keeps the likeliest of this total probability.
        generator: Draws.

    Returns:
        For each answer its decisions, 1 or 0: 1 + n of them, or a single 0.

    >>> sure = torch.tensor([0.9, 0.2, 0.8])
    >>> drawn(sure, 2, 0.7, torch.Generator())
    [[1, 0, 1], [1, 0, 1]]
    >>> drawn(1 - sure, 1, 0.7, torch.Generator())
    [[0]]
    """
    is_sure = torch.maximum(probabilities, 1 - probabilities) >= top_p
    draws = torch.rand((num, len(probabilities)), generator=generator) < probabilities
    chosen = torch.where(is_sure, probabilities >= 0.5, draws).int().tolist()
    return [row if row[0] else [0] for row in chosen]


def answer_of(units: Units, decisions: Sequence[int], logits: Tensor) -> Generated:
    """An answer in the task's own format, with its decisions and their log-probabilities.

    Args:
        units: The dialogue.
        decisions: As `drawn` gives them.
        logits: (1 + n,) of yes.
    """
    yes = torch.tensor(decisions, dtype=torch.bool)
    own = logits[: len(yes)]
    chosen = functional.pad(yes[1:], (0, len(units) + 1 - len(yes)))
    utterances, images = (
        ids[chosen & (ids >= 0)].tolist() for ids in (units.utterance_ids, units.image_ids)
    )
    logprobs = functional.logsigmoid(torch.where(yes, own, -own))
    text = format_answer(Fragment.of(utterances, images))
    return Generated(text, tuple(decisions), tuple(logprobs.tolist()))
