"""Which dialogues of a store a query may mean: by vectors of lines, and by words.

Shapes: n lines that may be found, R rows of the vectors' matrix, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffr.corpus.filters import Filters
from ffr.corpus.store import Store
from ffr.corpus.terms import query_terms
from ffr.corpus.vectors import StoredEncoder
from ffr.reader.query import plain_words
from ffr.retrieval.fusion import reciprocal_ranks

MAX_BY_MEANING = 12
MAX_BY_WORDS = 8
"""Dialogues that each way of recall hands on."""

_MAX_LINES = 400
_BLOCK = 65_536

# full text of messages, and of what stands in their pictures
_FULL_TEXT = {
    "words": "JOIN messages ON messages.id = matched.id",
    "shown_words": "JOIN shown ON shown.id = matched.id "
    "JOIN files ON files.digest = shown.digest JOIN attached ON attached.source = files.source "
    "AND attached.file = files.file JOIN messages ON messages.id = attached.message",
}

Where = tuple[int, int]
"""A dialogue: the number of its chat, and its own in it."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """A dialogue that may hold what is meant.

    Args:
        where: The dialogue.
        exact_lines: Messages of it that have every term of the query.
    """

    where: Where
    exact_lines: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Candidates:
    """The lines of a store that may be found, with the rows of their vectors; n with the pictures.

    Args:
        num_messages: How many messages they are of.
        chats: (n,) int64.
        dialogues: (n,) int64, within their chats.
        places: (n,) int64, rows of the matrix; -1 where a line has no vector.
    """

    num_messages: int
    chats: NDArray[np.int64]
    dialogues: NDArray[np.int64]
    places: NDArray[np.int64]

    @property
    def wheres(self) -> list[Where]:
        """All dialogues, in order."""
        pairs = np.unique(np.stack([self.chats, self.dialogues], 1), axis=0)
        return [(int(chat), int(dialogue)) for chat, dialogue in pairs]


def candidates(
    store: Store, filters: Filters, encoder: str | None, looker: str | None
) -> Candidates:
    """The lines that filters let through.

    Args:
        store: The store.
        filters: What narrows it down.
        encoder: The key of the vectors; None where meaning is not asked.
        looker: Whose words for pictures count; None for none.
    """
    condition, values = filters.condition(store)
    of_dialogue, more = filters.dialogue_condition()
    where = " AND ".join(filter(None, [condition, of_dialogue]))
    sql = (
        "SELECT chat, dialogue, coalesce(vectors.place, -1) FROM messages LEFT JOIN vectors "
        f"ON vectors.encoder = ? AND vectors.key = text_key WHERE {where}"
    )
    messages = store.tuples(sql, [encoder or "", *values, *more])
    shown = (
        "SELECT chat, dialogue, vectors.place FROM attached JOIN messages ON messages.id = message "
        "JOIN files ON files.source = attached.source AND files.file = attached.file "
        "JOIN shown ON shown.digest = files.digest AND looker = ? "
        f"JOIN vectors ON vectors.encoder = ? AND vectors.key = words_key WHERE {where}"
    )
    pictured = store.tuples(shown, [looker or "", encoder or "", *values, *more])
    table = np.array([*messages, *pictured], np.int64).reshape(-1, 3)
    return Candidates(len(messages), table[:, 0], table[:, 1], table[:, 2])


def recall(
    store: Store,
    query: str,
    lines: Candidates,
    filters: Filters,
    encoder: StoredEncoder | None,
    query_vector: Tensor | None,
) -> list[Recalled]:
    """The dialogues that a query may mean, the likeliest first.

    Those whose best lines lie closest to it, and those whose lines share its rarest words, are
    fused by their ranks.

    Args:
        store: The store.
        query: What is looked for.
        lines: What `candidates` gave for the filters.
        filters: What narrows it down.
        encoder: Whose vectors are compared; None for words alone.
        query_vector: (D,) of the query; None for words alone.
    """
    by_meaning: dict[Where, float] = {}
    if encoder is not None and query_vector is not None and len(lines.places):
        by_meaning = _by_meaning(lines, encoder.vectors.matrix(), query_vector)
    by_words, exact = _by_words(store, query, filters)
    known = list(dict.fromkeys([*by_meaning, *by_words]))
    earned = reciprocal_ranks(
        [[by_meaning.get(where) for where in known], [by_words.get(where) for where in known]]
    )
    order = sorted(range(len(known)), key=lambda number: -earned[number])
    return [Recalled(known[number], tuple(exact.get(known[number], ()))) for number in order]


def _by_meaning(
    lines: Candidates, matrix: NDArray[np.float32], query_vector: Tensor
) -> dict[Where, float]:
    """The dialogues with the lines closest to the query, with the cosine of the closest."""
    query = query_vector.numpy()
    scores = np.concatenate(
        [matrix[start : start + _BLOCK] @ query for start in range(0, len(matrix), _BLOCK)]
        or [np.zeros(0, np.float32)]
    )
    of_line = np.where(lines.places >= 0, scores[lines.places] if len(scores) else 0.0, -2.0)
    found: dict[Where, float] = {}
    # a dialogue is known by the closest of its lines
    for number in np.argsort(-of_line, kind="stable"):
        if of_line[number] <= -2.0 or len(found) == MAX_BY_MEANING:
            break
        where = (int(lines.chats[number]), int(lines.dialogues[number]))
        found.setdefault(where, float(of_line[number]))
    return found


def _by_words(
    store: Store, query: str, filters: Filters
) -> tuple[dict[Where, float], dict[Where, list[int]]]:
    """The dialogues with the lines of the highest BM25, and the lines that have every term."""
    terms = query_terms(plain_words(query))
    if not terms:
        return {}, {}
    condition, values = filters.condition(store)
    of_dialogue, more = filters.dialogue_condition()
    where = " AND ".join(filter(None, [condition, of_dialogue]))

    def asked(*, is_every: bool) -> list[tuple[int, int, int, float]]:
        found: list[tuple[int, int, int, float]] = []
        for table, joined in _FULL_TEXT.items():
            matched, sought = store.database.matched(table, terms, is_every=is_every)
            found += store.tuples(
                f"SELECT messages.id, chat, dialogue, score FROM {matched} AS matched {joined} "
                f"WHERE {where} ORDER BY score LIMIT ?",
                [*sought, *values, *more, _MAX_LINES],
            )
        return sorted(found, key=lambda row: row[3])

    scores: dict[Where, float] = {}
    exact: dict[Where, list[int]] = {}
    for id_, chat, dialogue, score in asked(is_every=True):
        exact.setdefault((chat, dialogue), []).append(id_)
        scores.setdefault((chat, dialogue), -score)
    for _, chat, dialogue, score in asked(is_every=False):
        if len(scores) >= MAX_BY_WORDS and (chat, dialogue) not in scores:
            continue
        scores.setdefault((chat, dialogue), -score)
    kept = sorted(scores, key=lambda place: -scores[place])[:MAX_BY_WORDS]
    return {place: scores[place] for place in kept}, {
        place: ids for place, ids in exact.items() if place in kept
    }


def as_vector(rows: Tensor) -> Tensor:
    """The one row of a query's vectors.

    Raises:
        ValueError: where there is not exactly one.
    """
    if rows.ndim != 2 or rows.shape[0] != 1:
        raise ValueError(f"vectors of shape {tuple(rows.shape)}; give one query")
    return torch.as_tensor(rows[0]).float()


def all_of(lines: Candidates, recalled: Sequence[Recalled]) -> list[Recalled]:
    """Every dialogue, those that were recalled first: where there are few, none is passed over."""
    seen = {item.where for item in recalled}
    return [*recalled, *(Recalled(where, ()) for where in lines.wheres if where not in seen)]
