"""The tokens of a few words, of a tokenizer that has very many pieces, without reading them all.

To read the 17 MB of e5's `tokenizer.json` takes as long as all else that is done for a question. What
a text is cut into hangs on the pieces that stand in it alone, so these are looked up in a database
beside that file, made from it once, and the library's own tokenizer is made of them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ffr.files import replaced_path

DATABASE = "pieces.sqlite3"

_TABLES = """
CREATE TABLE about(
    state TEXT, rest TEXT, longest INTEGER, num_fixed INTEGER, least INTEGER
);
CREATE TABLE pieces(piece BLOB PRIMARY KEY, number INTEGER, score REAL) WITHOUT ROWID;
"""
_FEW = 500
# beyond, as many pieces would be looked up as the whole tokenizer has
_LONG = 2000


class Pieces:
    """A tokenizer for short texts.

    It gives what `Tokenizer.from_file` gives, which it falls back on: for long texts, those that
    spell a special token, and tokenizers that are no unigram model (Kudo 2018) or whose folder
    cannot be written.

    Args:
        file: A `tokenizer.json`.
        max_tokens: Texts are cut there.

    Raises:
        OSError: where it cannot be read.
        Exception: where it is no tokenizer; the library raises nothing narrower.
    """

    def __init__(self, file: Path, max_tokens: int) -> None:
        self._file = file
        self._max_tokens = max_tokens
        self._whole: Tokenizer | None = None
        self._rest: dict[str, Any] = {}
        self._longest = self._num_fixed = 0
        found = _about(file)
        if found is None:
            self._whole = self._loaded()
        else:
            rest, self._longest, self._num_fixed = found
            self._rest = json.loads(rest)

    def ids(self, text: str) -> list[int]:
        """The numbers of a text's tokens, special ones included."""
        fixed = [token["content"] for token in self._rest.get("added_tokens") or []]
        if self._whole is None and (len(text) > _LONG or any(word in text for word in fixed)):
            self._whole = self._loaded()
        if self._whole is not None:
            whole: list[int] = self._whole.encode(text).ids
            return whole
        with closing(sqlite3.connect(self._file.with_name(DATABASE))) as database:
            kept = _pieces(database, self._num_fixed, self._substrings(text))
        words = self._made([[piece.decode(), score] for _, piece, score in kept])
        return [kept[number][0] for number in words.encode(text).ids]

    @cached_property
    def _bare(self) -> Tokenizer:
        """The tokenizer without pieces, for what it does to a text before it is cut."""
        return self._made([[token["content"], 0.0] for token in self._rest["added_tokens"]])

    def _loaded(self) -> Tokenizer:
        return self._bounded(Tokenizer.from_file(str(self._file)))

    def _made(self, vocabulary: list[list[Any]]) -> Tokenizer:
        content = {**self._rest, "model": {**self._rest["model"], "vocab": vocabulary}}
        return self._bounded(Tokenizer.from_str(json.dumps(content)))

    def _bounded(self, words: Tokenizer) -> Tokenizer:
        words.no_padding()
        words.enable_truncation(self._max_tokens)
        return words

    def _substrings(self, text: str) -> set[bytes]:
        """All that could be a piece of a text, as the tokenizer sees it."""
        bare = self._bare
        seen = text if bare.normalizer is None else bare.normalizer.normalize_str(text)
        parts = [seen]
        if bare.pre_tokenizer is not None:
            parts = [part for part, _ in bare.pre_tokenizer.pre_tokenize_str(seen)]
        return {
            part[start:stop].encode()
            for part in parts
            for start in range(len(part))
            for stop in range(start + 1, min(len(part), start + self._longest) + 1)
        }


def _pieces(
    database: sqlite3.Connection, num_fixed: int, wanted: Iterable[bytes]
) -> list[tuple[int, bytes, float]]:
    """Number, piece and score of those that are there, by their numbers.

    The special ones stand first, as in the whole tokenizer; the least likely one is always there,
    since what is unknown is scored by it.
    """
    found = database.execute(
        "SELECT number, piece, score FROM pieces WHERE number < ? OR "
        "number = (SELECT least FROM about)",
        [num_fixed],
    ).fetchall()
    keys = list(wanted)
    for start in range(0, len(keys), _FEW):
        part = keys[start : start + _FEW]
        marks = ",".join("?" * len(part))
        found += database.execute(
            f"SELECT number, piece, score FROM pieces WHERE piece IN ({marks})", part
        ).fetchall()
    return sorted(set(found))


def _about(file: Path) -> tuple[str, int, int] | None:
    """What is kept of a tokenizer beside its pieces; None where it has to be read whole."""
    status = file.stat()
    state = f"{status.st_size} {status.st_mtime_ns}"
    path = file.with_name(DATABASE)
    try:
        if not _is_of(path, state):
            content = json.loads(file.read_text(encoding="utf-8"))
            if not _is_separable(content):
                return None
            with replaced_path(path) as made:
                _write(made, content, state)
        return _read_about(path)[1:]
    except (OSError, sqlite3.Error):
        return None


def _is_of(path: Path, state: str) -> bool:
    try:
        return path.is_file() and _read_about(path)[0] == state
    except (sqlite3.Error, TypeError):  # of another ffr, or damaged
        return False


def _read_about(path: Path) -> tuple[str, str, int, int]:
    with closing(sqlite3.connect(path)) as database:
        row: tuple[str, str, int, int] = database.execute(
            "SELECT state, rest, longest, num_fixed FROM about"
        ).fetchone()
    return row


def _is_separable(content: Any) -> bool:
    """Whether a tokenizer gives the same tokens of a text with the text's own pieces alone."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or model.get("type") != "Unigram" or model.get("byte_fallback"):
        return False
    added = content.get("added_tokens") or []
    # special tokens are named by their numbers elsewhere in the file
    return (
        [token["id"] for token in added] == list(range(len(added)))
        and model["unk_id"] in range(len(added))
        and [piece for piece, _ in model["vocab"][: len(added)]]
        == [token["content"] for token in added]
    )


def _write(path: Path, content: dict[str, Any], state: str) -> None:
    model = content["model"]
    vocabulary = model.pop("vocab")
    rows = [(piece.encode(), number, score) for number, (piece, score) in enumerate(vocabulary)]
    longest = max(len(piece) for piece, _ in vocabulary)
    least = min(range(len(rows)), key=lambda number: float(rows[number][2]))
    about = (state, json.dumps(content), longest, len(content["added_tokens"]), least)
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(_TABLES)
        # of two of one name the later one counts, as in the library
        database.executemany("INSERT OR REPLACE INTO pieces VALUES (?, ?, ?)", rows)
        database.execute("INSERT INTO about VALUES (?, ?, ?, ?, ?)", about)
