"""The filter stage on a hand-made ledger: what is kept, why the rest is not, and that order of arrival is nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from ledger_material import write_all
from verify.in_process import InProcess

from distill import specs
from distill.engines import Reply
from distill.errors import RunError
from distill.files import sha256_file
from distill.filter import stage
from distill.filter.stage import Judged, split_by_prompt
from distill.prompts.stage import write_prompts
from distill.records import Prompt, Trace
from distill.rundir import RunDir, StageReport
from distill.sampling.requests import Subject, answered, failed, task_for
from distill.sampling.subjects import teacher_subject
from distill.teacher_specs import GenerateSettings
from distill.verify import PASS, Outcome, abstaining
from distill.verify.pool import VerifierPool

TEACHER = {"name": "scripted", "model": "org/scripted", "revision": "1"}

RIGHT = "<think>\nadd {n}\n</think>\n\n\\boxed{{{n}}}"
REPLIES: list[tuple[str, Any]] = [
    # what sample of which prompt says → its finish reason; prompt n has the answer n
    (RIGHT, "stop"),
    ("<think>\ncarry {n}\n</think>\n\n\\boxed{{{n}}}", "stop"),
    (RIGHT, "stop"),  # duplicate
    ("<think>\nadd\n</think>\n\n\\boxed{{77}}", "stop"),  # wrong
    ("<think>\nadd {n} and {n}\n</think>\n\n\\boxed{{{n}}}", "length"),  # right, but cut
    ("\\boxed{{{n}}}", "stop"),  # no reasoning
    ("<think>\nadd, and", "length"),
    ("<think>\nadd {n}\n</think>\n\nI do not know", "stop"),
]
OTHERS = {"code": 2, "open": 2}
"""Prompts of other kinds beside the math, with a right-looking reply each."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "VerifierPool", InProcess)


@pytest.fixture
def recipe(tmp_path: Path) -> specs.Recipe:
    path = tmp_path / "scripted.yaml"
    path.write_text("".join(f"{key}: '{value}'\n" for key, value in TEACHER.items()))
    return specs.Recipe(name="r", seed=3, teacher=str(path), generate=GenerateSettings(samples=len(REPLIES)))


def subject(recipe: specs.Recipe) -> Subject:
    return teacher_subject(specs.teacher(recipe.teacher), recipe.generate.sampling, None, recipe.seed)


def prompts(count: int = 6) -> list[Prompt]:
    math = [Prompt(f"What is {n}?", id=f"p{n}", kind="math", answer=str(n)) for n in range(1, count + 1)]
    return [
        *math,
        Prompt("Write a sort.", id="c", kind="code", reasoning="optional"),
        Prompt("Say hello.", id="o", kind="open", reasoning="none"),
    ]


def traces(recipe: specs.Recipe, asked: list[Prompt]) -> list[Trace]:
    found = []
    for place, prompt in enumerate(asked, start=1):
        replies = REPLIES if prompt.kind == "math" else [("Hello {n}", "stop"), ("Hello", "stop")]
        for sample, (text, finish) in enumerate(replies):
            reply = Reply(text.format(n=place), finish, "here", completion_tokens=9)
            found.append(answered(task_for(prompt, subject(recipe), sample), reply, subject(recipe), 0, 1))
    return [replace(trace, created="") for trace in found]


def filtered(
    folder: Path, recipe: specs.Recipe, *, given: list[Trace] | None = None, **settings: Any
) -> tuple[RunDir, StageReport]:
    run, asked = RunDir(folder), prompts()
    write_prompts(run.prompts, asked)
    write_all(run.traces, traces(recipe, asked) if given is None else given)
    changed = recipe.model_copy(update={"filter": specs.FilterSettings(**settings)})
    return run, stage.run(changed, run)


def kept(run: RunDir, *splits: str) -> list[dict[str, Any]]:
    return [
        row
        for split in splits or ("train", "heldout")
        for row in pq.read_table(run.kept / f"{split}-00000.parquet").to_pylist()
    ]


