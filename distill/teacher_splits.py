"""How GPUs share a model, and which ways vLLM 0.32 refuses: heads, layers, experts and blocks that come out uneven.

Every rule names where it stands in vLLM. Knows nothing about memory or any GPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from distill.teacher_architecture import TeacherArchitecture, WeightFormat, Weights

VOCABULARY_STEP = 64
"""Rows to which vLLM pads embedding and head before it cuts them (DEFAULT_VOCAB_PADDING_SIZE)."""
LEAST_GROUP = 32
"""Weights below which vLLM does not make the blocks of cut experts smaller: `refine_fp8_moe_block_shape` and
MoeWNA16Method."""


@dataclass(frozen=True, slots=True)
class Split:
    """How many GPUs share a model, and how: `tensor` × `pipeline` × `data` of them."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert_parallel: bool = False

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def described(self) -> str:
        """Such as `tensor parallel 8, expert parallel`."""
        parts = (("tensor", self.tensor), ("pipeline", self.pipeline), ("data", self.data))
        named = [f"{name} parallel {count}" for name, count in parts if count > 1]
        return ", ".join([*named, *(["expert parallel"] if self.expert_parallel else [])]) or "not split"

    @property
    def expert_ranks(self) -> int:
        """GPUs that share the experts of a layer. vLLM spreads them over the data ranks with and without expert
        parallel (`FusedMoEParallelConfig.make`): without, it cuts each of them."""
        return self.tensor * self.data

    @property
    def shares_sequences(self) -> bool:
        """Whether vLLM gives the tensor ranks of an expert block different tokens, each of which then needs the shared
        experts whole (`ParallelConfig.use_sequence_parallel_moe`)."""
        return self.expert_parallel and self.tensor > 1 and self.data > 1


