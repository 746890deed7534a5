"""Full text of a store in a folder, scored here: postings from SQLite, BM25 by numpy.

FTS5 computes `bm25()` row by row, for every text that has any word of a question, and of a million
lines of talk a tenth has "the". The postings alone come in a fraction of that time, and those of
words that were asked are kept. Sums are made in FTS5's order, so scores are its own to the bit:

    Σ idf(t) · ((f(t) · (k1 + 1)) / (f(t) + k1 · (1 - b + b · length / mean length)))
    idf(t) = log((N - n(t) + ½) / (n(t) + ½)), never below 10⁻⁶

Shapes: n texts that have a term, T places of texts: the largest of their numbers, and one more.
"""

from __future__ import annotations

import math
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOKENIZER = "tokenize=\"unicode61 remove_diacritics 2 categories 'L* M* N* Co So'\""
"""How full text reads our terms: each is one word of it."""

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


class Postings:
    """Which texts have a term, and how often, of a store as it is: another object for a later state.

    Args:
        ask: Gives the rows of a question to the store's database.
        table: A full text of it, of which `temp.TABLE_instances` tells every word.
    """

    def __init__(
        self, ask: Callable[[str, Sequence[object]], list[tuple[Any, ...]]], table: str
    ) -> None:
        self._ask = ask
        self._table = table
        self._kept: OrderedDict[str, tuple[NDArray[np.int64], NDArray[np.int32]]] = OrderedDict()
        self._num_kept = 0
        self._tokens = _Tokens()

    def scored(self, terms: Sequence[str]) -> Scored:
        """The texts that have any of some terms, with their scores.

        Args:
            terms: As `query_terms` gives them. No text has one that SQLite takes for no word.

        Raises:
            DataError: where the database cannot be read.
        """
        tokens = self._tokens.of(terms)
        num_texts, norms = self._norms
        total = np.zeros(len(norms))
        num_found = np.zeros(len(norms), np.uint32)
        for token in tokens:
            ids, often = self._of(token)
            idf = math.log((num_texts - len(ids) + 0.5) / (len(ids) + 0.5))
            total[ids] += max(idf, _LEAST_IDF) * ((often * (_K1 + 1)) / (often + norms[ids]))
            num_found[ids] += 1
        ids = np.flatnonzero(num_found)
        return Scored(ids, total[ids], num_found[ids] == len(terms))

    def _of(self, token: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(n,) the texts that have a token, and how often each has it."""
        if token not in self._kept:
            # as one value: a row of its own for each is what takes the time
            ((listed,),) = self._ask(
                f"SELECT group_concat(doc) FROM temp.{self._table}_instances WHERE term = ?",
                [token],
            )
            places = np.fromstring(listed or "", np.int64, sep=",")
            starts = np.flatnonzero(np.diff(places, prepend=-1))
            often = np.diff(starts, append=len(places)).astype(np.int32)
            self._kept[token] = places[starts], often
            self._num_kept += len(starts)
            while self._num_kept > _MOST_KEPT and len(self._kept) > 1:
                self._num_kept -= len(self._kept.popitem(last=False)[1][0])
        self._kept.move_to_end(token)
        return self._kept[token]

    @cached_property
    def _norms(self) -> tuple[int, NDArray[np.float64]]:
        """How many texts there are, and (T,) k1 · (1 - b + b · length / mean length) of each."""
        ((listed, sizes),) = self._ask(
            "SELECT group_concat(id), CAST(group_concat(CAST(sz AS TEXT), '') AS BLOB) "
            f"FROM {self._table}_docsize",
            [],
        )
        if listed is None:
            return 0, np.zeros(0)
        ids, lengths = np.fromstring(listed, np.int64, sep=","), _numbers(sizes)
        norms = np.zeros(int(ids.max()) + 1)
        norms[ids] = _K1 * (1 - _B + _B * lengths / (int(lengths.sum()) / len(ids)))
        return len(ids), norms


def _numbers(written: bytes) -> NDArray[np.int64]:
    """Numbers as SQLite writes them: in bytes of seven bits, the highest first, all but the last marked.

    >>> _numbers(bytes([5, 0x81, 0x02, 0])).tolist()
    [5, 130, 0]
    """
    data = np.frombuffer(written, np.uint8).astype(np.int64)
    ends = np.flatnonzero(data < 128)
    widths = np.diff(ends, prepend=-1)
    numbers = data[ends]
    for place in range(1, int(widths.max(initial=0))):
        wide = widths > place
        numbers[wide] |= (data[ends[wide] - place] & 0x7F) << 7 * place
    return numbers


class _Tokens:
    """What SQLite's tokenizer makes of terms: without accents, and nothing of a mere sign."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._database.execute(f"CREATE VIRTUAL TABLE cut USING fts5(term, {TOKENIZER})")
        self._database.execute("CREATE VIRTUAL TABLE tokens USING fts5vocab(cut, instance)")

    def of(self, terms: Sequence[str]) -> list[str]:
        """Those of some terms, in order; what has none is left out.

        Raises:
            ValueError: where one is several, as none of `query_terms` is.
        """
        self._database.execute("DELETE FROM cut")
        self._database.executemany("INSERT INTO cut(rowid, term) VALUES (?, ?)", enumerate(terms))
        found = dict[int, str]()
        for number, token in self._database.execute("SELECT doc, term FROM tokens"):
            if number in found:
                raise ValueError(f"{terms[number]!r} is several words of full text")
            found[number] = token
        return [found[number] for number in sorted(found)]
