"""Records and documents as JSON that every reader takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ffr.errors import DataError, UsageError
from ffr.files.disk import write_bytes
from ffr.files.replaced import replaced_file


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON objects to a .json list or a .jsonl file, packed for .gz; tells how many.

    Raises:
        UsageError: where the name ends in something else.
        DataError: where the file cannot be written or a record cannot be said in JSON.
    """
    path = Path(path)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("json", "jsonl"):
        raise UsageError(
            f"{path.name}: the name ends in .json, .jsonl, .json.gz or .jsonl.gz, so that the "
            "layout is known"
        )
    count = 0
    with replaced_file(path) as write:
        write(b"[" if kind == "json" else b"")
        for record in records:
            line = dump_record(record, where=f"{path.name}, record {count + 1}")
            if kind == "json":
                write((b",\n" if count else b"\n") + line)
            else:
                write(line + b"\n")
            count += 1
        write(b"\n]\n" if kind == "json" else b"")
    return count


def dump_record(record: Mapping[str, Any], *, where: str | None = None) -> bytes:
    """One record as a line of JSON in UTF-8, without the line break.

    Raises:
        DataError: where JSON cannot say it (NaN, half a surrogate pair, …).
    """
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"cannot be written as JSON ({error}); correct the value", where=where
        ) from error


def dump_json(content: Any, *, where: str) -> bytes:
    r"""A document of ffr's own as JSON that every reader takes, with a line break at its end.

    Half a surrogate pair, as a text from outside may have, is written as its escape.

    Raises:
        DataError: where a number is not finite, or a value is none of JSON's.

    >>> dump_json({"said": "\ud83d"}, where="a.json")
    b'{\n  "said": "\\ud83d"\n}\n'
    """
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"cannot be written as JSON ({error}); look for NaN in the model's weights or what it "
            "was given",
            where=where,
        ) from error
    return (text + "\n").encode("utf-8", "backslashreplace")


def replace_json(path: Path, content: Any) -> None:
    """Writes a document as `dump_json` has it, whole or not at all.

    Raises:
        DataError: where it cannot be written.
    """
    data = dump_json(content, where=str(path))
    with replaced_file(path) as write:
        write(data)


def write_json(path: Path, content: Any) -> None:
    """Writes a document as `dump_json` has it at once, for a scratch folder.

    Raises:
        DataError: where a number is not finite, or a value is none of JSON's.
    """
    write_bytes(path, dump_json(content, where=str(path)))
