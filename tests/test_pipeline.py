"""The stages together, in process: the embedded teacher, a student, resuming, and what makes a stage run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from distill import pipeline, specs
from distill.errors import GateError, RunError, SpecError
from distill.pipeline import plan, run_recipe
from distill.rundir import RunDir, StageReport
from distill.show import closing_lines

SMALL = {
    "prompts.0.limit": 24,
    "train.epochs": 1,
    "train.batch_size": 8,
    "evaluate.prompts.0.limit": 6,
    "evaluate.samples": 2,
    "evaluate.max_tokens": 64,
    "filter.keep": "all",
    "filter.heldout": 0.2,
    "evaluate.min_pass_at_1": None,
    "quantize.schemes": ["nf4", "gguf:q4_k_m"],
    "quantize.limit": 3,
    "quantize.samples": 1,
    "quantize.min_difference": None,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = RunDir(tmp_path_factory.mktemp("runs") / "small")
    run_recipe(specs.recipe("quickstart", SMALL), run)
    return run


def test_every_stage_is_done_and_says_what_it_did(finished: RunDir) -> None:
    stages = finished.stages()
    assert list(stages) == list(specs.STAGES)
    assert {state.state for state in stages.values()} == {"done"}
    counts = stages["filter"].counts
    assert counts["kept"] + sum(counts["rejected"].values()) == counts["traces"] == 24
    assert stages["train"].counts["traces"] == counts["train"]
    assert set(stages["evaluate"].counts) >= {"teacher", "untrained", "student"}


def test_hashes_lead_from_stage_to_stage(finished: RunDir) -> None:
    stages = finished.stages()
    assert stages["generate"].inputs["prompts.parquet"] == stages["prompts"].outputs["prompts.parquet"]
    assert stages["filter"].inputs["traces"] == stages["generate"].outputs["traces"]
    assert stages["train"].inputs["kept"] == stages["filter"].outputs["kept"]
    assert stages["evaluate"].inputs["student"] == stages["train"].outputs["student"]
    assert all(state.versions["distill"] and state.recipe_hash for state in stages.values())


def test_a_score_says_how_it_was_measured(finished: RunDir) -> None:
    teacher, student = (json.loads((finished.evaluations / f"{n}.json").read_text()) for n in ("teacher", "student"))
    assert teacher["conditions"] == student["conditions"]
    assert student["conditions"]["sampling"]["temperature"] == 0.6
    assert student["contract"] == json.loads((finished.student / "distill.json").read_text())["contract"]["hash"]
    assert student["problems"] == 6
    assert student["samples"] == 12


def test_the_page_tells_what_the_files_are(finished: RunDir) -> None:
    page = finished.report.read_text(encoding="utf-8")
    for told in ("Q4_K 8", "NF4 94%", "student-gguf-q4_k_m", "blk.", "llama.cpp"):
        assert told in page, told
    counts = finished.stages()["quantize"].counts
    assert f"{counts['nf4']['worst_tensor']['relative_error']:.3f}" in page


def test_the_page_is_written_again_when_another_stage_ran(finished: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(finished.path, tmp_path / "run", ignore=shutil.ignore_patterns(".lock")))
    recipe = specs.recipe("quickstart", SMALL)
    before = run.stages()["report"].finished
    run_recipe(recipe, run, first="filter", last="filter", force=True)
    run_recipe(recipe, run)
    assert run.stages()["report"].finished == before, "the same filter made the same files"
    run_recipe(specs.recipe("quickstart", {**SMALL, "train.learning_rate": 5e-4, "quantize.schemes": ["nf4"]}), run)
    assert run.stages()["report"].finished != before


def test_nothing_is_done_twice(finished: RunDir) -> None:
    before = finished.manifest.read_bytes()
    run_recipe(specs.recipe("quickstart", SMALL), finished)
    assert finished.manifest.read_bytes() == before


def test_a_changed_output_is_noticed(finished: RunDir) -> None:
    recipe = specs.recipe("quickstart", SMALL)
    assert plan(recipe, finished, "train", "train") == {"train": "done"}
    path = finished.student / "distill.json"
    original = path.read_bytes()
    path.write_text("{}")
    try:
        assert plan(recipe, finished, "train", "train") == {"train": "to run"}
    finally:
        path.write_bytes(original)


def test_a_changed_setting_runs_its_stage_again_and_nothing_paid(finished: RunDir) -> None:
    changed = specs.recipe("quickstart", {**SMALL, "train.learning_rate": 3e-4})
    assert set(plan(changed, finished, "prompts", "filter").values()) == {"done"}
    assert plan(changed, finished, "train", "train") == {"train": "to run"}
    harmless = specs.recipe("quickstart", {**SMALL, "train.checkpoint_minutes": 5, "generate.concurrency": 7})
    assert plan(harmless, finished, "prompts", "report") == dict.fromkeys(specs.STAGES, "done")


def test_other_weights_in_the_same_place_are_another_teacher(finished: RunDir, tmp_path: Path) -> None:
    """The spec's text stays the same when `make teacher` builds new weights; what was sampled is not theirs."""
    shutil.copytree(specs.teacher("tiny-r1").model, tmp_path / "tiny-r1")
    spec = tmp_path / "mine.yaml"
    spec.write_text(specs.read(specs.find("teachers", "tiny-r1")).replace("name: tiny-r1", "name: mine"))
    recipe = specs.recipe("quickstart", {**SMALL, "teacher": str(spec), "prompts.0.limit": 3})
    run = RunDir(tmp_path / "run")
    run_recipe(recipe, run, last="filter")
    assert set(plan(recipe, run, "prompts", "filter").values()) == {"done"}
    generation = tmp_path / "tiny-r1" / "generation_config.json"
    generation.write_text(generation.read_text() + "\n")
    assert plan(recipe, run, "prompts", "filter") == {"prompts": "done", "generate": "to run", "filter": "to run"}
    for stage in ("generate", "filter"):
        with pytest.raises(RunError, match="none of the 3 traces in this run belongs to this recipe"):
            run_recipe(recipe, run, first=stage, last=stage)
    shutil.rmtree(tmp_path / "tiny-r1")
    assert run.stages()["prompts"].state == "done"


