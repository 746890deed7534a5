"""What is forgotten is gone from the disk: rows, full text, vectors, pictures, and the log of all."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ffr.corpus.adding import drop_messages
from ffr.corpus.nearest import LISTS_FILES
from ffr.corpus.people import drop_alone
from ffr.corpus.pictures import MEDIA_FOLDER, forget_unseen
from ffr.corpus.postgres.address import is_server
from ffr.corpus.schema import DATABASE, whole
from ffr.corpus.seal import SEAL_FILE
from ffr.corpus.store import Store
from ffr.corpus.vectors import VECTOR_FILES, compact
from ffr.errors import UsageError
from ffr.files import owned_folder, remove, remove_if_empty

THUMBNAIL_FOLDER = "thumbnails"


def forget_chats(store: Store, ids: Iterable[int]) -> None:
    """Takes chats out of a store, and their bytes off the disk.

    Args:
        store: The store.
        ids: Numbers of the chats.

    Raises:
        UsageError: where another process writes.
        DataError: where another process reads all the time, so that its log cannot be emptied.
    """
    with store.writing():
        with whole(store.database):
            for chat in sorted(set(ids)):
                _forget(store, chat)
            store.database.mark_unfinished()
        take_off_disk(store)


def finish_forgetting(store: Store) -> None:
    """Takes off the disk what a process that was killed while it forgot has left there.

    Nothing where nothing is left, or where another process writes, which does so itself.
    """
    if not store.database.is_unfinished():
        return
    with suppress(UsageError, PermissionError), store.writing():
        take_off_disk(store)


def take_off_disk(store: Store) -> None:
    """Takes bytes off the disk that no chat has any more; nobody else may write meanwhile.

    Raises:
        DataError: where another process reads all the time, so that its log cannot be emptied.
    """
    compact(store)
    _forget_pictures(store)
    store.database.take_off_disk()


def _forget(store: Store, chat: int) -> None:
    ids = [row["id"] for row in store.rows("SELECT id FROM messages WHERE chat = ?", [chat])]
    drop_messages(store, ids)
    store.database.execute(
        "DELETE FROM files WHERE source IN (SELECT id FROM sources WHERE chat = ?)", [chat]
    )
    for table in ("segments", "sources", "people", "same"):
        store.database.execute(f"DELETE FROM {table} WHERE chat = ?", [chat])
    store.database.execute("DELETE FROM chats WHERE id = ?", [chat])
    drop_alone(store)


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


def forget_store(address: str | Path) -> None:
    """Takes a whole store off the disk, or its schema off the server; what is none is refused.

    Args:
        address: Its folder, or the URL of its server.

    Raises:
        UsageError: where it is no store, or another process writes.
    """
    if is_server(address):
        _forget_server(address)
        return
    folder = Path(address)
    if not (folder / DATABASE).is_file():
        raise UsageError(f"{folder} is no store of chats, so nothing was deleted")
    with owned_folder(folder):
        for path in [*folder.glob(VECTOR_FILES), *folder.glob(LISTS_FILES), folder / SEAL_FILE]:
            remove(path)
        for name in (MEDIA_FOLDER, THUMBNAIL_FOLDER):
            remove(folder / name)
        # the database last: by it a folder is known as a store, where this is killed before
        for end in ("-wal", "-shm", ""):
            remove(folder / f"{DATABASE}{end}")
    remove_if_empty(folder)


def _forget_server(address: str | Path) -> None:
    from ffr.corpus.postgres.vectors import server_of

    with Store(address) as store, store.writing():
        server_of(store).drop()
        for name in (MEDIA_FOLDER, THUMBNAIL_FOLDER):
            remove(store.folder / name)
        remove_if_empty(store.folder)


def size_of(store: Store) -> int:
    """Bytes that a store takes on the disk, the server's included."""
    size = store.database.num_bytes()
    for path in store.folder.rglob("*"):
        # another process may take a file away meanwhile
        with suppress(FileNotFoundError):
            size += path.stat().st_size if path.is_file() else 0
    return size
