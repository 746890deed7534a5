"""The table of a suite: its cells, and how they are written as Markdown, CSV, LaTeX and JSON.

Figures are shares, shown in percent; what was not measured is null in JSON, an empty cell in CSV
and a dash in tables.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.cells import cell_len

from ffr.evaluation.bootstrap import LEVEL, NUM_RESAMPLES
from ffr.evaluation.figures import STRICT_PREFIX, figure_words
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import SLICES
from ffr.markup import csv_cell, latex_text, markdown_text
from ffr.report.tables import interval_text
from ffr.suites.file import WHOLE, SuiteDataset
from ffr.suites.suite import Suite, SuiteRow
from ffr.text import counted

SCHEMA = 2
"""Version of `results.json` of a suite. 2: a figure that was not measured has the share null."""

Status = Literal["measured", "earlier", "missing", "waiting", "reported"]
"""`measured` and verified by this call; `earlier`: found in the folder and not verified;
`missing`: could not be measured;
`waiting`: not measured yet; `reported`: figures that others print."""


@dataclass(frozen=True)
class Cell:
    """A row on a data set.

    Args:
        status: How it stands with the cell.
        results: Its results, where it is measured.
        reason: Why it is missing.
    """

    status: Status
    results: Results | None = None
    reason: str = ""


@dataclass
class Bench:
    """A suite with what is known of its cells.

    Args:
        suite: The suite.
        cells: (row's label, data set's label) → cell.
    """

    suite: Suite
    cells: dict[tuple[str, str], Cell]

    def cell(self, row: SuiteRow, dataset: SuiteDataset) -> Cell:
        return self.cells[row.label, dataset.label]

    def num_of(self, status: Status) -> int:
        return sum(cell.status == status for cell in self.cells.values())

    def warnings(self) -> list[str]:
        """Data sets whose cells were measured on different data.

        Columns that cannot be compared.
        """
        return [
            f"{dataset.label}: its figures were measured on different data (fingerprints "
            f"{', '.join(name[:12] for name in self.fingerprints(dataset))}), so none is marked as "
            "best; measure all rows again."
            for dataset in self.suite.datasets
            if len(self.fingerprints(dataset)) > 1
        ]

    def fingerprints(self, dataset: SuiteDataset) -> list[str]:
        """The different data fingerprints in a data set's columns."""
        found = (self.cell(row, dataset).results for row in self.suite.rows)
        return sorted(
            {str(results.data.get("fingerprint")) for results in found if results is not None}
        )


@dataclass(frozen=True)
class Column:
    """A figure on a part of a data set.

    Args:
        dataset: The data set.
        table: `all`, or a table of `ffr.evaluation.scoring.SLICES`.
        name: The slice; `all` for the whole.
        figure: The figure's name.
    """

    dataset: SuiteDataset
    table: str
    name: str
    figure: str

    @property
    def part(self) -> str:
        """What tables call the data set's part.

        >>> Column(SuiteDataset("MLDR", "mldr"), "by_length", "<35", "joint_f1").part
        'MLDR, length <35'
        """
        if self.table == WHOLE:
            return self.dataset.label
        return f"{self.dataset.label}, {self.table.removeprefix('by_')} {self.name}"

    @property
    def figure_words(self) -> str:
        """What tables call the figure.

        >>> Column(SuiteDataset("MLDR", "mldr"), "all", "all", "strict_joint_f1").figure_words
        'strict joint F1'
        """
        return figure_words(self.figure)


@dataclass(frozen=True)
class Value:
    """A figure of a row in a column.

    Args:
        share: The figure.
        interval: What it lies between; None where there is none.
        num_answers: On how many scored queries.
        is_reported: Whether others print it.
        is_best: Whether no other measured one of the column is better; False where they cannot be
            compared.
    """

    share: float
    interval: tuple[float, float] | None = None
    num_answers: int | None = None
    is_reported: bool = False
    is_best: bool = False


def columns(suite: Suite) -> list[Column]:
    """The columns of a suite's table, data set by data set, part by part."""
    return [
        Column(dataset, table, name, figure)
        for dataset in suite.datasets
        for table in suite.slices
        for name in ((WHOLE,) if table == WHOLE else SLICES[table])
        for figure in suite.figures
    ]


