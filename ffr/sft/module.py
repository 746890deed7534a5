"""The LightningModule of the cold start: answer-only loss over LoRA weights, exact over micro-batches and processes."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from ffr.config import SftConfig
from ffr.errors import ModelError
from ffr.models.vlm import Vlm
from ffr.sft.loader import MicroBatch
from ffr.sft.loss import answer_nll, warmup_cosine

_CHECKPOINT_KEY = "ffr"


class SftModule(L.LightningModule):
    """Trains a model to answer; knows no file, no folder and no command line.

    The loss of an optimizer step is the mean negative log-likelihood over all its answer tokens, whatever the number of
    micro-batches and processes. Random numbers (dropout) are drawn from a seed of step and process, so that a resumed run
    draws the same.

    Args:
        vlm: The model, with its adapter.
        config: Settings.
        num_steps: Optimizer steps of the whole training; the learning rate follows them.
        fingerprints: Names of configuration and data; a checkpoint of another one is refused.
    """

    def __init__(self, vlm: Vlm, config: SftConfig, *, num_steps: int, fingerprints: dict[str, str]) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold the trained weights only
        self.vlm = vlm
        self.config = config
        self.num_steps = num_steps
        self.fingerprints = fingerprints
        self._step_nll = 0.0
        self._step_tokens = 0
        self._grad_norm = 0.0

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves the batch where it is: `collate` makes its tensors on the model's device."""
        return batch

    def on_train_batch_start(self, batch: MicroBatch, batch_idx: int) -> None:
        """Seeds what is drawn in this micro-batch (dropout) by its number and the process."""
        torch.manual_seed((self.config.seed * 1_000_003 + batch_idx * 4_099 + self.global_rank) % 2**63)

    def training_step(self, batch: MicroBatch, batch_idx: int) -> torch.Tensor:
        """The micro-batch's part of the step's loss."""
        logits, targets, _ = self.vlm.answer_logits(self.vlm.collate(batch.examples, padding_side="right"))
        nll = answer_nll(logits, targets)
        if batch.is_padding:
            nll = nll * 0
        self._step_nll += float(nll.detach())
        self._step_tokens += 0 if batch.is_padding else batch.num_tokens
        # Lightning divides by its number of accumulated batches, and data-parallel strategies by the number of processes
        share: float = self.trainer.accumulate_grad_batches * self.trainer.world_size / batch.num_step_tokens
        return nll * share

    def take_step_figures(self, num_step_tokens: int) -> dict[str, float]:
        """Figures of the optimizer step that just ended, summed over processes; counting starts anew."""
        sums = torch.tensor(
            [self._step_nll, float(self._step_tokens)], dtype=torch.float64, device=self._reduce_device()
        )
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        self._step_nll, self._step_tokens = 0.0, 0
        return {"loss": sums[0].item() / num_step_tokens, "num_tokens": sums[1].item(), "grad_norm": self._grad_norm}

    def _reduce_device(self) -> torch.device:
        device: torch.device = self.device
        # MPS has no float64; its sums are made on the host
        return torch.device("cpu") if device.type == "mps" else device

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as Lightning does, and keeps the norm from before for the log."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self._grad_norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        if gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.config.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.config.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: warmup_cosine(step, num_steps=self.num_steps, warmup_share=self.config.warmup_share),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the trained weights only: the frozen ones are where they were loaded from."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trained}
        checkpoint[_CHECKPOINT_KEY] = dict(self.fingerprints)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other settings, data or weights.

        Raises:
            ModelError: with what differs.
        """
        found = checkpoint.get(_CHECKPOINT_KEY, {})
        for name, expected in self.fingerprints.items():
            if found.get(name) != expected:
                raise ModelError(f"the checkpoint belongs to another {name}; start a new run instead of resuming")
        trained = {name: p.shape for name, p in self.named_parameters() if p.requires_grad}
        shapes = {name: value.shape for name, value in checkpoint["state_dict"].items()}
        if trained != shapes:
            raise ModelError(
                "the checkpoint holds other weights than this run trains; start a new run instead of resuming"
            )
