"""Attention over packed traces: one row of tokens, and no trace sees another.

Registered with transformers under NAME. On a GPU it is torch's own variable-length kernel (flash attention); on a CPU,
and in float32, torch's scaled dot product, trace by trace. Knows nothing about training or text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

NAME = "distill_packed"
Kernel = Literal["varlen", "apart"]


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the traces of a row begin and end."""

    bounds: torch.Tensor
    """[traces + 1] int32, on the row's device: 0, then where each trace ends."""
    lengths: tuple[int, ...]
    kernel: Kernel
    exchange: Callable[[torch.Tensor], torch.Tensor] | None = None
    """With the tokens of a row spread over GPUs: [1, heads, own tokens, d] → [1, own heads, all tokens, d]."""
    give_back: Callable[[torch.Tensor], torch.Tensor] | None = None
    """The inverse of `exchange`."""

    @property
    def longest(self) -> int:
        return max(self.lengths)


def use_packed_attention(model: Any) -> None:
    """Makes a transformers model attend within segments; its decoder then takes them as `segments`."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)


@contextlib.contextmanager
def attending_whole(model: Any) -> Iterator[Any]:
    """The model as transformers has it, for generating; afterwards it attends within segments again."""
    model.set_attn_implementation("sdpa")
    try:
        yield model
    finally:
        model.set_attn_implementation(NAME)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [1, heads, tokens, d], key and value with their own number of heads, to
    [1, tokens, heads, d]. Causal inside each segment."""
    import torch

    del attention_mask
    if segments.exchange is not None:
        query, key, value = segments.exchange(query), segments.exchange(key), segments.exchange(value)
    attend = _apart
    if segments.kernel == "varlen" and value.dtype != torch.float32:  # flash attention has no float32
        attend = _varlen
        # under autocast rotary embeddings, computed in float32, leave these two there; the kernel wants one type
        query, key = query.to(value.dtype), key.to(value.dtype)
    out = attend(query, key, value, segments, scaling if scaling is not None else query.shape[-1] ** -0.5)
    if segments.give_back is not None:
        out = segments.give_back(out.transpose(1, 2)).transpose(1, 2)
    return out, None


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scale: float
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    out = varlen_attn(
        query,
        key,
        value,
        segments.bounds,
        segments.bounds,
        segments.longest,
        segments.longest,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=True,
    )
    assert not isinstance(out, tuple)
    return out.unsqueeze(0)


def _apart(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scale: float
) -> torch.Tensor:
    import torch

    sdpa = torch.nn.functional.scaled_dot_product_attention
    groups = query.shape[1] // key.shape[1]
    if groups > 1:  # the CPU's flash kernel knows no grouped heads
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = zip(*(torch.split(tensor, list(segments.lengths), dim=2) for tensor in (query, key, value)), strict=True)
    found = [sdpa(q, k, v, is_causal=True, scale=scale) for q, k, v in parts]
    return torch.cat(found, dim=2).transpose(1, 2)