def test_another_base_or_tokenizer_is_another_training(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(specs.student("tiny-qwen").tokenizer or "", tokenizer)
    settings = {**SMALL, "student_overrides": {"tokenizer": str(tokenizer)}}
    recipe, run = specs.recipe("quickstart", settings), RunDir(tmp_path / "run")
    before = pipeline._outside_hashes("train", recipe)
    assert list(before) == ["models/tokenizer"]
    (tokenizer / "tokenizer.json").write_text((tokenizer / "tokenizer.json").read_text() + "\n")
    assert pipeline._outside_hashes("train", recipe) != before
    assert pipeline._outside_hashes("filter", recipe).keys() == {"models/teacher"}
    assert not run.path.exists()


def test_the_seconds_of_all_starts_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run, clock = specs.recipe("quickstart", {**SMALL, "prompts.0.limit": 2}), RunDir(tmp_path / "run"), [0.0]
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: clock[0])
    outcomes = [RuntimeError("power cut"), RuntimeError("again"), None]

    def slow(recipe: specs.Recipe, run: RunDir) -> StageReport:
        clock[0] += 100
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        run.path.mkdir(exist_ok=True)
        run.prompts.write_bytes(b"")
        return StageReport({}, (run.prompts,))

    monkeypatch.setattr(pipeline, "stages", lambda: {"prompts": pipeline.Stage(slow, lambda recipe, run: ())})
    for expected in (100.0, 200.0):
        with pytest.raises(RuntimeError):
            run_recipe(recipe, run, last="prompts")
        assert run.stages()["prompts"].seconds == expected
    run_recipe(recipe, run, last="prompts")
    state = run.stages()["prompts"]
    assert (state.seconds, state.starts, state.state) == (300.0, 3, "done")
    assert "prompts 300 s in 3 starts, in all 300 s" in next(iter(closing_lines(run, ["prompts"])))
    outcomes.append(None)
    run_recipe(recipe, run, last="prompts", force=True)
    assert run.stages()["prompts"].seconds == 100.0, "a finished stage that is run again begins anew"


