"""Which data the settings name, and what is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ffr.data.dataset import ExampleDataset, open_dataset
from ffr.errors import DataError
from ffr.settings import SftConfig
from ffr.training.common.data import check_truths, load_data

LINES = [{"speaker": "a", "utterance": "hi"}, {"speaker": "b", "utterance": "x"}]


@pytest.fixture
def data(tmp_path: Path) -> ExampleDataset:
    """Four examples, of which the third has no true answer."""
    records = [
        {"dialogue_id": f"d{number}", "dialogue": LINES, "query_text": "q", "gt_turns": [0]}
        for number in range(4)
    ]
    del records[2]["gt_turns"]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return open_dataset(path)


def test_the_first_example_without_an_answer_is_named(data: ExampleDataset) -> None:
    with pytest.raises(
        DataError, match=r"data\.jsonl:3.*: has no true answer to test with; leave it out or add"
    ):
        check_truths(data, "has no true answer to test with", range(4))
    check_truths(data, "has no true answer to test with", [0, 1, 3])
    with pytest.raises(DataError, match=r"data\.jsonl:3"):
        check_truths(data, "has no true answer to test with", range(3))


def test_a_named_set_brings_its_validation_part(sample_home: Path) -> None:
    said: list[str] = []
    _, own = load_data(SftConfig(), said.append)
    _, chosen = load_data(SftConfig(val_split="grpo"), said.append)
    assert said == []
    paths = {
        name: open_dataset(sample_home / "sample" / f"{name}.jsonl").fingerprint
        for name in ("val", "grpo")
    }
    assert own is not None
    assert chosen is not None
    assert own.fingerprint == paths["val"]
    assert chosen.fingerprint == paths["grpo"]
    _, none = load_data(SftConfig(val_split="nothing"), said.append)
    assert none is None
    assert said == [
        "no validation data: name some with --val-dataset to see figures of it while training"
    ]


def test_validation_data_of_its_own(
    sample_home: Path, data: ExampleDataset, tmp_path: Path
) -> None:
    names = {"dataset": str(tmp_path / "data.jsonl"), "val_dataset": "sample"}
    with pytest.raises(DataError, match=r"data\.jsonl:3: has no true answer; add"):
        load_data(SftConfig(**names), str)
    train, val = load_data(SftConfig(**names, skip_bad=True), str)
    assert (len(train), train.num_left_out) == (3, 1)
    assert val is not None
    assert val.fingerprint == open_dataset(sample_home / "sample" / "val.jsonl").fingerprint
