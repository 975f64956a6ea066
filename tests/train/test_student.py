"""The student: its tokenizer serves the contract or is refused, and what is saved is what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from distill.contract import CLOSE, OPEN, Contract, Response
from distill.errors import ContractError, SpecError
from distill.train.student import base_commit, load_student, save_student
from distill.train.tokenizer import prepare_tokenizer, rows_to_train
from train.bases import CHATML, from_base, plain_base, word_tokenizer
from train.material import CONTRACT, spec


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Any, Any, Path]]:
    def save(student: Any) -> tuple[Any, Any, Path]:
        tokenizer = prepare_tokenizer(student)
        model = load_student(student, tokenizer, seed=1, dtype=torch.float32)
        folder = tmp_path / "student"
        save_student(model, tokenizer, student.contract, folder, facts={"student": student.name, "base": student.base})
        return model, tokenizer, folder

    return save


# --- saved and loaded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_saved_is_what_everybody_loads(
    saved: Callable[..., tuple[Any, Any, Path]], model_type: str, tied: bool
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    architecture = {**spec().architecture.model_dump(), "model_type": model_type, "tie_word_embeddings": tied}  # type: ignore[union-attr]
    model, tokenizer, folder = saved(spec(architecture=architecture))
    again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert again.dtype == torch.bfloat16
    assert again.config.model_type == model_type
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.to(torch.bfloat16), again.state_dict()[name]), name
    loaded = AutoTokenizer.from_pretrained(folder)
    for text in ("x 12+345 = 7, it's\n\n  Äpfel", CONTRACT.render_prompt(CONTRACT.messages("How many?", "math"))):
        assert loaded.encode(text, add_special_tokens=False) == tokenizer.encode(text, add_special_tokens=False)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) is not tied, "tied weights stand in the file once"  # noqa: SIM118
    assert next(model.parameters()).dtype == torch.float32, "the one in memory goes on as it was"


def test_the_saved_template_keeps_the_reasoning_and_starts_the_reply(
    saved: Callable[..., tuple[Any, Any, Path]],
) -> None:
    from transformers import AutoTokenizer

    _, _, folder = saved(spec())
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    text = Response("because", "3").render()
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": text},
        {"role": "user", "content": "r"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text + CONTRACT.stop in rendered
    assert rendered.endswith("<｜User｜>r<｜Assistant｜><think>\n")
    asked = CONTRACT.messages("q", "math")
    assert tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == CONTRACT.render_prompt(
        asked
    )


def test_every_place_names_the_same_stop_and_pad_token(saved: Callable[..., tuple[Any, Any, Path]]) -> None:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    _, _, folder = saved(spec())
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    config, generation = AutoConfig.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
    assert tokenizer.eos_token == CONTRACT.stop
    assert tokenizer.eos_token_id == config.eos_token_id == generation.eos_token_id
    assert tokenizer.pad_token_id == config.pad_token_id == generation.pad_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (generation.do_sample, generation.temperature, generation.top_p) == (True, 0.6, 0.95)


def test_the_contract_lies_beside_the_weights(saved: Callable[..., tuple[Any, Any, Path]]) -> None:
    _, _, folder = saved(spec(instruction={"math": "Box it."}))
    content = json.loads((folder / "distill.json").read_text(encoding="utf-8"))
    contract = Contract("deepseek-r1", "<think>\n", {"math": "Box it."})
    assert content["contract"]["hash"] == contract.hash != CONTRACT.hash
    assert (content["student"], content["base"]) == ("tiny", None)
    read = content["contract"]
    assert Contract(read["template"], read["forced_prefix"], read["instruction"], read["system"]).hash == contract.hash


def test_the_same_seed_gives_the_same_student() -> None:
    student = spec()
    tokenizer = prepare_tokenizer(student)
    first, second, other = (
        load_student(student, tokenizer, seed=seed, dtype=torch.float32).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


# --- think tags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [None, 320], ids=["exact", "with spare rows"])
@pytest.mark.parametrize("tied", [True, False])
def test_missing_think_tags_are_added_and_start_at_the_mean(tmp_path: Path, rows: int | None, tied: bool) -> None:
    student = from_base(plain_base(tmp_path / "base", rows=rows, tied=tied))
    tokenizer = prepare_tokenizer(student)
    known = len(tokenizer) - 2
    ids = [tokenizer.encode(tag, add_special_tokens=False) for tag in (OPEN, CLOSE)]
    assert ids == [[known], [known + 1]]
    assert tokenizer.decode([65, known, known + 1], skip_special_tokens=True).count("think>") == 2, "they are text"
    model = load_student(student, tokenizer, seed=0, dtype=torch.float32)
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        mean = embeddings.weight[:known].mean(0)
        assert torch.allclose(embeddings.weight[known], mean, atol=1e-5)
        assert torch.allclose(embeddings.weight[known + 1], mean, atol=1e-5)
    assert model.get_input_embeddings().num_embeddings == (rows or 320)


def test_tags_that_are_there_are_left_alone(tmp_path: Path) -> None:
    folder = word_tokenizer(tmp_path / "t", controls=(*CHATML, OPEN, CLOSE))
    assert len(prepare_tokenizer(spec(folder, template="chatml"))) == 262


def test_a_student_that_does_not_think_gets_no_tags(tmp_path: Path) -> None:
    student = from_base(plain_base(tmp_path / "base", rows=300), thinks=False, forced_prefix="")
    tokenizer = prepare_tokenizer(student)
    assert OPEN not in tokenizer.get_vocab()
    model = load_student(student, tokenizer, seed=0, dtype=torch.float32)
    assert model.get_input_embeddings().num_embeddings == 300


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "changed", "fault"),
    [
        ({"pad": "<|im_end|>"}, {}, "the pad token <|im_end|> is the stop token"),
        ({}, {"pad_token": "<|im_end|>"}, "the pad token <|im_end|> is the stop token"),
        ({"pad": None}, {}, "there is no pad token"),
        ({"controls": ("<|pad|>",), "eos": "<|pad|>"}, {}, "<|im_end|> is 10 tokens, not one"),
    ],
)
def test_a_tokenizer_that_cannot_serve_the_contract_is_refused(
    tmp_path: Path, given: dict[str, Any], changed: dict[str, Any], fault: str
) -> None:
    folder = word_tokenizer(tmp_path / "t", **given)
    with pytest.raises(ContractError, match="cannot serve the template 'chatml'") as caught:
        prepare_tokenizer(spec(folder, template="chatml", **changed))
    assert fault in str(caught.value)


def test_another_pad_token_may_be_named(tmp_path: Path) -> None:
    folder = word_tokenizer(tmp_path / "t", pad="<|im_end|>")
    assert prepare_tokenizer(spec(folder, template="chatml", pad_token="<|pad|>")).pad_token == "<|pad|>"


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="the tokenizer of student 'tiny' cannot be loaded"):
        prepare_tokenizer(spec(tmp_path / "nothing"))
    folder = word_tokenizer(tmp_path / "base")
    student = from_base(folder)
    with pytest.raises(SpecError, match="the base of student 'tiny' cannot be loaded"):
        load_student(student, prepare_tokenizer(student), seed=0, dtype=torch.float32)
    base = plain_base(tmp_path / "cut")
    (base / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:100])
    with pytest.raises(SpecError, match="the base of student 'tiny' cannot be loaded"):
        load_student(from_base(base), prepare_tokenizer(from_base(base)), seed=0, dtype=torch.float32)


# --- vocabulary rows that a base has not learned ---------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_renamed_and_untrained_rows_start_at_the_mean_and_nothing_else_moves(tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    folder = plain_base(tmp_path / "base", model_type="llama", rows=300, tied=tied)
    reserved = {OPEN: "<|reserved_special_token_0|>", CLOSE: "<|reserved_special_token_1|>"}
    untrained = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    student = from_base(folder, template="llama3", reserved_tokens=reserved, untrained_tokens=untrained)
    tokenizer = prepare_tokenizer(student)
    rows = [257, 258, 259, 260, 261]
    assert rows == rows_to_train(student, tokenizer)
    before: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = load_student(student, tokenizer, seed=0, dtype=torch.float32)
    assert model.get_input_embeddings().num_embeddings == 300
    others = [row for row in range(len(tokenizer)) if row not in rows]
    embeddings = [(m.get_input_embeddings().weight, m.get_output_embeddings().weight) for m in (before, model)]
    for old, new in zip(*embeddings, strict=True):
        mean = old[others].mean(0)
        for row in range(300):
            assert torch.allclose(new[row], mean if row in rows else old[row], atol=1e-6), row
        assert not torch.allclose(old[rows], mean.expand(5, -1), atol=1e-3)
    if not tied:
        assert not torch.allclose(embeddings[1][0][257], embeddings[1][1][257]), "each matrix has its own mean"
    theirs = dict(before.named_parameters())
    for name, weight in model.named_parameters():
        assert torch.equal(weight, theirs[name]) or name in ("model.embed_tokens.weight", "lm_head.weight")


@pytest.mark.parametrize("tied", [True, False])
def test_a_base_without_spare_rows_grows_and_keeps_those_it_has(tmp_path: Path, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    folder = plain_base(tmp_path / "base", tied=tied)
    student = from_base(folder)
    before: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = load_student(student, prepare_tokenizer(student), seed=0, dtype=torch.float32)
    for old, new in (
        (before.get_input_embeddings().weight, model.get_input_embeddings().weight),
        (before.get_output_embeddings().weight, model.get_output_embeddings().weight),
    ):
        assert new.shape == (320, 32)
        known = len(old)
        assert torch.equal(new[:known], old)
        assert torch.allclose(new[known:], old.mean(0).expand(320 - known, -1), atol=1e-7), "spare rows too"


def test_the_commit_that_a_base_was_loaded_from_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the Hub's cache, where a snapshot's folder is named after its commit."""
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--org--base"
    plain_base(cached / "snapshots" / commit, rows=300)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    student = from_base(Path("org/base"))
    model = load_student(student, prepare_tokenizer(student), seed=0, dtype=torch.float32)
    assert base_commit(model) == commit
