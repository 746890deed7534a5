"""Names of all that a result states: the figures of one way of reading, and of both ways.

The table itself is `FIGURES` of `ffr.metrics.functional.figures`; exact match stands beside it.
"""

from __future__ import annotations

from ffr.metrics.functional.figures import FIGURES, MODALITIES, SAMPLE_PREFIX, score_names

EXACT_MATCH = "exact_match"

STRICT_PREFIX = "strict_"
"""Stands before a figure's name where figures of strict reading stand among lenient ones."""

SCORE_NAMES = (*score_names(), EXACT_MATCH)
"""Names of the figures of one way of reading, in the order of their columns."""

FIGURE_NAMES = SCORE_NAMES + tuple(STRICT_PREFIX + name for name in SCORE_NAMES)
"""Names of all figures, lenient ones first."""

_WORDS = {figure.name: figure.words for figure in FIGURES}


def figure_words(name: str) -> str:
    """What tables call a figure.

    >>> figure_words("strict_joint_f1"), figure_words("sample_image_mcc"), figure_words("exact_match")
    ('strict joint F1', 'sample image MCC', 'exact match')
    """
    for prefix in (STRICT_PREFIX, SAMPLE_PREFIX):
        if name.startswith(prefix):
            return f"{prefix.rstrip('_')} {figure_words(name.removeprefix(prefix))}"
    modality, _, figure = name.partition("_")
    if modality not in MODALITIES:
        return name.replace("_", " ")
    return f"{modality} {_WORDS[figure]}"


def headline_names() -> tuple[str, ...]:
    """What a table of two results shows: global figures, means of F1, exact match, strict F1."""
    return (
        *(name for name in SCORE_NAMES if not name.startswith(SAMPLE_PREFIX)),
        *(f"{SAMPLE_PREFIX}{modality}_f1" for modality in MODALITIES),
        f"{STRICT_PREFIX}joint_f1",
    )
