"""What was recorded in sampling beside what the policy says: rows, gaps, weights by hand. Parity with TRL: test_loss."""

from __future__ import annotations

import math

import pytest
import torch

from ffr.settings import GrpoConfig
from ffr.training.grpo.sampling_gap import (
    fault_of_gap,
    gap_sums,
    recorded_logprobs,
    truncated_importance,
)

MASK = torch.tensor([[True, True], [True, False]])
OLD = torch.tensor([[-1.0, -2.0], [-3.0, 99.0]])
RECORDED = torch.tensor([[-1.0, -2.0 - math.log(2)], [-2.0, -99.0]])


def test_rows_are_as_long_as_their_answers() -> None:
    assert recorded_logprobs([[-1, -2], [-3]], MASK).tolist() == [[-1, -2], [-3, 0]]
    with pytest.raises(
        ValueError, match=r"of \[2, 2\] tokens were recorded, of answers with \[2, 1\]"
    ):
        recorded_logprobs([[-1, -2], [-3, -4]], MASK)


def test_gaps_are_of_answer_tokens_alone() -> None:
    assert gap_sums(OLD, RECORDED, MASK) == pytest.approx((math.log(2) + 1, 1.0))
    assert gap_sums(OLD[:0], RECORDED[:0], MASK[:0]) == (0.0, 0.0)
    assert math.isnan(gap_sums(OLD * math.nan, RECORDED, MASK)[1])


def test_a_token_counts_by_its_ratio_up_to_the_cap() -> None:
    ratios = truncated_importance(OLD, RECORDED, MASK, cap=1.5)
    torch.testing.assert_close(ratios, torch.tensor([[1.0, 1.5], [math.exp(-1), 1.0]]))
    wide = truncated_importance(OLD.requires_grad_(), RECORDED, MASK, cap=9)
    assert float(wide[0, 1]) == pytest.approx(2)
    assert not wide.requires_grad


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({}, "precision=fp32"),
        ({"sampling_weights": "merged"}, "sampling_weights=adapters"),
        ({"rollout_engine": "server", "rollout_server": "http://a/v1#m"}, "raw_logprobs"),
    ],
    ids=["adapters", "merged", "server"],
)
def test_what_to_do_about_a_gap_follows_from_what_samples(
    settings: dict[str, str], remedy: str
) -> None:
    config = GrpoConfig(**settings)  # type: ignore[arg-type]
    assert fault_of_gap(0.05, config) is None
    fault = fault_of_gap(0.0501, config)
    assert fault is not None
    assert remedy in fault.remedy
