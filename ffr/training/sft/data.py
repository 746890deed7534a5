"""The training data of the cold start: which examples a step takes, and how they are encoded."""

from __future__ import annotations

import os
from collections.abc import Callable

import lightning as L

from ffr.data.dataset import ExampleDataset
from ffr.models.prompts import PromptBuilder
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.progress import Say
from ffr.settings import SftConfig
from ffr.training.common.data import example_length
from ffr.training.common.loader import Item, MicroBatch, StepLoader
from ffr.training.common.packs import packs_of_queries
from ffr.training.common.plan import TrainPlan
from ffr.training.common.setup import check_packing
from ffr.training.sft.packing import QueryPacker

_CHARACTERS_PER_ANSWER = 80
"""What an answer and the marks around its query add to a pack's length when batches are grouped,
in characters of prompt."""


class SftData(L.LightningDataModule):
    """Examples, or packs of queries on one dialogue, in the order of a plan.

    Args:
        config: Settings.
        examples: The examples.
        builder: Builds their prompts.
        sharing: Packs the queries of a dialogue; None where examples are taken one by one.
        say: Takes the lines that a person should see.

    Raises:
        UsageError: where queries are packed and do not stand behind their dialogue.
    """

    def __init__(
        self,
        config: SftConfig,
        examples: ExampleDataset,
        builder: PromptBuilder,
        *,
        sharing: PrefixSharing | None,
        say: Say,
    ) -> None:
        super().__init__()
        self._examples = examples
        self._builder = builder
        self.packs = [[index] for index in range(len(examples))]
        """Indices of the examples of each item of the plan."""
        if sharing is not None:
            check_packing(builder)
            self.packs = packs_of_queries(examples)
        self.plan = _plan(config, examples, self.packs)
        self._encode: Callable[[int], Item] = self._encode_example
        count_answer_tokens: Callable[[int], int] = self._count_answer_tokens
        if sharing is not None:
            packer = QueryPacker(
                builder, examples, self.packs, is_shared=sharing.is_active, say=say
            )
            self._encode, count_answer_tokens = packer, packer.count_answer_tokens
        self._loader = StepLoader(
            self.plan,
            self._encode,
            count_answer_tokens,
            process=int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))),
            num_processes=config.devices,
            num_workers=config.num_workers,
        )

    def train_dataloader(self) -> StepLoader[Item]:
        """The one loader of the training, whose position a checkpoint holds."""
        return self._loader

    def longest(self) -> tuple[int, Item]:
        """The number of the item that looks longest, and the item encoded.

        Raises:
            DataError: where it cannot be encoded or is too long.
        """
        number = max(range(len(self.packs)), key=lambda number: self.plan.lengths[number])
        return number, self._encode(number)

    def longest_of(self, batch: MicroBatch[Item]) -> tuple[int, int]:
        """The example, or the first of the pack, of a micro-batch's longest item, and its tokens."""
        lengths = [item.num_tokens for item in batch.items]
        place = max(range(len(lengths)), key=lengths.__getitem__)
        return self.packs[batch.numbers[place]][0], lengths[place]

    def _encode_example(self, index: int) -> Encoded:
        return self._builder(
            self._examples[index], with_answer=True, where=self._examples.where(index)
        )

    def _count_answer_tokens(self, index: int) -> int:
        return self._builder.count_answer_tokens(self._examples[index])


def _plan(config: SftConfig, examples: ExampleDataset, packs: list[list[int]]) -> TrainPlan:
    sizes = [
        (example_length(example), len(example.query) + _CHARACTERS_PER_ANSWER)
        for example in examples
    ]
    lengths = [length for length, _ in sizes]
    if config.pack_queries:
        # the dialogue once, and what each query adds
        lengths = [lengths[pack[0]] + sum(sizes[index][1] for index in pack) for pack in packs]
    return TrainPlan(
        lengths=lengths,
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        num_processes=config.devices,
        epochs=config.epochs,
        max_steps=config.max_steps,
        seed=config.seed,
    )
