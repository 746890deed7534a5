"""Positions of tokens as a model counts them itself, given so that packing cannot shift them.

Shapes: B rows, L tokens of the longest row; M-RoPE models have three positions a token (time,
height, width), others one.
"""

from __future__ import annotations

from typing import Any

import torch

from ffr.models.vlm import Vlm


def token_positions(vlm: Vlm, inputs: dict[str, Any]) -> torch.Tensor:
    """Positions of a padded batch, as `Vlm.collate` makes it; those of padding have no meaning.

    Args:
        vlm: The model.
        inputs: `input_ids` and `attention_mask` (B, L), and what else the model takes.

    Returns:
        (3, B, L) for models with M-RoPE, (B, L) for others.
    """
    mask: torch.Tensor = inputs["attention_mask"]
    # padding counts for nothing, wherever it stands
    in_order = (mask.long().cumsum(1) - 1).clamp(min=0)
    if not hasattr(vlm.core, "get_rope_index"):
        return in_order
    if "image_grid_thw" not in inputs:
        return in_order.expand(3, -1, -1)
    positions: torch.Tensor = vlm.core.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        attention_mask=mask,
    )[0]
    return positions


def next_positions(positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The position of the token that follows each row: one more than the largest in it.

    Args:
        positions: (3, B, L) or (B, L).
        mask: (B, L), 1 on tokens, 0 on padding.

    Returns:
        (B,).

    >>> attended = torch.tensor([[1, 1, 1], [1, 1, 0]])
    >>> next_positions(torch.tensor([[0, 1, 2], [0, 1, 0]]), attended).tolist()
    [3, 2]
    """
    # by the largest, not the last: a picture's width may count further than what follows it
    masked = positions.masked_fill(mask == 0, -1)
    return masked.amax(dim=(0, 2) if positions.ndim == 3 else 1) + 1
