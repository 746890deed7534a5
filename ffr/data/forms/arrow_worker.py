"""A process of its own that reads Parquet and Arrow files, under bounds, and prints rows as JSON.

Of a damaged file Arrow's C++ may end the whole process (`terminate called …`), and a file of a
thousand bytes may hold one text for millions of rows. It is started by `ffr.data.forms.arrow` as a
file, so that it imports Arrow and nothing of ffr. Its arguments are the file and the bounds as JSON;
its lines are `{"features": …}` where the library `datasets` left its own types in the file, one
`{"row": …}` each, then one `{"end": …}`, or `{"fault": …}` in place of what cannot be said.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

_BATCH_ROWS = 64
_BATCH_ROWS_WITH_BYTES = 4


def main(path: str, bounds: dict[str, int]) -> None:
    """Prints the rows of a file."""
    if sys.platform == "linux":
        import resource

        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        # a file that is mapped counts as memory, though it takes none
        limit = mapped + bounds["memory"] + Path(path).stat().st_size
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        _say(end=_print_rows(path, bounds))
    except MemoryError:
        _say(fault=f"its rows need more than {bounds['memory']:,} bytes of memory")
    except (pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        _say(fault=f"{error}"[:2_000] or type(error).__name__)


def _print_rows(path: str, bounds: dict[str, int]) -> int:
    number = 0
    most_rows = _BATCH_ROWS_WITH_BYTES if bounds["picture"] else _BATCH_ROWS
    with Path(path).open("rb") as file:
        batches = _parquet_batches if file.read(4) == b"PAR1" else _arrow_batches
    for batch in batches(path, bounds, most_rows):
        if number + batch.num_rows > bounds["rows"] or batch.nbytes > bounds["bytes"]:
            _refuse_size(number + batch.num_rows, batch.nbytes, bounds)
        for begin in range(0, batch.num_rows, most_rows):
            rows = batch.slice(begin, most_rows)
            if any(_longest(column, _is_text) > bounds["cell"] for column in rows.columns):
                raise ValueError(f"a cell holds more than {bounds['cell']:,} bytes")
            longest = max((_longest(column, _is_bytes) for column in rows.columns), default=0)
            if bounds["picture"] and longest > bounds["picture"]:
                raise ValueError(f"a picture holds more than {bounds['picture']:,} bytes")
            for values in rows.to_pylist():
                _say(row=_plain(values, with_bytes=bool(bounds["picture"])))
                number += 1
    return number


def _parquet_batches(
    path: str, bounds: dict[str, int], most_rows: int
) -> Iterator[pyarrow.RecordBatch]:
    with pyarrow.parquet.ParquetFile(path) as plain:
        facts = plain.metadata
        groups = [facts.row_group(index) for index in range(facts.num_row_groups)]
        num_bytes = sum(group.total_byte_size for group in groups)
        if facts.num_rows > bounds["rows"] or num_bytes > bounds["bytes"]:
            _refuse_size(facts.num_rows, num_bytes, bounds)
        _say_features(plain.schema_arrow)
        columns = [plain.schema.column(index) for index in range(len(plain.schema))]
        # texts stay where they are kept once for many rows, until it is known that they are short
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
        yield from file.iter_batches(batch_size=most_rows)


def _arrow_batches(
    path: str, bounds: dict[str, int], most_rows: int
) -> Iterator[pyarrow.RecordBatch]:
    del bounds, most_rows
    with pyarrow.memory_map(path) as source:
        if source.read(6) == b"ARROW1":
            with pyarrow.ipc.open_file(source) as file:
                _say_features(file.schema)
                for index in range(file.num_record_batches):
                    batch = file.get_batch(index)
                    batch.validate(full=True)
                    yield batch
            return
        source.seek(0)
        with pyarrow.ipc.open_stream(source) as stream:
            _say_features(stream.schema)
            for batch in stream:
                batch.validate(full=True)
                yield batch


def _refuse_size(num_rows: int, num_bytes: int, bounds: dict[str, int]) -> None:
    raise ValueError(
        f"it has {num_rows:,} rows that unpack to {num_bytes:,} bytes, more than "
        f"{bounds['rows']:,} rows or {bounds['bytes']:,} bytes"
    )


def _say_features(schema: pyarrow.Schema) -> None:
    said = json.loads((schema.metadata or {}).get(b"huggingface", b"null"))
    info = said.get("info") if isinstance(said, dict) else None
    features = info.get("features") if isinstance(info, dict) else None
    if isinstance(features, dict):
        _say(features=features)


def _is_text(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _is_bytes(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _longest(column: Any, is_wanted: Any) -> int:
    """Bytes of the longest text, or bytes, in a column, its lists and objects looked into."""
    kind = pyarrow.types
    if isinstance(column, pyarrow.ExtensionArray):
        return _longest(column.storage, is_wanted)
    if kind.is_dictionary(column.type):
        return _longest(column.dictionary, is_wanted)
    if kind.is_struct(column.type):
        return max((_longest(part, is_wanted) for part in column.flatten()), default=0)
    if (
        kind.is_list(column.type)
        or kind.is_large_list(column.type)
        or kind.is_fixed_size_list(column.type)
    ):
        return _longest(column.flatten(), is_wanted)
    if kind.is_map(column.type):
        return max(_longest(column.keys, is_wanted), _longest(column.items, is_wanted))
    if is_wanted(column.type):
        longest = pyarrow.compute.max(pyarrow.compute.binary_length(column)).as_py()
        return int(longest or 0)
    return 0


def _plain(value: Any, *, with_bytes: bool) -> Any:
    """A value as JSON has it; dates in ISO's words, and NaN, pandas' nothing, as null."""
    if isinstance(value, dict):
        if "base64" in value:
            raise ValueError('a column is called "base64"; rename it')
        return {key: _plain(item, with_bytes=with_bytes) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, with_bytes=with_bytes) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        if with_bytes:
            return {"base64": base64.b64encode(value).decode("ascii")}
        raise ValueError(
            "a cell holds bytes; write pictures as files, and their paths in the table"
        )
    return None if isinstance(value, float) and math.isnan(value) else value


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
