"""How alike a question and the lines of a dialogue are by an encoder, as `lines` sees it.

Cosines of different questions and dialogues are not comparable as they stand, so that each stands
beside the others of its dialogue, and beside those of its neighbours.

Shapes: N lines with words of a dialogue, D width of the encoder's vectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ffr.retrieval.line_features import Lines, Numbers, by_rank, of_sessions, shifted, standing

Vectors = NDArray[np.float64]

NUM_LIKENESSES = 16
_SMOOTHED = (1, 4)
"""So many lines on either side a likeness is averaged over."""
_SHIFTS = (-2, -1, 1, 2)
_RUNNER_UP = 5
_LEAST = 1e-9


def likeness_features(
    lines: Lines, vectors: Vectors, query: Vectors
) -> tuple[NDArray[np.float32], Numbers]:
    """What is seen of each line by its likeness to a query.

    Args:
        lines: The lines, one at the least.
        vectors: (N, D) of them, L2-normalised.
        query: (D,) of the query, likewise.

    Returns:
        (N, 16) numbers, and (N,) the cosines.

    >>> from ffr.dialogue import Dialogue
    >>> from ffr.retrieval.line_features import lines_of
    >>> chat = lines_of(Dialogue.of([("Ann", "the bus is late"), ("Bob", "too bad")]))
    >>> features, cosines = likeness_features(chat, np.eye(2), np.array([0.8, 0.6]))
    >>> features.shape, cosines.tolist()
    ((2, 16), [0.8, 0.6])
    """
    cosines = vectors @ query
    # what all lines of a dialogue have in common tells none from another
    mean = vectors.mean(0)
    own = standing(_normalised(vectors - mean) @ _normalised(query - mean))
    relative = standing(cosines)
    descending = np.sort(cosines)[::-1]
    best, lead = descending[0], descending[0] - descending[: _RUNNER_UP + 1][-1]
    columns = [
        cosines,
        relative,
        own,
        *by_rank(own)[1:],
        cosines - best,
        *(_smoothed(relative, reach) for reach in _SMOOTHED),
        *(shifted(own, shift) for shift in _SHIFTS),
        *of_sessions(lines.sessions, own),
        np.full(len(lines), best),
        np.full(len(lines), lead),
        _smoothed(own, 1),
    ]
    return np.stack(columns, axis=-1).astype(np.float32), cosines


def _normalised(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _LEAST))


def _smoothed(values: Numbers, reach: int) -> Numbers:
    """The mean over so many lines on either side, as many as there are."""
    sums = np.concatenate([[0.0], values.cumsum()])
    places = np.arange(len(values))
    ends = np.minimum(places + reach + 1, len(values))
    starts = np.maximum(places - reach, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
