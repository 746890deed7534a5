"""One entry of an export, read field by field: what is of another type than it should be is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

from ffr.chats.account import Account
from ffr.chats.chat import Message
from ffr.chats.export_files import ExportFiles
from ffr.chats.json_pull import JsonPull
from ffr.chats.stream import ChatStream, ReadChoices
from ffr.chats.times import moment
from ffr.errors import DataError

_MOST_DIGITS = 40


class Entry:
    """An object of an export's JSON.

    A field that is null or not there is empty. One of another type than is asked for is empty too,
    and its entry is counted once as damaged, inner objects with the entry that they stand in.

    Args:
        values: Its fields.
        account: Where it is counted.
        file: The file that it stands in.
        line: Its number there, from 1.

    >>> account = Account()
    >>> entry = Entry({"text": "hi", "from": 7, "file": []}, account, "chat.json", 3)
    >>> entry.text("text"), entry.text("from"), entry.text("name"), entry.text("file")
    ('hi', '7', '', '')
    >>> account.lines()
    ['1 message has a part that is not what it should be, the first is chat.json:3: file is []']
    """

    __slots__ = ("_above", "_account", "_is_damaged", "file", "line", "values")

    def __init__(
        self,
        values: dict[str, Any],
        account: Account,
        file: str,
        line: int,
        above: Entry | None = None,
    ) -> None:
        self.values = values
        self.file = file
        self.line = line
        self._account = account
        self._above = above
        self._is_damaged = False

    def text(self, *names: str) -> str:
        """The first of these fields that is not empty, as text; a number is its digits."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, str):
                if value:
                    return value if value.isascii() else whole(value)
            elif value is not None:
                digits = _digits(value)
                if digits:
                    return digits
                self.damaged(name, value)
        return ""

    def flag(self, name: str) -> bool:
        """Whether a field is true."""
        value = self.values.get(name)
        return value in (True, 1, "1", "true")

    def count(self, name: str, otherwise: int) -> int:
        """A number of things; `otherwise` where there is none."""
        value = self.values.get(name)
        if value is None:
            return otherwise
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53:
            return value
        self.damaged(name, value)
        return otherwise

    def moment(self, *names: str) -> datetime | None:
        """The first of these fields that is there, as a moment: see `times.moment`."""
        return self.read(moment, *names)

    def read(self, reader: Callable[[object], datetime | None], *names: str) -> datetime | None:
        """The first of these fields that is there, through a reader of times."""
        for name in names:
            value = self.values.get(name)
            if value is None or value == "":
                continue
            found = reader(value)
            if found is None:
                self.damaged(name, value)
            return found
        return None

    def inner(self, name: str) -> Entry:
        """An object inside; an empty one where there is none."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            self.damaged(name, value)
            value = None
        return self._of(value or {})

    def values_of(self, name: str) -> list[Any]:
        """A list inside, as it stands there."""
        value = self.values.get(name)
        if value is None or isinstance(value, list):
            return value or []
        self.damaged(name, value)
        return []

    def entries(self, name: str) -> Iterator[Entry]:
        """The objects of a list inside."""
        for value in self.values_of(name):
            if isinstance(value, dict):
                yield self._of(value)
            elif value is not None:
                self.damaged(name, value)

    def texts(self, name: str) -> list[str]:
        """The texts and numbers of a list inside."""
        found = []
        for value in self.values_of(name):
            text = whole(value) if isinstance(value, str) else _digits(value)
            if text:
                found.append(text)
            elif value not in (None, ""):
                self.damaged(name, value)
        return found

    def damaged(self, name: str, value: object) -> None:
        """Counts that a field is not what it should be."""
        if self._above is not None:
            self._above.damaged(name, value)
        elif not self._is_damaged:
            self._is_damaged = True
            self._account.damaged(self.file, self.line, name, value)

    def _of(self, values: dict[str, Any]) -> Entry:
        return Entry(values, self._account, self.file, self.line, self)


def whole(text: str) -> str:
    r"""A text without halves of characters, which nothing could write to a file.

    >>> whole("a\ud83d"), whole("\ud83d\ude00") == "\U0001f600"
    ('a\ufffd', True)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _digits(value: object) -> str:
    """A number as text; "" for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    if isinstance(value, float):
        return repr(value) if isfinite(value) else ""
    return str(value) if value.bit_length() <= _MOST_DIGITS * 3 else ""


@dataclass
class EntryReader:
    """What makes messages of entries, a subclass for each form.

    Args:
        export: Holds the chat.
        file: Its own file.
        stream: The chat.
        choices: What the export does not say itself.
    """

    export: ExportFiles
    file: str
    stream: ChatStream
    choices: ReadChoices

    def person(self, key: str, *names: str, is_me: bool = False) -> str:
        """Notes who speaks; the key. Of someone without key and name, the name is a question mark.

        Args:
            key: The app's own id; "" where it has none.
            names: What they are called: the first is shown, all are kept at first sight.
            is_me: Whether the export says that it is its owner.
        """
        name = next((name for name in names if name), "")
        is_me = is_me or self.choices.is_me(key, *names)
        key = key or name or "?"
        is_new = key not in self.stream.people
        self.stream.person(key, name, is_me=is_me)
        if is_new:
            for other in names:
                self.stream.person(key, other)
        return key


def file_messages(
    export: ExportFiles,
    file: str,
    account: Account,
    make: Callable[[Entry], Message | None],
    heading: Callable[[str, Any], None] | None = None,
) -> Iterator[Message]:
    """The messages of a file that is one object with a list `messages`, each counted.

    Args:
        export: Holds the file.
        file: Its name.
        account: Where they are counted.
        make: The message of an entry; None where it is none that is known.
        heading: Is told each other member that comes, by its key.
    """
    try:
        with export.json(file, account) as pull:
            for key in pull.members():
                if key == "messages":
                    yield from list_messages(pull, account, file, make)
                elif heading is not None:
                    heading(key, pull.value())
                else:
                    pull.skip()
    except DataError as error:
        account.fault(f"{file} {error.message}")


def list_messages(
    pull: JsonPull, account: Account, file: str, make: Callable[[Entry], Message | None]
) -> Iterator[Message]:
    """The messages of the list that comes in a file, each counted.

    Raises:
        DataError: where the text is no JSON; what came before was given.
    """
    if pull.kind() != "[":
        if pull.value() is not None:
            account.fault(f"{file} has no list of messages where one should be")
        return
    for number in pull.elements():
        message = entry_message(pull.value(), account, file, number + 1, make)
        if message is not None:
            yield message


def entry_message(
    value: object,
    account: Account,
    file: str,
    line: int,
    make: Callable[[Entry], Message | None],
) -> Message | None:
    """The message of one value of a list, counted; None where it is none."""
    if value is None:
        account.num_blank += 1
        return None
    message = make(Entry(value, account, file, line)) if isinstance(value, dict) else None
    if message is None:
        account.not_understood(file, line, value)
    elif message.kind == "system":
        account.num_system += 1
    else:
        account.num_messages += 1
    return message
