"""Where replicas run: what a launcher is asked for, and a replica that runs as processes on one node or several.

A launcher finds a place, lets the caller build each node's command for it, and starts them. Knows nothing about vLLM,
and not whether a replica answers: only whether its processes live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from distill.progress import say
from distill.serve.node import NodeCommand

FURTHER_PORTS = 8
"""Free ports that a replica gets beyond the one it answers on: for vLLM's own traffic between processes and nodes."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes: on each of `nodes` nodes so many GPUs, or CPU cores (0: a fair share)."""

    nodes: int = 1
    gpus: int = 0
    cores: int = 0
    device: Literal["cuda", "cpu"] = "cuda"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The place of one replica; the first node is the one that answers."""

    hosts: tuple[str, ...]
    """Each node's address as the other nodes reach it."""
    port: int
    ports: tuple[int, ...]
    """Further free ports on the first node."""
    devices: tuple[tuple[str, ...], ...]
    """Of each node: GPUs as CUDA_VISIBLE_DEVICES names them, or numbers of CPU cores."""


Build = Callable[[Addresses], Sequence[NodeCommand]]
"""Makes one command for each node of a place."""


Release = Callable[[], Awaitable[None]]


class Running(Protocol):
    """A replica whose processes were started."""

    @property
    def addresses(self) -> Addresses: ...

    @property
    def exit_code(self) -> int | None:
        """Of the node that ended first; None while all live, and where its machine is gone."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Of each node's command, on that node."""

    async def ended(self) -> str | None:
        """None while every node's process lives; else a sentence that says which ended, and how."""

    async def log_growth(self) -> int:
        """Bytes that the logs of all nodes grew by since this was asked last."""

    async def tail(self, lines: int) -> list[str]:
        """The last lines of the log of the node that ended first, else of the first node."""

    async def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL after so many seconds; nothing is left when it returns, and its place is free."""

    async def kill(self) -> None:
        """SIGKILL; nothing is left when it returns, and its place is free."""


class Launcher(Protocol):
    """Starts replicas somewhere."""

    async def start(self, name: str, need: Need, build: Build, logs: Path, secrets: Mapping[str, str]) -> Running:
        """Starts the replica `name`; `secrets` are variables for its processes alone; the nodes write node-N.log into
        `logs`. Raises UsageError for a need that this launcher never meets, RunError when a command cannot be started.
        """

    async def room(self, need: Need) -> bool:
        """Whether another replica would find a place now."""

    async def close(self) -> None:
        """Kills what still runs and frees all places."""


class NodeGoneError(Exception):
    """The machine of a node is gone, with all that ran there; its text is a clause that says so."""


class Node(Protocol):
    """A NodeProcess, wherever it is. Each method raises NodeGoneError when it is nowhere any more."""

    @property
    def pid(self) -> int | None: ...

    async def poll(self) -> int | None: ...

    async def tail(self, lines: int) -> list[str]: ...

    async def log_growth(self) -> int: ...

    async def stop(self, seconds: float) -> tuple[int, ...]:
        """SIGTERM, later SIGKILL, at once for 0 seconds; the processes that could not be killed."""


class RunningNodes:
    """A Running of any kind of node. `release` frees the place, once, when nothing runs there any more."""

    def __init__(self, name: str, nodes: Sequence[Node], addresses: Addresses, release: Release) -> None:
        self.name, self.addresses = name, addresses
        self._nodes, self._release = nodes, release
        self._released = False
        self._first: int | None = None
        self._why: str | None = None
        self.exit_code: int | None = None

    def __repr__(self) -> str:
        return f"RunningNodes({self.name!r}, {self.addresses!r})"

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(node.pid for node in self._nodes if node.pid is not None)

    async def ended(self) -> str | None:
        if self._why is None:
            polled = await asyncio.gather(*(node.poll() for node in self._nodes), return_exceptions=True)
            for number, code in enumerate(polled):
                if code is not None and self._why is None:
                    self._note(number, code)
        return self._why

    def _note(self, number: int, code: int | BaseException) -> None:
        if isinstance(code, BaseException) and not isinstance(code, NodeGoneError):
            raise code
        where = self.name if len(self._nodes) == 1 else f"node {number} of {self.name}"
        self._first = number
        if isinstance(code, BaseException):
            self._why = f"{where} is lost: {code}"
        else:
            self._why, self.exit_code = f"{where} ended with exit code {code}", code

    async def log_growth(self) -> int:
        grown = await asyncio.gather(*(node.log_growth() for node in self._nodes), return_exceptions=True)
        return sum(bytes_ for bytes_ in grown if isinstance(bytes_, int))

    async def tail(self, lines: int) -> list[str]:
        try:
            return await self._nodes[self._first or 0].tail(lines)
        except NodeGoneError:
            return []

    async def stop(self, seconds: float) -> None:
        ends = await asyncio.gather(*(node.stop(seconds) for node in self._nodes), return_exceptions=True)
        if not self._released:
            self._released = True
            try:
                self._why = await self.ended() or f"{self.name} was stopped"
            finally:
                await self._release()
        for number, left in enumerate(ends):
            if isinstance(left, tuple) and left:
                pids = ", ".join(str(pid) for pid in left)
                say(f"{self.name}: processes of node {number} cannot be killed, they hang in the kernel: {pids}")
            elif isinstance(left, BaseException) and not isinstance(left, NodeGoneError):
                raise left

    async def kill(self) -> None:
        await self.stop(0.0)


def kept_to(command: NodeCommand, need: Need, devices: Sequence[str]) -> NodeCommand:
    """The command, which sees these GPUs alone, or runs on these cores alone."""
    if need.device == "cuda":
        own = {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
        return replace(command, environment={**command.environment, **own})
    return replace(command, cores=tuple(int(core) for core in devices))


def least_used(cores: Sequence[int], taken: Iterable[Sequence[str]], count: int, *, alone: bool) -> list[str] | None:
    """`count` of the cores of a node, those that the fewest replicas have `taken`; `alone` wants them for itself, and
    gets None where too few are left."""
    load = dict.fromkeys(cores, 0)
    for devices in taken:
        for core in devices:
            load[int(core)] += 1
    chosen = sorted(cores, key=lambda core: load[core])[:count]
    if alone and (len(chosen) < count or any(load[core] for core in chosen)):
        return None
    return [str(core) for core in sorted(chosen)]
