"""What is done to a disk at once, and how rights are given and bytes written through."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

_FEW_FILES = 64  # each flushed by itself; beyond, one flush of everything is quicker


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8 at once, for places that appear whole by other means.

    A scratch folder.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes bytes at once, for places that appear whole by other means: a scratch folder."""
    with open(path, "wb") as file:
        file.write(data)


def append(path: Path, data: bytes) -> None:
    """Adds bytes at the end of a file, made where it is missing, out of our hands at once.

    Raises:
        OSError: where it cannot be written.
    """
    with open_to_append(path) as file:
        file.write(data)


def open_to_append(path: Path) -> IO[bytes]:
    """A file opened for adding to its end, made where it is missing."""
    return open(path, "ab")


def open_from(path: Path, offset: int) -> IO[bytes]:
    """A file opened for writing from an offset on; what lay behind it is cut off."""
    file = open(path, "r+b" if offset else "wb")
    try:
        file.seek(offset)
        file.truncate()
    except BaseException:
        file.close()
        raise
    return file


def write_through(file: IO[bytes]) -> None:
    """Writes what an open file holds through to the disk."""
    file.flush()
    os.fsync(file.fileno())


def cut_off(path: Path, length: int) -> None:
    """Cuts a file to a length in bytes."""
    os.truncate(path, length)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it where they are missing."""
    os.makedirs(folder, exist_ok=True)


def make_private_folder(folder: Path) -> None:
    """Makes a folder that only its owner can enter, and those above it where they are missing."""
    os.makedirs(folder.parent, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)


def make_private_file(path: Path) -> None:
    """Makes an empty file that only its owner can read; nothing where it is there."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def make_new_folder(folder: Path) -> bool:
    """Makes a folder; False where it is there already: of two processes one gets it."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        return False
    return True


def remove(path: Path) -> None:
    """Deletes a file, a link, or a folder with all in it; nothing where nothing is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    with suppress(FileNotFoundError):
        os.unlink(path)


def remove_if_empty(folder: Path) -> None:
    """Deletes a folder; nothing where it holds something, or is not there."""
    with suppress(OSError):
        os.rmdir(folder)


def give_rights(path: Path, scratch_mode: int) -> None:
    """Adds the rights that the umask gives, which a library's own temporary files do not have."""
    for found in _tree(path):
        mode = found.lstat().st_mode
        wanted = mode | (scratch_mode & (0o777 if found.is_dir() else 0o666))
        if wanted != mode:
            os.chmod(found, wanted & 0o7777)


def _tree(path: Path) -> list[Path]:
    """A file, or a folder with all in it; links are left out."""
    if path.is_symlink():
        return []
    if not path.is_dir():
        return [path]
    return [path, *(inner for found in path.iterdir() for inner in _tree(found))]


def flush_tree(path: Path) -> None:
    """Has the disk hold a file, or a folder with all in it."""
    found = _tree(path)
    if len(found) > _FEW_FILES and hasattr(os, "sync"):
        os.sync()
        return
    for one in found:
        flush(one)


def flush(path: Path) -> None:
    """Has the disk hold what was written to a file, or the names in a folder."""
    if os.name == "nt":
        return  # which opens no folder and flushes no file that is open for reading
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some file systems have no flush for folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
