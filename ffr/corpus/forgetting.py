"""What is forgotten is gone from the disk: rows, full text, vectors, pictures, and the log of all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ffr.corpus.adding import drop_messages
from ffr.corpus.pictures import MEDIA_FOLDER, forget_unseen
from ffr.corpus.schema import DATABASE, whole
from ffr.corpus.store import Store
from ffr.corpus.vectors import compact
from ffr.errors import UsageError
from ffr.files import owned_folder, remove, remove_if_empty

THUMBNAIL_FOLDER = "thumbnails"
_OURS = ("*.sqlite3", "*.sqlite3-wal", "*.sqlite3-shm", "vectors-*.f32")


def forget_chats(store: Store, ids: Iterable[int]) -> None:
    """Takes chats out of a store, and their bytes off the disk.

    Args:
        store: The store.
        ids: Numbers of the chats.

    Raises:
        UsageError: where another process writes.
    """
    with store.writing():
        for chat in sorted(set(ids)):
            _forget(store, chat)
        compact(store)
        _forget_pictures(store)
        database = store.database
        # full text keeps deleted words until its pieces are merged, and the log what was overwritten
        for table in ("words", "shown_words"):
            database.execute(f"INSERT INTO {table}({table}) VALUES ('optimize')")
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _forget(store: Store, chat: int) -> None:
    ids = [row["id"] for row in store.rows("SELECT id FROM messages WHERE chat = ?", [chat])]
    with whole(store.database):
        drop_messages(store, ids)
        store.database.execute(
            "DELETE FROM files WHERE source IN (SELECT id FROM sources WHERE chat = ?)", [chat]
        )
        for table in ("sources", "people"):
            store.database.execute(f"DELETE FROM {table} WHERE chat = ?", [chat])
        store.database.execute("DELETE FROM chats WHERE id = ?", [chat])


def _forget_pictures(store: Store) -> None:
    """Takes what pictures show, and their copies, off the disk where no chat has them any more."""
    with whole(store.database):
        forget_unseen(store)
    kept = {
        row["digest"].hex()
        for row in store.rows("SELECT DISTINCT digest FROM files WHERE digest IS NOT NULL")
    }
    for folder in (MEDIA_FOLDER, THUMBNAIL_FOLDER):
        for path in sorted((store.folder / folder).glob("*")):
            if path.name.partition(".")[0].partition("-")[0] not in kept:
                remove(path)
    # the words of pictures may have been the last that had a vector
    compact(store)


def forget_store(folder: Path) -> None:
    """Takes a whole store off the disk; a folder that is none is refused.

    Args:
        folder: Of the store.

    Raises:
        UsageError: where it is no store, or another process writes.
    """
    if not (folder / DATABASE).is_file():
        raise UsageError(f"{folder} is no store of chats, so nothing was deleted")
    with owned_folder(folder):
        for pattern in _OURS:
            for path in sorted(folder.glob(pattern)):
                remove(path)
        for name in (MEDIA_FOLDER, THUMBNAIL_FOLDER):
            remove(folder / name)
    remove_if_empty(folder)


def size_of(store: Store) -> int:
    """Bytes that a store takes on the disk."""
    return sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
