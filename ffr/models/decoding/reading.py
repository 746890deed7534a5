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
            mask: (B, T) of tokens, or (B, 1, n, T) bool of what each of the n sees.
        """
        hidden: torch.Tensor = self._vlm.core(
            input_ids=ids,
            # text has one position in time, height and width
            position_ids=positions.expand(3, -1, -1) if self._has_three_positions else positions,
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(…, V) float32 from hidden states (…, H)."""
        logits: torch.Tensor = self._vlm.base.get_output_embeddings()(hidden).float()
        return logits


def own_tokens(num_answers: int, num_steps: int, device: torch.device) -> torch.Tensor:
    """What each of several answers sees of what they all have written, (answers, answers · steps).

    The tokens of one step stand side by side in the cache, and then those of the next.

    >>> own_tokens(2, 2, torch.device("cpu")).int().tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1]]
    """
    # an answer is one column of each step: the identity, once a step
    return torch.eye(num_answers, dtype=torch.bool, device=device).repeat(1, num_steps)
