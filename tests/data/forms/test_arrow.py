"""Rows of Parquet and Arrow files: bounded, and read by a process whose death is a sentence."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ffr.data.catalog import load_dataset
from ffr.data.forms import arrow
from ffr.data.forms.arrow import arrow_rows
from ffr.errors import DataError, UsageError

Write = Callable[[pyarrow.Table, Path], None]


def _write_arrow(writer: Any) -> Write:
    def write(table: pyarrow.Table, path: Path) -> None:
        with writer(path, table.schema) as file:
            file.write_table(table)

    return write


WRITERS: dict[str, Write] = {
    "parquet": pyarrow.parquet.write_table,
    "file.arrow": _write_arrow(pyarrow.ipc.new_file),
    "stream.arrow": _write_arrow(pyarrow.ipc.new_stream),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[pyarrow.Table], Path]:
    def written(table: pyarrow.Table) -> Path:
        path = tmp_path / f"a.{request.param}"
        WRITERS[request.param](table, path)
        return path

    return written


def test_damaged(write: Callable[[pyarrow.Table], Path]) -> None:
    path = write(pyarrow.table({"text": ["hi"] * 1000}))
    whole = path.read_bytes()
    for data in (whole[:4], whole[:-90], whole[:6] + bytes(400) + whole[-6:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r", row \d+: cannot be read as (Parquet|Arrow) \("):
            list(arrow_rows(path))


def test_any_damage_is_a_sentence(write: Callable[[pyarrow.Table], Path]) -> None:
    """Bytes turned round anywhere: the rows that are there, or one sentence."""
    table = pyarrow.table({"text": ["hi", "tea?"] * 20, "ids": [[1, 2], []] * 20})
    path = write(table)
    whole = path.read_bytes()
    num_refused = 0
    for number in range(3):
        position = len(whole) * (2 * number + 1) // 6
        changed = bytearray(whole)
        changed[position : position + 8] = bytes(byte ^ 0xFF for byte in whole[position:][:8])
        path.write_bytes(changed)
        try:
            assert len(list(arrow_rows(path))) <= 40
        except DataError:
            num_refused += 1
    assert num_refused > 0


def test_a_reader_that_dies_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's C++ ends its process for some damaged files."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["hi"]}), path)
    real = subprocess.Popen
    kill = 'import os, sys; print(\'{"row": {"text": "hi"}}\', flush=True); os.abort()'
    monkeypatch.setattr(
        arrow.subprocess,
        "Popen",
        lambda words, **options: real([words[0], "-c", kill], **options),
    )
    found = arrow_rows(path)
    assert next(found) == {"text": "hi"}
    with pytest.raises(DataError, match=r"row 2: cannot be read as Parquet \(its reader has died"):
        next(found)


def test_a_reader_ends_with_who_asks(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["hi" * 50] * 50_000}), path)
    found = arrow_rows(path)
    assert next(found) == {"text": "hi" * 50}
    found.close()


@pytest.mark.parametrize(
    ("bound", "value", "sentence"),
    [
        ("MAX_ROWS", 49, r"it has 50 rows that unpack to .* more than 49 rows"),
        ("MAX_TABLE_BYTES", 10, r"more than 2,000,000 rows or 10 bytes"),
        ("MAX_CELL_BYTES", 1, "a cell holds more than 1 bytes"),
        ("_MAX_MEMORY", 1 << 10, "memory|malloc|failed|died"),
    ],
)
def test_bounds(
    write: Callable[[pyarrow.Table], Path],
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    value: int,
    sentence: str,
) -> None:
    path = write(pyarrow.table({"text": ["hi"] * 50}))
    assert len(list(arrow_rows(path))) == 50
    monkeypatch.setattr(arrow, bound, value)
    if bound == "_MAX_MEMORY" and path.suffix == ".arrow":
        # what is mapped from the file needs no memory beyond that which Python has at hand
        return
    with pytest.raises(DataError, match=sentence):
        list(arrow_rows(path))


def test_bytes_are_refused_where_they_are_not_wanted(
    write: Callable[[pyarrow.Table], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"picture": {"path": "a.png", "bytes": b"x\xff"}}
    path = write(pyarrow.Table.from_pylist([row]))
    with pytest.raises(DataError, match="a cell holds bytes; write pictures as files, and their"):
        list(arrow_rows(path))
    assert list(arrow_rows(path, with_bytes=True)) == [row]
    monkeypatch.setattr(arrow, "MAX_PICTURE_BYTES", 1)
    with pytest.raises(DataError, match="a picture holds more than 1 bytes"):
        list(arrow_rows(path, with_bytes=True))


def test_what_stands_for_bytes_is_no_column(write: Callable[[pyarrow.Table], Path]) -> None:
    path = write(pyarrow.table({"base64": ["aGk="]}))
    with pytest.raises(DataError, match='a column is called "base64"; rename it'):
        list(arrow_rows(path, with_bytes=True))


def test_one_long_text_for_many_rows_is_refused(tmp_path: Path) -> None:
    """A file of a thousand bytes whose rows hold 40 gigabytes between them."""
    long = pyarrow.array(["x" * (20 << 20)])
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 2000, pyarrow.int32()), long)
    path = tmp_path / "a.parquet"
    for name, data in (
        ("text", column),
        ("picture", pyarrow.ListArray.from_arrays(list(range(2001)), column)),
        ("meta", pyarrow.StructArray.from_arrays([column], ["x"])),
    ):
        table = pyarrow.table({name: data})
        pyarrow.parquet.write_table(table, path, compression="zstd", store_schema=False)
        assert path.stat().st_size < 10_000
        with pytest.raises(
            DataError, match=r"a\.parquet, row 1: .*a cell holds more than 1,048,576 bytes"
        ):
            list(arrow_rows(path))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"[", "cannot be read as"),
        (b'{"info": {"features": {"text": {"_type": "Nonsense"}}}}', "its columns' types cannot"),
        (b'{"info": {"features": {"text": 3}}}', "its columns' types cannot|not of the types"),
        (
            b'{"info": {"features": {"other": {"dtype": "int8", "_type": "Value"}}}}',
            "its columns are not of the types that it names",
        ),
    ],
)
def test_types_that_are_nonsense(
    write: Callable[[pyarrow.Table], Path], said: bytes, sentence: str
) -> None:
    table = pyarrow.table({"text": ["hi"]}).replace_schema_metadata({"huggingface": said})
    with pytest.raises(DataError, match=sentence):
        list(arrow_rows(write(table)))


def test_a_saved_set_names_no_file_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "dataset_info.json").write_text("{}")
    for name in ("../other.arrow", None, 3):
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(DataError, match="as a file of its rows; write the set anew"):
            load_dataset(folder)
    (folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(UsageError, match="the data have no part 'val'; they have train; say split"):
        load_dataset(folder)