def verdicts(run: RunDir) -> Iterator[dict[str, Any]]:
    yield from pq.read_table(run.verdicts).to_pylist()


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_only_what_passes_every_check_is_kept(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "VerifierPool", VerifierPool)
    run, report = filtered(tmp_path / "run", recipe)
    rows = kept(run)
    assert {row["prompt_id"] for row in rows if row["kind"] == "math"} == {f"p{n}" for n in range(1, 7)}
    assert sum(row["kind"] == "math" for row in rows) == 12
    assert sum(row["kind"] == "open" for row in rows) == 2
    assert not any(row["kind"] == "code" for row in rows), "a verifier's abstention is no pass"
    assert report.counts["rejected"] == {
        "duplicate": 6,
        "wrong_answer": 6,
        "truncated": 12,
        "empty_reasoning": 6,
        "no_answer": 6,
        "no_verifier": 2,
    }
    for row in rows:
        question, reply = row["messages"]
        assert question["role"] == "user"
        assert question["content"] in {p.question for p in prompts()}
        assert reply["role"] == "assistant"
        if row["kind"] == "math":
            assert reply["content"].startswith("<think>\n")
            assert reply["content"].endswith("\\boxed{%s}" % row["prompt_id"][1:])  # noqa: UP031  # braces of LaTeX


def test_a_kept_row_carries_what_its_prompt_is_graded_as(recipe: specs.Recipe, tmp_path: Path) -> None:
    """As the last column, in row groups of which a reader holds one."""
    trace = traces(recipe, prompts())[0]
    items = [Judged(Prompt("2?", difficulty="Level 5"), trace, {}), *[Judged(Prompt("3?"), trace, {})] * 1_200]
    stage.write_kept(tmp_path / "kept", items, [])
    file = pq.ParquetFile(tmp_path / "kept" / "train-00000.parquet")
    assert file.schema_arrow.names[-1] == "difficulty"
    assert file.read(["difficulty"]).column(0).to_pylist() == ["Level 5"] + [None] * 1_200
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [1_024, 177]


@pytest.mark.parametrize("keep", ["verified", "all", ["finished"], ["math"], ["think_format", "duplicate"]])
def test_the_counts_add_up(tmp_path: Path, recipe: specs.Recipe, keep: Any) -> None:
    run, report = filtered(tmp_path / "run", recipe, keep=keep, heldout=0.4)
    counts = report.counts
    assert counts["traces"] == 6 * len(REPLIES) + 4
    assert counts["kept"] + sum(counts["rejected"].values()) == counts["traces"]
    assert counts["train"] + counts["heldout"] == counts["kept"] == len(kept(run))
    assert counts["train"] == len(kept(run, "train"))
    assert len(list(verdicts(run))) == 4 * counts["traces"], "a verdict for every check on every trace"


def test_keep_all_takes_wrong_and_unverified_ones_but_never_a_broken_one(tmp_path: Path, recipe: specs.Recipe) -> None:
    run, report = filtered(tmp_path / "run", recipe, keep="all")
    replies = [row["messages"][1]["content"] for row in kept(run)]
    assert sum("boxed{77}" in reply for reply in replies) == 6
    assert sum(row["kind"] == "code" for row in kept(run)) == 2
    assert report.counts["rejected"] == {"truncated": 12, "empty_reasoning": 6}


