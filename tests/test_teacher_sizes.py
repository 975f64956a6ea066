"""Memory of served models against published sizes, measured loads and the table of the recipe notes; no torch."""

from __future__ import annotations

from functools import cache

import pytest

from distill import specs
from distill.errors import SpecError
from distill.sizes import R1_STUDENTS
from distill.teacher_architecture import Experts, TeacherArchitecture, Weights
from distill.teacher_sizes import ServedSizes
from distill.teacher_specs import TeacherSpec
from distill.teacher_splits import stages

GIB = 2**30

PUBLISHED_WEIGHTS = {
    "deepseek-r1": (671_026_404_352, 36.6e9),
    "qwen3-8b": (8_190_735_360, 7.6e9),
    "qwen3-32b": (32_762_123_264, 32.0e9),
    "qwen3-30b-a3b-thinking-2507": (30_532_122_624, 3.04e9),
    "qwen3-235b-a22b-thinking-2507": (235_093_634_560, 21.6e9),
    "gpt-oss-20b": (20_914_757_184, 3.61e9),
    "gpt-oss-120b": (116_829_156_672, 5.13e9),
}
"""Weights as the safetensors metadata on the Hub have them (gpt-oss: 20.91B and 116.83B in arXiv 2508.10925, table 1,
whose active weights are the second number, to two places)."""

PUBLISHED_BYTES = {
    "deepseek-r1": (688_586_727_753, 0.0001),
    "deepseek-r1-0528-nvfp4": (385 * GIB, 0.002),
    "deepseek-r1-0528-gptq": (346 * GIB, 0.002),
    "qwen3-8b": (16_381_470_720, 0),
    "qwen3-32b": (65_524_246_528, 0),
    "qwen3-30b-a3b-thinking-2507": (61_064_245_248, 0),
    "qwen3-235b-a22b-thinking-2507": (470_187_269_120, 0),
    "qwen3-235b-a22b-thinking-2507-fp8": (236_400_000_000, 0.0005),
    "qwq-32b-awq": (19_000_000_000, 0.03),
    "gpt-oss-20b": (13_761_264_768, 0),
    "gpt-oss-120b": (65_248_815_744, 0),
}
"""Bytes of the published files, and how far the sum of the formats may be from them. Exact where an index counts its
tensors. DeepSeek: those of V3, the same tensors, counted with the files' headers (12 MB). Elsewhere as far as people
rounded: 385 GiB, 346 GB (of 2^30), 236.4 GB (an FP8 sister's), 19 GB."""

TABLE = {
    (8, 1, 1, False): (84e9, 0.02),
    (1, 1, 8, True): (101e9, 0.005),
    (8, 2, 1, False): (42e9, 0.05),
    (1, 1, 16, True): (60e9, 0.005),
}
"""Bytes per GPU of DeepSeek-R1 by tensor, pipeline, data and expert parallel, as the recipe notes have them, and how
much more is right. They divided the weights by the GPUs: 8-bit embeddings and latents that every rank has whole add 1%
to the first, and 31 of 61 layers with the embedding on the fuller of two stages 4.5% to the third."""


@cache
def sizes(name: str) -> ServedSizes:
    return ServedSizes.of(specs.teacher(name))


def shipped() -> list[str]:
    """Names of the teachers whose architecture is known."""
    loaded = {name: specs.teacher(name) for name in specs.names("teachers")}
    return [name for name, spec in loaded.items() if spec.architecture is not None]


# --- the whole model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED_WEIGHTS)
def test_weights_are_those_published(name: str) -> None:
    parameters, active = PUBLISHED_WEIGHTS[name]
    assert sizes(name).parameters == parameters
    assert sizes(name).active_parameters == pytest.approx(active, rel=0.005)


