"""What `lines` sees of each line for a question: words in common, where and when it stands, who says it.

Shapes: N lines with words of a dialogue, F numbers a line, k of them whatever is asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from ffr.dialogue import Dialogue
from ffr.retrieval.bm25 import Bm25Index
from ffr.retrieval.lexical import overlap_terms
from ffr.retrieval.line_times import time_features
from ffr.retrieval.line_words import (
    ASKED,
    SAID,
    asked,
    beginnings,
    content_stems,
    pairs,
    said,
    stems,
)

Numbers = NDArray[np.float64]

_WIDE = 4
"""Lines on either side in the widest view."""
_SHIFTS = (-2, -1, 1, 2)
_LEAST = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """The lines with words of a dialogue, counted once.

    Args:
        texts: Their words.
        utterance_ids: Which utterances they are, ascending.
        speakers: Who says each, in small letters.
        sessions: (N,) int64, the number of the sitting that each belongs to, from 0.
        days: On which day each was said; None where that is not known.
        single: BM25 over the stems of each.
        near: Of each with its neighbours on either side.
        wide: Of each with four on either side.
        plain: Over all words as they stand.
        pairs: Over pairs of neighbouring stems.
        beginnings: Over the first letters of stems.
        of_line: (N, k) what is seen of a line whatever is asked.
    """

    texts: tuple[str, ...]
    utterance_ids: tuple[int, ...]
    speakers: tuple[str, ...]
    sessions: NDArray[np.int64]
    days: tuple[date | None, ...]
    single: Bm25Index
    near: Bm25Index
    wide: Bm25Index
    plain: Bm25Index
    pairs: Bm25Index
    beginnings: Bm25Index
    of_line: Numbers

    def __len__(self) -> int:
        return len(self.texts)


def lines_of(
    dialogue: Dialogue,
    sessions: Sequence[object] | None = None,
    days: Sequence[date | None] | None = None,
) -> Lines:
    """The lines of a dialogue.

    Args:
        dialogue: The dialogue.
        sessions: What names the sitting that each utterance belongs to; None where all are of one.
        days: On which day each utterance was said; None where that is known of none.

    Raises:
        ValueError: where there are not as many names or days as utterances.

    >>> chat = Dialogue.of([("Ann", "the bus is late"), ("Bob", ""), ("Bob", "too bad")])
    >>> lines_of(chat).utterance_ids
    (0, 2)
    """
    utterances = dialogue.utterances
    for what, told in (("sessions", sessions), ("days", days)):
        if told is not None and len(told) != len(utterances):
            raise ValueError(
                f"{len(told)} {what} beside {len(utterances)} utterances; give one each"
            )
    kept = [place for place, line in enumerate(utterances) if line.text.strip()]
    texts = [utterances[place].text.strip() for place in kept]
    names = [None] * len(kept) if sessions is None else [sessions[place] for place in kept]
    changes = [first != second for first, second in itertools.pairwise(names)]
    numbers = np.cumsum([0, *changes])[: len(kept)].astype(np.int64)
    terms = [stems(text) for text in texts]
    return Lines(
        tuple(texts),
        tuple(kept),
        tuple(utterances[place].speaker.lower() for place in kept),
        numbers,
        tuple(None if days is None else days[place] for place in kept),
        Bm25Index(terms),
        Bm25Index(_joined(terms, 1)),
        Bm25Index(_joined(terms, _WIDE)),
        Bm25Index([overlap_terms(text) for text in texts]),
        Bm25Index([pairs(content_stems(text)) for text in texts]),
        Bm25Index([beginnings(row) for row in terms]),
        _of_line(texts, numbers),
    )


def _joined(rows: Sequence[list[str]], reach: int) -> list[list[str]]:
    return [
        [*itertools.chain.from_iterable(rows[max(0, place - reach) : place + reach + 1])]
        for place in range(len(rows))
    ]


def _of_line(texts: Sequence[str], sessions: NDArray[np.int64]) -> Numbers:
    """(N, k) of each line: what it says, its length, its place, and what stands beside it."""
    count = len(texts)
    if not count:
        return np.zeros((0, len(SAID) + 5))
    says = np.array([said(text) for text in texts], dtype=np.float64).reshape(count, len(SAID))
    is_question, has_picture = (says[:, list(SAID).index(name)] for name in ("question", "picture"))
    places = np.arange(count)
    starts = np.searchsorted(sessions, sessions)
    lengths = np.log1p([len(text) for text in texts])
    beside = [
        lengths,
        np.log1p(places - starts),
        places / count,
        shifted(is_question, 1),
        shifted(has_picture, -1),
    ]
    return np.concatenate([says, np.stack(beside, axis=-1)], axis=-1)


def line_features(lines: Lines, query: str) -> tuple[NDArray[np.float32], Numbers]:
    """What is seen of each line for a query.

    Args:
        lines: The lines.
        query: The query.

    Returns:
        (N, F), and (N,) a first guess at how likely each line is, to leave out what is not.

    >>> chat = lines_of(Dialogue.of([("Ann", "the bus is late"), ("Bob", "too bad")]))
    >>> features, likely = line_features(chat, "When does the bus come?")
    >>> len(features), bool(likely[0] > likely[1])
    (2, True)
    """
    speakers = set(lines.speakers)
    terms = terms_of(lines, query)
    single, near = lines.single.scores(terms), lines.near.scores(terms)
    columns = [
        *_of_matches(lines.single, terms),
        *_of_view(lines.single, single, terms),
        *_of_view(lines.near, near, terms),
        _relative(lines.wide.scores(terms)),
        share(lines.wide, terms),
        *(shifted(single, shift) for shift in _SHIFTS),
        *by_rank(lines.plain.scores(overlap_terms(query))),
        lines.pairs.scores(pairs(terms)),
        *by_rank(lines.beginnings.scores(beginnings(terms))),
        *_of_speakers(lines, query, speakers),
        *of_sessions(lines.sessions, single),
    ]
    asks = np.array(asked(query), dtype=np.float64)
    columns += [
        asks[list(ASKED).index(wanted)] * lines.of_line[:, list(SAID).index(holds)]
        for wanted, holds in (("when", "time"), ("number", "number"), ("picture", "picture"))
    ]
    weights = sum(lines.single.match(term).weight for term in terms)
    of_all = [*asks, len(terms), weights, single.max(initial=0.0), np.log1p(len(lines))]
    everywhere = np.broadcast_to(np.array(of_all, dtype=np.float64), (len(lines), len(of_all)))
    times = time_features(query, lines.days)
    found = np.concatenate([np.stack(columns, -1), times, lines.of_line, everywhere], axis=-1)
    return found.astype(np.float32), single + near / 2


def terms_of(lines: Lines, query: str) -> list[str]:
    """The stems of a query, less those of every text and of the speakers' names."""
    of_names = {stem for speaker in {*lines.speakers} for stem in stems(speaker)}
    return [stem for stem in dict.fromkeys(content_stems(query)) if stem not in of_names]


