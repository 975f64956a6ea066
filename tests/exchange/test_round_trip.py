"""The real exporter and the real importer, one after the other: nothing is lost on the way, however often it is gone.

What may differ after the first import is named in FOUND_LATER; everything else is the same byte for byte.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from ledger_material import write_all

from distill import compose, specs
from distill.contract import STEP_BY_STEP, parse_canonical
from distill.errors import InputError
from distill.exchange.exporting import export
from distill.exchange.importing import Imports, Options, import_places
from distill.filter_specs import DEFAULT_CHECKS
from distill.generate.reparse import reparse
from distill.pipeline import recipe_of, run_recipe
from distill.prompts.stage import read_prompts
from distill.records import Prompt, Trace, Verdict, trace_key
from distill.rundir import RunDir
from exchange.exported import CHATML_STUDENT, PROMPTS, R1_STUDENT, run_by_hand, traces
from exchange.material import EXPECTED, FIXTURES, SETS

FOUND_LATER = ("source", "language", "marks")
"""Fields of a prompt that the prompts stage fills in where they are null. A run by hand, unlike any that went through
the stage, has them null, so its first import adds them: the source is called by its file's name."""


def imported(run: RunDir, *places: Path, **options: Any) -> Imports:
    """What the command does: import, recipe, the first two stages."""
    base = compose.import_base(run)
    found = import_places(run, [str(place) for place in places], Options(**options))
    compose.keep_recipe(run, compose.import_recipe(run, base, found.teachers, ()))
    run_recipe(specs.recipe(str(run.recipe)), run, last="generate")
    return found


def filtered(run: RunDir, **settings: Any) -> dict[str, Any]:
    recipe = specs.recipe(str(run.recipe), settings)
    compose.keep_recipe(run, recipe)
    run_recipe(recipe, run, first="filter", last="filter", force=True)
    return run.stages()["filter"].counts


def exported(run: RunDir, out: Path) -> bytes:
    return export(recipe_of(run), run, "jsonl", out=out).out.read_bytes()


