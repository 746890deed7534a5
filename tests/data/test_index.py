"""Finding records in files.

Against json.loads, at every window size, and with files that are damaged or hostile.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.data import index as index_module
from ffr.data import offsets
from ffr.data.index import RecordFile, parse_record
from ffr.errors import DataError, UsageError

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(['"', "\\", '\\"', "],[", "}{", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_OBJECTS = st.lists(
    st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), _VALUES),
    max_size=6,
)


def _read_all(path: Path) -> list[Any]:
    records = RecordFile(path)
    assert records.tail_fault is None
    return [json.loads(records.read(number)) for number in range(len(records))]


@settings(max_examples=150)
@given(
    _OBJECTS.filter(bool),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.integers(1, 40),
    st.booleans(),
)
def test_lists_are_read_as_json_reads_them(
    values: list[Any], indent: int | None, ascii_only: bool, window: int, bom: bool
) -> None:
    import tempfile

    text = (
        ("\ufeff" if bom else "")
        + "\n " * (indent or 0)
        + json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(offsets, "CHUNK_BYTES", window)
        path = Path(folder, "a.json")
        path.write_text(text, encoding="utf-8", newline="")
        records = RecordFile(path)
        assert records.tail_fault is None
        assert [json.loads(data) for data in records if isinstance(data, bytes)] == values
        lines = text.encode().split(b"\n")
        for number in range(len(records)):
            first = records.read(number).split(b"\n")[0]
            assert first in lines[records.line(number) - 1]


@settings(max_examples=60)
@given(
    _OBJECTS.filter(bool),
    st.sampled_from(["\n", "\r\n", "\n\n", " \n"]),
    st.booleans(),
    st.booleans(),
)
def test_lines_are_read_as_json_reads_them(
    values: list[Any], end: str, last_end: bool, packed: bool
) -> None:
    import tempfile

    text = end.join(json.dumps(value) for value in values) + (end if last_end else "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.jsonl.gz" if packed else "a.jsonl")
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        assert _read_all(path) == values


def test_line_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "b.json").write_text('\n[\n {"a": 1},\n\n {"a":\n 2}, {"a": 3}\n]\n')
    lines, listed = RecordFile(tmp_path / "a.jsonl"), RecordFile(tmp_path / "b.json")
    assert [lines.where(number) for number in range(2)] == ["a.jsonl:1", "a.jsonl:3"]
    assert [listed.where(number) for number in range(3)] == [
        "b.json:3 (record 1)",
        "b.json:5 (record 2)",
        "b.json:6 (record 3)",
    ]


@pytest.mark.parametrize(
    ("text", "num_records", "message"),
    [
        ('[{"a": 1}', 1, "not closed"),
        ('[{"a": 1},', 1, "not closed"),
        ('[{"a": 1}, {"a', 2, "not closed"),
        ('[{"a": "x', 1, "not closed"),
        ("[", 0, "not closed"),
        ('[{"a": 1}] {"b": 2}', 1, "after the end of the list"),
        ('[{"a": 1}] ]', 1, "after the end of the list"),
        ('[{"a": 1}}, {"b": 2}]', 0, "stands where the list goes on"),
    ],
)
@pytest.mark.parametrize("window", [3, 1 << 20])
def test_damaged_lists(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    num_records: int,
    message: str,
    window: int,
) -> None:
    monkeypatch.setattr(offsets, "CHUNK_BYTES", window)
    (tmp_path / "a.json").write_text(text)
    records = RecordFile(tmp_path / "a.json")
    assert len(records) == num_records
    assert message in str(records.tail_fault)


def test_elements_that_are_missing_are_faults_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1},, 3, {"a": 2},]')
    records = RecordFile(tmp_path / "a.json")
    assert [records.read(number) for number in range(5)] == [
        b'{"a": 1}',
        b"",
        b"3",
        b'{"a": 2}',
        b"",
    ]
    for number in (1, 2, 4):
        with pytest.raises(DataError):
            parse_record(records.read(number), records.where(number))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no records"),
        (b"\n \n", "holds no records"),
        (b" []\n", "holds no records"),
        ('{"a": 1}'.encode("utf-16"), "is in UTF-16, not UTF-8; convert it: iconv"),
        ('{"a": 1}'.encode("utf-16-le"), "binary or in UTF-16/32"),
        ('{"a": 1}'.encode("utf-32-le"), "is in UTF-16|binary"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        RecordFile(tmp_path / "a.jsonl")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found"):
        RecordFile(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        RecordFile(tmp_path)
    with pytest.raises(DataError, match=r"not found|cannot be read"):
        RecordFile("a\0b")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1e999}', "the number 1e999 is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a": 1, "a": 1}', "'a' stands twice"),
        (b'{"a": {"b": 1, "b": 1}}', "'b' stands twice"),
        (b'{"a": 1} x', "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "not a list"),
        (b"null", "not null"),
        (b'"x"', "not a text"),
        (b'{"a": "\\ud83d"}', "half a surrogate pair"),
        (b'{"\\udc00": 1}', "half a surrogate pair"),
        (b'{"a": "\xed\xa0\xbd"}', "not UTF-8"),
        ('{"a": "你"}'.encode("gb18030"), "not UTF-8 .*GB18030"),
        (b'{"a": "\x01"}', "not JSON"),
        (b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}", "more than 50 deep"),
        (b'{"a": ' + b"[" * 200_000, "more than 50 deep"),
        (b'{"a":' * 200_000, "more than 50 deep"),
    ],
)
def test_what_a_record_may_not_be(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        parse_record(data, "a.jsonl:7")
    assert str(caught.value).startswith("a.jsonl:7: ")


def test_whole_surrogate_pairs_are_read() -> None:
    assert parse_record(b'{"a": "\\ud83d\\ude00"}', "x") == {"a": "😀"}


def test_many_brackets_side_by_side_are_no_nesting() -> None:
    assert len(parse_record(json.dumps({"a": [[1]] * 500}).encode(), "x")["a"]) == 500


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_records_without_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(offsets, "MAX_RECORD_BYTES", 10_000)
    monkeypatch.setattr(index_module, "MAX_RECORD_BYTES", 10_000)
    monkeypatch.setattr(offsets, "CHUNK_BYTES", 1000)
    good, long = json.dumps({"a": 1}), json.dumps({"a": "x" * 50_000})
    text = f"[{good}, {long}, {good}]" if name == "a.json" else f"{good}\n{long}\n{good}\n"
    (tmp_path / name).write_text(text)
    records = RecordFile(tmp_path / name)
    assert records.read(0).strip() == good.encode()
    if name == "a.jsonl":
        assert len(records) == 3
        assert records.read(2).strip() == good.encode()
        with pytest.raises(DataError, match="longer than"):
            records.read(1)
    else:
        assert len(records) == 1
        assert "does not end within" in str(records.tail_fault)


def test_packed_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    records = RecordFile(path)
    assert records.where(1) == "a.jsonl.gz:2"
    assert records._unpacked is not None
    temporary = records._unpacked.location()
    other = pickle.loads(pickle.dumps(records))
    assert other.read(1) == b'{"a": 2}\n'
    del records
    gc.collect()
    assert not temporary.exists()
    assert other.read(0) == b'{"a": 1}\n'  # unpacked anew, now its own


def test_packed_files_without_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"a": 1}'))
    assert _read_all(tmp_path / "a.jsonl") == [{"a": 1}]


def test_the_temporary_file_goes_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}'))
    (tmp_path / "tmp").mkdir()
    code = "import sys; from ffr.data.index import RecordFile; print(len(kept := RecordFile(sys.argv[1])))"
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jsonl.gz")],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout.strip() == "1"
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("damage", ["cut", "flip", "plain"])
def test_damaged_packed_files(tmp_path: Path, damage: str) -> None:
    data = bytearray(gzip.compress(random.Random(0).randbytes(5000)))
    if damage == "cut":
        data = data[:2000]
    elif damage == "flip":
        data[2500] ^= 255
        data[-6] ^= 255
    else:
        data = bytearray(b'{"a": 1}')
    (tmp_path / "a.jsonl.gz").write_bytes(bytes(data))
    with pytest.raises(DataError, match="cannot be unpacked"):
        RecordFile(tmp_path / "a.jsonl.gz")


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b" " * 5_000_000))
    monkeypatch.setenv("FFR_MAX_UNPACKED_BYTES", "1000000")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(DataError, match="set FFR_MAX_UNPACKED_BYTES higher"):
        RecordFile(tmp_path / "a.jsonl.gz")
    monkeypatch.setenv("FFR_MAX_UNPACKED_BYTES", "much")
    with pytest.raises(UsageError, match="a number of bytes"):
        RecordFile(tmp_path / "a.jsonl.gz")


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n')
    records = RecordFile(path)
    path.write_text('{"a": 12}\n')
    with pytest.raises(DataError, match="was changed"):
        records.read(0)
    path.unlink()
    with pytest.raises(DataError, match="can no longer be read"):
        records.read(0)


def test_a_file_of_another_size_is_noticed_whatever_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n')
    records, times = RecordFile(path), path.stat()
    path.write_text('{"a": 1}\n{"a": 2}\n')
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match="was changed after it was opened; start again"):
        records.read(0)


def test_a_packed_file_that_changes_is_noticed_when_it_is_unpacked_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n'))
    records = RecordFile(path)
    path.write_bytes(gzip.compress(b'{"a": 12}\n'))
    assert records.read(0) == b'{"a": 1}\n', "what was unpacked stays as it was"
    assert records._unpacked is not None
    records._unpacked.location().unlink()
    with pytest.raises(DataError, match="was changed after it was opened; start again"):
        records.read(0)


def test_memory_is_the_index_alone(tmp_path: Path) -> None:
    line = json.dumps({"a": "x" * 1000}) + "\n"
    for name, text in (
        ("a.jsonl", line * 20_000),
        ("b.json", "[" + ",".join([line] * 20_000) + "]"),
    ):
        (tmp_path / name).write_text(text)
        del text
        tracemalloc.start()
        records = RecordFile(tmp_path / name)
        for _ in records:
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(records) == 20_000
        assert peak < 6_000_000  # the file has 20 MB


def test_pythons_words_are_not_said_twice() -> None:
    with pytest.raises(DataError, match=r"not JSON \(Unterminated string starting at column 7\)"):
        parse_record(b'{"a": "b', "x.jsonl:1")


@pytest.mark.parametrize("after", ["", "\n", "\n \n"])
def test_one_object_over_lines_is_taken_where_it_may_be(tmp_path: Path, after: str) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "a": 1\n}' + after)
    records = RecordFile(path, may_be_one=True)
    assert (len(records), records.where(0)) == (1, "a.json:1")
    assert parse_record(records.read(0), "x") == {"a": 1}
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert len(RecordFile(path, may_be_one=True)) == 2
    path.write_text('{\n "a": 1,\n}')
    with pytest.raises(DataError, match="not JSON"):
        parse_record(RecordFile(path, may_be_one=True).read(0), "x")
