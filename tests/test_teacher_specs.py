"""What a teacher spec says for serving: refused where it contradicts itself, no part of any recipe's hash, and known to
the installed vLLM."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from vllm_server import PYTHON_VARIABLE, environment, vllm_python

from distill import specs
from distill.specs import Recipe
from distill.teacher_architecture import TeacherArchitecture, Weights
from distill.teacher_specs import TeacherSpec
from distill.teacher_splits import Split, drawback, stages, why_not

SERVING = ("architecture", "weights", "reasoning_parser", "trust_remote_code", "variant_of")

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
EXPERTS: dict[str, Any] = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT: dict[str, Any] = {
    "q_lora_rank": 8,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
MIXTURE = LLAMA | {"model_type": "qwen3_moe", "experts": EXPERTS}
DEEPSEEK = LLAMA | {"model_type": "deepseek_v3", "experts": EXPERTS, "latent_attention": LATENT}
GPT_OSS = LLAMA | {
    "model_type": "gpt_oss",
    "experts": EXPERTS | {"moe_intermediate_size": 80},
    "sliding_window": 16,
}


# --- no part of a recipe's hash ------------------------------------------------------------------------------------


def hashes(teacher: Path, **changed: Any) -> dict[str, str]:
    recipe = Recipe(name="r", teacher=str(teacher), **changed)
    return {stage: recipe.section_hash(stage) for stage in specs.STAGES}


def test_what_serves_a_teacher_changes_no_recipes_hash(tmp_path: Path) -> None:
    """A run of before goes on under a spec that has learned how to be served."""
    full = yaml.safe_load(specs.find("teachers", "deepseek-r1").read_text(encoding="utf-8"))
    assert set(SERVING[:3]) <= set(full)
    spec = tmp_path / "deepseek-r1.yaml"
    before = {key: value for key, value in full.items() if key not in SERVING}
    spec.write_text(yaml.safe_dump(before), encoding="utf-8")
    expected = hashes(spec)
    spec.write_text(yaml.safe_dump(full | {"trust_remote_code": True, "variant_of": "another"}), encoding="utf-8")
    assert hashes(spec) == expected
    spec.write_text(yaml.safe_dump(full | {"quantization": "nvfp4"}), encoding="utf-8")
    changed = hashes(spec)
    assert {stage for stage in expected if changed[stage] != expected[stage]} == {"generate", "filter", "evaluate"}


def test_overrides_of_how_it_is_served_change_none_either(tmp_path: Path) -> None:
    spec = tmp_path / "one.yaml"
    spec.write_text(yaml.safe_dump({"name": "one", "model": "some/model", "architecture": LLAMA}), encoding="utf-8")
    served = {"reasoning_parser": "deepseek_r1", "architecture.num_hidden_layers": 4}
    assert hashes(spec, teacher_overrides=served) == hashes(spec)
    assert hashes(spec, teacher_overrides={"max_tokens": 7}) != hashes(spec)


def test_every_field_is_either_of_the_teacher_or_for_serving_it() -> None:
    """A new field that says nothing about the traces has to be left out of the hashes on purpose."""
    assert set(SERVING) <= set(TeacherSpec.model_fields)
    decided = specs.Recipe(name="r", teacher="deepseek-r1").decides("generate")["specs"]["teacher"]
    described = {"description", "license", "distillation_terms", "source"}
    assert set(decided) == set(TeacherSpec.model_fields) - set(SERVING) - described


# --- contradictions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (LLAMA | {"experts": EXPERTS}, "a llama has no experts"),
        (LLAMA | {"latent_attention": LATENT}, "a llama has no latent_attention"),
        (LLAMA | {"sliding_window": 8}, "a llama has no sliding_window"),
        (LLAMA | {"num_nextn_predict_layers": 1}, "a llama has no num_nextn_predict_layers"),
        (LLAMA | {"model_type": "qwen3_moe"}, "a qwen3_moe needs experts"),
        ({**DEEPSEEK, "latent_attention": None}, "a deepseek_v3 needs latent_attention"),
        ({**GPT_OSS, "sliding_window": None}, "a gpt_oss needs sliding_window"),
        (LLAMA | {"num_key_value_heads": 3}, "num_key_value_heads must divide"),
        (LLAMA | {"num_attention_heads": 3, "num_key_value_heads": 3}, "must divide hidden_size"),
        (MIXTURE | {"experts": EXPERTS | {"num_experts_per_tok": 9}}, "num_experts_per_tok 9 of 8 experts"),
        (DEEPSEEK | {"experts": EXPERTS | {"first_k_dense_replace": 4}}, "first_k_dense_replace 4 of 3 layers"),
        (MIXTURE | {"experts": EXPERTS | {"n_shared_experts": 1}}, "neither n_shared_experts"),
        (MIXTURE | {"experts": EXPERTS | {"first_k_dense_replace": 1}}, "nor first_k_dense_replace"),
        (GPT_OSS | {"experts": EXPERTS}, "one intermediate_size"),
        (LLAMA | {"model_type": "mamba"}, "model_type"),
        (LLAMA | {"layers": 3}, "layers"),
    ],
)
def test_an_architecture_that_contradicts_itself(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TeacherArchitecture.model_validate(given)


@pytest.mark.parametrize("given", [LLAMA, MIXTURE, DEEPSEEK, GPT_OSS, DEEPSEEK | {"num_nextn_predict_layers": 1}])
def test_an_architecture_that_does_not(given: dict[str, Any]) -> None:
    assert TeacherArchitecture.model_validate(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "fp8"}, "block is missing: how many weights of fp8"),
        ({"format": "bf16", "experts": "gptq-4bit"}, "block is missing: how many weights of gptq-4bit"),
        ({"format": "bf16", "block": 128}, "bf16 have no such choice"),
        ({"format": "nvfp4", "block": 16}, "nvfp4 have no such choice"),
        ({"format": "int3"}, "format"),
    ],
)
def test_weights_that_contradict_themselves(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Weights.model_validate(given)


@pytest.mark.parametrize(
    ("given", "bits"),
    [
        (Weights(format="bf16"), 16),
        (Weights(format="fp8", block=128), 8 + 32 / 16_384),
        (Weights(format="nvfp4"), 4.5),
        (Weights(format="mxfp4"), 4.25),
        (Weights(format="awq", block=128), 4.15625),
        (Weights(format="gptq-4bit", block=128), 4.125),
    ],
)
def test_bits_of_a_weight_with_its_scale(given: Weights, bits: float) -> None:
    assert given.bits(given.format) == bits
    assert given.bits("bf16") == 16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": {"format": "bf16"}}, "give it as well"),
        ({"architecture": LLAMA, "weights": {"format": "bf16", "experts": "mxfp4"}}, "weights.experts"),
        ({"architecture": DEEPSEEK, "weights": {"format": "bf16", "nextn": "nvfp4"}}, "weights.nextn"),
        ({"variant_of": "one"}, "another spec than this one"),
    ],
)
def test_a_spec_that_contradicts_itself(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TeacherSpec.model_validate({"name": "one", "model": "some/model"} | given)


def test_a_config_of_another_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="model_type"):
        TeacherArchitecture.from_config(LLAMA | {"model_type": "mamba"})
    with pytest.raises(ValidationError, match="hidden_size"):
        TeacherArchitecture.from_config({"model_type": "llama"})
    with pytest.raises(ValidationError, match="n_routed_experts"):
        TeacherArchitecture.from_config(LLAMA | {"model_type": "qwen3_moe"})


def test_what_a_config_says_about_windows_that_are_not_used_is_not_read() -> None:
    """Qwen2's config.json names a window and, in use_sliding_window, that it has none."""
    found = TeacherArchitecture.from_config(LLAMA | {"model_type": "qwen2", "sliding_window": 32, "head_dim": None})
    assert found.sliding_window is None