def test_weights_that_a_token_takes_are_counted_as_their_publishers_do() -> None:
    """DeepSeek-R1: 37B; Qwen counts the embedding (22B, 3.3B), OpenAI does not (5.13B, 3.61B)."""
    assert round(sizes("deepseek-r1").active_parameters / 1e9) == 37
    assert sizes("qwen3-235b-a22b-thinking-2507").active_parameters_with_embedding == 22_190_763_520
    assert sizes("qwen3-30b-a3b-thinking-2507").active_parameters_with_embedding == 3_353_032_704
    assert round(sizes("gpt-oss-120b").active_parameters / 1e9, 2) == 5.13
    assert round(sizes("gpt-oss-20b").active_parameters / 1e9, 2) == 3.61


def test_a_tied_embedding_is_multiplied_with_as_the_head() -> None:
    tied = ServedSizes(dense(tie_word_embeddings=True))
    untied = ServedSizes(dense(tie_word_embeddings=False))
    assert tied.active_parameters == tied.active_parameters_with_embedding == tied.parameters
    assert untied.active_parameters == tied.parameters == untied.active_parameters_with_embedding - 1_000 * 64


def test_only_deepseek_has_routing_biases() -> None:
    assert sizes("deepseek-r1").routing_biases == 58 * 256 == 14_848
    assert sizes("gpt-oss-120b").routing_biases == sizes("qwen3-8b").routing_biases == 0


@pytest.mark.parametrize("student", R1_STUDENTS)
def test_r1s_students_are_as_large_as_students(student: str) -> None:
    teacher = sizes(student.lower())
    assert teacher.parameters == R1_STUDENTS[student].parameters
    assert teacher.kv_bytes_per_token() == R1_STUDENTS[student].kv_bytes_per_token()
    assert teacher.weight_bytes_per_gpu() == R1_STUDENTS[student].weight_bytes("bf16")


@pytest.mark.parametrize("name", PUBLISHED_BYTES)
def test_bytes_of_the_formats_are_those_published(name: str) -> None:
    published, tolerance = PUBLISHED_BYTES[name]
    assert sizes(name).computed_file_bytes == pytest.approx(published, rel=tolerance, abs=0.5)


def test_routing_biases_are_of_four_bytes() -> None:
    r1 = sizes("deepseek-r1-0528-gptq")
    two = ServedSizes(r1.architecture, Weights(format="bf16"))
    assert two.computed_file_bytes == 2 * two.parameters + 4 * 14_848


@pytest.mark.parametrize("name", shipped())
def test_bytes_of_a_spec_are_those_of_its_formats(name: str) -> None:
    """Within 0.01%: headers of the files, and 688.6 GB being rounded."""
    assert sizes(name).file_bytes == pytest.approx(sizes(name).computed_file_bytes, rel=0.0001)


# --- per GPU -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", TABLE)
def test_weights_per_gpu_are_those_of_the_table(split: tuple[int, int, int, bool]) -> None:
    tensor, pipeline, data, expert_parallel = split
    expected, more = TABLE[split]
    found = sizes("deepseek-r1").weight_bytes_per_gpu(tensor, pipeline, data, expert_parallel=expert_parallel)
    assert expected * 0.995 <= found <= expected * (1 + more)


def test_what_vllm_said_it_loaded() -> None:
    """Model loading took 65.9651 GiB: vLLM on one H100 with gpt-oss-120b (blog.huikang.dev, 28 December 2025)."""
    assert sizes("gpt-oss-120b").weight_bytes_per_gpu() / GIB == pytest.approx(65.9651, rel=0.002)


def test_experts_in_mxfp4_are_padded_the_more_the_more_they_are_cut() -> None:
    oss = sizes("gpt-oss-120b")
    whole, cut, spread = (oss.weight_bytes_per_gpu(8, expert_parallel=e) for e in (True, False, True))
    assert whole == spread
    assert cut / whole == pytest.approx((8 * 384) / 2_944, rel=0.01), "8 × 360 rows take 384 each, whole ones 2,944"


