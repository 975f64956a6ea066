"""BatchApiEngine against a scripted provider: what is handed over, read, asked anew, and never bought twice."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_server import CASES, BatchProvider, Ending, failed_line, input_file, result_line, run_batch, unanswered
from http_teacher import Fault, Said, chat_body, error_body
from recordings import FOLDER, recorded, same_form
from vllm_server import CHECKOUT, NAME, PYTHON_VARIABLE, vllm_python

from distill.engines import AttemptError, EndpointError, RefusedError, Reply, Request, TokenIds, batch_api, batch_follow
from distill.engines.batch_api import BatchApiEngine
from distill.engines.batch_provider import Line, Provider, read_batch, read_line
from distill.engines.batch_state import Asked, BatchState
from distill.errors import DiskFullError, LockedError, RunError
from distill.ledger import LedgerReader
from distill.records import Sampling
from engines.batch_job import BATCH, PROMPTS, QUICK, SAMPLES, run

TESTS = Path(__file__).parents[1]
TOTAL = PROMPTS * SAMPLES
RECORDING = FOLDER / "run_batch.jsonl"
LIMIT = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "param": None, "line": None}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for (module, name), value in QUICK.items():
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider() as running:
        yield running


def ask(name: str, text: str = "", **changed: Any) -> Request:
    messages = [{"role": "user", "content": text or f"question {name}"}]
    return replace(Request(name, messages, Sampling(temperature=0.6), 50, seed=1), **changed)


def with_engine(
    provider: BatchProvider, folder: Path, work: Callable[[BatchApiEngine], Awaitable[Any]], **settings: Any
) -> Any:
    """What `work` returns, given a started engine whose state lies in `folder`."""

    async def everything() -> Any:
        chosen: dict[str, Any] = {"model": provider.model, "gather_seconds": 0.03, **settings}
        engine = BatchApiEngine(url=provider.url, state=folder / "batches.jsonl", **chosen)
        await engine.start()
        try:
            return await asyncio.wait_for(work(engine), 20)
        finally:
            await engine.close()

    return asyncio.run(everything())


def answers(provider: BatchProvider, folder: Path, *requests: Request, **settings: Any) -> list[Any]:
    """The reply to each, or the error that was raised."""

    async def work(engine: BatchApiEngine) -> list[Any]:
        return await asyncio.gather(*(engine.complete(one) for one in requests), return_exceptions=True)

    found: list[Any] = with_engine(provider, folder, work, **settings)
    return found


def texts(found: list[Any]) -> list[str]:
    return [one.text if isinstance(one, Reply) else str(one) for one in found]


def events(folder: Path) -> list[tuple[str, Any]]:
    """Kind and content of each line of the state file."""
    lines = (folder / "batches.jsonl").read_text().splitlines()
    return [(event["event"], event) for event in (json.loads(line.partition(" ")[2]) for line in lines)]


def kinds(folder: Path) -> list[str]:
    return [kind for kind, _ in events(folder)]


def all_answered_once(folder: Path, count: int = TOTAL) -> None:
    found = list(LedgerReader(folder / "ledger").records())
    assert Counter(trace.finish_reason for trace in found) == {"stop": count}
    assert len({trace.key for trace in found}) == count
    assert all(trace.raw == f"You asked: question {trace.prompt_id[1:]}" for trace in found)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_whole_job_in_several_batches(provider: BatchProvider, tmp_path: Path) -> None:
    progress = run(provider.url, tmp_path)
    assert (progress.answered, progress.failed, progress.retries) == (TOTAL, 0, 0)
    assert provider.sizes == [BATCH, BATCH, TOTAL - 2 * BATCH]
    assert set(provider.bought.values()) == {1}
    all_answered_once(tmp_path)
    run(provider.url, tmp_path)  # nothing is wanted any more: the batches are forgotten, and nothing is asked
    assert len(provider.jobs) == 3
    assert Counter(kinds(tmp_path)) == {"planned": 3, "created": 3, "ended": 3, "done": 3}
    polls = provider.steps["poll"]
    run(provider.url, tmp_path)
    assert (Counter(kinds(tmp_path))["done"], provider.steps["poll"]) == (3, polls)


def test_what_is_sent_is_an_online_request_without_what_batches_do_not_know(
    provider: BatchProvider, tmp_path: Path
) -> None:
    asked = ask("a", "Grüße, 😀", token_ids=True, sampling=Sampling(temperature=0.5, top_p=0.9))
    (reply,) = answers(provider, tmp_path, asked)
    (job,) = provider.jobs.values()
    assert job.lines == [
        {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "scripted",
                "messages": [{"role": "user", "content": "Grüße, 😀"}],
                "n": 1,
                "stream": False,
                "max_tokens": 50,
                "temperature": 0.5,
                "top_p": 0.9,
                "seed": 1,
            },
        }
    ]
    assert job.metadata == {"distill_batch": events(tmp_path)[0][1]["batch"]}
    assert (reply.text, reply.finish_reason, reply.endpoint) == ("You asked: Grüße, 😀", "stop", "batch")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.token_ids) == (2, 4, None)


def test_a_batch_goes_when_nothing_further_comes_or_when_it_is_full(provider: BatchProvider, tmp_path: Path) -> None:
    async def work(engine: BatchApiEngine) -> float:
        begun = time.monotonic()
        await asyncio.gather(*(engine.complete(ask(f"{n}")) for n in range(6)))
        return time.monotonic() - begun

    assert with_engine(provider, tmp_path / "a", work, batch_requests=3, gather_seconds=15.0) < 10
    with_engine(provider, tmp_path / "b", work, gather_seconds=0.1)
    assert provider.sizes == [3, 3, 6]


def test_a_batch_is_no_larger_in_bytes_than_it_may_be(provider: BatchProvider, tmp_path: Path) -> None:
    found = answers(provider, tmp_path, *(ask(f"{n}", "x" * 800) for n in range(5)), batch_bytes=2_500)
    assert all(isinstance(one, Reply) for one in found)
    assert provider.sizes == [2, 2, 1]
    inputs = [provider.files[job.input_file] for job in provider.jobs.values()]
    assert all(len(content) <= 2_500 for content in inputs)
    (refused,) = answers(provider, tmp_path, ask("big", "x" * 3_000), batch_bytes=2_500)
    assert isinstance(refused, RefusedError)
    assert "larger than a whole batch" in refused.what


def test_callers_of_one_request_share_it(provider: BatchProvider, tmp_path: Path) -> None:
    assert texts(answers(provider, tmp_path, ask("a"), ask("a"))) == ["You asked: question a"] * 2
    assert provider.sizes == [1]


def test_one_id_for_two_requests_never_meets_in_a_batch(provider: BatchProvider, tmp_path: Path) -> None:
    found = answers(provider, tmp_path, ask("a", "first"), ask("a", "second"))
    assert texts(found) == ["You asked: first", "You asked: second"]
    assert provider.sizes == [1, 1]


def test_who_left_before_the_batch_went_is_left_out(provider: BatchProvider, tmp_path: Path) -> None:
    async def work(engine: BatchApiEngine) -> None:
        gone, stays = (asyncio.create_task(engine.complete(ask(name))) for name in "ab")
        await asyncio.sleep(0.01)
        gone.cancel()
        await stays

    with_engine(provider, tmp_path, work, gather_seconds=0.1)
    assert provider.bought == {"b": 1}


def test_who_left_during_the_upload_buys_nothing(provider: BatchProvider, tmp_path: Path) -> None:
    async def work(engine: BatchApiEngine) -> None:
        gone = asyncio.create_task(engine.complete(ask("a")))
        while not provider.reached["upload"].is_set():
            await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0)
        provider.holds["upload"].set()
        await engine.complete(ask("b"))

    provider.hold("upload")
    with_engine(provider, tmp_path, work)
    assert provider.bought == {"b": 1}


def test_a_continuation_is_refused(provider: BatchProvider, tmp_path: Path) -> None:
    (error,) = answers(provider, tmp_path, ask("a", goes_on_from=TokenIds((1,), (2,))))
    assert isinstance(error, RefusedError)
    assert provider.jobs == {}


def test_the_completed_are_counted_over_all_batches(tmp_path: Path) -> None:
    async def work(engine: BatchApiEngine) -> list[int]:
        seen = [engine.completed]
        for name in "ab":
            await engine.complete(ask(name))
            seen.append(engine.completed)
        assert await engine.progress() is None
        await engine.probe()
        return seen

    with BatchProvider() as provider:
        assert with_engine(provider, tmp_path, work) == [0, 1, 2]


# --- what a batch says -----------------------------------------------------------------------------------------------


def test_error_lines_of_both_forms_belong_to_their_request(tmp_path: Path) -> None:
    for where in ("body", "error"):
        with BatchProvider(context=5, errors_in=where) as provider:  # type: ignore[arg-type]
            good, bad = answers(provider, tmp_path / where, ask("a"), ask("b", "word " * 9))
        assert good.text == "You asked: question a"
        assert isinstance(bad, RefusedError)
        assert bad.what == "the provider answers 400: This model's maximum context length is 5 tokens."
        assert dict(events(tmp_path / where))["failed"]["ids"] == ["b"]


def test_lines_out_of_order_doubled_foreign_and_empty(tmp_path: Path) -> None:
    def arrange(lines: list[bytes]) -> list[bytes]:
        foreign = json.dumps(result_line("nobody", chat_body(Said("not asked"), "m", 1))).encode() + b"\n"
        second = json.dumps(result_line("a", chat_body(Said("a second time"), "m", 1))).encode() + b"\n"
        return [foreign, *reversed(lines), b"\n", second, *lines]

    with BatchProvider(endings=lambda number, lines: Ending(arrange=arrange)) as provider:
        found = answers(provider, tmp_path, *(ask(name) for name in "abc"))
    assert texts(found) == [f"You asked: question {name}" for name in "abc"]
    assert provider.bought == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("kind", ["drop", "stall"])
def test_a_torn_download_is_read_again(tmp_path: Path, kind: Any) -> None:
    """The first breaks off in the middle; the second ends there as if it were whole."""
    with BatchProvider(script=lambda step, n: Fault(kind) if step == "content" and n < 2 else None) as provider:
        found = answers(provider, tmp_path, *(ask(name) for name in "abcd"))
    assert texts(found) == [f"You asked: question {name}" for name in "abcd"]
    assert provider.downloads == 3
    assert set(provider.bought.values()) == {1}


def test_a_line_that_stays_unreadable_costs_only_its_own_request(tmp_path: Path) -> None:
    def arrange(lines: list[bytes]) -> list[bytes]:
        return [lines[0], lines[1][:40] + b"\n", *lines[2:]]

    with BatchProvider(endings=lambda n, lines: Ending(arrange=arrange if n == 0 else lambda x: x)) as provider:
        found = answers(provider, tmp_path, *(ask(name) for name in "abc"))
        assert isinstance(found[1], AttemptError)
        assert provider.downloads == batch_follow.READS
        assert texts([found[0], found[2]]) == ["You asked: question a", "You asked: question c"]
        assert texts(answers(provider, tmp_path, ask("b"))) == ["You asked: question b"]
    assert provider.bought == {"a": 1, "b": 2, "c": 1}


@pytest.mark.parametrize("status", ["expired", "cancelled"])
@pytest.mark.parametrize("tells", [True, False])
def test_what_an_ended_batch_did_not_come_to_is_asked_anew(tmp_path: Path, status: str, tells: bool) -> None:
    def endings(number: int, lines: list[dict[str, Any]]) -> Ending:
        late = frozenset(line["custom_id"] for line in lines[1:])
        return Ending(status, late, tells) if number == 0 else Ending()

    with BatchProvider(endings=endings) as provider:
        progress = run(provider.url, tmp_path)
    assert (progress.answered, progress.failed, progress.retries) == (TOTAL, 0, BATCH - 1)
    assert Counter(provider.bought.values()) == {1: TOTAL - BATCH + 1, 2: BATCH - 1}
    all_answered_once(tmp_path)


def test_what_is_said_of_an_unanswered_request(tmp_path: Path) -> None:
    for number, (status, words) in enumerate([("expired", "expired after 24 h"), ("cancelled", "was cancelled")]):
        ending = Ending(status, frozenset("a"), tells=False)
        with BatchProvider(endings=lambda n, lines, ending=ending: ending) as provider:  # type: ignore[misc]
            (error,) = answers(provider, tmp_path / str(number), ask("a"))
        assert isinstance(error, AttemptError)
        assert words in error.what.replace("24h", "24 h")


def test_a_request_asked_again_after_its_error_is_submitted_anew(tmp_path: Path) -> None:
    """In the same process, and in the next: the old error is not heard twice."""

    async def twice(engine: BatchApiEngine) -> None:
        for _ in range(2):
            with pytest.raises(RefusedError):
                await engine.complete(ask("a"))

    with BatchProvider(context=1) as provider:
        with_engine(provider, tmp_path, twice)
        provider.context = 100
        (third,) = answers(provider, tmp_path, ask("a"))
    assert third.text == "You asked: question a"
    assert provider.bought == {"a": 3}


def test_a_reply_handed_out_is_bought_again_only_by_another_request(provider: BatchProvider, tmp_path: Path) -> None:
    """The next process gets the reply once more, unless the request changed; a longer max_tokens keeps what ended."""
    answers(provider, tmp_path, ask("a"))
    assert texts(answers(provider, tmp_path, ask("a", max_tokens=99))) == ["You asked: question a"]
    assert provider.bought == {"a": 1}
    answers(provider, tmp_path, ask("a", seed=2))
    assert provider.bought == {"a": 2}


def test_a_reply_cut_by_a_lower_limit_is_not_the_one_asked_for(provider: BatchProvider, tmp_path: Path) -> None:
    (cut,) = answers(provider, tmp_path, ask("a", max_tokens=2))
    assert cut.finish_reason == "length"
    assert answers(provider, tmp_path, ask("a", max_tokens=2))[0].text == "You asked:"
    assert provider.bought == {"a": 1}
    assert texts(answers(provider, tmp_path, ask("a"))) == ["You asked: question a"]
    assert provider.bought == {"a": 2}


# --- failed batches and limits ---------------------------------------------------------------------------------------


def test_requests_that_a_failed_batch_names_are_refused_and_the_others_asked_anew(tmp_path: Path) -> None:
    fault = {"code": "invalid_request", "message": "no such parameter", "param": "body", "line": 2}
    ending = Ending("failed", faults=(fault,))
    with BatchProvider(endings=lambda n, lines: ending if n == 0 else Ending()) as provider:
        found = answers(provider, tmp_path, *(ask(name) for name in "abc"))
    assert isinstance(found[1], RefusedError)
    assert "no such parameter" in found[1].what
    assert texts([found[0], found[2]]) == ["You asked: question a", "You asked: question c"]
    assert provider.bought == {"a": 1, "c": 1}


def test_a_batch_that_failed_as_a_whole_stops_the_job(tmp_path: Path) -> None:
    fault = {"code": "billing_hard_limit_reached", "message": "Billing hard limit has been reached", "line": None}
    with BatchProvider(endings=lambda n, lines: Ending("failed", faults=(fault,))) as provider:
        (error,) = answers(provider, tmp_path, ask("a"))
    assert isinstance(error, EndpointError)
    assert "Billing hard limit has been reached" in error.what
    assert kinds(tmp_path) == ["planned", "created", "dropped"]


@pytest.mark.parametrize("how", ["failed batch", "429", "413"])
def test_too_much_for_the_provider_makes_batches_smaller(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tries = iter(range(10))
    too_much = {"429": Fault("status", 429, message=LIMIT["message"]), "413": Fault("status", 413)}  # type: ignore[arg-type]

    def script(step: str, number: int) -> Fault | None:
        wrong = (step == "create" and how == "429") or (step == "upload" and how == "413")
        return too_much[how] if wrong and next(tries) < 2 else None

    def endings(number: int, lines: list[Any]) -> Ending:
        return Ending("failed", faults=(LIMIT,)) if how == "failed batch" and len(lines) > 2 else Ending()

    with BatchProvider(endings=endings, script=script) as provider:  # type: ignore[arg-type]
        found = answers(provider, tmp_path, *(ask(f"{n}") for n in range(8)), batch_requests=8)
    assert texts(found) == [f"You asked: question {n}" for n in range(8)]
    assert set(provider.bought.values()) == {1}
    good = [len(job.lines) for job in provider.jobs.values() if job.status != "failed"]
    assert (provider.sizes[0], sum(good)) == (8 if how == "failed batch" else 2, 8)
    assert max(good) <= 3
    told = capsys.readouterr().err
    assert 0 < told.index("batches of at most 4 requests from now on") < told.index("batches of at most 2 requests")


def test_a_plain_429_waits_as_told_and_keeps_the_size(tmp_path: Path) -> None:
    created: list[float] = []

    def script(step: str, number: int) -> Fault | None:
        if step == "create":
            created.append(time.monotonic())
        return Fault("status", 429, retry_after="0.4") if step == "create" and number == 0 else None

    with BatchProvider(script=script) as provider:  # type: ignore[arg-type]
        answers(provider, tmp_path, *(ask(f"{n}") for n in range(8)), batch_requests=8)
    assert created[1] - created[0] > 0.4
    assert provider.sizes == [8]
    assert provider.steps["list"] == 0  # it is sure that there is no such batch


def test_a_request_too_large_for_any_file_is_refused(tmp_path: Path) -> None:
    with BatchProvider(script=lambda step, n: Fault("status", 413) if step == "upload" else None) as provider:
        (error,) = answers(provider, tmp_path, ask("a"))
    assert isinstance(error, RefusedError)
    assert "answers 413" in error.what


def test_a_batch_is_found_on_a_later_page(tmp_path: Path) -> None:
    async def work(engine: BatchApiEngine) -> None:
        await asyncio.gather(*(engine.complete(ask(f"{n}")) for n in range(6)))
        client = engine._provider
        for job in provider.jobs.values():
            for its_file in (job.input_file, "unknown"):
                found = await client.find(job.metadata["distill_batch"], its_file, time.time())
                assert found is not None
                assert found.id == job.id
        assert await client.find("unknown", "unknown", time.time()) is None

    with BatchProvider() as provider:
        with_engine(provider, tmp_path, work, batch_requests=1)


@pytest.mark.parametrize("step", ["upload", "poll"])
@pytest.mark.parametrize(
    "fault", [Fault("status", 503), Fault("status", 429, retry_after="0.01"), Fault("drop"), Fault("hang_up"),
              Fault("malformed"), Fault("raw", 200, body={"object": "other"})]
)  # fmt: skip
def test_passing_errors_fail_nobody(tmp_path: Path, step: str, fault: Fault) -> None:
    with BatchProvider(script=lambda at, n: fault if at == step and n < 3 else None) as provider:
        assert texts(answers(provider, tmp_path, ask("a"))) == ["You asked: question a"]
    assert provider.bought == {"a": 1}


def test_patience_ends_with_an_error_and_the_batch_stays_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_follow, "PATIENCE_SECONDS", 0.1)
    broken = True
    with BatchProvider(script=lambda at, n: Fault("status", 500) if at == "poll" and broken else None) as provider:
        (error,) = answers(provider, tmp_path, ask("a"))
        assert isinstance(error, EndpointError)
        assert error.what == "the provider answers 500: scripted fault"
        broken = False
        assert texts(answers(provider, tmp_path, ask("a"))) == ["You asked: question a"]
    assert provider.bought == {"a": 1}


# --- the key, the account, the file ----------------------------------------------------------------------------------


def test_a_key_refused_in_mid_batch_ends_the_job_and_the_batch_is_taken_up_again(tmp_path: Path) -> None:
    async def work(engine: BatchApiEngine) -> list[Any]:
        first = asyncio.create_task(engine.complete(ask("a")))
        while not provider.jobs:
            await asyncio.sleep(0.01)
        provider.key = "another"
        found = await asyncio.gather(first, return_exceptions=True)
        provider.key = "secret-key"
        return [*found, await engine.complete(ask("a"))]  # also in the same process

    with BatchProvider(key="secret-key") as provider:
        provider.hold("end")
        provider._loop.call_soon_threadsafe(provider._loop.call_later, 0.5, provider.holds["end"].set)
        error, reply = with_engine(provider, tmp_path, work, api_key="secret-key")
    assert isinstance(error, EndpointError)
    assert "refuses the key (401)" in error.what
    assert "secret-key" not in str(error)
    assert "***" in str(error)
    assert reply.text == "You asked: question a"
    assert provider.bought == {"a": 1}
    assert "secret-key" not in (tmp_path / "batches.jsonl").read_text()


def test_the_key_goes_to_the_provider_and_nowhere_else(tmp_path: Path) -> None:
    """A file's content may lie on another host, which gets no key."""
    with BatchProvider(key="secret-key") as provider, BatchProvider() as store:
        store.files, provider.elsewhere = provider.files, store.url
        (reply,) = answers(provider, tmp_path, ask("a"), api_key=" secret-key\n")
        engine = BatchApiEngine(url=provider.url, model="m", state=tmp_path / "x", api_key="secret-key")
    assert reply.text == "You asked: question a"
    assert set(provider.seen_keys) == {"Bearer secret-key"}
    assert set(store.seen_keys) == {""}
    assert "secret-key" not in repr(engine) + repr(vars(engine)["_provider"])


