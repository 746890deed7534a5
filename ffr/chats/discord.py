"""Channels of Discord as DiscordChatExporter writes them: JSON, one file a channel or a part of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from ffr.chats.chat import Kind, Media, Message, Reaction
from ffr.chats.entry import Entry, EntryReader, file_messages
from ffr.chats.export_files import ExportFiles
from ffr.chats.json_pull import first_of
from ffr.chats.media import carried, kind_of_file
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.chats.times import clock

# by name, or by Discord's own number where the exporter knows no name: what people say
_SPOKEN = ("Default", "Reply", "ChatInputCommand", "ContextMenuCommand", "ThreadStarterMessage",
           "0", "19", "20", "21", "23")  # fmt: skip
_CALLS = ("Call", "3")
_PART = re.compile(r"\[part (\d+)\]")
_MENTION = re.compile(r"<@!?(\d{1,25})>")
_EMOTE = re.compile(r"<a?(:\w{1,64}:)\d{1,25}>")
_MAX_EMBEDS = 10


def _is_channel(record: dict[str, Any]) -> bool:
    is_named = {"guild", "channel", "messages"} <= record.keys()
    return is_named and (
        isinstance(record["channel"], dict)
        or {"author", "timestamp", "content"} <= first_of(record, "messages").keys()
    )


def find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The channels, each with its parts in their order."""
    found: dict[object, list[str]] = {}
    for name in export.text_names:
        record = export.outline(name)
        if record and _is_channel(record):
            channel = record["channel"]
            id_of = channel.get("id") if isinstance(channel, dict) else None
            folder = PurePosixPath(name).parent.as_posix()
            # without an id, every file is a channel of its own
            found.setdefault((folder, id_of) if isinstance(id_of, (str, int)) else name, []).append(
                name
            )
    return [tuple(sorted(names, key=_part)) for names in found.values()]


def _part(name: str) -> tuple[int, str]:
    match = _PART.search(name)
    return (int(match[1][:9]) if match else 1, name)


def read(export: ExportFiles, names: tuple[str, ...], choices: ReadChoices) -> Iterator[ChatStream]:
    """The one channel of these files."""
    outline = export.outline(names[0]) or {}
    stream = ChatStream("discord", "")
    channel = Entry(outline, stream.account, names[0], 0).inner("channel")
    stream.title, stream.id = channel.text("name", "id"), channel.text("id")
    stream.messages = _messages(export, names, stream, choices)
    yield stream


def _messages(
    export: ExportFiles, names: tuple[str, ...], stream: ChatStream, choices: ReadChoices
) -> Iterator[Message]:
    # exports of one channel may overlap
    seen: set[tuple[str, str | None, datetime | None]] = set()
    for name in names:
        reader = _Reader(export, name, stream, choices)
        for message in file_messages(export, name, stream.account, reader.message):
            known_by = (message.id, message.sender, message.time)
            if message.id and known_by in seen:
                stream.account.repeated(is_system=message.kind == "system")
                continue
            if len(names) > 1:
                seen.add(known_by)
            yield message


class _Reader(EntryReader):
    """Makes messages of the entries of one file."""

    def message(self, entry: Entry) -> Message | None:
        """The message of an entry; None where nothing in it is known."""
        type_of = entry.text("type")
        author = entry.inner("author")
        time = entry.read(clock, "timestamp")
        text = self._words(entry)
        media = (*self._attachments(entry), *self._stickers(entry))
        forwarded = entry.inner("forwardedMessage")
        if forwarded.values:
            text = "\n".join(filter(None, (text, self._words(forwarded))))
            media = (*media, *self._attachments(forwarded), *self._stickers(forwarded))
        if not (type_of or author.values or time or text or media):
            return None
        kind: Kind = media[0].kind if media else "text"
        if type_of in _CALLS:
            kind = "call"
        elif type_of and type_of not in _SPOKEN:
            kind = "system"
            name = author.text("nickname", "name")
            # "Pinned a message." does not say who did
            text = f"{name}: {text}" if name and name not in text else text
        elif not text and not media:
            text = _embedded(entry)
            poll = entry.inner("poll")
            if not text and poll.values:
                kind, text = "poll", _poll(poll)
        reference = entry.inner("reference")
        return Message(
            None if kind == "system" else self._author(author),
            text,
            time,
            kind,
            media,
            entry.text("id"),
            "" if forwarded.values else reference.text("messageId"),
            tuple(self._reactions(entry)) if entry.values.get("reactions") else (),
            reference.text("channelId") if forwarded.values else "",
            entry.values.get("timestampEdited") is not None,
            line=entry.line,
        )

    def _author(self, author: Entry) -> str:
        return self.person(author.text("id"), author.text("nickname", "name"), author.text("name"))

    def _words(self, entry: Entry) -> str:
        """The text, with people and emotes called by their names."""
        text = entry.text("content")
        if "<" not in text:
            return text
        if "<@" in text:
            names = {
                one.text("id"): one.text("nickname", "name") for one in entry.entries("mentions")
            }
            text = _MENTION.sub(lambda match: f"@{names.get(match[1]) or match[1]}", text)
        return _EMOTE.sub(r"\1", text)

    def _attachments(self, entry: Entry) -> Iterator[Media]:
        for one in entry.entries("attachments"):
            path, name = one.text("url"), one.text("fileName")
            kind = kind_of_file(name or path)
            if kind == "voice" and not name.startswith("voice-message"):
                kind = "file"
            yield carried(self.export, self.file, kind, path, name)

    def _stickers(self, entry: Entry) -> Iterator[Media]:
        for one in entry.entries("stickers"):
            yield carried(
                self.export, self.file, "sticker", one.text("sourceUrl"), one.text("name")
            )

    def _reactions(self, entry: Entry) -> Iterator[Reaction]:
        for one in entry.entries("reactions"):
            emoji = one.inner("emoji")
            sign = emoji.text("name", "code")
            if emoji.text("id"):
                sign = f":{sign}:"  # a server's own picture, which is known by its name alone
            people = tuple(
                self._author(user) for user in one.entries("users") if user.text("id", "name")
            )
            yield Reaction(sign, people, one.count("count", max(1, len(people))))


def _embedded(entry: Entry) -> str:
    """What the cards of a message say that has no words of its own, as bots write."""
    parts: list[str] = []
    for embed in list(entry.entries("embeds"))[:_MAX_EMBEDS]:
        parts += [embed.text("title"), embed.text("description")]
        for field in embed.entries("fields"):
            parts.append(": ".join(filter(None, (field.text("name"), field.text("value")))))
        if not any(parts):
            parts.append(embed.text("url"))
    return "\n".join(filter(None, parts))


def _poll(poll: Entry) -> str:
    question = poll.values.get("question")
    asked = poll.inner("question").text("text") if isinstance(question, dict) else ""
    answers = [
        answer.text("text") or answer.inner("poll_media").text("text")
        for answer in poll.entries("answers")
    ]
    return "\n".join([asked or poll.text("question"), *(f"- {answer}" for answer in answers)])


FORMAT = ChatFormat("discord", "a chat export of Discord", find, read)
