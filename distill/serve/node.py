"""One node's part of a replica: a guarded process, its log, and what this node has for it.

Plain and synchronous, so that an actor on a cluster can be one as well as an object here. Knows nothing about vLLM, nor
about the other nodes of a replica.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from distill import hardware
from distill.errors import RunError
from distill.probes import OWN_PATHS
from distill.serve import guard

LOG_BYTES = 64 * 2**20
LOG_FILES = 4
"""A log that is full is renamed, so that a node's logs take 256 MiB at most."""
START_SECONDS = 60.0
"""For the guard to say that it runs: an interpreter's start, on a machine that loads weights."""
TAIL_BYTES = 512 * 1024
FIRST_PORT, LAST_PORT = 20_000, 32_767
"""Where ports are looked for: below those that Linux gives to outgoing connections (ip_local_port_range), which could
take one between the look and the server's start."""
PORT_TRIES = 2_000
BEGINS = "== started again"
"""A line in a log between two starts."""


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """What runs on one node; `environment` is set over that node's own and holds no secret."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    cores: tuple[int, ...] = ()
    """The only CPU cores that it may use; empty for all."""


class NodeProcess:
    """At most one guarded process on this node. `without` names variables of this environment that it does not get."""

    def __init__(self, *, log_bytes: int = LOG_BYTES, log_files: int = LOG_FILES, without: Iterable[str] = ()) -> None:
        self._log_bytes, self._log_files, self._without = log_bytes, log_files, {*without, *OWN_PATHS}
        self.pid: int | None = None
        """Of the command, which is also its session; None before the start."""
        self.left: tuple[int, ...] = ()
        """Processes that could not be killed."""
        self.dropped = 0
        """Bytes of output that no disk took."""
        self._log: Path | None = None
        self._code: int | None = None
        self._seen: dict[int, int] = {}
        self._told = b""
        self._lock = threading.Lock()

    def start(self, command: NodeCommand, log: Path, secrets: Mapping[str, str]) -> None:
        """Starts it; `secrets` become variables of its environment and are kept nowhere. May be called again after it
        ended. Raises RunError when it cannot be started."""
        if self.pid is not None and self.poll() is None:
            raise RunError("this node's process still runs", given=f"process {self.pid}", todo="stop it first")
        self.pid, self._code, self._told, self._log, self.left = None, None, b"", log, ()
        self._part_from_earlier(log)
        self._seen = dict(self._sizes())
        inherited = {name: value for name, value in os.environ.items() if name not in self._without}
        options = [f"--log={log}", f"--bytes={self._log_bytes}", f"--files={self._log_files}"]
        options.append(f"--cores={','.join(str(core) for core in command.cores)}")
        started = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", guard.__file__, *options, "--", *command.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**inherited, **command.environment, **secrets},
            start_new_session=True,
        )
        assert started.stdin is not None
        assert started.stdout is not None
        self._orders, self._reports = started.stdin, started.stdout
        os.set_blocking(self._reports.fileno(), False)
        started.wait()  # the guard itself goes on as nobody's child
        self._await_start(command.arguments[0])

    def poll(self) -> int | None:
        """None while it runs; then its exit code, 128 + N where signal N ended it. RunError before any start."""
        with self._lock:
            if self._code is None:
                self._listen()
            return self._code

    def tail(self, lines: int) -> list[str]:
        """The last lines of its log since its start, from the file before it where that was just renamed."""
        text = b""
        for path in self._files():
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = file.read() + text
            if text.count(b"\n") > lines or len(text) >= TAIL_BYTES:
                break
        said = text[-TAIL_BYTES:].decode(errors="replace").splitlines()
        begins = max((n + 1 for n, line in enumerate(said) if line == BEGINS), default=0)
        return said[begins:][-lines:] if lines > 0 else []

    def log_growth(self) -> int:
        """Bytes that its log grew by since the start, or since this was asked last."""
        before, self._seen = self._seen, dict(self._sizes())
        grown = 0
        for file, size in self._seen.items():
            known = before.get(file, 0)
            grown += size - known if size >= known else size  # a smaller one is a new file of the same number
        return grown

    def stop(self, seconds: float) -> None:
        """SIGTERM to all its processes, SIGKILL after so many seconds; nothing is left when it returns, but for `left`,
        processes that hang in the kernel."""
        self._order(f"stop {seconds}\n", seconds)

    def kill(self) -> None:
        """SIGKILL to all its processes."""
        self._order("kill\n", 0.0)

    def _part_from_earlier(self, log: Path) -> None:
        """So that what an earlier start said is not taken for this one's words."""
        with contextlib.suppress(OSError):  # a disk that is full or gone is the guard's affair
            if log.stat().st_size:
                with log.open("ab") as file:
                    file.write(f"{BEGINS}\n".encode())

    def _order(self, order: str, seconds: float) -> None:
        if self.pid is None:
            return
        with contextlib.suppress(OSError):  # it has just ended
            os.write(self._orders.fileno(), order.encode())
        until = time.monotonic() + seconds + guard.KILL_SECONDS + 2 * guard.ORPHAN_SECONDS
        while self.poll() is None:
            left = until - time.monotonic()
            if left <= 0:  # the guard hangs, or somebody stopped it
                with self._lock:
                    self._end_without_guard()
                return
            select.select([self._reports], [], [], min(left, 1.0))

    def _await_start(self, program: str) -> None:
        until = time.monotonic() + START_SECONDS
        while self.pid is None and self.poll() is None:
            if time.monotonic() > until:
                self._orders.close()
                raise RunError(f"{program} did not start within {START_SECONDS:.0f} s")
            select.select([self._reports], [], [], 1.0)

    def _listen(self) -> None:
        """Takes in what the guard told. Raises RunError when it could not start the command."""
        if self._log is None:
            raise RunError("no process was started on this node")
        ended = False
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reports.fileno(), 65_536):
                self._told += chunk
            ended = True
        *lines, self._told = self._told.split(b"\n")
        for line in lines:
            self._hear(json.loads(line))
        if ended and self._code is None:
            self._end_without_guard()

    def _hear(self, told: dict[str, object]) -> None:
        match told:
            case {"pid": int(pid)}:
                self.pid = pid
            case {"ended": int(code), "dropped": int(dropped), "left": list(left)}:
                self._code, self.dropped, self.left = code, self.dropped + dropped, tuple(left)
            case {"failed": reason}:
                self._code = guard.CANNOT_START
                raise RunError(f"the command cannot be started: {reason}")

    def _end_without_guard(self) -> None:
        """The guard was killed, and with it the command's first process; what is left of the session goes as well."""
        self._code = 128 + signal.SIGKILL
        until = time.monotonic() + guard.KILL_SECONDS
        while self.pid is not None and guard.LINUX and (left := guard.processes_of(self.pid, None)):
            self.left = tuple(left)
            if time.monotonic() > until:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        self.left = ()

    def _files(self) -> list[Path]:
        """Its log and those that it was renamed to, the newest first."""
        if self._log is None:
            return []
        return [self._log, *(Path(f"{self._log}.{number}") for number in range(1, self._log_files))]

    def _sizes(self) -> Iterable[tuple[int, int]]:
        for path in self._files():
            with contextlib.suppress(OSError):
                status = path.stat()
                yield status.st_ino, status.st_size

    def free_ports(self, count: int, host: str = "") -> list[int]:
        return free_ports(count, host)

    def address(self) -> str:
        return address()

    def cores(self) -> list[int]:
        return cores()

    def gpus(self) -> list[str]:
        return gpus()


