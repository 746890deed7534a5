"""An archive that is recalled by an encoder of a name, its pictures among what has vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from chat_builds import add, no_bar, said, stored_encoder
from encoder_builds import build_sentence_encoder

from ffr.chats.chat import Media
from ffr.corpus.indexing import index_store
from ffr.corpus.likeness import num_compared
from ffr.corpus.opening import NO_MODEL, open_archive
from ffr.corpus.store import Store
from ffr.corpus.vectors import text_key
from ffr.corpus.verifying import compact_store, verify
from ffr.embedding import SentenceEncoder, load_sentence_encoder
from ffr.errors import DataError, ModelError, UsageError
from ffr.reader.background_file import BACKGROUND_FILE, read_background, write_background
from ffr.settings import AnswerConfig
from ffr.training.common.background import background_of


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


def _trained(folder: Path) -> SentenceEncoder:
    """A sentence encoder with prompts, and what is usual to it beside its weights."""
    build_sentence_encoder("bert", folder)
    prompts = {"query": "query: ", "document": "passage: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    encoder = load_sentence_encoder(folder)
    texts = (["a drummer", "a bus", "tea"], ["where is the bus", "who drinks"])
    background = background_of([texts], encoder, encoder.prefixes)
    write_background(folder, background, encoder.weights_digest)
    return encoder


def _scores(cosines: torch.Tensor, usual: torch.Tensor) -> list[float]:
    """Of dialogues of one line each: what they lack of several counts as the last line does."""
    num = num_compared("lines")
    lacking = (num - 1) * (cosines.min() - usual.mean())
    return ((cosines - usual + lacking) / num).tolist()


def test_a_trained_encoder_recalls_as_it_was_trained(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    encoder = _trained(folder)
    archive = _open(store, str(folder))
    assert archive.encoder is not None
    kept = archive.encoder.vectors.of([text_key(text) for text in ("a drummer", "a guitar")])
    assert np.array_equal(
        np.stack([kept[text_key(text)] for text in ("a drummer", "a guitar")]),
        encoder.embed_each(["passage: a drummer", "passage: a guitar"]).numpy(),
    )
    background = read_background(folder, encoder.weights_digest)
    assert background is not None
    query = background.across_dialogues(encoder.embed_texts(["query: guitar"]))
    usual = background.usual_queries
    found = archive.recall("the part about guitar", ways=["lines"])
    lines = encoder.embed_texts(["passage: a drummer", "passage: a guitar"])
    nearest = (lines @ usual.T).topk(min(3, len(usual))).values.mean(-1)
    expected = _scores(lines @ query[0], 0.5 * nearest)
    scores = {item.where[0]: item.traces["lines"].score for item in found}
    assert [scores[1], scores[2]] == pytest.approx(expected, abs=1e-5)
    # without the file a query is held against lines as it is
    (folder / BACKGROUND_FILE).unlink()
    plain = _open(store, str(folder)).recall("guitar", ways=["lines"])
    cosines = _scores(lines @ encoder.embed_texts(["query: guitar"])[0], torch.zeros(2))
    scores = {item.where[0]: item.traces["lines"].score for item in plain}
    assert [scores[1], scores[2]] == pytest.approx(cosines, abs=1e-5)


def test_what_is_usual_to_other_weights_is_refused(store: Store, tmp_path: Path) -> None:
    encoder = _trained(tmp_path / "encoder")
    background = read_background(tmp_path / "encoder", encoder.weights_digest)
    assert background is not None
    write_background(tmp_path / "encoder", background, "0" * 64)
    with pytest.raises(ModelError, match="was made by other weights than those beside it"):
        _open(store, str(tmp_path / "encoder"))


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
