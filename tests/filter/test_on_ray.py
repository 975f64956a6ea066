"""The filter on a Ray cluster of two workers on this machine: the same bytes as without."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledger_material import write_all

from distill import specs
from distill.engines import Reply
from distill.errors import MissingError, RunError
from distill.files import sha256_file
from distill.filter import on_ray, stage
from distill.filter.looking import Lens
from distill.filter_specs import FilterSettings
from distill.prompts.stage import write_prompts
from distill.records import CodeTest, Prompt
from distill.rundir import RunDir
from distill.sampling.requests import answered, task_for
from distill.teacher_specs import GenerateSettings
from distill.verify.sandbox import available
from filter.test_stage import TEACHER, filtered, subject


@pytest.fixture
def recipe(tmp_path: Path) -> specs.Recipe:
    path = tmp_path / "scripted.yaml"
    path.write_text("".join(f"{key}: '{value}'\n" for key, value in TEACHER.items()))
    return specs.Recipe(name="r", seed=3, teacher=str(path), generate=GenerateSettings(samples=8))


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes(tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(on_ray, "CHUNK", 7)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of another cluster, which nobody asked the filter to use
    here, _ = filtered(tmp_path / "here", recipe)
    there, report = filtered(tmp_path / "there", recipe, engine="ray", workers=2)
    assert report.complete
    for path in (here.verdicts, *here.kept.iterdir()):
        assert sha256_file(path) == sha256_file(there.path / path.relative_to(here.path))
    assert recipe.section_hash("filter") == recipe.model_copy(
        update={"filter": FilterSettings(engine="ray", workers=2)}
    ).section_hash("filter"), "where it works changes nothing about what it finds"


CODE = [Prompt("Print 1.", id="code", kind="code", tests=(CodeTest("", "1\n"),))]


def without_bubblewrap(folder: Path) -> str:
    """A PATH with all programs that are here but that one; Ray's own workers need some of them."""
    folder.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*"):
            if program.name != "bwrap" and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return str(folder)


@pytest.mark.slow
@pytest.mark.skipif(available().mode is None, reason="no sandbox here")
def test_a_machine_without_a_sandbox_is_named_before_anything_is_judged(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that nobody ran must not count as wrong, nor wait for another start without a word."""
    ray = pytest.importorskip("ray")
    path = without_bubblewrap(tmp_path / "bin")
    monkeypatch.setattr(on_ray, "_variables", lambda: {"PATH": path})  # of the cluster; the filter's machine has it
    run = RunDir(tmp_path / "run")
    write_prompts(run.prompts, CODE)
    reply = Reply("<think>\neasy\n</think>\n\n```python\nprint(1)\n```", "stop", "here", completion_tokens=9)
    task = task_for(CODE[0], subject(recipe), 0)
    write_all(run.traces, [answered(task, reply, subject(recipe), 0, 1)])
    chosen = recipe.model_copy(update={"filter": FilterSettings(engine="ray", workers=2)})
    with pytest.raises(MissingError, match="a machine of the Ray cluster cannot verify: programs cannot") as caught:
        stage.run(chosen, run)
    assert "bubblewrap is not installed" in caught.value.what
    assert caught.value.given == socket.gethostname()
    assert (caught.value.todo or "").startswith("on that machine: ")
    assert not run.verdicts.exists()
    assert not list(run.judged.glob("*"))
    assert not ray.is_initialized(), "the cluster that it started has ended"


def test_an_actor_on_a_machine_without_a_sandbox_looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it was started anew there, long after the filter began."""
    monkeypatch.setenv("PATH", "/no/such/folder")
    monkeypatch.delenv("DISTILL_ALLOW_UNSANDBOXED", raising=False)
    available.cache_clear()
    try:
        actor = on_ray._Actor(Lens(FilterSettings(), {}, ("code", "math")))
        lack = actor.look([])
        with pytest.raises(MissingError, match="bubblewrap is not installed"):
            on_ray._refuse(lack)
        assert actor.lacks() == lack
        on_ray._refuse(on_ray._Actor(Lens(FilterSettings(), {}, ("math",))).look([]))
    finally:
        available.cache_clear()


class Crowded:
    """A Ray whose cluster has a core for some of the actors only."""

    def __init__(self, free: int) -> None:
        self.free, self.killed = free, list[str]()

    def wait(self, answers: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        assert num_returns == len(answers)
        assert timeout == on_ray.ACTOR_SECONDS
        return answers[: self.free], answers[self.free :]

    def get(self, answer: str) -> None:
        return None

    def kill(self, actor: Any) -> None:
        self.killed.append(actor.name)


def actor(name: str) -> Any:
    return SimpleNamespace(name=name, lacks=SimpleNamespace(remote=lambda: f"answer of {name}"))


def test_actors_that_find_no_free_core_are_done_without() -> None:
    looking = on_ray.RayLooking(Lens(FilterSettings(), {}, ()), 3, None)
    looking._actors = [actor("a"), actor("b"), actor("c")]
    ray = Crowded(free=2)
    looking._keep_those_that_answer(ray)
    assert [one.name for one in looking._actors] == ["a", "b"]
    assert ray.killed == ["c"]
    with pytest.raises(RunError, match="started none of 2 actors"):
        looking._keep_those_that_answer(Crowded(free=0))


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
