"""Queries on one dialogue as one sequence: the dialogue once, then each query and answer.

What the queries' encodings have in common is found token by token on the whole encodings, so
packing changes no id, wherever a tokenizer joins letters across the border.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from ffr.models.rows import Encoded


@dataclass(slots=True)
class PackedQueries:
    """Queries on one dialogue, as `PrefixSharing.score` takes them.

    Args:
        prompts: What stands once: the shared beginning; or each query's whole prompt, where it
            cannot be shared.
        branches: For each prompt, the ids that follow it: the rest of a query's prompt and its
            answer.
        num_scored: For each branch, how many of its last ids are the answer with the end of its
            turn.
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

    >>> common_length([[1, 2, 3], [1, 2, 4, 5], [1, 2, 3, 3]]), common_length([[1], []])
    (2, 0)
    >>> common_length([[7, 8]])
    2
    """
    # what the smallest and the largest row share, all between them share
    ordered = sorted(rows)
    first, last = ordered[0], ordered[-1]
    shorter = min(len(first), len(last))
    return next((place for place in range(shorter) if first[place] != last[place]), shorter)


def shared_beginning(rows: Sequence[Encoded], placeholder_ids: Collection[int]) -> int | None:
    """How many ids can go through the model once for all rows; None where nothing can.

    All pictures must stand in it, and to each row its answer is left, or its last id.

    Args:
        rows: Prompts, with or without answers.
        placeholder_ids: The ids that stand for images.

    >>> shared_beginning([Encoded([1, 2, 3, 8], 1), Encoded([1, 2, 4, 8, 9], 2)], {99})
    2
    >>> shared_beginning([Encoded([1, 2]), Encoded([1, 2, 3])], {99})
    1
    >>> shared_beginning([Encoded([1, 2, 99, 3]), Encoded([1, 4, 99, 3])], {99})
    """
    # the answers of a query that was asked twice may be alike, but they are scored; and the last
    # id of a prompt must pass by itself, since what it predicts is the answer's first token
    length = min(
        common_length(row.input_ids for row in rows),
        *(row.num_tokens - max(1, row.num_answer_tokens) for row in rows),
    )
    images = {tuple(image.digest for image in row.images) for row in rows}
    behind = (item for row in rows for item in row.input_ids[length:])
    if length < 1 or len(images) > 1 or not set(placeholder_ids).isdisjoint(behind):
        return None
    return length


def neighbours_of(
    prompts: Sequence[Encoded], dialogue_numbers: Sequence[int], placeholder_ids: Collection[int]
) -> list[list[Encoded]]:
    """Prompts in parts: neighbours on one dialogue together where they can share its beginning.

    Args:
        prompts: B prompts.
        dialogue_numbers: The number of each one's dialogue.
        placeholder_ids: The ids that stand for images.

    Returns:
        The prompts in their order; a prompt that can share nothing is a part by itself.
    """
    numbered = zip(dialogue_numbers, prompts, strict=True)
    parts: list[list[Encoded]] = []
    for _, part in itertools.groupby(numbered, key=lambda item: item[0]):
        together = [prompt for _, prompt in part]
        can_share = shared_beginning(together, placeholder_ids) is not None
        parts += [together] if can_share else [[prompt] for prompt in together]
    return parts


def pack(rows: Sequence[Encoded], placeholder_ids: Collection[int]) -> PackedQueries:
    """Examples as one sequence, or one by one where their pictures are not all in what they share.

    Args:
        rows: Encoded examples with their answers.
        placeholder_ids: The ids that stand for images.

    >>> packed = pack([Encoded([1, 2, 3, 8], 1), Encoded([1, 2, 4, 8, 9], 2)], {99})
    >>> packed.prompts[0].input_ids, packed.branches, packed.num_scored
    ([1, 2], [[[3, 8], [4, 8, 9]]], [[1, 2]])
    """
    length = shared_beginning(rows, placeholder_ids)
    if length is None:
        return separate(rows)
    prompt = Encoded(rows[0].input_ids[:length], images=rows[0].images)
    branches = [row.input_ids[length:] for row in rows]
    return PackedQueries([prompt], [branches], [[row.num_answer_tokens for row in rows]])


def separate(rows: Sequence[Encoded]) -> PackedQueries:
    """Examples that go through the model one by one, each with its own prompt.

    >>> group = separate([Encoded([1, 2, 8], 1), Encoded([1, 3, 9], 1)])
    >>> [prompt.input_ids for prompt in group.prompts], group.branches
    ([[1, 2], [1, 3]], [[[8]], [[9]]])
    """
    sizes = [row.num_tokens - row.num_answer_tokens for row in rows]
    return PackedQueries(
        [
            Encoded(row.input_ids[:size], images=row.images)
            for row, size in zip(rows, sizes, strict=True)
        ],
        [[row.input_ids[size:]] for row, size in zip(rows, sizes, strict=True)],
        [[row.num_answer_tokens] for row in rows],
    )


SMALLEST_BLOCK = 128
"""Tokens of a block, at least: smaller ones leave a matrix unit idle."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Sequences one behind another, those of a row behind the prompt that they go on from.

    Whole sequences stand in blocks of one size; a token sees the prompt and, of its block, its own
    sequence up to itself.

    Shapes: B prompts, P tokens of the longest, N tokens of the longest row of sequences, S of a
    block.

    Args:
        ids: (B, N) token ids.
        owner: (B, N) which of its row's sequences a token is of; -1 on filling.
        place: (B, N) its place in that sequence; 0 on filling.
        starts: For each row, where in it each of its sequences starts.
        block: S, a divisor of N.
    """

    ids: torch.Tensor
    owner: torch.Tensor
    place: torch.Tensor
    starts: list[list[int]]
    block: int

    @classmethod
    def of(
        cls,
        sequences: Sequence[Sequence[Sequence[int]]],
        *,
        filling_id: int,
        device: torch.device,
        block: int | None = None,
    ) -> PackedRows:
        """Lays out sequences.

        Args:
            sequences: For each prompt, the ids of each sequence that stands behind it.
            filling_id: Stands where there is no token; nothing but filling sees it.
            device: Where the tensors go.
            block: S, as long as the longest sequence at least; None for one block.

        >>> rows = PackedRows.of([[[7, 8], [9]], [[6]]], filling_id=0, device=torch.device("cpu"))
        >>> rows.ids.tolist(), rows.owner.tolist(), rows.place.tolist(), rows.starts
        ([[7, 8, 9], [6, 0, 0]], [[0, 0, 1], [0, -1, -1]], [[0, 1, 0], [0, 0, 0]], [[0, 2], [0]])
        """
        block = block if block is not None else max(1, *(sum(map(len, row)) for row in sequences))
        starts, size = _places(sequences, block)
        # token by token on the host: on a GPU each of these small writes would be a kernel
        ids = torch.full((len(sequences), size), filling_id, dtype=torch.long)
        owner = torch.full((len(sequences), size), -1)
        place = torch.zeros((len(sequences), size), dtype=torch.long)
        for row, its_starts in enumerate(starts):
            for number, (start, sequence) in enumerate(
                zip(its_starts, sequences[row], strict=True)
            ):
                end = start + len(sequence)
                ids[row, start:end] = torch.tensor(list(sequence), dtype=torch.long)
                owner[row, start:end] = number
                place[row, start:end] = torch.arange(len(sequence))
        return cls(ids.to(device), owner.to(device), place.to(device), starts, block)

    @property
    def num_tokens(self) -> int:
        """N."""
        return self.ids.shape[1]

    def mask(self, prompt_mask: torch.Tensor) -> torch.Tensor:
        """What each token sees, (B, 1, N, P + S) bool: of the prompt, and of its own block.

        Args:
            prompt_mask: (B, P) bool, True on the prompts' tokens.
        """
        # (B, blocks, S): a sequence stands in one block, so no more than the block is compared
        owner, place = (
            item.reshape(len(item), -1, self.block) for item in (self.owner, self.place)
        )
        is_own = owner[..., :, None] == owner[..., None, :]
        is_before = place[..., :, None] >= place[..., None, :]
        # filling sees the filling of its block: softmax over nothing would be NaN
        own = (is_own & is_before).flatten(1, 2)  # (B, N, S)
        of_prompt = prompt_mask[:, None, :].expand(-1, own.shape[1], -1)
        return torch.cat([of_prompt, own], dim=2)[:, None]


def block_size(
    branches: Sequence[Sequence[Sequence[int]]],
    prompt_size: int,
    hidden_size: int,
    multiple: int = 1,
) -> int:
    """S for the least work, where filling counts.

    A block is half as long as the prompt at least, so that the prompt's keys, copied for each
    block, take less room than what is kept of the branches themselves.

    Args:
        branches: For each prompt, the ids of each branch.
        prompt_size: P.
        hidden_size: H; with it, what a token costs apart from attention is put in pairs of tokens
            that attend (of 4H operations a layer): about 6H.
        multiple: Of which S is one.

    >>> many, few = [[[0] * 65] * 32], [[[0] * 40] * 8]
    >>> block_size(many, 825, 576), block_size(few, 825, 576), block_size(many, 832, 576, 64)
    (540, 320, 576)
    """
    longest = max(len(branch) for group in branches for branch in group)
    total = max(1, *(sum(map(len, group)) for group in branches))
    least = max(longest, prompt_size // 2, SMALLEST_BLOCK)
    sizes = [
        total,
        *(size for sixteenths in range(16, 33) if 2 * (size := least * sixteenths // 16) < total),
    ]
    return min(
        (size + -size % multiple for size in sizes),
        key=lambda size: _places(branches, size)[1] * (prompt_size + size + 6 * hidden_size),
    )


def _places(branches: Sequence[Sequence[Sequence[int]]], block: int) -> tuple[list[list[int]], int]:
    """Where each branch starts behind its prompt, none across the border of a block; and N.

    >>> _places([[[1, 2, 3], [4, 5], [6]], [[7, 8]]], 4)
    ([[0, 4, 6], [0]], 8)
    """
    starts: list[list[int]] = []
    size = block
    for group in branches:
        places, end = [], 0
        for branch in group:
            room = -end % block
            start = end if len(branch) <= room or not end % block else end + room
            places.append(start)
            end = start + len(branch)
        starts.append(places)
        size = max(size, -(-end // block) * block)
    return starts, size
