"""A connection to a server, and the tables of a store on it: found, made, or refused in words."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors, sql

from ffr.corpus.postgres.adapting import adapt
from ffr.corpus.postgres.address import Address
from ffr.corpus.postgres.tables import statements
from ffr.errors import DataError
from ffr.text import one_line

_PATIENCE_SECONDS = 30
_CONNECT_SECONDS = 10
_LEAST_PGVECTOR = (0, 8)
Connection = psycopg.Connection[tuple[Any, ...]]


def opened(address: Address) -> Connection:
    """A connection that commits each statement by itself, and looks for tables in the schema.

    Raises:
        DataError: where the server does not answer, or refuses.
    """
    try:
        connection = psycopg.connect(
            address.url,
            autocommit=True,
            client_encoding="utf8",
            application_name=f"process {os.getpid()} on {socket.gethostname()}"[:60],
            **({} if "connect_timeout=" in address.url else {"connect_timeout": _CONNECT_SECONDS}),  # type: ignore[arg-type]
        )
        name = sql.Identifier(address.schema)
        connection.execute(sql.SQL("SET search_path TO {}, public").format(name))
        connection.execute(f"SET lock_timeout = '{_PATIENCE_SECONDS}s'")
    except psycopg.Error as error:
        raise DataError(
            f"cannot be reached ({one_line(error)}); see to the server, to the name and to "
            "PGPASSWORD or ~/.pgpass",
            where=address.place,
        ) from error
    return connection


def prepare(connection: Connection, address: Address, version: int, is_new_allowed: bool) -> None:
    """Makes the tables of a store where they are missing and may be made.

    Raises:
        DataError: where there are none, of another version, or the server lacks pgvector.
    """
    if not _tables(connection, address, "meta"):
        if not is_new_allowed:
            raise DataError(
                'holds no chat yet; `ffr retrieve "…" CHAT --index URL` reads one',
                where=address.place,
            )
        _make(connection, address, version)
    # by its whole name: where the schema may not be used the server says so
    (found,) = _first(connection, f"SELECT version FROM {address.schema}.meta")
    if found != version:
        raise DataError(
            f"is a store of version {found}, and this ffr keeps version {version}; name "
            "another schema (…?schema=NAME), or forget it with `ffr index forget --all`",
            where=address.place,
        )
    adapt(connection)


def _make(connection: Connection, address: Address, version: int) -> None:
    """Makes the tables, all or none; of two who do so one waits for the other."""
    with connection.transaction():
        _first(connection, "SELECT pg_advisory_xact_lock(%s)", [address.lock ^ 1])
        if _tables(connection, address, "meta"):
            return
        (encoding,) = _first(connection, "SHOW server_encoding")
        if encoding != "UTF8" or _tables(connection, address, "%"):
            what = f"encodes texts as {encoding}" if encoding != "UTF8" else "holds other tables"
            raise DataError(
                f"schema {address.schema} {what}; name a database in UTF8, and a schema of its own "
                "(…?schema=NAME)",
                where=address.place,
            )
        name = sql.Identifier(address.schema)
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        except (errors.InsufficientPrivilege, errors.FeatureNotSupported) as error:
            raise DataError(
                f"has no pgvector ({one_line(error.diag.message_primary or error)}); have "
                "its administrator install it and run `CREATE EXTENSION vector`",
                where=address.place,
            ) from error
        (installed,) = _first(
            connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        )
        if tuple(int(part) for part in installed.split(".")[:2]) < _LEAST_PGVECTOR:
            raise DataError(
                f"has pgvector {installed}; have its administrator bring it to 0.8 or later",
                where=address.place,
            )
        for statement in statements(version):
            connection.execute(sql.SQL(statement))  # type: ignore[arg-type]


def _tables(connection: Connection, address: Address, pattern: str) -> bool:
    """Whether the schema has a table with such a name."""
    (is_there,) = _first(
        connection,
        "SELECT EXISTS(SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename LIKE %s)",
        [address.schema, pattern],
    )
    return bool(is_there)


def _first(connection: Connection, question: str, values: Sequence[object] = ()) -> tuple[Any, ...]:
    found = connection.execute(sql.SQL(question), values).fetchone()  # type: ignore[arg-type]
    assert found is not None
    return found
