"""The preflight on every machine of a Ray cluster that could hold a replica, and the all-reduce across the machines of
one: what a single machine cannot know of the others.

Knows nothing about supervision.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.environment import Finding
from distill.errors import MissingError
from distill.progress import say
from distill.serve import interconnect, preflight
from distill.serve.launching import Addresses, Launcher, Need
from distill.serve.node import NodeCommand

ALL_REDUCE = "all-reduce"
LEFT_OUT = ("ports", ALL_REDUCE, "disk")
"""Ports are chosen when a replica is placed; the next is done across machines, below; logs lie on the first machine."""
LOOK_SECONDS = 1.0
LINES = 40


async def require_everywhere(ray: Any, need: preflight.Need, skip: Sequence[str]) -> None:
    """Raises MissingError that names each machine and what it lacks."""
    found = await asyncio.to_thread(_findings, ray, need, sorted({*skip, *LEFT_OUT}))
    lacking = []
    for host, findings in found.items():
        for finding in findings:
            if finding.state == "missing":
                lacking.append(f"{host}: {finding.topic}: {finding.what}")
                lacking += [f"  on {host}: {mend}" for mend in finding.mend]
            elif finding.state == "note" and finding.topic not in {*skip, *LEFT_OUT}:
                say(f"{host}: {finding.topic}: {finding.what}")
    if lacking:
        hosts = {line.partition(":")[0] for line in lacking if not line.startswith(" ")}
        indent = "\n         "
        raise MissingError(
            f"{len(hosts)} of {len(found)} machines of the Ray cluster are not ready to serve",
            given=indent.join(lacking),
            todo="mend them, or, where you know better: --skip CHECK",
        )


def _findings(ray: Any, need: preflight.Need, skip: Sequence[str]) -> dict[str, list[Finding]]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and (need.device == "cpu" or node["Resources"].get("GPU"))]
    task = ray.remote(num_cpus=0)(look_here)
    asked = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        where = node["NodeManagerAddress"]
        name = where if where not in asked else f"{where} ({node['NodeID'][:8]})"
        asked[name] = task.options(scheduling_strategy=strategy).remote(need, skip)
    return {name: ray.get(answer) for name, answer in asked.items()}


def look_here(need: preflight.Need, skip: Sequence[str]) -> list[Finding]:
    """`preflight.look` in a worker of Ray, which hides all GPUs from a task that asked for none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        del os.environ["CUDA_VISIBLE_DEVICES"]
    return preflight.look(need, skip)


async def require_all_reduce(launcher: Launcher, need: Need, python: str, workers: int, logs: Path) -> None:
    """Places what a replica over several machines would be, and has its processes add up numbers together.

    `workers`: processes on each machine. Raises MissingError with the last words where they cannot.
    """
    if need.nodes == 1:
        return

    def build(at: Addresses) -> list[NodeCommand]:
        command = interconnect.all_reduce_command
        return [
            NodeCommand(
                tuple(
                    command(
                        python, need.device, workers, nodes=need.nodes, node=node, master=at.hosts[0], port=at.ports[0]
                    )
                ),
                {},
            )
            for node in range(need.nodes)
        ]

    say(f"all-reduce over {need.nodes} machines, {workers} processes on each")
    running = await launcher.start(ALL_REDUCE, need, build, logs / ALL_REDUCE, {})
    try:
        while await running.ended() is None:
            await asyncio.sleep(LOOK_SECONDS)
        if running.exit_code != 0:
            lines = [line for line in await running.tail(LINES) if line.strip()]
            raise MissingError(
                f"the machines cannot add up numbers together: {await running.ended()}",
                given=" / ".join(lines[-3:]),
                todo="; ".join((*interconnect.CHECKS, f"logs: {logs / ALL_REDUCE}")),
            )
    finally:
        await running.kill()
