"""What goes over the wire to a server and back: texts with zero bytes, vectors, rows by name.

Postgres keeps no zero byte in a text. It is written as 1 and "0", and a 1 as 1 and "1", so that
every text comes back as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from pgvector.psycopg import register_vector
from psycopg.abc import Buffer
from psycopg.types.string import StrBinaryDumper, StrDumperUnknown, TextLoader


class ServerRow:
    """A row whose values are known by name and by number."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: Mapping[str, int], values: Sequence[Any]) -> None:
        self._names = names
        self._values = values

    def __getitem__(self, key: int | str, /) -> Any:
        return self._values[self._names[key] if isinstance(key, str) else key]


def named_rows(cursor: psycopg.Cursor[tuple[Any, ...]]) -> list[ServerRow]:
    """All rows of a cursor, by name."""
    names = {column.name: place for place, column in enumerate(cursor.description or ())}
    return [ServerRow(names, values) for values in cursor.fetchall()]


def written(text: str) -> str:
    r"""A text as the server keeps it.

    >>> written("a\0b\1"), read_back(written("a\0b\1")) == "a\0b\1"
    ('a\x010b\x011', True)
    """
    if "\0" not in text and "\1" not in text:
        return text
    return text.replace("\1", "\1" + "1").replace("\0", "\1" + "0")


def read_back(text: str) -> str:
    """A text as it was before `written`."""
    if "\1" not in text:
        return text
    return text.replace("\1" + "0", "\0").replace("\1" + "1", "\1")


class _Writer(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(written(obj))


class _CopyWriter(StrBinaryDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(written(obj))


class _Reader(TextLoader):
    def load(self, data: Buffer) -> bytes | str:
        found = super().load(data)
        return read_back(found) if isinstance(found, str) else found


def adapt(connection: psycopg.Connection[Any]) -> None:
    """Has a connection write and read texts and vectors so."""
    register_vector(connection)
    connection.adapters.register_dumper(str, _CopyWriter)
    # the last is the one of questions
    connection.adapters.register_dumper(str, _Writer)
    connection.adapters.register_loader("text", _Reader)
