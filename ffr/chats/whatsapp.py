"""WhatsApp's "export chat": a text, alone, in a folder or in a zip archive with its media."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import PurePosixPath

from ffr.chats.account import Account
from ffr.chats.chat import Message
from ffr.chats.dates import begins_marked, unmarked
from ffr.chats.export_files import ExportFiles
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.chats.whatsapp_content import content_of, is_app_speaking
from ffr.chats.whatsapp_headers import Header
from ffr.chats.whatsapp_survey import Survey, first_header, survey
from ffr.chats.whatsapp_words import is_notice
from ffr.text import counted, one_line

_HEAD_LINES = 100
_MAX_HEAD_BYTES = 1 << 18
_MAX_MESSAGE_CHARS = 1 << 20
_OWN_TEXT = re.compile(r"(?:.*/)?(?:_chat\.txt|[^/]*whatsapp[^/]*\.txt)$", re.IGNORECASE)
_ATTACHMENT = re.compile(r"(?:\d{6,10}-|[A-Z]{3,4}-\d{8}-WA\d)")
# what the names of exports say beside the chat's, in the languages of phones
_TITLES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"whatsapp[ _-]+chat[ _]+(?:with|mit|met|con|med|avec|-)[ _]+(?P<title>.+)",
        r"whatsapp[ _]*-[ _]*chat[ _]+(?:with|mit|met|con|med|avec)[ _]+(?P<title>.+)",
        r"(?:chat|conversa(?:ción)?|conversazione|discussion|historial de chat)[ _]+(?:(?:de|do|di)[ _]+)?"
        r"whatsapp[ _]+(?:con|com|avec|mit|with)[ _]+(?P<title>.+)",
        r"(?:чат|чат в)[ _]+whatsapp[ _]+(?:с|з|із|со)[ _]+(?P<title>.+)",
        r"(?P<title>.+?)[ _]+ile[ _]+whatsapp[ _]+(?:sohbeti|konuşması)",
        r"(?:与|與)[ _]?(?P<title>.+?)[ _]?的[ _]?whatsapp[ _]?(?:聊天|对话|對話).*",
        r"whatsapp[ _]?(?:对话|聊天|聊天记录|聊天記錄|對話)[ _]*[-–—:：与與]*[ _]*(?P<title>.+)",
        r"(?P<title>.+?)[ _]?との?[ _]?whatsapp[ _]?(?:チャット|トーク).*",
        r"whatsapp[ _]?(?:チャット|대화|채팅)[ _]*[-–—:：]*[ _]*(?P<title>.+)",
        r"(?P<title>.+?)님?(?:과|와)의?[ _]?whatsapp[ _]?(?:대화|채팅).*",
        r"(?:chat|obrolan|perbualan|trò chuyện|czat|rozmowa|chatt|keskustelu|konverzace|beszélgetés)[ _]+"
        r"whatsapp[ _]+(?:dengan|với|z|med|cu|s|so|sa|med)?[ _]*(?P<title>.+)",
        r"whatsapp[ _-]+(?:chat|czat|sohbeti|keskustelu|chatt)[ _-]+(?P<title>.+)",
        r"(?:דו-שיח|צ'אט|צ׳אט|דו שיח)[ _]+(?:ב-?)?whatsapp[ _]+עם[ _]+(?P<title>.+)",
        r"(?:محادثة|دردشة)[ _]+(?:في[ _]+)?(?:whatsapp|واتساب)[ _]+مع[ _]+(?P<title>.+)",
    )
)
_COPY = re.compile(r" ?\(\d{1,3}\)$")


def _find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The texts of an export that are chats; a text that a chat carries as a file is none."""
    names = [name for name in export.text_names if _may_be_text(export, name)]
    own_folders = {str(PurePosixPath(name).parent) for name in names if _OWN_TEXT.match(name)}
    found: list[tuple[str, ...]] = []
    for name in names:
        path = PurePosixPath(name)
        is_own = _OWN_TEXT.match(name) is not None
        if not is_own and len(export.names) > 1:
            is_beside = export.is_archive and str(path.parent) in own_folders
            if is_beside or _ATTACHMENT.match(path.name):
                continue
        if first_header(_head_lines(export, name)) is not None:
            found.append((name,))
    return found


def _may_be_text(export: ExportFiles, name: str) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix == ".txt" or len(export.names) == 1


def _head_lines(export: ExportFiles, name: str) -> list[str]:
    head = export.head(name)[:_MAX_HEAD_BYTES]
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in head:
        return []
    return head.decode(encoding, "replace").split("\n")[:_HEAD_LINES]


def title_of(export: ExportFiles, name: str) -> str:
    """What a chat is called, by the name of its file or of what holds it; "" where that says nothing."""
    stem = PurePosixPath(name).stem
    if stem.lower() == "_chat":
        folder = PurePosixPath(name).parent.name
        stem = folder or (export.path.stem if export.is_archive else "")
        if not stem and export.path.is_dir():
            stem = export.path.resolve().name
    stem = _COPY.sub("", unmarked(stem))
    for pattern in _TITLES:
        match = pattern.fullmatch(stem)
        if match is not None:
            return match["title"].strip(" _-")
    return "" if stem.lower() == "_chat" else stem


