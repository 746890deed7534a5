"""Metrics of fragment retrieval as plain functions, each loaded when it is asked for."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffr.metrics.functional.answer import answer_format_validity, fragment_exact_match
    from ffr.metrics.functional.coherence import (
        fragment_elements,
        fragment_order_coherence,
        query_fragment_similarity,
    )
    from ffr.metrics.functional.fragment import (
        figures_from_counts,
        fragment_counts,
        fragment_f1,
        fragment_mcc,
        fragment_precision,
        fragment_recall,
        fragment_scores,
        sample_figures_from_counts,
        scores_from_counts,
    )

_HOMES = {
    "answer_format_validity": "answer",
    "figures_from_counts": "fragment",
    "fragment_counts": "fragment",
    "fragment_elements": "coherence",
    "fragment_exact_match": "answer",
    "fragment_f1": "fragment",
    "fragment_mcc": "fragment",
    "fragment_order_coherence": "coherence",
    "fragment_precision": "fragment",
    "fragment_recall": "fragment",
    "fragment_scores": "fragment",
    "query_fragment_similarity": "coherence",
    "sample_figures_from_counts": "fragment",
    "scores_from_counts": "fragment",
}

__all__ = [
    "answer_format_validity",
    "figures_from_counts",
    "fragment_counts",
    "fragment_elements",
    "fragment_exact_match",
    "fragment_f1",
    "fragment_mcc",
    "fragment_order_coherence",
    "fragment_precision",
    "fragment_recall",
    "fragment_scores",
    "query_fragment_similarity",
    "sample_figures_from_counts",
    "scores_from_counts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
