"""One folder, or server, that keeps chats: who said what and when, full text, and where pictures lie.

Everything of a chat is in the store's own database, readable by its owner alone, and nothing is
written elsewhere. Vectors lie beside it (`ffr/corpus/vectors.py`), or on the server too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ffr.chats.chat import Media, Message, Person, Reaction, day_words
from ffr.chats.cutting import Cutting
from ffr.corpus.database import Database, Row
from ffr.corpus.postgres.address import is_server, read_address
from ffr.corpus.schema import DATABASE, SCHEMA, connect
from ffr.data.home import data_home
from ffr.errors import UsageError
from ffr.text import counted, one_line

_EPOCH = datetime(1970, 1, 1)


def default_store() -> Path:
    """Where chats are kept if nothing else is said: `index` in the user's cache of ffr."""
    return data_home().parent / "index"


@dataclass(frozen=True, slots=True)
class StoredChat:
    """A chat of a store.

    Args:
        id: Its number in the store.
        app: As in `Chat`.
        title: As in `Chat`.
        num_messages: Lines of people.
        num_pictures: Pictures that they carry.
        num_missing: Those of them that the export does not hold.
        num_away: Those that lie in an export's folder which is not where it was.
        num_people: Who speak.
        first: The first time that its clock showed; None where it has none.
        last: The last one.
        cutting: How it is cut into dialogues.
        sources: The exports that it was read from.
        mark: What tells it from other chats of its title: its app, and its number where the app is
            theirs too; "" where it is alone.
    """

    id: int
    app: str
    title: str
    num_messages: int
    num_pictures: int
    num_missing: int
    num_away: int
    num_people: int
    first: datetime | None
    last: datetime | None
    cutting: Cutting
    sources: tuple[str, ...]
    mark: str = ""

    def called(self, most: int) -> str:
        """Its title, of so many characters at most, and what tells it from others."""
        mark = f"({self.mark})" if self.mark else ""
        return " ".join(filter(None, [one_line(self.title, most), mark]))

    def is_called(self, name: str) -> bool:
        """Whether it has this title, with or without what tells it from others, or number."""
        return name in (self.title, str(self.id), self.called(len(self.title)))

    @property
    def summary(self) -> str:
        """What it holds, in one line."""
        lacking = [
            *([f"{self.num_missing:,} missing"] if self.num_missing else []),
            *([f"{self.num_away:,} in an export that is away"] if self.num_away else []),
        ]
        missing = f" ({', '.join(lacking)})" if lacking else ""
        parts = [
            counted(self.num_messages, "message"),
            counted(self.num_pictures, "picture") + missing,
            counted(self.num_people, "person", "people"),
        ]
        if self.first is not None and self.last is not None:
            parts.append(" – ".join(dict.fromkeys([day_words(self.first), day_words(self.last)])))
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Line:
    """A message where it stands in a store.

    Args:
        id: Its number in the store.
        chat: Of its chat.
        place: Its place in the chat, from 0.
        dialogue: The number of the dialogue that it belongs to, within its chat.
        message: The message.
        speaker: The name of its sender; "" where the app itself speaks.
        is_me: Whether the owner of the export sent it.
        pictures: For each of its media, where the file lies; None where that is no picture, or is
            missing.
    """

    id: int
    chat: int
    place: int
    dialogue: int
    message: Message
    speaker: str
    is_me: bool
    pictures: tuple[str | None, ...] = ()