def test_a_start_that_can_come_to_nothing(provider: BatchProvider, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="no model 'other'"):
        answers(provider, tmp_path, model="other")
    with pytest.raises(EndpointError, match="does not answer"):
        with_engine(Elsewhere(), tmp_path, lambda engine: asyncio.sleep(0))  # type: ignore[arg-type]
    with BatchProvider(script=lambda step, n: Fault("status", 404) if step == "models" else None) as silent:
        assert texts(answers(silent, tmp_path, ask("a"))) == ["You asked: question a"]


class Elsewhere:
    url, model = "http://127.0.0.1:9/v1", "scripted"


def test_a_provider_without_batches_is_said_to_be_one(tmp_path: Path) -> None:
    for step, status in (("upload", 404), ("create", 404), ("create", 400)):
        script = lambda at, n, step=step, status=status: Fault("status", status) if at == step else None  # noqa: E731
        with BatchProvider(script=script) as provider:
            (error,) = answers(provider, tmp_path / f"{step}{status}", ask("a"))
        assert isinstance(error, EndpointError)
        assert f"answers {status}" in error.what
        assert "has to have OpenAI's batch API" in str(error)


def test_a_batch_that_another_account_does_not_know_is_not_bought_again(tmp_path: Path) -> None:
    with BatchProvider() as provider:
        answers(provider, tmp_path, ask("a"))
        jobs, provider.jobs = provider.jobs, {}
        (error,) = answers(provider, tmp_path, ask("a"))
        assert isinstance(error, EndpointError)
        assert "does not tell of batch batch_0, which this run may have paid for" in error.what
        provider.jobs = jobs
        assert texts(answers(provider, tmp_path, ask("a"))) == ["You asked: question a"]
    assert provider.bought == {"a": 1}


