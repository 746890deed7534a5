"""What narrows a search down: chats, people, days, and what a fragment must carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from ffr.chats.chat import Message
from ffr.corpus.store import Store
from ffr.errors import UsageError
from ffr.text import one_line

HAS = {
    "photo": "picture",
    "video": "video",
    "voice": "voice",
    "file": "file",
    "link": "link",
    "sticker": "sticker",
}
"""What `--has` knows, and the kinds of messages and files that are it."""

_DAY_ZERO = datetime(1970, 1, 1)
_A_DAY = 86_400.0
_MAX_NAMED = 12


@dataclass(frozen=True, slots=True)
class Filters:
    """What a fragment must be of to be found.

    Args:
        chats: Numbers of chats; none for all.
        by: Names of people, one of whom must speak in it.
        since: Its first day.
        until: Its last day, which counts.
        has: Something of `HAS` that it must carry; "" for nothing.

    Raises:
        UsageError: where the days leave none, or `has` is unknown.
    """

    chats: tuple[int, ...] = ()
    by: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    has: str = ""

    def __post_init__(self) -> None:
        if self.has and self.has not in HAS:
            raise UsageError(f"--has {self.has} is unknown; it takes {', '.join(HAS)}")
        if self.since is not None and self.until is not None and self.since > self.until:
            raise UsageError(
                f"--since {self.since} is later than --until {self.until}, which leaves no day"
            )

    @property
    def is_narrow(self) -> bool:
        """Whether anything but the chats is asked for."""
        return bool(self.by or self.since or self.until or self.has)

    def condition(self, store: Store) -> tuple[str, list[object]]:
        """What a message must be to be looked for, as SQL over `messages`, with its values.

        What must be carried is a matter of the whole dialogue: `dialogue_condition`.

        Raises:
            UsageError: where nobody has such a name.
        """
        parts, values = ["kind != 'system'"], list[object]()
        if self.chats:
            part, more = store.database.among("chat", self.chats)
            parts.append(part)
            values += more
        if self.by:
            people = _people(store, self.by, self.chats)
            part, more = store.database.pairs_among(("chat", "sender"), people)
            parts.append(part)
            values += more
        # by the clock that the message itself shows
        clock = "seconds + coalesce(zone, 0) * 60"
        if self.since is not None:
            parts.append(f"{clock} >= ?")
            values.append(_seconds(self.since))
        if self.until is not None:
            parts.append(f"{clock} < ?")
            values.append(_seconds(self.until) + _A_DAY)
        return " AND ".join(parts), values

    def dialogue_condition(self) -> tuple[str, list[object]]:
        """What a dialogue must hold, as SQL over `messages`; "" for anything."""
        if not self.has:
            return "", []
        kind = HAS[self.has]
        # a message of several files is of the kind of its first
        return (
            "(chat, dialogue) IN (SELECT DISTINCT chat, dialogue FROM messages "
            "WHERE kind = ? OR media LIKE ?)",
            [kind, f'%["{kind}", %'],
        )


def carries(message: Message, what: str) -> bool:
    """Whether a message is, or holds a file that is, something of `HAS`.

    >>> carries(Message("Ann", kind="picture"), "photo"), carries(Message("Ann"), "photo")
    (True, False)
    """
    kind = HAS[what]
    return message.kind == kind or any(item.kind == kind for item in message.media)


def _seconds(day: date) -> float:
    return (datetime(day.year, day.month, day.day) - _DAY_ZERO).total_seconds()


def _people(store: Store, names: Sequence[str], chats: Sequence[int]) -> list[tuple[int, str]]:
    """Chat and key of everyone who goes by one of these names, whole or by its beginning."""
    everyone: list[tuple[int, str, list[str]]] = []
    numbers = chats or [row["id"] for row in store.rows("SELECT id FROM chats ORDER BY id")]
    for chat in numbers:
        for person in store.people(chat).values():
            called = [person.name, *person.other_names, *(["me"] if person.is_me else [])]
            everyone.append((chat, person.key, called))
    found: list[tuple[int, str]] = []
    for name in names:
        wanted = name.strip().casefold()
        exact = [
            (chat, key)
            for chat, key, called in everyone
            if any(item.casefold() == wanted for item in called)
        ]
        begun = [
            (chat, key)
            for chat, key, called in everyone
            if wanted and any(item.casefold().startswith(wanted) for item in called)
        ]
        if not (exact or begun):
            known = list(dict.fromkeys(one_line(called[0], 30) for _, _, called in everyone))
            more = ", …" if len(known) > _MAX_NAMED else ""
            raise UsageError(
                f"--by {one_line(name, 40)}: nobody is called so; there are "
                f"{', '.join(known[:_MAX_NAMED])}{more}"
            )
        found += exact or begun
    return list(dict.fromkeys(found))
