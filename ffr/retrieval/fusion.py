"""BM25 and an encoder fused by their ranks: the honest baseline of a search by words and by meaning.

Four rankings of a dialogue's lines are added up: BM25 and cosine, each of the line alone and of the
line joined with its neighbours on either side.

Shapes: n lines with words of a dialogue.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

from ffr.answer import format_answer
from ffr.dialogue import Example, FilePrompt, Fragment
from ffr.embedding import Encoder
from ffr.embedding.prefixes import embed_lines, embed_queries
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer, by_dialogue
from ffr.retrieval.lexical import BASELINE_PREFIX, BM25_LINES, bm25_scores, with_followers

FUSION_PREFIX = f"{BASELINE_PREFIX}bm25+"

RANK_CONSTANT = 60
"""What is added to every rank, so that the first of one ranking does not outweigh all others."""

NEIGHBOURS = 1
"""Lines on either side that a line is joined with in the second ranking of each kind."""


def reciprocal_ranks(rankings: Sequence[Sequence[float | None]]) -> list[float]:
    """Reciprocal rank fusion: what each item earns of several rankings.

        s(i) = Σ_r 1 / (60 + rank_r(i))

    over the rankings that hold it (Cormack, Clarke and Büttcher, SIGIR 2009). The best has rank 1;
    equal scores share the best of their ranks.

    Args:
        rankings: For each ranking the scores of the same n items, None for one that it does not
            hold.

    Returns:
        n sums; 0 for an item that no ranking holds.

    Raises:
        ValueError: where rankings are of different length, or a score is not a number.

    >>> [round(60 * earned, 3) for earned in reciprocal_ranks([[0.9, 0.5, 0.5], [2.0, None, 3.0]])]
    [1.951, 0.968, 1.951]
    """
    if len({len(ranking) for ranking in rankings}) > 1:
        raise ValueError(f"rankings of {[len(ranking) for ranking in rankings]} items; give equal")
    sums = [0.0] * (len(rankings[0]) if rankings else 0)
    for number, ranking in enumerate(rankings):
        held = [score for score in ranking if score is not None]
        if any(score != score for score in held):
            raise ValueError(f"ranking {number} has a score that is not a number")
        ranks: dict[float, int] = {}
        for rank, score in enumerate(sorted(held, reverse=True), start=1):
            ranks.setdefault(score, rank)
        for item, its_score in enumerate(ranking):
            if its_score is not None:
                sums[item] += 1 / (RANK_CONSTANT + ranks[its_score])
    return sums


class FusionRetriever:
    """Answers with the lines that earn most of four rankings; wordless lines follow the line before.

    An answer's score is what its lines with words earn, at the mean, as a share of the most that
    can be earned: 1 for a single line that every ranking has first.

    Args:
        encoder: Makes the vectors of lines and queries.
        name: What tables call it.
        num_lines: How many lines are taken.
    """

    def __init__(self, encoder: Encoder, *, name: str, num_lines: int = BM25_LINES) -> None:
        self._encoder = encoder
        self._name = name
        self._num_lines = num_lines

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": "fusion",
            "name": self._name,
            "fingerprint": self._encoder.fingerprint,
            "num_neighbours": NEIGHBOURS,
            "num_lines": self._num_lines,
            "rank_constant": RANK_CONSTANT,
        }

    def plan(self, examples: Sequence[Example]) -> list[list[int]]:
        # all questions on a dialogue together, however many: its lines are embedded once
        return list(by_dialogue(examples).values())

    def prompt(self, example: Example) -> FilePrompt:
        return prompt_of(example)

    def answer(self, examples: Sequence[Example]) -> list[Answer]:
        found: dict[int, Answer] = {}
        for indices in by_dialogue(examples).values():
            of_one = [examples[index] for index in indices]
            found |= zip(indices, self._answer_on_one(of_one), strict=True)
        return [found[index] for index in range(len(examples))]

    def _answer_on_one(self, examples: Sequence[Example]) -> list[Answer]:
        """Answers of queries on one dialogue, whose lines are embedded once."""
        lines = [line.text.strip() for line in examples[0].dialogue.utterances]
        kept = [text for text in lines if text]
        joined = [
            " ".join(filter(None, lines[max(0, number - NEIGHBOURS) : number + NEIGHBOURS + 1]))
            for number, text in enumerate(lines)
            if text
        ]
        if not kept:
            return [Answer(format_answer(Fragment()), score=0.0) for _ in examples]
        vectors = embed_lines(self._encoder, [*kept, *joined]).double()
        queries = embed_queries(self._encoder, [example.query for example in examples]).double()
        cosines = (queries @ vectors.T).tolist()  # (queries, 2n): alone, then joined
        answers = []
        for example, row in zip(examples, cosines, strict=True):
            # a text that shares no term is not in BM25's ranking
            by_words = [
                [score or None for score in bm25_scores(example.query, texts)]
                for texts in (kept, joined)
            ]
            earned = reciprocal_ranks([*by_words, row[: len(kept)], row[len(kept) :]])
            answers.append(_answer_of(example, earned, self._num_lines))
        return answers


def _answer_of(example: Example, earned: Sequence[float], num_lines: int) -> Answer:
    best = heapq.nlargest(num_lines, range(len(earned)), key=earned.__getitem__)
    order = iter(range(len(earned)))
    chosen = frozenset(best)
    fragment = with_followers(example.dialogue, lambda _: next(order) in chosen)
    most = 4 / (RANK_CONSTANT + 1)
    share = sum(earned[number] for number in best) / (len(best) * most)
    return Answer(format_answer(fragment), score=share)