def test_results_that_are_no_longer_kept_are_asked_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with BatchProvider() as provider:
        answers(provider, tmp_path, ask("a"))
        provider.files.clear()
        monkeypatch.setattr(batch_api, "KEPT_SECONDS", 0.0)
        (error,) = answers(provider, tmp_path, ask("a"))
        assert isinstance(error, AttemptError)
        assert texts(answers(provider, tmp_path, ask("a"))) == ["You asked: question a"]
    assert len(provider.jobs) == 2


def test_two_processes_do_not_share_a_state_file(provider: BatchProvider, tmp_path: Path) -> None:
    with_engine(provider, tmp_path, lambda engine: refused_second(provider, tmp_path))


async def refused_second(provider: BatchProvider, folder: Path) -> None:
    with pytest.raises(LockedError, match="another process is writing to this list of batches"):
        await BatchApiEngine(url=provider.url, model="scripted", state=folder / "batches.jsonl").start()


def test_a_batch_that_cannot_be_written_down_is_not_created(
    provider: BatchProvider, tiny_disk: Path, tmp_path: Path
) -> None:
    many = [ask(f"{n:01000}", "?") for n in range(300)]
    found = answers(provider, tiny_disk, *many)
    assert {type(one) for one in found} == {DiskFullError}
    assert provider.jobs == {}
    assert texts(answers(provider, tiny_disk, ask("a"))) == ["You asked: question a"]


