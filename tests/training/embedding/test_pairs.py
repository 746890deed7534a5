"""Rows of a training: a query, its fragment, and what is no answer, out of the same dialogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffr.data.catalog import load_dataset
from ffr.data.forms.formats import write_examples
from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.training.embedding.pairs import pairs_of


def _dialogue(name: str, texts: str) -> Dialogue:
    return Dialogue(name, tuple(Utterance("Ann", (text,) if text != "-" else ()) for text in texts))


def _examples(*given: tuple[Dialogue, str, tuple[int, ...]]) -> list[Example]:
    return [Example(dialogue, query, Fragment(ids)) for dialogue, query, ids in given]


def _pairs(folder: Path, examples: list[Example], num_negatives: int, seed: int = 0):  # type: ignore[no-untyped-def]
    write_examples(folder / "x.jsonl", examples)
    return pairs_of(load_dataset(folder / "x.jsonl"), num_negatives, seed)


def test_the_fragment_is_what_a_query_lies_close_to(tmp_path: Path) -> None:
    talk = _dialogue("d", "abcdef")
    found = _pairs(
        tmp_path, _examples((talk, "one", (0, 1)), (talk, "two", (3,)), (talk, "none", ())), 1
    )
    assert found.queries == ("one", "two")
    assert found.positives == ("a\nb", "d")
    # the other query's fragment, not just any stretch
    assert found.negatives == (("d",), ("a\nb",))
    assert (found.num_left_out, found.num_from_elsewhere) == (1, 0)
    assert found.columns == {
        "anchor": ["one", "two"], "positive": ["a\nb", "d"], "negative_1": ["d", "a\nb"]
    }  # fmt: skip


def test_stretches_of_the_rest_stand_in_for_fragments(tmp_path: Path) -> None:
    talk = _dialogue("d", "abcdef")
    (row,) = _pairs(tmp_path, _examples((talk, "one", (0, 1))), 4).negatives
    # two others there are, and each comes again
    assert set(row) == {"c\nd", "e\nf"}
    assert row[:2] == row[2:]


def test_a_fragment_that_shares_a_line_is_no_negative(tmp_path: Path) -> None:
    talk = _dialogue("d", "abcd")
    found = _pairs(tmp_path, _examples((talk, "one", (0, 1)), (talk, "two", (1, 2))), 1)
    assert [set(row) for row in found.negatives] == [{"c\nd"}, {"a\nd"}]


def test_where_nothing_else_is_said_others_are_taken_and_counted(tmp_path: Path) -> None:
    whole, other = _dialogue("d", "ab"), _dialogue("e", "xyz")
    found = _pairs(tmp_path, _examples((whole, "one", (0, 1)), (other, "two", (0,))), 2)
    assert found.negatives[0] == ("x", "x")
    assert found.num_from_elsewhere == 1


def test_a_seed_draws_the_same_again(tmp_path: Path) -> None:
    talk = _dialogue("d", "abcdefghijkl")
    examples = _examples(*((talk, f"q{number}", (number,)) for number in range(12)))
    first, again, other = (_pairs(tmp_path, examples, 2, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.negatives != other.negatives
    assert all(len(row) == len(set(row)) == 2 for row in first.negatives)


@pytest.mark.parametrize("num_negatives", [0, 3])
def test_each_row_has_as_many_negatives(tmp_path: Path, num_negatives: int) -> None:
    talk = _dialogue("d", "abcdefg")
    found = _pairs(tmp_path, _examples((talk, "one", (0,)), (talk, "two", (2, 3))), num_negatives)
    assert {len(row) for row in found.negatives} == {num_negatives}
    assert len(found.columns) == 2 + num_negatives
