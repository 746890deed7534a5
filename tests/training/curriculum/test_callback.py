"""The callback in a Lightning training: it observes, says the level mix, and its state is in the checkpoint."""

from __future__ import annotations

import lightning as L
import pytest
import torch

from ffr.errors import UsageError
from ffr.training.curriculum.callback import CurriculumCallback
from ffr.training.curriculum.order import (
    Difficulty,
    GroupOutcomes,
    OnlineOrder,
    ShuffledOrder,
    assign_levels,
)

DIFFICULTIES = [Difficulty(f1, 1 - f1, False) for f1 in (1.0, 0.6, 0.4, 0.0)]
LEVELS = assign_levels(DIFFICULTIES)


class Module(L.LightningModule):
    """Draws two items a batch from an order, and pays item i a mean of i and a deviation of i / 10; every other batch ends no step."""

    def __init__(self, order) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.order, self.last_groups, self.drawn = order, None, []
        self.further_figures = {}

    def training_step(self, batch, batch_idx):
        self.last_groups = None
        if batch_idx % 2 == 1:
            indices = self.order.draw(2)
            self.drawn.append(indices)
            self.last_groups = GroupOutcomes(
                indices, [float(index) for index in indices], [index / 10 for index in indices]
            )
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(folder, num_batches, checkpoint=None):
    callback = CurriculumCallback(OnlineOrder(DIFFICULTIES, 20, seed=1), LEVELS)
    module = Module(callback.order)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=num_batches,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(
        module, torch.utils.data.DataLoader(range(100)), ckpt_path=checkpoint, weights_only=True
    )
    return trainer, callback, module


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_training_draws_the_very_same(tmp_path):
    _, _, whole = train(tmp_path, 12)
    trainer, _, first = train(tmp_path, 6)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    _, callback, rest = train(tmp_path, 12, tmp_path / "last.ckpt")
    assert len(whole.drawn) == 6
    assert first.drawn + rest.drawn == whole.drawn
    assert callback.order.state_dict()["num_drawn"] == 12


def test_what_is_observed_and_shown():
    order = OnlineOrder(DIFFICULTIES, 20, seed=1)
    callback = CurriculumCallback(order, LEVELS)
    module = Module(order)
    callback.on_train_batch_end(None, module, None, None, 0)
    assert module.further_figures == {}
    module.last_groups = GroupOutcomes([0, 3], [0.5, 1.0], [0.2, 0.4])
    callback.on_train_batch_end(None, module, None, None, 0)
    assert module.further_figures == {
        "level_easy": 0.5,
        "level_medium": 0.0,
        "level_confusing": 0.0,
        "level_hard": 0.5,
    }
    assert order.estimate(0) == (0.75, 0.1)
    assert order.estimate(3) == (0.5, 0.2)


def test_without_difficulties_there_are_no_figures():
    callback = CurriculumCallback(ShuffledOrder(4, seed=0))
    module = Module(callback.order)
    module.last_groups = GroupOutcomes([0], [0.5], [0.2])
    callback.on_train_batch_end(None, module, None, None, 0)
    assert module.further_figures == {}


def test_state_of_another_order_is_refused():
    saved = CurriculumCallback(OnlineOrder(DIFFICULTIES, 20, seed=1)).state_dict()
    with pytest.raises(UsageError, match="resume with those it was started with"):
        CurriculumCallback(OnlineOrder(DIFFICULTIES, 20, seed=2)).load_state_dict(saved)
