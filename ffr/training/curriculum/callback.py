"""The curriculum in a training: hands what a step's answers earned to the data order, saves its state, and says what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L

from ffr.training.curriculum.order import DataOrder, GroupOutcomes, Level, level_shares


class CurriculumCallback(L.Callback):
    """Keeps a data order in step with a training.

    The module has `last_groups`: the `GroupOutcomes` of the batch that has just ended, or None where it ended no step. The callback
    must stand before the one that logs `figures`, and items must be drawn only when their step begins: a saved state holds
    what was drawn, not what was trained on.

    Args:
        order: The data order; its state goes into every checkpoint.
        levels: Level of every item of the data; None where difficulties are unknown, then there are no figures.
    """

    def __init__(self, order: DataOrder, levels: Sequence[Level] | None = None) -> None:
        self.order = order
        self.figures: dict[str, float] = {}
        """Shares of the levels in the last step, as `ffr.training.curriculum.order.LEVEL_COLUMNS` names them."""
        self._levels = levels

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        groups = pl_module.last_groups
        if groups is None:
            return
        assert isinstance(groups, GroupOutcomes)
        self.order.observe(groups.indices, groups.mean_rewards, groups.reward_stds)
        if self._levels is not None:
            self.figures = level_shares(self._levels[index] for index in groups.indices)

    def state_dict(self) -> dict[str, Any]:
        return self.order.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.order.load_state_dict(state_dict)
