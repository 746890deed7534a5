"""What a figure is: name, words, formula over confusion counts, and how its modalities join.

A figure of one's own is a module beside this one that makes a `Figure`, an import of it and a line
in the table `FIGURES` of `ffr.metrics.functional.figures`; every table then has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Joint = Literal["plain", "harmonic"]
"""How utterance and image figure become the joint one: their plain or their harmonic mean."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of retrieved ids.

    Args:
        name: Its key in results, without blanks: `f1` in `utterance_f1`.
        short: The head of a column of tables.
        words: What sentences call it.
        of_counts: The formula: from TP, FP, FN and TN, int64 arrays of one shape, each under 2^31,
            to float64 of that shape; see `divide` for ratios.
        joint: How the two modalities join.
        needs_sizes: Whether the formula looks at TN, which is known only with the sizes of the
            dialogues; a figure that does is left out where these are not given.
    """

    name: str
    short: str
    words: str
    of_counts: Callable[[Array, Array, Array, Array], Array]
    joint: Joint = "plain"
    needs_sizes: bool = True

    def join(self, utterance: Array, image: Array) -> Array:
        """The joint figure of the two modalities' figures; a harmonic mean of zeros is 0."""
        if self.joint == "harmonic":
            return divide(2 * utterance * image, utterance + image)
        return (utterance + image) / 2


def divide(numerator: Array, denominator: Array) -> Array:
    """Numerator over denominator in float64; 0 where the denominator is 0.

    >>> divide(np.array([1, 1]), np.array([4, 0]))
    array([0.25, 0.  ])
    """
    is_zero = denominator == 0
    ratio: Array = np.where(is_zero, 0.0, numerator / np.where(is_zero, 1, denominator))
    return ratio
