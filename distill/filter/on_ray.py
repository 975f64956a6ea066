"""The same looking on a Ray cluster: what outgrows one machine is running the programs of code traces.

Each actor has one core and looks as one machine does, in a worker process of its own that can be killed. Chunks go
round the actors; results come back in the order of the traces, so the files are the same as those of one machine. An
actor whose machine cannot verify, for want of a sandbox, looks at nothing: that ends the filter with an error.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, Self

from distill.clusters import ray_for, require_answer, unreachable
from distill.errors import DistillError, MissingError, RunError
from distill.filter.looking import Item, Lens, LocalLooking, Looked
from distill.verify import verifiers as verifying
from distill.verify.sandbox import ALLOW_VARIABLE

CHUNK = 256
"""Traces that an actor is given at a time: some tenths of a second of work, against milliseconds on the way."""
AHEAD = 2
"""Chunks that wait at each actor."""
SETTING = "--set filter.ray_address="
ACTOR_SECONDS = 120.0
"""How long an actor may take to start; those that find no core free by then are done without."""
RETRIES = 3
"""How often an actor that died with its node is started anew, and its chunk looked at again."""


class RayLooking:
    """A Looking on the cluster at `address`; by default a new one on this machine that ends with the filter.

    `workers` is the number of actors, by default one for each core of the cluster. Entering it raises MissingError
    without Ray and where a machine of the cluster cannot verify, RunError where the cluster cannot be reached.
    """

    def __init__(self, lens: Lens, workers: int | None, address: str | None) -> None:
        self.lens, self.workers, self.address = lens, workers, address
        self._actors: list[Any] = []
        self._own = False

    def __enter__(self) -> Self:
        ray = _ray()
        if not ray.is_initialized():
            require_answer(self.address, SETTING)
            try:
                ray.init(
                    address=self.address or "local",  # else it would join one that RAY_ADDRESS names
                    num_cpus=None if self.address else self.workers,
                    log_to_driver=False,
                    runtime_env={"env_vars": _variables()},
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise unreachable(self.address or "a new one on this machine", error, SETTING) from error
            self._own = True
        count = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actor = ray.remote(num_cpus=1, max_restarts=RETRIES, max_task_retries=RETRIES)(_Actor)
        self._actors = [actor.remote(self.lens) for _ in range(count)]
        try:
            self._keep_those_that_answer(ray)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _keep_those_that_answer(self, ray: Any) -> None:
        """Raises MissingError for a machine that cannot verify, RunError where the cluster has no core free."""
        asked = {actor.lacks.remote(): actor for actor in self._actors}
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ACTOR_SECONDS)
        for answer in silent:
            ray.kill(asked[answer])
        self._actors = [asked[answer] for answer in answered]
        for answer in answered:
            _refuse(_got(ray, answer))
        if not answered:
            raise RunError(
                f"the Ray cluster started none of {len(silent)} actors within {ACTOR_SECONDS:.0f} s",
                todo="wait until it has cores free, or give it more",
            )

    def __exit__(self, *_: object) -> None:
        ray = _ray()
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._own:
            ray.shutdown()

    def start(self, size: int) -> None:
        """Nothing: actors get ready as soon as there are any."""

    def look(self, items: Iterable[Item | None]) -> Iterator[Looked]:
        ray = _ray()
        source = iter(items)
        flying: deque[Any] = deque()
        number = 0
        while True:
            while len(flying) < AHEAD * len(self._actors) and (chunk := _chunk(source)):
                flying.append(self._actors[number % len(self._actors)].look.remote(chunk))
                number += 1
            if not flying:
                return
            found = _got(ray, flying.popleft())
            _refuse(found)
            yield from found


@dataclass(frozen=True, slots=True)
class _Lack:
    """Why a machine of the cluster cannot verify."""

    host: str
    what: str
    todo: str | None


class _Actor:
    """One core of the cluster."""

    def __init__(self, lens: Lens) -> None:
        self._lack: _Lack | None = None
        try:
            verifying.require(lens.verifiers)  # this machine may lack what that of the filter has
        except DistillError as error:
            self._lack = _Lack(socket.gethostname(), error.what, error.todo)
        self._looking = LocalLooking(lens, workers=1)
        self._looking.__enter__()

    def lacks(self) -> _Lack | None:
        return self._lack

    def look(self, items: list[Item]) -> list[Looked] | _Lack:
        """A lack as well where this actor was started anew, on another machine."""
        return self._lack or list(self._looking.look(items))


def _got(ray: Any, answer: Any) -> Any:
    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        raise RunError(
            "the Ray cluster lost an actor with the traces that it was looking at",
            given=str(error).strip().splitlines()[-1][:200],
            todo="run `distill filter` again: what was found so far is kept",
        ) from error


def _refuse(found: object) -> None:
    """Raises MissingError for a lack."""
    if isinstance(found, _Lack):
        todo = f"on that machine: {found.todo}" if found.todo else None
        raise MissingError(f"a machine of the Ray cluster cannot verify: {found.what}", given=found.host, todo=todo)


def _chunk(source: Iterator[Item | None]) -> list[Item]:
    """The next items, up to CHUNK of them or the first None."""
    return list(takewhile(lambda item: item is not None, islice(source, CHUNK)))  # type: ignore[arg-type]


def _variables() -> dict[str, str]:
    """What the user allowed here holds there as well."""
    return {ALLOW_VARIABLE: os.environ[ALLOW_VARIABLE]} if ALLOW_VARIABLE in os.environ else {}


def _ray() -> Any:
    return ray_for("filter.engine: ray")
