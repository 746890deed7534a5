"""Results of a search of a whole archive as a table: recall, the order of hits, and the best hit."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ffr.evaluation.results import Results
from ffr.report.tables import interval_text, percent
from ffr.terminal import Label, plain_table

_COLUMNS = (
    ("recall\n@1", "recall_at_1"),
    ("\n@5", "recall_at_5"),
    ("\n@10", "recall_at_10"),
    ("\n@20", "recall_at_20"),
    ("\nMRR", "reciprocal_rank"),
    ("\nnDCG", "ndcg_at_10"),
    ("hits\n@1", "hits_recall_at_1"),
    ("best hit\nutt. F1", "utterance_f1"),
    ("\nimg. F1", "image_f1"),
    ("known\nutt. F1", "known_utterance_f1"),
    ("\nimg. F1", "known_image_f1"),
    ("\nwrong", "wrong"),
    ("\nempty", "empty"),
)


def archive_table(results: Results) -> Table:
    """Rows: groups of queries, then their kinds; columns: figures in percent, means over queries.

    Under each group stand the ends of its intervals. "Known" are answers given knowing the dialogue;
    "wrong" is the share of queries whose best hit is in a dialogue that is not right, "empty" of
    those to which nothing was found.

    Args:
        results: Of an evaluation with an archive.
    """
    summary = results.summary["archive"]
    table = plain_table("In the whole archive, in percent")
    table.padding = (0, 0, 0, 0)
    table.add_column("")
    table.add_column("\nn", justify="right", no_wrap=True)
    for head, _ in _COLUMNS:
        table.add_column(head, justify="right", no_wrap=True)
    for name, group in summary["groups"].items():
        table.add_row(Label(name), *_cells(group), style="bold")
        for end, words in enumerate(("from", "to")):
            cells = [
                percent(span[end] if (span := group["intervals"][key]) else None, 1)
                for _, key in _COLUMNS
            ]
            table.add_row(Label(f"{100 * summary['level']:g} % {words}"), "", *cells, style="dim")
    for name, group in summary["kinds"].items():
        table.add_row(Label(name), *_cells(group))
    return table


def _cells(group: dict[str, Any]) -> list[str]:
    figures = [percent(group["figures"][key], 1) for _, key in _COLUMNS]
    return [str(group["num_queries"]), *figures]


def archive_line(results: Results) -> str:
    """The verdict of a search in a line: the right dialogue, and F1 beside that of knowing it."""
    for name, group in results.summary["archive"]["groups"].items():
        figures, intervals = group["figures"], group["intervals"]
        if figures["recall_at_20"] is None:
            continue
        return (
            f"{name}: the right dialogue is among the first 20 of "
            f"{percent(figures['recall_at_20'], 1)} % "
            f"({interval_text(intervals['recall_at_20'])}); utterance F1 of the best hit "
            f"{percent(figures['utterance_f1'], 1)} ({interval_text(intervals['utterance_f1'])}), "
            f"knowing the dialogue {percent(figures['known_utterance_f1'], 1)}"
        )
    return "no query means a dialogue of the archive"