def values(bench: Bench, column: Column) -> list[Value | None]:
    """The column's value in every row; None where there is none."""
    found: list[Value | None] = []
    for row in bench.suite.rows:
        cell = bench.cell(row, column.dataset)
        if cell.status == "reported":
            share = (row.model.reported or {}).get(column.dataset.label, {}).get(column.figure)
            is_there = share is not None and column.table == WHOLE
            found.append(Value(share, is_reported=True) if share is not None and is_there else None)
        else:
            found.append(None if cell.results is None else _value(cell.results, column))
    measured = [value.share for value in found if value is not None and not value.is_reported]
    if len(measured) < 2 or len(bench.fingerprints(column.dataset)) > 1:
        return found
    return [
        Value(**{**asdict(value), "is_best": True})
        if value is not None and not value.is_reported and value.share == max(measured)
        else value
        for value in found
    ]


def _value(results: Results, column: Column) -> Value | None:
    name = column.figure
    if column.table == WHOLE:
        part = "strict_scores" if name.startswith(STRICT_PREFIX) else "scores"
        name = name.removeprefix(STRICT_PREFIX)
        share, num_answers = results.summary[part][name], results.num_scored
        interval = results.interval(part, name)
    else:
        scores = results.summary[column.table][column.name]
        share, num_answers = scores[name], scores["num_answers"]
        interval = results.interval(column.table, name, column.name)
    return None if share is None else Value(share, interval, num_answers)


# -- notes -----------------------------------------------------------------------------------------


def _reasons(bench: Bench) -> list[str]:
    """The different reasons why cells are missing, in the order of the table."""
    return list(dict.fromkeys(cell.reason for cell in _in_order(bench) if cell.status == "missing"))


def _in_order(bench: Bench) -> list[Cell]:
    return [
        bench.cell(row, dataset) for row in bench.suite.rows for dataset in bench.suite.datasets
    ]


def notes(bench: Bench) -> list[str]:
    """What a reader must know beside the figures, in sentences."""
    suite = bench.suite
    found = [
        f"In percent, with {100 * LEVEL:g} % intervals from {NUM_RESAMPLES:,} resamples of whole "
        f"dialogues, seed {suite.seed}."
    ]
    for dataset in suite.datasets:
        measured = [
            cell.results
            for row in suite.rows
            if (cell := bench.cell(row, dataset)).results is not None
        ]
        if measured and measured[0] is not None and len(bench.fingerprints(dataset)) == 1:
            found.append(f"{dataset.label}: {_data_words(dataset, measured[0])}.")
    if any(
        any(value is not None and value.is_best for value in values(bench, column))
        for column in columns(suite)
    ):
        found.append("Bold: the best measured on the same data.")
    if bench.num_of("reported"):
        found.append("†: as others report it; not measured here.")
    if bench.num_of("earlier"):
        found.append(
            "*: as it lies in the results folder from an earlier call, not checked against its "
            "model (--only)."
        )
    if failed := [
        f"{row.label} on {dataset.label} {_num_failed(cell):,}"
        for row in suite.rows
        for dataset in suite.datasets
        if _num_failed(cell := bench.cell(row, dataset))
    ]:
        found.append(
            "‡: with queries that could not be answered, which count as wrong and are asked again "
            f"by the same command ({', '.join(failed)})."
        )
    if bench.num_of("waiting"):
        found.append("…: not measured yet.")
    return found + list(suite.notes)


def _data_words(dataset: SuiteDataset, results: Results) -> str:
    answers = results.summary.get("answers", {})
    first = " first" if dataset.limit is not None else ""
    dialogues = counted(answers.get("num_dialogues", 0), "dialogue")
    queries = counted(answers.get("num_scored", 0), "query")
    words = f"the{first} {queries} on {dialogues} of {dataset.dataset}"
    words += f", fingerprint {str(results.data.get('fingerprint'))[:12]}"
    num_left_out = results.data.get("num_left_out")
    return words + (f", {counted(num_left_out, 'bad record')} left out" if num_left_out else "")


def _in_place(cell: Cell, reasons: Sequence[str]) -> str:
    """What stands in place of a cell's figures; empty where nothing does."""
    if cell.status == "missing":
        return f"missing ({reasons.index(cell.reason) + 1})"
    return "…" if cell.status == "waiting" else ""


def _behind(cell: Cell) -> str:
    """The marks behind a cell's figures."""
    mark = {"earlier": "*", "reported": "†"}.get(cell.status, "")
    return mark + ("‡" if _num_failed(cell) else "")


