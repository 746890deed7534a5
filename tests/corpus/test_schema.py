"""What a database refuses is a sentence, and leaves what was there."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from chat_builds import TRIP, add, said

from ffr.corpus.schema import DATABASE, whole
from ffr.corpus.store import Store
from ffr.errors import DataError, UsageError


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        pages = store.rows("PRAGMA page_count")[0][0]
        store.database.execute(f"PRAGMA max_page_count = {pages + 4}")
        many = [*TRIP, *(said("Ann", f"{number} " * 99, number) for number in range(3000))]
        with pytest.raises(DataError, match=r"messages\.sqlite3: cannot be used .* is full"):
            add(store, many)
        assert not store.database.in_transaction
        assert store.chats()[0].num_messages == len(TRIP)


def test_a_database_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        store.database.execute("PRAGMA query_only = ON")
        with pytest.raises(DataError, match="cannot be used as a store of chats"):
            add(store)
        with pytest.raises(DataError), whole(store.database):
            raise sqlite3.OperationalError("anything")
        assert store.chats() == []


def test_a_closed_store_is_said(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
    with pytest.raises(UsageError, match="was closed; open it again"):
        store.chats()
    with pytest.raises(UsageError, match="was closed; open it again"):
        add(store)


def test_of_two_who_make_a_store_one_waits(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    path.write_bytes(b"")
    other = sqlite3.connect(path, check_same_thread=False)
    other.execute("CREATE TABLE made(x)")
    other.execute("BEGIN EXCLUSIVE")
    later = threading.Timer(0.3, other.close)
    later.start()
    with Store(tmp_path) as store:
        assert not later.is_alive()
        assert store.rows("PRAGMA journal_mode")[0][0] == "wal"
