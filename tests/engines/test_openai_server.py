"""Servers that are gone, stopped, busy or behind something: whose fault a failure is, and looks that cost no tokens."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from http_teacher import Fault, HttpTeacher, Said, in_order
from recordings import recorded

from distill.engines import AttemptError, EndpointError, Reply, openai_server
from distill.engines import openai as openai_module
from distill.engines.openai_replies import fault_of, generated_tokens
from distill.records import Sampling
from engines.test_openai import KEY, complete, engine_of, failure, request_for, using

# --- whose fault it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "fault"),
    [((408, 429, 503, 529), "busy"), ((502, 504, 521, 524), "endpoint"), ((409, 425, 500, 501, 599), "request")],
)
def test_whose_fault_a_status_is(codes: tuple[int, ...], fault: str) -> None:
    assert {code: fault_of(code) for code in codes} == dict.fromkeys(codes, fault)


@pytest.mark.parametrize(
    ("fault", "whose"),
    [
        (Fault("status", 429, retry_after="3"), "busy"),
        (Fault("status", 429), "busy"),
        (Fault("status", 503), "busy"),
        (Fault("status", 500), "request"),
        (Fault("status", 502), "endpoint"),
        (Fault("status", 504), "endpoint"),
        (Fault("malformed"), "request"),
        (Fault("no_choices"), "request"),
        (Fault("raw", 200, body={"error": {"message": "busy", "code": 503}}), "busy"),
        (Fault("raw", 200, body={"error": "out of order"}), "request"),
        (Fault("raw", 200, body={"choices": [{"message": {}, "finish_reason": "abort"}]}), "request"),
        (Fault("drop"), "endpoint"),
        (Fault("hang_up"), "endpoint"),
        (Fault("stall", seconds=3), "endpoint"),
    ],
)
def test_whose_fault_a_failed_attempt_is(fault: Fault, whose: str) -> None:
    """All of these were sent, so that tokens may have been paid for."""
    error = failure(fault, timeout=0.3 if fault.kind == "stall" else 5.0)
    assert isinstance(error, AttemptError)
    assert (error.fault, error.sent) == (whose, True)
    assert error.retry_after == (3.0 if fault.retry_after else None)


def test_what_never_reached_a_server_was_not_sent() -> None:
    with HttpTeacher() as teacher:
        engine = engine_of(teacher)

        async def dead() -> None:
            await engine.complete(request_for())
            teacher.die()
            first = await refused(engine)
            second = await refused(engine)
            assert "127.0.0.1" not in f"{first}{second}"
            assert "connection failed" in str(second)
            assert (second.fault, second.sent) == ("endpoint", False)
            teacher.come_back()
            await engine.probe()
            assert (await engine.complete(request_for())).finish_reason == "stop"

        using(engine, dead)


async def refused(engine: Any) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await engine.complete(request_for())
    assert caught.value.fault == "endpoint"
    return caught.value


def test_a_name_that_leads_nowhere_was_not_sent() -> None:
    async def ask() -> AttemptError:
        engine = openai_module.OpenAIEngine(url="http://no-such-host.invalid/v1", model="m", api_key=KEY)
        engine._server.open()
        try:
            return await refused(engine)
        finally:
            await engine.close()

    error = asyncio.run(ask())
    assert (error.sent, KEY in str(error), "no-such-host" in str(error)) == (False, False, False)


def test_requests_in_flight_when_a_server_dies_were_sent() -> None:
    with HttpTeacher(latency=5.0) as teacher:
        engine = engine_of(teacher, timeout=10.0)

        async def die_under(count: int) -> list[Any]:
            waiting = [asyncio.create_task(engine.complete(request_for(str(i)))) for i in range(count)]
            while len(teacher.chats) < count:
                await asyncio.sleep(0.01)
            teacher.die()
            return await asyncio.gather(*waiting, return_exceptions=True)

        errors = using(engine, lambda: die_under(8))
    assert {(type(error), error.fault, error.sent) for error in errors} == {(AttemptError, "endpoint", True)}


# --- looks ---------------------------------------------------------------------------------------------------------


def test_a_stopped_server_takes_connections_in_and_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_module, "LOOK_SECONDS", 0.2)
    with HttpTeacher() as teacher:
        engine = engine_of(teacher)

        async def look() -> None:
            teacher.freeze()
            await asyncio.sleep(0.05)
            for what in (engine.probe, engine.progress):
                with pytest.raises(AttemptError, match=r"no reply within 0\.2 s") as caught:
                    await what()
                assert (caught.value.fault, caught.value.sent) == ("endpoint", True)
            teacher.thaw()
            await engine.probe()
            assert await engine.progress() is not None

        using(engine, look)


def test_a_start_at_a_stopped_server_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_module, "START_SECONDS", 0.2)
    with HttpTeacher() as teacher:
        teacher.freeze()
        with pytest.raises(EndpointError, match=r"does not answer: no reply within 0\.2 s"):
            asyncio.run(engine_of(teacher).start())


def test_a_probe_tells_another_model_from_no_server() -> None:
    with HttpTeacher() as teacher:
        engine = engine_of(teacher)

        async def look() -> None:
            teacher.model = "another"
            with pytest.raises(EndpointError, match="no model 'scripted'"):
                await engine.probe()
            teacher.die()
            with pytest.raises(AttemptError) as caught:
                await engine.probe()
            assert caught.value.fault == "endpoint"

        using(engine, look)


def test_progress_grows_while_tokens_come_and_only_then() -> None:
    with HttpTeacher(faults=in_order(None, Fault("stall", seconds=5)), latency=0.3) as teacher:
        engine = engine_of(teacher, api_key=KEY)

        async def watch() -> list[float | None]:
            seen = [await engine.progress()]
            for _ in range(2):
                asked = asyncio.create_task(engine.complete(request_for()))
                await asyncio.sleep(0.1)
                seen.append(await engine.progress())
                await asyncio.sleep(0.35)
                seen.append(await engine.progress())
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
            return seen

        before, during, after, stalled, still = using(engine, watch)
    assert before == 0.0
    assert 0.0 < during < after
    assert after == stalled == still, "a request that gets no tokens is no progress"
    assert {seen.path for seen in teacher.requests} == {"/v1/models", "/v1/chat/completions", "/metrics"}


def test_a_server_without_metrics_is_asked_for_them_once() -> None:
    with HttpTeacher(metrics=False) as teacher:
        engine = engine_of(teacher)

        async def twice() -> list[float | None]:
            return [await engine.progress(), await engine.progress()]

        assert using(engine, twice) == [None, None]
    assert [seen.path for seen in teacher.requests].count("/metrics") == 1


def test_tokens_in_pages_of_metrics() -> None:
    real = "\n".join(recorded("metrics").body).encode()
    assert generated_tokens(real) == 53.0
    two = b'vllm:generation_tokens_total{engine="0"} 5.0\nvllm:generation_tokens_total{engine="1"} 1.5e+02\n'
    assert generated_tokens(two) == 155.0
    assert generated_tokens(b'sglang:generation_tokens_total{model_name="a} b"} 7\n') == 7.0
    assert generated_tokens(b"sglang:generation_tokens_total 7") == 7.0
    other = b"vllm:generation_tokens_created 5\nvllm:prompt_tokens_total 9\n# vllm:generation_tokens_total 3\n<html>"
    assert generated_tokens(other) is None
    assert generated_tokens(b"vllm:generation_tokens_total --..") is None


# --- the connection ------------------------------------------------------------------------------------------------


def test_a_machine_that_vanishes_is_noticed_in_about_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    real = openai_server._watched_socket
    monkeypatch.setattr(openai_server, "_watched_socket", lambda address: made.append(real(address)) or made[-1])
    with HttpTeacher() as teacher:
        engine = engine_of(teacher)

        async def options() -> dict[str, int]:
            await engine.complete(request_for())
            (used,) = made
            assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            names = [name for name in openai_server.VANISHED if hasattr(socket, name)]
            return {name: used.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names}

        found = using(engine, options)
    if sys.platform == "linux":
        assert found["TCP_KEEPIDLE"] + found["TCP_KEEPINTVL"] * found["TCP_KEEPCNT"] == 60
        assert found["TCP_USER_TIMEOUT"] == 60_000


def test_a_proxy_of_the_environment_is_used_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its login reaches it, and no error."""
    with HttpTeacher() as teacher:
        address = teacher.url.removesuffix("/v1").replace("http://", "http://someone:p%40ss@")
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        reply = complete(engine_of(teacher, url="http://teacher.invalid/v1", api_key=KEY))
        assert reply.finish_reason == "stop"
        assert teacher.chats[0].headers["Host"] == "teacher.invalid"
        assert teacher.chats[0].headers["Authorization"] == f"Bearer {KEY}"
        assert teacher.chats[0].headers["Proxy-Authorization"].startswith("Basic ")
        monkeypatch.setenv("no_proxy", "teacher.invalid")
        with pytest.raises(EndpointError, match="does not answer") as caught:
            complete(engine_of(teacher, url="http://teacher.invalid/v1"))
        assert "p%40ss" not in str(caught.value)


