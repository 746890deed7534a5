"""Paired comparison: by hand, against a plain loop, and every pair that must not be compared."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest

from ffr.answer import format_answer
from ffr.data.dataset import FirstExamples
from ffr.dialogue import Dialogue, Example, Fragment, Utterance
from ffr.errors import DataError, UsageError
from ffr.evaluation.compare import compare, comparison_to_json, load_run, p_value
from ffr.evaluation.controls import WrongPictures
from ffr.evaluation.figures import FIGURE_NAMES
from ffr.evaluation.results import Results
from ffr.evaluation.run import evaluate
from ffr.prompt import prompt_of
from ffr.retrieval.interface import Answer


class Scripted:
    """Answers what a function of the example says."""

    def __init__(self, name, answer_of):
        self._name, self._answer_of = name, answer_of

    @property
    def name(self):
        return self._name

    @property
    def identity(self):
        return {"kind": "scripted", "name": self._name}

    def plan(self, examples):
        return [list(range(len(examples)))]

    def prompt(self, example):
        return prompt_of(example)

    def answer(self, examples):
        return [Answer(self._answer_of(example)) for example in examples]


def right(example):
    return format_answer(example.fragment)


def measured(examples, folder, name, answer_of, **options):
    evaluate(
        examples, Scripted(name, answer_of), folder / name, dataset="made", baselines=(), **options
    )
    return load_run(folder / name)


@pytest.fixture
def chats():
    """Thirty dialogues of ten lines with two queries each."""
    found = []
    for number in range(30):
        chat = Dialogue(
            f"d{number}",
            tuple(Utterance("a", (f"line {index} of {number}",)) for index in range(10)),
        )
        found += [
            Example(chat, f"first {number}", Fragment((1, 2))),
            Example(chat, f"second {number}", Fragment((7,))),
        ]
    return found


def noisy(seed, share):
    def answer(example):
        chance = random.Random(f"{seed} {example.dialogue.id} {example.query}")
        kept = tuple(
            item
            for item in range(10)
            if (item in example.fragment.utterance_ids) != (chance.random() < share)
        )
        return format_answer(Fragment(kept))

    return answer


def test_by_hand(examples, tmp_path):
    """The second answers like the first but for one query, where it finds one of two utterances and no image."""

    def other(example):
        if example.dialogue.id == "d2" and example.fragment.utterance_ids:
            return format_answer(Fragment((0,), ()))
        return right(example)

    runs = [
        measured(examples, tmp_path, "good", right),
        measured(examples, tmp_path, "worse", other),
    ]
    (found,) = compare(runs, num_resamples=500)
    # five queries of two utterances and an image: TP 10 → 9 of 10, images 5 → 4 of 5
    recall = found.figures["utterance_recall"]
    assert (recall.first, recall.second) == (1.0, 0.9)
    assert recall.difference == pytest.approx(-0.1)
    assert recall.interval[0] < -0.1 < recall.interval[1] <= 0
    assert found.figures["image_f1"].second == pytest.approx(2 * 4 / (2 * 4 + 1))
    assert found.figures["utterance_precision"].difference == 0
    assert found.figures["utterance_precision"].interval == (0.0, 0.0)
    assert found.figures["utterance_precision"].p_value == 1.0
    assert (found.num_better, found.num_worse, found.num_same) == (0, 1, 9)
    (changed,) = found.changed
    assert (changed.dialogue_id, changed.query, changed.index) == ("d2", "talk about lines", 4)
    assert (changed.truth, changed.second) == (Fragment((0, 1), (0,)), Fragment((0,), ()))
    assert (changed.first_f1, changed.second_f1) == (1.0, pytest.approx((2 / 3 + 0) / 2))
    # d2 has 22 lines, and no dialogue over 65: what is not there was not compared
    assert found.slices["by_length"][">65"] is None
    assert found.slices["by_length"]["35-65"][1]["joint_f1"].difference == 0
    assert found.slices["by_truth"]["empty"][0] == 5
    content = comparison_to_json(runs, [found], seed=0)
    again = json.loads(json.dumps(content, allow_nan=False))
    assert set(again["comparisons"][0]["figures"]) == set(FIGURE_NAMES)
    assert again["comparisons"][0]["changed"][0]["dialogue_id"] == "d2"
    assert again["comparisons"][0]["by_truth"]["empty"]["num_answers"] == 5
    assert again["comparisons"][0]["by_length"][">65"] is None
    assert [run["model"]["label"] for run in again["runs"]] == ["good", "worse"]


def test_differences_agree_with_a_plain_paired_loop(chats, tmp_path):
    runs = [
        measured(chats, tmp_path, name, noisy(name, share))
        for name, share in (("a", 0.12), ("b", 0.1))
    ]
    (found,) = compare(runs, num_resamples=20_000)
    counts = {}
    for run in runs:
        per_dialogue = {}
        for example, response in zip(chats, run.responses, strict=True):
            pred = {
                int(item)
                for item in response.split("[")[1].split("]")[0].split(",")
                if item.strip()
            }
            truth = set(example.fragment.utterance_ids)
            total = per_dialogue.setdefault(example.dialogue.id, [0, 0, 0])
            total[0] += len(pred & truth)
            total[1] += len(pred - truth)
            total[2] += len(truth - pred)
        counts[run.label] = per_dialogue

    def f1(label, names):
        tp, fp, fn = (sum(counts[label][name][place] for name in names) for place in range(3))
        return 2 * tp / (2 * tp + fp + fn)

    names = sorted(counts["a"])
    chance = random.Random(1)
    drawn = []
    for _ in range(5000):
        resample = [chance.choice(names) for _ in names]
        drawn.append(f1("b", resample) - f1("a", resample))
    difference = found.figures["utterance_f1"]
    assert difference.difference == pytest.approx(f1("b", names) - f1("a", names))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert difference.interval == pytest.approx((low, high), abs=0.1 * (high - low))
    slow = 2 * min(np.mean(np.array(drawn) <= 0), np.mean(np.array(drawn) >= 0))
    assert difference.p_value == pytest.approx(slow, abs=0.05)
    # paired: far narrower than the two intervals side by side would make it, were the answers of both alike
    same = compare([runs[0], dataclasses.replace(runs[0])], num_resamples=200)[0]
    assert {value.difference for value in same.figures.values()} == {0}
    assert {value.p_value for value in same.figures.values()} == {1.0}
    assert same.changed == []


def test_three_are_set_against_the_first_and_seed_decides(chats, tmp_path):
    runs = [measured(chats, tmp_path, name, noisy(name, 0.1)) for name in "abc"]
    found = compare(runs, num_resamples=300, num_changed=3)
    assert [(item.first, item.second) for item in found] == [
        (str(tmp_path / "a"), str(tmp_path / "b")),
        (str(tmp_path / "a"), str(tmp_path / "c")),
    ]
    assert all(len(item.changed) == 3 for item in found)
    sizes = [abs(sample.second_f1 - sample.first_f1) for sample in found[0].changed]
    assert sizes == sorted(sizes, reverse=True)
    assert compare(runs[:2], num_resamples=300, num_changed=3) == found[:1]
    assert compare(runs[:2], num_resamples=300, seed=1)[0].figures != found[0].figures


def test_p_value():
    assert p_value(np.array([0.1] * 9999)) == 2 / 10_000
    assert p_value(-np.array([0.1] * 9999)) == 2 / 10_000
    assert p_value(np.array([0.1, -0.1] * 50)) == 1.0
    # one in twenty on the other side: 2 · (1 + 5) / 101
    assert p_value(np.array([0.1] * 95 + [-0.1] * 5)) == pytest.approx(12 / 101)


@pytest.mark.slow
def test_p_values_of_equals_are_small_as_seldom_as_they_say(tmp_path):
    """Two models of the same skill on 40 dialogues: p < 0.05 in about one data set of twenty."""
    from ffr.evaluation.bootstrap import ALL, resample_figures
    from ffr.evaluation.scoring import SLICES, ScoredRows

    chance = np.random.default_rng(1)
    column = FIGURE_NAMES.index("utterance_f1")
    num_small = 0
    for number in range(400):
        skill = np.repeat(chance.uniform(0.3, 0.9, 40), 3)
        figures = []
        for _ in range(2):
            tp, fp = chance.binomial(4, skill), chance.binomial(8, 0.2, len(skill))
            counts = np.zeros((len(skill), 2, 4), dtype=np.int64)
            counts[:, 0] = np.stack([tp, fp, 4 - tp, 8 - fp], 1)
            rows = ScoredRows(
                counts,
                counts,
                np.ones(len(skill), dtype=np.bool_),
                tuple(str(index // 3) for index in range(len(skill))),
                {table: (None,) * len(skill) for table in SLICES},
            )
            figures.append(resample_figures(rows, seed=number, num_resamples=1000)[ALL][:, column])
        num_small += p_value(figures[1] - figures[0]) < 0.05
    assert 0.02 <= num_small / 400 <= 0.09, num_small


def test_one_dialogue_has_no_interval(chats, tmp_path):
    runs = [measured(FirstExamples(chats, 2), tmp_path, name, noisy(name, 0.3)) for name in "ab"]
    (found,) = compare(runs)
    assert found.figures["joint_f1"].interval is None
    assert found.figures["joint_f1"].p_value is None


def test_what_is_refused(examples, chats, tmp_path):
    good = measured(examples, tmp_path, "good", right)
    other = measured(chats, tmp_path, "chats", right)
    with pytest.raises(
        UsageError,
        match=r"good and .*chats were measured on different data \(made, 10 queries, finger",
    ):
        compare([good, other])
    control = measured(examples, tmp_path, "control", right, shown=WrongPictures(examples, seed=0))
    with pytest.raises(
        UsageError, match=r"control is a control with wrong pictures and .*good is not"
    ):
        compare([good, control])
    with pytest.raises(
        UsageError, match=r"control is a control with wrong pictures and .*good is not"
    ):
        compare([control, good])
    assert compare([control, control], num_resamples=50)[0].figures["joint_f1"].difference == 0
    unknown = dataclasses.replace(
        good, results=dataclasses.replace(good.results, data={"dataset": "p.jsonl"})
    )
    with pytest.raises(UsageError, match="does not say what data it was measured on"):
        compare([good, unknown])


def test_damaged_folders(examples, tmp_path):
    good = measured(examples, tmp_path, "good", right)
    folder = tmp_path / "bad"
    measured(examples, tmp_path, "bad", lambda example: format_answer(Fragment((0,))))
    lines = (folder / "predictions.jsonl").read_text().splitlines(keepends=True)
    assert load_run(folder / "results.json").keys == good.keys
    (folder / "SHA256SUMS").unlink()
    (folder / "predictions.jsonl").write_text("".join(reversed(lines)))
    with pytest.raises(DataError, match=r"bad: its answers are not to the queries of .*good"):
        compare([good, load_run(folder)])
    (folder / "predictions.jsonl").write_text(
        "".join(lines).replace("[0]<|utt_ids_end|>", "[3]<|utt_ids_end|>")
    )
    with pytest.raises(
        DataError, match=r"bad: its predictions\.jsonl does not give the figures of its results"
    ):
        compare([good, load_run(folder)])
    (folder / "predictions.jsonl").write_text("".join(lines[:3]) + "garbage\n")
    with pytest.raises(DataError, match=r"predictions\.jsonl:4"):
        load_run(folder)
    without_key = json.loads(lines[0])
    del without_key["key"]
    (folder / "predictions.jsonl").write_text(json.dumps(without_key) + "\n")
    with pytest.raises(DataError, match=r'predictions\.jsonl:1: has no "key"'):
        load_run(folder)
    (folder / "predictions.jsonl").unlink()
    with pytest.raises(
        DataError, match=r"bad: has no predictions\.jsonl, without which answers cannot be paired"
    ):
        load_run(folder)
    with pytest.raises(DataError, match="not found"):
        load_run(tmp_path / "nowhere")
    results = Results.load(tmp_path / "good")
    results.summary["scores"]["joint_f1"] = None
    results.save(tmp_path / "good")
    with pytest.raises(DataError, match="does not give the figures"):
        compare([load_run(tmp_path / "good")] * 2)
    dataclasses.replace(results, summary={}).save(tmp_path / "good")
    with pytest.raises(
        DataError,
        match=r"is not a results file of ffr \(summary\.answers: field required\); evaluate",
    ):
        load_run(tmp_path / "good")


def test_nothing_to_compare(chats, tmp_path):
    unknown = [dataclasses.replace(example, fragment=None) for example in chats]
    run = measured(unknown, tmp_path, "unknown", lambda example: "")
    with pytest.raises(DataError, match="has no query with a true answer"):
        compare([run, run])
