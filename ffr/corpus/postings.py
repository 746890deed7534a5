"""Full text of a store, scored here: postings from the engine that keeps them, BM25 by numpy.

FTS5 computes `bm25()` row by row, for every text that has any word of a question, and of a million
lines of talk a tenth has "the"; on a server each such line costs more still. The postings alone come
in a fraction of that time, and those of words that were asked are kept. Sums are made in FTS5's order,
so scores are its own to the bit:

    Σ idf(t) · ((f(t) · (k1 + 1)) / (f(t) + k1 · (1 - b + b · length / mean length)))
    idf(t) = log((N - n(t) + ½) / (n(t) + ½)), never below 10⁻⁶

Shapes: n texts that have a term, T places of texts: the largest of their numbers, and one more.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_K1, _B = 1.2, 0.75
_LEAST_IDF = 1e-6

_MOST_KEPT = 4_000_000
"""Postings that are kept of the terms asked last: 12 bytes each."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The texts that have any of some terms.

    Args:
        ids: (n,) int64, ascending.
        scores: (n,) float64: BM25, the largest is the best.
        is_whole: (n,) whether they have every one of the terms.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    is_whole: NDArray[np.bool_]

    def __getitem__(self, kept: NDArray[np.bool_] | NDArray[np.int64]) -> Scored:
        """Some of them."""
        return Scored(self.ids[kept], self.scores[kept], self.is_whole[kept])

    def best(self, number: int) -> Scored:
        """The so many with the largest scores, the largest first, equal ones in order."""
        chosen = np.arange(len(self.ids))
        if number < len(chosen):
            least = np.partition(self.scores, -number)[-number]
            chosen = np.flatnonzero(self.scores >= least)
        return self[chosen[np.argsort(-self.scores[chosen], kind="stable")][:number]]


class Texts(Protocol):
    """A full text, of whichever engine: texts by their numbers, each of so many terms."""

    def tokens(self, terms: Sequence[str]) -> list[str]:
        """How it has terms; "" for one that it takes for no word."""
        ...

    def having(self, token: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(n,) the texts that have a token, ascending, and how often each has it."""
        ...

    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N,) all texts, and how many terms each has."""
        ...


class Postings:
    """Which texts have a term, and how often, of a store as it is: another object for a later state.

    Args:
        texts: A full text of the store.
    """

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._kept: OrderedDict[str, tuple[NDArray[np.int64], NDArray[np.int32]]] = OrderedDict()
        self._num_kept = 0

    def scored(self, terms: Sequence[str]) -> Scored:
        """The texts that have any of some terms, with their scores.

        Args:
            terms: As `query_terms` gives them. No text has one that the engine takes for no word.

        Raises:
            DataError: where the database cannot be read.
        """
        tokens = self._texts.tokens(terms)
        num_texts, norms = self._norms
        total = np.zeros(len(norms))
        num_found = np.zeros(len(norms), np.uint32)
        for token in tokens:
            ids, often = self._of(token)
            idf = math.log((num_texts - len(ids) + 0.5) / (len(ids) + 0.5))
            total[ids] += max(idf, _LEAST_IDF) * ((often * (_K1 + 1)) / (often + norms[ids]))
            num_found[ids] += 1
        ids = np.flatnonzero(num_found)
        return Scored(ids, total[ids], num_found[ids] == len(tokens))

    def _of(self, token: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(n,) the texts that have a token, and how often each has it."""
        if token not in self._kept:
            self._kept[token] = self._texts.having(token)
            self._num_kept += len(self._kept[token][0])
            while self._num_kept > _MOST_KEPT and len(self._kept) > 1:
                self._num_kept -= len(self._kept.popitem(last=False)[1][0])
        self._kept.move_to_end(token)
        return self._kept[token]

    @cached_property
    def _norms(self) -> tuple[int, NDArray[np.float64]]:
        """How many texts there are, and (T,) k1 · (1 - b + b · length / mean length) of each."""
        ids, lengths = self._texts.lengths()
        if not len(ids):
            return 0, np.zeros(0)
        norms = np.zeros(int(ids.max()) + 1)
        norms[ids] = _K1 * (1 - _B + _B * lengths / (int(lengths.sum()) / len(ids)))
        return len(ids), norms
