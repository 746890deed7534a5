"""How tokens meet, what that does to an order, and its best hit, by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from script_modules import script

from ffr.corpus.found import Hit
from ffr.embedding.interface import TokenStates

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def order() -> Iterator[ModuleType]:
    with script(ROOT / "benchmarks" / "token_order.py") as module:
        yield module


def _hit(chat: int, lines: tuple[int, ...], *, is_weak: bool = False) -> Any:
    said = [SimpleNamespace(message=SimpleNamespace(line=line + 1)) for line in lines]
    return SimpleNamespace(chat=SimpleNamespace(id=chat), lines=said, is_weak=is_weak)


def test_tokens_meet_the_closest_and_rare_ones_count_more(order: ModuleType) -> None:
    words = torch.eye(4).half()

    def line(*tokens: int) -> TokenStates:
        return TokenStates(tokens, words[list(tokens)])

    # token 0 stands in two lines of three, token 1 in one
    found = order.likenesses(line(0, 1), [[line(0), line(0, 2)], [line(1)], []])
    common, rare = math.log1p(1.5 / 2.5), math.log1p(2.5 / 1.5)
    assert found.tolist() == pytest.approx(
        [common / (common + rare), rare / (common + rare), -1.0], abs=1e-3
    )


def test_the_first_are_ordered_anew_and_the_others_stay(order: ModuleType) -> None:
    hits = [Hit(None, (), frozenset(), 0.7, ("meaning",)) for _ in range(4)]
    assert order.met(hits, [0.0, 2.0, 1.0]) == [hits[1], hits[2], hits[0], hits[3]]
    assert order.met(hits, []) == hits
    weak, exact = replace(hits[1], is_weak=True), replace(hits[2], found_by=("words",))
    # one that is weak stays behind, and one with every word before the others
    assert order.met([hits[0], weak, exact], [0.0, 9.0, -9.0]) == [exact, hits[0], weak]


def test_the_best_hit_counts(order: ModuleType) -> None:
    right, wrong = _hit(1, (3, 4)), _hit(2, (3, 4))
    truths = {1: {4, 5, 6}}
    # one of two and of three
    assert order.figures_of([right, wrong], truths) == [1.0, pytest.approx(2 / 5)]
    assert order.figures_of([wrong, right], truths) == [0.0, 0.0]
    assert order.figures_of([], truths) == [0.0, 0.0]
    assert order.figures_of([_hit(1, (4,), is_weak=True)], truths) == [0.0, 0.0]
