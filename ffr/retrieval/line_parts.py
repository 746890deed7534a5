"""The parts of a line as `lines` sees them: what is said, what its picture shows, what is replied.

A line of a benchmark may hold all three, and a question mostly means one of them.

Shapes: N lines with words of a dialogue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffr.retrieval.bm25 import Bm25Index
from ffr.retrieval.line_features import Lines, Numbers, by_rank, share, shifted, standing, terms_of
from ffr.retrieval.line_words import stems, wanted

_PICTURE = re.compile(r"\[picture(?:: ((?:[^\[\]]|\[[^\[\]]*\])*))?\]")
_REPLY = "assistant:"


def parts_of(line: str) -> tuple[str, str, str]:
    """What is said in a line, the captions of its pictures, and the reply that stands in it.

    >>> parts_of("Look at her! [picture: a cat] assistant: How sweet!")
    ('Look at her!', 'a cat', 'How sweet!')
    """
    captions = " ".join(match[1] or "" for match in _PICTURE.finditer(line))
    own, _, reply = _PICTURE.sub(" ", line).partition(_REPLY)
    return own.strip(), captions, reply.strip()


@dataclass(frozen=True, slots=True, eq=False)
class LineParts:
    """The parts of a dialogue's lines, counted once.

    Args:
        indices: BM25 over the stems of each part.
        asks: (N,) 1 where what is said ends in a question mark.
        of_line: (N, 5) what is seen of a line whatever is asked: how long each part is, how many
            lines its sitting has from it on, and in all.
    """

    indices: tuple[Bm25Index, Bm25Index, Bm25Index]
    asks: Numbers
    of_line: Numbers


def line_parts(lines: Lines) -> LineParts:
    """The parts of a dialogue's lines.

    Args:
        lines: The lines.
    """
    parts = [parts_of(text) for text in lines.texts]
    own, captions, replies = (
        Bm25Index([stems(part[place]) for part in parts]) for place in range(3)
    )
    lengths = [np.log1p([len(part[place]) for part in parts]) for place in range(3)]
    starts = np.searchsorted(lines.sessions, lines.sessions)
    ends = np.searchsorted(lines.sessions, lines.sessions, side="right")
    beside = [*lengths, ends - np.arange(len(lines)), ends - starts]
    return LineParts(
        (own, captions, replies),
        np.array([part[0].endswith(("?", "？")) for part in parts], dtype=np.float64),
        np.stack(beside, axis=-1).astype(np.float64),
    )


def part_features(lines: Lines, parts: LineParts, query: str) -> NDArray[np.float32]:
    """What is seen of each line by its parts, by its sitting, and by how much a question wants.

    Args:
        lines: The lines.
        parts: Theirs.
        query: The question.

    Returns:
        (N, F).

    >>> from ffr.dialogue import Dialogue
    >>> from ffr.retrieval.line_features import lines_of
    >>> chat = lines_of(Dialogue.of([("Ann", "Look! [picture: a cat]"), ("Ann", "My cat")]))
    >>> seen = part_features(chat, line_parts(chat), "Which picture shows a cat?")
    >>> (seen[:, [0, 4]] > 0).tolist()  # BM25 of what is said, and of the caption
    [[False, True], [True, False]]
    """
    terms = terms_of(lines, query)
    single = lines.single.scores(terms)
    columns = []
    for index in parts.indices:
        scores = index.scores(terms)
        columns += [scores, standing(scores), by_rank(scores)[1], share(index, terms)]
    columns += [
        *parts.of_line.T,
        shifted(parts.asks, 1) * shifted(single, 1),  # what follows a question that shares words
        parts.asks * single,
        shifted(parts.asks, -1),
        _of_sitting(lines, terms),
        _alone(lines, terms),
    ]
    wants = np.array(wanted(query), dtype=np.float64)
    everywhere = np.broadcast_to(wants, (len(lines), len(wants)))
    return np.concatenate([np.stack(columns, -1), everywhere], axis=-1).astype(np.float32)


def _of_sitting(lines: Lines, terms: list[str]) -> Numbers:
    """The share of a question's terms, weighted by rarity, that the sitting of each line has."""
    if not len(lines):
        return np.zeros(0)
    matches = [lines.single.match(term) for term in terms]
    held = np.zeros(int(lines.sessions[-1]) + 1)
    for match in matches:
        held[np.unique(lines.sessions[match.places])] += match.weight
    total = sum(match.weight for match in matches)
    return np.asarray(held[lines.sessions] / max(total, 1e-6))


def _alone(lines: Lines, terms: list[str]) -> Numbers:
    """One by the number of lines that share the rarest term of each line; 0 of one without."""
    found = np.zeros(len(lines))
    for term in terms:
        places = lines.single.match(term).places
        found[places] = np.maximum(found[places], 1 / max(1, len(places)))
    return found
