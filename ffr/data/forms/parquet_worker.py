"""A process of its own that reads a Parquet file, under bounds, and prints its rows as JSON.

Of a damaged file Arrow's C++ may end the whole process (`terminate called …`), and a file of a
thousand bytes may hold one text for millions of rows. It is started by `ffr.data.forms.rows` as a
file, so that it imports Arrow and nothing of ffr. Its arguments are the file and the bounds as JSON;
each line is `{"row": …}`, then one `{"end": …}`, or `{"fault": …}` in place of what cannot be said.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

_BATCH_ROWS = 64


def main(path: str, bounds: dict[str, int]) -> None:
    """Prints the rows of a file."""
    if sys.platform == "linux":
        import resource

        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        limit = mapped + bounds["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        _say(end=_print_rows(path, bounds))
    except MemoryError:
        _say(fault=f"its rows need more than {bounds['memory']:,} bytes of memory")
    except (pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        _say(fault=f"{error}"[:2_000] or type(error).__name__)


def _print_rows(path: str, bounds: dict[str, int]) -> int:
    number = 0
    with pyarrow.parquet.ParquetFile(path) as plain:
        facts = plain.metadata
        groups = [facts.row_group(index) for index in range(facts.num_row_groups)]
        num_bytes = sum(group.total_byte_size for group in groups)
        if facts.num_rows > bounds["rows"] or num_bytes > bounds["bytes"]:
            raise ValueError(
                f"it has {facts.num_rows:,} rows that unpack to {num_bytes:,} bytes, more than "
                f"{bounds['rows']:,} rows or {bounds['bytes']:,} bytes"
            )
        columns = [plain.schema.column(index) for index in range(len(plain.schema))]
        # texts stay where they are kept once for many rows, until it is known that they are short
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            if any(_longest_text(column) > bounds["cell"] for column in batch.columns):
                raise ValueError(f"a cell holds more than {bounds['cell']:,} bytes")
            for values in batch.to_pylist():
                _say(row=_plain(values))
                number += 1
    return number


def _longest_text(column: Any) -> int:
    """Bytes of the longest text in a column, its lists and objects looked into."""
    kind = pyarrow.types
    if kind.is_dictionary(column.type):
        return _longest_text(column.dictionary)
    if kind.is_struct(column.type):
        return max(map(_longest_text, column.flatten()), default=0)
    if kind.is_list(column.type) or kind.is_large_list(column.type):
        return _longest_text(column.flatten())
    if kind.is_map(column.type):
        return max(_longest_text(column.keys), _longest_text(column.items))
    if kind.is_string(column.type) or kind.is_binary(column.type):
        longest = pyarrow.compute.max(pyarrow.compute.binary_length(column)).as_py()
        return int(longest or 0)
    return 0


def _plain(value: Any) -> Any:
    """A value as JSON has it; dates in ISO's words, and NaN, pandas' nothing, as null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        raise ValueError(
            "a cell holds bytes; write pictures as files, and their paths in the table"
        )
    return None if isinstance(value, float) and math.isnan(value) else value


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
