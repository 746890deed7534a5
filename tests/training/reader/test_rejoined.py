"""New dialogues of old fragments: what is in them, in which order, and that a number names one."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder

from ffr.dialogue import Dialogue, Example, Fragment
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.training.common.reader_items import UnitTable
from ffr.training.reader.rejoined import Rejoined


def a_table(num_dialogues: int) -> UnitTable:
    """Dialogue n has lines n, of which the first n % 3 + 1 are its fragment, and a query that means nothing."""
    rows = torch.nn.functional.normalize(
        torch.randn(2, 1, 40, WIDTH, generator=torch.manual_seed(3)), dim=-1
    )
    shape = NetworkShape(width=16, num_heads=2, num_layers=1)
    reader = Reader.untrained(LetterEncoder(), Background(rows[0], rows[1]), shape=shape)
    examples: list[Any] = []
    for number in range(num_dialogues):
        chat = Dialogue.of([(f"s{place % 2}", f"{number} {place}") for place in range(6)])
        examples.append(Example(chat, f"{number} 0", Fragment(tuple(range(number % 3 + 1)))))
        examples.append(Example(chat, "nothing", Fragment()))

    class Data(list[Any]):
        def where(self, index: int) -> str:
            return f"{index}"

    encoder: Any = LetterEncoder()
    data: Any = Data(examples)
    table = UnitTable(reader, encoder, data)
    table.fill(range(len(examples)), str, "data")
    return table


@pytest.fixture(scope="module")
def table() -> UnitTable:
    return a_table(20)


def test_a_number_names_a_dialogue(table: UnitTable) -> None:
    one, again, other = (Rejoined(table, absent_share=0.2, seed=seed) for seed in (1, 1, 2))
    for number in range(20):
        assert torch.equal(one.item(number).features, again.item(number).features)
    assert any(
        one.item(number).features.shape != other.item(number).features.shape for number in range(20)
    )


def test_dialogues_have_from_three_to_nine_fragments_of_which_one_is_meant(
    table: UnitTable,
) -> None:
    made = Rejoined(table, absent_share=0.0, seed=0)
    sizes = Counter(int(made.item(number).labels.sum()) for number in range(200))
    # fragments of one, two and three lines, about as often
    assert sorted(sizes) == [1, 2, 3]
    assert min(sizes.values()) > 40
    lengths = [made.item(number).num_tokens for number in range(200)]
    assert min(lengths) >= 3
    assert max(lengths) <= 27
    assert len(set(lengths)) > 8


def test_the_meant_lines_are_the_querys_own(table: UnitTable) -> None:
    """A query is its fragment's first line, so that line is the likest: the first number of a unit's features tells."""
    made = Rejoined(table, absent_share=0.0, seed=0)
    right = 0
    for number in range(100):
        item = made.item(number)
        first = int(item.labels.nonzero()[0])
        right += int(item.features[:, 0].argmax()) == first
    assert right > 90


def test_a_share_of_the_queries_means_nothing(table: UnitTable) -> None:
    made = Rejoined(table, absent_share=0.25, seed=0)
    num_empty = sum(not bool(made.item(number).labels.any()) for number in range(400))
    assert 70 < num_empty < 130


def test_interleaved_fragments_keep_their_order(table: UnitTable) -> None:
    from ffr.training.reader import rejoined

    draw = random.Random(0)
    seen = set()
    for _ in range(50):
        order = rejoined._order([4, 2, 3], draw)
        assert sorted(order) == [(0, n) for n in range(4)] + [(1, n) for n in range(2)] + [
            (2, n) for n in range(3)
        ]
        for part in range(3):
            own = [number for place, number in order if place == part]
            assert own == sorted(own)
        seen.add(tuple(order))
    assert len(seen) > 2
    assert ((0, 0), (0, 1), (1, 0), (0, 2), (0, 3), (1, 1), (2, 0), (2, 1), (2, 2)) in seen


def test_too_few_dialogues_make_none() -> None:
    made = Rejoined(a_table(9), absent_share=0.0, seed=0)
    assert made.is_empty
    with pytest.raises(ValueError, match="too few dialogues to be rejoined"):
        made.item(0)
