"""Key-value caches for sampling: memory that grows in steps, and latent attention expanded once per token.

transformers' own cache copies everything for each new token, and its DeepSeek-V3 multiplies all cached latents by
`kv_b_proj` at every step. Imports transformers, so import it only where a model is at hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

ROOM = 64
"""Tokens of free space made whenever the memory of a layer is full."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """A layer's keys and values, each [rows, heads, tokens, size], with room for the next tokens behind them."""

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._stored = (key_states[:, :, :0], value_states[:, :, :0])
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._stored[0].shape[-2]:
            self._stored = (_with_room(self._stored[0], start, end), _with_room(self._stored[1], start, end))
        for stored, new in zip(self._stored, (key_states, value_states), strict=True):
            stored[:, :, start:end] = new
        self.keys, self.values = (stored[:, :, :end] for stored in self._stored)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps only these rows."""
        length = self.get_seq_length()
        self._stored = (self._stored[0][indices], self._stored[1][indices])
        self.keys, self.values = (stored[:, :, :length] for stored in self._stored)


class ExpandedLayer(GrowingLayer):
    """Takes the latents of new tokens and keeps the keys and values that `attention` makes of them."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self._expand = type(attention).expand_kv.__get__(attention)

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
        return super().update(*self._expand(key_states, value_states))


def cache_for(model: Any) -> Any:
    """An empty cache for a model inside `expanding_once`; layers of other kinds (sliding windows) stay as they are."""
    cache: Any = DynamicCache(config=model.config)
    attentions = _latent_attentions(model)
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[place] = ExpandedLayer(attentions[place]) if place in attentions else GrowingLayer()
    return cache


@contextlib.contextmanager
def expanding_once(model: Any) -> Iterator[None]:
    """Inside, latent attention takes what the cache returns for keys and values: they are expanded already."""
    attentions = _latent_attentions(model).values()
    for attention in attentions:
        attention.expand_kv = lambda keys, values: (keys, values)
    try:
        yield
    finally:
        for attention in attentions:
            del attention.expand_kv


def _latent_attentions(model: Any) -> dict[int, Any]:
    return {module.layer_idx: module for module in model.modules() if hasattr(type(module), "expand_kv")}


def _with_room(stored: torch.Tensor, length: int, needed: int) -> torch.Tensor:
    rows, heads, _, size = stored.shape
    larger = stored.new_empty(rows, heads, needed + ROOM, size)
    larger[:, :, :length] = stored[:, :, :length]
    return larger