def test_another_teacher_sampling_or_prompts_is_refused(finished: RunDir) -> None:
    for key, value in (("generate.sampling.temperature", 1.0), ("prompts.0.limit", 23), ("seed", 2)):
        with pytest.raises(RunError, match="another recipe") as caught:
            run_recipe(specs.recipe("quickstart", {**SMALL, key: value}), finished)
        assert key in str(caught.value)


def test_other_problems_to_evaluate_on_are_no_other_recipe(finished: RunDir) -> None:
    """They may take prompts away that were paid for, which nobody may train on; the traces stay."""
    before = set(finished.ledger().index())
    other = specs.recipe("quickstart", {**SMALL, "evaluate.prompts.0.skip": 1})
    run_recipe(other, finished, last="generate")
    run_recipe(specs.recipe("quickstart", SMALL), finished, last="generate")
    assert set(finished.ledger().index()) == before


def test_a_gate_that_does_not_pass_ends_with_code_3(finished: RunDir) -> None:
    gated = specs.recipe("quickstart", {**SMALL, "evaluate.min_pass_at_1": 1.0})
    with pytest.raises(GateError, match="below evaluate") as caught:
        run_recipe(gated, finished)
    assert caught.value.exit_code == 3
    with pytest.raises(GateError):  # and does not pass by being started again
        run_recipe(gated, finished)
    run_recipe(specs.recipe("quickstart", {**SMALL, "evaluate.min_pass_at_1": 0.0}), finished)


def test_a_stage_without_its_input_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="train needs kept"):
        run_recipe(specs.recipe("quickstart", SMALL), RunDir(tmp_path / "empty"), first="train", last="train")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"student": "tiny-qwn"}, "unknown student 'tiny-qwn'"),
        ({"student": ""}, "train: the recipe names no student"),
        ({"teacher": ""}, "generate: the recipe names no teacher"),
    ],
)
def test_a_missing_spec_is_found_before_anything_is_paid_for(
    tmp_path: Path, settings: dict[str, str], told: str
) -> None:
    recipe, run = specs.recipe("quickstart", {**SMALL, **settings}), RunDir(tmp_path / "run")
    with pytest.raises(SpecError, match=told):
        plan(recipe, run, "prompts", "evaluate")
    with pytest.raises(SpecError, match=told):
        run_recipe(recipe, run)
    assert not run.path.exists()


def test_what_the_stages_asked_for_do_not_need_may_be_missing(tmp_path: Path) -> None:
    recipe = specs.recipe("quickstart", {**SMALL, "student": ""})
    assert plan(recipe, RunDir(tmp_path / "run"), "prompts", "filter") == dict.fromkeys(
        ("prompts", "generate", "filter"), "to run"
    )


def test_llama_is_one_setting_away(tmp_path: Path, finished: RunDir) -> None:
    """The same traces, another architecture: nothing is sampled again."""
    run = RunDir(tmp_path / "llama")
    left_out = shutil.ignore_patterns("student", "untrained", "evaluations", ".lock")
    shutil.copytree(finished.path, run.path, ignore=left_out)
    run_recipe(specs.recipe("quickstart", {**SMALL, "student": "tiny-llama", "quantize.schemes": ["nf4"]}), run)
    assert json.loads((run.student / "config.json").read_text())["model_type"] == "llama"
    assert run.stages()["generate"].finished == finished.stages()["generate"].finished
