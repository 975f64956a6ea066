"""Starts a training on several GPUs or nodes: torchrun as a child, its logs in the run, its end told in one place.

Knows nothing about what the ranks do; the module they run is given.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import DONE, FAILED, INTERRUPTED, TrainingError, UsageError
from distill.hardware import cores
from distill.progress import say
from distill.train.rank import OUTCOMES

WORKER = "distill.train.worker"
PORT = 29_500
"""torchrun's own default."""
GRACE = 120
"""Seconds that ranks have to finish a step and save once a stop is asked for; what is left after them is killed.
torchrun would wait 30. A cluster that kills earlier, kills earlier."""
LAST_LINES = 15


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a training runs: GPUs per node, nodes, which of them this is, and HOST:PORT of the first."""

    gpus: int
    nodes: int = 1
    node_rank: int | None = None
    master: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Nothing is started here; every node has a command of its own."""
        return self.nodes > 1 and self.node_rank is None


def start(run: Path, placement: Placement, *, worker: str = WORKER, grace: int = GRACE) -> int:
    """Runs `python -m WORKER RUN` on every GPU and returns its exit code; with several nodes and no `node_rank` only
    prints the command for each node.

    SIGTERM and Ctrl-C reach the ranks once, which save and end; a second one kills them. Raises UsageError for GPUs
    that are not there, TrainingError with the last lines of the first rank that failed.
    """
    if not check(placement):
        say(f"train: no GPU here; {placement.gpus} processes share {cores()} CPU cores")
    if placement.elsewhere:
        say(f"train: start on each of {placement.nodes} nodes, with the same folder {run} on all of them:")
        for line in node_commands(run, placement):
            say(f"  {line}")
        return DONE
    threads = _threads(placement.gpus)
    logs = run / "logs" / f"train-node-{placement.node_rank or 0}"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    environment = {**os.environ, OUTCOMES: str(logs), "TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE": "", **threads}
    with (logs / "torchrun.log").open("wb") as log:
        child = subprocess.Popen(  # noqa: S603
            command(run, placement, logs, worker=worker, grace=grace),
            env=environment,
            stderr=subprocess.PIPE,
            start_new_session=True,  # else Ctrl-C would reach it twice, and leave its workers without it
        )
        pump = threading.Thread(target=_pass_on, args=(child.stderr, log))
        pump.start()
        with _forwarding(child, logs):
            child.wait()
        pump.join()
    return _end(child.returncode, logs)


def command(
    run: Path, placement: Placement, logs: Path, *, worker: str = WORKER, grace: int = GRACE, port: int | None = None
) -> list[str]:
    """torchrun's command line on one node."""
    host, port = _master(placement.master) if placement.master else ("127.0.0.1", port or _free_port())
    options = {
        "nnodes": placement.nodes,
        "nproc-per-node": placement.gpus,
        "node-rank": placement.node_rank or 0,
        "master-addr": host,
        "master-port": port,
        "max-restarts": 0,
        "shutdown-timeout": grace,
        "log-dir": logs,
        "redirects": 3,  # both streams of every rank into files
        "tee": "0:3",  # and those of the first one here, too
    }
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, "-m", "torch.distributed.run", *given, "--module", "distill.train.rank", worker, str(run)]


def node_commands(run: Path, placement: Placement) -> list[str]:
    """What to type on each node, the first one as the master."""
    master = placement.master or f"FIRST_HOST:{PORT}"
    shared = f"distill train {shlex.quote(str(run))} --gpus {placement.gpus} --nodes {placement.nodes}"
    return [f"{shared} --node-rank {node} --master {master}" for node in range(placement.nodes)]


def check(placement: Placement) -> bool:
    """Whether there are GPUs for it, or nothing is started here. Raises UsageError for a placement that cannot be."""
    import torch

    if placement.gpus < 1 or placement.nodes < 1:
        raise UsageError("--gpus and --nodes are at least 1", given=f"{placement.gpus} and {placement.nodes}")
    if placement.master:
        _master(placement.master)
    if placement.node_rank is None:
        if placement.nodes > 1:
            return True
    elif not 0 <= placement.node_rank < placement.nodes:
        raise UsageError("there is no such node", given=f"--node-rank {placement.node_rank}, --nodes {placement.nodes}")
    if placement.nodes > 1 and not placement.master:
        raise UsageError("several nodes need the first one's address", todo=f"add --master HOST:{PORT}")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found and placement.gpus > found:
        raise UsageError(
            "this machine has fewer GPUs", given=f"--gpus {placement.gpus}, found {found}", todo=f"use --gpus {found}"
        )
    return found > 0


