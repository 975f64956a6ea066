"""The sampler against a scripted engine: what is retried, recorded, stopped, saved and asked for again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distill.engines import AttemptError, EndpointError, RefusedError, Reply, Request
from distill.errors import INTERRUPTED, DiskFullError, DistillError, RunError
from distill.ledger import Ledger, LedgerReader
from distill.records import Trace
from distill.sampling import scheduler
from distill.sampling.requests import Task, task_for, wanted
from distill.sampling.scheduler import Limits, Progress, sample
from distill.sampling.tasks import Outlook
from sampling.scripted import Scripted, prompts, subject

TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(scheduler, "LONGEST_BACKOFF", 0.004)


def draw(folder: Path, engine: Scripted, count: int = 5, *, samples: int = 1, in_flight: int = 2) -> Progress:
    asked = prompts(count)
    with Ledger(folder) as ledger:
        progress = Progress(count * samples)
        tasks = wanted(asked, subject(), samples, ledger)
        return sample(tasks, subject(), engine, ledger, Limits(in_flight, 3), progress)


def by_prompt(folder: Path) -> dict[str, Trace]:
    return {trace.prompt_id: trace for trace in LedgerReader(folder).traces()}


# --- attempts --------------------------------------------------------------------------------------------------------


def test_every_sample_is_answered_and_recorded(tmp_path: Path) -> None:
    engine = Scripted()
    progress = draw(tmp_path, engine, 5, samples=2)
    found = list(LedgerReader(tmp_path).traces())
    assert (progress.answered, progress.failed, progress.done, progress.completion_tokens) == (10, 0, 10, 70)
    assert {(t.prompt_id, t.sample) for t in found} == {(f"p{n}", s) for n in range(5) for s in range(2)}
    assert all((t.reasoning, t.finish_reason, t.attempts, t.revision) == ("why", "stop", 1, 0) for t in found)
    assert all(t.answer == f"question {t.prompt_id[1:]}" and t.endpoint == "scripted" for t in found)
    assert engine.started
    assert engine.closed


def test_a_failed_attempt_is_made_again(tmp_path: Path) -> None:
    progress = draw(tmp_path, Scripted({"question 1": [AttemptError("busy")], "question 3": [AttemptError("b")] * 2}))
    assert (progress.answered, progress.failed, progress.retries) == (5, 0, 3)
    assert {p: t.attempts for p, t in by_prompt(tmp_path).items()} == {"p0": 1, "p1": 2, "p2": 1, "p3": 3, "p4": 1}


def test_it_gives_up_after_the_last_attempt_and_says_why(tmp_path: Path) -> None:
    engine = Scripted({"question 1": [AttemptError("first"), AttemptError("second"), AttemptError("third")]})
    progress = draw(tmp_path, engine)
    trace = by_prompt(tmp_path)["p1"]
    assert (trace.finish_reason, trace.error, trace.attempts, trace.raw) == ("error", "third", 3, "")
    assert (progress.answered, progress.failed) == (4, 1)
    assert engine.asked.count("question 1") == 3


def test_a_refused_request_is_not_made_again(tmp_path: Path) -> None:
    engine = Scripted({"question 2": [RefusedError("too long")]})
    progress = draw(tmp_path, engine)
    trace = by_prompt(tmp_path)["p2"]
    assert (trace.finish_reason, trace.error, trace.attempts) == ("error", "too long", 1)
    assert (progress.answered, progress.failed, progress.retries) == (4, 1, 0)
    assert engine.asked.count("question 2") == 1


def test_pauses_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    inner = asyncio.wait_for

    async def noting(awaitable: object, timeout: float) -> object:
        pauses.append(timeout)
        return await inner(awaitable, 0.0)  # type: ignore[arg-type]

    monkeypatch.setattr(scheduler, "FIRST_BACKOFF", 0.5)
    monkeypatch.setattr(scheduler, "LONGEST_BACKOFF", 3.0)
    monkeypatch.setattr(scheduler.asyncio, "wait_for", noting)
    script = {"question 0": [AttemptError("unreadable")] * 5}
    with Ledger(tmp_path) as ledger:
        tasks = wanted(prompts(1), subject(), 1, ledger)
        sample(tasks, subject(), Scripted(script), ledger, Limits(1, 9), Progress(1))
    for pause, longest in zip(pauses, (0.5, 1.0, 2.0, 3.0, 3.0), strict=True):
        assert longest / 2 <= pause <= longest


def test_a_job_of_which_nothing_was_answered_is_a_failure(tmp_path: Path) -> None:
    refused = Scripted({f"question {n}": [RefusedError("bad key word")] for n in range(3)})
    with pytest.raises(EndpointError, match="3 samples in a row failed") as caught:
        draw(tmp_path, refused, 3)
    assert caught.value.given == "bad key word"
    assert len(by_prompt(tmp_path)) == 3, "and all of it is recorded"


@pytest.mark.parametrize(("dead", "broken"), [(4, False), (5, True)])
def test_a_server_that_dies_near_the_end_does_not_pass_for_a_few_odd_prompts(
    tmp_path: Path, dead: int, broken: bool
) -> None:
    gone = {f"question {n}": [AttemptError("connection refused")] * 3 for n in range(10 - dead, 10)}
    if broken:
        with pytest.raises(EndpointError, match="5 samples in a row failed; the endpoint looks broken"):
            draw(tmp_path, Scripted(gone), 10, in_flight=1)
    else:
        progress = draw(tmp_path, Scripted(gone), 10, in_flight=1)
        assert (progress.answered, dict(progress.errors)) == (6, {"connection refused": 4})
    again = draw(tmp_path, Scripted(), 10)
    assert again.answered == dead, "what failed is asked again, the rest is there"


# --- order and laziness ----------------------------------------------------------------------------------------------


def test_samples_are_wanted_breadth_first() -> None:
    found = [(task.sample, task.prompt_id) for task in wanted(prompts(3), subject(), 2, ())]
    assert found == [(0, "p0"), (0, "p1"), (0, "p2"), (1, "p0"), (1, "p1"), (1, "p2")]


def test_tasks_are_pulled_only_when_there_is_room(tmp_path: Path) -> None:
    engine, pulled = Scripted(), []

    def tasks() -> Iterator[Task]:
        for number, task in enumerate(wanted(prompts(40), subject(), 1, ())):
            answered = sum(engine.attempts.values()) - engine.now
            assert number - answered < 3, "never more than what is in flight ahead of the answers"
            pulled.append(number)
            yield task

    with Ledger(tmp_path) as ledger:
        sample(tasks(), subject(), engine, ledger, Limits(3, 3), Progress(40))
    assert len(pulled) == 40
    assert engine.most == 3


def test_a_second_run_asks_only_for_what_is_missing_or_failed(tmp_path: Path) -> None:
    draw(tmp_path, Scripted({"question 1": [RefusedError("no")], "question 2": [AttemptError("x")] * 3}), 4)
    second = Scripted()
    draw(tmp_path, second, 6)
    assert sorted(second.asked) == ["question 1", "question 2", "question 4", "question 5"]
    found = by_prompt(tmp_path)
    assert {t.finish_reason for t in found.values()} == {"stop"}
    assert (found["p1"].revision, found["p2"].revision, found["p3"].revision) == (1, 1, 0)
    third = Scripted()
    assert draw(tmp_path, third, 6).answered == 0
    assert third.asked == []


def test_more_samples_and_longer_replies_leave_what_is_there(tmp_path: Path) -> None:
    draw(tmp_path, Scripted(), 3)
    first = {trace.key for trace in LedgerReader(tmp_path).traces()}
    longer = Scripted()
    with Ledger(tmp_path) as ledger:
        tasks = wanted(prompts(3), subject(max_tokens=9_999), 2, ledger)
        sample(tasks, subject(max_tokens=9_999), longer, ledger, Limits(2, 3), Progress(6))
    assert len(longer.asked) == 3
    assert first < {trace.key for trace in LedgerReader(tmp_path).traces()}


# --- stops -----------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_is_gone_stops_and_keeps_what_was_answered(tmp_path: Path) -> None:
    engine = Scripted({"question 6": [EndpointError("connection refused")]})
    with pytest.raises(EndpointError, match="connection refused"):
        draw(tmp_path, engine, 50)
    found = by_prompt(tmp_path)
    assert set(found) >= {f"p{number}" for number in range(5)}
    assert len(engine.asked) < 12
    assert "p6" not in found, "the sample is still wanted: it did not fail, the endpoint did"
    assert engine.closed


def test_many_failures_in_a_row_stop_and_any_answer_starts_the_count_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scheduler.FAILURES_IN_A_ROW == 50
    refusals = {f"question {n}": [RefusedError("bad parameter")] for n in range(200)}
    engine = Scripted(refusals)
    with pytest.raises(DistillError, match="50 samples in a row failed") as caught:
        draw(tmp_path / "a", engine, 200, in_flight=1)
    assert caught.value.given == "bad parameter"
    assert len(engine.asked) == len(by_prompt(tmp_path / "a")) == 50
    spared = Scripted({question: steps for question, steps in refusals.items() if int(question.split()[1]) % 49})
    assert draw(tmp_path / "b", spared, 200, in_flight=1).done == 200


@pytest.mark.parametrize("error", [DiskFullError("the disk is full"), OSError("input/output error")])
def test_a_ledger_that_cannot_save_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Scripted()
    appended = itertools.count()

    class Full(Ledger):
        def append(self, trace: Trace) -> None:
            if next(appended) >= 5:
                raise error
            super().append(trace)

    with Full(tmp_path) as ledger, pytest.raises(type(error)):
        sample(wanted(prompts(40), subject(), 1, ledger), subject(), engine, ledger, Limits(2, 3), Progress(40))
    assert len(by_prompt(tmp_path)) == 5
    assert len(engine.asked) < 12
    assert engine.closed
    assert not caplog.records, "nothing but the error itself is told"


class Breaking:
    """A TaskSource that breaks down when it is asked for, or told of, the sixth sample."""

    def __init__(self, tasks: Iterator[Task], where: str) -> None:
        self.tasks, self.where, self.count = tasks, where, 0
        self.wake: Callable[[], None] = lambda: None

    def _count(self, where: str) -> None:
        self.count += where == self.where
        if self.count > 5 and where == self.where:
            raise RunError("answers can no longer be verified")

    def take(self) -> Task | None:
        self._count("take")
        return next(self.tasks, None)

    def settled(self, task: Task, trace: Trace | None) -> None:
        self._count("settled")

    def outlook(self) -> Outlook:
        return Outlook(0, 0)


@pytest.mark.parametrize("where", ["take", "settled"])
def test_a_source_that_breaks_down_stops_it_and_what_is_in_flight_is_saved(tmp_path: Path, where: str) -> None:
    engine = Scripted(seconds=0.05)
    source = Breaking(wanted(prompts(40), subject(), 1, ()), where)
    with Ledger(tmp_path) as ledger, pytest.raises(RunError, match="can no longer be verified"):
        sample(source, subject(), engine, ledger, Limits(3, 3), Progress(40))
    assert len(by_prompt(tmp_path)) == len(engine.asked) < 12


def test_a_stop_while_waiting_to_try_again_leaves_the_sample_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "FIRST_BACKOFF", 3_600.0)
    monkeypatch.setattr(scheduler, "LONGEST_BACKOFF", 3_600.0)

    class Gone(Scripted):
        async def complete(self, request: Request) -> Reply:
            if request.messages[-1]["content"] == "question 1":
                while not self.attempts:
                    await asyncio.sleep(0)
                raise EndpointError("gone")
            return await super().complete(request)

    with pytest.raises(EndpointError):
        draw(tmp_path, Gone({"question 0": [AttemptError("busy")]}), 2)
    assert by_prompt(tmp_path) == {}


# --- signals, in real processes --------------------------------------------------------------------------------------


def job(folder: Path, seconds: float, count: int = 40) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sampling.scripted", str(folder), str(count), "2", str(seconds)]
    return subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_answers(process: subprocess.Popen[str], count: int) -> None:
    """Returns once the engine was asked and `count` answers came."""
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    for _ in range(count):
        assert process.stdout.readline().strip().isdigit()


def expected_keys(count: int = 40) -> set[str]:
    return {task_for(prompt, subject(), index).key for prompt in prompts(count) for index in range(2)}


def test_ctrl_c_saves_what_is_in_flight_and_the_next_run_completes(tmp_path: Path) -> None:
    process = job(tmp_path, 0.2)
    wait_for_answers(process, 5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert errors == (
        "stopping: requests in flight (4) may finish within 20 s; Ctrl-C again leaves at once and loses them\n"
    )
    told = [line for line in output.splitlines() if not line.isdigit()]
    saved = {trace.key for trace in LedgerReader(tmp_path).traces()}
    assert told[0] == f"interrupted with {len(saved)} of 80 samples saved"
    assert "same command again" in told[1]
    assert 9 <= len(saved) < 80, "the four in flight were waited for"
    rest = job(tmp_path, 0.0)
    rest.communicate(timeout=60)
    assert rest.returncode == 0
    records = list(LedgerReader(tmp_path).records())
    assert {record.key for record in records} == expected_keys() > saved
    assert len(records) == 80, "nothing was asked twice"


def test_sigterm_is_treated_alike(tmp_path: Path) -> None:
    process = job(tmp_path, 0.2)
    wait_for_answers(process, 3)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "interrupted with" in output
    assert len(by_prompt(tmp_path)) >= 7


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    process = job(tmp_path, 0.0)
    wait_for_answers(process, 80)
    process.communicate(timeout=60)
    slow = job(tmp_path, 3_600.0, count=60)  # the rest would take hours
    wait_for_answers(slow, 0)
    signalled = 0
    while slow.poll() is None and signalled < 30:
        slow.send_signal(signal.SIGINT)
        signalled += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            slow.wait(timeout=0.5)
    _, errors = slow.communicate(timeout=60)
    assert slow.returncode == INTERRUPTED
    assert "Traceback" not in errors
    assert "exception was never retrieved" not in errors
    assert signalled < 30, "the grace period was not waited out"
    assert {trace.key for trace in LedgerReader(tmp_path).traces()} == expected_keys()


def test_killed_five_times_and_every_trace_is_there_once(tmp_path: Path) -> None:
    durable: set[str] = set()
    for _ in range(5):
        process = job(tmp_path, 0.02)
        wait_for_answers(process, 8)
        process.kill()
        process.communicate()
        found = {trace.key for trace in LedgerReader(tmp_path).traces()}
        assert durable <= found, "nothing that was there goes away"
        durable = found
    last = job(tmp_path, 0.0)
    last.communicate(timeout=60)
    assert last.returncode == 0
    records = list(LedgerReader(tmp_path).records())
    assert Counter(record.key for record in records) == Counter(expected_keys())
