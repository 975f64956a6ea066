"""A node of a Ray cluster: the actor that guards a process there, and the Node that asks it from here.

Secrets go as arguments of a method: not into a runtime environment, which Ray writes into logs, nor into a name. Knows
nothing about placement, nor about vLLM.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.serve import guard, node
from distill.serve.launching import NodeGoneError
from distill.serve.node import NodeCommand, NodeProcess

ASK_SECONDS = 20.0
UNHEARD_SECONDS = 90.0
"""A node that answers nothing for so long counts as gone. Ray's own health check takes up to 30 s."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an actor found on its node; `cores` are all of it, `gpus` those that Ray gave to the actor."""

    node_id: str
    host: str
    cores: list[int]
    gpus: list[str]


class NodeActor(NodeProcess):
    """A NodeProcess in a worker of Ray, whose own variables the process does not get."""

    def __init__(self) -> None:
        own = [name for name in os.environ if name.startswith("RAY_")]
        super().__init__(without=[*own, "OMP_NUM_THREADS"])  # which Ray sets to the CPUs that the actor asked for

    def facts(self) -> Facts:
        import ray

        return Facts(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), self.cores(), self.gpus())

    def launch(self, command: NodeCommand, log: Path, secrets: Mapping[str, str]) -> tuple[int | None, Path]:
        """Starts it; its pid, and where its log lies: elsewhere where this node has no such folder. Raises what `start`
        does."""
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            log = Path(tempfile.mkdtemp(prefix="distill-logs-")) / log.name
        self.start(command, log, secrets)
        return self.pid, log

    def halt(self, seconds: float) -> tuple[int, ...]:
        if seconds > 0:
            self.stop(seconds)
        else:
            self.kill()
        return self.left


class RayNode:
    """A Node whose NodeActor is on another machine."""

    def __init__(self, ray: Any, actor: Any, facts: Facts) -> None:
        self.facts, self.pid = facts, None
        self._ray, self._actor = ray, actor
        self._unheard: float | None = None

    async def launch(self, command: NodeCommand, log: Path, secrets: Mapping[str, str]) -> Path:
        """Where its log lies. Raises RunError when it cannot be started, NodeGoneError when the node is gone."""
        call = self._actor.launch.remote(command, log, secrets)
        self.pid, where = await self.answer(call, node.START_SECONDS + ASK_SECONDS)
        return Path(where)

    async def free_ports(self, count: int) -> list[int]:
        found: list[int] = await self.answer(self._actor.free_ports.remote(count), ASK_SECONDS)
        return found

    async def poll(self) -> int | None:
        """One that does not answer for a moment counts as alive."""
        now = asyncio.get_running_loop().time()
        try:
            code: int | None = await self.answer(self._actor.poll.remote(), ASK_SECONDS)
        except TimeoutError:
            self._unheard = self._unheard or now
            if now - self._unheard < UNHEARD_SECONDS:
                return None
            told = f"node {self.facts.host} of the Ray cluster has not answered for {UNHEARD_SECONDS:.0f} s"
            raise NodeGoneError(told) from None
        self._unheard = None
        return code

    async def tail(self, lines: int) -> list[str]:
        try:
            found: list[str] = await self.answer(self._actor.tail.remote(lines), ASK_SECONDS)
        except TimeoutError:
            return []
        return found

    async def log_growth(self) -> int:
        try:
            grown: int = await self.answer(self._actor.log_growth.remote(), ASK_SECONDS)
        except TimeoutError:
            return 0
        return grown

    async def stop(self, seconds: float) -> tuple[int, ...]:
        limit = seconds + guard.KILL_SECONDS + 2 * guard.ORPHAN_SECONDS + ASK_SECONDS
        try:
            left: tuple[int, ...] = await self.answer(self._actor.halt.remote(seconds), limit)
        except TimeoutError:
            raise NodeGoneError(f"node {self.facts.host} of the Ray cluster does not answer") from None
        except NodeGoneError:
            if await asyncio.to_thread(self._node_lives):
                await asyncio.sleep(guard.ORPHAN_SECONDS + 1)  # the guards there end what they guard
            raise
        return left

    async def answer(self, call: Any, seconds: float) -> Any:
        """Raises TimeoutError while there is none, NodeGoneError when there will never be one, and what the method
        itself raised."""
        errors = self._ray.exceptions
        try:
            return await asyncio.wait_for(_awaited(call), seconds)
        except errors.ActorUnavailableError as error:
            raise TimeoutError from error
        except (errors.RayActorError, errors.ActorPlacementGroupRemoved, errors.NodeDiedError) as error:
            if await asyncio.to_thread(self._node_lives):
                told = f"the Ray worker that guarded it on node {self.facts.host} is gone"
            else:
                told = f"node {self.facts.host} of the Ray cluster is gone"
            raise NodeGoneError(told) from error
        except errors.RayTaskError as error:
            if isinstance(error.cause, DistillError):
                raise error.cause from None
            raise

    def _node_lives(self) -> bool:
        return any(one["NodeID"] == self.facts.node_id and one["Alive"] for one in self._ray.nodes())


async def _awaited(call: Any) -> Any:
    return await call
