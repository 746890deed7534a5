"""What is seen of a run from outside: its status, step, best figure and size, and what can go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ffr.errors import ModelError, UsageError
from ffr.files import is_in_use, owned_folder, remove
from ffr.run_log import METRICS_FILE, last_figures, read_metrics
from ffr.runs import ENCODER, READER, RECORD_FILE, RunRecord, is_unbegun

Seen = Literal["running", "stopped", "interrupted", "failed", "finished", "unbegun", "unreadable"]
"""As a run's own status, but `stopped` where no process works on what says that it is running."""
_BEST = (("val_joint_f1", max), ("val_utterance_f1", max), ("reward", max), ("loss", min))
"""What a run is judged by: the first of these that it has, and which end of it is better."""
_KEPT = ("adapter", "merged", READER, ENCODER, "eval")
"""Folders of a run that somebody may still want."""


@dataclass(frozen=True)
class RunSummary:
    """A run as its folder tells.

    Args:
        path: The folder.
        status: How it stands.
        record: What `run.json` says; None where there is none that can be read.
        step: Last step in `metrics.csv`; 0 for none.
        best: Name, value and step of its best figure; None where it has none.
        sizes: Bytes of each file and folder in it, the largest first.
        figures: The newest value of each figure.
    """

    path: Path
    status: Seen
    record: RunRecord | None = None
    step: int = 0
    best: tuple[str, float, int] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes.values())

    @property
    def has_checkpoint(self) -> bool:
        folder = self.path / "checkpoints"
        # the second as sentence-transformers names them
        return any(found for form in ("step-*.ckpt", "checkpoint-*") for found in folder.glob(form))

    @property
    def leaves_nothing(self) -> bool:
        """Whether it has ended and there is nothing to go on with and nothing to use."""
        ended = self.status not in ("running", "finished", "unreadable")
        return ended and not self.has_checkpoint and not self.sizes.keys() & {*_KEPT}

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON has it."""
        name, value, step = self.best or (None, None, None)
        return {
            "run": str(self.path),
            "status": self.status,
            "step": self.step,
            "best": None if name is None else {"figure": name, "value": value, "step": step},
            "bytes": self.num_bytes,
            "figures": dict(self.figures),
            "record": None if self.record is None else asdict(self.record),
        }


def best_figure(rows: Sequence[Mapping[str, float]]) -> tuple[str, float, int] | None:
    """Name, value and step of the best figure in the rows of a run, the earliest where several are.

    >>> best_figure([{"step": 1, "loss": 0.5, "val_joint_f1": 0.2}, {"step": 2, "loss": 0.1}])
    ('val_joint_f1', 0.2, 1)
    """
    for name, better in _BEST:
        # not finite: then the run has stopped there, and it is no figure to be best
        found = {int(row["step"]): row[name] for row in rows if abs(row.get(name, 1e999)) < 1e999}
        if found:
            step = better(found, key=lambda at: found[at])
            return name, found[step], step
    return None


def summary_of(run: Path) -> RunSummary:
    """Looks at a run's folder.

    Raises:
        UsageError: where it is no run's.
    """
    if not (run / RECORD_FILE).is_file():
        if run.is_dir() and is_unbegun(run):
            status: Seen = "running" if is_in_use(run) else "unbegun"
            return RunSummary(run, status, sizes=_sizes(run))
        raise UsageError(f"{run} is no run's folder; `ffr runs` lists those there are")
    rows = read_metrics(run / METRICS_FILE) if (run / METRICS_FILE).is_file() else []
    figures = last_figures(rows)
    step = int(figures.pop("step", 0))
    try:
        record = RunRecord.load(run)
    except ModelError:
        return RunSummary(run, "unreadable", None, step, best_figure(rows), _sizes(run), figures)
    status = record.status
    if status == "running" and not is_in_use(run):
        status = "stopped"
    return RunSummary(run, status, record, step, best_figure(rows), _sizes(run), figures)


def all_runs(root: Path) -> list[RunSummary]:
    """The runs under a folder, by their names; folders that are none are left out."""
    folders = sorted(path for path in root.glob("[!.]*") if path.is_dir())
    return [
        summary_of(path) for path in folders if (path / RECORD_FILE).is_file() or is_unbegun(path)
    ]


def what_can_go(runs: Sequence[RunSummary], *, checkpoints: bool = False) -> dict[Path, int]:
    """What may be deleted, with its bytes: runs that left nothing, and checkpoints if asked for.

    Args:
        runs: The runs.
        checkpoints: Also the checkpoints of finished runs, whose models stay.
    """
    found = {run.path: run.num_bytes for run in runs if run.leaves_nothing}
    if checkpoints:
        for run in runs:
            if run.status == "finished" and "checkpoints" in run.sizes:
                found[run.path / "checkpoints"] = run.sizes["checkpoints"]
    return found


def clear_away(path: Path) -> None:
    """Deletes a run's folder, or a part of it, while no other process works on the run.

    Raises:
        UsageError: where one does.
    """
    run = path.parent if path.name == "checkpoints" else path
    with owned_folder(run):
        remove(path)


def _sizes(run: Path) -> dict[str, int]:
    found = {
        path.name: sum(
            inner.lstat().st_size for inner in (path, *path.rglob("*")) if not inner.is_dir()
        )
        for path in run.iterdir()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))
