"""The curriculum in a training: the order is told what was earned, and saved; levels are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from ffr.run_log import METRICS_FILE
from ffr.training.curriculum.order import DataOrder, Difficulty, GroupOutcomes, Level, level_shares
from ffr.training.curriculum.plot import draw_level_mix, draw_scatter


class CurriculumCallback(L.Callback):
    """Keeps a data order in step with a training.

    The module has `last_groups`: the `GroupOutcomes` of the batch that has just ended, or None
    where it ended no step; and `further_figures`, which takes the shares of the levels in the step,
    as `ffr.training.curriculum.order.LEVEL_COLUMNS` names them. The callback must stand before the
    one that logs figures, and items must be drawn only when their step begins: a saved state holds
    what was drawn, not what was trained on.

    Args:
        order: The data order; its state goes into every checkpoint.
        levels: Level of every item of the data; None where difficulties are unknown, then there are
            no figures.
    """

    def __init__(self, order: DataOrder, levels: Sequence[Level] | None = None) -> None:
        self.order = order
        self._levels = levels

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        groups = pl_module.last_groups
        if groups is None:
            return
        assert isinstance(groups, GroupOutcomes)
        self.order.observe(groups.indices, groups.mean_rewards, groups.reward_stds)
        if self._levels is not None:
            pl_module.further_figures = level_shares(
                self._levels[index] for index in groups.indices
            )

    def state_dict(self) -> dict[str, Any]:
        return self.order.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.order.load_state_dict(state_dict)


class CurriculumPlots(L.Callback):
    """Draws `difficulty.png` when a training begins and `levels.png` after its last step.

    Args:
        measured: The difficulties that were measured for this training; None where there are none.
        has_levels: Whether the figures of a step say how its items divide among the levels.
    """

    def __init__(self, measured: Sequence[Difficulty] | None, *, has_levels: bool) -> None:
        self._measured = measured
        self._has_levels = has_levels

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        run = Path(trainer.default_root_dir)
        if trainer.is_global_zero and self._measured is not None:
            draw_scatter(self._measured, run / "difficulty.png", title=run.name)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        run = Path(trainer.default_root_dir)
        if (
            trainer.is_global_zero
            and self._has_levels
            and pl_module.steps_done == pl_module.num_steps
        ):
            draw_level_mix(run / METRICS_FILE, run / "levels.png", title=run.name)
