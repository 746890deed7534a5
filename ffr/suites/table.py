"""The table of a suite: its cells, and how they are written as Markdown, CSV, LaTeX and JSON.

Figures are shares, shown in percent; what was not measured is null in JSON, an empty cell in CSV
and a dash in tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ffr.evaluation.bootstrap import LEVEL, NUM_RESAMPLES
from ffr.evaluation.corpus import ARCHIVE, NO_GOODS, archive_figure_words
from ffr.evaluation.figures import STRICT_PREFIX, figure_words
from ffr.evaluation.results import Results
from ffr.evaluation.scoring import SLICES
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
            f"{', '.join(self.fingerprints(dataset))}), so none is marked as "
            "best; measure all rows again."
            for dataset in self.suite.datasets
            if len(self.fingerprints(dataset)) > 1
        ]

    def fingerprints(self, dataset: SuiteDataset) -> list[str]:
        """The different data fingerprints in a data set's columns."""
        found = (self.cell(row, dataset).results for row in self.suite.rows)
        return sorted({_data_of(results) for results in found if results is not None})


def _data_of(results: Results) -> str:
    """The beginning of the fingerprint of what was asked, and of what archive it was asked of."""
    found = str(results.data.get("fingerprint"))[:12]
    if ARCHIVE not in results.summary:
        return found
    return f"{found} in {str(results.model.get('fingerprint'))[:12]}"


@dataclass(frozen=True)
class Column:
    """A figure on a part of a data set.

    Args:
        dataset: The data set.
        table: `all`, a table of `ffr.evaluation.scoring.SLICES`, or `ARCHIVE`, whose parts are the
            groups of queries.
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
        if self.table == ARCHIVE:
            return f"{self.dataset.label}, {self.name}"
        return f"{self.dataset.label}, {self.table.removeprefix('by_')} {self.name}"

    @property
    def figure_words(self) -> str:
        """What tables call the figure.

        >>> Column(SuiteDataset("MLDR", "mldr"), "all", "all", "strict_joint_f1").figure_words
        'strict joint F1'
        """
        named = archive_figure_words if self.table == ARCHIVE else figure_words
        return named(self.figure)

    @property
    def name_of_part(self) -> str:
        """What files call the part of a data set."""
        return self.name if self.table in (WHOLE, ARCHIVE) else f"{self.table} {self.name}"


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
    if suite.asks_archive:
        return [
            Column(dataset, ARCHIVE, group, figure)
            for dataset in suite.datasets
            for group in suite.slices
            for figure in suite.figures
        ]
    return [
        Column(dataset, table, name, figure)
        for dataset in suite.datasets
        for table in suite.slices
        for name in ((WHOLE,) if table == WHOLE else SLICES[table])
        for figure in suite.figures
    ]


def tables(suite: Suite) -> list[list[Column]]:
    """The columns of each table that is shown: one, or for an archive one for each part."""
    found = columns(suite)
    if not suite.asks_archive:
        return [found]
    size = len(suite.figures)
    return [found[start : start + size] for start in range(0, len(found), size)]


def values(bench: Bench, column: Column) -> list[Value | None]:
    """The column's value in every row; None where there is none."""
    found: list[Value | None] = []
    for row in bench.suite.rows:
        cell = bench.cell(row, column.dataset)
        if cell.status == "reported":
            share = (row.model.reported or {}).get(column.dataset.label, {}).get(column.figure)
            is_there = share is not None and _is_reported_part(bench.suite, column)
            found.append(Value(share, is_reported=True) if share is not None and is_there else None)
        else:
            found.append(None if cell.results is None else _value(cell.results, column))
    measured = [value.share for value in found if value is not None and not value.is_reported]
    is_good = not (column.table == ARCHIVE and column.figure in NO_GOODS)
    if len(measured) < 2 or not is_good or len(bench.fingerprints(column.dataset)) > 1:
        return found
    return [
        Value(**{**asdict(value), "is_best": True})
        if value is not None and not value.is_reported and value.share == max(measured)
        else value
        for value in found
    ]


def _is_reported_part(suite: Suite, column: Column) -> bool:
    """Whether it is of this part that others report: of all queries, or of the first group."""
    return column.table == WHOLE or (column.table == ARCHIVE and column.name == suite.slices[0])


def _value(results: Results, column: Column) -> Value | None:
    name = column.figure
    if column.table == ARCHIVE:
        return _archive_value(results, column)
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


def _archive_value(results: Results, column: Column) -> Value | None:
    group = results.summary[ARCHIVE]["groups"].get(column.name)
    if group is None or group["figures"][column.figure] is None:
        return None
    interval = group["intervals"][column.figure]
    return Value(
        group["figures"][column.figure],
        None if interval is None else (interval[0], interval[1]),
        group["num_queries"],
    )


# -- notes -----------------------------------------------------------------------------------------


def reasons_of(bench: Bench) -> list[str]:
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
    if suite.asks_archive:
        found.append(
            "F1 is the mean over queries, of the best hit; “known” is that of an answer by the same "
            "means knowing the dialogue."
        )
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
        f"{row.label} on {dataset.label} {num_failed_of(cell):,}"
        for row in suite.rows
        for dataset in suite.datasets
        if num_failed_of(cell := bench.cell(row, dataset))
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
    if dataset.corpus is not None:
        words += _archive_words(dataset.corpus, results)
    num_left_out = results.data.get("num_left_out")
    return words + (f", {counted(num_left_out, 'bad record')} left out" if num_left_out else "")


def _archive_words(corpus: str, results: Results) -> str:
    """What the queries were asked of, and how many are of each group."""
    groups = results.summary[ARCHIVE]["groups"]
    sizes = ", ".join(f"{group['num_queries']:,} {name}" for name, group in groups.items())
    return (
        f", asked of {counted(results.model['num_dialogues'], 'dialogue')}, those of {corpus} among "
        f"them, fingerprint {str(results.model['fingerprint'])[:12]} (queries by what they mean: "
        f"{sizes})"
    )


def in_place(cell: Cell, reasons: Sequence[str]) -> str:
    """What stands in place of a cell's figures; empty where nothing does."""
    if cell.status == "missing":
        return f"missing ({reasons.index(cell.reason) + 1})"
    return "…" if cell.status == "waiting" else ""


def behind(cell: Cell) -> str:
    """The marks behind a cell's figures."""
    mark = {"earlier": "*", "reported": "†"}.get(cell.status, "")
    return mark + ("‡" if num_failed_of(cell) else "")


def num_failed_of(cell: Cell) -> int:
    """Queries of a cell that could not be answered."""
    return int(cell.results.summary["answers"].get("num_failed", 0)) if cell.results else 0
