"""Baselines that look at words alone, and at none: what every result stands beside."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from ffr.answer import format_answer
from ffr.dialogue import Example, FilePrompt, Fragment
from ffr.errors import UsageError
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer

BASELINE_PREFIX = "baseline:"


def _everything(example: Example, seed: int) -> Fragment:
    return Fragment(
        tuple(range(len(example.dialogue.utterances))), tuple(range(len(example.dialogue.images)))
    )


def _nothing(example: Example, seed: int) -> Fragment:
    return Fragment()


def _random_third(example: Example, seed: int) -> Fragment:
    draw = random.Random(f"{seed} {example.key}")
    num_utterances, num_images = len(example.dialogue.utterances), len(example.dialogue.images)
    return Fragment.of(
        draw.sample(range(num_utterances), round(num_utterances / 3)),
        draw.sample(range(num_images), round(num_images / 3)),
    )


_WORD = re.compile(r"[a-z0-9]+")


_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def overlap_terms(text: str) -> set[str]:
    """What two texts may share: words of Latin letters and digits, pairs of Chinese characters.

    >>> sorted(overlap_terms("Bus 42, 公交车"))
    ['42', 'bus', '交车', '公交']
    """
    lowered = text.lower()
    terms = set(_WORD.findall(lowered))
    for run in _HAN.findall(lowered):
        terms.update(run[start : start + 2] for start in range(max(1, len(run) - 1)))
    return terms


def _overlap(example: Example, seed: int) -> Fragment:
    wanted = overlap_terms(example.query)
    chosen: list[int] = []
    is_chosen = False
    for utterance_id, utterance in enumerate(example.dialogue.utterances):
        # a line without words (a picture alone) goes with the line before it
        if utterance.text.strip():
            is_chosen = not wanted.isdisjoint(overlap_terms(utterance.text))
        if is_chosen:
            chosen.append(utterance_id)
    hosts = example.dialogue.image_utterance_ids
    return Fragment(
        tuple(chosen), tuple(image_id for image_id, host in enumerate(hosts) if host in set(chosen))
    )


BASELINES: dict[str, Callable[[Example, int], Fragment]] = {
    "everything": _everything,
    "nothing": _nothing,
    "random-third": _random_third,
    "overlap": _overlap,
}
"""`everything`: all ids. `nothing`: none. `random-third`.

A third of the utterances and of the images, drawn by seed and query. `overlap`: utterances that
share a word or a pair of Chinese characters with the query, wordless lines going with the line
before, and the images on them.
"""


def shared_words(example: Example, fragment: Fragment) -> float:
    """The score of an answer: the share of the query's terms that its utterances have.

    0 where the query has no terms.

    >>> from ffr.dialogue import Dialogue
    >>> chat = Dialogue.of([("a", "the bus is late"), ("b", "too bad")])
    >>> shared_words(Example(chat, "bus stop"), Fragment((0,)))
    0.5
    """
    wanted = overlap_terms(example.query)
    lines = example.dialogue.utterances
    found = set().union(*(overlap_terms(lines[item].text) for item in fragment.utterance_ids))
    return len(wanted & found) / len(wanted) if wanted else 0.0


class BaselineRetriever:
    """A trivial baseline by name; an answer's score is `shared_words`.

    Args:
        name: One of `BASELINES`.
        seed: Seed of the random one.

    Raises:
        UsageError: where there is no such baseline.

    >>> from ffr.dialogue import Dialogue, Utterance
    >>> chat = Dialogue("d", (Utterance("a", ("the bus is late",)), Utterance("b", ("too bad",))))
    >>> BaselineRetriever("overlap").answer([Example(chat, "bus stop")])[0].response
    '<|utt_ids_start|>[0]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>'
    """

    _BATCH = 256

    def __init__(self, name: str, *, seed: int = 0) -> None:
        if name not in BASELINES:
            raise UsageError(f"no baseline {name!r}; there are {', '.join(BASELINES)}")
        self._baseline = name
        self._seed = seed

    @property
    def name(self) -> str:
        return BASELINE_PREFIX + self._baseline

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "baseline", "name": self._baseline, "seed": self._seed}

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        return [
            list(range(start, min(start + self._BATCH, len(examples))))
            for start in range(0, len(examples), self._BATCH)
        ]

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def fragment(self, example: Example) -> Fragment:
        """The baseline's choice."""
        return BASELINES[self._baseline](example, self._seed)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        fragments = [self.fragment(example) for example in examples]
        return [
            Answer(format_answer(fragment), score=shared_words(example, fragment))
            for example, fragment in zip(examples, fragments, strict=True)
        ]
