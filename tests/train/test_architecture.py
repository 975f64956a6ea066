"""Sizes of a spec and configurations of transformers: the same model, a base that is another one, a longer context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill import specs
from distill.errors import SpecError
from distill.sizes import Sizes
from distill.student_specs import Architecture, RopeScaling, check_context, context_length_of
from distill.train.architecture import config_of, meta_student
from distill.train.student import base_commit, load_student, save_student
from distill.train.tokenizer import prepare_tokenizer
from distill.train_specs import TrainSettings
from train.bases import SIZES, from_base, plain_base
from train.material import spec

SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
LONGER = {"max_position_embeddings": 4_096, "rope_theta": 300_000.0}
TYPES = ("qwen2", "qwen3", "llama")


def architecture(**changed: Any) -> Architecture:
    """That of `plain_base`."""
    return Architecture(**{"model_type": "qwen2", "vocab_size": 260, "tie_word_embeddings": True, **SIZES, **changed})


def frequencies(theta: float, dim: int = 16) -> torch.Tensor:
    return theta ** -(torch.arange(0, dim, 2) / dim)


def loaded(student: Any, *, seed: int = 0) -> Any:
    return load_student(student, prepare_tokenizer(student), seed=seed, dtype=torch.float32)


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_these_sizes_has_the_counted_weights(model_type: str, tied: bool) -> None:
    wide = {"head_dim": 24} if model_type == "qwen3" else {}
    sizes = architecture(model_type=model_type, tie_word_embeddings=tied, **wide)
    model = meta_student(from_base(Path("org/model"), architecture=sizes))
    assert model.config.model_type == model_type
    assert model.get_input_embeddings().weight.shape == (260, 32)
    assert all(weight.is_meta for weight in model.parameters())
    counted = Sizes.of(sizes)
    assert counted.parameters == sum(weight.numel() for weight in model.parameters())
    matrices = [weight for weight in model.model.layers.parameters() if weight.dim() == 2]
    assert counted.linear_parameters == sum(weight.numel() for weight in matrices)
    attention = model.model.layers[0].self_attn
    assert attention.k_proj.out_features == counted.kv_bytes_per_token(1) // 2, "one layer, a key and a value"
    assert (attention.q_proj.bias is not None) == (model_type == "qwen2")
    assert hasattr(attention, "q_norm") == (model_type == "qwen3")


def test_sizes_of_a_student_from_nothing_need_its_vocabulary() -> None:
    sizes = spec().architecture
    assert sizes is not None
    assert Sizes.of(sizes, 768).vocab == 768
    with pytest.raises(ValueError, match="as many rows as its tokenizer asks for"):
        Sizes.of(sizes)
    assert meta_student(spec()).get_input_embeddings().num_embeddings == 768


def test_epsilon_theta_and_scaling_reach_the_model() -> None:
    sizes = architecture(model_type="llama", rms_norm_eps=1e-3, rope_theta=500_000.0, rope_scaling=SCALING)
    config = config_of(sizes, 260)
    assert config.rope_parameters == LLAMA3
    assert config_of(architecture(initializer_range=0.3), 260).initializer_range == 0.3
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_config(config)
    assert model.model.norm.variance_epsilon == 1e-3
    plain = frequencies(500_000.0)
    scaled = model.model.rotary_emb.inv_freq
    assert scaled[0] == plain[0], "fast frequencies stay"
    assert scaled[-1] == pytest.approx(plain[-1].item() / 8), "slow ones are stretched by the factor"


# --- a base that is not what its spec says ---------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", TYPES)
def test_a_base_that_agrees_with_its_spec_is_loaded(tmp_path: Path, model_type: str) -> None:
    wide = {"head_dim": 24} if model_type == "qwen3" else {}
    rope = (
        {"rope_parameters": LLAMA3}
        if model_type == "llama"
        else {"rope_parameters": {"rope_theta": 7e3, "rope_type": "default"}}
    )
    folder = plain_base(tmp_path / "base", model_type=model_type, rows=300, **wide, **rope)
    sizes = architecture(model_type=model_type, vocab_size=300, rope_theta=rope["rope_parameters"]["rope_theta"],
                         rope_scaling=SCALING if model_type == "llama" else None, **wide)  # fmt: skip
    changed = {"template": "llama3"} if model_type == "llama" else {}
    model = loaded(from_base(folder, architecture=sizes, **changed))
    assert model.config.model_type == model_type
    assert base_commit(model) is None, "a folder has no commit"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vocab_size": 320}, "vocab_size is 300, the spec says 320"),
        (
            {"hidden_size": 64, "num_attention_heads": 4},
            "hidden_size is 32, the spec says 64; num_attention_heads is 2",
        ),
        ({"intermediate_size": 65}, "intermediate_size is 64, the spec says 65"),
        ({"num_hidden_layers": 2}, "num_hidden_layers is 1, the spec says 2"),
        ({"num_key_value_heads": 2}, "num_key_value_heads is 1, the spec says 2"),
        ({"max_position_embeddings": 256}, "max_position_embeddings is 128, the spec says 256"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-06, the spec says 1e-05"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is True, the spec says False"),
        ({"rope_theta": 1e6}, "rope_theta is 10000.0, the spec says 1000000.0"),
        ({"model_type": "llama"}, "model_type is qwen2, the spec says llama"),
        ({"model_type": "qwen3", "head_dim": 24}, "head_dim is 16, the spec says 24; model_type is qwen2"),
        ({"rope_scaling": SCALING}, "factor is None, the spec says 8.0"),
    ],
)
def test_a_base_of_other_sizes_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    folder = plain_base(tmp_path / "base", rows=300)
    assert loaded(from_base(folder, architecture=architecture(vocab_size=300))).config.vocab_size == 300
    student = from_base(folder, architecture=architecture(**{"vocab_size": 300, **changed}))
    with pytest.raises(SpecError, match="the base of student 'tiny' is not the architecture in its spec") as caught:
        loaded(student)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "student_overrides.architecture=null" in str(caught.value)


@pytest.mark.parametrize("biased", ["attention_bias", "mlp_bias"])
def test_a_llama_with_biases_is_refused(tmp_path: Path, biased: str) -> None:
    folder = plain_base(tmp_path / "base", model_type="llama", rows=300, **{biased: True})
    student = from_base(folder, template="llama3", architecture=architecture(model_type="llama", vocab_size=300))
    with pytest.raises(SpecError, match=f"{biased} is True, the spec says False"):
        loaded(student)


def test_a_base_with_a_sliding_window_is_refused(tmp_path: Path) -> None:
    folder = plain_base(tmp_path / "base", rows=300, use_sliding_window=True, sliding_window=64)
    with pytest.raises(SpecError, match="sliding_window is 64, the spec says None"):
        loaded(from_base(folder, architecture=architecture(vocab_size=300)))


def test_without_an_architecture_any_base_is_taken(tmp_path: Path) -> None:
    assert specs.student("qwen3-8b", {"architecture": None}).architecture is None, "as the error says to set it"
    student = from_base(plain_base(tmp_path / "base", rows=300))
    assert meta_student(student).num_parameters() == loaded(student).num_parameters()


# --- a longer context ------------------------------------------------------------------------------------------------


def test_an_extended_context_is_used_saved_and_loaded(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = plain_base(tmp_path / "base", rows=300)
    short, long = from_base(folder), from_base(folder, context_extension=LONGER)
    before, model = loaded(short), loaded(long)
    assert before.config.max_position_embeddings == 128
    assert torch.allclose(before.model.rotary_emb.inv_freq, frequencies(10_000.0))
    assert torch.allclose(model.model.rotary_emb.inv_freq, frequencies(300_000.0))
    assert model.model.rotary_emb.max_seq_len_cached == 4_096
    save_student(model, prepare_tokenizer(long), long.contract, tmp_path / "student", facts={})
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float32)
    assert again.config.max_position_embeddings == 4_096
    assert again.config.rope_parameters == {"rope_type": "default", "rope_theta": 300_000.0}
    assert torch.equal(again.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    tokens = torch.arange(1, 65)[None]
    with torch.no_grad():
        assert not torch.allclose(before(tokens).logits, model(tokens).logits, atol=1e-4), "theta reaches attention"
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True))


def test_meta_students_have_their_extended_context() -> None:
    student = from_base(Path("org/model"), architecture=architecture(), context_extension=LONGER)
    config = meta_student(student).config
    assert (config.max_position_embeddings, config.rope_parameters["rope_theta"]) == (4_096, 300_000.0)


@pytest.mark.parametrize(
    ("changed", "sizes", "message"),
    [
        (
            {"max_position_embeddings": 128},
            {},
            "extends nothing\n  given: 128 positions and theta 300000; the base has 128",
        ),
        ({"rope_theta": 10_000.0}, {}, "extends nothing\n  given: 4096 positions and theta 10000"),
        ({}, {"model_type": "llama", "rope_scaling": SCALING}, "is for a base without rope scaling"),
    ],
)
def test_an_extension_that_cannot_be_meant_is_refused(
    changed: dict[str, Any], sizes: dict[str, Any], message: str
) -> None:
    extension = {**LONGER, **changed}
    student = from_base(Path("org/model"), architecture=architecture(**sizes), context_extension=extension)
    with pytest.raises(SpecError) as caught:
        meta_student(student)
    assert message in str(caught.value)


# --- how long traces may be ------------------------------------------------------------------------------------------


def test_the_default_context_is_the_papers_or_the_students_own() -> None:
    small, large = architecture(), architecture(max_position_embeddings=131_072)
    student = from_base(Path("org/model"), architecture=small)
    assert TrainSettings().context_length is None
    assert context_length_of(student, small, TrainSettings()) == 128
    assert context_length_of(student, large, TrainSettings()) == 32_768
    assert context_length_of(student, large, TrainSettings(context_length=131_072)) == 131_072
    longer = from_base(Path("org/model"), architecture=small, context_extension=LONGER)
    assert context_length_of(longer, small, TrainSettings()) == 4_096


def test_a_recipe_written_out_and_read_again_asks_for_the_same() -> None:
    recipe = specs.Recipe(name="r", student="tiny-qwen")
    again = specs.parse(specs.Recipe, specs.dump(recipe), "recipe.yaml")
    assert again.train.context_length is None
    assert context_length_of(spec(), architecture(), again.train) == 128


@pytest.mark.parametrize(
    ("changed", "allowed", "why"), [({}, 128, "tiny/base"), ({"context_extension": LONGER}, 4_096, "context_extension")]
)
def test_more_context_than_the_student_has_is_an_error(changed: dict[str, Any], allowed: int, why: str) -> None:
    student, sizes = from_base(Path("tiny/base"), **changed), architecture()
    check_context(student, sizes, allowed)
    for check in (
        lambda: check_context(student, sizes, allowed + 1),
        lambda: context_length_of(student, sizes, TrainSettings(context_length=allowed + 1)),
    ):
        with pytest.raises(SpecError) as caught:
            check()
        told = str(caught.value)
        assert f"train.context_length is {allowed + 1:,} tokens, more than the {allowed:,} of student 'tiny'" in told
        assert why in told
        assert f"set train.context_length to {allowed} or less" in told


def test_a_loaded_model_says_how_long_its_context_is(tmp_path: Path) -> None:
    student = from_base(plain_base(tmp_path / "base", rows=300), context_extension=LONGER)
    config = loaded(student).config
    assert context_length_of(student, config, TrainSettings()) == 4_096
    with pytest.raises(SpecError, match="more than the 4,096"):
        check_context(student, config, 4_097)
