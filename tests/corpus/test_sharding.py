"""Vectors made apart and merged are, byte by byte, what one machine makes."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from chat_builds import Letters, add, no_bar, said, stored_encoder
from encoder_builds import build_sentence_encoder
from torch import Tensor

from ffr.corpus import ray_embedding, sharding
from ffr.corpus.indexing import index_store
from ffr.corpus.ray_embedding import embed_by_ray
from ffr.corpus.shard_files import Shard, shard_files
from ffr.corpus.sharding import embed_shard, merge_shards, patiently
from ffr.corpus.store import Store
from ffr.corpus.vectors import StoredEncoder
from ffr.embedding.loading import load_encoder
from ffr.errors import DataError, InUseError, UsageError

NUM_LINES = 700


class Neighbours(Letters):
    """Its vectors hang on what else is encoded, as those of a padded batch do."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return super().embed_texts(texts) + 1e-7 * len(texts)


def _chat(folder: Path) -> Store:
    store = Store(folder, is_new_allowed=True)
    words = random.Random(0)
    lines = [
        said(
            "Ann", " ".join(words.choices("abcdefgh", k=words.randint(1, 9))) + str(number), number
        )
        for number in range(NUM_LINES)
    ]
    add(store, tuple(lines))
    return store


def _matrix(folder: Path) -> bytes:
    (path,) = folder.glob("vectors-*.f32")
    return path.read_bytes()


def _one_machine(folder: Path, encoder: Letters) -> bytes:
    with _chat(folder) as store:
        index_store(store, [1], stored_encoder(store, encoder), None, say=print, bar=no_bar)
    return _matrix(folder)


def _embed(store: Store, shard: Shard, folder: Path, encoder: Letters | None = None) -> int:
    found = stored_encoder(store, encoder or Neighbours())
    return embed_shard(store, [1], found, None, shard, folder, say=print, bar=no_bar)


def _merge(store: Store, *paths: Path) -> int:
    encoder = stored_encoder(store, Neighbours())
    return merge_shards(store, encoder, None, paths, say=print, bar=no_bar)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "_TEXTS_OF_A_FILE", 100)
    monkeypatch.setattr(sharding, "_ROWS_AT_ONCE", 64)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("num_shards", [1, 2, 5])
def test_merged_shards_are_what_one_machine_makes(tmp_path: Path, num_shards: int) -> None:
    alone = _one_machine(tmp_path / "alone", Neighbours())
    files = tmp_path / "files"
    num_made = 0
    for number in range(1, num_shards + 1):
        # each on a machine of its own, that has read the chat itself
        with _chat(tmp_path / f"machine {number}") as store:
            num_made += _embed(store, Shard(number, num_shards), files)
            assert store.rows("SELECT * FROM vectors") == []
    assert num_made == NUM_LINES
    with _chat(tmp_path / "merged") as store:
        assert _merge(store, files) == NUM_LINES
        assert _merge(store, files) == 0
        # nothing is left to do
        encoder = stored_encoder(store, letters := Letters())
        index_store(store, [1], encoder, None, say=print, bar=no_bar)
        assert letters.asked == []
    assert _matrix(tmp_path / "merged") == alone


@pytest.mark.usefixtures("small_files")
def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    with _chat(tmp_path / "s") as store:
        made = [_embed(store, Shard(number, 4), tmp_path / str(number)) for number in (1, 2, 4)]
        left = NUM_LINES - sum(made)
        with pytest.raises(
            DataError, match=rf"{left} texts of 700 have no vector .* shard 3/4 \({left}\);"
        ):
            _merge(store, *(tmp_path / str(number) for number in (1, 2, 4)))
        assert store.rows("SELECT * FROM vectors") == []
        # another number of shards fills the gap too
        with pytest.raises(DataError, match="shard 3/4"):
            _merge(store, tmp_path / "1", tmp_path / "2", tmp_path / "4")
        for number in (1, 2, 3):
            _embed(store, Shard(number, 3), tmp_path / "anew")
        _merge(store, tmp_path / "1", tmp_path / "anew")
    assert _matrix(tmp_path / "s") == _one_machine(tmp_path / "alone", Neighbours())


