"""Runs one command and leaves nothing of it behind, in whatever way its own parent ends.

    python -I guard.py --log FILE --bytes N --files K [--cores 0,1] -- COMMAND...

The command gets a session of its own; so should the guard, away from Ctrl-C. Orders come on standard input:
`stop SECONDS` (SIGTERM, after that time SIGKILL), `kill` (SIGKILL at once); an input that ends means that the parent is
gone (SIGTERM, SIGKILL after ORPHAN_SECONDS). What happens is told on standard output in lines of JSON: {"pid": 12},
{"ended": code, "dropped": bytes, "left": [pids]}, or {"failed": reason} for a command that cannot be started. The guard
leaves its parent at once: Ray ends the children of a worker, which would end the guard before its command. Run by path
on any node, so it needs the standard library alone; knows nothing about what it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ORPHAN_SECONDS = 5.0
"""From SIGTERM to SIGKILL where nobody waits any more, and for what a command leaves behind that ended by itself."""
KILL_SECONDS = 20.0
"""How long killed processes may take to go; one that hangs in a driver cannot be killed at all, and is named."""
LOOK_SECONDS = 0.1
CHUNK = 65_536
WAITING_BYTES = 8 * 2**20
"""Of output that waits for a slow disk; more is dropped and counted, for the command must not wait."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""From linux/prctl.h."""
CANNOT_START = 127
"""What a shell returns for a command that is not there."""
LINUX = sys.platform.startswith("linux")


