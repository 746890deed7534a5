"""Chats of WeChat as WeFlow writes them: JSON, one file a chat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ffr.chats.chat import Kind, Media, Message
from ffr.chats.entry import Entry, EntryReader, file_messages
from ffr.chats.export_files import ExportFiles
from ffr.chats.json_pull import first_of
from ffr.chats.media import FILE_KINDS, media_in
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.chats.times import clock, zoned
from ffr.chats.wechat_kinds import kind_of_word
from ffr.chats.wechat_xml import app_words, card_of, parsed

_SURE = {"senderUsername", "createTime", "localType"}
_OF_SESSION = {"wxid", "displayName", "nickname"}
_OWN = {"senderUsername", "senderDisplayName", "localType", "formattedTime", "platformMessageId"}


def _is_chat(record: dict[str, Any]) -> bool:
    if first_of(record, "messages").keys() >= _SURE:
        return True
    # an avatar may fill the beginning, before the messages come
    messages = record.get("messages", [])
    if not isinstance(record.get("session"), dict) or not isinstance(messages, list):
        return False
    first = messages[0] if messages else None
    if isinstance(first, dict):
        return bool(_OWN & first.keys())
    return "weflow" in record or bool(_OF_SESSION & record["session"].keys())


def find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The files, each a chat."""
    outlines = ((name, export.outline(name)) for name in export.text_names)
    return [(name,) for name, record in outlines if record and _is_chat(record)]


def read(export: ExportFiles, names: tuple[str, ...], choices: ReadChoices) -> Iterator[ChatStream]:
    """The one chat of a file."""
    (file,) = names
    stream = ChatStream("weflow", "")
    session = Entry(export.outline(file) or {}, stream.account, file, 0).inner("session")
    stream.id = session.text("wxid", "username", "id")
    stream.title = session.text("remark", "displayName", "nickname", "name") or stream.id
    reader = _Reader(export, file, stream, choices)
    stream.messages = file_messages(export, file, stream.account, reader.message)
    yield stream


class _Reader(EntryReader):
    """Makes messages of the entries of one file."""

    def message(self, entry: Entry) -> Message | None:
        """The message of an entry; None where nothing in it is known."""
        word = entry.text("type")
        key, name = entry.text("senderUsername"), entry.text("senderDisplayName")
        time = zoned(entry.moment("createTime"), entry.read(clock, "formattedTime"))
        content = entry.text("content")
        if not (word or key or name or content or time):
            return None
        kind, text, media, reply_to = self._said(entry, kind_of_word(word), content)
        sender = None
        if kind != "system":
            sender = self.person(key, name, is_me=entry.flag("isSend"))
        return Message(
            sender,
            text,
            time,
            kind,
            media,
            entry.text("platformMessageId", "localId"),
            reply_to or entry.text("replyToMessageId", "quotedMessageId"),
            line=entry.line,
        )

    def _said(
        self, entry: Entry, kind: Kind, content: str
    ) -> tuple[Kind, str, tuple[Media, ...], str]:
        """What a message is, its words, its files, and what it answers."""
        if content.lstrip()[:1] == "<" and (root := parsed(content)) is not None:
            if root.name == "appmsg" or root.first("appmsg").parts:
                card = card_of(root)
                media = (Media(card.kind, card.file),) if card.kind in ("file", "sticker") else ()
                return card.kind, card.text, media, card.reply_to
            if kind == "system":
                return kind, app_words(content), (), ""
            if kind == "text":
                return kind, content, (), ""  # someone's own words, for all that they are XML
            content = ""
        file_kind = FILE_KINDS.get(kind)
        if file_kind is None:
            return kind, content, (), ""
        text, item = media_in(self.export, self.file, file_kind, content)
        if not item.name:
            item = replace(item, name=entry.text("fileName"))
        return kind, text, (item,), ""


FORMAT = ChatFormat("weflow", "a chat export of WeChat (WeFlow)", find, read)
