"""The one hand that writes.

A file or folder appears whole or not at all, and what the dead leave is removed.

All that ffr makes, writes, renames or deletes on a disk goes through this module
(tests/test_files.py holds the house to it), through `os`, `shutil` and `open` as they stand here: a
test can fail any such call at one place.

What is being written lies in a scratch file or folder beside its place, named
`.NAME.ffr-HOST-PID-NUMBER.part`, under a lock that its process holds. A lock that nobody holds
tells that the process is dead: the next one to write beside it removes what it left.
"""

from __future__ import annotations

import atexit
import errno
import functools
import gzip
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ffr.errors import DataError, UsageError

try:
    import fcntl
except ImportError:  # not on Windows, where scratch folders are known for dead by their age alone
    fcntl = None  # type: ignore[assignment]

_SCRATCH_NAME = re.compile(r"\..*\.ffr-([0-9a-f]{6})-[0-9]+-[0-9]+\.part", re.DOTALL)
_RUST_ERROR = re.compile(r"\(os error ([0-9]{1,4})\)")
_LOCK_FILE = ".lock"
_OLD_SUFFIX = ".old"
_MAX_NAME_BYTES = 150  # of the target in its scratch folder's name; file systems hold 255 in all
_DEAD_AFTER_SECONDS = 86_400.0  # where no lock can tell: no change for a day
_FEW_FILES = 64  # each flushed by itself; beyond, one flush of everything is quicker
_numbers = itertools.count(1)
_looked_at: set[tuple[int, str]] = set()  # folders that this process has rid of litter
_of_caches: dict[tuple[int, Path], Scratch] = {}


# -- files -----------------------------------------------------------------------------------------


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Writes JSON objects to a .json list or a .jsonl file, packed for .gz; tells how many.

    Raises:
        UsageError: where the name ends in something else.
        DataError: where the file cannot be written or a record cannot be said in JSON.
    """
    path = Path(path)
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind not in ("json", "jsonl"):
        raise UsageError(
            f"{path.name}: the name ends in .json, .jsonl, .json.gz or .jsonl.gz, so that the "
            "layout is known"
        )
    count = 0
    with replaced_file(path) as write:
        write(b"[" if kind == "json" else b"")
        for record in records:
            line = dump_record(record, where=f"{path.name}, record {count + 1}")
            if kind == "json":
                write((b",\n" if count else b"\n") + line)
            else:
                write(line + b"\n")
            count += 1
        write(b"\n]\n" if kind == "json" else b"")
    return count


def dump_record(record: Mapping[str, Any], *, where: str | None = None) -> bytes:
    """One record as a line of JSON in UTF-8, without the line break.

    Raises:
        DataError: where JSON cannot say it (NaN, half a surrogate pair, …).
    """
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"cannot be written as JSON ({error}); correct the value", where=where
        ) from error


def dump_json(content: Any, *, where: str) -> bytes:
    r"""A document of ffr's own as JSON that every reader takes, with a line break at its end.

    Half a surrogate pair, as a text from outside may have, is written as its escape.

    Raises:
        DataError: where a number is not finite, or a value is none of JSON's.

    >>> dump_json({"said": "\ud83d"}, where="a.json")
    b'{\n  "said": "\\ud83d"\n}\n'
    """
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=2)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"cannot be written as JSON ({error}); look for NaN in the model's weights or what it "
            "was given",
            where=where,
        ) from error
    return (text + "\n").encode("utf-8", "backslashreplace")


def replace_json(path: Path, content: Any) -> None:
    """Writes a document as `dump_json` has it, whole or not at all.

    Raises:
        DataError: where it cannot be written.
    """
    data = dump_json(content, where=str(path))
    with replaced_file(path) as write:
        write(data)


def write_json(path: Path, content: Any) -> None:
    """Writes a document as `dump_json` has it at once, for a scratch folder.

    Raises:
        DataError: where a number is not finite, or a value is none of JSON's.
    """
    write_bytes(path, dump_json(content, where=str(path)))


@contextmanager
def replaced_file(path: Path, *, is_private: bool = False) -> Iterator[Callable[[bytes], int]]:
    """A function that writes to a scratch file, which takes the place of `path` if all went well.

    What goes into a .gz is packed.

    Args:
        path: The file; folders above it are made.
        is_private: For its owner alone to read, whatever the umask allows others.

    Raises:
        DataError: where it cannot be written.

    >>> with temporary_folder() as folder:
    ...     with replaced_file(folder / "a.txt") as write:
    ...         _ = write(b"whole")
    ...     print((folder / "a.txt").read_bytes())
    b'whole'
    """
    try:
        with _scratch_file(path, 0o600 if is_private else 0o666) as (scratch, plain):
            if path.suffix == ".gz":
                # no name and no time of day inside: the same records give the same bytes
                with gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) as packed:
                    yield packed.write
            else:
                yield plain.write
            write_through(plain)
            if fcntl is None:
                plain.close()  # Windows renames no open file; elsewhere its lock goes with it
            os.replace(scratch, path)
        _flush(path.parent)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror}); check the folder and its room", where=str(path)
        ) from error


_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def replace_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8, whole or not at all.

    Raises:
        DataError: where it cannot be written.
    """
    with replaced_file(path) as write:
        write(text.encode("utf-8"))


