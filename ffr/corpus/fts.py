"""Full text of SQLite as `ffr/corpus/postings.py` reads it: FTS5's postings, and lengths of its texts.

What FTS5 keeps is asked for as one value: a row of its own for each posting is what takes the time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOKENIZER = "tokenize=\"unicode61 remove_diacritics 2 categories 'L* M* N* Co So'\""
"""How full text reads our terms: each is a word of it."""


class FtsTexts:
    """A full text of a store in a folder.

    Args:
        ask: Gives the rows of a question to the store's database.
        table: Which, of which `temp.TABLE_instances` tells every word.
    """

    def __init__(
        self, ask: Callable[[str, Sequence[object]], list[tuple[Any, ...]]], table: str
    ) -> None:
        self._ask = ask
        self._table = table
        self._tokens = _Tokens()

    def tokens(self, terms: Sequence[str]) -> list[str]:
        return self._tokens.of(terms)

    def having(self, token: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        words = token.split(" ")
        if len(words) > 1:
            places = np.array(sorted(text for text, _ in self._runs(words)), np.int64)
        else:
            ((listed,),) = self._ask(
                f"SELECT group_concat(doc) FROM temp.{self._table}_instances WHERE term = ?", words
            )
            places = np.fromstring(listed or "", np.int64, sep=",")
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        return places[starts], np.diff(starts, append=len(places)).astype(np.int32)

    def _runs(self, words: Sequence[str]) -> set[tuple[int, int]]:
        """Where words stand behind each other: the text, and the place of the first."""
        found = [
            {
                (text, place - number)
                for text, place in self._ask(
                    f"SELECT doc, offset FROM temp.{self._table}_instances WHERE term = ?", [word]
                )
            }
            for number, word in enumerate(words)
        ]
        return set.intersection(*found)

    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ((listed, sizes),) = self._ask(
            "SELECT group_concat(id), CAST(group_concat(CAST(sz AS TEXT), '') AS BLOB) "
            f"FROM {self._table}_docsize",
            [],
        )
        return np.fromstring(listed or "", np.int64, sep=","), _numbers(sizes or b"")


def _numbers(written: bytes) -> NDArray[np.int64]:
    """Numbers as SQLite writes them: in bytes of seven bits, the highest first, all but the last marked.

    >>> _numbers(bytes([5, 0x81, 0x02, 0])).tolist()
    [5, 130, 0]
    """
    data = np.frombuffer(written, np.uint8).astype(np.int64)
    ends = np.flatnonzero(data < 128)
    widths = np.diff(ends, prepend=-1)
    numbers = data[ends]
    for place in range(1, int(widths.max(initial=0))):
        wide = widths > place
        numbers[wide] |= (data[ends[wide] - place] & 0x7F) << 7 * place
    return numbers


class _Tokens:
    """What SQLite's tokenizer makes of terms: without accents, and nothing of a mere sign."""

    def __init__(self) -> None:
        self._database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._database.execute(f"CREATE VIRTUAL TABLE cut USING fts5(term, {TOKENIZER})")
        self._database.execute("CREATE VIRTUAL TABLE tokens USING fts5vocab(cut, instance)")

    def of(self, terms: Sequence[str]) -> list[str]:
        """Those of some terms, in order; "" where there is none.

        Where SQLite knows less letters than Python one may be several, with blanks between them.
        """
        self._database.execute("DELETE FROM cut")
        self._database.executemany("INSERT INTO cut(rowid, term) VALUES (?, ?)", enumerate(terms))
        found: list[list[str]] = [[] for _ in terms]
        for number, token in self._database.execute(
            "SELECT doc, term FROM tokens ORDER BY doc, offset"
        ):
            found[number].append(token)
        return [" ".join(words) for words in found]
