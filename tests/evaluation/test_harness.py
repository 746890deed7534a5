"""The keys that readers of lm-evaluation-harness look for: what they say is what ours say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ffr.dialogue import Dialogue, Example, Fragment
from ffr.errors import DataError
from ffr.evaluation.figures import SCORE_NAMES
from ffr.evaluation.harness import HARNESS_KEYS, harness_keys
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.retrieval.lexical import BaselineRetriever


@pytest.fixture
def written(tmp_path: Path) -> Path:
    chat = Dialogue.of([("Ann", "the bus is late"), ("Bob", "tea?")], "d")
    other = Dialogue.of([("Ann", "the sea")], "e")
    examples = [
        Example(chat, "bus", Fragment((0,))),
        Example(chat, "tea", Fragment((0, 1))),
        Example(other, "sea", Fragment((0,))),
        Example(other, "rain"),
    ]
    evaluate(
        examples, BaselineRetriever("overlap"), tmp_path, dataset="chats", split="val", baselines=()
    )
    return tmp_path / "results.json"


def test_they_say_what_ours_say(written: Path) -> None:
    content = json.loads(written.read_text(encoding="utf-8"))
    assert content.keys() >= set(HARNESS_KEYS)
    task = "ffr_chats_val"
    for name in SCORE_NAMES:
        assert content["results"][task][f"{name},none"] == content["summary"]["scores"][name]
    error = content["summary"]["standard_errors"]["sample_joint_f1"]
    assert 0 < error < 1
    assert content["results"][task]["sample_joint_f1_stderr,none"] == error
    assert content["results"][task]["joint_f1_stderr,none"] == "N/A"
    assert content["n-samples"] == {task: {"original": 4, "effective": 3}}
    assert content["task_hashes"] == {task: content["data"]["fingerprint"]}
    assert content["config"]["model"] == content["model_source"] == "baseline"
    assert content["config"]["bootstrap_iters"] == content["intervals"]["num_resamples"]
    assert content["transformers_version"] == content["provenance"]["versions"]["transformers"]
    assert content["git_hash"] == content["provenance"]["git_hash"]
    assert float(content["total_evaluation_time_seconds"]) == content["provenance"]["seconds"]
    assert content["date"] > 1.7e9
    assert content["higher_is_better"][task]["joint_f1"] is True


def test_results_are_made_of_ours_alone(written: Path) -> None:
    loaded = Results.load(written)
    assert not set(HARNESS_KEYS) & set(vars(loaded))
    content = json.loads(loaded.to_json())
    before = json.loads(written.read_text(encoding="utf-8"))
    for either in (content, before):
        either["provenance"].pop("sha256")
    assert content == before
    # the seal holds for them too
    text = written.read_text(encoding="utf-8")
    written.write_text(text.replace('"model_source": "baseline"', '"model_source": "vlm"'))
    with pytest.raises(DataError, match="is not what was written"):
        Results.load(written)


def test_results_that_were_never_measured_have_their_keys() -> None:
    found = harness_keys(
        {
            "model": {}, "data": {"dataset": "a.jsonl", "num_examples": 0}, "settings": {}, "schema": 2,
            "summary": {"answers": {}}, "intervals": {}, "provenance": {},
        }
    )  # fmt: skip
    assert list(found) == list(HARNESS_KEYS)
    assert found["results"] == {"ffr_a.jsonl": {"alias": "ffr_a.jsonl"}}
    assert (found["date"], found["git_hash"], found["total_evaluation_time_seconds"]) == (None,) * 3
