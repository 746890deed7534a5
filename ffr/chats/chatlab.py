"""ChatLab's open format, into which many apps are converted: one JSON object, or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ffr.chats.chat import Kind, Media, Message
from ffr.chats.entry import Entry, EntryReader, entry_message, file_messages
from ffr.chats.export_files import ExportFiles
from ffr.chats.media import FILE_KINDS, media_in
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.errors import DataError

_KINDS: dict[int, Kind] = {
    0: "text",
    1: "picture",
    2: "voice",
    3: "video",
    4: "file",
    5: "sticker",
    7: "link",
    8: "place",
    23: "call",
    24: "link",
    27: "contact",
    80: "system",
}
_FORWARD, _SYSTEM, _RECALLED = 26, 80, 81
# of these there are words alone
_SPOKEN = (20, 21, 22, 25, _FORWARD, _RECALLED, 99)
_IN_DIGITS = frozenset(str(number) for number in (*_KINDS, *_SPOKEN))
_IN_LINES = ("header", "member", "message")


def _is_object(record: dict[str, Any]) -> bool:
    # avatars of members may fill the beginning, before the messages come
    is_whole = bool({"messages", "members", "meta"} & record.keys())
    return isinstance(record.get("chatlab"), dict) and is_whole and "_type" not in record


def _is_lines(record: dict[str, Any]) -> bool:
    of_type = record.get("_type")
    if of_type == "header":
        return "chatlab" in record or "meta" in record
    return (of_type == "member" and "platformId" in record) or (
        of_type == "message" and {"sender", "timestamp"} <= record.keys()
    )


def _outline(export: ExportFiles, name: str) -> dict[str, Any] | None:
    """What the file begins with, behind comments."""
    head = export.head(name)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"#":
        return export.outline(name)
    for line in head.decode("utf-8-sig", "replace").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            value = _value(line)
            return value if isinstance(value, dict) else None
    return None


def find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The files, each a chat."""
    outlines = ((name, _outline(export, name)) for name in export.text_names)
    return [
        (name,) for name, record in outlines if record and (_is_object(record) or _is_lines(record))
    ]


def read(export: ExportFiles, names: tuple[str, ...], choices: ReadChoices) -> Iterator[ChatStream]:
    """The one chat of a file."""
    (file,) = names
    stream = ChatStream("chatlab", "")
    reader = _Reader(export, file, stream, choices)
    outline = _outline(export, file) or {}
    reader.heading("meta", outline.get("meta"))
    if _is_object(outline):
        stream.messages = file_messages(
            export, file, stream.account, reader.message, reader.heading
        )
    else:
        stream.messages = reader.lines()
    yield stream


@dataclass
class _Reader(EntryReader):
    """Makes messages of the entries of one file."""

    names: dict[str, list[str]] = field(default_factory=dict)
    owner: str = ""

    def heading(self, key: str, value: Any) -> None:
        """Takes what a file says of its chat and of who is in it."""
        said = Entry({key: value}, self.stream.account, self.file, 0)
        if key == "meta":
            meta = said.inner(key)
            self.stream.title = meta.text("name") or self.stream.title
            self.stream.id = meta.text("groupId") or self.stream.id
            self.owner = meta.text("ownerId") or self.owner
        elif key == "members":
            for member in said.entries(key):
                self._member(member)

    def _member(self, member: Entry) -> None:
        names = [member.text("groupNickname"), member.text("accountName")]
        self.names[member.text("platformId")] = [*names, *member.texts("aliases")]

    def lines(self) -> Iterator[Message]:
        """The messages of a file of JSON lines, each line counted."""
        account = self.stream.account
        try:
            for number, line in self.export.lines(self.file, account):
                if not line.strip():
                    account.num_blank += 1
                elif line.lstrip().startswith("#"):
                    account.num_heading += 1
                else:
                    message = self._line(number, line)
                    if message is not None:
                        yield message
        except DataError as error:
            account.fault(f"{self.file} {error.message}")

    def _line(self, number: int, line: str) -> Message | None:
        account = self.stream.account
        value = _value(line)
        of_type = value.get("_type", "message") if isinstance(value, dict) else None
        if of_type == "message":
            return entry_message(value, account, self.file, number, self.message)
        if of_type not in _IN_LINES or not isinstance(value, dict):
            account.not_understood(self.file, number, line[:200])
            return None
        account.num_heading += 1
        if of_type == "header":
            self.heading("meta", value.get("meta"))
        else:
            self._member(Entry(value, account, self.file, number))
        return None

    def message(self, entry: Entry) -> Message | None:
        """The message of an entry; None where nothing in it is known."""
        type_of = entry.values.get("type")
        if isinstance(type_of, str) and type_of in _IN_DIGITS:
            type_of = int(type_of)
        if not isinstance(type_of, int) or isinstance(type_of, bool):
            if type_of is not None:
                entry.damaged("type", type_of)
            type_of = 0
        key = entry.text("sender")
        names = self.names.get(key) or [entry.text("groupNickname", "accountName")]
        time = entry.moment("timestamp")
        text = entry.text("content")
        if not (key or any(names) or time or text):
            return None
        kind = _KINDS.get(type_of, "text")
        if type_of not in _KINDS and type_of not in _SPOKEN:
            entry.damaged("type", type_of)
        media: tuple[Media, ...] = ()
        if kind in FILE_KINDS:
            text, item = media_in(self.export, self.file, FILE_KINDS[kind], text)
            media = (item,)
        sender = None
        if type_of != _SYSTEM:
            sender = self.person(key, *names, is_me=key != "" and key == self.owner)
        return Message(
            sender,
            text,
            time,
            kind,
            media,
            entry.text("platformMessageId", "id"),
            entry.text("replyToMessageId"),
            forwarded_from=entry.text("forwardedFrom") if type_of == _FORWARD else "",
            is_deleted=type_of == _RECALLED,
            line=entry.line,
        )


def _value(line: str) -> Any:
    """The JSON value of a line; None where there is none."""
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError):
        return None


_DECODER = json.JSONDecoder(parse_constant=lambda _: None, strict=False)


FORMAT = ChatFormat("chatlab", "a chat in ChatLab's format", find, read)
