"""How far what sampled a step's answers is from what is trained on them, and what its tokens count then.

Log-probabilities are recorded as answers are written, and taken again before the first update. They
are of one distribution where the same weights sampled, to the rounding of another order of sums, and
not where others did: the adapter folded into bf16 weights, or another engine.

Shapes: R answers of a pass, C tokens of the longest; the mask is True on answer tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ffr.settings import GrpoConfig
from ffr.training.common.module import StepFault


def recorded_logprobs(rows: Sequence[Sequence[float]], mask: Tensor) -> Tensor:
    """Log-probabilities as they were recorded in sampling, a row an answer.

    Args:
        rows: Those of each of the R answers.
        mask: (R, C) bool; each row has as many True, at its beginning, as the answer has tokens.

    Returns:
        (R, C) float32 on the mask's device, 0 where the mask is False.

    Raises:
        ValueError: where an answer has another number of tokens.

    >>> recorded_logprobs([[-1.0], [-2.0, -3.0]], torch.tensor([[True, False], [True, True]]))
    tensor([[-1.,  0.],
            [-2., -3.]])
    """
    lengths = [len(row) for row in rows]
    if lengths != mask.sum(1).tolist():
        raise ValueError(
            f"log-probabilities of {lengths} tokens were recorded, of answers with "
            f"{mask.sum(1).tolist()}"
        )
    flat = torch.tensor([value for row in rows for value in row], dtype=torch.float32)
    return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, flat.to(mask.device))


def truncated_importance(old: Tensor, recorded: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """Truncated importance sampling: `min(exp(old - recorded), cap)` of each token.

    As in TRL 1.16's `vllm_importance_sampling_mode="token_truncate"`; the truncation bounds the
    variance that rare tokens would bring (Ionides, J. Comput. Graph. Stat. 17, 2008).

    Args:
        old: (R, C) log-probabilities of the policy before the step's first update.
        recorded: (R, C) those of what sampled.
        mask: (R, C) bool.
        cap: The largest weight, at least 1.

    Returns:
        (R, C) float32 without gradient; 1 where the mask is False.

    >>> old, recorded = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.0, -9.0]])
    >>> truncated_importance(old, recorded, torch.ones(1, 2, dtype=torch.bool), cap=3.0)
    tensor([[1., 3.]])
    """
    differences = (old.detach().float() - recorded).masked_fill(~mask, 0.0)
    return differences.exp().clamp(max=cap)


def gap_sums(old: Tensor, recorded: Tensor, mask: Tensor) -> tuple[float, float]:
    """Sum and maximum of `|old - recorded|` over a pass's tokens, in nats; arguments as above.

    >>> mask = torch.tensor([[True, False]])
    >>> gap_sums(torch.tensor([[-1.0, 5.0]]), torch.tensor([[-1.5, 0.0]]), mask)
    (0.5, 0.5)
    """
    gaps = (old.detach().float() - recorded).abs()[mask]
    return (float(gaps.sum()), float(gaps.max())) if len(gaps) else (0.0, 0.0)


def fault_of_gap(gap: float, config: GrpoConfig) -> StepFault | None:
    """Why a run stops whose sampling has drifted from what is trained; None where it has not.

    Args:
        gap: The mean of the gaps over a step's tokens.
        config: Settings.

    >>> fault_of_gap(0.01, GrpoConfig()) is None
    True
    """
    limit = config.sampling_gap_limit
    if limit is None or gap <= limit:
        return None
    ways = {"merged": "sampling_weights=adapters", "adapters": "precision=fp32"}
    way = ways[config.sampling_weights]
    if config.rollout_engine == "server":
        way = "a server that has the same model in the same precision and --logprobs-mode raw_logprobs"
    return StepFault(
        f"log-probabilities in sampling and in training differ by {gap:.3g} in the mean "
        f"(sampling_gap_limit is {limit:g})",
        f"start a new run with {way}, or a higher sampling_gap_limit",
    )
