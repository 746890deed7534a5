"""How well dialogues are cut into segments: Pk, WindowDiff, boundary F1, and F1 of the segments.

A segmentation is a label for each line; lines of one label belong together, side by side or not. A
boundary lies between two neighbours of different labels.

Shapes: N dialogues, n lines of one, C summed columns (`_COLUMNS`), F figures
(`SEGMENTATION_FIGURES`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ffr.dialogue import whole_numbers
from ffr.metrics.functional.figure import Array, divide
from ffr.metrics.functional.figures import fixed_point_mean, to_fixed_point
from ffr.text import counted

SEGMENTATION_FIGURES = ("pk", "window_diff", "boundary_f1", "near_boundary_f1", "segment_f1")
"""Names of the figures, in order; of the first two less is better."""

_TOLERANCES = (0, 1)
_NUM_DIALOGUES, _NUM_WINDOWED, _PK, _WINDOW_DIFF, _SEGMENT_F1, _BOUNDARIES = range(6)
_COLUMNS = _BOUNDARIES + 3 * len(_TOLERANCES)

Segmentations = Iterable[Sequence[int]]
"""For each dialogue a label a line: a list, tuple, array or tensor of whole numbers."""


def segmentation_sums(preds: Segmentations, targets: Segmentations) -> Array:
    """What each dialogue adds to the figures.

    Args:
        preds: Predicted labels of the lines of N dialogues.
        targets: True ones.

    Returns:
        int64 of shape (N, C), to be added up and given to `figures_of_segmentation`.

    Raises:
        ValueError: where numbers of dialogues or lines differ, a dialogue has no line, or a label
            is no whole number from 0.
    """
    predicted, true = list(preds), list(targets)
    if len(predicted) != len(true):
        raise ValueError(
            f"{counted(len(predicted), 'prediction')} and {counted(len(true), 'target')}: their "
            "numbers must be equal"
        )
    rows = []
    for number, (pred, target) in enumerate(zip(predicted, true, strict=True)):
        pred = whole_numbers(pred, f"prediction {number}")
        target = whole_numbers(target, f"target {number}")
        if len(pred) != len(target) or not target:
            raise ValueError(
                f"dialogue {number}: {counted(len(pred), 'predicted label')} and "
                f"{counted(len(target), 'true label')}; give one a line, and one at least"
            )
        rows.append(_row(np.array(pred), np.array(target)))
    return np.array(rows, dtype=np.int64).reshape(len(rows), _COLUMNS)


def figures_of_segmentation(sums: Array) -> Array:
    """All figures of added-up rows of `segmentation_sums`: int64 (…, C) → float64 (…, F).

    Of no dialogue each is NaN, and Pk and WindowDiff are where none has two lines.
    """
    num, windowed = sums[..., _NUM_DIALOGUES], sums[..., _NUM_WINDOWED]
    columns = [
        np.where(windowed == 0, np.nan, fixed_point_mean(sums[..., column], windowed))
        for column in (_PK, _WINDOW_DIFF)
    ]
    for place in range(len(_TOLERANCES)):
        hits, extra, missed = (sums[..., _BOUNDARIES + 3 * place + one] for one in range(3))
        wanted = 2 * hits + extra + missed
        columns.append(np.where(wanted == 0, 1.0, divide(2 * hits, wanted)))
    columns.append(fixed_point_mean(sums[..., _SEGMENT_F1], num))
    figures: Array = np.where((num == 0)[..., None], np.nan, np.stack(columns, axis=-1))
    return figures


def segmentation_figures(preds: Segmentations, targets: Segmentations) -> dict[str, Tensor]:
    """All figures of segmentations, by name: see the function of each.

    Raises:
        ValueError: as `segmentation_sums`.

    >>> found = segmentation_figures([[0, 0, 0, 1, 1, 1]], [[0, 0, 1, 1, 1, 1]])
    >>> {name: round(value.item(), 3) for name, value in found.items()}
    {'pk': 0.5, 'window_diff': 0.5, 'boundary_f1': 0.0, 'near_boundary_f1': 1.0, 'segment_f1': 0.838}
    """
    figures = figures_of_segmentation(segmentation_sums(preds, targets).sum(0))
    return dict(zip(SEGMENTATION_FIGURES, torch.from_numpy(figures).float(), strict=True))


def segmentation_pk(preds: Segmentations, targets: Segmentations) -> Tensor:
    """Share of windows at whose two ends prediction and truth disagree about a boundary between.

    Beeferman, Berger and Lafferty 1999: of all pairs of lines i and i + k, those that lie in one
    segment by the one and not by the other; k is half the mean length of the true segments, rounded
    up from the half, at least 2 and at most n − 1. The mean over dialogues of two lines or more.

    Args:
        preds: Predicted labels.
        targets: True ones.

    Raises:
        ValueError: as `segmentation_sums`.

    >>> segmentation_pk([[0, 0, 0, 0, 0, 0]], [[0, 0, 0, 1, 1, 1]])
    tensor(0.5000)
    """
    return segmentation_figures(preds, targets)["pk"]


def window_diff(preds: Segmentations, targets: Segmentations) -> Tensor:
    """Share of windows that hold another number of boundaries by prediction than by truth.

    Pevzner and Hearst 2002, with the windows of `segmentation_pk`.

    Args:
        preds: Predicted labels.
        targets: True ones.

    Raises:
        ValueError: as `segmentation_sums`.

    >>> window_diff([[0, 1, 2, 3, 4, 5]], [[0, 0, 0, 1, 1, 1]])
    tensor(1.)
    """
    return segmentation_figures(preds, targets)["window_diff"]


def boundary_f1(preds: Segmentations, targets: Segmentations, *, tolerance: int = 0) -> Tensor:
    """F1 of boundaries, counted over all dialogues; 1 where nobody has one.

    Args:
        preds: Predicted labels.
        targets: True ones.
        tolerance: By how many lines, 0 or 1, a boundary may miss; each finds one at most.

    Raises:
        ValueError: as `segmentation_sums`, and where the tolerance is another.

    >>> boundary_f1([[0, 0, 1, 1]], [[0, 1, 1, 2]])
    tensor(0.)
    >>> boundary_f1([[0, 0, 1, 1]], [[0, 1, 1, 2]], tolerance=1)
    tensor(0.6667)
    """
    if tolerance not in _TOLERANCES:
        raise ValueError(f"a tolerance of {tolerance!r} lines; give 0 or 1")
    name = "near_boundary_f1" if tolerance else "boundary_f1"
    return segmentation_figures(preds, targets)[name]


def segment_f1(preds: Segmentations, targets: Segmentations) -> Tensor:
    """F1 of the lines of each true segment with the predicted one that fits it best.

    Weighted by the true segments' lines (Shen, Yang, Sun and Chen 2006, as for conversations that
    are to be disentangled): unlike boundaries it sees which parts that stand apart belong together.
    The mean over dialogues.

    Args:
        preds: Predicted labels.
        targets: True ones.

    Raises:
        ValueError: as `segmentation_sums`.

    >>> segment_f1([[0, 0, 1, 0]], [[0, 0, 1, 0]])
    tensor(1.)
    >>> segment_f1([[0, 0, 1, 2]], [[0, 0, 1, 0]])
    tensor(0.8500)
    """
    return segmentation_figures(preds, targets)["segment_f1"]


def _row(pred: Array, target: Array) -> list[int]:
    num_lines = len(target)
    ends = [labels[:-1] != labels[1:] for labels in (pred, target)]
    segment = int(to_fixed_point(np.array(_best_fits(pred, target))))
    row = [1, int(num_lines > 1), 0, 0, segment]
    if num_lines > 1:
        mean_length = num_lines / len(np.unique(target))
        width = min(max(2, int(mean_length / 2 + 0.5)), num_lines - 1)
        inside = [np.convolve(end, np.ones(width, np.int64), "valid") for end in ends]
        differs = (inside[0] > 0) != (inside[1] > 0), inside[0] != inside[1]
        row[_PK : _WINDOW_DIFF + 1] = [int(to_fixed_point(part.mean())) for part in differs]
    found, wanted = (np.flatnonzero(end) for end in ends)
    for tolerance in _TOLERANCES:
        hits = _num_near(found, wanted, tolerance)
        row += [hits, len(found) - hits, len(wanted) - hits]
    return row


def _best_fits(pred: Array, target: Array) -> float:
    """The mean over lines of the F1 of their true segment with the predicted one that fits best."""
    total = 0.0
    for label in np.unique(target):
        is_true = target == label
        size = int(is_true.sum())
        labels, shared = np.unique(pred[is_true], return_counts=True)
        sizes = np.array([(pred == one).sum() for one in labels])
        total += size * float((2 * shared / (size + sizes)).max())
    return total / len(target)


def _num_near(found: Array, wanted: Array, tolerance: int) -> int:
    """The most pairs of a found and a wanted place, each in one, that lie so close."""
    pairs = first = second = 0
    while first < len(found) and second < len(wanted):
        if abs(found[first] - wanted[second]) <= tolerance:
            pairs, first, second = pairs + 1, first + 1, second + 1
        elif found[first] < wanted[second]:
            first += 1
        else:
            second += 1
    return pairs
