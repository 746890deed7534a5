"""Chats of WeChat as MemoTrace writes them: CSV, beside it folders with pictures and stickers.

Which file of `image/` belongs to a message is known by a name in its XML, else by the time in the
file's name, where only one message and one file have it. It is never guessed.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import PurePosixPath

from ffr.chats.account import Account
from ffr.chats.chat import Kind, Media, MediaKind, Message
from ffr.chats.entry import Entry, EntryReader, entry_message, whole
from ffr.chats.export_files import ExportFiles
from ffr.chats.media import FILE_KINDS, base_name, kind_of_file, media_in
from ffr.chats.stream import ChatFormat, ChatStream, ReadChoices
from ffr.chats.times import clock, zoned
from ffr.chats.wechat_xml import Part, app_words, card_of, parsed
from ffr.errors import DataError

_COLUMNS = {"localid", "talkerid"}
_FOLDERS = ("image", "emoji", "video", "voice", "audio", "file", "files", "music")
_KINDS: dict[str, Kind] = {
    "1": "text",
    "3": "picture",
    "34": "voice",
    "42": "contact",
    "43": "video",
    "47": "sticker",
    "48": "place",
    "49": "link",
    "50": "call",
    "62": "video",
    "66": "contact",
    "10000": "system",
    "10002": "system",
}
# kinds of cards, by the column SubType, where the XML cannot be read
_SUBTYPES: dict[str, Kind] = {
    "1": "text",
    "6": "file",
    "8": "sticker",
    "17": "place",
    "19": "text",
    "53": "text",
    "57": "text",
    "62": "system",
    "87": "text",
    "2000": "text",
    "2001": "text",
    "2003": "text",
}
_TITLE = re.compile(r"<title>(?:<!\[CDATA\[)?([^<\]]{1,4000})")
_MAX_RECORD_CHARS = 4 << 20
_MAX_OPEN_RECORDS = 20
_MAX_MARKS = 500


def _header(line: str) -> list[str]:
    return [cell.strip().lower() for cell in cells(line)]


def find(export: ExportFiles) -> list[tuple[str, ...]]:
    """The files, each a chat."""
    found: list[tuple[str, ...]] = []
    for name in export.text_names:
        first = export.head(name)[:2000].decode("utf-8-sig", "replace").partition("\n")[0]
        if set(_header(first)) >= _COLUMNS:
            found.append((name,))
    return found


def read(export: ExportFiles, names: tuple[str, ...], choices: ReadChoices) -> Iterator[ChatStream]:
    """The one chat of a file."""
    (file,) = names
    stream = ChatStream("memotrace", whole(PurePosixPath(file).stem))
    stream.messages = _Reader(export, file, stream, choices).messages()
    yield stream


class _Reader(EntryReader):
    """Makes messages of the rows of one file."""

    def messages(self) -> Iterator[Message]:
        """All messages, every line of the file counted."""
        account = self.stream.account
        try:
            for line, row in self._rows(account):
                message = entry_message(row, account, self.file, line, self.message)
                if message is not None:
                    yield message
        except DataError as error:
            account.fault(f"{self.file} {error.message}")

    def _rows(self, account: Account) -> Iterator[tuple[int, dict[str, str]]]:
        """The rows by the names of their columns, in small letters, with their lines."""
        names: list[str] = []
        for line, record in records(self.export.lines(self.file, account), account, self.file):
            values = cells(record)
            if not names:
                names = [value.strip().lower() for value in values]
                account.num_heading += 1
            elif len(values) == 1 and not values[0].strip():
                account.num_blank += 1
            else:
                yield line, dict(zip(names, values, strict=False))

    @cached_property
    def _files(self) -> _Attachments:
        return _Attachments(self.export, self.file)

    @cached_property
    def _sent(self) -> dict[int, str]:
        """The ids of messages by their times and senders; "" where two are alike."""
        return {}

    @cached_property
    def _num_at(self) -> Counter[tuple[str, str]]:
        """How many messages of a type have a time."""
        return Counter(
            (row.get("type", ""), row.get("createtime", "")) for _, row in self._rows(Account())
        )

    def message(self, row: Entry) -> Message | None:
        """The message of a row; None where it has no type that is known."""
        type_of = row.text("type")
        kind = _KINDS.get(type_of)
        if kind is None:
            return None
        content = row.text("strcontent")
        root = parsed(content) if "<" in content and ">" in content else None
        text, media, reply_to = content, None, ""
        if type_of == "49":
            kind, text, media, reply_to = self._card(row, content, root)
        elif kind in FILE_KINDS:
            text, media = self._attachment(row, FILE_KINDS[kind], content, root)
        elif kind == "system":
            text = app_words(content)
        elif root is not None and kind != "text":
            text = _described(kind, root)
        # some versions have the server's id, by which quotes name their message
        id_of = row.text("msgsvrid", "localid")
        sender = None
        if kind != "system":
            is_me = row.text("issender") == "1"
            name, own = row.text("remark"), row.text("nickname")
            sender = self.person(row.text("sender"), name, own, is_me=is_me)
            key = hash((row.text("createtime"), row.text("sender")))
            self._sent[key] = "" if key in self._sent else id_of
        return Message(
            sender,
            text,
            zoned(row.moment("createtime"), row.read(clock, "strtime")),
            kind,
            () if media is None else (media,),
            id_of,
            reply_to,
            line=row.line,
        )

    def _card(
        self, row: Entry, content: str, root: Part | None
    ) -> tuple[Kind, str, Media | None, str]:
        if root is None:
            kind = _SUBTYPES.get(row.text("subtype"), "link")
            text = content
            if "<" in content:
                row.damaged("StrContent", content)
                title = _TITLE.search(content)
                text = title[1] if title else ""
            return kind, text, Media(FILE_KINDS[kind]) if kind in FILE_KINDS else None, ""
        card = card_of(root)
        media = None
        if card.kind in FILE_KINDS:
            name = self.export.find(card.file, self.file) if card.file else None
            media = Media(FILE_KINDS[card.kind], card.file, name)
        # rows have no server's id: a quote's message is known by its time and sender
        at = self._sent.get(hash((card.reply_time, card.reply_from))) if card.reply_time else ""
        return card.kind, card.text, media, at or card.reply_to

    def _attachment(
        self, row: Entry, kind: MediaKind, content: str, root: Part | None
    ) -> tuple[str, Media]:
        text = ""
        if root is None and "<" not in content:
            text, item = media_in(self.export, self.file, kind, content)
            if item.file is not None:
                return text, item
        elif root is None:
            row.damaged("StrContent", content)
        marks = _marks(root) if root is not None else []
        found = self._files.by_mark(kind, marks)
        seconds = row.text("createtime")
        digits = "".join(filter(str.isdigit, row.text("strtime")))
        if found is None and (at := self._files.by_time(kind, (seconds, digits))):
            # two pictures of one second may be either
            found = at if self._num_at[row.text("type"), seconds] == 1 else None
        said = root.first("voicetrans").attributes.get("transtext", "") if root is not None else ""
        return said or text, Media(kind, whole(base_name(found)) if found else "", found)


def _marks(root: Part) -> list[str]:
    """What may name a file in a message's XML: sums and names."""
    found: list[str] = []
    waiting = [root]
    while waiting and len(found) < _MAX_MARKS:
        part = waiting.pop()
        found += [value.strip().lower() for value in (*part.attributes.values(), part.text)]
        waiting += part.parts
    return [value for value in found if value]


