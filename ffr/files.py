"""Files of JSON records, and any file, written whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ffr.errors import DataError, UsageError


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON objects to a .json list or a .jsonl file, packed if the name ends in .gz, and tells how many.

    Raises:
        UsageError: where the name ends in something else.
        DataError: where the file cannot be written or a record cannot be said in JSON.
    """
    path = Path(path)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("json", "jsonl"):
        raise UsageError(
            f"{path.name}: the name ends in .json, .jsonl, .json.gz or .jsonl.gz, so that the layout is known"
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
        raise DataError(f"cannot be written as JSON ({error}); correct the value", where=where) from error


@contextmanager
def replaced_file(path: Path) -> Iterator[Callable[[bytes], int]]:
    """A function that writes to a temporary file beside `path` (packed for .gz), which takes its place at the end if all went well."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as plain:
            if path.suffix == ".gz":
                # no name and no time of day inside: the same records give the same bytes
                with gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) as packed:
                    yield packed.write
            else:
                yield plain.write
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror}); check the folder and its room", where=str(path)
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
