"""What a served model is made of, and how its published weights are kept: what sizes and layouts are computed from.

Names are those of a model's config.json; what the model type alone decides is no field. Knows nothing about files,
servers or machines, and computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from distill.strict import Strict

ModelType = Literal["qwen2", "qwen3", "llama", "qwen3_moe", "gpt_oss", "deepseek_v3"]
WeightFormat = Literal["bf16", "fp8", "nvfp4", "mxfp4", "awq", "gptq-4bit"]

GROUPED: Mapping[WeightFormat, int] = {"nvfp4": 16, "mxfp4": 32}
"""Weights that share a scale, where the format itself says so."""


class Experts(Strict):
    """The feed-forward blocks of which each token takes a few."""

    n_routed_experts: int = Field(gt=0)
    """`num_experts` of Qwen3, `num_local_experts` of gpt-oss."""
    num_experts_per_tok: int = Field(gt=0)
    moe_intermediate_size: int = Field(gt=0)
    n_shared_experts: int = Field(0, ge=0)
    """Experts that every token takes, each as large as a routed one."""
    first_k_dense_replace: int = Field(0, ge=0)
    """Layers at the beginning that have one dense block instead."""

    @model_validator(mode="after")
    def _takes_what_there_is(self) -> Self:
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} of {self.n_routed_experts} experts")
        return self


class LatentAttention(Strict):
    """DeepSeek's multi-head latent attention: one latent vector a token stands for the keys and values of all heads."""

    q_lora_rank: int = Field(gt=0)
    kv_lora_rank: int = Field(gt=0)
    qk_nope_head_dim: int = Field(gt=0)
    qk_rope_head_dim: int = Field(gt=0)
    v_head_dim: int = Field(gt=0)