def _num_failed(cell: Cell) -> int:
    return int(cell.results.summary["answers"].get("num_failed", 0)) if cell.results else 0


# -- Markdown --------------------------------------------------------------------------------------


def markdown_table(bench: Bench) -> str:
    """The table in GitHub's Markdown, its columns in line for the eye."""
    suite, reasons = bench.suite, _reasons(bench)
    has_groups = any(row.model.group for row in suite.rows)
    header = [*(["kind"] if has_groups else []), "model"]
    num_texts = len(header)
    header += [f"{column.part}: {column.figure_words}" for column in columns(suite)]
    lines = [[markdown_text(text) for text in header]]
    by_column = [values(bench, column) for column in columns(suite)]
    for number, row in enumerate(suite.rows):
        cells = [*([row.model.group] if has_groups else []), row.label]
        texts = [markdown_text(text) for text in cells]
        for column, found in zip(columns(suite), by_column, strict=True):
            cell = bench.cell(row, column.dataset)
            texts.append(_markdown_cell(found[number], _in_place(cell, reasons), _behind(cell)))
        lines.append(texts)
    widths = [max(3, *(cell_len(line[place]) for line in lines)) for place in range(len(header))]
    rule = [
        "-" * width if place < num_texts else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    body = [_markdown_line(line, widths, num_texts) for line in (lines[0], rule, *lines[1:])]
    warnings = [f"**{markdown_text(text)}**" for text in bench.warnings()]
    missing = [
        f"({number}) missing: {markdown_text(reason)}"
        for number, reason in enumerate(reasons, start=1)
    ]
    foot = [*warnings, *missing, *(markdown_text(note) for note in notes(bench))]
    return (
        "\n".join(
            [f"# {markdown_text(suite.title)}", "", *body, "", *(f"- {line}" for line in foot)]
        )
        + "\n"
    )


def _markdown_line(texts: Sequence[str], widths: Sequence[int], num_texts: int) -> str:
    padded = [
        text + " " * (width - cell_len(text))
        if place < num_texts
        else " " * (width - cell_len(text)) + text
        for place, (text, width) in enumerate(zip(texts, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def _markdown_cell(value: Value | None, in_place: str, mark: str) -> str:
    if value is None:
        return in_place or "-"
    shown = f"{100 * value.share:.2f}"
    shown = f"**{shown}**" if value.is_best else shown
    return (
        shown
        + markdown_text(mark)
        + (f" ({interval_text(value.interval)})" if value.interval is not None else "")
    )


# -- LaTeX -----------------------------------------------------------------------------------------


def latex_table(bench: Bench) -> str:
    """The table as a float for booktabs; labels outside of ASCII need a Unicode engine."""
    suite, reasons = bench.suite, _reasons(bench)
    all_columns = columns(suite)
    num_figures = len(suite.figures)
    parts = [all_columns[start].part for start in range(0, len(all_columns), num_figures)]
    above = " & ".join(
        ["", *(rf"\multicolumn{{{num_figures}}}{{c}}{{{latex_text(part)}}}" for part in parts)]
    )
    starts = range(2, 2 + len(all_columns), num_figures)
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + num_figures - 1}}}" for start in starts)
    names = " & ".join(["Model", *(latex_text(column.figure_words) for column in all_columns)])
    lines = [
        "% needs \\usepackage{booktabs}; written by `ffr bench run`",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(suite.title)}}}",
        r"  "
        rf"\label{{tab:{''.join(c if c.isascii() and c.isalnum() else '-' for c in suite.name)}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(all_columns)}}}",
        r"    \toprule",
        rf"    {above} \\",
        f"    {rules}",
        rf"    {names} \\",
    ]
    by_column = [values(bench, column) for column in all_columns]
    group: str | None = None
    for number, row in enumerate(suite.rows):
        if row.model.group != group:
            group = row.model.group
            lines.append(r"    \midrule")
            if group:
                lines.append(
                    r"    "
                    rf"\multicolumn{{{1 + len(all_columns)}}}{{l}}{{\textit{{{latex_text(group)}}}}} \\"
                )
        cells = [
            _latex_cell(found[number], _in_place(cell, reasons), _behind(cell))
            for column, found in zip(all_columns, by_column, strict=True)
            if (cell := bench.cell(row, column.dataset))
        ]
        lines.append(rf"    {' & '.join([latex_text(row.label), *cells])} \\")
    missing = [f"({number}) missing: {reason}" for number, reason in enumerate(reasons, start=1)]
    foot = [latex_text(text) for text in (*bench.warnings(), *missing, *notes(bench))]
    lines += [r"    \bottomrule", r"  \end{tabular}", "", r"  \smallskip", r"  \footnotesize"]
    lines += [rf"  {line}\par" for line in foot]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_cell(value: Value | None, in_place: str, mark: str) -> str:
    if value is None:
        return latex_text(in_place) if in_place else "--"
    shown = f"{100 * value.share:.2f}"
    shown = rf"\textbf{{{shown}}}" if value.is_best else shown
    shown += rf"\rlap{{\textsuperscript{{{latex_text(mark)}}}}}" if mark else ""
    return shown + (
        rf" {{\scriptsize ({latex_text(interval_text(value.interval))})}}"
        if value.interval is not None
        else ""
    )


