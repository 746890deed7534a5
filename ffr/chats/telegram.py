"""Telegram Desktop's export as JSON: one chat, or a whole account with many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ffr.chats.chat import Kind, Media, MediaKind, Message, Reaction
from ffr.chats.entry import Entry, EntryReader, list_messages, whole
from ffr.chats.export_files import ExportFiles
from ffr.chats.json_pull import JsonPull, first_of
from ffr.chats.media import base_name, kind_of_file
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.chats.times import clock, zoned
from ffr.errors import DataError
from ffr.text import counted

_LISTS = ("chats", "left_chats")
_TYPES = ("saved_messages", "replies", "verification_codes", "personal_chat", "bot_chat",
          "private_group", "private_supergroup", "public_supergroup", "private_channel",
          "public_channel")  # fmt: skip
_MEDIA: dict[str, MediaKind] = {
    "sticker": "sticker",
    "voice_message": "voice",
    "video_message": "video",
    "video_file": "video",
    "animation": "video",
    "audio_file": "file",
}
# what a service line says beside its action, in the order in which it is told
_DETAILS = ("title", "new_title", "emoticon", "game_name", "reason_domain", "text")


def _is_chat(record: dict[str, Any]) -> bool:
    first = first_of(record, "messages")
    if first:
        return "date" in first and bool({"from", "from_id", "type", "actor"} & first.keys())
    return isinstance(record.get("messages"), list) and record.get("type") in _TYPES


def _has_chats(record: dict[str, Any]) -> bool:
    inner = [record.get(name) for name in _LISTS]
    is_seen = any(isinstance(one, dict) and isinstance(one.get("list"), list) for one in inner)
    # contacts and pictures may fill the beginning, before the chats come
    return is_seen or (
        "messages" not in record and {"about", "personal_information"} <= record.keys()
    )


def find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The files of exports: each may hold many chats."""
    outlines = ((name, export.outline(name)) for name in export.text_names)
    return [
        (name,) for name, record in outlines if record and (_is_chat(record) or _has_chats(record))
    ]


def read(export: ExportFiles, names: tuple[str, ...], choices: ReadChoices) -> Iterator[ChatStream]:
    """The chats of one file.

    Raises:
        DataError: where it breaks off before the first of them.
    """
    (file,) = names
    outline = export.outline(file) or {}
    stream = ChatStream("telegram", "")
    with export.json(file, stream.account) as pull:
        if not _has_chats(outline):
            _head(stream, file, outline)
            yield from _one(export, file, pull, stream, choices, "")
            return
        owner = ""
        strays = 0
        try:
            for key in pull.members():
                if key == "personal_information":
                    value = pull.value()
                    owner = str(value.get("user_id") or "") if isinstance(value, dict) else ""
                elif key not in _LISTS or pull.kind() != "{":
                    pull.skip()
                else:
                    for inner in pull.members():
                        if inner != "list" or pull.kind() != "[":
                            pull.skip()
                            continue
                        for _ in pull.elements():
                            if pull.kind() != "{":
                                pull.skip()
                                strays += 1
                                continue
                            stream = ChatStream("telegram", "")
                            yield from _one(export, file, pull, stream, choices, owner)
                            if pull.is_broken:
                                return
        except DataError as error:
            if not stream.title and not stream.id:
                raise
            stream.account.fault(f"{file} {error.message}")
        if strays:
            verb = counted(strays, "entry is", "entries are")
            stream.account.fault(f"{file}: {verb} no chat, among its chats")


def _head(stream: ChatStream, file: str, values: dict[str, Any]) -> None:
    """Takes what an object says of its chat."""
    about = Entry(values, stream.account, file, 0)
    stream.title = stream.title or about.text("name")
    stream.id = stream.id or about.text("id")
    if not stream.title and about.text("type") == "saved_messages":
        stream.title = "Saved Messages"


