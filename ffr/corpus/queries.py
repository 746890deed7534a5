"""Questions in a file: one a line, JSON lines, or CSV, with ids if they have any."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ffr.errors import DataError
from ffr.text import address_hint, one_line

QUERY_KEYS = ("query", "query_text")
"""What a question is called in a row; the first that is there."""

MAX_BYTES = 256 << 20
"""A file of questions is no larger."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a file.

    Args:
        id: What it goes by: what the file says, else the number of its line.
        query: Its words.
        line: Where it stands, from 1.
    """

    id: str | int
    query: str
    line: int


def read_queries(path: Path) -> list[Asked]:
    """The questions of a file: `.csv` by its header, `.jsonl` a row each, else one a line.

    Lines that are blank are none.

    Args:
        path: The file, in UTF-8.

    Raises:
        DataError: where it cannot be read, holds no question, a row has none, or an id stands
            twice.
    """
    text = _text_of(path)
    kinds = {".csv": _rows_of_table, ".jsonl": _rows_of_json, ".ndjson": _rows_of_json}
    if path.suffix.lower() == ".json":
        raise DataError(
            "is one JSON text; write a question a line and let its name end in .jsonl",
            where=one_line(path),
        )
    found: list[Asked] = []
    seen: dict[str | int, int] = {}
    for line, row in kinds.get(path.suffix.lower(), _lines_of)(text, path):
        asked = _asked(row, line, path)
        if asked.id in seen:
            raise DataError(
                f"the id {one_line(asked.id, 60)} stands in line {seen[asked.id]} too; give each "
                "question its own",
                where=f"{one_line(path)}:{line}",
            )
        seen[asked.id] = line
        found.append(asked)
    if not found:
        raise DataError("holds no question; write one a line", where=one_line(path))
    return found


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"is larger than {MAX_BYTES >> 20} MiB; split it", where=one_line(path))
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise DataError(
            f"cannot be read ({reason}){address_hint(path)}", where=one_line(path)
        ) from error


def _lines_of(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, {"query": line.strip()}


def _rows_of_json(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"is no JSON ({one_line(error, 120)}); write one object a line",
                where=f"{one_line(path)}:{number}",
            ) from error
        if not isinstance(row, dict):
            row = {"query": row}
        yield number, row


def _rows_of_table(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    rows = csv.DictReader(text.splitlines(keepends=True), strict=True)
    try:
        for row in rows:
            yield rows.line_num, dict(row)
    except csv.Error as error:
        raise DataError(
            f"is no CSV ({one_line(error, 120)}); write a header with a column `query`",
            where=f"{one_line(path)}:{rows.line_num}",
        ) from error


def _asked(row: dict[str, object], line: int, path: Path) -> Asked:
    query = next((row[key] for key in QUERY_KEYS if key in row), None)
    if not isinstance(query, str) or not query.strip():
        raise DataError(
            f"has no question; give a text under {' or '.join(QUERY_KEYS)}",
            where=f"{one_line(path)}:{line}",
        )
    given = row.get("id")
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
        raise DataError(
            f"has the id {one_line(given, 60)}; give a text or a whole number",
            where=f"{one_line(path)}:{line}",
        )
    return Asked(line if given in (None, "") else given, query, line)  # type: ignore[arg-type]
