"""Negative log-likelihood of the answer tokens, and the learning rate over a stage.

Shapes: N answer tokens over all rows of a batch, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def answer_nll(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum over answer tokens of −log p(token), computed in float32.

    The sum, not the mean, so that a step's loss is the mean over all its answer tokens however the
    step is cut into micro-batches and processes: divide by the step's number of tokens.

    Args:
        logits: (N, V), any floating type.
        targets: (N,) token ids.
        weights: (N,) factor of each token; None for 1.

    Returns:
        Scalar, float32.

    >>> round(answer_nll(torch.zeros(2, 4), torch.tensor([1, 3])).item(), 4)  # 2 ln 4
    2.7726
    """
    nll = F.cross_entropy(logits.float(), targets, reduction="none")
    return nll.sum() if weights is None else (nll * weights).sum()


def warmup_cosine(step: int, *, num_steps: int, warmup_share: float, floor: float = 0.0) -> float:
    """Factor of the peak learning rate at a step: a linear rise, then half a cosine to `floor`.

    Steps count from 0, and the first one is not taken at 0.

    >>> [round(warmup_cosine(step, num_steps=10, warmup_share=0.2), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    num_warmup = round(num_steps * warmup_share)
    if step < num_warmup:
        return (step + 1) / num_warmup
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    cosine = 0.5 * (1 + torch.cos(torch.tensor(done * torch.pi, dtype=torch.float64)).item())
    return floor + (1 - floor) * cosine
