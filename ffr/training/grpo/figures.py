"""The figures of a GRPO step: sums over its answers and passes, made into means over all processes.

Shapes: B prompts of the process, G answers to each, N = B·G answers, T reward terms.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ffr.training.grpo.rollout import Rollout


def step_columns(term_names: Sequence[str]) -> tuple[str, ...]:
    """Names of all figures that a step may have, in the order of `metrics.csv`.

    Args:
        term_names: Names of the T reward terms.

    >>> step_columns(["format"])[:4]
    ('loss', 'reward', 'reward_std', 'reward_format')
    """
    return (
        "loss", "reward", "reward_std", *(f"reward_{name}" for name in term_names), "kl",
        "clipped_low_share", "clipped_high_share", "sampling_gap_mean", "sampling_gap_max",
        "importance_capped_share", "entropy", "answer_tokens", "cut_off_share",
        "no_signal_share", "resampled", "learning_rate", "grad_norm", "tokens_per_second",
        "num_tokens", "seconds_rollout", "seconds_reference", "seconds_update", "peak_memory_mb",
        "level_easy", "level_medium", "level_confusing", "level_hard",
        "val_loss", "val_utterance_f1", "val_image_f1", "val_joint_f1", "val_malformed_share",
    )  # fmt: skip


class StepFigures:
    """Adds up what a step's row of `metrics.csv` is made of.

    Args:
        term_names: Names of the T reward terms.
    """

    def __init__(self, term_names: Sequence[str]) -> None:
        self.term_names = list(term_names)
        self.grad_norm = 0.0
        self.largest_gap = 0.0
        self._sums: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def add(self, **sums: float) -> None:
        """Adds to sums by their names."""
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def note_gradient(self, norm: float) -> None:
        """Keeps the norm of the last update, but one that is no finite number for good."""
        if math.isfinite(self.grad_norm):
            self.grad_norm = norm

    def note_gap(self, total: float, largest: float) -> None:
        """Adds what `ffr.training.grpo.sampling_gap.gap_sums` gives for a pass."""
        self.add(gap=total)
        # a gap that is no number stays, where max would drop it
        self.largest_gap = max(largest, self.largest_gap, key=lambda gap: (gap != gap, gap))

    def lap(self, part: str, since: float, *, device: torch.device) -> float:
        """Adds to the time that a part of the step took what has passed; gives the time now.

        Args:
            part: The part.
            since: When it began, in seconds of `time.perf_counter`.
            device: Where it ran; what was handed to it is waited for.
        """
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._seconds[part] = self._seconds.get(part, 0.0) + (now - since)
        return now

    def note_rollout(
        self, rollout: Rollout, *, reward_stds: Tensor, num_cut_off: int, num_prompt_tokens: int
    ) -> None:
        """Adds what was answered and earned.

        Args:
            rollout: The answers with their rewards.
            reward_stds: (B,) standard deviation of the rewards of each prompt's answers.
            num_cut_off: Answers that ended at the longest length.
            num_prompt_tokens: Tokens of the B prompts.
        """
        self.add(
            num_answers=float(len(rollout.answers)),
            num_prompts=float(len(rollout.indices)),
            reward=float(rollout.rewards.sum()),
            reward_std=float(reward_stds.sum()),
            answer_tokens=float(sum(len(answer.token_ids) for answer in rollout.answers)),
            cut_off=float(num_cut_off),
            dull=float(rollout.num_without_signal),
            attempts=float(rollout.num_attempts),
            prompt_tokens=float(num_prompt_tokens),
            **{
                f"term_{name}": float(rollout.values[:, number].sum())
                for number, name in enumerate(self.term_names)
            },
        )

    def take(
        self,
        sum_over_processes: Callable[[list[float]], list[float]],
        max_over_processes: Callable[[float], float],
    ) -> dict[str, float]:
        """The figures of the step; counting starts anew.

        Args:
            sum_over_processes: Adds up numbers over all processes.
            max_over_processes: The largest of all processes' numbers.
        """
        names = sorted(self._sums)
        found = sum_over_processes([self._sums[name] for name in names])
        sums = dict(zip(names, found, strict=True))
        answers, prompts = sums["num_answers"], sums["num_prompts"]
        tokens = max(1.0, sums["update_num_tokens"])
        scored = max(1.0, sums["num_scored"])
        figures = {
            "loss": sums["loss"],
            "grad_norm": self.grad_norm,
            "reward": sums["reward"] / answers,
            "reward_std": sums["reward_std"] / prompts,
            **{f"reward_{name}": sums[f"term_{name}"] / answers for name in self.term_names},
            "clipped_low_share": sums["update_clipped_low"] / tokens,
            "clipped_high_share": sums["update_clipped_high"] / tokens,
            "entropy": sums["entropy"] / scored,
            "answer_tokens": sums["answer_tokens"] / answers,
            "cut_off_share": sums["cut_off"] / answers,
            "no_signal_share": sums["dull"] / prompts,
            "resampled": sums["attempts"],
            "num_tokens": sums["prompt_tokens"] + sums["answer_tokens"],
            **{
                f"seconds_{part}": self._seconds.get(part, 0.0)
                for part in ("rollout", "reference", "update")
            },
        }
        figures["sampling_gap_mean"] = sums["gap"] / scored
        figures["sampling_gap_max"] = max_over_processes(self.largest_gap)
        if "capped" in sums:
            figures["importance_capped_share"] = sums["capped"] / scored
        if "update_kl" in sums:
            figures["kl"] = sums["update_kl"] / tokens
        self._sums, self._seconds, self.largest_gap = {}, {}, 0.0
        return figures
