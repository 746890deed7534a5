"""What recall compares: the lines and pictures of a store that filters let through, as arrays.

Shapes: n lines or pictures, R rows of the vectors' matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffr.corpus.filters import Filters
from ffr.corpus.store import Store

Where = tuple[int, int]
"""A dialogue: the number of its chat, and its own in it."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Things that have vectors, each a message's.

    Args:
        messages: (n,) int64, numbers of messages in the store.
        chats: (n,) int64.
        dialogues: (n,) int64, within their chats.
        places: (n,) int64, rows of the matrix, below R; -1 where there is no vector.
    """

    messages: NDArray[np.int64]
    chats: NDArray[np.int64]
    dialogues: NDArray[np.int64]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.messages)

    def where(self, number: int) -> Where:
        """The dialogue of one of them."""
        return int(self.chats[number]), int(self.dialogues[number])

    def have(self, messages: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(m,) whether any of them is of a message, for each of m numbers of messages."""
        is_there = self._is_there
        known = messages < len(is_there)
        known[known] = is_there[messages[known]]
        return known

    def numbers_of(self, messages: NDArray[np.int64]) -> NDArray[np.int64]:
        """(m,) which of them is each of m messages' that are there; they are in order of messages."""
        return np.searchsorted(self.messages, messages)

    @cached_property
    def _is_there(self) -> NDArray[np.bool_]:
        """Whether a message is one of them, by its number."""
        marks = np.zeros(int(self.messages.max(initial=-1)) + 1, bool)
        marks[self.messages] = True
        return marks

    @cached_property
    def distinct(self) -> NDArray[np.int64]:
        """The rows of the matrix that they have, ascending."""
        return np.unique(self.places[self.places >= 0])

    @cached_property
    def _by_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.places, kind="stable")
        return order, self.places[order]

    @cached_property
    def _by_dialogue(self) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        # one number a dialogue, as in `Candidates.wheres`
        span = int(self.dialogues.max(initial=0)) + 1
        keys = self.chats * span + self.dialogues
        order = np.argsort(keys, kind="stable")
        return span, order, keys[order]

    def of_dialogue(self, where: Where) -> NDArray[np.int64]:
        """The numbers of those that are of a dialogue, in order."""
        span, order, keys = self._by_dialogue
        chat, dialogue = where
        if dialogue >= span:
            return order[:0]
        key = chat * span + dialogue
        start, stop = np.searchsorted(keys, key), np.searchsorted(keys, key, side="right")
        return order[start:stop]

    def of_rows(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The numbers of those that have a row of the matrix, in order, for each of some rows."""
        order, places = self._by_row
        starts = np.searchsorted(places, rows).tolist()
        stops = np.searchsorted(places, rows, side="right").tolist()
        for start, stop in zip(starts, stops, strict=True):
            yield order[start:stop]


@dataclass(frozen=True, eq=False)
class Candidates:
    """What filters let through.

    Args:
        lines: Every message, whether it has words or not.
        segments: Segments that a line of theirs lets through, each with its first such message.
        pictures: Pictures that have a vector, of themselves or of their words, with their message.
    """

    lines: Rows
    segments: Rows
    pictures: Rows

    @property
    def num_messages(self) -> int:
        """How many messages they are of."""
        return len(self.lines)

    @cached_property
    def wheres(self) -> list[Where]:
        """All dialogues, in order."""
        if not len(self.lines):
            return []
        # one number a dialogue: numpy sorts rows of two as structures, which is far slower
        span = int(self.lines.dialogues.max()) + 1
        numbers = np.unique(self.lines.chats * span + self.lines.dialogues)
        return [divmod(int(number), span) for number in numbers]


def allowed(store: Store, filters: Filters) -> tuple[str, list[object]]:
    """What a message must be to be looked for, and its dialogue, as SQL over `messages`.

    Raises:
        UsageError: where nobody has a name that is asked for.
    """
    condition, values = filters.condition(store)
    of_dialogue, more = filters.dialogue_condition()
    return " AND ".join(filter(None, [condition, of_dialogue])), [*values, *more]


def candidates(
    store: Store, filters: Filters, encoder: str | None, looker: str | None
) -> Candidates:
    """What filters let through.

    Args:
        store: The store.
        filters: What narrows it down.
        encoder: The key of the vectors; None where meaning is not asked.
        looker: Whose words for pictures count; None for none.
    """
    where, values = allowed(store, filters)
    lines = store.tuples(
        "SELECT messages.id, chat, dialogue, coalesce(vectors.place, -1) FROM messages "
        f"LEFT JOIN vectors ON vectors.encoder = ? AND vectors.key = text_key WHERE {where} "
        "ORDER BY messages.id",
        [encoder or "", *values],
    )
    segments = store.tuples(
        "SELECT min(messages.id), chat, dialogue, min(vectors.place) FROM messages "
        "JOIN segments USING (chat, dialogue) JOIN vectors ON vectors.encoder = ? "
        f"AND vectors.key = segments.key WHERE segment = number AND {where} "
        "GROUP BY chat, dialogue, number ORDER BY chat, dialogue, number",
        [encoder or "", *values],
    )
    attached = (
        "FROM attached JOIN messages ON messages.id = message "
        "JOIN files ON files.source = attached.source AND files.file = attached.file "
    )
    worded = store.tuples(
        f"SELECT messages.id, chat, dialogue, vectors.place {attached}"
        "JOIN shown ON shown.digest = files.digest AND looker = ? "
        f"JOIN vectors ON vectors.encoder = ? AND vectors.key = words_key WHERE {where} "
        "ORDER BY messages.id, attached.number",
        [looker or "", encoder or "", *values],
    )
    seen = store.tuples(
        f"SELECT messages.id, chat, dialogue, vectors.place {attached}"
        f"JOIN vectors ON vectors.encoder = ? AND vectors.key = files.digest WHERE {where}",
        [encoder or "", *values],
    )
    return Candidates(_rows(lines), _rows(segments), _rows([*worded, *seen]))


def _rows(found: Sequence[Sequence[Any]]) -> Rows:
    table = np.array(found, np.int64).reshape(-1, 4)
    return Rows(*np.ascontiguousarray(table.T))
