"""A chat that is read → the store: what is new is added, what changed is changed, once."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ffr.chats.chat import Message
from ffr.chats.cutting import Cutting, cut_seconds
from ffr.chats.dialogues import is_line, utterance_of
from ffr.chats.stream import ChatStream
from ffr.corpus.matching import Carriers, Known, Met, with_kept_files
from ffr.corpus.schema import whole
from ffr.corpus.segments import drop_stale, loosen_dialogues, loosen_messages
from ffr.corpus.store import Store, stored_time
from ffr.corpus.terms import terms_of
from ffr.errors import DataError
from ffr.files import dump_json
from ffr.text import one_line

_BATCH = 2000


@dataclass(frozen=True, slots=True)
class Added:
    """What came of adding a chat.

    Args:
        chat: Its number in the store.
        num_new: Messages that were not there.
        num_changed: That were there with other words or pictures.
        num_known: That were there as they are.
    """

    chat: int
    num_new: int
    num_changed: int
    num_known: int


def text_key(text: str) -> bytes:
    """Names a text, by which its vector is found."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def line_text(message: Message) -> str:
    """The words of a message as a line of a dialogue has them; "" where it is none."""
    if not is_line(message):
        return ""
    return utterance_of(message, "", [item.file for item in message.media]).text.strip()


def words_of(message: Message) -> str:
    """The terms by which full text finds a message: its words, and its files' names."""
    names = " ".join(item.name for item in message.media)
    return " ".join(terms_of(f"{message.text} {names}"))


