"""What a reader learns from a true fragment: every unit's decision, their F1, and that there is one.

Shapes: B queries of a batch, N units of the longest dialogue.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def soft_f1(probabilities: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """F1 of each row with probabilities in place of decisions.

        F1 = (2 Σ_i p_i y_i + 1) / (Σ_i p_i + Σ_i y_i + 1)

    The ones keep it defined where nothing is true, and small fragments from shouting.

    Args:
        probabilities: (B, N), from 0 to 1.
        labels: (B, N) bool.
        mask: (B, N) bool, which units are there; what stands elsewhere has no influence.

    Returns:
        (B,)

    Raises:
        ValueError: where shapes differ.

    >>> probabilities, mask = torch.tensor([[1.0, 0.5, 0.9]]), torch.tensor([[True, True, False]])
    >>> soft_f1(probabilities, torch.tensor([[True, False, True]]), mask)  # 3 / 3.5
    tensor([0.8571])
    """
    _check(probabilities, labels, mask)
    chosen = probabilities.masked_fill(~mask, 0.0)
    true = (labels & mask).to(chosen.dtype)
    return (2 * (chosen * true).sum(1) + 1) / (chosen.sum(1) + true.sum(1) + 1)


def reader_loss(
    logits: Tensor,
    nothing: Tensor,
    labels: Tensor,
    mask: Tensor,
    *,
    nothing_weight: float,
) -> Tensor:
    """The loss of each query.

        ℓ = [y ≠ ∅] (1/N Σ_i BCE(σ(z_i), y_i) + 1 − softF1) + w BCE(σ(z_∅), [y = ∅])

    Units' probabilities are those on the condition that there is anything, so a query that means
    nothing in its dialogue teaches the second part alone.

    Args:
        logits: (B, N) of units; of no meaning where `mask` is False.
        nothing: (B,) logits of "nothing here".
        labels: (B, N) bool, the true units.
        mask: (B, N) bool.
        nothing_weight: w.

    Returns:
        (B,)

    Raises:
        ValueError: where shapes differ, or the weight is negative.

    >>> logits, mask = torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool)
    >>> labels = torch.tensor([[True, False], [False, False]])
    >>> reader_loss(logits, torch.zeros(2), labels, mask, nothing_weight=1.0)
    tensor([1.7196, 0.6931])
    """
    _check(logits, labels, mask)
    if nothing.shape != logits.shape[:1]:
        raise ValueError(
            f"{tuple(nothing.shape)} logits of nothing beside {len(logits)} queries; give one each"
        )
    if not nothing_weight >= 0:
        raise ValueError(f"nothing_weight is {nothing_weight}; it is at least 0")
    truth = labels & mask
    each = functional.binary_cross_entropy_with_logits(logits, truth.float(), reduction="none")
    counts = mask.sum(1).clamp(min=1)
    of_units = each.masked_fill(~mask, 0.0).sum(1) / counts
    of_f1 = 1 - soft_f1(torch.sigmoid(logits), labels, mask)
    is_empty = ~truth.any(1)
    of_nothing = functional.binary_cross_entropy_with_logits(
        nothing, is_empty.float(), reduction="none"
    )
    return (of_units + of_f1).masked_fill(is_empty, 0.0) + nothing_weight * of_nothing


def _check(values: Tensor, labels: Tensor, mask: Tensor) -> None:
    shapes = tuple(values.shape), tuple(labels.shape), tuple(mask.shape)
    if values.ndim != 2 or len(set(shapes)) > 1:
        raise ValueError(
            f"units {shapes[0]}, labels {shapes[1]} and mask {shapes[2]} differ; give (B, N) of all"
        )
    if labels.dtype != torch.bool or mask.dtype != torch.bool:
        raise ValueError(f"labels are {labels.dtype} and the mask {mask.dtype}; they are bool")
