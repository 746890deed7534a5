"""What a chat is, whatever app it comes from: people, and messages in order.

Everything here is immutable. A message says what its export says; what an export leaves out (a time
zone, a sender, a picture's file) stays left out and is never made up.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from ffr.chats.account import Account
from ffr.text import counted

Kind = Literal[
    "text",
    "picture",
    "sticker",
    "voice",
    "video",
    "file",
    "link",
    "place",
    "contact",
    "poll",
    "call",
    "system",
]
"""What a message is first of all. A picture with words under it is a picture."""

KINDS: tuple[str, ...] = get_args(Kind)

MediaKind = Literal["picture", "sticker", "voice", "video", "file"]


@dataclass(frozen=True, slots=True)
class Media:
    """A file that a message carries.

    Args:
        kind: What it is.
        name: What the export calls it; "" where it says only that there was one.
        file: The name under which the export holds it (`ExportFiles.names`); None where the file
            is not there.
    """

    kind: MediaKind
    name: str = ""
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Reaction:
    """An answer by a sign alone.

    Args:
        sign: The emoji, or what stands for it.
        people: Keys of those who gave it, as far as the export names them.
        count: How many gave it.
    """

    sign: str
    people: tuple[str, ...] = ()
    count: int = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One message, or one line by which the app itself says something.

    Args:
        sender: Key of a person in `Chat.people`; None where the app itself speaks.
        text: The words, as they were written.
        time: When it was sent: with a zone where the export tells one, else the clock's time as it
            stands there; None where there is none.
        kind: What it is first of all.
        media: The files that it carries.
        id: What the export calls it; "" where it has no name.
        reply_to: The id of the message that it answers; "" where none is named.
        reactions: Given to it.
        forwarded_from: Whose words they first were; "" where it is no forward, or does not say.
        is_edited: Whether it was changed later.
        is_deleted: Whether its words were taken back.
        line: Where it begins in its file, from 1: a line of a text, an entry of a list.
    """

    sender: str | None
    text: str = ""
    time: datetime | None = None
    kind: Kind = "text"
    media: tuple[Media, ...] = ()
    id: str = ""
    reply_to: str = ""
    reactions: tuple[Reaction, ...] = ()
    forwarded_from: str = ""
    is_edited: bool = False
    is_deleted: bool = False
    line: int = 0

    @property
    def key(self) -> str:
        """Names the message, so that a later export of the chat brings it once.

        By the export's own name where it has one, else by its content, of which reactions and edits
        are no part.

        >>> Message("Ann", "hi").key == Message("Ann", "hi", line=7).key
        True
        """
        time = None if self.time is None else self.time.isoformat()
        media = [[item.kind, item.name] for item in self.media]
        content = ["id", self.id] if self.id else [self.sender, time, self.kind, self.text, media]
        said = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return hashlib.sha256(said).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who speaks.

    Args:
        key: What messages name them by: the app's own id, or the name where it has none.
        name: What the export calls them.
        other_names: Further names under which they were seen.
        is_me: Whether it is the owner of the export; False where that is not known.
    """

    key: str
    name: str
    other_names: tuple[str, ...] = ()
    is_me: bool = False


@dataclass(frozen=True, eq=False)
class Chat:
    """A chat.

    Args:
        app: The form that it was read from, such as `whatsapp`.
        title: What the export calls it.
        people: Everyone who speaks, by key, in order of appearance.
        messages: In the order of their times, as far as they have any.
        account: What became of every line of the file.
        id: The app's own name for the chat; "" where it has none.
        folder: Where the files lie that `Media.file` names; None where they lie in an archive.

    >>> chat = Chat("line", "Trip", {"Ann": Person("Ann", "Ann")}, (Message("Ann", "hi"),))
    >>> len(chat), chat.name_of(chat.messages[0])
    (1, 'Ann')
    """

    app: str
    title: str
    people: Mapping[str, Person]
    messages: tuple[Message, ...]
    account: Account = field(default_factory=Account)
    id: str = ""
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.messages)

    def name_of(self, message: Message) -> str:
        """The name of who speaks; "" where the app itself does."""
        return "" if message.sender is None else self.people[message.sender].name

    @cached_property
    def span(self) -> tuple[datetime, datetime] | None:
        """The first and the last time; None where no message has one."""
        times = [message.time for message in self.messages if message.time is not None]
        return (min(times, key=_clock), max(times, key=_clock)) if times else None

    @property
    def summary(self) -> str:
        """What was read, in one line.

        >>> message = Message("Ann", time=datetime(2023, 3, 3), kind="picture",
        ...                   media=(Media("picture", "a.jpg"),))
        >>> Chat("whatsapp", "Trip", {"Ann": Person("Ann", "Ann")}, (message,)).summary
        '1 message, 1 picture (1 missing), 1 person, 3 Mar 2023'
        """
        return summary_of(self.messages, len(self.people), self.account)


def summary_of(messages: Iterable[Message], num_people: int, account: Account) -> str:
    """What was read of a chat, in one line.

    Args:
        messages: All of it.
        num_people: How many speak.
        account: What the reader noted.
    """
    num_messages = num_pictures = num_missing = 0
    first: datetime | None = None
    last: datetime | None = None
    for message in messages:
        num_messages += message.kind != "system"
        pictures = [item for item in message.media if item.kind == "picture"]
        num_pictures += len(pictures)
        num_missing += sum(item.file is None for item in pictures)
        if message.time is not None:
            first = message.time if first is None else min(first, message.time, key=_clock)
            last = message.time if last is None else max(last, message.time, key=_clock)
    pictures_words = counted(num_pictures, "picture")
    if num_missing:
        pictures_words += f" ({num_missing:,} missing)"
    parts = [counted(num_messages, "message"), pictures_words]
    parts.append(counted(num_people, "person", "people"))
    if first is not None and last is not None:
        days = list(dict.fromkeys([day_words(first), day_words(last)]))
        parts.append(" – ".join(days))
    return ", ".join([*parts, *account.decisions])


def day_words(time: datetime) -> str:
    """The day of a time, as people write it: `3 Mar 2023`.

    Month names do not follow the machine's locale, so that a log reads the same everywhere.
    """
    return f"{time.day} {_MONTHS[time.month - 1]} {time.year}"


def seconds_of(time: datetime) -> float:
    """Seconds since 1970: of the moment where a zone is known, else of what the clock shows.

    >>> seconds_of(datetime(1970, 1, 1, 1, 0)), seconds_of(datetime(1970, 1, 1, tzinfo=UTC))
    (3600.0, 0.0)
    """
    epoch = _EPOCH if time.tzinfo is not None else _EPOCH.replace(tzinfo=None)
    return (time - epoch).total_seconds()


def _clock(time: datetime) -> datetime:
    """What the clock shows: times with and without a zone can be compared by it."""
    return time.replace(tzinfo=None)


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
