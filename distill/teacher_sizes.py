"""Parameters, key-value cache and memory per GPU of the models that vLLM serves, from their architecture alone.

Covers mixtures of experts, latent attention and quantized weights; sizes.py is about dense students. Knows the rules by
which vLLM 0.32 splits a model, and knows nothing about any GPU. Gigabytes are 10^9 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from distill.errors import SpecError
from distill.teacher_architecture import PLAIN, Experts, LatentAttention, TeacherArchitecture, WeightFormat, Weights
from distill.teacher_specs import TeacherSpec
from distill.teacher_splits import Split, drawback, stages, why_not

Spread = Literal["tensor", "key_values", "experts", "shared", "whole"]
"""How the GPUs of a stage share weights: among the tensor ranks; as far as key-value heads go; whole or cut experts
among the tensor ranks of all data ranks; among the tensor ranks or not at all; each has them whole."""

MXFP4_ROUNDING = (128, 256)
"""vLLM 0.32 pads experts in mxfp4 on NVIDIA GPUs: the rows of each rank to 128, the hidden size to 256 (the largest of
its backends there, `mxfp4_round_up_hidden_size_and_intermediate_size`). For gpt-oss-120b on one GPU that makes 66.0 GiB
of 60.8."""


@dataclass(frozen=True, slots=True)
class Part:
    """Weights of a layer that are kept and spread alike; of them `active` are read for each token."""

    weights: int
    kept: WeightFormat
    spread: Spread
    active: int


@dataclass(frozen=True, slots=True)
class ServedSizes:
    """The sizes of one model as it is served, with its weights as they are published."""

    architecture: TeacherArchitecture
    weights: Weights = PLAIN

    @classmethod
    def of(cls, spec: TeacherSpec) -> Self:
        """Of a teacher spec. Raises SpecError when it has no architecture."""
        if spec.architecture is None:
            raise SpecError(
                f"the spec of teacher '{spec.name}' has no architecture, so nobody can say what it takes",
                todo="add `architecture` (the sizes in its config.json) and `weights` to the spec",
            )
        return cls(spec.architecture, spec.weights or PLAIN)

    # --- weights of the whole model --------------------------------------------------------------------------------

    @property
    def parameters(self) -> int:
        """All weights that are served; the routing biases of DeepSeek-V3 aside, and the layers that predict further
        tokens."""
        return self._ends + sum(part.weights for layer in self._layers for part in self._parts(layer))

    @property
    def active_parameters(self) -> int:
        """Weights that each token is multiplied with: all but the experts it does not take and the embedding, of which
        it takes one row. So OpenAI counts (arXiv 2508.10925, table 1)."""
        vocabulary = self.architecture.vocab_size * self.architecture.hidden_size
        active = sum(part.active for layer in self._layers for part in self._parts(layer))
        return vocabulary + self.architecture.hidden_size + active

    @property
    def active_parameters_with_embedding(self) -> int:
        """The same with the whole embedding. So DeepSeek and Qwen count."""
        tied = self.architecture.tie_word_embeddings
        return self.active_parameters + (0 if tied else self.architecture.vocab_size * self.architecture.hidden_size)

    @property
    def routing_biases(self) -> int:
        """Values that DeepSeek-V3 adds to the routing and never trains by gradient: one per expert and layer."""
        experts = self.architecture.experts
        if experts is None or self.architecture.model_type != "deepseek_v3":
            return 0
        return experts.n_routed_experts * (self.architecture.num_hidden_layers - experts.first_k_dense_replace)

    @property
    def file_bytes(self) -> int:
        """Of the published files together; computed where the spec does not know."""
        return self.weights.bytes or round(self.computed_file_bytes)

    @property
    def computed_file_bytes(self) -> float:
        """What the files should take by the formats of their parts."""
        layers = sum(self._bytes(part) for layer in self._layers for part in self._parts(layer))
        further = self.architecture.num_nextn_predict_layers * self._nextn_bytes
        return 2 * self._ends + layers + 4 * self.routing_biases + further

    # --- per GPU ---------------------------------------------------------------------------------------------------

    def weight_bytes_per_gpu(
        self, tensor: int = 1, pipeline: int = 1, data: int = 1, *, expert_parallel: bool = False
    ) -> int:
        """Bytes of the weights on the fullest GPU. Computed parts are scaled so that together they make up what is
        published; layers that predict further tokens are not loaded."""
        split = Split(tensor, pipeline, data, expert_parallel)
        scale = self.file_bytes / self.computed_file_bytes
        vocabulary = 2 * self.architecture.vocab_size * self.architecture.hidden_size / tensor
        loads = []
        shares = stages(self.architecture.num_hidden_layers, pipeline)
        for place, layers in enumerate(shares):
            first, last = place == 0, place == len(shares) - 1
            matrices = int(first) + int(last) - int(first and last and self.architecture.tie_word_embeddings)
            held = sum(self._share(part, split) * self._bytes(part) for layer in layers for part in self._parts(layer))
            norm = 2 * self.architecture.hidden_size if last else 0
            loads.append(held + matrices * vocabulary + norm)
        return round(max(loads) * scale)

    def latent_copies_per_gpu(self, tensor: int = 1, pipeline: int = 1) -> int:
        """Bytes that vLLM takes beside the weights of latent attention: the matrix that unfolds the latent once more,
        in bfloat16, for decoding (`MLAAttention.process_weights_after_loading`)."""
        latent = self.architecture.latent_attention
        if latent is None:
            return 0
        heads = self.architecture.num_attention_heads / tensor
        values = latent.kv_lora_rank * heads * (latent.qk_nope_head_dim + latent.v_head_dim)
        return round(2 * values * max(map(len, stages(self.architecture.num_hidden_layers, pipeline))))

    def kv_bytes_per_token(self, bytes_per_value: float = 2, *, tensor: int = 1, pipeline: int = 1) -> int:
        """Bytes that one token of context takes on the fullest GPU, by default of the only one: in the layers that see
        everything. A latent is the same for all heads, so every tensor rank has it whole."""
        values = self._kv_values(tensor)
        return round(values * bytes_per_value * self._most_layers(pipeline, slides=False))

    def kv_bytes_per_window(self, bytes_per_value: float = 2, *, tensor: int = 1, pipeline: int = 1) -> int:
        """Bytes that one sequence takes beside that on such a GPU, however long it is: in the layers that see their
        window alone, once it is full. 0 for a model without a window."""
        values = self._kv_values(tensor) * (self.architecture.sliding_window or 0)
        return round(values * bytes_per_value * self._most_layers(pipeline, slides=True))

    def why_not(
        self, tensor: int = 1, pipeline: int = 1, data: int = 1, *, expert_parallel: bool = False
    ) -> str | None:
        """What makes a split impossible, in one sentence with its numbers; None for one that vLLM takes."""
        return why_not(self.architecture, self.weights, Split(tensor, pipeline, data, expert_parallel))

    def drawback(
        self, tensor: int = 1, pipeline: int = 1, data: int = 1, *, expert_parallel: bool = False
    ) -> str | None:
        """What speaks against a split that vLLM takes; None when nothing does."""
        return drawback(self.architecture, self.weights, Split(tensor, pipeline, data, expert_parallel))

    # --- parts -----------------------------------------------------------------------------------------------------

    @property
    def _layers(self) -> range:
        return range(self.architecture.num_hidden_layers)

    @property
    def _ends(self) -> int:
        """Embedding, head and the norm before it."""
        matrices = 1 if self.architecture.tie_word_embeddings else 2
        return matrices * self.architecture.vocab_size * self.architecture.hidden_size + self.architecture.hidden_size

    def _parts(self, layer: int) -> Iterator[Part]:
        hidden = self.architecture.hidden_size
        latent = self.architecture.latent_attention
        yield from self._grouped_attention() if latent is None else self._latent_attention(latent)
        yield self._small(2 * hidden)
        experts = self.architecture.experts
        if experts is None or layer < experts.first_k_dense_replace:
            yield self._matrix(3 * hidden * self.architecture.intermediate_size)
        else:
            yield from self._expert_block(experts)

    def _grouped_attention(self) -> Iterator[Part]:
        sizes = self.architecture
        queries = sizes.num_attention_heads * sizes.head_size
        pairs = 2 * sizes.num_key_value_heads * sizes.head_size
        kept = self.weights.attention or self.weights.format
        yield Part(sizes.hidden_size * queries, kept, "tensor", sizes.hidden_size * queries)
        yield Part(sizes.hidden_size * pairs, kept, "key_values", sizes.hidden_size * pairs)
        yield self._matrix(queries * sizes.hidden_size)
        if sizes.model_type in ("qwen2", "gpt_oss"):
            yield self._small(queries + pairs)
        if sizes.model_type == "gpt_oss":
            yield self._small(sizes.hidden_size + sizes.num_attention_heads)
        if sizes.model_type in ("qwen3", "qwen3_moe"):
            yield self._small(2 * sizes.head_size)

    def _latent_attention(self, latent: LatentAttention) -> Iterator[Part]:
        hidden, heads = self.architecture.hidden_size, self.architecture.num_attention_heads
        down = hidden * (latent.q_lora_rank + latent.kv_lora_rank + latent.qk_rope_head_dim)
        up = latent.q_lora_rank * (latent.qk_nope_head_dim + latent.qk_rope_head_dim)
        up += latent.kv_lora_rank * (latent.qk_nope_head_dim + latent.v_head_dim)
        kept = self.weights.attention or self.weights.format
        yield Part(down, kept, "whole", down)
        yield Part(heads * up, kept, "tensor", heads * up)
        yield self._matrix(heads * latent.v_head_dim * hidden)
        yield self._small(latent.q_lora_rank + latent.kv_lora_rank)

    def _expert_block(self, experts: Experts) -> Iterator[Part]:
        hidden, rows = self.architecture.hidden_size, experts.moe_intermediate_size
        count, taken = experts.n_routed_experts, experts.num_experts_per_tok
        yield self._small(count * hidden)
        kept = self.weights.experts or self.weights.format
        yield Part(count * 3 * hidden * rows, kept, "experts", taken * 3 * hidden * rows)
        if experts.n_shared_experts:
            weights = experts.n_shared_experts * 3 * hidden * rows
            yield Part(weights, self.weights.format, "shared", weights)
        if self.architecture.model_type == "gpt_oss":
            yield self._small(count)
            yield Part(count * (2 * rows + hidden), "bf16", "experts", taken * (2 * rows + hidden))

    def _matrix(self, weights: int) -> Part:
        return Part(weights, self.weights.format, "tensor", weights)

    def _small(self, weights: int) -> Part:
        """Norms, biases and routers."""
        return Part(weights, "bf16", "whole", weights)

    def _bytes(self, part: Part) -> float:
        return part.weights * self.weights.bits(part.kept) / 8

    @property
    def _nextn_bytes(self) -> float:
        """Of one such layer in the files: a layer like the last, what joins it to the others, and copies of embedding
        and head."""
        hidden = self.architecture.hidden_size
        kept = self.weights.nextn
        bits = [self.weights.bits(kept if kept and part.kept != "bf16" else part.kept) for part in self._nextn]
        layer = sum(part.weights * each / 8 for part, each in zip(self._nextn, bits, strict=True))
        count = self.architecture.experts.n_routed_experts if self.architecture.experts else 0
        join = 2 * hidden * hidden * self.weights.bits("bf16") / 8
        return layer + join + 2 * (3 * hidden + 2 * self.architecture.vocab_size * hidden) + 4 * count

    @property
    def _nextn(self) -> tuple[Part, ...]:
        return tuple(self._parts(self.architecture.num_hidden_layers))

    # --- shares ----------------------------------------------------------------------------------------------------

    def _share(self, part: Part, split: Split) -> float:
        """Of a part's bytes, how many times as many the fullest GPU of a stage has."""
        if part.spread == "experts":
            return self._expert_share(part, split)
        if part.spread == "whole" or (part.spread == "shared" and split.shares_sequences):
            return 1.0
        if part.spread == "key_values":
            return 1 / min(split.tensor, self.architecture.num_key_value_heads)
        return 1 / split.tensor

    def _expert_share(self, part: Part, split: Split) -> float:
        experts = self.architecture.experts
        assert experts is not None
        ranks = split.expert_ranks
        count = experts.n_routed_experts
        whole = -(-count // ranks) / count if split.expert_parallel else 1.0
        rows = experts.moe_intermediate_size / (1 if split.expert_parallel else ranks)
        cut = rows / experts.moe_intermediate_size
        if part.kept != "mxfp4":
            return whole * cut
        row_step, hidden_step = MXFP4_ROUNDING
        hidden = self.architecture.hidden_size
        padded = -(-rows // row_step) * row_step * (-(-hidden // hidden_step) * hidden_step)
        return whole * padded / (experts.moe_intermediate_size * hidden)

    def _kv_values(self, tensor: int) -> float:
        latent = self.architecture.latent_attention
        if latent is not None:
            return latent.kv_lora_rank + latent.qk_rope_head_dim
        heads = self.architecture.num_key_value_heads
        return 2 * self.architecture.head_size * heads / min(tensor, heads)

    def _most_layers(self, pipeline: int, *, slides: bool) -> int:
        shares = stages(self.architecture.num_hidden_layers, pipeline)
        return max(sum(self.architecture.slides(layer) == slides for layer in layers) for layers in shares)
