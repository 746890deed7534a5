"""A training from settings to a run folder: killed and resumed bit for bit, over two processes, and with every guard tripped."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from signalled import behind, run_signalled

from ffr.cli.main import ffr
from ffr.errors import DataError
from ffr.settings import SftConfig
from ffr.training.common.checkpoints import newest_checkpoint
from ffr.training.common.stage import Job, train
from ffr.training.sft.stage import SftStage

SMALL = {
    "max_steps": 6, "batch_size": 3, "accumulate": 2, "val_examples": 3, "val_every_steps": 3, "max_new_tokens": 12,
    "checkpoint_every_steps": 2, "lora_dropout": 0.1, "learning_rate": 1e-3, "num_threads": 1, "gradient_checkpointing": False,
}  # fmt: skip


def _options(**settings: object) -> list[str]:
    return [
        word for name, value in {**SMALL, **settings}.items() for word in ("-o", f"{name}={value}")
    ]


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "ffr.cli.main", "train", "sft", *words]


def _run(*words: str) -> Result:
    return CliRunner().invoke(ffr, ["train", "sft", *words], catch_exceptions=False)


def _rows(run: Path) -> list[dict[str, str]]:
    """The figures that must be the same to the last bit: all but speed and memory."""
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: row[name] for name in row if name not in ("tokens_per_second", "peak_memory_mb")}
        for row in rows
    ]


def _weights(run: Path) -> bytes:
    return (run / "merged" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, sample_home: Path) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    done = _run(*_options(), "--out", str(run))
    assert done.exit_code == 0, done.output
    assert "Training tiny on sample" in done.output.splitlines()[0]
    return run


def test_a_run_leaves_what_it_promises(whole_run: Path) -> None:
    for name in (
        "config.yaml",
        "metrics.csv",
        "curve.png",
        "adapter/adapter_model.safetensors",
        "merged/config.json",
    ):
        assert (whole_run / name).is_file(), name
    record = json.loads((whole_run / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "finished"
    assert record["seed"] == 0
    assert len(record["data_fingerprint"]) == 64
    assert "torch" in record["versions"]
    rows = _rows(whole_run)
    assert [row["step"] for row in rows] == list("123456")
    assert [bool(row["val_loss"]) for row in rows] == [False, False, True, False, False, True]
    assert list((whole_run / "tensorboard").glob("events.*"))


def test_the_merged_model_loads_with_plain_transformers(whole_run: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(whole_run / "merged")
    tokens = AutoTokenizer.from_pretrained(whole_run / "merged")
    assert model(**tokens("你好", return_tensors="pt")).logits.isfinite().all()


@pytest.mark.parametrize(
    ("number", "code", "last_step"),
    [
        # tests/training/sft/test_packing.py stops and resumes within one process
        pytest.param(signal.SIGKILL, -9, 2, id="SIGKILL", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 130, 3, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_is_the_same_to_the_bit(
    whole_run: Path, tmp_path: Path, number: signal.Signals, code: int, last_step: int
) -> None:
    """When the third step has its row and no checkpoint: a kill loses that step, a request to stop keeps it."""
    run = tmp_path / "run"
    third_row = behind("ffr.run_log:MetricsFile.append", 3)
    assert (
        run_signalled(["train", "sft", *_options(), "--out", str(run)], third_row, number) == code
    )
    assert [row["step"] for row in _rows(run)] == list("123")
    done = subprocess.run(
        _command("--resume", str(run)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"going on after step {last_step}" in done.stdout
    assert _rows(run) == _rows(whole_run)
    assert _weights(run) == _weights(whole_run)


def test_micro_batches_do_not_change_the_step(sample_home: Path, tmp_path: Path) -> None:
    """Six examples at once, or three times two: the same loss and gradient norm."""
    rows = {}
    for batch_size, accumulate in ((6, 1), (2, 3)):
        run = tmp_path / f"{batch_size}"
        settings = {
            **SMALL,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "max_steps": 2,
            "lora_dropout": 0.0,
        }
        train(
            SftStage(),
            SftConfig(**{**settings, "val_examples": 0}),
            Job(run=run, say=str, progress=False),
        )
        rows[batch_size] = [(float(row["loss"]), float(row["grad_norm"])) for row in _rows(run)]
    for one, other in zip(rows[6], rows[2], strict=True):
        assert one == pytest.approx(other, rel=2e-4)


@pytest.mark.slow
def test_two_processes_train_as_one(sample_home: Path, tmp_path: Path) -> None:
    """DDP over gloo: the same steps as one process with twice the accumulation."""
    settings = {
        "max_steps": 3,
        "lora_dropout": 0,
        "batch_size": 2,
        "val_every_steps": 3,
        "val_examples": 4,
    }
    alone, together = tmp_path / "alone", tmp_path / "together"
    one = subprocess.run(
        _command(*_options(**settings, accumulate=2), "--out", str(alone)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert one.returncode == 0, one.stderr
    two = subprocess.run(
        _command(
            *_options(**settings, accumulate=1, devices=2, strategy="ddp", accelerator="cpu"), "--out", str(together)
        ),
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    for row, other in zip(_rows(alone), _rows(together), strict=True):
        for name in ("loss", "grad_norm", "val_loss", "val_utterance_f1"):
            if row[name]:
                assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-3, abs=1e-6), (
                    name
                )


def test_cached_features_change_nothing(sample_home: Path, tmp_path: Path) -> None:
    runs = []
    for cache in (0, 64):
        run = tmp_path / str(cache)
        settings = {**SMALL, "feature_cache_mb": cache, "max_steps": 2, "val_examples": 0}
        train(SftStage(), SftConfig(**settings), Job(run=run, say=str, progress=False))
        runs.append(run)
    assert _rows(runs[0]) == _rows(runs[1])
    assert _weights(runs[0]) == _weights(runs[1])


def test_a_dry_run_writes_nothing(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _run("--dry-run", *_options())
    assert result.exit_code == 0, result.output
    assert "6 optimizer steps of up to 6 examples" in result.output
    assert "longest example" in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_a_wrong_call_says(sample_home: Path, tmp_path: Path, whole_run: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    for words, code, sentence in (
        (["--dataset", "sampel"], 2, "did you mean sample?"),
        (["--dataset", "mldr"], 2, "ffr data download mldr"),
        (["--model", "./nowhere"], 2, "no such model folder or run"),
        (["--out", str(full)], 2, "is not empty"),
        (["--resume", str(tmp_path / "none")], 2, "no such run folder"),
        (["--resume", str(full)], 1, "not the folder of a training run"),
        (["--resume", str(whole_run), "--seed", "1"], 2, "takes its settings from the run"),
        (["-o", "max_tokens=40"], 1, "more than the 40 allowed"),
    ):
        more = [] if {"--resume", "--out"} & set(words) else ["--out", str(tmp_path / "new")]
        result = CliRunner().invoke(ffr, ["train", "sft", *words, *more])
        assert result.exit_code == code, (words, result.output)
        assert sentence in result.output, (words, result.output)
        assert "Traceback" not in result.output
    finished = _run("--resume", str(whole_run))
    assert finished.exit_code == 0
    assert "nothing is left to train" in finished.output


def test_a_fault_in_mid_run_keeps_the_steps_done(sample_home: Path, tmp_path: Path) -> None:
    """A picture that vanishes: one sentence with its place, and a checkpoint of the steps before."""
    records = [
        json.loads(line)
        for line in (sample_home / "sample" / "train.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    with_pictures = [record for record in records if record["images"]][:12]
    data = tmp_path / "train.jsonl"
    root = tmp_path / "pictures"
    for number, record in enumerate(with_pictures):
        for source in record["images"]:
            target = root / str(number) / source
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((sample_home / "sample" / source).read_bytes())
        record["images"] = [f"{number}/{source}" for source in record["images"]]
    data.write_text(
        "".join(json.dumps(record) + "\n" for record in with_pictures), encoding="utf-8"
    )
    settings = {**SMALL, "dataset": str(data), "image_root": str(root), "max_steps": None, "batch_size": 1, "accumulate": 1,
                "num_workers": 0, "feature_cache_mb": 0, "checkpoint_every_steps": 100}  # fmt: skip
    run = tmp_path / "run"
    seen: list[str] = []

    def spoil(line: str) -> None:
        seen.append(line)
        if line.startswith("step 3/"):
            for path in root.rglob("*.png"):
                path.write_bytes(b"no picture")

    with pytest.raises(DataError, match=r"train\.jsonl:\d+"):
        train(SftStage(), SftConfig(**settings), Job(run=run, say=spoil, progress=False))
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "failed"
    assert newest_checkpoint(run / "checkpoints") == run / "checkpoints" / "step-00000003.ckpt"


@pytest.mark.parametrize("num_written", [0, 3])
def test_a_disk_that_is_full_for_tensorboard_is_one_sentence(
    sample_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_written: int
) -> None:
    """Its thread meets the fault, prints no traceback of its own, and the next figure tells."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    run, written, uncaught = tmp_path / "run", [], []

    def full(self: RecordWriter, data: bytes) -> None:
        written.append(data)
        if len(written) > num_written:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(threading, "excepthook", uncaught.append)
        patch.setattr(RecordWriter, "write", full)
        done = _run(*_options(max_steps=2), "--out", str(run))
    assert done.exit_code == 1
    assert "a file cannot be written or read (No space left on device)" in done.output
    assert uncaught == []


def test_all_weights_of_the_language_model_can_be_trained(
    sample_home: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settings = {**SMALL, "lora_rank": 0, "max_steps": 2, "val_examples": 0}
    train(SftStage(), SftConfig(**settings), Job(run=run, say=str, progress=False))
    assert not (run / "adapter").exists()
    assert (run / "merged" / "model.safetensors").is_file()
