"""Replicas on a Ray cluster: a placement group for each, an actor on each of its nodes that guards the node's process.

Ray finds the nodes, gives out their GPUs and says when one is gone; vLLM itself runs without it. The package travels to
the nodes, which need Ray and the same Python version, and vLLM where the command says. Knows nothing about vLLM.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distill.clusters import ray_for, require_answer, unreachable
from distill.errors import RunError
from distill.progress import say
from distill.serve.launching import (
    FURTHER_PORTS,
    Addresses,
    Build,
    Need,
    NodeGoneError,
    RunningNodes,
    kept_to,
    least_used,
)
from distill.serve.node import NodeCommand
from distill.serve.ray_node import Facts, NodeActor, RayNode

SETTING = "--ray-address "
PLACE_SECONDS = 5.0
"""After which a replica that waits for its place says so, once."""
ROOM_SECONDS = 2.0
ACTOR_SECONDS = 180.0
"""For an actor to run on its node: the package is sent there first."""
STARTS = 3
"""How often a place is looked for anew when a node of it goes before the replica runs."""
CALLS = 8
"""Methods of an actor that may run at once: a stop takes minutes, and may be hastened."""
PORT_TRIES = 20
T = TypeVar("T")


class RayLauncher:
    """A Launcher of the cluster at `address`, by default the one that this machine belongs to.

    `replicas` share its CPU cores where a need does not say how many. Each method raises MissingError without Ray,
    RunError where the cluster cannot be reached.
    """

    def __init__(self, address: str | None = None, *, replicas: int = 1) -> None:
        self.address, self.replicas = address, replicas
        self._ray: Any = None
        self._own = False
        self._connecting = asyncio.Lock()
        self._taken: dict[str, tuple[list[Facts], Addresses]] = {}
        self._running: dict[str, RunningNodes] = {}
        self._starting: set[str] = set()

    async def cluster(self) -> Any:
        """Ray itself, connected."""
        await self._connect()
        return self._ray

    async def start(self, name: str, need: Need, build: Build, logs: Path, secrets: Mapping[str, str]) -> RunningNodes:
        """See Launcher. Waits for a place as long as there is none, and says so once."""
        if name in self._running or name in self._starting:
            raise RunError(f"{name} runs already", todo="stop it first")
        self._starting.add(name)
        try:
            await self._connect()
            for left in reversed(range(STARTS)):
                try:
                    return await self._start(name, need, build, logs, secrets)
                except NodeGoneError as gone:
                    if not left:
                        raise RunError(f"{name} found no place that lasts: {gone}") from gone
                    say(f"{name}: {gone}; it is placed anew")
            raise AssertionError("unreachable")
        finally:
            self._starting.discard(name)

    async def room(self, need: Need) -> bool:
        """Takes the place and gives it back at once."""
        await self._connect()
        group = await self._group(need)
        try:
            return await asyncio.to_thread(group.wait, ROOM_SECONDS)
        finally:
            await self._remove(group)

    async def close(self) -> None:
        try:
            await asyncio.gather(*(running.kill() for running in list(self._running.values())))
        finally:
            if self._own:
                self._own = False
                await asyncio.to_thread(self._ray.shutdown)

    async def _connect(self) -> None:
        async with self._connecting:
            if self._ray is None:
                ray = ray_for("--launcher ray")
                # in a thread, since Ray would set its own handler of SIGTERM in the main one
                self._own = await asyncio.to_thread(_joined, ray, self.address)
                self._ray = ray

    async def _start(self, name: str, need: Need, build: Build, logs: Path, secrets: Mapping[str, str]) -> RunningNodes:
        group, nodes = await self._group(need), list[RayNode]()
        try:
            await self._placed(name, need, group)
            nodes += await self._nodes(need, group)
            addresses = await self._addresses(name, need, nodes, int(group.bundle_specs[0].get("CPU", 0)))
            commands = build(addresses)
            if len(commands) != need.nodes:
                raise ValueError(f"{len(commands)} commands for {need.nodes} nodes")
            placed = enumerate(zip(nodes, commands, addresses.devices, strict=True))
            starts = [
                _launched(name, number, one, kept_to(command, need, devices), logs.absolute(), secrets)
                for number, (one, command, devices) in placed
            ]
            await _all(starts)
        except BaseException:
            self._taken.pop(name, None)
            await asyncio.shield(self._undone(nodes, group))
            raise

        async def release() -> None:
            del self._taken[name], self._running[name]
            await self._remove(group)

        self._running[name] = RunningNodes(name, nodes, addresses, release)
        return self._running[name]

    async def _group(self, need: Need) -> Any:
        """A placement group: its bundles are the nodes."""
        from ray.util.placement_group import placement_group

        bundle = await asyncio.to_thread(self._bundle, need)
        strategy = "STRICT_SPREAD" if need.nodes > 1 else "PACK"
        return await asyncio.to_thread(placement_group, [bundle] * need.nodes, strategy)

    def _bundle(self, need: Need) -> dict[str, float]:
        cores = {"CPU": float(need.cores)} if need.cores else {}
        if need.device == "cuda":
            return {"GPU": float(need.gpus), **cores}
        alive = [one["Resources"].get("CPU", 0) for one in self._ray.nodes() if one["Alive"]]
        counts = sorted(int(count) for count in alive if count)
        share = min(sum(counts) // (self.replicas * need.nodes), counts[0]) if counts else 0
        return cores or {"CPU": float(max(1, share))}

    async def _undone(self, nodes: Sequence[RayNode], group: Any) -> None:
        await asyncio.gather(*(one.stop(0.0) for one in nodes), return_exceptions=True)
        await self._remove(group)

    async def _remove(self, group: Any) -> None:
        from ray.util.placement_group import remove_placement_group

        await asyncio.to_thread(remove_placement_group, group)

    async def _placed(self, name: str, need: Need, group: Any) -> None:
        """Waits until the cluster has a place."""
        if not await asyncio.to_thread(group.wait, PLACE_SECONDS):
            free = await asyncio.to_thread(self._ray.available_resources)
            has = ", ".join(f"{free.get(kind, 0):g} {kind}s" for kind in group.bundle_specs[0])
            takes = ", ".join(f"{count:g} {kind}s" for kind, count in group.bundle_specs[0].items())
            where = f"on each of {need.nodes} nodes" if need.nodes > 1 else "on one node"
            say(f"{name} waits for a place: it takes {takes} {where}; the Ray cluster has {has} free in all")
            while not await asyncio.to_thread(group.wait, 1):
                pass

    async def _nodes(self, need: Need, group: Any) -> list[RayNode]:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        takes = group.bundle_specs[0]
        cls = self._ray.remote(num_cpus=takes.get("CPU", 0), num_gpus=takes.get("GPU", 0))(NodeActor)
        actors = []
        for number in range(need.nodes):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
            actors.append(cls.options(scheduling_strategy=strategy, max_concurrency=CALLS, max_restarts=0).remote())
        return await _all([self._node(actor) for actor in actors])

    async def _node(self, actor: Any) -> RayNode:
        nobody = RayNode(self._ray, actor, Facts("", "that was chosen", [], []))
        try:
            return RayNode(self._ray, actor, await nobody.answer(actor.facts.remote(), ACTOR_SECONDS))
        except TimeoutError:
            raise NodeGoneError(f"an actor did not start within {ACTOR_SECONDS:.0f} s") from None
        except self._ray.exceptions.RuntimeEnvSetupError as error:
            raise RunError(
                "a node of the Ray cluster cannot take the package in",
                given=str(error).strip().splitlines()[-1][:200],
                todo="look into runtime_env_setup.log of that node",
            ) from error

    async def _addresses(self, name: str, need: Need, nodes: Sequence[RayNode], cores: int) -> Addresses:
        first = nodes[0]
        for _ in range(PORT_TRIES):
            ports = await first.free_ports(1 + FURTHER_PORTS)
            if self._ports_given(first.facts.node_id).isdisjoint(ports):
                break
        else:
            raise RunError("the node has no free ports left", given=first.facts.host)
        devices = tuple(self._devices(need, one.facts, cores) for one in nodes)
        hosts = tuple(one.facts.host for one in nodes)
        addresses = Addresses(hosts, ports[0], tuple(ports[1:]), devices)
        self._taken[name] = ([one.facts for one in nodes], addresses)
        return addresses

    def _ports_given(self, node_id: str) -> set[int]:
        """Those of a replica that is still starting are not in use yet."""
        places = [place for facts, place in self._taken.values() if facts[0].node_id == node_id]
        return {port for place in places for port in (place.port, *place.ports)}

    def _devices(self, need: Need, facts: Facts, count: int) -> tuple[str, ...]:
        """The GPUs that Ray gave, or cores: Ray counts CPUs, and does not say which."""
        if need.device == "cuda":
            return tuple(facts.gpus)
        taken = [
            place.devices[number]
            for others, place in self._taken.values()
            for number, other in enumerate(others)
            if other.node_id == facts.node_id
        ]
        return tuple(least_used(facts.cores, taken, min(count, len(facts.cores)), alone=False) or ())


def _joined(ray: Any, address: str | None) -> bool:
    """Connects to the cluster; whether that was done here. The package goes along, but for its specs and weights."""
    if ray.is_initialized():
        return False
    require_answer(address, SETTING)
    logging.getLogger("ray").setLevel(logging.ERROR)  # before `logging_level` counts, it tells of its settings
    package = Path(__file__).resolve().parent.parent
    travels = {"py_modules": [str(package)], "excludes": ["specs", "__pycache__"]}
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR", runtime_env=travels)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise unreachable(address or "the one that this machine belongs to", error, SETTING) from error
    return True


async def _launched(
    name: str, number: int, place: RayNode, command: NodeCommand, logs: Path, secrets: Mapping[str, str]
) -> None:
    wanted = logs / f"node-{number}.log"
    try:
        log = await place.launch(command, wanted, secrets)
    except TimeoutError:
        raise NodeGoneError(f"node {place.facts.host} of the Ray cluster does not answer") from None
    if log != wanted:
        say(f"{name}: node {place.facts.host} cannot write to {logs}; its log lies there in {log}")


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results; of several errors the first, when none is under way any more."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
