"""A store is sealed once nobody writes any more: `ffr/corpus/seal.py` says what that is."""

from __future__ import annotations

from contextlib import suppress

from ffr.corpus.database import Row
from ffr.corpus.nearest import LISTS_FILES, ON_DISK
from ffr.corpus.seal import make_seal, read_seal
from ffr.corpus.store import Store
from ffr.errors import UsageError


def seal_if_broken(store: Store) -> None:
    """Seals a store that was written to, unless somebody writes or reads it just now."""
    seal = read_seal(store.folder)
    if seal is None or not seal.is_whole:
        with suppress(UsageError, PermissionError), store.database.held():
            seal_store(store)


def seal_store(store: Store) -> None:
    """Seals a store that nobody else writes to; nothing where others read, so that its log stays."""
    settled = store.database.settled_files()
    if not settled:
        return
    growing = {
        store.folder / row["file"]: num_bytes(row)
        for row in store.rows("SELECT * FROM matrices")
        if (store.folder / row["file"]).is_file()
    }
    files = [*settled, *sorted(store.folder.glob(LISTS_FILES))]
    make_seal(store.folder, {path: path.stat().st_size for path in files}, growing)


def num_bytes(row: Row) -> int:
    """The bytes of a vectors' file that count, of its row in `matrices`."""
    return int(row["num_rows"]) * int(row["width"]) * ON_DISK.itemsize