def stages(layers: int, pipeline: int) -> tuple[range, ...]:
    """The layers of each pipeline stage, as vLLM's `get_pp_indices` shares them out: what is left over goes to the
    stages before the last, from behind."""
    counts = [layers // pipeline] * pipeline
    for place in range(2, layers % pipeline + 2):
        counts[-place] += 1
    starts = [sum(counts[:place]) for place in range(pipeline)]
    return tuple(range(start, start + count) for start, count in zip(starts, counts, strict=True))


def why_not(model: TeacherArchitecture, weights: Weights, split: Split) -> str | None:
    """What makes a split impossible, in one sentence with its numbers; None for one that vLLM takes."""
    if min(split.tensor, split.pipeline, split.data) < 1:
        given = f"tensor {split.tensor}, pipeline {split.pipeline}, data {split.data}"
        return f"each way of sharing a model counts from 1: {given}"
    reasons = (*_heads(model, split), *_layers(model, split), *_cut_rows(model, weights, split))
    reasons = (*reasons, *_experts(model, split), *_cut_experts(model, weights, split))
    return next(iter(reasons), None)


def drawback(model: TeacherArchitecture, weights: Weights, split: Split) -> str | None:
    """What speaks against a split that vLLM takes; None when nothing does.

    Experts in fp8 that tensor parallel cuts inside a block: vLLM 0.32 writes their scales out finer, which only its
    Triton kernels take, and versions before it refuse to start.
    """
    found = _expert_rows(model, weights, split)
    if found is None or found.rows % found.group == 0 or found.kept != "fp8":
        return None
    return (
        f"{found.cut} are no whole blocks of {found.group} that share an fp8 scale: vLLM 0.32 then refines the scales "
        "and is left with its Triton kernels, earlier versions refuse; expert parallel keeps experts whole"
    )


def _heads(model: TeacherArchitecture, split: Split) -> Iterator[str]:
    """`ModelConfig.verify_with_parallel_config`, and the assertions of the attention layers."""
    heads, pairs, tensor = model.num_attention_heads, model.num_key_value_heads, split.tensor
    if heads % tensor:
        yield f"{heads} attention heads cannot be shared evenly by tensor parallel {tensor}"
    if model.latent_attention is None and max(pairs, tensor) % min(pairs, tensor):
        yield (
            f"{pairs} key-value heads can neither be shared evenly by tensor parallel {tensor} nor be given to equal "
            "numbers of its ranks"
        )


def _layers(model: TeacherArchitecture, split: Split) -> Iterator[str]:
    if split.pipeline > model.num_hidden_layers:
        yield f"{model.num_hidden_layers} layers are fewer than the {split.pipeline} stages of pipeline parallel"


def _cut_rows(model: TeacherArchitecture, weights: Weights, split: Split) -> Iterator[str]:
    """What tensor parallel cuts: `VocabParallelEmbedding`, `RowParallelLinear`, `validate_fp8_block_shape` and
    `verify_group_size_divides_partition`."""
    tensor, group = split.tensor, weights.group(weights.format)
    padded = -(-model.vocab_size // VOCABULARY_STEP) * VOCABULARY_STEP
    if padded % tensor:
        yield f"{padded:,} rows of the vocabulary cannot be shared evenly by tensor parallel {tensor}"
    for name, size in _rows(model, split):
        if size % tensor:
            yield f"{name} of {size:,} cannot be shared evenly by tensor parallel {tensor}"
        elif tensor > 1 and group is not None and (size // tensor) % group:
            piece = f"tensor parallel {tensor} cuts {name} of {size:,} into pieces of {size // tensor:,}"
            yield f"{piece}, no whole blocks of the {group} that share a scale in {weights.format}"


def _rows(model: TeacherArchitecture, split: Split) -> Iterator[tuple[str, int]]:
    """Names and sizes of what tensor parallel cuts in a layer's matrices, the routed experts aside."""
    latent, experts = model.latent_attention, model.experts
    value = latent.v_head_dim if latent is not None else model.head_size
    yield "the attention output", model.num_attention_heads * value
    if experts is None or experts.first_k_dense_replace:
        yield "intermediate_size", model.intermediate_size
    if experts is not None and experts.n_shared_experts and not split.shares_sequences:
        yield "the shared experts' intermediate size", experts.n_shared_experts * experts.moe_intermediate_size


def _experts(model: TeacherArchitecture, split: Split) -> Iterator[str]:
    """`ModelConfig._verify_with_expert_parallelism`; more ranks than experts would leave some idle."""
    if not split.expert_parallel:
        return
    if model.experts is None:
        yield "expert parallel needs experts, and this model has none"
    elif split.expert_ranks > model.experts.n_routed_experts:
        count = model.experts.n_routed_experts
        yield f"{count} experts are fewer than the {split.expert_ranks} ranks of expert parallel (tensor × data)"


def _cut_experts(model: TeacherArchitecture, weights: Weights, split: Split) -> Iterator[str]:
    """`FusedMoEConfig`, `refine_fp8_moe_block_shape` and MoeWNA16Method; experts in mxfp4 are padded instead."""
    experts = model.experts
    if experts is None or split.expert_parallel:
        return
    ranks, rows = split.expert_ranks, experts.moe_intermediate_size
    if rows % ranks:
        yield (
            f"moe_intermediate_size {rows:,} cannot be shared evenly by {ranks} ranks (tensor × data); expert parallel "
            "keeps experts whole"
        )
        return
    found = _expert_rows(model, weights, split)
    if found is None or found.kept == "mxfp4":
        return
    least = min(LEAST_GROUP, found.group)
    if math.gcd(found.group, found.rows) < least:
        yield (
            f"{found.cut} hold no whole blocks even of {least}, the smallest that vLLM makes of those of {found.group} "
            f"in {found.kept}; expert parallel keeps experts whole"
        )


@dataclass(frozen=True, slots=True)
class _ExpertRows:
    """What a rank has of an expert that several cut, the blocks that share a scale, and this in words."""

    rows: int
    group: int
    kept: WeightFormat
    cut: str


def _expert_rows(model: TeacherArchitecture, weights: Weights, split: Split) -> _ExpertRows | None:
    """None where experts stay whole, or have no scales."""
    kept = weights.experts or weights.format
    group, ranks = weights.group(kept), split.expert_ranks
    if model.experts is None or group is None or split.expert_parallel or ranks == 1:
        return None
    whole = model.experts.moe_intermediate_size
    words = f"moe_intermediate_size {whole:,} / {ranks} ranks = {whole // ranks:,} rows"
    return _ExpertRows(whole // ranks, group, kept, words)
