"""A training from settings to a run folder: built once, and then trained or only described.

`train` and `describe` build the same things by the same code, so that whatever would stop a
training at its start stops the description of it too, with the same sentence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from ffr.data.dataset import ExampleDataset
from ffr.data.judgement import ModelRules
from ffr.errors import ModelError
from ffr.progress import Say
from ffr.run_log import METRICS_FILE, draw_curve, last_figures, read_metrics
from ffr.runs import RUNS_FOLDER, ModelSource, RunRecord, Status, resolve_model
from ffr.settings import to_yaml
from ffr.training.common.callback import StageCallback, StepBar
from ffr.training.common.checkpoints import newest_checkpoint, step_of
from ffr.training.common.data import check_truths, load_data
from ffr.training.common.memory import is_lack_of_memory, record_in_words
from ffr.training.common.module import StageModule
from ffr.training.common.recipe import model_name, refuse_rates_of_tiny
from ffr.training.common.run import (
    Config,
    TrainResult,
    check_resumed,
    configuration_of,
    is_first_process,
    kept_record,
    run_folder,
    with_absolute_paths,
)
from ffr.training.common.setup import prepare_process
from ffr.training.common.trainer import make_trainer, quiet_libraries


@dataclass(frozen=True)
class Job:
    """How a training is run, beside the settings that decide its result.

    Args:
        run: The run folder; None makes the next one under `root`.
        root: Folder of the runs.
        recipe: The recipe or file that the settings come from; empty for none.
        resume: Whether `run` holds a run to go on with.
        say: Takes the lines that a person should see.
        progress: Whether a progress bar is drawn.
        is_dry: Whether nothing is trained, so that no long work is done on the way either.
    """

    run: Path | None = None
    root: Path = Path(RUNS_FOLDER)
    recipe: str = ""
    resume: bool = False
    say: Say = print
    progress: bool = True
    is_dry: bool = False


@dataclass(frozen=True)
class Start(Generic[Config]):
    """What a training starts from.

    Args:
        config: The settings, the model named in them.
        source: Where that model is.
        train_data: Training data.
        val_data: Validation data; None for none.
        configuration: What names the settings.
    """

    config: Config
    source: ModelSource
    train_data: ExampleDataset
    val_data: ExampleDataset | None
    configuration: str

    @property
    def fingerprints(self) -> dict[str, str]:
        """Names of configuration and data; a checkpoint of others is refused."""
        return {"configuration": self.configuration, "data": self.train_data.fingerprint}


@dataclass(frozen=True)
class Ended(Generic[Config]):
    """A training that came to its end, as what is saved of it says.

    Args:
        run: The run folder.
        start: What it started from.
        record: Its record so far.
        figures: The last figures.
    """

    run: Path
    start: Start[Config]
    record: RunRecord
    figures: Mapping[str, float]


class Subject(Protocol):
    """What is trained, as a run needs to know it beside its loss."""

    def validate(self, module: StageModule[Any], data: ExampleDataset) -> dict[str, float]:
        """Figures of the first `val_examples` examples, over all processes; names begin with `val_`.

        Args:
            module: The module; it is put back into training mode afterwards.
            data: Validation data.
        """
        ...

    def save(self, ended: Ended[Any]) -> None:
        """Writes the model into the run's folder, with its card."""
        ...


@dataclass(frozen=True)
class Built:
    """A training that could begin.

    Args:
        module: The model with its loss; it knows the steps of the training and its figures.
        data: Gives its batches.
        subject: What is trained.
        callbacks: The stage's own, which come before the figures of a step are written.
        notes: What a person should know of it before it begins, a line each.
        longest_of: The index in the training data of the record of a batch that has most tokens,
            and their number; None where what it holds is made of several.
        savers: Settings that take less memory, for a person.
    """

    module: StageModule[Any]
    data: L.LightningDataModule
    subject: Subject
    callbacks: Sequence[Callback]
    notes: Sequence[str]
    savers: str
    longest_of: Callable[[Any], tuple[int, int]] | None = None


