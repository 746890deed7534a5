"""What pictures show and the text in them, kept by their bytes and found by their words."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
from chat_builds import add, no_bar, said, stored_encoder

from ffr.chats.chat import Media
from ffr.corpus.archive import Archive
from ffr.corpus.candidates import candidates
from ffr.corpus.filters import Filters
from ffr.corpus.forgetting import forget_chats
from ffr.corpus.indexing import index_store
from ffr.corpus.pictures import StoredTagger
from ffr.corpus.store import Store
from ffr.retrieval.lexical import BaselineRetriever


class Looker(StoredTagger):
    """Says of a red picture that it is a ticket; counts what it looked at."""

    digest = "looker"  # type: ignore[assignment]
    num_looked = 0

    def look(self, location):  # type: ignore[no-untyped-def]
        self.num_looked += 1
        is_red = PIL.Image.open(location).convert("RGB").getpixel((0, 0)) == (255, 0, 0)
        return ("a photo of a ticket: Gleis 9", "Gleis 9") if is_red else ("a photo of a cat", "")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("copy.png", "red")):
        PIL.Image.new("RGB", (8, 6), colour).save(folder / name)
    return folder


def test_text_in_a_picture_is_found(export: Path, tmp_path: Path) -> None:
    names = ("a.png", "b.png", "copy.png")
    messages = tuple(
        said("Ann", "", number * 999, Media("picture", name, name))
        for number, name in enumerate(names)
    )
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, messages, source=export)
        looker = Looker(store)
        index_store(store, [1], None, looker, say=print, bar=no_bar)
        # the copy has the same bytes
        assert looker.num_looked == 2
        paths = [str(export / name) for name in names]
        assert looker.words(paths) == [
            "a photo of a ticket: Gleis 9", "a photo of a cat", "a photo of a ticket: Gleis 9",
        ]  # fmt: skip
        assert looker.num_looked == 2
        archive = Archive(store, BaselineRetriever("nothing"), None, None)
        found = archive.ask("gleis 9")
        assert sorted(line.id for hit in found.hits for line in hit.lines) == [1, 3]
        assert archive.ask("ticket").hits == ()
        forget_chats(store, [1])
        assert store.rows("SELECT * FROM shown") == []
        assert store.rows("SELECT rowid FROM shown_words WHERE shown_words MATCH 'gleis'") == []


def test_the_words_of_another_looker_do_not_count(export: Path, tmp_path: Path) -> None:
    class Other(Looker):
        """Sees a dog in everything."""

        digest = "other"  # type: ignore[assignment]

        def look(self, location):  # type: ignore[no-untyped-def]
            return "a photo of a dog", ""

    with Store(tmp_path / "s", is_new_allowed=True) as store:
        add(store, (said("Ann", "", 0, Media("picture", "b.png", "b.png")),), source=export)
        encoder = stored_encoder(store)
        for looker in (Looker(store), Other(store)):
            index_store(store, [1], encoder, looker, say=print, bar=no_bar)
        for looker in ("looker", "other"):
            lines = candidates(store, Filters(), encoder.key, looker)
            # the message itself, which has no words, and its picture once
            assert (len(lines.lines), len(lines.pictures)) == (1, 1)
        assert len(candidates(store, Filters(), encoder.key, None).pictures) == 0
