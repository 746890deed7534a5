"""A connection to a store on a server, asked as `ffr.corpus.database.Database` says.

One process writes at a time, known by an advisory lock that ends with its connection; readers see
the state that their question began with. A connection that the server ended is made anew, but
within a transaction, and while this process writes: there others may have written meanwhile.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from ffr.corpus.database import Condition
from ffr.corpus.postgres.adapting import ServerRow, adapt, named_rows
from ffr.corpus.postgres.address import Address
from ffr.corpus.postgres.tables import statements
from ffr.corpus.postgres.words import scored, stored_term
from ffr.errors import DataError, FfrError, UsageError
from ffr.text import one_line

_PATIENCE_SECONDS = 30
_CONNECT_SECONDS = 10
_LEAST_PGVECTOR = (0, 8)
Connection = psycopg.Connection[tuple[Any, ...]]


class ServerDatabase:
    """The tables of a store on a server.

    Args:
        address: Where they are.
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
        self._connection = _opened(address)
        try:
            with self.in_words():
                self._check(version, is_new_allowed)
                adapt(self._connection)
        except BaseException:
            self._connection.close()
            raise

    @property
    def place(self) -> str:
        return self.address.place

    def _check(self, version: int, is_new_allowed: bool) -> None:
        (is_there,) = self._first("SELECT to_regclass('meta') IS NOT NULL")
        if not is_there:
            if not is_new_allowed:
                raise DataError(
                    'holds no chat yet; `ffr retrieve "…" CHAT --index URL` reads one',
                    where=self.place,
                )
            self._make(version)
        (found,) = self._first("SELECT version FROM meta")
        if found != version:
            raise DataError(
                f"is a store of version {found}, and this ffr keeps version {version}; name "
                "another schema (…?schema=NAME), or forget it with `ffr index forget --all`",
                where=self.place,
            )

    def _make(self, version: int) -> None:
        """Makes the tables, all or none; of two who do so one waits for the other."""
        with self._connection.transaction():
            self._first("SELECT pg_advisory_xact_lock(%s)", [self.address.lock ^ 1])
            (is_there,) = self._first("SELECT to_regclass('meta') IS NOT NULL")
            if is_there:
                return
            name = sql.Identifier(self.address.schema)
            self._connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
            try:
                self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
            except (errors.InsufficientPrivilege, errors.FeatureNotSupported) as error:
                raise DataError(
                    f"has no pgvector ({one_line(error.diag.message_primary or error)}); have "
                    "its administrator install it and run `CREATE EXTENSION vector`",
                    where=self.place,
                ) from error
            (installed,) = self._first(
                "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
            )
            if tuple(int(part) for part in installed.split(".")[:2]) < _LEAST_PGVECTOR:
                raise DataError(
                    f"has pgvector {installed}; have its administrator bring it to 0.8 or later",
                    where=self.place,
                )
            for statement in statements(version):
                self._connection.execute(sql.SQL(statement))  # type: ignore[arg-type]

    def _first(self, question: str, values: Sequence[object] = ()) -> tuple[Any, ...]:
        found = self._connection.execute(sql.SQL(question), values).fetchone()  # type: ignore[arg-type]
        assert found is not None
        return found

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

    def _run(self, question: str, values: Sequence[object] = ()) -> psycopg.Cursor[tuple[Any, ...]]:
        """Asks; a connection that was ended between two questions is made anew, once."""
        may_renew = not (self._is_writing or self._is_closed or self._is_within)
        try:
            return self._connection.execute(_translated(question), list(values))
        except psycopg.OperationalError:
            if not (may_renew and self._connection.closed):
                raise
        self._connection = _opened(self.address)
        adapt(self._connection)
        return self._connection.execute(_translated(question), list(values))

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> object:
        return self._connection.execute(_translated(sql), list(values))

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        with self._connection.cursor() as cursor:
            cursor.executemany(_translated(sql), [list(row) for row in rows])
        return None

    def insert(self, sql: str, values: Sequence[object]) -> int:
        found = self._connection.execute(_translated(f"{sql} RETURNING id"), list(values))
        (row,) = found.fetchall()
        return int(row[0])

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[ServerRow]:
        with self.in_words():
            return named_rows(self._run(sql, values))

    def tuples(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self.in_words():
            return self._run(sql, values).fetchall()

    def copy(self, table: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
        """Adds many rows at once, within `whole`."""
        with self._connection.cursor(row_factory=tuple_row) as cursor:
            question = sql.SQL(f"COPY {table}({columns}) FROM STDIN")  # type: ignore[arg-type]
            with cursor.copy(question) as copied:
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
        with nullcontext() if self._is_within else self.snapshot():
            for name, value in settings.items():
                self.tuples("SELECT set_config(?, ?, TRUE)", [name, str(value)])
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        lock = self.address.lock
        with self.in_words():
            ((is_taken,),) = self._run("SELECT pg_try_advisory_lock(?)", [lock]).fetchall()
        if not is_taken:
            raise UsageError(
                f"{self.place} is in use by {self._writer(lock)}; wait until it has ended"
            )
        self._is_writing = True
        try:
            yield
        finally:
            self._is_writing = False
            with suppress(psycopg.Error):
                self._connection.execute("SELECT pg_advisory_unlock(%s)", [lock])

    def _writer(self, lock: int) -> str:
        bits = lock & (2**64 - 1)
        found = self.tuples(
            "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE "
            "locktype = 'advisory' AND objsubid = 1 AND classid = ?::bigint::oid AND "
            "objid = ?::bigint::oid AND granted AND pg_locks.database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())",
            [bits >> 32, bits & 0xFFFFFFFF],
        )
        return one_line(found[0][0], 80) if found and found[0][0] else "another process"

    def among(self, column: str, values: Sequence[object]) -> Condition:
        return f"{column} = ANY(?)", [list(values)]

    def pairs_among(self, columns: tuple[str, str], pairs: Sequence[tuple[int, str]]) -> Condition:
        return (
            f"({', '.join(columns)}) IN (SELECT * FROM unnest(?::bigint[], ?::text[]))",
            [[number for number, _ in pairs], [key for _, key in pairs]],
        )

    def day(self, seconds: str) -> str:
        # the calendar of SQLite ends with the year 9999, and begins with the year 0
        return (
            f"CASE WHEN {seconds} >= -62135596800 AND {seconds} < 253402300800 THEN "
            f"to_char(timestamp '1970-01-01' + ({seconds}) * interval '1 second', 'YYYY-MM-DD') END"
        )

    def add_words(self, table: str, rows: Sequence[tuple[int, str]]) -> None:
        stored = [(id_, [stored_term(term) for term in words.split(" ")]) for id_, words in rows]
        if not stored:
            return
        self.copy(
            table, "id, terms, num_terms", ((id_, terms, len(terms)) for id_, terms in stored)
        )
        num_terms = sum(len(terms) for _, terms in stored)
        self._count(table, len(stored), num_terms)

    def forget_words(self, table: str, rows: Sequence[tuple[int, str]]) -> None:
        gone = self._connection.execute(
            _translated(f"DELETE FROM {table} WHERE id = ANY(?) RETURNING num_terms"),
            [[id_ for id_, _ in rows]],
        ).fetchall()
        self._count(table, -len(gone), -sum(num_terms for (num_terms,) in gone))

    def _count(self, table: str, num_rows: int, num_terms: int) -> None:
        self.execute(
            "UPDATE texts SET num_rows = num_rows + ?, num_terms = num_terms + ? WHERE name = ?",
            [num_rows, num_terms, table],
        )

    def matched(self, table: str, terms: Sequence[str], *, is_every: bool) -> Condition:
        stored = list(dict.fromkeys(map(stored_term, terms)))
        ((num_texts, num_terms, counts),) = self.tuples(
            "SELECT num_rows, num_terms, ARRAY(SELECT (SELECT count(*) FROM "
            f"{table} WHERE terms @> ARRAY[asked.term]) FROM unnest(?::text[]) WITH ORDINALITY "
            "AS asked(term, place) ORDER BY place) FROM texts WHERE name = ?",
            [stored, table],
        )
        mean = num_terms / max(num_texts, 1)
        return scored(table, stored, counts, num_texts, mean, is_every=is_every)

    def mark_unfinished(self) -> None:
        self.execute("UPDATE meta SET is_unfinished = TRUE")

    def is_unfinished(self) -> bool:
        return bool(self.rows("SELECT is_unfinished FROM meta")[0][0])

    def take_off_disk(self) -> None:
        with self.in_words():
            for (table,) in self._connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
                "AND relkind = 'r'"
            ).fetchall():
                self._connection.execute(
                    sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table))
                )
        with self.whole():
            self.execute("UPDATE meta SET is_unfinished = FALSE")

    def num_bytes(self) -> int:
        """What the tables take on the server's disk, with their indices."""
        ((size,),) = self.tuples(
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "
            "WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
        )
        return int(size)

    def drop(self) -> None:
        """Takes the whole schema off the server."""
        with self.in_words():
            name = sql.Identifier(self.address.schema)
            self._connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(name))

    def close(self) -> None:
        self._is_closed = True
        self._connection.close()


@lru_cache(512)
def _translated(question: str) -> sql.SQL:
    """SQL as psycopg takes it."""
    return sql.SQL(question.replace("%", "%%").replace("?", "%s"))  # type: ignore[arg-type]


def _opened(address: Address) -> Connection:
    try:
        connection = psycopg.connect(
            address.url,
            autocommit=True,
            client_encoding="utf8",
            application_name=f"process {os.getpid()} on {socket.gethostname()}"[:60],
            **({} if "connect_timeout=" in address.url else {"connect_timeout": _CONNECT_SECONDS}),  # type: ignore[arg-type]
        )
    except psycopg.Error as error:
        raise DataError(
            f"cannot be reached ({one_line(error)}); see to the server, to the name and to "
            "PGPASSWORD or ~/.pgpass",
            where=address.place,
        ) from error
    name = sql.Identifier(address.schema)
    connection.execute(sql.SQL("SET search_path TO {}, public").format(name))
    connection.execute(f"SET lock_timeout = '{_PATIENCE_SECONDS}s'")
    return connection
