"""Replicas on this machine: real small servers, each with devices and ports of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from distill.errors import RunError, UsageError
from distill.serve import node
from distill.serve.launching import FURTHER_PORTS, Addresses, Launcher, Need, NodeGoneError, Running, RunningNodes
from distill.serve.local import LocalLauncher
from distill.serve.node import NodeCommand
from serve.programs import SERVER, STUBBORN, TICKING, lives, noted, python, served

CPU = Need(device="cpu")


def serving(place: Addresses) -> Sequence[NodeCommand]:
    return [NodeCommand((sys.executable, str(SERVER), str(place.port)), {"GIVEN": "this"})]


def running(code: str) -> Any:
    return lambda place: [NodeCommand(python(code), {})]


@asynccontextmanager
async def launching(**how: Any) -> AsyncIterator[LocalLauncher]:
    launcher = LocalLauncher(**how)
    try:
        yield launcher
    finally:
        await launcher.close()


async def ended(replica: Running) -> str:
    end = time.monotonic() + 15
    while (why := await replica.ended()) is None:
        assert time.monotonic() < end, "it goes on"
        await asyncio.sleep(0.02)
    return why


def test_it_is_a_launcher() -> None:
    launcher: Launcher = LocalLauncher()
    assert launcher is not None


def test_a_replica_serves_and_stops(tmp_path: Path) -> None:
    async def check() -> None:
        async with launching() as launcher:
            replica = await launcher.start("replica-0", CPU, serving, tmp_path, {"VLLM_API_KEY": "sesame"})
            assert replica.addresses.hosts == ("127.0.0.1",)
            assert len({replica.addresses.port, *replica.addresses.ports}) == 1 + FURTHER_PORTS
            told = await asyncio.to_thread(served, replica.addresses.port)
            assert replica.pids == (told["pid"],)
            assert told["environment"]["VLLM_API_KEY"] == "sesame"
            assert "sesame" not in repr(replica) + str(told["arguments"])
            assert await replica.ended() is None
            assert await replica.log_growth() > 0
            assert (await replica.tail(5))[0] == f"serving on {replica.addresses.port}"
            assert (tmp_path / "node-0.log").read_text().startswith("serving on ")
            await replica.stop(10)
            assert await replica.ended() == "replica-0 ended with exit code 143"
            assert replica.exit_code == 143
            assert not lives(told["pid"])

    asyncio.run(check())


def test_what_ends_by_itself_is_told_with_its_last_lines(tmp_path: Path) -> None:
    async def check() -> None:
        async with launching() as launcher:
            replica = await launcher.start("replica-0", CPU, running("print('no memory'); sys.exit(3)"), tmp_path, {})
            assert await ended(replica) == "replica-0 ended with exit code 3"
            assert replica.exit_code == 3
            assert await replica.tail(5) == ["no memory"]
            await replica.kill()

    asyncio.run(check())


def test_a_killed_one_too(tmp_path: Path) -> None:
    async def check() -> None:
        async with launching() as launcher:
            replica = await launcher.start("replica-1", CPU, running(TICKING), tmp_path, {})
            os.kill(replica.pids[0], signal.SIGKILL)
            assert await ended(replica) == "replica-1 ended with exit code 137"

    asyncio.run(check())


def test_gpus_are_given_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        need = Need(gpus=2)
        async with launching(gpus=["3", "1", "GPU-a", "0", "2"]) as launcher:
            one = await launcher.start("one", need, serving, tmp_path / "1", {})
            assert one.addresses.devices == (("3", "1"),)
            assert await launcher.room(need)
            two = await launcher.start("two", need, serving, tmp_path / "2", {})
            assert two.addresses.devices == (("GPU-a", "0"),)
            told = await asyncio.to_thread(served, two.addresses.port)
            assert told["environment"]["CUDA_VISIBLE_DEVICES"] == "GPU-a,0"
            assert told["environment"].get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
            assert not await launcher.room(need)
            assert await launcher.room(Need(gpus=1))
            with pytest.raises(RunError, match="no place for three") as caught:
                await launcher.start("three", need, serving, tmp_path / "3", {})
            assert caught.value.given == "2 GPUs of 5"
            await one.stop(5)
            await one.kill()  # the place is given back once
            assert await launcher.room(need)
            again = await launcher.start("one", need, serving, tmp_path / "1", {})
            assert again.addresses.devices == (("3", "1"),)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asyncio.run(check())


def test_the_users_own_choice_of_gpus_keeps_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that the user gave count as CUDA counts, not as the driver does."""

    async def check() -> None:
        async with launching() as launcher:
            replica = await launcher.start("one", Need(gpus=1), serving, tmp_path, {})
            told = await asyncio.to_thread(served, replica.addresses.port)
            assert told["environment"]["CUDA_VISIBLE_DEVICES"] == "7"
            assert "CUDA_DEVICE_ORDER" not in told["environment"]
            assert not await launcher.room(Need(gpus=2))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,4")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    asyncio.run(check())