class Stage(ABC, Generic[Config]):
    """A way of training: how it is put together from its settings."""

    def choose_model(self, config: Config, root: Path) -> tuple[Config, ModelSource]:
        """The settings with the model named that training starts from, and where it is.

        Raises:
            UsageError: where there is none.
        """
        return config, resolve_model(config.model)

    @abstractmethod
    def rules(self, config: Config, source: ModelSource) -> ModelRules | None:
        """What of the data the training could not take, known before anything is trained.

        None for nothing.

        Raises:
            ModelError: where the model's files cannot be used.
        """

    @abstractmethod
    def build(self, start: Start[Config], job: Job) -> Built:
        """Puts a training together and tries whatever could stop it at its start.

        Raises:
            FfrError: for anything wrong with settings, data, model or memory.
        """


def train(stage: Stage[Config], config: Config, job: Job) -> TrainResult:
    """Trains from settings to a run folder with a model, and keeps the run's record true.

    Args:
        stage: What is trained.
        config: The settings.
        job: Folder, record and voice.

    Returns:
        The run folder, its status (`finished`, or `interrupted` after SIGTERM or Ctrl-C) and the
        last figures.

    Raises:
        FfrError: for anything wrong with settings, data or model, before any training where it can
            be known before.
    """
    start, job = _start(stage, config, job)
    name = model_name(start.source)
    with run_folder(job.run, job.root, config.stage, name, resume=job.resume) as run:
        how = "resumed" if job.resume else _by_recipe(job)
        job = replace(job, run=run)
        job.say(f"Training {_what(start)} {how} → {run}")
        data = (start.train_data, start.val_data)
        with kept_record(
            run,
            start.config,
            start.source,
            data,
            configuration=start.configuration,
            resume=job.resume,
            recipe=job.recipe,
        ) as record:
            record.status, record.results = _fit(_prepare(stage, start, job), start, record)
    return TrainResult(run, record.status, record.results)


def describe(stage: Stage[Config], config: Config, job: Job) -> None:
    """Says what a training would do, without doing it and without writing anything (`--dry-run`).

    Args:
        stage: What would be trained.
        config: The settings.
        job: Folder, record and voice.

    Raises:
        FfrError: for whatever would stop the training at its start.
    """
    start, job = _start(stage, config, replace(job, is_dry=True, progress=False))
    if job.run is not None and job.resume:
        val_fingerprint = start.val_data.fingerprint if start.val_data is not None else ""
        check_resumed(job.run, start.train_data.fingerprint, val_fingerprint)
    built = _prepare(stage, start, job).built
    parameters = list(built.module.parameters())
    num_trained = sum(p.numel() for p in parameters if p.requires_grad)
    how = f"resuming {job.run}" if job.resume else _by_recipe(job)
    num_val = len(start.val_data) if start.val_data is not None else 0
    job.say(f"Would train {_what(start)} {how}")
    job.say(f"data fingerprint {start.train_data.fingerprint[:16]}; validation {num_val} examples")
    for note in built.notes:
        job.say(note)
    job.say(f"{num_trained:,} of {sum(p.numel() for p in parameters):,} weights trained")
    job.say(to_yaml(start.config).rstrip())


def _start(stage: Stage[Config], config: Config, job: Job) -> tuple[Start[Config], Job]:
    """What comes before a run folder is made: a wrong name leaves nothing behind."""
    job = job if is_first_process() else replace(job, say=_silent)
    quiet_libraries()
    prepare_process(config)
    config, source = stage.choose_model(config, job.root)
    refuse_rates_of_tiny(config, source, "" if job.resume else job.recipe)
    config = with_absolute_paths(config)
    train_data, val_data = load_data(config, job.say, stage.rules(config, source))
    configuration = configuration_of(config, job.run if job.resume else None)
    return Start(config, source, train_data, val_data, configuration), job


def _what(start: Start[Any]) -> str:
    config = start.config
    return f"{start.source.label} on {config.dataset} ({len(start.train_data)} examples, {config.split})"


