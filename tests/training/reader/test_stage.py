"""A reader's training from settings to a run folder: killed and resumed bit for bit, trained further, and refused in a sentence."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from encoder_builds import build_sentence_encoder
from signalled import before, behind, run_signalled

from ffr.cli.main import ffr
from ffr.embedding import load_encoder
from ffr.reader.model import Reader

SMALL = {
    "max_steps": 6, "batch_size": 4, "accumulate": 2, "epochs": 2, "val_examples": 16, "val_every_steps": 3,
    "checkpoint_every_steps": 2, "width": 16, "num_heads": 2, "num_layers": 1, "dropout": 0.1, "rejoined": 0.5,
    "learning_rate": 3e-3, "num_threads": 1, "num_workers": 1,
}  # fmt: skip


def words_of(data: Path, bert: Path, **settings: object) -> list[str]:
    named = {"dataset": data / "train.jsonl", "val_dataset": data / "val.jsonl", "encoder": bert}
    return [
        word
        for name, value in {**named, **SMALL, **settings}.items()
        if value is not None
        for word in ("-o", f"{name}={value}")
    ]


def run(*words: object) -> Result:
    return CliRunner().invoke(ffr, ["train", "reader", *map(str, words)], catch_exceptions=False)


def rows(folder: Path) -> list[dict[str, str]]:
    """The figures that must be the same to the last bit: all but speed and memory."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [
            {name: row[name] for name in row if name not in ("tokens_per_second", "peak_memory_mb")}
            for row in csv.DictReader(file)
        ]


def weights(folder: Path) -> tuple[bytes, Any]:
    settings = json.loads((folder / "reader/reader.json").read_text(encoding="utf-8"))
    return (folder / "reader/reader.safetensors").read_bytes(), settings


@pytest.fixture(autouse=True, scope="module")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache of vectors and tables for all tests here, as a user has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFR_DATA_HOME", str(tmp_path_factory.mktemp("home") / "data"))
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, data: Path, bert: Path) -> Path:
    """A run that nothing disturbed, its vectors in a folder of its own."""
    folder = tmp_path_factory.mktemp("whole")
    cache = f"encoder_cache_dir={folder / 'vectors'}"
    done = run(*words_of(data, bert), "-o", cache, "--out", folder / "run")
    assert done.exit_code == 0, done.output
    assert "Training scratch on" in done.output.splitlines()[0]
    return folder / "run"


def test_a_run_leaves_what_it_promises(whole_run: Path) -> None:
    for name in (
        "config.yaml",
        "metrics.csv",
        "curve.png",
        "reader/reader.json",
        "reader/README.md",
    ):
        assert (whole_run / name).is_file(), name
    record = json.loads((whole_run / "run.json").read_text(encoding="utf-8"))
    assert (record["status"], record["stage"], record["model"]) == ("finished", "reader", "scratch")
    found = rows(whole_run)
    assert [row["step"] for row in found] == list("123456")
    assert [bool(row["val_loss"]) for row in found] == [False, False, True, False, False, True]
    assert all(
        0 <= float(found[5][f"val_{name}_f1"]) <= 1 for name in ("utterance", "image", "joint")
    )
    notes = weights(whole_run)[1]["notes"]
    assert notes["data_fingerprint"] == record["data_fingerprint"]
    assert (notes["stage"], notes["started_from"]) == ("reader", "scratch")
    card = (whole_run / "reader/README.md").read_text(encoding="utf-8")
    assert "| data | train.jsonl, 48 examples" in card
    assert str(whole_run) not in card


def test_its_probabilities_are_calibrated_on_the_validation_data(whole_run: Path) -> None:
    settings = weights(whole_run)[1]
    assert settings["scale"] != 1
    assert settings["nothing_scale"] != 1


