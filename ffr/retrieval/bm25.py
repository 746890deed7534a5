"""BM25 over the lines of one dialogue: counted once, asked many times.

Shapes: N texts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BM25_K1, BM25_B = 1.5, 0.75
"""Saturation of repeated terms, and weight of a text's length."""


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """The texts that hold a term.

    Args:
        weight: How rare the term is: log(1 + (N − n + ½) / (n + ½)) where n of N texts hold it.
        places: (n,) int64, which texts do, ascending.
        gains: (n,) float64, what each earns by it.
    """

    weight: float
    places: NDArray[np.int64]
    gains: NDArray[np.float64]


class Bm25Index:
    """Okapi BM25 of texts, which are the whole collection.

        score(d) = Σ_t log(1 + (N − n_t + ½) / (n_t + ½)) · f (k1 + 1) / (f + k1 (1 − b + b |d| / m))

    over a query's different terms t, with f its number in d, n_t the texts that hold it, N all
    texts and m their mean length, k1 = 1.5 and b = 0.75 (Robertson and Zaragoza, 2009; the
    logarithm is Lucene's, never below 0).

    Args:
        texts: The terms of each text.

    >>> index = Bm25Index([["the", "bus"], ["a", "bus", "a", "bus"], ["tea"]])
    >>> [round(score, 3) for score in index.scores(["bus"]).tolist()]
    [0.502, 0.546, 0.0]
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self.num_texts = len(texts)
        lengths = np.array([len(terms) for terms in texts], dtype=np.float64)
        total = float(lengths.sum())
        self._norms = 1 - BM25_B + BM25_B * lengths / (total / len(texts)) if total else lengths
        held: dict[str, list[tuple[int, int]]] = {}
        for place, terms in enumerate(texts):
            for term, frequency in Counter(terms).items():
                held.setdefault(term, []).append((place, frequency))
        self._held = held
        self._found: dict[str, Match] = {}

    def match(self, term: str) -> Match:
        """The texts that hold a term, with what they earn by it."""
        if term not in self._found:
            pairs = self._held.get(term, ())
            places = np.array([place for place, _ in pairs], dtype=np.int64)
            frequency = np.array([number for _, number in pairs], dtype=np.float64)
            weight = math.log1p((self.num_texts - len(pairs) + 0.5) / (len(pairs) + 0.5))
            norms = self._norms[places]
            gains = weight * (frequency * (BM25_K1 + 1) / (frequency + BM25_K1 * norms))
            self._found[term] = Match(weight, places, gains)
        return self._found[term]

    def scores(self, terms: Iterable[str]) -> NDArray[np.float64]:
        """(N,) the score of each text for a query's terms, of which each counts once."""
        found = np.zeros(self.num_texts)
        for term in dict.fromkeys(terms):
            match = self.match(term)
            found[match.places] += match.gains
        return found
