"""Which examples of the data are queries on one dialogue."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from ffr.dialogue import Example
from ffr.prompt import MAX_SHARED_QUERIES


def packs_of_queries(
    examples: Iterable[Example], *, max_queries: int = MAX_SHARED_QUERIES
) -> list[list[int]]:
    """Indices of the examples, those on one dialogue together, wherever in the data they stand.

    Args:
        examples: The data.
        max_queries: Most examples in a pack; a dialogue with more is cut into packs of like size.

    Returns:
        Packs in the order of their first examples; each index is in one pack.
    """
    of_dialogue: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        of_dialogue.setdefault(example.dialogue.fingerprint, []).append(index)
    return sorted(part for indices in of_dialogue.values() for part in _cut(indices, max_queries))


def _cut(indices: list[int], max_queries: int) -> list[list[int]]:
    num_parts = -(-len(indices) // max_queries)
    bounds = [len(indices) * part // num_parts for part in range(num_parts + 1)]
    return [indices[start:end] for start, end in pairwise(bounds)]