def _of_matches(index: Bm25Index, terms: Iterable[str]) -> list[Numbers]:
    """How many terms a line shares, the rarest of them, and the share of all that it has."""
    number, rarest = np.zeros(index.num_texts), np.zeros(index.num_texts)
    for term in terms:
        match = index.match(term)
        number[match.places] += 1
        rarest[match.places] = np.maximum(rarest[match.places], match.weight)
    return [number, rarest]


def share(index: Bm25Index, terms: Sequence[str]) -> Numbers:
    """The share of a query's terms, weighted by rarity, that each text has."""
    found, total = np.zeros(index.num_texts), _LEAST
    for term in terms:
        match = index.match(term)
        found[match.places] += match.weight
        total += match.weight
    return found / total


def _of_view(index: Bm25Index, scores: Numbers, terms: Sequence[str]) -> list[Numbers]:
    return [scores, *by_rank(scores), share(index, terms), standing(scores)]


def by_rank(scores: Numbers) -> list[Numbers]:
    """A score beside the best one, and by its rank, high and low."""
    rank = (-scores).argsort(kind="stable").argsort(kind="stable")
    return [_relative(scores), 1 / (1.0 + rank), np.log1p(rank) / np.log(len(scores) + 2)]


def _relative(scores: Numbers) -> Numbers:
    return scores / max(float(scores.max(initial=0.0)), _LEAST)


def standing(scores: Numbers) -> Numbers:
    """Deviations from the mean over the dialogue; 0 where all are the same."""
    spread = float(scores.std()) if len(scores) else 0.0
    return (scores - scores.mean()) / spread if spread > _LEAST else np.zeros_like(scores)


def shifted(values: Numbers, by: int) -> Numbers:
    """The value of the line so many before (after, where negative); 0 beyond the ends."""
    found = np.zeros_like(values)
    if by > 0:
        found[by:] = values[:-by]
    else:
        found[:by] = values[-by:]
    return found


def _of_speakers(lines: Lines, query: str, speakers: Iterable[str]) -> list[Numbers]:
    """Whether who speaks is named in the query; whether only others are."""
    words = set(overlap_terms(query))
    # a first name is how people are asked about
    named = {speaker for speaker in speakers if words.intersection(overlap_terms(speaker)[:1])}
    is_named = np.array([speaker in named for speaker in lines.speakers], dtype=np.float64)
    return [is_named, (1 - is_named) * bool(named)]


def of_sessions(sessions: NDArray[np.int64], scores: Numbers) -> list[Numbers]:
    """How the best line of a line's session stands among those of all sessions."""
    if not len(sessions):
        return [np.zeros(0)]
    best = np.full(int(sessions.max()) + 1, -np.inf)
    np.maximum.at(best, sessions, scores)
    return [standing(best)[sessions]]