def test_cores_are_shared(tmp_path: Path) -> None:
    async def check() -> None:
        own = sorted(os.sched_getaffinity(0))
        async with launching(replicas=2, cores=[own[0], own[-1]]) as launcher:
            one = await launcher.start("one", CPU, serving, tmp_path / "1", {})
            two = await launcher.start("two", CPU, serving, tmp_path / "2", {})
            three = await launcher.start("three", CPU, running(TICKING), tmp_path / "3", {})
            assert one.addresses.devices == ((str(own[0]),),)
            assert two.addresses.devices == ((str(own[-1]),),)
            assert three.addresses.devices == ((str(own[0]),),), "shares overlap when there are more than cores"
            assert (await asyncio.to_thread(served, two.addresses.port))["cores"] == [own[-1]]
            assert "CUDA_VISIBLE_DEVICES" not in (await asyncio.to_thread(served, one.addresses.port))["environment"]
            assert await launcher.room(CPU)
            assert not await launcher.room(Need(cores=1, device="cpu")), "a number of cores is meant for it alone"

    asyncio.run(check())


def test_a_number_of_cores(tmp_path: Path) -> None:
    async def check() -> None:
        async with launching(cores=[4, 5, 6, 7, 8]) as launcher:
            need = Need(cores=2, device="cpu")
            place = await launcher._place("one", need)
            assert place.devices == (("4", "5"),)
            assert (await launcher._place("two", need)).devices == (("6", "7"),)
            with pytest.raises(RunError, match="no place for three") as caught:
                await launcher._place("three", need)
            assert caught.value.given == "2 cores of 5"

    asyncio.run(check())


def test_several_nodes_are_refused(tmp_path: Path) -> None:
    async def check() -> None:
        async with launching() as launcher:
            need = Need(nodes=2, gpus=8)
            assert not await launcher.room(need)
            with pytest.raises(UsageError, match="spans 2 nodes") as caught:
                await launcher.start("replica-0", need, serving, tmp_path, {})
            assert "--launcher ray" in str(caught.value.todo)
            assert "--dry-run" in str(caught.value.todo)

    asyncio.run(check())


def test_a_start_that_fails_gives_its_place_back(tmp_path: Path) -> None:
    async def check() -> None:
        async with launching(gpus=["0"]) as launcher:
            with pytest.raises(RunError, match="cannot be started"):
                await launcher.start("one", Need(gpus=1), lambda place: [NodeCommand(("/no/vllm",), {})], tmp_path, {})
            with pytest.raises(ValueError, match="unpack"):
                await launcher.start("one", Need(gpus=1), lambda place: [], tmp_path, {})
            assert await launcher.room(Need(gpus=1))
            await launcher.start("one", Need(gpus=1), serving, tmp_path, {})
            with pytest.raises(RunError, match="one runs already"):
                await launcher.start("one", Need(gpus=0), serving, tmp_path, {})

    asyncio.run(check())


def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        async with launching(gpus=["0"]) as launcher:
            code = f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
            starting = asyncio.create_task(
                launcher.start("one", Need(gpus=1), running(STUBBORN + code + TICKING), tmp_path, {})
            )
            while not launcher._taken:
                await asyncio.sleep(0)
            assert not await launcher.room(Need(gpus=1))
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert await launcher.room(Need(gpus=1))
            await asyncio.sleep(2)  # one that started all the same would ignore its guard's SIGTERM for longer
            pid = tmp_path / "pid"
            assert not pid.exists() or not lives(noted(pid))

    asyncio.run(check())


def test_close_kills_all(tmp_path: Path) -> None:
    async def check() -> None:
        launcher = LocalLauncher()
        pids: list[int] = []
        for name in ("one", "two"):
            pids += (await launcher.start(name, CPU, running(STUBBORN + TICKING), tmp_path / name, {})).pids
        assert all(lives(pid) for pid in pids)
        await launcher.close()
        assert not any(lives(pid) for pid in pids)

    asyncio.run(check())


def test_replicas_that_start_together_have_ports_of_their_own(tmp_path: Path) -> None:
    async def check() -> None:
        async with launching() as launcher:
            names = ["one", "two", "three", "four"]
            starts = [launcher.start(name, CPU, running(TICKING), tmp_path / name, {}) for name in names]
            places = [replica.addresses for replica in await asyncio.gather(*starts)]
            ports = [port for place in places for port in (place.port, *place.ports)]
            assert len(set(ports)) == len(ports)

    asyncio.run(check())


