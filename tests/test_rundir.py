"""A run directory: the manifest's round trip and what is refused, hashes of outputs, the lock."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from ledger_material import trace

from distill import __version__
from distill.errors import FAILED, LockedError, RunError
from distill.files import sha256_file, sha256_tree
from distill.ledger import Ledger
from distill.rundir import FORMAT, RunDir, StageState, versions


def full_state() -> StageState:
    return StageState(
        state="done",
        started="2026-11-23T22:00:00.000+00:00",
        recipe_hash="abc",
        settings={"seed": 3},
        seed=7,
        finished="2026-11-23T22:01:00.000+00:00",
        seconds=60.0,
        counts={"prompts": 3, "kinds": {"math": 3}, "思考": None},
        inputs={"prompts.parquet": "1" * 64},
        outputs={"kept": "2" * 64},
        versions={"python": "3.11.9"},
    )


def test_stage_states_round_trip_in_the_order_of_their_start(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert run.stages() == {}
    assert not run.path.exists(), "asking creates nothing"
    first = run.start_stage("prompts", "hash", {"a": 1}, 3, {"recipe.yaml": "0" * 64})
    run.write_stage("generate", full_state())
    assert RunDir(run.path).stages() == {"prompts": first, "generate": full_state()}
    first.state, first.counts = "done", {"prompts": 2}
    run.write_stage("prompts", first)
    assert list(RunDir(run.path).stages().items()) == [("prompts", first), ("generate", full_state())]
    assert sorted(path.name for path in run.path.iterdir()) == ["manifest.json"]


def test_a_started_stage_says_what_it_was_made_of(tmp_path: Path) -> None:
    state = RunDir(tmp_path).start_stage("train", "hash", {"a": 1}, 3, {"kept": "1" * 64})
    assert (state.state, state.recipe_hash, state.seed, state.inputs) == ("running", "hash", 3, {"kept": "1" * 64})
    assert state.settings == {"a": 1}
    assert (state.finished, state.seconds, state.counts, state.outputs) == (None, None, {}, {})
    assert state.started.endswith("+00:00")
    assert state.versions == versions()
    assert state.versions["distill"] == __version__
    assert {"python", "torch", "transformers", "pyarrow"} <= set(state.versions)


def test_the_manifest_is_replaced_whole(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_stage("prompts", full_state())
    broken = full_state()
    broken.counts["prompts"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        run.write_stage("generate", broken)
    assert run.stages() == {"prompts": full_state()}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_run_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_stage("prompts", full_state())
    content = json.loads(run.manifest.read_text())
    assert content["format"] == FORMAT
    run.manifest.write_text(json.dumps({**content, "format": FORMAT + 1}))
    before = run.manifest.read_bytes()
    with pytest.raises(RunError, match=rf"newer distill \(format {FORMAT + 1}, known up to {FORMAT}\)") as caught:
        run.stages()
    assert "upgrade distill" in str(caught.value)
    assert caught.value.exit_code == FAILED
    with pytest.raises(RunError, match="newer distill"):
        run.write_stage("generate", full_state())
    assert run.manifest.read_bytes() == before


DAMAGED: list[Any] = [
    "",
    "{",
    '{"format": 1, "stages": {',
    "[]",
    "5",
    "null",
    "{}",
    '{"format": 1}',
    '{"stages": {}}',
    '{"format": "1", "stages": {}}',
    '{"format": 1, "stages": []}',
    '{"format": 1, "stages": {"prompts": {"state": "done"}}}',
    '{"format": 1, "stages": {"prompts": 5}}',
    b"\xff\xfe\x00",
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_manifest_is_named_and_never_overwritten(tmp_path: Path, content: str | bytes) -> None:
    run = RunDir(tmp_path)
    data = content if isinstance(content, bytes) else content.encode()
    run.manifest.write_bytes(data)
    for use in (run.stages, lambda: run.write_stage("prompts", full_state())):
        with pytest.raises(RunError, match="the manifest cannot be read") as caught:
            use()
        assert str(run.manifest) in str(caught.value)
    assert run.manifest.read_bytes() == data


def test_an_unknown_field_of_a_stage_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_stage("prompts", full_state())
    content = json.loads(run.manifest.read_text())
    content["stages"]["prompts"]["colour"] = "red"
    run.manifest.write_text(json.dumps(content))
    with pytest.raises(RunError, match="colour"):
        run.stages()


def test_a_folder_without_a_recipe_is_no_run(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with pytest.raises(RunError, match=r"is no run directory: it has no recipe\.yaml"):
        run.existing()
    run.recipe.write_text("name: x\n")
    assert run.existing() is run


def test_hashes_name_what_exists_by_its_path_in_the_run(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.prompts.write_bytes(b"prompts")
    run.kept.mkdir()
    (run.kept / "train-0.parquet").write_bytes(b"kept")
    assert run.hashes(run.prompts, run.kept, run.verdicts) == {
        "prompts.parquet": sha256_file(run.prompts),
        "kept": sha256_tree(run.kept),
    }


def test_paths_are_those_of_the_design(tmp_path: Path) -> None:
    run = RunDir(str(tmp_path))
    found = {name: str(value.relative_to(tmp_path)) for name, value in vars(run).items() if name != "path"}
    assert found == {
        "recipe": "recipe.yaml",
        "manifest": "manifest.json",
        "imported": "imported",
        "prompts": "prompts.parquet",
        "left_out": "left-out.parquet",
        "traces": "traces",
        "endpoints": "endpoints.json",
        "early_verdicts": "early-verdicts.log",
        "batches": "batches.jsonl",
        "merging": ".merging",
        "verdicts": "verdicts.parquet",
        "judged": "judged",
        "judge": "judge",
        "suspects": "suspects.jsonl",
        "kept": "kept",
        "encoded": "encoded",
        "adapter": "adapter",
        "student": "student",
        "untrained": "untrained",
        "checkpoints": "checkpoints",
        "evaluations": "evaluations",
        "quantized": "quantized",
        "report": "report.html",
        "metrics": "metrics.jsonl",
        "logs": "logs",
    }
    assert run.ledger().folder == run.traces


def test_a_second_process_on_the_same_run_is_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with run.lock():
        with (
            pytest.raises(LockedError, match="another process is writing to this run") as caught,
            RunDir(run.path).lock(),
        ):
            pass
        assert f"process {os.getpid()}" in str(caught.value)
    with run.lock():
        pass


def test_metrics_are_appended_one_object_per_line(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.log_metrics("train", {"step": 1, "loss": 0.5})
    run.log_metrics("train", {"step": 2, "loss": math.nan, "norm": math.inf})

    def no_json(constant: str) -> float:
        raise ValueError(constant)

    lines = [json.loads(line, parse_constant=no_json) for line in run.metrics.read_text().splitlines()]
    assert [{k: v for k, v in line.items() if k != "time"} for line in lines] == [
        {"stage": "train", "step": 1, "loss": 0.5},
        {"stage": "train", "step": 2, "loss": None, "norm": None},
    ]


def test_traces_are_known_by_the_hashes_that_their_ledger_keeps(tmp_path: Path) -> None:
    """Not by reading terabytes; another size, another part or a record more is another hash all the same."""
    run = RunDir(tmp_path)
    with Ledger(run.traces) as ledger:
        ledger.append(trace("a"))
        while_open = run.hashes(run.traces)
    sealed = run.hashes(run.traces)
    assert list(sealed) == ["traces"]
    assert sealed != while_open
    (part,) = run.ledger().parts()
    assert run.hashes(run.traces) == sealed
    content = part.read_bytes()
    part.write_bytes(content + b"x")
    assert run.hashes(run.traces) != sealed
    part.write_bytes(content)
    with Ledger(run.traces) as ledger:
        ledger.append(trace("b"))
    assert run.hashes(run.traces) != sealed
