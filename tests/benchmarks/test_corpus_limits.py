"""Where F1 goes adds up, a gate is measured by hand, and the page has the committed tables."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from script_modules import script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def limits() -> Iterator[ModuleType]:
    with script(ROOT / "benchmarks" / "corpus_limits.py") as module:
        yield module


def _hit(evidence: float, *, is_right: bool = False, f1: float = 0.0) -> dict[str, Any]:
    return {
        "is_right": is_right, "f1": f1, "score": 0.7, "is_weak": False,
        "evidence": evidence, "likenesses": {"lines": 0.5, "words": evidence},
    }  # fmt: skip


def test_the_parts_add_up_whatever_was_found(limits: ModuleType) -> None:
    draw = random.Random(0)
    for _ in range(200):
        hits = [_hit(draw.random()) for _ in range(draw.randrange(4))]
        is_recalled = draw.random() < 0.7
        if is_recalled and draw.random() < 0.8:
            right = _hit(0.0, is_right=True, f1=draw.random())
            hits.insert(draw.randrange(len(hits) + 1), right)
        known = draw.random()
        record = {"known_f1": known, "20": {"is_recalled": is_recalled, "hits": hits}}
        parts = limits.parts_of(record, 20)
        assert list(parts) == list(limits.PARTS)
        lost = sum(parts[name] for name in ("recall", "reading", "order"))
        assert known == pytest.approx(lost + parts["best hit"])


def test_a_gate_by_hand(limits: ModuleType) -> None:
    # of the answered ones the evidence is 1 to 20, of the absent ones 0 to 19 times one half
    records = [{"20": {"hits": [_hit(float(n + 1))], "without": [_hit(n / 2)]}} for n in range(20)]
    gates = limits.gate_figures(records, records)
    assert set(gates) == set(limits.GATES)
    # the threshold is the twentieth part of the way from 1 to 20: 1.95
    assert gates["evidence"]["absent_named"] == pytest.approx(4 / 20)
    assert gates["evidence"]["answered_named"] == pytest.approx(1 / 20)
    pairs = [(a + 1) > b / 2 for a in range(20) for b in range(20)]
    ties = [(a + 1) == b / 2 for a in range(20) for b in range(20)]
    assert gates["evidence"]["auc"] == pytest.approx((sum(pairs) + sum(ties) / 2) / 400)
    # what is the same of all tells nothing
    assert gates["score"] == {"auc": 0.5, "absent_named": 0.0, "answered_named": 0.0}


def test_the_page_has_the_tables_of_the_results(limits: ModuleType) -> None:
    page = (ROOT / "docs" / "archive-eval.md").read_text(encoding="utf-8")
    found = json.loads(limits.RESULTS.read_text(encoding="utf-8"))
    assert limits.with_table(page, limits.tables_of(found)) == page
