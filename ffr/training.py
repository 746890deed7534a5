"""The one place that assembles a training: module, data, Lightning Trainer, log, checkpoints, resume, and the run folder."""

from __future__ import annotations

import logging
import os
import signal
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ffr.config import SftConfig, config_fingerprint, load_config, to_yaml
from ffr.data.catalog import NAMED_SETS, load_dataset
from ffr.data.formats import ExampleDataset
from ffr.dialogue import Example
from ffr.errors import DataError, ModelError, UsageError
from ffr.models.encode import ExampleEncoder
from ffr.models.features import ImageFeatureCache
from ffr.models.lora import add_lora
from ffr.models.vlm import Encoded, Vlm, load_vlm
from ffr.provenance import command, now, versions
from ffr.run_log import MetricsFile, draw_curve, read_metrics
from ffr.runs import RUNS_FOLDER, RunRecord, Status, new_run_folder, resolve_model
from ffr.sft.loader import MicroBatch, StepLoader
from ffr.sft.module import SftModule
from ffr.sft.plan import TrainPlan
from ffr.sft.validation import validate

COLUMNS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "num_tokens", "peak_memory_mb",
    "val_loss", "val_utterance_f1", "val_image_f1", "val_joint_f1", "val_malformed_share",
)  # fmt: skip
_RUN_FOLDER_VARIABLE = "FFR_RUN_FOLDER"
_CHARACTERS_PER_IMAGE = 400
"""What a picture adds to an example's length when batches are grouped, in characters of prompt."""

Echo = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """Where a training left its files, and how it ended."""

    run: Path
    status: Status
    figures: dict[str, float]


def train_sft(
    config: SftConfig,
    *,
    recipe: str = "tiny",
    run: Path | None = None,
    resume: bool = False,
    root: Path = Path(RUNS_FOLDER),
    echo: Echo = print,
    progress: bool = True,
) -> TrainResult:
    """Runs the cold start from its settings to a run folder with a merged model.

    Args:
        config: The settings.
        recipe: What the run's folder is called after.
        run: The run folder; None makes the next one under `root`.
        resume: Whether `run` holds a run to go on with.
        root: Folder of the runs.
        echo: Takes the lines that a person should see.
        progress: Whether a progress bar is drawn.

    Returns:
        The run folder, its status (`finished`, or `interrupted` after SIGTERM or Ctrl-C) and the last figures.

    Raises:
        FfrError: for anything wrong with settings, data or model, before any training where it can be known before.
    """
    is_first_process = int(os.environ.get("LOCAL_RANK", "0")) == 0
    say: Echo = echo if is_first_process else _silent
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    source = resolve_model(config.model)
    train_data, val_data = _load_data(config, say)
    run = _run_folder(run, root, config, recipe, is_first_process)
    say(
        f"Training {source.label} on {config.dataset} ({len(train_data)} examples, {config.split}) "
        f"with recipe {recipe} → {run}" + (" (resumed)" if resume else "")
    )
    fingerprints = {"configuration": config_fingerprint(config), "data": train_data.fingerprint}
    record = _start_record(run, config, fingerprints, train_data, val_data, source.label, resume, is_first_process)
    try:
        status, figures = _fit(config, run, source.location, train_data, val_data, fingerprints, resume, say, progress)
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


def describe_sft(config: SftConfig, *, recipe: str, echo: Echo = print) -> None:
    """What a training would do, without doing it: data, steps, sizes, settings (`--dry-run`).

    Raises:
        FfrError: for whatever would stop the training at its start.
    """
    quiet_libraries()
    source = resolve_model(config.model)
    train_data, val_data = _load_data(config, echo)
    vlm = _load_model(config, source.location)
    plan = _plan(config, train_data)
    encoder = _encoder(config, vlm)
    longest = max(range(len(train_data)), key=lambda index: plan.lengths[index])
    encoded = encoder(train_data[longest], with_answer=True, where=train_data.where(longest))
    trained = sum(p.numel() for p in vlm.parameters() if p.requires_grad)
    total = sum(p.numel() for p in vlm.parameters())
    echo(
        f"Would train {source.label} on {config.dataset} ({len(train_data)} examples, {config.split}) with recipe {recipe}"
    )
    echo(
        f"data fingerprint {train_data.fingerprint[:16]}; validation {len(val_data) if val_data is not None else 0} examples"
    )
    echo(
        f"{plan.num_steps} optimizer steps of up to {plan.examples_per_step} examples; {trained:,} of {total:,} weights trained"
    )
    echo(f"longest example {train_data.where(longest)}: {encoded.num_tokens} tokens with its answer")
    echo(to_yaml(config).rstrip())


def load_run_config(run: Path) -> SftConfig:
    """The settings a run was started with.

    Raises:
        ModelError: where the folder is not a run's.
    """
    RunRecord.load(run)
    path = run / "config.yaml"
    if not path.is_file():
        raise ModelError("the run's config.yaml is missing; restore it or start a new run", str(run))
    return load_config(SftConfig, source=str(path))


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


def _load_data(config: SftConfig, echo: Echo) -> tuple[ExampleDataset, ExampleDataset | None]:
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