def write_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8 at once, for places that appear whole by other means.

    A scratch folder.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes bytes at once, for places that appear whole by other means: a scratch folder."""
    with open(path, "wb") as file:
        file.write(data)


@contextmanager
def replaced_path(path: Path) -> Iterator[Path]:
    """Where a library may write a file, which takes the place of `path` if all went well.

    Args:
        path: The file; the one that is handed out has its name, in another folder.

    Raises:
        OSError: where it cannot be written.
    """
    with _placed(path) as scratch:
        yield scratch


@contextmanager
def cached_path(path: Path, root: Path) -> Iterator[Path]:
    """As `replaced_path`, for the many small files of a cache: quicker, and lost with the power.

    Args:
        path: The file, somewhere under
        root: the cache's folder. One scratch folder in it serves this process to its end.

    Raises:
        OSError: where it cannot be written.
    """
    scratch = _scratch_of_cache(root)
    made = scratch.folder / f"{next(_numbers)}.{path.name}"
    try:
        yield made
        _give_rights(made, scratch.mode)
        make_folder(path.parent)
        os.replace(made, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(made)


@contextmanager
def replaced_folder(folder: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """A new, empty folder, which takes the place of `folder`, and of all in it, if all went well.

    Its files have the rights that the umask gives, whatever their writers gave them.

    Args:
        folder: The folder; what is there already lasts until the new one is whole.
        keep_existing: Leave what is there at the end, as where another process was quicker with the
            same content.

    Raises:
        OSError: where it cannot be written.
    """
    with _placed(folder, keep_existing=keep_existing) as scratch:
        os.mkdir(scratch)
        yield scratch


@contextmanager
def temporary_folder(beside: Path | None = None) -> Iterator[Path]:
    """A folder of this process, gone at the end.

    Args:
        beside: What it lies beside, as where it may grow large; None for one among the system's
            temporary files.
    """
    scratch = Scratch(beside)
    try:
        yield scratch.folder
    finally:
        scratch.remove()


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


# -- one owner a folder ----------------------------------------------------------------------------

OWNER_FILE = ".owner"
"""In a folder that a process works on, under a lock that it holds: who that is."""


@contextmanager
def owned_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, and keeps all other processes out of it that ask for it in the same way.

    The lock of a process that is dead is nobody's.

    Raises:
        UsageError: where another process has it.
        OSError: where the folder cannot be written to.
    """
    from filelock import FileLock, Timeout  # whoever only runs an export may lack it

    make_folder(folder)
    path = folder / OWNER_FILE
    lock = FileLock(path, timeout=0, mode=0o666)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
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
        _remove_litter(folder)


def is_passing(name: str) -> bool:
    """Whether a name is one that files have here for the time of a work: of an owner, of scratch.

    >>> is_passing(OWNER_FILE), is_passing(".git")
    (True, False)
    """
    return name == OWNER_FILE or _SCRATCH_NAME.fullmatch(name) is not None


