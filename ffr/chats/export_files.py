"""The files of an export, whether they lie in a folder, in a zip archive, or are one alone.

An export comes from elsewhere: names that lead out of it are refused, an archive is never unpacked
whole, and what one file may hold is bounded.
"""

from __future__ import annotations

import copy
import os
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ffr.chats.account import Account
from ffr.chats.json_pull import JsonPull, outline
from ffr.errors import DataError
from ffr.text import address_hint, counted, one_line

HEAD_BYTES = 1 << 20
"""How much of a file is looked at to tell what it is."""

MAX_FILES = 2_000_000
MAX_LINE_BYTES = 16 << 20
_MAX_HEADS = 16
_MAX_FOLDERS = 12
_MAX_NAMESAKES = 1000
_MAX_TEXT_BYTES = 16 << 30
_MAX_MEDIA_BYTES = 512 << 20
# text of chats packs 5 to 20 times; what packs more than this beyond a few MB is no chat
_MAX_RATIO = 300
_MAX_FREE_BYTES = 64 << 20
# UTF-16 is no app's default, and is read whole
_MAX_WIDE_BYTES = 256 << 20
_READ_ERRORS = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    NotImplementedError,
    EOFError,
)
_ZIP = b"PK\x03\x04"
_TEXT_SUFFIXES = frozenset({".txt", ".json", ".jsonl", ".csv", ".js", ""})


