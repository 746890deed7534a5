"""Messages, hits and chats as a page shows them: plain values, with foreign words made harmless.

What is declared here is what the API gives and what the templates take. Nothing of it names a place
on this machine's disk.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ffr.chats.chat import Message, Person, day_words
from ffr.corpus.found import Found, Hit
from ffr.corpus.people import people_of
from ffr.corpus.store import Line, Store, StoredChat
from ffr.text import cut, one_line, visible

_MAX_NAME = 80
_MAX_QUOTE = 160
_PAUSE = timedelta(minutes=10)

# Control characters, what turns writing round against its own direction, and what hides between
# letters. Joiners and marks of direction stay: emoji, Persian and mentions are written with them,
# and a bubble keeps their effect within itself.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202d\u202e\u2060-\u2064\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class ShownMedium:
    """A file that a message carries.

    Args:
        number: Its place among the message's files, from 0.
        kind: What it is.
        name: What the export calls it; "" for nothing.
        is_picture: Whether it can be shown.
    """

    number: int
    kind: str
    name: str
    is_picture: bool


@dataclass(frozen=True, slots=True)
class ShownReaction:
    """A reaction, with the names of those who gave it as far as they are known."""

    sign: str
    count: int
    people: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownReply:
    """The message that another answers: number, place in its chat, speaker, beginning."""

    id: int
    place: int
    speaker: str
    text: str


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A message.

    Args:
        id: Its number in the store, by which it is linked to.
        chat: The number of its chat.
        place: Its place there, from 0.
        speaker: Who sent it; "" where the app itself speaks.
        is_me: Whether the owner of the export did.
        kind: What it is first of all.
        text: Its words.
        day: Its day by the clock that the export shows, as 2023-03-31; "" where it has none.
        day_words: The day as people write it.
        clock: The time of day; "" where it has none.
        media: What it carries.
        reply: What it answers; None where that is nothing, or not in the store.
        reactions: Given to it.
        forwarded_from: Whose words they first were; "" for nobody's.
        is_edited: Whether it was changed later.
        is_deleted: Whether it was taken back.
        starts_day: Whether the line shown before is of another day, or there is none.
        continues: Whether it goes on with what the same person just said.
        num_skipped: Messages between the line shown before and this one.
    """

    id: int
    chat: int
    place: int
    speaker: str
    is_me: bool
    kind: str
    text: str
    day: str
    day_words: str
    clock: str
    media: tuple[ShownMedium, ...]
    reply: ShownReply | None
    reactions: tuple[ShownReaction, ...]
    forwarded_from: str
    is_edited: bool
    is_deleted: bool
    starts_day: bool
    continues: bool
    num_skipped: int


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture of a message: the message's number, and its own among the files there."""

    line: int
    number: int


@dataclass(frozen=True, slots=True)
class ShownHit:
    """A fragment that was found.

    Args:
        chat: The number of its chat.
        title: What that is called.
        when: Its first and last day and time, in words; "" where it has none.
        lines: Its messages.
        pictures: The pictures of these that are meant.
        score: How sure the model is, from 0 to 1; None where that is not known.
        found_by: `meaning`, `words` or both.
        ways: The ways by which it was recalled, with its rank in each.
        words: The words of the query that stand in it.
    """

    chat: int
    title: str
    when: str
    lines: tuple[ShownLine, ...]
    pictures: tuple[ShownPicture, ...]
    score: float | None
    found_by: tuple[str, ...]
    ways: dict[str, int]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShownFound:
    """What a search found.

    Args:
        query: What was looked for.
        hits: The best first.
        num_more: Hits beyond those that were asked for.
        searched: What was looked through, in words.
    """

    query: str
    hits: tuple[ShownHit, ...]
    num_more: int
    searched: str


@dataclass(frozen=True, slots=True)
class ShownPerson:
    """Who speaks in a chat: key, name, and whether it is the owner of the export."""

    key: str
    name: str
    is_me: bool


@dataclass(frozen=True, slots=True)
class ShownChat:
    """A chat.

    Args:
        id: Its number in the store.
        title: What it is called.
        app: The app that it comes from.
        summary: What it holds, in words.
        num_lines: Lines that it is shown with, those of the app itself counted.
        has_times: Whether any of them has a time.
        people: Who speaks.
    """

    id: int
    title: str
    app: str
    summary: str
    num_lines: int
    has_times: bool
    people: tuple[ShownPerson, ...]


def harmless(text: str) -> str:
    r"""Words of a message as they may stand in a block of their own on a page.

    >>> harmless("a\x1b\u202eb\u200dc\n")
    'a␛⟨U+202E⟩b\u200dc\n'
    """
    return _STEERING.sub(lambda found: visible(found[0]), text)


def shown_name(text: str) -> str:
    """A name as it may stand beside other words: on one line, nothing unseen in it, cut."""
    return one_line(text, _MAX_NAME)


