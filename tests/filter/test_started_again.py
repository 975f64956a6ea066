"""The filter started again: it does again what has changed since, or what could not be had, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_teacher import HttpTeacher

from distill import pipeline, specs
from distill.filter import stage
from distill.prompts.stage import write_prompts
from distill.records import Prompt, Trace
from distill.rundir import RunDir
from distill.verify import own, verifiers
from filter.test_judging import compares, refusing
from filter.test_stage import REPLIES, TEACHER, Counting, kept, traces, verdicts, write_all

ASKED = [
    *[Prompt(f"What is {n}?", id=f"p{n}", kind="math", answer=str(n)) for n in range(1, 5)],
    Prompt("How many?", id="n", kind="numeric", answer="5", reasoning="none"),
]
OURS = "from distill.verify import PASS, failing\n\n\ndef verify(prompt, answer):\n    return {}\n"


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The checks by which each trace was looked at."""
    monkeypatch.setattr(stage, "LocalLooking", Counting)
    Counting.seen = []
    return Counting.seen


@pytest.fixture
def recipe(tmp_path: Path) -> specs.Recipe:
    path = tmp_path / "scripted.yaml"
    path.write_text("".join(f"{key}: '{value}'\n" for key, value in TEACHER.items()))
    generate = specs.Recipe(name="r").generate.model_copy(update={"samples": len(REPLIES)})
    return specs.Recipe(name="r", seed=3, teacher=str(path), generate=generate)


@pytest.fixture
def run(tmp_path: Path, recipe: specs.Recipe) -> RunDir:
    found = RunDir(tmp_path / "run")
    write_prompts(found.prompts, ASKED)
    write_all(found.traces, sampled(recipe))
    return found


def sampled(recipe: specs.Recipe) -> list[Trace]:
    return traces(recipe, ASKED)


def changed(recipe: specs.Recipe, verify: Any = None, **settings: Any) -> specs.Recipe:
    update: dict[str, Any] = {"filter": specs.FilterSettings(**settings)}
    return recipe.model_copy(update=update if verify is None else {**update, "verify": verify})


def starts(recipe: specs.Recipe, run: RunDir, *, force: bool = False) -> bool:
    """As `distill run` starts the stage, forced as `distill filter` does. Whether the stage was run."""
    before = run.stages().get("filter")
    pipeline.run_recipe(recipe, run, first="filter", last="filter", force=force)
    return run.stages()["filter"] != before


def reasons(run: RunDir, check: str) -> dict[str, set[str]]:
    """Prompt → what the check said of its traces."""
    prompts = {trace.key: trace.prompt_id for trace in run.ledger().traces()}
    found: dict[str, set[str]] = {}
    for row in verdicts(run):
        if row["check"] == check:
            found.setdefault(prompts[row["trace_key"]], set()).add(row["reason"])
    return found


# --- the judge -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [True, False])
def test_votes_that_failed_are_asked_for_again_and_no_others(
    run: RunDir, recipe: specs.Recipe, seen: list[tuple[str, ...]], force: bool
) -> None:
    with HttpTeacher(compares, faults=refusing("What is 3?")) as judge:
        asking = {"teacher": judge.url, "model": judge.model, "on": "all", "max_attempts": 1}
        chosen = changed(recipe, checks=["finished", "think_format", "correct"], judge=asking)
        assert starts(chosen, run, force=force)
        assert run.stages()["filter"].state == "incomplete"
        assert reasons(run, "judge")["p3"] == {"judge_failed", "not_asked"}
        assert {"judge_failed"}.isdisjoint(reasons(run, "judge")["p2"])
        others = {prompt: said for prompt, said in reasons(run, "judge").items() if prompt != "p3"}
        before, looked = len(judge.chats), len(seen)

        judge.faults = lambda number, seen: None
        assert starts(chosen, run, force=force)
        later = judge.chats[before:]
        assert later
        assert all("What is 3?" in request.question for request in later)
        assert len(seen) == looked, "no other check was made again"
        assert run.stages()["filter"].state == "done"
        assert reasons(run, "judge") == {**others, "p3": {"", "judged_wrong", "not_asked"}}

        before = len(judge.chats)
        files = [run.verdicts.read_bytes(), kept(run)]
        assert starts(chosen, run, force=force) == force
        assert len(judge.chats) == before, "what the judge has said is final"
        assert [run.verdicts.read_bytes(), kept(run)] == files


