"""New dialogues of old fragments: what is in them, in which order, and that a number names one."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder

from ffr.dialogue import Dialogue, Example, Fragment, Image
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.training.common.reader_items import UnitTable
from ffr.training.reader.rejoined import Rejoined


class _Data(list[Any]):
    def where(self, index: int) -> str:
        return f"{index}"


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

    encoder: Any = LetterEncoder()
    data: Any = _Data(examples)
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


def a_table_with_pictures(num_dialogues: int) -> UnitTable:
    """Dialogue n is one fragment: a line, a picture whose words name n, and a line."""
    reader = a_table(2).reader
    examples = [
        Example(
            Dialogue.of(
                [("a", f"{n} 0"), ("b", Image(f"{n}.png")), ("a", f"{n} 2"), ("b", "other")]
            ),
            f"{n} 0",
            Fragment((0, 1, 2), (0,)),
        )
        for n in range(num_dialogues)
    ]

    class Tagger:
        tagger = None

        def words(self, pictures: list[Any]) -> list[str]:
            return [f"a photo of {Path(str(picture)).stem}" for picture in pictures]

    encoder: Any = LetterEncoder()
    data: Any = _Data(examples)
    tagger: Any = Tagger()
    table = UnitTable(reader, encoder, data, tagger)
    table.fill(range(num_dialogues), str, "data")
    return table


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_strange_picture_belongs_to_no_fragment(share: float) -> None:
    table = a_table_with_pictures(20)
    made = Rejoined(table, absent_share=0.0, seed=0, strange_pictures=share)
    num_meant, num_all = 0, 100
    for number in range(num_all):
        labels = made.item(number).labels
        # two lines, and the picture between them unless it shows something else
        assert int(labels.sum()) in (2, 3)
        num_meant += int(labels.sum()) == 3
    assert share * 0.7 <= 1 - num_meant / num_all <= share * 1.3
    plain = Rejoined(table, absent_share=0.0, seed=0)
    same = [torch.equal(plain.item(n).features, made.item(n).features) for n in range(20)]
    assert all(same) == (share == 0)


def test_what_a_strange_picture_shows_is_of_another_dialogue() -> None:
    table = a_table_with_pictures(20)
    made = Rejoined(table, absent_share=0.0, seed=0, strange_pictures=1.0)
    units = table.units(3)
    changed, is_strange = made._estranged(
        units, {table.data[3].dialogue.fingerprint}, random.Random(0)
    )
    assert is_strange.tolist() == [False, True, False, False]
    assert torch.equal(changed.vectors[[0, 2, 3]], units.vectors[[0, 2, 3]])
    shown = [torch.equal(changed.vectors[1], table.units(n).vectors[1]) for n in range(20)]
    assert sum(shown) == 1
    assert not shown[3]


def test_without_pictures_none_is_strange(table: UnitTable) -> None:
    plain, made = (Rejoined(table, absent_share=0.0, seed=0, strange_pictures=p) for p in (0, 1))
    assert not made.has_pictures
    for number in range(10):
        assert torch.equal(plain.item(number).features, made.item(number).features)
        assert torch.equal(plain.item(number).labels, made.item(number).labels)


def test_too_few_dialogues_make_none() -> None:
    made = Rejoined(a_table(9), absent_share=0.0, seed=0)
    assert made.is_empty
    with pytest.raises(ValueError, match="too few dialogues to be rejoined"):
        made.item(0)