def shown_lines(
    store: Store, lines: Sequence[Line], previous: Line | None = None
) -> tuple[ShownLine, ...]:
    """Messages of one chat as they are shown under each other.

    Args:
        store: The store that they are of.
        lines: In order.
        previous: The message that is shown before them.
    """
    if not lines:
        return ()
    people = store.people(lines[0].chat)
    answered = _answered(store, lines, people)
    shown = []
    for line in lines:
        shown.append(_shown_line(line, previous, people, answered.get(line.message.reply_to)))
        previous = line
    return tuple(shown)


def _shown_line(
    line: Line, previous: Line | None, people: dict[str, Person], reply: ShownReply | None
) -> ShownLine:
    message = line.message
    day = _day(message.time)
    is_new_day = bool(day) and (previous is None or _day(previous.message.time) != day)
    return ShownLine(
        id=line.id,
        chat=line.chat,
        place=line.place,
        speaker=shown_name(line.speaker),
        is_me=line.is_me,
        kind=message.kind,
        text=harmless(message.text),
        day=day,
        day_words="" if message.time is None else day_words(message.time),
        clock="" if message.time is None else f"{message.time:%H:%M}",
        media=tuple(
            ShownMedium(number, item.kind, shown_name(item.name), path is not None)
            for number, (item, path) in enumerate(zip(message.media, line.pictures, strict=True))
        ),
        reply=reply,
        reactions=tuple(
            ShownReaction(
                shown_name(item.sign),
                item.count,
                tuple(shown_name(people[key].name) for key in item.people if key in people),
            )
            for item in message.reactions
        ),
        forwarded_from=shown_name(message.forwarded_from),
        is_edited=message.is_edited,
        is_deleted=message.is_deleted,
        starts_day=is_new_day,
        continues=not is_new_day and _continues(line, previous),
        num_skipped=0 if previous is None else max(0, line.place - previous.place - 1),
    )


def _day(time: datetime | None) -> str:
    return "" if time is None else time.date().isoformat()


def _continues(line: Line, previous: Line | None) -> bool:
    if previous is None or line.place != previous.place + 1:
        return False
    if line.message.sender is None or line.message.sender != previous.message.sender:
        return False
    now, before = line.message.time, previous.message.time
    if now is None or before is None:
        return now is before
    return now.replace(tzinfo=None) - before.replace(tzinfo=None) < _PAUSE


def _answered(
    store: Store, lines: Sequence[Line], people: dict[str, Person]
) -> dict[str, ShownReply]:
    """The messages that others answer, by the app's own names for them."""
    # a message that has a name is kept under it alone, which is quicker to look up than the name
    keys = {
        bytes.fromhex(Message(None, id=line.message.reply_to).key): line.message.reply_to
        for line in lines
        if line.message.reply_to
    }
    if not keys:
        return {}
    found = store.rows(
        "SELECT id, place, key, sender, text, kind FROM messages "
        f"WHERE chat = ? AND key IN ({','.join('?' * len(keys))})",
        [lines[0].chat, *keys],
    )
    return {
        keys[row["key"]]: ShownReply(
            row["id"],
            row["place"],
            shown_name(people[row["sender"]].name) if row["sender"] in people else "",
            cut(harmless(row["text"]), _MAX_QUOTE) or row["kind"],
        )
        for row in found
    }


def shown_hit(store: Store, hit: Hit) -> ShownHit:
    """A hit as it is shown."""
    return ShownHit(
        chat=hit.chat.id,
        title=hit.chat.called(_MAX_NAME),
        when=_when(hit.lines),
        lines=shown_lines(store, hit.lines),
        pictures=tuple(ShownPicture(*picture) for picture in sorted(hit.pictures)),
        score=hit.score,
        found_by=hit.found_by,
        ways=dict(hit.ways),
        words=tuple(one_line(word, _MAX_NAME) for word in hit.words),
    )


def _when(lines: Sequence[Line]) -> str:
    times = [line.message.time for line in lines if line.message.time is not None]
    if not times:
        return ""
    first, last = times[0], times[-1]
    words = f"{day_words(first)}, {first:%H:%M}"
    if first.date() != last.date():
        return f"{words} – {day_words(last)}, {last:%H:%M}"
    return words if f"{first:%H:%M}" == f"{last:%H:%M}" else f"{words}–{last:%H:%M}"


def shown_found(store: Store, found: Found) -> ShownFound:
    """What was found, as it is shown."""
    return ShownFound(
        query=harmless(found.query),
        hits=tuple(shown_hit(store, hit) for hit in found.hits),
        num_more=found.num_more,
        searched=found.searched,
    )


def shown_chat(store: Store, chat: StoredChat) -> ShownChat:
    """A chat as it is shown."""
    (row,) = store.rows("SELECT count(*) AS n FROM messages WHERE chat = ?", [chat.id])
    return ShownChat(
        id=chat.id,
        title=chat.called(_MAX_NAME),
        app=shown_name(chat.app),
        summary=chat.summary,
        num_lines=row["n"],
        has_times=chat.first is not None,
        people=tuple(
            ShownPerson(person.key, shown_name(person.name), person.is_me)
            for person in people_of(store, chat.id)
        ),
    )
