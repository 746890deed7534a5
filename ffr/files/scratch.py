"""Scratch files and folders beside what is being written, and what the dead leave of them.

They are named `.NAME.ffr-HOST-PID-NUMBER.part`, and their process holds a lock on them. A lock that
nobody holds tells that the process is dead.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ffr.files.disk import make_folder

try:
    import fcntl
except ImportError:  # not on Windows, where scratch folders are known for dead by their age alone
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS = fcntl is not None
"""Whether the system locks files in the way of POSIX."""


SCRATCH_NAME = re.compile(r"\..*\.ffr-([0-9a-f]{6})-[0-9]+-[0-9]+\.part", re.DOTALL)
_LOCK_FILE = ".lock"
OLD_SUFFIX = ".old"
_MAX_NAME_BYTES = 150  # of the target in its scratch folder's name; file systems hold 255 in all
_DEAD_AFTER_SECONDS = 86_400.0  # where no lock can tell: no change for a day
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
numbers = itertools.count(1)
_looked_at: set[tuple[int, str]] = set()  # folders that this process has rid of litter


@contextmanager
def scratch_file(target: Path, mode: int) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside a target, open and locked, gone at the end where it was not renamed."""
    make_folder(target.parent)
    remove_litter(target.parent)
    while True:
        scratch = _scratch_path(target.parent, target.name)
        try:
            handle = os.open(scratch, _NEW, mode)
        except FileExistsError:
            continue
        _lock(handle)
        if os.path.lexists(scratch):
            break
        os.close(handle)  # another process took it for a dead one's before the lock was ours
    try:
        with open(handle, "wb") as plain:
            yield scratch, plain
    finally:
        with suppress(FileNotFoundError):
            os.unlink(scratch)


class Scratch:
    """A folder of this process for what is being written.

    It lasts until `remove`, or until the process is dead.

    Args:
        target: What it is for: it lies beside that and bears its name. None for one among the
            system's temporary files.
    """

    def __init__(self, target: Path | None = None) -> None:
        beside = Path(tempfile.gettempdir()) if target is None else target.parent
        name = "temporary" if target is None else target.name
        if target is not None:
            make_folder(beside)
        remove_litter(beside)
        self._pid = os.getpid()
        self._lock: int | None = None
        while self._lock is None:
            self.folder = _scratch_path(beside, name)
            with suppress(FileExistsError):
                os.mkdir(self.folder, 0o700 if target is None else 0o777)
                # None where another process took the folder for a dead one's before the lock was
                # ours
                self._lock = _take_lock(self.folder)
        # as the umask has it, which can only be asked by setting it: another thread would feel that
        self.mode = self.folder.stat().st_mode

    def remove(self) -> None:
        """Deletes the folder with all in it.

        Nothing in a forked child, which holds a copy of its owner.
        """
        if os.getpid() != self._pid:
            return
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)
        _remove_scratch(self.folder)


def _remove_scratch(folder: Path) -> None:
    """Deletes a scratch folder, after finishing an exchange that was cut off in the middle."""
    with suppress(OSError):
        for old in folder.glob(f"*{OLD_SUFFIX}"):
            name = old.name.removesuffix(OLD_SUFFIX)
            if not os.path.lexists(folder.parent / name):
                whole = folder / name
                os.replace(whole if whole.exists() else old, folder.parent / name)
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK_FILE:
                os.unlink(path)
        # last, for what is left without a lock has nobody who could be asked for it
        with suppress(FileNotFoundError):
            os.unlink(folder / _LOCK_FILE)
        os.rmdir(folder)


def _scratch_path(beside: Path, name: str) -> Path:
    short = name.encode("utf-8", "surrogateescape")[:_MAX_NAME_BYTES].decode("utf-8", "ignore")
    return beside / f".{short}.ffr-{_host()}-{os.getpid()}-{next(numbers)}.part"


def remove_litter(beside: Path) -> None:
    """Deletes the scratch files and folders of dead processes.

    A process looks once into a folder.
    """
    key = (os.getpid(), os.path.abspath(beside))
    if key in _looked_at:
        return
    _looked_at.add(key)
    with suppress(OSError), os.scandir(beside) as entries:
        found = [
            (entry, match) for entry in entries if (match := SCRATCH_NAME.fullmatch(entry.name))
        ]
    for entry, match in found:
        path = Path(entry.path)
        with suppress(OSError):
            is_folder = entry.is_dir(follow_symlinks=False)
            if not entry.is_symlink() and _is_dead(path, match[1], is_folder):
                if is_folder:
                    _remove_scratch(path)
                else:
                    os.unlink(path)


def _is_dead(path: Path, host: str, is_folder: bool) -> bool:
    """Whether no process holds the lock of a scratch file or folder."""
    if fcntl is None or host != _host():
        # a lock of another machine does not show on every file system
        newest = max(found.lstat().st_mtime for found in (path, *path.rglob("*")))
        return time.time() - newest > _DEAD_AFTER_SECONDS
    try:
        lock = os.open(path / _LOCK_FILE if is_folder else path, os.O_RDWR)
    except FileNotFoundError:
        # killed before it made its lock, or just about to make it: then it makes another folder
        with suppress(OSError):
            os.rmdir(path)
        # what holds something all the same has its lock by now, or was killed as it put that away
        return is_folder and path.exists() and not (path / _LOCK_FILE).exists()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _take_lock(folder: Path) -> int | None:
    """The open lock of a scratch folder; None where the folder was taken away meanwhile."""
    try:
        lock = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        return None
    _lock(lock)
    if not os.path.lexists(folder / _LOCK_FILE):
        os.close(lock)
        return None
    return lock


def _lock(handle: int) -> None:
    if fcntl is not None:
        # a file system without locks: then nobody else gets one either, and what is here is left
        # alone
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)


@functools.cache
def _host() -> str:
    """Six hex digits that stand for this machine."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