class TeacherArchitecture(Strict):
    """The sizes of a model that vLLM serves.

    The model type decides: Qwen2 has biases at the query, key and value projections, Qwen3 norms of queries and keys;
    gpt-oss has biases everywhere, its experts and router included, and a sink per head; DeepSeek-V3 adds one value per
    expert to the routing of each layer.
    """

    model_type: ModelType
    vocab_size: int = Field(gt=0)
    """Rows of the embedding, spare ones included."""
    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    """Of a dense block; a model without dense blocks has the number and does not use it."""
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int = Field(gt=0)
    head_dim: int | None = Field(None, gt=0)
    """None: hidden_size / num_attention_heads. Latent attention has sizes of its own."""
    max_position_embeddings: int = Field(gt=0)
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding matrix."""
    experts: Experts | None = None
    latent_attention: LatentAttention | None = None
    sliding_window: int | None = Field(None, gt=0)
    """Tokens that some layers look back at."""
    sliding_window_pattern: int = Field(2, ge=2)
    """With a window: one layer in so many, the last of them, sees everything."""
    num_nextn_predict_layers: int = Field(0, ge=0)
    """Layers behind the others that predict further tokens: they lie in the files, and are not loaded without
    speculative decoding."""

    @model_validator(mode="after")
    def _parts_of_its_type(self) -> Self:
        for field, types in _ONLY_OF.items():
            has, should = getattr(self, field) is not None, self.model_type in types
            if has != should:
                raise ValueError(f"a {self.model_type} {'needs' if should else 'has no'} {field}")
        if self.num_nextn_predict_layers and self.model_type != "deepseek_v3":
            raise ValueError(f"a {self.model_type} has no num_nextn_predict_layers")
        return self

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_key_value_heads must divide num_attention_heads")
        if self.latent_attention is None and self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError("num_attention_heads must divide hidden_size where there is no head_dim")
        return self

    @model_validator(mode="after")
    def _experts_fit(self) -> Self:
        experts = self.experts
        if experts is None:
            return self
        if experts.first_k_dense_replace > self.num_hidden_layers:
            what = f"first_k_dense_replace {experts.first_k_dense_replace} of {self.num_hidden_layers} layers"
            raise ValueError(what)
        if self.model_type != "deepseek_v3" and (experts.n_shared_experts or experts.first_k_dense_replace):
            raise ValueError(f"a {self.model_type} has neither n_shared_experts nor first_k_dense_replace")
        if self.model_type == "gpt_oss" and experts.moe_intermediate_size != self.intermediate_size:
            raise ValueError("a gpt_oss has one intermediate_size, that of its experts")
        return self

    @property
    def head_size(self) -> int:
        """Values of a head's key; not for latent attention, which has sizes of its own."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def slides(self, layer: int) -> bool:
        """Whether a layer, counted from 0, sees its window alone."""
        return self.sliding_window is not None and (layer + 1) % self.sliding_window_pattern != 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Of a model's config.json. Raises ValueError (pydantic's) for a model type or sizes that are not known."""
        fields = {name: config[name] for name in cls.model_fields if config.get(name) is not None}
        for field in ("experts", "latent_attention", "sliding_window", "sliding_window_pattern"):
            fields.pop(field, None)
        kind = config.get("model_type")
        if kind in _ONLY_OF["experts"]:
            fields["experts"] = _experts_of(config)
        if kind in _ONLY_OF["latent_attention"]:
            fields["latent_attention"] = {name: config.get(name) for name in LatentAttention.model_fields}
            fields.pop("head_dim", None)  # transformers writes the rotary part there
        else:
            fields.pop("num_nextn_predict_layers", None)
        if kind in _ONLY_OF["sliding_window"]:
            fields["sliding_window"] = config.get("sliding_window")
        return cls.model_validate(fields)


def _experts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    gpt_oss = config["model_type"] == "gpt_oss"
    count = next((config[name] for name in _COUNTS if config.get(name) is not None), None)
    found = {
        "n_routed_experts": count,
        "num_experts_per_tok": config.get("num_experts_per_tok"),
        "moe_intermediate_size": config.get("intermediate_size" if gpt_oss else "moe_intermediate_size"),
    }
    if config["model_type"] == "deepseek_v3":
        found |= {name: config.get(name) or 0 for name in ("n_shared_experts", "first_k_dense_replace")}
    return found


_COUNTS = ("n_routed_experts", "num_experts", "num_local_experts")
_ONLY_OF: Mapping[str, tuple[ModelType, ...]] = {
    "experts": ("qwen3_moe", "gpt_oss", "deepseek_v3"),
    "latent_attention": ("deepseek_v3",),
    "sliding_window": ("gpt_oss",),
}
"""Parts that these model types have, and no other."""


class Weights(Strict):
    """How the published weights are kept. Embeddings, head, norms and routers are in bfloat16 in every format."""

    format: WeightFormat
    """Of the matrices inside the layers, but for those that the next fields name."""
    experts: WeightFormat | None = None
    """Of the routed experts, where it is another."""
    attention: WeightFormat | None = None
    """Of all attention matrices but the output projection, where it is another."""
    nextn: WeightFormat | None = None
    """Of the layers that predict further tokens, where it is another."""
    block: int | None = Field(None, gt=0)
    """Weights that share a scale: the side of a square of `fp8`, the length of a group of `awq` and `gptq-4bit`.
    `nvfp4` and `mxfp4` have 16 and 32 by definition."""
    bytes: int | None = Field(None, gt=0)
    """Of the repository's safetensors files together, as its index or its list of files has it; None: nobody told."""
    least_capability: float | None = Field(None, gt=0)
    """CUDA compute capability that vLLM asks for: the format's own (get_min_capability of its quantization), or 8.0 for
    the bfloat16 in which a model computes, whichever is higher."""

    @model_validator(mode="after")
    def _blocks_of_their_format(self) -> Self:
        needs = {"fp8", "awq", "gptq-4bit"} & self.formats
        if bool(needs) != (self.block is not None):
            what = f"weights.block is missing: how many weights of {min(needs)} share a scale" if needs else None
            raise ValueError(what or f"weights.block: {' and '.join(sorted(self.formats))} have no such choice")
        return self

    @property
    def formats(self) -> set[WeightFormat]:
        """All that occur."""
        given = (self.format, self.experts, self.attention, self.nextn)
        return {found for found in given if found is not None}

    def group(self, kept: WeightFormat) -> int | None:
        """Weights along a row that share a scale in this format; None for bfloat16."""
        return None if kept == "bf16" else GROUPED.get(kept, self.block)

    def bits(self, kept: WeightFormat) -> float:
        """Bits per weight with its share of the scales: 32 a square of `fp8`, 8 a group of the 4-bit floating formats,
        16 a group of `gptq-4bit` (symmetric, as compressed-tensors packs it), with a zero point of 4 one of `awq`."""
        group = self.group(kept)
        if group is None:
            return 16.0
        if kept == "fp8":
            return 8 + 32 / group**2
        return 4 + {"nvfp4": 8, "mxfp4": 8, "awq": 20}.get(kept, 16) / group


PLAIN = Weights(format="bf16")
"""Of a model whose weights are kept as they were trained."""
