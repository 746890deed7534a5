"""Results of a search of a whole archive as tables: recall and the order of hits, the best hit."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ffr.evaluation.results import Results
from ffr.report.tables import interval_text, percent
from ffr.terminal import Label, plain_table

_RECALL = {
    "@1": "recall_at_1",
    "@5": "recall_at_5",
    "@10": "recall_at_10",
    "@20": "recall_at_20",
    "MRR": "reciprocal_rank",
    "nDCG": "ndcg_at_10",
    "hits @1": "hits_recall_at_1",
}
_BEST = {
    "utt. F1": "utterance_f1",
    "known": "known_utterance_f1",
    "img. F1": "image_f1",
    "known ": "known_image_f1",
    "wrong": "wrong",
    "empty": "empty",
}
_WITH_INTERVAL = ("recall_at_20", "utterance_f1")


def archive_tables(results: Results) -> list[Table]:
    """Two tables with a row for each group of queries, then for each kind; means in percent.

    The first: a right dialogue among the first k that were recalled, its reciprocal rank, nDCG of the
    first ten, and the same for the best hit. The second: F1 of the best hit, each beside that of an
    answer knowing the dialogue; the share of queries whose best hit is in a dialogue that is not
    right, and of those to which nothing was found.

    Args:
        results: Of an evaluation with an archive.
    """
    summary = results.summary["archive"]
    level = f"{100 * summary['level']:g} %"
    return [
        _table(summary, _RECALL, f"The right dialogue, in percent, with {level} intervals"),
        _table(summary, _BEST, f"The best hit, in percent, with {level} intervals"),
    ]


def _table(summary: dict[str, Any], columns: dict[str, str], title: str) -> Table:
    table = plain_table(title)
    table.padding = (0, 0, 0, 0)
    table.add_column("")
    for head in ("n", *columns):
        table.add_column(head.strip(), justify="right", no_wrap=True)
    for name, style in (("groups", "bold"), ("kinds", "")):
        for label, group in summary[name].items():
            cells = [_cell(group, figure) for figure in columns.values()]
            table.add_row(Label(label), str(group["num_queries"]), *cells, style=style)
    return table


def _cell(group: dict[str, Any], figure: str) -> str:
    value = percent(group["figures"][figure], 1)
    span = group["intervals"][figure]
    return f"{value} {interval_text(span)}" if span and figure in _WITH_INTERVAL else value


def archive_line(results: Results) -> str:
    """The verdict of a search in a line: the right dialogue, and F1 beside that of knowing it."""
    for name, group in results.summary["archive"]["groups"].items():
        figures = group["figures"]
        if figures["recall_at_20"] is not None:
            return (
                f"{name}: the right dialogue is among the first 20 of "
                f"{percent(figures['recall_at_20'], 1)} %; utterance F1 of the best hit "
                f"{percent(figures['utterance_f1'], 1)}, knowing the dialogue "
                f"{percent(figures['known_utterance_f1'], 1)}"
            )
    return "no query means a dialogue of the archive"
