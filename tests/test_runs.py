"""Run folders and records: found by what they say, refused when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ffr.errors import ModelError, UsageError
from ffr.run_log import MetricsFile, read_metrics
from ffr.runs import RunRecord, new_run_folder, newest_finished_run, resolve_model


def _record(folder: Path, status: str, finished_at: str | None, stage: str = "sft") -> Path:
    folder.mkdir(parents=True)
    RunRecord(stage, status, "2026-01-01", 0, "tiny", "sample", finished_at=finished_at).save(
        folder
    )  # type: ignore[arg-type]
    return folder


def test_the_newest_finished_run_is_found(tmp_path: Path) -> None:
    assert newest_finished_run(tmp_path) is None
    _record(tmp_path / "a", "finished", "2026-01-02")
    newest = _record(tmp_path / "b", "finished", "2026-01-03")
    _record(tmp_path / "c", "running", None)
    _record(tmp_path / "d", "finished", "2026-01-04", stage="grpo")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "run.json").write_text("{", encoding="utf-8")
    assert newest_finished_run(tmp_path, stage="sft") == newest
    assert newest_finished_run(tmp_path) == tmp_path / "d"


def test_run_folders_are_numbered(tmp_path: Path) -> None:
    names = [new_run_folder(tmp_path, "sft", "tiny").name for _ in range(3)]
    assert names == ["sft-tiny-001", "sft-tiny-002", "sft-tiny-003"]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"stage": 1}', "\x00"])
def test_a_damaged_record_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"run\.json: cannot be read"):
        RunRecord.load(tmp_path)


def test_what_a_model_may_be(tmp_path: Path) -> None:
    run = _record(tmp_path / "run", "running", None)
    with pytest.raises(UsageError, match="has no model yet"):
        resolve_model(str(run))
    (run / "merged").mkdir()
    (run / "merged" / "config.json").write_text("{}", encoding="utf-8")
    assert resolve_model(str(run)).location == str(run / "merged")
    assert resolve_model("tiny").label == "tiny"
    assert resolve_model("owner/name").location == "owner/name"
    for missing in ("./nowhere", str(tmp_path / "nowhere"), "a/b/c", "plainname"):
        with pytest.raises(UsageError, match="no such model folder or run"):
            resolve_model(missing)


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ("file:///models/m", "a folder is named by its path: /models/m"),
        ("file:m", "a folder is named by its path: m"),
        ("data:text/plain,x", "fetch the model, and name its folder"),
        ("s3://bucket/m", "fetch the model, and name its folder"),
    ],
)
def test_an_address_in_place_of_a_model(spec: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_model(spec)
    assert str(caught.value) == f"{spec} is an address, and --model takes none such; {remedy}"


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsFile(path, ("loss", "val_loss"))
    for step in range(1, 6):
        log.append(step, {"loss": 1 / step} | ({"val_loss": 0.1} if step == 2 else {}))
    with path.open("a", encoding="utf-8") as file:
        file.write("6,0.1")  # a row torn off by a kill
    again = MetricsFile(path, ("loss", "val_loss"), last_step=3)
    again.append(4, {"loss": 9.0})
    assert read_metrics(path) == [
        {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "val_loss": 0.1}, {"step": 3, "loss": 1 / 3}, {"step": 4, "loss": 9.0},
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no column for other"):
        again.append(5, {"other": 1.0})


@pytest.mark.parametrize(
    "content",
    [
        '{"finished_at": 5}',
        "[" * 100_000,
        '{"status": "so so"}',
        '{"stage": 3}',
        '{"results": []}',
        "[]",
        "nope",
        '"\xff"',
    ],
)
def test_an_odd_record_is_passed_over_and_named_where_it_is_asked_for(
    tmp_path: Path, content: str
) -> None:
    for name in ("good", "odd"):
        (tmp_path / name).mkdir()
        RunRecord("sft", "finished", "x", 0, "m", "d", finished_at="2026").save(tmp_path / name)
    path = tmp_path / "odd" / "run.json"
    whole = json.loads(path.read_text())
    odd = content if content[0] != "{" else json.dumps(whole | json.loads(content))
    path.write_text(odd, encoding="latin-1")
    assert newest_finished_run(tmp_path) == tmp_path / "good"
    with pytest.raises(
        ModelError,
        match=r"run\.json: cannot be read as the record of a run \(.*\); restore or delete it",
    ):
        RunRecord.load(tmp_path / "odd")
