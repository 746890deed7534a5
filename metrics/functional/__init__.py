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
    from ffr.metrics.functional.segmentation import (
        boundary_f1,
        figures_of_segmentation,
        segment_f1,
        segmentation_figures,
        segmentation_pk,
        segmentation_sums,
        window_diff,
    )

_HOMES = {
    "answer_format_validity": "answer",
    "boundary_f1": "segmentation",
    "figures_from_counts": "fragment",
    "figures_of_segmentation": "segmentation",
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
    "segment_f1": "segmentation",
    "segmentation_figures": "segmentation",
    "segmentation_pk": "segmentation",
    "segmentation_sums": "segmentation",
    "window_diff": "segmentation",
}

__all__ = [
    "answer_format_validity",
    "boundary_f1",
    "figures_from_counts",
    "figures_of_segmentation",
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
    "segment_f1",
    "segmentation_figures",
    "segmentation_pk",
    "segmentation_sums",
    "window_diff",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
