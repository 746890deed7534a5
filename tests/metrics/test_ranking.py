"""Figures of a ranking, by hand and beside a slow reference."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffr.metrics.functional.ranking import DEPTHS, RANKING_FIGURES, ranking_figures


def by_definition(is_right: list[bool], num_right: int) -> dict[str, float]:
    """The figures as their definitions have them."""
    ranks = [rank for rank, right in enumerate(is_right, 1) if right]
    found = {f"recall_at_{k}": float(any(rank <= k for rank in ranks)) for k in DEPTHS}
    found["reciprocal_rank"] = 1 / ranks[0] if ranks else 0.0
    gained = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= 10)
    ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(10, num_right) + 1))
    found["ndcg_at_10"] = gained / ideal
    return found


def test_by_hand() -> None:
    # two are right, the third of the ranking and one that was not ranked
    found = ranking_figures([False, False, True], 2)
    assert found["recall_at_1"] == 0
    assert found["recall_at_5"] == found["recall_at_20"] == 1
    assert found["reciprocal_rank"] == pytest.approx(1 / 3)
    # 1/log2(4) of 1 + 1/log2(3)
    assert found["ndcg_at_10"] == pytest.approx(0.5 / (1 + 1 / math.log2(3)))
    assert tuple(found) == RANKING_FIGURES


def test_what_was_not_ranked_is_no_find() -> None:
    assert set(ranking_figures([], 3).values()) == {0.0}
    assert set(ranking_figures([False] * 30, 1).values()) == {0.0}


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 30))
def test_as_defined(is_right: list[bool], num_missing: int) -> None:
    num_right = max(1, sum(is_right) + num_missing)
    found = ranking_figures(is_right, num_right)
    assert found == pytest.approx(by_definition(is_right, num_right), abs=1e-6)


def test_what_is_no_ranking_is_refused() -> None:
    with pytest.raises(ValueError, match="2 of a ranking are right and 1 at all"):
        ranking_figures([True, True], 1)
    with pytest.raises(ValueError, match="and one"):
        ranking_figures([False], 0)
    with pytest.raises(ValueError, match="give a list of bool"):
        ranking_figures([1, 0], 1)  # type: ignore[list-item]
