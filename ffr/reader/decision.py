"""From probabilities to an answer: the set of highest expected F1, and calibration.

Shapes: n units that may be chosen.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_CANDIDATES = 256
"""Units of the highest probability that are looked at exactly; the others count as they stand on
average."""


def best_set(probabilities: Tensor) -> tuple[list[int], float]:
    """The set of units with the highest expected F1, and what that is.

    With independent decisions the best set of k units is that of the k highest probabilities
    (Lewis 1995), so that n + 1 sets at most are compared, each by

        E[F1] = Σ_{a,b} P(a of the set are true) P(b of the others are true) 2a / (k + a + b)

    with the two counts' exact distributions (Jansche 2007); the empty set has F1 1 where nothing is
    true and 0 elsewhere. Beyond `MAX_CANDIDATES` units, of the rest only their expected number
    counts.

    Args:
        probabilities: (n,) from 0 to 1.

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
    # row k: how many of the units from k on are true
    others = np.zeros((size + 1, size + 1))
    others[size, 0] = 1.0
    for k in range(size - 1, -1, -1):
        others[k] = _with_one_more(others[k + 1], sorted_values[k])
    best_k, best = 0, float(others[0, 0] * np.exp(-rest))
    chosen = np.zeros(size + 1)
    chosen[0] = 1.0
    counts = np.arange(size + 1.0)
    means = sorted_values.cumsum() / np.arange(1.0, size + 1)
    for k in range(1, size + 1):
        # no larger set can be better: E[2a / (k + a + b)] ≤ E[2a / (k + a)] ≤ 2m / (1 + m) with
        # m = E[a] / k (Jensen), which falls as k grows
        if 2 * means[k - 1] / (1 + means[k - 1]) <= best:
            break
        chosen = _with_one_more(chosen, sorted_values[k - 1])
        true, false = counts[: k + 1, None], counts[None, : size - k + 1]
        worth = 2 * true / (k + true + false + rest)
        expected = float(chosen[: k + 1] @ worth @ others[k, : size - k + 1])
        if expected > best + 1e-12:
            best_k, best = k, expected
    return sorted(order[:best_k].tolist()), best


def _with_one_more(counts: NDArray[np.float64], probability: float) -> NDArray[np.float64]:
    """The distribution of a count, with one more unit that is true with this probability."""
    moved = counts * (1 - probability)
    moved[1:] += counts[:-1] * probability
    return moved


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
