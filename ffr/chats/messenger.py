r"""Facebook Messenger's and Instagram's downloads as JSON, newest message first.

Both write UTF-8 as if each byte were a character (`\u00f0\u009f\u0098\u0080` for one emoji); that
is repaired where it is so. Chats that were encrypted from end to end come in a newer form, with
other names of fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from ffr.chats.chat import Kind, Media, MediaKind, Message, Reaction, seconds_of
from ffr.chats.entry import Entry, EntryReader, file_messages, whole
from ffr.chats.export_files import ExportFiles
from ffr.chats.json_pull import first_of
from ffr.chats.media import carried, kind_of_file
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices

_NUMBERED = re.compile(r"(?:^|/)message_(\d{1,9})\.json$")
# None: by the ending of each file
_MEDIA: tuple[tuple[str, MediaKind | None], ...] = (
    ("photos", "picture"),
    ("videos", "video"),
    ("audio_files", "voice"),
    ("gifs", None),
    ("files", "file"),
    ("media", None),
)
_SYSTEM = ("Subscribe", "Unsubscribe", "Plan", "JoinedGroup", "LeftGroup")
# a character of UTF-8, its bytes written as characters
_BROKEN = re.compile("[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


def repaired(text: str) -> str:
    r"""A text whose UTF-8 bytes were written as characters, as it was; any other as it is.

    >>> repaired("Zo\u00c3\u00ab \u00f0\u009f\u0098\u0080"), repaired("Zo\u00eb")
    ('Zoë 😀', 'Zoë')
    """
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeEncodeError:
        return text  # characters beyond a byte: it was never broken
    except UnicodeDecodeError:
        # cut within a character, or only a part of it is so
        return _BROKEN.sub(_whole_character, text)


def _whole_character(match: re.Match[str]) -> str:
    return match[0].encode("latin-1").decode("utf-8", "replace")


def _is_thread(record: dict[str, Any]) -> bool:
    first = first_of(record, "messages")
    if {"sender_name", "timestamp_ms"} <= first.keys():
        return True
    if not isinstance(record.get("participants"), list) or "messages" not in record:
        return False
    if first:
        return bool({"sender_name", "senderName", "timestamp_ms"} & first.keys())
    return bool({"thread_path", "threadName", "is_still_participant"} & record.keys())


def find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The threads, each with its files, the one with the oldest messages first."""
    found: dict[str, list[str]] = {}
    for name in export.text_names:
        record = export.outline(name)
        if record and _is_thread(record):
            is_numbered = _NUMBERED.search(name) is not None
            thread = PurePosixPath(name).parent.as_posix() if is_numbered else f"{name}/"
            found.setdefault(thread, []).append(name)
    return [tuple(sorted(names, key=_number, reverse=True)) for names in found.values()]


def _number(name: str) -> int:
    match = _NUMBERED.search(name)
    return int(match[1]) if match else 0


def read(export: ExportFiles, names: tuple[str, ...], choices: ReadChoices) -> Iterator[ChatStream]:
    """The one thread of these files."""
    stream = ChatStream(_app(export, names[-1]), "")
    reader = _Reader(export, names[-1], stream, choices)
    for key, value in (export.outline(names[-1]) or {}).items():
        if key != "participants":  # of which an outline shows the first alone
            reader.heading(key, value)
    stream.messages = reader.messages(names)
    yield stream


def _app(export: ExportFiles, name: str) -> str:
    """Which of the two a file comes of: both write the same, in folders of their own names.

    The innermost folder that names one decides, as `your_instagram_activity` does; but for the
    thread's own, which is called after its people.
    """
    path = export.path.absolute()
    whole_path = path if export.names == (path.name,) else path / name
    for part in reversed(whole_path.parent.parent.parts):
        words = part.lower()
        if "instagram" in words:
            return "instagram"
        if "facebook" in words or "messenger" in words:
            return "messenger"
    return "messenger"


class _Reader(EntryReader):
    """Makes messages of the entries of one thread."""

    def heading(self, key: str, value: Any) -> None:
        """Takes what a file says of its thread."""
        if key == "participants" and not self.stream.title and isinstance(value, list):
            names = [one.get("name") if isinstance(one, dict) else one for one in value]
            self.stream.title = ", ".join(
                repaired(whole(name)) for name in names if isinstance(name, str)
            )
        if not isinstance(value, str) or not value:
            return
        if key in ("title", "threadName"):
            self.stream.title = repaired(whole(value))
        elif key == "thread_path":
            self.stream.id = repaired(whole(value))

    def messages(self, names: tuple[str, ...]) -> Iterator[Message]:
        """All messages, the oldest first. Each file is turned round, and so read whole before."""
        for name in names:
            self.file = name
            found = [
                *file_messages(self.export, name, self.stream.account, self._message, self.heading)
            ]
            times = [message.time for message in found if message.time is not None]
            if times and seconds_of(times[0]) >= seconds_of(times[-1]):
                found.reverse()
            for message in found:
                self._seen(message)
                yield message

    def _seen(self, message: Message) -> None:
        """Notes who speaks and who reacts, in the order of the chat and not of the file."""
        for given in message.reactions:
            for name in given.people:
                self.person("", name)
        if message.sender is not None:
            self.person("", message.sender)

    def _message(self, entry: Entry) -> Message | None:
        name = repaired(entry.text("sender_name", "senderName"))
        type_of = entry.text("type")
        text = repaired(entry.text("content", "text"))
        media = tuple(self._media(entry))
        time = entry.moment("timestamp_ms", "timestamp")
        if not (name or text or media or time):
            return None
        kind: Kind = media[0].kind if media else "text"
        author = ""
        share = entry.inner("share")
        if share.values:
            parts = [text, repaired(share.text("share_text"))]
            link = share.text("link")
            if link and not any(link in part for part in parts):
                parts.append(link)
            text = "\n".join(part for part in parts if part)
            kind = kind if media or not (link or type_of == "Share") else "link"
            author = repaired(share.text("original_content_owner"))
        if type_of == "Call" or entry.values.get("call_duration") is not None:
            kind = "call"
        elif type_of in _SYSTEM:
            kind = "system"
        elif type_of == "link":
            kind = "link"
        return Message(
            None if kind == "system" else name or "?",
            text,
            time,
            kind,
            media,
            reactions=tuple(self._reactions(entry)) if entry.values.get("reactions") else (),
            forwarded_from=author,
            is_deleted=entry.flag("is_unsent") or entry.flag("isUnsent"),
            line=entry.line,
        )

    def _media(self, entry: Entry) -> Iterator[Media]:
        for field, kind in _MEDIA:
            if entry.values.get(field):
                for one in entry.entries(field):
                    path = repaired(one.text("uri"))
                    yield carried(self.export, self.file, kind or kind_of_file(path), path)
        if entry.values.get("sticker"):
            path = repaired(entry.inner("sticker").text("uri"))
            yield carried(self.export, self.file, "sticker", path)

    def _reactions(self, entry: Entry) -> Iterator[Reaction]:
        for one in entry.entries("reactions"):
            actor = repaired(one.text("actor"))
            people = (actor,) if actor else ()
            yield Reaction(repaired(one.text("reaction")), people)


FORMAT = ChatFormat("messenger", "a chat export of Messenger or Instagram", find, read)
