"""Decoders of single prompts: each answer with its own copy of its prompt's keys, or all with one.

Shapes: B prompts, G answers to each, P tokens of the longest prompt, rows = B·G, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

import torch

from ffr.models.decoding.reading import Reader
from ffr.models.decoding.tail import AnyTail, MakeTail, Placing, Writing
from ffr.models.rows import Encoded
from ffr.models.vlm import Vlm


class CopyingDecoder:
    """Every answer has its own copy of the prompt's keys and values; for layers of any kind.

    Args:
        vlm: The model; in evaluation mode.
        prompts: B prompts without answers.
        num_samples: Answers to each prompt (G), adjacent.
        is_as_generate: Computes to the last bit what transformers' `generate` does: answers that
            have ended stay in the batch, where they else make room once half of them have, and the
            output embedding takes the first states as a batch, not as a matrix. One answer each.
    """

    def __init__(
        self,
        vlm: Vlm,
        prompts: Sequence[Encoded],
        num_samples: int = 1,
        *,
        is_as_generate: bool = False,
    ) -> None:
        self._reader = Reader(vlm, prompts, padding_side="left")
        self._num_samples = num_samples
        self._is_as_generate = is_as_generate
        if num_samples > 1:
            self._reader.cache.batch_repeat_interleave(num_samples)
        self._position = self._reader.following.repeat_interleave(num_samples)  # (rows,)
        self._mask = self._reader.mask.repeat_interleave(num_samples, dim=0)  # (rows, P + steps)

    def first_logits(self) -> torch.Tensor:
        """(rows, V) float32: what the prompts' last tokens predict."""
        hidden = self._reader.last_hidden
        if self._is_as_generate:
            return self._reader.logits(hidden)[:, 0]
        logits = self._reader.logits(hidden[:, 0])
        return logits.repeat_interleave(self._num_samples, dim=0)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """(rows, V) float32 after one more token (rows,) of each answer."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        hidden = self._reader.read(token[:, None], self._position[:, None], self._mask)
        self._position = self._position + 1
        return self._reader.logits(hidden[:, -1])

    def drop_finished(self, is_open: Sequence[bool]) -> list[int] | None:
        """As `ffr.models.decoding.loop.Decoder`."""
        if self._is_as_generate or 2 * sum(is_open) > len(is_open):
            return None
        kept = [row for row, goes_on in enumerate(is_open) if goes_on]
        places = torch.tensor(kept).to(self._mask.device)
        self._reader.cache.batch_select_indices(places)
        self._position, self._mask = self._position[places], self._mask[places]
        return kept


class SharedDecoder(Generic[AnyTail]):
    """All answers to a prompt read one copy of its keys and values; for layers of full attention.

    A forward pass takes the next token of every answer as one row of G tokens; its mask lets each
    see the prompt and what its own answer has written. The cache of a prompt then holds
    P + G·(steps) tokens instead of G·(P + steps).

    Args:
        vlm: The model; in evaluation mode.
        prompts: B prompts without answers.
        num_samples: Answers to each prompt (G), adjacent.
        make_tail: Makes what writes.
    """

    def __init__(
        self,
        vlm: Vlm,
        prompts: Sequence[Encoded],
        num_samples: int,
        make_tail: MakeTail[AnyTail],
    ) -> None:
        self._reader = Reader(vlm, prompts, padding_side="left")
        self._num_samples = num_samples
        # (B, G, P) and (B, G): every answer sees all of its prompt and begins behind it
        seen = self._reader.mask.bool()[:, None].expand(-1, num_samples, -1)
        positions = self._reader.following[:, None].expand(-1, num_samples)
        self._tail = make_tail(self._reader, seen, positions)

    def first_logits(self) -> torch.Tensor:
        """(rows, V) float32: what the prompts' last tokens predict."""
        logits = self._reader.logits(self._reader.last_hidden[:, 0])
        return logits.repeat_interleave(self._num_samples, dim=0)

    def step(self: SharedDecoder[Writing], token: torch.Tensor) -> torch.Tensor:
        """(rows, V) float32 after one more token (rows,) of each answer."""
        hidden = self._tail.read(token.view(-1, self._num_samples))
        return self._reader.logits(hidden.flatten(0, 1))

    def step_at(
        self: SharedDecoder[Placing], tokens: torch.Tensor, places: torch.Tensor, num_places: int
    ) -> torch.Tensor:
        """As `ffr.models.decoding.drafted.DraftedDecoder`."""
        shape = (-1, self._num_samples, tokens.shape[1])
        hidden = self._tail.read_at(tokens.view(shape), places.view(shape), num_places)
        return self._reader.logits(hidden.flatten(0, 1))

    def drop_finished(self, is_open: Sequence[bool]) -> list[int] | None:
        """As `ffr.models.decoding.loop.Decoder`.

        A prompt stays while one of its answers goes on.
        """
        size = self._num_samples
        starts = range(0, len(is_open), size)
        kept = [row for row, start in enumerate(starts) if any(is_open[start : start + size])]
        if not self._tail.select(kept):
            return None
        return [row * size + number for row in kept for number in range(size)]
