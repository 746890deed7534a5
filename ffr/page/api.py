"""The questions that the page asks, and their answers out of a store and its archive.

Nothing here changes a store. Searches and all else have a connection and a lock each, so that one
reads on while a search is at work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ffr.corpus.archive import Archive
from ffr.corpus.filters import Filters
from ffr.corpus.people import same_as
from ffr.corpus.store import Line, Store
from ffr.errors import DataError, FfrError, UsageError
from ffr.page.asked import (
    Asked,
    ChatAsked,
    FragmentAsked,
    LineAsked,
    LinesAsked,
    NextAsked,
    NothingAsked,
    PictureAsked,
    SearchAsked,
    day_of,
)
from ffr.page.content import (
    ShownChat,
    ShownFound,
    ShownLine,
    shown_chat,
    shown_found,
    shown_lines,
)
from ffr.page.pictures import full_picture, thumbnail
from ffr.page.taking import fragment_archive, fragment_json, fragment_text

_MAX_DECODED_AT_ONCE = 3


class NotThereError(FfrError):
    """What is asked for is not in the store, or not among the chats that are served."""


@dataclass(frozen=True, slots=True)
class Chats:
    """All chats that are served."""

    chats: tuple[ShownChat, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """Messages of a chat, in order; fewer than were asked for at its end."""

    lines: tuple[ShownLine, ...]


@dataclass(frozen=True, slots=True)
class Day:
    """A day of a chat: the place of its first message, and how many it has."""

    day: str
    place: int
    count: int


@dataclass(frozen=True, slots=True)
class Days:
    """The days on which a chat has messages, in order."""

    days: tuple[Day, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a chat; None where there is none."""

    place: int | None


@dataclass(frozen=True, slots=True)
class File:
    """Bytes of a kind; with a name where they are to be kept."""

    data: bytes
    media_type: str
    name: str = ""