def lines(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def around(folder: Path, first: bytes, name: str = "one.jsonl") -> tuple[bytes, RunDir]:
    """The export of a new run into which `first`, which lies in `folder` as `name`, was imported."""
    assert (folder / name).read_bytes() == first
    run = RunDir(folder / f"run-of-{name}")
    found = imported(run, folder / name)
    assert found.unreadable == {}
    return exported(run, folder / f"again-{name}"), run


def plain(text: bytes) -> list[dict[str, Any]]:
    """The lines without what may differ; those of prompts that nobody was asked, whose order is by chance, sorted."""
    found = lines(text)
    for line in found:
        line["prompt"] = line["prompt"] and {k: v for k, v in line["prompt"].items() if k not in FOUND_LATER}
    return sorted(found, key=lambda line: (line["trace"] is None and line["prompt"]["id"]) or "")


# --- everything, as JSONL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_an_imported_set_comes_back_byte_for_byte(name: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert imported(run, FIXTURES / f"{name}.jsonl").traces == len(EXPECTED[name]["traces"])
    first = exported(run, tmp_path / "one.jsonl")
    assert len(lines(first)) == len(EXPECTED[name]["traces"])
    told = {Prompt.from_json(line["prompt"]) for line in lines(first)}
    assert told == set(read_prompts(run.prompts)), "as the prompts stage left them, not as they were imported"
    counts = export(recipe_of(run), run, "jsonl", out=tmp_path / "one.jsonl").counts
    assert (counts["prompts"], counts["unsampled"], counts["unknown_prompt"]) == (len(told), 0, 0)
    second, other = around(tmp_path, first)
    assert second == first
    assert list(other.ledger().records()) == list(run.ledger().records())
    assert set(read_prompts(other.prompts)) == set(read_prompts(run.prompts))
    assert imported(other, FIXTURES / f"{name}.jsonl").traces == 0, "the same traces as those of the set itself"


def test_verdicts_come_along_and_a_filter_finds_the_same(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, FIXTURES / "openr1-math.jsonl")
    counts = filtered(run)
    first = exported(run, tmp_path / "one.jsonl")
    assert sum(len(line["verdicts"]) for line in lines(first)) == (len(DEFAULT_CHECKS) + 1) * 29
    second, other = around(tmp_path, first)
    assert second == first
    again = filtered(other)
    assert {k: v for k, v in again.items() if k != "_lines"} == {k: v for k, v in counts.items() if k != "_lines"}
    assert exported(other, tmp_path / "filtered.jsonl") == first
    assert sorted(kept_texts(other)) == sorted(kept_texts(run))


def test_a_run_with_failures_revisions_and_unasked_prompts_comes_back_whole(tmp_path: Path) -> None:
    _, run = run_by_hand(tmp_path / "run")
    first = exported(run, tmp_path / "one.jsonl")
    second, other = around(tmp_path, first)
    assert plain(second) == plain(first)
    assert list(other.ledger().records()) == list(run.ledger().records()), "failures and revisions among them"
    assert {prompt.id for prompt in read_prompts(other.prompts)} == {prompt.id for prompt in PROMPTS}
    assert Counter(stored(other)) == Counter(stored(run))
    third, _ = around(tmp_path, second, "again-one.jsonl")
    assert plain(third) == plain(second)
    with_record = [[line for line in lines(text) if line["trace"]] for text in (second, third)]
    assert with_record[0] == with_record[1]


def test_traces_asked_with_an_instruction_keep_their_questions_twice(tmp_path: Path) -> None:
    """The id is one that somebody gave, so that only the import knows whose question was asked."""
    _, run = run_by_hand(tmp_path / "run")
    second, other = around(tmp_path, exported(run, tmp_path / "one.jsonl"))
    asked = [line for line in lines(second) if line["trace"] and line["trace"]["prompt_id"] == "one"]
    assert [line["prompt"]["question"] for line in asked] == ["What is 1 + 1?"] * 3
    assert filtered(other)["traces"] == 4
    third, last = around(tmp_path, second, "again-one.jsonl")
    assert len(lines(third)) == len(lines(second)) == 6
    assert filtered(last)["traces"] == 4


def test_traces_of_questions_that_were_left_out_are_handed_over_with_them(tmp_path: Path) -> None:
    question = "A farmer has twelve baskets of seven apples and sells three of them. How many apples are left for him?"
    rows = [(question, "63"), (question.replace("farmer", "farmer ").upper(), "63 apples"), ("What is 2 + 2?", "4")]
    run = RunDir(tmp_path / "run")
    imported(run, written(tmp_path / "set.jsonl", *(message(asked, f"<think>a</think>{said}") for asked, said in rows)))
    assert len(list(read_prompts(run.prompts))) == 2, "one is nearly the other"
    counts = run.stages()["generate"].counts
    assert (counts["imported"], counts["answered"]) == (3, 2)
    first = exported(run, tmp_path / "one.jsonl")
    assert [line["prompt"]["question"] for line in lines(first)] == [asked for asked, _ in rows]
    second, other = around(tmp_path, first)
    assert second == first
    assert len(list(other.ledger().traces())) == 3


def test_a_record_whose_question_is_lost_is_kept(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    late = replace(traces(recipe)[0], prompt_id="gone", asked="a" * 64)
    write_all(run.traces, [replace(late, key=own_key(late))])
    first = exported(run, tmp_path / "one.jsonl")
    assert [line["prompt"] is None for line in lines(first)] == [False] * 5 + [True, False]
    second, other = around(tmp_path, first)
    assert plain(second) == plain(first)
    assert filtered(other)["traces"] == 4, "it cannot be trained on"
    alone = written(tmp_path / "alone.jsonl", lines(first)[5])
    with pytest.raises(InputError, match="not one row says which question"):
        import_places(RunDir(tmp_path / "alone"), [str(alone)], Options())


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": None, "trace": None, "verdicts": []},
        {"prompt": "What?", "trace": None, "verdicts": []},
        {"prompt": {"question": "What?"}, "trace": "that", "verdicts": []},
        {"prompt": {}, "trace": None, "verdicts": []},
    ],
)
def test_a_row_without_record_and_question_is_listed(row: dict[str, Any], tmp_path: Path) -> None:
    first, *_ = lines(exported(run_by_hand(tmp_path / "run")[1], tmp_path / "one.jsonl"))
    run = RunDir(tmp_path / "other")
    found = imported(run, written(tmp_path / "mixed.jsonl", first, row))
    assert (found.traces, found.prompts, found.unreadable) == (1, 1, {"bad_record": 1})


