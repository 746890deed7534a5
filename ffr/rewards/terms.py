"""The terms of the reward: which ones the settings ask for, a user's own, and their weighted sum.

Shapes: N completions, T terms.
"""

from __future__ import annotations

import importlib
import inspect
import math
import numbers
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffr.embedding import CachedEncoder, Encoder
from ffr.encoders import open_encoder
from ffr.errors import FfrError, UsageError
from ffr.rewards.functions import (
    FragmentF1Reward,
    FragmentOrderReward,
    RewardFunction,
    format_reward,
    fragment_mcc_reward,
)
from ffr.rewards.reading import Completion
from ffr.settings import GrpoConfig
from ffr.text import one_line


class RewardError(FfrError):
    """A reward failed or gave no finite number; 0 instead would hide a fault as a bad answer."""


# -- a user's own ----------------------------------------------------------------------------------


def load_reward(name: str) -> RewardFunction:
    """The reward function at `module:function`.

    The module is looked for as Python does, and in the current folder, which is put at the end of
    `sys.path` for good, so that what the module imports later is found as well. Importing runs the
    module's code.

    Raises:
        UsageError: where the name has no colon, the module cannot be imported, or it holds no such
            function.

    >>> load_reward("ffr.rewards:format_reward").__name__
    'format_reward'
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise UsageError(
            f"reward {name!r} is not of the form module:function, such as my_rewards:brevity"
        )
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"reward {name!r}: module {module_name} cannot be imported ({_reason(error)}); correct "
            "its name or its code"
        ) from error
    if not hasattr(module, attribute):
        raise UsageError(
            f"reward {name!r}: module {module_name} has no {attribute}; correct its name"
        )
    found = getattr(module, attribute)
    if not callable(found) or inspect.isclass(found):
        kind = "a class" if inspect.isclass(found) else f"of type {type(found).__name__}"
        raise UsageError(
            f"reward {name!r}: {attribute} is {kind}; name a function or an object that can be "
            "called"
        )
    function: RewardFunction = found
    return function


# -- sums ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RewardTerm:
    """One term of the weighted sum.

    Args:
        name: What logs and errors call it.
        function: With TRL's signature.
        weight: Its factor.
    """

    name: str
    function: RewardFunction
    weight: float = 1.0


def compute_rewards(
    terms: Sequence[RewardTerm],
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    columns: Mapping[str, Sequence[Any]],
    sample_ids: Sequence[str],
) -> Tensor:
    """The value of each term for each completion, unweighted.

    Args:
        terms: T rewards.
        prompts: N prompts.
        completions: N completions.
        columns: What the rewards may look at; N entries each.
        sample_ids: What errors call the completions.

    Returns:
        (N, T) float32 on the CPU, finite.

    Raises:
        RewardError: where a reward raises, or does not give one finite number for each completion;
            the sentence names reward and sample, and the reward's own error is chained.
    """
    values = torch.empty((len(completions), len(terms)), dtype=torch.float32)
    for number, term in enumerate(terms):
        try:
            given = term.function(prompts=prompts, completions=completions, **columns)
        except Exception as error:
            sample, reason = _first_to_fail(term, prompts, completions, columns, sample_ids, error)
            raise RewardError(
                f"reward {term.name} failed on {sample}: {_reason(reason)}; correct the reward"
            ) from reason
        values[:, number] = torch.tensor(_checked(term, given, sample_ids))
    return values


def total_rewards(values: Tensor, terms: Sequence[RewardTerm]) -> Tensor:
    """Weighted sum of the terms: (N, T) → (N,).

    >>> from ffr.rewards.functions import format_reward
    >>> terms = [RewardTerm("a", format_reward, 1.0), RewardTerm("b", format_reward, 0.5)]
    >>> total_rewards(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), terms)
    tensor([1.5000, 0.5000])
    """
    weights = torch.tensor(
        [term.weight for term in terms], dtype=values.dtype, device=values.device
    )
    return (values * weights).sum(-1)


# -- what the settings ask for ---------------------------------------------------------------------


def reward_terms(config: GrpoConfig, policy: Encoder, *, device: str = "cpu") -> list[RewardTerm]:
    """The rewards that the settings ask for, with their weights.

    Args:
        config: The settings.
        policy: The policy's own vectors, which the order reward takes where `encoder=policy`.
        device: Kind of device that the policy works on, where another encoder works too.

    Raises:
        UsageError: where none has a weight, or one of the user's own cannot be found.
    """
    terms = [
        RewardTerm("format", format_reward, config.format_weight),
        RewardTerm(
            "f1", FragmentF1Reward(config.f1_beta, config.length_discount), config.f1_weight
        ),
    ]
    if config.order_weight:
        reward = FragmentOrderReward(_reward_encoder(config, policy, device))
        terms.append(RewardTerm("order", reward, config.order_weight))
    terms.append(RewardTerm("mcc", fragment_mcc_reward, config.mcc_weight))
    if config.overlong_tokens:
        terms.append(_overlong_term(config))
    weighted = [term for term in terms + _own_rewards(config.rewards) if term.weight]
    _refuse_shared_columns([term.name for term in weighted])
    if not weighted:
        raise UsageError(
            "no reward has a weight; set f1_weight, order_weight, format_weight, mcc_weight or "
            "rewards"
        )
    return weighted


def _overlong_term(config: GrpoConfig) -> RewardTerm:
    """TRL's penalty, which is -1 at its largest; so its weight is 1."""
    if config.overlong_tokens > config.max_new_tokens:
        raise UsageError(
            f"setting overlong_tokens: {config.overlong_tokens} is more than the "
            f"{config.max_new_tokens} "
            "tokens of the longest answer; lower it, or raise max_new_tokens"
        )
    # here and not above: importing trl takes half a second
    from trl.rewards import get_soft_overlong_punishment

    penalty = get_soft_overlong_punishment(config.max_new_tokens, config.overlong_tokens)
    return RewardTerm("overlong", penalty, 1.0)


