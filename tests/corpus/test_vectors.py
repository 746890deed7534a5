"""Vectors on disk: each text once, to the bit, and whole after any end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chat_builds import Letters, add, no_bar, said, stored_encoder

from ffr.corpus.adding import text_key
from ffr.corpus.forgetting import forget_chats, forget_store, size_of
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.errors import DataError, ModelError, UsageError


def _indexed(store: Store, letters: Letters) -> StoredEncoder:
    encoder = stored_encoder(store, letters)
    ids = [chat.id for chat in store.chats()]
    index_store(store, ids, encoder, None, say=print, bar=no_bar)
    return encoder


def test_vectors_are_those_of_the_encoder(tmp_path: Path) -> None:
    letters = Letters()
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        _indexed(store, letters)
        num_asked = len(letters.asked)
        fresh = stored_encoder(store, letters)
        texts = ["p: no dentist today", "p: I found a flat in Alfama", "p: no dentist today"]
        found = fresh.embed_texts(texts)
        assert len(letters.asked) == num_asked
        assert torch.equal(found, Letters().embed_texts(texts))
        assert torch.equal(fresh.embed_texts(["q: else"]), Letters().embed_texts(["q: else"]))
        assert fresh.embed_texts([]).shape == (0, 64)


def test_a_text_has_one_row_however_often_it_is_said(tmp_path: Path) -> None:
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, tuple(said("Ann", "ok", number) for number in range(9)))
        encoder = _indexed(store, Letters())
        assert encoder.vectors.matrix().shape == (1, 64)


def test_rows_that_were_written_but_not_told_are_written_over(tmp_path: Path) -> None:
    letters = Letters()
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        encoder = _indexed(store, letters)
        (path,) = (tmp_path / "s").glob("vectors-*.f32")
        whole = path.read_bytes()
        path.write_bytes(whole + b"half a row of a process that was killed")
        add(store, (said("Zoe", "later"),), "other")
        encoder = _indexed(store, letters)
        assert torch.equal(encoder.embed_texts(["p: later"]), Letters().embed_texts(["p: later"]))
        assert path.stat().st_size == len(whole) + 64 * 4
        path.write_bytes(whole[:10])
        with pytest.raises(DataError, match="is shorter than the store says"):
            _ = stored_encoder(store, letters).vectors


def test_vectors_of_two_encoders_never_meet(tmp_path: Path) -> None:
    class Others(Letters):
        weights_digest = "others"

    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        _indexed(store, Letters())
        with pytest.raises(ModelError, match="has other weights"):
            _ = stored_encoder(store, Others()).encoder


def test_what_is_forgotten_is_gone_from_the_disk(tmp_path: Path) -> None:
    secret = "the 密码 is xylophone"
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, (said("Mallory", secret), said("Ann", "kept")), "secret")
        add(store, (said("Ann", "kept"), said("Ann", "too", 1)), "plain", source=tmp_path / "b")
        letters = Letters()
        _indexed(store, letters)
        forget_chats(store, [1])
        assert [chat.title for chat in store.chats()] == ["plain"]
        assert store.rows("SELECT rowid FROM words WHERE words MATCH 'xylophone'") == []
        # what another chat still says keeps its vector, at its new place
        before = len(letters.asked)
        encoder = _indexed(store, letters)
        assert len(letters.asked) == before
        assert torch.equal(encoder.embed_texts(["p: kept"]), Letters().embed_texts(["p: kept"]))
        # of its two lines and of the segment that they are
        assert len(encoder.vectors.matrix()) == 3
        assert size_of(store) > 0
        vector = Letters().embed_texts([f"p: {secret}"]).numpy().tobytes()
        left = b"".join(path.read_bytes() for path in sorted((tmp_path / "s").iterdir()))
    for trace in (b"xylophone", "密码".encode(), b"Mallory", vector, text_key(secret)):
        assert trace not in left
    forget_store(tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(UsageError, match="is no store of chats, so nothing was deleted"):
        forget_store(tmp_path)


def test_an_encoder_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    class Broken(Letters):
        def embed_texts(self, texts):  # type: ignore[no-untyped-def]
            return super().embed_texts(texts) * float("nan")

    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store)
        with pytest.raises(DataError, match="not finite for the line "):
            _indexed(store, Broken())
