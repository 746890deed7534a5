"""Queries on one dialogue, found wherever they stand, and cut where they are many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ffr.dialogue import Dialogue, Example, Utterance
from ffr.training.common.packs import packs_of_queries


def on(names: str) -> list[Example]:
    """A query on each of these dialogues, which differ by what is said; their ids are all different."""
    return [
        Example(Dialogue(str(number), (Utterance("a", (name,)),)), f"q{number}")
        for number, name in enumerate(names)
    ]


def test_queries_on_one_dialogue_are_together_in_the_order_of_the_first() -> None:
    assert packs_of_queries(on("abacb")) == [[0, 2], [1, 4], [3]]
    assert packs_of_queries([]) == []


def test_a_dialogue_with_many_is_cut_into_parts_of_like_size() -> None:
    """Seven of at most three are 2 + 2 + 3, not 3 + 3 + 1; the parts stand where they begin."""
    assert packs_of_queries(on("aaaaaaa"), max_queries=3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert packs_of_queries(on("aaaaaa"), max_queries=3) == [[0, 1, 2], [3, 4, 5]]
    assert packs_of_queries(on("abaaa"), max_queries=2) == [[0, 2], [1], [3, 4]]
    assert packs_of_queries(on("aba"), max_queries=1) == [[0], [1], [2]]


@given(st.text("abc", max_size=40), st.integers(1, 9))
def test_each_query_is_in_one_pack(names: str, most: int) -> None:
    packs = packs_of_queries(on(names), max_queries=most)
    assert sorted(index for pack in packs for index in pack) == list(range(len(names)))
    for pack in packs:
        assert 1 <= len(pack) <= most
        assert len({names[index] for index in pack}) == 1
        assert pack == sorted(pack)
    for name in set(names):
        sizes = [len(pack) for pack in packs if names[pack[0]] == name]
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-names.count(name) // most)
