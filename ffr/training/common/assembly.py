"""What every stage's training is put together from: data, model, run folder and record, Lightning's Trainer, checkpoints."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ffr.data.catalog import NAMED_SETS, load_dataset
from ffr.data.dataset import ExampleDataset
from ffr.dialogue import Example
from ffr.errors import DataError, ModelError, UsageError
from ffr.files import make_folder, replace_text
from ffr.models.compiled import compile_layers
from ffr.models.features import ImageFeatureCache
from ffr.models.loading import load_vlm
from ffr.models.lora import add_lora
from ffr.models.prompts import PromptBuilder
from ffr.models.saving import save_adapter, save_merged
from ffr.models.vlm import Vlm
from ffr.progress import Say
from ffr.provenance import command, now, versions
from ffr.run_log import LOSS_CURVES, draw_curve, read_metrics
from ffr.runs import ModelSource, RunRecord, Status, new_run_folder
from ffr.settings import StageConfig, config_fingerprint, load_resumed, resumed_fingerprint, to_yaml
from ffr.text import one_line
from ffr.training.common.callback import StageCallback, StepBar
from ffr.training.common.module import StageModule
from ffr.training.common.validation import validate

Config = TypeVar("Config", bound=StageConfig)
_RUN_FOLDER_VARIABLE = "FFR_RUN_FOLDER"
CONFIG_FILE = "config.yaml"
_CHARACTERS_PER_IMAGE = 400
"""What a picture adds to an example's length when batches are grouped, in characters of prompt."""


@dataclass(frozen=True)
class TrainResult:
    """Where a training left its files, and how it ended."""

    run: Path
    status: Status
    figures: dict[str, float]


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
    say: Say
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
    echo: Say,
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
    say: Say = echo if is_first_process else _silent
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    os.environ.setdefault(*KERNELS_KEPT)
    train_data, val_data = load_data(config, say)
    run = _run_folder(run, root, config, recipe, is_first_process)
    how = "resumed" if resume else f"with recipe {recipe}"
    say(f"Training {source.label} on {config.dataset} ({len(train_data)} examples, {config.split}) {how} → {run}")
    configuration = config_fingerprint(config)
    if resume:
        configuration = resumed_fingerprint(config, run / CONFIG_FILE, RunRecord.load(run).config_fingerprint)
    fingerprints = {"configuration": configuration, "data": train_data.fingerprint}
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
            save_adapter(vlm, run / "adapter")
        save_merged(vlm, run / "merged", prompt_settings=builder.prompt_settings)
        draw_curve(run / "metrics.csv", run / "curve.png", title=run.name, curves=curves, label=curves_label)
    figures = _last_figures(run / "metrics.csv") if trainer.is_global_zero else {}
    trainer.strategy.barrier()
    return status, figures


def load_run_config(kind: type[Config], run: Path, overrides: Iterable[str] = ()) -> Config:
    """The settings that a run goes on with.

    Args:
        kind: The stage's settings.
        run: The run folder.
        overrides: As `ffr.settings.load_resumed` takes them.

    Raises:
        ModelError: where the folder is not a run's.
        UsageError: where an override would change the result.
    """
    RunRecord.load(run)
    path = run / CONFIG_FILE
    if not path.is_file():
        raise ModelError("the run's config.yaml is missing; restore it or start a new run", str(run))
    return load_resumed(kind, path, overrides)


def quiet_libraries() -> None:
    """Turns off the progress bars and tips of libraries, which would hide our own lines; warnings of theirs stay."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing` is deprecated.*")
    warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")


def _silent(_: str) -> None:
    """Says nothing: only the first process speaks."""


def load_data(config: StageConfig, echo: Say) -> tuple[ExampleDataset, ExampleDataset | None]:
    """Training and validation data that the settings name; None where there is nothing to validate on.

    Raises:
        FfrError: where they cannot be used.
    """
    image_root = Path(config.image_root) if config.image_root else None
    options: dict[str, Any] = {"image_root": image_root, "skip_bad": config.skip_bad, "echo": echo}
    train_data = load_dataset(config.dataset, split=config.split, **options)
    if len(train_data) == 0:
        raise DataError("holds no usable example to train on", where=config.dataset)
    if config.val_dataset is not None:
        return train_data, load_dataset(config.val_dataset, split=config.val_split, **options)
    if config.dataset in NAMED_SETS and config.val_split in NAMED_SETS[config.dataset].splits:
        return train_data, load_dataset(config.dataset, split=config.val_split, **options)
    echo("no validation data: name some with `-o val_dataset=…` to see F1 while training")
    return train_data, None


def _run_folder(run: Path | None, root: Path, config: StageConfig, recipe: str, is_first_process: bool) -> Path:
    """The run's folder, the same one in all processes: the first makes it and hands its name to those it starts."""
    handed = os.environ.get(_RUN_FOLDER_VARIABLE)
    if not is_first_process or (handed and int(os.environ.get("WORLD_SIZE", "1")) > 1):
        if run is None and not handed:
            raise UsageError("several processes were started from outside; name the run's folder with --out")
        return run or Path(str(handed))
    if run is None:
        run = new_run_folder(root, config.stage, Path(recipe).stem)
    make_folder(run)
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
            replace_text(run / CONFIG_FILE, to_yaml(config))
        record.save(run)
    return record


