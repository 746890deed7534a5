"""Metrics of fragment retrieval for torchmetrics; `ffr.metrics.functional` has the functions.

Each class is loaded when it is asked for, so that tables of figures need no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffr.metrics.answer import AnswerFormatValidity, FragmentExactMatch
    from ffr.metrics.coherence import FragmentOrderCoherence, QueryFragmentSimilarity
    from ffr.metrics.fragment import (
        FragmentF1,
        FragmentMcc,
        FragmentPrecision,
        FragmentRecall,
        FragmentScores,
    )
    from ffr.metrics.segmentation import (
        BoundaryF1,
        SegmentationPk,
        SegmentationScores,
        SegmentF1,
        WindowDiff,
    )

_HOMES = {
    "AnswerFormatValidity": "answer",
    "BoundaryF1": "segmentation",
    "FragmentExactMatch": "answer",
    "FragmentF1": "fragment",
    "FragmentMcc": "fragment",
    "FragmentOrderCoherence": "coherence",
    "FragmentPrecision": "fragment",
    "FragmentRecall": "fragment",
    "FragmentScores": "fragment",
    "QueryFragmentSimilarity": "coherence",
    "SegmentF1": "segmentation",
    "SegmentationPk": "segmentation",
    "SegmentationScores": "segmentation",
    "WindowDiff": "segmentation",
}

__all__ = [
    "AnswerFormatValidity",
    "BoundaryF1",
    "FragmentExactMatch",
    "FragmentF1",
    "FragmentMcc",
    "FragmentOrderCoherence",
    "FragmentPrecision",
    "FragmentRecall",
    "FragmentScores",
    "QueryFragmentSimilarity",
    "SegmentF1",
    "SegmentationPk",
    "SegmentationScores",
    "WindowDiff",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