def _described(kind: Kind, root: Part) -> str:
    """The words of a place, a person's card or a call."""
    if kind == "place":
        where = root.first("location").attributes
        point = ", ".join(filter(None, (where.get("x"), where.get("y"))))
        return "\n".join(filter(None, (where.get("poiname"), where.get("label"), point)))
    if kind == "contact":
        return root.attributes.get("nickname", "")
    return root.said("VoIPBubbleMsg/msg") or root.said("msg")


class _Attachments:
    """The files beside a chat, by the sums and the times in their names.

    Args:
        export: The export.
        beside: The chat's own file.
    """

    _SUM = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
    _SECONDS = re.compile(r"(?<!\d)([12]\d{9})(?:\d{3})?(?!\d)")
    _CLOCK = re.compile(
        r"(?<!\d)(20\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_ .T]?(\d\d)[-_.]?(\d\d)[-_.]?(\d\d)(?!\d)"
    )

    def __init__(self, export: ExportFiles, beside: str) -> None:
        folder = PurePosixPath(beside).parent
        self._by_mark: dict[tuple[MediaKind, str], list[str]] = {}
        self._by_time: dict[tuple[MediaKind, str], list[str]] = {}
        for name in _names_beside(export, folder):
            path = PurePosixPath(name.lower())
            kind: MediaKind = "sticker" if "emoji" in path.parts else kind_of_file(name)
            if "voice" in path.parts or "audio" in path.parts:
                kind = "voice"
            stem = path.stem
            for mark in {stem, path.name, *self._SUM.findall(stem)}:
                self._by_mark.setdefault((kind, mark), []).append(name)
            times = {match[1] for match in self._SECONDS.finditer(stem)}
            times |= {"".join(match.groups()) for match in self._CLOCK.finditer(stem)}
            for time in times:
                self._by_time.setdefault((kind, time), []).append(name)

    def by_mark(self, kind: MediaKind, marks: Iterable[str]) -> str | None:
        """The one file that has one of the marks in its name."""
        found = [names for mark in marks if (names := self._by_mark.get((kind, mark)))]
        return found[0][0] if found and len(found[0]) == 1 else None

    def by_time(self, kind: MediaKind, times: Iterable[str]) -> str | None:
        """The one file that has one of the times in its name."""
        found = {name for time in times for name in self._by_time.get((kind, time), ())}
        return found.pop() if len(found) == 1 else None


