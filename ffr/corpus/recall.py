"""Which dialogues of a store a query may mean: several ways of finding them, fused by their ranks.

    words     BM25 of the query's words, over messages and the text in pictures
    lines     the line whose vector lies closest to the query's
    pictures  likewise, the words for what a picture shows

Shapes: n things of a way, R rows of the vectors' matrix, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffr.corpus.candidates import Candidates, Rows, Where, allowed
from ffr.corpus.filters import Filters
from ffr.corpus.store import Store
from ffr.corpus.terms import query_terms
from ffr.corpus.vectors import StoredEncoder
from ffr.errors import UsageError
from ffr.reader.query import plain_words
from ffr.retrieval.fusion import reciprocal_ranks

WAYS = ("words", "lines", "pictures")
"""How dialogues are found."""

MOST_DIALOGUES = 20
"""Dialogues that recall hands on if nothing else is said."""

_MAX_LINES = 400
_BLOCK = 65_536
_KEPT_LINES = 3

# full text of messages, and of what stands in their pictures
_FULL_TEXT = {
    "words": "JOIN messages ON messages.id = matched.id",
    "shown_words": "JOIN shown ON shown.id = matched.id "
    "JOIN files ON files.digest = shown.digest JOIN attached ON attached.source = files.source "
    "AND attached.file = files.file JOIN messages ON messages.id = attached.message",
}


@dataclass(frozen=True, slots=True)
class Trace:
    """How one way found a dialogue.

    Args:
        rank: The dialogue's place among those that this way found, from 1.
        score: BM25 or cosine of its best line.
        messages: Its best lines, numbers of messages, the best first; three at most.
    """

    rank: int
    score: float
    messages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recalled:
    """A dialogue that may hold what is meant.

    Args:
        where: The dialogue.
        traces: How it was found, by way; nothing where it is only one of few.
        exact_lines: Messages of it that have every term of the query.
    """

    where: Where
    traces: Mapping[str, Trace]
    exact_lines: tuple[int, ...] = ()

    @property
    def messages(self) -> list[int]:
        """The lines by which it was found, those first that the best ranks go back to."""
        traces = sorted(self.traces.values(), key=lambda trace: trace.rank)
        return list(dict.fromkeys(id_ for trace in traces for id_ in trace.messages))


def recall(
    store: Store,
    query: str,
    found: Candidates,
    filters: Filters,
    encoder: StoredEncoder | None = None,
    query_vector: Tensor | None = None,
    *,
    ways: Sequence[str] = WAYS,
    k: int = MOST_DIALOGUES,
) -> list[Recalled]:
    """The dialogues that a query may mean, the likeliest first.

    Each way ranks the k dialogues that are its best; the ranks are fused.

    Args:
        store: The store.
        query: What is looked for.
        found: What `candidates` gave for the filters.
        filters: What narrows it down.
        encoder: Whose vectors are compared; None for words alone.
        query_vector: (D,) of the query; None for words alone.
        ways: Some of `WAYS`.
        k: How many at most.

    Raises:
        UsageError: where a way is unknown, or k is below 1.
    """
    check_ways(ways, k)
    rankings: dict[str, dict[Where, Trace]] = {}
    exact: dict[Where, list[int]] = {}
    if "words" in ways:
        rankings["words"], exact = _by_words(store, query, filters, k)
    compared = {"lines": found.lines, "pictures": found.pictures}
    if encoder is not None and query_vector is not None:
        matrix = encoder.vectors.matrix()
        vector = query_vector.numpy()
        for way, rows in compared.items():
            if way in ways:
                rankings[way] = _by_meaning(rows, matrix, vector, k)
    return _fused(rankings, exact)[:k]


def check_ways(ways: Sequence[str], k: int) -> None:
    """Refuses ways that are unknown, and numbers of dialogues that ask for nothing.

    Raises:
        UsageError: likewise.
    """
    unknown = [way for way in ways if way not in WAYS]
    if unknown or isinstance(ways, str) or not ways:
        raise UsageError(f"ways {ways!r}: name some of {', '.join(WAYS)}, as a list")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"k {k!r} asks for nothing; give a whole number from 1")


def _fused(
    rankings: Mapping[str, Mapping[Where, Trace]], exact: Mapping[Where, Sequence[int]]
) -> list[Recalled]:
    known = list(dict.fromkeys(where for ranking in rankings.values() for where in ranking))
    if not known:
        return []
    earned = reciprocal_ranks(
        [
            [ranking[where].score if where in ranking else None for where in known]
            for ranking in rankings.values()
        ]
    )
    order = sorted(range(len(known)), key=lambda number: -earned[number])
    return [
        Recalled(
            where,
            {way: ranking[where] for way, ranking in rankings.items() if where in ranking},
            tuple(exact.get(where, ())),
        )
        for where in (known[number] for number in order)
    ]


def _traces(ranked: Iterable[tuple[Where, int, float]], k: int) -> dict[Where, Trace]:
    """The first k dialogues of things that are ranked, the best first."""
    scores: dict[Where, float] = {}
    messages: dict[Where, list[int]] = {}
    for where, message, score in ranked:
        if where not in scores:
            if len(scores) == k:
                break
            scores[where] = score
        of_it = messages.setdefault(where, [])
        if message not in of_it and len(of_it) < _KEPT_LINES:
            of_it.append(message)
    return {
        where: Trace(rank, scores[where], tuple(messages[where]))
        for rank, where in enumerate(scores, 1)
    }


def _by_meaning(
    rows: Rows, matrix: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> dict[Where, Trace]:
    """The dialogues with the things closest to the query, known by the closest of each."""
    held = np.flatnonzero(rows.places >= 0)
    if not len(held):
        return {}
    places = rows.places[held]
    scores = _cosines(matrix, places, query)
    num_taken = 64 * k
    while True:
        best = _largest(scores, num_taken)
        ranked = (
            (
                (int(rows.chats[number]), int(rows.dialogues[number])),
                int(rows.messages[number]),
                float(scores[place]),
            )
            for place in best
            for number in (held[place],)
        )
        traces = _traces(ranked, k)
        if len(traces) == k or len(best) == len(held):
            return traces
        num_taken *= 4


def _cosines(
    matrix: NDArray[np.float32], places: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n,) of some rows, each row read once."""
    rows, of_row = np.unique(places, return_inverse=True)
    parts = []
    for start in range(0, len(rows), _BLOCK):
        part = rows[start : start + _BLOCK]
        is_run = part[-1] - part[0] == len(part) - 1
        block = matrix[part[0] : part[-1] + 1] if is_run else matrix[part]
        parts.append(block @ query)
    return np.concatenate(parts)[of_row]


