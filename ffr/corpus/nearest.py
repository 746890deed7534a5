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
from collections.abc import Iterator
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

ON_DISK = np.dtype("<f4")
"""How a number of a vector lies in a file."""

_BLOCK = 65_536
_SEED = 0
# lines, segments and pictures of one search, and of one before
_KEPT_BITS = 6
# vectors that each list is made of, of which faiss wants 39 at least
_PER_LIST = 64
# one list of so many is looked through; benchmarks/archive.py tells how many of the closest are found
_LISTS_A_PROBE = 7


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
        self._kept_bits: list[tuple[NDArray[np.int64], NDArray[np.uint8]]] = []

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
        how = faiss.SearchParametersIVF(
            sel=faiss.IDSelectorBitmap(self._bits(rows)),
            nprobe=max(1, math.ceil(lists.nlist / _LISTS_A_PROBE)),
        )
        # bytes in the place of numbers change the order of neighbours: of twice as many the best
        _, found = lists.search(query[None], 2 * number, params=how)
        return np.sort(found[0][found[0] >= 0]).astype(np.int64)

    def _bits(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Which rows of the inverted file may be found, a bit each; of the rows asked last it is kept."""
        for known, bits in self._kept_bits:
            if known is rows:
                return bits
        is_allowed = np.zeros(self._lists.ntotal, bool)
        is_allowed[rows[: np.searchsorted(rows, self._lists.ntotal)]] = True
        bits = np.packbits(is_allowed, bitorder="little")
        self._kept_bits = [(rows, bits), *self._kept_bits][:_KEPT_BITS]
        return bits


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


def make_lists(vectors: Path, num_rows: int, width: int, progress: Progress) -> None:
    """Makes the inverted file of a vectors' file, whole or not at all.

    Lists of vectors around some 4 √R centres, each number of a vector in a byte.

    Args:
        vectors: The vectors' file.
        num_rows: R, of which the file has more where others add some now.
        width: D.
        progress: Is told how many rows are in.

    Raises:
        ModelError: where faiss is not installed.
    """
    faiss = faiss_if_installed()
    if faiss is None:
        raise ModelError("is not installed; pip install 'ffr-vlm[faiss]'", "faiss")
    num_sampled = min(num_rows, _PER_LIST * max(1, round(4 * math.sqrt(num_rows))))
    chosen = np.random.default_rng(_SEED).permutation(num_rows)[:num_sampled]
    is_chosen = np.zeros(num_rows, bool)
    is_chosen[chosen] = True
    sample = np.concatenate(
        [
            rows[is_chosen[start : start + _BLOCK]]
            for start, rows in _blocks(vectors, num_rows, width)
        ]
    )
    centres = _centres(sample)
    lists = faiss.index_factory(width, f"IVF{len(centres)},SQ8", faiss.METRIC_INNER_PRODUCT)
    lists.quantizer.add(centres)
    lists.train(sample)
    del sample
    graph = _graph(width)
    graph.add(centres)
    add_preassigned = importlib.import_module("faiss.contrib.ivf_tools").add_preassigned
    for start, rows in _blocks(vectors, num_rows, width):
        add_preassigned(lists, rows, graph.search(rows, 1)[1][:, 0])
        progress(start + len(rows), num_rows)
    with replaced_path(lists_file(vectors)) as scratch:
        faiss.write_index(lists, str(scratch))


def _blocks(vectors: Path, num_rows: int, width: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The rows of a vectors' file, some at a time, each with the number of the first.

    They are read and not mapped: what is mapped counts as memory until all of it is let go.
    """
    for start in range(0, num_rows, _BLOCK):
        number = min(_BLOCK, num_rows - start)
        offset = start * width * ON_DISK.itemsize
        rows = np.fromfile(vectors, ON_DISK, number * width, offset=offset)
        yield start, rows.reshape(number, width)


def _centres(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centres of about `_PER_LIST` vectors each: of few parts first, then within each part.

    To find all of them at once takes as many times as long as there are parts.

    Args:
        sample: (n, D) vectors.
    """
    faiss = faiss_if_installed()

    def found(rows: NDArray[np.float32], number: int) -> Any:
        means = faiss.Kmeans(rows.shape[1], number, niter=10, spherical=True, seed=_SEED)
        means.train(rows)
        return means

    parts = found(sample, max(1, round(math.sqrt(len(sample) / _PER_LIST))))
    part_of = parts.assign(sample)[1]
    centres = []
    for part, centre in enumerate(parts.centroids):
        inside = sample[part_of == part]
        number = round(len(inside) / _PER_LIST)
        centres.append(found(inside, number).centroids if number > 1 else centre[None])
    return np.concatenate(centres)


def _graph(width: int) -> Any:
    """Names the closest of many thousand centres sooner than comparing all does."""
    faiss = faiss_if_installed()
    graph = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = 64
    return graph
