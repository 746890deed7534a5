"""What is missing is made once, and whoever is stopped goes on where they were."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import PIL.Image
import pytest
import torch
from chat_builds import Letters, add, no_bar, said, stored_encoder

from ffr.chats.chat import Media
from ffr.corpus import indexing
from ffr.corpus.indexing import embedded_batches, index_store
from ffr.corpus.pictures import lay_out_pictures
from ffr.corpus.store import Store

NUM_LINES = 700


def _messages(folder: Path) -> None:
    with Store(folder, is_new_allowed=True) as store:
        add(store, tuple(said("Ann", f"line {number} " * 3, number) for number in range(NUM_LINES)))


_KILLED = """
import os, signal, sys
from pathlib import Path
from chat_builds import Letters, no_bar, stored_encoder
from ffr.corpus.indexing import index_store
from ffr.corpus.store import Store

# whoever began the tests may have had it ignored
signal.signal(signal.SIGINT, signal.default_int_handler)

class Killed(Letters):
    def embed_texts(self, texts):
        if len(self.asked) > int(sys.argv[2]):
            os.kill(os.getpid(), getattr(signal, sys.argv[3]))
        return super().embed_texts(texts)

with Store(Path(sys.argv[1])) as store:
    index_store(store, [1], stored_encoder(store, Killed()), None, say=print, bar=no_bar)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize("after", [1, 520])
def test_what_is_done_is_kept(tmp_path: Path, name: str, after: int) -> None:
    folder = tmp_path / "s"
    _messages(folder)
    here = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(folder), str(after), name],
        capture_output=True, text=True, check=False, cwd=here, env={"PYTHONPATH": here},
    )  # fmt: skip
    assert done.returncode in (-getattr(signal, name), 1), done.stderr
    letters = Letters()
    with Store(folder) as store:
        kept = len(store.rows("SELECT 1 FROM vectors"))
        encoder = stored_encoder(store, letters)
        index_store(store, [1], encoder, None, say=print, bar=no_bar)
        made = [text for text in letters.asked if text != "a" and "\n" not in text]
        # whole batches are kept, and none is made twice
        assert kept % 256 == 0
        assert kept >= min(after, 256) // 256 * 256
        assert len(made) == len(set(made)) == NUM_LINES - kept
        texts = [f"p: {('line ' + str(number) + ' ') * 3}".strip() for number in range(NUM_LINES)]
        assert torch.equal(encoder.embed_texts(texts), Letters().embed_texts(texts))


@pytest.mark.parametrize(
    ("num_lines", "said_of_it"),
    # three batches; the second took ten seconds, and two of 444 lines are left
    [(22, []), (NUM_LINES, ["Indexing 700 new lines, once: about 17 seconds; Ctrl-C keeps what is done"])],
)  # fmt: skip
def test_only_what_is_left_is_said_to_take_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_lines: int, said_of_it: list[str]
) -> None:
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(indexing, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    waiting = {b"%d" % number: f"line {number}" for number in range(num_lines)}
    heard: list[str] = []
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        made = list(embedded_batches(stored_encoder(store), waiting, heard.append, no_bar))
    assert sum(len(keys) for keys, _ in made) == num_lines
    assert heard == said_of_it


def test_where_nothing_is_missing_nobody_stands_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    _messages(folder)
    with Store(folder) as store, Store(folder) as other:
        index_store(store, [1], stored_encoder(store), None, say=print, bar=no_bar)
        with other.writing():
            index_store(store, [1], stored_encoder(store), None, say=print, bar=no_bar)


def test_a_picture_that_cannot_be_read_is_counted_once(tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    PIL.Image.new("RGB", (4, 4)).save(export / "here.png")
    lines: list[str] = []
    with Store(tmp_path / "s", is_new_allowed=True) as store:
        pictures = [Media("picture", name, name) for name in ("here.png", "gone.png")]
        messages = tuple(said("Ann", "", number, item) for number, item in enumerate(pictures))
        add(store, messages, source=export)
        for _ in range(2):
            index_store(store, [1], None, None, say=lines.append, bar=no_bar)
        shown = [line.pictures for line in store.lines(1, 0, 2)]
        assert shown == [(str(export / "here.png"),), (None,)]
        assert lay_out_pictures(store) == []
    assert len(lines) == 1
    assert lines[0].startswith("1 picture cannot be read, the first is ")
    assert "gone.png: cannot be read" in lines[0]


def test_who_writes_does_not_stand_in_the_way_of_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    store = Store(tmp_path / "s", is_new_allowed=True)
    add(store, [said("Zoe", f"line {number}", number) for number in range(40)])
    encoder = stored_encoder(store)
    index_store(store, [1], encoder, None, say=print, bar=no_bar)
    monkeypatch.setattr("ffr.corpus.nearest.EXACT_ROWS", 2)
    told: list[str] = []
    with Store(tmp_path / "s") as other, other.writing():
        index_store(store, [1], encoder, None, say=told.append, bar=no_bar)
    assert told[0].endswith("; every vector is compared")
    index_store(store, [1], encoder, None, say=told.append, bar=no_bar)
    assert len(told) == 1
    assert [path.suffix for path in (tmp_path / "s").glob("vectors-*.faiss")] == [".faiss"]
    monkeypatch.setattr("ffr.corpus.indexing.faiss_if_installed", lambda: None)
    (path,) = (tmp_path / "s").glob("vectors-*.faiss")
    path.unlink()
    index_store(store, [1], encoder, None, say=told.append, bar=no_bar)
    assert "each is compared with a question; pip install 'ffr-vlm[faiss]'" in told[1]
    store.close()
