"""Runs the all-reduces of distill/serve/all_reduce.py on this node, and gives the command for each node of several.

Knows nothing about what a server does with them.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
from pathlib import Path
from typing import Any

from distill.environment import Finding
from distill.probes import Told, ask
from distill.serve import all_reduce
from distill.serve.machine import Device

PORT = 29_531
"""Where rank 0 keeps the store when several nodes take part, unless told otherwise: near torch's own 29,500."""
STEP_SECONDS, ARRIVAL_SECONDS = 60.0, 300.0
"""Time limits of a step: on one node, and where people start several by hand."""
CHECKS = (
    "NCCL_DEBUG=INFO tells which interfaces NCCL takes; NCCL_SOCKET_IFNAME names the right one",
    "nvidia-smi topo -m",
)


def all_reduce_command(
    python: str,
    device: Device,
    workers: int,
    *,
    nodes: int = 1,
    node: int = 0,
    master: str = "127.0.0.1",
    port: int = PORT,
    seconds: float = STEP_SECONDS,
) -> list[str]:
    """What to start on this node; `master` and `port` are an address of node 0 that all reach. The last line that node
    0 writes to stdout is for `all_reduce_told`."""
    return [
        python, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={workers}",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
        str(Path(all_reduce.__file__).resolve()), "--device", device,
        "--all-nodes", str(nodes), "--this-node", str(node), "--workers", str(workers),
        "--keeper", master, "--keeper-port", str(port), "--seconds", f"{seconds:g}",
    ]  # fmt: skip


def all_reduce_found(
    python: str, device: Device, workers: int, *, nodes: int = 1, seconds: float = STEP_SECONDS
) -> Finding:
    """Runs it where there is one node; of several, says what to start on each: it takes all of them at once."""
    if nodes > 1:
        commands = [
            all_reduce_command(
                python, device, workers, nodes=nodes, node=node, master="ADDRESS-OF-NODE-0", seconds=ARRIVAL_SECONDS
            )
            for node in range(nodes)
        ]
        what = f"not run: start the command of each of the {nodes} nodes on it, within {ARRIVAL_SECONDS:.0f} s"
        return Finding("all-reduce", "note", what, tuple(shlex.join(command) for command in commands))
    command = all_reduce_command(python, device, workers, port=free_port(), seconds=seconds)
    limit = all_reduce.STARTING_SECONDS + (len(all_reduce.SIZES[device]) + 3) * seconds
    return all_reduce_told(ask(["sh", "-c", f"exec {shlex.join(command)} 2>&1"], limit + 30, ours=False))


def all_reduce_told(told: Told) -> Finding:
    """What rank 0 reported on node 0, or how it ended without a report; `told` best has stderr between stdout."""
    report, died = _report(told.text), _died(told.text)
    if died is not None and "signal" in died:  # what rank 0 met then is only what followed
        return Finding("all-reduce", "missing", died, CHECKS, necessary=True)
    if report is None or (told.error is not None and report.get("ok")):
        what = died or _last_words(told) or "rank 0 reported nothing"
        return Finding("all-reduce", "missing", what, CHECKS, necessary=True)
    if not report.get("ok"):
        return Finding("all-reduce", "missing", str(report.get("what")), CHECKS, necessary=True)
    sizes = report["sizes"]
    least, most = sizes[0], sizes[-1]
    large = f"{most['bytes'] / 2**20:.0f} MiB at {most['bus'] / 1e9:.2f} GB/s (bus bandwidth)"
    small = f"{least['bytes'] / 2**10:.0f} KiB in {least['seconds'] * 1e6:.0f} µs"
    what = f"{report['world']} processes by {report['backend']}: the sums are right; {large}, {small}"
    return Finding("all-reduce", "ok", what, necessary=True)


def _report(text: str) -> dict[str, Any] | None:
    for line in reversed(text.splitlines()):
        if line.startswith('{"ok"'):
            try:
                report = json.loads(line)
            except ValueError:
                continue
            return report if isinstance(report, dict) else None
    return None


def _died(text: str) -> str | None:
    """The process that torch's launcher names as the first to fail."""
    cause = text.rpartition("Root Cause")[2]
    rank, code = re.search(r"rank\s*: (\d+)", cause), re.search(r"exitcode\s*: (-?\d+)", cause)
    if rank is None or code is None:
        return None
    ended = int(code[1])
    how = f"was ended by signal {-ended}" if ended < 0 else f"ended with exit code {ended}"
    return f"rank {rank[1]} {how}"


def _last_words(told: Told) -> str | None:
    said = [line.strip() for line in told.text.splitlines() if line.strip()]
    return f"{said[-1][:300]} ({told.error})" if said and told.error else told.error


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])
