"""Numbers in a list of ids as models write it: each by its value, or as something that is no id."""

from __future__ import annotations

import pytest

from ffr.written_ids import MAX_ID, NO_IDS_FROM, read_numbers


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ("[]", []),
        ("[0, 3, 4]", [0, 3, 4]),
        ("0 3;4，5\n6", [0, 3, 4, 5, 6]),
        ("[00, +0, 0.0, 3e0]", [0, 0, 0, 3]),
        ("[1. 2.]", [1, 2]),  # the end of a sentence is no decimal
        (f"[{MAX_ID}]", [MAX_ID]),
        ("none of them, e", []),
    ],
)
def test_ids(body: str, ids: list[int]) -> None:
    assert read_numbers(body) == (ids, False)


@pytest.mark.parametrize(
    ("body", "num_others"),
    [
        ("[-1]", 1),
        ("[1.5]", 1),
        ("[3-7]", 1),  # neither 3 nor 7, and one thing
        ("[3 to 7]", 1),
        ("[３]", 1),  # a digit of another script
        ("[id5]", 1),
        ("[NaN, Infinity]", 2),
        ("[-1, -1, -2]", 2),  # the same thing is one number
        ("[" + "9" * 401 + "]", 1),
    ],
)
def test_what_is_no_id_becomes_a_number_that_no_dialogue_has(body: str, num_others: int) -> None:
    found, has_others = read_numbers(body)
    assert has_others
    assert sorted(set(found)) == [NO_IDS_FROM + number for number in range(num_others)]


def test_a_number_beyond_the_format_keeps_its_value_and_is_told() -> None:
    assert read_numbers(f"[7, {MAX_ID + 1}]") == ([7, MAX_ID + 1], True)
