"""Weights of the teachers' architectures as transformers builds them, whole, on the meta device."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from distill import specs
from distill.teacher_architecture import TeacherArchitecture
from distill.teacher_sizes import ServedSizes

CHECKOUT = Path(__file__).resolve().parent.parent
ROUTING_BIAS = "e_score_correction_bias"


@cache
def distinct() -> dict[str, TeacherArchitecture]:
    """Each shipped architecture once, by the first teacher that has it."""
    found: dict[str, TeacherArchitecture] = {}
    for name in specs.names("teachers"):
        architecture = specs.teacher(name).architecture
        if architecture is None:
            continue
        architecture = architecture.model_copy(update={"num_nextn_predict_layers": 0, "max_position_embeddings": 4_096})
        if architecture not in found.values():
            found[name] = architecture
    return found


def config_of(architecture: TeacherArchitecture) -> Any:
    """The same as a configuration of transformers."""
    from transformers import AutoConfig

    given = architecture.model_dump(
        exclude_none=True, exclude={"experts", "latent_attention", "model_type", "sliding_window_pattern"}
    )
    if architecture.latent_attention is not None:
        given |= architecture.latent_attention.model_dump()
    if architecture.experts is not None:
        experts = architecture.experts.model_dump()
        count = experts.pop("n_routed_experts")
        key = {"qwen3_moe": "num_experts", "gpt_oss": "num_local_experts"}.get(architecture.model_type)
        given |= experts | {key or "n_routed_experts": count}
    return AutoConfig.for_model(architecture.model_type, **given)


def built(architecture: TeacherArchitecture) -> Any:
    """The model without memory for its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_of(architecture))


def active_in(model: Any, architecture: TeacherArchitecture) -> int:
    """Weights that a token takes, embedding included: of the routed experts its own share."""
    experts = architecture.experts
    total = 0
    for name, weights in model.named_parameters():
        routed = experts is not None and ".mlp.experts." in name
        total += (
            weights.numel() * experts.num_experts_per_tok // experts.n_routed_experts if routed else weights.numel()
        )
    return total


@pytest.mark.timeout(120)
def test_the_full_deepseek_v3_architecture() -> None:
    """671,026,404,352 weights, 14,848 routing biases, 37B of the weights active; 70,272 bytes of cache a token."""
    architecture = specs.teacher("deepseek-r1").architecture
    assert architecture is not None
    model = built(architecture)
    assert sum(weights.numel() for weights in model.parameters()) == 671_026_404_352
    biases = [bias for name, bias in model.named_buffers() if name.endswith(ROUTING_BIAS)]
    assert sum(bias.numel() for bias in biases) == 14_848
    embedding = model.get_input_embeddings().weight.numel()
    assert round((active_in(model, architecture) - embedding) / 1e9) == 37
    attention = model.model.layers[60].self_attn
    latent = attention.kv_a_proj_with_mqa.weight.shape[0]
    assert latent * len(model.model.layers) * 2 == 70_272


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", distinct())
def test_a_model_of_this_architecture_has_the_weights_that_are_computed(name: str) -> None:
    architecture = distinct()[name]
    model, sizes = built(architecture), ServedSizes(architecture)
    assert sum(weights.numel() for weights in model.parameters()) == sizes.parameters
    assert active_in(model, architecture) == sizes.active_parameters_with_embedding
    biases = sum(bias.numel() for key, bias in model.named_buffers() if key.endswith(ROUTING_BIAS))
    assert biases == sizes.routing_biases


@pytest.mark.parametrize("name", distinct())
def test_a_config_of_it_is_read_as_the_same(name: str) -> None:
    architecture = distinct()[name]
    found = TeacherArchitecture.from_config(config_of(architecture).to_dict())
    if architecture.latent_attention is None:
        architecture = architecture.model_copy(update={"head_dim": found.head_dim or None})
        assert found.head_size == distinct()[name].head_size
    assert found == architecture


def test_the_embedded_teachers_config_gives_its_weights() -> None:
    folder = CHECKOUT / "teachers" / "tiny-r1"
    architecture = TeacherArchitecture.from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    model, sizes = built(architecture), ServedSizes(architecture)
    assert sum(weights.numel() for weights in model.parameters()) == sizes.parameters
    assert sizes.kv_bytes_per_token() == 4 * 576 * 2


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama"])
def test_dense_models_with_one_matrix_at_both_ends(kind: str, tied: bool) -> None:
    given = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3}
    given |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    architecture = TeacherArchitecture.model_validate({"model_type": kind, "tie_word_embeddings": tied} | given)
    if kind == "qwen3":
        architecture = architecture.model_copy(update={"head_dim": 16})
    model = built(architecture)
    assert sum(weights.numel() for weights in model.parameters()) == ServedSizes(architecture).parameters


def test_gpt_oss_alternates_as_is_computed() -> None:
    architecture = distinct()["gpt-oss-120b"]
    kinds = config_of(architecture).layer_types
    assert [kind == "sliding_attention" for kind in kinds] == [architecture.slides(layer) for layer in range(36)]
