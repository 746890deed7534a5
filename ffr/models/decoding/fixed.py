"""A step of writing answers whose shapes do not change, so that it can be compiled and replayed.

What several answers write stands in a cache of fixed size, filled up to a multiple, and a mask that
moves on with the number of the step. A device that starts one recorded graph a token, instead of a
thousand kernels, is not held up by the host.

Shapes: D rows of the cache (Db of them in memory, a power of two), P tokens of the beginning, n
answers of a row, L tokens of the cache, H hidden size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from transformers import StaticCache
from transformers.cache_utils import StaticLayer

from ffr.models.decoding.reading import Reader
from ffr.models.decoding.tail import own_tokens
from ffr.models.vlm import Vlm
from ffr.text import one_line

_log = logging.getLogger(__name__)

TOKENS_AT_ONCE = 512
"""Of which the length of a cache is a multiple: prompts of many lengths have few shapes."""

STEPS_AT_FIRST = 64
"""For how many tokens of each answer there is room at first; then for twice as many, and so on."""

_KEPT_SHAPES = 4
"""Caches of how many shapes are kept for later, with what was recorded of them."""


class FixedSteps:
    """Makes tails of fixed shapes for one model, and keeps their memory and their code.

    Args:
        vlm: The model; its layers must all be of full attention.
        is_compiled: Whether a step goes through PyTorch's compiler, which on a GPU records it as a
            CUDA graph. Where that fails, a warning says so once and steps run as they are.
    """

    def __init__(self, vlm: Vlm, *, is_compiled: bool) -> None:
        self._vlm = vlm
        self._caches: dict[tuple[int, int], StaticCache] = {}
        self._step: Callable[..., torch.Tensor] = self._plain_step
        if is_compiled:
            # in one graph or not at all: pieces of a step would each be started by the host
            self._step = torch.compile(self._plain_step, mode="reduce-overhead", fullgraph=True)
        self.reason: str | None = None if is_compiled else "it is not asked for"
        """Why steps are not compiled; None where they are."""

    def tail(
        self, reader: Reader, seen: torch.Tensor, positions: torch.Tensor, *, num_steps: int
    ) -> FixedTail:
        """As `ffr.models.decoding.tail.Tail`, for so many steps at most; frees the reader's cache.

        Until the next call: the memory is the same.
        """
        return FixedTail(self, reader, seen, positions, num_steps=num_steps)

    def cache(self, num_rows: int, length: int) -> StaticCache:
        """An empty cache for so many rows and tokens, whose memory may have been another's."""
        shape = (num_rows, length)
        # the newest last
        found = self._caches.pop(shape, None)
        if found is None:
            found = StaticCache(self._vlm.base.config.get_text_config(), max_cache_len=length)
            found.layers = [_FixedLayer(length) for _ in found.layers]
            while len(self._caches) >= _KEPT_SHAPES:
                del self._caches[next(iter(self._caches))]
        else:
            found.reset()
        self._caches[shape] = found
        return found

    def hidden(self, cache: StaticCache, num_held: int, **inputs: Any) -> torch.Tensor:
        """Hidden states (Db, n, H) of a step; what was given before is overwritten.

        Args:
            cache: With what was read and written before.
            num_held: How many tokens that is.
            inputs: As `_plain_step`.
        """
        if self.reason is not None:
            return self._plain_step(cache=cache, **inputs)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            return self._step(cache=cache, **inputs)
        except RuntimeError as error:  # what the compiler raises derives from it
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self.reason = one_line(error)
            _log.warning("answers are written by steps that are not compiled: %s", self.reason)
            for layer in cache.layers:
                # some may have taken the token; it is written in the same place again
                layer.cumulative_length.fill_(num_held)
            return self._plain_step(cache=cache, **inputs)

    def _plain_step(
        self,
        *,
        ids: torch.Tensor,
        positions: torch.Tensor,
        sees: torch.Tensor,
        written_at: torch.Tensor,
        step: torch.Tensor,
        cache: StaticCache,
    ) -> torch.Tensor:
        mask = sees.masked_fill(written_at > step, -torch.inf)
        hidden: torch.Tensor = self._vlm.core(
            input_ids=ids,
            position_ids=positions + step,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden


class _FixedLayer(StaticLayer):  # type: ignore[misc]
    """With values of their own type: under autocast it may differ from that of the keys."""

    values: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        if value_states.dtype != self.values.dtype:
            self.values = self.values.to(value_states.dtype)
            torch._dynamo.mark_static_address(self.values)


class FixedTail:
    """As `ffr.models.decoding.tail.Tail`, in shapes that seldom change. Made by `FixedSteps`.

    Args:
        steps: What computes.
        reader: What has read the beginnings.
        seen: (D, n, P) bool, what of the beginning each answer sees.
        positions: (D, n) of each answer's first token.
        num_steps: At most.
    """

    def __init__(
        self,
        steps: FixedSteps,
        reader: Reader,
        seen: torch.Tensor,
        positions: torch.Tensor,
        *,
        num_steps: int,
    ) -> None:
        self._steps = steps
        self._reader = reader
        self._num_rows, size, _ = seen.shape
        self._most = num_steps
        held = 1 << (self._num_rows - 1).bit_length()
        # rows that only fill up read what the first has read
        filled = [*range(self._num_rows), *[0] * (held - self._num_rows)]
        self._seen = seen[filled]
        self._positions = reader.position_ids(positions[filled])
        self._ids = torch.zeros((held, size), dtype=torch.long, device=seen.device)
        self._step = torch.zeros((), dtype=torch.long, device=seen.device)
        self._num_written = self._room = 0
        self._take_room(
            [(layer.keys[filled], layer.values[filled]) for layer in reader.cache.layers]
        )
        reader.cache.reset()

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states (D, n, H) of one more token (D, n) of each answer."""
        num_held = self._seen.shape[2] + self._seen.shape[1] * self._num_written
        if self._num_written == self._room:
            self._take_room(
                [
                    (layer.keys[..., :num_held, :], layer.values[..., :num_held, :])
                    for layer in self._cache.layers
                ]
            )
        self._ids[: self._num_rows].copy_(ids)
        hidden = self._steps.hidden(
            self._cache,
            num_held,
            ids=self._ids,
            positions=self._positions,
            sees=self._sees,
            written_at=self._written_at,
            step=self._step,
        )
        self._step.add_(1)
        self._num_written += 1
        return hidden[: self._num_rows]

    def select(self, kept: list[int]) -> bool:
        """All rows stay."""
        return False

    def _take_room(self, states: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Goes on in a cache for more tokens.

        Args:
            states: Of each layer, the keys and values (Db, heads, tokens so far, width).
        """
        held, size, width = self._seen.shape
        # at first the same for short answers: a trial of two tokens is of the shape that is used
        wanted = max(STEPS_AT_FIRST, min(self._most, 2 * self._num_written))
        length = width + size * wanted
        length += -length % TOKENS_AT_ONCE
        self._room = (length - width) // size
        self._cache = self._steps.cache(held, length)
        for layer, (keys, values) in zip(self._cache.layers, states, strict=True):
            layer.update(keys, values)
        device = self._seen.device
        own = own_tokens(size, self._room, device).expand(held, -1, -1)
        rest = length - width - size * self._room
        sees = torch.nn.functional.pad(torch.cat([self._seen, own], dim=2), (0, rest))
        self._sees = self._reader.mask_of(sees)
        # (L,): at which step a token of the cache is written; the beginning before all
        steps_of = torch.arange(self._room, device=device).repeat_interleave(size)
        before, behind = steps_of.new_full((width,), -1), steps_of.new_full((rest,), self._room)
        self._written_at = torch.cat([before, steps_of, behind])
