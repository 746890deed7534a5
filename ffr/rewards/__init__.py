"""The rewards of F2RVLM as functions with TRL's signature, for `GRPOTrainer(reward_funcs=[…])`.

What each of them gives stands in docs/rewards.md; `ffr train grpo` uses the same ones.

>>> truth = "<|utt_ids_start|>[1, 2]<|utt_ids_end|>;<|img_ids_start|>[0]<|img_ids_end|>"
>>> answers = [truth, truth.replace("[1, 2]", "[1]"), "lines 1 and 2"]
>>> format_reward([], answers)
[1.0, 1.0, 0.0]
>>> [round(value, 4) for value in fragment_f1_reward([], answers, solution=[truth] * 3)]
[1.0, 0.8167, 0.0]
>>> FragmentF1Reward(beta=2.0, length_discount=1.0)([], answers[:1], solution=[truth])
[1.0]
"""

from __future__ import annotations

from ffr.rewards.functions import (
    FragmentF1Reward,
    FragmentOrderReward,
    RewardFunction,
    format_reward,
    fragment_f1_reward,
    fragment_mcc_reward,
)
from ffr.rewards.reading import Completion

__all__ = [
    "Completion",
    "FragmentF1Reward",
    "FragmentOrderReward",
    "RewardFunction",
    "format_reward",
    "fragment_f1_reward",
    "fragment_mcc_reward",
]
