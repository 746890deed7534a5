"""The one table of figures, and what is made of it with numpy alone: counts, figures, names, means.

States of metrics, intervals, scores, tables, the page and the gate take names, columns and sizes
from `FIGURES`. Nothing here imports torch; `ffr.metrics.functional.fragment` hands the same out as
tensors.

Shapes: N samples; the modality axis is (utterance, image), 2 long; the count axis is
(TP, FP, FN, TN), 4 long; the figure axis has the order of `FIGURES`, F long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np

from ffr.metrics.functional import ratios
from ffr.metrics.functional.figure import Array, Figure, divide
from ffr.metrics.functional.inputs import Fragments, read_fragments, read_sizes
from ffr.text import counted

Modality = Literal["utterance", "image", "joint"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

FIGURES: tuple[Figure, ...] = (
    ratios.PRECISION,
    ratios.RECALL,
    ratios.F1,
    ratios.MCC,
)
"""All figures, in the order of their columns."""

NUM_MODALITIES = 2
NUM_COUNTS = 4
F1 = FIGURES.index(ratios.F1)
"""Column of F1 on the figure axis."""
MCC = FIGURES.index(ratios.MCC)
"""Column of MCC on the figure axis."""

SAMPLE_SCALE = 2**40
"""Figures of samples are summed as whole multiples of 2^-40, here and in intervals: no order of
batches, processes or resamples changes a bit, and a figure is never outside its own interval."""

SAMPLE_PREFIX = "sample_"
"""Stands before the name of a mean over samples."""


def figure_names(modalities: Iterable[Modality] = MODALITIES, *, prefix: str = "") -> list[str]:
    """Names of all figures of these modalities: `utterance_precision`, …, modality by modality.

    >>> figure_names(["joint"])
    ['joint_precision', 'joint_recall', 'joint_f1', 'joint_mcc']
    """
    return [f"{prefix}{modality}_{figure.name}" for modality in modalities for figure in FIGURES]


def confusion_counts(
    preds: Fragments,
    targets: Fragments,
    num_utterances: Iterable[int] | None = None,
    num_images: Iterable[int] | None = None,
) -> Array:
    """Confusion counts of each sample, by modality, as `fragment_counts` describes them.

    Without sizes no TN is known and 0 stands in its place; figures that need it are to be left out.

    Returns:
        int64 of shape (N, 2, 4).

    Raises:
        ValueError: where the numbers differ, or something is no fragment or no size.
    """
    predicted = read_fragments(preds, "prediction")
    true = read_fragments(targets, "target", is_truth=True)
    sizes = read_sizes(num_utterances, num_images)
    given = [len(predicted), len(true), *map(len, sizes or ())]
    if len(set(given)) != 1:
        of_sizes = f", {given[2]} and {given[3]} dialogue sizes" if sizes else ""
        raise ValueError(
            f"{counted(given[0], 'prediction')}, {counted(given[1], 'target')}{of_sizes}: their "
            "numbers must be equal"
        )
    rows: list[list[list[int]]] = []
    for number, (pred, target) in enumerate(zip(predicted, true, strict=True)):
        row: list[list[int]] = []
        for place, (pred_ids, true_ids) in enumerate(
            (
                (set(pred.utterance_ids), set(target.utterance_ids)),
                (set(pred.image_ids), set(target.image_ids)),
            )
        ):
            hits = len(pred_ids & true_ids)
            num_true_negatives = 0
            if sizes:
                size = sizes[place][number]
                # an id beyond the dialogue is a false positive or negative, never a true negative
                num_true_negatives = size - sum(item < size for item in pred_ids | true_ids)
            row.append([hits, len(pred_ids) - hits, len(true_ids) - hits, num_true_negatives])
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(len(rows), NUM_MODALITIES, NUM_COUNTS)


def figures_of(counts: Array) -> Array:
    """All figures of confusion counts: int64 (…, 4) → float64 (…, F)."""
    # over arrays of at least one axis, so that a formula always gets arrays
    tp, fp, fn, tn = (np.atleast_1d(counts[..., place]) for place in range(NUM_COUNTS))
    columns = [figure.of_counts(tp, fp, fn, tn) for figure in FIGURES]
    return np.stack(columns, axis=-1).reshape(*counts.shape[:-1], len(FIGURES))


def sample_figures_of(counts: Array) -> Array:
    """The figures of each sample; of an empty truth all are 1 for an empty prediction, else 0."""
    tp, fp, fn = counts[..., 0], counts[..., 1], counts[..., 2]
    is_truth_empty, is_pred_empty = tp + fn == 0, tp + fp == 0
    by_convention = is_pred_empty[..., None].astype(np.float64)
    figures: Array = np.where(is_truth_empty[..., None], by_convention, figures_of(counts))
    return figures


def is_exact(counts: Array) -> Array:
    """Whether a sample names just the true ids of both modalities: (…, 2, 4) → bool (…)."""
    exact: Array = (counts[..., 1:3] == 0).all(axis=(-2, -1))
    return exact


def joined(figures: Array) -> Array:
    """The joint figures of (…, 2, F), each by its own mean: (…, F)."""
    utterance, image = figures[..., 0, :], figures[..., 1, :]
    columns = [
        figure.join(utterance[..., column], image[..., column])
        for column, figure in enumerate(FIGURES)
    ]
    return np.stack(columns, axis=-1)


def with_joint(figures: Array) -> Array:
    """The figures of both modalities and the joint ones, in the order of `figure_names`.

    Args:
        figures: float64 of shape (…, 2, F).

    Returns:
        float64 of shape (…, 3·F).
    """
    return np.concatenate((figures[..., 0, :], figures[..., 1, :], joined(figures)), axis=-1)


def to_fixed_point(values: Array) -> Array:
    """Values as int64 multiples of 1/`SAMPLE_SCALE`, whose sums are exact in any order."""
    fixed: Array = np.rint(values * SAMPLE_SCALE).astype(np.int64)
    return fixed


def fixed_point_mean(sums: Array, num: Array) -> Array:
    """The mean of `num` values from the sum of them in fixed point; 0 of none."""
    return divide(sums, num * SAMPLE_SCALE)


def scores_of_sums(counts: Array, sample_sums: Array, num_samples: Array) -> Array:
    """Global figures, then means over samples, in the order of `score_names`.

    Args:
        counts: Summed counts, int64 of shape (…, 2, 4).
        sample_sums: Summed figures of samples in fixed point, int64 of shape (…, 2, F).
        num_samples: int64 of shape (…).

    Returns:
        float64 of shape (…, 6·F).
    """
    means = fixed_point_mean(sample_sums, num_samples[..., None, None])
    return np.concatenate((with_joint(figures_of(counts)), with_joint(means)), axis=-1)


def score_names() -> list[str]:
    """Names of what `scores_of_sums` gives."""
    return figure_names() + figure_names(prefix=SAMPLE_PREFIX)


def names_that_need_sizes() -> set[str]:
    """Those of `score_names` that are known only with the sizes of the dialogues.

    >>> sorted(names_that_need_sizes())[:2]
    ['image_mcc', 'joint_mcc']
    """
    return {
        f"{prefix}{modality}_{figure.name}"
        for prefix in ("", SAMPLE_PREFIX)
        for modality in MODALITIES
        for figure in FIGURES
        if figure.needs_sizes
    }
