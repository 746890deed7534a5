"""A workspace of Slack as it exports itself: a folder a channel, in it a file a day."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from ffr.chats.account import Account
from ffr.chats.chat import Kind, Media, MediaKind, Message, Reaction
from ffr.chats.entry import Entry, EntryReader, list_messages, whole
from ffr.chats.export_files import ExportFiles
from ffr.chats.media import kind_of_file
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.errors import DataError

_USERS = ("users.json", "org_users.json")
_CHANNELS = ("channels.json", "groups.json", "mpims.json", "dms.json")
_STAMP = re.compile(r"\d{1,12}\.\d{1,9}")
_DAY = re.compile(r"(?:^|/)\d{4}-\d{2}-\d{2}\.json$")
# what is said, among the subtypes; all other subtypes are lines of the app itself
_SPOKEN = ("bot_message", "me_message", "file_share", "file_comment", "thread_broadcast",
           "reply_broadcast", "slackbot_response", "assistant_app_thread", "message_replied",
           "tombstone")  # fmt: skip
_CALLS = ("huddle_thread", "sh_room_created")
_MARKUP = re.compile(r"<([@#!]?)([^<>|\n]{1,4000})(?:\|([^<>\n]{0,4000}))?>")
_MAX_DEPTH = 8


def find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The workspaces, each with the files of all its channels' days in their order."""
    days: dict[str, list[str]] = {}
    for name in export.text_names:
        if _DAY.search(name) or len(export.names) == 1:
            days.setdefault(PurePosixPath(name).parent.as_posix(), []).append(name)
    roots = {PurePosixPath(name).parent for name in export.names if _is_index(name)}
    found: dict[str, list[str]] = {}
    for folder, names in sorted(days.items()):
        names.sort()
        root = PurePosixPath(folder).parent
        if root in roots or any(_is_day(export, name) for name in names[:3]):
            found.setdefault(root.as_posix(), []).extend(names)
    return [tuple(names) for names in found.values()]


def _is_index(name: str) -> bool:
    return PurePosixPath(name).name in (*_USERS, *_CHANNELS)


def _is_day(export: ExportFiles, name: str) -> bool:
    record = export.outline(name) or {}
    stamp = record.get("ts")
    is_stamp = isinstance(stamp, str) and _STAMP.fullmatch(stamp) is not None
    return is_stamp and bool({"user", "bot_id", "username", "subtype"} & record.keys())


def read(export: ExportFiles, names: tuple[str, ...], choices: ReadChoices) -> Iterator[ChatStream]:
    """The channels of these days."""
    root = PurePosixPath(names[0]).parent.parent.as_posix()
    workspace = _Workspace(export, root)
    for folder, days in groupby(names, key=lambda name: PurePosixPath(name).parent.name):
        stream = ChatStream("slack", whole(folder or export.path.stem))
        for fault in workspace.account.lines():
            stream.account.fault(fault)
        about = workspace.channels.get(folder)
        if about is not None:
            stream.id = about.text("id")
            members = [workspace.names.get(key, key) for key in about.texts("members")]
            # a talk of two is called by its id alone, one of several by their accounts
            is_talk = not about.text("name") or folder.startswith("mpdm-")
            stream.title = (", ".join(members) if is_talk else about.text("name")) or folder
        stream.messages = _messages(
            export, [*days], _Reader(export, "", stream, choices, workspace)
        )
        yield stream


def _messages(export: ExportFiles, names: list[str], reader: _Reader) -> Iterator[Message]:
    for name in names:
        reader.file = name
        try:
            with export.json(name, reader.stream.account) as pull:
                if pull.kind() == "{":  # one day of a list alone, or no day
                    pull.skip()
                    reader.stream.account.fault(f"{name} has no list of messages")
                else:
                    yield from list_messages(pull, reader.stream.account, name, reader.message)
        except DataError as error:
            reader.stream.account.fault(f"{name} {error.message}")


class _Workspace:
    """Who is in a workspace, and its channels, as the files beside the folders say.

    Args:
        export: The export.
        root: The folder that the channels' folders lie in.
    """

    def __init__(self, export: ExportFiles, root: str) -> None:
        self.export = export
        self._root = "" if root == "." else f"{root}/"
        self.account = Account()
        self.names: dict[str, str] = {}
        self.other_names: dict[str, list[str]] = {}
        self.channels: dict[str, Entry] = {}
        self.channel_names: dict[str, str] = {}
        for file in _USERS:
            for user in self._entries(file):
                names = _names(user)
                self.names[user.text("id")] = next(filter(None, names), "")
                self.other_names[user.text("id")] = names
        for file in _CHANNELS:
            for channel in self._entries(file):
                key, name = channel.text("id"), channel.text("name")
                self.channels[key] = channel
                if name:
                    self.channels[name] = channel
                    self.channel_names[key] = name

    def _entries(self, file: str) -> Iterator[Entry]:
        name = self._root + file
        if name not in self.export.names:
            return
        try:
            with self.export.json(name, self.account) as pull:
                value = pull.value()
        except DataError as error:
            self.account.fault(f"{name} {error.message}")
            return
        yield from Entry({"list": value}, self.account, name, 1).entries("list")


