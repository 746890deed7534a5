"""Ways of finding dialogues: each by itself, fused, and how a hit says what found it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chat_builds import Letters, add, no_bar, said, stored_encoder

from ffr.corpus.archive import Archive
from ffr.corpus.indexing import index_store
from ffr.corpus.recall import Trace, _fused
from ffr.corpus.store import Store
from ffr.corpus.ways import WAYS
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
    assert {way: trace.rank for way, trace in first.traces.items()} == {
        "words": 1,
        "lines": 1,
        "segments": 1,
    }
    assert first.traces["words"].messages == first.traces["lines"].messages == (3,)


def test_ways_are_added_up_in_deviations_above_their_last_dialogue(archive: Archive) -> None:
    earned = dict.fromkeys(range(1, 6), 0.0)
    for way in ("words", "lines", "segments"):
        # a dialogue without any of the words has none of their score
        scores = dict.fromkeys(range(1, 6), 0.0)
        for item in archive.recall("aa bus", ways=[way]):
            scores[item.where[0]] = item.traces[way].score
        values = np.array(list(scores.values()))
        for chat, value in zip(scores, (values - values.min()) / values.std(), strict=True):
            earned[chat] += float(value)
    assert sorted(earned.values()) == sorted(set(earned.values()))
    assert _chats(archive, "aa bus") == sorted(earned, key=lambda chat: -earned[chat])


def test_a_way_without_any_difference_decides_nothing(archive: Archive) -> None:
    by_lines = {
        item.where: item.traces["lines"] for item in archive.recall("aab tram", ways=["lines"])
    }
    same = {(number, 0): Trace(number, 2.0, (number,)) for number in range(1, 6)}
    fused = _fused({"words": same, "lines": by_lines}, {}, 5)
    assert [item.where[0] for item in fused] == _chats(archive, "aab tram", ways=["lines"])
    assert fused[0].where[0] == 2


def test_what_lies_close_to_any_query_counts_less(archive: Archive) -> None:
    query = "aabb"
    before = {
        item.where[0]: item.traces["segments"] for item in archive.recall(query, ways=["segments"])
    }
    usual = Letters().embed_texts(["aabb tram", "tram", "aaaa", "zebra crossing"])
    asked = Archive(
        archive.store,
        None,
        archive.encoder,
        lambda given: Letters().embed_texts(given),
        usual_queries=usual,
    )
    after = {
        item.where[0]: item.traces["segments"] for item in asked.recall(query, ways=["segments"])
    }
    stored = Letters().embed_texts([f"p: {line}" for line in LINES])
    for number, vector in enumerate(stored, 1):
        # half the mean of the three that are nearest of the four
        nearest = float((usual @ vector).topk(3).values.mean())
        assert after[number].score == pytest.approx(before[number].score - nearest / 2, abs=1e-6)
    assert [chat for chat, trace in before.items() if trace.rank == 1] == [2]
    assert after[2].score - after[1].score < before[2].score - before[1].score


def test_a_number_of_dialogues_and_ways_that_cannot_be(archive: Archive) -> None:
    assert len(archive.recall("bus tram zebra", k=3)) == 3
    for ways, k in ((("moons",), 3), ("words", 3), ((), 3), (WAYS, 0), (WAYS, True)):
        with pytest.raises(UsageError, match=r"some of words|whole number from 1"):
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
        # nobody is asked inside: the segment of the best line, or the lines around it
        segment = [
            row["id"]
            for row in store.rows(
                "SELECT id FROM messages WHERE segment = (SELECT segment FROM messages WHERE id = 6)"
            )
        ]
        (hit,) = archive.search("qqqqqqqqqqqqq", ways=["lines"]).hits
        assert [line.id for line in hit.lines] == segment
        assert (hit.score, hit.found_by, dict(hit.ways)) == (None, ("recall",), {"lines": 1})
        store.database.execute("UPDATE messages SET segment = NULL")
        (hit,) = archive.search("qqqqqqqqqqqqq", ways=["lines"]).hits
        assert [line.id for line in hit.lines] == [4, 5, 6]


def test_three_close_lines_go_before_one_that_is_closer(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        for title, lines in {
            "one": ("qqqqqqqqqq", "zzzzzzzzzz", "zzzzzzzzzy"),
            "three": ("qqqqqqqqqx", "qqqqqqqqxx", "qqqqqqqqxy"),
        }.items():
            add(store, [said("Zoe", line, number) for number, line in enumerate(lines)], title)
        encoder = stored_encoder(store, Letters())
        index_store(store, [1, 2], encoder, None, say=print, bar=no_bar)
        archive = Archive(store, None, encoder, lambda given: Letters().embed_texts(given))
        vector = Letters().embed_texts(["q" * 10])[0].numpy()
        first, second = archive.recall("q" * 10, ways=["lines"])
        assert [first.where[0], second.where[0]] == [2, 1]
        cosines = [
            float(Letters().embed_texts([f"p: {text}"])[0].numpy() @ vector)
            for text in ("qqqqqqqqqx", "qqqqqqqqxx", "qqqqqqqqxy")
        ]
        assert first.traces["lines"].score == pytest.approx(np.mean(cosines), abs=1e-6)
        assert first.traces["lines"].messages == (4, 6, 5)


def test_what_two_ways_rank_low_goes_before_what_one_ranks_high(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        # by words the first is best and the second next; by letters the third, then the second
        lines = ["moon moon", "moon zqzqzqzqzq qz", "qzqzqz"]
        lines += [f"qzqzqz {'bcdfg'[number]}{'hjkl'[number % 4] * 2}" for number in range(4)]
        for number, line in enumerate(lines):
            add(store, (said("Zoe", line, number),), f"chat {number}")
        encoder = stored_encoder(store, Letters())
        index_store(store, store.numbers(), encoder, None, say=print, bar=no_bar)
        archive = Archive(store, None, encoder, lambda given: Letters().embed_texts(given))
        query = "moon qzqzqzqzqzqzqzqzqzqzqz"
        words, by_lines = (archive.recall(query, ways=[way]) for way in ("words", "lines"))
        assert [item.where[0] for item in words] == [1, 2]
        ranks = {item.where[0]: rank for rank, item in enumerate(by_lines, 1)}
        assert ranks[1] == len(lines)
        (first,) = archive.recall(query, ways=["words", "lines"], k=1)
        assert first.where[0] == 2
        assert first.traces["words"].rank == 2
