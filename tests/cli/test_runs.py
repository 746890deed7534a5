"""`ffr runs` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ffr.cli.main import ffr
from ffr.run_log import MetricsFile
from ffr.runs import RunRecord


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(ffr, ["runs", *words])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a finished and a failed run under ./runs."""
    monkeypatch.chdir(tmp_path)
    for name, status in (("sft-tiny-001", "finished"), ("sft-tiny-002", "failed")):
        place = tmp_path / "runs" / name
        place.mkdir(parents=True)
        record = RunRecord("sft", status, "2026-01-01T10:00:00", 0, "tiny", "sample")  # type: ignore[arg-type]
        record.error = "ModelError: no room" if status == "failed" else None
        record.save(place)
    metrics = MetricsFile(tmp_path / "runs/sft-tiny-001/metrics.csv", ("loss", "val_joint_f1"))
    metrics.append(40, {"loss": 0.125, "val_joint_f1": 0.75})
    return tmp_path


def test_runs_are_listed(folder: Path) -> None:
    lines = [line.split() for line in run().strip().splitlines()]
    assert lines[0] == ["run", "status", "step", "best", "size"]
    assert lines[2][:8] == [
        "sft-tiny-001",
        "finished",
        "40",
        "val_joint_f1",
        "0.75",
        "at",
        "step",
        "40",
    ]
    assert lines[3][:2] == ["sft-tiny-002", "failed"]
    assert run("list") == run()
    assert run("list", "--root", "none") == "No runs under none; `ffr train sft` makes one.\n"
    found = json.loads(run("list", "--json"))
    assert [(entry["run"], entry["step"]) for entry in found] == [
        (str(Path("runs/sft-tiny-001")), 40),
        (str(Path("runs/sft-tiny-002")), 0),
    ]


def test_one_run_is_shown(folder: Path) -> None:
    for name in ("runs/sft-tiny-001", "sft-tiny-001"):
        shown = run("show", name)
        assert shown.startswith("runs/sft-tiny-001: finished after step 40\n")
        assert "  sft of tiny on sample\n" in shown
        assert "  best val_joint_f1 0.75 at step 40\n" in shown
        assert "  loss                     0.125\n" in shown
        assert "metrics.csv" in shown
        assert shown.endswith("Measure it: ffr eval --model runs/sft-tiny-001\n")
    shown = run("show", "runs/sft-tiny-002")
    assert "  error: ModelError: no room\n" in shown
    assert shown.endswith("It left nothing to go on with: ffr runs clean\n")
    (folder / "runs/sft-tiny-002/checkpoints").mkdir()
    (folder / "runs/sft-tiny-002/checkpoints/step-3.ckpt").write_bytes(b"x")
    assert run("show", "sft-tiny-002").endswith("Go on: ffr train sft --resume runs/sft-tiny-002\n")
    assert json.loads(run("show", "sft-tiny-001", "--json"))["status"] == "finished"
    assert "none is no run's folder; `ffr runs` lists" in run("show", "none", code=2)
    Path("runs/sft-tiny-001").rename("runs/my run")
    assert run("show", "my run").endswith("Measure it: ffr eval --model 'runs/my run'\n")


def test_what_failed_is_cleared_away_when_asked(folder: Path) -> None:
    said = run("clean")
    assert "would be deleted: runs/sft-tiny-002 (" in said
    assert said.endswith("Delete them with --yes.\n")
    assert (folder / "runs/sft-tiny-002").is_dir()
    assert "deleted: runs/sft-tiny-002 (" in run("clean", "--yes")
    assert [path.name for path in (folder / "runs").iterdir()] == ["sft-tiny-001"]
    assert run("clean", "--yes") == "Nothing under runs can go.\n"
    (folder / "runs/sft-tiny-001/checkpoints").mkdir()
    (folder / "runs/sft-tiny-001/checkpoints/step-3.ckpt").write_bytes(b"x")
    assert "checkpoints (1 byte)" in run("clean", "--checkpoints", "--yes")
    assert not (folder / "runs/sft-tiny-001/checkpoints").exists()
