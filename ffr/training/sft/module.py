"""The LightningModule of the cold start: loss on answers, exact over batches and processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from ffr.models.shared_prefix import PrefixSharing
from ffr.models.vlm import Vlm
from ffr.settings import SftConfig
from ffr.training.common.loss import answer_nll
from ffr.training.common.supervised import SupervisedModule

_COLUMNS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "num_tokens", "peak_memory_mb",
    "val_loss", "val_utterance_f1", "val_image_f1", "val_joint_f1", "val_malformed_share",
)  # fmt: skip


class SftModule(SupervisedModule[SftConfig]):
    """Trains a model to answer.

    The loss of an optimizer step is the mean negative log-likelihood over all its answer tokens,
    whatever the number of micro-batches and processes.

    Packed queries have the losses and gradients of separate sequences; only dropout differs, since
    what is dropped in front of the dialogue is then the same for all its queries.

    Args:
        vlm: The model, with its adapter.
        config: Settings.
        sharing: Scores packed queries, and the items are packs then; None where the items are
            single examples.
        named: As for `StageModule`.
    """

    def __init__(
        self, vlm: Vlm, config: SftConfig, *, sharing: PrefixSharing | None = None, **named: Any
    ) -> None:
        super().__init__(vlm, config, **named)
        self._sharing = sharing

    @property
    def vlm(self) -> Vlm:
        """What is trained."""
        return cast(Vlm, self.model)

    @property
    def columns(self) -> tuple[str, ...]:
        return _COLUMNS

    def loss_of(self, items: Sequence[Any]) -> torch.Tensor:
        """Negative log-likelihood of all answer tokens of examples, or of packs."""
        if self._sharing is None:
            logits, targets, _ = self.vlm.answer_logits(
                self.vlm.collate(items, padding_side="right")
            )
            return answer_nll(logits, targets)
        scores = self._sharing.score(
            [prompt for pack in items for prompt in pack.prompts],
            [branches for pack in items for branches in pack.branches],
            num_scored=[counts for pack in items for counts in pack.num_scored],
        )
        return -scores.logprobs.sum()  # 0 on filling
