"""An encoder that is trained: queries come closer to their fragments, and a run goes on to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ffr.data.catalog import load_dataset
from ffr.embedding import load_encoder, load_sentence_encoder
from ffr.embedding.prefixes import Prefixes
from ffr.encoders import open_encoder
from ffr.errors import DataError, UsageError
from ffr.reader.background_file import read_background
from ffr.reader.query import plain_words
from ffr.run_log import read_metrics
from ffr.run_summary import summary_of
from ffr.runs import RunRecord
from ffr.settings import EmbeddingConfig
from ffr.training.common.stage import Job
from ffr.training.embedding.following import newest_checkpoint
from ffr.training.embedding.pairs import pairs_of
from ffr.training.embedding.run import describe, train

pytest.importorskip("sentence_transformers", reason="the extra `embedding` is not installed")


def _config(data: Path, bert: Path, **further: object) -> EmbeddingConfig:
    given: dict[str, object] = {
        "model": str(bert),
        "dataset": str(data / "train.jsonl"),
        "val_dataset": str(data / "val.jsonl"),
        "batch_size": 8,
        "learning_rate": 3e-3,
        "max_steps": 24,
        "hard_negatives": 2,
        "checkpoint_every_steps": 4,
        "accelerator": "cpu",
        **further,
    }
    return EmbeddingConfig(**given)


def _train(config: EmbeddingConfig, run: Path, *, resume: bool = False) -> list[str]:
    said: list[str] = []
    train(config, Job(run=run, say=said.append, progress=False, resume=resume))
    return said


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path, bert: Path) -> Path:
    found = tmp_path_factory.mktemp("runs") / "run"
    _train(_config(data, bert), found)
    return found


def _share_behind(folder: Path, data: Path) -> float:
    """The share of others that lie further from a query than its fragment does."""
    pairs = pairs_of(load_dataset(data / "train.jsonl"), 2, 0)
    encoder = load_encoder(folder)
    queries, own = encoder.embed_texts(pairs.queries), encoder.embed_texts(pairs.positives)
    own_cosines = (queries * own).sum(-1)
    further = [
        own_cosines > (queries * encoder.embed_texts(list(row))).sum(-1)
        for row in zip(*pairs.negatives, strict=True)
    ]
    return float(torch.stack(further).float().mean())


def test_the_loss_falls_and_fragments_come_closer(run: Path, data: Path, bert: Path) -> None:
    rows = read_metrics(run / "metrics.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 25))
    losses = [row["loss"] for row in rows]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    assert [int(row["step"]) for row in rows if "val_loss" in row] == [6, 12, 18, 24]
    assert _share_behind(run / "encoder", data) > _share_behind(bert, data) + 0.05


def test_the_run_is_one_as_others_are(run: Path, data: Path) -> None:
    record = RunRecord.load(run)
    assert (record.stage, record.status, record.seed) == ("embedding", "finished", 0)
    assert record.data_fingerprint == load_dataset(data / "train.jsonl").fingerprint
    seen = summary_of(run)
    assert (seen.status, seen.step, seen.has_checkpoint, seen.leaves_nothing) == (
        "finished", 24, True, False
    )  # fmt: skip
    card = (run / "encoder" / "README.md").read_text()
    assert "InfoNCE at temperature 0.05" in card
    assert record.data_fingerprint[:16] in card
    assert str(data) not in card


def test_the_encoder_is_the_librarys_too(run: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["the bus is late", "茶"]
    theirs = SentenceTransformer(str(run / "encoder"), device="cpu").encode(
        texts, convert_to_tensor=True
    )
    ours = open_encoder(run / "encoder")
    torch.testing.assert_close(ours.embed_texts(texts), theirs, atol=1e-5, rtol=0)
    # a run is named as well
    assert torch.equal(open_encoder(run).embed_texts(texts), ours.embed_texts(texts))


def test_prompts_of_the_start_are_trained_with_and_kept(
    run: Path, data: Path, bert: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    start = Path(shutil.copytree(bert, tmp_path / "start"))
    prompts = {"query": "query: ", "document": "passage: "}
    (start / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    made = tmp_path / "made"
    _train(_config(data, start, max_steps=2), made)
    losses = [read_metrics(folder / "metrics.csv")[0]["loss"] for folder in (run, made)]
    assert losses[0] != losses[1]
    theirs = SentenceTransformer(str(made / "encoder"), device="cpu")
    assert theirs.prompts == prompts
    ours = load_sentence_encoder(made / "encoder")
    assert ours.prefixes == Prefixes("passage: ", "query: ")
    torch.testing.assert_close(
        ours.embed_texts(ours.prefixes.of_queries(["a tram"])),
        theirs.encode_query(["a tram"], convert_to_tensor=True),
        atol=1e-5,
        rtol=0,
    )
    assert "`query: ` stands before queries and `passage: ` before lines" in (
        made / "encoder" / "README.md"
    ).read_text(encoding="utf-8")
    # a run is what a training may start from, its prompts with it
    further = tmp_path / "further"
    _train(_config(data, made, max_steps=1), further)
    assert load_sentence_encoder(further / "encoder").prefixes == ours.prefixes


def test_what_is_usual_to_it_lies_beside_its_weights(run: Path, data: Path) -> None:
    encoder = load_sentence_encoder(run / "encoder")
    background = read_background(run / "encoder", encoder.weights_digest)
    assert background is not None
    queries = {example.query for example in load_dataset(data / "train.jsonl")}
    known = encoder.embed_texts([plain_words(query) for query in sorted(queries)])
    cosines = background.queries.flatten(0, 1) @ known.T
    assert float(cosines.max(-1).values.min()) > 0.999
    assert float(background.lines.mean(1).norm(dim=-1).max()) < 0.999


def test_nothing_of_the_librarys_own_is_shown(
    data: Path, bert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _train(_config(data, bert, max_steps=1), tmp_path / "run")
    assert capfd.readouterr().err == ""


_STOPPED = """
import os, signal, sys
from pathlib import Path
from ffr.settings import load_config, EmbeddingConfig
from ffr.training.common.stage import Job
from ffr.training.embedding.run import train

