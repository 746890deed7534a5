"""How like a query dialogues are that were recalled: all of them in each way, with nothing taken off.

Recall ranks by what stands out among very many, and a way knows those alone that are its own best. The
few that it hands on are held beside each other by plain cosines, whichever way found them.

Shapes: D width of the vectors.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ffr.corpus.candidates import Rows, Where
from ffr.corpus.nearest import Comparing

LINES_COMPARED = 3
"""What a query means is seldom one line: a dialogue with three close ones goes before one with one."""

# so many are compared one by one, however many there are in all
_BLOCK = 65_536


def num_compared(way: str) -> int:
    """How many things of a dialogue count in a way: the best three lines, else the best one."""
    return LINES_COMPARED if way == "lines" else 1


def likenesses(
    wheres: Sequence[Where],
    compared: Mapping[str, Rows],
    matrix: Comparing,
    query: NDArray[np.float32],
) -> dict[Where, dict[str, float]]:
    """The mean cosine of what lies closest to a query in each of some dialogues.

    Args:
        wheres: The dialogues.
        compared: What has vectors, by way.
        matrix: The vectors.
        query: (D,) of length 1.

    Returns:
        For each dialogue, by way; nothing of a way in which it has no vector. Where there are fewer
        lines than count, the others count as the least that does in any of the dialogues.

    >>> from ffr.corpus.nearest import Matrix
    >>> rows = Rows(*map(np.array, ([1, 2, 3, 4], [1, 1, 2, 2], [0, 0, 0, 0], [0, 1, 2, -1])))
    >>> matrix = Matrix(np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32))
    >>> likenesses([(1, 0), (2, 0)], {"segments": rows}, matrix, np.array([0, 1], np.float32))
    {(1, 0): {'segments': 0.800000011920929}, (2, 0): {'segments': 1.0}}
    """
    found: dict[Where, dict[str, float]] = {where: {} for where in wheres}
    for way, rows in compared.items():
        best = _best(found, rows, matrix, query, num_compared(way))
        least = min((min(cosines) for cosines in best.values()), default=0.0)
        for where, cosines in best.items():
            missing = num_compared(way) - len(cosines)
            found[where][way] = (sum(cosines) + least * missing) / num_compared(way)
    return found


def _best(
    wheres: Iterable[Where],
    rows: Rows,
    matrix: Comparing,
    query: NDArray[np.float32],
    number: int,
) -> dict[Where, list[float]]:
    """The largest so many cosines of each dialogue that has any, of different vectors."""
    of_dialogue: dict[Where, list[int]] = {}
    for where in wheres:
        places = rows.places[rows.of_dialogue(where)]
        if (known := places[places >= 0]).size:
            of_dialogue[where] = np.unique(known).tolist()
    wanted = np.array(sorted({place for its in of_dialogue.values() for place in its}), np.int64)
    cosines: dict[int, float] = {}
    for start in range(0, len(wanted), _BLOCK):
        part = wanted[start : start + _BLOCK]
        near, found = matrix.closest(query, part, len(part))
        cosines |= zip(near.tolist(), found.tolist(), strict=True)
    return {
        where: heapq.nlargest(number, [cosines[place] for place in places])
        for where, places in of_dialogue.items()
    }