class ExportFiles:
    """The files of one export.

    Args:
        path: A file, a folder, or a zip archive.

    Raises:
        DataError: where it cannot be opened, or holds too many files.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "chat.txt").write_text("hi")
    ...     export = ExportFiles(Path(folder))
    ...     export.names, export.head("chat.txt")
    (('chat.txt',), b'hi')
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.refused: list[str] = []
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._heads: dict[str, bytes] = {}
        self._outlines: dict[str, dict[str, Any] | None] = {}
        try:
            if self.path.is_dir():
                self.names = tuple(sorted(_walk(self.path, self.refused)))
            elif zipfile.is_zipfile(self.path):
                self._archive = zipfile.ZipFile(self.path)
                self._members = _members(self._archive, self.refused)
                self.names = tuple(self._members)
            else:
                with self.path.open("rb") as file:
                    if file.read(len(_ZIP)) == _ZIP:  # its list of files, at its end, is not there
                        raise zipfile.BadZipFile("it ends in the middle")
                self.names = (self.path.name,)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(
                f"cannot be read ({reason}){address_hint(self.path)}; check the path",
                where=str(self.path),
            ) from error
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(
                f"is no zip archive that can be read ({one_line(error)}); copy it again",
                where=str(self.path),
            ) from error

    @property
    def is_archive(self) -> bool:
        """Whether the files lie in a zip archive."""
        return self._archive is not None

    @cached_property
    def text_names(self) -> tuple[str, ...]:
        """The names of files that may hold messages, by their endings."""
        if len(self.names) == 1:
            return self.names  # whatever it is called, it was named by hand
        return tuple(
            name for name in self.names if PurePosixPath(name).suffix.lower() in _TEXT_SUFFIXES
        )

    def only(self, names: tuple[str, ...]) -> ExportFiles:
        """The same export with these of its files alone."""
        part = copy.copy(self)
        part.names = names
        for kept in ("text_names", "_by_name"):
            part.__dict__.pop(kept, None)
        return part

    def where(self, name: str, line: int | None = None) -> str:
        """How a file, or a line of it, is named in a sentence."""
        place = f"{self.path}!{name}" if self.is_archive else str(self._path_of(name))
        return place if line is None else f"{place}:{line}"

    def head(self, name: str) -> bytes:
        """The first `HEAD_BYTES` of a file; those of a few files are kept."""
        if name not in self._heads:
            while len(self._heads) >= _MAX_HEADS:
                del self._heads[next(iter(self._heads))]
            with self.open(name) as file:
                self._heads[name] = file.read(HEAD_BYTES)
        return self._heads[name]

    def outline(self, name: str) -> dict[str, Any] | None:
        """What the beginning of a JSON file shows of its first object: see `json_pull.outline`."""
        if name not in self._outlines:
            self._outlines[name] = outline(self.head(name))
        return self._outlines[name]

    @contextmanager
    def open(self, name: str, remedy: str = "export it again") -> Iterator[IO[bytes]]:
        """Opens a file to be read once from its beginning.

        Args:
            name: The file.
            remedy: What to do where it is not there.

        Raises:
            DataError: where that cannot be done, or it holds more than a chat can.
        """
        where = self.where(name)
        try:
            if self._archive is None:
                with self._path_of(name).open("rb") as file:
                    yield file
                return
            member = self._members[name]
            _refuse_bomb(member, where)
            with self._archive.open(member) as packed:
                yield packed
        except _READ_ERRORS as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            hint = "unpack it with its password" if "password" in reason else remedy
            raise DataError(f"cannot be read ({reason}); {hint}", where=where) from error

    def lines(self, name: str, account: Account) -> Iterator[tuple[int, str]]:
        """The lines of a text, with their numbers from 1, without what ends them.

        UTF-8, or UTF-16 with its mark. Bytes that are no text are counted and shown as U+FFFD; a
        line of more than `MAX_LINE_BYTES` is cut off there, which is a fault of the account.
        """
        is_wide = self.head(name)[:2] in (b"\xff\xfe", b"\xfe\xff")
        with self.open(name) as file:
            yield from _wide_lines(file, account) if is_wide else _lines(file, name, account)

    @contextmanager
    def json(self, name: str, account: Account) -> Iterator[JsonPull]:
        """Opens a JSON file to be pulled through: see `JsonPull`."""
        with self.open(name) as file:
            yield JsonPull(file, self.where(name), account)

    def media(self, name: str) -> bytes:
        """The bytes of a picture or another attachment.

        Raises:
            DataError: where it cannot be read, or is larger than any picture.
        """
        with self.open(name, "put it there, or export the chat with its media") as file:
            data = file.read(_MAX_MEDIA_BYTES + 1)
        if len(data) > _MAX_MEDIA_BYTES:
            raise DataError(
                f"is larger than {_MAX_MEDIA_BYTES >> 20} MB; no picture is", where=self.where(name)
            )
        return data

    def media_path(self, name: str) -> Path | None:
        """Where an attachment lies on the disk; None where it lies in an archive."""
        return None if self._archive is not None else self._path_of(name)

    @property
    def media_folder(self) -> Path | None:
        """The folder that names of files are relative to; None of an archive."""
        if self._archive is not None:
            return None
        return self.path if self.path.is_dir() else self.path.parent

    def _path_of(self, name: str) -> Path:
        return self.path / name if self.path.is_dir() else self.path.parent / name

    def find(self, named: str, beside: str = "") -> str | None:
        """The file that a message means by a path or a name; None where there is none.

        Args:
            named: As the message says it: a path from the export's root or from the folder of the
                chat's own file, or the name alone.
            beside: The chat's own file.

        A file named alone beside the chat's own is found too where only that one was given.
        """
        wanted = named.replace("\\", "/").strip().removeprefix("./")
        if not wanted or _leads_out(wanted):
            return None
        if self.is_archive or self.path.is_dir():
            return self._by_name.find(wanted, PurePosixPath(beside).parent.as_posix())
        return _beside(self.path.parent, wanted)

    @cached_property
    def _by_name(self) -> _Names:
        return _Names(self.names)

    @property
    def faults(self) -> list[str]:
        """What is wrong with the files themselves, a sentence each."""
        if not self.refused:
            return []
        what = counted(len(self.refused), "file")
        return [
            f"left out {what} whose name leads out of the export or is another's: "
            f"{one_line(self.refused[0], 80)}"
        ]


class _Names:
    """Names of files, to be found by what messages call them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._known = frozenset(names)
        self._by_last: dict[str, list[str]] = {}
        for name in self._known:
            self._by_last.setdefault(_folded(PurePosixPath(name).name), []).append(name)

    def find(self, wanted: str, folder: str) -> str | None:
        """The file of this name: from this folder, from the root, or the only one that fits.

        One fits a path where the folders that both name are the same: an export may have been
        put into a folder, and a part may have been taken out of it.
        """
        places = [wanted] if folder == "." else [f"{folder}/{wanted}", wanted]
        for place in places:
            if place in self._known:
                return place
        parts = PurePosixPath(_folded(wanted)).parts
        found = []
        for name in self._by_last.get(parts[-1], [])[:_MAX_NAMESAKES] if parts else ():
            own = PurePosixPath(_folded(name)).parts
            depth = min(len(own), len(parts))
            if own[-depth:] == parts[-depth:]:
                found.append(name)
        beside = [name for name in found if name.startswith(f"{folder}/")]
        for fitting in (found, beside):
            if len(fitting) == 1:
                return fitting[0]
        return None


