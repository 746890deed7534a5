"""Baselines that look at words alone, and at none: what every result stands beside."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Utterance
from ffr.errors import UsageError
from ffr.prompt import prompt_of
from ffr.retrieval.bm25 import Bm25Index
from ffr.retrieval.interface import Answer
from ffr.text import one_line

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


def overlap_terms(text: str) -> list[str]:
    """What two texts may share: words of Latin letters and digits, pairs of Chinese characters.

    >>> overlap_terms("Bus 42, 公交车")
    ['bus', '42', '公交', '交车']
    """
    lowered = text.lower()
    terms = _WORD.findall(lowered)
    for run in _HAN.findall(lowered):
        terms += [run[start : start + 2] for start in range(max(1, len(run) - 1))]
    return terms


def _overlap(example: Example, seed: int) -> Fragment:
    wanted = set(overlap_terms(example.query))
    return with_followers(
        example.dialogue, lambda line: not wanted.isdisjoint(overlap_terms(line.text))
    )


def with_followers(dialogue: Dialogue, is_chosen: Callable[[Utterance], bool]) -> Fragment:
    """Chosen lines with words, the wordless lines behind them, and the images on them all.

    Args:
        dialogue: The dialogue.
        is_chosen: Of an utterance with words, whether it is chosen; asked in their order.

    >>> from ffr.dialogue import Image
    >>> chat = Dialogue.of([("a", "the bus"), ("a", Image("bus.png")), ("b", "tea")])
    >>> with_followers(chat, lambda line: "bus" in line.text)
    Fragment(utterance_ids=(0, 1), image_ids=(0,))
    """
    chosen: set[int] = set()
    is_with_it = False
    for utterance_id, utterance in enumerate(dialogue.utterances):
        # a line without words (a picture alone) goes with the line before it
        if utterance.text.strip():
            is_with_it = is_chosen(utterance)
        if is_with_it:
            chosen.add(utterance_id)
    hosts = dialogue.image_utterance_ids
    images = tuple(image_id for image_id, host in enumerate(hosts) if host in chosen)
    return Fragment(tuple(sorted(chosen)), images)


BM25_LINES = 10
"""How many lines BM25 and its fusion take, where their name does not say it."""


def bm25_scores(query: str, texts: Sequence[str]) -> list[float]:
    """BM25 of texts for a query, the texts being the whole collection (`Bm25Index`).

    Args:
        query: What is looked for.
        texts: The texts.

    Returns:
        A score for each text; 0 where it shares no term (`overlap_terms`).

    >>> [round(score, 3) for score in bm25_scores("bus", ["the bus", "a bus, a bus", "tea"])]
    [0.502, 0.546, 0.0]
    """
    scores = _index_of(tuple(texts)).scores(overlap_terms(query))
    return [float(score) for score in scores]


# all questions on a dialogue follow each other, and its lines are counted once
@lru_cache(maxsize=8)
def _index_of(texts: tuple[str, ...]) -> Bm25Index:
    return Bm25Index([overlap_terms(text) for text in texts])


def split_lines(name: str) -> tuple[str, int | None]:
    """A name, and how many lines it says are taken; None where it does not.

    >>> split_lines("bm25@3"), split_lines("bm25+e5")
    (('bm25', 3), ('bm25+e5', None))
    """
    base, _, number = name.rpartition("@")
    is_said = number.isascii() and number.isdecimal() and int(number[:9]) > 0 and len(number) < 9
    return (base, int(number)) if base and is_said else (name, None)


def _bm25(example: Example, seed: int, num_lines: int = BM25_LINES) -> Fragment:
    # a text that stands twice scores the same, and counts once among the lines that are taken
    texts = [line.text for line in example.dialogue.utterances if line.text.strip()]
    scores = dict(zip(texts, bm25_scores(example.query, texts), strict=True))
    ranked = sorted((text for text in scores if scores[text] > 0), key=lambda text: -scores[text])
    best = set(ranked[:num_lines])
    return with_followers(example.dialogue, lambda line: line.text in best)


BASELINES: dict[str, Callable[[Example, int], Fragment]] = {
    "everything": _everything,
    "nothing": _nothing,
    "random-third": _random_third,
    "overlap": _overlap,
    "bm25": _bm25,
}
"""`everything`: all ids. `nothing`: none. `random-third`.

A third of the utterances and of the images, drawn by seed and query. `overlap`: utterances that
share a word or a pair of Chinese characters with the query, wordless lines going with the line
before, and the images on them. `bm25`: likewise the ten texts of the highest BM25 above 0;
`bm25@3`: the three.
"""


def baseline_of(name: str) -> Callable[[Example, int], Fragment]:
    """What a baseline's name means.

    Args:
        name: One of `BASELINES`, or `bm25@N` for another number of lines.

    Raises:
        UsageError: where there is no such baseline.
    """
    base, num_lines = split_lines(name)
    if num_lines is not None and base == "bm25":
        return partial(_bm25, num_lines=num_lines)
    if name not in BASELINES:
        known = ", ".join(BASELINES)
        raise UsageError(f"no baseline {one_line(name)!r}; there are {known}, bm25@N")
    return BASELINES[name]


def shared_words(example: Example, fragment: Fragment) -> float:
    """The score of an answer: the share of the query's terms that its utterances have.

    0 where the query has no terms.

    >>> from ffr.dialogue import Dialogue
    >>> chat = Dialogue.of([("a", "the bus is late"), ("b", "too bad")])
    >>> shared_words(Example(chat, "bus stop"), Fragment((0,)))
    0.5
    """
    wanted = set(overlap_terms(example.query))
    lines = example.dialogue.utterances
    found = set().union(*(overlap_terms(lines[item].text) for item in fragment.utterance_ids))
    return len(wanted & found) / len(wanted) if wanted else 0.0


class BaselineRetriever:
    """A trivial baseline by name; an answer's score is `shared_words`.

    Args:
        name: As `baseline_of` takes it.
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
        self._choose = baseline_of(name)
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
        return self._choose(example, self._seed)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        fragments = [self.fragment(example) for example in examples]
        return [
            Answer(format_answer(fragment), score=shared_words(example, fragment))
            for example, fragment in zip(examples, fragments, strict=True)
        ]
