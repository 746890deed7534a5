"""The LightningModule of the cold start: loss on answers, exact over batches and processes."""

from __future__ import annotations

from typing import Any

import torch

from ffr.models.packing import PackedQueries
from ffr.models.rows import Encoded
from ffr.models.shared_prefix import PrefixSharing
from ffr.settings import SftConfig
from ffr.training.common.loss import answer_nll
from ffr.training.common.module import StageModule
from ffr.training.sft.loader import MicroBatch

_COLUMNS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "num_tokens", "peak_memory_mb",
    "val_loss", "val_utterance_f1", "val_image_f1", "val_joint_f1", "val_malformed_share",
)  # fmt: skip


class SftModule(StageModule[SftConfig]):
    """Trains a model to answer.

    The loss of an optimizer step is the mean negative log-likelihood over all its answer tokens,
    whatever the number of micro-batches and processes. Random numbers (dropout) are drawn from a
    seed of step and process, so that a resumed run draws the same.

    Packed queries have the losses and gradients of separate sequences; only dropout differs, since
    what is dropped in front of the dialogue is then the same for all its queries.

    Args:
        arguments: As for `StageModule`.
        sharing: Scores packed queries, and the items are packs then; None where the items are
            single examples.
        named: As for `StageModule`.
    """

    def __init__(self, *arguments: Any, sharing: PrefixSharing | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._sharing = sharing
        self._step_nll = 0.0
        self._step_tokens = 0
        self._grad_norm = 0.0

    @property
    def columns(self) -> tuple[str, ...]:
        return _COLUMNS

    def on_train_batch_start(self, batch: MicroBatch[Any], batch_idx: int) -> None:
        """Seeds what is drawn in this micro-batch (dropout) by its number and the process."""
        torch.manual_seed(self.seed_of_batch(batch_idx))

    def training_step(self, batch: MicroBatch[Any], batch_idx: int) -> torch.Tensor:
        """The micro-batch's part of the step's loss."""
        nll = (
            self._nll_of_packs(batch.items, self._sharing)
            if self._sharing
            else self._nll_of_examples(batch.items)
        )
        if batch.is_padding:
            nll = nll * 0
        self._step_nll += float(nll.detach())
        self._step_tokens += 0 if batch.is_padding else batch.num_tokens
        # Lightning divides by its number of accumulated batches, and data-parallel strategies by
        # the number of processes
        share: float = (
            self.trainer.accumulate_grad_batches * self.trainer.world_size / batch.num_step_tokens
        )
        return nll * share

    def _nll_of_examples(self, examples: list[Encoded]) -> torch.Tensor:
        logits, targets, _ = self.vlm.answer_logits(
            self.vlm.collate(examples, padding_side="right")
        )
        return answer_nll(logits, targets)

    @staticmethod
    def _nll_of_packs(packs: list[PackedQueries], sharing: PrefixSharing) -> torch.Tensor:
        scores = sharing.score(
            [prompt for pack in packs for prompt in pack.prompts],
            [branches for pack in packs for branches in pack.branches],
            num_scored=[counts for pack in packs for counts in pack.num_scored],
        )
        return -scores.logprobs.sum()  # 0 on filling

    def take_step_figures(self, batch: MicroBatch[Any]) -> dict[str, float]:
        nll, num_tokens = self.sum_over_processes([self._step_nll, float(self._step_tokens)])
        self._step_nll, self._step_tokens = 0.0, 0
        return {
            "loss": nll / batch.num_step_tokens,
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
