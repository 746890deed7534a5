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


def draw_curve(
    metrics: Path, target: Path, *, title: str, curves: Mapping[str, str], label: str
) -> None:
    """Draws curves over steps (left axis) with validation F1 (right axis) as a PNG.

    Args:
        metrics: The run's `metrics.csv`.
        target: The PNG to write.
        title: Title of the plot.
        curves: Figures of the left axis, each with its line style; those that the file lacks are
            left out.
        label: What the left axis shows.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    left = figure.subplots()
    for name, style in curves.items():
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            left.plot(*zip(*points, strict=True), style, label=name, linewidth=1, markersize=4)
    left.set(xlabel="optimizer step", ylabel=label, title=title)
    right = left.twinx()
    right.set(ylabel="validation F1", ylim=(0, 1))
    for name, color in (("val_utterance_f1", "tab:green"), ("val_image_f1", "tab:red")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            right.plot(
                *zip(*points, strict=True),
                "s--",
                color=color,
                label=name,
                linewidth=1,
                markersize=4,
            )
    lines, labels = left.get_legend_handles_labels()
    more_lines, more_labels = right.get_legend_handles_labels()
    if lines or more_lines:
        left.legend(lines + more_lines, labels + more_labels, loc="center right")
    with replaced_path(target) as scratch:
        figure.savefig(scratch, dpi=120)
