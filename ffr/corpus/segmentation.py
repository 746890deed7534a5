"""A dialogue's lines → segments: each line in exactly one, by what is said and by pauses.

A segmentation is a number for each line: lines of one number belong together, whether they stand
side by side or not, and numbers count from 0 in the order in which segments begin.

Shapes: n lines, D width of their vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffr.chats.cutting import Cutting, cut_seconds
from ffr.dialogue import Example
from ffr.embedding.interface import Encoder
from ffr.errors import UsageError
from ffr.retrieval.segmentation import Cut

PENALTY = 1.7
"""What a further segment must save of the squared distances of lines to their segment's mean; from
1.6 to 2.0 segments are as good (benchmarks/segmentation.py)."""

MIN_LINES = 3
"""The shortest segment that vectors alone make."""

PAUSE_HOURS = 1.0
"""Nobody wrote for so long: what comes after is another segment."""

# what a vector less its mean must be longer than: where all lines are one text it is rounding alone
_TINY = 1e-6

# the kernel's change points cost the square of this
_MOST_AT_ONCE = 400


def by_vectors(
    vectors: NDArray[np.float32],
    times: Sequence[float | None] | None = None,
    *,
    penalty: float = PENALTY,
    min_lines: int = MIN_LINES,
    pause_hours: float = PAUSE_HOURS,
) -> tuple[int, ...]:
    """Segments where what is said changes, and where nobody wrote for a while.

    Kernel change points (Arlot, Celisse and Harchaoui 2019; PELT in `ruptures`) of the vectors less
    their mean, of length 1: the boundaries that make Σ over segments Σ over lines
    ‖v − mean of segment‖² + penalty · number of boundaries least.

    Args:
        vectors: (n, D) of the lines, L2-normalised; a row of zeros where a line has no words: it
            counts as the mean of the lines around it.
        times: Of each line, in seconds; None where it has none, or none has.
        penalty: What a boundary costs.
        min_lines: The shortest segment between two changes of what is said.
        pause_hours: What is a pause; 0: nothing is.

    Returns:
        For each line the number of its segment.

    Raises:
        UsageError: where a setting is out of its bounds.
        ValueError: where shapes do not fit, or a number is not finite.

    >>> talk = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    >>> by_vectors(talk)
    (0, 0, 0, 0, 0, 1, 1, 1, 1, 1)
    """
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"vectors of shape {vectors.shape}; give (n, D) finite numbers")
    if times is not None and len(times) != len(vectors):
        raise ValueError(f"{len(times)} times of {len(vectors)} lines")
    if not penalty > 0 or min_lines < 1:
        raise UsageError(
            f"a penalty of {penalty} and segments of {min_lines} lines; give numbers above 0"
        )
    labels: list[int] = []
    pauses = Cutting(pause_hours, _MOST_AT_ONCE)
    start = 0
    for size in cut_seconds(times or [None] * len(vectors), pauses):
        for length in _changes(_directions(vectors[start : start + size]), penalty, min_lines):
            labels += [labels[-1] + 1 if labels else 0] * length
        start += size
    return tuple(labels)


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, D) how each line differs from the mean of all, of length 1."""
    told = np.flatnonzero(vectors.any(axis=1))
    found = np.zeros(vectors.shape)
    if not len(told):
        return found
    found[told] = vectors[told] - vectors[told].mean(axis=0, dtype=np.float64)
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), _TINY)
    # a line without words, as of a picture, lies between those around it
    place = np.searchsorted(told, np.arange(len(found)))
    behind = told[np.minimum(place, len(told) - 1)]
    before = np.where(behind == np.arange(len(found)), behind, told[np.maximum(place - 1, 0)])
    return np.asarray((found[before] + found[behind]) / 2)


def _changes(vectors: NDArray[np.float64], penalty: float, min_lines: int) -> list[int]:
    """How many lines each segment holds."""
    if len(vectors) < 2 * min_lines:
        return [len(vectors)]
    # it brings scipy, whose import is dear
    import ruptures

    found = ruptures.KernelCPD(kernel="linear", min_size=min_lines)
    ends = found.fit_predict(vectors, pen=penalty)
    return [int(size) for size in np.diff([0, *ends])]


class VectorSegmenter:
    """Cuts dialogues as `by_vectors` does, by the vectors that an encoder gives their words.

    Args:
        encoder: Of texts.
        line_prefix: Stands before every line, as the encoder was trained.
    """

    name = "vectors"

    def __init__(self, encoder: Encoder, line_prefix: str = "") -> None:
        self._encoder = encoder
        self._prefix = line_prefix

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": "vectors",
            "encoder": self._encoder.fingerprint,
            "line_prefix": self._prefix,
            "penalty": PENALTY,
            "min_lines": MIN_LINES,
        }

    def cut(self, examples: Sequence[Example]) -> list[Cut]:
        """Cuts the dialogue of each example; its lines have no times."""
        texts = sorted(
            {line.text.strip() for example in examples for line in example.dialogue.utterances}
            - {""},
            key=len,
        )
        made = self._encoder.embed_texts([self._prefix + text for text in texts])
        vectors = dict(zip(texts, made.float().cpu().numpy(), strict=True))
        nothing = np.zeros(made.shape[-1], np.float32)
        return [
            Cut(
                by_vectors(
                    np.stack(
                        [
                            vectors.get(line.text.strip(), nothing)
                            for line in example.dialogue.utterances
                        ]
                    )
                )
            )
            for example in examples
        ]
