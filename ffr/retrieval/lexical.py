"""Baselines that look at words alone, and at none: what every result stands beside."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, FilePrompt, Fragment, Utterance
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


BM25_K1, BM25_B, BM25_LINES = 1.5, 0.75, 10
"""Saturation of repeated terms, weight of a line's length, and how many lines are taken."""


def bm25_scores(query: str, texts: Sequence[str]) -> list[float]:
    """Okapi BM25 of texts for a query, the texts being the whole collection.

        score(d) = Σ_t log(1 + (N − n_t + ½) / (n_t + ½)) · f (k1 + 1) / (f + k1 (1 − b + b |d| / m))

    over the query's different terms t (`overlap_terms`), with f its number in d, n_t the texts that
    hold it, N all texts and m their mean length, k1 = 1.5 and b = 0.75 (Robertson and Zaragoza,
    2009; the logarithm is Lucene's, never below 0).

    Args:
        query: What is looked for.
        texts: The texts.

    Returns:
        A score for each text; 0 where it shares no term.

    >>> [round(score, 3) for score in bm25_scores("bus", ["the bus", "a bus, a bus", "tea"])]
    [0.502, 0.546, 0.0]
    """
    counts = [Counter(overlap_terms(text)) for text in texts]
    lengths = [count.total() for count in counts]
    mean_length = sum(lengths) / len(texts) if texts else 0.0
    scores = [0.0] * len(texts)
    for term in dict.fromkeys(overlap_terms(query)):
        num_with = sum(term in count for count in counts)
        weight = math.log1p((len(texts) - num_with + 0.5) / (num_with + 0.5))
        for number, count in enumerate(counts):
            if frequency := count[term]:
                norm = 1 - BM25_B + BM25_B * lengths[number] / mean_length
                gain = frequency * (BM25_K1 + 1) / (frequency + BM25_K1 * norm)
                scores[number] += weight * gain
    return scores


def _bm25(example: Example, seed: int) -> Fragment:
    # a text that stands twice scores the same, and counts once among the lines that are taken
    texts = [line.text for line in example.dialogue.utterances if line.text.strip()]
    scores = dict(zip(texts, bm25_scores(example.query, texts), strict=True))
    ranked = sorted((text for text in scores if scores[text] > 0), key=lambda text: -scores[text])
    best = set(ranked[:BM25_LINES])
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
before, and the images on them. `bm25`: likewise the ten texts of the highest BM25 above 0.
"""


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