def _largest(scores: NDArray[np.float32], number: int) -> NDArray[np.int64]:
    """Places of the largest scores, the largest first, equal ones in order."""
    if number >= len(scores):
        return np.argsort(-scores, kind="stable")
    # those that are equal to the least of them too, so that order decides among equals
    least = np.partition(scores, len(scores) - number)[len(scores) - number]
    kept = np.flatnonzero(scores >= least)
    return kept[np.argsort(-scores[kept], kind="stable")]


def _by_words(
    store: Store, query: str, filters: Filters, k: int
) -> tuple[dict[Where, Trace], dict[Where, list[int]]]:
    """The dialogues with the lines of the highest BM25, and the lines that have every term."""
    terms = query_terms(plain_words(query))
    if not terms:
        return {}, {}
    where, values = allowed(store, filters)

    def asked(*, is_every: bool) -> list[tuple[Where, int, float]]:
        found: list[tuple[int, int, int, float]] = []
        for table, joined in _FULL_TEXT.items():
            matched, sought = store.database.matched(table, terms, is_every=is_every)
            found += store.tuples(
                f"SELECT messages.id, chat, dialogue, score FROM {matched} AS matched {joined} "
                f"WHERE {where} ORDER BY score LIMIT ?",
                [*sought, *values, max(_MAX_LINES, 8 * k)],
            )
        return [
            ((chat, dialogue), id_, -score)
            for id_, chat, dialogue, score in sorted(found, key=lambda row: row[3])
        ]

    exact: dict[Where, list[int]] = {}
    ranked = whole = asked(is_every=True)
    for place, id_, _ in whole:
        exact.setdefault(place, []).append(id_)
    if len(terms) > 1:
        # a line that has them all may be one of very many that have some
        known = {id_ for _, id_, _ in whole}
        others = [item for item in asked(is_every=False) if item[1] not in known]
        ranked = sorted([*whole, *others], key=lambda item: -item[2])
    return _traces(ranked, k), exact


def as_vector(rows: Tensor) -> Tensor:
    """The one row of a query's vectors.

    Raises:
        ValueError: where there is not exactly one.
    """
    if rows.ndim != 2 or rows.shape[0] != 1:
        raise ValueError(f"vectors of shape {tuple(rows.shape)}; give one query")
    return torch.as_tensor(rows[0]).float()


def all_of(found: Candidates, recalled: Sequence[Recalled]) -> list[Recalled]:
    """Every dialogue, those that were recalled first: where there are few, none is passed over."""
    seen = {item.where for item in recalled}
    return [*recalled, *(Recalled(where, {}) for where in found.wheres if where not in seen)]
