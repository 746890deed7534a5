"""Two pictures of a curriculum: the items by F1 and entropy, and the levels of a run's steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ffr.errors import DataError
from ffr.files import replaced_path
from ffr.run_log import read_metrics
from ffr.training.curriculum.order import (
    LEVEL_COLUMNS,
    LEVELS,
    Difficulty,
    assign_levels,
    kept_items,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("tab:green", "tab:blue", "tab:orange", "tab:red")  # of LEVELS


def _new_figure() -> Figure:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    return Figure(figsize=(8, 4.5), layout="constrained")


def draw_scatter(difficulties: Sequence[Difficulty], target: Path, *, title: str) -> None:
    """Draws every item by F1 and entropy as a PNG, in its level's colour, filled where kept."""
    levels = assign_levels(difficulties)
    kept = set(kept_items(difficulties, levels))
    figure = _new_figure()
    axes = figure.subplots()
    for level, color in zip(LEVELS, _COLORS, strict=True):
        for is_filled in (False, True):
            items = [
                item
                for index, item in enumerate(difficulties)
                if levels[index] == level and (index in kept) == is_filled
            ]
            axes.scatter(
                [item.entropy for item in items],
                [item.f1 for item in items],
                s=18,
                edgecolors=color,
                facecolors=color if is_filled else "none",
                linewidths=0.8,
                label=f"{level}, {'kept' if is_filled else 'left out'}: {len(items)}",
            )
    axes.set(
        xlabel="entropy of the answer (nats)",
        ylabel="F1 of the answer",
        title=title,
        ylim=(-0.03, 1.03),
    )
    figure.legend(loc="outside right upper", fontsize="small")
    with replaced_path(target) as scratch:
        figure.savefig(scratch, dpi=120)


def draw_level_mix(metrics: Path, target: Path, *, title: str) -> None:
    """Draws the share of each level over the steps of a run, from its `metrics.csv`, as a PNG.

    Raises:
        DataError: where no step has these figures.
    """
    rows = [row for row in read_metrics(metrics) if all(column in row for column in LEVEL_COLUMNS)]
    if not rows:
        raise DataError(
            f"has no step with {', '.join(LEVEL_COLUMNS)}; was it a run with difficulties?",
            where=str(metrics),
        )
    figure = _new_figure()
    axes = figure.subplots()
    shares = [[row[column] for row in rows] for column in LEVEL_COLUMNS]
    axes.stackplot([row["step"] for row in rows], shares, labels=LEVELS, colors=_COLORS, alpha=0.8)
    axes.set(
        xlabel="optimizer step", ylabel="share of the step's prompts", title=title, ylim=(0, 1)
    )
    axes.margins(x=0)
    figure.legend(loc="outside right upper")
    with replaced_path(target) as scratch:
        figure.savefig(scratch, dpi=120)
