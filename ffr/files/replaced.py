"""What appears whole or not at all: files, folders, and what libraries write of them."""

from __future__ import annotations

import atexit
import errno
import gzip
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ffr.errors import DataError
from ffr.files.disk import flush, flush_tree, give_rights, make_folder, write_through
from ffr.files.scratch import HAS_LOCKS, OLD_SUFFIX, Scratch, numbers, scratch_file

_RUST_ERROR = re.compile(r"\(os error ([0-9]{1,4})\)")
_of_caches: dict[tuple[int, Path], Scratch] = {}


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
        with scratch_file(path, 0o600 if is_private else 0o666) as (scratch, plain):
            if path.suffix == ".gz":
                # no name and no time of day inside: the same records give the same bytes
                with gzip.GzipFile(filename="", fileobj=plain, mode="wb", mtime=0) as packed:
                    yield packed.write
            else:
                yield plain.write
            write_through(plain)
            if not HAS_LOCKS:
                plain.close()  # Windows renames no open file; elsewhere its lock goes with it
            os.replace(scratch, path)
        flush(path.parent)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror}); check the folder and its room", where=str(path)
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Writes a text in UTF-8, whole or not at all.

    Raises:
        DataError: where it cannot be written.
    """
    with replaced_file(path) as write:
        write(text.encode("utf-8"))


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
    made = scratch.folder / f"{next(numbers)}.{path.name}"
    try:
        yield made
        give_rights(made, scratch.mode)
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
        give_rights(made, scratch.mode)
        flush_tree(made)
        if target.is_dir() and keep_existing:
            return
        if made.is_dir() and os.path.lexists(target):
            _exchange(made, target, scratch.folder / f"{target.name}{OLD_SUFFIX}")
        else:
            os.replace(made, target)
        flush(target.parent)
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

    Where it needs two, one that is killed in between is finished by `ffr.files.scratch`.
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
