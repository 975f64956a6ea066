"""Every shipped spec is real: it loads, names its sources, renders, and a student loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from distill import specs
from distill.contract import OPEN, Response
from distill.records import Prompt
from distill.sampling.subjects import teacher_subject
from distill.teacher_specs import SamplingSpec, TeacherSpec
from distill.train.student import load_student
from distill.train.tokenizer import prepare_tokenizer

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", specs.names("teachers"))
def test_teacher_asks_without_a_system_prompt_it_does_not_name(name: str) -> None:
    spec = specs.load("teachers", name)
    assert isinstance(spec, TeacherSpec)
    assert spec.name == name
    assert spec.source
    subject = teacher_subject(spec, SamplingSpec(), None, 0)
    messages = subject.messages(Prompt("What is 1 + 1?", kind="math"))
    assert [m["role"] for m in messages] == (["system", "user"] if spec.system else ["user"])
    assert messages[-1]["content"].startswith("What is 1 + 1?")
    assert subject.max_tokens <= spec.context_length
    assert spec.forced_prefix in ("", f"{OPEN}\n")


@pytest.mark.parametrize("name", specs.names("teachers"))
def test_teacher_says_what_its_endpoint_can(name: str) -> None:
    """A provider's API has a key of its own, a dated price, and terms; who opens a think tag for the teacher knows that
    it reasons."""
    spec = specs.load("teachers", name)
    assert isinstance(spec, TeacherSpec)
    assert spec.reasons or not spec.forced_prefix
    if spec.url is None:
        return
    assert spec.url.startswith("https://")
    assert spec.api_key_env
    assert spec.api_key_env != "OPENAI_API_KEY"
    assert spec.distillation_terms
    assert spec.price is not None
    assert re.search(r"price as of \d+ \w+ 20\d\d", " ".join((spec.source or "").split()))


def test_what_deepseeks_api_does_not_follow_is_not_recorded_as_honoured() -> None:
    spec = specs.teacher("deepseek-api")
    settings = {"temperature", "top_p", "presence_penalty", "frequency_penalty"}
    assert settings <= set(spec.ignores), "guides/reasoning_model of its documentation"
    assert spec.reasoning_format == "field"


def students() -> list[Any]:
    """Those whose tokenizer lies here; tests/train/test_shipped_students.py looks at all, with tokenizers made like
    those of the Hub. Bases that `make smollm2` has to build first are for the slow tests, which come after it."""
    loaded: dict[str, Any] = {name: specs.load("students", name) for name in specs.names("students")}
    needed = {name: spec.tokenizer or spec.base for name, spec in loaded.items()}
    local = {name: place for name, place in needed.items() if place.startswith(("teachers/", ".cache/"))}
    slow = pytest.mark.slow
    return [pytest.param(n, marks=slow) if place.startswith(".cache") else n for n, place in local.items()]


@pytest.mark.parametrize("name", students())
def test_student_loads_and_renders_with_its_own_tokenizer(name: str) -> None:
    import torch

    raw: Any = specs.load("students", name)
    needed = raw.tokenizer or raw.base
    if needed.startswith(".cache") and not (CHECKOUT / needed).is_dir():
        pytest.skip(f"{needed} is not built (make smollm2)")
    spec = specs.student(name)
    tokenizer = prepare_tokenizer(spec)
    model = load_student(spec, tokenizer, seed=0, dtype=torch.bfloat16)
    assert model.num_parameters() == spec.parameters
    prompt = spec.contract.messages("What is 1 + 1?", "math")
    reasoning = "One and one." if spec.thinks else None
    encoded = spec.contract.encode(tokenizer, prompt, Response(reasoning, "2"))
    assert tokenizer.decode(encoded.ids[encoded.loss_start :]).endswith(f"2{spec.contract.stop}")


@pytest.mark.parametrize("name", specs.names("recipes"))
def test_recipe_names_specs_that_exist(name: str) -> None:
    recipe = specs.recipe(name)
    specs.teacher(recipe.teacher, recipe.teacher_overrides)
    for part in (*recipe.prompts, *recipe.evaluate.prompts, *recipe.prepare.decontaminate):
        specs.source(part.source)
    assert recipe.student in ("", *specs.names("students")), "one without is for sampling alone"
    assert all(recipe.section_hash(stage) for stage in specs.STAGES)


@pytest.mark.parametrize("name", specs.names("data"))
def test_source_has_a_licence(name: str) -> None:
    spec = specs.source(name)
    assert spec.name == name
    assert spec.license