def test_blank_lines_before_a_reply_do_no_harm() -> None:
    """DeepSeek's API sends them while it is busy (quick_start/rate_limit of its documentation)."""
    with HttpTeacher(lambda question: Said("4"), faults=in_order(Fault("blank", seconds=0.3))) as teacher:
        assert complete(engine_of(teacher)).text == "4"


def test_what_is_ignored_is_not_honoured() -> None:
    sampling = Sampling(0.6, 0.95, 20, seed=3)
    with HttpTeacher() as teacher:
        told = complete(engine_of(teacher, ignores=("temperature", "seed")), request_for(sampling=sampling, seed=7))
        unknown = complete(engine_of(teacher), request_for(sampling=sampling))
    assert told.honoured == Sampling(None, 0.95, 20)
    assert unknown.honoured is None
    assert teacher.chats[0].body["temperature"] == 0.6, "asked for all the same"


def test_many_short_replies_at_once() -> None:
    """500 prompts, four samples each, from a teacher that answers after 1 to 30 ms: in seconds, not minutes."""
    with HttpTeacher(lambda question: Said(question), latency=(0.001, 0.03)) as teacher:
        engine = engine_of(teacher, connections=128, timeout=60.0)

        async def all_of_them() -> int:
            numbers = iter(range(2_000))

            async def work() -> int:
                right = 0
                for number in numbers:
                    reply: Reply = await engine.complete(request_for(f"prompt {number // 4}"))
                    right += reply.text == f"prompt {number // 4}"
                return right

            return sum(await asyncio.gather(*(work() for _ in range(128))))

        begun = time.monotonic()
        assert using(engine, all_of_them) == 2_000
    assert len(teacher.chats) == 2_000
    assert teacher.most_in_flight <= 128
    assert time.monotonic() - begun < 60


