"""Rows of vectors on a server close to a query: all compared, or those that its index names.

Which rows may be found is told in few bytes, however many they are: a search sends it with every
question.

Shapes: R rows of an encoder, n rows that may be found, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector

from ffr.corpus.database import Condition
from ffr.corpus.postgres.database import ServerDatabase
from ffr.corpus.postgres.tables import NUM_PARTITIONS

_LEAST_WIDTH, _MOST_WIDTH = 200, 1000
"""Bounds of the list that a walk through one partition's graph keeps; the upper one is pgvector's."""

# to look one up, in whichever partition it lies, takes as long as to look at so many in a row
_LOOKED_AT = 16

_WALKS = {
    # a walk that has named too few is gone on with, to the last row where need be
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": 2**31 - 1,
    # in times of work_mem, which a walk that takes more ends for
    "hnsw.scan_mem_multiplier": 100,
    # a planner that knows little of arrays of bits would rather sort all rows
    "enable_seqscan": "off",
    "enable_sort": "off",
    "enable_bitmapscan": "off",
}


@dataclass(frozen=True, slots=True)
class ServerRows:
    """The vectors of one encoder on a server.

    Args:
        server: Where they are.
        encoder: Their key, hexadecimal digits alone.
        width: D.
        num_rows: R.
    """

    server: ServerDatabase
    encoder: str
    width: int
    num_rows: int

    def one_by_one(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], number: int
    ) -> list[tuple[int, float]]:
        """The rows closest to a query, each that may be found compared; more where some are equal.

        Args:
            query: (D,) of length 1.
            rows: (n,) those that may be found, ascending.
            number: How many.

        Returns:
            Rows and their cosines.
        """
        is_few = len(rows) > 0 and _LOOKED_AT * len(rows) <= int(rows[-1] - rows[0])
        allowed, values = ("place = ANY(?)", [rows.tolist()]) if is_few else self._allowed(rows)
        return self.server.tuples(
            "SELECT place, 1 - (vector <=> ?) AS cosine FROM vectors "
            f"WHERE encoder = '{self.encoder}' AND {allowed} "
            f"ORDER BY cosine DESC FETCH FIRST {number:d} ROWS WITH TIES",
            [Vector(query), *values],
            is_binary=True,
        )

    def by_index(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], number: int
    ) -> list[tuple[int, float, Vector]]:
        """The rows that the HNSW index names as closest to a query.

        They are in no order, and fewer than asked for where a walk took too much memory.

        Args:
            query: (D,) of length 1.
            rows: (n,) those that may be found, ascending.
            number: How many.

        Returns:
            Rows, their exact cosines, and their vectors: to look these up takes as long again.
        """
        allowed, values = self._allowed(rows)
        width = min(max(_LEAST_WIDTH, 2 * number // NUM_PARTITIONS), _MOST_WIDTH)
        half = f"halfvec({self.width})"
        with self.server.adjusted({**_WALKS, "hnsw.ef_search": width}):
            return self.server.tuples(
                "SELECT place, 1 - (vector <=> ?), vector FROM (SELECT place, vector FROM vectors "
                f"WHERE encoder = '{self.encoder}' AND {allowed} "
                f"ORDER BY vector::{half} <=> ?::{half} LIMIT {number:d}) AS closest",
                [Vector(query), *values, Vector(query)],
                is_binary=True,
            )

    def _allowed(self, rows: NDArray[np.int64]) -> Condition:
        if len(rows) == self.num_rows:
            return "TRUE", []
        if not len(rows):
            return "FALSE", []
        first, last = int(rows[0]), int(rows[-1])
        within = f"place BETWEEN {first:d} AND {last:d}"
        if last - first == len(rows) - 1:
            return within, []
        is_allowed = np.zeros(last - first + 1, bool)
        is_allowed[rows - first] = True
        bits = np.packbits(is_allowed, bitorder="little").tobytes()
        # again, since a server looks at conditions in the order that it likes
        is_set = f"CASE WHEN {within} THEN get_bit(?, place - {first:d}) != 0 ELSE FALSE END"
        return f"{within} AND {is_set}", [bits]