class Log(threading.Thread):
    """A file of at most `limit` bytes that is renamed to FILE.1, FILE.2, … when it is full; `files` of them in all.

    Writes in a thread of its own, since a disk may hang. What a disk refuses is dropped and counted.
    """

    def __init__(self, path: Path, limit: int, files: int) -> None:
        super().__init__(daemon=True)
        self.path, self.limit, self.files = path, limit, files
        self.dropped = 0
        self._waiting = bytearray()
        self._overflow = 0
        """Bytes that found no place in `_waiting` since the last that did."""
        self._refused = 0
        """Bytes that the disk refused since the last that it took."""
        self._change = threading.Condition()
        self._finished = False
        self._file: int | None = None
        self._size = 0

    def add(self, chunk: bytes) -> None:
        with self._change:
            if len(self._waiting) + len(chunk) > WAITING_BYTES:
                self._overflow += len(chunk)
                self.dropped += len(chunk)
                return
            self._waiting += _missing(self._overflow) + chunk
            self._overflow = 0
            self._change.notify()

    def finish(self, seconds: float) -> None:
        """Waits until all is written, or for so long."""
        with self._change:
            self._waiting += _missing(self._overflow)
            self._finished = True
            self._change.notify()
        self.join(seconds)

    def run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._finished)
                chunk, self._waiting = bytes(self._waiting), bytearray()
            if not chunk:
                return
            noted = not self._written(_missing(self._refused))
            refused = self._written(chunk) if noted else len(chunk)
            with self._change:
                self.dropped += refused
            self._refused = refused if noted else self._refused + refused

    def _written(self, chunk: bytes) -> int:
        """Writes; the number of bytes that found no place."""
        left = memoryview(chunk)
        try:
            while left:
                part = self._part(bytes(left)) if self._file is not None else 0
                if self._file is None:
                    self._open()
                elif not part:
                    self._rotate()
                else:
                    count = os.write(self._file, left[:part])
                    self._size += count
                    left = left[count:]
        except OSError:
            return len(left)
        return 0

    def _part(self, chunk: bytes) -> int:
        """How much of it this file takes: whole lines within the limit, but for a line that is longer than a file."""
        room = self.limit - self._size
        if len(chunk) <= room:
            return len(chunk)
        lines = chunk.rfind(b"\n", 0, max(room, 0)) + 1
        return lines if lines or self._size else self.limit

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        assert self._file is not None
        os.close(self._file)
        self._file = None
        for number in range(self.files - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
            if newer.exists():
                newer.replace(older)
        if self.files == 1:
            self.path.unlink(missing_ok=True)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = os.fstat(self._file).st_size


class Guard:
    """One command, from its start until nothing of it is left."""

    def __init__(self, log: Log, command: list[str], cores: list[int]) -> None:
        self.log, self.command, self.cores = log, command, cores
        self.pid = -1
        self.status: int | None = None
        self.deadline: float | None = None
        """When those that are still there are killed; None before they were asked to end."""
        self._orders = b""
        self._tree = LINUX and _prctl(PR_SET_CHILD_SUBREAPER, 1)
        """Whether what the command leaves behind becomes a child of this process, whatever session it is in."""

    def run(self) -> int:
        """Until the end. The exit code of the command, 128 + N where signal N ended it."""
        woken = self._wake_on_signals()
        reading, writing = os.pipe()
        try:
            self._start(writing)
        except OSError as error:
            tell({"failed": f"{self.command[0]}: {error.strerror or error}"})
            return CANNOT_START
        finally:
            os.close(writing)
        self.log.start()
        tell({"pid": self.pid})
        with selectors.DefaultSelector() as selector:
            for descriptor in (0, reading, woken):
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            left = self._watch(selector, reading)
        while chunk := _read(reading):
            self.log.add(chunk)
        self.log.finish(ORPHAN_SECONDS)
        code = self.status if self.status is not None else 128 + signal.SIGKILL
        tell({"ended": code, "dropped": self.log.dropped, "left": left})
        return code

    def _wake_on_signals(self) -> int:
        """A descriptor that can be read once a signal came. SIGTERM is taken as the parent's end, Ctrl-C as nothing."""
        woken, waking = os.pipe()
        os.set_blocking(waking, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever the parent had blocked
        signal.signal(signal.SIGTERM, lambda *_: self._end(ORPHAN_SECONDS))
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)  # ignoring them would be inherited by the command
        return woken

    def _start(self, output: int) -> None:
        guard = os.getpid()

        def prepare() -> None:
            if LINUX:
                _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != guard:
                    os._exit(CANNOT_START)
                if self.cores:
                    os.sched_setaffinity(0, self.cores)

        child = subprocess.Popen(  # noqa: S603
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=prepare,
        )
        self.pid = child.pid
        child.returncode = 0  # this class reaps, not subprocess

    def _watch(self, selector: selectors.BaseSelector, output: int) -> list[int]:
        """Until nothing is left, or for KILL_SECONDS after killing; the processes that would not go."""
        while True:
            for key, _ in selector.select(None if self.deadline is None else LOOK_SECONDS):
                chunk = _read(key.fd)
                if key.fd == output and chunk:
                    self.log.add(chunk)
                elif key.fd == 0:
                    self._take(chunk)
                if chunk == b"":
                    selector.unregister(key.fd)
            self._reap()
            if self.status is not None and self.deadline is None:
                self._end(ORPHAN_SECONDS)
            if self.deadline is not None:
                if not self._alive():
                    return []
                if time.monotonic() >= self.deadline:
                    return self._kill_all()

    def _take(self, chunk: bytes | None) -> None:
        if chunk == b"":
            self._end(ORPHAN_SECONDS)
        *lines, self._orders = (self._orders + (chunk or b"")).split(b"\n")
        for order, _, seconds in (line.partition(b" ") for line in lines):
            self._end(float(seconds) if order == b"stop" else 0.0)

    def _end(self, seconds: float) -> None:
        """SIGTERM now, SIGKILL then; a later order can only hasten it."""
        before = self.deadline
        self.deadline = min(time.monotonic() + seconds, before if before is not None else float("inf"))
        if before is None and seconds > 0:
            # its session alone: what it started outside of that is its own to end, and may have to be ended slowly
            for pid in processes_of(self.pid, None) if LINUX and self.status is None else self._alive():
                _send(pid, signal.SIGTERM)
                _send(pid, signal.SIGCONT)  # one that is stopped would not see it

    def _kill_all(self) -> list[int]:
        """Again and again, for one may start another meanwhile. Those that would not go."""
        until = time.monotonic() + KILL_SECONDS
        while left := self._alive():
            if time.monotonic() >= until:
                break
            for pid in left:
                _send(pid, signal.SIGKILL)
            time.sleep(LOOK_SECONDS / 10)
            self._reap()
        return left

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                if found[0] == self.pid:
                    code = os.waitstatus_to_exitcode(found[1])
                    self.status = code if code >= 0 else 128 - code

    def _alive(self) -> list[int]:
        """What is left of the command: its session, and on Linux also what left the session."""
        if LINUX:
            first = {self.pid} if self.status is None else set()  # it may have ended, but its exit code counts
            return sorted(first.union(processes_of(self.pid, os.getpid() if self._tree else None)))
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return []
        return [-self.pid]  # as kill(2) names a group


def processes_of(session: int, ancestor: int | None) -> list[int]:
    """All processes of a session, and all that descend from `ancestor`, from /proc; none that has ended."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent, _, its_session = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue  # it has gone
        if state not in "ZX":
            parents[int(folder.name)] = int(parent)
            if int(its_session) == session:
                found.add(int(folder.name))
    for pid in parents:
        above = parents[pid]
        while ancestor is not None and above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor:
            found.add(pid)
    return sorted(found - {os.getpid()})


def _missing(count: int) -> bytes:
    return f"\n[{count} bytes of output are missing here]\n".encode() if count else b""


def tell(what: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(1, json.dumps(what).encode() + b"\n")


def _read(descriptor: int) -> bytes | None:
    """What is there; None for nothing yet, empty at the end."""
    try:
        return os.read(descriptor, CHUNK)
    except BlockingIOError:
        return None


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _prctl(option: int, value: int) -> bool:
    return ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0  # type: ignore[no-any-return]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--bytes", type=int, required=True, help="size at which a log file is full")
    parser.add_argument("--files", type=int, required=True, help="log files kept, the one that is written included")
    parser.add_argument("--cores", default="", help="the only CPU cores that the command may use")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    if os.fork():
        return 0
    log = Log(given.log, given.bytes, given.files)
    guard = Guard(log, given.command, [int(core) for core in given.cores.split(",") if core])
    os._exit(guard.run())  # a disk that hangs must not keep the writer's thread, and so this process, alive


if __name__ == "__main__":
    sys.exit(main())
