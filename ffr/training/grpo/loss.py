"""The objectives of GRPO and its kin: what each token weighs in a step, and the clipped loss.

The loss of a step is the sum over all its answer tokens of
`weight * (surrogate + kl_coefficient * KL)`. The weights know the whole step, so that cutting it
into micro-batches or over processes changes nothing.

Shapes: N answers of a micro-batch, C tokens of its longest answer; the mask is True on answer
tokens, False on padding.
Notation: `A` advantage of the answer, `r = exp(logprob - old_logprob)` of a token, `n` answers of
the step, `T` its answer tokens, `|o|` tokens of the answer.

- grpo (DeepSeekMath, arXiv 2402.03300):
  `-1/n sum_o 1/|o| sum_t min(r A, clip(r, 1 - low, 1 + high) A)`
- bnpo: the same minimum, `-1/T sum_o sum_t`
- dr_grpo (Dr. GRPO, arXiv 2503.20783): the same minimum, `-1/(n max_new_tokens) sum_o sum_t`
- dapo (DAPO, arXiv 2503.14476): the same minimum, `-1/T sum_o sum_t`
- gspo (GSPO, arXiv 2507.18071): as grpo, with `s = exp(1/|o| sum_t log r)` of the answer in place
  of each token's `r`
- cispo (MiniMax-M1, arXiv 2506.13585): `-1/T sum_o sum_t stop_gradient(min(r, high)) A logprob`

BNPO as TRL has it divides by the tokens of a micro-batch, and so depends on how a step is cut. Here
the step is one batch, which makes bnpo equal to dapo. The bound of cispo is `clip_high` itself and
not 1 + clip_high, as in TRL and ScaleRL (arXiv 2510.13786), which sets it to 5: with the 0.28 of
the other losses nearly all ratios would be cut.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"]


def token_weights(
    mask: Tensor,
    loss_type: LossType,
    *,
    num_step_answers: int,
    num_step_tokens: int,
    max_new_tokens: int,
) -> Tensor:
    """Weights of a micro-batch's tokens in the loss of the whole optimizer step.

    Args:
        mask: Answer tokens, (N, C), bool. An answer without a token has no weight.
        loss_type: The objective; it says what a token is divided by (see the head of this file).
        num_step_answers: Answers of the step, over all its micro-batches and processes.
        num_step_tokens: Answer tokens of the step, likewise.
        max_new_tokens: Longest answer that may be sampled; only dr_grpo divides by it.

    Returns:
        Weights, (N, C), float32, 0 on padding.

    Raises:
        ValueError: where the mask is not (N, C) of bool, the loss is unknown, or the step counts
            fewer answers or tokens than this micro-batch alone.

    >>> mask = torch.tensor([[True, True], [True, False]])
    >>> token_weights(mask, "grpo", num_step_answers=2, num_step_tokens=3, max_new_tokens=4)
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    _check_loss_type(loss_type)
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"the mask is {mask.dtype} of shape {tuple(mask.shape)}; expected bool of shape (N, C)"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; it is at least 1")
    lengths = mask.sum(dim=1)
    num_answers, num_tokens = int((lengths > 0).sum()), int(lengths.sum())
    if num_step_answers < num_answers or num_step_tokens < num_tokens:
        raise ValueError(
            f"the step counts {num_step_answers} answers and {num_step_tokens} tokens, this "
            "micro-batch alone has "
            f"{num_answers} and {num_tokens}; count over all micro-batches and processes"
        )
    # a micro-batch that only fills up a process may be empty, and so may its step: its tokens weigh
    # 0, not 0/0
    if loss_type in ("grpo", "gspo"):
        divisors = lengths.clamp(min=1)[:, None] * max(num_step_answers, 1)
    elif loss_type == "dr_grpo":
        divisors = torch.full_like(lengths, max(num_step_answers, 1) * max_new_tokens)[:, None]
    else:
        divisors = torch.full_like(lengths, max(num_step_tokens, 1))[:, None]
    return mask.float() / divisors


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    weights: Tensor,
    *,
    loss_type: LossType,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    kl_coefficient: float = 0.0,
    reference_logprobs: Tensor | None = None,
    importance: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A micro-batch's part of the step's loss, and sums for the log.

    The formulas stand at the head of this file; each equals TRL 1.16 on the same tensors. The
    divergence from the reference is the estimator k3 of each token, `exp(d) - d - 1` with `d =
    reference - logprob` (DeepSeekMath, equation 4). Whatever stands on padding, in any of the
    tensors, has no influence.

    Args:
        logprobs: Log-probabilities of the answer tokens under the policy, (N, C), with gradient.
            Half precision is computed in float32.
        old_logprobs: The same under the policy that sampled, (N, C).
        advantages: (N,), see `ffr.training.grpo.advantages`.
        mask: Answer tokens, (N, C), bool.
        weights: What `token_weights` gives for the same mask and loss, (N, C).
        loss_type: The objective.
        clip_low: Ratios under 1 - clip_low give no gradient where the advantage is negative; cispo
            does not use it.
        clip_high: Ratios over 1 + clip_high give no gradient where the advantage is positive. For
            cispo the largest ratio that a token is weighted by, itself.
        kl_coefficient: Weight of the divergence, at least 0.
        reference_logprobs: Log-probabilities under the reference model, (N, C); needed where
            kl_coefficient is not 0.
        importance: (N, C) factor of each token's surrogate, not of its divergence, without
            gradient: see `ffr.training.grpo.sampling_gap`. None for 1.

    Returns:
        The loss, a scalar, and sums over the answer tokens, scalars without gradient: `num_tokens`;
        `ratio_sum`; `clipped_low` and `clipped_high`, tokens on which the clip acted; `kl`, present
        only where there is a reference. Under gspo a token has its answer's ratio, so that a
        clipped answer counts with all its tokens.

    Raises:
        ValueError: where shapes or types do not fit, an advantage is not finite, a bound is out of
            range, the loss is unknown, or the divergence is asked for without a reference.

    >>> old = torch.tensor([[-1.0, -2.0]])
    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> weights = torch.full((1, 2), 0.5)  # grpo: one answer of two tokens
    >>> advantages = torch.tensor([2.0])
    >>> loss, sums = policy_loss(old + 0.5, old, advantages, mask, weights, loss_type="grpo")
    >>> round(loss.item(), 4), sums["clipped_high"].item()  # exp(0.5) > 1.28: each gives 1.28 * 2
    (-2.56, 2.0)
    """
    _check_loss_type(loss_type)
    _check_bounds(loss_type, clip_low, clip_high, kl_coefficient)
    if kl_coefficient and reference_logprobs is None:
        raise ValueError(
            f"kl_coefficient is {kl_coefficient} without reference_logprobs; give them or set it "
            "to 0"
        )
    _check_tensors(
        logprobs, old_logprobs, advantages, mask, weights, reference_logprobs, importance
    )

    # padding is overwritten before any arithmetic: a huge number there would make inf, and inf * 0
    # is not 0
    dtype = torch.promote_types(logprobs.dtype, torch.float32)
    policy = logprobs.to(dtype).masked_fill(~mask, 0.0)
    log_ratios = policy - old_logprobs.detach().to(dtype).masked_fill(~mask, 0.0)
    scales = advantages.detach().to(dtype)[:, None]
    if loss_type == "gspo":
        lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
        log_ratios = (log_ratios.sum(dim=1, keepdim=True) / lengths).expand_as(policy)
    ratios = log_ratios.exp()

    low_end, high_end = 1 - clip_low, 1 + clip_high
    if loss_type == "cispo":
        high_end = clip_high
        token_losses = -ratios.detach().clamp(max=high_end) * scales * policy
        is_low = torch.zeros_like(mask)
    else:
        token_losses = -torch.minimum(ratios * scales, ratios.clamp(low_end, high_end) * scales)
        is_low = (ratios < low_end) & (scales < 0)
    is_high = (ratios > high_end) & (scales > 0)
    if importance is not None:
        token_losses = token_losses * importance.detach().to(dtype).masked_fill(~mask, 0.0)

    sums = {
        "num_tokens": mask.sum().to(dtype),
        "ratio_sum": ratios.detach().masked_fill(~mask, 0.0).sum(),
        "clipped_low": (is_low & mask).sum().to(dtype),
        "clipped_high": (is_high & mask).sum().to(dtype),
    }
    if reference_logprobs is not None:
        differences = reference_logprobs.detach().to(dtype).masked_fill(~mask, 0.0) - policy
        divergences = differences.exp() - differences - 1  # 0 on padding
        sums["kl"] = divergences.detach().sum()
        if kl_coefficient:
            token_losses = token_losses + kl_coefficient * divergences
    loss = (weights.detach().masked_fill(~mask, 0.0) * token_losses).sum()
    return loss, sums


def _check_loss_type(loss_type: str) -> None:
    if loss_type not in get_args(LossType):
        raise ValueError(
            f"loss_type is {loss_type!r}; it is one of {', '.join(get_args(LossType))}"
        )


def _check_bounds(
    loss_type: LossType, clip_low: float, clip_high: float, kl_coefficient: float
) -> None:
    # written so that NaN fails too
    if not 0 <= clip_low <= 1:
        raise ValueError(f"clip_low is {clip_low}; it lies between 0 and 1")
    if not (clip_high > 0 if loss_type == "cispo" else clip_high >= 0):
        raise ValueError(
            f"clip_high is {clip_high}; it is not negative, and for cispo greater than 0"
        )
    if not kl_coefficient >= 0:
        raise ValueError(f"kl_coefficient is {kl_coefficient}; it is not negative")


def _check_tensors(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    weights: Tensor,
    reference_logprobs: Tensor | None,
    importance: Tensor | None,
) -> None:
    if logprobs.ndim != 2:
        raise ValueError(f"logprobs have the shape {tuple(logprobs.shape)}; expected (N, C)")
    others = {
        "old_logprobs": old_logprobs,
        "mask": mask,
        "weights": weights,
        "reference_logprobs": reference_logprobs,
        "importance": importance,
    }
    for name, tensor in others.items():
        if tensor is not None and tensor.shape != logprobs.shape:
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, logprobs {tuple(logprobs.shape)}; "
                "they are the same"
            )
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask is {mask.dtype}; it is bool")
    if advantages.shape != logprobs.shape[:1]:
        raise ValueError(
            f"advantages have the shape {tuple(advantages.shape)}; expected one for each of "
            f"{len(logprobs)} answers"
        )
    wrong = (~torch.isfinite(advantages)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"the advantage of answer {wrong[0]} is {advantages[wrong[0]].item()}; look at its "
            "rewards"
        )