@dataclass
class _Begun:
    """A message whose lines are still coming."""

    header: Header
    line: int
    sender: str | None
    lines: list[str]
    is_marked: bool
    size: int = 0


class _Reading:
    """One file on its way to messages."""

    def __init__(
        self, export: ExportFiles, name: str, stream: ChatStream, choices: ReadChoices
    ) -> None:
        self._export = export
        self._name = name
        self._stream = stream
        self._me = None if choices.me is None else unmarked(choices.me)
        self._choices = choices
        self._account = stream.account
        self._num_timeless = self._first_timeless = 0
        self._num_strange = self._first_strange = 0
        self._num_broken = self._first_broken = 0
        self._survey = Survey()
        self._file = lru_cache(maxsize=4096)(lambda named: export.find(named, name))

    def messages(self) -> Iterator[Message]:
        """All messages; the account is whole when they end."""
        account = self._account
        self._survey = found = survey(self._export.lines(self._name, Account()), self._choices)
        account.decisions.extend(found.decisions)
        for fault in found.faults:
            account.fault(fault)
        if not self._stream.title:
            self._stream.title = found.notice
        begun: _Begun | None = None
        for number, line in self._export.lines(self._name, account):
            header = found.reader.header(line)
            if header is not None and found.is_own(header):
                if begun is not None:
                    yield self._message(begun)
                begun = self._begin(header, number, line)
            elif begun is None:
                if unmarked(line):
                    account.not_understood(self._name, number, line)
                else:
                    account.num_blank += 1
            else:
                account.num_continuations += 1
                begun.size += len(line)
                if begun.size <= _MAX_MESSAGE_CHARS:
                    begun.lines.append(line)
                else:
                    account.fault(
                        f"the message of line {begun.line} is longer than any; it is cut off at "
                        f"{counted(_MAX_MESSAGE_CHARS, 'character')}"
                    )
                if header is None and found.looks_like_one(line):
                    self._num_broken += 1
                    self._first_broken = self._first_broken or number
        if begun is not None:
            yield self._message(begun)
        self._close()

    def _begin(self, header: Header, number: int, line: str) -> _Begun:
        sender, text = self._survey.split(line[header.end :])
        return _Begun(header, number, sender, [text], begins_marked(line) or number == 1)

    def _message(self, begun: _Begun) -> Message:
        time = self._time(begun)
        text = "\n".join(begun.lines) if len(begun.lines) > 1 else begun.lines[0]
        text = text.rstrip()
        if begun.sender is None:
            self._account.num_system += 1
            return Message(None, unmarked(text), time, "system", line=begun.line)
        is_by_app = text[:1] == "\u200e" and (begun.is_marked or not self._survey.has_marked_lines)
        content = content_of(text, self._file, is_by_app=is_by_app)
        if (content.kind == "text" and is_notice(text)) or (
            is_by_app and is_app_speaking(text, content)
        ):
            self._account.num_system += 1
            return Message(None, content.text, time, "system", line=begun.line)
        self._account.num_messages += 1
        sender = begun.sender
        if sender not in self._stream.people:
            self._stream.person(sender, sender, is_me=sender == self._me)
        return Message(
            sender,
            content.text,
            time,
            content.kind,
            content.media,
            is_edited=content.is_edited,
            is_deleted=content.is_deleted,
            line=begun.line,
        )

    def _time(self, begun: _Begun) -> datetime | None:
        time = self._survey.time(begun.header)
        if time is None:
            if begun.header.numbers[2]:
                self._num_timeless += 1
                self._first_timeless = self._first_timeless or begun.line
        elif not 1990 <= time.year <= 2100:
            self._num_strange += 1
            self._first_strange = self._first_strange or begun.line
        return time

    def _close(self) -> None:
        """Says what was met on the way."""
        account, found = self._account, self._survey
        if self._num_timeless:
            lines = counted(self._num_timeless, "line has a date", "lines have dates")
            account.fault(
                f"{lines} that no calendar has, and no time is kept for them; the first is "
                f"{self._name}:{self._first_timeless}"
            )
        if self._num_strange:
            lines = counted(self._num_strange, "line has a date", "lines have dates")
            account.fault(
                f"{lines} outside 1990 to 2100, the first is {self._name}:{self._first_strange}"
            )
        if found.num_foreign:
            lines = counted(found.num_foreign, "line begins", "lines begin")
            account.fault(
                f"{lines} like a header of another style and are kept with the message "
                f"before, the first is {self._name}:{found.first_foreign}"
            )
        if self._num_broken:
            lines = counted(self._num_broken, "line begins", "lines begin")
            verb, first = ("is", "") if self._num_broken == 1 else ("are", ", the first")
            account.fault(
                f"{lines} like a broken header and {verb} kept with the message before{first}: "
                f"{self._name}:{self._first_broken}"
            )
        me = self._me
        if me is not None and me not in self._stream.people:
            account.fault(f"nobody here is called {one_line(me, 60)}, so nobody is marked as me")


def _read(
    export: ExportFiles, names: tuple[str, ...], choices: ReadChoices
) -> Iterator[ChatStream]:
    for name in names:
        stream = ChatStream("whatsapp", title_of(export, name))
        stream.messages = _Reading(export, name, stream, choices).messages()
        yield stream


FORMAT = ChatFormat("whatsapp", "a chat export of WhatsApp", _find, _read)
