"""The reader's ablation: how data is divided, how intervals are made, and that it goes on where it was."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from script_modules import script

from ffr.answer import format_answer
from ffr.dialogue import Dialogue, Example, Fragment
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import ScoreTable
from ffr.runs import RunRecord

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with script(BENCHMARKS / "reader_ablation.py") as module:
        yield module


# -- data ------------------------------------------------------------------------------------------


def _record(dialogue: str, source: str | None) -> dict[str, Any]:
    return {"meta": {"base_dialogue_id": dialogue, "source_dialogue": source}}


def test_what_shares_a_source_with_the_held_out_is_not_trained_on(bench: ModuleType) -> None:
    records = [
        _record("a", "one"), _record("b", "two"), _record("a", None), _record("c", "three"),
        _record("d", "two"), _record("e", "four"),
    ]  # fmt: skip
    # d and e are held out; b shares `two` with d
    assert bench.divided(records, 9, num_held_out=2) == ([0, 2, 3], [4, 5])
    assert bench.divided(records, 1, num_held_out=2) == ([0, 2], [4, 5])


def _asked(dialogue: str, query: str, source: str, concept: str | None = None) -> dict[str, Any]:
    content = f"about<|query_start|>{query}<|query_end|>in {dialogue}"
    answer = format_answer(Fragment.of([0], []))
    return {
        "dialogue_id": f"{dialogue}_q",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": content},
            {"role": "assistant", "content": answer},
        ],
        "solution": answer,
        "meta": {
            "base_dialogue_id": dialogue, "lang": "en", "query_text": query,
            "source_dialogue": source, "concept": concept,
        },
    }  # fmt: skip


def test_an_absent_query_is_of_another_dialogue(bench: ModuleType) -> None:
    records = [_asked("a", "tea", "s1", "drink"), _asked("b", "cats", "s2"), _asked("c", "cocoa", "s3", "drink")]  # fmt: skip
    found = bench.absent_queries(records, share=0.9)
    assert len(found) == 27
    for record in found:
        assert record["solution"] == bench.NOTHING == record["messages"][2]["content"]
        query, place = record["meta"]["query_text"], record["meta"]["base_dialogue_id"]
        # tea and cocoa are both drinks, so neither is asked of the other's dialogue
        assert (place, query) in {("a", "cats"), ("b", "tea"), ("b", "cocoa"), ("c", "cats")}
        assert record["messages"][1]["content"] == (
            f"about<|query_start|>{query}<|query_end|>in {place}"
        )
    assert len({record["dialogue_id"] for record in found}) == 27
    assert bench.absent_queries(records, share=0.9) == found
    assert bench.absent_queries(records, share=0.9, seed=1) != found


def test_the_kept_lines_are_those_of_the_table(bench: ModuleType, tmp_path: Path) -> None:
    table = tmp_path / "difficulty.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("index", "kept"), (0, 0), (1, 1), (2, 1)])
    assert bench.kept_lines(["a\n", "b\n", "c\n"], table) == ["b\n", "c\n"]


def test_pictures_have_the_vectors_of_their_words(bench: ModuleType) -> None:
    asked: list[list[str]] = []

    class Texts:
        def embed_texts(self, texts: list[str]) -> torch.Tensor:
            asked.append(texts)
            return torch.ones(len(texts), 2)

    encoder = sys.modules["reader_rewards"].WordsForPictures(Texts(), {"a.jpg": "a photo of tea"})
    assert encoder.embed_images([Path("a.jpg")]).shape == (1, 2)
    assert encoder.embed_texts(["hello"]).shape == (1, 2)
    assert asked == [["passage: a photo of tea"], ["passage: hello"]]
    with pytest.raises(KeyError, match=r"b\.jpg"):
        encoder.embed_images(["b.jpg"])


# -- plan ------------------------------------------------------------------------------------------


def test_every_arm_has_the_steps_that_it_says(bench: ModuleType) -> None:
    plan = bench.Plan(sft_steps=10, grpo_steps=4, learning_rate=3e-4)
    steps = {
        name: [item for item in plan.settings(name, 7) if item.startswith("max_steps=")]
        for name in bench.ARMS
    }
    assert steps["sft"] == ["max_steps=10"]
    assert steps["sft-longer"] == ["max_steps=14"]
    assert {tuple(found) for name, found in steps.items() if name not in ("sft", "sft-longer")} == {
        ("max_steps=4",)
    }
    assert "learning_rate=0.0003" in plan.settings("sft-further", 0)
    # the recipe's own rate, which is that of a training from random weights
    assert not [item for item in plan.settings("sft", 0) if item.startswith("learning_rate=")]
    assert "curriculum=paced" in plan.settings("grpo-paced", 0)


# -- figures ---------------------------------------------------------------------------------------


def _examples() -> list[Example]:
    found = []
    for number, truth in enumerate([(0, 1), (2,), (), (3,)]):
        dialogue = Dialogue.of([("Ann", f"{line} of {number}") for line in "abcd"], f"d{number}")
        found.append(Example(dialogue, "what", Fragment.of(truth, [])))
    return found


def _answers(*ids: tuple[int, ...]) -> list[str]:
    return [format_answer(Fragment.of(item, [])) for item in ids]


def test_a_difference_is_paired(bench: ModuleType) -> None:
    examples = _examples()
    rows = bench.rows_of(examples, _answers((0, 1), (2,), (), (3,)))
    good = bench.answered(rows, 400)
    # half of the first answer is missing: F1 2/3 and not 1
    less = bench.answered(bench.rows_of(examples, _answers((0,), (2,), (), (3,))), 400)
    gap = bench.difference({0: good, 1: good, 2: good}, {0: less, 1: good}, "utterance_f1")
    assert gap["seeds"] == [0, 1]
    assert gap["each_seed"] == pytest.approx([1 / 12, 0], abs=1e-4)
    assert gap["mean"] == pytest.approx(1 / 24, abs=1e-4)
    # dialogues that both answer alike are no part of the gap: it is never below 0
    assert gap["95"][0] == 0
    assert gap["beyond_error"] is False
    assert bench.difference({0: good}, {0: less}, "utterance_f1")["beyond_error"] is None
    assert bench.difference({0: good}, {0: good}, "joint_f1")["95"] == [0, 0]
    # three queries have an answer
    assert less.points["utterance_f1_where_answered"] == pytest.approx(8 / 9)
    assert less.points["utterance_f1"] == pytest.approx(11 / 12)


def test_seeds_widen_an_interval(bench: ModuleType) -> None:
    by_seed = np.array([[0.0] * 1000, [0.1] * 1000, [0.2] * 1000])
    assert bench.interval_over_seeds(by_seed, draw_seeds=False) == pytest.approx((0.1, 0.1))
    low, high = bench.interval_over_seeds(by_seed)
    # one draw of 27 takes the least seed three times
    assert (low, high) == pytest.approx((0.0, 0.2))


def test_empty_answers_are_counted_by_their_truth(bench: ModuleType) -> None:
    rows = bench.rows_of(_examples(), _answers((0,), (), (), ()))
    assert bench.empties(rows) == (1, 2)


def test_the_table_says_what_is_beyond_the_error(bench: ModuleType) -> None:
    examples = _examples()
    results = {
        name: {
            0: {
                "responses": _answers(first, (2,), (), last),
                "training": {},
            }
        }
        for name, first, last in (
            ("sft", (3,), (0,)),
            ("grpo-all", (0, 1), (3,)),
            ("grpo-f1", (0, 1), (3,)),
        )
    }
    found = bench.summary(examples, results, 200)
    assert found["arms"]["sft"]["utterance_f1"]["mean"] == 0.5
    assert found["arms"]["sft"]["utterance_f1_where_answered"]["mean"] == 0.3333
    assert found["arms"]["sft"]["absent_left_unanswered"] == [1]
    found["measured"] = {"queries": 4, "absent": 1}
    text = bench.table(found)
    assert "| `sft`: SFT | 0 | 50.0 (" in text
    assert "| grpo-all - sft | +50.0 (" in text
    same = {"grpo-all - grpo-f1": found["differences"]["grpo-all - grpo-f1"]}
    said = (
        "joint F1, beyond the error: nothing. Not beyond it: nothing. "
        "Of one seed, so not told: grpo-all - grpo-f1."
    )
    assert bench.verdict(same, "joint_f1") == said
    gap = {"utterance_f1": {"mean": 0.021, "beyond_error": True}}
    said = "utterance F1, beyond the error: a - b (+2.1). Not beyond it: nothing."
    assert bench.verdict({"a - b": gap}, "utterance_f1") == said


# -- going on --------------------------------------------------------------------------------------


class FakeFfr:
    """Takes the place of the `ffr` command: makes the files that it makes, and fails where told."""

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples
        self.calls: list[tuple[str, ...]] = []
        self.is_killed = False

    def __call__(self, *words: str, log: Path) -> None:
        self.calls.append(words)
        if words[0] == "eval":
            self._answer(Path(words[words.index("--out") + 1]))
            return
        is_resumed = "--resume" in words
        run = Path(words[words.index("--resume" if is_resumed else "--out") + 1])
        run.mkdir(parents=True, exist_ok=True)
        record = RunRecord(words[1], "running", "2026-01-01T00:00:00", 0, "scratch", "train.jsonl")
        record.save(run)
        if self.is_killed:
            raise SystemExit("killed")
        (run / "metrics.csv").write_text("step,reward\n1,0.5\n2,0.75\n", encoding="utf-8")
        (run / "config.yaml").write_text("jitter: 0.05\nseed: 0\n", encoding="utf-8")
        record.status = "finished"
        record.save(run)
        log.write_text("difficulties: nowhere\n", encoding="utf-8")

    def _answer(self, folder: Path) -> None:
        table = ScoreTable()
        lines = []
        for number, example in enumerate(self.examples):
            answer = _answers((0, 1))[0]
            table.add_example(example, answer)
            lines.append(json.dumps({"key": str(number), "response": answer}))
        folder.mkdir(parents=True)
        (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        data = {
            "dataset": "d",
            "split": None,
            "num_examples": 4,
            "fingerprint": "f",
            "num_left_out": 0,
        }
        model = {"label": "x", "kind": "reader"}
        Results(model, data, {"seed": 0}, table.summary()).save(folder)


def _ablation(bench: ModuleType, out: Path, run: FakeFfr) -> Any:
    return bench.Ablation(out, out / "dialogues", bench.Plan(), run=run)


def test_what_is_done_is_not_done_again(bench: ModuleType, tmp_path: Path) -> None:
    run = FakeFfr(_examples())
    first = _ablation(bench, tmp_path, run).do("sft", 0)
    assert [words[0] for words in run.calls] == ["train", "eval"]
    assert first["training"]["reward"] == {"first_fifth": 0.5, "last_fifth": 0.75}
    assert first["settings"] == {"jitter": 0.05}
    assert first["plan"] == asdict(bench.Plan())
    assert _ablation(bench, tmp_path, run).do("sft", 0) == first
    assert len(run.calls) == 2


def test_a_killed_run_goes_on_with_its_own_reward(bench: ModuleType, tmp_path: Path) -> None:
    run = FakeFfr(_examples())
    run.is_killed = True
    with pytest.raises(SystemExit, match="killed"):
        _ablation(bench, tmp_path, run).do("grpo-all", 1)
    run.is_killed = False
    _ablation(bench, tmp_path, run).do("grpo-all", 1)
    begun, resumed, asked = run.calls
    assert begun[:4] == ("train", "grpo", "--from", str(tmp_path / "runs" / "sft-1"))
    assert resumed[:4] == ("train", "grpo", "--resume", str(tmp_path / "runs" / "grpo-all-1"))
    assert "rewards=reader_rewards:order=1" in resumed
    assert asked[0] == "eval"


def test_a_result_of_another_plan_is_refused(bench: ModuleType, tmp_path: Path) -> None:
    run = FakeFfr(_examples())
    _ablation(bench, tmp_path, run).do("sft", 0)
    other = bench.Ablation(tmp_path, tmp_path, bench.Plan(grpo_steps=1), run=run)
    with pytest.raises(SystemExit, match="another plan"):
        other.do("sft", 0)


def test_what_is_kept_is_known_after_the_papers_curriculum(
    bench: ModuleType, tmp_path: Path
) -> None:
    train, logs = tmp_path / "data" / "train.jsonl", tmp_path / "logs"
    train.parent.mkdir()
    train.write_text("a\nb\n", encoding="utf-8")
    logs.mkdir()
    table = tmp_path / "difficulty.csv"
    table.write_text("index,kept\n0,0\n1,1\n", encoding="utf-8")
    log = logs / "grpo-paper-0.log"
    log.write_text("begun\n", encoding="utf-8")
    ablation = _ablation(bench, tmp_path, FakeFfr([]))
    with pytest.raises(SystemExit, match="needs grpo-paper of seed 0 first"):
        ablation.data("grpo-kept", 0)
    log.write_text(f"begun\ndifficulties: {table}\n", encoding="utf-8")
    assert ablation.data("grpo-kept", 0).read_text(encoding="utf-8") == "b\n"
    assert ablation.data("grpo-all", 0) == train
