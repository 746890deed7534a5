"""What is known of pictures' files: their bytes' digest and whether they decode, once for all.

Reading and decoding all pictures of a large data set takes minutes, and a picture that was sound
once stays so as long as its bytes do. So a small database in `data_home()` remembers the digest of
a file by its path, size and times, and by the digest the size of a picture that decoded. It only
saves time: where it cannot be used or was damaged, all is found out anew.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import PIL

from ffr.data.home import data_home
from ffr.dialogue import Example
from ffr.errors import DataError, UsageError
from ffr.files import make_folder, remove
from ffr.images import (
    IMAGE_FORMATS,
    MAX_DECODED_PIXELS,
    find_image,
    image_digest,
    image_fault,
    image_verdict,
)
from ffr.text import is_url

MEMORY_FILE = "pictures.sqlite3"

_SETTLED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without a new time."""

_NUM_UNSAVED = 500
"""New rows after which they are saved, so that a long first reading that is stopped is not lost."""

_TABLES = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, digest TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sound (
    digest TEXT, rules TEXT, width INTEGER, height INTEGER, PRIMARY KEY (digest, rules)
) WITHOUT ROWID;
"""

# another Pillow may decode what this one does not, and the other way round
_RULES = hashlib.sha256(
    repr((PIL.__version__, IMAGE_FORMATS, MAX_DECODED_PIXELS)).encode()
).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that decodes.

    Args:
        digest: SHA-256 of its file's bytes.
        width: In pixels, upright.
        height: Likewise.
    """

    digest: str
    width: int
    height: int


class PictureMemory:
    """Looks at pictures, each file once, and remembers between processes what was seen.

    Used as a context, at whose end what was seen is saved.

    Args:
        path: The database; None = `data_home()/pictures.sqlite3`.

    >>> import tempfile, PIL.Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     PIL.Image.new("RGB", (4, 3)).save(f"{folder}/a.png")
    ...     with PictureMemory(Path(folder, "memory")) as memory:
    ...         picture = memory.look_at(Path(folder, "a.png"))
    >>> picture.width, picture.height, len(picture.digest)
    (4, 3, 64)
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._is_tried = False
        # rows to be saved together, so that another process never waits for a lock
        self._new_files: list[tuple[bytes, int, int, int, str]] = []
        self._new_sound: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> PictureMemory:
        return self

    def _connection(self) -> sqlite3.Connection | None:
        """The database, opened when the first picture is looked at.

        None where it cannot be used.
        """
        if not self._is_tried:
            self._is_tried = True
            try:
                path = self._path or data_home() / MEMORY_FILE
                make_folder(path.parent)
                self._database = self._open(path)
            except (OSError, UsageError, sqlite3.Error):
                # no folder to remember in, or one that cannot be used
                self._database = None
        return self._database

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        for is_again in (False, True):
            database = sqlite3.connect(path, timeout=2)
            try:
                database.executescript(_TABLES)
                database.execute("SELECT 1 FROM files LIMIT 1").fetchone()
            except sqlite3.Error as error:
                database.close()
                code = getattr(error, "sqlite_errorcode", None)
                is_damaged = code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
                if is_again or not is_damaged:
                    raise
                remove(path)
            else:
                return database
        raise AssertionError("the loop returns or raises")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._save()
        if self._database is not None:
            self._database.close()
        self._database, self._is_tried = None, False

    def digest_of(self, path: Path, where: str | None = None) -> str:
        """SHA-256 of a picture file's bytes.

        Raises:
            DataError: where the file is missing or cannot be read.
        """
        path = find_image(path, where=where)
        name = os.fsencode(path.absolute())
        before = _state_of(path)
        found = self._ask(
            "SELECT digest FROM files WHERE path = ? AND size = ? AND mtime_ns = ? AND ctime_ns = "
            "?",
            (name, *before),
        )
        if found is not None:
            return str(found[0])
        digest = image_digest(path, where)
        if before == _state_of(path) and time.time_ns() - max(before[1:]) > _SETTLED_NS:
            self._new_files.append((name, *before, digest))
            self._save_some()
        return digest

    def look_at(self, path: Path, where: str | None = None) -> Picture:
        """A picture's digest and size, after it has been decoded in full, now or at another time.

        Raises:
            DataError: where the file is missing, no picture of a known kind, damaged or too large.
        """
        digest = self.digest_of(path, where)
        found = self._new_sound.get(digest) or self._ask(
            "SELECT width, height FROM sound WHERE digest = ? AND rules = ?", (digest, _RULES)
        )
        if found is not None:
            return Picture(digest, *found)
        verdict = image_verdict(path)
        if isinstance(verdict, str):
            raise image_fault(path, verdict, where)
        self._new_sound[digest] = verdict
        self._save_some()
        return Picture(digest, *verdict)

    def _ask(self, question: str, values: tuple[Any, ...]) -> Any:
        database = self._connection()
        if database is None:
            return None
        try:
            return database.execute(question, values).fetchone()
        except sqlite3.Error:
            database.close()
            self._database = None
            return None

    def _save_some(self) -> None:
        if len(self._new_files) + len(self._new_sound) >= _NUM_UNSAVED:
            self._save()

    def _save(self) -> None:
        files, sound = self._new_files, self._new_sound
        self._new_files, self._new_sound = [], {}
        if self._database is None or not (files or sound):
            return
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", files
                )
                rows = [(digest, _RULES, *size) for digest, size in sound.items()]
                self._database.executemany("INSERT OR REPLACE INTO sound VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error:
            # a full disk, or the database of another user, which can be read all the same
            return


def is_inside(location: str | Path, root: Path | None) -> bool:
    """Whether a picture lies in the folder, links followed; a web address is never opened at all.

    Args:
        location: Path or address.
        root: The folder; None for the working folder.

    >>> is_inside("a/b.png", Path("a")), is_inside("a/../b.png", Path("a"))
    (True, False)
    """
    if is_url(location):
        return True
    try:
        return Path(location).resolve().is_relative_to((root or Path()).resolve())
    except (OSError, ValueError, RuntimeError):
        # what cannot be looked up is told as a fault where it is opened
        return True


def with_paths_from(folder: Path, examples: Iterable[Example]) -> Iterator[Example]:
    """Examples whose pictures' paths are relative to a folder, as a file that lies there has them.

    Args:
        folder: The folder; it need not be there.
        examples: Their paths are relative to their image root. Absolute paths and web addresses
            stay as they are, and so does all where the image root is that folder.
    """
    there = folder.resolve()
    for example in examples:
        root = (example.image_root or Path()).resolve()
        if root == there:
            yield example
            continue
        sources = {image.source for image in example.dialogue.images}
        paths = {source: _path_from(there, root, source) for source in sources}
        dialogue = example.dialogue.with_sources(paths) if sources else example.dialogue
        yield replace(example, dialogue=dialogue, image_root=there)


def _path_from(there: Path, root: Path, source: str) -> str:
    if is_url(source) or Path(source).is_absolute():
        return source
    path = f"{os.path.relpath(root, there)}/{source}"
    plain = os.path.normpath(path)
    try:
        # behind a link `..` leads elsewhere than its text says
        is_same = (there / plain).resolve() == (root / source).resolve()
    except (OSError, ValueError, RuntimeError):
        is_same = False
    return plain if is_same else path


def _state_of(path: Path) -> tuple[int, int, int]:
    """Size and times of a file.

    The time of its last change of any kind cannot be set back by hand.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f'image "{path}" cannot be looked up ({error.strerror}); correct its path'
        ) from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
