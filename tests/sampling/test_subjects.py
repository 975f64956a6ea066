"""Who is sampled: identity by content, the recipe's settings over the teacher's own, and the engine for it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from distill import specs
from distill.contract import Contract
from distill.engines.local import LocalEngine
from distill.errors import UsageError
from distill.records import Prompt, Sampling, TeacherIdentity
from distill.rundir import RunDir
from distill.sampling.fleet import Fleet
from distill.sampling.requests import task_for
from distill.sampling.subjects import (
    engine_for,
    fleet_for,
    folder_revision,
    in_flight,
    key_of,
    model_subject,
    teacher_identity,
    teacher_subject,
)
from distill.teacher_specs import GenerateSettings, SamplingSpec, TeacherSpec

PROMPT = Prompt("2 + 2?", kind="math", answer="4")


def folder(path: Path) -> Path:
    path.mkdir()
    for name, text in (("config.json", "{}"), ("model.safetensors", "weights"), ("tokenizer.json", "[]")):
        (path / name).write_text(text)
    return path


def test_a_folder_is_known_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    here = folder(tmp_path / "here")
    before = teacher_identity(TeacherSpec(name="t", model=str(here)))
    assert before.model == "t"
    shutil.copytree(here, tmp_path / "there")
    assert teacher_identity(TeacherSpec(name="t", model=str(tmp_path / "there"))) == before
    (here / "README.md").write_text("a card decides nothing")
    assert folder_revision(here) == before.revision
    (here / "model.safetensors").write_text("other weights")
    assert folder_revision(here) != before.revision


def test_another_name_is_known_as_given() -> None:
    assert teacher_identity(TeacherSpec(name="r1", model="org/R1", revision="abc", quantization="fp8")).to_json() == {
        "model": "org/R1",
        "revision": "abc",
        "quantization": "fp8",
    }
    assert teacher_identity(TeacherSpec(name="r1", model="org/R1")).revision == "unspecified"


def test_the_recipe_stands_over_the_teacher_and_leaves_the_rest() -> None:
    spec = TeacherSpec(
        name="t",
        model="org/M",
        sampling=SamplingSpec(temperature=0.6, top_p=0.95),
        max_tokens=50,
        forced_prefix="<think>\n",
        instruction={"math": "Box it."},
        system="Be brief.",
    )
    subject = teacher_subject(spec, SamplingSpec(temperature=1.0), None, 7)
    assert subject.sampling == Sampling(temperature=1.0, top_p=0.95, seed=7)
    assert subject.max_tokens == 50
    assert teacher_subject(spec, SamplingSpec(), 9, 7).max_tokens == 9
    assert subject.messages(PROMPT) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2?\n\nBox it."},
    ]
    assert subject.messages(Prompt("Hello", kind="open"))[-1]["content"] == "Hello"
    assert subject.forced_prefix == "<think>\n"


def test_a_server_of_the_same_model_is_the_same_teacher(tmp_path: Path) -> None:
    spec = TeacherSpec(name="t", model=str(folder(tmp_path / "m")))
    served = GenerateSettings(engine="openai", url="http://localhost:1/v1")
    assert engine_for(spec, served).name != engine_for(spec, GenerateSettings()).name
    assert task_for(PROMPT, teacher_subject(spec, SamplingSpec(), None, 1), 0).key  # of the subject alone, no engine


def test_a_student_is_asked_as_its_contract_says() -> None:
    contract = Contract("chatml", "<think>\n", {"math": "Box it."}, None)
    subject = model_subject(TeacherIdentity("student", "1"), contract, Sampling(temperature=0.6, seed=1), 20)
    assert subject.messages(PROMPT) == contract.messages("2 + 2?", "math")
    assert (subject.reasoning_format, subject.forced_prefix) == ("tags", "<think>\n")
    other = model_subject(TeacherIdentity("smaller", "2"), contract, Sampling(temperature=0.6, seed=1), 20)
    tasks = [task_for(PROMPT, subject, 0), task_for(PROMPT, subject, 1), task_for(PROMPT, other, 0)]
    assert len({task.key for task in tasks}) == 3
    seeds = [task.request.seed for task in tasks]
    assert seeds[0] == seeds[2] != seeds[1], "two models draw the same numbers for the same question and sample"


def test_the_engine_follows_the_settings() -> None:
    spec = TeacherSpec(name="t", model="org/M")
    local = engine_for(spec, GenerateSettings(concurrency=5))
    assert isinstance(local, LocalEngine)
    assert (local.batch, local.name, in_flight(local, 5)) == (5, "local/t", local.capacity)
    served = engine_for(spec, GenerateSettings(engine="openai", url="http://localhost:1/v1", concurrency=5))
    assert in_flight(served, 5) == 5
    with pytest.raises(UsageError, match="nothing says where t answers"):
        engine_for(spec, GenerateSettings(engine="openai"))


def fleet_of(tmp_path: Path, spec: TeacherSpec, **settings: object) -> Fleet:
    return fleet_for(spec, GenerateSettings.model_validate({"engine": "openai", **settings}), RunDir(tmp_path), ())


def test_servers_come_from_the_recipe_the_run_or_the_teacher(tmp_path: Path) -> None:
    spec = TeacherSpec(name="t", model="org/M", url="http://own/v1")

    def names(**settings: object) -> list[str]:
        return [endpoint.name for endpoint in fleet_of(tmp_path, spec, **settings).endpoints]

    assert names() == ["openai"], "the teacher's own"
    assert names(url=["http://a/v1", "http://b/v1"]) == ["openai-0", "openai-1"]
    live = {"endpoints": [{"name": "r0", "url": "http://r0/v1"}, {"name": "r1", "url": "http://r1/v1"}]}
    (tmp_path / "endpoints.json").write_text(json.dumps(live))
    assert names() == ["r0", "r1"], "the run's file stands above the teacher's own address"
    assert names(url="http://a/v1") == ["openai"], "and what the recipe says above that"
    (tmp_path / "other.json").write_text(json.dumps({"endpoints": [{"name": "x", "url": "http://x/v1"}]}))
    assert names(url="http://a/v1", endpoints=str(tmp_path / "other.json")) == ["openai", "x"]
    (tmp_path / "other.json").write_text(json.dumps({"endpoints": []}))
    with pytest.raises(UsageError, match="names no endpoint"):
        names(endpoints=str(tmp_path / "other.json"))


def test_a_fleet_has_the_limits_of_the_recipe(tmp_path: Path) -> None:
    spec = TeacherSpec(name="t", model="org/M", url="http://own/v1")
    limits = fleet_of(tmp_path, spec, concurrency=9, max_concurrency=5, stall_timeout=7, patience=8).limits
    assert (limits.start, limits.most, limits.stall, limits.patience) == (9, 9, 7.0, 8.0)
    batch = fleet_of(tmp_path, spec, engine="batch")
    assert batch.endpoints[0].concurrency.limit == 50_000
    assert batch.limits.stall == math.inf, "a day in a provider's queue is no stall"


def test_a_key_that_was_named_and_is_not_there_is_missed_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    monkeypatch.delenv("MINE", raising=False)
    deepseek = specs.teacher("deepseek-api")
    with pytest.raises(UsageError, match="environment variable DEEPSEEK_API_KEY, which is not set"):
        key_of(deepseek, GenerateSettings(engine="openai"))
    at_home = GenerateSettings(engine="openai", url="http://localhost:8000/v1")
    assert key_of(deepseek, at_home) is None, "a server of one's own may want none"
    with pytest.raises(UsageError, match="environment variable MINE"):
        key_of(deepseek, at_home.model_copy(update={"api_key_env": "MINE"}))
    monkeypatch.setenv("MINE", "secret")
    assert key_of(deepseek, at_home.model_copy(update={"api_key_env": "MINE"})) == "secret"
