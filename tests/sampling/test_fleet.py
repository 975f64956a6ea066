"""Several scripted servers as one: who is asked, who is put aside and comes back, what stops it all."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distill.engines import AttemptError, EndpointError, Reply, Request
from distill.ledger import Ledger, LedgerReader
from distill.sampling import fleet as fleets
from distill.sampling import scheduler
from distill.sampling.endpoints import LiveFile, Place
from distill.sampling.fleet import Fleet, FleetLimits
from distill.sampling.requests import wanted
from distill.sampling.scheduler import Limits, Progress, sample
from sampling.scripted import Scripted, prompts, subject


class Server(Scripted):
    """A scripted engine that can be away, stuck or busy, and counts how it was looked at."""

    def __init__(self, name: str, *, seconds: float = 0.001) -> None:
        super().__init__(seconds=seconds)
        self.name = name
        self.away = self.stuck = False
        self.busy = 0
        """So many requests are turned away."""
        self.wish: float | None = None
        self.tells_progress = False
        self.produced = 0.0
        self.probes = 0
        self.sent_at: list[float] = []

    async def start(self) -> None:
        if self.away:
            raise EndpointError(f"{self.name} is away")
        await super().start()

    async def probe(self) -> None:
        self.probes += 1
        if self.stuck:
            await asyncio.sleep(3_600)
        if self.away:
            raise AttemptError("refused", fault="endpoint", sent=False)

    async def progress(self) -> float | None:
        if self.stuck and not self.tells_progress:
            await asyncio.sleep(3_600)
        return self.produced if self.tells_progress else None

    async def complete(self, request: Request) -> Reply:
        self.sent_at.append(time.monotonic())
        if self.away:
            raise AttemptError("the connection failed", fault="endpoint", sent=False)
        if self.busy > 0:
            self.busy -= 1
            raise AttemptError("429", fault="busy", retry_after=self.wish)
        if self.stuck:
            await asyncio.sleep(3_600)
        return await super().complete(request)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "FIRST_BACKOFF", 0.001)
    monkeypatch.setattr(fleets, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(fleets, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(fleets, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(fleets, "TICK", 0.01)


def draw(
    folder: Path,
    servers: Sequence[Server],
    count: int,
    *,
    start: int = 4,
    most: int = 4,
    stall: float = 60.0,
    patience: float = 60.0,
    roster: LiveFile | None = None,
    attempts: int = 3,
) -> Progress:
    fleet = Fleet(servers, FleetLimits(start, most, stall, patience), roster)
    with Ledger(folder) as ledger:
        tasks = wanted(prompts(count), subject(), 1, ledger)
        return sample(tasks, subject(), fleet, ledger, Limits(start, attempts), Progress(count))


def endpoints_of(folder: Path) -> list[str]:
    return [trace.endpoint or "" for trace in LedgerReader(folder).traces()]


def test_the_one_with_fewest_in_flight_is_asked_first(tmp_path: Path) -> None:
    slow, fast = Server("slow", seconds=0.05), Server("fast", seconds=0.005)
    draw(tmp_path, [slow, fast], 60)
    assert slow.most == fast.most == 4
    assert len(fast.asked) > 3 * len(slow.asked)
    assert set(endpoints_of(tmp_path)) == {"slow", "fast"}, "each trace names who answered"


def test_one_that_goes_away_is_put_aside_and_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, leaving = Server("there"), Server("leaving")

    async def go_and_come(request: Request) -> Reply:
        if len(leaving.sent_at) == 5:
            leaving.away = True
            asyncio.get_running_loop().call_later(0.3, setattr, leaving, "away", False)
        return await Server.complete(leaving, request)

    leaving.complete = go_and_come  # type: ignore[method-assign]
    there.seconds = 0.02
    progress = draw(tmp_path, [there, leaving], 150)
    assert (progress.answered, progress.failed) == (150, 0)
    assert leaving.probes > 1
    assert len(leaving.sent_at) > 20, "it was asked again when it was back"
    told = capsys.readouterr().err
    assert "leaving is put aside: refused" in told
    assert "leaving answers again" in told
    assert all(trace.attempts == 1 for trace in LedgerReader(tmp_path).traces()), "what was never sent is no attempt"


def test_one_that_is_away_at_the_start_joins_later(tmp_path: Path) -> None:
    there, late = Server("there", seconds=0.02), Server("late")
    late.away = True

    async def complete(request: Request) -> Reply:
        if len(there.asked) > 10:
            late.away = False
        return await Server.complete(there, request)

    there.complete = complete  # type: ignore[method-assign]
    draw(tmp_path, [there, late], 150)
    assert late.started
    assert "late" in endpoints_of(tmp_path)


def test_when_none_is_there_at_the_start_the_first_reason_is_told(tmp_path: Path) -> None:
    servers = [Server("a"), Server("b")]
    for server in servers:
        server.away = True
    with pytest.raises(EndpointError, match="a is away"):
        draw(tmp_path, servers, 5)
    assert all(server.closed for server in servers)


def test_patience_ends_when_nobody_answers(tmp_path: Path) -> None:
    server = Server("gone")

    async def complete(request: Request) -> Reply:
        server.away = len(server.sent_at) >= 7
        return await Server.complete(server, request)

    server.complete = complete  # type: ignore[method-assign]
    with pytest.raises(EndpointError, match="no server answered for 0 s") as caught:
        draw(tmp_path, [server], 50, patience=0.4)
    assert caught.value.given == "gone: refused"
    assert 4 <= len(endpoints_of(tmp_path)) <= 8, "what was answered is saved, nothing is recorded as failed"
    assert "error" not in {trace.finish_reason for trace in LedgerReader(tmp_path).records()}


def test_a_busy_one_is_asked_less_and_its_wish_is_honoured(tmp_path: Path) -> None:
    server = Server("busy")
    server.busy, server.wish = 4, 0.3
    progress = draw(tmp_path, [server], 20)
    assert progress.answered == 20
    assert progress.retries == 4
    turned_away, after = server.sent_at[3], server.sent_at[4]
    assert after - turned_away >= 0.3
    assert server.most <= 3, "half of four, and one more after a round"
    assert all(trace.attempts == 1 for trace in LedgerReader(tmp_path).traces()), "being turned away is no attempt"


def test_an_error_with_a_wish_is_honoured_too(tmp_path: Path) -> None:
    """Such as a 500 with Retry-After: an attempt of the sample, and a pause of the server."""
    server = Server("failing")
    server.script = {"question 0": [AttemptError("500", retry_after=0.3)]}
    draw(tmp_path, [server], 2, start=1, most=1)
    assert server.sent_at[1] - server.sent_at[0] >= 0.3
    assert {trace.prompt_id: trace.attempts for trace in LedgerReader(tmp_path).traces()} == {"p0": 2, "p1": 1}


def test_without_a_wish_the_pauses_double(tmp_path: Path) -> None:
    server = Server("busy")
    server.busy = 4
    draw(tmp_path, [server], 3, start=1, most=1)
    gaps = [later - sooner for sooner, later in zip(server.sent_at, server.sent_at[1:], strict=False)][:4]
    for gap, longest in zip(gaps, (0.02, 0.04, 0.08, 0.1), strict=True):
        assert longest / 2 <= gap


def test_other_servers_do_the_work_of_a_busy_one(tmp_path: Path) -> None:
    busy, free = Server("busy"), Server("free")
    busy.busy, busy.wish = 1_000, 30.0
    began = time.monotonic()
    assert draw(tmp_path, [busy, free], 60).answered == 60
    assert time.monotonic() - began < 10
    assert set(endpoints_of(tmp_path)) == {"free"}


def test_requests_at_a_stuck_server_are_asked_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes connections and never answers anything, as one that got SIGSTOP."""
    stuck, well = Server("stuck"), Server("well", seconds=0.01)
    stuck.stuck = True
    progress = draw(tmp_path, [stuck, well], 40, stall=0.3)
    assert (progress.answered, progress.failed) == (40, 0)
    assert set(endpoints_of(tmp_path)) == {"well"}
    assert "stuck is put aside: no progress for" in capsys.readouterr().err


