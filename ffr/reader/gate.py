"""The gate: whether a query means anything here, by all that tells, in one small linear model.

The networks' own logit of "nothing here" is fitted to the dialogues that they learn from, and leans on
what is particular to those. A few numbers that mean the same in any chat, weighed by a penalised
regression on dialogues that no network saw, tell more in chats of another kind.

Shapes: B queries of a batch, N units, E = `NUM_EVIDENCE` numbers a query.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ffr.reader.likeness import BESIDE_QUERIES, GATE_SUMMARIES, HAS_WORDS, OWN, Z_RAW
from ffr.reader.network import NetworkInputs

NUM_EVIDENCE = 4 + len(GATE_SUMMARIES)

RIDGE = 0.3
"""The penalty of the gate that comes with ffr."""

_LEAST = 1e-4
_MOST = 3.0
"""Deviations beyond which a number counts no further, so that none decides alone."""


def evidence(inputs: NetworkInputs, units: Tensor, nothing: Tensor) -> Tensor:
    """(B, E) what tells whether a query means anything.

    The networks' logit; how alike the query is to what they would choose, as a whole and unit by
    unit; how much more so, beside strangers' queries, than to what they would not; and some of the
    summaries. No gradient goes to the units: what is learned of nothing is
    learned by the head for it.

    Args:
        inputs: A batch.
        units: (B, N) logits of units.
        nothing: (B,) logits of "nothing here".
    """
    features = inputs.features
    there = inputs.mask * features[..., HAS_WORDS]
    chances = torch.sigmoid(units.detach())
    share, rest = _share(chances * there), _share((1 - chances) * there)
    # the query beside the mean m = Σ w u of likely units: q · m / |m|, |m|² = Σ w w' u · u'
    length = (share[:, None] @ inputs.between @ share[..., None])[:, 0].clamp(min=0.01).sqrt()
    means = (features[..., [OWN, Z_RAW]] * share[..., None]).sum(1)
    lead = (features[..., BESIDE_QUERIES] * (share - rest)).sum(1, keepdim=True)
    of_summaries = inputs.summaries[:, list(GATE_SUMMARIES)]
    of_units = [means[:, :1] / length, means[:, 1:], lead]
    return torch.cat([nothing[:, None], *of_units, of_summaries], dim=1)


def _share(weights: Tensor) -> Tensor:
    """(B, N) that sum up to 1, or to 0 where all weights are."""
    return weights / weights.sum(1, keepdim=True).clamp(min=_LEAST)


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """Weighs the evidence.

        z = w_0 s_0 + Σ_e w_e clip(s_e, ±3),  s = (x − mean) / deviation

    The networks' own logit, number 0, is not clipped, so that training always reaches it.

    Args:
        weights: (E,) float32.
        mean: (E,) float32, of the queries that it was fitted on.
        deviation: (E,) float32, likewise, above 0.

    Raises:
        ValueError: where shapes do not fit, a number is not finite or a deviation not above 0.
    """

    weights: Tensor
    mean: Tensor
    deviation: Tensor

    def __post_init__(self) -> None:
        rows = (self.weights, self.mean, self.deviation)
        if any(row.shape != (NUM_EVIDENCE,) for row in rows):
            raise ValueError(
                f"a gate of shapes {[tuple(row.shape) for row in rows]} is none; give "
                f"({NUM_EVIDENCE},) three times"
            )
        if not all(bool(row.isfinite().all()) for row in rows) or bool((self.deviation <= 0).any()):
            raise ValueError(
                "a gate holds NaN, infinite numbers, or a deviation not above 0; fit it again"
            )

    def __call__(self, seen: Tensor) -> Tensor:
        """(B,) logits of "nothing here", of the evidence (B, E)."""
        return _clipped((seen - self.mean) / self.deviation) @ self.weights


def _clipped(rows: Tensor) -> Tensor:
    return torch.cat([rows[:, :1], rows[:, 1:].clamp(-_MOST, _MOST)], dim=1)


def fit_gate(seen: Tensor, is_nothing: Tensor, *, ridge: float) -> Gate:
    """The gate that tells queries that mean nothing from others, by penalised logistic regression.

    Both kinds count alike, whatever their numbers.

    Args:
        seen: (n, E) evidence of queries.
        is_nothing: (n,) bool, with both values among them.
        ridge: The penalty on squared weights, above 0.

    Raises:
        ValueError: where shapes differ, all queries are of one kind, or the penalty is not above 0.

    >>> seen = torch.zeros(4, NUM_EVIDENCE)
    >>> seen[:, 0] = torch.tensor([-1.0, -2.0, 1.0, 2.0])
    >>> gate = fit_gate(seen, seen[:, 0] > 0, ridge=0.1)
    >>> (gate(seen) > 0).tolist(), bool(gate.weights[1:].abs().max() < 1e-6)
    ([False, False, True, True], True)
    """
    if seen.shape != (len(is_nothing), NUM_EVIDENCE) or not ridge > 0:
        raise ValueError(
            f"evidence {tuple(seen.shape)} for {len(is_nothing)} queries at a penalty of {ridge}; "
            f"give (queries, {NUM_EVIDENCE}), and a penalty above 0"
        )
    if bool(is_nothing.all()) or not bool(is_nothing.any()):
        raise ValueError("all queries are of one kind, which fits nothing; give both")
    values = seen.detach().double()
    mean, deviation = values.mean(0), values.std(0).clamp(min=1e-3)
    rows = _clipped((values - mean) / deviation)
    truth = is_nothing.double()
    share = truth.mean()
    each = torch.where(is_nothing, 0.5 / share, 0.5 / (1 - share))
    weights = torch.zeros(NUM_EVIDENCE, dtype=torch.float64, requires_grad=True)
    offset = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights, offset], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            rows @ weights + offset, truth, weight=each
        )
        loss = loss + ridge * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    # the offset is the calibration's, which follows
    return Gate(weights.detach().float(), mean.float(), deviation.float())
