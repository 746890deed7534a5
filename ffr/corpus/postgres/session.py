"""A session on a server: questions, and transactions that are whole or not at all.

Readers see the state that their question began with. A connection that the server ended is made
anew, but within a transaction, and while this process writes: there others may have written
meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from ffr.corpus.postgres.adapting import ServerRow, adapt, named_rows
from ffr.corpus.postgres.address import Address
from ffr.corpus.postgres.making import opened, prepare
from ffr.errors import DataError, FfrError, UsageError
from ffr.text import one_line


class Session:
    """Questions to a store on a server.

    Args:
        address: Where it is.
        version: Of the tables.
        is_new_allowed: Make them where they are missing.

    Raises:
        DataError: where the server does not answer, refuses, or has no such store.
    """

    def __init__(self, address: Address, *, version: int, is_new_allowed: bool) -> None:
        self.address = address
        self._is_writing = False
        self._is_closed = False
        self._is_within = False
        self._connection = opened(address)
        try:
            with self.in_words():
                prepare(self._connection, address, version, is_new_allowed)
        except BaseException:
            self._connection.close()
            raise

    @property
    def place(self) -> str:
        return self.address.place

    @contextmanager
    def in_words(self) -> Iterator[None]:
        """What the server says of a fault within becomes a sentence.

        Raises:
            DataError: where it cannot be read or written: a server that ended, a full disk, no
                right to it.
            UsageError: where the store is closed.
        """
        try:
            yield
        except psycopg.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: psycopg.Error) -> FfrError:
        if self._is_closed:
            return UsageError("the store of chats was closed; open it again")
        reason = one_line(error.diag.message_primary or error)
        if self._connection.closed:
            return DataError(
                f"the server ended the connection ({reason}); all that was kept before is there, "
                "so do the same again once it answers",
                where=self.place,
            )
        return DataError(
            f"cannot be used as a store of chats ({reason}); see to the server's room and your "
            "rights on it",
            where=self.place,
        )

    def _run(
        self, question: str, values: Sequence[object] = (), *, is_binary: bool = False
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        """Asks; a connection that was ended between two questions is made anew, once."""
        may_renew = not (self._is_writing or self._is_closed or self._is_within)
        asked = translated(question), list(values)
        try:
            return self._connection.execute(*asked, binary=is_binary)
        except psycopg.OperationalError:
            if not (may_renew and self._connection.closed):
                raise
        self._connection = opened(self.address)
        adapt(self._connection)
        return self._connection.execute(*asked, binary=is_binary)

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> object:
        return self._connection.execute(translated(sql), list(values))

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        with self._connection.cursor() as cursor:
            cursor.executemany(translated(sql), [list(row) for row in rows])
        return None

    def insert(self, sql: str, values: Sequence[object]) -> int:
        found = self._connection.execute(translated(f"{sql} RETURNING id"), list(values))
        (row,) = found.fetchall()
        return int(row[0])

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[ServerRow]:
        with self.in_words():
            return named_rows(self._run(sql, values))

    def tuples(
        self, sql: str, values: Sequence[object] = (), *, is_binary: bool = False
    ) -> list[tuple[Any, ...]]:
        """As of `Database`.

        Args:
            sql: The question.
            values: For each `?` one.
            is_binary: Have the server send numbers and vectors as it keeps them, which is a fraction
                of the work; texts are not read back so.
        """
        with self.in_words():
            return self._run(sql, values, is_binary=is_binary).fetchall()

    def copy(
        self, table: str, columns: Mapping[str, str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Adds many rows at once, within `whole`.

        Args:
            table: Theirs.
            columns: Their types, by name.
            rows: A value for each column.
        """
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            question = f"COPY {table}({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
            with cursor.copy(sql.SQL(question)) as copied:  # type: ignore[arg-type]
                copied.set_types(list(columns.values()))
                for row in rows:
                    copied.write_row(row)

    @contextmanager
    def whole(self) -> Iterator[None]:
        with self.in_words():
            self._run("BEGIN")
            self._is_within = True
            try:
                # who else would write waits here
                self.execute("UPDATE meta SET changes = changes + 1")
                yield
                self.execute("COMMIT")
            except BaseException:
                # the server has undone all where it ended the connection
                with suppress(psycopg.Error):
                    self._connection.rollback()
                raise
            finally:
                self._is_within = False

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        with self.in_words():
            self._run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._is_within = True
            try:
                # what is read first decides what is seen
                yield int(self.rows("SELECT changes FROM meta")[0][0])
            finally:
                self._is_within = False
                with suppress(psycopg.Error):
                    self._connection.rollback()

    @contextmanager
    def adjusted(self, settings: Mapping[str, object]) -> Iterator[None]:
        """Has the server's settings be others within, in a snapshot."""
        sets = ", ".join(["set_config(?, ?, TRUE)"] * len(settings))
        values = [part for name, value in settings.items() for part in (name, str(value))]
        with nullcontext() if self._is_within else self.snapshot():
            with self.in_words():
                self._run("SAVEPOINT adjusted")
                self._run(f"SELECT {sets}", values)
            yield
            # undoes what was set
            with self.in_words():
                self._run("ROLLBACK TO adjusted")

    def close(self) -> None:
        self._is_closed = True
        self._connection.close()


@lru_cache(512)
def translated(question: str) -> sql.SQL:
    """SQL as psycopg takes it."""
    return sql.SQL(question.replace("%", "%%").replace("?", "%s"))  # type: ignore[arg-type]
