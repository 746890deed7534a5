"""Rows of Parquet and Arrow files, read by a process of its own under bounds (`arrow_worker.py`).

Whoever names such a file, to import it or to train on it as it stands, has its rows from here: a
damaged or a hostile one ends the process that reads it, and not the one that asks.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ffr.errors import DataError
from ffr.text import one_line

MAX_ROWS = 2_000_000
"""More rows are refused; of all tables together, for they are held in memory until joined."""
MAX_TABLE_BYTES = 1 << 30
"""What a file may unpack to: a Parquet file as a whole, an Arrow file by each of its batches."""
MAX_CELL_BYTES = 1 << 20
"""A longer text in a cell is refused: a file says it once for all its rows."""
MAX_PICTURE_BYTES = 64 << 20
"""A longer picture in a cell is refused."""
_MAX_MEMORY = 4 << 30
TABLE_SUFFIXES = (".parquet", ".arrow")
ARROW_HEADS = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")
"""What a Parquet file, and either form of an Arrow file, begins with."""


def arrow_rows(path: Path, *, with_bytes: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet or Arrow file, told apart by content; columns that nest stay nested.

    Args:
        path: The file.
        with_bytes: Cells may hold bytes, such as pictures; else they are refused.

    Raises:
        DataError: with the row at which it cannot be read on.

    >>> import pyarrow, pyarrow.parquet, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.parquet")
    ...     pyarrow.parquet.write_table(pyarrow.table({"text": ["hi", "tea?"]}), path)
    ...     list(arrow_rows(path))
    [{'text': 'hi'}, {'text': 'tea?'}]
    """
    bounds = {
        "rows": MAX_ROWS,
        "bytes": MAX_TABLE_BYTES,
        "cell": MAX_CELL_BYTES,
        "picture": MAX_PICTURE_BYTES if with_bytes else 0,
        "memory": _MAX_MEMORY,
    }
    worker = Path(__file__).with_name("arrow_worker.py")
    # -P: the modules beside the file are none that a library looks for
    command = [sys.executable, "-P", str(worker), str(path), json.dumps(bounds)]
    number, reason, features = 0, "", None
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None, "it was started with its pipe"
            for line in process.stdout:
                # one that was killed may leave half a line
                said: dict[str, Any] = (
                    json.loads(line) if line.endswith("\n") else {"fault": "its end is missing"}
                )
                if "end" in said:
                    return
                if "fault" in said:
                    reason = str(said["fault"])
                    break
                if "features" in said:
                    features = _features(said["features"], path)
                    continue
                number += 1
                row = _with_bytes(said["row"])
                yield row if features is None else _decoded(row, features, path, number)
        finally:
            process.kill()
    kind = "Arrow" if path.suffix == ".arrow" else "Parquet"
    raise DataError(
        f"cannot be read as {kind} ({one_line(reason or 'its reader has died of it')}); copy it "
        "again, or write it in parts",
        where=f"{path.name}, row {number + 1}",
    )


def _with_bytes(value: Any) -> Any:
    """A value in which what stands for bytes is bytes again."""
    if isinstance(value, dict):
        if value.keys() == {"base64"}:
            return base64.b64decode(value["base64"])
        return {key: _with_bytes(item) for key, item in value.items()}
    return [_with_bytes(item) for item in value] if isinstance(value, list) else value


def _features(said: dict[str, Any], path: Path) -> Any:
    """The types that the library `datasets` wrote beside the columns: JSON, pictures."""
    import datasets

    try:
        return undecoded(datasets.Features.from_dict(said))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(
            f"its columns' types cannot be read ({one_line(error)}); write it anew", where=path.name
        ) from error


def _decoded(row: dict[str, Any], features: Any, path: Path, number: int) -> dict[str, Any]:
    try:
        return dict(features.decode_example(row))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise DataError(
            f"its columns are not of the types that it names ({one_line(error)}); write it anew",
            where=f"{path.name}, row {number}",
        ) from error


def undecoded(feature: Any) -> Any:
    """The same types of the library `datasets`, with pictures as the bytes or the path they are."""
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.Features):
        return datasets.Features({name: undecoded(item) for name, item in feature.items()})
    if isinstance(feature, dict):
        return {name: undecoded(item) for name, item in feature.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        return type(feature)(undecoded(feature.feature))
    return feature
