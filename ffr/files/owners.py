"""One owner a folder: who works on it, known by a lock."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ffr.errors import InUseError
from ffr.files.disk import make_folder, remove, write_text
from ffr.files.scratch import SCRATCH_NAME, remove_litter

OWNER_FILE = ".owner"
"""In a folder that a process works on, under a lock that it holds: who that is."""


@contextmanager
def owned_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, and keeps all other processes out of it that ask for it in the same way.

    The lock of a process that is dead is nobody's.

    Raises:
        InUseError: where another process has it.
        OSError: where the folder cannot be written to.
    """
    from filelock import FileLock, Timeout  # whoever only runs an export may lack it

    make_folder(folder)
    path = folder / OWNER_FILE
    lock = FileLock(path, timeout=0, mode=0o666)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(
            f"{folder} is in use by {_owner_words(path)}; wait until it has ended, or name another "
            "folder"
        ) from None
    try:
        write_text(path, f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        # while the lock is held: whoever waits for it looks whether its file is still there
        remove(path)
        lock.release()


def is_in_use(folder: Path) -> bool:
    """Whether another process has a folder through `owned_folder`.

    >>> from ffr.files import temporary_folder
    >>> with temporary_folder() as folder:
    ...     is_in_use(folder)
    False
    """
    from filelock import FileLock, Timeout

    path = folder / OWNER_FILE
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0, mode=0o666)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return False  # not ours to lock: then nobody can tell
    remove(path)
    lock.release()
    return False


def clear_litter(folder: Path) -> None:
    """Takes what a killed process left in a folder that nobody works on any more.

    Raises:
        UsageError: where another process has it.
        OSError: where the folder cannot be written to.
    """
    with owned_folder(folder):
        remove_litter(folder)


def is_passing(name: str) -> bool:
    """Whether a name is one that files have here for the time of a work: of an owner, of scratch.

    >>> is_passing(OWNER_FILE), is_passing(".git")
    (True, False)
    """
    return name == OWNER_FILE or SCRATCH_NAME.fullmatch(name) is not None


def _owner_words(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()[:200] or "another process"
    return "another process"
