"""The whole way, killed at random moments: the end is the same, and what was done is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_material import write_all

from distill.records import Sampling, SamplingRecord, TeacherIdentity, Trace
from distill.rundir import RunDir

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import interrupted
from interrupted import (
    BETWEEN,
    Kill,
    command,
    counts,
    differing,
    disturbed,
    faults,
    finished_stages,
    leftovers,
    planned,
    running_stage,
    starts,
)

SMALL = [
    "prompts.0.limit=24",
    "generate.concurrency=16",
    "train.epochs=1",
    "filter.keep=all",
    "evaluate.prompts.0.limit=8",
    "evaluate.samples=1",
    "evaluate.max_tokens=64",
    "evaluate.min_pass_at_1=null",
    "quantize.schemes=[nf4,gguf:q8_0]",
    "quantize.limit=4",
    "quantize.samples=1",
    "quantize.min_difference=null",
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_it_ends_with_the_same_counts(tmp_path: Path) -> None:
    """In each stage that takes a while; 20 kills of the whole quickstart are `make rehearse`'s."""
    base, run = tmp_path / "base", tmp_path / "run"
    subprocess.run(command(base, SMALL), check=True, capture_output=True)
    seconds = {name: state.seconds or 0.0 for name, state in RunDir(base).stages().items()}
    early = [replace(kill, after=kill.after / 3) for kill in planned(7, seconds, seed=3)]  # `run` may be the faster one
    kills = [kill for kill in early if kill.stage not in ("prompts", "report")]
    outcome = disturbed(run, SMALL, kills)
    assert outcome.code == 0, run.with_suffix(".log").read_text()
    assert len({kill.stage for kill in outcome.kills} - {BETWEEN}) >= 3, outcome.kills
    assert outcome.repeated == []
    assert faults(base, run) == []
    assert leftovers(run) == []
    assert set(finished_stages(run)) == set(finished_stages(base))


def test_every_stage_is_killed_and_long_ones_more_often() -> None:
    seconds = {"prompts": 1, "generate": 190, "filter": 2, "train": 300, "evaluate": 140, "quantize": 70, "report": 1}
    kills = planned(20, seconds, seed=1)
    assert len(kills) == 20
    assert {kill.stage for kill in kills} == set(seconds)
    assert [kill.stage for kill in kills].count("train") > 2
    assert all(0 <= kill.after <= seconds[kill.stage] for kill in kills)


def test_what_was_lost_or_done_twice_shows(tmp_path: Path) -> None:
    first = {"generate": {"traces": 60, "seconds": 3}, "filter": {"kept": 50}}
    assert differing(first, {"generate": {"traces": 59, "seconds": 3}, "filter": {"kept": 50}}) == [
        "generate.traces: 60 and 59"
    ]
    assert differing(first, {"generate": {"traces": 60, "seconds": 3}}) == ["filter: {'kept': 50} and None"]
    told = {"seconds": 1, "kept": 2, "x": {"bytes": 1, "n": 1, "seconds": 1}}
    states = {name: {"state": "done", "started": "0", "finished": "1", "counts": told} for name in ("a", "report")}
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": states}))
    assert counts(tmp_path) == {"a": {"kept": 2, "x": {"bytes": 1, "n": 1}}, "report": {"kept": 2, "x": {"n": 1}}}
    assert finished_stages(tmp_path) == {"a": "1", "report": "1"}
    states["a"]["state"] = "running"
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": states}))
    assert finished_stages(tmp_path) == {"report": "1"}
    assert running_stage(tmp_path, {}) == "a"
    assert running_stage(tmp_path, starts(tmp_path)) is None, "that was in an earlier start"


def ended(run: Path, answers: list[str], *, weights: str = "w", kept: int = 2, loss: float = 0.5) -> Path:
    """What is compared of a run: its counts, its traces and its student."""
    traces = [
        Trace(f"k{n}", "asked", f"p{n}", 0, text, "stop", TeacherIdentity("t", "1"), SamplingRecord(Sampling()))
        for n, text in enumerate(answers)
    ]
    write_all(run / "traces", traces)
    (run / "student").mkdir()
    (run / "student" / "config.json").write_text(weights)
    told = {"kept": kept, "loss": loss, "this_start": kept}
    made = {"state": "done", "started": "0", "finished": "1", "counts": told}
    (run / "manifest.json").write_text(json.dumps({"stages": {"train": made}}))
    return run


def test_what_a_disturbed_run_may_differ_in_and_what_not(tmp_path: Path) -> None:
    said = [str(n) for n in range(1_000)]
    base = ended(tmp_path / "base", said)
    assert faults(base, ended(tmp_path / "alike", said)) == []
    five = ended(tmp_path / "five", ["other words"] * 5 + said[5:], weights="other", loss=0.6)
    assert faults(base, five) == [], "by rounding"
    six = ended(tmp_path / "six", ["other words"] * 6 + said[6:])
    assert faults(base, six) == ["6 of 1000 samples in traces read otherwise"]
    assert faults(base, ended(tmp_path / "count", said, kept=1)) == ["counts: train.kept: 2 and 1"]
    assert faults(base, ended(tmp_path / "weights", said, weights="x")) == ["the same traces made another student"]


PRETENDS = """
import json, os, sys, time
out, steps = sys.argv[1], json.loads(sys.argv[2])
path = f"{out}/manifest.json"
stages = json.load(open(path))["stages"] if os.path.exists(path) else {}
def say(name, state):
    stages[name] = {"state": state, "started": str(time.time()), "finished": str(time.time()), "counts": {}}
    with open(path + ".tmp", "w") as file:
        json.dump({"stages": stages}, file)
    os.replace(path + ".tmp", path)
for name, seconds in steps:
    if stages.get(name, {}).get("state") != "done":
        print(name, flush=True)
        say(name, "running")
        time.sleep(seconds)
        say(name, "done")
"""
"""A run whose stages take so long, tell the log that they begin, and are not done again."""


def pretended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, float]], *kills: Kill
) -> list[str]:
    """The stages that were hit; one that takes no time falls between two looks."""
    run = [sys.executable, "-c", PRETENDS, str(tmp_path / "run"), json.dumps(steps)]
    monkeypatch.setattr(interrupted, "command", lambda out, settings: run)
    (tmp_path / "run").mkdir()
    outcome = disturbed(tmp_path / "run", [], list(kills))
    assert (outcome.code, outcome.repeated) == (0, [])
    assert set(finished_stages(tmp_path / "run")) == {name for name, _ in steps}
    return [kill.stage for kill in outcome.kills]


def test_a_stage_that_no_look_sees_costs_no_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [("prompts", 0.0), ("generate", 2.0), ("filter", 0.0), ("train", 2.0)]
    kills = [Kill(name, 0.3) for name in ("prompts", "generate", "generate", "filter", "train")]
    assert pretended(tmp_path, monkeypatch, steps, *kills) == ["generate"] * 3 + ["train"] * 2


def test_a_stage_that_an_earlier_start_was_killed_in_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [("prompts", 2.0), ("generate", 0.0)]
    assert pretended(tmp_path, monkeypatch, steps, Kill("prompts", 0.0), Kill("prompts", 0.0)) == ["prompts"] * 2
    assert (tmp_path / "run.log").read_text().split() == ["prompts"] * 3 + ["generate"], "each start began with it"
