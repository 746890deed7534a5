"""The seal of a store: digests of its files, block by block, as they were when nobody wrote any more.

Whoever is going to write breaks the seal first, and who opens the store to ask it makes a new one.
Where a store is sealed each bit of its files is as it was written, or damaged. Blocks of vectors'
files, which only grow, keep their digests through that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffr.errors import DataError
from ffr.files import dump_json, owned_folder, replaced_file

SEAL_FILE = "seal.json"
_FORM = 1
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file as it was.

    Args:
        size: Bytes of it that count.
        digests: Of each block of 1 MiB of these.
    """

    size: int
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seal:
    """What is known of a store's files.

    Args:
        is_whole: Whether nobody has written since.
        files: By their names.
    """

    is_whole: bool
    files: Mapping[str, Sealed]


def read_seal(folder: Path) -> Seal | None:
    """The seal of a store; None where it has none that can be read."""
    try:
        content: Any = json.loads((folder / SEAL_FILE).read_bytes())
        if content["form"] != _FORM or content["block"] != _BLOCK:
            return None
        files = {
            str(name): Sealed(int(size), tuple(map(str, digests)))
            for name, (size, digests) in content["files"].items()
        }
        return Seal(content["is_whole"] is True, files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def break_seal(folder: Path) -> None:
    """Says that the files of a store are going to change."""
    found = read_seal(folder)
    if found is not None and found.is_whole:
        _write(folder, Seal(False, found.files))


@contextmanager
def unsealed(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing into a store's folder, whose seal is broken.

    Raises:
        UsageError: where another process writes.
    """
    with owned_folder(folder):
        break_seal(folder)
        yield


def make_seal(folder: Path, files: Mapping[Path, int], growing: Mapping[Path, int]) -> None:
    """Seals files as they are; nobody may write meanwhile.

    Args:
        folder: The store's.
        files: Those that may have changed anywhere, with the bytes of each that count.
        growing: Those that only grow, of which digests of whole blocks stay.
    """
    old = read_seal(folder)
    sealed: dict[str, Sealed] = {}
    for path, size in {**files, **growing}.items():
        kept: tuple[str, ...] = ()
        before = old.files.get(path.name) if old is not None and path in growing else None
        if before is not None and before.size <= size:
            kept = before.digests[: before.size // _BLOCK]
        sealed[path.name] = Sealed(size, (*kept, *_digests(path, size, len(kept))))
    _write(folder, Seal(True, sealed))


def differing_bytes(path: Path, sealed: Sealed) -> list[tuple[int, int]]:
    """The stretches of a file, from a byte to another, that are not as they were.

    Args:
        path: The file.
        sealed: As it was.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        found = list(_digests(path, sealed.size, 0))
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=str(path)) from error
    found += [""] * (len(sealed.digests) - len(found))
    return [
        (number * _BLOCK, min((number + 1) * _BLOCK, sealed.size))
        for number, (old, new) in enumerate(zip(sealed.digests, found, strict=True))
        if old != new
    ]


def _digests(path: Path, size: int, first: int) -> Iterator[str]:
    """Of each block of a file's first bytes, from a block on."""
    with path.open("rb") as file:
        file.seek(first * _BLOCK)
        for start in range(first * _BLOCK, size, _BLOCK):
            block = file.read(min(_BLOCK, size - start))
            yield hashlib.blake2b(block, digest_size=16).hexdigest()


def _write(folder: Path, seal: Seal) -> None:
    files = {name: [it.size, list(it.digests)] for name, it in seal.files.items()}
    content = {"form": _FORM, "block": _BLOCK, "is_whole": seal.is_whole, "files": files}
    path = folder / SEAL_FILE
    data = dump_json(content, where=str(path))
    with replaced_file(path, is_private=True) as write:
        write(data)
