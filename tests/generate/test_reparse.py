"""Reasoning and answer derived again: a new revision where they change, the raw reply never touched, nothing asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ledger_material import write_all

from distill import specs
from distill.engines import Reply
from distill.generate.reparse import reparse
from distill.ledger import LedgerReader
from distill.records import Prompt, Trace
from distill.rundir import RunDir
from distill.sampling.requests import answered, failed, task_for
from distill.sampling.subjects import teacher_subject

REPLIES = ["<think>\nadd\n</think>\n\n4", "just 4", "<think>\nno end"]


def recipe(tmp_path: Path, **changed: object) -> specs.Recipe:
    path = tmp_path / "scripted.yaml"
    path.write_text("name: scripted\nmodel: org/scripted\nreasoning_format: plain\n")
    return specs.Recipe(name="r", teacher=str(path), teacher_overrides=changed)


def traces(asked: specs.Recipe) -> list[Trace]:
    subject = teacher_subject(specs.teacher(asked.teacher), asked.generate.sampling, None, asked.seed)
    prompt = Prompt("2 + 2?", id="p", kind="math", answer="4")
    found = [
        answered(task_for(prompt, subject, number), Reply(text, "stop", "here"), subject, 0, 1)
        for number, text in enumerate(REPLIES)
    ]
    return [*found, failed(task_for(prompt, subject, 9), subject, "here", "HTTP 500", 0, 3)]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    write_all(run.traces, traces(recipe(tmp_path)))
    return run


def counting(run: RunDir) -> dict[int, Trace]:
    return {trace.sample: trace for trace in run.ledger().traces()}


def test_nothing_changes_under_the_same_spec(tmp_path: Path, run: RunDir) -> None:
    before = counting(run)
    assert reparse(recipe(tmp_path), run) == (4, 0)
    assert counting(run) == before


def test_another_format_reads_the_raw_replies_anew(tmp_path: Path, run: RunDir) -> None:
    before = counting(run)
    assert before[0].fault == "leaked_tag"
    assert reparse(recipe(tmp_path, reasoning_format="tags"), run) == (4, 2)
    after = counting(run)
    assert (after[0].reasoning, after[0].answer, after[0].fault, after[0].revision) == ("add", "4", None, 1)
    assert (after[2].answer, after[2].fault, after[2].revision) == (None, "missing_close", 1)
    assert after[1] == before[1], "what reads the same keeps its revision"
    assert after[9] == before[9], "a failure has nothing to read"
    for sample, trace in after.items():
        same = {"raw", "key", "seed", "teacher", "sampling", "attempts", "prompt_tokens", "finish_reason", "asked"}
        assert {name: getattr(trace, name) for name in same} == {name: getattr(before[sample], name) for name in same}
    assert after[0].content_hash != before[0].content_hash, "its verdicts expire"
    assert len(list(LedgerReader(run.traces).records())) == 6, "what was there before stays"


def test_twice_changes_once_and_back_again_is_a_third_revision(tmp_path: Path, run: RunDir) -> None:
    first = counting(run)
    reparse(recipe(tmp_path, reasoning_format="tags"), run)
    assert reparse(recipe(tmp_path, reasoning_format="tags"), run) == (4, 0)
    assert reparse(recipe(tmp_path), run) == (4, 2)
    again = counting(run)[0]
    assert again.revision == 2
    assert replace(again, revision=0, created=first[0].created) == first[0]
