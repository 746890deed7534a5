"""Metrics of fragment retrieval for torchmetrics; `ffr.metrics.functional` has them as plain functions."""

from ffr.metrics.answer import AnswerFormatValidity, FragmentExactMatch
from ffr.metrics.coherence import FragmentOrderCoherence
from ffr.metrics.fragment import FragmentF1, FragmentMcc, FragmentPrecision, FragmentRecall, FragmentScores

__all__ = [
    "AnswerFormatValidity",
    "FragmentExactMatch",
    "FragmentF1",
    "FragmentMcc",
    "FragmentOrderCoherence",
    "FragmentPrecision",
    "FragmentRecall",
    "FragmentScores",
]