@pytest.mark.parametrize(
    "settings",
    [
        {"checks": ["math"]},
        {"checks": ["math"], "keep": "all"},
        {"checks": ["math", "duplicate"], "keep": ["math"]},
        {"checks": ["duplicate"]},
        {"keep": ["duplicate"]},
        {"keep": "all"},
    ],
)
def test_a_cut_or_malformed_reply_is_never_kept_whatever_is_checked(
    tmp_path: Path, recipe: specs.Recipe, settings: dict[str, Any]
) -> None:
    run, report = filtered(tmp_path / "run", recipe, **settings)
    whole = {trace.key for trace in traces(recipe, prompts()) if trace.finish_reason == "stop"}
    rows = kept(run)
    assert rows
    assert {row["trace_id"] for row in rows} <= whole
    assert all(row["messages"][1]["content"].startswith("<think>") for row in rows if row["kind"] == "math")
    assert report.counts["kept"] + sum(report.counts["rejected"].values()) == report.counts["traces"]


@pytest.mark.parametrize("keep", ["verified", "all"])
def test_verdicts_of_a_broken_verifier_are_not_kept_for_good(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch, keep: Any
) -> None:
    class Broken(InProcess):
        def map(self, items: Iterable[Any]) -> Iterator[Outcome]:
            return (abstaining("verifier_crash") for _ in items)

    monkeypatch.setattr(stage, "VerifierPool", Broken)
    _, report = filtered(tmp_path / "run", recipe, keep=keep)
    assert not report.complete
    assert "the verifier broke on 42 answers" in report.lines[-1]


def test_nothing_kept_is_an_honest_end(tmp_path: Path, recipe: specs.Recipe) -> None:
    wrong = [trace for trace in traces(recipe, prompts()) if trace.sample == 3]
    run, report = filtered(tmp_path / "run", recipe, given=wrong)
    assert report.counts["kept"] == 0
    assert kept(run) == []
    assert report.lines[0] == "0 of 6 traces kept, from 0 prompts"


def test_no_traces_is_an_error(tmp_path: Path, recipe: specs.Recipe) -> None:
    asked = prompts()
    failures = [failed(task_for(p, subject(recipe), 0), subject(recipe), "here", "HTTP 500", 0, 3) for p in asked]
    foreign = [replace(trace, key=f"{number:064x}") for number, trace in enumerate(traces(recipe, asked)[:3])]
    for given, told in (
        ([], "no traces to filter"),
        (failures, f"all {len(failures)} samples failed"),
        (foreign, "none of the 3 traces in this run belongs to this recipe"),
    ):
        with pytest.raises(RunError, match=told):
            filtered(tmp_path / f"run{len(given)}", recipe, given=given)


def test_failures_and_traces_of_an_edited_question_are_left_out(tmp_path: Path, recipe: specs.Recipe) -> None:
    asked = prompts()
    edited = replace(asked[0], question="What was 1, before it was edited?")
    old = answered(task_for(edited, subject(recipe), 0), Reply(RIGHT.format(n=1), "stop", "h"), subject(recipe), 0, 1)
    failure = failed(task_for(asked[1], subject(recipe), 0), subject(recipe), "here", "HTTP 500", 0, 3)
    good = traces(recipe, asked)[-3]
    run, report = filtered(tmp_path / "run", recipe, given=[old, failure, good], keep="all")
    assert old.prompt_id == asked[0].id
    assert report.counts["traces"] == 1
    assert [row["trace_id"] for row in kept(run)] in ([good.key], [])


# --- order, repetition, split ----------------------------------------------------------------------------------------


def test_the_order_of_arrival_and_repetition_change_no_byte(tmp_path: Path, recipe: specs.Recipe) -> None:
    found = traces(recipe, prompts())
    hashes = []
    for number in range(3):
        shuffled = list(found)
        if number:
            random.Random(number).shuffle(shuffled)
        run, _ = filtered(tmp_path / str(number), recipe, given=shuffled, heldout=0.3)
        files = [run.verdicts, *sorted(run.kept.iterdir())]
        hashes.append([sha256_file(file) for file in files])
        stage.run(recipe.model_copy(update={"filter": specs.FilterSettings(heldout=0.3)}), run)
        assert [sha256_file(file) for file in files] == hashes[-1], "filtering again"
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(hashes[0]) == 3


