"""Queries on one dialogue as one sequence: the dialogue once, and behind it each query with its answer.

What the queries' encodings have in common is found token by token on the whole encodings, so packing changes no id, wherever a
tokenizer joins letters across the border.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ffr.models.rows import Encoded


@dataclass(slots=True)
class PackedQueries:
    """Queries on one dialogue, as `PrefixSharing.score` takes them.

    Args:
        prompts: What stands once: the shared beginning; or each query's whole prompt, where it cannot be shared.
        branches: For each prompt, the ids that follow it: the rest of a query's prompt and its answer.
        num_scored: For each branch, how many of its last ids are the answer with the end of its turn.
    """

    prompts: list[Encoded]
    branches: list[list[list[int]]]
    num_scored: list[list[int]]

    @property
    def num_answer_tokens(self) -> int:
        return sum(map(sum, self.num_scored))

    @property
    def num_tokens(self) -> int:
        """Tokens that pass through the model."""
        return sum(prompt.num_tokens for prompt in self.prompts) + sum(
            len(branch) for branches in self.branches for branch in branches
        )


def common_length(rows: Iterable[list[int]]) -> int:
    """How many ids all rows begin with.

    >>> common_length([[1, 2, 3], [1, 2, 4, 5], [1, 2, 3, 3]]), common_length([[1], []]), common_length([[7, 8]])
    (2, 0, 2)
    """
    # what the smallest and the largest row share, all between them share
    ordered = sorted(rows)
    first, last = ordered[0], ordered[-1]
    shorter = min(len(first), len(last))
    return next((place for place in range(shorter) if first[place] != last[place]), shorter)


def pack(rows: Sequence[Encoded], placeholder_ids: Collection[int]) -> PackedQueries:
    """Examples as one sequence, or one by one where their pictures are not all in what they share.

    Args:
        rows: Encoded examples with their answers.
        placeholder_ids: The ids that stand for images.

    >>> group = pack([Encoded([1, 2, 3, 8], 1), Encoded([1, 2, 4, 8, 9], 2)], {99})
    >>> group.prompts[0].input_ids, group.branches, group.num_scored
    ([1, 2], [[[3, 8], [4, 8, 9]]], [[1, 2]])
    """
    # the answers of a query that was asked twice may be alike, but they are scored
    length = min(
        common_length(row.input_ids for row in rows), *(row.num_tokens - row.num_answer_tokens for row in rows)
    )
    branches = [row.input_ids[length:] for row in rows]
    images = {tuple(image.digest for image in row.images) for row in rows}
    if not length or len(images) > 1 or any(item in placeholder_ids for branch in branches for item in branch):
        return separate(rows)
    prompt = Encoded(rows[0].input_ids[:length], images=rows[0].images)
    return PackedQueries([prompt], [branches], [[row.num_answer_tokens for row in rows]])


def separate(rows: Sequence[Encoded]) -> PackedQueries:
    """Examples that go through the model one by one, each with its own prompt.

    >>> group = separate([Encoded([1, 2, 8], 1), Encoded([1, 3, 9], 1)])
    >>> [prompt.input_ids for prompt in group.prompts], group.branches
    ([[1, 2], [1, 3]], [[[8]], [[9]]])
    """
    sizes = [row.num_tokens - row.num_answer_tokens for row in rows]
    return PackedQueries(
        [Encoded(row.input_ids[:size], images=row.images) for row, size in zip(rows, sizes, strict=True)],
        [[row.input_ids[size:]] for row, size in zip(rows, sizes, strict=True)],
        [[row.num_answer_tokens] for row in rows],
    )
