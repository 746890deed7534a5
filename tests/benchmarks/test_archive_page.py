"""The tables of docs/scale.md are those of the committed results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from script_modules import script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def written() -> Iterator[ModuleType]:
    with script(ROOT / "benchmarks" / "archive_page.py") as module:
        yield module


def test_the_page_has_the_tables_of_the_results(written: ModuleType) -> None:
    page = written.PAGE.read_text(encoding="utf-8")
    found = json.loads(written.RESULTS.read_text(encoding="utf-8"))
    assert written.with_table(page, written.table_of(found)) == page


def test_a_row_by_hand(written: ModuleType) -> None:
    row: dict[str, object] = {
        "build_seconds": 1234.4, "megabytes": 2.6, "build_peak_megabytes": 10.2,
        "ask_peak_megabytes": 20.7, "p50_seconds": 0.0123456, "p95_seconds": 0.5,
        "p50_cpu_seconds": 0.001, "p95_cpu_seconds": 0.25, "recall_at_20_of_exact": 0.98765,
    }  # fmt: skip
    engines = {"faiss": row, "bm25s": {"missing": "bm25s is not installed"}}
    size = {"num_lines": 1000, "kind": "grown", "engines": engines}
    lines = written.table_of({"sizes": [size]}).splitlines()
    assert lines[2] == "1,000 lines, grown:"
    assert lines[-4:-2] == [
        "| faiss alone, IVF-SQ8 | 1,234 | 3 | 10, 21 | 12.3, 500 | 1, 250 | 0.988 |",
        "| words alone, bm25s | not measured: bm25s is not installed |  |  |  |  |  |",
    ]


def test_a_plot_of_the_same_figures_is_the_same_file(written: ModuleType, tmp_path: Path) -> None:
    found = json.loads(written.RESULTS.read_text(encoding="utf-8"))
    for name in ("one.svg", "two.svg"):
        written.plot(found["sizes"], tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
