"""Rows of CSV, JSON, Parquet and Arrow files: the same cells from each, each fault with its line."""

from __future__ import annotations

import datetime
import gzip
import json
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
        (b"a,b\n1,2\n3\n", "a.csv:3: has 1 cell where the header has 2 columns; see whether"),
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


def test_rows_of_parquet_and_arrow(tmp_path: Path) -> None:
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
    wanted = [
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
    assert list(read_rows(path)) == wanted
    for writer in (pyarrow.ipc.new_file, pyarrow.ipc.new_stream):
        with writer(path, table.schema) as arrow:
            arrow.write_table(table)
        assert list(read_rows(path)) == wanted


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        list(read_rows(tmp_path / "none.csv"))
