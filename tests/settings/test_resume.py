"""A run goes on with other caches, to the bit, and with nothing else that is not its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ffr.cli.main import ffr
from ffr.settings import SftConfig
from ffr.training.common.stage import Job, train
from ffr.training.sft.stage import SftStage

SMALL = {
    "max_steps": 2, "batch_size": 2, "accumulate": 1, "val_examples": 0, "num_threads": 1,
    "checkpoint_every_steps": 1, "keep_checkpoints": 9, "gradient_checkpointing": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, sample_home: Path) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(SftStage(), SftConfig(**SMALL), Job(run=run, say=str, progress=False))
    return run


@pytest.fixture
def half(whole: Path, tmp_path: Path) -> Path:
    """The same run, stopped after its first step."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for part in ("merged", "adapter"):
        shutil.rmtree(run / part)
    (run / "checkpoints" / "step-00000002.ckpt").unlink()
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**record, "status": "interrupted"}), encoding="utf-8")
    return run


def _resume(run: Path, *words: str) -> Result:
    return CliRunner().invoke(ffr, ["train", "sft", "--resume", str(run), "--no-progress", *words])


def test_another_cache_folder_changes_no_bit(whole: Path, half: Path, tmp_path: Path) -> None:
    features = tmp_path / "features"
    words = (f"feature_cache_dir={features}", "num_workers=0", "keep_checkpoints=1")
    result = _resume(half, *(word for override in words for word in ("-o", override)))
    assert result.exit_code == 0, result.output
    assert "going on after step 1 of 2" in result.output
    assert any(path.is_file() for path in features.rglob("*"))
    assert [path.name for path in (half / "checkpoints").glob("*.ckpt")] == ["step-00000002.ckpt"]
    weights = "merged/model.safetensors"
    assert (half / weights).read_bytes() == (whole / weights).read_bytes()


def test_data_may_move_but_not_change(half: Path, tmp_path: Path, sample_home: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(sample_home / "sample", moved)
    train, val = moved / "train.jsonl", moved / "val.jsonl"
    lines = val.read_text(encoding="utf-8").splitlines(keepends=True)
    words = ("-o", f"dataset={train}", "-o", f"val_dataset={val}")
    val.write_text("".join(lines[:-1]), encoding="utf-8")
    result = _resume(half, *words)
    assert result.exit_code == 1
    assert (
        "the validation data changed since the run began (its texts, answers or pictures); restore it"
        in result.output
    )
    val.write_text("".join(lines), encoding="utf-8")
    result = _resume(half, *words)
    assert result.exit_code == 0, result.output
    assert "going on after step 1 of 2" in result.output


def test_other_settings_are_refused(half: Path) -> None:
    result = _resume(half, "-o", "learning_rate=1")
    assert result.exit_code == 2
    assert "where learning_rate is 0.0001; leave -o learning_rate out" in result.output
    file = half / "config.yaml"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("learning_rate: 0.0001", "learning_rate: 0.5"), encoding="utf-8")
    result = _resume(half)
    assert result.exit_code == 2
    assert "not the settings that the run began with; restore the file" in result.output
