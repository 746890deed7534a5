"""The tables of a bench as they are written: Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len

from ffr.markup import csv_cell, latex_text, markdown_text
from ffr.report.tables import interval_text
from ffr.suites.file import SuiteDataset
from ffr.suites.suite import SuiteRow
from ffr.suites.table import (
    SCHEMA,
    Bench,
    Column,
    Value,
    behind,
    columns,
    in_place,
    notes,
    num_failed_of,
    reasons_of,
    tables,
    values,
)

# -- Markdown --------------------------------------------------------------------------------------


def markdown_table(bench: Bench) -> str:
    """The table in GitHub's Markdown, its columns in line for the eye."""
    suite, reasons = bench.suite, reasons_of(bench)
    shown = tables(suite)
    body: list[str] = []
    for of_table in shown:
        # beside others a table has its part above it, not in each of its columns
        heading = of_table[0].part if len(shown) > 1 else ""
        body += [f"## {markdown_text(heading)}", ""] if heading else []
        body += [*_markdown_lines(bench, of_table, reasons, has_parts=not heading), ""]
    warnings = [f"**{markdown_text(text)}**" for text in bench.warnings()]
    missing = [
        f"({number}) missing: {markdown_text(reason)}"
        for number, reason in enumerate(reasons, start=1)
    ]
    foot = [*warnings, *missing, *(markdown_text(note) for note in notes(bench))]
    return (
        "\n".join([f"# {markdown_text(suite.title)}", "", *body, *(f"- {line}" for line in foot)])
        + "\n"
    )


def _markdown_lines(
    bench: Bench, of_table: Sequence[Column], reasons: Sequence[str], *, has_parts: bool
) -> list[str]:
    suite = bench.suite
    has_groups = any(row.model.group for row in suite.rows)
    header = [*(["kind"] if has_groups else []), "model"]
    num_texts = len(header)
    header += [
        f"{column.part}: {column.figure_words}" if has_parts else column.figure_words
        for column in of_table
    ]
    lines = [[markdown_text(text) for text in header]]
    by_column = [values(bench, column) for column in of_table]
    for number, row in enumerate(suite.rows):
        cells = [*([row.model.group] if has_groups else []), row.label]
        texts = [markdown_text(text) for text in cells]
        for column, found in zip(of_table, by_column, strict=True):
            cell = bench.cell(row, column.dataset)
            texts.append(_markdown_cell(found[number], in_place(cell, reasons), behind(cell)))
        lines.append(texts)
    widths = [max(3, *(cell_len(line[place]) for line in lines)) for place in range(len(header))]
    rule = [
        "-" * width if place < num_texts else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    return [_markdown_line(line, widths, num_texts) for line in (lines[0], rule, *lines[1:])]


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
    suite, reasons = bench.suite, reasons_of(bench)
    lines = [
        "% needs \\usepackage{booktabs}; written by `ffr bench run`",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(suite.title)}}}",
        r"  "
        rf"\label{{tab:{''.join(c if c.isascii() and c.isalnum() else '-' for c in suite.name)}}}",
    ]
    for number, of_table in enumerate(tables(suite)):
        lines += [r"  \par\medskip"] if number else []
        lines += _latex_tabular(bench, of_table, reasons)
    missing = [f"({number}) missing: {reason}" for number, reason in enumerate(reasons, start=1)]
    foot = [latex_text(text) for text in (*bench.warnings(), *missing, *notes(bench))]
    lines += ["", r"  \smallskip", r"  \footnotesize"]
    lines += [rf"  {line}\par" for line in foot]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_tabular(
    bench: Bench, all_columns: Sequence[Column], reasons: Sequence[str]
) -> list[str]:
    suite = bench.suite
    num_figures = len(suite.figures)
    parts = [all_columns[start].part for start in range(0, len(all_columns), num_figures)]
    above = " & ".join(
        ["", *(rf"\multicolumn{{{num_figures}}}{{c}}{{{latex_text(part)}}}" for part in parts)]
    )
    starts = range(2, 2 + len(all_columns), num_figures)
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + num_figures - 1}}}" for start in starts)
    names = " & ".join(["Model", *(latex_text(column.figure_words) for column in all_columns)])
    lines = [
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
            _latex_cell(found[number], in_place(cell, reasons), behind(cell))
            for column, found in zip(all_columns, by_column, strict=True)
            if (cell := bench.cell(row, column.dataset))
        ]
        lines.append(rf"    {' & '.join([latex_text(row.label), *cells])} \\")
    return [*lines, r"    \bottomrule", r"  \end{tabular}"]


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
    "group", "label", "setting", "model", "dataset", "split", "slice", "figure", "value",
    "low", "high", "num_answers", "is_best",
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
                    csv_cell(column.dataset.split), column.name_of_part, column.figure,
                    None if value is None else repr(value.share), low, high,
                    None if value is None else value.num_answers,
                    int(value is not None and value.is_best), cell.status, csv_cell(cell.reason),
                    None
                    if cell.results is None
                    else csv_cell(str(cell.results.data["fingerprint"])),
                    None if cell.results is None else num_failed_of(cell),
                ]
            )  # fmt: skip
    return file.getvalue()


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
            "num_failed": num_failed_of(cell),
            "model": cell.results.model,
            "data": cell.results.data,
            "notes": cell.results.notes,
        }
        content |= {"versions": cell.results.provenance.get("versions")}
        if "usage" in cell.results.summary:
            content["usage"] = cell.results.summary["usage"]
    content["figures"] = [
        {"slice": column.name_of_part, "figure": column.figure}
        | ({"share": None} if value is None else asdict(value))
        for column, value in found
        if column.dataset == dataset and (value is not None or cell.results is not None)
    ]
    return content
