"""The Trainer from settings: what is not here is one sentence, and nothing is written before a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ffr.errors import UsageError
from ffr.settings import SftConfig
from ffr.training.common.trainer import make_trainer


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"strategy": "foo"}, "accelerator=cpu, devices=1, strategy=foo cannot be set up here: "),
        ({"strategy": "fsdp"}, "strategy=fsdp cannot be set up here: "),
        ({"strategy": "deepspeed_stage_2"}, "strategy=deepspeed_stage_2 cannot be set up here: "),
        ({"report_to": "wandb"}, "report_to=wandb, but wandb is not installed; pip install"),
        ({"report_to": "trackio"}, "report_to=trackio, but trackio is not installed; pip install"),
    ],
)
def test_what_is_not_here_is_one_sentence(
    tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make_trainer(
            SftConfig(accelerator="cpu", **settings),
            tmp_path / "run",
            [],
            last_step=0,
            progress=False,
            is_manual=False,
        )
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("is_manual", "accumulated", "clipped"), [(False, 3, 0.5), (True, 1, None)]
)
def test_a_module_that_takes_its_own_steps_accumulates_and_clips_itself(
    tmp_path: Path, is_manual: bool, accumulated: int, clipped: float | None
) -> None:
    config = SftConfig(accelerator="cpu", accumulate=3, max_grad_norm=0.5)
    trainer = make_trainer(
        config, tmp_path / "run", [], last_step=0, progress=False, is_manual=is_manual
    )
    assert (trainer.accumulate_grad_batches, trainer.gradient_clip_val) == (accumulated, clipped)
    assert trainer.default_root_dir == str(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
