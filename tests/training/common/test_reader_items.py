"""Examples as a reader takes them: labels, padding, lengths, and each text embedded once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reader_builds import WIDTH, LetterEncoder

from ffr.dialogue import Dialogue, Example, Fragment, Image
from ffr.errors import DataError
from ffr.reader.likeness import Background
from ffr.reader.model import Reader
from ffr.reader.network import NetworkShape
from ffr.training.common.reader_items import (
    UnitTable,
    batch_of,
    check_lengths,
    item_of,
    num_units,
    stranger_items,
)

LONG = Dialogue.of([("a", "the bus"), ("b", ["look", Image("bus.png")]), ("a", Image("x.png"))])
SHORT = Dialogue.of([("a", "a cat"), ("b", "a dog")])


class Data(list[Any]):
    def where(self, index: int) -> str:
        return f"d.jsonl:{index + 1}"


def a_reader() -> Reader:
    rows = torch.randn(2, 1, 40, WIDTH, generator=torch.manual_seed(3))
    rows = torch.nn.functional.normalize(rows, dim=-1)
    shape = NetworkShape(width=16, num_heads=2, num_layers=1)
    return Reader.untrained(LetterEncoder(), Background(rows[0], rows[1]), shape=shape)


def a_table(*examples: Example) -> tuple[UnitTable, LetterEncoder, list[str]]:
    encoder: Any = LetterEncoder()
    data: Any = Data(examples)
    told: list[str] = []
    table = UnitTable(a_reader(), encoder, data)
    table.fill(range(len(examples)), told.append, "data")
    return table, encoder, told


def test_the_units_of_a_fragment_are_its_labels() -> None:
    table, _, _ = a_table(
        Example(LONG, "bus", Fragment((1,), (1,))), Example(SHORT, "q", Fragment())
    )
    assert table.labels(0).tolist() == [False, True, False, True]
    assert table.labels(1).tolist() == [False, False]
    assert num_units(LONG) == len(table.units(0)) == 4


def test_a_batch_is_padded_and_counts_each_example_alike() -> None:
    table, _, _ = a_table(
        Example(LONG, "bus", Fragment((0,))), Example(SHORT, "cat", Fragment((0, 1)))
    )
    items = [table.item(0), table.item(1)]
    assert [(item.num_answer_tokens, item.num_tokens) for item in items] == [(1, 4), (1, 2)]
    inputs, labels = batch_of(items)
    assert inputs.mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert labels.tolist() == [[True, False, False, False], [True, True, False, False]]
    # what a network says of an example does not hang on what stands beside it
    together, nothing = table.reader.logits(inputs)
    alone, alone_nothing = table.reader.logits(batch_of(items[1:])[0])
    assert torch.allclose(together[1, :2], alone[0], atol=1e-5)
    assert torch.allclose(nothing[1], alone_nothing[0], atol=1e-5)


def test_dialogues_and_queries_are_embedded_once() -> None:
    examples = [Example(LONG, query, Fragment()) for query in ("bus", "tea", "bus")] * 2
    _, encoder, told = a_table(*examples)
    assert sorted(encoder.seen) == ["bus", "look", "tea", "the bus"]
    assert told[-1] == "  data: 6 of 6 examples have their vectors"
    assert len(told) == 5


def test_a_dialogue_that_is_too_long_is_named() -> None:
    data: Any = Data([Example(SHORT, "q", Fragment()), Example(LONG, "q", Fragment())])
    check_lengths(data, 4, range(2))
    check_lengths(data, 3, [0])
    with pytest.raises(DataError, match=r"d\.jsonl:2: its dialogue has 4 utterances and pictures"):
        check_lengths(data, 3, range(2))


def test_what_has_no_truth_or_no_fitting_labels_is_refused() -> None:
    table, _, _ = a_table(Example(SHORT, "cat", None))
    with pytest.raises(DataError, match=r"d\.jsonl:1: has no true answer"):
        table.item(0)
    with pytest.raises(ValueError, match=r"\(3,\) labels beside 2 units"):
        item_of(table.reader, table.units(0), table.query(0), torch.zeros(3).bool())


def test_strangers_are_queries_of_other_dialogues_that_are_not_asked_of_this_one() -> None:
    third = Dialogue.of([("a", "one zebra")])
    examples = [
        Example(LONG, "bus", Fragment((0,))),
        Example(SHORT, "cat", Fragment((0,))),
        # asked of both, so that it is a stranger to neither
        Example(LONG, "cat", Fragment()),
        Example(third, "quiz", Fragment((0,))),
        # what means nothing at home tells nothing elsewhere
        Example(third, "void", Fragment()),
    ]
    table, _, _ = a_table(*examples)
    items = stranger_items(table, range(5), each=20, seed=0)
    assert len(items) == 100
    assert not any(bool(item.labels.any()) for item in items)
    allowed = {4: {"quiz"}, 2: {"bus", "quiz"}, 1: {"bus", "cat"}}
    vectors = {
        text: table.query([e.query for e in examples].index(text))
        for text in ("bus", "cat", "quiz", "void")
    }
    units = {4: table.units(0), 2: table.units(1), 1: table.units(3)}
    met: dict[int, set[str]] = {1: set(), 2: set(), 4: set()}
    for item in items:
        size = len(item.labels)
        for text, vector in vectors.items():
            expected = item_of(table.reader, units[size], vector, item.labels)
            if torch.equal(item.features, expected.features):
                met[size].add(text)
    assert met == allowed
    again = stranger_items(table, range(5), each=20, seed=0)
    assert all(torch.equal(a.features, b.features) for a, b in zip(items, again, strict=True))


def test_one_dialogue_alone_has_no_strangers() -> None:
    table, _, _ = a_table(Example(LONG, "bus", Fragment((0,))), Example(LONG, "x", Fragment((1,))))
    assert stranger_items(table, range(2), each=3, seed=0) == []
