"""The set of highest expected F1, against every set and every outcome."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ffr.reader.decision import MAX_CANDIDATES, best_set, fit_temperature


def _expected_f1(probabilities: list[float], chosen: tuple[int, ...]) -> float:
    total = 0.0
    for truth in itertools.product((0, 1), repeat=len(probabilities)):
        weight = math.prod(
            p if true else 1 - p for p, true in zip(probabilities, truth, strict=True)
        )
        size = len(chosen) + sum(truth)
        total += weight * (2 * sum(truth[place] for place in chosen) / size if size else 1.0)
    return total


@pytest.mark.parametrize("seed", range(12))
def test_no_set_is_better(seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    power = (0.3, 1.0, 4.0)[seed % 3]
    values = (torch.rand(6, generator=made, dtype=torch.float64) ** power).tolist()
    sets = [chosen for size in range(7) for chosen in itertools.combinations(range(6), size)]
    best = max(_expected_f1(values, chosen) for chosen in sets)
    chosen, expected = best_set(torch.tensor(values, dtype=torch.float64))
    assert expected == pytest.approx(best, abs=1e-9)
    assert _expected_f1(values, tuple(chosen)) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("power", [0.5, 2.0, 8.0, 30.0])
def test_sets_that_are_left_out_are_no_better(power: float) -> None:
    made = torch.Generator().manual_seed(3)
    values = torch.rand(90, generator=made, dtype=torch.float64) ** power
    chosen, expected = best_set(values)
    order = values.argsort(descending=True)
    # the expected F1 of every number of best units, by their counts' distributions
    for size in range(1, 91):
        inside = _count(values[order[:size]].tolist())
        outside = _count(values[order[size:]].tolist())
        worth = sum(
            p * q * 2 * true / (size + true + missed)
            for true, p in enumerate(inside)
            for missed, q in enumerate(outside)
        )
        assert worth <= expected + 1e-9
        if size == len(chosen):
            assert worth == pytest.approx(expected, abs=1e-9)


def _count(probabilities: list[float]) -> list[float]:
    """The distribution of how many are true."""
    counts = [1.0]
    for p in probabilities:
        counts = [
            one * (1 - p) + other * p
            for one, other in zip([*counts, 0.0], [0.0, *counts], strict=True)
        ]
    return counts


def test_sure_units_are_chosen_and_nothing_else() -> None:
    assert best_set(torch.tensor([0.0, 1.0, 1.0, 0.0])) == ([1, 2], pytest.approx(1.0))
    assert best_set(torch.zeros(3)) == ([], 1.0)
    assert best_set(torch.zeros(0)) == ([], 1.0)


def test_beyond_the_candidates_only_their_number_counts() -> None:
    values = torch.full((MAX_CANDIDATES + 50,), 1e-6)
    values[300] = 0.99
    assert best_set(values)[0] == [300]
    many = torch.full((2 * MAX_CANDIDATES,), 0.9)
    chosen, expected = best_set(many)
    assert len(chosen) == MAX_CANDIDATES
    # 230 of 256 chosen ones are true, of 461 in all
    assert expected == pytest.approx(2 * 230.4 / (256 + 460.8), abs=2e-3)


@pytest.mark.parametrize("size", [1, 128, 129, MAX_CANDIDATES])
def test_any_number_of_candidates_is_looked_at_exactly(size: int) -> None:
    values = torch.full((size,), 0.5, dtype=torch.float64)
    # all are chosen, of which a are true: the mean of 2a / (n + a), by the binomial distribution
    counts = [math.comb(size, a) / 2**size for a in range(size + 1)]
    worth = sum(p * 2 * a / (size + a) for a, p in enumerate(counts))
    chosen, expected = best_set(values, may_be_empty=False)
    assert chosen == list(range(size))
    assert expected == pytest.approx(worth, abs=1e-12)


@pytest.mark.parametrize("num_rest", [100, 20_000])
def test_of_the_rest_the_expected_number_counts(num_rest: int) -> None:
    sure, rest = torch.ones(MAX_CANDIDATES), torch.full((num_rest,), 0.25)
    # 256 true ones of 256 chosen, of 256 + n / 4
    chosen, expected = best_set(torch.cat([sure, rest]))
    assert chosen == list(range(MAX_CANDIDATES))
    wanted = 2 * MAX_CANDIDATES / (2 * MAX_CANDIDATES + num_rest / 4)
    assert expected == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("values", [[1.2], [-0.1], [math.nan], [[0.5]]])
def test_what_is_no_probability_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        best_set(torch.tensor(values))


def test_logits_that_are_twice_too_large_are_halved() -> None:
    made = torch.Generator().manual_seed(0)
    true = torch.randn(20000, generator=made)
    labels = torch.rand(20000, generator=made) < torch.sigmoid(true + 0.5)
    scale, shift = fit_temperature(2 * true, labels)
    assert scale == pytest.approx(0.5, abs=0.03)
    assert shift == pytest.approx(0.5, abs=0.05)


def test_calibration_on_one_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="give both kinds"):
        fit_temperature(torch.ones(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="finite"):
        fit_temperature(torch.tensor([math.inf, 0.0]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="one label each"):
        fit_temperature(torch.ones(3), torch.tensor([True, False]))
