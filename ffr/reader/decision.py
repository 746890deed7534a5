"""From probabilities to an answer: the set of highest expected F1, and calibration.

Shapes: n units that may be chosen, V queries.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_CANDIDATES = 256
"""Units of the highest probability that are looked at exactly; the others count as they stand on
average."""

_Floats = NDArray[np.float64]

# what two sums of one value may differ by
_LEAST_GAIN = 1e-12
# up to so many units as many nodes are enough
_USUAL = 128

MAX_LOST_SHARE = 0.05
"""Share of the queries with a fragment that may be answered by nothing."""


def best_set(probabilities: Tensor, *, may_be_empty: bool = True) -> tuple[list[int], float]:
    """The set of units with the highest expected F1, and what that is.

    With independent decisions the best set of k units is that of the k highest probabilities
    (Lewis 1995), so that n + 1 sets at most are compared, each by

        E[F1] = Σ_{a,b} P(a of the set are true) P(b of the others are true) 2a / (k + a + b)

    with the two counts' exact distributions (Jansche 2007); the empty set has F1 1 where nothing is
    true and 0 elsewhere. With 1 / (k + a + b) = ∫ t^(k + a + b − 1) dt from 0 to 1 the sums are over
    powers of t, that is products of polynomials:

        E[F1] = 2 ∫ t^k Π_i (1 − p_i + p_i t) Σ_{i ≤ k} p_i / (1 − p_i + p_i t) dt

    which n nodes of Gauss and Legendre integrate exactly. Beyond `MAX_CANDIDATES` units, of the rest
    only their expected number counts.

    Args:
        probabilities: (n,) from 0 to 1.
        may_be_empty: Whether the empty set is compared too; else it is the answer of no units alone.

    Returns:
        Places of the chosen units, ascending, and their expected F1.

    Raises:
        ValueError: where they are no probabilities.

    >>> best_set(torch.tensor([0.9, 0.1, 0.6]))[0]
    [0, 2]
    >>> chosen, expected = best_set(torch.tensor([0.1, 0.2]))
    >>> chosen, round(expected, 2)
    ([], 0.72)
    """
    values = probabilities.detach().double().numpy()
    if values.ndim != 1 or not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"probabilities of shape {values.shape} lie outside 0 to 1; give (units,) from 0 to 1"
        )
    order = np.argsort(-values, kind="stable")
    sorted_values = values[order[:MAX_CANDIDATES]]
    rest = float(values[order[MAX_CANDIDATES:]].sum())
    size = len(sorted_values)
    if not size:
        return [], 1.0
    at, weight, powers = _nodes(size)
    # of each node the factor 1 − p + p t of each unit
    factors = 1 + sorted_values[:, None] * (at - 1)
    everything = weight * factors.prod(0) * at**rest
    chosen = (sorted_values[:, None] / factors).cumsum(0)
    expected = 2 * (chosen * powers) @ everything
    empty = float(np.prod(1 - sorted_values) * np.exp(-rest)) if may_be_empty else -1.0
    best = float(expected.max())
    if best <= empty + _LEAST_GAIN:
        return [], empty
    # of equal ones the smallest
    best_k = 1 + int((expected >= best - _LEAST_GAIN).argmax())
    return sorted(order[:best_k].tolist()), best


@functools.lru_cache(maxsize=2)
def _legendre(num: int) -> tuple[_Floats, _Floats, _Floats]:
    """(m,) nodes t and weights of Gauss and Legendre from 0 to 1, and (m, m) t^k, k from 1."""
    nodes, weights = np.polynomial.legendre.leggauss(num)
    nodes = (nodes + 1) / 2
    return nodes, weights / 2, nodes ** np.arange(1, num + 1)[:, None]


def _nodes(size: int) -> tuple[_Floats, _Floats, _Floats]:
    """As `_legendre`, as many nodes as make the integrals of so many units exact, and (size, m) t^k."""
    num = _USUAL if size <= _USUAL else MAX_CANDIDATES
    nodes, weights, powers = _legendre(num)
    return nodes, weights, powers[:size]


def fit_temperature(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The scale and shift under which logits are calibrated best.

        p = σ(scale · logit + shift), by maximum likelihood (Platt 1999; Guo et al. 2017)

    Args:
        logits: (n,) finite.
        labels: (n,) bool, with both values among them.

    Returns:
        Scale, above 0, and shift.

    Raises:
        ValueError: where shapes differ, logits are not finite, or all labels are the same.

    >>> logits = torch.tensor([-4.0, -4.0, -4.0, -4.0, 4.0, 4.0, 4.0, 4.0])
    >>> labels = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1]).bool()
    >>> scale, shift = fit_temperature(logits, labels)
    >>> round(scale * 4 + shift, 2)  # ln 3: three in four are true
    1.1
    """
    if logits.shape != labels.shape or logits.ndim != 1 or not bool(logits.isfinite().all()):
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} do not fit labels of {tuple(labels.shape)}; "
            "give finite numbers, one label each"
        )
    if bool(labels.all()) or not bool(labels.any()):
        raise ValueError("all labels are the same, which calibrates nothing; give both kinds")
    inputs, truth = logits.detach().double(), labels.double()
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        # the scale as exp, so that the order of logits is kept
        moved = parameters[0].exp() * inputs + parameters[1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(moved, truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    scale, shift = parameters.detach().tolist()
    return float(np.exp(scale)), float(shift)


def best_gate(nothing: Tensor, is_empty: Tensor, f1: Tensor) -> float:
    """From which probability of nothing an answer is empty, so that answers earn most.

    An empty answer earns 1 where the truth is empty and 0 elsewhere; another one earns its F1, and
    0 where the truth is empty. No more than a twentieth of the others are lost to it.

    Args:
        nothing: (V,) probabilities of nothing.
        is_empty: (V,) bool, whether the truth is empty.
        f1: (V,) of the answers that are given else.

    Returns:
        The probability, halfway between two that occur; 1 where no gate pays.

    Raises:
        ValueError: where shapes differ, or truths are all empty or all not.

    >>> is_empty = torch.tensor([False, False, True, True])
    >>> nothing, f1 = torch.tensor([0.1, 0.2, 0.4, 0.3]), torch.tensor([1.0, 0.5, 0.0, 0.0])
    >>> round(best_gate(nothing, is_empty, f1), 2)
    0.25
    """
    if nothing.ndim != 1 or not nothing.shape == is_empty.shape == f1.shape:
        raise ValueError(
            f"probabilities {tuple(nothing.shape)}, truths {tuple(is_empty.shape)} and F1 "
            f"{tuple(f1.shape)} differ; give one each"
        )
    if bool(is_empty.all()) or not bool(is_empty.any()):
        raise ValueError("truths are all empty or all not, of which no gate follows")
    values = torch.unique(nothing.double())
    gates = torch.cat([(values[1:] + values[:-1]) / 2, torch.ones(1, dtype=torch.float64)])
    empties = nothing.double() >= gates[:, None]  # (gates, V)
    earned = torch.where(empties, is_empty.double(), f1.double() * ~is_empty).sum(1)
    lost = (empties & ~is_empty).sum(1) / (~is_empty).sum()
    earned = earned.masked_fill(lost > MAX_LOST_SHARE, -1.0)
    # of equal ones the highest, which is the most careful
    return float(gates[len(gates) - 1 - int(earned.flip(0).argmax())])