# -- CSV and JSON ----------------------------------------------------------------------------------

CSV_HEADER = (
    "group", "label", "setting", "model", "dataset", "split", "slice", "figure", "value", "low", "high", "num_answers", "is_best",
    "status", "reason", "data_fingerprint", "num_failed",
)  # fmt: skip


def csv_table(bench: Bench) -> str:
    """One line for each figure of each cell: shares, as they were computed, with their bounds."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    by_column = [values(bench, column) for column in columns(bench.suite)]
    for number, row in enumerate(bench.suite.rows):
        for column, found in zip(columns(bench.suite), by_column, strict=True):
            cell, value = bench.cell(row, column.dataset), found[number]
            if cell.status == "reported" and value is None:
                continue
            low, high = (None, None) if value is None or value.interval is None else value.interval
            writer.writerow(
                [
                    # what a suite, a file or an error says must not be a formula
                    csv_cell(row.model.group), csv_cell(row.model.label), csv_cell(row.setting),
                    csv_cell(row.model.model or ""), csv_cell(column.dataset.label),
                    csv_cell(column.dataset.split), _part_words(column), column.figure,
                    None if value is None else repr(value.share), low, high,
                    None if value is None else value.num_answers,
                    int(value is not None and value.is_best), cell.status, csv_cell(cell.reason),
                    None if cell.results is None else csv_cell(str(cell.results.data["fingerprint"])),
                    None if cell.results is None else _num_failed(cell),
                ]
            )  # fmt: skip
    return file.getvalue()


def _part_words(column: Column) -> str:
    return column.name if column.table == WHOLE else f"{column.table} {column.name}"


def bench_json(bench: Bench) -> dict[str, Any]:
    """All cells with where they come from; JSON-ready."""
    suite = bench.suite
    by_column = [(column, values(bench, column)) for column in columns(suite)]
    return {
        "schema": SCHEMA,
        "suite": {
            "name": suite.name,
            "title": suite.title,
            "fingerprint": suite.fingerprint,
            "seed": suite.seed,
        },
        "num_missing": bench.num_of("missing"),
        "warnings": bench.warnings(),
        "notes": notes(bench),
        "rows": [
            {
                "label": row.label,
                "group": row.model.group,
                "model": row.model.model,
                "setting": row.setting,
                "cells": [
                    _cell_json(
                        bench,
                        row,
                        dataset,
                        [(column, found[number]) for column, found in by_column],
                    )
                    for dataset in suite.datasets
                ],
            }
            for number, row in enumerate(suite.rows)
        ],
    }


def _cell_json(
    bench: Bench, row: SuiteRow, dataset: SuiteDataset, found: Sequence[tuple[Column, Value | None]]
) -> dict[str, Any]:
    cell = bench.cell(row, dataset)
    content: dict[str, Any] = {"dataset": dataset.label, "status": cell.status}
    if cell.reason:
        content["reason"] = cell.reason
    if row.model.model is not None:
        content["settings"] = asdict(bench.suite.settings_of(row, dataset))
    if cell.results is not None:
        content |= {
            "num_failed": _num_failed(cell),
            "model": cell.results.model,
            "data": cell.results.data,
            "notes": cell.results.notes,
        }
        content |= {"versions": cell.results.provenance.get("versions")}
        if "usage" in cell.results.summary:
            content["usage"] = cell.results.summary["usage"]
    content["figures"] = [
        {"slice": _part_words(column), "figure": column.figure}
        | ({"share": None} if value is None else asdict(value))
        for column, value in found
        if column.dataset == dataset and (value is not None or cell.results is not None)
    ]
    return content
