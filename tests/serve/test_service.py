"""The service over real processes: ready, drained, killed, frozen, dead behind an open port, given up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill.errors import DiskFullError, EndpointError, Interrupted
from distill.files import write_json
from distill.sampling.endpoints import is_current, read_places, read_service
from distill.serve import replica as replicas
from distill.serve.launching import Addresses, Need, RunningNodes
from distill.serve.local import LocalLauncher
from distill.serve.node import NodeCommand
from distill.serve.replica import Plan
from distill.serve.service import Place, Service, Terms

STAND_IN = Path(__file__).with_name("stand_in.py")

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.serve.health.FIRST_DELAY", 0.2)
    monkeypatch.setattr("distill.serve.service.FILES_SECONDS", 0.2)
    monkeypatch.setattr(replicas, "TERM_SECONDS", 2.0)


def command(*modes: str) -> Callable[[Addresses], Sequence[NodeCommand]]:
    return lambda at: [NodeCommand((sys.executable, str(STAND_IN), str(at.port), *modes), {})]


def service(out: Path, *modes: str, count: int = 1, key: str | None = None, **changes: Any) -> Service:
    place = Place(out)
    place.folder.mkdir(parents=True)
    drain = changes.pop("drain", 5.0)
    settings: dict[str, Any] = {
        "need": Need(1, 0, 0, "cpu"),
        "build": command(*modes),
        "logs": place.logs,
        "secrets": {} if key is None else {"VLLM_API_KEY": key},
        "start_timeout": 20.0,
        "stall_timeout": 3.0,
        "probe_seconds": 0.5,
        "max_failures": 3,
        "look_seconds": 0.1,
        **changes,
    }
    terms = Terms("a-teacher", "m", key, count, count, count, 8, drain, None)
    return Service(place, terms, Plan(**settings), LocalLauncher(replicas=count))


async def until(true: Callable[[], object], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come to that in time"
        await asyncio.sleep(0.05)


def during(subject: Service, act: Callable[[], Awaitable[None]]) -> None:
    """The service runs while `act` does things to it, and is then told to end by SIGTERM."""

    async def both() -> None:
        running = asyncio.ensure_future(subject.run())
        acting = asyncio.ensure_future(act())
        done, _ = await asyncio.wait({running, acting}, return_when=asyncio.FIRST_COMPLETED)
        if running in done and not acting.done():
            acting.cancel()
        if acting in done and not running.done():
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            await running
        finally:
            if acting in done:
                acting.result()

    asyncio.run(both())


def names_in(subject: Service) -> list[str]:
    return [place.name for place in read_places(subject.place.endpoints)]


def states_in(subject: Service) -> list[str]:
    file = subject.place.state
    return [told["state"] for told in json.loads(file.read_text())["replicas"]] if file.is_file() else []


def ready(subject: Service) -> bool:
    return bool(subject.replicas) and all(r.state.state == "ready" for r in subject.replicas)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_replicas_are_announced_once_they_gave_a_token_and_nothing_is_left_at_the_end(tmp_path: Path) -> None:
    subject = service(tmp_path, count=2)
    pids: list[int] = []

    async def act() -> None:
        assert names_in(subject) == [], "not before"
        await until(lambda: ready(subject))
        await until(lambda: len(names_in(subject)) == 2)
        assert names_in(subject) == ["replica-0", "replica-1"]
        assert {place.model for place in read_places(subject.place.endpoints)} == {"m"}
        pids.extend(r.state.pid or 0 for r in subject.replicas)
        await until(lambda: states_in(subject) == ["ready", "ready"])
        await until(lambda: 'distill_replica_up{replica="replica-1"} 1' in subject.place.metrics.read_text())
        assert "vllm:generation_tokens_total{" in subject.place.metrics.read_text()

    during(subject, act)
    assert len(pids) == 2
    assert not any(lives(pid) for pid in pids)
    assert not subject.place.endpoints.exists()
    assert [r.state.state for r in subject.replicas] == ["stopped", "stopped"]


def test_one_that_is_killed_is_withdrawn_and_comes_back(tmp_path: Path) -> None:
    subject = service(tmp_path, count=2)

    async def act() -> None:
        await until(lambda: len(names_in(subject)) == 2)
        pid = subject.replicas[0].state.pid
        assert pid
        os.killpg(pid, signal.SIGKILL)
        await until(lambda: names_in(subject) == ["replica-1"])
        await until(lambda: "ended with exit code 137" in (subject.replicas[0].state.last_error or ""))
        await until(lambda: len(names_in(subject)) == 2)
        assert subject.replicas[0].state.pid != pid
        assert subject.replicas[0].state.restarts == 1
        assert subject.replicas[1].state.restarts == 0

    during(subject, act)


def test_one_that_is_stopped_is_killed_and_comes_back(tmp_path: Path) -> None:
    subject = service(tmp_path)

    async def act() -> None:
        await until(lambda: ready(subject))
        pid = subject.replicas[0].state.pid
        assert pid
        os.killpg(pid, signal.SIGSTOP)
        await until(lambda: subject.replicas[0].state.restarts == 1)
        assert not lives(pid)
        await until(lambda: names_in(subject) == ["replica-0"])

    during(subject, act)


def test_one_whose_engine_is_dead_behind_an_open_port_is_started_again(tmp_path: Path) -> None:
    subject = service(tmp_path, "dead-after", "2")

    async def act() -> None:
        await until(lambda: subject.replicas and subject.replicas[0].state.restarts == 1)
        error = subject.replicas[0].state.last_error
        assert error is not None
        assert "no token for" in error
        assert "HTTP 500" in error

    during(subject, act)


def test_one_that_never_gives_a_token_is_never_announced_and_given_up(tmp_path: Path) -> None:
    subject = service(tmp_path, "mute", start_timeout=1.0)
    seen: list[str] = []

    async def act() -> None:
        while True:
            seen.extend(names_in(subject) if subject.place.endpoints.exists() else [])
            await asyncio.sleep(0.05)

    with pytest.raises(EndpointError, match="every replica was given up: not ready within 1 s"):
        during(subject, act)
    assert seen == []


def test_a_crash_loop_ends_with_the_telling_line_and_the_setting_to_change(tmp_path: Path) -> None:
    subject = service(tmp_path, "oom")

    async def act() -> None:
        await asyncio.sleep(60)

    started = time.monotonic()
    with pytest.raises(EndpointError) as ended:
        during(subject, act)
    assert time.monotonic() - started < 30
    said = str(ended.value)
    assert "No available memory for the cache blocks" in said
    assert "serve.gpu_memory_utilization" in said
    assert str(subject.place.logs / "replica-0") in said


def test_sigterm_lets_what_is_in_flight_finish(tmp_path: Path) -> None:
    subject = service(tmp_path, "slow", "2", stall_timeout=30.0, probe_seconds=30.0)
    answers: list[int] = []

    def asking(url: str) -> int:
        body = json.dumps({"model": "m", "prompt": "x", "max_tokens": 5}).encode()
        request = urllib.request.Request(f"{url}/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)

    async def act() -> None:
        await until(lambda: ready(subject) and names_in(subject))
        url = read_places(subject.place.endpoints)[0].url
        asked = asyncio.create_task(asyncio.to_thread(asking, url))
        await asyncio.sleep(0.5)  # it is in there now
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: not subject.place.endpoints.exists() or names_in(subject) == [], 1.5)
        answers.append(await asked)

    during(subject, act)
    assert answers == [200]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    subject = service(tmp_path, "slow", "5", drain=100.0, stall_timeout=100.0, probe_seconds=100.0)
    begun: list[float] = []

    def asking(url: str) -> None:
        body = json.dumps({"model": "m", "prompt": "x", "max_tokens": 5}).encode()
        request = urllib.request.Request(f"{url}/completions", body, {"Content-Type": "application/json"})
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    async def act() -> None:
        await until(lambda: ready(subject) and names_in(subject))
        url = read_places(subject.place.endpoints)[0].url
        asked = [asyncio.create_task(asyncio.to_thread(asking, url)) for _ in range(2)]
        await asyncio.sleep(0.5)  # they are in there now, for five seconds
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.5)
        assert subject.replicas[0].state.state == "draining"
        begun.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.gather(*asked)

    with pytest.raises(Interrupted, match="the same command starts it again"):
        during(subject, act)
    assert time.monotonic() - begun[0] < 3.5, "it does not wait for what is in flight"


def test_the_key_reaches_the_server_and_its_clients_and_no_file_that_others_read(tmp_path: Path) -> None:
    key = "a-key-for-this-test"
    subject = service(tmp_path, "key", key=key)
    subject.place.key.write_text(key + "\n")
    subject.place.key.chmod(0o600)

    async def act() -> None:
        await until(lambda: ready(subject) and names_in(subject))
        (place,) = read_places(subject.place.endpoints)
        assert place.key() == key
        pid = subject.replicas[0].state.pid
        assert pid
        await asyncio.sleep(0.5)
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert key not in line.read_bytes().decode(errors="replace")
            except OSError:
                continue

    during(subject, act)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != subject.place.key:
            assert key not in path.read_text(errors="replace"), path
    assert stat.S_IMODE(subject.place.key.stat().st_mode) == 0o600


def test_a_disk_that_takes_nothing_stops_no_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = service(tmp_path)
    real, tries = write_json, list[Path]()

    def full(path: Path, value: object) -> None:
        if subject.replicas and subject.replicas[0].state.restarts == 0:
            tries.append(path)
            raise DiskFullError("no space left")
        real(path, value)

    async def act() -> None:
        await until(lambda: ready(subject))
        monkeypatch.setattr("distill.serve.service.write_json", full)
        subject._changes.set()
        await asyncio.sleep(1.5)
        assert ready(subject)
        assert len(tries) < 40, "it does not spin"
        pid = subject.replicas[0].state.pid
        assert pid
        os.killpg(pid, signal.SIGKILL)
        await until(lambda: subject.replicas[0].state.restarts == 1 and names_in(subject) == ["replica-0"])

    during(subject, act)


def test_an_error_that_nobody_foresaw_costs_one_replica_one_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = service(tmp_path, count=2)
    real, broken = replicas.read, list[str]()

    def reads(text: str) -> object:
        if not broken:
            broken.append("once")
            raise ZeroDivisionError("a defect")
        return real(text)

    async def act() -> None:
        await until(lambda: ready(subject))
        monkeypatch.setattr(replicas, "read", reads)
        await until(lambda: sum(r.state.restarts for r in subject.replicas) == 1 and ready(subject))
        errors = [r.state.last_error for r in subject.replicas if r.state.last_error]
        assert errors == ["ZeroDivisionError: a defect"]

    during(subject, act)


def test_a_defect_in_the_supervision_itself_ends_the_service_loudly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a replica would stand among the ready ones that nobody looks at any more."""
    subject = service(tmp_path)

    async def broken(*given: object) -> float:
        raise ZeroDivisionError("a defect")

    async def act() -> None:
        await until(lambda: ready(subject))
        monkeypatch.setattr(replicas.Replica, "_after_failure", broken)
        os.killpg(subject.replicas[0].state.pid or 0, signal.SIGKILL)
        await asyncio.sleep(20)

    with pytest.raises(ZeroDivisionError):
        during(subject, act)