def test_a_torn_line_is_cut_off_and_a_line_of_a_later_version_refused(tmp_path: Path) -> None:
    path = tmp_path / "batches.jsonl"
    state = BatchState(path)
    assert state.open(()) == []
    state.plan("u1", "file-1", {"a": Asked("d", 5), "b": Asked("e", 6)})
    state.created("u1", "batch_1")
    state.close()
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, 3):
        path.write_bytes(whole[:cut])
        found = state.open(())
        state.failed("u1", ["a"])
        state.close()
        lines = whole[:cut].count(b"\n")
        assert [batch.provider_id for batch in found] == [None] * lines
        again = state.open(())
        assert state.lost_bytes == 0
        state.close()
        assert [set(batch.asked) for batch in again] == [{"b"}] * lines
    path.write_bytes(whole)
    (known,) = state.open({"a"})
    assert (known.uuid, known.input_file, known.provider_id) == ("u1", "file-1", "batch_1")
    assert known.asked == {"a": Asked("d", 5), "b": Asked("e", 6)}
    assert abs(known.planned - time.time()) < 60
    state.close()
    assert state.open({"a", "b"}) == []
    state._write({"event": "paused", "batch": "u1"})
    state.close()
    with pytest.raises(RunError, match="a line that this version of distill cannot read"):
        state.open(())


