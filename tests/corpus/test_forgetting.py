"""What is forgotten is gone, whenever the process that forgets is killed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from chat_builds import Letters, add, killed_at, no_bar, said, stored_encoder

from ffr.corpus.forgetting import finish_forgetting, forget_chats, forget_store, size_of
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.errors import DataError, UsageError

_SECRET = "the password is xylophone"


def _store(folder: Path) -> None:
    with Store(folder, is_new_allowed=True) as store:
        add(store, (said("Mallory", _SECRET), said("Ann", "kept")), "secret")
        add(store, (said("Ann", "kept"), said("Ann", "too", 1)), "plain", source=folder / "b")
        _index(store)


def _index(store: Store) -> None:
    ids = [chat.id for chat in store.chats()]
    index_store(store, ids, stored_encoder(store, Letters()), None, say=print, bar=no_bar)


def _bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def _vector() -> bytes:
    return Letters().embed_texts([f"p: {_SECRET}"]).numpy().tobytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows forks no process")
def test_whoever_is_killed_leaves_the_old_state_or_the_new(tmp_path: Path) -> None:
    whole, folder = tmp_path / "whole", tmp_path / "s"
    _store(whole)
    old = new = 0
    for number in range(1, 999):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        if not killed_at(folder, number, lambda store: forget_chats(store, [1])):
            break
        with Store(folder) as store:
            finish_forgetting(store)
            titles = [chat.title for chat in store.chats()]
            if titles == ["secret", "plain"]:
                old += 1
                assert store.line(1).message.text == _SECRET
            else:
                new += 1
                assert titles == ["plain"]
                assert _vector() not in _bytes_of(folder)
                assert b"xylophone" not in _bytes_of(folder)
            _index(store)
            (matrix,) = store.rows("SELECT file FROM matrices")
            assert [path.name for path in folder.glob("vectors-*")] == [matrix["file"]]
            kept = stored_encoder(store).embed_texts(["p: kept"])
            assert kept.equal(Letters().embed_texts(["p: kept"]))
    assert old > 5
    assert new > 5


def test_what_another_reads_meanwhile_is_taken_off_later(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    _store(folder)
    with Store(folder) as store, Store(folder) as reading:
        store.database.execute("PRAGMA busy_timeout = 10")
        reading.database.execute("BEGIN")
        assert len(reading.chats()) == 2
        with pytest.raises(DataError, match="are forgotten, but another process reads"):
            forget_chats(store, [1])
        assert [chat.title for chat in store.chats()] == ["plain"]
        reading.database.execute("ROLLBACK")
        finish_forgetting(store)
        assert b"xylophone" not in _bytes_of(folder)
        with reading.writing():
            finish_forgetting(store)


def test_vectors_that_are_torn_do_not_stand_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    _store(folder)
    (path,) = folder.glob("vectors-*")
    path.unlink()
    with Store(folder) as store:
        with pytest.raises(DataError, match="is shorter than the store says"):
            _ = stored_encoder(store).vectors
        forget_chats(store, [1])
        _index(store)
        # two lines, and the segment that they are
        assert stored_encoder(store).vectors.matrix().shape == (3, 64)


def test_a_store_whose_forgetting_was_broken_off_can_be_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    _store(folder)
    (folder / "media").mkdir()
    with Store(folder) as store:
        assert size_of(store) > 4096

    def stopped(path: Path) -> None:
        if path.name == "media":
            raise KeyboardInterrupt
        path.unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr("ffr.corpus.forgetting.remove", stopped)
        with pytest.raises(KeyboardInterrupt):
            forget_store(folder)
    forget_store(folder)
    assert not folder.exists()
    with pytest.raises(UsageError, match="is no store of chats"):
        forget_store(folder)
