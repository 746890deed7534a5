"""What recall compares, as arrays."""

from __future__ import annotations

import numpy as np
import pytest

from ffr.corpus.candidates import Candidates, Rows


def _rows(*places: tuple[int, int]) -> Rows:
    """Lines of these dialogues, without vectors."""
    chats, dialogues = np.array(places, np.int64).reshape(-1, 2).T
    return Rows(np.arange(len(places)), chats, dialogues, np.full(len(places), -1))


@pytest.mark.parametrize(
    "places",
    [
        [],
        [(3, 0)],
        [(2, 1), (1, 10), (2, 0), (1, 10), (1, 2), (2, 1)],
        [(1, 0), (10**9, 10**9)],
    ],
)
def test_each_dialogue_is_named_once_in_order(places: list[tuple[int, int]]) -> None:
    found = Candidates(_rows(*places), _rows(), _rows())
    assert found.wheres == sorted(set(places))
    assert found.num_messages == len(places)


def test_messages_are_known_by_their_number() -> None:
    lines = Rows(np.array([2, 5, 6]), np.ones(3, int), np.array([0, 0, 1]), np.full(3, -1))
    asked = np.array([0, 2, 3, 5, 6, 7, 10**12])
    assert lines.have(asked).tolist() == [False, True, False, True, True, False, False]
    assert lines.numbers_of(np.array([6, 2])).tolist() == [2, 0]
    assert _rows().have(asked).tolist() == [False] * 7
