"""BM25 by hand, and against the formula written out."""

from __future__ import annotations

import math

import pytest

from ffr.retrieval.bm25 import BM25_B, BM25_K1, Bm25Index


def test_a_term_is_weighed_by_how_rare_it_is_and_counts_once() -> None:
    index = Bm25Index([["bus", "late"], ["bus"], ["tea", "tea", "tea"]])
    match = index.match("bus")
    assert match.places.tolist() == [0, 1]
    assert match.weight == pytest.approx(math.log(1 + 1.5 / 2.5))
    once, twice = index.scores(["bus"]), index.scores(["bus", "bus", "zebra"])
    assert once.tolist() == twice.tolist()
    assert once[1] > once[0] > once[2] == 0


def test_a_score_is_that_of_the_formula() -> None:
    texts = [["a", "b", "b"], ["b"], ["c", "a", "a", "a"]]
    mean = 8 / 3
    for number, text in enumerate(texts):
        expected = 0.0
        for term in ("a", "b"):
            held = sum(term in other for other in texts)
            norm = 1 - BM25_B + BM25_B * len(text) / mean
            often = text.count(term)
            weight = math.log(1 + (3 - held + 0.5) / (held + 0.5))
            expected += weight * often * (BM25_K1 + 1) / (often + BM25_K1 * norm)
        assert Bm25Index(texts).scores(["a", "b"])[number] == pytest.approx(expected)


def test_of_no_texts_and_of_texts_without_a_term() -> None:
    assert Bm25Index([]).scores(["a"]).tolist() == []
    assert Bm25Index([[], []]).scores(["a"]).tolist() == [0.0, 0.0]
