"""Which dialogues of a store a query may mean: the ways of `ffr/corpus/ways.py`, added up.

Shapes: n things of a way, R rows of the vectors' matrix, U usual queries, D width.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffr.corpus.candidates import Candidates, Rows, Where
from ffr.corpus.filters import Filters
from ffr.corpus.likeness import likenesses, num_compared
from ffr.corpus.nearest import Comparing
from ffr.corpus.postings import Postings
from ffr.corpus.store import Store
from ffr.corpus.terms import query_terms
from ffr.corpus.vectors import StoredEncoder
from ffr.corpus.ways import MOST_DIALOGUES, WAYS, WORDS, check_ways
from ffr.corpus.words import WordSearch
from ffr.reader.query import plain_words

_MAX_LINES = 400
_ROWS_A_DIALOGUE = 16

# dialogues that each way ranks for one that is handed on
_RANKED = 5
_KEPT_LINES = 3
_LEAST = 1e-9

# of how close a thing lies to the nearest of usual queries so much is taken off its cosine, since what
# is close to any query says little of one (CSLS: Conneau et al. 2018, arXiv 1710.04087, equation 3)
_USUAL_SHARE, _USUAL_NEAREST = 0.5, 3


@dataclass(frozen=True, slots=True)
class Trace:
    """How one way found a dialogue.

    Args:
        rank: The dialogue's place among those that this way found, from 1.
        score: BM25 of its best line, or the cosine of what lies closest in it, less half of how close
            that lies to usual queries; of lines the mean of the best three.
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
        likenesses: How like the query it is in each way, whichever found it: BM25 of its best line
            where the words found it, and plain cosines (`ffr.corpus.likeness`).
    """

    where: Where
    traces: Mapping[str, Trace]
    exact_lines: tuple[int, ...] = ()
    likenesses: Mapping[str, float] = field(default_factory=dict)

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
    postings: Postings,
    encoder: StoredEncoder | None = None,
    query_vector: Tensor | None = None,
    usual_queries: NDArray[np.float32] | None = None,
    *,
    ways: Sequence[str] = WAYS,
    k: int = MOST_DIALOGUES,
) -> list[Recalled]:
    """The dialogues that a query may mean, the likeliest first.

    Each way ranks the 5 k dialogues that are its best. A dialogue earns by each way what its score lies
    above that of the last one there, in deviations of them all; the sum decides.

    Args:
        store: The store.
        query: What is looked for.
        found: What `candidates` gave for the filters.
        filters: What narrows it down.
        postings: Those of the store's messages.
        encoder: Whose vectors are compared; None for words alone.
        query_vector: (D,) of the query; None for words alone.
        usual_queries: (U, D) of any queries, as `query_vector` is made; None where none are known.
        ways: Some of `WAYS`.
        k: How many at most.

    Raises:
        UsageError: where a way is unknown, or k is below 1.
    """
    check_ways(ways, k)
    depth = _RANKED * k
    rankings: dict[str, dict[Where, Trace]] = {}
    exact: dict[Where, list[int]] = {}
    if WORDS in ways:
        search = WordSearch(store, postings, found, filters)
        rankings[WORDS], exact = _by_words(search, query, depth)
    compared = {"lines": found.lines, "segments": found.segments, "pictures": found.pictures}
    if encoder is None or query_vector is None:
        return _with_likenesses(_fused(rankings, exact, min(depth, len(found.wheres)))[:k], {})
    matrix = encoder.vectors.compared()
    vector = query_vector.numpy()
    asked = {way: rows for way, rows in compared.items() if way in ways}
    for way, rows in asked.items():
        rankings[way] = _by_meaning(rows, matrix, vector, usual_queries, depth, num_compared(way))
    recalled = _fused(rankings, exact, min(depth, len(found.wheres)))[:k]
    known = likenesses([item.where for item in recalled], asked, matrix, vector)
    return _with_likenesses(recalled, known)


def _with_likenesses(
    recalled: Sequence[Recalled], known: Mapping[Where, Mapping[str, float]]
) -> list[Recalled]:
    """What was recalled, with its plain cosines and, where the words found it, its BM25."""
    return [
        replace(
            item,
            likenesses={
                **{way: trace.score for way, trace in item.traces.items() if way == WORDS},
                **known.get(item.where, {}),
            },
        )
        for item in recalled
    ]


def _fused(
    rankings: Mapping[str, Mapping[Where, Trace]],
    exact: Mapping[Where, Sequence[int]],
    depth: int,
) -> list[Recalled]:
    """The dialogues of all rankings, by what each earns in them; so many are ranked at most."""
    earned: dict[Where, float] = {}
    for way, ranking in rankings.items():
        scores = [trace.score for trace in ranking.values()]
        if way == WORDS and len(scores) < depth:
            # the others have none of the words
            scores += [0.0] * (depth - len(scores))
        # behind those of the ranking stand the zeros
        for where, value in zip(ranking, _above_the_last(scores), strict=False):
            earned[where] = earned.get(where, 0.0) + value
    return [
        Recalled(
            where,
            {way: ranking[where] for way, ranking in rankings.items() if where in ranking},
            tuple(exact.get(where, ())),
        )
        for where in sorted(earned, key=lambda where: -earned[where])
    ]


def _above_the_last(scores: Sequence[float]) -> list[float]:
    """How many standard deviations each lies above the last one; 0 where all are alike.

    >>> _above_the_last([3.0, 1.0, 1.0, 3.0]), _above_the_last([2.0]), _above_the_last([])
    ([2.0, 0.0, 0.0, 2.0], [0.0], [])
    """
    deviation = statistics.pstdev(scores) if scores else 0.0
    if deviation < _LEAST:
        return [0.0] * len(scores)
    least = min(scores)
    return [(score - least) / deviation for score in scores]


def _traces(
    ranked: Iterable[tuple[Where, int, float]],
    k: int,
    num_counted: int = 1,
    lacking: float = 0.0,
) -> dict[Where, Trace]:
    """The best k dialogues of things that are ranked, the best first.

    A dialogue's score is the mean of its best so many; what it lacks of them counts as `lacking`.
    """
    scores: dict[Where, list[float]] = {}
    messages: dict[Where, list[int]] = {}
    for where, message, score in ranked:
        of_it = messages.setdefault(where, [])
        best = scores.setdefault(where, [])
        if message not in of_it:
            if len(best) < num_counted:
                best.append(score)
            if len(of_it) < _KEPT_LINES:
                of_it.append(message)
    means = {
        where: (sum(best) + lacking * (num_counted - len(best))) / num_counted
        for where, best in scores.items()
    }
    order = sorted(means, key=lambda where: -means[where])[:k]
    return {
        where: Trace(rank, means[where], tuple(messages[where]))
        for rank, where in enumerate(order, 1)
    }


def _by_meaning(
    rows: Rows,
    matrix: Comparing,
    query: NDArray[np.float32],
    usual_queries: NDArray[np.float32] | None,
    k: int,
    num_counted: int,
) -> dict[Where, Trace]:
    """The dialogues with the things closest to the query, known by the closest few of each."""
    num_taken = _ROWS_A_DIALOGUE * k
    while True:
        near, scores = matrix.closest(query, rows.distinct, num_taken)
        lacking = float(scores[-1]) if len(scores) else 0.0
        if usual_queries is not None and len(near):
            usual = _closeness(matrix.vectors_of(near), usual_queries)
            # what was not taken lies no closer than the last, and to any query as the others do
            lacking -= float(usual.mean())
            order = np.argsort(usual - scores, kind="stable")
            near, scores = near[order], (scores - usual)[order]
        ranked = (
            (rows.where(number), int(rows.messages[number]), float(score))
            for numbers, score in zip(rows.of_rows(near), scores, strict=True)
            for number in numbers
        )
        traces = _traces(ranked, k, num_counted, lacking)
        if len(traces) == k or num_taken >= len(rows.distinct):
            return traces
        num_taken *= 4


def _closeness(
    vectors: NDArray[np.float32], usual_queries: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n,) what is taken off the cosines of (n, D): a share of the mean with their nearest queries."""
    cosines = vectors @ usual_queries.T
    number = min(_USUAL_NEAREST, cosines.shape[1])
    nearest = np.partition(cosines, -number, axis=1)[:, -number:]
    return np.asarray(_USUAL_SHARE * nearest.mean(axis=1), np.float32)


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
