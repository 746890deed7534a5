"""Messages that have the words of a question: the same, whoever scores them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from chat_builds import add, said

from ffr.chats.chat import Media
from ffr.corpus.candidates import candidates
from ffr.corpus.filters import Filters
from ffr.corpus.forgetting import forget_chats
from ffr.corpus.store import Store
from ffr.corpus.words import WordSearch


@pytest.mark.parametrize(
    ("filters", "is_all_found"),
    [
        (Filters(), True),
        (Filters(chats=(2, 3)), True),
        (Filters(by=("Bob",)), True),
        (Filters(since=date(2023, 5, 13), until=date(2023, 5, 13)), True),
        (Filters(has="photo"), True),
        (Filters(chats=(5,)), False),
    ],
)
def test_postings_give_what_the_engine_gives(
    place: str | Path, filters: Filters, is_all_found: bool
) -> None:
    random = np.random.default_rng(0)
    words = [f"w{n}" for n in range(12) for _ in range(12 - n)]
    with Store(place, is_new_allowed=True) as store:
        for title in ("one", "two", "three", "gone"):
            lines = [
                said(
                    "Bob" if number % 3 else "Ann",
                    " ".join(random.choice(words, random.integers(1, 6))),
                    60 * number,
                    *(
                        [Media("picture", "a.png", "a.png")]
                        if title == "two" and number == 9
                        else []
                    ),
                )
                for number in range(60)
            ]
            add(store, [*lines, said("Bob", "w1 joined", 9999, kind="system")], title)
        add(store, [said("Zoe", "w3 w4 w4 w5")], "later")
        forget_chats(store, [4])
        found = candidates(store, filters, None, None)
        search = WordSearch(store, store.database.postings("words"), found, filters)
        for terms in (["w0"], ["w0", "w1"], ["w9", "w0", "w1", "w2"], ["w11", "none"], ["none"]):
            for number in (3, 30, 999):
                whole, some = search.best(terms, number)
                its_whole, its_some = (
                    search._by_engine("words", terms, number, is_every=is_every)
                    for is_every in (True, False)
                )
                assert [item[:2] for item in whole] == [item[:2] for item in its_whole]
                assert [item[:2] for item in some] == [item[:2] for item in its_some]
                scores, its_scores = ([score for *_, score in each] for each in (some, its_some))
                assert scores == pytest.approx(its_scores, rel=1e-12)
                if terms == ["w0"]:
                    assert whole == some
                    assert bool(some) is is_all_found
