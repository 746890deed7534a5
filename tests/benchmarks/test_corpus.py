"""The table of docs/archive-eval.md is that of the committed results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from script_modules import script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def corpus() -> Iterator[ModuleType]:
    with script(ROOT / "benchmarks" / "corpus.py") as module:
        yield module


def test_the_page_has_the_table_of_the_results(corpus: ModuleType) -> None:
    page = (ROOT / "docs" / "archive-eval.md").read_text(encoding="utf-8")
    found = json.loads(corpus.RESULTS.read_text(encoding="utf-8"))
    assert corpus.with_table(page, corpus.table_of(found)) == page


def test_a_row_by_hand(corpus: ModuleType) -> None:
    figures = dict.fromkeys(corpus.COLUMNS, 0.5) | {"recall_at_20": 0.625}
    group = {"figures": figures, "intervals": {key: [0.25, 0.75] for key in corpus.COLUMNS}}
    row = {"label": "words", "groups": {"one dialogue": group}}
    _, _, _, line, _ = corpus.table_of({"rows": [row]}).splitlines()
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["words", "50.0", "50.0", "62.5 (25.0–75.0)", "50.0"]
    assert len(cells) == 1 + len(corpus.COLUMNS)
