"""Writes what `archive.py` measured into docs/scale.md: a table of each size, and a plot of all.

python benchmarks/archive_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from page_table import with_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "archive.json"
PAGE = ROOT / "docs" / "scale.md"
PLOT = ROOT / "docs" / "scale.svg"
BEGIN, END = "<!-- table: benchmarks/archive_page.py -->", "<!-- end of table -->"
NAMES = {
    "ffr": "ffr, words and vectors fused", "lancedb": "LanceDB, words and vectors fused",
    "lances": "LanceDB's vectors alone", "lists": "ffr's vectors alone",
    "vectors": "ffr's vectors alone, without a store", "exact": "every vector compared, by numpy",
    "faiss": "faiss alone, IVF-SQ8", "sqlite": "words alone, SQLite FTS5",
    "bm25s": "words alone, bm25s",
}  # fmt: skip
DRAWN = {
    "p95_cpu_seconds": "p95 a query, CPU seconds", "build_seconds": "building, seconds",
    "megabytes": "on the disk, MB", "ask_peak_megabytes": "memory, asking, MB",
}  # fmt: skip


def table_of(found: dict[str, Any]) -> str:
    """A table of each size."""
    lines = [BEGIN]
    for size in found["sizes"]:
        lines += [
            "",
            f"{size['num_lines']:,} lines, {size['kind']}:",
            "",
            "| | built, s | on the disk, MB | memory, building and asking, MB | p50 and p95 a query, ms "
            "| of the processor, ms | recall@20 of exact |",
            "|---" * 7 + "|",
        ]
        for name, words in NAMES.items():
            if name in size["engines"]:
                row = size["engines"][name]
                lines.append(f"| {words} | {' | '.join(_cells(row))} |")
    return "\n".join([*lines, "", END])


def _cells(row: dict[str, Any]) -> list[str]:
    if reason := row.get("missing") or row.get("failed"):
        return [f"not measured: {reason}", *[""] * 5]
    asking = f"{row['ask_peak_megabytes']:,.0f}"

    def milliseconds(clock: str) -> str:
        return ", ".join(f"{1000 * row[f'{part}_{clock}seconds']:.3g}" for part in ("p50", "p95"))

    built = ["as above", "as above", asking]
    if "build_seconds" in row:
        memory = f"{row['build_peak_megabytes']:,.0f}, {asking}"
        built = [f"{row['build_seconds']:,.0f}", f"{row['megabytes']:,.0f}", memory]
    recall = row.get("recall_at_20_of_exact")
    return [
        *built, milliseconds(""), milliseconds("cpu_"), "" if recall is None else f"{recall:.3f}",
    ]  # fmt: skip


def plot(sizes: list[dict[str, Any]], path: Path) -> None:
    """Time a query, build time, bytes and memory against the number of lines."""
    import matplotlib

    matplotlib.use("Agg")
    # text stays text, and the same figures make the same file
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "ffr"}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 7), constrained_layout=True)
    for axis, (key, words) in zip(axes.flat, DRAWN.items(), strict=True):
        for number, (name, label) in enumerate(NAMES.items()):
            points = [
                (size["num_lines"], size["engines"][name][key])
                for size in sizes
                if key in size["engines"].get(name, {})
            ]
            if points:
                axis.loglog(*zip(*points, strict=True), marker="o", label=label, color=f"C{number}")
        axis.set_xlabel("lines")
        axis.set_ylabel(words)
        axis.minorticks_off()
        numbers = [size["num_lines"] for size in sizes]
        axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
        axis.grid(alpha=0.3)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_table(page, table_of(found)), encoding="utf-8")
    plot(found["sizes"], PLOT)


if __name__ == "__main__":
    main()
