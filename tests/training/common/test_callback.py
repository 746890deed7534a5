"""The end of a step in a real training of one number: what is written, kept and said, and at which steps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from ffr.errors import ModelError
from ffr.run_log import read_metrics
from ffr.settings import SftConfig
from ffr.training.common.callback import StageCallback
from ffr.training.common.loss import warmup_cosine
from ffr.training.common.module import StageModule
from ffr.training.common.trainer import make_trainer


class Module(StageModule[SftConfig]):
    """Notes the rate that its weight was moved with: the gradient is 1, so plain descent moves it by the rate."""

    columns = (
        "loss",
        "learning_rate",
        "num_tokens",
        "tokens_per_second",
        "peak_memory_mb",
        "val_loss",
        "level_easy",
    )

    def __init__(self, config: SftConfig, num_steps: int) -> None:
        super().__init__(
            torch.nn.Linear(1, 1, bias=False), config, num_steps=num_steps, fingerprints={}
        )
        self.places: list[float] = [self.model.weight.item()]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.model.weight.sum()

    def configure_optimizers(self) -> Any:
        given = super().configure_optimizers()
        plain = torch.optim.SGD(self.parameters(), lr=self.config.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            plain, given["lr_scheduler"]["scheduler"].lr_lambdas[0]
        )
        return {"optimizer": plain, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def take_step_figures(self, batch: Any) -> dict[str, float]:
        self.places.append(self.model.weight.item())
        return {"loss": 1.0, "num_tokens": 10.0}


class Batch:
    ends_step = True


def run(folder: Path, num_steps: int, **settings: Any) -> tuple[Module, list[str], list[int]]:
    config = SftConfig(
        accumulate=1,
        accelerator="cpu",
        learning_rate=0.5,
        warmup_share=0.4,
        max_grad_norm=0,
        **settings,
    )
    module, said, validated = Module(config, num_steps), [], []

    def run_validation() -> dict[str, float]:
        validated.append(module.steps_done)
        return {"val_loss": 2.0}

    callback = StageCallback(run_validation, say=said.append, speaks=True)
    trainer = make_trainer(
        config, folder, [Levels(), callback], last_step=0, progress=False, is_manual=False
    )
    trainer.fit(module, DataLoader([Batch() for _ in range(num_steps)], batch_size=None))
    return module, said, validated


class Levels(L.Callback):
    """A callback with a figure of its own."""

    def on_train_batch_end(self, trainer: Any, pl_module: Module, *_: Any) -> None:
        pl_module.further_figures = {"level_easy": pl_module.steps_done / 10}


@pytest.mark.filterwarnings("ignore")
def test_each_row_states_the_rate_of_its_own_step(tmp_path: Path) -> None:
    module, said, _ = run(tmp_path, 5, val_every_steps=2)
    assert [line.split("  ")[0] for line in said] == [f"step {step}/5" for step in range(1, 6)]
    rows = read_metrics(tmp_path / "metrics.csv")
    rates = [row["learning_rate"] for row in rows]
    assert rates == [0.5 * warmup_cosine(step, num_steps=5, warmup_share=0.4) for step in range(5)]
    moved = [
        before - after for before, after in zip(module.places, module.places[1:], strict=False)
    ]
    assert moved == pytest.approx(rates, abs=1e-6)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["level_easy"] for row in rows] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [row.get("val_loss") for row in rows] == [None, 2.0, None, 2.0, 2.0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("every", "kept", "steps"),
    [(1, 2, [6, 7]), (1, 3, [5, 6, 7]), (3, 2, [6, 7]), (3, 9, [3, 6, 7])],
)
def test_the_newest_checkpoints_are_kept(
    tmp_path: Path, every: int, kept: int, steps: list[int]
) -> None:
    _, _, validated = run(tmp_path, 7, checkpoint_every_steps=every, keep_checkpoints=kept)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["SHA256SUMS", *(f"step-{step:08d}.ckpt" for step in steps)]
    assert validated == [2, 4, 6, 7], "four times a run, and at its end"


class Straying(Module):
    """Loses its way in the third step: its gradient is NaN there, or its weight is moved out of all bounds."""

    fault = "gradient"

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        factor = {"gradient": math.nan, "weight": -1e38}[self.fault] if batch_idx == 2 else 1.0
        return self.model.weight.sum() * factor

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.norm = self.take_sound_gradients()

    def take_step_figures(self, batch: Any) -> dict[str, float]:
        return super().take_step_figures(batch) | {"grad_norm": self.norm}

    columns = (*Module.columns, "grad_norm")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            "gradient",
            r"^step 3: the gradient's norm is nan, so the run stops and what it kept of earlier steps stays",
        ),
        ("weight", "^step 3: a weight is inf, so the run stops"),
        ("validation", "^step 3: the validation loss is nan, so the run stops"),
    ],
)
def test_a_number_that_is_not_finite_stops_the_run_before_it_is_kept(
    tmp_path: Path, fault: str, sentence: str
) -> None:
    config = SftConfig(
        accumulate=1, accelerator="cpu", max_grad_norm=0, warmup_share=0, val_every_steps=3,
        learning_rate=1e6 if fault == "weight" else 0.5, checkpoint_every_steps=1, keep_checkpoints=9,
    )  # fmt: skip
    module = (Module if fault == "validation" else Straying)(config, 5)
    module.fault = fault
    callback = StageCallback(
        lambda: {"val_loss": math.nan} if fault == "validation" else {}, say=print, speaks=False
    )
    trainer = make_trainer(
        config, tmp_path, [callback], last_step=0, progress=False, is_manual=False
    )
    with pytest.raises(ModelError, match=sentence):
        trainer.fit(module, DataLoader([Batch() for _ in range(5)], batch_size=None))
    assert [path.name for path in sorted(tmp_path.glob("checkpoints/*.ckpt"))] == [
        "step-00000001.ckpt",
        "step-00000002.ckpt",
    ]
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2, 3], (
        "the row of the fault is there to be looked at"
    )
    if fault == "gradient":
        assert module.model.weight.item() == module.places[2], "no weight was moved by it"