def test_ports_of_one_that_is_being_placed_are_not_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = itertools.count()

    def free_ports(count: int, host: str) -> list[int]:
        time.sleep(0.1)
        first = 20_000 + 100 * (next(calls) // 2)  # each answer is given twice
        return list(range(first, first + count))

    async def check() -> None:
        async with launching() as launcher:
            monkeypatch.setattr(node, "free_ports", free_ports)
            starts = [launcher.start(name, CPU, running(TICKING), tmp_path / name, {}) for name in ("one", "two")]
            assert sorted(one.addresses.port for one in await asyncio.gather(*starts)) == [20_000, 20_100]

    asyncio.run(check())


class Far:
    """A node of somewhere else."""

    def __init__(self, code: int | Exception | None, left: tuple[int, ...] | Exception = ()) -> None:
        self.pid, self.code, self.left = 7, code, left

    async def poll(self) -> int | None:
        if isinstance(self.code, Exception):
            raise self.code
        return self.code

    async def tail(self, lines: int) -> list[str]:
        await self.poll()
        return [f"code {self.code}"]

    async def log_growth(self) -> int:
        await self.poll()
        return 5

    async def stop(self, seconds: float) -> tuple[int, ...]:
        if isinstance(self.left, Exception):
            raise self.left
        return self.left


async def nothing() -> None:
    """Frees nothing."""


PLACE = Addresses(("a", "b"), 1, (), ((), ()))


def test_of_several_nodes_the_one_that_ended_is_named() -> None:
    async def check() -> None:
        nodes = [Far(None), Far(None)]
        replica = RunningNodes("replica-0", nodes, PLACE, nothing)
        assert await replica.ended() is None
        assert await replica.tail(1) == ["code None"]
        nodes[1].code = 1
        assert await replica.ended() == "node 1 of replica-0 ended with exit code 1"
        nodes[0].code = 9
        assert await replica.ended() == "node 1 of replica-0 ended with exit code 1", "the first one is the cause"
        assert await replica.tail(1) == ["code 1"]
        assert replica.exit_code == 1

    asyncio.run(check())


def test_an_exit_with_0_is_an_end() -> None:
    replica = RunningNodes("replica-0", [Far(0)], PLACE, nothing)
    assert asyncio.run(replica.ended()) == "replica-0 ended with exit code 0"


def test_a_node_that_is_gone_is_told_and_holds_nothing_up() -> None:
    async def check() -> None:
        gone = NodeGoneError("node 10.0.0.2 of the Ray cluster is gone")
        freed: list[int] = []

        async def free() -> None:
            freed.append(1)

        replica = RunningNodes("replica-0", [Far(None), Far(gone, gone)], PLACE, free)
        assert await replica.ended() == "node 1 of replica-0 is lost: node 10.0.0.2 of the Ray cluster is gone"
        assert replica.exit_code is None
        assert await replica.tail(3) == []
        assert await replica.log_growth() == 5
        await replica.stop(1)
        await replica.kill()
        assert freed == [1]

    asyncio.run(check())


def test_an_unforeseen_error_is_none_of_a_node() -> None:
    """It is raised, and the place is free all the same."""

    async def check() -> None:
        freed: list[int] = []

        async def free() -> None:
            freed.append(1)

        replica = RunningNodes("replica-0", [Far(KeyError("what"))], PLACE, free)
        with pytest.raises(KeyError, match="what"):
            await replica.ended()
        with pytest.raises(KeyError, match="what"):
            await replica.stop(1)
        with pytest.raises(KeyError, match="left"):
            await RunningNodes("replica-0", [Far(None, KeyError("left"))], PLACE, free).stop(1)
        assert freed == [1, 1]

    asyncio.run(check())


def test_one_that_was_stopped_is_not_asked_again() -> None:
    """Its place is free: on a cluster there is nobody left to ask."""

    async def check() -> None:
        silent, told = Far(None), Far(143)
        replica = RunningNodes("replica-0", [silent, told], PLACE, nothing)
        await replica.stop(1)
        silent.code = told.code = KeyError("gone")
        assert await replica.ended() == "node 1 of replica-0 ended with exit code 143"
        mute = Far(None)
        replica = RunningNodes("replica-0", [mute], PLACE, nothing)
        await replica.stop(1)
        mute.code = KeyError("gone")
        assert await replica.ended() == "replica-0 was stopped"

    asyncio.run(check())


def test_processes_that_cannot_be_killed_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(RunningNodes("replica-0", [Far(None, (12, 13))], PLACE, nothing).kill())
    assert "node 0 cannot be killed, they hang in the kernel: 12, 13" in capsys.readouterr().err
