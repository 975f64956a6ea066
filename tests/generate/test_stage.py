"""The generate stage against the scripted server: what each option asks for, keeps, counts and tells."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from http_teacher import Fault, HttpTeacher, Said, Seen

from distill import specs
from distill.errors import DistillError, EndpointError, SpecError, UsageError
from distill.generate import glance, sight
from distill.generate.before import put_aside_damage
from distill.pipeline import run_recipe
from distill.records import Trace
from distill.rundir import RunDir
from distill.sampling import fleet, scheduler

WORDS = 42
"""Tokens of a reply: its words, and two for the end of its reasoning."""


def answer(question: str) -> Said:
    """Right for questions with an even number, always in WORDS tokens."""
    if not question.startswith("What is"):
        return Said("Hello there", reasoning="Somebody greets me")
    number = int(question.split()[2])
    thought = " ".join(f"step{n}of{number}" for n in range(WORDS - 4))
    return Said(f"\\boxed{{{2 * number if number % 2 == 0 else 0}}} done", reasoning=thought)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(fleet, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(fleet, "TICK", 0.02)


@pytest.fixture
def teacher() -> Iterator[HttpTeacher]:
    with HttpTeacher(answer) as running:
        yield running


def recipe(folder: Path, teacher: HttpTeacher, count: int = 6, kind: str = "math", **settings: Any) -> specs.Recipe:
    """A recipe over `count` questions; settings of `generate` by name, others with `__` for the dots."""
    rows = (
        {"question": f"What is {n} + {n}?", "answer": str(2 * n), "id": f"q{n}", "kind": kind} for n in range(count)
    )
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = "name: t\nmodel: scripted\nserved: true\nrevision: '1'\nreasoning_format: field\nreasons: true\n"
    (folder / "t.yaml").write_text(spec + "continuation: token_ids\nmax_tokens: 1000\n", encoding="utf-8")
    generate = {key: value for key, value in settings.items() if "__" not in key}
    text = {
        "name": "r",
        "seed": 5,
        "teacher": str(folder / "t.yaml"),
        "prompts": [{"source": str(folder / "questions.jsonl")}],
        "prepare": {"near_duplicates": False},
        "generate": {"engine": "openai", "url": teacher.url, "concurrency": 4, **generate},
    }
    changes = {key.replace("__", "."): value for key, value in settings.items() if "__" in key}
    return specs.parse(specs.Recipe, json.dumps(text), "test", changes)


def generated(folder: Path, teacher: HttpTeacher, count: int = 6, **settings: Any) -> dict[str, Any]:
    """Runs the stage and returns its counts, `_lines` and all."""
    run = RunDir(folder / "run")
    run_recipe(recipe(folder, teacher, count, **settings), run, last="generate")
    state = run.stages()["generate"]
    return {**state.counts, "state": state.state}


def traces(folder: Path) -> list[Trace]:
    return list(RunDir(folder / "run").ledger().traces())


def asked(teacher: HttpTeacher) -> list[Seen]:
    """Questions that came, without the greeting that finds out whether a server can go on with a reply."""
    return [seen for seen in teacher.chats if seen.question.startswith("What is")]


def records(folder: Path) -> list[Trace]:
    return list(RunDir(folder / "run").ledger().records())


# --- failures --------------------------------------------------------------------------------------------------------


def failing(*questions: str) -> Any:
    """The server cannot read these questions, the first time they come."""
    left = Counter(questions)

    def script(number: int, seen: Seen) -> Fault | None:
        question = seen.body["messages"][-1]["content"].split("\n")[0]
        left[question] -= 1
        return Fault("status", 400, message="cannot be read") if left[question] >= 0 else None

    return script


def test_siblings_are_independent_and_only_failures_are_tried_again_when_asked(tmp_path: Path) -> None:
    with HttpTeacher(answer, faults=failing("What is 2 + 2?", "What is 3 + 3?", "What is 3 + 3?")) as teacher:
        first = generated(tmp_path, teacher, samples=2)
        assert (first["answered"], first["failed"], first["state"]) == (9, 3, "incomplete")
        errors = [trace for trace in records(tmp_path) if trace.finish_reason == "error"]
        assert Counter(trace.prompt_id for trace in errors) == {"q2": 1, "q3": 2}
        assert all(trace.error == "the server answers 400: cannot be read" and trace.attempts == 1 for trace in errors)
        before = len(asked(teacher))
        more = generated(tmp_path, teacher, samples=3, retry_failed=True)
        assert len(asked(teacher)) - before == 3, "six samples more are wanted, and not asked for now"
        assert (more["answered"], more["failed"], more["state"]) == (12, 0, "incomplete")
        kept = (tmp_path / "run/recipe.yaml").read_text()
        assert "retry_failed" not in kept, "it was for that start"
        last = generated(tmp_path, teacher, samples=3)
    assert (last["answered"], last["state"]) == (18, "done")
    assert any("--retry-failed" in line for line in first["_lines"])


def test_a_reply_without_reasoning_is_a_failure_whose_text_is_kept(tmp_path: Path) -> None:
    said = Counter[str]()

    def sometimes(question: str) -> Said:
        said[question] += 1
        return Said("\\boxed{4}") if "What is 2" in question and said[question] == 1 else answer(question)

    with HttpTeacher(sometimes) as teacher:
        first = generated(tmp_path, teacher)
        (failed,) = [trace for trace in traces(tmp_path) if trace.finish_reason == "error"]
        assert (failed.prompt_id, failed.raw, failed.reasoning) == ("q2", "\\boxed{4}", None)
        assert failed.error == "the reply holds no reasoning, which this teacher always gives"
        assert failed.completion_tokens == 2, "it was paid for, and that counts"
        assert first["failed"] == 1
        second = generated(tmp_path, teacher)
        seeds = [chat.body["seed"] for chat in asked(teacher) if "What is 2" in chat.question]
    assert second["state"] == "done"
    assert len(set(seeds)) == 2, "with the same seed the same reply would come back"
    assert len({trace.key for trace in records(tmp_path) if trace.prompt_id == "q2"}) == 1


def test_reasoning_is_not_asked_of_a_prompt_that_wants_none(tmp_path: Path) -> None:
    with HttpTeacher(lambda question: Said("\\boxed{4}")) as teacher:
        counts = generated(tmp_path, teacher, prompts__0__reasoning="none")
    assert counts["failed"] == 0


def test_only_failures_where_there_are_none(
    tmp_path: Path, teacher: HttpTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = generated(tmp_path, teacher, retry_failed=True)
    assert "0 of 6 samples are there already, 0 to go, those that failed" in capsys.readouterr().err
    assert (counts["answered"], counts["state"], asked(teacher)) == (0, "incomplete", [])


# --- enough is enough ------------------------------------------------------------------------------------------------


def test_until_correct_asks_again_only_where_too_few_are_right(tmp_path: Path, teacher: HttpTeacher) -> None:
    counts = generated(tmp_path, teacher, samples=4, until_correct=1)
    found_of = Counter(trace.prompt_id for trace in traces(tmp_path))
    assert found_of == {f"q{n}": 1 if n % 2 == 0 else 4 for n in range(6)}
    found = counts["until_correct"]
    assert (found["prompts"], found["solved"], found["exhausted"], found["right"]) == (6, 3, 3, 3)
    assert found["samples_saved"] == 9
    assert found["tokens_saved"] == 9 * WORDS
    assert counts["state"] == "done"
    assert "3 of 6 prompts solved" in " ".join(counts["_lines"])
    before = len(asked(teacher))
    again = generated(tmp_path, teacher, samples=5, until_correct=1)
    assert len(asked(teacher)) - before == 3, "one more for each that is not solved"
    assert again["until_correct"]["right"] == 3


def test_until_correct_goes_on_with_a_cut_reply_before_it_judges_it(tmp_path: Path, teacher: HttpTeacher) -> None:
    generated(tmp_path, teacher, samples=2, until_correct=1, max_tokens=10)
    assert {trace.finish_reason for trace in traces(tmp_path)} == {"length"}
    before = len(asked(teacher))
    counts = generated(tmp_path, teacher, samples=2, until_correct=1, max_tokens=100, continue_truncated=True)
    assert {trace.finish_reason for trace in traces(tmp_path)} == {"stop"}
    assert counts["until_correct"]["solved"] == 3
    assert len(asked(teacher)) == before, "both samples of each prompt were there, cut"


def test_until_correct_needs_a_verifier(tmp_path: Path, teacher: HttpTeacher) -> None:
    with pytest.raises(SpecError, match="there is no module 'nowhere'"):
        generated(tmp_path, teacher, samples=2, until_correct=1, verify="nowhere:judge")
    assert not asked(teacher)


# --- long replies ----------------------------------------------------------------------------------------------------


def test_slices_make_the_reply_that_one_request_makes(tmp_path: Path, teacher: HttpTeacher) -> None:
    (tmp_path / "whole").mkdir()
    generated(tmp_path / "whole", teacher, 2)
    generated(tmp_path, teacher, 2, slice_tokens=16)
    texts = [
        {trace.prompt_id: (trace.raw, trace.raw_reasoning, trace.reasoning, trace.answer) for trace in traces(folder)}
        for folder in (tmp_path / "whole", tmp_path)
    ]
    assert texts[0] == texts[1]
    assert all(trace.completion_tokens == WORDS for trace in traces(tmp_path))
    assert all(trace.output_ids is None and not trace.unfinished for trace in traces(tmp_path)), (
        "whole ones need no ids"
    )
    slices = [record for record in records(tmp_path) if record.prompt_id == "q0"]
    assert [record.revision for record in slices] == [0, 1, 2]
    assert [record.unfinished for record in slices] == [True, True, False]
    assert all(seen.body["max_tokens"] <= 16 for seen in (*asked(teacher)[2:], *teacher.completions))


def test_a_server_that_dies_costs_one_slice(tmp_path: Path, teacher: HttpTeacher) -> None:
    """It dies with the third request of a reply; a later start goes on behind the second slice."""

    def gone(number: int, seen: Seen) -> Fault | None:
        return Fault("status", 401) if number >= 3 else None  # a greeting, a chat, a completion

    teacher.faults = gone
    with pytest.raises(EndpointError):
        generated(tmp_path, teacher, 1, slice_tokens=16)
    (half,) = traces(tmp_path)
    assert (half.unfinished, half.completion_tokens, half.max_tokens) == (True, 32, 1_000)
    assert half.output_ids is not None
    teacher.faults = lambda number, seen: None
    before = len(asked(teacher)), len(teacher.completions)
    counts = generated(tmp_path, teacher, 1, slice_tokens=16)
    (whole,) = traces(tmp_path)
    assert counts["state"] == "done"
    assert whole.finish_reason == "stop"
    assert len(asked(teacher)) == before[0], "nothing begins anew"
    assert len(teacher.completions) - before[1] == 1


def test_a_reply_that_fails_between_two_slices_goes_on_with_the_same_command(
    tmp_path: Path, teacher: HttpTeacher
) -> None:
    """What it has was paid for, and the failure of the rest does not make it a finished one."""
    failing_rest = {"What is 3 + 3?"}

    def script(number: int, seen: Seen) -> Fault | None:
        continues = seen.path == "/v1/completions" and "step3of3" not in json.dumps(seen.body) and failing_rest
        return Fault("status", 500) if continues and number % 7 == 6 else None

    teacher.faults = script
    first = generated(tmp_path, teacher, 6, slice_tokens=16, max_attempts=1)
    left = [trace for trace in traces(tmp_path) if trace.unfinished]
    assert left, "at least one of their requests met the fault"
    assert first["state"] == "incomplete"
    assert f"{len(left)} replies stopped between two slices; the same command goes on with them" in first["_lines"]
    teacher.faults = lambda number, seen: None
    before = len(asked(teacher))
    last = generated(tmp_path, teacher, 6, slice_tokens=16, max_attempts=1)
    assert (last["answered"], last["state"]) == (6, "done")
    assert len(asked(teacher)) == before
    assert not any(trace.unfinished for trace in traces(tmp_path))


def test_a_truncated_reply_goes_on_when_asked_and_not_before(tmp_path: Path, teacher: HttpTeacher) -> None:
    first = generated(tmp_path, teacher, max_tokens=10)
    assert (first["cut"], first["state"]) == (6, "done")
    assert not any(trace.unfinished for trace in traces(tmp_path)), "each is as long as it was allowed to be"
    longer = generated(tmp_path, teacher, max_tokens=100)
    assert longer["cut"] == 6
    counts = generated(tmp_path, teacher, max_tokens=100, continue_truncated=True)
    assert (counts["cut"], counts["answered"]) == (0, 6)
    assert len(asked(teacher)) == 6, "each was begun once"
    assert {trace.answer for trace in traces(tmp_path)} == {f"\\boxed{{{n}}} done" for n in (0, 4, 8)}


def test_a_reply_whose_context_is_full_does_not_go_on(tmp_path: Path, teacher: HttpTeacher) -> None:
    teacher.context = 30
    generated(tmp_path, teacher, 2, slice_tokens=16)
    assert {(trace.finish_reason, trace.unfinished, trace.can_go_on) for trace in traces(tmp_path)} == {
        ("length", False, False)
    }
    before = len(teacher.requests)
    generated(tmp_path, teacher, 2, slice_tokens=16, continue_truncated=True)
    assert [seen for seen in teacher.requests[before:] if seen.path.endswith("ompletions")] == []


def test_a_reply_that_goes_round_in_circles_is_stopped_between_slices(tmp_path: Path) -> None:
    endless = " ".join(["and then it goes round and round again as it did one time before"] * 2_000)
    with HttpTeacher(lambda question: Said("x", reasoning=endless), context=100_000) as teacher:
        counts = generated(tmp_path, teacher, 1, slice_tokens=2_048, max_tokens=16_000)
    (trace,) = traces(tmp_path)
    assert trace.finish_reason == "loop"
    assert (trace.completion_tokens or 0) < 8_000, "and not paid for up to its limit"
    assert counts["looped"] == 1
    assert trace.output_ids is None
    assert counts["state"] == "done"
    assert "1 stopped as loops" in counts["_lines"][0]


@pytest.mark.parametrize("option", ["slice_tokens", "continue_truncated"])
@pytest.mark.parametrize(("ability", "reason"), [("none", "cannot go on"), ("prefix", "tokenized anew")])
def test_an_endpoint_that_cannot_go_on_by_ids_is_refused(
    tmp_path: Path, teacher: HttpTeacher, option: str, ability: str, reason: str
) -> None:
    settings: dict[str, Any] = {option: 64 if option == "slice_tokens" else True}
    with pytest.raises(UsageError, match=reason):
        generated(tmp_path, teacher, teacher_overrides__continuation=ability, **settings)
    assert not asked(teacher)


def test_a_server_that_tells_no_ids_is_found_before_anything_is_bought(tmp_path: Path, teacher: HttpTeacher) -> None:
    teacher.continues = False
    with pytest.raises(EndpointError, match="token ids"):
        generated(tmp_path, teacher, slice_tokens=16)
    assert asked(teacher) == [], "but for a greeting of four tokens"
    assert traces(tmp_path) == []


# --- budgets ---------------------------------------------------------------------------------------------------------


def test_a_budget_of_tokens_ends_the_run_cleanly_and_a_larger_one_goes_on(tmp_path: Path, teacher: HttpTeacher) -> None:
    first = generated(tmp_path, teacher, 40, concurrency=2, max_concurrency=2, max_tokens_total=10 * WORDS)
    assert first["this_start"]["stopped_by"] == "--max-tokens-total 420 is reached"
    assert first["state"] == "incomplete"
    assert 8 <= first["answered"] <= 10
    assert any("30 samples to go" in line or "3" in line for line in first["_lines"] if line.startswith("stopped"))
    again = generated(tmp_path, teacher, 40, concurrency=2, max_tokens_total=10 * WORDS)
    assert again["answered"] == first["answered"], "what earlier starts paid counts"
    last = generated(tmp_path, teacher, 40, max_tokens_total=10_000)
    assert (last["answered"], last["state"]) == (40, "done")


def test_a_budget_of_money_needs_a_price_and_keeps_to_it(tmp_path: Path, teacher: HttpTeacher) -> None:
    with pytest.raises(UsageError, match="--max-cost needs a price"):
        generated(tmp_path, teacher, max_cost=1.0)
    price = {"teacher_overrides__price": {"prompt": 0.0, "completion": 1_000_000 / WORDS}}  # a reply costs one
    counts = generated(tmp_path, teacher, 40, concurrency=1, max_concurrency=1, max_cost=5.0, **price)
    assert counts["answered"] == 5
    assert counts["this_start"]["stopped_by"] == "--max-cost 5 is reached"


def test_hours_end_it_too(tmp_path: Path, teacher: HttpTeacher) -> None:
    teacher.latency = 0.1
    counts = generated(tmp_path, teacher, 40, concurrency=1, max_concurrency=1, max_hours=0.5 / 3_600)
    assert 0 < counts["answered"] < 40
    assert counts["this_start"]["stopped_by"].startswith("--max-hours")
    assert counts["state"] == "incomplete"


def test_a_limit_that_is_met_by_the_last_reply_leaves_nothing_to_go(tmp_path: Path, teacher: HttpTeacher) -> None:
    counts = generated(tmp_path, teacher, 4, concurrency=1, max_concurrency=1, max_tokens_total=4 * WORDS)
    assert (counts["answered"], counts["state"]) == (4, "done")
    assert not any(line.startswith("stopped") for line in counts["_lines"])


# --- sight -----------------------------------------------------------------------------------------------------------


def quick_once_judged(run: RunDir, teacher: HttpTeacher) -> None:
    """The verifiers' processes take seconds to start on a loaded machine: until then the teacher is slow."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if run.metrics.is_file() and re.search(r'"judged": [1-9]', run.metrics.read_text(encoding="utf-8")):
            break
        time.sleep(0.05)
    teacher.latency = 0.01


