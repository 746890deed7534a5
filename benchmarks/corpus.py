"""Keeps the figures of `ffr bench run corpus`, and writes the table of docs/archive-eval.md.

    ffr bench run corpus --data dev=DEV --corpus dev=TRAIN --specific 'human_*,crosswoz_goal_zh' --out BENCH
    python benchmarks/corpus.py keep BENCH --data dev
    python benchmarks/corpus.py table

`keep` takes what the cells say of each group and kind of queries, without queries and answers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from page_table import with_table

from ffr.files import replace_json
from ffr.report.tables import interval_text
from ffr.suites.run import cell_folder
from ffr.suites.suite import load_suite

RESULTS = Path(__file__).parent / "results" / "corpus.json"
PAGE = Path(__file__).parents[1] / "docs" / "archive-eval.md"
BEGIN, END = "<!-- table: benchmarks/corpus.py -->", "<!-- end of table -->"
COLUMNS = {
    "recall_at_1": "first", "recall_at_5": "first 5", "recall_at_20": "first 20",
    "reciprocal_rank": "MRR", "ndcg_at_10": "nDCG@10", "utterance_f1": "utterance F1",
    "known_utterance_f1": "known", "image_f1": "image F1", "known_image_f1": "known",
}  # fmt: skip
WITH_INTERVAL = ("recall_at_20", "utterance_f1")


def kept(bench: Path, data: str) -> dict[str, Any]:
    """The figures of a results folder on one data set."""
    suite = load_suite("corpus").with_data([f"{data}=-"], [], [f"{data}=-"])
    rows = []
    for row in suite.rows:
        results = json.loads(
            (cell_folder(bench, row, suite.datasets[0]) / "results.json").read_text("utf-8")
        )
        archive = results["summary"]["archive"]
        rows.append(
            {
                "group": row.model.group, "label": row.label,
                "ways": results["model"]["ways"],
                "groups": archive["groups"],
                "recall_at_20_by_kind": {
                    name: [kind["num_queries"], kind["figures"]["recall_at_20"]]
                    for name, kind in archive["kinds"].items()
                },
            }
        )  # fmt: skip
    return {
        "specific": archive["specific"],
        "data_fingerprint": results["data"]["fingerprint"],
        "archive_fingerprint": results["model"]["fingerprint"],
        "num_dialogues": results["model"]["num_dialogues"],
        "versions": results["provenance"]["versions"],
        "rows": rows,
    }


def table_of(found: dict[str, Any], group: str = "one dialogue") -> str:
    """The table of the page: the queries of a group, in percent."""
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in found["rows"]:
        figures, intervals = row["groups"][group]["figures"], row["groups"][group]["intervals"]
        cells = []
        for name in COLUMNS:
            cell = f"{100 * figures[name]:.1f}"
            if name in WITH_INTERVAL:
                low, high = intervals[name]
                cell += f" ({interval_text((low, high))})"
            cells.append(cell)
        lines.append(f"| {row['label']} | {' | '.join(cells)} |")
    return "\n".join([BEGIN, *lines, END])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table", help="Write the table into the page.")
    asked = commands.add_parser("keep", help="Keep the figures of a results folder.")
    asked.add_argument("bench", type=Path)
    asked.add_argument("--data", required=True, help="The label of the data set.")
    call = parser.parse_args()
    if call.command == "keep":
        replace_json(RESULTS, kept(call.bench, call.data))
        return
    page = PAGE.read_text(encoding="utf-8")
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(with_table(page, table_of(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
