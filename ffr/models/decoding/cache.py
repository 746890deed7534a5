"""Keys and values of what a model has read, in memory with room ahead."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class RoomyCache(DynamicCache):  # type: ignore[misc]
    """transformers' growing cache, with layers of full attention that write into room set aside.

    Values are the same. The plain one copies all keys and values at every token; beside the small
    passes that write an answer token by token, these copies take long. It may hold up to a quarter
    more than it needs. Layers of other kinds (sliding windows, for instance) are transformers' own.

    Args:
        config: Of the text model.

    >>> from transformers import Qwen2Config
    >>> cache = RoomyCache(Qwen2Config(num_hidden_layers=1))
    >>> for number in range(3):
    ...     new = torch.full((1, 2, 1, 4), float(number))
    ...     keys, values = cache.update(new, torch.zeros(1, 2, 1, 4), 0)
    >>> keys[0, 0, :, 0].tolist(), cache.get_seq_length()
    ([0.0, 1.0, 2.0], 3)
    """

    layers: list[Any]

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        # a subclass of the layer may keep more than keys and values
        self.layers = [
            RoomyLayer() if type(layer) is DynamicLayer else layer for layer in self.layers
        ]


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of `RoomyCache`.

    `keys` and `values` (B, heads, T, width) are views of the parts in use of larger tensors.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rooms = [_Room()]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds keys and values of further tokens, and gives all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        is_first = not self.keys.numel()
        if _are_alike(key_states, value_states):
            [room] = self._rooms = self._rooms[:1]
            used = [self.keys, self.values]
            self.keys, self.values = room.appended(used, [key_states, value_states])
        else:
            # keys in float32 beside values in bfloat16 for instance, under autocast
            self._rooms = [*self._rooms, _Room()][:2]
            [self.keys] = self._rooms[0].appended([self.keys], [key_states])
            [self.values] = self._rooms[1].appended([self.values], [value_states])
        # a prompt attends to its own states as they are, in their own order in memory
        return (key_states, value_states) if is_first else (self.keys, self.values)

    def reset(self) -> None:
        """Forgets all, the room included."""
        super().reset()
        self._rooms = [_Room()]


def _are_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


class _Room:
    """Memory for states of several kinds side by side, so that one operation writes a token's.

    Held as (B, room for tokens, heads of all kinds, width).
    """

    def __init__(self) -> None:
        self._held = torch.empty(0)

    def appended(self, used: list[torch.Tensor], new: list[torch.Tensor]) -> list[torch.Tensor]:
        """What is in use with `new` behind it, in a larger room where this one was full.

        Args:
            used: What was given last, one tensor (B, heads, T, width) of each kind; empty at first.
                It lies here unless rows were chosen or repeated since, which makes tensors of its
                own.
            new: Further tokens of each kind, (B, heads, n, width).
        """
        length = used[0].shape[-2] if used[0].numel() else 0
        total = length + new[0].shape[-2]
        if not (length and self._holds(used)) or total > self._held.shape[1]:
            rows, _, _, width = new[0].shape
            heads = sum(item.shape[1] for item in new)
            # a part of what is there, so that copies become rarer as the text grows
            held = new[0].new_empty((rows, total + total // 4, heads, width))
            if length:
                _write(used, held[:, :length])
            self._held = held
        _write(new, self._held[:, length:total])
        return self._views(total, new)

    def _views(self, length: int, like: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes = [item.shape[1] for item in like]
        by_kind = torch.split_with_sizes(self._held[:, :length], sizes, dim=2)
        return [item.transpose(1, 2) for item in by_kind]

    def _holds(self, used: list[torch.Tensor]) -> bool:
        if self._held.ndim < 4 or self._held.shape[0] != used[0].shape[0]:
            # the same beginning is not enough: a choice of rows may begin there and have fewer
            return False
        heads = sum(item.shape[1] for item in used)
        if self._held.shape[2] != heads or self._held.shape[1] < used[0].shape[2]:
            return False
        views = self._views(used[0].shape[2], used)
        return all(
            one.data_ptr() == other.data_ptr() for one, other in zip(used, views, strict=True)
        )


def _write(states: list[torch.Tensor], place: torch.Tensor) -> None:
    """States (B, heads, n, width) side by side into (B, n, heads of all, width)."""
    torch.cat([item.transpose(1, 2) for item in states], dim=2, out=place)