def test_a_config_is_read_by_the_names_of_its_type() -> None:
    sizes = {"num_local_experts": 8, "num_experts_per_tok": 2, "num_nextn_predict_layers": 1, "sliding_window": 16}
    plain = {key: value for key, value in GPT_OSS.items() if key not in ("experts", "sliding_window")}
    assert TeacherArchitecture.from_config(plain | sizes) == TeacherArchitecture.model_validate(GPT_OSS)


# --- shipped specs -------------------------------------------------------------------------------------------------


@cache
def served() -> dict[str, TeacherSpec]:
    """Shipped teachers that can be planned without their files."""
    loaded = {name: specs.teacher(name) for name in specs.names("teachers")}
    return {name: spec for name, spec in loaded.items() if spec.architecture is not None}


@pytest.mark.parametrize("name", served())
def test_a_served_teacher_says_all_that_a_layout_asks(name: str) -> None:
    spec = served()[name]
    assert spec.architecture is not None
    assert spec.weights is not None
    assert spec.weights.least_capability is not None
    assert spec.reasoning_parser
    assert spec.license
    assert spec.distillation_terms
    assert spec.max_tokens < spec.context_length <= spec.architecture.max_position_embeddings
    assert (spec.quantization is None) == (spec.weights.formats == {"bf16"}), "the precision is part of the identity"
    assert not spec.trust_remote_code
    assert spec.revision is None or len(spec.revision) == 40
    if spec.revision is None:
        assert "no stored source tells" in " ".join((spec.source or "").split())