def say(text):
    print(text, flush=True)
    if text.startswith("step 12/"):
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))

config = load_config(EmbeddingConfig, source=sys.argv[1])
train(config, Job(run=Path(sys.argv[2]), say=say, progress=False))
"""


@pytest.mark.parametrize("name", [pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGKILL"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    run: Path, data: Path, bert: Path, tmp_path: Path, name: str
) -> None:
    stopped = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED, str(run / "config.yaml"), str(stopped), name],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == (-signal.SIGKILL if name == "SIGKILL" else 0), done.stderr
    said = _train(_config(data, bert), stopped, resume=True)
    assert any("going on after step" in line for line in said)
    for file in ("model.safetensors",):
        one, other = load_file(run / "encoder" / file), load_file(stopped / "encoder" / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert read_metrics(stopped / "metrics.csv") == read_metrics(run / "metrics.csv")


def test_a_torn_checkpoint_is_passed_over(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(run / "checkpoints", folder)
    assert newest_checkpoint(folder, print)[1] == 24
    (folder / "checkpoint-24" / "model.safetensors").write_bytes(b"torn")
    said: list[str] = []
    assert newest_checkpoint(folder, said.append)[1] == 20
    assert "torn or changed" in said[0]
    assert not (folder / "checkpoint-24").exists()


def test_another_seed_is_another_encoder(run: Path, data: Path, bert: Path, tmp_path: Path) -> None:
    _train(_config(data, bert, seed=1, max_steps=2, val_dataset=None), tmp_path / "run")
    one = load_file(run / "encoder" / "model.safetensors")
    other = load_file(tmp_path / "run" / "encoder" / "model.safetensors")
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_passes_of_few_texts_are_the_same_loss(data: Path, bert: Path, tmp_path: Path) -> None:
    # without dropout, which is drawn otherwise
    even = tmp_path / "even"
    shutil.copytree(bert, even)
    config = json.loads((even / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (even / "config.json").write_text(json.dumps(config))
    _train(_config(data, even, max_steps=1, val_dataset=None), tmp_path / "whole")
    _train(_config(data, even, max_steps=1, val_dataset=None, pass_texts=3), tmp_path / "parts")
    whole, parts = (
        read_metrics(tmp_path / name / "metrics.csv")[0]["loss"] for name in ("whole", "parts")
    )
    assert parts == pytest.approx(whole, rel=1e-4)


def test_what_cannot_be_trained_is_said_before(data: Path, bert: Path, tmp_path: Path) -> None:
    said: list[str] = []
    describe(_config(data, bert), Job(say=said.append, progress=False))
    assert any(line.startswith("Would train ") for line in said)
    with pytest.raises(UsageError, match="no sentence encoder that can be trained"):
        describe(_config(data, bert, model="tiny-clip"), Job(say=print))
    one = tmp_path / "one.jsonl"
    one.write_bytes((data / "train.jsonl").read_bytes().splitlines(keepends=True)[0])
    with pytest.raises((DataError, UsageError)):
        describe(_config(data, bert, dataset=str(one), image_root=str(data)), Job(say=print))
    with pytest.raises(UsageError, match="setting devices"):
        _config(data, bert, devices=2)
