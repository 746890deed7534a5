"""Fragment metrics against hand-worked values, an independent reference, and their own properties."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import random

import fragment_ddp
import fragment_reference as reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ffr.dialogue import Fragment
from ffr.metrics import (
    FragmentExactMatch,
    FragmentF1,
    FragmentMcc,
    FragmentPrecision,
    FragmentRecall,
    FragmentScores,
)
from ffr.metrics.functional import (
    fragment_counts,
    fragment_exact_match,
    fragment_f1,
    fragment_mcc,
    fragment_precision,
    fragment_recall,
    fragment_scores,
    scores_from_counts,
)

ids = st.lists(st.integers(0, 9), max_size=8).map(tuple)
fragments = st.tuples(ids, ids)
samples = st.lists(
    st.tuples(fragments, fragments, st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12
)


def columns(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def test_hand_worked():
    # dialogue of 6 utterances, 3 images: utterances TP {1,2} FP {0} FN {3} TN {4,5}; images TP {} FP {} FN {2} TN {0,1}
    # dialogue of 4 utterances, no image: an exact answer, utterances TP {0} TN {1,2,3}
    preds = [((0, 1, 2), ()), ((0,), ())]
    targets = [((1, 2, 3), (2,)), ((0,), ())]
    assert fragment_counts(preds, targets, [6, 4], [3, 0]).tolist() == [
        [[2, 1, 1, 2], [0, 0, 1, 2]],
        [[1, 0, 0, 3], [0, 0, 0, 0]],
    ]
    scores = {
        name: value.item()
        for name, value in fragment_scores(preds, targets, [6, 4], [3, 0]).items()
    }
    expected = {
        "utterance_precision": 3 / 4,
        "utterance_recall": 3 / 4,
        "utterance_f1": 3 / 4,
        "utterance_mcc": (3 * 5 - 1) / (4 * 4 * 6 * 6) ** 0.5,
        "image_precision": 0,  # nothing predicted
        "image_recall": 0,
        "image_f1": 0,
        "image_mcc": 0,
        "joint_precision": 0,
        "joint_recall": 0,
        "joint_f1": 3 / 8,
        "joint_mcc": (3 * 5 - 1) / (4 * 4 * 6 * 6) ** 0.5 / 2,
        "sample_utterance_precision": (2 / 3 + 1) / 2,
        "sample_utterance_recall": (2 / 3 + 1) / 2,
        "sample_utterance_f1": (2 / 3 + 1) / 2,
        "sample_utterance_mcc": ((4 - 1) / 9 + 1) / 2,
        "sample_image_precision": 1 / 2,  # the second truth has no image and none was predicted
        "sample_image_recall": 1 / 2,
        "sample_image_f1": 1 / 2,
        "sample_image_mcc": 1 / 2,
        "sample_joint_precision": 2 * (5 / 6) * (1 / 2) / (5 / 6 + 1 / 2),
        "sample_joint_recall": 2 * (5 / 6) * (1 / 2) / (5 / 6 + 1 / 2),
        "sample_joint_f1": (5 / 6 + 1 / 2) / 2,
        "sample_joint_mcc": (2 / 3 + 1 / 2) / 2,
    }
    assert scores == pytest.approx(expected, abs=1e-7)


def test_perfect_answers_score_exactly_one():
    truth = [((0, 5, 7), (1,)), ((2,), (0, 2))]
    scores = scores_from_counts(fragment_counts(truth, truth, [11, 13], [3, 7]))
    assert {name: value.item() for name, value in scores.items()} == dict.fromkeys(scores, 1.0)


@pytest.mark.parametrize(
    ("pred", "target", "expected"),
    [((), (), 1.0), ((0,), (), 0.0), ((), (0,), 0.0), ((0,), (0,), 1.0)],
)
def test_per_sample_convention_for_empty_lists(pred, target, expected):
    scores = fragment_scores([(pred, pred)], [(target, target)], [3], [3])
    assert {value.item() for name, value in scores.items() if name.startswith("sample_")} == {
        expected
    }


def test_all_right_where_everything_is_true_has_no_mcc():
    # (TN+FP) = 0: the correlation is undefined and counts 0, as stated
    assert fragment_mcc([((0, 1), ())], [((0, 1), ())], [2], [0], modality="utterance") == 0


def test_ids_beyond_the_dialogue_are_false_positives():
    assert fragment_counts([((0, 99), (5,))], [((0,), ())], [3], [1]).tolist() == [
        [[1, 1, 0, 2], [0, 1, 0, 1]]
    ]


@settings(max_examples=150, deadline=None)
@given(samples)
def test_parity_with_reference(rows):
    arguments = columns(rows)
    ours = scores_from_counts(fragment_counts(*arguments))
    theirs = reference.scores(*arguments)
    assert ours.keys() == theirs.keys()
    assert {name: value.item() for name, value in ours.items()} == pytest.approx(theirs, abs=1e-11)


@settings(max_examples=60, deadline=None)
@given(samples, st.randoms(use_true_random=False))
def test_properties(rows, shuffler):
    arguments = columns(rows)
    scores = scores_from_counts(fragment_counts(*arguments))
    for name, value in scores.items():
        assert (-1 if name.endswith("mcc") else 0) <= value.item() <= 1
    swapped = scores_from_counts(fragment_counts(arguments[1], arguments[0], *arguments[2:]))
    for modality in ("utterance", "image"):
        assert scores[f"{modality}_precision"] == swapped[f"{modality}_recall"]
        assert scores[f"{modality}_f1"] == swapped[f"{modality}_f1"]
        assert scores[f"{modality}_mcc"] == swapped[f"{modality}_mcc"]
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert scores_from_counts(fragment_counts(*columns(shuffled))) == scores


@settings(max_examples=40, deadline=None)
@given(samples, st.integers(1, 5))
def test_batches_equal_all_at_once(rows, batch_size):
    metric = FragmentScores()
    for start in range(0, len(rows), batch_size):
        metric.update(*columns(rows[start : start + batch_size]))
    assert metric.compute() == fragment_scores(*columns(rows))


def test_classes_equal_functions_and_survive_pickling():
    draw = random.Random(5)

    def fragment():
        return Fragment.of(
            draw.sample(range(12), draw.randint(0, 6)), draw.sample(range(4), draw.randint(0, 2))
        )

    rows = [(fragment(), fragment(), 12, 4) for _ in range(20)]
    arguments = columns(rows)
    pairs = [
        (FragmentPrecision, fragment_precision),
        (FragmentRecall, fragment_recall),
        (FragmentF1, fragment_f1),
        (FragmentMcc, fragment_mcc),
    ]
    for metric_class, function in pairs:
        for modality in ("utterance", "image", "joint"):
            for average in ("global", "sample"):
                metric = metric_class(modality=modality, average=average)
                metric.update(*columns(rows[:7]))
                metric = pickle.loads(pickle.dumps(metric))
                metric.update(*columns(rows[7:]))
                assert metric.compute() == function(*arguments, modality=modality, average=average)
                metric.reset()
                assert metric.num_samples == 0
    exact = FragmentExactMatch()
    exact.update(arguments[0], arguments[0])
    exact.update(arguments[0], arguments[1])
    assert exact.compute() == fragment_exact_match(arguments[0] * 2, arguments[0] + arguments[1])


def test_no_sample_scores_zero():
    with pytest.warns(UserWarning, match="before the ``update``"):
        scores = FragmentScores().compute()
    assert set(scores.values()) == {torch.tensor(0.0)} or all(
        value == 0 for value in scores.values()
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([((0,), ())], [], [1], [0]), "1 prediction, 0 targets, 1 and 1 dialogue sizes"),
        (
            ([((-1,), ())], [((0,), ())], [1], [0]),
            "prediction 0: utterance ids hold -1; write whole numbers that count from 0",
        ),
        (
            ([((0,), ())], [((0,), ())], [-2], [0]),
            "num_utterances hold -2; write whole numbers that count from 0",
        ),
    ],
)
def test_wrong_calls_say_what_is_wrong(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        fragment_scores(*arguments)


def test_unknown_names():
    with pytest.raises(
        ValueError, match="modality 'text' is unknown; choose one of utterance, image, joint"
    ):
        FragmentF1(modality="text")
    with pytest.raises(
        ValueError, match="average 'macro' is unknown; choose one of global, sample"
    ):
        fragment_f1([], [], [], [], average="macro")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    draw = random.Random(11)

    def pair():
        return (
            tuple(draw.sample(range(30), draw.randint(0, 9))),
            tuple(draw.sample(range(5), draw.randint(0, 3))),
        )

    rows = [(pair(), pair(), 30, 5) for _ in range(25)]
    # a server that imports once and forks twice
    multiprocessing.get_context("forkserver").set_forkserver_preload([fragment_ddp.__name__])
    torch.multiprocessing.start_processes(
        fragment_ddp.score_share, (2, str(tmp_path), rows), nprocs=2, start_method="forkserver"
    )
    arguments = columns(rows)
    alone = {name: value.item() for name, value in fragment_scores(*arguments).items()}
    alone["exact"] = fragment_exact_match(*arguments[:2]).item()
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == alone


def test_whole_numbers_stay_whole_whatever_type_is_asked_for() -> None:
    for metric in (FragmentScores(), FragmentExactMatch()):
        plain, half = metric.clone(), metric.clone()
        assert half.set_dtype(torch.float16) is half
        for one in (plain, half):
            for _ in range(3):
                sizes = {"num_utterances": [4], "num_images": [0]}
                more = sizes if isinstance(one, FragmentScores) else {}
                one.update([((0, 1), ())], [((0, 1, 2), ())], **more)
        assert {state.dtype for state in half.metric_state.values()} == {torch.int64}
        first, second = plain.compute(), half.compute()
        assert first == second if isinstance(first, dict) else bool(first == second)
