"""Answers with their rewards on disk: which steps, which prompt's answers, and each line once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from ffr.models.decoding.loop import Generated
from ffr.training.grpo.module import GrpoModule
from ffr.training.grpo.rollout import Rollout
from ffr.training.grpo.samples import SAMPLES_FILE, SampleLog


def answers(*texts: str) -> list[Generated]:
    return [Generated(text, (1,), (0.0,)) for text in texts]


@pytest.fixture
def module() -> Any:
    """Two prompts with two answers each, in two terms."""
    found = Mock(spec=GrpoModule)
    found.steps_done = 1
    found.config = SimpleNamespace(show_samples_every_steps=3, num_generations=2)
    found.last_rollout = Rollout(
        indices=[7, 4],
        answers=answers("bad", "good", "same", "same"),
        values=torch.tensor([[0.0, 0.25], [1.0, 0.5], [1.0, 1 / 3], [1.0, 1 / 3]]),
        rewards=torch.tensor([0.25, 1.5, 4 / 3, 4 / 3]),
        num_without_signal=1,
        num_attempts=0,
    )
    found.last_advantages = torch.tensor([-0.7071, 0.7071, 0.0, 0.0])
    found.sampler = SimpleNamespace(
        terms=[SimpleNamespace(name="format"), SimpleNamespace(name="f1")],
        columns=lambda index: {
            "dialogue_id": f"d{index}",
            "query": f"q{index}",
            "solution": f"s{index}",
            "prompt": f"p{index}",
            "more": "not written",
        },
    )
    return found


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    return SimpleNamespace(is_global_zero=True, default_root_dir=str(tmp_path), loggers=[])


def written(trainer: Any) -> list[dict[str, Any]]:
    path = Path(trainer.default_root_dir) / SAMPLES_FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_holds_a_prompts_answers_with_what_they_earned(module: Any, trainer: Any) -> None:
    SampleLog(lambda _: None).on_train_batch_end(trainer, module, None, None, 0)
    first, second = written(trainer)
    assert first == {
        "step": 1, "index": 7, "dialogue_id": "d7", "query": "q7", "truth": "s7",
        "answers": [
            {"text": "bad", "reward": 0.25, "advantage": -0.7071, "terms": {"format": 0.0, "f1": 0.25}},
            {"text": "good", "reward": 1.5, "advantage": 0.7071, "terms": {"format": 1.0, "f1": 0.5}},
        ],
    }  # fmt: skip
    assert (second["index"], second["truth"]) == (4, "s4")
    assert second["answers"][1] == {
        "text": "same", "reward": 1.333333, "advantage": 0.0, "terms": {"format": 1.0, "f1": 0.333333},
    }  # fmt: skip


def test_the_first_and_every_third_step(module: Any, trainer: Any) -> None:
    log = SampleLog(lambda _: None)
    for step in range(1, 8):
        module.steps_done = step
        log.on_train_batch_end(trainer, module, None, None, 0)
    assert [line["step"] for line in written(trainer)] == [1, 1, 3, 3, 6, 6]


@pytest.mark.parametrize(
    "silence",
    [
        lambda module, trainer: setattr(module.config, "show_samples_every_steps", 0),
        lambda module, trainer: setattr(module, "last_rollout", None),
        lambda module, trainer: setattr(trainer, "is_global_zero", False),
    ],
    ids=["not asked", "no rollout", "another process"],
)
def test_nothing_is_written(module: Any, trainer: Any, silence: Callable[[Any, Any], None]) -> None:
    silence(module, trainer)
    heard: list[str] = []
    SampleLog(heard.append).on_train_batch_end(trainer, module, None, None, 0)
    assert heard == []
    assert not (Path(trainer.default_root_dir) / SAMPLES_FILE).exists()


def test_a_person_sees_the_best_and_the_worst_of_one_prompt(module: Any, trainer: Any) -> None:
    module.last_rollout.answers[0] = Generated("x\n " * 150, (1,), (0.0,))
    heard: list[str] = []
    SampleLog(heard.append).on_train_batch_end(trainer, module, None, None, 0)
    assert heard == [
        "step 1, dialogue 'd7', query 'q7'",
        "  truth          s7",
        "  best    1.50   good  (format 1.00, f1 0.50)",
        "  worst   0.25   " + "x " * 99 + "x…  (format 0.00, f1 0.25)",
    ]


def test_a_resumed_run_drops_the_lines_of_steps_that_are_done_again(
    module: Any, trainer: Any
) -> None:
    log = SampleLog(lambda _: None)
    path = Path(trainer.default_root_dir) / SAMPLES_FILE
    log.on_train_start(trainer, module)
    assert not path.exists(), "a new run has none"
    lines = [json.dumps({"step": step}) + "\n" for step in (1, 1, 3, 3, 6)]
    path.write_text("".join(lines) + '{"step": 6', encoding="utf-8")
    module.steps_done = 3
    trainer.is_global_zero = False
    log.on_train_start(trainer, module)
    assert path.read_text(encoding="utf-8").endswith('{"step": 6'), "one process does it"
    trainer.is_global_zero = True
    log.on_train_start(trainer, module)
    assert [line["step"] for line in written(trainer)] == [1, 1, 3, 3]
