"""The database of a store: its tables, and how it is opened. Only the owner can read it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import AbstractContextManager
from pathlib import Path

from ffr.corpus.database import Database
from ffr.corpus.fts import TOKENIZER
from ffr.corpus.sqlite import SqliteDatabase, broken
from ffr.errors import DataError
from ffr.files import make_private_file, make_private_folder

DATABASE = "messages.sqlite3"

_PATIENCE = 30.0  # seconds

SCHEMA = 2
"""Raised where a table changes; older stores are brought to it, newer ones refused in words."""

_TABLES = f"""
CREATE TABLE IF NOT EXISTS chats(
    id INTEGER PRIMARY KEY,
    app TEXT NOT NULL,
    title TEXT NOT NULL,
    app_id TEXT NOT NULL,
    decisions TEXT NOT NULL,
    num_not_understood INTEGER NOT NULL,
    pause_hours REAL NOT NULL,
    max_messages INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS sources(
    id INTEGER PRIMARY KEY,
    chat INTEGER NOT NULL REFERENCES chats(id),
    path TEXT NOT NULL,
    state TEXT NOT NULL,
    UNIQUE(chat, path)
);
CREATE TABLE IF NOT EXISTS people(
    chat INTEGER NOT NULL REFERENCES chats(id),
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    other_names TEXT NOT NULL,
    is_me INTEGER NOT NULL,
    PRIMARY KEY(chat, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS same(
    chat INTEGER NOT NULL REFERENCES chats(id),
    key TEXT NOT NULL,
    person INTEGER NOT NULL,
    called TEXT NOT NULL,
    PRIMARY KEY(chat, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages(
    id INTEGER PRIMARY KEY,
    chat INTEGER NOT NULL REFERENCES chats(id),
    source INTEGER NOT NULL REFERENCES sources(id),
    key BLOB NOT NULL,
    twin INTEGER NOT NULL,
    place INTEGER NOT NULL,
    dialogue INTEGER,
    segment INTEGER,
    sender TEXT,
    seconds REAL,
    zone INTEGER,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    text_key BLOB NOT NULL,
    content BLOB NOT NULL,
    media TEXT NOT NULL,
    app_id TEXT NOT NULL,
    reply_to TEXT NOT NULL,
    reactions TEXT NOT NULL,
    forwarded_from TEXT NOT NULL,
    is_edited INTEGER NOT NULL,
    is_deleted INTEGER NOT NULL,
    line INTEGER NOT NULL,
    UNIQUE(chat, key, twin)
);
CREATE INDEX IF NOT EXISTS messages_in_order ON messages(chat, place);
CREATE INDEX IF NOT EXISTS messages_of_dialogue ON messages(chat, dialogue);
CREATE INDEX IF NOT EXISTS messages_without_segment ON messages(chat, dialogue)
    WHERE segment IS NULL;
CREATE TABLE IF NOT EXISTS segments(
    chat INTEGER NOT NULL REFERENCES chats(id),
    dialogue INTEGER NOT NULL,
    number INTEGER NOT NULL,
    key BLOB NOT NULL,
    method TEXT NOT NULL,
    PRIMARY KEY(chat, dialogue, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS segments_by_key ON segments(key);
CREATE TABLE IF NOT EXISTS attached(
    message INTEGER NOT NULL REFERENCES messages(id),
    number INTEGER NOT NULL,
    source INTEGER NOT NULL REFERENCES sources(id),
    file TEXT NOT NULL,
    PRIMARY KEY(message, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files(
    source INTEGER NOT NULL REFERENCES sources(id),
    file TEXT NOT NULL,
    path TEXT,
    digest BLOB,
    PRIMARY KEY(source, file)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shown(
    id INTEGER PRIMARY KEY,
    digest BLOB NOT NULL,
    looker TEXT NOT NULL,
    words TEXT NOT NULL,
    words_key BLOB NOT NULL,
    text TEXT NOT NULL,
    UNIQUE(digest, looker)
);
CREATE TABLE IF NOT EXISTS matrices(
    encoder TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    width INTEGER NOT NULL,
    num_rows INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen_weights(
    encoder TEXT PRIMARY KEY,
    state TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors(
    encoder TEXT NOT NULL,
    key BLOB NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY(encoder, key)
) WITHOUT ROWID;
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    terms, content='', {TOKENIZER}
);
CREATE VIRTUAL TABLE IF NOT EXISTS shown_words USING fts5(
    terms, content='', {TOKENIZER}
);
"""


# for each version, what makes the next one of it, before the tables that are missing are made
_NEXT = {1: ("ALTER TABLE messages ADD COLUMN segment INTEGER",)}


def connect(path: Path, *, is_new_allowed: bool) -> SqliteDatabase:
    """Opens the database of a store; what is deleted from it is overwritten.

    Args:
        path: Of the database.
        is_new_allowed: Make it where it is missing.

    Raises:
        DataError: where it is missing, no such database, or of another version.
    """
    try:
        if is_new_allowed and not path.exists():
            make_private_folder(path.parent)
            make_private_file(path)
        if not path.is_file():
            raise DataError(
                'holds no chat yet; `ffr retrieve "…" CHAT` reads one', where=str(path.parent)
            )
        connection = sqlite3.connect(
            path,
            timeout=_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
            factory=SqliteDatabase,
        )
        connection.path = path
        connection.row_factory = sqlite3.Row
        _log_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")
        # what it sorts and packs is private too, and would lie in the system's folder for a while
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA foreign_keys = ON")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version not in range(SCHEMA + 1):
            raise DataError(
                f"is a store of version {version}, and this ffr keeps version {SCHEMA}; name "
                "another folder with --index, or forget it with `ffr index forget --all`",
                where=str(path),
            )
        if version != SCHEMA:
            _bring_up(connection)
        for table in ("words", "shown_words"):
            # of this connection alone, and nothing on the disk: what full text has, as a table
            connection.execute(
                f"CREATE VIRTUAL TABLE temp.{table}_instances USING fts5vocab(main, {table}, instance)"
            )
    except (sqlite3.Error, OSError) as error:
        raise broken(path, error) from error
    return connection


def _bring_up(connection: SqliteDatabase) -> None:
    """Makes the tables, or those of an older version as this one has them, all or nothing."""
    with whole(connection):
        # another process may have done so meanwhile
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        begun = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'messages'").fetchone()
        if not version and begun:
            version = 1  # whose making was broken off between two tables
        for older in range(version, SCHEMA) if version else ():
            for statement in _NEXT[older]:
                connection.execute(statement)
        for statement in _TABLES.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Has others read while one writes; of two who make a database, one waits for the other."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # this alone does not wait by itself
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


def whole(database: Database) -> AbstractContextManager[None]:
    """What is done within is kept whole, or not at all.

    Raises:
        DataError: where the database cannot be read or written: a full disk, no right to it, damage.
        UsageError: where it is closed.
    """
    return database.whole()
