"""The objective against hand-worked values."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from ffr.training.common.loss import answer_nll, warmup_cosine


def test_nll_is_the_sum_over_tokens() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    # p(1) = 3/4 and p(1) = 1/5
    assert answer_nll(logits, torch.tensor([1, 1])).item() == pytest.approx(
        math.log(4 / 3) + math.log(5)
    )


def test_nll_of_half_precision_is_made_in_float32() -> None:
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = answer_nll(logits, torch.arange(7))
    assert loss.dtype == torch.float32
    expected = -logits.double().log_softmax(-1)[torch.arange(7), torch.arange(7)].sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [warmup_cosine(step, num_steps=100, warmup_share=0.05) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(before >= after for before, after in pairwise(rates[5:]))
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert warmup_cosine(0, num_steps=1, warmup_share=0.0) == 1.0
