"""Give a KV cache room for all tokens at once.

transformers joins each layer's keys and values anew for every token, so a text of n tokens copies
its cache n times. With many rows side by side that takes longer than attention.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer


def preallocate(cache: Any, length: int) -> None:
    """Give the layers of `cache` room for `length` tokens. Layers of other kinds than plain ones,
    which keep all keys and values, stay as they are; so do other caches."""
    if isinstance(cache, DynamicCache):
        for i, layer in enumerate(cache.layers):
            if type(layer) is DynamicLayer and layer.is_initialized:
                cache.layers[i] = _Preallocated(layer, length)


class _Preallocated(DynamicLayer):
    """Keys and values are the first part of tensors that have room for more."""

    def __init__(self, layer: DynamicLayer, length: int) -> None:
        super().__init__()
        self.dtype, self.device = layer.dtype, layer.device
        self.is_initialized = True
        assert layer.keys is not None and layer.values is not None  # it is initialised
        self._rooms: list[torch.Tensor] = []
        for states in (layer.keys, layer.values):
            *rows, had, width = states.shape
            room = states.new_empty(*rows, max(had, length), width)
            room[..., :had, :] = states
            self._rooms.append(room)
        self.keys, self.values = (room[..., :had, :] for room in self._rooms)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, and return all."""
        had = 0 if self.keys is None else self.keys.shape[-2]
        have = had + key_states.shape[-2]
        if have > self._rooms[0].shape[-2]:
            return super().update(key_states, value_states, *args, **kwargs)
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[..., had:have, :] = states
        self.keys, self.values = (room[..., :have, :] for room in self._rooms)
        return self.keys, self.values
