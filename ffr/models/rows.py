"""What goes into a model: prompts as token ids with their images, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ffr.images import Location


@dataclass(slots=True)
class EncodedImage:
    """One image of a prompt: where it is, what it is, and its pixels where they are still needed.

    Args:
        location: Its file, or the picture in memory.
        digest: Names its bytes and how the processor cuts it.
        inputs: What the image processor gave; None where the features are in the cache.
        is_among_several: Whether the processor cuts it as one of several (LLaVA-OneVision: no
            tiles).
    """

    location: Location
    digest: str
    inputs: dict[str, Any] | None
    is_among_several: bool = False


@dataclass(slots=True)
class Encoded:
    """A prompt, and its answer where one was given, as token ids with the image tokens in place.

    Args:
        input_ids: All ids; the answer's, with the end of its turn, are the last
            `num_answer_tokens`.
        num_answer_tokens: 0 where there is no answer.
        images: The images, in the order of their tokens.
    """

    input_ids: list[int]
    num_answer_tokens: int = 0
    images: list[EncodedImage] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.input_ids)


@dataclass(slots=True)
class Batch:
    """Rows on the model's device.

    Args:
        inputs: Keyword arguments of the model: `input_ids` and `attention_mask` (B, L),
            `mm_token_type_ids` and `image_grid_thw` where the architecture has them,
            `mm_encoder_outputs` where there are images.
        answer_mask: (B, L) bool, True on answer tokens and the end of the turn.
    """

    inputs: dict[str, Any]
    answer_mask: torch.Tensor


def padded(
    rows: Sequence[Encoded],
    padding_id: int,
    *,
    padding_side: Literal["left", "right"],
    multiple: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of one length, on the host.

    Args:
        rows: B rows.
        padding_id: Stands where there is no token.
        padding_side: Where the padding goes.
        multiple: Of which the length L is one.

    Returns:
        (B, L) ids; (B, L) int64, 1 on tokens and 0 on padding; (B, L) bool, True on answer tokens.

    >>> rows = [Encoded([5, 6, 7], 1), Encoded([8])]
    >>> ids, attention, answer = padded(rows, 0, padding_side="left")
    >>> ids.tolist(), attention.tolist(), answer[0].tolist()
    ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]], [False, False, True])
    """
    longest = max(row.num_tokens for row in rows)
    # -n % m is what n lacks to a multiple of m
    length = longest + -longest % multiple
    ids = torch.full((len(rows), length), padding_id, dtype=torch.long)
    attention = torch.zeros((len(rows), length), dtype=torch.long)
    answer = torch.zeros((len(rows), length), dtype=torch.bool)
    for number, row in enumerate(rows):
        start = length - row.num_tokens if padding_side == "left" else 0
        end = start + row.num_tokens
        ids[number, start:end] = torch.tensor(row.input_ids)
        attention[number, start:end] = 1
        # the answer is the end of its row
        answer[number, end - row.num_answer_tokens : end] = True
    return ids, attention, answer
