"""Metrics of fragment retrieval as plain functions."""

from ffr.metrics.functional.answer import answer_format_validity, fragment_exact_match
from ffr.metrics.functional.coherence import fragment_elements, fragment_order_coherence, query_fragment_similarity
from ffr.metrics.functional.fragment import (
    figures_from_counts,
    fragment_counts,
    fragment_f1,
    fragment_mcc,
    fragment_precision,
    fragment_recall,
    fragment_scores,
    name_figures,
    sample_figures_from_counts,
    scores_from_counts,
)

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
    "name_figures",
    "query_fragment_similarity",
    "sample_figures_from_counts",
    "scores_from_counts",
]