def test_the_key_is_in_no_process_list_and_no_error_of_any_path(tmp_path: Path) -> None:
    """A program that goes on with a cut reply by streams, watched from outside: only the header holds the key."""
    script = tmp_path / "ask.py"
    script.write_text(PROGRAM)
    with HttpTeacher(lambda question: Said("one two three four five"), key=KEY, latency=0.2) as teacher:
        environment = {**os.environ, "SECRET": KEY, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            [sys.executable, str(script), teacher.url],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        lines = set()
        while process.poll() is None:
            lines.add(command_of(process.pid))
            time.sleep(0.05)
        said = process.communicate()[0].decode()
    assert "one two three four five" in said
    assert re.search(r"metrics|500|failed|answers", said)
    assert KEY not in said + "".join(lines)
    assert {"/detokenize", "/v1/completions", "/metrics"} <= {seen.path for seen in teacher.requests}
    assert all(KEY not in str(seen.body) for seen in teacher.requests)


PROGRAM = """
import asyncio, logging, os, sys
from dataclasses import replace
from distill.engines import Request
from distill.engines.openai import OpenAIEngine
from distill.records import Sampling

logging.basicConfig(level=logging.DEBUG)

async def ask():
    engine = OpenAIEngine(
        url=sys.argv[1], model="scripted", api_key=os.environ["SECRET"], stream=True, continues=True, ignores=("seed",)
    )
    await engine.start()
    request = Request("r", [{"role": "user", "content": "?"}], Sampling(), 2, token_ids=True)
    first = await engine.complete(request)
    print(engine, first, await engine.progress())
    print(await engine.complete(replace(request, max_tokens=50, goes_on_from=first.token_ids)))
    engine._server.url = engine._server.url.replace("/v1", "/v2")
    engine._server.open()
    for failing in (engine.probe, lambda: engine.complete(request), lambda: engine.complete(replace(request, seed=1))):
        try:
            print(await failing())
        except Exception as error:
            print("failed", repr(error), error)
    await engine.close()

asyncio.run(ask())
"""


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""