class Api:
    """Answers of the server.

    Args:
        archive: Is searched.
        reading: A second connection to the same store, for all else.
        chats: Numbers of the chats that are served; none for all of the store.
    """

    def __init__(self, archive: Archive, reading: Store, chats: Collection[int] = ()) -> None:
        self._archive = archive
        self._store = reading
        self._served = frozenset(chats)
        self._asking, self._reading = threading.Lock(), threading.Lock()
        self._decoding = threading.BoundedSemaphore(_MAX_DECODED_AT_ONCE)

    def chats(self, asked: NothingAsked) -> Chats:
        """All chats."""
        with self._reading:
            found = self._store.chats(self._served or None)
            return Chats(tuple(shown_chat(self._store, chat) for chat in found))

    def lines(self, asked: LinesAsked) -> Lines:
        """Messages of a chat, from a place on."""
        with self._reading:
            self._chat(asked.chat)
            first = max(0, asked.start - 1)
            found = self._store.lines(asked.chat, first, asked.start + asked.count)
            before = found[0] if found and found[0].place < asked.start else None
            return Lines(shown_lines(self._store, found if before is None else found[1:], before))

    def days(self, asked: ChatAsked) -> Days:
        """The days of a chat, for a calendar."""
        with self._reading:
            self._chat(asked.chat)
            day = self._store.database.day("seconds + coalesce(zone, 0) * 60")
            rows = self._store.rows(
                "SELECT day, min(place) AS place, count(*) AS n FROM "
                f"(SELECT {day} AS day, place FROM messages WHERE chat = ? AND seconds IS NOT NULL)"
                " AS dated WHERE day IS NOT NULL GROUP BY day ORDER BY day",
                [asked.chat],
            )
            return Days(tuple(Day(row["day"], row["place"], row["n"]) for row in rows))

    def next_of(self, asked: NextAsked) -> Place:
        """Where a person speaks next, or spoke before."""
        turn, order = ("<", "DESC") if asked.back else (">", "ASC")
        with self._reading:
            self._chat(asked.chat)
            keys = same_as(self._store, asked.chat, asked.person)
            rows = self._store.rows(
                f"SELECT place FROM messages WHERE chat = ? AND place {turn} ? AND sender IN "
                f"({','.join('?' * len(keys))}) ORDER BY place {order} LIMIT 1",
                [asked.chat, asked.place, *keys],
            )
            return Place(rows[0]["place"] if rows else None)

    def line(self, asked: LineAsked) -> ShownLine:
        """One message, with its chat and its place there."""
        with self._reading:
            return shown_lines(self._store, [self._line(asked.line)])[0]

    def search(self, asked: SearchAsked) -> ShownFound:
        """The fragments that a query means."""
        since, until = day_of(asked.since, "since"), day_of(asked.until, "until")
        if since is not None and until is not None and since > until:
            raise UsageError(f"since {since} is later than until {until}, which leaves no day")
        with self._reading:
            for chat in asked.chat:
                self._chat(chat)
        filters = Filters(
            tuple(sorted(set(asked.chat) or self._served)),
            tuple(dict.fromkeys(asked.by)),
            since,
            until,
            asked.has,
        )
        with self._asking:
            found = self._archive.ask(asked.q, filters, top=asked.top)
            return shown_found(self._archive.store, found)

    def fragment(self, asked: FragmentAsked) -> File:
        """Messages as a file."""
        with self._reading:
            lines = sorted(
                (self._line(id_) for id_ in dict.fromkeys(asked.line)), key=lambda line: line.place
            )
            if len({line.chat for line in lines}) > 1:
                raise UsageError("the messages are of several chats; take those of one along")
            title = self._chat(lines[0].chat)
            shown = shown_lines(self._store, lines)
        if asked.form == "zip":
            with self._decoding:
                data = fragment_archive(title, lines, shown)
            return File(data, "application/zip", "fragment.zip")
        make = fragment_text if asked.form == "txt" else fragment_json
        kind = "text/plain" if asked.form == "txt" else "application/json"
        data = make(title, shown).encode("utf-8", "replace")
        return File(data, f"{kind}; charset=utf-8", f"fragment.{asked.form}")

    def picture(self, asked: PictureAsked) -> File:
        """A picture at its full size."""
        path, _ = self._picture(asked)
        return self._jpeg(lambda: full_picture(path))

    def small_picture(self, asked: PictureAsked) -> File:
        """A picture small."""
        path, digest = self._picture(asked)
        return self._jpeg(lambda: thumbnail(self._store, path, digest))

    def _jpeg(self, make: Callable[[], bytes]) -> File:
        try:
            with self._decoding:
                return File(make(), "image/jpeg")
        except DataError:
            # what is wrong names a path of this machine
            raise NotThereError("the picture cannot be opened") from None

    def _chat(self, id_: int) -> str:
        """The title of a chat that is served; `Store.chats` would count all of its messages."""
        is_served = not self._served or id_ in self._served
        rows = self._store.rows("SELECT title FROM chats WHERE id = ?", [id_]) if is_served else []
        if not rows:
            raise NotThereError(f"there is no chat {id_}")
        return str(rows[0]["title"])

    def _line(self, id_: int) -> Line:
        try:
            line = self._store.line(id_)
        except UsageError:
            raise NotThereError(f"there is no message {id_}") from None
        if self._served and line.chat not in self._served:
            raise NotThereError(f"there is no message {id_}")
        return line

    def _picture(self, asked: PictureAsked) -> tuple[str, bytes | None]:
        """Where a picture of a message lies, by what the store says of it; its digest."""
        with self._reading:
            line = self._line(asked.line)
            path = line.pictures[asked.number] if asked.number < len(line.pictures) else None
            if path is None:
                raise NotThereError(f"message {asked.line} has no picture {asked.number}")
            rows = self._store.rows(
                "SELECT digest FROM attached JOIN files USING (source, file) "
                "WHERE message = ? AND number = ?",
                [asked.line, asked.number],
            )
            return path, rows[0]["digest"] if rows else None


@dataclass(frozen=True)
class Question:
    """One kind of question that the server answers.

    Args:
        path: Its address; what stands in braces is a parameter of `asked`.
        summary: What is answered, in words.
        asked: Its parameters.
        answer: What comes back as JSON; None for bytes.
        media_types: The kinds of bytes, where it is these.
        call: Makes the answer.
    """

    path: str
    summary: str
    asked: type[Asked]
    answer: type | None
    call: Callable[[Any], Any]
    media_types: tuple[str, ...] = ("application/json",)


def questions(api: Api) -> list[Question]:
    """All questions."""
    jpeg = ("image/jpeg",)
    files = ("text/plain", "application/json", "application/zip")
    chat = "/api/chats/{chat}"
    return [
        Question("/api/chats", "All chats", NothingAsked, Chats, api.chats),
        Question(f"{chat}/lines", "Messages of a chat", LinesAsked, Lines, api.lines),
        Question(f"{chat}/days", "The days of a chat", ChatAsked, Days, api.days),
        Question(f"{chat}/next", "The next message of a person", NextAsked, Place, api.next_of),
        Question("/api/lines/{line}", "One message", LineAsked, ShownLine, api.line),
        Question("/api/search", "What a query means", SearchAsked, ShownFound, api.search),
        Question("/api/fragment", "Messages as a file", FragmentAsked, None, api.fragment, files),
        Question("/pictures/{line}/{number}", "A picture", PictureAsked, None, api.picture, jpeg),
        Question(
            "/thumbnails/{line}/{number}",
            "A picture, small",
            PictureAsked,
            None,
            api.small_picture,
            jpeg,
        ),
    ]
