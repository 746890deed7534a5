"""The tables of docs/memory.md are those of the committed results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from script_modules import script

from ffr.dialogue import Fragment
from ffr.evaluation.categories import Answered

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def memory() -> Iterator[ModuleType]:
    with script(ROOT / "benchmarks" / "memory.py") as module:
        yield module


def test_the_page_has_the_tables_of_the_results(memory: ModuleType) -> None:
    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    assert memory.with_table(page, memory.table_of(memory.read_results())) == page


def test_what_a_true_answer_is_like(memory: ModuleType) -> None:
    def parts(*true: int) -> list[int]:
        found = Answered("d", Fragment(true), Fragment(), frozenset({7}))
        return [memory.PARTS.index(name) for name in memory.parts_of(found, 30)]

    assert parts() == []
    assert parts(7) == [0, 6, 7]
    assert parts(10, 20) == [1, 3, 5, 8]
    assert parts(7, 18, 29) == [2, 4, 6, 7]
    assert parts(20, 21, 22, 23) == [2, 3, 5, 9]


def test_a_row_by_hand(memory: ModuleType) -> None:
    def row(seed: int, f1: float) -> dict[str, object]:
        figures = {
            "num_queries": 4, "num_dialogues": 2, "utterance_f1": f1, "low": 0.1, "high": 0.9,
            "utterance_recall": 0.5, "num_lines": 1.5, "caption_f1": None,
        }  # fmt: skip
        kinds = {"with evidence": figures, "nothing": {"utterance_f1": 0.25}}
        return {
            "model": "lines", "seed": seed, "part": "", "cpu_seconds_a_query": 0.01,
            "categories": kinds,
        }  # fmt: skip

    content = {"rows": [row(1, 0.6), row(0, 0.4)]}
    assert memory.line(content, "lines", "") == (
        "| `lines` | 1.5 | 50.0 (10.0 to 90.0; seeds 40.0 to 60.0) | 50.0 |  | 25.0 | 0.010 |"
    )


def test_what_is_not_measured_is_said(memory: ModuleType) -> None:
    contents = memory.read_results()
    of_rows = memory.not_measured([{"set": "A", "rows": contents[0]["rows"]}])
    few = memory.not_measured(
        [{"set": "A", "rows": []}, {"set": "B", "rows": [{"model": "lines"}]}]
    )
    on_a, on_b = few.removesuffix(".").split("; ")
    assert "`embedding:e5 --select stretch`, `baseline:bm25+e5@1`" in on_a
    assert set(on_a.split(", ")) - set(on_b.split(", ")) >= {"`lines`"}
    assert "`lines`" not in of_rows


def test_other_choices_by_hand(memory: ModuleType) -> None:
    # two of three true lines are found, behind one that is not
    found = memory.choices([9, 4, 7, 1], {4, 7, 8})
    assert found == pytest.approx({"known": 4 / 6, "best": 4 / 6, "all": 4 / 5})
    assert memory.choices([9, 4], {4}) == pytest.approx({"known": 0.0, "best": 2 / 3, "all": 1.0})