@pytest.mark.parametrize("name", [name for name, spec in served().items() if spec.variant_of])
def test_a_variant_is_asked_as_the_model_it_is_made_of(name: str) -> None:
    spec = served()[name]
    other = served()[spec.variant_of or ""]
    for field in ("instruction", "sampling", "max_tokens", "context_length", "forced_prefix", "reasoning_format"):
        assert getattr(spec, field) == getattr(other, field), field
    ends = {"num_nextn_predict_layers"}
    assert spec.architecture is not None
    assert other.architecture is not None
    assert spec.architecture.model_dump(exclude=ends) == other.architecture.model_dump(exclude=ends)
    assert other.variant_of is None


def test_only_what_think_tags_part_is_gone_on_with() -> None:
    """A continued reply is parted as the parser deepseek_r1 parts a chat's (distill.contract.served)."""
    for name, spec in served().items():
        assert (spec.continuation == "token_ids") == (spec.reasoning_parser == "deepseek_r1"), name


KNOWN = """
import json, sys
from types import SimpleNamespace
from vllm.distributed.utils import get_pp_indices
from vllm.model_executor.layers.fused_moe.oracle.fp8 import refine_fp8_moe_block_shape
from vllm.model_executor.layers.quantization import get_quantization_config
from vllm.reasoning import ReasoningParserManager

def blocks(rows, ranks):
    config = SimpleNamespace(intermediate_size_per_partition=rows // ranks, tp_size=ranks, hidden_dim=1024)
    return refine_fp8_moe_block_shape(config, [128, 128])

methods = {"fp8": "fp8", "nvfp4": "modelopt_fp4", "mxfp4": "mxfp4", "awq": "awq", "gptq-4bit": "compressed-tensors"}
told = {
    "parsers": ReasoningParserManager.list_registered(),
    "least": {name: get_quantization_config(method).get_min_capability() / 10 for name, method in methods.items()},
    "stages": [[get_pp_indices(l, rank, n) for rank in range(n)] for l, n in json.loads(sys.argv[1])],
    "blocks": [blocks(rows, ranks) for rows, ranks in json.loads(sys.argv[2])],
}
print("TOLD " + json.dumps(told))
"""
PIPELINES = [(61, 1), (61, 2), (61, 4), (61, 7), (94, 4), (36, 8), (7, 5)]
CUTS = [(1_024, 8), (768, 4), (768, 2), (784, 4), (1_536, 8), (1_536, 16), (2_048, 32), (2_048, 128)]
"""Rows of an expert, and the ranks that cut it; none of them comes out uneven."""


@pytest.mark.vllm
@pytest.mark.timeout(300)
@pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM environment (make vllm, or {PYTHON_VARIABLE})")
def test_vllm_knows_the_parsers_and_shares_models_out_as_is_computed() -> None:
    command = [str(vllm_python()), "-c", KNOWN, json.dumps(PIPELINES), json.dumps(CUTS)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(None), check=False)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    told = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("TOLD ")).removeprefix("TOLD "))
    for name, spec in served().items():
        assert spec.weights is not None
        assert spec.reasoning_parser in told["parsers"], name
        computes = 0.0 if spec.weights.formats == {"awq"} else 8.0
        needed = max(computes, *(told["least"].get(kept, 0.0) for kept in spec.weights.formats))
        assert spec.weights.least_capability == needed, name
    for (layers, count), theirs in zip(PIPELINES, told["stages"], strict=True):
        assert [[stage.start, stage.stop] for stage in stages(layers, count)] == theirs
    for (rows, ranks), theirs in zip(CUTS, told["blocks"], strict=True):
        model = TeacherArchitecture.model_validate(MIXTURE | {"experts": EXPERTS | {"moe_intermediate_size": rows}})
        split, weights = Split(data=ranks), Weights(format="bf16", experts="fp8", block=128)
        uneven = (rows // ranks) % 128 != 0
        assert (why_not(model, weights, split) is not None) == (uneven and theirs is None), (rows, ranks)
        assert (drawback(model, weights, split) is not None) == uneven, (rows, ranks)
