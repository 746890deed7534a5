"""The run's own record of its figures: `metrics.csv`, one row a step, cut back on resuming."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ffr.files import append, replace_text, replaced_path

METRICS_FILE = "metrics.csv"
"""In a run's folder; it is there from the moment that the first step may be taken."""


class MetricsFile:
    """Rows of figures by step in a CSV file; missing figures are empty cells.

    Args:
        path: The file; its rows after `last_step` are dropped, so that a resumed run writes each
            step once.
        columns: Names of the figures, besides `step`.
        last_step: Last step whose row is kept.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], *, last_step: int = 0) -> None:
        self.path = path
        self.columns = ("step", *columns)
        rows = (
            [row for row in read_metrics(path) if row["step"] <= last_step] if path.exists() else []
        )
        text = io.StringIO()
        writer = csv.DictWriter(
            text, self.columns, extrasaction="ignore", restval="", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        replace_text(path, text.getvalue())

    def append(self, step: int, figures: Mapping[str, float]) -> None:
        """Writes one row and hands it to the operating system at once.

        Raises:
            ValueError: for a figure that is no column; it would be lost.
        """
        if unknown := set(figures) - set(self.columns):
            raise ValueError(f"no column for {', '.join(sorted(unknown))}")
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="\n").writerow(
            {"step": step, **{name: _cell(value) for name, value in figures.items()}}
        )
        append(self.path, text.getvalue().encode())


def _cell(value: float) -> str:
    # repr keeps every bit of a float, so that two runs can be compared exactly
    return repr(value)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file, empty cells left out; a torn last line is left out too."""
    rows: list[dict[str, float]] = []
    # a damaged byte spoils its row alone, which then is no row of numbers
    text = path.read_bytes().decode("utf-8", errors="replace")
    # what has no end was being written, and the beginning of a number is another number
    lines = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    while True:
        try:
            line = next(lines)
            row = {name: float(cell) for name, cell in line.items() if name and cell}
            rows.append({**row, "step": int(row["step"])})
        except StopIteration:
            return rows
        except (TypeError, ValueError, OverflowError, KeyError, csv.Error):
            continue  # a cell longer than any number, a step that is no number


def last_figures(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The newest value of each figure in a run's rows, and the last step.

    >>> last_figures([{"step": 1, "loss": 0.5, "val_loss": 0.4}, {"step": 2, "loss": 0.3}])
    {'step': 2, 'loss': 0.3, 'val_loss': 0.4}
    """
    figures: dict[str, float] = {}
    for row in rows:
        figures.update(row)
    return figures


def reward_figures(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Names of the rewards in a run's rows: the sum first, then its terms, a user's own among them.

    >>> reward_figures([{"step": 1, "reward": 1.3, "reward_std": 0.2, "reward_f1": 1.0}])
    ['reward', 'reward_f1']
    """
    names = dict.fromkeys(name for row in rows for name in row)
    # a deviation is on another scale
    terms = [name for name in names if name.startswith("reward_") and name != "reward_std"]
    return [*(["reward"] if "reward" in names else []), *terms]


_VALIDATION_F1 = ("val_utterance_f1", "val_image_f1")


def points_of(rows: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """A figure over the steps at which it stands.

    >>> points_of([{"step": 1, "loss": 2.0}, {"step": 2}], "loss")
    [(1, 2.0)]
    """
    return [(row["step"], row[name]) for row in rows if name in row]


def draw_curve(
    metrics: Path, target: Path, *, title: str, curves: Mapping[str, str], label: str
) -> None:
    """Draws curves over steps as a PNG, and validation F1 in a panel of its own below them.

    Args:
        metrics: The run's `metrics.csv`.
        target: The PNG to write.
        title: Title of the plot.
        curves: Figures of the upper panel, each with its line style; those that the file lacks are
            left out.
        label: What the upper panel shows.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rows = read_metrics(metrics)
    validation = [
        (name, "s--", points) for name in _VALIDATION_F1 if (points := points_of(rows, name))
    ]
    panels = [
        (label, [(name, style, points_of(rows, name)) for name, style in curves.items()]),
        *([("validation F1", validation)] if validation else []),
    ]
    figure = Figure(figsize=(8, 3.2 + 2.2 * (len(panels) - 1)), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    colour = 0  # goes on from panel to panel, so that none means two things
    for axis, (words, drawn) in zip(axes, panels, strict=True):
        axis.set(ylabel=words)
        axis.grid(linewidth=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for name, style, points in drawn:
            if points:
                x, y = zip(*points, strict=True)
                axis.plot(x, y, style, color=f"C{colour}", label=name, linewidth=1, markersize=4)
                colour += 1
        if axis.get_legend_handles_labels()[1]:
            # beside the panel: nothing is hidden
            axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")
    if validation:
        axes[-1].set(ylim=(0, 1))
    axes[0].set(title=title)
    axes[-1].set(xlabel="optimizer step")
    with replaced_path(target) as scratch:
        figure.savefig(scratch, dpi=120)
