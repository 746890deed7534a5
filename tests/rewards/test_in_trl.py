"""The snippet of docs/rewards.md as it stands: TRL's trainer on the model that ships has rewards."""

from __future__ import annotations

import functools
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from ffr.shipped.tiny import TINY_FOLDER

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rewards.md"
FOLDER = 'folder = "runs/sft-tiny-001/merged"\n'


def snippet() -> str:
    """The first indented block behind the heading `In TRL`."""
    lines = PAGE.read_text(encoding="utf-8").partition("## In TRL\n")[2].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("    "))
    block = []
    for line in lines[first:]:
        if line and not line.startswith("    "):
            break
        block.append(line)
    return textwrap.dedent("\n".join(block))


@pytest.mark.slow
def test_the_snippet_learns_with_the_model_that_ships(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trl

    code = snippet()
    assert FOLDER in code
    of_a_test = {
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 32,
        "max_steps": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "seed": 0,
    }
    monkeypatch.setattr(trl, "GRPOConfig", functools.partial(trl.GRPOConfig, **of_a_test))
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    exec(code.replace(FOLDER, f"folder = {str(TINY_FOLDER)!r}\n"), found)
    first = found["trainer"].state.log_history[0]
    assert first["rewards/format_reward/mean"] > 0.5
    assert first["rewards/fragment_f1_reward/mean"] > 0
    # groups whose answers differ in reward: there is something to learn from
    assert first["frac_reward_zero_std"] < 1
    assert first["grad_norm"] > 0