# --- never bought twice ----------------------------------------------------------------------------------------------


def killed(provider: BatchProvider, folder: Path, step: str = "", dies_at: int = 0) -> None:
    """A job in a process of its own, which is killed once something waits at this step, or kills itself."""
    command = [sys.executable, "-m", "engines.batch_job", provider.url, str(folder), str(dies_at)]
    process = subprocess.Popen(command, cwd=TESTS, stderr=subprocess.PIPE)
    try:
        if step:
            assert provider.reached[step].wait(60)
        else:
            process.wait(60)
    finally:
        process.kill()
        _, told = process.communicate()
    assert process.returncode == -signal.SIGKILL, told.decode()
    for hold in provider.holds.values():
        hold.set()
    provider.holds.clear()


@pytest.mark.parametrize(
    ("step", "dies_at"),
    [
        pytest.param("upload", 0, id="at the upload", marks=pytest.mark.slow),
        pytest.param("create", 0, id="before the creation", marks=pytest.mark.slow),
        pytest.param("created", 0, id="before the creation's answer"),
        pytest.param("end", 0, id="in progress", marks=pytest.mark.slow),
        pytest.param("content", 0, id="while reading"),
        pytest.param("", 3, id="before saving"),
    ],
)
def test_killed_and_started_again_nothing_is_bought_twice(
    provider: BatchProvider, tmp_path: Path, step: Any, dies_at: int
) -> None:
    if step:
        provider.hold(step)
    killed(provider, tmp_path, step, dies_at)
    before = len(list(LedgerReader(tmp_path / "ledger").records()))
    assert before == max(0, dies_at - 1) or step == "content"
    progress = run(provider.url, tmp_path)
    assert progress.answered == TOTAL - before
    assert (progress.failed, progress.retries) == (0, 0)
    assert set(provider.bought.values()) == {1}
    assert sum(provider.sizes) == TOTAL
    all_answered_once(tmp_path)


