"""The training data of GRPO: prompts in an order of the data, and the longest of them."""

from __future__ import annotations

import os

import lightning as L

from ffr.data.dataset import ExampleDataset
from ffr.settings import GrpoConfig
from ffr.training.common.data import example_length
from ffr.training.common.packs import packs_of_queries
from ffr.training.grpo.loader import Order, PromptLoader, StepPrompts
from ffr.training.grpo.policy import Policy, Prompt

_NUM_LONGEST = 8
"""Examples that look longest; they are encoded to find the one that is."""


def prompts_per_step(config: GrpoConfig) -> int:
    """Prompts of a step, over all devices."""
    return config.batch_size * config.accumulate * config.devices


def num_steps_of(config: GrpoConfig, num_items: int) -> int:
    """Steps of a training that draws from so many items."""
    steps = max(1, -(-round(num_items * config.epochs) // prompts_per_step(config)))
    return steps if config.max_steps is None else min(steps, config.max_steps)


class GrpoData(L.LightningDataModule):
    """Prompts, drawn from an order when their step begins.

    Args:
        config: Settings.
        examples: The examples.
        policy: Encodes their prompts.
        order: Which examples come next.
        num_steps: Steps of the training.
    """

    def __init__(
        self,
        config: GrpoConfig,
        examples: ExampleDataset,
        policy: Policy,
        *,
        order: Order,
        num_steps: int,
    ) -> None:
        super().__init__()
        self._examples = examples
        self._policy = policy
        self._loader = PromptLoader(
            order,
            self._encode,
            num_steps=num_steps,
            prompts_per_step=prompts_per_step(config),
            process=int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))),
            num_processes=config.devices,
            num_workers=config.num_workers,
            dialogue_numbers=_dialogue_numbers(examples) if config.pack_queries else None,
        )

    def train_dataloader(self) -> PromptLoader:
        """The one loader of the training, whose position a checkpoint holds."""
        return self._loader

    def longest(self) -> tuple[int, Prompt]:
        """The index of the longest prompt, in tokens, of those that look longest, and the prompt.

        Raises:
            DataError: where one of them cannot be encoded or is too long.
        """
        lengths = [example_length(example) for example in self._examples]
        candidates = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)[
            :_NUM_LONGEST
        ]
        encoded = {index: self._encode(index) for index in candidates}
        longest = max(encoded, key=lambda index: encoded[index].num_tokens)
        return longest, encoded[longest]

    def longest_of(self, batch: StepPrompts) -> tuple[int, int]:
        """The example of a step's longest prompt, and its tokens."""
        lengths = [prompt.num_tokens for prompt in batch.prompts]
        place = max(range(len(lengths)), key=lengths.__getitem__)
        return batch.indices[place], lengths[place]

    def _encode(self, index: int) -> Prompt:
        return self._policy.encode(self._examples[index], self._examples.where(index))


def _dialogue_numbers(examples: ExampleDataset) -> list[int]:
    """For each item the number of its pack, the queries on one dialogue."""
    numbers = [0] * len(examples)
    for number, pack in enumerate(packs_of_queries(examples)):
        for index in pack:
            numbers[index] = number
    return numbers
