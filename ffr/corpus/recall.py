"""Which dialogues of a store a query may mean: the ways of `ffr/corpus/ways.py`, fused by ranks.

Shapes: n things of a way, R rows of the vectors' matrix, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffr.corpus.candidates import Candidates, Rows, Where
from ffr.corpus.filters import Filters
from ffr.corpus.nearest import Comparing
from ffr.corpus.postings import Postings
from ffr.corpus.store import Store
from ffr.corpus.terms import query_terms
from ffr.corpus.vectors import StoredEncoder
from ffr.corpus.ways import MOST_DIALOGUES, WAYS, check_ways
from ffr.corpus.words import WordSearch
from ffr.reader.query import plain_words
from ffr.retrieval.fusion import reciprocal_ranks

_MAX_LINES = 400
_ROWS_A_DIALOGUE = 16

# dialogues that each way ranks for one that is handed on: one that two ways have at rank 30 goes
# before one that a single way has at rank 15
_RANKED = 5
_KEPT_LINES = 3

# what a query means is seldom one line: a dialogue with three close ones goes before one with one
_LINES_COMPARED = 3


@dataclass(frozen=True, slots=True)
class Trace:
    """How one way found a dialogue.

    Args:
        rank: The dialogue's place among those that this way found, from 1.
        score: BM25 or cosine of its best line; of lines the mean cosine of its best three.
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
    postings: Postings | None = None,
    *,
    ways: Sequence[str] = WAYS,
    k: int = MOST_DIALOGUES,
) -> list[Recalled]:
    """The dialogues that a query may mean, the likeliest first.

    Each way ranks the 5 k dialogues that are its best; the ranks are fused.

    Args:
        store: The store.
        query: What is looked for.
        found: What `candidates` gave for the filters.
        filters: What narrows it down.
        encoder: Whose vectors are compared; None for words alone.
        query_vector: (D,) of the query; None for words alone.
        postings: Those of the store's words; None where a server scores them.
        ways: Some of `WAYS`.
        k: How many at most.

    Raises:
        UsageError: where a way is unknown, or k is below 1.
    """
    check_ways(ways, k)
    depth = _RANKED * k
    rankings: dict[str, dict[Where, Trace]] = {}
    exact: dict[Where, list[int]] = {}
    if "words" in ways:
        search = WordSearch(store, postings, found, filters)
        rankings["words"], exact = _by_words(search, query, depth)
    compared = {"lines": found.lines, "segments": found.segments, "pictures": found.pictures}
    if encoder is not None and query_vector is not None:
        matrix = encoder.vectors.compared()
        vector = query_vector.numpy()
        for way, rows in compared.items():
            if way in ways:
                num_compared = _LINES_COMPARED if way == "lines" else 1
                rankings[way] = _by_meaning(rows, matrix, vector, depth, num_compared)
    return _fused(rankings, exact)[:k]


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


def _traces(
    ranked: Iterable[tuple[Where, int, float]], k: int, num_compared: int = 1
) -> dict[Where, Trace]:
    """The best k dialogues of things that are ranked, the best first.

    A dialogue's score is the mean of its best so many; what it lacks of them counts as the last thing
    of the ranking.
    """
    scores: dict[Where, list[float]] = {}
    messages: dict[Where, list[int]] = {}
    last = 0.0
    for where, message, last in ranked:
        of_it = messages.setdefault(where, [])
        best = scores.setdefault(where, [])
        if message not in of_it:
            if len(best) < num_compared:
                best.append(last)
            if len(of_it) < _KEPT_LINES:
                of_it.append(message)
    means = {
        where: (sum(best) + last * (num_compared - len(best))) / num_compared
        for where, best in scores.items()
    }
    order = sorted(means, key=lambda where: -means[where])[:k]
    return {
        where: Trace(rank, means[where], tuple(messages[where]))
        for rank, where in enumerate(order, 1)
    }


def _by_meaning(
    rows: Rows, matrix: Comparing, query: NDArray[np.float32], k: int, num_compared: int
) -> dict[Where, Trace]:
    """The dialogues with the things closest to the query, known by the closest few of each."""
    num_taken = _ROWS_A_DIALOGUE * k
    while True:
        near, scores = matrix.closest(query, rows.distinct, num_taken)
        ranked = (
            (rows.where(number), int(rows.messages[number]), float(score))
            for numbers, score in zip(rows.of_rows(near), scores, strict=True)
            for number in numbers
        )
        traces = _traces(ranked, k, num_compared)
        if len(traces) == k or num_taken >= len(rows.distinct):
            return traces
        num_taken *= 4


def _by_words(
    search: WordSearch, query: str, k: int
) -> tuple[dict[Where, Trace], dict[Where, list[int]]]:
    """The dialogues with the lines of the highest BM25, and the lines that have every term."""
    terms = query_terms(plain_words(query))
    if not terms:
        return {}, {}
    whole, some = search.best(terms, max(_MAX_LINES, 8 * k))
    exact: dict[Where, list[int]] = {}
    for place, id_, _ in whole:
        exact.setdefault(place, []).append(id_)
    # a line that has them all may be one of very many that have some
    known = {id_ for _, id_, _ in whole}
    others = [item for item in some if item[1] not in known]
    return _traces(sorted([*whole, *others], key=lambda item: -item[2]), k), exact


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
