"""Run folders and records: one folder for all processes, a record that stays true, checkpoints that can be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ffr.data.dataset import ExampleDataset, open_dataset
from ffr.errors import ModelError, UsageError
from ffr.run_log import METRICS_FILE
from ffr.runs import ModelSource, RunRecord
from ffr.settings import GrpoConfig, SftConfig
from ffr.training.common.run import (
    kept_record,
    load_run_config,
    run_folder,
    with_absolute_paths,
)

SOURCE = ModelSource("somewhere", "tiny")


@pytest.fixture
def data(tmp_path: Path) -> ExampleDataset:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"dialogue_id":"d","dialogue":[{"speaker":"a","utterance":"x"}],"query_text":"q","gt_turns":[0]}\n'
    )
    return open_dataset(path)


def test_folders_are_numbered_and_handed_to_the_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FFR_RUN_FOLDER", raising=False)
    for name in ("sft-own-001", "sft-own-002"):
        with run_folder(None, tmp_path, "sft", "own", resume=False) as run:
            assert run == tmp_path / name
            assert run.is_dir()
            assert os.environ["FFR_RUN_FOLDER"] == str(run)
            with monkeypatch.context() as other:
                other.setenv("LOCAL_RANK", "1")
                with run_folder(None, tmp_path, "sft", "own", resume=False) as theirs:
                    assert theirs == run
        assert "FFR_RUN_FOLDER" not in os.environ


@pytest.mark.parametrize("recipe", ["own", None])
def test_a_start_that_fails_leaves_nothing_behind(
    tmp_path: Path, data: ExampleDataset, recipe: str | None
) -> None:
    """Of the folder that is made for it, or of one that a person has made."""
    root = tmp_path / "runs"
    named = None if recipe else root / "named"
    if named is not None:
        named.mkdir(parents=True)

    def start(*, begins: bool, resume: bool = False) -> None:
        with run_folder(named, root, "sft", "own", resume=resume) as run:
            config = SftConfig(dataset=str(data.path))
            with kept_record(run, config, SOURCE, (data, None), configuration="c", resume=resume):
                (run / "tensorboard").mkdir(exist_ok=True)
                if begins:
                    (run / METRICS_FILE).touch()
                raise ModelError("no GPU is here")

    with pytest.raises(ModelError, match="no GPU"):
        start(begins=False)
    assert list(root.rglob("*")) == ([] if named is None else [named])
    assert "FFR_RUN_FOLDER" not in os.environ
    with pytest.raises(ModelError, match="no GPU"):
        start(begins=True)
    (run,) = root.iterdir()
    assert RunRecord.load(run).status == "failed"
    if named is not None:
        # a run that was begun is never taken away, whatever it has by now
        (run / METRICS_FILE).unlink()
        with pytest.raises(ModelError, match="no GPU"):
            start(begins=False, resume=True)
        assert RunRecord.load(run).status == "failed"


def test_processes_from_outside_need_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("FFR_RUN_FOLDER", raising=False)
    with (
        pytest.raises(UsageError, match="name the run's folder with --out"),
        run_folder(None, tmp_path, "sft", "tiny", resume=False),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_true_whatever_happens(tmp_path: Path, data: ExampleDataset) -> None:
    config = SftConfig(seed=7)
    with kept_record(
        tmp_path, config, SOURCE, (data, data), configuration="name", resume=False
    ) as record:
        saved = RunRecord.load(tmp_path)
        assert (saved.status, saved.seed, saved.model, saved.finished_at) == (
            "running",
            7,
            "tiny",
            None,
        )
        assert (saved.data_fingerprint, saved.val_fingerprint) == (
            data.fingerprint,
            data.fingerprint,
        )
        assert saved.config_fingerprint == "name"
        record.status, record.results = "interrupted", {"loss": 2.0}
    saved = RunRecord.load(tmp_path)
    assert (saved.status, saved.results, saved.error) == ("interrupted", {"loss": 2.0}, None)
    assert saved.finished_at is not None
    assert load_run_config(SftConfig, tmp_path) == config
    with (
        pytest.raises(KeyboardInterrupt),
        kept_record(tmp_path, config, SOURCE, (data, data), configuration="name", resume=True),
    ):
        raise KeyboardInterrupt
    again = RunRecord.load(tmp_path)
    assert (again.status, again.error, again.started_at) == (
        "failed",
        "KeyboardInterrupt: ",
        saved.started_at,
    )
    with (
        pytest.raises(ModelError, match="the validation data changed since the run began"),
        kept_record(tmp_path, config, SOURCE, (data, None), configuration="name", resume=True),
    ):
        pass


def test_other_processes_write_nothing(
    tmp_path: Path, data: ExampleDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    (tmp_path / "run").mkdir()
    with kept_record(
        tmp_path / "run", SftConfig(), SOURCE, (data, None), configuration="name", resume=False
    ):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_without_its_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not the folder of a training run"):
        load_run_config(SftConfig, tmp_path)
    (tmp_path / "run.json").write_text(
        '{"stage": "sft", "status": "failed", "started_at": "", "seed": 0, "model": "", "dataset": ""}'
    )
    with pytest.raises(ModelError, match=r"config\.yaml is missing; restore it or start a new run"):
        load_run_config(SftConfig, tmp_path)


def test_files_are_named_in_full_and_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "sample", "policy", "tiny-clip", "models", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "d.jsonl").write_text("{}")
    named = GrpoConfig(
        model="models",
        dataset="d.jsonl",
        val_dataset="sample",
        image_root="pictures",
        encoder="onnx:models",
    )
    full = with_absolute_paths(named)
    assert (full.model, full.dataset, full.val_dataset) == (
        str(tmp_path / "models"),
        str(tmp_path / "d.jsonl"),
        "sample",
    )
    assert (full.image_root, full.encoder) == (
        str(tmp_path / "pictures"),
        f"onnx:{tmp_path / 'models'}",
    )
    kept = GrpoConfig(model="tiny", dataset="sample", encoder="tiny-clip", difficulty=None)
    assert with_absolute_paths(kept) == kept
    assert with_absolute_paths(GrpoConfig(model="Qwen/Qwen2-VL-2B")).model == "Qwen/Qwen2-VL-2B"
