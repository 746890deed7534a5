"""What several answers write, each at a place of its own: what was only guessed is written over.

A column of the cache is one answer's token at one place. A pass takes several tokens of each
answer, the newest and guesses of those behind it; where a guess was wrong, the true token later
stands in its column. Answers may get on at different speeds, and the cache is no longer than the
longest of them asks for.

Shapes: D rows of the cache, P tokens of the beginning, n answers of a row, w tokens of each in a
pass, L tokens of the cache in a pass, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from ffr.models.decoding.reading import Reader
from ffr.models.decoding.tail import own_tokens, worth_choosing

_PLACES_AT_FIRST = 64
"""For how many tokens of each answer there is room at first; then for twice as many, and so on."""


class Layout:
    """Which column of a cache is whose token at which place, and who sees it.

    Args:
        seen: (D, n, P) bool, what of the beginning each answer sees.
        room: For how many tokens of each answer.
    """

    def __init__(self, seen: torch.Tensor, room: int) -> None:
        rows, size, self._beginning = seen.shape
        self.room = room
        self.numbers = torch.arange(size, device=seen.device)
        own = own_tokens(size, room, seen.device).expand(rows, -1, -1)
        # (D, n, P + n · room): an answer's own columns, whatever stands there yet
        self._sees = torch.cat([seen, own], dim=2)
        # (P + n · room,): the place of a column's token in its answer; the beginning before all
        place_of = torch.arange(room, device=seen.device).repeat_interleave(size)
        self._place_of = torch.cat([place_of.new_full((self._beginning,), -1), place_of])

    def length(self, num_places: int) -> int:
        """Of a cache with the beginning and so many tokens of each answer."""
        return self._beginning + len(self.numbers) * num_places

    def columns(self, places: torch.Tensor) -> torch.Tensor:
        """(D, n · w) where the tokens at places (D, n, w) stand."""
        return (self._beginning + places * len(self.numbers) + self.numbers[:, None]).flatten(1)

    def sees(self, places: torch.Tensor, length: int) -> torch.Tensor:
        """(D, n · w, L) bool: what the tokens at places (D, n, w) see, their answer up to themselves.

        Args:
            places: One behind the other.
            length: Of the cache (L).
        """
        own = self._sees[..., :length].repeat_interleave(places.shape[2], dim=1)
        return own & (self._place_of[:length] <= places.flatten(1)[..., None])

    def select(self, at: torch.Tensor) -> None:
        """Goes on with some rows alone."""
        self._sees = self._sees[at]


class PlacedTail:
    """Answers that grow behind their beginnings, several tokens a pass.

    For layers of full attention.

    Args:
        reader: What has read the beginnings; its cache is this tail's from now on.
        seen: (D, n, P) bool, what of the beginning each answer sees.
        positions: (D, n) of each answer's first token.
    """

    def __init__(self, reader: Reader, seen: torch.Tensor, positions: torch.Tensor) -> None:
        self._reader = reader
        self._seen = seen
        self._positions = positions
        self._columns = _Columns(torch.empty(0), 0)
        reader.cache.layers = [
            _PlacedLayer(layer.keys, layer.values, self._columns) for layer in reader.cache.layers
        ]
        self._layout = self._with_room(_PLACES_AT_FIRST)

    def read_at(self, ids: torch.Tensor, places: torch.Tensor, num_places: int) -> torch.Tensor:
        """Hidden states (D, n, w, H) of further tokens of each answer.

        Args:
            ids: (D, n, w) tokens.
            places: (D, n, w) their places in their answers, from 0, one behind the other; all before
                them were read.
            num_places: Above all places.
        """
        if num_places > self._layout.room:
            self._layout = self._with_room(max(num_places, 2 * self._layout.room))
        self._columns.index = self._layout.columns(places)
        self._columns.length = self._layout.length(num_places)
        positions = self._positions[..., None] + places
        mask = self._reader.mask_of(self._layout.sees(places, self._columns.length))
        hidden = self._reader.read(ids.flatten(1), positions.flatten(1), mask)
        return hidden.view(*ids.shape, -1)

    def select(self, kept: list[int]) -> bool:
        """Goes on with some rows of the cache alone, which is to be worth the copy.

        Returns:
            Whether it does.
        """
        at = worth_choosing(self._reader, self._seen, kept)
        if at is None:
            return False
        self._seen, self._positions = self._seen[at], self._positions[at]
        self._layout.select(at)
        return True

    def _with_room(self, room: int) -> Layout:
        """Goes on in a cache for so many tokens of each answer."""
        layout = Layout(self._seen, room)
        for layer in self._reader.cache.layers:
            layer.take_room(layout.length(room))
        return layout


@dataclass
class _Columns:
    """Where a pass writes: one for all layers.

    Args:
        index: (D, tokens of the pass) columns.
        length: How many columns attention looks at (L).
    """

    index: torch.Tensor
    length: int


class _PlacedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values (D, heads, room, width), written where its columns say."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, columns: _Columns) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._columns = columns

    def take_room(self, length: int) -> None:
        """Goes on in memory for so many tokens.

        What was never written is 0: a mask does not keep out what is no number.
        """
        self.keys, self.values = (_longer(item, length) for item in (self.keys, self.values))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values of a pass, and gives those that it looks at."""
        index = self._columns.index[:, None, :, None]
        for held, new in ((self.keys, key_states), (self.values, value_states)):
            held.scatter_(2, index.expand(new.shape), new)
        length = self._columns.length
        return self.keys[:, :, :length], self.values[:, :, :length]


def _longer(states: torch.Tensor, length: int) -> torch.Tensor:
    """States (D, heads, T, width) with zeros behind them, up to a length."""
    rows, heads, used, width = states.shape
    held = states.new_zeros((rows, heads, length, width))
    held[:, :, :used] = states
    return held