def _by_recipe(job: Job) -> str:
    return f"with recipe {job.recipe}" if job.recipe else "with settings of its own"


def _silent(_: str) -> None:
    """Says nothing: only the first process speaks."""


def _lack_of_memory(ready: _Ready, start: Start[Any]) -> ModelError:
    """What is said where memory ran out in the midst of a training."""
    built, batch = ready.built, ready.at_step_end.batch
    step = ready.at_step_end.last_begun
    if batch is None or built.longest_of is None:
        what = f"what follows step {step}" if batch is None else f"step {step}"
        return ModelError(f"there is not enough memory for {what}; lower {built.savers}")
    index, num_tokens = built.longest_of(batch)
    pixels = getattr(start.config, "max_image_pixels", None)
    record = record_in_words(start.train_data, index, num_tokens, max_image_pixels=pixels)
    return ModelError(
        f"there is not enough memory for step {step}, whose longest record was {record}; lower "
        f"{built.savers}",
        start.train_data.where(index),
    )


@dataclass(frozen=True)
class _Ready:
    """A training with its Trainer; only `_fit` is left to do."""

    built: Built
    trainer: L.Trainer
    at_step_end: StageCallback
    run: Path
    checkpoint: Path | None


def _prepare(stage: Stage[Config], start: Start[Config], job: Job) -> _Ready:
    """Builds a training, for `train` and `describe` alike.

    Raises:
        FfrError: for whatever stops it at its start.
    """
    config = start.config
    L.seed_everything(config.seed, verbose=False)
    if start.val_data is not None:
        answered = range(min(config.val_examples, len(start.val_data)))
        check_truths(start.val_data, "has no true answer to validate on", answered)
    built = stage.build(start, job)
    module = built.module
    # where none is made, a folder is only named: the Trainer writes nothing before it fits
    run = job.run or job.root / f"{config.stage}-{model_name(start.source)}"
    checkpoint = newest_checkpoint(run / "checkpoints", job.say) if job.resume else None
    last_step = step_of(checkpoint) if checkpoint else 0
    if job.resume:
        found = f"going on after step {last_step} of {module.num_steps}"
        job.say(found if checkpoint else "no checkpoint yet: starting again")
    if job.is_dry and checkpoint is not None:
        # a run has this from Lightning, when it fits
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        module.on_load_checkpoint(saved)
        for callback in built.callbacks:
            if state := saved["callbacks"].get(callback.state_key):
                callback.load_state_dict(state)

    def run_validation() -> dict[str, float]:
        if start.val_data is None or not config.val_examples:
            return {}
        return built.subject.validate(module, start.val_data)

    at_step_end = StageCallback(run_validation, say=job.say, speaks=not job.progress)
    trainer = make_trainer(
        config,
        run,
        [*built.callbacks, at_step_end, *([StepBar(leave=True)] if job.progress else [])],
        last_step=last_step,
        progress=job.progress,
        is_manual=not module.automatic_optimization,
    )
    return _Ready(built, trainer, at_step_end, run, checkpoint)


def _fit(ready: _Ready, start: Start[Any], record: RunRecord) -> tuple[Status, dict[str, float]]:
    """Trains, from the newest checkpoint where the run is resumed, and saves the model."""
    module, trainer, run = ready.built.module, ready.trainer, ready.run
    checkpoint = str(ready.checkpoint) if ready.checkpoint else None
    try:
        trainer.fit(module, datamodule=ready.built.data, ckpt_path=checkpoint, weights_only=True)
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        raise _lack_of_memory(ready, start) from error
    status: Status = "interrupted" if ready.at_step_end.was_interrupted else "finished"
    metrics = run / METRICS_FILE
    figures = last_figures(read_metrics(metrics)) if trainer.is_global_zero else {}
    if trainer.is_global_zero and status == "finished":
        module.model.eval()
        ready.built.subject.save(Ended(run, start, record, figures))
        draw_curve(
            metrics,
            run / "curve.png",
            title=run.name,
            curves=module.curves,
            label=module.curves_label,
        )
    trainer.strategy.barrier()
    return status, figures