def test_a_revision_that_supersedes_is_the_one_judged(tmp_path: Path, recipe: specs.Recipe) -> None:
    found = traces(recipe, prompts())
    cut = next(trace for trace in found if trace.sample == 6)
    whole = replace(
        cut, revision=1, raw=RIGHT, reasoning="gone on", answer="\\boxed{1}", fault=None, finish_reason="stop"
    )
    run, report = filtered(tmp_path / "run", recipe, given=[*found, whole])
    assert report.counts["traces"] == len(found)
    assert cut.key in {row["trace_id"] for row in kept(run)}
    hashes = {row["content_hash"] for row in verdicts(run) if row["trace_key"] == cut.key}
    assert hashes == {whole.content_hash}


def test_a_prompt_lies_wholly_on_one_side_and_stays_there(recipe: specs.Recipe) -> None:
    asked = [Prompt(f"What is {n}?", kind="math", answer=str(n)) for n in range(400)]
    trace = traces(recipe, prompts())[0]
    items = [Judged(prompt, trace, {}) for prompt in asked for _ in range(2)]
    train, heldout = split_by_prompt(items, 0.25, 1)
    sides = [{item.prompt.id for item in side} for side in (train, heldout)]
    assert not sides[0] & sides[1]
    assert len(train) + len(heldout) == 800
    assert 60 <= len(sides[1]) <= 140
    fewer, fewer_out = split_by_prompt(items[::2][:100], 0.25, 1)
    assert {item.prompt.id for item in fewer} <= sides[0]
    assert {item.prompt.id for item in fewer_out} <= sides[1]
    assert {item.prompt.id for item in split_by_prompt(items, 0.25, 2)[1]} != sides[1]
    assert split_by_prompt(items, 0.0, 1) == (items, [])
    alone = next(item for item in items if item.prompt.id in sides[1])
    assert split_by_prompt([alone], 0.25, 1) == ([alone], []), "a single prompt is there to be learned"


# --- would a broken check be seen? -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "sample"),
    [("finished", 4), ("think_format", 5), ("duplicate", 2), ("math", 3)],
)
def test_a_check_that_lets_everything_through_is_seen(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch, check: str, sample: int
) -> None:
    bad = {trace.key for trace in traces(recipe, prompts()) if trace.sample == sample and trace.prompt_id[0] == "p"}
    run, _ = filtered(tmp_path / "sound", recipe)
    assert not bad & {row["trace_id"] for row in kept(run)}
    names = {"duplicate": "Duplicates", "math": "has_gold_to_check"}
    passing = {"duplicate": lambda: lambda prompt, trace: PASS}.get(check, lambda prompt, trace: PASS)
    monkeypatch.setattr(stage, names.get(check, check), passing)
    run, _ = filtered(tmp_path / "broken", recipe)
    assert bad <= {row["trace_id"] for row in kept(run)}, "each check alone stands between these and the student"


def test_imported_traces_are_paired_by_what_was_asked(recipe: specs.Recipe) -> None:
    """In the order of prompts, then of import; failures and the traces of other questions are left out."""
    prompts = [Prompt(f"{n}?", id=str(n), kind="math", answer="1") for n in range(3)]
    tasks = [[task_for(prompt, subject(recipe), sample) for sample in range(2)] for prompt in prompts]
    reply = Reply(text="1", finish_reason="stop", endpoint="e")
    came = [answered(tasks[n][sample], reply, subject(recipe), 0, 1) for n, sample in ((2, 1), (0, 0), (2, 0), (1, 0))]
    came.append(failed(tasks[0][1], subject(recipe), "e", "gone", 0, 1))
    wanted = {tasks[n][0].asked: prompts[n] for n in (0, 2)}
    pairs = stage.paired_by_asked(wanted, came)
    assert [(prompt.id, trace.sample) for prompt, trace in pairs] == [("0", 0), ("2", 1), ("2", 0)]
