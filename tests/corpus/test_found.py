"""Hits of one dialogue that share lines, and the order in which hits stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from chat_builds import add, said

from ffr.corpus.found import Found, Hit, in_order, merged, told_apart
from ffr.corpus.store import Store


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Store(tmp_path / "s", is_new_allowed=True) as opened:
        add(opened, [said("Zoe", f"line {number}", number) for number in range(9)])
        yield opened


def _hit(store: Store, places: Sequence[int], score: float | None, *by: str) -> Hit:
    (chat,) = store.chats()
    lines = [line for line in store.lines(1, 0, 9) if line.place in places]
    return Hit(chat, tuple(lines), frozenset({(places[0], 0)}), score, by or ("meaning",))


def _places(hits: Sequence[Hit]) -> list[list[int]]:
    return [[line.place for line in hit.lines] for hit in hits]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([[1, 2], [1, 2]], [[1, 2]]),
        ([[1, 2, 3], [2]], [[1, 2, 3]]),
        ([[1, 2], [2, 5]], [[1, 2, 5]]),
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        # what joins two brings them together, where the first of them stood
        ([[1], [5], [3], [1, 3]], [[1, 3], [5]]),
    ],
)
def test_hits_that_share_a_line_are_one(
    store: Store, given: list[list[int]], expected: list[list[int]]
) -> None:
    hits = [_hit(store, places, 0.1 * number) for number, places in enumerate(given)]
    assert _places(merged(hits)) == expected


def test_one_hit_of_two_has_what_both_have(store: Store) -> None:
    (one,) = merged([_hit(store, [1, 2], 0.4), _hit(store, [2, 3], None, "words")])
    assert (one.score, one.found_by) == (0.4, ("meaning", "words"))
    assert one.pictures == {(1, 0), (2, 0)}
    assert (one.where, one.span) == ((1, 0), (1, 3))


def test_weak_hits_stand_last_and_are_cut_first(store: Store) -> None:
    hits = [_hit(store, [number], score) for number, score in enumerate((0.3, 0.9, None, 0.6))]
    ordered = in_order(told_apart(hits))
    assert [hit.is_weak for hit in ordered] == [False, False, False, True]
    assert ordered[-1].score == 0.3
    found = Found("x", tuple(ordered), 9, 9, 0, 0)
    assert _places(found.cut(2, has_weak=False).hits) == _places(ordered[:2])
    assert found.cut(2, has_weak=False).num_more == 1
    assert found.cut(9, has_weak=True).hits == tuple(ordered)


def test_the_order_weighs_the_score_and_how_a_dialogue_was_recalled(store: Store) -> None:
    def recalled(place: int, score: float | None, **likenesses: float) -> Hit:
        return replace(_hit(store, [place], score), likenesses=likenesses)

    # the model is about as sure of all: what lies closest goes first, whatever it is found by
    alike = [
        recalled(0, 0.80, lines=0.5, segments=0.5),
        recalled(1, 0.81, lines=0.9, segments=0.5, words=7.0),
        recalled(2, 0.80, lines=0.5, segments=0.8),
        recalled(3, 0.79, pictures=0.2),
    ]
    assert _places(in_order(alike)) == [[1], [2], [0], [3]]
    # a score that is much surer outweighs likenesses, one that is not known does not count
    unlike = [
        recalled(0, 0.6, lines=0.9),
        recalled(1, 0.99, lines=0.5),
        recalled(2, None, lines=0.9),
    ]
    assert _places(in_order(unlike)) == [[1], [0], [2]]
    # what has every word goes first, and the weak last
    words = replace(recalled(4, None), found_by=("words",))
    weak = replace(recalled(5, 0.99, lines=9.0), is_weak=True)
    assert _places(in_order([weak, *unlike, words])) == [[4], [1], [0], [2], [5]]


def test_hits_that_nothing_tells_apart_stay_in_the_order_of_recall(store: Store) -> None:
    hits = [replace(_hit(store, [place], None), likenesses={"lines": 0.5}) for place in (3, 1, 2)]
    assert _places(in_order(hits)) == [[3], [1], [2]]
    assert in_order([]) == []


def test_what_could_not_be_answered_is_said() -> None:
    found = Found("x", (), 7, 9, 2, 0, ("chat 3: the server is gone", "another"))
    assert found.searched == (
        "searched 7 of 9 messages; 2 lines could not be read; 2 dialogues could not "
        "be answered on, the first because chat 3: the server is gone"
    )