class Store:
    """Chats in one folder, or on a server.

    Args:
        folder: The folder, or the URL of a server: `postgresql://HOST/DATABASE`; None for
            `default_store`.
        is_new_allowed: Make it where it is missing.

    Raises:
        DataError: where it is missing, no store of this version, or does not answer.
        UsageError: where a URL has a password, or psycopg is not installed.

    >>> from ffr.files import temporary_folder
    >>> with temporary_folder() as folder, Store(folder / "s", is_new_allowed=True) as store:
    ...     store.chats()
    []
    """

    def __init__(self, folder: str | Path | None = None, *, is_new_allowed: bool = False) -> None:
        self.address: str | Path = default_store() if folder is None else folder
        self.folder, self.database = _opened(self.address, is_new_allowed=is_new_allowed)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_remote(self) -> bool:
        """Whether the tables lie on a server; `folder` then keeps copies of pictures alone."""
        return is_server(self.address)

    @property
    def place(self) -> str:
        """Where it is, as people call it."""
        return self.database.place if self.is_remote else str(self.folder)

    def close(self) -> None:
        """Lets go of the database."""
        self.database.close()

    def writing(self) -> AbstractContextManager[None]:
        """Keeps other processes from writing into the store meanwhile; they still can read.

        Raises:
            UsageError: where another process writes.
        """
        return self.database.writing()

    def snapshot(self) -> AbstractContextManager[int]:
        """Shows the database within as it is now, whatever others write meanwhile.

        Gives a number that changes with what others write.
        """
        return self.database.snapshot()

    def rows(self, sql: str, values: Sequence[object] = ()) -> Sequence[Row]:
        """All rows of a question to the database.

        Raises:
            DataError: where it cannot be read.
        """
        return self.database.rows(sql, values)

    def tuples(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """As `rows`, without names, which are dear where there are many.

        Raises:
            DataError: where it cannot be read.
        """
        return self.database.tuples(sql, values)

    def numbers(self) -> list[int]:
        """The numbers of the chats, in the order in which they came."""
        return [row["id"] for row in self.rows("SELECT id FROM chats ORDER BY id")]

    def chats(self, ids: Iterable[int] | None = None) -> list[StoredChat]:
        """The chats, in the order in which they came.

        Args:
            ids: Some of them; None for all.
        """
        wanted = None if ids is None else set(ids)
        found = []
        rows = self.rows("SELECT * FROM chats ORDER BY id")
        marks = _marks(rows)
        for row in rows:
            if wanted is not None and row["id"] not in wanted:
                continue
            (counts,) = self.rows(
                "SELECT count(*) AS messages, min(seconds + coalesce(zone, 0) * 60) AS first, "
                "max(seconds + coalesce(zone, 0) * 60) AS last FROM messages "
                "WHERE chat = ? AND kind != 'system'",
                [row["id"]],
            )
            media = self.rows(
                "SELECT media FROM messages WHERE chat = ? AND media != '[]'", [row["id"]]
            )
            pictures = _pictures(found["media"] for found in media)
            (people,) = self.rows(_NUM_PEOPLE, [row["id"], row["id"]])
            sources = self.rows("SELECT path FROM sources WHERE chat = ? ORDER BY id", [row["id"]])
            found.append(
                StoredChat(
                    row["id"],
                    row["app"],
                    row["title"],
                    counts["messages"],
                    len(pictures),
                    sum(item[2] is None for item in pictures),
                    _num_away(self, row["id"]),
                    people["n"],
                    _clock(counts["first"]),
                    _clock(counts["last"]),
                    Cutting(row["pause_hours"], row["max_messages"]),
                    tuple(source["path"] for source in sources),
                    marks.get(row["id"], ""),
                )
            )
        return found

    def named(self, name: str, chats: Sequence[int] = ()) -> StoredChat:
        """The chat of a title or number.

        Args:
            name: The title, with or without what tells it from others, or the number.
            chats: Those that are meant first, where several have the title; none for all.

        Raises:
            UsageError: where there is none, or more than one.
        """
        found = [chat for chat in self.chats() if chat.is_called(name)]
        found = [chat for chat in found if chat.id in chats] or found
        if len(found) != 1:
            what = "no chat" if not found else "more than one chat"
            raise UsageError(
                f"{self.place} has {what} called {one_line(name, 60)}; `ffr index list` shows all "
                "with their numbers"
            )
        return found[0]

    def people(self, chat: int) -> dict[str, Person]:
        """Who speaks in a chat, by key; those who were said to be one have one name."""
        rows = self.rows(_PEOPLE, [chat])
        mine = {row["person"] for row in rows if row["is_me"]} - {None}
        return {row["key"]: _person(row, row["person"] in mine) for row in rows}

    def lines(self, chat: int, start: int, stop: int) -> list[Line]:
        """The messages of a chat from a place up to, without, another."""
        return self._lines(
            "chat = ? AND place >= ? AND place < ? ORDER BY place", [chat, start, stop]
        )

    def dialogue(self, chat: int, number: int) -> list[Line]:
        """The messages of one dialogue of a chat, in order."""
        # +: or the database goes through the whole chat, which lies in the order that is wanted
        return self._lines("chat = ? AND dialogue = ? ORDER BY +place", [chat, number])

    def lines_of(self, ids: Sequence[int]) -> list[Line]:
        """Messages by their numbers, ascending; those that are not there are left out."""
        wanted = sorted(ids)
        found: list[Line] = []
        for start in range(0, len(wanted), _FEW):
            part = wanted[start : start + _FEW]
            found += self._lines(f"id IN ({','.join('?' * len(part))}) ORDER BY id", part)
        return found

    def line(self, id: int) -> Line:  # noqa: A002 - the field
        """One message.

        Raises:
            UsageError: where there is none of this number.
        """
        found = self._lines("id = ?", [id])
        if not found:
            raise UsageError(f"{self.place} has no message {id}; it may have been forgotten")
        return found[0]

    def _lines(self, condition: str, values: Sequence[object]) -> list[Line]:
        rows = self.rows(f"SELECT * FROM messages WHERE {condition}", values)
        people = {chat: self.people(chat) for chat in {row["chat"] for row in rows}}
        paths = self._picture_paths([row["id"] for row in rows if row["media"] != "[]"])
        return [_line(row, people[row["chat"]], paths.get(row["id"], {})) for row in rows]

    def _picture_paths(self, ids: Sequence[int]) -> dict[int, dict[int, str]]:
        """Where the pictures of messages lie, by message and number of the medium."""
        found: dict[int, dict[int, str]] = {}
        for start in range(0, len(ids), _FEW):
            part = ids[start : start + _FEW]
            marks = ",".join("?" * len(part))
            for row in self.rows(
                "SELECT message, number, path FROM attached JOIN files USING (source, file) "
                f"WHERE message IN ({marks}) AND path IS NOT NULL",
                part,
            ):
                found.setdefault(row["message"], {})[row["number"]] = row["path"]
        return found


def span_of(store: Store, chat: int, dialogue: int) -> tuple[int, int]:
    """The places of the first and the last message of a dialogue."""
    (row,) = store.rows(
        "SELECT min(place) AS first, max(place) AS last FROM messages "
        "WHERE chat = ? AND dialogue = ?",
        [chat, dialogue],
    )
    return row["first"], row["last"]


_FEW = 500

# those who were said to be one count once
_NUM_PEOPLE = (
    "SELECT count(*) - (SELECT count(*) - count(DISTINCT person) FROM same WHERE chat = ?) AS n "
    "FROM people WHERE chat = ?"
)
_PEOPLE = (
    "SELECT people.key, name, other_names, is_me, person, coalesce(called, name) AS called "
    "FROM people LEFT JOIN same ON same.chat = people.chat AND same.key = people.key "
    "WHERE people.chat = ?"
)


def _person(row: Row, is_me: bool) -> Person:
    names = (row["name"], *json.loads(row["other_names"]))
    others = tuple(name for name in names if name != row["called"])
    return Person(row["key"], row["called"], others, is_me or bool(row["is_me"]))


def _marks(chats: Sequence[Row]) -> dict[int, str]:
    """`StoredChat.mark` of the chats that have one."""
    titles = Counter(row["title"] for row in chats)
    apps = Counter((row["title"], row["app"]) for row in chats)
    marks = {row["id"]: row["app"] for row in chats if titles[row["title"]] > 1}
    for row in chats:
        if apps[row["title"], row["app"]] > 1:
            marks[row["id"]] += f", chat {row['id']}"
    return marks


def _num_away(store: Store, chat: int) -> int:
    """Pictures whose files went away with the folder of their export."""
    away = [
        row["id"]
        for row in store.rows("SELECT id, path FROM sources WHERE chat = ?", [chat])
        if not Path(row["path"]).exists()
    ]
    paths = [
        row["path"]
        for source in away
        for row in store.rows(
            "SELECT path FROM attached JOIN files USING (source, file) "
            "WHERE attached.source = ? AND path IS NOT NULL",
            [source],
        )
    ]
    return sum(not Path(path).exists() for path in paths)


def _pictures(media: Iterable[str]) -> list[list[Any]]:
    """Kind, name and file of the pictures among the media of messages."""
    return [item for items in media for item in json.loads(items) if item[0] == "picture"]


def _opened(address: str | Path, *, is_new_allowed: bool) -> tuple[Path, Database]:
    """The folder of a store, and its database."""
    if not is_server(address):
        folder = Path(address)
        return folder, connect(folder / DATABASE, is_new_allowed=is_new_allowed)
    server = read_address(str(address))
    try:
        from ffr.corpus.postgres.database import ServerDatabase
    except ImportError as error:
        raise UsageError(
            "--index with a URL needs psycopg and pgvector; pip install 'ffr-vlm[postgres]'"
        ) from error
    return server.folder, ServerDatabase(server, version=SCHEMA, is_new_allowed=is_new_allowed)


def _clock(seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:  # the last thousandths of the year 9999, which a float rounds up
        return datetime.max


def stored_time(time: datetime | None) -> tuple[float | None, int | None]:
    """A time as the database holds it: seconds since 1970, and the zone's minutes if it has one.

    >>> stored_time(datetime(1970, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=1))))
    (0.0, 60)
    """
    if time is None:
        return None, None
    offset = time.utcoffset()
    if offset is None:
        return (time - _EPOCH).total_seconds(), None
    # towards 0: rounded up, 23:59:40 would be a day, which no zone is
    return (time - _EPOCH.replace(tzinfo=UTC)).total_seconds(), int(offset.total_seconds() / 60)


def _time(seconds: float | None, zone: int | None) -> datetime | None:
    # by its own clock: the first day of the year 1 may begin in a year 0 elsewhere
    clock = _clock(None if seconds is None else seconds + (zone or 0) * 60)
    if clock is None or zone is None:
        return clock
    return clock.replace(tzinfo=timezone(timedelta(minutes=zone)))


def _line(row: Row, people: dict[str, Person], paths: dict[int, str]) -> Line:
    media = tuple(Media(*item) for item in _listed(row["media"]))
    message = Message(
        row["sender"],
        row["text"],
        _time(row["seconds"], row["zone"]),
        row["kind"],
        media,
        row["app_id"],
        row["reply_to"],
        tuple(
            Reaction(sign, tuple(given), count) for sign, given, count in _listed(row["reactions"])
        ),
        row["forwarded_from"],
        bool(row["is_edited"]),
        bool(row["is_deleted"]),
        row["line"],
    )
    person = people.get(row["sender"]) if row["sender"] is not None else None
    return Line(
        row["id"],
        row["chat"],
        row["place"],
        row["dialogue"],
        message,
        "" if person is None else person.name,
        person is not None and person.is_me,
        tuple(paths.get(number) for number in range(len(media))),
    )


def _listed(written: str) -> list[Any]:
    """A list as the database holds it; nearly all are empty."""
    found: list[Any] = [] if written == "[]" else json.loads(written)
    return found
