"""SQLite as the engine of a store: one file that its owner alone can read, FTS5 for full text."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ffr.corpus.database import Condition
from ffr.corpus.fts import FtsTexts
from ffr.corpus.postings import Postings
from ffr.corpus.seal import unsealed
from ffr.errors import DataError, FfrError, UsageError
from ffr.files import owned_folder
from ffr.text import one_line

# in the header of the database while bytes of what was forgotten may lie on the disk
_UNFINISHED, _FINISHED = 0x0FF6E7, 0


class SqliteDatabase(sqlite3.Connection):
    """A connection to a store's file, made by `ffr.corpus.schema.connect`."""

    path = Path()

    @property
    def place(self) -> str:
        return str(self.path)

    @contextmanager
    def in_words(self) -> Iterator[None]:
        """What the database says of a fault within becomes a sentence.

        Raises:
            DataError: where it cannot be read or written: a full disk, no right to it, damage.
            UsageError: where it is closed.
        """
        try:
            yield
        except sqlite3.Error as error:
            raise broken(self.path, error) from error

    def insert(self, sql: str, values: Sequence[Any]) -> int:
        return int(self.execute(sql, values).lastrowid or 0)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self.in_words():
            return self.execute(sql, values).fetchall()

    def tuples(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.in_words():
            cursor = self.cursor()
            cursor.row_factory = None
            return cursor.execute(sql, values).fetchall()

    @contextmanager
    def whole(self) -> Iterator[None]:
        with self.in_words():
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                # a full disk may have undone all already
                if self.in_transaction:
                    self.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        with self.in_words():
            self.execute("BEGIN")
            try:
                # what is read first decides what is seen
                self.rows("SELECT count(*) FROM chats")
                # others' changes, and one's own
                yield int(self.rows("PRAGMA data_version")[0][0]) + self.total_changes
            finally:
                if self.in_transaction:
                    self.execute("ROLLBACK")

    def writing(self) -> AbstractContextManager[None]:
        return unsealed(self.path.parent)

    def held(self) -> AbstractContextManager[None]:
        return owned_folder(self.path.parent)

    def faults(self) -> list[str]:
        try:
            found = [row[0] for row in self.rows("PRAGMA integrity_check(9)") if row[0] != "ok"]
            found += [
                f"a row of {row[0]} names one that is not there"
                for row in self.rows("PRAGMA foreign_key_check")[:9]
            ]
            with self.whole():
                for table in ("words", "shown_words"):
                    self.execute(f"INSERT INTO {table}({table}) VALUES ('integrity-check')")
        except DataError as error:
            found = [str(error)]
        return found

    def settled_files(self) -> list[Path]:
        with self.in_words():
            # passive: whoever reads for minutes is not waited for
            _, num_logged, num_done = self.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return [self.path] if num_done == num_logged else []

    def among(self, column: str, values: Sequence[object]) -> Condition:
        # as one value: a data file may have more dialogues than a question has places
        return f"{column} IN (SELECT value FROM json_each(?))", [json.dumps(list(values))]

    def pairs_among(self, columns: tuple[str, str], pairs: Sequence[tuple[int, str]]) -> Condition:
        return (
            f"({', '.join(columns)}) IN (SELECT json_extract(value, '$[0]'), "
            "json_extract(value, '$[1]') FROM json_each(?))",
            [json.dumps(pairs)],
        )

    def renumber(
        self, chat: int, columns: Sequence[str], rows: Sequence[Sequence[int | None]]
    ) -> None:
        changed = ", ".join(f"{column} = ?" for column in columns)
        self.executemany(
            f"UPDATE messages SET {changed} WHERE id = ? AND chat = ?",
            [(*numbers, id_, chat) for id_, *numbers in rows],
        )

    def day(self, seconds: str) -> str:
        return f"date({seconds}, 'unixepoch')"

    def add_words(self, table: str, rows: Sequence[tuple[int, str]]) -> None:
        self.executemany(f"INSERT INTO {table}(rowid, terms) VALUES (?, ?)", rows)

    def forget_words(self, table: str, rows: Sequence[tuple[int, str]]) -> None:
        self.executemany(
            f"INSERT INTO {table}({table}, rowid, terms) VALUES ('delete', ?, ?)", rows
        )

    def matched(self, table: str, terms: Sequence[str], *, is_every: bool) -> Condition:
        joined = (" AND " if is_every else " OR ").join(f'"{term}"' for term in terms)
        return (
            f"(SELECT rowid AS id, bm25({table}) AS score FROM {table} WHERE {table} MATCH ?)",
            [joined],
        )

    def by_index(self) -> AbstractContextManager[None]:
        return nullcontext()  # it knows no other way

    def postings(self, table: str) -> Postings:
        return Postings(FtsTexts(self.tuples, table))

    def mark_unfinished(self) -> None:
        self.execute(f"PRAGMA application_id = {_UNFINISHED}")

    def is_unfinished(self) -> bool:
        return bool(self.rows("PRAGMA application_id")[0][0] == _UNFINISHED)

    def take_off_disk(self) -> None:
        with self.in_words():
            # full text keeps deleted words until its pieces are merged, and the log what was
            # overwritten
            for table in ("words", "shown_words"):
                self.execute(f"INSERT INTO {table}({table}) VALUES ('optimize')")
            self.execute("VACUUM")
            if self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise DataError(
                    "the chats are forgotten, but another process reads, and their bytes stay in "
                    "the log meanwhile; end it, and `ffr index list` takes them off the disk",
                    where=str(self.path.parent),
                )
            self.execute(f"PRAGMA application_id = {_FINISHED}")
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def num_bytes(self) -> int:
        return 0


def broken(path: Path, error: Exception) -> FfrError:
    """The sentence for a database that cannot be read or written, or that was closed before."""
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return UsageError("the store of chats was closed; open it again")
    reason = getattr(error, "strerror", None) or one_line(error)
    return DataError(
        f"cannot be used as a store of chats ({reason}); see to its room and its rights, or name "
        "another folder with --index",
        where=str(path),
    )
