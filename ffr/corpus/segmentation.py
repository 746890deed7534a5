"""A dialogue's lines → segments: each line in exactly one, by what is said and by pauses.

A segmentation is a number for each line: lines of one number belong together, whether they stand
side by side or not, and numbers count from 0 in the order in which segments begin.

Shapes: n lines, D width of their vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ffr.chats.cutting import Cutting, cut_seconds
from ffr.errors import UsageError
from ffr.text import counted

PENALTY = 1.6
"""What a further segment must save of the squared distances of lines to their segment's mean."""

MIN_LINES = 3
"""The shortest segment that vectors alone make."""

PAUSE_HOURS = 1.0
"""Nobody wrote for so long: what comes after is another segment."""

# the kernel's change points cost the square of this
_MOST_AT_ONCE = 400


@dataclass(frozen=True, slots=True)
class Repaired:
    """A segmentation, and what was wrong with the lists that it was made of.

    Args:
        numbers: (n) for each line, the number of its segment.
        num_missing: Lines that stood in no list: each went to the segment of the line before it.
        num_extra: Ids of lines that the dialogue does not have: left out.
        num_doubled: Further mentions of a line: the first one holds.
    """

    numbers: tuple[int, ...]
    num_missing: int
    num_extra: int
    num_doubled: int

    @property
    def is_whole(self) -> bool:
        """Whether each line stood in exactly one list, and nothing else did."""
        return not (self.num_missing or self.num_extra or self.num_doubled)

    @property
    def words(self) -> str:
        """What was repaired, in words."""
        parts = [
            counted(self.num_missing, "line") + " in no segment",
            counted(self.num_extra, "id") + " of no line",
            counted(self.num_doubled, "line") + " in two",
        ]
        counts = (self.num_missing, self.num_extra, self.num_doubled)
        return ", ".join(part for part, count in zip(parts, counts, strict=True) if count)


def repaired(segments: Sequence[Sequence[int]], num_lines: int) -> Repaired:
    """Lists of lines, as a model writes them → each line in exactly one segment.

    Args:
        segments: The ids of the lines of each segment.
        num_lines: n.

    Raises:
        ValueError: where n is negative.

    >>> repaired([[0, 1], [1, 3, 9]], 5)
    Repaired(numbers=(0, 0, 0, 1, 1), num_missing=2, num_extra=1, num_doubled=1)
    """
    if num_lines < 0:
        raise ValueError(f"a dialogue of {num_lines} lines")
    found: list[int | None] = [None] * num_lines
    num_extra = num_doubled = 0
    for label, lines in enumerate(segments):
        for line in lines:
            if not 0 <= line < num_lines:
                num_extra += 1
            elif found[line] is not None:
                num_doubled += 1
            else:
                found[line] = label
    num_missing = found.count(None)
    # what comes before all lists goes with the first line that stands in one
    last = next((number for number in found if number is not None), 0)
    whole = []
    for number in found:
        last = last if number is None else number
        whole.append(last)
    return Repaired(in_order(whole), num_missing, num_extra, num_doubled)


def in_order(labels: Sequence[int]) -> tuple[int, ...]:
    """Labels of lines → numbers of segments, from 0 in the order in which they begin.

    >>> in_order([7, 7, 2, 7])
    (0, 0, 1, 0)
    """
    known: dict[int, int] = {}
    return tuple(known.setdefault(label, len(known)) for label in labels)


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
    their mean: the boundaries that make Σ over segments Σ over lines ‖v − mean of segment‖²
    + penalty · number of boundaries least.

    Args:
        vectors: (n, D) of the lines, L2-normalised; a row of zeros where a line has no words: it
            counts as the line before it.
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
    filled = _filled(vectors)
    pauses = Cutting(pause_hours, _MOST_AT_ONCE)
    start = 0
    for size in cut_seconds(times or [None] * len(vectors), pauses):
        for length in _changes(filled[start : start + size], penalty, min_lines):
            labels += [labels[-1] + 1 if labels else 0] * length
        start += size
    return tuple(labels)


def _filled(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, D) with the vector of the line before, or else behind, where a line has none."""
    filled = vectors.astype(np.float64)
    is_told = filled.any(axis=1)
    told = np.flatnonzero(is_told)
    if not len(told):
        return filled
    nearest = np.maximum.accumulate(np.where(is_told, np.arange(len(filled)), told[0]))
    return np.asarray(filled[nearest])


def _changes(vectors: NDArray[np.float64], penalty: float, min_lines: int) -> list[int]:
    """How many lines each segment holds."""
    if len(vectors) < 2 * min_lines:
        return [len(vectors)]
    # it brings scipy, whose import is dear
    import ruptures

    found = ruptures.KernelCPD(kernel="linear", min_size=min_lines)
    ends = found.fit_predict(vectors - vectors.mean(axis=0), pen=penalty)
    return [int(size) for size in np.diff([0, *ends])]