def test_one_that_ended_is_withdrawn_before_it_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = service(tmp_path)
    seen: list[tuple[str, list[str]]] = []
    real = RunningNodes.kill

    async def slow(running: RunningNodes) -> None:
        await asyncio.sleep(1.5)
        seen.append((subject.replicas[0].state.state, names_in(subject)))
        await real(running)

    async def act() -> None:
        await until(lambda: names_in(subject))
        monkeypatch.setattr(RunningNodes, "kill", slow)
        os.killpg(subject.replicas[0].state.pid or 0, signal.SIGKILL)
        await until(lambda: subject.replicas[0].state.restarts == 1 and names_in(subject))
        monkeypatch.setattr(RunningNodes, "kill", real)

    during(subject, act)
    assert seen[0] == ("stuck", [])


def test_what_followers_read_tells_that_servers_come_and_why_none_will(tmp_path: Path) -> None:
    subject = service(tmp_path, "oom")
    starting: list[int] = []

    async def act() -> None:
        while True:
            words = read_service(subject.place.endpoints)
            starting.append(words.starting if words else 0)
            await asyncio.sleep(0.05)

    with pytest.raises(EndpointError) as ended:
        during(subject, act)
    assert 1 in starting
    words = read_service(subject.place.endpoints)
    assert words is not None
    assert (words.starting, words.ended) == (0, ended.value.what)
    assert not is_current(subject.place.endpoints)


def test_the_number_of_replicas_follows_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.serve.scaling.SCALE_UP_SECONDS", 0.5)
    monkeypatch.setattr("distill.serve.scaling.SCALE_DOWN_SECONDS", 0.5)
    subject = service(tmp_path, stall_timeout=60.0)
    subject.terms = replace(subject.terms, least=1, most=2)
    real = replicas.read
    queue = [9]

    def reads(text: str) -> object:
        return replace(real(text), running=8 if queue[0] else 0, waiting=queue[0])

    monkeypatch.setattr(replicas, "read", reads)

    async def act() -> None:
        await until(lambda: len(names_in(subject)) == 2)
        assert names_in(subject) == ["replica-0", "replica-1"]
        await asyncio.sleep(1.5)
        assert len(subject.replicas) == 2, "no more than the most"
        queue[0] = 0
        await until(lambda: names_in(subject) == ["replica-0"])
        await until(lambda: not subject._leaving)
        assert len(subject.state().replicas) == 1

    during(subject, act)
