"""Checksums beside files, by which a changed byte is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from ffr.errors import DataError
from ffr.files.replaced import replace_text

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
