"""Lenient and strict scores, slices and standard errors, by hand."""

from __future__ import annotations

import math

import pytest

import ffr.answer
from ffr.dialogue import Fragment
from ffr.evaluation.figures import FIGURE_NAMES
from ffr.evaluation.scoring import SLICES, ScoreTable, density_slice, length_slice


def answer(utterances, images=()):
    return f"<|utt_ids_start|>{list(utterances)}<|utt_ids_end|>;<|img_ids_start|>{list(images)}<|img_ids_end|>"


def test_slices():
    assert [length_slice(n) for n in (0, 34, 35, 65, 66, 1000)] == [
        "<35",
        "<35",
        "35-65",
        "35-65",
        ">65",
        ">65",
    ]


@pytest.mark.parametrize(
    ("num_true", "num_utterances", "name"),
    [
        (14, 100, "<0.15"),
        (3, 20, "0.15-0.3"),
        (3, 10, "0.15-0.3"),
        (31, 100, ">0.3"),
        (1, 1, ">0.3"),
        (0, 10, None),
    ],
)
def test_density_slices(num_true, num_utterances, name):
    """Both bounds belong to the middle; a line named twice counts once."""
    ids = tuple(range(num_true))
    assert density_slice(Fragment(ids), num_utterances) == name
    assert density_slice(Fragment(ids + ids), num_utterances) == name


def test_an_answer_of_pictures_alone_is_sparse():
    assert density_slice(Fragment((), (0,)), 10) == "<0.15"
    assert density_slice(Fragment((), (0,)), 0) == "<0.15"


def test_empty_answers_are_not_empty_truths():
    """Of five, three truths are empty and one answer is, to one of these."""
    table = ScoreTable()
    for said, truth in (
        ([], Fragment()),
        ([1], Fragment()),
        ([2], Fragment()),
        ([0], Fragment((0,), (1, 1))),
        ([0], Fragment((1,), (0, 1))),
    ):
        table.add(answer(said), truth, num_utterances=4, num_images=2, dialogue="d")
    answers = table.summary()["answers"]
    names = ("num_empty_truths", "num_empty_answers", "num_both_empty", "num_true_images")
    assert [answers[name] for name in names] == [3, 1, 1, 3]


def test_hand_worked_table():
    table = ScoreTable()
    table.add(answer([0, 1]), Fragment((0,), ()), num_utterances=10, num_images=0, dialogue="a")
    table.add(
        f"Sure: {answer([4])}", Fragment((4,), (1,)), num_utterances=40, num_images=2, dialogue="a"
    )
    table.add("I cannot see anything.", Fragment(), num_utterances=40, num_images=2, dialogue="b")
    table.add(answer([2, 99]), Fragment((2,), ()), num_utterances=70, num_images=2, dialogue="b")
    table.add(answer([5]), None, num_utterances=9, num_images=9, dialogue="c")
    summary = table.summary()
    assert summary["answers"] == {
        "num_answers": 5,
        "num_scored": 4,
        "num_without_truth": 1,
        "num_dialogues": 2,
        "num_malformed": 2,
        "malformed_share": 0.5,
        "problems": {
            "no image ids": 1,
            "no utterance ids": 1,
            "not in the answer format": 2,
            "utterance ids out of range": 1,
        },
        "num_empty_truths": 1,
        "num_empty_answers": 1,
        "num_true_images": 1,
        "num_both_empty": 1,
    }
    scores, strict = summary["scores"], summary["strict_scores"]
    # utterances: TP 0,4,2 · FP 1,99 · FN none
    assert scores["utterance_precision"] == pytest.approx(3 / 5)
    assert scores["utterance_recall"] == 1
    assert scores["image_recall"] == 0
    assert scores["exact_match"] == 1 / 4
    assert scores["sample_utterance_f1"] == pytest.approx((2 / 3 + 1 + 1 + 2 / 3) / 4)
    # strictly the second answer names nothing, and the third scores 0 though its truth is empty
    assert strict["utterance_precision"] == pytest.approx(2 / 4)
    assert strict["utterance_recall"] == pytest.approx(2 / 3)
    assert strict["sample_utterance_f1"] == pytest.approx((2 / 3 + 0 + 0 + 2 / 3) / 4)
    assert strict["sample_joint_f1"] == pytest.approx(
        (strict["sample_utterance_f1"] + strict["sample_image_f1"]) / 2
    )
    assert strict["exact_match"] == 0
    assert [summary["by_length"][name]["num_answers"] for name in ("<35", "35-65", ">65")] == [
        1,
        2,
        1,
    ]
    assert summary["by_length"][">65"]["utterance_precision"] == 0.5
    # exact match 0,0 | 1,0: cluster sums of deviations from 1/4 are -1/2 and +1/2
    assert summary["standard_errors"]["exact_match"] == pytest.approx(
        math.sqrt(2 * (0.25 + 0.25)) / 4
    )


def test_one_dialogue_has_no_standard_error_and_none_scored_is_no_fault():
    table = ScoreTable()
    table.add(answer([1]), None, num_utterances=3, num_images=0, dialogue="a")
    summary = table.summary()
    assert summary["answers"]["num_scored"] == 0
    assert summary["answers"]["malformed_share"] is None
    for name in ("scores", "strict_scores", "standard_errors"):
        assert set(summary[name].values()) == {None}, name
    for table, names in SLICES.items():
        for name in names:
            part = summary[table][name]
            assert (part["num_answers"], part["num_dialogues"]) == (0, 0)
            assert {part[figure] for figure in FIGURE_NAMES} == {None}


def test_an_empty_slice_was_not_measured_and_a_wrong_answer_was():
    table = ScoreTable()
    table.add(answer([1]), Fragment((0,)), num_utterances=3, num_images=0, dialogue="a")
    by_length = table.summary()["by_length"]
    assert by_length["<35"]["utterance_f1"] == 0.0
    assert by_length[">65"]["utterance_f1"] is None


def test_a_response_is_read_once(monkeypatch):
    """Format, repeats and range are told by one reading; counted at the parser itself."""
    calls = []
    real = ffr.answer.parse_strict
    monkeypatch.setattr(ffr.answer, "parse_strict", lambda text: calls.append(text) or real(text))
    table = ScoreTable()
    read = table.add(
        answer([3, 3, 9]), Fragment((3,)), num_utterances=5, num_images=0, dialogue="a"
    )
    assert (read, len(calls)) == (Fragment((3, 9)), 1)
    assert table.summary()["answers"]["problems"] == {
        "utterance ids out of range": 1,
        "utterance ids repeat": 1,
    }


@pytest.mark.parametrize(
    "truth", [Fragment(), Fragment((0,)), Fragment((), (0,)), Fragment((0,), (0,))]
)
def test_a_query_that_could_not_be_answered_is_wrong_whatever_the_truth(truth):
    table = ScoreTable()
    table.add("", truth, num_utterances=3, num_images=2, dialogue="d", is_failed=True)
    summary = table.summary()
    for scores in (summary["scores"], summary["strict_scores"]):
        assert scores["sample_joint_f1"] == scores["joint_f1"] == scores["exact_match"] == 0
    assert summary["answers"]["num_malformed"] == 1
    assert summary["answers"]["problems"] == {"no answer": 1}
