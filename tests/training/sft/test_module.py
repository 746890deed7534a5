"""The figures of an SFT step by hand: logits of nothing over four words, three answer tokens in two micro-batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from ffr.settings import SftConfig
from ffr.training.common.loader import MicroBatch
from ffr.training.common.trainer import make_trainer
from ffr.training.sft.module import SftModule


class Words(torch.nn.Module):
    """One logit a word, the same at every place; an item is its answer's words."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(4))

    def collate(self, items: list[list[int]], *, padding_side: str) -> list[int]:
        return [word for item in items for word in item]

    def answer_logits(self, words: list[int]) -> tuple[torch.Tensor, torch.Tensor, None]:
        return self.logits.expand(len(words), 4), torch.tensor(words), None


class Told(L.Callback):
    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    def on_train_batch_end(
        self, trainer: Any, pl_module: SftModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch.ends_step:
            self.figures = pl_module.take_step_figures(batch)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("largest_norm", [1.0, 0.1, 0.0])
def test_the_figures_of_a_step_by_hand(tmp_path: Path, largest_norm: float) -> None:
    config = SftConfig(
        accumulate=2,
        learning_rate=0.5,
        warmup_share=0,
        weight_decay=0,
        max_grad_norm=largest_norm,
        accelerator="cpu",
    )
    told, model = Told(), Words()
    module = SftModule(model, config, num_steps=1, fingerprints={})
    batches = [
        MicroBatch(
            [0, 1], [[0], [1]], is_padding=False, num_step_tokens=3, num_tokens=20, ends_step=False
        ),
        MicroBatch([2], [[2]], is_padding=False, num_step_tokens=3, num_tokens=10, ends_step=True),
    ]
    taken: list[float] = []
    trainer = make_trainer(config, tmp_path, [told], last_step=0, progress=False, is_manual=False)
    clip = module.clip_gradients

    def noted(*arguments: Any, **named: Any) -> None:
        clip(*arguments, **named)
        taken.append(module.gradient_norm())

    module.clip_gradients = noted
    trainer.fit(module, DataLoader(batches, batch_size=None))
    assert told.figures["loss"] == pytest.approx(math.log(4))
    assert told.figures["num_tokens"] == 30
    # probabilities less shares: 1/4 - 1/3 three times, and 1/4
    norm = math.sqrt(3 * (1 / 12) ** 2 + (1 / 4) ** 2)
    assert told.figures["grad_norm"] == pytest.approx(norm)
    assert taken == ([pytest.approx(min(norm, largest_norm), rel=1e-4)] if largest_norm else [])
    assert module.step_learning_rate == 0.5
