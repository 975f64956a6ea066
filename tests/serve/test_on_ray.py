"""Replicas on a Ray cluster of simulated nodes on this machine; what they run are small real servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import distill
from distill.errors import MissingError, RunError
from distill.serve.launching import Addresses, Launcher, Need, Running
from distill.serve.node import NodeCommand
from distill.serve.on_ray import RayLauncher
from distill.serve.ray_node import RayNode
from serve.programs import SERVER, STUBBORN, TICKING, lives, python, served, until

pytestmark = pytest.mark.timeout(180)
ONE = Need(cores=1, device="cpu")
TWO = Need(nodes=2, cores=1, device="cpu")


class Simulated:
    """A head that takes nothing, and two nodes of one CPU and four GPUs each, of which Ray only knows the number."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.fill()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def fill(self) -> None:
        while len(self.cluster.worker_nodes) < 2:
            self.cluster.add_node(num_cpus=1, num_gpus=4)

    def remove(self, node_id: str) -> None:
        """The machine of that node fails."""
        (node,) = (one for one in self.cluster.worker_nodes if one.node_id == node_id)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Simulated]:
    pytest.importorskip("ray")
    made = Simulated()
    yield made
    made.cluster.shutdown()


@pytest.fixture
def simulated(cluster: Simulated) -> Simulated:
    cluster.fill()
    return cluster


@asynccontextmanager
async def launching(simulated: Simulated, **how: Any) -> AsyncIterator[RayLauncher]:
    launcher = RayLauncher(simulated.address, **how)
    try:
        yield launcher
    finally:
        await launcher.close()


def serving(place: Addresses) -> Sequence[NodeCommand]:
    command = NodeCommand((sys.executable, str(SERVER), str(place.port), "0.0.0.0"), {"GIVEN": "this"})
    return [command, *[NodeCommand(python(STUBBORN + TICKING), {})] * (len(place.hosts) - 1)]


async def told(replica: Running) -> dict[str, Any]:
    return await asyncio.to_thread(served, replica.addresses.port, replica.addresses.hosts[0])


async def becomes(ask: Callable[[], Awaitable[Any]], seconds: float = 40.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := await ask()):
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.1)
    return found