def test_machines_read_the_same_as_the_eye(
    tmp_path: Path, teacher: HttpTeacher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sight, "LINE_SECONDS", 0.05)
    monkeypatch.setattr("distill.progress.LINE_SECONDS", 0.05)
    monkeypatch.setattr(sight, "DRAW_SECONDS", 0.0)
    monkeypatch.setattr(glance, "AFTER_SECONDS", 0.0)
    monkeypatch.setattr(glance, "EVERY_SECONDS", 0.0)
    teacher.latency = 0.5
    first_verdict = threading.Thread(target=quick_once_judged, args=(RunDir(tmp_path / "run"), teacher))
    first_verdict.start()
    price = {"teacher_overrides__price": {"prompt": 1.0, "completion": 2.0}}
    generated(tmp_path, teacher, 60, concurrency=2, max_concurrency=2, **price)
    first_verdict.join()
    lines = [json.loads(line) for line in RunDir(tmp_path / "run").metrics.read_text().splitlines()]
    found = [line for line in lines if line["stage"] == "generate"]
    assert len(found) > 3
    last = found[-1]
    assert (last["samples"], last["done"], last["answered"], last["failed"], last["cut"]) == (60, 60, 60, 0, 0)
    assert last["completion_tokens"] == last["tokens_paid_in_all"] == 60 * WORDS
    assert last["cost"] == pytest.approx((last["prompt_tokens"] + 2 * last["completion_tokens"]) / 1e6)
    assert last["endpoints"] == [
        {
            "name": "openai",
            "state": "ok",
            "in_flight": 0,
            "limit": 2,
            "answered": 60,
            "completion_tokens": 60 * WORDS,
        }
    ]
    assert 0 < last["right"] < last["judged"] <= 60, "half of them are right"
    told = [line for line in capsys.readouterr().err.splitlines() if "tokens/s" in line]
    assert told
    assert "openai ok" in told[-1]
    assert "% right of" in told[-1]
    assert "cost 0.0" in told[-1]
    assert "s left" in told[-1]


