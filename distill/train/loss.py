"""The loss of a student on packed traces, as one module: what the loop calls, and what is sharded over GPUs.

Logits never stand whole in memory: the head runs over the tokens inside the loss alone, and over many of them in parts.
Knows nothing about optimizers, files or processes.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from distill.train.attention import use_packed_attention
from distill.train.packing import IGNORE

if TYPE_CHECKING:
    from distill.train.packing import Pack

WHOLE_LOGITS = 2**28
"""Bytes of float32 logits up to which they are made in one piece."""


class StudentLoss(torch.nn.Module):
    """Sums the cross-entropy over the response tokens of a pack, in float32.

    `mixed` computes in bfloat16 from float32 weights; weights that are sharded or in bfloat16 need no such thing.
    """

    def __init__(self, model: Any, *, mixed: bool = False) -> None:
        super().__init__()
        use_packed_attention(model)
        self.model, self.mixed = model, mixed
        head = model.get_output_embeddings()
        head.summed_loss = MethodType(_summed_loss, head)  # a method, so that a sharded head is gathered for its call

    def forward(self, pack: Pack) -> torch.Tensor:
        device = pack.input_ids.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.mixed, cache_enabled=True):
            decoder = self.model.get_decoder()
            out = decoder(
                input_ids=pack.input_ids, position_ids=pack.position_ids, segments=pack.segments, use_cache=False
            )
            rows = out.last_hidden_state[0][pack.places]
            loss: torch.Tensor = self.model.get_output_embeddings().summed_loss(rows, pack.targets)
            return loss


def _summed_loss(head: Any, rows: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return summed_cross_entropy(rows, head, targets)


def summed_cross_entropy(rows: torch.Tensor, head: Any, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of `head(rows)` [rows, vocabulary] against `targets` [rows], summed; IGNORE counts nothing.

    Above WHOLE_LOGITS bytes by torch's own chunked form, which computes the gradients on the way and keeps no logits
    (torch.nn.functional.linear_cross_entropy).
    """
    weight = head.weight  # asked once: with trained vocabulary rows it is put together anew every time
    if rows.shape[0] * weight.shape[0] * 4 <= WHOLE_LOGITS:
        logits = torch.nn.functional.linear(rows, weight)
        return torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="sum")
    from torch.nn import LinearCrossEntropyOptions

    loss: torch.Tensor = torch.nn.functional.linear_cross_entropy(
        rows, weight.to(rows.dtype), targets, ignore_index=IGNORE, reduction="sum", options=LinearCrossEntropyOptions()
    )
    return loss.float()
