"""What a store asks of the engine that keeps its tables: SQLite in a folder, or a server by URL.

Both are asked in the SQL that they have in common, with `?` for values; what they do not have in
common is a method here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from ffr.corpus.postings import Postings

Condition = tuple[str, list[object]]
"""A piece of SQL, with the values of its `?`."""


class Row(Protocol):
    """A row, whose values are known by name and by number."""

    def __getitem__(self, key: int | str, /) -> Any: ...


class Database(Protocol):
    """An engine with the tables of a store."""

    @property
    def place(self) -> str:
        """Where it is, as people call it; never with a password."""
        ...

    def execute(self, sql: str, values: Sequence[Any] = ..., /) -> object:
        """Changes something, within `whole`."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Changes something for each of many rows, within `whole`."""
        ...

    def insert(self, sql: str, values: Sequence[object]) -> int:
        """Adds one row to a table that numbers its rows itself; gives the number."""
        ...

    def rows(self, sql: str, values: Sequence[object] = ()) -> Sequence[Row]:
        """All rows of a question.

        Raises:
            DataError: where it cannot be read.
        """
        ...

    def tuples(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """As `rows`, without names, which are dear where there are many."""
        ...

    def whole(self) -> AbstractContextManager[None]:
        """What is done within is kept whole, or not at all.

        Raises:
            DataError: where it cannot be read or written: a full disk, no right to it, damage.
            UsageError: where it is closed.
        """
        ...

    def snapshot(self) -> AbstractContextManager[int]:
        """Shows within all as it is now, whatever others write; a number that they change."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Keeps others from writing meanwhile; they still can read.

        Raises:
            UsageError: where another process writes.
        """
        ...

    def held(self) -> AbstractContextManager[None]:
        """As `writing`, for whoever only looks: nothing is said to change."""
        ...

    def faults(self) -> list[str]:
        """What the engine itself finds wrong with what it keeps, in words."""
        ...

    def settled_files(self) -> list[Path]:
        """The files on this machine that hold all of it now, within `held` or `writing`.

        None where it lies elsewhere, or others read just now.
        """
        ...

    def among(self, column: str, values: Sequence[object]) -> Condition:
        """That a column is one of any number of values."""
        ...

    def pairs_among(self, columns: tuple[str, str], pairs: Sequence[tuple[int, str]]) -> Condition:
        """That two columns are one of any number of pairs."""
        ...

    def renumber(
        self, chat: int, columns: Sequence[str], rows: Sequence[Sequence[int | None]]
    ) -> None:
        """Changes numbers that messages of a chat have, within `whole`.

        Args:
            chat: The chat's number.
            columns: Of `messages`.
            rows: For each message its id, and a number for each column.
        """
        ...

    def day(self, seconds: str) -> str:
        """A day as 2023-05-12, of an expression of seconds since 1970; NULL beyond the calendar."""
        ...

    def add_words(self, table: str, rows: Sequence[tuple[int, str]]) -> None:
        """Adds texts to full text: a row's number, and its terms with blanks between them."""
        ...

    def forget_words(self, table: str, rows: Sequence[tuple[int, str]]) -> None:
        """Takes texts out of full text; it is told the very terms that they were added with."""
        ...

    def matched(self, table: str, terms: Sequence[str], *, is_every: bool) -> Condition:
        """The texts that have every one of some terms, or any: a table of `id` and `score`.

        The score is BM25 (k1 1.2, b .75), negative: the least is the best.
        """
        ...

    def by_index(self) -> AbstractContextManager[None]:
        """Within, texts that are `matched` are found by the engine's index."""
        ...

    def postings(self, table: str) -> Postings:
        """Those of a full text as it is now."""
        ...

    def mark_unfinished(self) -> None:
        """Notes, within `whole`, that bytes of what is forgotten may lie on the disk."""
        ...

    def is_unfinished(self) -> bool:
        """Whether that was noted, and `take_off_disk` has not come to its end since."""
        ...

    def take_off_disk(self) -> None:
        """Takes the bytes of what was forgotten off the disk.

        Raises:
            DataError: where another process reads all the time.
        """
        ...

    def num_bytes(self) -> int:
        """What it takes on a server's disk; 0 for what lies in the store's folder."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...