# --- what is stored --------------------------------------------------------------------------------------------------


def test_a_damaged_part_is_put_aside_and_only_its_traces_are_bought_again(
    tmp_path: Path, teacher: HttpTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    generated(tmp_path, teacher, 4)
    generated(tmp_path, teacher, 10)
    run = RunDir(tmp_path / "run")
    first, second = run.ledger().parts()
    content = bytearray(second.read_bytes())
    content[len(content) // 3] ^= 1  # in a text, which opening does not read
    second.write_bytes(content)
    paid = len(asked(teacher))
    put_aside_damage(run)
    assert f"{second.name}" in capsys.readouterr().err
    counts = generated(tmp_path, teacher, 10)
    assert len(asked(teacher)) - paid == 6
    assert (counts["answered"], counts["state"]) == (10, "done")
    assert (run.traces / "quarantine" / second.name).exists()
    assert first.exists()


def test_what_an_endpoint_does_not_follow_is_recorded_apart(tmp_path: Path, teacher: HttpTeacher) -> None:
    generated(tmp_path, teacher, 1, teacher_overrides__ignores=["temperature"], generate__sampling__temperature=0.6)
    (trace,) = traces(tmp_path)
    assert trace.sampling.requested.temperature == 0.6
    assert trace.sampling.honoured is not None
    assert trace.sampling.honoured.temperature is None


def test_every_request_says_how_long_its_reply_may_be(tmp_path: Path, teacher: HttpTeacher) -> None:
    generated(tmp_path, teacher, slice_tokens=16)
    assert all(0 < seen.body["max_tokens"] <= 1_000 for seen in (*asked(teacher), *teacher.completions))


def test_a_finished_run_is_not_asked_for_anything(tmp_path: Path, teacher: HttpTeacher) -> None:
    generated(tmp_path, teacher)
    seen = len(teacher.requests)
    generated(tmp_path, teacher)
    with pytest.raises(DistillError, match="made by another recipe"):
        generated(tmp_path, teacher, teacher_overrides__revision="2")
    assert len(teacher.requests) == seen