def _master(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError("--master is HOST:PORT", given=text, todo=f"for instance {text or 'node0'}:{PORT}")
    return host, int(port)


def _free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _threads(processes: int) -> dict[str, str]:
    """CPU threads of each rank; torchrun gives one where nothing is said."""
    return {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, cores() // processes))}


TORCHRUN = re.compile(rb"^[WEI]\d{4} |^\[?rank\d*\]?:? *W\d{4}|^\s*$")


def _pass_on(stream: Any, log: Any) -> None:
    """All that torchrun says on stderr goes to its log, and what the first rank says to the reader too.

    torchrun's own lines begin as glog's do; at a failure it prints a traceback of itself, of which the reader has
    nothing."""
    own = False
    for line in stream:
        log.write(line)
        own = own or line.startswith(b"Traceback (most recent call last)")
        if not own and not TORCHRUN.match(line):
            sys.stderr.buffer.write(line) if hasattr(sys.stderr, "buffer") else sys.stderr.write(line.decode())
            sys.stderr.flush()


@contextlib.contextmanager
def _forwarding(child: subprocess.Popen[bytes], logs: Path) -> Iterator[None]:
    """SIGTERM and Ctrl-C, as one SIGTERM to torchrun, which passes it to its ranks; torchrun must not get two: a
    second one ends it before its ranks."""
    asked = 0

    def forward(number: int, frame: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            say("train: a stop is asked for; the ranks save and end")
            child.terminate()
        else:
            _kill(child, logs)

    before = {}
    with contextlib.suppress(ValueError):  # only the main thread may handle signals
        before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill(child: subprocess.Popen[bytes], logs: Path) -> None:
    child.kill()
    for outcome in _outcomes(logs).values():
        if "code" not in outcome:
            with contextlib.suppress(ProcessLookupError):
                os.kill(outcome["pid"], signal.SIGKILL)


def _outcomes(logs: Path) -> dict[int, dict[str, Any]]:
    """Rank → what it wrote down."""
    return {
        int(path.stem.removeprefix("rank-")): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(logs.glob("rank-*.json"))
    }


def _end(returned: int, logs: Path) -> int:
    """The exit code of all ranks, or the error of the first that failed."""
    outcomes = _outcomes(logs)
    codes = [outcome.get("code") for outcome in outcomes.values()]
    if outcomes and not any(code != 0 for code in codes):
        return DONE
    if INTERRUPTED in codes and all(code in (DONE, INTERRUPTED) for code in codes):
        return INTERRUPTED
    failed = {rank: outcome for rank, outcome in outcomes.items() if outcome.get("code")}
    torchrun = (logs / "torchrun.log").read_text(encoding="utf-8", errors="replace")
    first = _first_killed(torchrun)
    if first is None and failed:
        first = min(failed, key=lambda rank: failed[rank]["ended"])
    if first is None:
        given = f"torchrun ended with {returned}:\n{_last(torchrun)}"
        raise TrainingError("the ranks could not be started", given=given, todo=f"look into {logs}")
    outcome = outcomes.get(first, {})
    if outcome.get("code", FAILED) not in (DONE, FAILED):
        say(outcome.get("said") or f"train: rank {first} ended with {outcome['code']}")
        return int(outcome["code"])
    said = outcome.get("said") or "killed, perhaps for memory: it left no word"
    lines = _last(_log_of(logs, first))
    raise TrainingError(
        f"rank {first} failed, and the training with it",
        given=f"{said}\n{lines}" if lines else said,
        todo=f"its log lies in {logs}; after mending the cause start the same command again",
    )


def _first_killed(torchrun: str) -> int | None:
    """The rank that torchrun saw die first, if by a signal: such a rank writes nothing down, and others fail after
    it."""
    found = re.search(r"Root Cause.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", torchrun, re.DOTALL)
    return int(found[1]) if found and int(found[2]) < 0 else None


def _log_of(logs: Path, rank: int) -> str:
    files = sorted(logs.glob("*/attempt_0/*/stderr.log"), key=lambda file: int(file.parent.name))
    return files[rank % len(files)].read_text(encoding="utf-8", errors="replace") if files else ""


def _last(text: str) -> str:
    return "\n".join(text.rstrip().splitlines()[-LAST_LINES:])
