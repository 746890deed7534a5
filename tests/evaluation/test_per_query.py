"""The table of single queries: what the means of a result are means of."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest

from ffr.evaluation.predictions import score_predictions
from ffr.evaluation.run import evaluate


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_query.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_means_are_those_of_the_results(examples, fake_retriever, tmp_path):
    examples[3] = dataclasses.replace(examples[3], fragment=None)
    results = evaluate(examples, fake_retriever(), tmp_path / "out", dataset="made")
    rows = table(tmp_path / "out")
    assert [int(row["index"]) for row in rows] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert (rows[2]["dialogue_id"], rows[2]["query"]) == ("d1", "talk about lines")
    assert [int(row["num_utterances"]) for row in rows[:3]] == [4, 4, 13]
    scores = results.summary["scores"]
    for name in ("utterance_precision", "utterance_recall", "image_f1", "image_mcc", "joint_f1"):
        mean = sum(float(row[name]) for row in rows) / len(rows)
        assert mean == pytest.approx(scores[f"sample_{name}"], abs=1e-9), name
    exact = sum(int(row["exact_match"]) for row in rows) / len(rows)
    assert exact == pytest.approx(scores["exact_match"])
    num_malformed = sum(row["is_well_formed"] == "0" for row in rows)
    assert num_malformed == results.summary["answers"]["num_malformed"] > 0
    assert {row["length"] for row in rows} == {"<35", "35-65"}
    assert {row["density"] for row in rows} >= {"", ">0.3"}
    assert {row["truth"] for row in rows} == {"empty", "not empty"}


def test_a_file_of_predictions_has_one_too(examples, fake_retriever, tmp_path):
    evaluate(examples, fake_retriever(), tmp_path / "out", dataset="made")
    score_predictions(tmp_path / "out" / "predictions.jsonl", out=tmp_path / "scored")
    assert table(tmp_path / "scored") == table(tmp_path / "out")
    bare = {"dialogue_id": "=1+1", "response": "", "labels": None}
    bare["labels"] = "<|utt_ids_start|>[0]<|utt_ids_end|>;<|img_ids_start|>[]<|img_ids_end|>"
    (tmp_path / "bare.jsonl").write_text(json.dumps(bare) + "\n")
    score_predictions(tmp_path / "bare.jsonl", out=tmp_path / "bare")
    (row,) = table(tmp_path / "bare")
    assert (row["dialogue_id"], row["query"], row["utterance_f1"]) == ("'=1+1", "", "0.0")
