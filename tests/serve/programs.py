"""Small real programs that the tests of the teacher service guard, and what is left of them."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

TICKING = "while True:\n    print('tick', flush=True)\n    time.sleep(0.02)\n"
STUBBORN = "for number in (15, 2, 1):\n    signal.signal(number, signal.SIG_IGN)\n"


def python(code: str) -> tuple[str, ...]:
    """A command that runs `code`; os, signal, subprocess, sys and time are imported."""
    return sys.executable, "-c", "import os, signal, subprocess, sys, time\n" + code


def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether the process is there and has not ended; one that nobody has reaped counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def noted(path: Path) -> int:
    """The number that a program writes into a file, once it is there."""
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


SERVER = Path(__file__).with_name("small_server.py")


def served(port: int, host: str = "127.0.0.1") -> dict[str, Any]:
    """What a small_server says of itself, once it answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 20
    while True:
        try:
            with opener.open(f"http://{host}:{port}/", timeout=5) as response:
                told: dict[str, Any] = json.load(response)
                return told
        except OSError:
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.05)