# --- what lies beside the run ----------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes mine.py into the working directory, and forgets what this process knows of an earlier one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions within a second look alike to its cache

    def forget() -> None:
        sys.modules.pop("mine", None)
        for cached in (verifiers.fingerprint, verifiers._prepared, own.load, own._found):
            cached.cache_clear()

    def write(returns: str) -> None:
        (tmp_path / "mine.py").write_text(OURS.format(returns), encoding="utf-8")
        forget()

    yield write
    forget()


def test_another_source_of_ones_own_verifier_judges_its_answers_again_and_nothing_else(
    run: RunDir, recipe: specs.Recipe, seen: list[tuple[str, ...]], written: Callable[[str], None]
) -> None:
    chosen = changed(recipe, verify={"numeric": "mine:verify"}, checks=["finished", "think_format", "correct"])
    written("PASS")
    assert starts(chosen, run)
    assert reasons(run, "correct")["n"] == {""}
    right = reasons(run, "correct")["p1"]
    assert len(seen) == 4 * len(REPLIES) + 2

    seen.clear()
    written("PASS")
    assert not starts(chosen, run), "the same source"
    assert seen == []

    written('failing("not_ours")')
    assert starts(chosen, run)
    assert seen == [("correct",)] * 2
    assert reasons(run, "correct")["n"] == {"not_ours"}
    assert reasons(run, "correct")["p1"] == right
    assert "n" not in {row["prompt_id"] for row in kept(run)}

    seen.clear()
    assert not starts(chosen, run)
    assert starts(chosen, run, force=True), "asked for in so many words"
    assert seen == []


def test_a_verifier_that_is_gone_leaves_what_it_said(
    run: RunDir, recipe: specs.Recipe, written: Callable[[str], None], tmp_path: Path
) -> None:
    chosen = changed(recipe, verify={"numeric": "mine:verify"}, checks=["finished", "think_format", "correct"])
    written("PASS")
    starts(chosen, run)
    state = run.stages()["filter"]
    written("PASS")
    (tmp_path / "mine.py").unlink()
    assert pipeline.plan(chosen, run, "filter", "filter") == {"filter": "done"}
    assert run.stages()["filter"] == state


def test_other_scores_are_read_again_and_nothing_else_is_done(
    run: RunDir, recipe: specs.Recipe, seen: list[tuple[str, ...]], tmp_path: Path
) -> None:
    file, keys = tmp_path / "scores.jsonl", sorted(trace.key for trace in sampled(recipe))

    def score(low: int) -> None:
        """The first `low` traces get 0.1, the others 0.9."""
        rows = [{"trace_key": key, "score": 0.1 if place < low else 0.9} for place, key in enumerate(keys)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def too_low() -> set[str]:
        rows = (row for row in verdicts(run) if row["check"] == "score")
        return {row["trace_key"] for row in rows if row["reason"] == "score_too_low"}

    chosen = changed(recipe, checks=["finished", "think_format"], score={"scores": str(file), "min": 0.5})
    score(3)
    assert starts(chosen, run)
    assert too_low() == set(keys[:3])
    seen.clear()
    assert not starts(chosen, run)

    score(5)
    assert starts(chosen, run)
    assert seen == []
    assert too_low() == set(keys[:5])
    assert {row["trace_id"] for row in kept(run)}.isdisjoint(keys[:5])
    assert not starts(chosen, run)


def test_a_file_of_an_earlier_format_is_looked_at_as_if_it_were_not_there(
    run: RunDir, recipe: specs.Recipe, seen: list[tuple[str, ...]]
) -> None:
    """What was found about traces, with other columns: everything is looked at again, nothing breaks."""
    import pyarrow.parquet as pq

    chosen = changed(recipe, checks=["finished", "think_format"])
    starts(chosen, run)
    count = len(seen)
    for path in run.judged.glob("*.parquet"):
        pq.write_table(pq.read_table(path, columns=["key", "content"]).replace_schema_metadata(None), path)
    seen.clear()
    assert starts(chosen, run, force=True)
    assert len(seen) == count
