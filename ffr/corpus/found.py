"""What a search found: fragments in their chats, how each came about, and in which order they stand.

A query is asked inside several stretches of a dialogue where that is long, so that one fragment may
be found more than once. Hits of one dialogue that share a line (one is the other, lies within it,
or overlaps it) become one: all of their lines, the highest score, whatever found any of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ffr.corpus.candidates import Where
from ffr.corpus.store import Line, Store, StoredChat
from ffr.text import counted

LEAST_SCORE, LEAST_SHARE = 0.5, 0.6
"""Of several hits, those are weak whose score is below this, or below this share of the best."""

# what counts in the order of hits; chosen on queries of one development set and checked on others
# (docs/archive-eval.md)
_WEIGHTS = {"lines": 1.0, "segments": 1.0, "pictures": 0.5, "words": 0.5}
_SCORE_WEIGHT = 2.0
_MOST_SURE = 0.99
_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class Hit:
    """A fragment that was found.

    Args:
        chat: The chat that it is of.
        lines: Those of the fragment, in order.
        pictures: Those of its pictures: number of the line in the store, and of the medium in it.
        score: How sure the model is, from 0 to 1; None where it is not known, or where the words
            alone were found.
        found_by: `meaning` where the model found it, `words` where a line has every word of the
            query, `recall` where no model was asked.
        ways: The ways by which its dialogue was recalled, with its rank in each.
        likenesses: How like the query its dialogue is in each way (`Recalled.likenesses`).
        words: The words of the query that stand in it.
        is_weak: Whether its score is weak beside those of others.
    """

    chat: StoredChat
    lines: tuple[Line, ...]
    pictures: frozenset[tuple[int, int]]
    score: float | None
    found_by: tuple[str, ...]
    ways: Mapping[str, int] = field(default_factory=dict)
    likenesses: Mapping[str, float] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    is_weak: bool = False

    @property
    def span(self) -> tuple[int, int]:
        """The places of its first and its last line in its chat."""
        return self.lines[0].place, self.lines[-1].place

    @property
    def where(self) -> Where:
        """Its dialogue."""
        return self.chat.id, self.lines[0].dialogue


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Args:
        query: What was looked for.
        hits: The best first.
        num_searched: Messages that were looked through.
        num_messages: Messages of the chats, filtered or not.
        num_not_understood: Lines of their exports that could not be read.
        num_more: Further hits that were not asked for.
        failures: Why the model could not answer on some dialogues, a sentence each.
    """

    query: str
    hits: tuple[Hit, ...]
    num_searched: int
    num_messages: int
    num_not_understood: int
    num_more: int
    failures: tuple[str, ...] = ()

    @property
    def searched(self) -> str:
        """What was looked through, in words."""
        said = f"searched {self.num_searched:,} of {counted(self.num_messages, 'message')}"
        if self.num_not_understood:
            lines = counted(self.num_not_understood, "line")
            said += f"; {lines} could not be read"
        if self.failures:
            said += (
                f"; {counted(len(self.failures), 'dialogue')} could not be answered on, the first "
                f"because {self.failures[0]}"
            )
        return said

    def cut(self, most: int, *, has_weak: bool) -> Found:
        """The best so many hits.

        Args:
            most: How many at most.
            has_weak: Whether weak ones stay, behind the others.
        """
        kept = [hit for hit in self.hits if has_weak or not hit.is_weak]
        return replace(self, hits=tuple(kept[:most]), num_more=len(kept[most:]))


def merged(hits: Sequence[Hit]) -> list[Hit]:
    """Hits of one dialogue, those that share a line made one, in the order of their first.

    Args:
        hits: Of one dialogue.
    """
    kept: list[Hit] = []
    for hit in hits:
        ids = {line.id for line in hit.lines}
        shared = [other for other in kept if any(line.id in ids for line in other.lines)]
        if not shared:
            kept.append(hit)
            continue
        one = _joined([*shared, hit])
        first = kept.index(shared[0])
        kept = [other for other in kept if other not in shared]
        kept.insert(first, one)
    return kept


