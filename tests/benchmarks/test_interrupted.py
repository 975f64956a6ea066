"""The whole way, killed at random moments: the end is the same, and what was done is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from distill.rundir import RunDir

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from interrupted import command, counts, differing, disturbed, finished_stages, leftovers, planned

SMALL = [
    "prompts.0.limit=60",
    "generate.concurrency=16",
    "train.epochs=1",
    "filter.keep=all",
    "evaluate.prompts.0.limit=8",
    "evaluate.samples=1",
    "evaluate.max_tokens=64",
    "evaluate.min_pass_at_1=null",
    "quantize.limit=4",
    "quantize.samples=1",
    "quantize.min_difference=null",
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_it_ends_with_the_same_counts(tmp_path: Path) -> None:
    base, run = tmp_path / "base", tmp_path / "run"
    subprocess.run(command(base, SMALL), check=True, capture_output=True)
    seconds = {name: state.seconds or 0.0 for name, state in RunDir(base).stages().items()}
    outcome = disturbed(run, SMALL, planned(8, seconds, seed=3))
    assert outcome.code == 0, run.with_suffix(".log").read_text()
    assert len({kill.stage for kill in outcome.kills}) >= 4, outcome.kills
    assert outcome.repeated == []
    assert differing(counts(base), counts(run)) == []
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
    states = {"a": {"state": "done", "finished": "1", "counts": {"seconds": 1, "kept": 2, "x": {"bytes": 1, "n": 1}}}}
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": states}))
    assert counts(tmp_path) == {"a": {"kept": 2, "x": {"n": 1}}}
    assert finished_stages(tmp_path) == {"a": "1"}
    states["a"]["state"] = "running"
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": states}))
    assert finished_stages(tmp_path) == {}