def load_base(config: StageConfig, location: str) -> Vlm:
    """The model as its files have it, frozen, with its feature cache."""
    device = "cuda" if config.accelerator in ("auto", "gpu") and torch.cuda.is_available() else "cpu"
    # weights that are trained themselves stay in float32: steps of 1e-5 are lost in bfloat16; autocast computes in it all the same
    is_half = _precision(config) == "bf16" and bool(config.lora_rank)
    vlm = load_vlm(
        location,
        dtype="bfloat16" if is_half else "float32",
        device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device,
        load_in_4bit=config.load_in_4bit,
        trust_remote_code=config.trust_remote_code,
        max_image_pixels=config.max_image_pixels,
    )
    if config.feature_cache_mb:
        vlm.tower.cache = ImageFeatureCache(
            memory_bytes=config.feature_cache_mb * 2**20,
            disk_folder=Path(config.feature_cache_dir) if config.feature_cache_dir else None,
            disk_bytes=config.feature_cache_dir_mb * 2**20,
        )
    return vlm


def make_trainable(config: StageConfig, vlm: Vlm) -> None:
    """Adds the adapter, drawn from the seed, or makes the language model's own weights trainable."""
    torch.manual_seed(config.seed)
    if config.lora_rank:
        add_lora(vlm, r=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)
    else:
        vlm.train_language_model()
    if config.gradient_checkpointing:
        vlm.enable_gradient_checkpointing()
    if config.compile:
        compile_layers(vlm)


def _precision(config: StageConfig) -> str:
    if config.precision != "auto":
        return config.precision
    on_gpu = config.accelerator in ("auto", "gpu") and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16" if on_gpu else "fp32"


def make_prompt_builder(config: StageConfig, vlm: Vlm) -> PromptBuilder:
    """What turns examples into the model's input, as the settings say."""
    return PromptBuilder(
        vlm,
        template=config.template,
        query_position=config.query_position,
        max_tokens=config.max_tokens,
        answer_style=getattr(config, "answer_style", None),
    )


def check_packing(builder: PromptBuilder) -> None:
    """Raises UsageError where queries do not stand behind their dialogues, so that these cannot be shared."""
    if builder.query_position != "last":
        found = "first" if builder.query_position else "whatever the data file has"
        raise UsageError(
            f"setting pack_queries: queries share a dialogue that stands before them, but the model's query position is {found}; "
            "set query_position=last"
        )


def example_length(example: Example) -> int:
    """About how long an example is, for grouping only."""
    lines = example.dialogue.utterances
    return sum(len(line.text) + 8 for line in lines) + _CHARACTERS_PER_IMAGE * len(example.dialogue.images)


def _trainer(
    config: StageConfig, run: Path, callbacks: list[Callback], last_step: int, progress: bool, is_manual: bool
) -> L.Trainer:
    """Lightning's trainer, or a sentence where devices and strategy do not go together here."""
    loggers = _loggers(config, run, last_step)
    try:
        return L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            strategy=config.strategy,
            precision="bf16-mixed" if _precision(config) == "bf16" else "32-true",
            max_epochs=1,
            # a module that takes its steps itself accumulates and clips itself
            accumulate_grad_batches=1 if is_manual else config.accumulate,
            gradient_clip_val=None if is_manual else config.max_grad_norm or None,
            callbacks=callbacks,
            logger=loggers,
            enable_checkpointing=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            default_root_dir=str(run),
        )
    except (ValueError, TypeError, ImportError, RuntimeError, MisconfigurationException) as error:
        reason = one_line(error)
        raise UsageError(
            f"accelerator={config.accelerator}, devices={config.devices}, strategy={config.strategy} cannot be set up here: "
            f"{reason}"
        ) from None


def _loggers(config: StageConfig, run: Path, last_step: int) -> list[Logger]:
    loggers: list[Logger] = [
        TensorBoardLogger(
            save_dir=str(run), name="", version="tensorboard", purge_step=last_step + 1 if last_step else None
        )
    ]
    if config.wandb_project:
        try:
            from lightning.pytorch.loggers import WandbLogger

            loggers.append(WandbLogger(project=config.wandb_project, name=run.name, save_dir=str(run)))
        except ModuleNotFoundError:
            raise UsageError(
                "wandb_project is set but wandb is not installed; pip install 'ffr-vlm[wandb]' or leave it out"
            ) from None
    return loggers


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


def newest_step(preparation: Preparation) -> int:
    """The step that a resumed run goes on after; 0 for a new one."""
    checkpoint = newest_checkpoint(preparation.run / "checkpoints") if preparation.resume else None
    return _step_of(checkpoint) if checkpoint else 0


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step-"))
