"""A chat while it is read: messages come one by one, so that a million of them need no room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from ffr.chats.account import Account
from ffr.chats.chat import Chat, Message, Person, seconds_of
from ffr.chats.export_files import ExportFiles

MAX_NAMES = 32
"""How many further names of a person are kept; a bot may have one a message."""


@dataclass(frozen=True)
class ReadChoices:
    """What may be said about an export that it does not say itself.

    Args:
        date_order: `dmy`, `mdy` or `ymd` where an export writes days and months as numbers; None to
            find it out.
        me: The name of its owner, where the export does not tell.
    """

    date_order: str | None = None
    me: str | None = None

    def is_me(self, *names: str) -> bool:
        """Whether one of the names or keys of a person is the owner's.

        >>> ReadChoices(me="Ann").is_me("7", "Ann"), ReadChoices().is_me("")
        (True, False)
        """
        return bool(self.me) and self.me in names


@dataclass
class ChatStream:
    """A chat that is being read. `people`, `title` and `account` are whole once `messages` ended.

    Args:
        app: As in `Chat`.
        title: As in `Chat`.
        account: Filled as messages come.
        id: As in `Chat`.
        people: Filled as messages come, by key.
        folder: As in `Chat`.
        messages: In the order of the file.
    """

    app: str
    title: str
    account: Account = field(default_factory=Account)
    id: str = ""
    people: dict[str, Person] = field(default_factory=dict)
    folder: Path | None = None
    messages: Iterator[Message] = field(default_factory=lambda: iter(()))

    def person(self, key: str, name: str, *, is_me: bool = False) -> str:
        """Notes who speaks, under every name they are seen with; returns the key.

        >>> stream = ChatStream("line", "Trip")
        >>> stream.person("7", "Ann"), stream.person("7", "Annie"), stream.people["7"].other_names
        ('7', '7', ('Annie',))
        """
        known = self.people.get(key)
        if known is None:
            self.people[key] = Person(key, name or key, is_me=is_me)
        elif (
            name
            and name != known.name
            and len(known.other_names) < MAX_NAMES
            and name not in known.other_names
        ):
            self.people[key] = replace(known, other_names=(*known.other_names, name))
        if is_me and known is not None and not known.is_me:
            self.people[key] = replace(self.people[key], is_me=True)
        return key

    def collect(self) -> Chat:
        """Reads all that is left, and puts it in the order of its times.

        Messages without a time stay behind the one that they follow.
        """
        messages = list(self.messages)
        previous = float("-inf")
        keys = []
        for message in messages:
            previous = previous if message.time is None else seconds_of(message.time)
            keys.append(previous)
        if any(later < earlier for earlier, later in pairwise(keys)):
            order = sorted(range(len(keys)), key=keys.__getitem__)
            messages = [messages[number] for number in order]
        return Chat(self.app, self.title, dict(self.people), tuple(messages), self.account, self.id)


@dataclass(frozen=True)
class ChatFormat:
    """A form of export, one a file in this folder.

    Args:
        name: A short word for it, `--as NAME`.
        words: What it is, as it follows "is".
        find: The chats of an export that are of this form: for each, the names of its files in
            their order. Nothing where there is none.
        read: Reads the chats out of one entry of what `find` gave.
    """

    name: str
    words: str
    find: Callable[[ExportFiles], list[tuple[str, ...]]]
    read: Callable[[ExportFiles, tuple[str, ...], ReadChoices], Iterator[ChatStream]]