def _joined(hits: Sequence[Hit]) -> Hit:
    lines = {line.id: line for hit in hits for line in hit.lines}
    scores = [hit.score for hit in hits if hit.score is not None]
    return replace(
        hits[0],
        lines=tuple(sorted(lines.values(), key=lambda line: line.place)),
        pictures=frozenset().union(*(hit.pictures for hit in hits)),
        score=max(scores, default=None),
        found_by=tuple(dict.fromkeys(name for hit in hits for name in hit.found_by)),
        words=tuple(dict.fromkeys(word for hit in hits for word in hit.words)),
    )


def told_apart(hits: Sequence[Hit]) -> list[Hit]:
    """Hits with those marked that are weak beside the others, in their order.

    A score knows one dialogue alone, and among many some seem to hold anything: where a chat is one
    dialogue nothing is weak. What was found by its words, or has no score, is not.
    """
    if len(hits) < 2:
        return list(hits)
    best = max(hit.score or 0.0 for hit in hits)
    least = max(LEAST_SCORE, LEAST_SHARE * best)
    return [
        replace(
            hit,
            is_weak=hit.score is not None and "words" not in hit.found_by and hit.score < least,
        )
        for hit in hits
    ]


def in_order(hits: Sequence[Hit]) -> list[Hit]:
    """Hits, the best first and the weak ones last, given in the order of their recall.

    Those with a line that has every word of the query go before the others; among them counts
    `evidence`.
    """
    earned = evidence(hits)
    order = sorted(
        range(len(hits)),
        key=lambda number: (
            hits[number].is_weak,
            "words" not in hits[number].found_by,
            -earned[number],
        ),
    )
    return [hits[number] for number in order]


def evidence(hits: Sequence[Hit]) -> list[float]:
    """What speaks for each hit beside the others that were found.

    The sum of the log-odds of the model's score, which knows one dialogue alone, and of how far the
    likenesses of their dialogues lie above the mean of all hits, in deviations: by the weights
    `_WEIGHTS`. What a way did not find counts as its last one, and a score that is not known as even odds.
    """
    earned = [_SCORE_WEIGHT * _log_odds(hit.score) for hit in hits]
    for way, weight in _WEIGHTS.items():
        for number, standing in enumerate(_standings([hit.likenesses.get(way) for hit in hits])):
            earned[number] += weight * standing
    return earned


def _log_odds(score: float | None) -> float:
    """0 where it is not known; near certainty counts as .99, so that no hit wins by it alone."""
    if score is None:
        return 0.0
    odds = min(max(score, 1 - _MOST_SURE), _MOST_SURE)
    return math.log(odds / (1 - odds))


def _standings(likenesses: Sequence[float | None]) -> list[float]:
    """How many standard deviations each lies above the mean; 0 where all are alike.

    >>> [round(value, 2) for value in _standings([3.0, 1.0, None])]
    [1.41, -0.71, -0.71]
    """
    known = [value for value in likenesses if value is not None]
    if not known:
        return [0.0] * len(likenesses)
    values = [min(known) if value is None else value for value in likenesses]
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / deviation if deviation > _LEAST else 0.0 for value in values]


def lines_around(store: Store, hit: Hit, num_around: int, most: int | None = None) -> list[Line]:
    """The lines of a hit, with so many before and behind each of them.

    Args:
        store: Where it is from.
        hit: The hit.
        num_around: How many on either side.
        most: How many lines of the hit itself; None for all.
    """
    near = {
        place
        for line in hit.lines[:most]
        for place in range(line.place - num_around, line.place + num_around + 1)
    }
    found = store.lines(hit.chat.id, max(0, min(near)), max(near) + 1)
    return [line for line in found if line.place in near]
