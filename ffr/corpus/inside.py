"""A query asked inside the dialogues that were recalled: what a model is given, and what comes back.

A long dialogue is asked in stretches around the lines by which it was recalled. Ids of an answer are
those of the stretch, and become messages of the store again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ffr.answer import read_response
from ffr.chats.dialogues import is_line, utterance_of
from ffr.corpus.adding import line_text
from ffr.corpus.found import Hit, merged
from ffr.corpus.recall import Recalled
from ffr.corpus.store import Line, Store, StoredChat, span_of
from ffr.corpus.terms import matched_words
from ffr.dialogue import Dialogue, Example
from ffr.errors import DataError
from ffr.reader.query import plain_words
from ffr.retrieval.interface import Answer, Retriever, answers_of

MOST_LINES = 240
"""A dialogue of more messages is asked in stretches of so many."""

AROUND_LINES = 2
"""Lines before and behind a line that was recalled, which are its passage where nobody is asked."""


class AskedLines:
    """Lines of one dialogue as models take them, and the way back.

    Args:
        lines: Its messages, or a stretch of them.
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

    def chosen(self, response: str) -> tuple[set[int], frozenset[tuple[int, int]]]:
        """The messages and the pictures of a response, whose own messages count too."""
        read = read_response(response).within(len(self.lines), len(self.pictured))
        pictures = frozenset(self.pictured[number] for number in read.fragment.image_ids)
        messages = {self.lines[number].id for number in read.fragment.utterance_ids}
        return messages | {line for line, _ in pictures}, pictures


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What is asked at once: lines of a dialogue, and how it was recalled."""

    recalled: Recalled
    chat: StoredChat
    asked: AskedLines


def hits_inside(
    store: Store,
    retriever: Retriever,
    query: str,
    recalled: Sequence[Recalled],
    chats: Mapping[int, StoredChat],
) -> tuple[list[Hit], list[str]]:
    """What a query means inside dialogues, in their order, and why some could not be answered on.

    Args:
        store: The store.
        retriever: Answers inside a dialogue.
        query: What is looked for.
        recalled: The dialogues.
        chats: Those that they are of.

    Raises:
        DataError: where it can answer on none.
    """
    parts = [
        _Part(item, chats[item.where[0]], AskedLines(lines, _name(item, chats)))
        for item in recalled
        for lines in stretches(store, item)
    ]
    parts_asked = [part for part in parts if part.asked.lines]
    examples = [Example(part.asked.dialogue, query) for part in parts_asked]
    answers: dict[int, Answer] = {}
    plan = retriever.plan(examples)
    for number, given in answers_of(retriever, plan, examples):
        answers |= zip(plan[number], given, strict=True)
    failures = [answer.failure for answer in answers.values() if answer.failure is not None]
    if failures and len(failures) == len(examples):
        raise DataError(failures[0])
    of_part = {id(part): answers[number] for number, part in enumerate(parts_asked)}
    hits: list[Hit] = []
    for item in recalled:
        found = [
            hit
            for part in parts
            if part.recalled is item
            and (hit := _hit(query, part, of_part.get(id(part), Answer("")))) is not None
        ]
        hits += merged(found)
    return hits, failures


def _name(item: Recalled, chats: Mapping[int, StoredChat]) -> str:
    return f"{chats[item.where[0]].title} {item.where[1]}"


def stretches(store: Store, item: Recalled) -> list[list[Line]]:
    """The lines of a dialogue that are asked at once: all, or those around what was recalled.

    Stretches that share a line are one.
    """
    chat, dialogue = item.where
    first, last = span_of(store, chat, dialogue)
    places = sorted(line.place for line in store.lines_of(item.messages))
    if last - first < MOST_LINES or not places:
        return [store.dialogue(chat, dialogue)]
    spans: list[tuple[int, int]] = []
    for place in places:
        start = max(first, min(place - MOST_LINES // 2, last + 1 - MOST_LINES))
        stop = min(start + MOST_LINES, last + 1)
        if spans and start < spans[-1][1]:
            spans[-1] = spans[-1][0], stop
        else:
            spans.append((start, stop))
    return [store.lines(chat, start, stop) for start, stop in spans]


def _hit(query: str, part: _Part, answer: Answer) -> Hit | None:
    """What a query means in one stretch; None for nothing."""
    chosen, pictures = part.asked.chosen(answer.response)
    found_by = ["meaning"] if chosen else []
    score = answer.score if chosen else None
    here = {line.id for line in part.asked.lines}
    exact = here & set(part.recalled.exact_lines)
    if exact and is_telling(query):
        found_by.append("words")
        chosen = chosen or exact
    lines = tuple(line for line in part.asked.lines if line.id in chosen)
    if not lines:
        return None
    return made_hit(query, part.recalled, part.chat, lines, pictures, score, found_by)


def made_hit(
    query: str,
    item: Recalled,
    chat: StoredChat,
    lines: tuple[Line, ...],
    pictures: frozenset[tuple[int, int]],
    score: float | None,
    found_by: Sequence[str],
) -> Hit:
    """A hit with how it came about."""
    return Hit(
        chat,
        lines,
        pictures,
        score,
        tuple(found_by),
        {way: trace.rank for way, trace in item.traces.items()},
        dict(item.likenesses),
        matched_words(plain_words(query), [line_text(line.message) for line in lines]),
    )


def passages(
    store: Store, query: str, recalled: Sequence[Recalled], chats: Mapping[int, StoredChat]
) -> list[Hit]:
    """What was recalled as it is, nobody being asked: the passage of each dialogue's best line.

    Args:
        store: The store.
        query: What is looked for.
        recalled: The dialogues.
        chats: Those that they are of.
    """
    hits = []
    for item in recalled:
        if not item.messages:
            continue
        chat = chats[item.where[0]]
        lines = tuple(line for line in passage(store, item.messages[0]) if is_line(line.message))
        pictures = frozenset(
            (line.id, number)
            for line in lines
            for number, path in enumerate(line.pictures)
            if path is not None
        )
        is_exact = is_telling(query) and any(line.id in item.exact_lines for line in lines)
        found_by = ["recall", *(["words"] if is_exact else [])]
        if lines:
            hits.append(made_hit(query, item, chat, lines, pictures, None, found_by))
    return hits


def passage(store: Store, message: int) -> list[Line]:
    """The segment of a message; where it has none, the lines of its dialogue around it."""
    line = store.line(message)
    of_segment = store.rows(
        "SELECT other.id FROM messages JOIN messages AS other USING (chat, dialogue, segment) "
        "WHERE messages.id = ?",
        [message],
    )
    if of_segment:
        return sorted(
            store.lines_of([row["id"] for row in of_segment]), key=lambda found: found.place
        )
    near = store.lines(line.chat, max(0, line.place - AROUND_LINES), line.place + AROUND_LINES + 1)
    return [other for other in near if other.dialogue == line.dialogue]


def is_telling(query: str) -> bool:
    """Whether a query's words say what is meant by themselves: something is left beside asking."""
    return bool(plain_words(query).strip())