def test_no_file_is_no_merge(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with _chat(tmp_path / "s") as store:
        with pytest.raises(DataError, match="no file of vectors is there"):
            _merge(store, tmp_path / "empty")
        with pytest.raises(DataError, match="is not there"):
            _merge(store, tmp_path / "nowhere")


def test_vectors_of_another_encoder_are_refused(tmp_path: Path) -> None:
    class Others(Letters):
        weights_digest = "others"

    with _chat(tmp_path / "s") as store:
        others = StoredEncoder(
            store, Others, name="others", weights_digest="others", line_prefix="p: "
        )
        embed_shard(store, [1], others, None, Shard(1, 1), tmp_path / "f", say=print, bar=no_bar)
        with pytest.raises(DataError, match="holds vectors of another encoder"):
            _merge(store, tmp_path / "f")
        # and are not taken for those of this one
        assert _embed(store, Shard(1, 1), tmp_path / "f") == NUM_LINES


def test_machines_that_do_not_compute_alike_are_told(tmp_path: Path) -> None:
    class Otherwise(Letters):
        def embed_texts(self, texts: Sequence[str]) -> Tensor:
            return super().embed_texts(texts) * 0.99

    with _chat(tmp_path / "s") as store:
        _embed(store, Shard(1, 1), tmp_path / "one")
        _embed(store, Shard(1, 2), tmp_path / "two", Otherwise())
        with pytest.raises(DataError, match="made on machines that do not compute alike"):
            _merge(store, tmp_path / "one", tmp_path / "two")
        # the same file under two names is one
        _merge(store, tmp_path / "one", *(file.path for file in shard_files([tmp_path / "one"])))


_KILLED = """
import os, signal, sys
from pathlib import Path
from chat_builds import no_bar, stored_encoder
from corpus_sharding import Neighbours, sharding
from ffr.corpus.shard_files import Shard
from ffr.corpus.store import Store

sharding._TEXTS_OF_A_FILE = 100

class Killed(Neighbours):
    def embed_texts(self, texts):
        if len(self.asked) > int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().embed_texts(texts)

with Store(Path(sys.argv[1])) as store:
    sharding.embed_shard(
        store, [1], stored_encoder(store, Killed()), None, Shard(1, 1), Path(sys.argv[2]),
        say=print, bar=no_bar,
    )
"""


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("after", [1, 530])
def test_a_shard_that_was_killed_goes_on_where_it_was(tmp_path: Path, after: int) -> None:
    here = Path(__file__).resolve()
    (tmp_path / "corpus_sharding.py").write_bytes(here.read_bytes())
    path = os.pathsep.join([str(tmp_path), str(here.parent.parent)])
    _chat(tmp_path / "s").close()
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "s"), str(tmp_path / "f"), str(after)],
        capture_output=True, text=True, check=False, env={"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = len(list((tmp_path / "f").glob("*.safetensors"))) if (tmp_path / "f").exists() else 0
    assert kept == (2 if after > 512 else 0)
    with Store(tmp_path / "s") as store:
        assert _embed(store, Shard(1, 1), tmp_path / "f") == NUM_LINES - 256 * kept
        _merge(store, tmp_path / "f")
    assert _matrix(tmp_path / "s") == _one_machine(tmp_path / "alone", Neighbours())


def test_a_merge_that_was_broken_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "_ROWS_AT_ONCE", 64)
    left = [3]

    def broken(self: object, *given: object) -> Tensor:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return rows(self, *given)  # type: ignore[arg-type]

    rows = sharding._Table.rows
    with _chat(tmp_path / "s") as store:
        _embed(store, Shard(1, 1), tmp_path / "f")
        monkeypatch.setattr(sharding._Table, "rows", broken)
        with pytest.raises(KeyboardInterrupt):
            _merge(store, tmp_path / "f")
        assert len(store.rows("SELECT * FROM vectors")) == 128
        monkeypatch.undo()
        assert _merge(store, tmp_path / "f") == NUM_LINES - 128
    assert _matrix(tmp_path / "s") == _one_machine(tmp_path / "alone", Neighbours())