def _own_rewards(text: str | None) -> list[RewardTerm]:
    terms = []
    for part in filter(None, (item.strip() for item in (text or "").split(","))):
        name, equals, weight = part.partition("=")
        try:
            value = float(weight) if equals else 1.0
        except ValueError:
            raise UsageError(f"setting rewards: {weight!r} in {part!r} is not a number") from None
        terms.append(RewardTerm(name.rpartition(":")[2], load_reward(name), value))
    return terms


def _refuse_shared_columns(names: Sequence[str]) -> None:
    """Sees that each reward has a column `reward_NAME` of its own.

    Raises:
        UsageError: where two are of one name, or one is of the name of a figure.
    """
    taken = {"std"}  # reward_std is the deviation within groups
    for name in names:
        if name in taken:
            raise UsageError(
                f"setting rewards: the column reward_{name} of metrics.csv is taken; give the "
                f"function {name} another name"
            )
        taken.add(name)


def _reward_encoder(config: GrpoConfig, policy: Encoder, device: str) -> Encoder:
    # an export beside a policy on a GPU may work on the CPU, where ONNX Runtime cannot use the GPU
    device = "auto" if device == "cuda" else device
    encoder = open_encoder(config.encoder, device=device, policy=policy)
    if not encoder.takes_images:
        raise UsageError(
            f"setting encoder: {config.encoder} encodes texts only, and the order reward compares "
            "texts with pictures; "
            "name an encoder of both, or set order_weight=0"
        )
    if config.encoder_cache_dir is None:
        return encoder
    # a policy's fingerprint names its weights alone, and its vectors of images depend on their size
    # too
    folder = Path(config.encoder_cache_dir) / f"{config.max_image_pixels}-pixels"
    return CachedEncoder(encoder, folder, max_bytes=config.encoder_cache_mb * 2**20)


# -- faults ---------------------------------------------------------------------------------------


def _first_to_fail(
    term: RewardTerm,
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    columns: Mapping[str, Sequence[Any]],
    sample_ids: Sequence[str],
    error: Exception,
) -> tuple[str, Exception]:
    """Which completion a reward fails on, found by asking for one at a time, and how."""
    for row, sample_id in enumerate(sample_ids):
        try:
            term.function(
                prompts=prompts[row : row + 1],
                completions=completions[row : row + 1],
                **{key: column[row : row + 1] for key, column in columns.items()},
            )
        except Exception as own:
            return f"sample {sample_id}", own
    return (
        f"samples {sample_ids[0]} … {sample_ids[-1]} together" if sample_ids else "no samples",
        error,
    )


def _checked(term: RewardTerm, given: Any, sample_ids: Sequence[str]) -> list[float]:
    if inspect.iscoroutine(given):
        given.close()
        raise RewardError(
            f"reward {term.name} is asynchronous, which is not waited for; write a plain function"
        )
    if not isinstance(given, list | tuple | Tensor | np.ndarray) or getattr(given, "ndim", 1) != 1:
        raise RewardError(
            f"reward {term.name} gave a {type(given).__name__} instead of a list of numbers; "
            "return one for each completion"
        )
    if len(given) != len(sample_ids):
        first = f", the first of them sample {sample_ids[0]}" if sample_ids else ""
        raise RewardError(
            f"reward {term.name} gave {len(given)} numbers for {len(sample_ids)} "
            f"completions{first}; "
            "return one for each completion"
        )
    found: list[float] = []
    for value, sample_id in zip(given, sample_ids, strict=True):
        number = math.nan
        if isinstance(value, numbers.Real) or (
            isinstance(value, Tensor) and value.ndim == 0 and not value.is_complex()
        ):
            try:
                # as it will be kept: what overflows there is not finite either
                number = float(torch.tensor(float(value), dtype=torch.float32))
            except (OverflowError, RuntimeError):
                number = math.inf
        if not math.isfinite(number):
            raise RewardError(
                f"reward {term.name} gave {str(value)[:100]!r} for sample {sample_id}; return a "
                "finite number"
            )
        found.append(number)
    return found


def _reason(error: BaseException) -> str:
    # a KeyError or an assertion says little without its name
    said, name = one_line(error, 300), type(error).__name__
    return said if isinstance(error, FfrError) or said == name else f"{name}: {said}"
