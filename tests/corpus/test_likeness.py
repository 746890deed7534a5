"""Dialogues are held beside each other by the cosines of what is closest in each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chat_builds import Letters, add, no_bar, said, stored_encoder

from ffr.corpus.archive import Archive
from ffr.corpus.candidates import Rows
from ffr.corpus.indexing import index_store
from ffr.corpus.likeness import likenesses
from ffr.corpus.nearest import Matrix
from ffr.corpus.store import Store


def _matrix(cosines: list[float]) -> Matrix:
    rows = [[cosine, np.sqrt(1 - cosine**2)] for cosine in cosines]
    return Matrix(np.array(rows, np.float32))


QUERY = np.array([1, 0], np.float32)


def _rows(dialogues: list[tuple[int, int]], places: list[int]) -> Rows:
    chats, numbers = np.array(dialogues).T
    return Rows(np.arange(len(places)), chats, numbers, np.array(places))


def test_of_lines_the_best_three_count_and_what_is_missing_as_the_least() -> None:
    matrix = _matrix([0.9, 0.8, 0.7, 0.2, 0.95])
    rows = _rows([(1, 0)] * 4 + [(1, 1)] * 2, [0, 1, 2, 3, 4, -1])
    found = likenesses([(1, 0), (1, 1)], {"lines": rows, "segments": rows}, matrix, QUERY)
    assert found[1, 0] == pytest.approx({"lines": 0.8, "segments": 0.9}, abs=1e-6)
    # one line alone: the least that counts is 0.7
    assert found[1, 1] == pytest.approx({"lines": (0.95 + 0.7 + 0.7) / 3, "segments": 0.95})


def test_a_line_that_is_said_twice_counts_once() -> None:
    rows = _rows([(1, 0)] * 4, [0, 0, 1, 2])
    found = likenesses([(1, 0)], {"lines": rows}, _matrix([0.9, 0.6, 0.3]), QUERY)
    assert found[1, 0]["lines"] == pytest.approx(0.6)


def test_dialogues_that_are_not_asked_for_or_have_no_vector_have_no_likeness() -> None:
    rows = _rows([(1, 0), (2, 0), (10, 3)], [0, -1, 1])
    found = likenesses([(2, 0), (10, 3), (7, 9)], {"pictures": rows}, _matrix([0.9, 0.6]), QUERY)
    assert found == {(2, 0): {}, (10, 3): {"pictures": pytest.approx(0.6)}, (7, 9): {}}


def test_a_search_orders_hits_by_plain_cosines_whichever_way_found_them(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        for number, line in enumerate(("aabb tram", "bbbb tram", "cccc bus")):
            add(store, (said("Zoe", line, number),), f"chat {number}")
        encoder = stored_encoder(store, Letters())
        index_store(store, store.numbers(), encoder, None, say=print, bar=no_bar)
        usual = Letters().embed_texts(["aabb tram", "tram"])
        archive = Archive(
            store, None, encoder, lambda given: Letters().embed_texts(given), usual_queries=usual
        )
        recalled = {item.where[0]: item for item in archive.recall("aabb tram")}
        vector = Letters().embed_texts(["aabb tram"])[0].numpy()
        for number, line in enumerate(("aabb tram", "bbbb tram", "cccc bus"), 1):
            cosine = float(Letters().embed_texts([f"p: {line}"])[0].numpy() @ vector)
            item = recalled[number]
            assert item.likenesses["segments"] == pytest.approx(cosine, abs=1e-6)
            assert item.traces["segments"].score < cosine
        # BM25 of those alone that the words found
        assert recalled[1].likenesses["words"] == recalled[1].traces["words"].score
        assert "words" not in recalled[3].likenesses
        hits = archive.search("aabb tram").hits
        assert {hit.chat.id: hit.likenesses for hit in hits} == {
            number: item.likenesses for number, item in recalled.items()
        }
        alone = archive.recall("aabb tram", ways=["words"])
        assert all(set(item.likenesses) == {"words"} for item in alone)