def test_one_gpu_holds_what_the_files_hold_without_the_further_layer() -> None:
    r1 = sizes("deepseek-r1")
    further = r1.file_bytes - r1.weight_bytes_per_gpu()
    assert further == pytest.approx(15.4e9, rel=0.01), "14B weights, embedding and head in two bytes of them"
    plain = sizes("qwen3-235b-a22b-thinking-2507")
    assert plain.weight_bytes_per_gpu() == plain.file_bytes


def test_published_bytes_scale_every_part() -> None:
    one = Weights(format="bf16")
    base = ServedSizes(dense(), one)
    double = ServedSizes(dense(), one.model_copy(update={"bytes": 2 * base.file_bytes}))
    assert double.weight_bytes_per_gpu(2, 2) == pytest.approx(2 * base.weight_bytes_per_gpu(2, 2), abs=1)


def test_data_parallel_repeats_all_but_the_experts() -> None:
    r1 = sizes("deepseek-r1")
    layout = {split: r1.weight_bytes_per_gpu(*split, expert_parallel=True) for split in ((8, 1, 1), (1, 1, 8))}
    experts = 58 * 256 * 3 * 7_168 * 2_048 * (1 + 4 / 128**2) / 8
    common = layout[1, 1, 8] - experts
    assert common == pytest.approx(19.1e9, rel=0.01), "attention, 3 dense blocks, shared experts, embedding and head"
    assert layout[8, 1, 1] - experts == pytest.approx(common / 8 + 1.0e9, rel=0.01), "latents and routers are whole"


def test_without_expert_parallel_experts_are_cut_over_the_data_ranks_too() -> None:
    r1 = sizes("deepseek-r1")
    assert r1.weight_bytes_per_gpu(1, 1, 8) == r1.weight_bytes_per_gpu(1, 1, 8, expert_parallel=True)


def test_the_gpu_with_one_expert_more_counts() -> None:
    model = ServedSizes(mixture(n_routed_experts=10, num_experts_per_tok=2))
    expert = 3 * 64 * 32 * 2 * 2
    four, five = (model.weight_bytes_per_gpu(1, 1, data, expert_parallel=True) for data in (4, 5))
    assert four - five == expert, "3 of 10 on one of four GPUs, 2 on each of five; two layers, two bytes"


def test_shared_experts_are_whole_where_tensor_ranks_get_different_tokens() -> None:
    r1 = sizes("deepseek-r1")
    alone, beside = (r1.weight_bytes_per_gpu(2, 1, data, expert_parallel=True) for data in (1, 2))
    experts = 58 * 256 * 3 * 7_168 * 2_048 * (1 + 4 / 128**2)
    shared = 58 * 3 * 7_168 * 2_048
    assert (beside - experts / 4) - (alone - experts / 2) == pytest.approx(shared / 2, rel=0.01)


def test_key_value_projections_are_split_no_further_than_their_heads() -> None:
    model = ServedSizes(dense(num_key_value_heads=2))
    pair = 64 * 2 * 2 * 8 * 2 * 2  # hidden × keys and values × heads × head size × layers × bytes
    rest = model.weight_bytes_per_gpu(1) - pair - norms(model)
    for tensor in (2, 4, 8):
        assert model.weight_bytes_per_gpu(tensor) == rest / tensor + pair / 2 + norms(model)


@pytest.mark.parametrize(
    ("layers", "pipeline", "expected"),
    [
        (61, 2, [31, 30]),
        (61, 4, [15, 15, 16, 15]),
        (61, 8, [7, 7, 8, 8, 8, 8, 8, 7]),
        (4, 4, [1, 1, 1, 1]),
        (7, 1, [7]),
    ],
)
def test_layers_go_to_stages_as_vllm_shares_them_out(layers: int, pipeline: int, expected: list[int]) -> None:
    found = stages(layers, pipeline)
    assert [len(stage) for stage in found] == expected
    assert [layer for stage in found for layer in stage] == list(range(layers))