def _run_folder(run: Path | None, root: Path, config: SftConfig, recipe: str, is_first_process: bool) -> Path:
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
    config: SftConfig,
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


def _load_model(config: SftConfig, location: str) -> Vlm:
    device = "cuda" if config.accelerator in ("auto", "gpu") and torch.cuda.is_available() else "cpu"
    vlm = load_vlm(
        location,
        dtype="bfloat16" if _precision(config) == "bf16" else "float32",
        device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device,
        load_in_4bit=config.load_in_4bit,
        trust_remote_code=config.trust_remote_code,
        max_image_pixels=config.max_image_pixels,
    )
    torch.manual_seed(config.seed)
    if config.lora_rank:
        add_lora(vlm, r=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)
    else:
        vlm.train_language_model()
    if config.gradient_checkpointing:
        vlm.enable_gradient_checkpointing()
    if config.feature_cache_mb:
        vlm.feature_cache = ImageFeatureCache(
            memory_bytes=config.feature_cache_mb * 2**20,
            disk_folder=Path(config.feature_cache_dir) if config.feature_cache_dir else None,
            disk_bytes=config.feature_cache_dir_mb * 2**20,
        )
    return vlm


def _precision(config: SftConfig) -> str:
    if config.precision != "auto":
        return config.precision
    on_gpu = config.accelerator in ("auto", "gpu") and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bf16" if on_gpu else "fp32"


def _encoder(config: SftConfig, vlm: Vlm) -> ExampleEncoder:
    return ExampleEncoder(
        vlm, template=config.template, query_position=config.query_position, max_tokens=config.max_tokens
    )


def _plan(config: SftConfig, data: ExampleDataset) -> TrainPlan:
    return TrainPlan(
        lengths=[_length(example) for example in data],
        batch_size=config.batch_size,
        accumulate=config.accumulate,
        num_processes=config.devices,
        epochs=config.epochs,
        max_steps=config.max_steps,
        seed=config.seed,
    )


def _length(example: Example) -> int:
    """About how long an example is, for grouping only."""
    lines = example.dialogue.utterances
    return sum(len(line.text) + 8 for line in lines) + _CHARACTERS_PER_IMAGE * len(example.dialogue.images)


