"""Replicas on this machine: each gets GPUs of its own, or its share of the CPU cores. Knows nothing about vLLM."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import ParamSpec, TypeVar

from distill.errors import RunError, UsageError
from distill.serve import node
from distill.serve.launching import FURTHER_PORTS, Addresses, Build, Need, RunningNodes, kept_to, least_used
from distill.serve.node import NodeCommand, NodeProcess

PORT_TRIES = 20
THREADS = 128
"""At most; only as many are started as are waited in at once."""
P = ParamSpec("P")
T = TypeVar("T")


class LocalNode:
    """A NodeProcess of this machine, waited for in threads of `pool`: asyncio's own are few, and a stop takes one for
    minutes."""

    def __init__(self, process: NodeProcess, pool: Executor) -> None:
        self.process, self._pool = process, pool

    @property
    def pid(self) -> int | None:
        return self.process.pid

    async def start(self, command: NodeCommand, log: Path, secrets: Mapping[str, str]) -> None:
        await self._waited(self.process.start, command, log, secrets)

    async def poll(self) -> int | None:
        return await self._waited(self.process.poll)

    async def tail(self, lines: int) -> list[str]:
        return await self._waited(self.process.tail, lines)

    async def log_growth(self) -> int:
        return await self._waited(self.process.log_growth)

    async def stop(self, seconds: float) -> tuple[int, ...]:
        if seconds > 0:
            await self._waited(self.process.stop, seconds)
        else:
            await self._waited(self.process.kill)
        return self.process.left

    async def _waited(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *given, **named))


class LocalLauncher:
    """A Launcher of this machine. `host` is the address that replicas are reached at; `replicas` share the CPU cores
    where a need does not say how many. GPUs and cores are by default all that this process may use. With `first_port`
    replicas answer there and at the ports after it, each at the first that no other was given; else at free ones. A log
    is rotated at `log_bytes`."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        replicas: int = 1,
        gpus: Sequence[str] | None = None,
        cores: Sequence[int] | None = None,
        first_port: int | None = None,
        log_bytes: int = node.LOG_BYTES,
    ) -> None:
        self.host, self.replicas = host, replicas
        self._first_port, self._log_bytes = first_port, log_bytes
        self._gpus = list(gpus) if gpus is not None else None
        self._cores = list(cores) if cores is not None else node.cores()
        self._taken: dict[str, tuple[Need, Addresses]] = {}
        self._running: dict[str, RunningNodes] = {}
        self._placing = asyncio.Lock()
        self._pool = ThreadPoolExecutor(THREADS, "node")

    async def start(self, name: str, need: Need, build: Build, logs: Path, secrets: Mapping[str, str]) -> RunningNodes:
        """See Launcher. Raises RunError as well when this machine has no place left."""
        _refuse_several(name, need)
        async with self._placing:
            addresses = await self._place(name, need)
        here = LocalNode(NodeProcess(log_bytes=self._log_bytes), self._pool)
        try:
            (command,) = build(addresses)
            command = _bound(command, need, addresses.devices[0])
            starting = asyncio.ensure_future(here.start(command, logs / "node-0.log", secrets))
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                await asyncio.wait([starting])  # what is half started cannot be ended
                raise
        except BaseException:
            await here.stop(0.0)
            del self._taken[name]
            raise
        self._running[name] = RunningNodes(name, [here], addresses, lambda: self._free(name))
        return self._running[name]

    async def room(self, need: Need) -> bool:
        return need.nodes == 1 and await self._devices(need) is not None

    async def close(self) -> None:
        await asyncio.gather(*(running.kill() for running in list(self._running.values())))

    async def _free(self, name: str) -> None:
        del self._taken[name], self._running[name]

    async def _place(self, name: str, need: Need) -> Addresses:
        if name in self._taken:
            raise RunError(f"{name} runs already", todo="stop it first")
        ports, devices = await self._ports(), await self._devices(need)
        if devices is None:
            raise RunError(
                f"this machine has no place for {name}",
                given=f"{need.gpus} GPUs of {len(self._gpus or ())}"
                if need.device == "cuda"
                else f"{need.cores} cores of {len(self._cores)}",
                todo="ask for fewer replicas, or free the devices",
            )
        addresses = Addresses((self.host,), ports[0], tuple(ports[1:]), (devices,))
        self._taken[name] = (need, addresses)
        return addresses

    async def _ports(self) -> list[int]:
        """Free ports that no replica was given: those of one that is still starting are not in use yet."""
        given = {port for _, place in self._taken.values() for port in (place.port, *place.ports)}
        for _ in range(PORT_TRIES):
            found = await asyncio.to_thread(node.free_ports, 1 + FURTHER_PORTS, self.host)
            if given.isdisjoint(found):
                first = self._first_port
                return found if first is None else [next(p for p in count(first) if p not in given), *found[1:]]
        raise RunError("this machine has no free ports left", given=self.host)

    async def _devices(self, need: Need) -> tuple[str, ...] | None:
        """The devices for one more replica, None when there are too few."""
        if need.device == "cuda":
            if self._gpus is None:
                self._gpus = await asyncio.to_thread(node.gpus)
            used = {gpu for _, place in self._taken.values() for gpu in place.devices[0]}
            free = [gpu for gpu in self._gpus if gpu not in used]
            return tuple(free[: need.gpus]) if len(free) >= need.gpus else None
        taken = [place.devices[0] for _, place in self._taken.values()]
        share = need.cores or max(1, len(self._cores) // self.replicas)
        cores = least_used(self._cores, taken, share, alone=need.cores > 0)
        return tuple(cores) if cores is not None else None


def _refuse_several(name: str, need: Need) -> None:
    if need.nodes > 1:
        raise UsageError(
            f"{name} spans {need.nodes} nodes, and this machine is one",
            given=f"--launcher local, {need.gpus} GPUs on each node",
            todo="use --launcher ray, or start by hand the commands that --dry-run prints, one on each node",
        )


def _bound(command: NodeCommand, need: Need, devices: Sequence[str]) -> NodeCommand:
    bound = kept_to(command, need, devices)
    if need.device == "cuda" and "CUDA_VISIBLE_DEVICES" not in os.environ:
        # the numbers are the driver's, and CUDA has an order of its own where GPUs differ
        return replace(bound, environment={**bound.environment, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    return bound