@pytest.mark.parametrize("keeps_metadata", [True, False])
@pytest.mark.parametrize("created", [True, False])
def test_a_creation_in_doubt_is_looked_for(tmp_path: Path, created: bool, keeps_metadata: bool) -> None:
    """The connection ends before the answer: there is a batch then, or none."""
    at = "created" if created else "create"
    script = lambda step, n: Fault("hang_up") if step == at and n == 1 else None  # noqa: E731
    with BatchProvider(script=script, keeps_metadata=keeps_metadata) as provider:
        progress = run(provider.url, tmp_path)
        assert provider.steps["list"] > 0
    assert (progress.answered, progress.retries) == (TOTAL, 0)
    assert set(provider.bought.values()) == {1}
    assert kinds(tmp_path).count("dropped") == (0 if created else 1)
    assert kinds(tmp_path).count("created") == 3


def test_a_batch_listed_late_is_still_found(tmp_path: Path) -> None:
    """A provider's list may lag behind: only after DOUBT_SECONDS a batch counts as never created."""
    late: list[Any] = []

    def script(step: str, number: int) -> Fault | None:
        if step == "created":
            late.append(provider.jobs.popitem())
            return Fault("status", 502)
        if step == "list" and number == 1:
            provider.jobs.update(late)
        return None

    with BatchProvider(script=script) as provider:  # type: ignore[arg-type]
        assert texts(answers(provider, tmp_path, ask("a"))) == ["You asked: question a"]
    assert provider.bought == {"a": 1}
    assert len(late) == 1