def test_a_burst_after_a_pause_is_no_stall(tmp_path: Path) -> None:
    """Nothing was sent for longer than the stall limit, because the server wished so."""
    server = Server("busy", seconds=0.15)
    server.busy, server.wish, server.tells_progress = 1, 0.8, True
    progress = draw(tmp_path, [server], 8, start=4, most=4, stall=0.4)
    assert (progress.answered, progress.retries) == (8, 1)


def test_one_that_is_slow_and_tells_of_progress_is_left_alone(tmp_path: Path) -> None:
    """A reply takes ten times the stall limit, tokens come all the while."""
    server = Server("slow", seconds=1.0)
    server.tells_progress = True

    async def progress() -> float:
        server.produced += 1
        return server.produced

    server.progress = progress  # type: ignore[method-assign]
    assert draw(tmp_path, [server], 4, stall=0.1).retries == 0
    assert len(server.asked) == 4


def test_one_whose_count_stands_still_is_stuck_though_it_answers_probes(tmp_path: Path) -> None:
    dead, well = Server("dead"), Server("well", seconds=0.01)
    dead.tells_progress = dead.stuck = True
    dead.probe = well.probe  # type: ignore[method-assign]
    assert draw(tmp_path, [dead, well], 40, stall=0.2).answered == 40
    assert set(endpoints_of(tmp_path)) == {"well"}