def _fit(
    config: SftConfig,
    run: Path,
    location: str,
    train_data: ExampleDataset,
    val_data: ExampleDataset | None,
    fingerprints: dict[str, str],
    resume: bool,
    say: Echo,
    progress: bool,
) -> tuple[Status, dict[str, float]]:
    quiet_libraries()
    L.seed_everything(config.seed, verbose=False)
    vlm = _load_model(config, location)
    vlm.train()
    plan = _plan(config, train_data)
    encoder = _encoder(config, vlm)
    module = SftModule(vlm, config, num_steps=plan.num_steps, fingerprints={**fingerprints, "model": vlm.fingerprint})
    checkpoint = newest_checkpoint(run / "checkpoints") if resume else None
    last_step = _step_of(checkpoint) if checkpoint else 0
    if resume:
        say(
            f"going on after step {last_step} of {plan.num_steps}"
            if checkpoint
            else "no checkpoint yet: starting again"
        )

    def encode(index: int) -> Encoded:
        return encoder(train_data[index], with_answer=True, where=train_data.where(index))

    def count_answer_tokens(index: int) -> int:
        fragment = train_data[index].fragment
        assert fragment is not None
        return vlm.count_answer_tokens(fragment)

    loader = StepLoader(
        plan,
        encode,
        count_answer_tokens,
        process=int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))),
        num_processes=config.devices,
        num_workers=config.num_workers,
    )
    val_every = config.val_every_steps or max(1, -(-plan.num_steps // 4))

    def run_validation() -> dict[str, float]:
        if val_data is None or not config.val_examples:
            return {}
        return validate(module, val_data, encoder)

    stage = StageCallback(
        run,
        num_steps=plan.num_steps,
        last_step=last_step,
        validate_every=val_every,
        run_validation=run_validation,
        checkpoint_every=config.checkpoint_every_steps,
        keep_checkpoints=config.keep_checkpoints,
        say=say,
        speak_every=0 if progress else max(1, plan.num_steps // 20),
    )
    callbacks: list[Callback] = [stage]
    if progress:
        callbacks.append(StepBar(leave=True))
    trainer = _trainer(config, run, callbacks, last_step, progress)
    trainer.fit(module, train_dataloaders=loader, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True)
    status: Status = "interrupted" if stage.was_interrupted else "finished"
    if trainer.is_global_zero and status == "finished":
        vlm.eval()
        if config.lora_rank:
            vlm.save_adapter(run / "adapter")
        vlm.save_merged(run / "merged", prompt_settings=encoder.prompt_settings)
        draw_curve(run / "metrics.csv", run / "curve.png", title=run.name)
    figures = _last_figures(run / "metrics.csv") if trainer.is_global_zero else {}
    trainer.strategy.barrier()
    return status, figures


def _trainer(config: SftConfig, run: Path, callbacks: list[Callback], last_step: int, progress: bool) -> L.Trainer:
    """Lightning's trainer, or a sentence where devices and strategy do not go together here."""
    loggers = _loggers(config, run, last_step)
    try:
        return L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            strategy=config.strategy,
            precision="bf16-mixed" if _precision(config) == "bf16" else "32-true",
            max_epochs=1,
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.max_grad_norm or None,
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
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"accelerator={config.accelerator}, devices={config.devices}, strategy={config.strategy} cannot be set up here: "
            f"{reason}"
        ) from None


def _loggers(config: SftConfig, run: Path, last_step: int) -> list[Logger]:
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


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step-"))


class StepBar(RichProgressBar):
    """Lightning's bar with loss, F1 and tokens a second, without the logger's version."""

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics: dict[str, int | str | float | dict[str, float]] = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class StageCallback(Callback):
    """What happens at the end of each optimizer step, in this order: figures, validation, log, checkpoint, stop.

    The first SIGTERM or Ctrl-C lets the step end, writes a checkpoint and stops; a second Ctrl-C stops at once.
    """

    def __init__(
        self,
        run: Path,
        *,
        num_steps: int,
        last_step: int,
        validate_every: int,
        run_validation: Callable[[], dict[str, float]],
        checkpoint_every: int,
        keep_checkpoints: int,
        say: Echo,
        speak_every: int,
    ) -> None:
        self.run = run
        self.num_steps = num_steps
        self.last_step = last_step
        self.validate_every = validate_every
        self.run_validation = run_validation
        self.checkpoint_every = checkpoint_every
        self.keep_checkpoints = keep_checkpoints
        self.say = say
        self.speak_every = speak_every
        self.was_interrupted = False
        self._stop_asked = False
        self._at_step_end = True
        self._metrics: MetricsFile | None = None
        self._handlers: dict[int, Any] = {}
        self._step_started = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._metrics = MetricsFile(self.run / "metrics.csv", COLUMNS, last_step=self.last_step)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._ask_to_stop)
        self._step_started = time.perf_counter()

    def _ask_to_stop(self, number: int, frame: types.FrameType | None) -> None:
        if self._stop_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._stop_asked = True
        self.say("stopping after this step; its checkpoint is written first")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._at_step_end = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: MicroBatch, batch_idx: int
    ) -> None:
        if not batch.ends_step:
            return
        assert isinstance(pl_module, SftModule)
        step = trainer.global_step
        seconds = time.perf_counter() - self._step_started
        figures = pl_module.take_step_figures(batch.num_step_tokens)
        figures["tokens_per_second"] = figures["num_tokens"] / seconds
        figures["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        figures["peak_memory_mb"] = _peak_memory_mb()
        if step % self.validate_every == 0 or step == self.num_steps:
            figures.update(self.run_validation())
        self._log(trainer, pl_module, step, figures)
        self._at_step_end = True
        stop = self._agreed(trainer, self._stop_asked)
        if stop or step % self.checkpoint_every == 0 or step == self.num_steps:
            self._save(trainer, step)
        if stop and step < self.num_steps:
            self.was_interrupted = True
            trainer.should_stop = True
        self._step_started = time.perf_counter()

    def _log(self, trainer: L.Trainer, module: SftModule, step: int, figures: dict[str, float]) -> None:
        if self._metrics is not None:
            self._metrics.append(step, figures)
        for logger in trainer.loggers:
            logger.log_metrics(figures, step)
        shown = {name: figures[name] for name in ("loss", "val_utterance_f1", "val_image_f1") if name in figures}
        module.log_dict(shown, prog_bar=True, logger=False, rank_zero_only=True)
        module.log("tok/s", figures["tokens_per_second"], prog_bar=True, logger=False, rank_zero_only=True)
        if self.speak_every and (step % self.speak_every == 0 or "val_loss" in figures or step == self.num_steps):
            words = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            self.say(f"step {step}/{self.num_steps}  {words}  {figures['tokens_per_second']:.0f} tok/s")

    @staticmethod
    def _agreed(trainer: L.Trainer, flag: bool) -> bool:
        """Whether any process was asked to stop: all must stop at the same step."""
        if trainer.world_size == 1:
            return flag
        found: bool = trainer.strategy.reduce_boolean_decision(flag, all=False)
        return found

    def _save(self, trainer: L.Trainer, step: int) -> None:
        folder = self.run / "checkpoints"
        trainer.save_checkpoint(folder / f"step-{step:08d}.ckpt", weights_only=False)
        if trainer.is_global_zero:
            for old in sorted(folder.glob("step-*.ckpt"))[: -self.keep_checkpoints]:
                old.unlink()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """A fault between two steps (a picture that cannot be read, say) must not cost the steps that were done."""
        if self._at_step_end and trainer.world_size == 1 and trainer.global_step > self.last_step:
            self._save(trainer, trainer.global_step)
        self._restore_handlers()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def _peak_memory_mb() -> float:
    """Largest memory so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import psutil

    info = psutil.Process().memory_info()
    return float(getattr(info, "peak_wset", info.rss)) / 2**20