def test_the_run_is_asked_wherever_a_model_is_named(whole_run: Path, data: Path) -> None:
    words = ["eval", "--model", whole_run, "--dataset", data / "val.jsonl", "--no-baselines"]
    done = CliRunner().invoke(ffr, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads((whole_run / "eval/val/results.json").read_text(encoding="utf-8"))
    assert found["model"]["fingerprint"] == Reader.load(whole_run / "reader").fingerprint


@pytest.mark.parametrize(
    ("number", "event", "last_step"),
    [
        (signal.SIGKILL, behind("ffr.run_log:MetricsFile.append", 3), 2),
        pytest.param(
            signal.SIGTERM, before("ffr.training.reader.module:ReaderModule.loss_of", 7), 4,
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_killed_and_resumed_is_the_same_to_the_bit(
    whole_run: Path,
    data: Path,
    bert: Path,
    tmp_path: Path,
    number: signal.Signals,
    event: Any,
    last_step: int,
) -> None:
    folder = tmp_path / "run"
    cache = f"encoder_cache_dir={tmp_path / 'vectors'}"
    words = ["train", "reader", *words_of(data, bert), "-o", cache, "--out", str(folder)]
    assert run_signalled(words, event, number) == (-9 if number == signal.SIGKILL else 130)
    done = run("--resume", folder)
    assert done.exit_code == 0, done.output
    assert f"going on after step {last_step}" in done.output
    assert rows(folder) == rows(whole_run)
    assert weights(folder) == weights(whole_run)


def test_a_dry_run_says_what_would_be_done_and_makes_no_vector(
    data: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffr.embedding.sentence import SentenceEncoder

    asked: list[int] = []
    embed = SentenceEncoder.embed_texts

    def counted(self: SentenceEncoder, texts: Any) -> torch.Tensor:
        asked.append(len(texts))
        return embed(self, texts)

    monkeypatch.setattr(SentenceEncoder, "embed_texts", counted)
    done = run(*words_of(data, bert), "--dry-run", "-o", f"encoder_cache_dir={tmp_path / 'none'}")
    assert done.exit_code == 0, done.output
    assert "24 new dialogues are made of fragments of several" in done.output
    assert "longest dialogue train.jsonl:1: 10 utterances and pictures" in done.output
    assert sum(asked) <= 1


def test_the_cut_of_a_step_does_not_matter(data: Path, bert: Path, tmp_path: Path) -> None:
    found = []
    for batch_size, accumulate in ((8, 1), (2, 4)):
        folder = tmp_path / str(batch_size)
        more = {"batch_size": batch_size, "accumulate": accumulate, "max_steps": 2, "jitter": 0}
        words = words_of(data, bert, dropout=0, val_examples=0, **more)
        assert run(*words, "--out", folder).exit_code == 0
        found.append([(float(row["loss"]), float(row["grad_norm"])) for row in rows(folder)])
    assert torch.allclose(torch.tensor(found[0]), torch.tensor(found[1]), rtol=1e-4)


def test_a_reader_is_trained_further(
    whole_run: Path, data: Path, bert: Path, tmp_path: Path
) -> None:
    sizes = {"width": None, "num_heads": None, "num_layers": None, "dropout": None}
    words = words_of(data, bert, **sizes, encoder=None, max_steps=1, learning_rate=1e-9, rejoined=0)
    words += ["-o", "picture_weight=0.7"]
    done = run("--from", whole_run, *words, "--out", tmp_path / "further")
    assert done.exit_code == 0, done.output
    begun, further = (Reader.load(path / "reader") for path in (whole_run, tmp_path / "further"))
    assert further.settings.shape == begun.settings.shape
    assert (begun.settings.picture_weight, further.settings.picture_weight) == (0.0, 0.7)
    for name, value in begun.networks[0].state_dict().items():
        assert torch.allclose(value, further.networks[0].state_dict()[name], atol=1e-6)
    assert torch.equal(begun.background.lines, further.background.lines)
    done = run("--from", whole_run, "-o", "width=32", "-o", f"dataset={data / 'train.jsonl'}")
    assert done.exit_code == 2
    assert "setting width: a reader that is trained further keeps its own" in done.output


def test_learning_pays(data: Path, bert: Path, tmp_path: Path) -> None:
    """The stretch of three around a line that is the query itself, or nothing."""
    more = {"max_steps": 60, "epochs": 20, "rejoined": 0, "val_every_steps": 60, "accumulate": 1}
    words = words_of(data, bert, **more, batch_size=16, learning_rate=1e-2, jitter=0.05)
    assert run(*words, "--out", tmp_path / "run").exit_code == 0
    found = rows(tmp_path / "run")
    losses = [float(row["loss"]) for row in found]
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])
    assert float(found[-1]["val_utterance_f1"]) > 0.6


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_units": 9}, "its dialogue has 10 utterances and pictures, more than the 9 allowed"),
        (
            {"rejoined": 0, "strange_pictures": 0.5},
            "setting strange_pictures: it says what new dialogues show, and none are made",
        ),
        ({"width": 17}, "setting width: width 17 is no multiple of 2 heads"),
        (
            {"encoder": "tiny-clip"},
            "setting encoder: tiny-clip is an encoder of texts and pictures",
        ),
        ({"model": "tiny"}, "tiny is no reader; name `reader`, a run of `ffr train reader`"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    data: Path, bert: Path, tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    sizes = ("width", "num_heads", "num_layers", "dropout") if "model" in settings else ()
    words = words_of(data, bert, **{**dict.fromkeys(sizes), **settings})
    done = run(*words, "--out", tmp_path / "run")
    assert done.exit_code in (1, 2)
    assert sentence in " ".join(done.output.split())
    assert not (tmp_path / "run").exists()


def test_another_encoder_is_refused(whole_run: Path, data: Path, tmp_path: Path) -> None:
    other = build_sentence_encoder("bert", tmp_path / "other", seed=1)
    assert load_encoder(other).weights_digest  # type: ignore[union-attr]
    done = run(
        "--from", whole_run, "-o", f"encoder={other}", "-o", f"dataset={data / 'train.jsonl'}"
    )
    assert done.exit_code == 1
    assert "which this reader was trained with" in " ".join(done.output.split())


def test_too_few_dialogues_to_rejoin(data: Path, bert: Path, tmp_path: Path) -> None:
    from ffr.data.dataset import open_dataset
    from ffr.data.forms.formats import write_examples

    few = tmp_path / "few.jsonl"
    write_examples(few, list(open_dataset(data / "train.jsonl"))[:8])
    done = run(
        *words_of(data, bert, dataset=few, image_root=data, val_dataset=None),
        "--out",
        tmp_path / "r",
    )
    assert done.exit_code == 2
    assert "the data has too few to make them of; set rejoined=0" in " ".join(done.output.split())


def test_without_pictures_in_fragments_none_can_be_strange(
    data: Path, bert: Path, tmp_path: Path
) -> None:
    from ffr.data.dataset import open_dataset
    from ffr.data.forms.formats import write_examples

    talks = open_dataset(data / "train.jsonl")
    plain = [talk for talk in talks if talk.fragment is not None and not talk.fragment.image_ids]
    write_examples(tmp_path / "plain.jsonl", plain)
    words = words_of(
        data, bert, dataset=tmp_path / "plain.jsonl", image_root=data, val_dataset=None
    )
    done = run(*words, "-o", "strange_pictures=0.5", "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert "no picture of the data's fragments has words" in " ".join(done.output.split())
