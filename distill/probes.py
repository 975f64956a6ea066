"""Questions to other programs and libraries, each in a process of its own with a time limit: whatever raises, crashes
or hangs there is an answer here. Knows nothing about what is asked or why."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

OWN_PATHS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
"""Variables that say where this interpreter's libraries are, and not another's."""
IMPORT_SECONDS = 120.0
"""For one library: from a cold disk torch alone takes half a minute."""

_IMPORT = """
import importlib, json, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        error = None
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}"
    print("\\n" + json.dumps([name, error]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a program wrote to stdout, or why there is no answer."""

    text: str
    error: str | None = None


def ask(command: Sequence[str], seconds: float, *, ours: bool = True) -> Told:
    """Runs a program to its end. Its last words stand in `error` when it failed, did not end in time, or is not there.

    distill itself can be imported there, also from a checkout that is not installed. With `ours` False, for the
    interpreter of another environment, nothing of this one's path is: an installed distill would bring its libraries.
    """
    package = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), package) if part)
    theirs = {name: value for name, value in os.environ.items() if name not in OWN_PATHS}
    try:
        done = subprocess.run(  # noqa: S603  # the callers' own commands, no shell
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path} if ours else theirs,
        )
    except subprocess.TimeoutExpired as expired:
        said = expired.stdout.decode(errors="replace") if isinstance(expired.stdout, bytes) else expired.stdout
        return Told(said or "", f"no answer within {seconds:.0f} s")
    except OSError as error:
        return Told("", f"{command[0]} cannot be started: {error.strerror}")
    if done.returncode == 0:
        return Told(done.stdout)
    return Told(done.stdout, _last_words(done.stderr) or _ending(done.returncode))


def import_errors(modules: Sequence[str]) -> dict[str, str | None]:
    """Module → why it cannot be imported, None when it can. One process for all, another when one takes it down."""
    found: dict[str, str | None] = {}
    left = list(modules)
    while left:
        started = time.monotonic()
        told = ask([sys.executable, "-c", _IMPORT, *left], IMPORT_SECONDS + 5 * len(left))
        for line in told.text.splitlines():
            if line.startswith('["'):
                name, error = json.loads(line)
                found[name] = " ".join(error.split())[:300] if error else None
        left = [name for name in left if name not in found]
        if left:  # the first of them took the process with it
            found[left.pop(0)] = f"{told.error or 'the process ended'} after {time.monotonic() - started:.0f} s"
    return found


def version(distribution: str) -> str | None:
    """The installed version of a distribution, None when it is not there or cannot be read."""
    try:
        return metadata.version(distribution) or None
    except metadata.PackageNotFoundError:
        return None


def release(text: str) -> tuple[int, ...]:
    """The numbers a version begins with, to compare by: `2.13.0+cpu` is (2, 13, 0)."""
    start = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, start[0].split("."))) if start else ()


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _ending(code: int) -> str:
    try:
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:
        return f"ended by signal {-code}"
