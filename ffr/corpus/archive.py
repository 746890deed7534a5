"""A store that is asked: recall by vectors and words, a retriever inside each dialogue, one answer.

query ─► recall: dialogues ─► retriever: a fragment of each, or nothing ─► hits, the best first
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ffr.answer import read_response
from ffr.chats.dialogues import is_line, utterance_of
from ffr.corpus.filters import Filters, carries
from ffr.corpus.recall import (
    Candidates,
    Recalled,
    all_of,
    as_vector,
    candidates,
    recall,
)
from ffr.corpus.store import Line, Store, StoredChat
from ffr.corpus.vectors import StoredEncoder
from ffr.dialogue import Dialogue, Example
from ffr.errors import DataError, UsageError
from ffr.reader.query import plain_words
from ffr.retrieval.fusion import reciprocal_ranks
from ffr.retrieval.interface import Answer, Retriever
from ffr.text import counted

LEAST_SCORE, LEAST_SHARE = 0.5, 0.6
"""Of several hits, those are weak whose score is below this, or below this share of the best."""

_KEPT_FILTERS = 4
# how often others may pack the vectors anew between two looks at the store
_MAX_PACKED = 9
_FEW_DIALOGUES = 20
"""Where a search has no more dialogues than this, each is asked."""


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
            query.
    """

    chat: StoredChat
    lines: tuple[Line, ...]
    pictures: frozenset[tuple[int, int]]
    score: float | None
    found_by: tuple[str, ...]

    @property
    def span(self) -> tuple[int, int]:
        """The places of its first and its last line in its chat."""
        return self.lines[0].place, self.lines[-1].place


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
    """

    query: str
    hits: tuple[Hit, ...]
    num_searched: int
    num_messages: int
    num_not_understood: int
    num_more: int

    @property
    def searched(self) -> str:
        """What was looked through, in words."""
        said = f"searched {self.num_searched:,} of {counted(self.num_messages, 'message')}"
        if self.num_not_understood:
            lines = counted(self.num_not_understood, "line")
            said += f"; {lines} of the export could not be read"
        return said


class Archive:
    """A store with what answers on it.

    Args:
        store: The store, indexed.
        retriever: Answers inside a dialogue.
        encoder: Whose vectors recall dialogues; None recalls them by words alone.
        query_vectors: Makes the vectors by which queries are compared to lines; None where there is
            no encoder.
        looker: Whose words for pictures count, by `StoredTagger.digest`; None for none.
    """

    def __init__(
        self,
        store: Store,
        retriever: Retriever,
        encoder: StoredEncoder | None,
        query_vectors: Callable[[Sequence[str]], torch.Tensor] | None,
        looker: str | None = None,
    ) -> None:
        self.store = store
        self.retriever = retriever
        self._encoder = encoder
        self._query_vectors = query_vectors
        self._looker = looker
        self._candidates: OrderedDict[Filters, Candidates] = OrderedDict()
        self._chats: dict[int, StoredChat] = {}
        self._version: int | None = None

    def refresh(self) -> None:
        """Looks anew at what the store holds."""
        self._candidates.clear()
        self._chats.clear()
        if self._encoder is not None:
            self._encoder.refresh()

    def forget_questions(self) -> None:
        """Lets go of the vectors of questions that were asked: each is computed anew."""
        if self._encoder is not None:
            self._encoder.forget_questions()

    def ask(self, query: str, filters: Filters | None = None, *, top: int = 3) -> Found:
        """Finds the fragments that a query means.

        Args:
            query: What is looked for.
            filters: What narrows it down.
            top: How many hits at most.

        Raises:
            UsageError: where the query is empty, or nobody has a name that is asked for.
            DataError: where the retriever cannot answer.
        """
        # half a surrogate pair, as the bytes of a command line may give, is no character
        query = query.encode("utf-8", "replace").decode("utf-8")
        if not query.strip():
            raise UsageError("the query is empty; say what is looked for")
        if top < 1:
            raise UsageError(f"--top {top} asks for nothing; give a number from 1")
        num_packed = 0
        while True:
            # one state of the store, whoever reads or forgets chats meanwhile
            with self.store.snapshot() as version:
                if version != self._version:
                    self.refresh()
                    self._version = version
                try:
                    if self._encoder is not None:
                        self._encoder.hold()
                except DataError:
                    if num_packed == _MAX_PACKED:
                        raise
                    num_packed += 1
                    self._version = None
                else:
                    return self._asked(query, filters or Filters(), top)

    def _asked(self, query: str, chosen: Filters, top: int) -> Found:
        lines = self._lines(chosen)
        vector = None if self._query_vectors is None else as_vector(self._query_vectors([query]))
        recalled = recall(self.store, query, lines, chosen, self._encoder, vector)
        if len(lines.wheres) <= _FEW_DIALOGUES:
            recalled = all_of(lines, recalled)
        if not self._chats:
            self._chats = {chat.id: chat for chat in self.store.chats()}
        chats = {
            number: chat
            for number, chat in self._chats.items()
            if not chosen.chats or number in chosen.chats
        }
        is_allowed = self._allowing(chosen)
        hits = [
            hit
            for item in recalled
            if (hit := self._hit(query, item, chats[item.where[0]])) is not None
            and is_allowed(hit.lines)
        ]
        ordered = _in_order(_strong(hits))
        return Found(
            query,
            tuple(ordered[:top]),
            lines.num_messages,
            sum(chat.num_messages for chat in chats.values()),
            self._num_not_understood(list(chats)),
            len(ordered[top:]),
        )

    def _lines(self, filters: Filters) -> Candidates:
        if filters not in self._candidates:
            key = None if self._encoder is None else self._encoder.key
            self._candidates[filters] = candidates(self.store, filters, key, self._looker)
            if len(self._candidates) > _KEPT_FILTERS:
                self._candidates.popitem(last=False)
        self._candidates.move_to_end(filters)
        return self._candidates[filters]

    def _num_not_understood(self, chats: Sequence[int]) -> int:
        condition, values = self.store.database.among("id", chats)
        (row,) = self.store.rows(
            f"SELECT coalesce(sum(num_not_understood), 0) AS n FROM chats WHERE {condition}",
            values,
        )
        return int(row["n"])

    def _hit(self, query: str, recalled: Recalled, chat: StoredChat) -> Hit | None:
        """What a query means in one dialogue; None for nothing."""
        dialogue = _Lines(self.store.dialogue(*recalled.where), f"{chat.title} {recalled.where[1]}")
        answer = self._answer(query, dialogue)
        read = read_response(answer.response).within(len(dialogue.lines), len(dialogue.pictured))
        ids, images = read.fragment.utterance_ids, read.fragment.image_ids
        chosen = {dialogue.lines[number].id for number in ids}
        pictures = {dialogue.pictured[number] for number in images}
        chosen |= {line for line, _ in pictures}
        found_by = ["meaning"] if chosen else []
        score = answer.score if chosen else None
        if recalled.exact_lines and _is_telling(query):
            found_by.append("words")
            if not chosen:
                chosen = set(recalled.exact_lines)
        lines = tuple(line for line in dialogue.lines if line.id in chosen)
        if not lines:
            return None
        return Hit(chat, lines, frozenset(pictures), score, tuple(found_by))

    def _answer(self, query: str, dialogue: _Lines) -> Answer:
        if not dialogue.lines:
            return Answer("")
        (answer,) = self.retriever.answer([Example(dialogue.dialogue, query)])
        return answer

    def _allowing(self, filters: Filters) -> Callable[[Sequence[Line]], bool]:
        """Tells whether a fragment is what filters ask for: by whom, when, and what it carries."""
        is_row_asked = bool(filters.by or filters.since or filters.until)
        condition, values = filters.condition(self.store) if is_row_asked else ("", [])

        def is_allowed(lines: Sequence[Line]) -> bool:
            if filters.has and not any(carries(line.message, filters.has) for line in lines):
                return False
            if not is_row_asked:
                return True
            among, ids = self.store.database.among("id", [line.id for line in lines])
            return bool(
                self.store.rows(
                    f"SELECT 1 FROM messages WHERE {among} AND {condition} LIMIT 1",
                    [*ids, *values],
                )
            )

        return is_allowed


class _Lines:
    """One dialogue of a store as models take it, and the way back.

    Args:
        lines: Its messages.
        name: Of the dialogue.
    """

    def __init__(self, lines: Sequence[Line], name: str) -> None:
        self.lines = [line for line in lines if is_line(line.message)]
        # for each image id, its line and the number of the medium there
        self.pictured = [
            (line.id, number)
            for line in self.lines
            for number, path in enumerate(line.pictures)
            if path is not None
        ]
        utterances = [
            utterance_of(line.message, line.speaker, line.pictures) for line in self.lines
        ]
        self.dialogue = Dialogue(name, tuple(utterances))


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


def _strong(hits: Sequence[Hit]) -> list[Hit]:
    """Hits without those that are weak beside the others, in their order.

    A score knows one dialogue alone, and among many some seem to hold anything: where a chat is one
    dialogue nothing is left out. What was found by its words, or has no score, stays.
    """
    if len(hits) < 2:
        return list(hits)
    best = max(hit.score or 0.0 for hit in hits)
    least = max(LEAST_SCORE, LEAST_SHARE * best)
    return [
        hit for hit in hits if hit.score is None or "words" in hit.found_by or hit.score >= least
    ]


def _in_order(hits: Sequence[Hit]) -> list[Hit]:
    """Hits, the best first, given in the order of their recall.

    The model's score, which knows one dialogue alone, the order of recall, which compares all, and
    whether the words themselves stand there, are ranks that are fused: none wins alone.
    """
    by_score = [hit.score for hit in hits]
    by_recall = [-float(number) for number in range(len(hits))]
    by_words = [1.0 if "words" in hit.found_by else None for hit in hits]
    earned = reciprocal_ranks([by_score, by_recall, by_words]) if hits else []
    order = sorted(range(len(hits)), key=lambda number: -earned[number])
    return [hits[number] for number in order]


def _is_telling(query: str) -> bool:
    """Whether a query's words say what is meant by themselves: something is left beside asking."""
    return bool(plain_words(query).strip())
