"""Rows of a vectors' file close to a query: all of them compared, or where they are very many, faiss.

Up to 300,000 rows each is compared. Beyond, an inverted file of faiss (extra `faiss`) that lies
beside the vectors names those that may be closest, which are then compared exactly. It is made of
the vectors alone and can be made again at any time. Rows that came since are all compared; where it
is missing or damaged, all are.

Shapes: R rows of the matrix, n rows that may be found, D width.
"""

from __future__ import annotations

import importlib
import logging
import math
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ffr.errors import ModelError
from ffr.files import replaced_path
from ffr.progress import Progress
from ffr.text import one_line

_log = logging.getLogger(__name__)

EXACT_ROWS = 300_000
"""Up to so many rows are all compared."""

LISTS_FILES = "vectors-*.faiss"

_BLOCK = 65_536
_SEED = 0
# vectors that each list is made of, of which faiss wants 39 at least
_PER_LIST = 64
# one list of so many is looked through: of real vectors with noise, 10^6, the 20 closest are found to
# .986; of one in 16 to .962, in three fifths of the time (benchmarks/archive.py)
_LISTS_A_PROBE = 8


class Comparing(Protocol):
    """What compares a query with vectors, wherever they lie."""

    def closest(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], number: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `Matrix.closest`."""
        ...

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """As `Matrix.vectors_of`."""
        ...


class Matrix:
    """The vectors of one encoder, to be compared with queries.

    Args:
        rows: (R, D) float32, of length 1, as the disk has them.
        path: Their file; None where they are in memory alone.
    """

    def __init__(self, rows: NDArray[np.float32], path: Path | None = None) -> None:
        self.rows = rows
        self._path = path

    @cached_property
    def _lists(self) -> Any:
        """The inverted file; None where there is none that can be used."""
        if self._path is None or len(self.rows) <= EXACT_ROWS:
            return None
        path = lists_file(self._path)
        faiss = faiss_if_installed()
        if faiss is None or not path.is_file():
            return None
        try:
            lists = faiss.read_index(str(path))
        except RuntimeError as error:
            _log.warning(
                "%s: cannot be read (%s), so every vector is compared; `ffr index add` makes it "
                "again",
                path,
                one_line(error, 200),
            )
            return None
        if lists.d != self.rows.shape[1] or lists.ntotal > len(self.rows):
            _log.warning(
                "%s: is of other vectors, so every vector is compared; `ffr index add` makes it "
                "again",
                path,
            )
            return None
        return lists

    def closest(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], number: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows closest to a query, the closest first, with their cosines.

        Args:
            query: (D,) of length 1.
            rows: (n,) those that may be found, ascending.
            number: How many; more where the last ones are equal.
        """
        if len(rows) > EXACT_ROWS and self._lists is not None:
            lists = self._lists
            rest = rows[np.searchsorted(rows, lists.ntotal) :]
            rows = np.concatenate([self._from_lists(query, rows, number), rest])
        scores = self.cosines(query, rows)
        best = largest(scores, number)
        return rows[best], scores[best]

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, D) the vectors of rows, in their order."""
        return self.rows[rows]

    def cosines(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n,) of rows, ascending."""
        parts = [np.zeros(0, np.float32)]
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            is_run = part[-1] - part[0] == len(part) - 1
            parts.append((self.rows[part[0] : part[-1] + 1] if is_run else self.rows[part]) @ query)
        return np.concatenate(parts)

    def _from_lists(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], number: int
    ) -> NDArray[np.int64]:
        faiss, lists = faiss_if_installed(), self._lists
        is_allowed = np.zeros(lists.ntotal, bool)
        is_allowed[rows[: np.searchsorted(rows, lists.ntotal)]] = True
        chosen = faiss.IDSelectorBitmap(np.packbits(is_allowed, bitorder="little"))
        how = faiss.SearchParametersIVF(
            sel=chosen, nprobe=max(1, math.ceil(lists.nlist / _LISTS_A_PROBE))
        )
        # bytes in the place of numbers change the order of neighbours: of twice as many the best
        _, found = lists.search(query[None], 2 * number, params=how)
        return np.sort(found[0][found[0] >= 0]).astype(np.int64)


def largest(scores: NDArray[np.float32], number: int) -> NDArray[np.int64]:
    """Places of the largest scores, the largest first, equal ones in order.

    All that are equal to the last of them are given too, so that order decides among equals.

    >>> largest(np.array([1, 3, 3, 2], np.float32), 1).tolist()
    [1, 2]
    """
    if number >= len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, len(scores) - number)[len(scores) - number]
    kept = np.flatnonzero(scores >= least)
    return kept[np.argsort(-scores[kept], kind="stable")]


def faiss_if_installed() -> Any:
    """The library; None where it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError:
        return None


def lists_file(vectors: Path) -> Path:
    """Where the inverted file of a vectors' file lies."""
    return vectors.with_suffix(".faiss")


def lacks_lists(vectors: Path, num_rows: int) -> bool:
    """Whether a vectors' file is so large that it wants an inverted file, and lacks one of its rows.

    One may lack a quarter of the rows that every search compares anyway.
    """
    if num_rows <= EXACT_ROWS:
        return False
    path, faiss = lists_file(vectors), faiss_if_installed()
    if faiss is None or not path.is_file():
        return True
    try:
        # the header tells
        lists = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except RuntimeError:
        return True
    return not num_rows - EXACT_ROWS // 4 <= lists.ntotal <= num_rows


def make_lists(vectors: Path, rows: NDArray[np.float32], progress: Progress) -> None:
    """Makes the inverted file of a vectors' file, whole or not at all.

    Lists of vectors around 4 √R centres, each number of a vector in a byte.

    Args:
        vectors: The vectors' file.
        rows: (R, D) of it.
        progress: Is told how many rows are in.

    Raises:
        ModelError: where faiss is not installed.
    """
    faiss = faiss_if_installed()
    if faiss is None:
        raise ModelError("is not installed; pip install 'ffr-vlm[faiss]'", "faiss")
    num_lists = max(1, round(4 * math.sqrt(len(rows))))
    lists = faiss.index_factory(rows.shape[1], f"IVF{num_lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(_SEED).permutation(len(rows))[: _PER_LIST * num_lists]
    lists.train(np.ascontiguousarray(rows[np.sort(chosen)]))
    for start in range(0, len(rows), _BLOCK):
        lists.add(np.ascontiguousarray(rows[start : start + _BLOCK]))
        progress(min(start + _BLOCK, len(rows)), len(rows))
    with replaced_path(lists_file(vectors)) as scratch:
        faiss.write_index(lists, str(scratch))
