"""Lightning's Trainer of a stage, from its settings."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ffr.errors import UsageError
from ffr.settings import StageConfig
from ffr.text import one_line
from ffr.training.common.checkpoints import CheckpointFiles
from ffr.training.common.reporting import outside_loggers
from ffr.training.common.setup import precision_of


def quiet_libraries() -> None:
    """Turns off progress bars and tips of libraries, which would hide our lines; warnings stay."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing` is deprecated.*")
    warnings.filterwarnings(
        "ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*"
    )
    # the module leaves batches where they are, whoever gives them
    warnings.filterwarnings("ignore", message="You have overridden `transfer_batch_to_device` in")


def _silence_writer_threads() -> None:
    """Has TensorBoard's thread end without a traceback where the disk refuses.

    The next figure, or the end of the run, meets the same error and says it.
    """
    from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread

    hook = threading.excepthook
    if getattr(hook, "__module__", None) == __name__:
        return

    def told_elsewhere(found: threading.ExceptHookArgs) -> None:
        if not (
            isinstance(found.thread, _AsyncWriterThread) and isinstance(found.exc_value, OSError)
        ):
            hook(found)

    threading.excepthook = told_elsewhere


def make_trainer(
    config: StageConfig,
    run: Path,
    callbacks: Sequence[Callback],
    *,
    last_step: int,
    progress: bool,
    is_manual: bool,
) -> L.Trainer:
    """The trainer; it writes nothing before it fits.

    Args:
        config: The settings.
        run: The run folder, which callbacks find as `trainer.default_root_dir`.
        callbacks: What happens at the end of a step, in this order.
        last_step: Last step that is done; what TensorBoard was told of later ones is dropped.
        progress: Whether a progress bar is drawn.
        is_manual: Whether the module takes its optimizer steps itself; it accumulates and clips
            itself then.

    Raises:
        UsageError: where devices, strategy and loggers do not go together here.
    """
    loggers = _loggers(config, run, last_step)
    try:
        return L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            strategy=config.strategy,
            precision="bf16-mixed" if precision_of(config) == "bf16" else "32-true",
            max_epochs=1,
            accumulate_grad_batches=1 if is_manual else config.accumulate,
            gradient_clip_val=None if is_manual else config.max_grad_norm or None,
            callbacks=list(callbacks),
            plugins=[CheckpointFiles()],
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
        tasks = os.environ.get("SLURM_NTASKS")
        if tasks is not None and "ntasks" in reason:
            raise UsageError(
                f"SLURM_NTASKS={tasks} is set, so this process counts as one of {tasks}, which is "
                "not what devices="
                f"{config.devices} asks for; start it with srun, or unset SLURM_NTASKS"
            ) from None
        raise UsageError(
            f"accelerator={config.accelerator}, devices={config.devices}, "
            f"strategy={config.strategy} cannot be set up "
            f"here: {reason}{_on_one_device(config)}"
        ) from None


def _on_one_device(config: StageConfig) -> str:
    """How a training that asks for many devices takes the same steps on one."""
    if config.devices == 1:
        return ""
    num_batches = config.devices * config.accumulate
    return (
        f"; on one device --devices 1 --strategy auto --accumulate {num_batches} takes the same "
        "steps"
    )


def _loggers(config: StageConfig, run: Path, last_step: int) -> list[Logger]:
    _silence_writer_threads()
    tensorboard = TensorBoardLogger(
        save_dir=str(run),
        name="",
        version="tensorboard",
        purge_step=last_step + 1 if last_step else None,
    )
    # into its hparams.yaml; `log_hyperparams` would write at once, and a figure that is none
    tensorboard.hparams.update(asdict(config))
    return [tensorboard, *outside_loggers(config, run)]
