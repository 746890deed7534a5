"""How sure a figure is: 95 % intervals by resampling whole dialogues.

Queries on one dialogue are correlated.

A resample draws as many dialogues as there are, with replacement, each with all its answers, and
every figure is computed anew from the sums over them: global figures from summed counts, means from
summed sample figures. An interval is what lies between the 2.5th and the 97.5th percentile of a
figure over the resamples (Efron and Tibshirani 1993, chapter 13; clusters as in Field and Welsh
2007).

Shapes: N answers, G dialogues, R resamples, K columns of sums, F figures (`FIGURE_NAMES`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ffr.evaluation.figures import FIGURE_NAMES, SCORE_NAMES, STRICT_PREFIX
from ffr.evaluation.scoring import IS_FIXED_POINT, SLICES, ScoredRows, figures_of_sums
from ffr.metrics.functional.figure import Array

NUM_RESAMPLES = 10_000
LEVEL = 0.95

Slice = tuple[str, str]
"""A table of `ffr.evaluation.scoring.SLICES` and the name of a slice in it."""
ALL: Slice = ("all", "all")
"""Stands for the whole data beside the slices."""

# Whole numbers below 2^53 add up exactly in float64 in any order, so that no machine, library or
# number of threads changes a bit of an interval. Fixed-point columns are larger than that: their
# low 20 bits and the rest are added up by themselves.
_LOW_BITS = 20
_BLOCK_CELLS = 2**20
_DRAW_CELLS = 2**14


def draw_dialogues(
    num_dialogues: int, num_resamples: int, seed: int
) -> Iterator[npt.NDArray[np.float64]]:
    """How often each dialogue comes in each resample of as many draws with replacement.

    Made of the raw words of PCG64, whose stream numpy keeps the same over versions; the k-th of G
    dialogues is drawn with a probability that differs from 1/G by under 2^-32.

    Args:
        num_dialogues: G; at least 1.
        num_resamples: R.
        seed: Any whole number.

    Yields:
        float64 of shape (block, G), the blocks of all R rows in order.

    >>> draws = np.concatenate(list(draw_dialogues(5, 1000, seed=0)))
    >>> draws.shape, set(draws.sum(1).tolist())
    ((1000, 5), {5.0})
    """
    generator = np.random.PCG64(seed % 2**64)
    # small pieces, so that drawing and counting stay within the processor's cache
    piece = max(1, _DRAW_CELLS // num_dialogues)
    block = max(1, _BLOCK_CELLS // num_dialogues)
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        counts = np.empty((size, num_dialogues))
        for first in range(0, size, piece):
            num_rows = min(piece, size - first)
            num_cells = num_rows * num_dialogues
            words = generator.random_raw((num_cells + 1) // 2).view(np.uint32)[:num_cells]
            drawn = (
                ((words * np.uint64(num_dialogues)) >> np.uint64(32))
                .view(np.int64)
                .reshape(num_rows, -1)
            )
            drawn += np.arange(num_rows)[:, None] * num_dialogues
            counts[first : first + num_rows] = np.bincount(
                drawn.ravel(), minlength=num_cells
            ).reshape(num_rows, -1)
        yield counts


def resample_figures(
    rows: ScoredRows, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[Slice, npt.NDArray[np.float64]]:
    """Every figure in every resample of the dialogues.

    Rows on the same dialogues in the same order meet the same resamples under the same seed, so
    that figures of two models on the same data are paired.

    Args:
        rows: The scored answers.
        seed: Seed of the draws.
        num_resamples: R.

    Returns:
        For the whole data (`ALL`) and each slice that holds answers on at least two dialogues:
        float64 of shape (R, F), NaN where a resample met no dialogue of the slice. What is missing
        has no interval: one dialogue does not tell how dialogues differ.
    """
    members = _slice_members(rows)
    if not members:
        return {}
    # Answers that share dialogue and all slices are summed beforehand. An answer is then in one sum
    # only, whatever the number of slices, and slices are put together from the totals of the cells.
    cells = _cells(rows)
    numbers = number_dialogues(rows)
    number_of_row = np.array([numbers[name] for name in rows.dialogues])
    columns = _columns(rows)
    sums: list[tuple[Array, Array]] = []
    for its_rows in cells.values():
        its_numbers, inverse = np.unique(number_of_row[its_rows], return_inverse=True)
        total = np.zeros((len(its_numbers), columns.shape[1]))
        np.add.at(total, inverse, columns[its_rows])
        sums.append((its_numbers, total))
    is_member = np.array(
        [
            [table == "all" or label[list(SLICES).index(table)] == name for label in cells]
            for table, name in members
        ],
        dtype=np.float64,
    )
    found: dict[Slice, list[Array]] = {member: [] for member in members}
    for weights in draw_dialogues(len(numbers), num_resamples, seed):
        totals = np.stack(
            [_columns_of(weights, its_numbers) @ total for its_numbers, total in sums]
        )
        by_member = (is_member @ totals.reshape(len(totals), -1)).reshape(-1, *totals.shape[1:])
        for member, part in zip(members, by_member, strict=True):
            found[member].append(_figures(part))
    return {member: np.concatenate(parts) for member, parts in found.items()}


def number_dialogues(rows: ScoredRows) -> dict[str, int]:
    """The number under which each dialogue is drawn; those of like slices mostly stand together."""
    numbers: dict[str, int] = {}
    for its_rows in _cells(rows).values():
        for row in its_rows:
            numbers.setdefault(rows.dialogues[row], len(numbers))
    return numbers


def percentile_interval(
    values: npt.NDArray[np.float64], level: float = LEVEL
) -> npt.NDArray[np.float64]:
    """Both ends of the middle `level` of each column, NaN rows left out.

    Args:
        values: float64 of shape (R, …).
        level: Share that lies between the ends.

    Returns:
        float64 of shape (2, …).

    >>> percentile_interval(np.arange(101.0), 0.9)
    array([ 5., 95.])
    """
    defined = values[~np.isnan(values.reshape(len(values), -1)).any(1)]
    ends: npt.NDArray[np.float64] = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends


def interval_table(
    rows: ScoredRows, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, Any]:
    """The intervals of all figures, JSON-ready, laid out as the summary of the figures is.

    Args:
        rows: The scored answers.
        seed: Seed of the draws.
        num_resamples: Number of resamples.

    Returns:
        `level`, `num_resamples`, `seed`, `num_dialogues`; then `scores`, `strict_scores` and the
        tables of slices: figure → [low, high]. Where all answers (of a slice) are on one dialogue
        there is no interval, and None stands for it.
    """
    found: dict[Slice, dict[str, list[float]]] = {}
    for name, values in resample_figures(rows, seed=seed, num_resamples=num_resamples).items():
        part = rows if name == ALL else rows.of(*name)
        point = figures_of_sums(part.sums().sum(0))
        low, high = percentile_interval(values)
        ends = np.stack((np.minimum(low, point), np.maximum(high, point)))
        found[name] = dict(zip(FIGURE_NAMES, ends.T.tolist(), strict=True))
    whole = found.get(ALL)
    return {
        "level": LEVEL,
        "num_resamples": num_resamples,
        "seed": seed,
        "num_dialogues": len(set(rows.dialogues)),
        "scores": whole and {name: whole[name] for name in SCORE_NAMES},
        "strict_scores": whole and {name: whole[STRICT_PREFIX + name] for name in SCORE_NAMES},
        **{
            table: {name: found.get((table, name)) for name in names}
            for table, names in SLICES.items()
        },
    }


def clustered_means(
    values: npt.NDArray[np.float64],
    clusters: Sequence[str],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> list[tuple[float | None, list[float] | None]]:
    """Means of columns and their intervals, by resampling whole clusters.

    Args:
        values: (N, F) float64; NaN where a row has no such value, which then counts nowhere.
        clusters: N names of what is drawn, the dialogue of each row.
        seed: Seed of the draws.
        num_resamples: R.

    Returns:
        For each column its mean, None where no row has it, and [low, high], None where fewer than
        two clusters have it.

    Raises:
        ValueError: where there is not one cluster's name for each row.

    >>> clustered_means(np.array([[1.0, np.nan], [0.0, np.nan]]), ["d", "d"])
    [(0.5, None), (None, None)]
    """
    if values.ndim != 2 or len(values) != len(clusters):
        raise ValueError(f"values {values.shape} of {len(clusters)} clusters; give (rows, columns)")
    if not len(values):
        return [(None, None)] * values.shape[1]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    of_row = np.array([numbers[name] for name in clusters])
    is_there = ~np.isnan(values)
    sums, sizes = (np.zeros((len(numbers), values.shape[1])) for _ in range(2))
    np.add.at(sums, of_row, np.where(is_there, values, 0.0))
    np.add.at(sizes, of_row, is_there)
    drawn = np.concatenate(
        [
            np.stack([weights @ sums, weights @ sizes])
            for weights in draw_dialogues(len(numbers), num_resamples, seed)
        ],
        axis=1,
    )
    found: list[tuple[float | None, list[float] | None]] = []
    for column in range(values.shape[1]):
        total, size = sums[:, column].sum(), sizes[:, column].sum()
        mean = float(total / size) if size else None
        interval = None
        if mean is not None and (sizes[:, column] > 0).sum() > 1:
            own = drawn[:, :, column]
            low, high = percentile_interval(own[0, own[1] > 0] / own[1, own[1] > 0])
            interval = [min(float(low), mean), max(float(high), mean)]
        found.append((mean, interval))
    return found


def undefined_note(rows: ScoredRows) -> list[str]:
    """What a reader must know where there can be no interval at all; empty otherwise."""
    if len(set(rows.dialogues)) != 1:
        return []
    return [
        "No intervals: all scored queries are on one dialogue, which does not tell how dialogues "
        "differ."
    ]


def _slice_members(rows: ScoredRows) -> list[Slice]:
    """The whole data and the slices with answers on two dialogues or more."""
    found: dict[Slice, set[str]] = {ALL: set(rows.dialogues)}
    for table, names in SLICES.items():
        found |= {(table, name): set() for name in names}
        for name, dialogue in zip(rows.slices[table], rows.dialogues, strict=True):
            if name is not None:
                found[table, name].add(dialogue)
    return [member for member, its_dialogues in found.items() if len(its_dialogues) > 1]


def _cells(rows: ScoredRows) -> dict[tuple[str | None, ...], list[int]]:
    """Rows by the slices they are in, one slice of each table."""
    cells: dict[tuple[str | None, ...], list[int]] = {}
    for row, label in enumerate(zip(*(rows.slices[table] for table in SLICES), strict=True)):
        cells.setdefault(label, []).append(row)
    return cells


def _columns_of(weights: Array, numbers: Array) -> Array:
    """The columns of these ascending numbers; a view where they stand together.

    Copying costs more than the product.
    """
    first, last = int(numbers[0]), int(numbers[-1]) + 1
    return weights[:, first:last] if last - first == len(numbers) else weights[:, numbers]


def _columns(rows: ScoredRows) -> Array:
    """What is summed over a resample, for each answer: whole numbers in float64, (N, K + wide)."""
    sums = rows.sums()
    low = np.where(IS_FIXED_POINT, sums & (2**_LOW_BITS - 1), sums)
    return np.concatenate((low, sums[:, IS_FIXED_POINT] >> _LOW_BITS), axis=1).astype(np.float64)


def _figures(totals: Array) -> Array:
    """The F figures of sums of `_columns`, NaN where there is no answer: (R, …) → (R, F)."""
    whole = totals.astype(np.int64)
    sums = whole[:, : len(IS_FIXED_POINT)]
    sums[:, IS_FIXED_POINT] += whole[:, len(IS_FIXED_POINT) :] << _LOW_BITS
    figures = figures_of_sums(sums)
    figures[sums[:, 0] == 0] = np.nan
    return figures
