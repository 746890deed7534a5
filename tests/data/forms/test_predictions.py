"""Prediction files: round trips, and every fault with its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ffr.data.forms.predictions import (
    PredictionRecord,
    example_of_prediction,
    prediction_to_json,
    read_predictions,
)
from ffr.dialogue import Fragment
from ffr.errors import DataError
from ffr.files import write_records

Record = dict[str, Any]
Write = Callable[..., Path]


def test_predictions_round_trip(folder: Path, record: Record) -> None:
    predictions = [
        PredictionRecord(
            dialogue_id="d0",
            response="x",
            labels=record["solution"],
            messages=tuple(record["messages"]),
            images=tuple(record["images"]),
            logprobs=(-0.5, -1.0),
            extra={"key": "k"},
        ),
        PredictionRecord(dialogue_id="d1", response=""),
    ]
    assert write_records(folder / "p.jsonl", map(prediction_to_json, predictions)) == 2
    again = read_predictions(folder / "p.jsonl")
    assert list(again) == predictions
    assert again[-1] == predictions[1]
    assert again.where(1) == "p.jsonl:2"
    line = json.loads((folder / "p.jsonl").read_text().splitlines()[0])
    assert line["logprobs"] == {"content": [{"logprob": -0.5}, {"logprob": -1.0}]}
    example = example_of_prediction(again[0])
    assert example.fragment == Fragment((0, 1), (0,))
    assert len(example.dialogue.utterances) == 4
    with pytest.raises(DataError, match="no user message"):
        example_of_prediction(again[1])


@pytest.mark.parametrize(
    "change",
    [
        {"response": None},
        {"response": 3},
        {"labels": [1]},
        {"messages": "x"},
        {"messages": [{"role": "user"}]},
        {"images": [3]},
        {"logprobs": [1]},
        {"logprobs": {"content": 3}},
        {"logprobs": {"content": [{"logprob": "x"}]}},
        {"logprobs": {"content": [{"logprob": True}]}},
        {"logprobs": {"content": [{}]}},
        {"dialogue_id": []},
    ],
)
def test_faults_of_predictions(write: Write, change: Record) -> None:
    path = write(
        "p.jsonl",
        {"dialogue_id": "d", "response": "x"},
        {"dialogue_id": "d", "response": "x", **change},
    )
    with pytest.raises(DataError, match=r"^p.jsonl:2: "):
        read_predictions(path)


def test_predictions_need_a_response(write: Write, record: Record) -> None:
    with pytest.raises(DataError, match='no "response"'):
        read_predictions(write("p.jsonl", record))
