"""Ways of finding dialogues: each by itself, fused, and how a hit says what found it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chat_builds import Letters, add, no_bar, said, stored_encoder

from ffr.corpus.archive import Archive
from ffr.corpus.indexing import index_store
from ffr.corpus.recall import WAYS, Trace, _largest
from ffr.corpus.store import Store
from ffr.errors import UsageError
from ffr.retrieval.lexical import BaselineRetriever

LINES = ("aaaa bus", "aabb tram", "bbbb tram", "cccc bus bus", "dddd zebra crossing here")


@pytest.fixture
def archive(tmp_path: Path):  # type: ignore[no-untyped-def]
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        for number, line in enumerate(LINES):
            add(store, (said("Zoe", line, number),), f"chat {number}")
        encoder = stored_encoder(store, Letters())
        index_store(store, store.numbers(), encoder, None, say=print, bar=no_bar)
        yield Archive(
            store, BaselineRetriever("nothing"), encoder, lambda given: Letters().embed_texts(given)
        )


def _chats(archive: Archive, query: str, **asked: object) -> list[int]:
    return [item.where[0] for item in archive.recall(query, **asked)]  # type: ignore[arg-type]


def test_each_way_finds_what_it_knows(archive: Archive) -> None:
    # BM25: the shorter of two lines that have the word twice as often is first
    assert _chats(archive, "bus", ways=["words"]) == [4, 1]
    assert _chats(archive, "aaaa", ways=["lines"], k=2) == [1, 2]
    assert _chats(archive, "bus", ways=["pictures"]) == []
    (first, *_) = archive.recall("tram bbbb")
    assert first.where == (3, 0)
    assert first.exact_lines == (3,)
    assert {way: trace.rank for way, trace in first.traces.items()} == {"words": 1, "lines": 1}
    assert first.traces["words"].messages == first.traces["lines"].messages == (3,)


def test_ways_are_fused_by_their_ranks(archive: Archive) -> None:
    words = _chats(archive, "aa bus", ways=["words"])
    lines = _chats(archive, "aa bus", ways=["lines"])
    earned: dict[int, float] = {}
    for ranking in (words, lines):
        for rank, chat in enumerate(ranking, 1):
            earned[chat] = earned.get(chat, 0.0) + 1 / (60 + rank)
    assert _chats(archive, "aa bus") == sorted(earned, key=lambda chat: -earned[chat])


def test_a_number_of_dialogues_and_ways_that_cannot_be(archive: Archive) -> None:
    assert len(archive.recall("bus tram zebra", k=3)) == 3
    for ways, k in ((("moons",), 3), ("words", 3), ((), 3), (WAYS, 0), (WAYS, True)):
        with pytest.raises(UsageError, match=r"name some of|whole number from 1"):
            archive.recall("bus", ways=ways, k=k)


def test_a_dialogue_is_known_by_its_best_lines(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        lines = [said("Zoe", "x" * 9 + "q" * number, number) for number in range(6)]
        add(store, lines, "long")
        encoder = stored_encoder(store, Letters())
        index_store(store, [1], encoder, None, say=print, bar=no_bar)
        archive = Archive(store, None, encoder, lambda given: Letters().embed_texts(given))
        (one,) = archive.recall("qqqqqqqqqqqqq", ways=["lines"])
        assert one.traces["lines"].messages == (6, 5, 4)
        assert one.messages == [6, 5, 4]
        assert isinstance(one.traces["lines"], Trace)
        # nobody is asked inside: the passage around the best line
        (hit,) = archive.search("qqqqqqqqqqqqq").hits
        assert [line.id for line in hit.lines] == [4, 5, 6]
        assert (hit.score, hit.found_by, dict(hit.ways)) == (None, ("recall",), {"lines": 1})


@pytest.mark.parametrize("number", [1, 3, 7, 50])
def test_the_largest_are_those_of_a_whole_sort(number: int) -> None:
    scores = np.random.default_rng(number).integers(0, 9, 40).astype(np.float32)
    whole = sorted(range(40), key=lambda place: -scores[place])
    found = list(_largest(scores, number))
    # equal scores stand in their order, and none of those that are equal to the last is lost
    assert found == whole[: len(found)]
    assert len(found) >= min(number, 40)