def _folded(name: str) -> str:
    """A name as it is compared: some systems write `ü` as two characters."""
    return unicodedata.normalize("NFC", name).lower()


def _beside(folder: Path, wanted: str) -> str | None:
    """The file of a path in a folder that may itself be part of that path."""
    parts = PurePosixPath(wanted).parts[-_MAX_FOLDERS:]
    for first in range(len(parts)):
        path = folder.joinpath(*parts[first:])
        try:
            if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
                return path.relative_to(folder).as_posix()
        except (OSError, ValueError):
            return None  # no name that a file can have
    return None


def _walk(top: Path, refused: list[str]) -> Iterator[str]:
    """Files below a folder; links that lead out of it are refused."""
    root = top.resolve()
    count = 0
    for folder, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if name.startswith(".") or not path.is_file():
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                refused.append(path.relative_to(top).as_posix())
                continue
            count += 1
            if count > MAX_FILES:
                raise ValueError(f"it holds more than {counted(MAX_FILES, 'file')}")
            yield path.relative_to(top).as_posix()


def _members(archive: zipfile.ZipFile, refused: list[str]) -> dict[str, zipfile.ZipInfo]:
    """Members of an archive under names that stay inside it."""
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise ValueError(f"it holds more than {counted(MAX_FILES, 'file')}")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = _member_name(info).replace("\\", "/")
        if info.is_dir() or name.startswith("__MACOSX/"):
            continue
        if _leads_out(name) or name in members:
            refused.append(name)
        else:
            members[name] = info
    return members


def _member_name(info: zipfile.ZipInfo) -> str:
    """The name of a member; many programs write UTF-8 and do not say so."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _lines(file: IO[bytes], name: str, account: Account) -> Iterator[tuple[int, str]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
            account.fault(
                f"{name}:{number} is longer than {MAX_LINE_BYTES >> 20} MB and is cut off there"
            )
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            account.num_undecodable += 1
            text = line.decode("utf-8", "replace")
        yield number, text.rstrip("\r\n")


def _wide_lines(file: IO[bytes], account: Account) -> Iterator[tuple[int, str]]:
    text = file.read(_MAX_WIDE_BYTES).decode("utf-16", "replace")
    for number, line in enumerate(text.split("\n"), 1):
        account.num_undecodable += "\N{REPLACEMENT CHARACTER}" in line
        yield number, line.rstrip("\r")


def _leads_out(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return name.startswith("/") or ".." in parts or (len(name) > 1 and name[1] == ":")


def _refuse_bomb(member: zipfile.ZipInfo, where: str) -> None:
    """Refuses a member that unpacks to more than a chat can.

    The size that the archive names is the size that is read: zipfile stops there.
    """
    size, packed = member.file_size, max(1, member.compress_size)
    if size > _MAX_TEXT_BYTES or (size > _MAX_FREE_BYTES and size > _MAX_RATIO * packed):
        raise DataError(
            f"unpacks from {packed:,} to {size:,} bytes, as no chat does; export it again",
            where=where,
        )
