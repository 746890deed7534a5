"""An archive that is recalled by an encoder of a name, its pictures among what has vectors."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
from chat_builds import add, no_bar, said, stored_encoder

from ffr.chats.chat import Media
from ffr.corpus.indexing import index_store
from ffr.corpus.opening import NO_MODEL, open_archive
from ffr.corpus.store import Store
from ffr.corpus.verifying import compact_store, verify
from ffr.errors import DataError, UsageError
from ffr.settings import AnswerConfig


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setattr("ffr.corpus.pictures.installed_tagger", lambda: None)
    monkeypatch.setattr("ffr.corpus.pictures.OcrIfInstalled.digest", None)
    (tmp_path / "export.txt").write_text("as an app wrote it")
    PIL.Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    with Store(tmp_path / "s", is_new_allowed=True) as opened:
        for number, words in enumerate(("a drummer", "a guitar", "")):
            media = () if words else (Media("picture", "red.png", "red.png"),)
            message = said("Zoe", words, number, *media)
            add(opened, (message,), f"chat {number}", source=tmp_path / "export.txt")
        yield opened


def _open(store: Store, encoder: str, **more: bool):  # type: ignore[no-untyped-def]
    return open_archive(
        store, NO_MODEL, AnswerConfig(), encoder=encoder, say=print, bar=no_bar, **more
    )


def test_lines_and_pictures_themselves_are_found(store: Store) -> None:
    archive = _open(store, "tiny-clip")
    lines = archive.recall("a drummer", ways=["lines"])
    assert lines[0].where[0] == 1
    assert lines[0].traces["lines"].score > 0.5
    pictures = archive.recall("red", ways=["pictures"])
    assert [item.where[0] for item in pictures] == [3]
    # vectors of pictures are kept as long as their messages
    num_rows = store.rows("SELECT num_rows FROM matrices")[0][0]
    compact_store(store)
    assert store.rows("SELECT num_rows FROM matrices")[0][0] == num_rows == 3
    assert verify(store).faults == []


def test_an_encoder_without_vectors_is_refused(store: Store) -> None:
    # a store that has none at all is indexed as ever
    _open(store, "tiny-clip", has_vectors=True)
    store.database.execute("DELETE FROM vectors")
    store.database.execute("UPDATE matrices SET encoder = 'another'")
    with pytest.raises(UsageError, match="has no vectors of tiny-clip; make them with"):
        _open(store, "tiny-clip", has_vectors=True)


def test_a_vector_that_is_none_names_its_line(store: Store) -> None:
    encoder = stored_encoder(store)
    made = encoder.encoder.embed_texts

    def broken(texts):  # type: ignore[no-untyped-def]
        rows = made(texts)
        rows[[number for number, text in enumerate(texts) if "guitar" in text]] = float("nan")
        return rows

    encoder.encoder.embed_texts = broken  # type: ignore[method-assign]
    with pytest.raises(DataError, match="not finite for the line a guitar; try another encoder"):
        index_store(store, store.numbers(), encoder, None, say=print, bar=no_bar)


def test_a_question_is_answered_while_another_writes(store: Store, tmp_path: Path) -> None:
    archive = _open(store, "tiny-clip")
    with Store(tmp_path / "s") as other, other.writing(), other.database.whole():
        add_words = "INSERT INTO seen_weights VALUES ('x', 'y')"
        other.database.execute(add_words)
        assert archive.recall("a guitar", ways=["lines", "words"])[0].where[0] == 2
