"""The filter stage on a hand-made ledger: what is kept, why the rest is not, and that order of arrival is nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from filtered import Judged, write_kept
from ledger_material import write_all
from verify.in_process import LooksInProcess

from distill import specs
from distill.engines import Reply
from distill.errors import RunError
from distill.files import sha256_file
from distill.filter import checks, deciding, looking, placing, stage
from distill.filter.looking import Item, Looked
from distill.filter.placing import Buckets, Places, each
from distill.filter_specs import DEFAULT_CHECKS
from distill.ledger import LedgerReader
from distill.prompts.stage import write_prompts
from distill.records import Prompt, Trace
from distill.rundir import RunDir, StageReport
from distill.sampling.requests import Subject, answered, failed, task_for
from distill.sampling.subjects import teacher_subject
from distill.teacher_specs import GenerateSettings
from distill.verify import PASS, abstaining

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
OTHERS = {"numeric": 2, "open": 2}
"""Prompts of other kinds beside the math, with a right-looking reply each."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LocalLooking", LooksInProcess)


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
        Prompt("Prove it.", id="c", kind="numeric", reasoning="optional"),
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
    monkeypatch.setattr(stage, "LocalLooking", looking.LocalLooking)
    run, report = filtered(tmp_path / "run", recipe)
    rows = kept(run)
    assert {row["prompt_id"] for row in rows if row["kind"] == "math"} == {f"p{n}" for n in range(1, 7)}
    assert sum(row["kind"] == "math" for row in rows) == 12
    assert sum(row["kind"] == "open" for row in rows) == 2
    assert not any(row["kind"] == "numeric" for row in rows), "a verifier's abstention is no pass"
    assert report.counts["rejected"] == {
        "duplicate": 6,
        "wrong_answer": 6,
        "truncated": 12,
        "empty_reasoning": 6,
        "no_answer": 6,
        "no_gold": 2,
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
    write_kept(tmp_path / "kept", items, [])
    file = pq.ParquetFile(tmp_path / "kept" / "train-00000.parquet")
    assert file.schema_arrow.names[-1] == "difficulty"
    assert file.read(["difficulty"]).column(0).to_pylist() == ["Level 5"] + [None] * 1_200
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [1_024, 177]


@pytest.mark.parametrize("keep", ["verified", "all", ["finished"], ["correct"], ["think_format", "duplicate"]])
def test_the_counts_add_up(tmp_path: Path, recipe: specs.Recipe, keep: Any) -> None:
    run, report = filtered(tmp_path / "run", recipe, keep=keep, heldout=0.4)
    counts = report.counts
    assert counts["traces"] == 6 * len(REPLIES) + 4
    assert counts["kept"] + sum(counts["rejected"].values()) == counts["traces"]
    assert counts["train"] + counts["heldout"] == counts["kept"] == len(kept(run))
    assert counts["train"] == len(kept(run, "train"))
    assert len(list(verdicts(run))) == (len(DEFAULT_CHECKS) + 1) * counts["traces"], (
        "a verdict for every check on every trace"
    )


def test_keep_all_takes_wrong_and_unverified_ones_but_never_a_broken_one(tmp_path: Path, recipe: specs.Recipe) -> None:
    run, report = filtered(tmp_path / "run", recipe, keep="all")
    replies = [row["messages"][1]["content"] for row in kept(run)]
    assert sum("boxed{77}" in reply for reply in replies) == 6
    assert sum(row["kind"] == "numeric" for row in kept(run)) == 2
    assert report.counts["rejected"] == {"truncated": 12, "empty_reasoning": 6}


@pytest.mark.parametrize(
    "settings",
    [
        {"checks": ["correct"]},
        {"checks": ["correct"], "keep": "all"},
        {"checks": ["correct", "duplicate"], "keep": ["correct"]},
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
    plain = looking._correct
    monkeypatch.setattr(
        looking,
        "_correct",
        lambda prompt, trace, chosen: (
            abstaining("verifier_crash")
            if trace.sample == 3 and prompt.kind == "math"
            else plain(prompt, trace, chosen)
        ),
    )
    run, report = filtered(tmp_path / "run", recipe, keep=keep)
    assert not report.complete
    assert "the verifier broke on 6 answers" in report.lines[-1]
    monkeypatch.undo()
    again = stage.run(recipe.model_copy(update={"filter": specs.FilterSettings(keep=keep)}), run)
    assert again.complete, "they were judged again"


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


def test_a_prompt_lies_wholly_on_one_side_and_stays_there(tmp_path: Path, recipe: specs.Recipe) -> None:
    """By its question and the seed alone, whoever else is there."""
    asked = [Prompt(f"What is {n}?", id=f"p{n}", kind="math", answer=str(n)) for n in range(1, 201)]
    every = [trace for trace in traces(recipe, asked) if trace.sample < 2]
    sides = []
    for given, changes in ((every, {}), (every[::4], {}), (every, {"seed": 4})):
        found = recipe.model_copy(update={"filter": specs.FilterSettings(heldout=0.25), **changes})
        folder = tmp_path / str(len(sides))
        write_prompts(RunDir(folder).prompts, asked)
        chosen = given if not changes else [t for t in traces(found, asked) if t.sample < 2]
        write_all(RunDir(folder).traces, chosen)
        stage.run(found, RunDir(folder))
        sides.append([{row["prompt_id"] for row in kept(RunDir(folder), split)} for split in ("train", "heldout")])
    train, heldout = sides[0]
    assert not train & heldout
    assert len(train | heldout) == 200
    assert 30 <= len(heldout) <= 70
    assert sides[1][0] <= train
    assert sides[1][1] <= heldout
    assert sides[2][1] != heldout, "another seed draws others"


def test_a_single_prompt_is_there_to_be_learned(tmp_path: Path, recipe: specs.Recipe) -> None:
    for number in range(1, 4):
        one = [trace for trace in traces(recipe, prompts()) if trace.prompt_id == f"p{number}"]
        _, report = filtered(tmp_path / str(number), recipe, given=one, heldout=0.9)
        assert (report.counts["train"], report.counts["heldout"]) == (2, 0)


# --- would a broken check be seen? -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "sample"),
    [("finished", 4), ("think_format", 5), ("duplicate", 2), ("correct", 3)],
)
def test_a_check_that_lets_everything_through_is_seen(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch, check: str, sample: int
) -> None:
    bad = {trace.key for trace in traces(recipe, prompts()) if trace.sample == sample and trace.prompt_id[0] == "p"}
    run, _ = filtered(tmp_path / "sound", recipe)
    assert not bad & {row["trace_id"] for row in kept(run)}
    places = {
        "duplicate": (deciding, "_repeats", lambda traces, judged, settings: {}),
        "correct": (looking, "_correct", lambda prompt, trace, chosen: PASS),
    }
    passing: Any = lambda prompt, trace: PASS  # noqa: E731
    home, name, function = places.get(check, (checks, "", None))
    if function is None:
        monkeypatch.setitem(checks._functions, check, passing)
    else:
        monkeypatch.setattr(home, name, function)
    run, _ = filtered(tmp_path / "broken", recipe)
    assert bad <= {row["trace_id"] for row in kept(run)}, "each check alone stands between these and the student"


def test_imported_traces_are_known_by_what_was_asked(tmp_path: Path, recipe: specs.Recipe) -> None:
    """In the order of prompts, then of import, whatever their number; failures and other questions are left out."""
    asked = [Prompt(f"{n}?", id=str(n), kind="math", answer="1") for n in range(3)]
    tasks = [[task_for(prompt, subject(recipe), sample) for sample in range(2)] for prompt in asked]
    reply = Reply(text="1", finish_reason="stop", endpoint="e")
    came = [answered(tasks[n][sample], reply, subject(recipe), 0, 1) for n, sample in ((2, 1), (0, 0), (2, 0), (1, 0))]
    came = [replace(trace, sample=trace.sample + 7) for trace in came]
    came.append(failed(tasks[0][1], subject(recipe), "e", "gone", 0, 1))
    write_all(tmp_path / "traces", came)
    places = Places([asked[0], asked[2]], subject(recipe), 1, imported=True)
    with Buckets(tmp_path / "b", LedgerReader(tmp_path / "traces"), places, 2) as buckets:
        rows = [row for _, table in each(buckets) for row in table.to_pylist()]
    assert [(row["_row"], row["prompt_id"], row["sample"]) for row in rows] == [(0, "0", 7), (1, "2", 8), (1, "2", 7)]


# --- going on, and not looking twice ---------------------------------------------------------------------------------


class Counting(LooksInProcess):
    """Counts the traces that are looked at, and by which checks."""

    seen: ClassVar[list[tuple[str, ...]]] = []

    def look(self, items: Iterable[Item | None]) -> Iterator[Looked]:
        for item in items:
            if item is None:
                continue
            Counting.seen.append(tuple(name for name in item[2] if name not in item[3]))
            yield looking.look(*item)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    monkeypatch.setattr(stage, "LocalLooking", Counting)
    Counting.seen = []
    return Counting.seen


def test_workers_get_ready_early_where_there_is_all_to_look_at(
    tmp_path: Path, recipe: specs.Recipe, seen: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(Counting, "start", lambda self, size: sizes.append(size))
    run, _ = filtered(tmp_path / "run", recipe)
    assert sizes == [run.ledger().text_bytes]
    assert sizes[0] > 0
    stage.run(recipe, run)
    assert len(sizes) == 1, "all is known"


def test_a_changed_keep_rule_looks_at_nothing_again(
    tmp_path: Path, recipe: specs.Recipe, seen: list[tuple[str, ...]]
) -> None:
    run, first = filtered(tmp_path / "run", recipe)
    count = len(seen)
    changed = recipe.model_copy(update={"filter": specs.FilterSettings(keep="all", heldout=0.5)})
    report = stage.run(changed, run)
    assert count == first.counts["traces"]
    assert len(seen) == count
    assert report.counts["kept"] > first.counts["kept"]
    assert {row["trace_id"] for row in kept(run)} >= {row["trace_id"] for row in kept(run, "train")}


def test_an_added_check_is_the_only_one_that_is_made(
    tmp_path: Path, recipe: specs.Recipe, seen: list[tuple[str, ...]]
) -> None:
    run, _ = filtered(tmp_path / "run", recipe, checks=["finished", "correct"])
    seen.clear()
    changed = recipe.model_copy(update={"filter": specs.FilterSettings(checks=["finished", "correct", "contaminated"])})
    stage.run(changed, run)
    assert set(seen) == {("contaminated",)}


def test_an_edited_gold_answer_and_an_edited_trace_are_judged_anew(
    tmp_path: Path, recipe: specs.Recipe, seen: list[tuple[str, ...]]
) -> None:
    run, before = filtered(tmp_path / "run", recipe)
    seen.clear()
    asked = prompts()
    write_prompts(run.prompts, [replace(asked[0], answer="77"), *asked[1:]])
    report = stage.run(recipe, run)
    assert len(seen) == len(REPLIES)
    assert report.counts["kept"] == before.counts["kept"] - 2 + 1, "two right ones are wrong now, and one is right"
    seen.clear()
    old = next(trace for trace in traces(recipe, asked) if trace.prompt_id == "p2")
    write_all(run.traces, [replace(old, revision=1, answer="\\boxed{3}")])
    stage.run(recipe, run)
    assert len(seen) == 1


def test_a_killed_filter_goes_on_where_it_was(
    tmp_path: Path, recipe: specs.Recipe, seen: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "BUCKET_BYTES", 2_000)
    monkeypatch.setattr(placing, "HELD_BYTES", 1_000)
    whole, report = filtered(tmp_path / "whole", recipe)
    looked_at = len(seen)

    class Dies(Exception):
        pass

    class Dying(Counting):
        def look(self, items: Iterable[Item | None]) -> Iterator[Looked]:
            for number, found in enumerate(super().look(items)):
                if number == 30:
                    raise Dies
                yield found

    monkeypatch.setattr(stage, "LocalLooking", Dying)
    with pytest.raises(Dies):
        filtered(tmp_path / "run", recipe)
    run = RunDir(tmp_path / "run")
    assert not run.verdicts.exists()
    there = len(list(run.judged.glob("*.parquet")))
    assert there >= 2
    monkeypatch.setattr(stage, "LocalLooking", Counting)
    seen.clear()
    again = stage.run(recipe.model_copy(update={"filter": specs.FilterSettings()}), run)
    assert 0 < len(seen) < looked_at
    assert again.counts == report.counts
    for path in (whole.verdicts, *whole.kept.iterdir()):
        assert sha256_file(path) == sha256_file(run.path / path.relative_to(whole.path)), "as if never interrupted"
    assert len(list(run.judged.glob("*.parquet"))) == len(list(whole.judged.glob("*.parquet")))
    assert not list(run.path.glob(".buckets*"))


def test_traces_that_nobody_can_look_at_are_no_end_of_the_run(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of their checks says why, and the next start looks at them again."""
    lost = {trace.key for trace in traces(recipe, prompts())[:2]}

    class Losing(Counting):
        def look(self, items: Iterable[Item | None]) -> Iterator[Looked]:
            for item in items:
                if item is not None:
                    timed_out = item[1]["key"] in lost
                    yield looking._all_failed(item, "verifier_timeout") if timed_out else looking.look(*item)

    monkeypatch.setattr(stage, "LocalLooking", Losing)
    settings = {"select": {"prefer": "diverse", "per_prompt": 9}}
    run, report = filtered(tmp_path / "run", recipe, **settings)
    assert report.counts["rejected"]["verifier_timeout"] == 2
    assert report.complete, "a timeout is a verdict until somebody looks again"
    monkeypatch.setattr(stage, "LocalLooking", LooksInProcess)
    again = stage.run(recipe.model_copy(update={"filter": specs.FilterSettings(**settings)}), run)
    assert "verifier_timeout" not in again.counts["rejected"]
    assert lost <= {row["trace_id"] for row in kept(run)}


def test_few_buckets_are_held_behind_a_trace_that_is_being_looked_at(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the first are known from before: they wait in their files, not in memory."""
    monkeypatch.setattr(placing, "BUCKET_BYTES", 5_000)
    monkeypatch.setattr(placing, "HELD_BYTES", 1_000)
    monkeypatch.setattr(stage, "MOST_EXPECTED", 10)
    run, _ = filtered(tmp_path / "run", recipe)
    asked = prompts()
    write_prompts(run.prompts, [replace(asked[0], answer="77"), *asked[1:]])
    read: list[int] = []
    plain = placing.Buckets.read
    monkeypatch.setattr(placing.Buckets, "read", lambda self, bucket: (read.append(bucket), plain(self, bucket))[1])
    found: list[int] = []

    class Slow(LooksInProcess):
        def look(self, items: Iterable[Item | None]) -> Iterator[Looked]:
            source = iter(items)
            waiting = []
            for item in source:
                if item is None:
                    found.append(len(read))
                    yield from (looking.look(*one) for one in waiting)
                    waiting = []
                else:
                    waiting.append(item)
            yield from (looking.look(*one) for one in waiting)

    monkeypatch.setattr(stage, "LocalLooking", Slow)
    report = stage.run(recipe, run)
    assert len(placing.Buckets(tmp_path / "x", run.ledger(), placing.Places((), subject(recipe), 1), 8)._ends) >= 1
    assert found
    assert found[0] <= 4, "of some nine buckets"
    assert report.counts["traces"] == 6 * len(REPLIES) + 4


def test_buckets_hold_about_as_many_traces_wherever_those_lie(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampling stopped early: of a hundred prompts, only some in the middle have traces."""
    asked = [Prompt(f"What is {n}?", id=f"p{n}", kind="math", answer=str(n)) for n in range(1, 101)]
    given = [trace for trace in traces(recipe, asked) if 40 <= int(trace.prompt_id[1:]) < 50]
    write_all(tmp_path / "traces", given)
    ledger = LedgerReader(tmp_path / "traces")
    monkeypatch.setattr(placing, "BUCKET_BYTES", ledger.text_bytes // 5)
    places = Places(asked, subject(recipe), len(REPLIES))
    with Buckets(tmp_path / "b", ledger, places, len(asked)) as buckets:
        sizes = [len(table) for _, table in each(buckets)]
    assert sum(sizes) == len(given) == 80
    assert len(sizes) >= 4
    assert max(sizes) <= 32


def test_an_open_prompt_is_neither_right_nor_too_easy(tmp_path: Path, recipe: specs.Recipe) -> None:
    run, _ = filtered(tmp_path / "run", recipe)
    rates = {row["prompt_id"]: row["pass_rate"] for row in kept(run)}
    assert rates["o"] is None
    assert rates["p1"] == 3 / 8, "a right one that is cut or malformed counts as wrong, like one without an answer"
    run, report = filtered(tmp_path / "band", recipe, select={"difficulty": [0.1, 0.9]})
    assert report.counts["rejected"]["unknown_difficulty"] == 2


def test_a_verifier_that_breaks_on_everything_is_an_error(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_correct", lambda prompt, trace, chosen: abstaining("verifier_error"))
    with pytest.raises(RunError, match="broke on every answer that it was given, 52 of them"):
        filtered(tmp_path / "run", recipe)


def test_new_kinds_of_prompts_judge_nothing_again(
    tmp_path: Path, recipe: specs.Recipe, seen: list[tuple[str, ...]]
) -> None:
    filtered(tmp_path / "run", recipe)
    seen.clear()
    run = RunDir(tmp_path / "run")
    new = Prompt("Name it.", id="new", kind="exact", answer="sum")
    write_prompts(run.prompts, [*prompts(), new])
    reply = Reply("<think>\nadd\n</think>\n\nsum", "stop", "here", completion_tokens=9)
    write_all(run.traces, [answered(task_for(new, subject(recipe), 0), reply, subject(recipe), 0, 1)])
    stage.run(recipe, run)
    assert len(seen) == 1


def test_another_version_of_a_verifier_judges_its_answers_again_and_nothing_else(
    tmp_path: Path, recipe: specs.Recipe, seen: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = filtered(tmp_path / "run", recipe)
    seen.clear()
    plain = stage.fingerprint_of
    monkeypatch.setattr(stage, "fingerprint_of", lambda name: "later" if name == "numeric" else plain(name))
    stage.run(recipe, run)
    assert seen == [("correct",)] * OTHERS["numeric"]


@pytest.mark.parametrize("size", [500, 3_000, 10**9])
def test_the_size_of_buckets_changes_no_byte(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    plain, _ = filtered(tmp_path / "plain", recipe, heldout=0.3)
    monkeypatch.setattr(placing, "BUCKET_BYTES", size)
    monkeypatch.setattr(placing, "HELD_BYTES", size // 2)
    run, _ = filtered(tmp_path / "run", recipe, heldout=0.3)
    for path in (plain.verdicts, *plain.kept.iterdir()):
        found = pq.read_table(run.path / path.relative_to(plain.path))
        assert found.equals(pq.read_table(path))


def test_worker_processes_find_the_same_however_many(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = filtered(tmp_path / "plain", recipe)
    monkeypatch.setattr(stage, "LocalLooking", looking.LocalLooking)
    for workers in (1, 3):
        run, _ = filtered(tmp_path / str(workers), recipe, workers=workers)
        for path in (plain.verdicts, *plain.kept.iterdir()):
            assert sha256_file(path) == sha256_file(run.path / path.relative_to(plain.path))
