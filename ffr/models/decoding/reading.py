"""A model with the keys and values of what it has read, which all decoders go on from.

Shapes: B rows of the cache, P tokens of the longest prompt, n further tokens of each row, T tokens
in the cache with them, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ffr.models.decoding.cache import RoomyCache
from ffr.models.positions import next_positions, token_positions
from ffr.models.prefix_attention import mask_repeats
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


class Reader:
    """Prompts that went through the model once.

    Args:
        vlm: The model; in evaluation mode.
        prompts: B prompts without answers.
        padding_side: left, so that all prompts end in one place; or right, which needs no mask:
            causal attention lets no token see the padding behind it.
    """

    def __init__(
        self, vlm: Vlm, prompts: Sequence[Encoded], *, padding_side: Literal["left", "right"]
    ) -> None:
        self._vlm = vlm
        self.cache = RoomyCache(vlm.base.config.get_text_config())
        inputs = vlm.collate(prompts, padding_side=padding_side).inputs
        positions = token_positions(vlm, inputs)
        self._has_three_positions = positions.ndim == 3
        self.mask: torch.Tensor = inputs["attention_mask"]
        """(B, P), 1 on the prompts' tokens."""
        self.following = next_positions(positions, self.mask)
        """(B,) position of the token that comes after each prompt."""
        if padding_side == "right":
            del inputs["attention_mask"]
        # the last column alone: the others would be kept for nothing
        self.last_hidden: torch.Tensor = vlm.core(
            **inputs, position_ids=positions, past_key_values=self.cache, use_cache=True
        ).last_hidden_state[:, -1:]
        """(B, 1, H) of the last column: the prompts' last token where the padding is left."""

    def read(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states (B, n, H) of n more tokens of each row.

        Args:
            ids: (B, n).
            positions: (B, n).
            mask: (B, T) of tokens; or what each of the n sees, from `mask_of` or (B, 1, n, T) bool.
        """
        hidden: torch.Tensor = self._vlm.core(
            input_ids=ids,
            position_ids=self.position_ids(positions),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions (B, n) of text as the model takes them."""
        # text has one position in time, height and width
        return positions.expand(3, -1, -1) if self._has_three_positions else positions

    def mask_of(self, sees: torch.Tensor) -> torch.Tensor:
        """What each token of a pass sees, (B, n, T) bool, as the model's attention adds it.

        In its type and with the rows that it takes, so that no layer has to convert or repeat it.
        """
        device = sees.device.type
        is_cast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_cast else self._vlm.base.dtype
        mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
        mask = mask.masked_fill_(~sees, -torch.inf)
        return mask.repeat(1, mask_repeats(self._vlm, sees.shape[1]), 1)[:, None]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, V) float32 from hidden states (…, H)."""
        logits: torch.Tensor = self._vlm.base.get_output_embeddings()(hidden).float()
        return logits
