"""Full text that is scored here: the very scores of SQLite, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ffr.corpus import postings as module
from ffr.corpus.database import Database
from ffr.corpus.fts import FtsTexts
from ffr.corpus.postings import Postings, Scored
from ffr.corpus.schema import DATABASE, connect
from ffr.corpus.terms import query_terms, terms_of

# accents, a sign that SQLite takes for nothing, pairs of characters, and words of very different frequency
WORDS = [
    "café",
    "cafe",
    "naïve",
    "♯",
    "公交车",
    "🎉",
    *(f"w{n}" for n in range(30) for _ in range(30 - n)),
]
QUESTIONS = [
    "cafe w1 w2",
    "café",
    "w0",
    "w0 w29 公交",
    "♯ w3",
    "♯",
    "公交车 🎉 naive w1 w2 w3 w4 w5 w6 w7",
    "nowhere",
    "w0 nowhere",
    "w5 " * 400,
    " ".join(f"w{number}" for number in range(40)),
]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    random = np.random.default_rng(0)
    made = connect(tmp_path / DATABASE, is_new_allowed=True)
    # many of the same few words and length, so that many scores are equal; some of very many words
    lengths = [*random.integers(1, 9, 900), *random.integers(100, 400, 40), 20_000]
    texts = [" ".join(random.choice(WORDS, length)) for length in lengths]
    rows = [(7 * number + 3, " ".join(terms_of(text))) for number, text in enumerate(texts)]
    made.add_words("words", rows[: len(rows) // 2])
    made.add_words("words", rows[len(rows) // 2 :])
    made.forget_words("words", rows[::11])
    return made


def _by_sqlite(
    database: Database, terms: Sequence[str], *, is_every: bool
) -> list[tuple[int, float]]:
    matched, values = database.matched("words", terms, is_every=is_every)
    return [
        (id_, -score)
        for id_, score in database.tuples(
            f"SELECT id, score FROM {matched} AS m ORDER BY score, id", values
        )
    ]


def _listed(scored: Scored) -> list[tuple[int, float]]:
    return list(zip(scored.ids.tolist(), scored.scores.tolist(), strict=True))


@pytest.mark.parametrize("question", QUESTIONS)
def test_scores_and_order_are_those_of_sqlite(database: Database, question: str) -> None:
    terms = query_terms(question)
    scored = Postings(FtsTexts(database.tuples, "words")).scored(terms)
    some, whole = _listed(scored.best(9999)), _listed(scored[scored.is_whole].best(9999))
    # to the bit where the processor does not fuse a product with a sum
    for found, is_every in ((some, False), (whole, True)):
        expected = _by_sqlite(database, terms, is_every=is_every)
        assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
        assert dict(found) == pytest.approx(dict(expected), rel=1e-12)
    assert (len(some) > 0) == (question not in ("nowhere", "♯"))
    for number in (1, 5, 50):
        assert _listed(scored.best(number)) == some[:number]


def test_a_term_that_is_several_words_is_found_where_they_stand_together(
    database: Database,
) -> None:
    # as where SQLite does not know a letter in the midst of a word
    for terms in (["w0 w1"], ["w0 w0", "w3"], ["w0 w1 w2"], ["w1 nowhere"]):
        scored = Postings(FtsTexts(database.tuples, "words")).scored(terms)
        for found, is_every in ((scored, False), (scored[scored.is_whole], True)):
            expected = _by_sqlite(database, terms, is_every=is_every)
            listed = _listed(found.best(9999))
            assert [id_ for id_, _ in listed] == [id_ for id_, _ in expected]
            assert dict(listed) == pytest.approx(dict(expected), rel=1e-12)
    assert len(scored.ids) == 0


def test_many_scores_are_equal(database: Database) -> None:
    # else the order among equals would not have been looked at
    scored = Postings(FtsTexts(database.tuples, "words")).scored(["w0", "w1"])
    assert len(np.unique(scored.scores)) < len(scored.ids) / 2


def test_terms_that_were_asked_last_are_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 500)
    asked = list[Sequence[object]]()

    def ask(sql: str, values: Sequence[object]) -> list[tuple[object, ...]]:
        asked.extend([values] if values else [])
        return database.tuples(sql, values)

    postings = Postings(FtsTexts(ask, "words"))
    common, rare = "w0", "w29"
    expected = [_listed(postings.scored([term])) for term in (common, rare, rare)]
    assert [*asked] == [["w0"], ["w29"]]
    assert expected[1] == expected[2]
    for number in range(29):
        postings.scored([f"w{number}"])
    num_asked = len(asked)
    assert [_listed(postings.scored([term])) for term in (common, rare, rare)] == expected
    assert len(asked) == num_asked + 2


def test_a_store_without_words(tmp_path: Path) -> None:
    empty = connect(tmp_path / DATABASE, is_new_allowed=True)
    scored = Postings(FtsTexts(empty.tuples, "words")).scored(["w0"])
    assert _listed(scored) == _listed(scored.best(3)) == []
