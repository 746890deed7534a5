"""A vision-language model's step cut into passes: which prompts and answers go through it at once.

Shapes: B prompts of the process, G answers to each, N = B·G answers, C tokens of the longest answer
of a pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ffr.models.decoding.loop import Generated
from ffr.models.packing import neighbours_of, pack
from ffr.models.rows import Encoded
from ffr.settings import GrpoConfig
from ffr.training.grpo.policy import Pass


def cut_passes(
    prompts: Sequence[Encoded],
    dialogue_numbers: Sequence[int],
    answers: Sequence[Generated],
    config: GrpoConfig,
    placeholder_ids: frozenset[int],
) -> list[Pass]:
    """Cuts a step into passes of `batch_size` prompts, each with `answers_per_pass` answers.

    Where prompts on one dialogue are packed, each dialogue has its own pass: beside another one
    its row would be filled up.

    Args:
        prompts: The step's B prompts.
        dialogue_numbers: Numbers of their dialogues.
        answers: The N answers to them, those of one prompt side by side.
        config: Settings.
        placeholder_ids: Ids that stand for images; prompts share what holds all of them.
    """
    size, width = config.num_generations, config.batch_size
    at_once = config.answers_per_pass or size
    passes = []
    for start in range(0, len(prompts), width):
        parts = neighbours_of(
            prompts[start : start + width],
            dialogue_numbers[start : start + width],
            placeholder_ids,
        )
        # prompts keep their number in the step: their answers lie at number · G
        numbers = itertools.count(start)
        numbered = [[(next(numbers), prompt) for prompt in part] for part in parts]
        for together in [[part] for part in numbered] if config.pack_queries else [numbered]:
            for first in range(0, size, at_once):
                places = range(first, min(first + at_once, size))
                passes.append(_pass_of(together, places, size, answers, placeholder_ids))
    return passes


def _pass_of(
    parts: list[list[tuple[int, Encoded]]],
    places: range,
    size: int,
    answers: Sequence[Generated],
    placeholder_ids: frozenset[int],
) -> Pass:
    """Some of the `size` answers to prompts, of which those of a part share a dialogue."""
    item = Pass([], [], [], [])
    for part in parts:
        rows = []
        for number, prompt in part:
            numbers = [number * size + place for place in places]
            # answers of a prompt lie side by side, so that their numbers give rows of advantages
            for ids in (list(answers[number].token_ids) for number in numbers):
                rows.append(Encoded(prompt.input_ids + ids, len(ids), prompt.images))
            item.answers += numbers
        packed = pack(rows, placeholder_ids)
        item.prompts += packed.prompts
        item.branches += packed.branches
        item.num_scored += packed.num_scored
    return item