def test_a_list_of_what_was_asked_that_a_kill_cut_off_is_read(tmp_path: Path) -> None:
    _, other = around(tmp_path, exported(run_by_hand(tmp_path / "run")[1], tmp_path / "one.jsonl"))
    path = other.imported / "asked.jsonl"
    path.write_bytes(path.read_bytes() + b'{"asked": "abc')
    assert filtered(other)["traces"] == 4
    assert len(lines(exported(other, tmp_path / "cut.jsonl"))) == 6


def test_a_run_that_was_really_sampled_comes_back_byte_for_byte(tmp_path: Path) -> None:
    """By the embedded teacher: its prompts went through the prompts stage, so nothing at all differs."""
    run = RunDir(tmp_path / "run")
    text = {
        "name": "sampled",
        "prompts": [{"source": "arithmetic", "limit": 6}],
        "teacher": "tiny-r1",
        "generate": {"samples": 2, "max_tokens": 48},
    }
    run_recipe(specs.parse(specs.Recipe, yaml.safe_dump(text), "test"), run, last="filter")
    first = exported(run, tmp_path / "one.jsonl")
    assert len(lines(first)) == 12
    assert {line["trace"]["finish_reason"] for line in lines(first)} >= {"length"}
    second, other = around(tmp_path, first)
    assert second == first
    filtered(other)
    assert exported(other, tmp_path / "filtered.jsonl") == first


def test_a_set_and_an_export_of_it_are_the_same_in_either_order(tmp_path: Path) -> None:
    """The same records, but for the time of import."""
    place = FIXTURES / "openthoughts-114k.jsonl"
    run, other = RunDir(tmp_path / "run"), RunDir(tmp_path / "other")
    imported(run, place)
    exported(run, tmp_path / "one.jsonl")
    imported(other, place)
    found = imported(other, tmp_path / "one.jsonl")
    assert (found.traces, found.there, found.unreadable) == (0, 21, {})


def test_records_in_another_order_leave_no_number_twice(tmp_path: Path) -> None:
    """A reply that comes later is a sample of its own, whatever the order of those that are there."""
    run, other = RunDir(tmp_path / "run"), RunDir(tmp_path / "other")
    replies = [message("What is 2 + 2?", f"<think>{n}</think>4") for n in range(3)]
    imported(run, written(tmp_path / "set.jsonl", *replies[:2]))
    first, second = lines(exported(run, tmp_path / "one.jsonl"))
    imported(other, written(tmp_path / "turned.jsonl", second, first))
    assert imported(other, written(tmp_path / "more.jsonl", replies[2])).traces == 1
    assert [trace.sample for trace in other.ledger().traces()] == [1, 0, 2]
    assert len({trace.key for trace in other.ledger().records()}) == 3


def test_two_imported_runs_are_put_together(tmp_path: Path) -> None:
    """Each has its own first reply to the same question; reparsing gave one of them a second revision."""
    for name in ("a", "b"):
        run = RunDir(tmp_path / name)
        imported(run, written(tmp_path / f"{name}.jsonl", message("What is 2 + 2?", f"<think>{name}</think>4")))
        if name == "b":
            other = specs.recipe(str(run.recipe), {"teacher_overrides.reasoning_format": "plain"})
            assert reparse(other, run) == (1, 1)
        filtered(run)
        exported(run, tmp_path / f"out-{name}.jsonl")
    both = RunDir(tmp_path / "both")
    for start in range(2):
        found = imported(both, tmp_path / "out-a.jsonl", tmp_path / "out-b.jsonl")
        assert (found.traces, found.there, found.unreadable) == ((3, 0, {}) if start == 0 else (0, 3, {}))
    records = list(both.ledger().records())
    assert [(t.sample, t.revision, t.raw) for t in records] == [
        (0, 0, "<think>a</think>4"),
        (1, 0, "<think>b</think>4"),
        (1, 1, "<think>b</think>4"),
    ]
    assert all(trace.key == own_key(trace) for trace in records)
    verdicts = [Verdict.from_json(row) for row in pq.read_table(both.verdicts).to_pylist()]
    assert {verdict.trace_key for verdict in verdicts} == {trace.key for trace in records}


def test_verdicts_of_a_filter_stay_when_more_is_imported(tmp_path: Path) -> None:
    run, other = RunDir(tmp_path / "run"), RunDir(tmp_path / "other")
    imported(run, FIXTURES / "openr1-math.jsonl")
    filtered(run)
    exported(run, tmp_path / "one.jsonl")
    imported(other, FIXTURES / "sharegpt.jsonl")
    filtered(other)
    before = stored(other)
    imported(other, tmp_path / "one.jsonl")
    assert stored(other) == before


