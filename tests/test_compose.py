"""Recipes from command-line options: what is left out stays the run's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from distill import compose, specs
from distill.compose import changed_recipe, evaluation_recipe, quantize_recipe
from distill.hardware import Gpu
from distill.rundir import RunDir, StageState
from distill.serve.command import Vllm
from distill.show import run_lines


def test_an_examination_takes_the_runs_problems_unless_others_are_named() -> None:
    base = specs.recipe("quickstart")
    own = evaluation_recipe(None, None, 10, [], base)
    assert [(part.source, part.split, part.limit) for part in own.evaluate.prompts] == [("arithmetic-sums", "test", 10)]
    assert (own.evaluate.samples, own.evaluate.max_tokens, own.seed) == (4, 160, base.seed)
    other = evaluation_recipe("arithmetic", 2, 5, ["evaluate.max_tokens=99"], base)
    assert [(part.source, part.split, part.limit) for part in other.evaluate.prompts] == [("arithmetic", "test", 5)]
    assert (other.evaluate.samples, other.evaluate.max_tokens) == (2, 99)
    assert evaluation_recipe(None, None, None, [], base).evaluate == base.evaluate


def test_a_quantization_limits_the_problems_of_a_generator_that_it_names() -> None:
    base = specs.recipe("quickstart")
    other = quantize_recipe(["nf4"], "arithmetic", None, 7, [], base)
    assert [(part.source, part.limit) for part in other.evaluate.prompts] == [("arithmetic", 7)]
    assert quantize_recipe(["nf4"], None, None, 7, [], base).evaluate == base.evaluate


def test_another_student_under_the_overrides_of_the_first_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tmp_path)
    run.recipe.write_text(specs.dump(specs.recipe("quickstart", {"student_overrides": {"thinks": True}})))
    for more, told in (([], True), (["student_overrides={}"], False), (["student_overrides.thinks=true"], False)):
        changed_recipe(run, more, {"student": "tiny-llama"})
        assert ("student_overrides hold for tiny-llama too (thinks: True)" in capsys.readouterr().err) == told
    changed_recipe(run, ["train.epochs=1"])
    assert capsys.readouterr().err == "", "the same student"


def test_a_failed_stage_is_shown_with_all_of_its_error(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_stage("train", StageState("failed", "now", "", {}, 0, counts={"error": "what\n  given: this"}))
    lines = list(run_lines(run))
    assert lines[lines.index("    what") + 1] == "      given: this"


def asked(teacher: str, tmp_path: Path, urls: Sequence[str] = (), **how: object) -> specs.Recipe:
    return compose.generate_recipe(
        "questions.jsonl",
        teacher,
        model="m" if teacher.startswith("http") else None,
        samples=1,
        limit=None,
        max_tokens=None,
        settings=[],
        out=tmp_path / "run",
        urls=urls,
        how=how,
    )


def test_servers_of_the_command_line(tmp_path: Path) -> None:
    assert asked("http://a/v1", tmp_path).generate.urls == ("http://a/v1",)
    both = asked("http://a/v1", tmp_path, ["http://b/v1"]).generate
    assert (both.engine, both.urls) == ("openai", ("http://a/v1", "http://b/v1"))
    assert asked("deepseek-r1", tmp_path).generate.urls == ("http://localhost:8000/v1",)
    assert asked("deepseek-r1", tmp_path, ["http://b/v1"]).generate.urls == ("http://b/v1",)
    assert asked("deepseek-r1", tmp_path, endpoints="e.json").generate.urls == ()
    provider = asked("deepseek-api", tmp_path).generate
    assert (provider.engine, provider.urls) == ("openai", ()), "its own address stands in its spec"
    assert asked("tiny-r1", tmp_path).generate.engine == "local"
    assert asked("tiny-r1", tmp_path, endpoints="e.json").generate.engine == "openai"
    assert asked("tiny-r1", tmp_path, ["http://a/v1"]).generate.engine == "openai"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "endpoints.json").write_text("{}")
    assert asked("deepseek-r1", tmp_path).generate.urls == (), "the run says where its teacher answers"


def test_a_teacher_of_which_nothing_is_said_is_asked_at_its_service_or_served_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("distill.hardware.gpus", lambda: [Gpu("NVIDIA H200", 150 * 10**9, "580.1")] * 8)
    monkeypatch.setattr("distill.serve.planning.find_vllm", lambda settings: Vllm("/opt/python", cpu_build=False))
    assert asked("deepseek-r1", tmp_path).generate.engine == "vllm", "eight H200 hold it"
    assert asked("deepseek-r1", tmp_path).generate.urls == ()
    assert asked("deepseek-r1", tmp_path, ["http://b/v1"]).generate.engine == "openai"
    assert asked("tiny-r1", tmp_path).generate.engine == "local"
    monkeypatch.setattr("distill.serve.planning.find_vllm", lambda settings: None)
    assert asked("deepseek-r1", tmp_path).generate.engine == "openai", "nothing to serve it with"
    monkeypatch.setattr("distill.hardware.gpus", lambda: [Gpu("NVIDIA H100 80GB HBM3", 85 * 10**9, "580.1")] * 8)
    monkeypatch.setattr("distill.serve.planning.find_vllm", lambda settings: Vllm("/opt/python", cpu_build=False))
    assert asked("deepseek-r1", tmp_path).generate.urls == ("http://localhost:8000/v1",), "eight H100 do not"
    service = tmp_path / "services" / "deepseek-r1"
    service.mkdir(parents=True)
    file = service / "endpoints.json"
    file.write_text('{"endpoints": [], "service": {"pid": 1, "starting": 1}}')
    assert asked("deepseek-r1", tmp_path).generate.endpoints == str(file), "whole, for other working directories"
    file.write_text('{"endpoints": [{"url": "http://a/v1", "model": "another"}], "service": {"pid": 1}}')
    assert asked("deepseek-r1", tmp_path).generate.endpoints is None, "another's service"
    file.write_text('{"endpoints": [{"url": "http://a/v1"}], "service": {"pid": 1}}')
    os.utime(file, (1, 1))
    assert asked("deepseek-r1", tmp_path).generate.endpoints is None, "left behind by a service that is gone"
    file.write_text('{"endpoints": [], "service": {"ended": "given up"}}')
    assert asked("deepseek-r1", tmp_path).generate.endpoints is None


def test_options_that_are_not_given_stay_as_the_recipe_has_them(tmp_path: Path) -> None:
    found = asked("tiny-r1", tmp_path, until_correct=None, shard="1/2", max_hours=1.5).generate
    assert (found.until_correct, found.shard, found.max_hours, found.concurrency) == (None, "1/2", 1.5, 64)