def add_chat(
    store: Store,
    stream: ChatStream,
    source: Path,
    cutting: Cutting,
    *,
    state: str,
    is_corrected: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Added:
    """Reads a chat into the store, whole or not at all.

    It is the chat that is there already where app and name are the same and at least one message
    is; then only what is new or changed is written. Pictures whose old export is gone are looked
    for in this one.

    Args:
        store: The store.
        stream: The chat; it is read to its end.
        source: The export that it comes from.
        cutting: How it is cut into dialogues.
        state: Of the export: what tells that it need not be read again.
        is_corrected: Whether the export was misread before, as in another order of day and month:
            then what it brought takes the place of what it brought before.
        progress: Is told the number of messages read, now and then.

    Raises:
        DataError: where the export is torn so that nothing of it can be used.
    """
    messages = iter(stream.messages)
    path = path_text(source)
    database = store.database
    with whole(database):
        first: list[Message] = []
        chat = _chat_of(store, stream, path if is_corrected else None, messages, first)
        if chat is None:
            chat = _new_chat(store, stream, cutting)
        source_id = _source_of(store, chat, path, state)
        writing = _Writing(store, chat, source_id)
        for number, message in enumerate(itertools.chain(first, messages), 1):
            writing.take(message)
            if number % _BATCH == 0:
                writing.flush()
                progress(number)
        writing.flush()
        if is_corrected:
            writing.drop_unseen()
        mine = store.rows("SELECT key FROM people WHERE chat = ? AND is_me", [chat])
        # whose export it is was said before, where it is not said now
        is_told = any(person.is_me for person in stream.people.values())
        for person in stream.people.values():
            was_me = not is_told and any(person.key == row["key"] for row in mine)
            database.execute(
                "INSERT INTO people VALUES (?, ?, ?, ?, ?) ON CONFLICT(chat, key) DO UPDATE SET "
                "name = excluded.name, other_names = excluded.other_names, is_me = excluded.is_me",
                [
                    chat,
                    _clean(person.key),
                    _clean(person.name),
                    _clean(json.dumps(person.other_names, ensure_ascii=False)),
                    person.is_me or was_me,
                ],
            )
        database.execute(
            "UPDATE chats SET title = ?, decisions = ?, num_not_understood = ? WHERE id = ?",
            [
                _clean(stream.title),
                _clean(json.dumps(stream.account.decisions, ensure_ascii=False)),
                stream.account.num_not_understood,
                chat,
            ],
        )
        _recut(store, chat, cutting)
    return Added(chat, writing.num_new, writing.num_changed, writing.num_known)


def recut(store: Store, chat: int, cutting: Cutting) -> None:
    """Puts a chat's messages in the order of their times, and numbers its dialogues anew."""
    with whole(store.database):
        _recut(store, chat, cutting)


def _recut(store: Store, chat: int, cutting: Cutting) -> None:
    rows = store.rows(
        "SELECT id, seconds, place, dialogue, segment FROM messages WHERE chat = ? ORDER BY place",
        [chat],
    )
    previous = float("-inf")
    keyed = []
    for row in rows:
        previous = previous if row["seconds"] is None else row["seconds"]
        keyed.append((previous, row))
    keyed.sort(key=lambda item: item[0])
    ordered = [row for _, row in keyed]
    sizes = cut_seconds((row["seconds"] for row in ordered), cutting)
    numbers = [number for number, size in enumerate(sizes) for _ in range(size)]
    changed = [
        (place, number, row)
        for place, (row, number) in enumerate(zip(ordered, numbers, strict=True))
        if (place, number) != (row["place"], row["dialogue"])
    ]
    left = {row["dialogue"] for *_, row in changed if row["segment"] is not None}
    loosen_dialogues(store, chat, left)
    store.database.renumber(
        chat,
        ["place", "dialogue", "segment"],
        [(row["id"], place, number, None) for place, number, row in changed],
    )
    drop_stale(store, chat)
    store.database.execute(
        "UPDATE chats SET pause_hours = ?, max_messages = ? WHERE id = ?",
        [cutting.pause_hours, cutting.max_messages, chat],
    )


class _Writing:
    """Messages on their way into the database, a batch at a time."""

    def __init__(self, store: Store, chat: int, source: int) -> None:
        self._store = store
        self._database = store.database
        self._chat = chat
        self._source = source
        self._seen: Counter[bytes] = Counter()
        self._known = {
            (row["key"], row["twin"]): (row["id"], row["content"])
            for row in store.rows(
                "SELECT id, key, twin, content FROM messages WHERE chat = ?", [chat]
            )
        }
        # messages that carry pictures of exports that lie no longer where they lay
        self._lost = {
            row["message"]
            for other in store.rows(
                "SELECT id, path FROM sources WHERE chat = ? AND id != ?", [chat, source]
            )
            if not Path(other["path"]).exists()
            for row in store.rows("SELECT message FROM attached WHERE source = ?", [other["id"]])
        }
        self._carriers = Carriers(store, chat)
        self._place = len(self._known)
        (last,) = store.rows("SELECT coalesce(max(id), 0) AS id FROM messages")
        self._next_id = last["id"] + 1
        self._new: list[tuple[object, ...]] = []
        self._words: list[tuple[int, str]] = []
        self._attached: list[tuple[int, int, int, str]] = []
        self.num_new = self.num_changed = self.num_known = 0

    def take(self, message: Message) -> None:
        key = bytes.fromhex(message.key)
        place = (key, self._seen[key])
        self._seen[key] += 1
        known = self._known.get(place)
        met = self._carriers.take(message, None if known is None else place)
        if known is None and met is not None:
            known = self._met_again(met, place)
            if not met.lacks(message):
                self._is_known(known[0], message)
                return
        row, kept = _row(message), frozenset[int]()
        if known is not None and known[1] != row.content:
            message, kept = with_kept_files(self._store, known[0], self._source, message)
            row = _row(message)
        if known is None:
            self._add(message, place, row)
        elif known[1] == row.content:
            self._is_known(known[0], message)
        else:
            self._change(known[0], message, row, kept)

    def _met_again(self, met: Met, place: Known) -> tuple[int, bytes]:
        """Has a message be known by the key that it has in this export."""
        self._database.execute(
            "UPDATE messages SET key = ?, twin = ? WHERE id = ?", [*place, met.id]
        )
        return self._known.pop(met.known)

    def _is_known(self, id_: int, message: Message) -> None:
        self.num_known += 1
        if id_ in self._lost:
            self._attach(id_, message)

    def _add(self, message: Message, place: Known, row: _Row) -> None:
        self.num_new += 1
        id_ = self._next_id
        self._next_id += 1
        self._new.append((id_, self._chat, self._source, *place, self._place, 0, *row.values))
        self._place += 1
        self._link(id_, message)

    def _change(self, id_: int, message: Message, row: _Row, kept: frozenset[int]) -> None:
        self.num_changed += 1
        forget_words(self._store, [id_])
        rows = self._store.rows("SELECT number FROM attached WHERE message = ?", [id_])
        self._database.executemany(
            "DELETE FROM attached WHERE message = ? AND number = ?",
            [(id_, found["number"]) for found in rows if found["number"] not in kept],
        )
        # what keeps another export's files stays that export's
        whose = "source" if kept else "?"
        self._database.execute(
            f"UPDATE messages SET source = {whose}, segment = NULL, "
            f"{', '.join(f'{name} = ?' for name in _COLUMNS)} WHERE id = ?",
            [*([] if kept else [self._source]), *row.values, id_],
        )
        self._link(id_, message, kept)

    def _link(self, id_: int, message: Message, kept: frozenset[int] = frozenset()) -> None:
        if words := words_of(message):
            self._words.append((id_, words))
        self._attach(id_, message, kept)

    def _attach(self, id_: int, message: Message, kept: frozenset[int] = frozenset()) -> None:
        self._attached += [
            (id_, number, self._source, _clean(item.file))
            for number, item in enumerate(message.media)
            if item.kind == "picture" and item.file is not None and number not in kept
        ]

    def drop_unseen(self) -> None:
        """Takes out what this export brought before and does not bring now."""
        rows = self._store.rows(
            "SELECT id, key, twin FROM messages WHERE chat = ? AND source = ?",
            [self._chat, self._source],
        )
        drop_messages(
            self._store, [row["id"] for row in rows if row["twin"] >= self._seen[row["key"]]]
        )

    def flush(self) -> None:
        marks = ",".join("?" * (7 + len(_COLUMNS)))
        self._database.executemany(
            "INSERT INTO messages(id, chat, source, key, twin, place, dialogue, "
            f"{', '.join(_COLUMNS)}) VALUES ({marks})",
            self._new,
        )
        self._database.add_words("words", self._words)
        self._database.executemany(
            "INSERT INTO attached VALUES (?, ?, ?, ?) ON CONFLICT(message, number) DO UPDATE SET "
            "source = excluded.source, file = excluded.file",
            self._attached,
        )
        self._new, self._words, self._attached = [], [], []


_COLUMNS = (
    "sender",
    "seconds",
    "zone",
    "kind",
    "text",
    "text_key",
    "content",
    "media",
    "app_id",
    "reply_to",
    "reactions",
    "forwarded_from",
    "is_edited",
    "is_deleted",
    "line",
)


@dataclass(frozen=True, slots=True)
class _Row:
    values: Sequence[object]
    content: bytes


def _row(message: Message) -> _Row:
    seconds, zone = stored_time(message.time)
    media = json.dumps(
        [[item.kind, item.name, item.file] for item in message.media], ensure_ascii=False
    )
    reactions = json.dumps(
        [[item.sign, item.people, item.count] for item in message.reactions], ensure_ascii=False
    )
    said = [
        message.text,
        media,
        reactions,
        message.reply_to,
        message.is_edited,
        message.is_deleted,
        message.kind,
    ]
    content = hashlib.sha256(dump_json(said, where="a message")).digest()[:16]
    values = (
        message.sender if message.sender is None else _clean(message.sender),
        seconds,
        zone,
        message.kind,
        _clean(message.text),
        text_key(_clean(line_text(message))),
        content,
        _clean(media),
        _clean(message.id),
        _clean(message.reply_to),
        _clean(reactions),
        _clean(message.forwarded_from),
        message.is_edited,
        message.is_deleted,
        message.line,
    )
    return _Row(values, content)


def stored_digests(message: Message) -> tuple[bytes, bytes]:
    """The digests that a message is kept with: of its text as a line, and of all that it says."""
    return text_key(_clean(line_text(message))), _row(message).content


def _clean(text: str) -> str:
    """A text that a database takes: half of a surrogate pair is no character."""
    return text.encode("utf-8", "replace").decode("utf-8")


def forget_words(store: Store, ids: Sequence[int]) -> None:
    """Takes messages out of the full text, which must be told the words that it is to forget."""
    known = ((id_, words_of(message)) for id_, message in _messages(store, ids))
    store.database.forget_words("words", [(id_, words) for id_, words in known if words])


def drop_messages(store: Store, ids: Sequence[int]) -> None:
    """Takes messages out of the database, with their words and what they carry."""
    for start in range(0, len(ids), _BATCH):
        part = ids[start : start + _BATCH]
        forget_words(store, part)
        loosen_messages(store, part)
        marks = ",".join("?" * len(part))
        store.database.execute(f"DELETE FROM attached WHERE message IN ({marks})", part)
        store.database.execute(f"DELETE FROM messages WHERE id IN ({marks})", part)


def path_text(path: Path) -> str:
    """A path as the database has it: absolute.

    Raises:
        DataError: where it is no text that can be kept.
    """
    text = str(path.absolute())
    if text != _clean(text):
        raise DataError("has a name that is no UTF-8; give it another", where=one_line(text))
    return text


def _messages(store: Store, ids: Sequence[int]) -> Iterator[tuple[int, Message]]:
    for id_ in ids:
        yield id_, store.line(id_).message


def _chat_of(
    store: Store,
    stream: ChatStream,
    path: str | None,
    messages: Iterator[Message],
    first: list[Message],
) -> int | None:
    """The chat of the store that this one is another export of; None where it is new.

    Args:
        store: The store.
        stream: The chat.
        path: Of an export that was misread before, whose messages may all be others now.
        messages: Of the chat; read as far as must be.
        first: Gets those that were read.
    """
    # id and title are known once the chat has begun
    first += itertools.islice(messages, _BATCH)
    rows = store.rows(
        f"SELECT id FROM chats WHERE app = ? AND {'app_id' if stream.id else 'title'} = ?",
        [stream.app, _clean(stream.id or stream.title)],
    )
    if path is not None:
        of_path = store.rows("SELECT chat FROM sources WHERE path = ?", [path])
        misread = [row["id"] for row in rows if row["id"] in {found["chat"] for found in of_path}]
        if len(misread) == 1:
            return int(misread[0])
    seen = 0
    # an older export may begin long before the one that is there
    while rows and seen < len(first):
        for message in first[seen:]:
            for row in rows:
                if store.rows(
                    "SELECT 1 FROM messages WHERE chat = ? AND key = ?",
                    [row["id"], bytes.fromhex(message.key)],
                ):
                    return int(row["id"])
        seen = len(first)
        first += itertools.islice(messages, _BATCH)
    return None


def _new_chat(store: Store, stream: ChatStream, cutting: Cutting) -> int:
    return store.database.insert(
        "INSERT INTO chats(app, title, app_id, decisions, num_not_understood, pause_hours, "
        "max_messages) VALUES (?, ?, ?, '[]', 0, ?, ?)",
        [
            stream.app,
            _clean(stream.title),
            _clean(stream.id),
            cutting.pause_hours,
            cutting.max_messages,
        ],
    )


def _source_of(store: Store, chat: int, path: str, state: str) -> int:
    # a picture may have changed with its export: it is looked at anew
    store.database.execute(
        "DELETE FROM files WHERE source IN (SELECT id FROM sources WHERE chat = ? AND path = ?)",
        [chat, path],
    )
    store.database.execute(
        "INSERT INTO sources(chat, path, state) VALUES (?, ?, ?) "
        "ON CONFLICT(chat, path) DO UPDATE SET state = excluded.state",
        [chat, path, state],
    )
    (row,) = store.rows("SELECT id FROM sources WHERE chat = ? AND path = ?", [chat, path])
    return int(row["id"])
