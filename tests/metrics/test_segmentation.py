"""Figures of segmentations: against nltk's own, by hand, and whatever the order of batches."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nltk.metrics.segmentation import pk, windowdiff

from ffr.metrics import BoundaryF1, SegmentationPk, SegmentationScores, SegmentF1, WindowDiff
from ffr.metrics.functional import (
    boundary_f1,
    segment_f1,
    segmentation_figures,
    segmentation_pk,
    window_diff,
)

_labels = st.integers(2, 40).flatmap(
    lambda num: st.tuples(
        *[st.lists(st.integers(0, 4), min_size=num, max_size=num) for _ in range(2)]
    )
)


def _gaps(labels: list[int]) -> str:
    """Boundaries between lines as nltk writes them."""
    return "".join(str(int(one != two)) for one, two in itertools.pairwise(labels))


def _width(truth: list[int]) -> int:
    half = len(truth) / len(set(truth)) / 2
    return min(max(2, math.floor(half + 0.5)), len(truth) - 1)


@given(_labels)
def test_pk_and_window_diff_are_those_of_nltk(pair: tuple[list[int], list[int]]) -> None:
    pred, truth = pair
    width = _width(truth)
    gaps = _gaps(truth), _gaps(pred)
    assert segmentation_pk([pred], [truth]).item() == pytest.approx(pk(*gaps, k=width), abs=1e-6)
    found = window_diff([pred], [truth]).item()
    assert found == pytest.approx(windowdiff(*gaps, k=width), abs=1e-6)


def test_figures_by_hand() -> None:
    # true: lines 0-3 | 4-7; predicted: 0-4 | 5 | 6-7
    truth, pred = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 2, 2]
    found = {name: value.item() for name, value in segmentation_figures([pred], [truth]).items()}
    # k = 2: pairs (0,2) … (5,7); true boundary in (2,4), (3,5); predicted in (3,5), (4,6), (5,7)
    assert found["pk"] == pytest.approx(3 / 6)
    # counts by truth 0 0 1 1 0 0, by prediction 0 0 0 1 2 1
    assert found["window_diff"] == pytest.approx(3 / 6)
    assert found["boundary_f1"] == 0
    assert found["near_boundary_f1"] == pytest.approx(2 * 1 / (2 + 1))
    # 0-3 with 0-4: 8/9; 4-7 with 6-7: 4/6
    assert found["segment_f1"] == pytest.approx((8 / 9 + 4 / 6) / 2)


def test_a_boundary_finds_one_other_at_most() -> None:
    # predicted before and behind the one true boundary
    pred, truth = [0, 0, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1]
    assert boundary_f1([pred], [truth], tolerance=1).item() == pytest.approx(2 / 3)
    assert boundary_f1([pred], [truth]).item() == pytest.approx(2 / 3)
    # the one that lies exactly is not given away to its neighbour
    pred, truth = [0, 1, 2, 2, 2], [0, 1, 1, 2, 2]
    assert boundary_f1([pred], [truth], tolerance=1).item() == pytest.approx(1)


@given(_labels)
def test_bounds_and_what_agrees(pair: tuple[list[int], list[int]]) -> None:
    pred, truth = pair
    found = {name: value.item() for name, value in segmentation_figures([pred], [truth]).items()}
    assert all(0 <= value <= 1 for value in found.values())
    assert found["pk"] <= found["window_diff"] + 1e-6
    assert found["boundary_f1"] <= found["near_boundary_f1"]
    own = {name: value.item() for name, value in segmentation_figures([truth], [truth]).items()}
    assert own == {
        "pk": 0, "window_diff": 0, "boundary_f1": 1, "near_boundary_f1": 1, "segment_f1": 1,
    }  # fmt: skip


@given(st.lists(_labels, min_size=1, max_size=6), st.permutations(range(6)))
def test_no_order_of_batches_changes_a_bit(
    pairs: list[tuple[list[int], list[int]]], order: list[int]
) -> None:
    whole = SegmentationScores()
    whole.update([pred for pred, _ in pairs], [truth for _, truth in pairs])
    by_one = SegmentationScores()
    for number in order:
        if number < len(pairs):
            by_one.update([pairs[number][0]], [pairs[number][1]])
    assert whole.compute() == by_one.compute()


def test_the_classes_give_what_the_functions_give() -> None:
    preds, truths = [[0, 0, 1, 1, 1], [0, 1, 0]], [[0, 0, 0, 1, 1], [0, 0, 1]]
    for metric, wanted in (
        (SegmentationPk(), segmentation_pk(preds, truths)),
        (WindowDiff(), window_diff(preds, truths)),
        (BoundaryF1(), boundary_f1(preds, truths)),
        (BoundaryF1(tolerance=1), boundary_f1(preds, truths, tolerance=1)),
        (SegmentF1(), segment_f1(preds, truths)),
    ):
        metric.update(preds, truths)
        assert torch.equal(metric.compute(), wanted)
    assert not SegmentationPk.higher_is_better
    assert BoundaryF1.higher_is_better


def test_what_has_no_figure_has_none() -> None:
    one_line = segmentation_figures([[0]], [[0]])
    assert one_line["pk"].isnan()
    assert one_line["segment_f1"] == 1
    assert all(value.isnan() for value in segmentation_figures([], []).values())


@pytest.mark.parametrize(
    ("preds", "truths", "words"),
    [
        ([[0]], [], "1 prediction and 0 targets"),
        ([[0]], [[0, 1]], "dialogue 0: 1 predicted label and 2 true labels"),
        ([[]], [[]], "one at least"),
        ([[0.5]], [[0]], "prediction 0"),
        ([["a"]], [[0]], "prediction 0"),
    ],
)
def test_what_is_no_segmentation_is_refused(preds: list, truths: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        segmentation_figures(preds, truths)


def test_other_tolerances_are_refused() -> None:
    with pytest.raises(ValueError, match="a tolerance of 2 lines"):
        boundary_f1([[0]], [[0]], tolerance=2)
    with pytest.raises(ValueError, match="a tolerance of 2 lines"):
        BoundaryF1(tolerance=2)
