"""Advantages against hand-worked values, the standard library's statistics and the installed TRL."""

from __future__ import annotations

import math
import statistics
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOTrainer

from ffr.training.grpo.advantages import Scale, group_advantages, has_signal

SCALES: tuple[Scale, ...] = ("group", "batch", "none")

# a grid, since rewards closer than the tolerance are taken as equal
_reward = st.integers(min_value=-40, max_value=60).map(lambda step: step / 20)


@st.composite
def rewards_of_groups(draw: st.DrawFn) -> tuple[list[float], int]:
    group_size = draw(st.integers(min_value=2, max_value=6))
    num_prompts = draw(st.integers(min_value=1, max_value=4))
    return draw(
        st.lists(_reward, min_size=group_size * num_prompts, max_size=group_size * num_prompts)
    ), group_size


def reference_advantages(rewards: list[float], group_size: int, scale: Scale) -> list[float]:
    groups = [rewards[start : start + group_size] for start in range(0, len(rewards), group_size)]
    result = []
    for group in groups:
        divisor = {
            "group": statistics.stdev(group) + 1e-4,
            "batch": statistics.stdev(rewards) + 1e-4,
            "none": 1.0,
        }[scale]
        result += [(reward - statistics.fmean(group)) / divisor for reward in group]
    return result


def trl_advantages(rewards: torch.Tensor, group_size: int, scale: Scale) -> torch.Tensor:
    """What TRL's trainer makes of these rewards: its method runs, with everything around it replaced."""
    num_answers = len(rewards)
    trainer = MagicMock(
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather=lambda tensor: tensor, process_index=0
        ),
        model=SimpleNamespace(training=True, is_gradient_checkpointing=False),
        args=SimpleNamespace(
            per_device_train_batch_size=num_answers,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
        ),
        environments=None,
        environment_factories=None,
        tools=[],
        pad_to_multiple_of=None,
        mask_truncated_completions=False,
        num_iterations=1,
        use_vllm=False,
        beta=0.0,
        num_generations=group_size,
        multi_objective_aggregation="sum_then_normalize",
        scale_rewards=scale,
        reward_weights=torch.ones(1),
        reward_func_names=[],
        log_multimodal=False,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        _pending_extra_logs={},
        _pending_metrics={},
    )
    ids = [[1]] * num_answers
    trainer._generate.return_value = (
        ids,
        ids,
        None,
        ["answer"] * num_answers,
        None,
        {},
        None,
        None,
    )
    trainer._calculate_rewards.return_value = rewards[:, None]
    inputs = [{"prompt": "query"} for _ in range(num_answers)]
    output = GRPOTrainer._generate_and_score_completions(trainer, inputs)
    advantages: torch.Tensor = output["advantages"]
    return advantages


@pytest.mark.parametrize("scale", SCALES)
def test_agrees_with_the_installed_trl(scale: Scale) -> None:
    rewards = torch.tensor([1.0, 0.2, 0.7, 0.0, 2.3, 2.3, -0.1, 1.1, 0.5, 0.5, 0.5, 0.5])
    expected = trl_advantages(rewards, 4, scale)
    assert expected.abs().max() > 0.5  # TRL's method did compute
    torch.testing.assert_close(
        group_advantages(rewards, 4, scale=scale), expected, atol=1e-6, rtol=1e-6
    )


def test_a_group_worked_by_hand() -> None:
    # mean 2, deviations -1 -1 2, unbiased variance (1 + 1 + 4) / 2 = 3
    found = group_advantages(torch.tensor([1.0, 1.0, 4.0]), 3)
    divisor = math.sqrt(3) + 1e-4
    assert found.tolist() == pytest.approx([-1 / divisor, -1 / divisor, 2 / divisor], rel=1e-6)


def test_the_batch_divides_by_the_deviation_over_all_answers() -> None:
    # group means 1 and 12; over all four (mean 6.5): 6.5² + 4.5² + 3.5² + 7.5² = 131, over 3
    found = group_advantages(torch.tensor([0.0, 2.0, 10.0, 14.0]), 2, scale="batch")
    divisor = math.sqrt(131 / 3) + 1e-4
    assert found.tolist() == pytest.approx(
        [-1 / divisor, 1 / divisor, -2 / divisor, 2 / divisor], rel=1e-6
    )


@given(rewards_of_groups(), st.sampled_from(SCALES))
def test_agrees_with_the_statistics_module(drawn: tuple[list[float], int], scale: Scale) -> None:
    rewards, group_size = drawn
    found = group_advantages(torch.tensor(rewards), group_size, scale=scale)
    # the rewards themselves are float32; dividing by 1e-4 magnifies their rounding
    assert found.tolist() == pytest.approx(
        reference_advantages(rewards, group_size, scale), rel=1e-4, abs=1e-4
    )
    assert found.view(-1, group_size).sum(dim=1).tolist() == pytest.approx(
        [0.0] * (len(rewards) // group_size), abs=1e-4
    )


@given(rewards_of_groups(), st.sampled_from(SCALES))
def test_only_groups_with_signal_have_advantages(
    drawn: tuple[list[float], int], scale: Scale
) -> None:
    rewards, group_size = drawn
    groups = [rewards[start : start + group_size] for start in range(0, len(rewards), group_size)]
    signal = has_signal(torch.tensor(rewards), group_size)
    assert signal.tolist() == [len(set(group)) > 1 for group in groups]
    advantages = group_advantages(torch.tensor(rewards), group_size, scale=scale).view(
        -1, group_size
    )
    assert (advantages != 0).any(dim=1).tolist() == signal.tolist()


def test_equal_rewards_give_exactly_zero_where_the_plain_formula_gives_noise() -> None:
    groups = torch.linspace(0.01, 2.3, 200)[:, None].expand(200, 7)
    plain = (groups - groups.mean(dim=1, keepdim=True)) / (groups.std(dim=1, keepdim=True) + 1e-4)
    assert (plain != 0).any()  # what the guard is for
    for scale in SCALES:
        assert not group_advantages(groups.flatten(), 7, scale=scale).any()


def test_rewards_within_the_tolerance_are_equal() -> None:
    rewards = torch.tensor([0.5, 0.5 + 5e-7, 0.5, 0.5 + 5e-6])
    assert has_signal(rewards, 2).tolist() == [False, True]
    assert (group_advantages(rewards, 2) != 0).tolist() == [False, False, True, True]


def test_half_precision_is_computed_in_float32() -> None:
    rewards = torch.tensor([1.0, 0.5, 0.25, 0.0])  # exact in bfloat16
    found = group_advantages(rewards.bfloat16(), 4)
    assert found.dtype == torch.float32
    assert found.equal(group_advantages(rewards, 4))


@pytest.mark.parametrize(
    ("rewards", "group_size", "scale", "message"),
    [
        ([1.0, 2.0, 3.0], 2, "group", "multiple of the 2 answers"),
        ([], 2, "group", r"shape \(0,\)"),
        ([[1.0, 2.0]], 2, "group", r"shape \(1, 2\)"),
        ([1.0, 2.0], 1, "group", "at least 2"),
        ([1.0, math.nan], 2, "none", "answer 1 is nan"),
        ([math.inf, 0.0], 2, "none", "answer 0 is inf"),
        ([1.0, 2.0], 2, "sum", "group, batch, none"),
    ],
)
def test_wrong_input_is_refused(
    rewards: list[float], group_size: int, scale: Scale, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        group_advantages(torch.tensor(rewards), group_size, scale=scale)
