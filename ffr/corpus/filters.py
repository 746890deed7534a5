"""What narrows a search down: chats, people, days, and what a fragment must carry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from ffr.chats.chat import Message
from ffr.corpus.people import entries_called
from ffr.corpus.store import Store
from ffr.errors import UsageError

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
            names = dict.fromkeys(self.by)
            people = [entry for name in names for entry in entries_called(store, name, self.chats)]
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
