"""The LightningModule of a reader: what it learns from true fragments, exact over batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ffr.reader.model import Reader
from ffr.reader.network import NetworkInputs
from ffr.settings import ReaderConfig
from ffr.training.common.reader_items import batch_of
from ffr.training.common.reader_loss import reader_loss
from ffr.training.common.supervised import SupervisedModule

_COLUMNS = (
    "loss", "learning_rate", "grad_norm", "tokens_per_second", "num_tokens", "peak_memory_mb",
    "val_loss", "val_utterance_f1", "val_image_f1", "val_joint_f1",
)  # fmt: skip


class ReaderModule(SupervisedModule[ReaderConfig]):
    """Trains a reader's networks together; the encoder is frozen and no part of it.

    The loss of a step is the mean of `reader_loss` over its examples.

    Args:
        reader: The reader.
        config: Settings.
        named: As for `StageModule`.
    """

    curves_label = "loss per example"

    def __init__(self, reader: Reader, config: ReaderConfig, **named: Any) -> None:
        super().__init__(nn.ModuleList(reader.networks), config, **named)
        self.reader = reader

    @property
    def columns(self) -> tuple[str, ...]:
        return _COLUMNS

    def loss_of(self, items: Sequence[Any]) -> torch.Tensor:
        """The sum of the loss over `ReaderItem`s, their likenesses jittered."""
        inputs, labels = batch_of(items)
        units, nothing = self.reader.logits(jittered(inputs, self.config.jitter))
        return reader_loss(
            units, nothing, labels, inputs.mask, nothing_weight=self.config.nothing_weight
        ).sum()


def jittered(inputs: NetworkInputs, size: float) -> NetworkInputs:
    """Inputs with noise, drawn from torch's generator: scale and shift of each number over a dialogue.

        f' = f (1 + s ε₁) + s ε₂ / 2 + 0.3 s ε₃,  b' = b + 2/3 s ε₄

    with ε₁, ε₂ of a query and number, ε₃ of each unit too, ε₄ of a query; all are standard normal.

    Args:
        inputs: A batch.
        size: s; 0 leaves it as it is and draws nothing.
    """
    if not size:
        return inputs
    features = inputs.features
    num_rows, _, width = features.shape
    scale, shift = torch.randn(2, num_rows, 1, width)
    moved = features * (1 + size * scale) + size * shift / 2
    moved = moved + 0.3 * size * torch.randn_like(features)
    between = inputs.between + 2 / 3 * size * torch.randn(num_rows, 1, 1)
    return replace(inputs, features=moved, between=between)
