"""The filter on a Ray cluster of two workers on this machine: the same bytes as without."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from distill import specs
from distill.errors import MissingError, RunError
from distill.files import sha256_file
from distill.filter import on_ray, stage
from distill.filter.looking import Lens
from distill.filter_specs import FilterSettings
from distill.teacher_specs import GenerateSettings
from filter.test_stage import TEACHER, filtered


@pytest.fixture
def recipe(tmp_path: Path) -> specs.Recipe:
    path = tmp_path / "scripted.yaml"
    path.write_text("".join(f"{key}: '{value}'\n" for key, value in TEACHER.items()))
    return specs.Recipe(name="r", seed=3, teacher=str(path), generate=GenerateSettings(samples=8))


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(on_ray, "CHUNK", 7)
    here, _ = filtered(tmp_path / "here", recipe)
    there, report = filtered(tmp_path / "there", recipe, engine="ray", workers=2)
    assert report.complete
    for path in (here.verdicts, *here.kept.iterdir()):
        assert sha256_file(path) == sha256_file(there.path / path.relative_to(here.path))
    assert recipe.section_hash("filter") == recipe.model_copy(
        update={"filter": FilterSettings(engine="ray", workers=2)}
    ).section_hash("filter"), "where it works changes nothing about what it finds"


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError, match="needs Ray") as caught:
        stage._looking(FilterSettings(engine="ray"), Lens(FilterSettings(), {}, ())).__enter__()
    assert caught.value.todo == "pip install 'distill[ray]'"


def test_a_cluster_that_is_not_there_is_named() -> None:
    pytest.importorskip("ray")
    settings: dict[str, Any] = {"engine": "ray", "ray_address": "127.0.0.1:1"}
    with pytest.raises(RunError, match="the Ray cluster cannot be reached") as caught:
        stage._looking(FilterSettings(**settings), Lens(FilterSettings(), {}, ())).__enter__()
    assert "127.0.0.1:1" in str(caught.value.given)