def _one(
    export: ExportFiles,
    file: str,
    pull: JsonPull,
    stream: ChatStream,
    choices: ReadChoices,
    owner: str,
) -> Iterator[ChatStream]:
    """The chat whose object comes; what its reader leaves of it is passed over."""
    reader = _Reader(export, file, stream, choices, owner)
    members = pull.members()
    head: dict[str, Any] = {}

    def messages() -> Iterator[Message]:
        # the first list stands where `members` was left; what follows it may still tell the title
        try:
            yield from list_messages(pull, stream.account, file, reader.message)
            for key in members:
                if key == "messages":
                    yield from list_messages(pull, stream.account, file, reader.message)
                else:
                    head[key] = pull.value()
        except DataError as error:
            pull.is_broken = True
            stream.account.fault(f"{file} {error.message}")
        _head(stream, file, head)

    try:
        for key in members:
            if key == "messages":
                stream.messages = messages()
                break
            head[key] = pull.value()
    except DataError as error:
        pull.is_broken = True
        stream.account.fault(f"{file} {error.message}")
    _head(stream, file, head)
    head.clear()
    yield stream
    for _ in stream.messages:
        pass


_CONTENTS: tuple[tuple[str, Callable[[Entry], tuple[Kind, str]]], ...] = (
    ("poll", lambda entry: ("poll", _poll(entry.inner("poll")))),
    (
        "contact_information",
        lambda entry: ("contact", _contact(entry.inner("contact_information"))),
    ),
    ("location_information", lambda entry: ("place", _place(entry))),
    ("todo_list", lambda entry: ("text", _tasks(entry.inner("todo_list")))),
    ("invoice_information", lambda entry: ("text", _invoice(entry.inner("invoice_information")))),
    ("game_title", lambda entry: ("link", entry.text("game_title"))),
)


