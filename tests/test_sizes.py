"""Sizes against published parameter counts, a model that transformers builds, and the table of the recipe notes."""

from __future__ import annotations

import pytest

from distill.sizes import BITS, R1_STUDENTS, Fit, Scheme, Sizes, best_fit

PUBLISHED = {
    "R1-Distill-Qwen-1.5B": 1_777_088_000,
    "R1-Distill-Qwen-7B": 7_615_616_512,
    "R1-Distill-Llama-8B": 8_030_261_248,
    "R1-Distill-Qwen-14B": 14_770_033_664,
    "R1-Distill-Qwen-32B": 32_763_876_352,
    "R1-Distill-Llama-70B": 70_553_706_496,
}
"""`total_parameters` in the safetensors metadata of the models on the Hub."""

TABLE = {
    "R1-Distill-Qwen-1.5B": (3.6, 2.2, 1.6, 1.1, 28_672),
    "R1-Distill-Qwen-7B": (15.2, 8.7, 5.6, 4.7, 57_344),
    "R1-Distill-Llama-8B": (16.1, 9.1, 5.8, 4.9, 131_072),
    "R1-Distill-Qwen-14B": (29.5, 16.3, 10.1, 9.0, 196_608),
    "R1-Distill-Qwen-32B": (65.5, 34.3, 19.7, 19.9, 262_144),
    "R1-Distill-Llama-70B": (141, 72.7, 40.6, 43, 327_680),
}
"""GB in bf16, 8-bit, 4-bit in groups of 128 and Q4_K_M, as other tools' files have them; bytes of KV cache a token."""
SCHEMES: tuple[Scheme, ...] = ("bf16", "int8", "w4", "q4_k_m")
TOLERANCE = 0.1
"""GB: the table is rounded to a tenth (0.05), and its own sums were made of rounded parts. 0.5 for 141 and 43."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_published(name: str) -> None:
    assert R1_STUDENTS[name].parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", TABLE)
def test_memory_of_weights_is_that_of_the_table(name: str) -> None:
    *gigabytes, kv = TABLE[name]
    for scheme, expected in zip(SCHEMES, gigabytes, strict=True):
        tolerance = TOLERANCE if isinstance(expected, float) else 0.5
        assert R1_STUDENTS[name].weight_bytes(scheme) / 1e9 == pytest.approx(expected, abs=tolerance), scheme
    assert R1_STUDENTS[name].kv_bytes_per_token() == kv


def test_kv_of_32k_tokens() -> None:
    shown = [round(sizes.kv_bytes_per_token() * 32_768 / 1e9, 1) for sizes in R1_STUDENTS.values()]
    assert shown == [0.9, 1.9, 4.3, 6.4, 8.6, 10.7]
    assert R1_STUDENTS["R1-Distill-Qwen-7B"].kv_bytes_per_token(1) == 28_672


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_real_model_has_that_many_weights(architecture: str, tied: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture,
        vocab_size=96,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    sizes = Sizes(32, 3, 4, 2, 8, 80, 96, tied=tied, qkv_bias=architecture == "qwen2")
    assert sizes.parameters == sum(weights.numel() for weights in model.parameters())
    layers = model.model.layers.parameters()
    assert sizes.linear_parameters == sum(weights.numel() for weights in layers if weights.dim() == 2)


def test_quantizing_leaves_embeddings_and_head_alone() -> None:
    sizes = Sizes(64, 1, 2, 2, 32, 128, 1_000_000, tied=False, qkv_bias=False)
    assert sizes.weight_bytes("w4") > sizes.vocabulary_parameters * 2
    assert sizes.weight_bytes("q4_k_m") == round(sizes.parameters * BITS["q4_k_m"] / 8)


@pytest.mark.parametrize(
    ("name", "gigabytes", "expected"),
    [
        ("R1-Distill-Qwen-1.5B", 6.0, Fit("bf16", 32_768)),
        ("R1-Distill-Qwen-7B", 12.0, Fit("int8", 32_768)),
        ("R1-Distill-Qwen-7B", 8.0, Fit("q4_k_m", 32_768)),
        ("R1-Distill-Qwen-14B", 16.0, None),
        ("R1-Distill-Qwen-32B", 20.5, None),
        ("R1-Distill-Llama-70B", 48.0, None),
    ],
)
def test_the_largest_scheme_that_fits(name: str, gigabytes: float, expected: Fit | None) -> None:
    found = best_fit(R1_STUDENTS[name], gigabytes * 1e9)
    if expected is None:
        assert found is None or (found.scheme == "q4_k_m" and found.context < 32_768)
    else:
        assert found == expected


def test_a_shorter_context_is_said_and_too_short_a_one_is_none() -> None:
    """R1-Distill-Qwen-32B on 24 GB: about 8 to 12 thousand tokens by the recipe notes, which count more overhead."""
    large = R1_STUDENTS["R1-Distill-Qwen-32B"]
    found = best_fit(large, 24e9)
    assert found is not None
    assert found.scheme == "q4_k_m"
    assert 8_000 < found.context < 12_500
    assert best_fit(large, 21e9) is None
    assert best_fit(large, 1e9) is None
