"""A training's run folder and record: made at the start, true at every moment, found again on resuming."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ffr.data.dataset import ExampleDataset
from ffr.errors import ModelError, UsageError
from ffr.provenance import command, now, versions
from ffr.run_log import read_metrics
from ffr.runs import RunRecord, Status, new_run_folder
from ffr.settings import StageConfig, load_config, to_yaml
from ffr.training.common.assembly import Config

_RUN_FOLDER_VARIABLE = "FFR_RUN_FOLDER"


@dataclass(frozen=True)
class TrainResult:
    """Where a training left its files, and how it ended."""

    run: Path
    status: Status
    figures: dict[str, float]


def load_run_config(kind: type[Config], run: Path) -> Config:
    """The settings a run was started with.

    Raises:
        ModelError: where the folder is not a run's.
    """
    RunRecord.load(run)
    path = run / "config.yaml"
    if not path.is_file():
        raise ModelError("the run's config.yaml is missing; restore it or start a new run", str(run))
    return load_config(kind, source=str(path))


def _run_folder(run: Path | None, root: Path, config: StageConfig, recipe: str, is_first_process: bool) -> Path:
    """The run's folder, the same one in all processes: the first makes it and hands its name to those it starts."""
    handed = os.environ.get(_RUN_FOLDER_VARIABLE)
    if not is_first_process or (handed and int(os.environ.get("WORLD_SIZE", "1")) > 1):
        if run is None and not handed:
            raise UsageError("several processes were started from outside; name the run's folder with --out")
        return run or Path(str(handed))
    if run is None:
        run = new_run_folder(root, config.stage, Path(recipe).stem)
    run.mkdir(parents=True, exist_ok=True)
    os.environ[_RUN_FOLDER_VARIABLE] = str(run.resolve())
    return run


def _start_record(
    run: Path,
    config: StageConfig,
    fingerprints: dict[str, str],
    train_data: ExampleDataset,
    val_data: ExampleDataset | None,
    label: str,
    resume: bool,
    is_first_process: bool,
) -> RunRecord:
    record = RunRecord(
        stage=config.stage,
        status="running",
        started_at=now(),
        seed=config.seed,
        model=label,
        dataset=config.dataset,
        data_fingerprint=train_data.fingerprint,
        val_fingerprint=val_data.fingerprint if val_data is not None else "",
        config_fingerprint=fingerprints["configuration"],
        versions=versions(),
        command=command(),
    )
    if resume:
        before = RunRecord.load(run)
        if before.data_fingerprint != record.data_fingerprint:
            raise ModelError("the training data changed since the run began; start a new run", str(run))
        record.started_at = before.started_at
    if is_first_process:
        if not resume:
            (run / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        record.save(run)
    return record


def _last_figures(metrics: Path) -> dict[str, float]:
    """The newest value of each figure."""
    figures: dict[str, float] = {}
    for row in read_metrics(metrics):
        figures.update(row)
    return figures


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the latest step that can be read; a torn one is passed over."""
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError):
            continue
        except Exception as error:
            # unpickling may raise its own kinds; they all mean that the file is not a checkpoint of ours
            if type(error).__module__ not in ("pickle", "_pickle"):
                raise
            continue
        return path
    return None


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step-"))