def _names_beside(export: ExportFiles, folder: PurePosixPath) -> Iterator[str]:
    """The files in the folders of attachments that lie where a chat's file lies."""
    if len(export.names) > 1 or export.is_archive or export.path.is_dir():
        for name in export.names:
            path = PurePosixPath(name)
            if path.is_relative_to(folder):
                inner = path.relative_to(folder).parts
                if len(inner) > 1 and inner[0].lower() in _FOLDERS:
                    yield name
        return
    for inside in _FOLDERS:
        if (export.path.parent / inside).is_dir():
            for name in ExportFiles(export.path.parent / inside).names:
                yield f"{inside}/{name}"


def records(
    lines: Iterator[tuple[int, str]], account: Account, file: str
) -> Iterator[tuple[int, str]]:
    """The records of a CSV file, which may go over several lines in quotes, with their first lines.

    Args:
        lines: The lines, with their numbers.
        account: Where further lines of a record are counted, and records whose quotes never end.
        file: What the file is called.
    """
    waiting: deque[tuple[int, str]] = deque()
    num_open = 0
    while True:
        first = waiting.popleft() if waiting else next(lines, None)
        if first is None:
            return
        parts = [first]
        is_open = first[1].count('"') % 2 == 1
        num_chars = len(first[1])
        while is_open and num_chars < _MAX_RECORD_CHARS:
            following = waiting.popleft() if waiting else next(lines, None)
            if following is None:
                break
            parts.append(following)
            num_chars += len(following[1])
            is_open ^= following[1].count('"') % 2 == 1
        if not is_open:
            account.num_continuations += len(parts) - 1
            yield first[0], "\n".join(text for _, text in parts)
            continue
        account.not_understood(file, *first)
        num_open += 1
        if num_open > _MAX_OPEN_RECORDS:
            account.fault(f"{file} has too many quotes that never end; it is read to {first[0]}")
            account.num_not_understood += len(parts) - 1 + len(waiting) + sum(1 for _ in lines)
            return
        waiting.extendleft(reversed(parts[1:]))


_QUOTED = re.compile(r'[^"]*(?:""[^"]*)*"')


def cells(record: str) -> list[str]:
    """The cells of a record of CSV.

    >>> cells('1,"a ""b"", c",')
    ['1', 'a "b", c', '']
    """
    if '"' not in record:
        return record.split(",")
    found = []
    at = 0
    while at >= 0:
        match = _QUOTED.match(record, at + 1) if record.startswith('"', at) else None
        if match:
            end = record.find(",", match.end())
            found.append(match[0][:-1].replace('""', '"'))
        else:
            end = record.find(",", at)
            found.append(record[at:end] if end >= 0 else record[at:])
        at = end + 1 if end >= 0 else -1
    return found


FORMAT = ChatFormat("memotrace", "a chat export of WeChat (MemoTrace)", find, read)