def test_interrupted_callers_find_their_batch_again(
    provider: BatchProvider, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provider.hold("end")

    async def interrupted(engine: BatchApiEngine) -> None:
        asking = [asyncio.create_task(engine.complete(ask(name))) for name in "abc"]
        while not provider.reached["end"].is_set():
            await asyncio.sleep(0.01)
        for one in asking:
            one.cancel()

    with_engine(provider, tmp_path, interrupted)
    assert "1 batches with 3 requests stay with the provider" in capsys.readouterr().err
    provider.holds["end"].set()
    assert texts(answers(provider, tmp_path, ask("a"), ask("d"))) == ["You asked: question a", "You asked: question d"]
    assert texts(answers(provider, tmp_path, ask("b"), ask("c"))) == ["You asked: question b", "You asked: question c"]
    assert provider.bought == dict.fromkeys("abcd", 1)
    assert "stay with the provider" not in capsys.readouterr().err


def test_replies_of_an_adopted_batch_for_callers_that_come_one_by_one(provider: BatchProvider, tmp_path: Path) -> None:
    answers(provider, tmp_path, *(ask(name) for name in "abcd"))

    async def one_by_one(engine: BatchApiEngine) -> list[Reply]:
        return [await engine.complete(ask(name)) for name in "dcba"]  # each line has passed when it is asked for

    async def soon_after(engine: BatchApiEngine) -> list[Reply]:
        asking = []
        for name in "dcba":
            asking.append(asyncio.create_task(engine.complete(ask(name))))
            await asyncio.sleep(0.1)
        return await asyncio.gather(*asking)

    expected = [f"You asked: question {name}" for name in "dcba"]
    assert texts(with_engine(provider, tmp_path, one_by_one)) == expected
    before = provider.downloads
    assert texts(with_engine(provider, tmp_path, soon_after, gather_seconds=1.0)) == expected
    assert provider.downloads == before + 1  # one download for all
    assert set(provider.bought.values()) == {1}


def test_closing_waits_for_the_answer_to_a_creation(
    provider: BatchProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "CLOSE_SECONDS", 5.0)
    provider.hold("created")

    async def work(engine: BatchApiEngine) -> None:
        asking = asyncio.create_task(engine.complete(ask("a")))
        while not provider.reached["created"].is_set():
            await asyncio.sleep(0.01)
        provider._loop.call_soon_threadsafe(provider._loop.call_later, 0.2, provider.holds["created"].set)
        await engine.close()
        with pytest.raises(asyncio.CancelledError):
            await asking

    with_engine(provider, tmp_path, work)
    assert kinds(tmp_path) == ["planned", "created"]


# --- the real form ---------------------------------------------------------------------------------------------------


def recorded_lines() -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in RECORDING.read_text(encoding="utf-8").splitlines()]
    return {line["custom_id"]: line for line in lines}


def test_the_scripted_lines_have_the_recorded_form() -> None:
    real = recorded_lines()
    body = chat_body(Said("Paris."), NAME, 5)
    assert same_form(result_line("a", body), real["stop"]) == []
    error = error_body(400, "too long", "BadRequestError", "input_tokens")
    assert same_form(failed_line("a", error, "error"), real["too_long"]) == []
    inside = failed_line("a", error, "body")
    assert same_form(inside["response"]["body"], recorded("too_long").body) == []


def test_recorded_lines_are_read() -> None:
    read = {name: read_line(json.dumps(line).encode(), "e").outcome for name, line in recorded_lines().items()}
    stop, length = read["stop"], read["length"]
    assert isinstance(stop, Reply)
    assert isinstance(length, Reply)
    assert (stop.text, stop.finish_reason, stop.prompt_tokens) == ("The capital of France is Paris.", "stop", 37)
    assert (length.finish_reason, length.completion_tokens) == ("length", 8)
    for name, words in (("too_long", "400: This model's maximum"), ("wrong_model", "404: The model `no-such-model`"),
                        ("stream", "400: Request must not be sent in stream mode")):  # fmt: skip
        error = read[name]
        assert isinstance(error, RefusedError)
        assert error.what.startswith(f"the provider answers {words}")


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"response": {"status_code": 500, "body": {"error": {"message": "oh"}}}}, AttemptError, "answers 500: oh"),
        ({"response": {"status_code": 429, "body": {}}}, AttemptError, "answers 429: it gives no reason"),
        ({"response": {"status_code": 200, "body": None}}, AttemptError, "holds no choices"),
        ({"response": {"status_code": 200, "body": {"choices": []}}}, AttemptError, "holds no choices"),
        ({"response": None}, AttemptError, "without a status: it gives no reason"),
        ({"response": None, "error": {"code": "request_timeout", "message": "slow"}}, AttemptError, "slow"),
        ({"response": 3, "error": "odd"}, AttemptError, "without a status: odd"),
        ({"error": "beside a reply"}, AttemptError, "answers 200: beside a reply"),
    ],
)
def test_odd_lines(changed: dict[str, Any], kind: type[Exception], words: str) -> None:
    line = {**result_line("a", chat_body(Said("x"), "m", 1)), **changed}
    outcome = read_line(json.dumps(line).encode(), "e").outcome
    assert type(outcome) is kind
    assert words in str(outcome)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"response": null}', b'{"custom_id": 3}', b"[" * 100_000])
