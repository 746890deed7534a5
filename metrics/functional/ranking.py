"""Figures of a ranking in which some items are right: found within the first k, first rank, nDCG.

The formulas are torchmetrics' own; what they cannot know is added here: items that are right and
were not ranked at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from ffr.text import described

DEPTHS = (1, 5, 10, 20)
"""The k of recall within the first k."""

NDCG_DEPTH = 10

RANKING_FIGURES = (*(f"recall_at_{k}" for k in DEPTHS), "reciprocal_rank", f"ndcg_at_{NDCG_DEPTH}")
"""Names of the figures of one ranking, each from 0 to 1."""


def ranking_figures(is_right: Sequence[bool], num_right: int) -> dict[str, float]:
    """The figures of one ranking.

        recall_at_k = 1 where one of the first k is right, else 0
        reciprocal_rank = 1 / r, r the rank of the first that is right; 0 where none is
        ndcg_at_10 = Σ_{i ≤ 10, i right} 1/log2(1 + i) / Σ_{i ≤ min(10, R)} 1/log2(1 + i)

    where R items are right at all. With several right ones recall_at_k is what torchmetrics calls
    the hit rate; with one it is recall itself.

    Args:
        is_right: For each item of the ranking, the best first, whether it is right.
        num_right: R, with those that were not ranked; 1 at least.

    Raises:
        ValueError: where something is no truth value, or fewer are right than are ranked so.

    >>> ranking = ranking_figures([False, True, False], num_right=1)
    >>> ranking["recall_at_1"], ranking["recall_at_5"], ranking["reciprocal_rank"]
    (0.0, 1.0, 0.5)
    >>> round(ranking["ndcg_at_10"], 3)  # log 2 / log 3
    0.631
    """
    if isinstance(is_right, str) or not all(isinstance(item, bool) for item in is_right):
        raise ValueError(f"a ranking is {described(is_right)}; give a list of bool, the best first")
    num_missing = num_right - sum(is_right)
    if num_right < 1 or num_missing < 0:
        raise ValueError(
            f"{sum(is_right)} of a ranking are right and {num_right} at all; give at least as many "
            "at all, and one"
        )
    # what is right and was not ranked stands behind every depth, where only the ideal sees it
    width = max(len(is_right), *DEPTHS, NDCG_DEPTH)
    unranked = [False] * (width - len(is_right)) + [True] * num_missing
    target = torch.tensor([*is_right, *unranked])
    scores = torch.arange(len(target), 0, -1).float()
    values = [retrieval_hit_rate(scores, target, top_k=k) for k in DEPTHS]
    values.append(retrieval_reciprocal_rank(scores, target, top_k=width))
    values.append(retrieval_normalized_dcg(scores, target, top_k=NDCG_DEPTH))
    return dict(zip(RANKING_FIGURES, [float(value) for value in values], strict=True))