def test_who_comes_second_waits(tmp_path: Path) -> None:
    told: list[str] = []
    with _chat(tmp_path / "s") as one, Store(tmp_path / "s") as other:
        with one.writing():
            waiting = threading.Timer(0.2, lambda: None)
            waiting.start()
            calls = []

            def work() -> str:
                calls.append(len(told))
                if waiting.is_alive():
                    with other.writing():
                        raise AssertionError
                return "done"

            assert patiently(work, told.append) == "done"
        assert calls[0] == 0
        assert told[0].endswith("waiting for it")
        assert len(told) == 1
    with pytest.raises(UsageError, match="else"):
        patiently(_wrong, told.append)
    assert issubclass(InUseError, UsageError)


def _wrong() -> None:
    raise UsageError("else")


def _tiny(store: Store, folder: Path) -> StoredEncoder:
    encoder = load_encoder(folder)
    return StoredEncoder(
        store,
        lambda: encoder,
        name=str(folder),
        weights_digest=encoder.weights_digest,
        line_prefix="passage: ",
    )


@pytest.mark.slow
def test_a_ray_worker_that_is_killed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    monkeypatch.setattr(ray_embedding, "_TEXTS_OF_A_BLOCK", 20)
    folder = build_sentence_encoder("bert", tmp_path / "bert")
    torch.set_num_threads(1)
    with _chat(tmp_path / "alone") as store:
        index_store(store, [1], _tiny(store, folder), None, say=print, bar=no_bar)
    # of two workers one is killed as soon as both are there
    killed: list[int] = []
    init = ray.init
    monkeypatch.setattr(ray, "init", lambda **given: init(**(given | {"num_cpus": 2})))

    def kill() -> None:
        while not killed:
            time.sleep(0.1)
            # those that this very process had started
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "_Embedder" in " ".join(child.cmdline()):
                        child.kill()
                        killed.append(child.pid)
                        return

    with _chat(tmp_path / "s") as store:
        killing = threading.Thread(target=kill, daemon=True)
        killing.start()
        encoder = _tiny(store, folder)
        num_made = embed_by_ray(
            store, [1], encoder, None, "local", tmp_path / "f", say=print, bar=no_bar
        )
        killing.join(timeout=60)
        assert num_made == NUM_LINES
        merge_shards(store, encoder, None, [tmp_path / "f"], say=print, bar=no_bar)
    assert len(killed) == 1
    assert _matrix(tmp_path / "s") == _matrix(tmp_path / "alone")


def _ffr(*words: object, before: Sequence[str] = ()) -> str:
    """What a command prints, in a process of its own."""
    script = [sys.executable, "-m", "ffr.cli.main", *map(str, words)]
    done = subprocess.run([*before, *script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_of_torchrun_make_what_one_makes(tmp_path: Path) -> None:
    chat = tmp_path / "WhatsApp Chat with Trip.txt"
    draw = random.Random(1)
    chat.write_text(
        "".join(
            f"{1 + number // 60:02}/06/2023, {8 + number % 60 // 6:02}:{number % 6}0 - "
            f"{'Ann' if number % 3 else 'Bob'}: "
            f"{' '.join(draw.choices(['lake', 'boat', 'train', 'cake', '公园'], k=3))} {number}\n"
            for number in range(300)
        )
    )
    encoder = build_sentence_encoder("bert", tmp_path / "bert")
    how = ["--encoder", encoder, "--model", "none"]
    _ffr("index", "add", chat, "--index", tmp_path / "alone", *how)
    files = tmp_path / "files"
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python",
        "--nproc-per-node", "2",
    ]  # fmt: skip
    said_by_both = _ffr(
        "index", "add", chat, "--index", tmp_path / "shared", *how, "--shard", "auto",
        "--shards", files, before=torchrun,
    )  # fmt: skip
    made = re.findall(r"shard (\d/2): (\d+) vectors made", said_by_both)
    assert sorted(shard for shard, _ in made) == ["1/2", "2/2"]
    assert sum(int(number) for _, number in made) == 300
    assert all(int(number) > 0 for _, number in made)
    merged = _ffr("index", "merge", files, "--index", tmp_path / "shared", *how)
    assert merged.startswith("300 vectors merged")
    # the vectors of segments are made here, as without shards
    _ffr("index", "add", "--index", tmp_path / "shared", *how)
    assert _matrix(tmp_path / "shared") == _matrix(tmp_path / "alone")