def test_a_limit_is_of_all_files_and_an_empty_one_among_them_is_no_error(tmp_path: Path) -> None:
    empty, half = written(tmp_path / "empty.jsonl"), written(tmp_path / "one.jsonl", message("q", "<think>a</think>b"))
    found = imported(RunDir(tmp_path / "run"), empty, half, FIXTURES / "sharegpt.jsonl", limit=3)
    assert (found.rows, dict(found.layouts)) == (3, {"messages": 1, "sharegpt": 2})


# --- rows to train on ------------------------------------------------------------------------------------------------


def kept_texts(run: RunDir) -> list[tuple[str, str]]:
    files = sorted(run.kept.glob("*.parquet"))
    return [tuple(m["content"] for m in row["messages"]) for f in files for row in pq.read_table(f).to_pylist()]


@pytest.mark.parametrize("name", ["openr1-math", "openthoughts-114k", "messages", "openmathreasoning"])
@pytest.mark.parametrize("form", ["messages", "axolotl", "llama-factory", "parquet"])
def test_rows_to_train_on_come_back_as_messages(name: str, form: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, FIXTURES / f"{name}.jsonl")
    filtered(run, **{"filter.heldout": 0})
    tool = form if form in ("axolotl", "llama-factory") else None
    made = export(recipe_of(run), run, "messages" if tool else form, tool=tool, split="all")
    place = made.out / "train.jsonl" if tool else made.out / "train.parquet" if form == "parquet" else made.out
    other = RunDir(tmp_path / "other")
    found = imported(other, place)
    assert dict(found.layouts) == {"messages": found.rows}
    assert (found.traces, found.unreadable) == (made.counts["train"], {})
    questions = {prompt.id: prompt for prompt in read_prompts(other.prompts)}
    texts = [(questions[t.prompt_id].question, t.reasoning, t.answer) for t in other.ledger().traces()]
    parsed = [(asked, parse_canonical(reply)) for asked, reply in kept_texts(run)]
    assert texts == [(asked, reply.reasoning, reply.answer) for asked, reply in parsed]
    if form == "parquet":
        golds = {prompt.question: (prompt.kind, prompt.answer) for prompt in read_prompts(run.prompts)}
        assert {p.question: (p.kind, p.answer) for p in questions.values()}.items() <= golds.items()


@pytest.mark.parametrize("student", [R1_STUDENT, CHATML_STUDENT])
def test_rows_for_a_student_say_what_it_is_told(student: dict[str, Any], tmp_path: Path) -> None:
    """The student's instruction stands in the question then, and its system prompt is counted: `jsonl` has neither."""
    recipe, run = run_by_hand(tmp_path / "run", student)
    found = imported(RunDir(tmp_path / "other"), export(recipe, run, "messages", split="all").out)
    told = student.get("system") is not None
    assert (found.traces, found.with_system) == (3, 3 if told else 0)
    questions = [prompt.question for prompt in read_prompts(tmp_path / "other" / "prompts.parquet")]
    assert ("What is 1 + 1?" + (f"\n\n{STEP_BY_STEP}" if told else "")) in questions
    greeting = next(t for t in RunDir(tmp_path / "other").ledger().traces() if "Hello" in (t.answer or ""))
    assert (greeting.reasoning or "", greeting.answer) == ("", "Hello\u2028there\nand there")


def test_rows_for_trl_are_no_layout_and_the_error_says_which_are(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    out = export(recipe, run, "messages", tool="trl").out
    with pytest.raises(InputError, match="no known layout has these columns") as caught:
        imported(RunDir(tmp_path / "other"), out / "train.jsonl")
    assert "columns prompt, completion" in str(caught.value)
    assert "messages" in str(caught.value)


# --- small parts -----------------------------------------------------------------------------------------------------


def stored(run: RunDir) -> list[str]:
    return [str(Verdict.from_json(row)) for row in pq.read_table(run.verdicts).to_pylist()]


def own_key(trace: Trace) -> str:
    return trace_key(trace.asked, trace.sample, trace.teacher, trace.sampling.requested)


def message(question: str, reply: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]}


def written(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path
