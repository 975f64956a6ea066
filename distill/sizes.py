"""Parameters, key-value cache and memory of weights of a dense decoder, from its architecture alone.

Covers Qwen2, Qwen3 and Llama: grouped-query attention and a gated feed-forward block. Knows nothing about any library,
file or machine. Gigabytes are 10^9 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from distill.student_specs import Architecture

Scheme = Literal["bf16", "int8", "w4", "q4_k_m"]

BITS: Mapping[Scheme, float] = {
    "bf16": 16.0,
    "int8": 8.0,
    "w4": 4.25,
    "q4_k_m": 4.88,
}
"""Bits per weight. `int8` and `w4` count for the weights of linear layers; embeddings, head and norms stay in bfloat16,
as bitsandbytes, AWQ and GPTQ leave them. `w4`: 4 bits and two 16-bit numbers (scale, zero point) per group of 128.
`q4_k_m`: the mean over a whole file, embeddings included, as llama.cpp's files of R1's 7B, 14B and 32B students have it
(4.68, 8.99 and 19.9 GB)."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of one dense model, by the names its config.json uses in full."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    """Whether the output head is the embedding matrix."""
    qkv_bias: bool
    """Qwen2 has biases at the query, key and value projections, Qwen3 and Llama have none."""
    qk_norm: bool = False
    """Qwen3 norms each head's queries and keys, over head_dim values."""

    @classmethod
    def of(cls, architecture: Architecture, vocab: int | None = None) -> Self:
        """Of a spec's architecture; `vocab` rows where it leaves them to the tokenizer. ValueError when nobody says."""
        rows = architecture.vocab_size or vocab
        if rows is None:
            raise ValueError("the architecture of a student from nothing has as many rows as its tokenizer asks for")
        return cls(
            hidden=architecture.hidden_size,
            layers=architecture.num_hidden_layers,
            heads=architecture.num_attention_heads,
            kv_heads=architecture.num_key_value_heads,
            head_dim=architecture.head_size,
            intermediate=architecture.intermediate_size,
            vocab=rows,
            tied=architecture.tie_word_embeddings,
            qkv_bias=architecture.model_type == "qwen2",
            qk_norm=architecture.model_type == "qwen3",
        )

    @property
    def linear_parameters(self) -> int:
        """Weights of the matrices inside the layers: what a quantizer quantizes."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def vocabulary_parameters(self) -> int:
        """Weights of the embeddings, and of the head where that is another matrix."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All weights: matrices, embeddings and head, biases, norms of queries and keys, two norms a layer and one at
        the end."""
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) if self.qkv_bias else 0
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        small = self.layers * (biases + norms) + self.hidden
        return self.linear_parameters + self.vocabulary_parameters + small

    def lora_parameters(self, rank: int) -> int:
        """Weights of an adapter of this rank on every matrix inside the layers: rank × (inputs + outputs) each."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + queries) + 2 * (self.hidden + keys)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))

    def kv_bytes_per_token(self, bytes_per_value: float = 2) -> int:
        """Bytes that one token of context occupies: a key and a value per layer and key-value head."""
        return round(2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value)

    def weight_bytes(self, scheme: Scheme) -> int:
        """Bytes of the weights alone, on disk and in memory, under one of the schemes of BITS."""
        if scheme in ("bf16", "q4_k_m"):
            return round(self.parameters * BITS[scheme] / 8)
        kept = self.parameters - self.linear_parameters
        return round(kept * 2 + self.linear_parameters * BITS[scheme] / 8)


def _qwen(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, vocab: int) -> Sizes:
    return Sizes(hidden, layers, heads, kv_heads, 128, intermediate, vocab, tied=False, qkv_bias=True)


def _llama(hidden: int, layers: int, heads: int, intermediate: int) -> Sizes:
    return Sizes(hidden, layers, heads, 8, 128, intermediate, 128_256, tied=False, qkv_bias=False)


R1_STUDENTS: Mapping[str, Sizes] = {
    "R1-Distill-Qwen-1.5B": _qwen(1_536, 28, 12, 2, 8_960, 151_936),
    "R1-Distill-Qwen-7B": _qwen(3_584, 28, 28, 4, 18_944, 152_064),
    "R1-Distill-Llama-8B": _llama(4_096, 32, 32, 14_336),
    "R1-Distill-Qwen-14B": _qwen(5_120, 48, 40, 8, 13_824, 152_064),
    "R1-Distill-Qwen-32B": _qwen(5_120, 64, 40, 8, 27_648, 152_064),
    "R1-Distill-Llama-70B": _llama(8_192, 80, 64, 28_672),
}
"""DeepSeek-R1's students: the values of config.json of deepseek-ai/DeepSeek-R1-Distill-* on the Hub. None ties its
head, not even the 1.5B, whose base Qwen2.5-Math-1.5B does: hence 1.78B weights instead of 1.54B."""

OVERHEAD = 1e9
"""Bytes that a runtime takes besides weights and cache: its own context, buffers, activations. An assumption."""
SHOWN_SCHEMES: tuple[Scheme, ...] = ("bf16", "int8", "q4_k_m")
"""From the largest to the smallest."""
LEAST_CONTEXT = 4_096
"""Tokens below which a reasoning student is of no use: a mean trace of R1 has 5,355 (arXiv 2501.12948v2, table 5)."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The best way to hold a model in some memory: its scheme, and the tokens of context that fit beside it."""

    scheme: Scheme
    context: int


def best_fit(sizes: Sizes, memory: float, context: int = 32_768) -> Fit | None:
    """The largest scheme that fits into `memory` bytes with `context` tokens of KV cache in bfloat16, or with fewer.

    A shorter context is only considered for the smallest scheme; None when not even LEAST_CONTEXT tokens are left.
    """
    for scheme in SHOWN_SCHEMES:
        tokens = int((memory - OVERHEAD - sizes.weight_bytes(scheme)) / sizes.kv_bytes_per_token())
        if tokens >= context:
            return Fit(scheme, context)
    return Fit(scheme, tokens) if tokens >= LEAST_CONTEXT else None