def free_ports(count: int, host: str = "") -> list[int]:
    """Ports on which nothing listens at `host` of this node, by default at any of its addresses. Nobody keeps them for
    the caller. Raises RunError when there are not so many."""
    found: list[int] = []
    for port in random.sample(range(FIRST_PORT, LAST_PORT + 1), PORT_TRIES):
        if len(found) == count:
            break
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as tried, contextlib.suppress(OSError):
            tried.bind((host, port))
            found.append(port)
    if len(found) < count:
        raise RunError(
            f"this node has {len(found)} free ports of the {count} needed",
            given=f"{PORT_TRIES} ports between {FIRST_PORT} and {LAST_PORT} tried at '{host or 'any address'}'",
            todo="end what listens there, or give an address of this node",
        )
    return found


def address() -> str:
    """This node's address as others reach it: that of the way out; the loopback where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out, contextlib.suppress(OSError):
        way_out.connect(("192.0.2.1", 9))  # RFC 5737; nothing is sent
        return str(way_out.getsockname()[0])
    return "127.0.0.1"


def cores() -> list[int]:
    """The CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


def gpus() -> list[str]:
    """The GPUs that this process may use, in the order and by the names of CUDA_VISIBLE_DEVICES where that is set; else
    all that the driver lists, by number."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(number) for number in range(len(hardware.gpus()))]
    names = [name.strip() for name in visible.split(",")]
    ended = next((place for place, name in enumerate(names) if name in ("", "-1", "NoDevFiles")), len(names))
    return names[:ended]  # CUDA takes what stands before the first that is none
