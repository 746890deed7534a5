"""The examples of a file: found by number, named by line, known by what is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from ffr.data.dataset import (
    NUM_SHOWN_REASONS,
    FirstExamples,
    IdentityOfData,
    data_fingerprint,
    data_identity,
    open_dataset,
)
from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.errors import DataError

Record = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture
def mixed(write: Write, record: Record, raw_record: Record) -> Path:
    """Five examples: one of the first line, two of the second, two of the third."""
    other = {**raw_record, "dialogue_id": "r1", "query_text": ["the cat!", "greeting!"]}
    return write("a.jsonl", record, raw_record, other)


# -- by number ----------------------------------------------------------------------------------------------------------------


def test_examples_by_number(mixed: Path) -> None:
    data = open_dataset(mixed)
    queries = ["猫", "the cat", "greeting", "the cat!", "greeting!"]
    assert len(data) == 5
    assert [example.query for example in data] == queries
    assert [data[number].query for number in range(5)] == queries
    assert [data[number - 5].query for number in range(5)] == queries
    assert [example.query for example in data[3:0:-2]] == ["the cat!", "the cat"]
    assert data[1].fragment == Fragment((1, 2), (0, 1))
    # of a record read once, whichever of its queries was asked for last
    assert [data[number].query for number in (4, 1, 3, 2)] == [queries[i] for i in (4, 1, 3, 2)]
    for number in (5, -6):
        with pytest.raises(IndexError, match=f"example {number} of 5"):
            data[number]


def test_examples_are_named_by_line_and_query(
    mixed: Path, write: Write, raw_record: Record
) -> None:
    data = open_dataset(mixed)
    assert [data.where(number) for number in range(5)] == [
        "a.jsonl:1",
        "a.jsonl:2, query 0",
        "a.jsonl:2, query 1",
        "a.jsonl:3, query 0",
        "a.jsonl:3, query 1",
    ]
    assert data.where(-1) == "a.jsonl:3, query 1"
    with pytest.raises(IndexError, match="example 5 of 5"):
        data.where(5)


def test_the_only_example_of_a_file_has_no_query_number(write: Write, record: Record) -> None:
    assert open_dataset(write("b.jsonl", record)).where(0) == "b.jsonl:1"


def test_first_examples_of_many_queries(mixed: Path) -> None:
    few = FirstExamples(open_dataset(mixed), 2)
    assert [example.query for example in few] == ["猫", "the cat"]
    assert [example.query for example in few[1:]] == ["the cat"]
    assert few[-1].query == "the cat"


# -- what is left out ---------------------------------------------------------------------------------------------------------


def test_a_fault_ends_the_reading_or_is_left_out(write: Write, record: Record) -> None:
    path = write("a.jsonl", record, {**record, "dialogue_id": "e", "solution": "x"})
    with pytest.raises(
        DataError, match=r"^a\.jsonl:2: .solution. is .x., not in the answer format"
    ):
        open_dataset(path)
    data = open_dataset(path, skip_bad=True)
    assert (len(data), data.num_left_out) == (1, 1)
    assert data.left_out[0].startswith("a.jsonl:2: ")


def test_a_repeated_query_is_left_out_and_its_neighbour_stays(
    write: Write, raw_record: Record
) -> None:
    path = write("a.jsonl", {**raw_record, "query_text": ["the cat", "the cat"]})
    data = open_dataset(path, skip_bad=True)
    assert [example.query for example in data] == ["the cat"]
    assert data.num_left_out == 1
    assert data.where(0) == "a.jsonl:1", "the one that is left is the record's only one"


def test_all_are_counted_and_the_first_reasons_kept(write: Write, record: Record) -> None:
    bad = [
        {**record, "dialogue_id": f"e{number}", "solution": f"{number}"}
        for number in range(NUM_SHOWN_REASONS + 3)
    ]
    data = open_dataset(write("a.jsonl", record, *bad), skip_bad=True)
    assert data.num_left_out == NUM_SHOWN_REASONS + 3
    assert [reason.split(":")[1] for reason in data.left_out] == [
        str(number + 2) for number in range(NUM_SHOWN_REASONS)
    ]


def test_nothing_usable_is_a_fault_with_its_first_reason(write: Write, record: Record) -> None:
    bad = write("a.jsonl", {**record, "solution": "x"})
    with pytest.raises(
        DataError, match=r"a\.jsonl: holds no usable record; the first fault: a\.jsonl:1"
    ):
        open_dataset(bad, skip_bad=True)


# -- what names data ----------------------------------------------------------------------------------------------------------


def test_data_are_known_by_what_is_in_them(write: Write, folder: Path, mixed: Path) -> None:
    """The same examples by hand and from a list: the same name. Each part of an example changes it."""
    lines = [json.loads(line) for line in mixed.read_text().splitlines()]
    first = open_dataset(mixed)
    assert data_identity(first) is first.identity
    again = open_dataset(write("b.json", *lines, indent=2))
    assert again.fingerprint == first.fingerprint == data_fingerprint(list(first))
    swapped = open_dataset(write("c.jsonl", lines[1], lines[0], lines[2]))
    assert swapped.fingerprint != first.fingerprint

    PIL.Image.new("RGB", (8, 6), (9, 9, 9)).save(folder / "images" / "a.png")
    repainted = open_dataset(mixed)
    assert repainted.fingerprint != first.fingerprint
    assert repainted.identity.text_fingerprint == first.identity.text_fingerprint


def test_each_part_of_an_example_counts() -> None:
    def name(*examples: Example) -> str:
        found = IdentityOfData()
        for example in examples:
            found.add(example)
        return found.identity().text_fingerprint

    chat = Dialogue("d", (Utterance("a", ("hi",)),))
    other = Dialogue("d", (Utterance("a", ("ho",)),))
    variants = [
        (),
        (Example(chat, "q"),),
        (Example(chat, "p"),),
        (Example(other, "q"),),
        (Example(chat, "q", Fragment()),),
        (Example(chat, "q", Fragment((0,))),),
        (Example(chat, "q"), Example(chat, "q")),
    ]
    assert len({name(*examples) for examples in variants}) == len(variants)


def test_pictures_that_cannot_be_read_are_counted(write: Write, folder: Path, mixed: Path) -> None:
    (folder / "images" / "b.png").write_bytes(b"no picture")
    (folder / "images" / "a.png").unlink()
    data = open_dataset(mixed, require_images=False)
    # five examples with both pictures each; what is no picture still has bytes
    assert data.identity.num_unread_images == 5