def test_the_fullest_stage_counts_with_its_end_of_the_vocabulary() -> None:
    model = ServedSizes(dense(num_hidden_layers=2))
    layers = model.weight_bytes_per_gpu() - 2 * 2 * 1_000 * 64 - 2 * 64
    assert model.weight_bytes_per_gpu(pipeline=2) == layers / 2 + 2 * 1_000 * 64 + 2 * 64
    tied = ServedSizes(dense(num_hidden_layers=2, tie_word_embeddings=True))
    assert tied.weight_bytes_per_gpu() == layers + 2 * 1_000 * 64 + 2 * 64, "one matrix for both ends"
    assert tied.weight_bytes_per_gpu(pipeline=2) == model.weight_bytes_per_gpu(pipeline=2), "each end needs it"


def test_latent_attention_unfolds_its_latent_twice() -> None:
    """61 layers × 512 × 128 heads × (128 + 128) values of two bytes."""
    r1 = sizes("deepseek-r1")
    assert r1.latent_copies_per_gpu() == 61 * 512 * 128 * 256 * 2
    assert r1.latent_copies_per_gpu(8, 2) == 31 * 512 * 16 * 256 * 2
    assert sizes("qwen3-8b").latent_copies_per_gpu() == 0


# --- key-value cache -----------------------------------------------------------------------------------------------


def test_a_token_of_deepseek_r1_takes_70272_bytes() -> None:
    r1 = sizes("deepseek-r1")
    assert r1.kv_bytes_per_token() == 70_272
    assert r1.kv_bytes_per_token(1) == 35_136
    assert r1.kv_bytes_per_token(tensor=8) == 70_272, "a latent is the same for all heads"
    assert r1.kv_bytes_per_token(pipeline=2) == 31 * 576 * 2
    assert r1.kv_bytes_per_window() == 0


def test_grouped_heads_are_split_until_one_is_left() -> None:
    qwen = sizes("qwen3-235b-a22b-thinking-2507")
    assert qwen.kv_bytes_per_token() == 94 * 4 * 128 * 2 * 2
    assert [qwen.kv_bytes_per_token(tensor=t) for t in (2, 4, 8)] == [96_256, 48_128, 48_128]
    assert qwen.kv_bytes_per_token(tensor=8, pipeline=2) == 24_064


def test_layers_with_a_window_stop_growing() -> None:
    oss = sizes("gpt-oss-120b")
    assert oss.kv_bytes_per_token() == 18 * 8 * 64 * 2 * 2
    assert oss.kv_bytes_per_window() == 18 * 8 * 64 * 2 * 2 * 128
    assert oss.kv_bytes_per_token(1, tensor=8, pipeline=4) == 5 * 64 * 2, "of 9 layers of a stage at most 5 see all"


# --- what a spec must have -----------------------------------------------------------------------------------------


def test_a_spec_without_architecture_is_refused() -> None:
    with pytest.raises(SpecError, match="'unknown' has no architecture"):
        ServedSizes.of(TeacherSpec(name="unknown", model="somewhere/else"))


def test_weights_are_bfloat16_where_nobody_says() -> None:
    spec = TeacherSpec(name="plain", model="some/model", architecture=dense())
    assert ServedSizes.of(spec).file_bytes == 2 * ServedSizes.of(spec).parameters


# --- material ------------------------------------------------------------------------------------------------------


def dense(**changed: object) -> TeacherArchitecture:
    """A Llama of two layers, 8 heads of 8 and 1,000 rows."""
    given = {
        "model_type": "llama",
        "vocab_size": 1_000,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "max_position_embeddings": 256,
    }
    return TeacherArchitecture.model_validate(given | changed)


def mixture(**experts: int) -> TeacherArchitecture:
    """A Qwen3 mixture of two layers."""
    block = Experts.model_validate({"moe_intermediate_size": 32} | experts)
    return dense(model_type="qwen3_moe", experts=block)


def norms(model: ServedSizes) -> int:
    """Bytes of the two norms of each layer and of the last, which every rank has."""
    return (model.architecture.num_hidden_layers * 2 + 1) * model.architecture.hidden_size * 2
