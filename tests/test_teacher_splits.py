"""Splits that vLLM refuses are refused with their numbers, those it takes are not."""

from __future__ import annotations

from functools import cache

import pytest

from distill import specs
from distill.teacher_architecture import Experts, TeacherArchitecture, Weights
from distill.teacher_sizes import ServedSizes
from distill.teacher_splits import Split, drawback, why_not

FP8 = Weights(format="fp8", block=128)
AWQ = Weights(format="awq", block=128)


@cache
def teacher(name: str) -> ServedSizes:
    return ServedSizes.of(specs.teacher(name))


def model(**changed: object) -> TeacherArchitecture:
    """A Qwen3 of 4 layers, 16 heads of 64 with 4 key-value heads, and 64 × 15 rows of vocabulary."""
    given = {
        "model_type": "qwen3",
        "vocab_size": 950,
        "hidden_size": 1_024,
        "intermediate_size": 2_048,
        "num_hidden_layers": 4,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "max_position_embeddings": 256,
    }
    return TeacherArchitecture.model_validate(given | changed)


def mixture(rows: int = 1_024, count: int = 8) -> TeacherArchitecture:
    experts = Experts(n_routed_experts=count, num_experts_per_tok=2, moe_intermediate_size=rows)
    return model(model_type="qwen3_moe", experts=experts)


PLAIN = Weights(format="bf16")


def refused(found: str | None, *words: str) -> None:
    """Holds that a reason was given which has these words."""
    assert found is not None
    for word in words:
        assert word in found


@pytest.mark.parametrize(
    "split", [(8, 1, 1, False), (1, 1, 8, True), (8, 2, 1, False), (1, 1, 16, True), (8, 1, 2, True)]
)
def test_the_usual_layouts_of_r1_are_possible(split: tuple[int, int, int, bool]) -> None:
    tensor, pipeline, data, expert_parallel = split
    r1 = teacher("deepseek-r1")
    assert r1.why_not(tensor, pipeline, data, expert_parallel=expert_parallel) is None
    assert r1.drawback(tensor, pipeline, data, expert_parallel=expert_parallel) is None


def test_one_gpu_is_always_possible() -> None:
    for name in specs.names("teachers"):
        if specs.teacher(name).architecture is not None:
            assert teacher(name).why_not() is None, name
            assert teacher(name).drawback() is None, name


@pytest.mark.parametrize("way", ["tensor", "pipeline", "data"])
def test_nothing_is_shared_by_none(way: str) -> None:
    refused(why_not(model(), PLAIN, Split(**{way: 0})), f"{way} 0")


def test_heads_that_do_not_come_out_even() -> None:
    refused(why_not(model(), PLAIN, Split(tensor=3)), "16 attention heads", "tensor parallel 3")
    refused(teacher("qwq-32b").why_not(16), "40 attention heads", "16")


def test_key_value_heads_are_shared_or_repeated_evenly() -> None:
    odd = model(num_attention_heads=24, num_key_value_heads=6)
    refused(why_not(odd, PLAIN, Split(tensor=4)), "6 key-value heads", "tensor parallel 4")
    assert why_not(model(vocab_size=1_024), PLAIN, Split(tensor=8)) is None, "4 heads, each on two ranks"


def test_latents_have_no_key_value_heads_to_share() -> None:
    odd = teacher("deepseek-r1").architecture.model_copy(update={"num_key_value_heads": 96})
    assert why_not(odd, PLAIN, Split(tensor=64)) is None


def test_no_more_stages_than_layers() -> None:
    assert why_not(model(), PLAIN, Split(pipeline=4)) is None
    refused(why_not(model(), PLAIN, Split(pipeline=5)), "4 layers", "5 stages")


def test_rows_of_the_vocabulary_are_padded_first() -> None:
    assert why_not(model(vocab_size=1_000), PLAIN, Split(tensor=16)) is None, "1,024 rows"
    five = model(num_attention_heads=20, num_key_value_heads=20, intermediate_size=2_000)
    assert why_not(five, PLAIN, Split(tensor=5)) is None, "64 × 15 rows"
    refused(why_not(model(num_attention_heads=28, num_key_value_heads=28), PLAIN, Split(tensor=7)), "960 rows", "7")


def test_a_dense_block_that_does_not_come_out_even() -> None:
    five = model(num_attention_heads=20, num_key_value_heads=20)
    refused(why_not(five, PLAIN, Split(tensor=5)), "intermediate_size of 2,048", "5")


def test_only_dense_blocks_that_are_there_are_cut() -> None:
    unused = mixture().model_copy(update={"intermediate_size": 2_047, "vocab_size": 1_024})
    assert why_not(unused, PLAIN, Split(tensor=2)) is None
    refused(teacher("deepseek-r1").why_not(32), "intermediate_size of 18,432 into pieces of 576", "128")


