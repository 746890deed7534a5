"""Runs seen from outside: every status, the best figure by hand, and what can go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ffr.errors import UsageError
from ffr.files import OWNER_FILE, is_in_use, owned_folder
from ffr.run_log import MetricsFile
from ffr.run_summary import all_runs, best_figure, clear_away, summary_of, what_can_go
from ffr.runs import RunRecord


def make_run(
    folder: Path, status: str, *, checkpoint: bool = False, merged: bool = False, steps: int = 0
) -> Path:
    folder.mkdir(parents=True)
    RunRecord("sft", status, "2026-01-01T10:00", 0, "tiny", "sample").save(folder)  # type: ignore[arg-type]
    metrics = MetricsFile(folder / "metrics.csv", ("loss", "val_joint_f1"))
    for step in range(1, steps + 1):
        metrics.append(step, {"loss": 1 / step, "val_joint_f1": 0.25 * (step % 3)})
    for name, wanted in (("checkpoints", checkpoint), ("merged", merged)):
        if wanted:
            (folder / name).mkdir()
            (folder / name / "step-2.ckpt").write_bytes(b"x" * 100)
    return folder


def test_a_run_is_summed_up(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "finished", checkpoint=True, merged=True, steps=4)
    found = summary_of(run)
    assert (found.status, found.step, found.best) == ("finished", 4, ("val_joint_f1", 0.5, 2))
    assert found.figures == {"loss": 0.25, "val_joint_f1": 0.25}
    assert (found.sizes["checkpoints"], found.sizes["merged"]) == (100, 100)
    assert found.num_bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    shown = found.to_json()
    assert shown["best"] == {"figure": "val_joint_f1", "value": 0.5, "step": 2}
    assert (shown["status"], shown["record"]["model"]) == ("finished", "tiny")


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([], None),
        ([{"step": 1}], None),
        ([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.2}, {"step": 3, "loss": 0.3}], 2),
        ([{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 0.2}], 2),
        ([{"step": 1, "reward": 0.1, "loss": 9.0}, {"step": 2, "reward": 0.3, "loss": 0.1}], 2),
        ([{"step": 1, "val_joint_f1": 0.3}, {"step": 2, "val_joint_f1": 0.3}], 1),
    ],
)
def test_the_best_figure(rows: list[dict[str, float]], best: int | None) -> None:
    found = best_figure(rows)
    assert (found and found[2]) == best


def test_every_status(tmp_path: Path) -> None:
    for status in ("finished", "failed", "interrupted"):
        make_run(tmp_path / status, status)
    make_run(tmp_path / "stopped", "running")
    (tmp_path / "unbegun").mkdir()
    (tmp_path / "unbegun" / "config.yaml").write_text("model: tiny\n")
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "run.json").write_text("{")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    assert {run.path.name: run.status for run in all_runs(tmp_path)} == {
        name: name
        for name in ("finished", "failed", "interrupted", "stopped", "unbegun", "unreadable")
    }
    for folder in (tmp_path / "other", tmp_path / "repository", tmp_path / "none"):
        with pytest.raises(UsageError, match="is no run's folder; `ffr runs` lists"):
            summary_of(folder)


def test_what_can_go(tmp_path: Path) -> None:
    nothing = make_run(tmp_path / "failed", "failed", steps=1)
    make_run(tmp_path / "resumable", "failed", checkpoint=True)
    make_run(tmp_path / "with-model", "interrupted", merged=True)
    done = make_run(tmp_path / "done", "finished", checkpoint=True, merged=True)
    make_run(tmp_path / "finished", "finished")
    (tmp_path / "unbegun").mkdir()
    found = what_can_go(all_runs(tmp_path))
    assert found.keys() == {nothing, tmp_path / "unbegun"}
    assert found[nothing] > 100
    found = what_can_go(all_runs(tmp_path), checkpoints=True)
    assert found[done / "checkpoints"] == 100
    assert len(found) == 3
    for path in found:
        clear_away(path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"resumable", "with-model", "done", "finished"}
    assert not (done / "checkpoints").exists()
    assert (done / "merged").is_dir()
    assert not list(tmp_path.rglob(OWNER_FILE))


def test_a_run_at_work_is_seen_and_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "running")
    code = (
        "import sys; from pathlib import Path; from ffr.files import owned_folder\n"
        f"with owned_folder(Path({str(run)!r})): print('here', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "here\n"
        assert is_in_use(run)
        (found,) = all_runs(tmp_path)
        assert found.status == "running"
        assert what_can_go([found], checkpoints=True) == {}
        with pytest.raises(UsageError, match="is in use by process"):
            clear_away(run)
        assert run.is_dir()
    finally:
        other.communicate()
    assert not is_in_use(run)
    assert summary_of(run).status == "stopped"


def test_the_lock_of_a_dead_process_is_nobodys(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "running")
    (run / OWNER_FILE).write_text("process 1 on elsewhere\n")
    assert summary_of(run).status == "stopped"
    with owned_folder(run):
        pass
