"""What every stage's training is put together from: data, model, run folder and record, Lightning's Trainer, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch.callbacks import Callback

from ffr.data.dataset import ExampleDataset
from ffr.models.prompts import PromptBuilder
from ffr.provenance import now
from ffr.run_log import LOSS_CURVES, draw_curve
from ffr.runs import ModelSource, Status
from ffr.settings import StageConfig, config_fingerprint
from ffr.training.common.callback import Echo, StageCallback, StepBar
from ffr.training.common.data import load_data
from ffr.training.common.module import StageModule
from ffr.training.common.run import (
    _RUN_FOLDER_VARIABLE,
    TrainResult,
    _last_figures,
    _run_folder,
    _start_record,
    _step_of,
    newest_checkpoint,
)
from ffr.training.common.trainer import _trainer
from ffr.training.common.validation import validate

Config = TypeVar("Config", bound=StageConfig)


@dataclass(frozen=True)
class Preparation:
    """What a stage's own part of the training is given.

    Args:
        run: The run folder.
        source: The model to start from.
        train_data: Training data.
        val_data: Validation data; None for none.
        fingerprints: Names of configuration and data.
        resume: Whether the folder holds a run to go on with.
        say: Takes the lines that a person should see; silent in all processes but the first.
        progress: Whether a progress bar is drawn.
    """

    run: Path
    source: ModelSource
    train_data: ExampleDataset
    val_data: ExampleDataset | None
    fingerprints: dict[str, str]
    resume: bool
    say: Echo
    progress: bool


KERNELS_KEPT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
"""How many kernels, one a shape, oneDNN keeps on a CPU where the environment says nothing: it reads this at its first kernel. Of its own it
keeps 1,024, and steps of ever new lengths fill the memory with them."""

Fit = Callable[[Preparation], tuple[Status, dict[str, float]]]


def run_stage(
    config: StageConfig,
    source: ModelSource,
    fit: Fit,
    *,
    recipe: str,
    run: Path | None,
    resume: bool,
    root: Path,
    echo: Echo,
    progress: bool,
) -> TrainResult:
    """Runs one stage in a run folder, with its record kept true whatever happens.

    Args:
        config: The settings.
        source: The model to start from.
        fit: Trains; returns status and last figures.
        recipe: What the run's folder is called after.
        run: The run folder; None makes the next one under `root`.
        resume: Whether `run` holds a run to go on with.
        root: Folder of the runs.
        echo: Takes the lines that a person should see.
        progress: Whether a progress bar is drawn.

    Raises:
        FfrError: for anything wrong with settings, data or model.
    """
    is_first_process = int(os.environ.get("LOCAL_RANK", "0")) == 0
    say: Echo = echo if is_first_process else _silent
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    os.environ.setdefault(*KERNELS_KEPT)
    train_data, val_data = load_data(config, say)
    run = _run_folder(run, root, config, recipe, is_first_process)
    how = "resumed" if resume else f"with recipe {recipe}"
    say(f"Training {source.label} on {config.dataset} ({len(train_data)} examples, {config.split}) {how} → {run}")
    fingerprints = {"configuration": config_fingerprint(config), "data": train_data.fingerprint}
    record = _start_record(run, config, fingerprints, train_data, val_data, source.label, resume, is_first_process)
    preparation = Preparation(run, source, train_data, val_data, fingerprints, resume, say, progress)
    try:
        status, figures = fit(preparation)
    except BaseException as error:
        os.environ.pop(_RUN_FOLDER_VARIABLE, None)
        if is_first_process:
            record.status, record.error = "failed", f"{type(error).__name__}: {error}"
            record.finished_at = now()
            record.save(run)
        raise
    os.environ.pop(_RUN_FOLDER_VARIABLE, None)
    if is_first_process:
        record.status, record.results = status, figures
        record.finished_at = now()
        record.save(run)
    return TrainResult(run, status, figures)


def fit_module(
    preparation: Preparation,
    module: StageModule[Any],
    loader: Iterable[Any],
    builder: PromptBuilder,
    *,
    columns: Sequence[str],
    callbacks: Sequence[Callback] = (),
    more_figures: Callable[[], dict[str, float]] = dict,
    curves: Mapping[str, str] = LOSS_CURVES,
    curves_label: str = "loss per answer token",
    is_manual: bool = False,
) -> tuple[Status, dict[str, float]]:
    """Trains a module with its loader in a run folder, from its newest checkpoint where it is resumed, and saves the model.

    Args:
        preparation: Folder, data and the rest.
        module: The stage's module.
        loader: Gives its batches.
        builder: Encodes examples for validation.
        columns: Names of the stage's figures in `metrics.csv`.
        callbacks: Callbacks of the stage's own; they come before the figures are written.
        more_figures: Asked for further figures of a step.
        curves: Figures that `curve.png` shows, with their line styles.
        curves_label: What they are.
        is_manual: Whether the module takes its optimizer steps itself.
    """
    config, run, say = module.config, preparation.run, preparation.say
    checkpoint = newest_checkpoint(run / "checkpoints") if preparation.resume else None
    last_step = newest_step(preparation)
    if preparation.resume:
        say(
            f"going on after step {last_step} of {module.num_steps}"
            if checkpoint
            else "no checkpoint yet: starting again"
        )

    def run_validation() -> dict[str, float]:
        if preparation.val_data is None or not config.val_examples:
            return {}
        return validate(module, preparation.val_data, builder)

    stage = StageCallback(
        run,
        columns=tuple(columns),
        num_steps=module.num_steps,
        last_step=last_step,
        validate_every=config.val_every_steps or max(1, -(-module.num_steps // 4)),
        run_validation=run_validation,
        more_figures=more_figures,
        checkpoint_every=config.checkpoint_every_steps,
        keep_checkpoints=config.keep_checkpoints,
        say=say,
        speak_every=0 if preparation.progress else max(1, module.num_steps // 20),
    )
    all_callbacks: list[Callback] = [*callbacks, stage]
    if preparation.progress:
        all_callbacks.append(StepBar(leave=True))
    trainer = _trainer(config, run, all_callbacks, last_step, preparation.progress, is_manual)
    trainer.fit(module, train_dataloaders=loader, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True)
    status: Status = "interrupted" if stage.was_interrupted else "finished"
    if trainer.is_global_zero and status == "finished":
        vlm = module.vlm
        vlm.eval()
        if config.lora_rank:
            vlm.save_adapter(run / "adapter")
        vlm.save_merged(run / "merged", prompt_settings=builder.prompt_settings)
        draw_curve(run / "metrics.csv", run / "curve.png", title=run.name, curves=curves, label=curves_label)
    figures = _last_figures(run / "metrics.csv") if trainer.is_global_zero else {}
    trainer.strategy.barrier()
    return status, figures


def _silent(_: str) -> None:
    """Says nothing: only the first process speaks."""


def newest_step(preparation: Preparation) -> int:
    """The step that a resumed run goes on after; 0 for a new one."""
    checkpoint = newest_checkpoint(preparation.run / "checkpoints") if preparation.resume else None
    return _step_of(checkpoint) if checkpoint else 0
