"""What all stages' modules share: checkpoints of trained weights alone, optimizer, rate."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import lightning as L
import torch
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from ffr.errors import ModelError
from ffr.settings import StageConfig
from ffr.training.common.loss import warmup_cosine

_CHECKPOINT_KEY = "ffr"
_SPOKEN = {
    "loss": "the loss",
    "grad_norm": "the gradient's norm",
    "val_loss": "the validation loss",
}
Config = TypeVar("Config", bound=StageConfig)


@dataclass(frozen=True, slots=True)
class StepFault:
    """Why a training stops after a step.

    Args:
        what: What was found, in words.
        remedy: What to do, in words.
    """

    what: str
    remedy: str = "start a new run with a lower learning_rate, or with a max_grad_norm above 0"


class StageModule(L.LightningModule, ABC, Generic[Config]):
    """A model that is trained; knows no file, no folder and no command line.

    Args:
        model: What is trained, with its adapter where it has one.
        config: Settings of the stage.
        num_steps: Optimizer steps of the whole training; the learning rate follows them.
        fingerprints: Names of configuration, data and frozen weights; a checkpoint of another one
            is refused.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: Config,
        *,
        num_steps: int,
        fingerprints: dict[str, str],
    ) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold the trained weights only
        self.model = model
        self.config = config
        self.num_steps = num_steps
        self.fingerprints = fingerprints
        self.step_learning_rate = 0.0
        """The rate that the last optimizer step was taken with."""
        self.further_figures: dict[str, float] = {}
        """What callbacks say of the step that has just ended, beside the module's own figures."""

    @property
    def steps_done(self) -> int:
        """Steps of the stage's plan that are done."""
        return int(self.trainer.global_step)

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of all figures that a step may have, in the order of `metrics.csv`."""

    curves_label = "loss per answer token"
    """What the curves of `curve.png` show."""

    @property
    def curves(self) -> dict[str, str]:
        """Figures that `curve.png` shows, with their line styles."""
        return {"loss": "-", "val_loss": "o-"}

    @abstractmethod
    def take_step_figures(self, batch: Any) -> dict[str, float]:
        """Figures of the step that `batch` ended, summed over processes; counting starts anew."""

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leaves the batch where it is: `collate` makes its tensors on the model's device."""
        return batch

    def sum_over_processes(self, sums: list[float]) -> list[float]:
        """Adds up figures over all processes, in double precision where the device has it."""
        # MPS has no float64; its sums are made on the host
        device = torch.device("cpu") if self.device.type == "mps" else self.device
        tensor = torch.tensor(sums, dtype=torch.float64, device=device)
        found: list[float] = self.trainer.strategy.reduce(tensor, reduce_op="sum").tolist()
        return found

    def max_over_processes(self, value: float) -> float:
        """The largest of all processes' figures."""
        if self.trainer.world_size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float32, device=self.device)
        # a mean or sum would not tell; all processes' numbers are few
        return float(self.all_gather(tensor).max())

    def seed_of_batch(self, batch_idx: int) -> int:
        """Names what is drawn in a batch, by its number and the process, on any machine.

        Args:
            batch_idx: Number of the batch within the whole training.
        """
        process = int(self.global_rank)
        return (self.config.seed * 1_000_003 + batch_idx * 4_099 + process) % 2**63

    def unsynchronized(self) -> AbstractContextManager[None]:
        """Gradients of a backward pass stay with the process, to be added to those of its next."""
        strategy = self.trainer.strategy
        return (
            strategy.block_backward_sync()
            if isinstance(strategy, ParallelStrategy)
            else nullcontext()
        )

    def gradient_norm(self) -> float:
        """Norm of all gradients together."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0

    def take_sound_gradients(self) -> float:
        """Norm of all gradients together, which are dropped where it is no finite number.

        The step then moves no weight, and the run stops at its end (`fault_of_step`).
        """
        norm = self.gradient_norm()
        if not math.isfinite(norm):
            self.zero_grad(set_to_none=True)
        return norm

    def fault_of_step(self, figures: Mapping[str, float]) -> StepFault | None:
        """What is no finite number after a step: a figure of it, or a weight; None where all are.

        Args:
            figures: The step's figures.
        """
        for name, value in figures.items():
            if not math.isfinite(value):
                return StepFault(f"{_SPOKEN.get(name, name)} is {value}")
        trained = [p.detach() for p in self.parameters() if p.requires_grad]
        # the largest alone: a norm of another kind overflows where all weights are finite
        largest = (
            float(torch.nn.utils.get_total_norm(trained, norm_type=math.inf)) if trained else 0.0
        )
        return None if math.isfinite(largest) else StepFault(f"a weight is {largest}")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {
                "params": [p for p in trained if p.ndim >= 2],
                "weight_decay": self.config.weight_decay,
            },
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self.config.learning_rate
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: warmup_cosine(
                step, num_steps=self.num_steps, warmup_share=self.config.warmup_share
            ),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Notes the step's rate: the scheduler goes on to the next before the step ends."""
        self.step_learning_rate = float(optimizer.param_groups[0]["lr"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the trained weights only: the frozen ones are where they were loaded from."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name in trained
        }
        checkpoint[_CHECKPOINT_KEY] = dict(self.fingerprints)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other settings, data or weights.

        Weights that stand under `vlm.`, as they did at first, are taken for the model's.

        Raises:
            ModelError: with what differs.
        """
        found = checkpoint.get(_CHECKPOINT_KEY, {})
        for name in {**self.fingerprints, **found}:
            if found.get(name) != self.fingerprints.get(name):
                raise ModelError(
                    f"the checkpoint belongs to another {name}; start a new run instead of resuming"
                )
        checkpoint["state_dict"] = {
            f"model.{name.removeprefix('vlm.')}" if name.startswith("vlm.") else name: value
            for name, value in checkpoint["state_dict"].items()
        }
        trained = {name: p.shape for name, p in self.named_parameters() if p.requires_grad}
        shapes = {name: value.shape for name, value in checkpoint["state_dict"].items()}
        if trained != shapes:
            raise ModelError(
                "the checkpoint holds other weights than this run trains; start a new run instead "
                "of resuming"
            )