def test_a_slow_one_that_tells_nothing_but_answers_probes_is_waited_for(tmp_path: Path) -> None:
    server = Server("slow", seconds=0.8)
    assert draw(tmp_path, [server], 4, stall=0.1).retries == 0
    assert server.probes > 1


def test_one_that_refuses_for_good_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, right = Server("wrong"), Server("right")

    async def refuse(request: Request) -> Reply:
        raise EndpointError("the server refuses the key (401)")

    wrong.complete = refuse  # type: ignore[method-assign]
    assert draw(tmp_path, [wrong, right], 30).answered == 30
    assert "wrong is left out: the server refuses the key (401)" in capsys.readouterr().err
    with pytest.raises(EndpointError, match="refuses the key"):
        draw(tmp_path / "alone", [wrong], 30)


def test_a_live_file_brings_servers_and_takes_them_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(json.dumps({"endpoints": [{"name": "a", "url": "http://a"}]}))
    made: dict[str, Server] = {"a": Server("a", seconds=0.01)}

    async def replace_it(request: Request) -> Reply:
        if len(made["a"].asked) == 20:
            beside = tmp_path / "new"
            beside.write_text(json.dumps({"endpoints": [{"name": "b", "url": "http://b"}]}))
            os.utime(beside, (1, 1))
            beside.replace(path)
        return await Server.complete(made["a"], request)

    made["a"].complete = replace_it  # type: ignore[method-assign]

    def build(place: Place) -> Server:
        return made.setdefault(place.name, Server(place.name))

    roster = LiveFile(path, build)
    progress = draw(tmp_path / "traces", [made["a"]], 200, roster=roster)
    assert (progress.answered, progress.failed) == (200, 0)
    found = endpoints_of(tmp_path / "traces")
    assert set(found) == {"a", "b"}
    assert made["a"].closed, "it was given back once nothing was in flight there"
    told = capsys.readouterr().err
    assert "b joins" in told
    assert "a leaves" in told


def followed(folder: Path, **words: Any) -> tuple[LiveFile, dict[str, Server]]:
    """A file that a service writes, without a server in it, and the servers that are made of it."""
    path = folder / "endpoints.json"
    path.write_text(json.dumps({"endpoints": [], "service": words}))
    made: dict[str, Server] = {}
    return LiveFile(path, lambda place: made.setdefault(place.name, Server(place.name))), made


def tell(path: Path, entries: list[dict[str, str]], **words: Any) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"endpoints": entries, "service": words}))
    beside.replace(path)


def test_servers_that_a_service_is_starting_are_waited_for_beyond_all_patience(tmp_path: Path) -> None:
    roster, made = followed(tmp_path, pid=1, starting=1)
    begun = time.monotonic()

    def ready() -> None:
        time.sleep(1.0)
        tell(roster.path, [{"name": "a", "url": "http://a"}], pid=1, starting=0)

    starting = threading.Thread(target=ready)
    starting.start()
    progress = draw(tmp_path / "traces", [], 20, roster=roster, patience=0.2)
    starting.join()
    assert progress.answered == 20
    assert time.monotonic() - begun > 1.0
    assert set(made) == {"a"}


def test_a_service_that_is_gone_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roster, _ = followed(tmp_path, pid=1, starting=1)
    monkeypatch.setattr("distill.sampling.endpoints.STALE_SECONDS", 0.3)
    with pytest.raises(EndpointError, match="no server answered"):
        draw(tmp_path / "traces", [], 20, roster=roster, patience=0.5)


def test_a_service_that_gave_up_ends_the_waiting_with_its_reason(tmp_path: Path) -> None:
    roster, _ = followed(tmp_path, pid=1, starting=1)

    def gives_up() -> None:
        time.sleep(0.5)
        tell(roster.path, [], pid=1, starting=0, ended="every replica was given up", todo="lower serve.max_model_len")

    starting = threading.Thread(target=gives_up)
    starting.start()
    with pytest.raises(EndpointError, match="every replica was given up") as ended:
        draw(tmp_path / "traces", [], 20, roster=roster)
    starting.join()
    assert ended.value.todo == "lower serve.max_model_len"


def test_many_servers_grow_each_by_itself(tmp_path: Path) -> None:
    servers = [Server(f"s{number}", seconds=0.002) for number in range(3)]
    draw(tmp_path, servers, 3_000, start=4, most=32)
    assert all(4 < server.most <= 32 for server in servers)