def test_blocks_of_dense_layers_are_not_cut() -> None:
    assert why_not(model(vocab_size=1_024), FP8, Split(tensor=8)) is None, "pieces of 128 and 256"
    refused(
        why_not(model(vocab_size=1_024), FP8, Split(tensor=16)),
        "the attention output of 1,024 into pieces of 64",
        "128",
        "fp8",
    )
    small = model(vocab_size=1_024, intermediate_size=768)
    refused(why_not(small, FP8, Split(tensor=4)), "intermediate_size of 768 into pieces of 192", "128")
    refused(why_not(small, AWQ, Split(tensor=4)), "192", "awq")
    assert why_not(small, PLAIN, Split(tensor=4)) is None
    odd = model(vocab_size=1_024, intermediate_size=700)
    assert why_not(odd, FP8, Split()) is None, "nothing is cut"


def test_shared_experts_are_cut_unless_the_ranks_have_different_tokens() -> None:
    r1 = teacher("deepseek-r1")
    small = r1.architecture.model_copy(update={"intermediate_size": 32 * 128, "vocab_size": 128 * 64})
    refused(why_not(small, FP8, Split(tensor=32)), "the shared experts' intermediate size of 2,048 into pieces of 64")
    refused(why_not(small, FP8, Split(tensor=32, expert_parallel=True)), "shared experts")
    assert why_not(small, FP8, Split(tensor=32, data=2, expert_parallel=True)) is None
    refused(why_not(small, FP8, Split(tensor=32, data=2)), "shared experts")


def test_expert_parallel_needs_experts() -> None:
    refused(why_not(model(), PLAIN, Split(tensor=2, expert_parallel=True)), "has none")
    assert why_not(mixture(), PLAIN, Split(tensor=2, expert_parallel=True)) is None


def test_no_more_ranks_than_experts() -> None:
    assert why_not(mixture(), PLAIN, Split(data=8, expert_parallel=True)) is None
    refused(why_not(mixture(), PLAIN, Split(tensor=2, data=8, expert_parallel=True)), "8 experts", "16 ranks")


def test_experts_that_do_not_come_out_even() -> None:
    refused(why_not(mixture(1_000), PLAIN, Split(tensor=2, data=8)), "1,000", "16 ranks", "expert parallel")
    assert why_not(mixture(1_000, 16), PLAIN, Split(tensor=2, data=8, expert_parallel=True)) is None


def test_fp8_blocks_of_experts_that_tensor_parallel_cuts() -> None:
    """1,536 / 8 = 192 rows: vLLM 0.32 refines the scales to blocks of 64, earlier versions stop."""
    qwen = teacher("qwen3-235b-a22b-thinking-2507-fp8")
    assert qwen.why_not(8) is None
    refused(qwen.drawback(8), "1,536 / 8 ranks = 192 rows", "128", "expert parallel")
    refused(qwen.drawback(4, 1, 2), "8 ranks = 192 rows")
    assert qwen.drawback(8, expert_parallel=True) is None
    assert qwen.drawback(4) is None, "384 are three blocks"
    assert teacher("qwen3-235b-a22b-thinking-2507").drawback(8) is None, "bfloat16 has no blocks"


def test_experts_cut_into_less_than_the_smallest_blocks() -> None:
    refused(why_not(mixture(784), FP8, Split(data=4)), "784 / 4 ranks = 196 rows", "32", "fp8", "expert parallel")
    assert why_not(mixture(768), FP8, Split(data=4)) is None
    assert drawback(mixture(768), FP8, Split(data=4)) is not None
    assert drawback(mixture(700), FP8, Split()) is None, "nothing is cut"
    assert why_not(mixture(784), FP8, Split(data=4, expert_parallel=True)) is None
    assert why_not(mixture(784), PLAIN, Split(data=4)) is None
    refused(why_not(mixture(784), Weights(format="bf16", experts="gptq-4bit", block=128), Split(data=4)), "gptq-4bit")


def test_groups_of_nvfp4_are_their_own_smallest() -> None:
    nvfp4 = Weights(format="bf16", experts="nvfp4")
    assert why_not(mixture(64), nvfp4, Split(data=4)) is None, "16 rows are a group"
    refused(why_not(mixture(96), nvfp4, Split(data=4)), "24 rows", "16", "nvfp4")


def test_experts_in_mxfp4_are_padded() -> None:
    assert teacher("gpt-oss-120b").why_not(8) is None, "360 rows are no whole groups of 32"
    assert teacher("gpt-oss-120b").drawback(8) is None
