"""What several answers write behind what they all have read, one token of each at a time.

The tokens of one step stand side by side in the cache, and then those of the next; a mask lets each
see the beginning and what its own answer has written.

Shapes: D rows of the cache, P tokens of the beginning, n answers of a row, s steps so far, H hidden
size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from ffr.models.decoding.reading import Reader


class Selecting(Protocol):
    """What is written behind beginnings, a row each."""

    def select(self, kept: list[int]) -> bool:
        """Goes on with some rows of the cache alone where it can and that pays; says whether."""
        ...


class Writing(Selecting, Protocol):
    """What writes a token of each answer a pass: `Tail`, or one of fixed shapes."""

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states (D, n, H) of one more token (D, n) of each answer."""
        ...


class Placing(Selecting, Protocol):
    """What writes several tokens of each answer a pass, at places of its own."""

    def read_at(self, ids: torch.Tensor, places: torch.Tensor, num_places: int) -> torch.Tensor:
        """As `ffr.models.decoding.placed.PlacedTail`."""
        ...


AnyTail = TypeVar("AnyTail", bound=Selecting)

MakeTail = Callable[[Reader, torch.Tensor, torch.Tensor], AnyTail]
"""From what has read the beginnings, what of them each answer sees (D, n, P), and each answer's
first position (D, n)."""

_STEPS_AT_ONCE = 64
"""For how many steps a mask is made at once."""


class Tail:
    """Answers that grow behind their beginnings; for layers of full attention.

    Args:
        reader: What has read the beginnings.
        seen: (D, n, P) bool, what of the beginning each answer sees.
        positions: (D, n) of each answer's first token.
    """

    def __init__(self, reader: Reader, seen: torch.Tensor, positions: torch.Tensor) -> None:
        self._reader = reader
        self._seen = seen
        self._positions = positions
        self._num_steps = 0
        self._mask = self._mask_of(_STEPS_AT_ONCE)

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states (D, n, H) of one more token (D, n) of each answer."""
        self._num_steps += 1
        _, size, width = self._seen.shape
        length = width + size * self._num_steps
        if length > self._mask.shape[-1]:
            self._mask = self._mask_of(2 * self._num_steps)
        hidden = self._reader.read(ids, self._positions, self._mask[..., :length])
        self._positions = self._positions + 1
        return hidden

    def select(self, kept: list[int]) -> bool:
        """Goes on with some rows of the cache alone, which is to be worth the copy.

        Returns:
            Whether it does.
        """
        at = worth_choosing(self._reader, self._seen, kept)
        if at is None:
            return False
        self._seen, self._positions = self._seen[at], self._positions[at]
        self._mask = self._mask[at]
        return True

    def _mask_of(self, num_steps: int) -> torch.Tensor:
        """(D, 1, n, P + n · steps), of which steps so far take the beginning.

        Made ahead, so that no step has to.
        """
        own = own_tokens(self._seen.shape[1], num_steps, self._seen.device)
        sees = torch.cat([self._seen, own.expand(len(self._seen), -1, -1)], dim=2)
        return self._reader.mask_of(sees)


def worth_choosing(reader: Reader, seen: torch.Tensor, kept: list[int]) -> torch.Tensor | None:
    """Goes on with some rows of a reader's cache where they are few enough to be worth the copy.

    Args:
        reader: Whose cache it is.
        seen: (D, n, P) what of the beginning each answer sees.
        kept: The rows.

    Returns:
        The rows as an index; None where all stay.
    """
    if 4 * len(kept) > 3 * len(seen):
        return None
    at = torch.tensor(kept).to(seen.device)
    reader.cache.batch_select_indices(at)
    return at


def own_tokens(num_answers: int, num_steps: int, device: torch.device) -> torch.Tensor:
    """What each of several answers sees of what they all have written, (answers, answers · steps).

    The tokens of one step stand side by side in the cache, and then those of the next.

    >>> own_tokens(2, 2, torch.device("cpu")).int().tolist()
    [[1, 0, 1, 0], [0, 1, 0, 1]]
    """
    # an answer is one column of each step: the identity, once a step
    return torch.eye(num_answers, dtype=torch.bool, device=device).repeat(1, num_steps)
