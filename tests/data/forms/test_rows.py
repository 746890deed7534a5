"""Rows of CSV, JSON and Parquet files: the same cells from each, each fault with its line."""

from __future__ import annotations

import datetime
import gzip
import json
import subprocess
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ffr.data.forms import rows
from ffr.data.forms.rows import Row, read_rows
from ffr.errors import DataError, UsageError

HEADER = "dialogue_id,speaker,text\n"


def _values(path: Path, **options: str) -> list[dict[str, object]]:
    return [dict(row.values) for row in read_rows(path, **options)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.csv"


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("encoding", "named"),
    [("utf-8", None), ("utf-8-sig", None), ("utf-16", None), ("gb18030", "gb18030")],
)
def test_csv_of_every_kind(path: Path, mark: str, encoding: str, named: str | None) -> None:
    text = mark.join(["dialogue_id", "speaker", "text"]) + "\r\n"
    text += mark.join(["d1", "安", '"你好' + mark + ' ""x""\nsecond line"']) + "\r\n\r\n"
    text += mark.join(["d1", "bob", ""])
    path.write_bytes(text.encode(encoding))
    found = list(read_rows(path, encoding=named))
    assert found == [
        Row(
            "a.csv:2",
            {"dialogue_id": "d1", "speaker": "安", "text": f'你好{mark} "x"\nsecond line'},
        ),
        Row("a.csv:5", {"dialogue_id": "d1", "speaker": "bob", "text": None}),
    ]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "a.csv: begins with no header; name"),
        (b"\n\n", "a.csv: begins with no header; name"),
        (b"a,b\n1,2\n3\n", "a.csv:3: has 1 cells where the header has 2 columns; see whether"),
        (b"a,b\n1,2,3\n", "a.csv:2: has 3 cells where the header has 2 columns; see whether"),
        (b",a\n0,1\n", r"a.csv:1: column 1 has no name; name it, .*pass index=False"),
        (b"a,b,a\n", 'a.csv:1: has the column "a" twice; rename one'),
        (b'a,b\n1,2\n3,"4\n5\n', r"a.csv:3: cannot be read as CSV \(unexpected end of data\)"),
        (b'a,b\n1,"2"3\n', "a.csv:2: cannot be read as CSV"),
        (b"a,b\n1," + b"x" * 200_000, r"a.csv:2: cannot be read as CSV \(field larger than"),
        (b"a,b\n1,2\n\xd6\xd0,3\n", r"a.csv:3: not UTF-8 \(byte 0xd6\); name .* with --encoding"),
        (b"a,b\n1,2\n\xe4", r"a.csv:3: not UTF-8"),
        (b"\xff\xfea\0\n\0\0\xd8", "a.csv:2: not utf-16"),
    ],
)
def test_a_csv_file_that_cannot_be_read(path: Path, data: bytes, sentence: str) -> None:
    path.write_bytes(data)
    with pytest.raises(DataError, match=sentence):
        list(read_rows(path))


def test_a_line_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_LINE_BYTES", 100)
    path.write_bytes(b"a,b\n" + b"x" * 101)
    with pytest.raises(DataError, match=r"a\.csv:2: the line is longer than"):
        list(read_rows(path))


def test_encodings_are_named(path: Path) -> None:
    path.write_text("a,b\n1,2\n")
    for encoding in ("klingon", "base64", "rot13"):
        with pytest.raises(UsageError, match=f"no encoding '{encoding}'; name one such as"):
            list(read_rows(path, encoding=encoding))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "odd.name"])
def test_rows_of_json(tmp_path: Path, name: str) -> None:
    records = [{"query": "a", "utterance_ids": [1]}, {"query": "b", "utterance_ids": None}]
    lines = "\n".join(map(json.dumps, records))
    data = (json.dumps(records) if name == "a.json" else lines).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert _values(path) == records


def test_faults_of_json_have_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{"a": 1, "a": 2}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: the key 'a' stands twice"):
        list(read_rows(path))
    (tmp_path / "a.json").write_text('[{"a": 1}')
    with pytest.raises(DataError, match="not closed"):
        list(read_rows(tmp_path / "a.json"))


def test_rows_of_parquet(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 1, 10, 30)
    table = pyarrow.table(
        {
            "text": ["hi", None],
            "utterance_ids": [[0, 3], []],
            "time": [day, None],
            "score": [float("nan"), 0.5],
            "picture": [{"path": "a.png", "bytes": None}, None],
        }
    )
    path = tmp_path / "table.anything"
    pyarrow.parquet.write_table(table, path)
    assert list(read_rows(path)) == [
        Row(
            "table.anything, row 1",
            {
                "text": "hi",
                "utterance_ids": [0, 3],
                "time": "2024-05-01T10:30:00",
                "score": None,
                "picture": {"path": "a.png", "bytes": None},
            },
        ),
        Row(
            "table.anything, row 2",
            {"text": None, "utterance_ids": [], "time": None, "score": 0.5, "picture": None},
        ),
    ]


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["hi"] * 1000}), path)
    whole = path.read_bytes()
    for data in (b"PAR1", whole[:-9], b"PAR1" + bytes(400) + b"PAR1"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.parquet, row 1: cannot be read as Parquet \("):
            list(read_rows(path))


def test_a_reader_that_dies_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's C++ ends its process for some damaged files."""
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["hi"]}), path)
    real = subprocess.Popen
    kill = 'import os, sys; print(\'{"row": {"text": "hi"}}\', flush=True); os.abort()'
    monkeypatch.setattr(
        rows.subprocess,
        "Popen",
        lambda words, **options: real([words[0], "-c", kill], **options),
    )
    found = read_rows(path)
    assert next(found).values == {"text": "hi"}
    with pytest.raises(DataError, match=r"row 2: cannot be read as Parquet \(its reader has died"):
        next(found)


def test_a_reader_ends_with_who_asks(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["hi" * 50] * 50_000}), path)
    found = read_rows(path)
    assert next(found).values == {"text": "hi" * 50}
    found.close()


@pytest.mark.parametrize(
    ("bound", "value", "sentence"),
    [
        ("MAX_ROWS", 49, r"it has 50 rows that unpack to .* more than 49 rows"),
        ("MAX_PARQUET_BYTES", 10, r"more than 2,000,000 rows or 10 bytes"),
        ("MAX_CELL_BYTES", 1, "a cell holds more than 1 bytes"),
        ("_MAX_PARQUET_MEMORY", 1 << 10, "memory|malloc|failed|died"),
    ],
)
def test_parquet_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, sentence: str
) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ["hi"] * 50}), path)
    assert len(list(read_rows(path))) == 50
    monkeypatch.setattr(rows, bound, value)
    with pytest.raises(DataError, match=sentence):
        list(read_rows(path))


def test_bytes_in_a_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"picture": [{"path": "a.png", "bytes": b"x"}]})
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match="a cell holds bytes; write pictures as files, and their"):
        list(read_rows(path))


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
            list(read_rows(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        list(read_rows(tmp_path / "none.csv"))