def node_of(launcher: RayLauncher, name: str, number: int = 0) -> str:
    return launcher._taken[name][0][number].node_id


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
def test_a_replica_moves_when_its_node_dies(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def check() -> None:
        async with launching(simulated) as launcher:
            assert await launcher.room(ONE)
            one = await launcher.start("replica-0", ONE, serving, tmp_path / "0", {"VLLM_API_KEY": "sesame"})
            two = await launcher.start("replica-1", ONE, serving, tmp_path / "1", {})
            lost, kept = await told(one), await told(two)
            assert one.pids == (lost["pid"],)
            assert node_of(launcher, "replica-0") != node_of(launcher, "replica-1")
            assert lost["environment"]["VLLM_API_KEY"] == "sesame"
            assert lost["environment"]["GIVEN"] == "this"
            assert "OMP_NUM_THREADS" not in lost["environment"]
            assert lost["ray"] == [], "what Ray set for its worker is none of the server's"
            assert len(lost["cores"]) == 1
            assert (await one.tail(5))[0].startswith("serving on")
            assert await one.log_growth() > 0
            assert await one.ended() is None
            assert not await launcher.room(ONE)

            again = asyncio.create_task(launcher.start("replica-2", ONE, serving, tmp_path / "2", {}))
            await asyncio.to_thread(simulated.remove, node_of(launcher, "replica-0"))
            why = await becomes(one.ended)
            assert why.startswith("replica-0 is lost: node ")
            assert why.endswith(" of the Ray cluster is gone")
            await asyncio.to_thread(until, lambda: not lives(lost["pid"]))
            await one.kill()
            assert await two.ended() is None

            await two.stop(10)
            assert await two.ended() == "replica-1 ended with exit code 143"
            assert not lives(kept["pid"])
            assert lives((await told(await again))["pid"]), "it has the place that was given back"
            again_pids = (await again).pids
        assert not any(lives(pid) for pid in again_pids), "nothing is left when the launcher has closed"

    asyncio.run(check())
    said = capsys.readouterr().err
    assert said.count("replica-2 waits for a place: it takes 1 CPUs on one node; the Ray cluster has ") == 1


@pytest.mark.slow
def test_a_replica_over_two_nodes_loses_one(simulated: Simulated, tmp_path: Path) -> None:
    async def check() -> None:
        async with launching(simulated) as launcher:
            replica = await launcher.start("replica-0", TWO, serving, tmp_path, {})
            first = (await told(replica))["pid"]
            assert replica.pids[0] == first
            assert node_of(launcher, "replica-0", 0) != node_of(launcher, "replica-0", 1)
            assert sorted(path.name for path in tmp_path.iterdir()) == ["node-0.log", "node-1.log"]
            await asyncio.to_thread(simulated.remove, node_of(launcher, "replica-0", 1))
            assert (await becomes(replica.ended)).startswith("node 1 of replica-0 is lost: node ")
            assert await replica.tail(3) == []
            await replica.stop(5)
            assert not lives(first)
            await asyncio.to_thread(until, lambda: not lives(replica.pids[1]), 10)

    asyncio.run(check())


@pytest.mark.slow
def test_what_fails_at_the_start_gives_its_place_back(simulated: Simulated, tmp_path: Path) -> None:
    async def check() -> None:
        async with launching(simulated) as launcher:
            with pytest.raises(RunError, match="cannot be started: /no/vllm: No such file"):
                await launcher.start("one", ONE, lambda place: [NodeCommand(("/no/vllm",), {})], tmp_path, {})
            with pytest.raises(ValueError, match="0 commands for 1 nodes"):
                await launcher.start("one", ONE, lambda place: [], tmp_path, {})
            waiting = asyncio.create_task(launcher.start("many", Need(nodes=5, device="cpu"), serving, tmp_path, {}))
            await asyncio.sleep(1)
            with pytest.raises(RunError, match="many runs already"):
                await launcher.start("many", ONE, serving, tmp_path, {})
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await launcher.start("many", TWO, serving, tmp_path, {})
            assert not await launcher.room(ONE)
            assert not await launcher.room(Need(gpus=5))

    asyncio.run(check())


@pytest.mark.slow
def test_gpus_are_those_that_ray_gave(simulated: Simulated, tmp_path: Path) -> None:
    async def check() -> None:
        async with launching(simulated) as launcher:
            need = Need(nodes=2, gpus=2)
            replicas = [await launcher.start(name, need, serving, tmp_path / name, {}) for name in ("one", "two")]
            given = [(await told(replica))["environment"]["CUDA_VISIBLE_DEVICES"] for replica in replicas]
            assert [",".join(replica.addresses.devices[0]) for replica in replicas] == given
            gpus: dict[str, list[str]] = {}
            for facts, place in launcher._taken.values():
                for one, devices in zip(facts, place.devices, strict=True):
                    gpus.setdefault(one.node_id, []).extend(devices)
            assert [sorted(devices) for devices in gpus.values()] == [["0", "1", "2", "3"]] * 2
            assert len({replica.addresses.port for replica in replicas}) == 2
            assert not await launcher.room(Need(gpus=1))
            await replicas[0].stop(5)
            assert await launcher.room(need)
            assert not await launcher.room(Need(gpus=3))

    asyncio.run(check())


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_its_process_along(simulated: Simulated, tmp_path: Path) -> None:
    async def check() -> None:
        async with launching(simulated) as launcher:
            replica = await launcher.start("replica-0", ONE, serving, tmp_path, {})
            pid = (await told(replica))["pid"]
            (node,) = replica._nodes
            assert isinstance(node, RayNode)
            node._ray.kill(node._actor)
            why = await becomes(replica.ended)
            assert why.startswith("replica-0 is lost: the Ray worker that guarded it on node ")
            await replica.kill()
            assert not lives(pid), "also where only the guard knew that it has to end"

    asyncio.run(check())


SUPERVISOR = """
import asyncio, json, signal, sys
from pathlib import Path
from distill.serve.launching import Need
from distill.serve.node import NodeCommand
from distill.serve.on_ray import RayLauncher

async def main(address, logs):
    launcher = RayLauncher(address)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    command = NodeCommand((sys.executable, "-c", "import time; time.sleep(600)"), {})
    replica = await launcher.start("replica-0", Need(cores=1, device="cpu"), lambda place: [command], Path(logs), {})
    print(json.dumps(replica.pids), flush=True)
    await stopped.wait()
    await launcher.close()
    print("closed", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.rehearse  # minutes in all; the other tests here show most of it
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_supervisor_ends_as_it_wants_or_is_killed(simulated: Simulated, tmp_path: Path, how: int) -> None:
    """Ray sets a handler of SIGTERM that would end it at once."""
    command = [sys.executable, "-c", SUPERVISOR, simulated.address, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        (pid,) = json.loads(supervisor.stdout.readline())
        assert lives(pid)
        os.kill(supervisor.pid, how)
        assert supervisor.stdout.read() == (b"closed\n" if how == signal.SIGTERM else b"")
    if how == signal.SIGTERM:
        assert supervisor.returncode == 0
        assert not lives(pid)
    until(lambda: not lives(pid), 30)


TRAVELLING = """
import asyncio, os, sys
from pathlib import Path
from distill.serve.launching import Need
from distill.serve.node import NodeCommand
from distill.serve.on_ray import RayLauncher

async def main(address, package):
    launcher = RayLauncher(address)
    assert await launcher.room(Need(device="cpu"))
    os.rename(package, package + "-elsewhere")
    command = NodeCommand((sys.executable, "-c", "import time; time.sleep(600)"), {})
    replica = await launcher.start("replica-0", Need(device="cpu"), lambda place: [command], Path(package).parent, {})
    guard = Path(f"/proc/{replica.pids[0]}/stat").read_text().rpartition(")")[2].split()[1]
    print(*Path(f"/proc/{guard}/cmdline").read_text().split(chr(0))[:3])
    await launcher.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_code_travels_to_the_nodes(simulated: Simulated, tmp_path: Path) -> None:
    """They see neither its folder nor this one, which Ray tells them where it is the current one."""
    package = shutil.copytree(Path(distill.__file__).parent, tmp_path / "packages" / "distill")
    command = [sys.executable, "-c", TRAVELLING, simulated.address, str(package)]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == "", "Ray says nothing of its own between our lines"
    assert re.search(r" -I \S*/py_modules_files/\S*/distill/serve/guard.py$", ran.stdout.strip())


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    launcher: Launcher = RayLauncher()
    with pytest.raises(MissingError, match="--launcher ray needs Ray") as caught:
        asyncio.run(launcher.room(ONE))
    assert caught.value.todo == "pip install 'distill[ray]'"


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(RunError, match="the Ray cluster cannot be reached") as caught:
        asyncio.run(RayLauncher("127.0.0.1:1").start("one", ONE, serving, tmp_path, {}))
    assert "127.0.0.1:1" in str(caught.value.given)
    assert "--ray-address auto" in str(caught.value.todo)
