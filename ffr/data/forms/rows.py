"""The rows of a table in a file: CSV, JSON, Parquet or Arrow, told apart by content.

Rows are read one after the other, each with its place for errors. A cell that holds nothing is
None in all of them.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ffr.data.findings import shown
from ffr.data.forms.arrow import ARROW_HEADS, arrow_rows
from ffr.data.index import RecordFile, parse_record
from ffr.errors import DataError, UsageError
from ffr.text import counted, one_line

MAX_LINE_BYTES = 16 << 20
"""A longer line of a CSV file is refused."""
_DELIMITERS = ",;\t"
_WIDE_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Args:
        where: File and line, for people.
        values: Its cells by the names of their columns.
    """

    where: str
    values: Mapping[str, Any]


def rows_of(records: Iterable[Mapping[str, Any]], name: str = "rows") -> Iterator[Row]:
    """Rows of a table that is in memory.

    Args:
        records: One mapping a row: columns → cells.
        name: What errors call the table.

    >>> [row.where for row in rows_of([{"query": "a"}, {"query": "b"}], "queries")]
    ['queries, row 1', 'queries, row 2']
    """
    for number, record in enumerate(records, 1):
        yield Row(f"{name}, row {number}", record)


def read_rows(path: str | Path, *, encoding: str | None = None) -> Iterator[Row]:
    r"""Reads the rows of a file.

    Args:
        path: A CSV file with a header (comma, semicolon or tab), a .jsonl file or .json list of
            objects (plain or .gz), a Parquet file or an Arrow file.
        encoding: Of a CSV file; None for UTF-8, or UTF-16 where the file begins with its mark.

    Raises:
        UsageError: where there is no such encoding.
        DataError: with file and line of what cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "lines.csv")
    ...     _ = path.write_text("speaker;text\nann;hi\n")
    ...     [(row.where, row.values) for row in read_rows(path)]
    [('lines.csv:2', {'speaker': 'ann', 'text': 'hi'})]
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}); check the path", where=str(path)
        ) from (error)
    if head.startswith(ARROW_HEADS):
        for number, values in enumerate(arrow_rows(path), 1):
            yield Row(f"{path.name}, row {number}", values)
    elif head.startswith(b"\x1f\x8b") or is_json(head):
        yield from _json_rows(path)
    else:
        if encoding is None:
            encoding = "utf-16" if head.startswith(_WIDE_BOMS) else "utf-8-sig"
        with path.open("rb") as file:
            yield from _csv_rows(file, path.name, _known_encoding(encoding))


def is_json(head: bytes) -> bool:
    """Whether a file that begins so may hold JSON.

    >>> is_json(b' [{"a": 1}]'), is_json(b"a,b")
    (True, False)
    """
    return head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[")


def _json_rows(path: Path) -> Iterator[Row]:
    records = RecordFile(path)
    for index, data in enumerate(records):
        if isinstance(data, DataError):
            raise data
        where = records.where(index)
        yield Row(where, parse_record(data, where))
    if records.tail_fault is not None:
        raise records.tail_fault


# -- CSV -------------------------------------------------------------------------------------------


def _csv_rows(file: BinaryIO, name: str, encoding: str) -> Iterator[Row]:
    lines = _text_lines(file, encoding, name)
    first = next(lines, "")
    if not first.strip():
        raise DataError("begins with no header; name its columns in the first line", where=name)
    unquoted = re.sub('"[^"]*"', "", first)
    delimiter = max(_DELIMITERS, key=unquoted.count)
    reader = csv.reader(_again(first, lines), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    begin = 1
    try:
        for cells in reader:
            where = f"{name}:{begin}"
            begin = reader.line_num + 1
            if columns is None:
                columns = _header([cell.strip() for cell in cells], where)
            elif cells:
                if len(cells) != len(columns):
                    raise DataError(
                        f"has {counted(len(cells), 'cell')} where the header has "
                        f"{counted(len(columns), 'column')}; see "
                        "whether a separator or a quote is missing or one too many",
                        where=where,
                    )
                yield Row(
                    where, {key: cell or None for key, cell in zip(columns, cells, strict=True)}
                )
    except csv.Error as error:
        raise DataError(
            # the csv module's words, without its advice to programmers
            f"cannot be read as CSV ({one_line(str(error).partition(' - ')[0])}); see whether a "
            "quote or a line feed is missing",
            where=f"{name}:{begin}",
        ) from error


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(columns: list[str], where: str) -> list[str]:
    if "" in columns:
        raise DataError(
            f"column {columns.index('') + 1} has no name; name it, or leave it out (pandas writes "
            "its index so: pass index=False)",
            where=where,
        )
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise DataError(f"has the column {shown(twice)} twice; rename one", where=where)
    return columns


def _text_lines(file: BinaryIO, encoding: str, name: str) -> Iterator[str]:
    """The lines of a file with their line breaks; decoded one by one, so that a fault has one."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    number, waiting = 0, ""
    while True:
        data = file.readline(MAX_LINE_BYTES + 1)
        number += bool(data)
        if len(data) > MAX_LINE_BYTES:
            raise DataError(
                f"the line is longer than {MAX_LINE_BYTES >> 20} MiB; is this a table?",
                where=f"{name}:{number}",
            )
        try:
            waiting += decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            called = "UTF-8" if encoding == "utf-8-sig" else encoding
            raise DataError(
                f"not {called} (byte 0x{error.object[error.start]:02x}); name the file's encoding "
                "with --encoding, such as gb18030, cp1252 or utf-16",
                where=f"{name}:{number}",
            ) from error
        *whole, waiting = waiting.split("\n")
        for line in whole:
            yield f"{line}\n"
        if not data:
            if waiting:
                yield waiting
            return


def _known_encoding(encoding: str) -> str:
    try:
        "".encode(encoding)
    except LookupError:
        raise UsageError(
            f"no encoding {encoding!r}; name one such as utf-8, gb18030, cp1252 or utf-16"
        ) from None
    return encoding
