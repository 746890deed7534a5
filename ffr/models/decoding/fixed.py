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

from ffr.models.decoding.placed import Layout
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
        self._caches: dict[tuple[int, int, int | None], StaticCache] = {}
        self._step, self._pass = self._plain_step, self._plain_pass
        if is_compiled:
            # in one graph or not at all: pieces of a step would each be started by the host
            self._step, self._pass = (
                torch.compile(plain, mode="reduce-overhead", fullgraph=True)
                for plain in (self._plain_step, self._plain_pass)
            )
        self.reason: str | None = None if is_compiled else "it is not asked for"
        """Why steps are not compiled; None where they are."""

    def tail(
        self, reader: Reader, seen: torch.Tensor, positions: torch.Tensor, *, num_steps: int
    ) -> FixedTail:
        """As `ffr.models.decoding.tail.Tail`, for so many steps at most; frees the reader's cache.

        Until the next call: the memory is the same.
        """
        return FixedTail(self, reader, seen, positions, num_steps=num_steps)

    def placed_tail(
        self,
        reader: Reader,
        seen: torch.Tensor,
        positions: torch.Tensor,
        *,
        num_places: int,
        width: int,
    ) -> FixedPlacedTail:
        """As `ffr.models.decoding.placed.PlacedTail`, for passes of so many tokens of each answer.

        Frees the reader's cache. Until the next call: the memory is the same.

        Args:
            reader: What has read the beginnings.
            seen: As of `PlacedTail`.
            positions: As of `PlacedTail`.
            num_places: Above all places that there may be.
            width: Tokens of each answer in a pass, at most.
        """
        return FixedPlacedTail(self, reader, seen, positions, num_places=num_places, width=width)

    def cache(self, num_rows: int, length: int, num_placed: int | None = None) -> StaticCache:
        """An empty cache for so many rows and tokens, whose memory may have been another's.

        Args:
            num_rows: Db.
            length: L.
            num_placed: How many tokens of each row a pass writes at places of its own; None where
                it writes them behind the others.
        """
        shape = (num_rows, length, num_placed)
        # the newest last
        found = self._caches.pop(shape, None)
        if found is None:
            found = StaticCache(self._vlm.base.config.get_text_config(), max_cache_len=length)
            if num_placed is None:
                found.layers = [_FixedLayer(length) for _ in found.layers]
            else:
                found.layers = _placed_layers(
                    len(found.layers), length, (num_rows, num_placed), self._vlm.device
                )
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
        return self._run(self._step, self._plain_step, cache, num_held, inputs)

    def hidden_at(self, cache: StaticCache, **inputs: Any) -> torch.Tensor:
        """Hidden states (Db, n · w, H) of a pass; what was given before is overwritten.

        Args:
            cache: With what was read and written before, and the columns that the pass writes.
            inputs: As `_plain_pass`.
        """
        return self._run(self._pass, self._plain_pass, cache, 0, inputs)

    def _run(
        self,
        step: Callable[..., torch.Tensor],
        plain: Callable[..., torch.Tensor],
        cache: StaticCache,
        num_held: int,
        inputs: dict[str, Any],
    ) -> torch.Tensor:
        if self.reason is not None:
            return plain(cache=cache, **inputs)
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            return step(cache=cache, **inputs)
        except RuntimeError as error:  # what the compiler raises derives from it
            if isinstance(error, torch.OutOfMemoryError):
                raise
            self.reason = one_line(error)
            _log.warning("answers are written by steps that are not compiled: %s", self.reason)
            for layer in cache.layers:
                # some may have taken the token; it is written in the same place again
                layer.cumulative_length.fill_(num_held)
            return plain(cache=cache, **inputs)

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
        return self._plain_pass(ids=ids, positions=positions + step, mask=mask, cache=cache)

    def _plain_pass(
        self,
        *,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor,
        cache: StaticCache,
    ) -> torch.Tensor:
        hidden: torch.Tensor = self._vlm.core(
            input_ids=ids,
            position_ids=positions,
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


class _PlacedFixedLayer(_FixedLayer):
    """Writes where its columns say.

    Args:
        length: L.
        columns: (Db, tokens of a pass), one tensor for all layers, filled before each pass.
    """

    def __init__(self, length: int, columns: torch.Tensor) -> None:
        super().__init__(length)
        self.columns = columns

    def hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Takes what was read, (Db, heads, tokens, width) each, in front."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        for held, new in ((self.keys, keys), (self.values, values)):
            held[:, :, : new.shape[2]].copy_(new)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values of a pass, and gives all."""
        index = self.columns[:, None, :, None]
        self.keys.scatter_(2, index.expand(key_states.shape), key_states)
        self.values.scatter_(2, index.expand(value_states.shape), value_states)
        return self.keys, self.values


def _placed_layers(
    number: int, length: int, shape: tuple[int, int], device: torch.device
) -> list[_PlacedFixedLayer]:
    columns = torch.zeros(shape, dtype=torch.long, device=device)
    torch._dynamo.mark_static_address(columns)
    return [_PlacedFixedLayer(length, columns) for _ in range(number)]


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
        filled = _filled_rows(self._num_rows)
        held = len(filled)
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


class FixedPlacedTail:
    """As `ffr.models.decoding.placed.PlacedTail`, in shapes that seldom change. Made by `FixedSteps`.

    Args:
        steps: What computes.
        reader: What has read the beginnings.
        seen: (D, n, P) bool, what of the beginning each answer sees.
        positions: (D, n) of each answer's first token.
        num_places: Above all places that there may be.
        width: Tokens of each answer in a pass (w), at most.
    """

    def __init__(
        self,
        steps: FixedSteps,
        reader: Reader,
        seen: torch.Tensor,
        positions: torch.Tensor,
        *,
        num_places: int,
        width: int,
    ) -> None:
        self._steps = steps
        self._reader = reader
        self._num_rows, size, _ = seen.shape
        self._most = num_places
        filled = _filled_rows(self._num_rows)
        self._seen, self._positions = seen[filled], positions[filled]
        device = seen.device
        shape = (len(filled), size, width)
        self._ids = torch.zeros(shape, dtype=torch.long, device=device)
        self._numbers = torch.arange(width, device=device)
        self._places = self._numbers.repeat(*shape[:2], 1)
        self._layout = self._with_room(
            STEPS_AT_FIRST,
            [(layer.keys[filled], layer.values[filled]) for layer in reader.cache.layers],
        )
        reader.cache.reset()

    def read_at(self, ids: torch.Tensor, places: torch.Tensor, num_places: int) -> torch.Tensor:
        """As `ffr.models.decoding.placed.PlacedTail`."""
        num_rows, _, width = ids.shape
        missing = self._ids.shape[2] - width
        num_places += missing
        if num_places > self._layout.room:
            held = self._layout.length(self._layout.room)
            self._layout = self._with_room(
                min(self._most, max(num_places, 2 * self._layout.room)),
                [
                    (layer.keys[:, :, :held], layer.values[:, :, :held])
                    for layer in self._cache.layers
                ],
            )
        # what fills a pass up stands at places that are written over, or never looked at
        self._ids[:num_rows].copy_(torch.nn.functional.pad(ids, (0, missing)))
        first = places[..., :1]
        self._places[:num_rows].copy_(first + self._numbers)
        self._cache.layers[0].columns.copy_(self._layout.columns(self._places))
        positions = (self._positions[..., None] + self._places).flatten(1)
        hidden = self._steps.hidden_at(
            self._cache,
            ids=self._ids.flatten(1),
            positions=self._reader.position_ids(positions),
            mask=self._mask(),
        )
        return hidden.view(*self._ids.shape, -1)[:num_rows, :, :width]

    def select(self, kept: list[int]) -> bool:
        """All rows stay."""
        return False

    def _mask(self) -> torch.Tensor:
        sees = self._layout.sees(self._places, self._layout.length(self._layout.room))
        rest = self._length - sees.shape[2]
        return self._reader.mask_of(torch.nn.functional.pad(sees, (0, rest)))

    def _with_room(self, wanted: int, states: list[tuple[torch.Tensor, torch.Tensor]]) -> Layout:
        """Goes on in a cache for so many tokens of each answer, or a few more.

        Args:
            wanted: How many.
            states: Of each layer, the keys and values (Db, heads, tokens so far, width).
        """
        held, size, width = self._seen.shape
        length = width + size * wanted
        self._length = length + -length % TOKENS_AT_ONCE
        num_placed = self._ids.shape[1] * self._ids.shape[2]
        self._cache = self._steps.cache(held, self._length, num_placed)
        for layer, (keys, values) in zip(self._cache.layers, states, strict=True):
            layer.hold(keys, values)
        return Layout(self._seen, (self._length - width) // size)


def _filled_rows(number: int) -> list[int]:
    """Rows up to a power of two; those that only fill up read what the first has read.

    >>> _filled_rows(3)
    [0, 1, 2, 0]
    """
    return [*range(number), *[0] * ((1 << (number - 1).bit_length()) - number)]