def test_what_is_no_line(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_line(text, "e")


def test_expired_lines_say_so() -> None:
    read = read_line(json.dumps(unanswered("a", "expired")).encode(), "e")
    assert isinstance(read, Line)
    assert isinstance(read.outcome, AttemptError)
    assert "could not be executed in time" in read.outcome.what


@pytest.mark.parametrize("body", [None, [], {}, {"id": "b"}, {"id": 3, "status": "completed"}, {"status": "x"}])
def test_what_is_no_batch(body: Any) -> None:
    with pytest.raises(AttemptError, match=r"has no (id|status)"):
        read_batch(body)


def test_long_lines_come_whole(tmp_path: Path) -> None:
    """A reply of 32,768 tokens is far above any reader's line buffer."""
    with BatchProvider(lambda question: Said("wörd " * 100_000), context=200_000) as provider:
        (reply,) = answers(provider, tmp_path, ask("a", max_tokens=200_000))
    assert reply.completion_tokens == 100_000
    assert len(reply.text) == 500_000


NO_VLLM = pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM: {PYTHON_VARIABLE} is not set")
MODEL = CHECKOUT / ".cache" / "smollm2"

CHECK_TYPES = """
import json, sys, typing
from openai.types import Batch, FileObject
batch, file = json.load(sys.stdin)
for kind, body in ((Batch, batch), (FileObject, file)):
    read = kind.model_validate(body)
    assert not read.model_extra, read.model_extra
print(json.dumps(typing.get_args(Batch.model_fields["status"].annotation)))
"""


@NO_VLLM
@pytest.mark.vllm
def test_the_scripted_batch_and_file_are_those_of_openais_package(provider: BatchProvider, tmp_path: Path) -> None:
    from batch_server import file_body

    answers(provider, tmp_path, ask("a"))
    (job,) = provider.jobs.values()
    given = json.dumps([provider.body(job), file_body("file-1", "a.jsonl", 3)])
    ran = subprocess.run(
        [str(vllm_python()), "-c", CHECK_TYPES], input=given, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    going_on = {"validating", "in_progress", "finalizing", "cancelling"}
    assert set(json.loads(ran.stdout)) == going_on | {"completed", "expired", "cancelled", "failed"}


@pytest.mark.rehearse  # minutes; the scripted provider is held against it there
@NO_VLLM
@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.skipif(not MODEL.is_dir(), reason="no .cache/smollm2: run benchmarks/smollm2.py first")
def test_vllms_own_batch_runner_answers_through_the_engine(tmp_path: Path) -> None:
    outputs: list[bytes] = []

    def runner(content: bytes) -> bytes:
        cases = input_file({name: CASES[name] for name in ("stop", "wrong_model", "stream")})
        outputs.append(run_batch(MODEL, content + cases, tmp_path / "log"))
        return outputs[-1]

    sampling = Sampling(temperature=0.0)
    france = ask("france", "What is the capital of France?", sampling=sampling)
    story = ask("story", "Tell me a story about a fox.", sampling=sampling, max_tokens=8)
    long = ask("long", "word " * 3_000, sampling=sampling)

    async def work(engine: BatchApiEngine) -> list[Any]:
        return await asyncio.gather(*(engine.complete(one) for one in (france, story, long)), return_exceptions=True)

    async def everything() -> list[Any]:
        engine = BatchApiEngine(url=provider.url, model=NAME, state=tmp_path / "batches.jsonl", gather_seconds=0.1)
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    with BatchProvider(runner=runner, model=NAME) as provider:
        found = asyncio.run(everything())
    assert "Paris" in found[0].text
    assert (found[1].finish_reason, found[1].completion_tokens) == ("length", 8)
    assert isinstance(found[2], RefusedError)
    assert "maximum context length" in found[2].what
    real = recorded_lines()
    for line in map(json.loads, outputs[0].splitlines()):
        if line["custom_id"] in real:  # the recording is still what the runner writes
            assert same_form(line, real[line["custom_id"]]) == []
            assert same_form(real[line["custom_id"]], line) == []


def test_nothing_is_asked_before_the_start(tmp_path: Path) -> None:
    engine = BatchApiEngine(url="http://localhost:1/v1", model="m", state=tmp_path / "batches.jsonl")
    with pytest.raises(RuntimeError, match="not started"):
        asyncio.run(engine.complete(ask("a")))
    with pytest.raises(RuntimeError, match="not started"):
        asyncio.run(Provider(url="http://localhost:1/v1", api_key=None, timeout=1).batch("b"))
    asyncio.run(engine.close())
    assert engine.capacity == 50_000