def _owner_words(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip()[:200] or "another process"
    return "another process"


# -- checksums -------------------------------------------------------------------------------------

CHECKSUMS_FILE = "SHA256SUMS"
"""Names the bytes of files beside it, in the form of `sha256sum -c`."""


def write_checksums(
    folder: Path, names: Iterable[str], *, known: Mapping[str, str] | None = None
) -> None:
    """Writes the checksums of files of a folder, whole or not at all.

    Args:
        folder: The folder.
        names: Names of files in it that are read.
        known: Checksums that are known already, by the names of files in it.

    Raises:
        DataError: where they cannot be written.
    """
    found = {**(known or {}), **{name: _digest_of(folder / name) for name in names}}
    replace_text(
        folder / CHECKSUMS_FILE, "".join(f"{found[name]}  {name}\n" for name in sorted(found))
    )


def read_checksums(folder: Path) -> dict[str, str] | None:
    """The checksums of a folder's files by their names; None where it has none.

    A damaged line names no file, so that the file it was of counts as changed.
    """
    try:
        text = (folder / CHECKSUMS_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    lines = (line.partition("  ") for line in text.split("\n") if line)
    return {name: digest for digest, _, name in lines}


def differing_files(folder: Path) -> list[str]:
    """Names of files that a folder's checksums name and that are not there as they were written."""
    found = read_checksums(folder) or {}
    return [name for name, digest in found.items() if not is_as_written(folder / name, digest)]


def check_as_written(path: Path, *, otherwise: str) -> None:
    """Sees that a file is what the checksums beside it were made of, where they name it.

    Args:
        path: The file.
        otherwise: What else can be done than to restore it: `evaluate again`.

    Raises:
        DataError: where it is not.
    """
    digest = (read_checksums(path.parent) or {}).get(path.name)
    if digest is not None and not is_as_written(path, digest):
        raise DataError(
            f"is not what was written (the {CHECKSUMS_FILE} beside it says so); restore it, or "
            f"{otherwise}",
            where=str(path),
        )


def is_as_written(path: Path, digest: str | None) -> bool:
    """Whether a file has a checksum; False where it is not there or none is known."""
    try:
        return digest is not None and path.is_file() and _digest_of(path) == digest
    except (OSError, ValueError):
        return False  # it cannot be read, or a damaged line gives it a name that no file has


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- scratch folders -------------------------------------------------------------------------------


@contextmanager
def _scratch_file(target: Path, mode: int) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file beside a target, open and locked, gone at the end where it was not renamed."""
    make_folder(target.parent)
    _remove_litter(target.parent)
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
        _remove_litter(beside)
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


def _scratch_of_cache(root: Path) -> Scratch:
    key = (os.getpid(), root)
    scratch = _of_caches.get(key)
    if scratch is None or not scratch.folder.is_dir():
        scratch = _of_caches[key] = Scratch(root / "cache")
        atexit.register(scratch.remove)
    return scratch


@contextmanager
def _placed(target: Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """A path in a scratch folder; what was made there is renamed to the target at the end."""
    scratch = Scratch(target)
    try:
        made = scratch.folder / target.name
        with _said_by_the_system(target):
            yield made
        _give_rights(made, scratch.mode)
        _flush_tree(made)
        if target.is_dir() and keep_existing:
            return
        if made.is_dir() and os.path.lexists(target):
            _exchange(made, target, scratch.folder / f"{target.name}{_OLD_SUFFIX}")
        else:
            os.replace(made, target)
        _flush(target.parent)
    finally:
        scratch.remove()


@contextmanager
def _said_by_the_system(target: Path) -> Iterator[None]:
    """Makes an OSError of what a library in Rust says of one, as safetensors of a full disk."""
    try:
        yield
    except Exception as error:
        found = _RUST_ERROR.search(str(error))
        if isinstance(error, OSError) or found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(target)) from error


def _exchange(made: Path, target: Path, old: Path) -> None:
    """Puts a folder in the place of another, in one call where the system has one.

    Where it needs two, one that is killed in between is finished by `_remove_scratch`.
    """
    if _swap_names(made, target):
        return
    os.replace(target, old)
    try:
        os.replace(made, target)
    except OSError:
        os.replace(old, target)
        raise


def _swap_names(one: Path, other: Path) -> bool:
    """Lets two names change places at once; False where the system or its disk cannot.

    Raises:
        OSError: where it could, and may not.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:  # an older C library
        return False
    of_here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if call(of_here, os.fsencode(one), of_here, os.fsencode(other), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _remove_scratch(folder: Path) -> None:
    """Deletes a scratch folder, after finishing an exchange that was cut off in the middle."""
    with suppress(OSError):
        for old in folder.glob(f"*{_OLD_SUFFIX}"):
            name = old.name.removesuffix(_OLD_SUFFIX)
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
    return beside / f".{short}.ffr-{_host()}-{os.getpid()}-{next(_numbers)}.part"


def _remove_litter(beside: Path) -> None:
    """Deletes the scratch files and folders of dead processes.

    A process looks once into a folder.
    """
    key = (os.getpid(), os.path.abspath(beside))
    if key in _looked_at:
        return
    _looked_at.add(key)
    with suppress(OSError), os.scandir(beside) as entries:
        found = [
            (entry, match) for entry in entries if (match := _SCRATCH_NAME.fullmatch(entry.name))
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


# -- rights and disks ------------------------------------------------------------------------------


def _give_rights(path: Path, scratch_mode: int) -> None:
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


def _flush_tree(path: Path) -> None:
    found = _tree(path)
    if len(found) > _FEW_FILES and hasattr(os, "sync"):
        os.sync()
        return
    for one in found:
        _flush(one)


def _flush(path: Path) -> None:
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
