"""Vectors of texts on a server: exact ones in the table, half as wide in an HNSW index.

The server compares: up to `EXACT_ROWS` rows one by one, more by the index, which is asked on for as
long as a filter leaves too few of what it finds.

Shapes: n texts, D width of the encoder's vectors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector
from torch import Tensor

from ffr.corpus.database import Database
from ffr.corpus.finite import check_finite
from ffr.corpus.postgres.closest import ServerRows
from ffr.corpus.postgres.database import ServerDatabase
from ffr.corpus.postgres.graphs import make_graphs
from ffr.corpus.schema import whole
from ffr.corpus.store import Store
from ffr.errors import DataError, ModelError
from ffr.progress import Progress

EXACT_ROWS = 50_000
"""So many vectors are compared one by one; more by HNSW."""

# pgvector's bound of an index over half-precision vectors
_MAX_INDEXED_WIDTH = 4000
# to walk for a row costs as much as to compare so many
_LEAST_CHOICE = 20
_HEX = re.compile("[0-9a-f]+")


def server_of(store: Store) -> ServerDatabase:
    """The server that a store lies on.

    Raises:
        ValueError: where it lies in a folder.
    """
    if not isinstance(store.database, ServerDatabase):
        raise ValueError(f"{store.place} is no store on a server")
    return store.database


class ServerVectors:
    """The vectors that one encoder gave the texts of a store; as `StoredVectors` of a folder.

    Args:
        store: The store.
        encoder: Names the encoder's weights and the prefix of its lines.
        width: D; None where vectors are there already.

    Raises:
        DataError: where there are none, and no width is given.
        ModelError: where they have another width.
    """

    def __init__(self, store: Store, encoder: str, width: int | None = None) -> None:
        if not _HEX.fullmatch(encoder):
            raise ValueError(f"{encoder!r} is no key of an encoder")
        self._store = store
        self._server = server_of(store)
        self._encoder = encoder
        found = self._server.tuples(
            "SELECT width, num_rows FROM matrices WHERE encoder = ?", [encoder]
        )
        if not found and width is None:
            raise DataError("has no vectors of this encoder", where=store.place)
        self.width, self.num_rows = found[0] if found else (width or 0, 0)
        self._fetched: NDArray[np.float32] | None = None
        # what the index named last, by row
        self._named: dict[int, Vector] = {}
        if width is not None and width != self.width:
            raise ModelError(
                f"makes vectors of {width} numbers, and the store has {self.width} of it; name "
                "another schema with --index …?schema=NAME",
                encoder,
            )

    def hold(self) -> None:
        """Nothing: a snapshot of the server holds them."""

    def matrix(self) -> NDArray[np.float32]:
        """(rows, D) all vectors, fetched once."""
        if self._fetched is None:
            rows = self._server.tuples(
                "SELECT place, vector FROM vectors WHERE encoder = ?",
                [self._encoder],
                is_binary=True,
            )
            self._fetched = np.zeros((self.num_rows, self.width), np.float32)
            for place, vector in rows:
                self._fetched[place] = vector.to_numpy()
        return self._fetched

    def places(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The rows of texts, by their digests; those that have none are left out."""
        among, values = self._server.among("key", list(dict.fromkeys(keys)))
        found = self._server.tuples(
            f"SELECT key, place FROM vectors WHERE encoder = ? AND {among}",
            [self._encoder, *values],
        )
        return dict(found)

    def of(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """(D,) the vectors of texts, by their digests; those that have none are left out."""
        among, values = self._server.among("key", list(dict.fromkeys(keys)))
        found = self._server.tuples(
            f"SELECT key, vector FROM vectors WHERE encoder = ? AND {among}",
            [self._encoder, *values],
            is_binary=True,
        )
        return {key: vector.to_numpy() for key, vector in found}

    def add(self, keys: Sequence[bytes], vectors: Tensor) -> None:
        """Writes the vectors of texts that have none yet, all or none.

        Args:
            keys: n digests of texts, all different.
            vectors: (n, D) float32.

        Raises:
            DataError: where one is no vector of finite numbers.
        """
        check_finite(self._store, keys, vectors)
        first = self.num_rows
        rows = (
            (self._encoder, key, first + number, Vector(vector))
            for number, (key, vector) in enumerate(zip(keys, vectors.numpy(), strict=True))
        )
        with whole(self._server):
            columns = {"encoder": "text", "key": "bytea", "place": "int8", "vector": "vector"}
            self._server.copy("vectors", columns, rows)
            self._server.execute(
                "INSERT INTO matrices VALUES (?, ?, ?) ON CONFLICT(encoder) DO UPDATE SET "
                "num_rows = excluded.num_rows",
                [self._encoder, self.width, first + len(keys)],
            )
        self.num_rows = first + len(keys)
        self._fetched = None

    @property
    def is_indexed(self) -> bool:
        """Whether there are so many that the server's index is asked."""
        return self.num_rows > EXACT_ROWS and bool(
            self._server.tuples("SELECT 1 WHERE to_regclass(?) IS NOT NULL", [self._index])
        )

    @property
    def _index(self) -> str:
        return f"nearest_{self._encoder[:32]}"

    def lacks_lists(self) -> bool:
        """Whether there are more than are compared one by one, and no index yet."""
        return (
            self.num_rows > EXACT_ROWS and self.width <= _MAX_INDEXED_WIDTH and not self.is_indexed
        )

    def make_lists(self, progress: Progress) -> None:
        """Makes the HNSW index over vectors of half precision; what is added later goes into it.

        Args:
            progress: Is told after each partition how many rows are in.
        """
        with whole(self._server):
            make_graphs(self._server, self._index, self._encoder, self.width, progress)

    def compared(self) -> ServerVectors:
        """What compares queries with rows: itself."""
        return self

    def closest(
        self, query: NDArray[np.float32], rows: NDArray[np.int64], number: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The rows closest to a query, the closest first, with their exact cosines.

        Args:
            query: (D,) of length 1.
            rows: (n,) those that may be found, ascending.
            number: How many; more where the last ones are equal, and each was compared.
        """
        kept = ServerRows(self._server, self._encoder, self.width, self.num_rows)
        found: list[tuple[int, float]] = []
        if len(rows) > max(EXACT_ROWS, _LEAST_CHOICE * number) and self.is_indexed:
            named = kept.by_index(query, rows, number)
            self._named = {place: vector for place, _, vector in named}
            found = [(place, cosine) for place, cosine, _ in named]
        if len(found) < number:
            found = kept.one_by_one(query, rows, number)
        found.sort(key=lambda row: (-row[1], row[0]))
        return (
            np.array([place for place, _ in found], np.int64),
            np.array([score for _, score in found], np.float32),
        )

    def vectors_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, D) the vectors of rows, in their order."""
        if self._fetched is not None:
            return self._fetched[rows]
        found, places = self._named, rows.tolist()
        if missing := [place for place in places if place not in found]:
            found = found | dict(
                self._server.tuples(
                    "SELECT place, vector FROM vectors WHERE encoder = ? AND place = ANY(?)",
                    [self._encoder, missing],
                    is_binary=True,
                )
            )
        vectors = [found[place].to_numpy() for place in places]
        return np.array(vectors, np.float32).reshape(len(rows), self.width)


def compact(database: Database) -> None:
    """Takes the vectors of texts off a server that no message has any more."""
    with whole(database):
        database.execute(
            "DELETE FROM vectors WHERE NOT EXISTS (SELECT 1 FROM messages WHERE text_key = "
            "vectors.key) AND NOT EXISTS (SELECT 1 FROM shown WHERE words_key = vectors.key) "
            "AND NOT EXISTS (SELECT 1 FROM segments WHERE segments.key = vectors.key) "
            "AND NOT EXISTS (SELECT 1 FROM files WHERE digest = vectors.key)"
        )
        database.execute(
            "UPDATE vectors SET place = ranked.place FROM (SELECT encoder, key, row_number() OVER "
            "(PARTITION BY encoder ORDER BY place) - 1 AS place FROM vectors) AS ranked WHERE "
            "vectors.encoder = ranked.encoder AND vectors.key = ranked.key "
            "AND vectors.place != ranked.place"
        )
        database.execute(
            "UPDATE matrices SET num_rows = (SELECT count(*) FROM vectors "
            "WHERE vectors.encoder = matrices.encoder)"
        )
