"""The training data of a reader: examples and rejoined dialogues in the order of a plan."""

from __future__ import annotations

import os

import lightning as L

from ffr.data.dataset import ExampleDataset
from ffr.settings import ReaderConfig
from ffr.training.common.loader import StepLoader
from ffr.training.common.plan import TrainPlan
from ffr.training.common.reader_items import ReaderItem, UnitTable, num_units
from ffr.training.reader.rejoined import Rejoined

MAX_KEPT_BYTES = 512 * 2**20
"""Of items: making one takes longer than a step on it."""


class ReaderData(L.LightningDataModule):
    """Items by their numbers: those of the data first, then the rejoined ones.

    Args:
        config: Settings.
        examples: The examples.
        table: Their vectors, filled before a batch is asked for.
    """

    def __init__(self, config: ReaderConfig, examples: ExampleDataset, table: UnitTable) -> None:
        super().__init__()
        self._table = table
        self._config = config
        self._rejoined: Rejoined | None = None
        self._kept: dict[int, ReaderItem] = {}
        self._kept_bytes = 0
        lengths = [num_units(example.dialogue) for example in examples]
        self.num_rejoined = round(config.rejoined * len(lengths))
        # how long one will be is not known before it is made: they are grouped among themselves
        lengths += [max(lengths) + 1] * self.num_rejoined
        self.plan = TrainPlan(
            lengths=lengths,
            batch_size=config.batch_size,
            accumulate=config.accumulate,
            num_processes=config.devices,
            epochs=config.epochs,
            max_steps=config.max_steps,
            seed=config.seed,
        )
        self._loader = StepLoader(
            self.plan,
            self.item,
            lambda index: 1,
            process=int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))),
            num_processes=config.devices,
            num_workers=config.num_workers,
        )

    def rejoin(self) -> Rejoined | None:
        """What makes the rejoined dialogues, once the table is filled; None where none are asked for."""
        if self.num_rejoined and self._rejoined is None:
            self._rejoined = Rejoined(
                self._table,
                absent_share=self._config.absent_share,
                seed=self._config.seed,
                strange_pictures=self._config.strange_pictures,
            )
        return self._rejoined

    def train_dataloader(self) -> StepLoader[ReaderItem]:
        """The one loader of the training, whose position a checkpoint holds."""
        return self._loader

    def item(self, number: int) -> ReaderItem:
        """The item of a number, kept for the next epoch while there is room; called in threads."""
        found = self._kept.get(number)
        if found is None:
            found = self._made(number)
            # two threads never make the same one: an epoch takes each number once
            if self._kept_bytes < MAX_KEPT_BYTES:
                self._kept[number] = found
                self._kept_bytes += found.num_bytes
        return found

    def _made(self, number: int) -> ReaderItem:
        num_examples = len(self._table.data)
        if number < num_examples:
            return self._table.item(number)
        assert self._rejoined is not None
        return self._rejoined.item(number - num_examples)
