"""Names and paths become data sets, or a sentence with the ways out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ffr.data.sample
from ffr.data.catalog import NAMED_SETS, describe_sets, load_dataset, locate
from ffr.data.home import data_home
from ffr.errors import DataError, UsageError

Record = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FFR_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_where_the_sets_lie(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_home() == home
    monkeypatch.setenv("FFR_DATA_HOME", "")
    assert data_home() == Path.home() / ".cache" / "ffr" / "data"


@pytest.mark.parametrize("name", ["mldr", "wechat"])
def test_absent_sets_are_never_replaced(home: Path, name: str) -> None:
    with pytest.raises(
        UsageError, match=rf"ffr data download {name} --url URL.*--dataset PATH"
    ) as caught:
        load_dataset(name)
    assert caught.value.exit_code == 2
    assert not home.exists()


def test_unknown_names_and_parts(home: Path) -> None:
    with pytest.raises(UsageError, match="did you mean wechat-sample"):
        load_dataset("wechat-sampel")
    with pytest.raises(UsageError, match="the named sets are"):
        load_dataset("no/such/file.jsonl")
    with pytest.raises(UsageError, match="no part 'test'; it has train, grpo, val"):
        load_dataset("sample", split="test")


def test_samples_are_generated_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, write: Write, record: Record
) -> None:
    calls: list[tuple[str, int]] = []

    def fake_sample(folder: Path, name: str, seed: int) -> None:
        calls.append((name, seed))
        shutil.copy(write("x.jsonl", record), folder / "val.jsonl")
        shutil.copytree(write("x.jsonl", record).parent / "images", folder / "images")

    monkeypatch.setattr(ffr.data.sample, "write_sample", fake_sample)
    lines: list[str] = []
    for _ in range(2):
        assert len(load_dataset("sample", echo=lines.append)) == 1
    assert calls == [("sample", 0)]
    assert len(lines) == 1
    assert "Generating the set sample" in lines[0]
    assert [path.name for path in home.iterdir() if path.is_dir()] == ["sample"]


def test_a_sample_that_fails_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path, name: str, seed: int) -> None:
        (folder / "val.jsonl").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ffr.data.sample, "write_sample", broken)
    with pytest.raises(DataError, match="No space left on device"):
        load_dataset("sample")
    assert list(home.iterdir()) == []


def test_files_and_folders(write: Write, record: Record) -> None:
    path = write("train.json.gz", record)
    assert len(load_dataset(str(path), split="nonsense")) == 1  # a file has no parts
    assert locate(path.parent, split="train") == (path, None)
    with pytest.raises(UsageError, match=r"has no file val.jsonl"):
        locate(path.parent, split="val")


def test_left_out_records_are_said(write: Write, record: Record) -> None:
    lines: list[str] = []
    path = write("a.jsonl", record, {"x": 1})
    with pytest.raises(DataError):
        load_dataset(path)
    assert len(load_dataset(path, skip_bad=True, echo=lines.append)) == 1
    assert lines[0] == "a.jsonl: 1 bad record or query left out:"
    assert lines[1].startswith("  a.jsonl:2: ")
    assert len(lines) == 2
    path = write("a.jsonl", record, *({"x": number} for number in range(12)))
    load_dataset(path, skip_bad=True, echo=lines.append)
    assert lines[2] == "a.jsonl: 12 bad records or queries left out:"
    assert [line.partition(": ")[0] for line in lines[3:-1]] == [
        f"  a.jsonl:{number}" for number in range(2, 12)
    ]
    assert lines[-1] == "  and 2 more; `ffr data check` lists all"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["MLDR_sft_train.json", "MLDR_grpo_train.json", "MLDR_val.json"],
            {"train": 0, "grpo": 1, "val": 2},
        ),
        (["a/train.jsonl", "a/grpo.jsonl", "a/test.jsonl"], {"train": 0, "grpo": 1, "val": 2}),
        (["train.jsonl", "train_old.jsonl", "val.jsonl"], {"train": 0, "val": 2}),
        (["x.jsonl"], {}),
        (["val_a.jsonl", "val_b.jsonl"], {}),
    ],
)
def test_files_of_a_downloaded_set(
    home: Path, write: Write, record: Record, names: list[str], expected: dict[str, int]
) -> None:
    source = write("x.json", record)
    for name in names:
        (home / "mldr" / name).parent.mkdir(parents=True, exist_ok=True)
        kind = write("x.jsonl", record) if name.endswith("l") else source
        shutil.copy(kind, home / "mldr" / name)
    shutil.copytree(source.parent / "images", home / "mldr" / "images")
    for split in ("train", "grpo", "val"):
        if split in expected:
            path, root = locate("mldr", split=split)
            assert path == home / "mldr" / names[expected[split]]
            assert (
                root == home / "mldr"
            )  # where the pictures are, even if the file lies in a folder below
            assert len(load_dataset("mldr", split=split)) == 1
        else:
            with pytest.raises(UsageError, match="pass its path as --dataset"):
                locate("mldr", split=split)


def test_what_is_here_is_described(home: Path) -> None:
    rows = {name: (state, remedy) for name, state, remedy in describe_sets()}
    assert set(rows) == set(NAMED_SETS)
    assert rows["sample"] == ("generated on first use", "")
    assert rows["mldr"][0] == "not here"
    assert "ffr data download mldr" in rows["mldr"][1]
    (home / "mldr").mkdir(parents=True)
    assert {name: remedy for name, _, remedy in describe_sets()}["mldr"] == ""
