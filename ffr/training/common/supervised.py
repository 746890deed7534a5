"""What modules share that learn from true answers: a step's loss exact over batches and processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from ffr.training.common.loader import MicroBatch
from ffr.training.common.module import Config, StageModule


class SupervisedModule(StageModule[Config]):
    """Trains a model to answer as the data does.

    The loss of an optimizer step is the sum over all its items, divided by what they count
    (`Item.num_answer_tokens`), whatever the number of micro-batches and processes. Random numbers
    (dropout) are drawn from a seed of step and process, so that a resumed run draws the same.

    Args:
        arguments: As for `StageModule`.
        named: As for `StageModule`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._step_loss = 0.0
        self._step_tokens = 0
        self._grad_norm = 0.0

    @abstractmethod
    def loss_of(self, items: Sequence[Any]) -> torch.Tensor:
        """The sum of the loss over items, a scalar."""

    def on_train_batch_start(self, batch: MicroBatch[Any], batch_idx: int) -> None:
        """Seeds what is drawn in this micro-batch (dropout) by its number and the process."""
        torch.manual_seed(self.seed_of_batch(batch_idx))

    def training_step(self, batch: MicroBatch[Any], batch_idx: int) -> torch.Tensor:
        """The micro-batch's part of the step's loss."""
        loss = self.loss_of(batch.items)
        if batch.is_padding:
            loss = loss * 0
        self._step_loss += float(loss.detach())
        self._step_tokens += 0 if batch.is_padding else batch.num_tokens
        # Lightning divides by its number of accumulated batches, and data-parallel strategies by
        # the number of processes
        share: float = (
            self.trainer.accumulate_grad_batches * self.trainer.world_size / batch.num_step_tokens
        )
        return loss * share

    def take_step_figures(self, batch: MicroBatch[Any]) -> dict[str, float]:
        loss, num_tokens = self.sum_over_processes([self._step_loss, float(self._step_tokens)])
        self._step_loss, self._step_tokens = 0.0, 0
        return {
            "loss": loss / batch.num_step_tokens,
            "num_tokens": num_tokens,
            "grad_norm": self._grad_norm,
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as Lightning does, and keeps the norm from before for the log."""
        self._grad_norm = self.take_sound_gradients()
        if gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
