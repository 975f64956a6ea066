"""Memory of a training per GPU, by part, from the sizes of a model alone: no library, no machine.

Derived by hand from what torch 2.13 and transformers 5 keep for a Qwen2 or Llama layer, and held within a tenth of
distill/train/at_size.py, which runs the same training on fake tensors; QLoRA's 4-bit base alone is not. Not counted:
what the allocator loses between tensors, and what CUDA and NCCL take for themselves (OUTSIDE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from distill.sizes import Sizes

Method = Literal["full", "lora", "qlora"]
Precision = Literal["fp32", "bf16", "mixed"]

OUTSIDE = 4e9
"""Bytes per GPU for the CUDA context, NCCL's buffers and the allocator's gaps. An assumption, no measurement."""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes on one GPU."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    """Kept between the forward and the backward pass."""
    working: int
    """What stands at the peak besides: gathered layers and their gradients, one layer's own activations, the head."""

    @property
    def peak(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations + self.working

    def fits(self, memory: float) -> bool:
        """Into a GPU of so many bytes, with what is not counted."""
        return self.peak + OUTSIDE <= memory


def training_memory(
    sizes: Sizes,
    *,
    method: Method = "full",
    ranks: int = 8,
    context_parallel: int = 1,
    tokens: int = 32_768,
    precision: Precision = "mixed",
    checkpointing: bool = True,
    adapter_rank: int = 32,
) -> TrainingMemory:
    """Memory of one of `ranks` GPUs over which weights are spread, with packs of `tokens` tokens, each shared by
    `context_parallel` of them.

    At rest, per trained weight: the weight, its gradient and AdamW's two moments, in float32, or in bfloat16 under
    `bf16`. Adapters are trained so on a base in bfloat16, under `qlora` with its layers in 4 bits.
    """
    stored = 2 if precision == "bf16" else 4
    if method == "full":
        parameters, trained = sizes.parameters * stored, sizes.parameters
    else:
        trained = sizes.lora_parameters(adapter_rank)
        base = sizes.weight_bytes("bf16")
        if method == "qlora":
            base -= round(sizes.linear_parameters * (16 - NF4_BITS) / 8)
        parameters = base + trained * stored
    at_rest = parameters // ranks, trained * stored // ranks, 2 * trained * stored // ranks
    pass_ = _Pass(sizes, tokens // context_parallel, method, precision, checkpointing, ranks > 1)
    return TrainingMemory(*at_rest, pass_.kept, max(pass_.in_mlp, pass_.after_layer, pass_.in_head) - pass_.kept)


NF4_BITS = 4.127
"""Bits per weight of bitsandbytes' NF4 with its scales quantized too, in blocks of 64 and 256 (arXiv 2305.14314)."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass of `tokens` tokens on one rank: the moments at which most memory is in use, without what is at rest.

    A row is `tokens` × hidden values in the compute type, an inner row `tokens` × intermediate.
    """

    sizes: Sizes
    tokens: int
    method: Method
    precision: Precision
    checkpointing: bool
    spread: bool
    """Over several GPUs; one alone gathers and sends nothing, and casts float32 weights by autocast."""

    @property
    def bytes(self) -> int:
        return 4 if self.precision == "fp32" else 2

    @property
    def row(self) -> int:
        """Under autocast the stream of hidden states stays in float32, as the embeddings are."""
        size = 4 if self.precision == "mixed" and not self.spread else self.bytes
        return self.tokens * self.sizes.hidden * size

    @property
    def inner(self) -> int:
        return self.tokens * self.sizes.intermediate * self.bytes

    @property
    def layer(self) -> int:
        """Bytes of one gathered layer, or of its weights cast."""
        if not self.spread and self.precision != "mixed":
            return 0
        return self.sizes.linear_parameters // self.sizes.layers * self.bytes

    @property
    def vocabulary(self) -> int:
        """Bytes of the gathered head."""
        return self.sizes.vocab * self.sizes.hidden * self.bytes

    @property
    def trained(self) -> int:
        """1 where weights of the base have gradients, 0 under an adapter."""
        return int(self.method == "full")

    @property
    def within_layer(self) -> int:
        """What one layer keeps for its backward pass. Rows: for each of two norms its input in float32 (as two), the
        same normalized and its result; the rotated query; the attention's output; key and value have fewer heads.
        Inner rows: gate, up, the activated gate, their product."""
        of_keys = 2 * self.row * self.sizes.kv_heads // self.sizes.heads
        return 10 * self.row + of_keys + 4 * self.inner

    @property
    def kept(self) -> int:
        """After the last layer: the input of each layer, or all that it keeps; the last norm's float32 input as two
        rows, its result, and the last layer's output."""
        per_layer = self.row if self.checkpointing else self.within_layer
        return self.sizes.layers * per_layer + 4 * self.row

    @property
    def reduced(self) -> int:
        """The head's gradient on its way to the other ranks, in float32; it is freed when the next one is sent."""
        size = 2 if self.precision == "bf16" else 4
        return self.spread * self.trained * self.sizes.vocab * self.sizes.hidden * size

    @property
    def in_mlp(self) -> int:
        """In the last layer's backward pass, at the product with its down projection: the layer's inner rows with
        two of gradients, 7 rows beside those kept, this layer and the next one gathered, one gradient of a matrix.
        Where the layer was kept, one inner row and two rows of gradients."""
        matrix = self.sizes.hidden * self.sizes.intermediate * self.bytes
        again = 6 * self.inner + 7 * self.row if self.checkpointing else self.inner + 2 * self.row
        return self.kept + self.reduced + again + 2 * self.layer + self.trained * matrix

    @property
    def after_layer(self) -> int:
        """At its end: this layer and the next one gathered, the gradients of this one, 12 rows of its attention."""
        return self.kept + self.reduced + (2 + self.trained) * self.layer + 12 * self.row

    @property
    def in_head(self) -> int:
        """Before the backward pass: the head gathered, once in the buffer that it arrived in, and its gradient; the
        input's gradient and copy; a chunk of logits in float32. The rows of a chunk are those of torch's
        LinearCrossEntropyOptions on a GPU (aspect_ratio:2). Autocast still holds what it has cast."""
        ratio = -(-self.sizes.vocab // self.sizes.hidden)
        chunk = (1 << (-(-self.tokens // ratio) - 1).bit_length()) // 2
        cast = 0 if self.spread else self.sizes.layers * self.layer
        gathered = (1 + self.spread + self.trained) * self.vocabulary
        return self.kept + cast + gathered + 2 * self.row + chunk * self.sizes.vocab * 4
