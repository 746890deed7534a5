"""`per_query.csv`: the figures of each scored query, one row each, for plots of one's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ffr.evaluation.scoring import SLICES, ScoredRows
from ffr.files import replaced_file
from ffr.markup import csv_cell
from ffr.metrics.functional.figures import figure_names, with_joint

PER_QUERY_FILE = "per_query.csv"


@dataclass(frozen=True)
class QueryName:
    """What a row is called by.

    Args:
        index: Position in the data, or line of the file, from 0.
        dialogue_id: The dialogue's id.
        query: The query; empty where it is unknown.
        num_utterances: Number of utterances of the dialogue.
    """

    index: int
    dialogue_id: str
    query: str
    num_utterances: int


def write_per_query(folder: Path, names: Sequence[QueryName], rows: ScoredRows) -> None:
    """Writes the table, whole or not at all: what the means of `results.json` are means of.

    Args:
        folder: The output folder.
        names: The scored queries, in the order of the rows.
        rows: Their figures.

    Raises:
        DataError: where it cannot be written.
    """
    figures = with_joint(rows.sample_figures)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["index", "dialogue_id", "query", "num_utterances", *figure_names(), "exact_match",
         "is_well_formed", *(table.removeprefix("by_") for table in SLICES)]
    )  # fmt: skip
    for row, name in enumerate(names):
        writer.writerow(
            [
                name.index,
                csv_cell(name.dialogue_id),
                csv_cell(name.query),
                name.num_utterances,
                *(repr(value) for value in figures[row].tolist()),
                int(rows.exact[row]),
                int(rows.valid[row]),
                *(rows.slices[table][row] or "" for table in SLICES),
            ]
        )
    with replaced_file(folder / PER_QUERY_FILE) as write:
        write(text.getvalue().encode("utf-8", "backslashreplace"))
