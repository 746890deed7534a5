"""Noise on likenesses: how much of it, where, and none where none is asked for."""

from __future__ import annotations

import pytest
import torch

from ffr.reader.likeness import NUM_FEATURES, NUM_SUMMARIES
from ffr.reader.network import NetworkInputs
from ffr.training.reader.module import jittered


def inputs(value: float) -> NetworkInputs:
    return NetworkInputs(
        torch.full((200, 5, NUM_FEATURES), value),
        torch.ones(200, NUM_SUMMARIES),
        torch.zeros(200, 5, 5),
        torch.zeros(200, 5, dtype=torch.long),
        torch.ones(200, 5, dtype=torch.bool),
    )


def test_no_noise_leaves_all_as_it_is_and_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    given = inputs(1.0)
    assert jittered(given, 0.0) is given
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("value", "variance"), [(0.0, 0.25 + 0.09), (2.0, 4 + 0.25 + 0.09)])
def test_the_noise_has_the_size_that_its_formula_says(value: float, variance: float) -> None:
    torch.manual_seed(0)
    size = 0.1
    moved = jittered(inputs(value), size)
    noise = moved.features - value
    assert noise.var().item() == pytest.approx(variance * size**2, rel=0.1)
    # what units of one dialogue do not share is the last part alone
    own = noise - noise.mean(1, keepdim=True)
    assert own.pow(2).sum().item() / (200 * 4 * NUM_FEATURES) == pytest.approx(
        0.09 * size**2, rel=0.1
    )
    assert moved.between.std().item() == pytest.approx(size * 2 / 3, rel=0.2)
    assert (moved.between.flatten(1).std(1) < 1e-6).all()
    assert torch.equal(moved.summaries, torch.ones(200, NUM_SUMMARIES))
