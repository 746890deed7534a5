"""Each figure of a step by hand: two processes' sums, made into means over both."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from ffr.models.decoding.loop import Generated
from ffr.training.grpo import figures as figures_module
from ffr.training.grpo.figures import StepFigures, step_columns
from ffr.training.grpo.rollout import Rollout


def rollout(lengths: list[int], values: list[list[float]], num_prompts: int) -> Rollout:
    """Answers of so many tokens that earned so much in each of two terms, whose sum is the reward."""
    return Rollout(
        indices=list(range(num_prompts)),
        answers=[Generated("", tuple(range(length)), (0.0,) * length) for length in lengths],
        values=torch.tensor(values),
        rewards=torch.tensor(values).sum(1),
        num_without_signal=1,
        num_attempts=3,
    )


def alone(sums: list[float]) -> list[float]:
    return sums


def largest(gap: float) -> float:
    return gap


def worked() -> StepFigures:
    """Two prompts of two answers each, one update over 10 tokens of the answers."""
    figures = StepFigures(["format", "f1"])
    figures.note_rollout(
        rollout([3, 5, 2, 6], [[1, 0.5], [1, 0], [0, 0], [0, 0.25]], 2),
        reward_stds=torch.tensor([0.25, 0.125]),
        num_cut_off=1,
        num_prompt_tokens=40,
    )
    figures.add(loss=0.5, update_num_tokens=10, update_clipped_low=2, update_clipped_high=3)
    figures.add(loss=0.25, entropy=6.0, num_scored=4)
    figures.note_gap(0.5, 0.25)
    figures.note_gap(0.0, 0.125)
    figures.note_gradient(0.5)
    figures.note_gradient(1.5)
    return figures


CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the time is, in seconds."""
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(figures_module, "time", SimpleNamespace(perf_counter=lambda: found.now))
    return found


def test_every_figure_of_a_step(clock: SimpleNamespace) -> None:
    figures = worked()
    assert figures.lap("rollout", 98.0, device=CPU) == 100.0
    clock.now = 100.5
    since = figures.lap("update", 100.0, device=CPU)
    clock.now = 100.75
    assert figures.lap("update", since, device=CPU) == 100.75
    assert figures.take(alone, largest) == pytest.approx(
        {
            "loss": 0.75,
            "grad_norm": 1.5,
            "reward": (1.5 + 1 + 0 + 0.25) / 4,
            "reward_std": 0.375 / 2,
            "reward_format": 2 / 4,
            "reward_f1": 0.75 / 4,
            "clipped_low_share": 0.2,
            "clipped_high_share": 0.3,
            "entropy": 1.5,
            "sampling_gap_mean": 0.5 / 4,
            "sampling_gap_max": 0.25,
            "answer_tokens": 16 / 4,
            "cut_off_share": 1 / 4,
            "no_signal_share": 1 / 2,
            "resampled": 3,
            "num_tokens": 56,
            "seconds_rollout": 2.0,
            "seconds_reference": 0.0,
            "seconds_update": 0.75,
        }
    )


def test_a_mean_is_over_the_answers_of_all_processes() -> None:
    """The other process has six answers to one prompt, which earned 9 in all."""
    figures = worked()

    def with_the_other(sums: list[float]) -> list[float]:
        names = sorted(figures._sums)
        other = {"num_answers": 6.0, "num_prompts": 1.0, "reward": 9.0, "update_num_tokens": 30.0}
        return [value + other.get(name, 0.0) for name, value in zip(names, sums, strict=True)]

    found = figures.take(with_the_other, lambda gap: max(gap, 0.75))
    assert found["reward"] == pytest.approx((2.75 + 9) / 10)
    assert found["reward_std"] == pytest.approx(0.375 / 3)
    assert found["no_signal_share"] == pytest.approx(1 / 3)
    assert found["clipped_low_share"] == pytest.approx(2 / 40)
    assert found["sampling_gap_max"] == 0.75


@pytest.mark.usefixtures("clock")
def test_the_next_step_begins_at_nothing() -> None:
    figures = worked()
    figures.lap("rollout", 98.0, device=CPU)
    figures.take(alone, largest)
    figures.note_rollout(
        rollout([1], [[0, 1]], 1),
        reward_stds=torch.zeros(1),
        num_cut_off=0,
        num_prompt_tokens=9,
    )
    # nothing was updated: no share of no tokens is divided by nothing
    figures.add(loss=0, update_num_tokens=0, update_clipped_low=0, update_clipped_high=0)
    figures.add(entropy=0, num_scored=0)
    figures.note_gap(0, 0)
    found = figures.take(alone, largest)
    assert (found["reward"], found["num_tokens"], found["seconds_rollout"]) == (1, 10, 0)
    assert (found["clipped_low_share"], found["entropy"]) == (0, 0)
    assert (found["sampling_gap_mean"], found["sampling_gap_max"]) == (0, 0)


def test_a_divergence_is_stated_where_there_is_a_reference() -> None:
    assert "kl" not in worked().take(alone, largest)
    figures = worked()
    figures.add(update_kl=5.0)
    assert figures.take(alone, largest)["kl"] == pytest.approx(0.5)


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_is_not_forgotten(norm: float) -> None:
    figures = worked()
    figures.note_gradient(norm)
    figures.note_gradient(1.0)
    assert figures.take(alone, largest)["grad_norm"] == pytest.approx(norm, nan_ok=True)


def test_a_gap_that_is_no_number_is_not_forgotten() -> None:
    figures = worked()
    figures.note_gap(float("nan"), float("nan"))
    figures.note_gap(0.5, 0.5)
    found = figures.take(alone, largest)
    assert math.isnan(found["sampling_gap_max"])
    assert math.isnan(found["sampling_gap_mean"])


def test_the_share_of_tokens_at_the_cap_is_of_all_that_were_sampled() -> None:
    assert "importance_capped_share" not in worked().take(alone, largest)
    figures = worked()
    figures.add(capped=1.0)
    assert figures.take(alone, largest)["importance_capped_share"] == 0.25


def test_every_figure_has_a_column() -> None:
    figures = worked()
    figures.add(update_kl=5.0, capped=1.0)
    columns = step_columns(["format", "f1"])
    assert set(figures.take(alone, largest)) < set(columns)
    assert len(set(columns)) == len(columns)
