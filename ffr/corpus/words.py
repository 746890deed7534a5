"""The messages that have the words of a question, by BM25: their own words, and those in their pictures.

Messages are scored here (`ffr/corpus/postings.py`). What stands in pictures, which is little, is scored by
the engine, which knows where each picture was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ffr.corpus.candidates import Candidates, Where, allowed
from ffr.corpus.filters import Filters
from ffr.corpus.postings import Postings, Scored
from ffr.corpus.store import Store

Worded = tuple[Where, int, float]
"""A dialogue, the number of a message of it, and its score: BM25, the largest is the best."""

# messages, and what stands in their pictures
_WORDS = "words"
_FULL_TEXT = {
    _WORDS: "JOIN messages ON messages.id = matched.id",
    "shown_words": "JOIN shown ON shown.id = matched.id "
    "JOIN files ON files.digest = shown.digest JOIN attached ON attached.source = files.source "
    "AND attached.file = files.file JOIN messages ON messages.id = attached.message",
}


@dataclass(frozen=True)
class WordSearch:
    """Full text of a store as it is, narrowed down by filters.

    Args:
        store: The store.
        postings: Those of its messages.
        found: What `candidates` gave for the filters.
        filters: What narrows it down.
    """

    store: Store
    postings: Postings
    found: Candidates
    filters: Filters

    def best(self, terms: Sequence[str], number: int) -> tuple[list[Worded], list[Worded]]:
        """The best messages that have every term, and the best that have any, the best first.

        Args:
            terms: As `query_terms` gives them; one at least.
            number: How many of each at most; of messages, and of what stands in pictures.
        """
        whole, some = list[Worded](), list[Worded]()
        for table in _FULL_TEXT:
            if table == _WORDS:
                of_all, of_any = self._by_postings(terms, number)
            else:
                of_all = self._by_engine(table, terms, number, is_every=True)
                # of one term they are the same
                several = len(terms) > 1
                of_any = (
                    self._by_engine(table, terms, number, is_every=False) if several else of_all
                )
            whole += of_all
            some += of_any
        return _sorted(whole), _sorted(some)

    def _by_postings(self, terms: Sequence[str], number: int) -> tuple[list[Worded], list[Worded]]:
        scored, lines = self.postings.scored(terms), self.found.lines
        scored = scored[lines.have(scored.ids)]

        def listed(chosen: Scored) -> list[Worded]:
            best = chosen.best(number)
            numbers = lines.numbers_of(best.ids).tolist()
            return [
                (lines.where(place), id_, score)
                for place, id_, score in zip(
                    numbers, best.ids.tolist(), best.scores.tolist(), strict=True
                )
            ]

        return listed(scored[scored.is_whole]), listed(scored)

    def _by_engine(
        self, table: str, terms: Sequence[str], number: int, *, is_every: bool
    ) -> list[Worded]:
        where, values = allowed(self.store, self.filters)
        with self.store.database.by_index():
            matched, sought = self.store.database.matched(table, terms, is_every=is_every)
            found = self.store.tuples(
                f"SELECT messages.id, chat, dialogue, score FROM {matched} AS matched "
                f"{_FULL_TEXT[table]} WHERE {where} ORDER BY score, messages.id LIMIT ?",
                [*sought, *values, number],
            )
        return [((chat, dialogue), id_, -score) for id_, chat, dialogue, score in found]


def _sorted(found: list[Worded]) -> list[Worded]:
    return sorted(found, key=lambda item: -item[2])