def _names(user: Entry) -> list[str]:
    profile = user.inner("profile")
    names = [profile.text(name) for name in ("display_name", "real_name")]
    return [*names, user.text("real_name"), user.text("name")]


@dataclass
class _Reader(EntryReader):
    """Makes messages of the entries of one channel."""

    workspace: _Workspace

    def message(self, entry: Entry) -> Message | None:
        """The message of an entry; None where it is none."""
        if entry.text("type") not in ("message", "") or entry.values.get("ts") is None:
            return None
        subtype = entry.text("subtype")
        id_of, thread = entry.text("ts"), entry.text("thread_ts")
        media = tuple(self._files(entry))
        text = self._words(entry)
        kind: Kind = media[0].kind if media else "text"
        if subtype in _CALLS:
            kind = "call"
        elif subtype and subtype not in _SPOKEN:
            kind = "system"
        is_deleted = subtype == "tombstone"
        return Message(
            None if kind == "system" else self._sender(entry),
            "" if is_deleted else text,
            entry.moment("ts"),
            kind,
            media,
            id_of,
            thread if thread != id_of else "",
            tuple(self._reactions(entry)) if entry.values.get("reactions") else (),
            self._forwarded_from(entry) if entry.values.get("attachments") else "",
            entry.values.get("edited") is not None,
            is_deleted,
            line=entry.line,
        )

    def _sender(self, entry: Entry) -> str:
        key = entry.text("user", "bot_id", "username")
        name = entry.text("username") or self.workspace.names.get(key, "")
        if not name and isinstance(entry.values.get("user_profile"), dict):
            name = entry.inner("user_profile").text("display_name", "real_name", "name")
        if not name and isinstance(entry.values.get("bot_profile"), dict):
            name = entry.inner("bot_profile").text("name")
        return self.person(key, name, *self.workspace.other_names.get(key, ()))

    def _words(self, entry: Entry) -> str:
        text = self._plain(entry.text("text"))
        if text:
            return text
        # bots, and messages of blocks alone, have their words elsewhere
        parts: list[str] = []
        for card in entry.entries("attachments"):
            said = [card.text(name) for name in ("pretext", "title", "text")]
            parts += said if any(said) else [card.text("fallback")]
        if not any(parts):
            _gather(entry.values.get("blocks"), parts)
        return self._plain("\n".join(part for part in parts if part))

    def _forwarded_from(self, entry: Entry) -> str:
        """Who wrote a message that is handed on."""
        shared = (card for card in entry.entries("attachments") if card.flag("is_share"))
        return next((card.text("author_name", "author_id") for card in shared), "")

    def _plain(self, text: str) -> str:
        """A text of Slack's markup with people, channels and links as one reads them."""
        if "<" in text:
            text = _MARKUP.sub(self._marked, text)
        return html_signs(text)

    def _marked(self, match: re.Match[str]) -> str:
        sign, target, label = match[1], match[2], match[3] or ""
        if sign == "@":
            known = self.stream.people.get(target)
            name = label or self.workspace.names.get(target) or (known and known.name)
            return f"@{name or target}"
        if sign == "#":
            return f"#{label or self.workspace.channel_names.get(target) or target}"
        if sign == "!":
            # <!here>, <!subteam^S1|@cooks>, <!date^1392734382^{date}|18 February>
            return label or f"@{target.partition('^')[0]}"
        address = target.removeprefix("mailto:").removeprefix("tel:")
        return address if label in ("", address, target) else f"{label} ({address})"

    def _files(self, entry: Entry) -> Iterator[Media]:
        for one in entry.entries("files"):
            name, key = one.text("name", "title"), one.text("id")
            kind: MediaKind = kind_of_file(name, one.text("mimetype"))
            if one.text("subtype") == "slack_audio":
                kind = "voice"
            yield Media(kind, name, self._held(key, name))

    def _held(self, key: str, name: str) -> str | None:
        """The file that tools which fetch attachments put beside the messages."""
        if not name:
            return None
        if key:
            for place in (f"__uploads/{key}/{name}", f"attachments/{key}-{name}", f"{key}-{name}"):
                found = self.export.find(place, self.file)
                if found is not None and key in found:
                    return found
        found = self.export.find(name, self.file)
        # there, every file lies in a folder called by its id
        return None if found is None or "__uploads/" in found else found

    def _reactions(self, entry: Entry) -> Iterator[Reaction]:
        for one in entry.entries("reactions"):
            people = tuple(
                self.person(key, self.workspace.names.get(key, "")) for key in one.texts("users")
            )
            yield Reaction(f":{one.text('name')}:", people, one.count("count", max(1, len(people))))


def html_signs(text: str) -> str:
    """A text in which `&amp;`, `&lt;` and `&gt;` are the signs that they stand for."""
    return html.unescape(text) if "&" in text else text


def _gather(value: Any, parts: list[str], depth: int = 0) -> None:
    """Adds the words that stand anywhere in a message's blocks."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for one in value:
            _gather(one, parts, depth + 1)
    elif isinstance(value, dict):
        text = value.get("text")
        if isinstance(text, str):
            parts.append(text)
        else:
            for one in value.values():
                if isinstance(one, (dict, list)):
                    _gather(one, parts, depth + 1)


FORMAT = ChatFormat("slack", "a chat export of Slack", find, read)
