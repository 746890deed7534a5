"""Answers to a step's prompts with their rewards.

Prompts whose answers all earn the same are answered anew, up to a bound.

Shapes: B prompts, G answers to each (answers of one prompt adjacent), N = B·G answers, T reward
terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ffr.dialogue import Example
from ffr.models.decoding.loop import Generated
from ffr.rewards.terms import RewardTerm, compute_rewards, total_rewards
from ffr.settings import GrpoConfig
from ffr.training.grpo.advantages import has_signal
from ffr.training.grpo.earlier import EarlierAnswers
from ffr.training.grpo.policy import Policy

RewardColumns = Callable[[int], dict[str, Any]]
"""From an index of the data to what the rewards may look at, one value a column."""


@dataclass
class Rollout:
    """What was answered and earned.

    Args:
        indices: Index in the data of each prompt, B of them.
        answers: N answers.
        values: (N, T) unweighted rewards.
        rewards: (N,) weighted sums.
        num_without_signal: Prompts whose answers all earned the same at first.
        num_attempts: Further attempts that were made for them, summed over prompts.
    """

    indices: list[int]
    answers: list[Generated]
    values: Tensor
    rewards: Tensor
    num_without_signal: int
    num_attempts: int


class Sampler:
    """Makes rollouts.

    Args:
        policy: What answers.
        config: Settings.
        terms: The rewards.
        columns: What they may look at.
    """

    def __init__(
        self,
        policy: Policy,
        config: GrpoConfig,
        terms: Sequence[RewardTerm],
        columns: RewardColumns,
    ) -> None:
        self.policy = policy
        self.config = config
        self.terms = list(terms)
        self.columns = columns
        self.earlier = EarlierAnswers(
            is_wanted=config.draft_tokens > 0, outlast_steps=config.devices == 1
        )

    def roll_out(
        self,
        indices: Sequence[int],
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        *,
        seed: int,
    ) -> Rollout:
        """Answers prompts and rewards the answers.

        Args:
            indices: Index of each prompt in the data.
            prompts: B prompts, as the policy encoded them.
            dialogue_numbers: Numbers of the prompts' dialogues, as `Policy.sample` takes them.
            seed: Seed of everything that is drawn here.

        Raises:
            RewardError: where a reward fails; the sentence names the sample.
        """
        self.earlier.begin_step()
        with self.policy.rolling_out():
            return self._roll_out(indices, prompts, dialogue_numbers, seed)

    def _roll_out(
        self,
        indices: Sequence[int],
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        seed: int,
    ) -> Rollout:
        size = self.config.num_generations
        generator = torch.Generator(device=self.policy.device).manual_seed(seed)
        answers, values, rewards = self._attempt(indices, prompts, dialogue_numbers, generator)
        dull = (~has_signal(rewards, size)).nonzero()[:, 0].tolist()
        num_without_signal, num_attempts = len(dull), 0
        for _ in range(self.config.resample_attempts):
            if not dull:
                break
            num_attempts += len(dull)
            again, new_values, new_rewards = self._attempt(
                [indices[item] for item in dull],
                [prompts[item] for item in dull],
                [dialogue_numbers[item] for item in dull],
                generator,
            )
            still_dull = []
            for place, (item, found) in enumerate(
                zip(dull, has_signal(new_rewards, size).tolist(), strict=True)
            ):
                if not found:
                    still_dull.append(item)
                    continue
                # prompt `item` of the step is prompt `place` of this attempt; G answers of each lie
                # side by side
                old, new = (
                    slice(item * size, (item + 1) * size),
                    slice(place * size, (place + 1) * size),
                )
                answers[old], values[old], rewards[old] = (
                    again[new],
                    new_values[new],
                    new_rewards[new],
                )
            dull = still_dull
        return Rollout(list(indices), answers, values, rewards, num_without_signal, num_attempts)

    def _attempt(
        self,
        indices: Sequence[int],
        prompts: Sequence[Any],
        dialogue_numbers: Sequence[int],
        generator: torch.Generator,
    ) -> tuple[list[Generated], Tensor, Tensor]:
        config = self.config
        answers: list[Generated] = []
        width = config.prompts_at_once
        for start in range(0, len(prompts), width):
            some = slice(start, start + width)
            earlier = [self.earlier.of(index) for index in indices[some]]
            answered = self.policy.sample(prompts[some], dialogue_numbers[some], generator, earlier)
            for index, group in zip(indices[some], answered, strict=True):
                self.earlier.note(index, [answer.token_ids for answer in group])
                answers += group
        # a row an answer: a prompt's columns stand G times, side by side
        rows = [self.columns(index) for index in indices for _ in range(config.num_generations)]
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
        columns["completion_ids"] = [list(answer.token_ids) for answer in answers]
        columns["answer_style"] = [config.answer_style] * len(answers)
        asked = columns.pop("prompt")
        names = [f"dialogue {row['dialogue_id']!r}, query {row['query']!r}" for row in rows]
        values = compute_rewards(
            self.terms, asked, [answer.text for answer in answers], columns, names
        )
        return answers, values, total_rewards(values, self.terms)


def columns_of(text: Callable[[Example], str], data: Any) -> RewardColumns:
    """What rewards may look at, from a data set of examples.

    Args:
        text: The prompt that each example is asked with.
        data: The data set.
    """
    from ffr.answer import format_answer

    def columns(index: int) -> dict[str, Any]:
        example = data[index]
        dialogue = example.dialogue
        assert example.fragment is not None
        return {
            "prompt": text(example),
            "solution": format_answer(example.fragment),
            "dialogue_id": dialogue.id,
            "query": example.query,
            "utterances": [line.text for line in dialogue.utterances],
            "images": [str(location) for location in example.image_locations()],
            "image_utterance_ids": list(dialogue.image_utterance_ids),
        }

    return columns
