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
        self._key_room = self._value_room = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds keys and values of further tokens, and gives all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_room = _appended(self.keys, self._key_room, key_states)
        self.values, self._value_room = _appended(self.values, self._value_room, value_states)
        return self.keys, self.values

    def reset(self) -> None:
        """Forgets all, the room included."""
        super().reset()
        self._key_room = self._value_room = torch.empty(0)


def _appended(
    used: torch.Tensor, room: torch.Tensor, new: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is in use with `new` behind it, and its room: a larger one where it was full.

    `used` begins where `room` does unless rows were chosen or repeated since, which makes a tensor
    of its own.
    """
    length = used.shape[-2] if used.numel() else 0
    total = length + new.shape[-2]
    # the same beginning is not enough: a choice of rows may begin there and have fewer
    is_in_room = (
        length and used.data_ptr() == room.data_ptr() and used.shape[:-2] == room.shape[:-2]
    )
    if not is_in_room or total > room.shape[-2]:
        # a part of what is there, so that copies become rarer as the text grows
        room = new.new_empty((*new.shape[:-2], total + total // 4, new.shape[-1]))
        if length:
            room[..., :length, :] = used
    room[..., length:total, :] = new
    return room[..., :total, :], room
