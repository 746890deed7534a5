"""How much better an answer was rewarded than the others to its prompt: GRPO's advantages.

Shapes: G answers to each of P prompts make N = P * G answers; the answers to one prompt lie next to
each other.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]

# rewards nearer than this are taken as equal: encoders give the same fragment a cosine that differs
# in the last bits
_EQUAL_REWARDS = 1e-6
_STD_FLOOR = 1e-4


def group_advantages(rewards: Tensor, group_size: int, *, scale: Scale = "group") -> Tensor:
    """Advantages of answers against the mean of their group.

    `A = (r - mean(group)) / (std + 1e-4)` as in GRPO (DeepSeekMath, arXiv 2402.03300, section
    4.1.2) and TRL, with the unbiased standard deviation. Dr. GRPO (arXiv 2503.20783) leaves the
    division out, since it favours prompts that are answered nearly alike. We deviate in one point:
    a group without signal (see `has_signal`) has advantages of exactly 0, where rounding of the
    mean, divided by 1e-4, would otherwise train on noise.

    Args:
        rewards: Total rewards, (N,); computed in float32.
        group_size: G, answers to a prompt, at least 2.
        scale: Whose standard deviation divides: of the `"group"`, of all N answers (`"batch"`), or
            no division (`"none"`).

    Returns:
        Advantages, (N,), float32, on the device of the rewards, without gradient.

    Raises:
        ValueError: where rewards are not (N,) with N a multiple of G, are not finite, or scale is
            unknown.

    >>> group_advantages(torch.tensor([1.0, 0.0, 0.5, 0.5]), 2, scale="none")
    tensor([ 0.5000, -0.5000,  0.0000,  0.0000])
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale is {scale!r}; it is one of {', '.join(get_args(Scale))}")
    groups = _grouped(rewards, group_size)
    advantages = groups - groups.mean(dim=1, keepdim=True)
    if scale == "group":
        advantages = advantages / (groups.std(dim=1, keepdim=True) + _STD_FLOOR)
    elif scale == "batch":
        advantages = advantages / (groups.std() + _STD_FLOOR)
    return advantages.masked_fill(~has_signal(rewards, group_size)[:, None], 0.0).flatten()


def has_signal(rewards: Tensor, group_size: int) -> Tensor:
    """Which groups can teach anything: those whose rewards are not all equal, to within 1e-6.

    Dynamic sampling (DAPO, arXiv 2503.14476, section 3.2) replaces the other ones.

    Args:
        rewards: Total rewards, (N,).
        group_size: G, answers to a prompt, at least 2.

    Returns:
        One truth value for each prompt, (P,), bool.

    Raises:
        ValueError: where rewards are not (N,) with N a multiple of G, or are not finite.

    >>> has_signal(torch.tensor([1.0, 0.0, 0.5, 0.5]), 2)
    tensor([ True, False])
    """
    groups = _grouped(rewards, group_size)
    return groups.amax(dim=1) - groups.amin(dim=1) > _EQUAL_REWARDS


def _grouped(rewards: Tensor, group_size: int) -> Tensor:
    if group_size < 2:
        raise ValueError(
            f"a group has {group_size} answer(s); an advantage needs at least 2 to compare"
        )
    if rewards.ndim != 1 or len(rewards) == 0 or len(rewards) % group_size:
        raise ValueError(
            f"rewards have the shape {tuple(rewards.shape)}; expected (N,) with N a multiple of "
            f"the {group_size} answers of a group"
        )
    wrong = (~torch.isfinite(rewards)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"the reward of answer {wrong[0]} is {rewards[wrong[0]].item()}; rewards are finite "
            "numbers"
        )
    return rewards.detach().float().view(-1, group_size)