@dataclass
class _Reader(EntryReader):
    """Makes messages of the entries of one chat."""

    owner: str = ""

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """The keys that may be the owner's: older versions write the number alone."""
        return (f"user{self.owner}", self.owner) if self.owner else ()

    def message(self, entry: Entry) -> Message | None:
        """The message of an entry; None where it is of no type that is known."""
        kind_of_entry = entry.text("type")
        if kind_of_entry == "service":
            return self._service(entry)
        if kind_of_entry not in ("message", ""):
            return None
        text = _text(entry)
        media = self._media(entry)
        kind: Kind = media[0].kind if media else "text"
        for name, content in _CONTENTS:
            if entry.values.get(name) is not None:
                kind, words = content(entry)
                text = "\n".join(part for part in (text, words) if part)
        sender = self._person(entry, "from")
        time = self._time(entry)
        if not (text or media or sender or time):
            return None
        if kind == "sticker" and not text:
            text = entry.text("sticker_emoji")
        reactions: tuple[Reaction, ...] = ()
        if entry.values.get("reactions"):
            reactions = tuple(self._reactions(entry))
        return Message(
            sender or self.person(""),
            text,
            time,
            kind,
            media,
            entry.text("id"),
            # an answer to a message of another chat names that one's number
            "" if entry.values.get("reply_to_peer_id") else entry.text("reply_to_message_id"),
            reactions,
            entry.text("forwarded_from", "forwarded_from_id", "saved_from"),
            self._is_edited(entry),
            line=entry.line,
        )

    def _service(self, entry: Entry) -> Message:
        actor = entry.text("actor", "actor_id")
        action = entry.text("action")
        words = action.replace("_", " ")
        if action == "phone_call":
            reason = entry.text("discard_reason")
            seconds = entry.text("duration_seconds")
            said = [words, f"{seconds} s" if seconds else "", reason]
            return Message(
                self._person(entry, "actor") or None,
                ", ".join(part for part in said if part),
                self._time(entry),
                "call",
                id=entry.text("id"),
                line=entry.line,
            )
        details = [entry.text(name) for name in _DETAILS if isinstance(entry.values.get(name), str)]
        details.append(", ".join(entry.texts("members")))
        text = ": ".join(part for part in (actor, words, *details) if part)
        return Message(
            None,
            text,
            self._time(entry),
            "system",
            self._media(entry),
            entry.text("id"),
            entry.text("message_id"),
            line=entry.line,
        )

    def _person(self, entry: Entry, name: str) -> str:
        said = entry.text(name)
        key = entry.text(f"{name}_id") or said
        if not key:
            return ""
        return self.person(key, said, is_me=key in self.owners)

    def _time(self, entry: Entry) -> Any:
        return zoned(entry.moment("date_unixtime"), entry.read(clock, "date"))

    def _is_edited(self, entry: Entry) -> bool:
        if entry.values.get("edited_unixtime") is None and entry.values.get("edited") is None:
            return False
        # versions before 2020 write the year 1970 where nothing was edited
        return not entry.text("edited").startswith("1970-01-0")

    def _media(self, entry: Entry) -> tuple[Media, ...]:
        found = []
        for name in ("photo", "file"):
            path = entry.text(name)
            if not path:
                continue
            called = entry.text("file_name") if name == "file" else ""
            kind: MediaKind = "picture"
            if name == "file":
                mime = entry.text("mime_type")
                kind = _MEDIA.get(entry.text("media_type")) or kind_of_file(called or path, mime)
                kind = "file" if kind == "voice" and not entry.text("media_type") else kind
            # "(File not included. Change data exporting settings to download.)"
            if path.startswith("(") and path.endswith(")"):
                found.append(Media(kind, called))
            else:
                found.append(
                    Media(kind, called or base_name(path), self.export.find(path, self.file))
                )
        if not found and entry.values.get("media_type") in _MEDIA:
            found.append(Media(_MEDIA[entry.text("media_type")], entry.text("file_name")))
        return tuple(found)

    def _reactions(self, entry: Entry) -> Iterator[Reaction]:
        for reaction in entry.entries("reactions"):
            sign = reaction.text("emoji", "document_id")
            if not sign:
                sign = "⭐" if reaction.text("type") == "paid" else reaction.text("type")
            people = tuple(
                key for given in reaction.entries("recent") if (key := self._person(given, "from"))
            )
            yield Reaction(sign, people, reaction.count("count", max(1, len(people))))


def _text(entry: Entry, name: str = "text") -> str:
    """The words of a field: a text, or a list of texts and of objects with one."""
    value = entry.values.get(name)
    if not value and name == "text":
        value = entry.values.get("text_entities") or value
    if isinstance(value, str):
        return value if value.isascii() else whole(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return entry.text(name)
    parts = []
    for part in value:
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            said, href = part["text"], part.get("href")
            is_other = isinstance(href, str) and href and href != said
            parts.append(f"{said} ({href})" if is_other else said)
        elif part is not None:
            entry.damaged(name, part)
    return whole("".join(parts))


def _poll(poll: Entry) -> str:
    answers = [f"- {_text(one)} ({one.count('voters', 0)})" for one in poll.entries("answers")]
    return "\n".join([_text(poll, "question"), *answers])


def _contact(contact: Entry) -> str:
    names = [contact.text(name) for name in ("first_name", "last_name", "phone_number")]
    return " ".join(part for part in names if part)


def _place(entry: Entry) -> str:
    place = entry.inner("location_information")
    point = [place.text(name) for name in ("latitude", "longitude")]
    parts = [entry.text("place_name"), entry.text("address"), ", ".join(filter(None, point))]
    return "\n".join(part for part in parts if part)


def _tasks(tasks: Entry) -> str:
    items = [f"- {_text(item)}" for name in ("answers", "items") for item in tasks.entries(name)]
    return "\n".join([_text(tasks, "title"), *items])


def _invoice(invoice: Entry) -> str:
    return "\n".join(filter(None, (invoice.text("title"), invoice.text("description"))))


FORMAT = ChatFormat("telegram", "a chat export of Telegram", find, read)
