"""What happens at the end of each step of a stage, and the progress bar."""

from __future__ import annotations

import signal
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar

from ffr.errors import ModelError
from ffr.files import remove
from ffr.progress import Say
from ffr.run_log import METRICS_FILE, MetricsFile
from ffr.training.common.module import StageModule, StepFault


class StepBar(RichProgressBar):
    """Lightning's bar with loss, F1 and tokens a second, without the logger's version."""

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics: dict[str, int | str | float | dict[str, float]] = super().get_metrics(
            trainer, pl_module
        )
        metrics.pop("v_num", None)
        return metrics


class StageCallback(Callback):
    """At the end of each step, in this order: figures, validation, log, checkpoint, stop.

    The first SIGTERM or Ctrl-C lets the step end, writes a checkpoint and stops; a second Ctrl-C
    stops at once. The run folder is the Trainer's `default_root_dir`.

    Args:
        run_validation: Gives the figures of a validation; empty where there is none.
        say: Takes the lines that a person should see.
        speaks: Whether it says the figures of about twenty steps, as where no bar shows them.
    """

    def __init__(
        self, run_validation: Callable[[], dict[str, float]], *, say: Say, speaks: bool
    ) -> None:
        self.run_validation = run_validation
        self.say = say
        self.speaks = speaks
        self.was_interrupted = False
        self.batch: Any = None
        """What is taken through the model just now; None between two steps."""
        self._stop_asked = False
        self._at_step_end = True
        self._first_step = self._step = 0
        self._metrics: MetricsFile | None = None
        self._handlers: dict[int, Any] = {}
        self._step_started = 0.0

    @property
    def last_begun(self) -> int:
        """The last step that was begun."""
        return self._step if self._at_step_end else self._step + 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, StageModule)
        # the Trainer has restored the checkpoint by now
        self._first_step = self._step = pl_module.steps_done
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / METRICS_FILE
            self._metrics = MetricsFile(path, pl_module.columns, last_step=self._first_step)
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
        self.batch = batch

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.batch = None
        if not batch.ends_step:
            return
        assert isinstance(pl_module, StageModule)
        step, config, num_steps = pl_module.steps_done, pl_module.config, pl_module.num_steps
        seconds = time.perf_counter() - self._step_started
        figures = {**pl_module.take_step_figures(batch), **pl_module.further_figures}
        figures["tokens_per_second"] = figures["num_tokens"] / seconds
        figures["learning_rate"] = pl_module.step_learning_rate
        figures["peak_memory_mb"] = _peak_memory_mb()
        if step % (config.val_every_steps or max(1, -(-num_steps // 4))) == 0 or step == num_steps:
            figures.update(self.run_validation())
        fault = pl_module.fault_of_step(figures)
        if self._agreed(trainer, fault is not None):
            self._note(step, figures)
            raise ModelError(_stopped(step, fault or StepFault("another process met a fault")))
        self._log(trainer, pl_module, step, figures)
        self._at_step_end, self._step = True, step
        stop = self._agreed(trainer, self._stop_asked)
        if stop or step % config.checkpoint_every_steps == 0 or step == num_steps:
            self._save(trainer, step, config.keep_checkpoints)
        if stop and step < num_steps:
            self.was_interrupted = True
            trainer.should_stop = True
        self._step_started = time.perf_counter()

    def _log(
        self, trainer: L.Trainer, module: StageModule[Any], step: int, figures: dict[str, float]
    ) -> None:
        self._note(step, figures)
        for logger in trainer.loggers:
            try:
                logger.log_metrics(figures, step)
            except ValueError as error:
                # Lightning takes whatever goes wrong for a figure of a kind that cannot be logged
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                raise
        shown = {
            name: figures[name]
            for name in ("loss", "reward", "val_utterance_f1", "val_image_f1")
            if name in figures
        }
        module.log_dict(shown, prog_bar=True, logger=False, rank_zero_only=True)
        module.log(
            "tok/s", figures["tokens_per_second"], prog_bar=True, logger=False, rank_zero_only=True
        )
        is_told = (
            step % max(1, module.num_steps // 20) == 0
            or "val_loss" in figures
            or step == module.num_steps
        )
        if self.speaks and is_told:
            words = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            self.say(
                f"step {step}/{module.num_steps}  {words}  {figures['tokens_per_second']:.0f} tok/s"
            )

    def _note(self, step: int, figures: dict[str, float]) -> None:
        if self._metrics is not None:
            self._metrics.append(step, figures)

    @staticmethod
    def _agreed(trainer: L.Trainer, flag: bool) -> bool:
        """Whether any process wants to stop: all must stop at the same step."""
        if trainer.world_size == 1:
            return flag
        found: bool = trainer.strategy.reduce_boolean_decision(flag, all=False)
        return found

    @staticmethod
    def _save(trainer: L.Trainer, step: int, num_kept: int) -> None:
        folder = Path(trainer.default_root_dir) / "checkpoints"
        trainer.save_checkpoint(folder / f"step-{step:08d}.ckpt", weights_only=False)
        if trainer.is_global_zero:
            for old in sorted(folder.glob("step-*.ckpt"))[:-num_kept]:
                remove(old)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """A fault between two steps (an unreadable picture, say) must not cost the steps done."""
        assert isinstance(pl_module, StageModule)
        if self._at_step_end and trainer.world_size == 1 and self._step > self._first_step:
            self._save(trainer, self._step, pl_module.config.keep_checkpoints)
        self._restore_handlers()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def _stopped(step: int, fault: StepFault) -> str:
    return (
        f"step {step}: {fault.what}, so the run stops and what it kept of earlier steps stays as "
        f"it is; {fault.remedy}"
    )


def _peak_memory_mb() -> float:
    """Largest memory so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    import psutil

    info = psutil.Process().memory_info()
    return float(getattr(info, "peak_wset", info.rss)) / 2**20
