"""One sandbox as a process: bubblewrap with `inside` in it, and what it is told and tells.

Nothing that comes from there is trusted: neither its form nor its length nor that it comes at all. Knows nothing about
what the orders and replies mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, Literal

from distill.verify import bubblewrap

Mode = Literal["root", "namespace", "none"]
"""As root without a user namespace, the program as nobody; in a user namespace; without any sandbox."""
GRACE = 10.0
"""Seconds beyond a program's own time after which a sandbox that says nothing is ended from outside."""
LONGEST_LINE = 10_000
_INSIDE = Path(__file__).with_name("inside.py")


class BrokenSandboxError(RuntimeError):
    """The sandbox itself did not start or did not answer: nothing is known about the program."""


class SandboxProcess:
    """bubblewrap with `inside` in it, and what it is told and tells."""

    def __init__(self, mode: Mode, disk_bytes: int, compiler: str | None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="distill-") if mode == "none" else None
        self.folder = self._own.name if self._own else "/tmp"  # noqa: S108  # the sandbox's own
        interpreter = [bubblewrap.base_interpreter(), "-S", "-s", "-B", "-c", _inside()]
        command = interpreter
        if mode != "none":
            box = bubblewrap.arguments(root=mode == "root", disk_bytes=disk_bytes, compiler=compiler)
            command = [shutil.which("bwrap") or "bwrap", *box, "--", *interpreter]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `end`
        self._process = subprocess.Popen(  # noqa: S603  # bubblewrap by its full path, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**bubblewrap.ENVIRONMENT, "HOME": self.folder},
            cwd=self.folder if self._own else "/",
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._replies = self._process.stdin, self._process.stdout
        for end in (self._orders, self._replies):
            os.set_blocking(end.fileno(), False)
        self._held = b""

    def end(self) -> None:
        """Ends it and all within; waits until bubblewrap is gone."""
        with contextlib.suppress(OSError):
            self._orders.close()  # the first process in there then ends, and with it all others in its namespace
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._replies.close()
        self._errors.close()
        if self._own is not None:
            self._own.cleanup()

    def send(self, order: dict[str, Any], content: bytes) -> None:
        """Raises BrokenSandboxError where nobody takes it."""
        rest = memoryview(json.dumps({**order, "length": len(content)}).encode() + b"\n" + content)
        deadline = time.monotonic() + GRACE
        try:
            while rest:
                self._wait(self._orders.fileno(), selectors.EVENT_WRITE, deadline)
                rest = rest[os.write(self._orders.fileno(), rest[: 2**16]) :]
        except BrokenPipeError as error:
            raise self._broken("it takes no orders") from error

    def receive(self, seconds: float, most: int) -> tuple[dict[str, Any], bytes]:
        """A line and what it counts, `most` bytes of it. Raises BrokenSandboxError for anything else."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._held:
            if len(self._held) > LONGEST_LINE:
                raise self._broken("a line without an end")
            self._held += self._some(deadline)
        line, _, rest = self._held.partition(b"\n")
        try:
            told = json.loads(line)
            length = int(told["length"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._broken("a line of another form") from error
        if not 0 <= length <= most:
            raise self._broken(f"{length} bytes")
        parts, missing = [rest], length - len(rest)
        while missing > 0:
            parts.append(self._some(deadline))
            missing -= len(parts[-1])
        whole = b"".join(parts)
        self._held = whole[length:]
        return told, whole[:length]

    def _some(self, deadline: float) -> bytes:
        self._wait(self._replies.fileno(), selectors.EVENT_READ, deadline)
        some = os.read(self._replies.fileno(), 2**20)
        if not some:
            raise self._broken("it ended")
        return some

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        with selectors.PollSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise self._broken("no answer in time")

    def _broken(self, what: str) -> BrokenSandboxError:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read(2_000).decode(errors="replace").strip()
        return BrokenSandboxError(f"{what}: {said}" if said else what)


@cache
def _inside() -> str:
    return _INSIDE.read_text(encoding="utf-8")
