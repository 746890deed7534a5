"""The items of a reader's training: the data's first, the rejoined ones behind, each made once while there is room."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder

from ffr.dialogue import Dialogue, Example, Fragment
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.settings import ReaderConfig
from ffr.training.common.reader_items import UnitTable
from ffr.training.reader import data as data_module
from ffr.training.reader.data import ReaderData


class Data(list[Any]):
    def where(self, index: int) -> str:
        return f"{index}"


@pytest.fixture
def made() -> ReaderData:
    rows = torch.randn(2, 1, 40, WIDTH, generator=torch.manual_seed(3))
    rows = torch.nn.functional.normalize(rows, dim=-1)
    shape = NetworkShape(width=16, num_heads=2, num_layers=1)
    reader = Reader.untrained(LetterEncoder(), Background(rows[0], rows[1]), shape=shape)
    examples: Any = Data(
        Example(Dialogue.of([("a", f"{n} {m}") for m in range(4)]), f"{n}", Fragment((0, 1)))
        for n in range(12)
    )
    encoder: Any = LetterEncoder()
    table = UnitTable(reader, encoder, examples)
    table.fill(range(12), str, "data")
    config = ReaderConfig(batch_size=6, epochs=2, rejoined=1.5, absent_share=0)
    found = ReaderData(config, examples, table)
    assert found.rejoin() is found.rejoin()
    return found


def test_every_item_is_taken_once_an_epoch(made: ReaderData) -> None:
    assert made.num_rejoined == 18
    steps = made.plan.steps()
    assert len(steps) == 10
    for epoch in (steps[:5], steps[5:]):
        taken = sorted(index for step in epoch for batch in step for index in batch)
        assert taken == list(range(30))
    for batch in made.train_dataloader():
        assert batch.num_step_tokens == len(batch.items) == 6
        # what is rejoined has at least three fragments of two lines
        assert all(item.num_tokens == 4 or item.num_tokens >= 6 for item in batch.items)


def test_an_item_is_made_once_while_there_is_room(
    made: ReaderData, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made.item(0)
    assert made.item(0) is first
    assert made.item(20) is made.item(20)
    by_hand = (4 * 30 + 14 + 4 * 4) * 4 + 4 * 8 + 4
    assert first.num_bytes == by_hand
    monkeypatch.setattr(data_module, "MAX_KEPT_BYTES", 0)
    again = made.item(1)
    assert made.item(1) is not again
    assert torch.equal(made.item(1).features, again.features)
