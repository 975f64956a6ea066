"""Who takes part in benchmarks/generate.py, and how one of them is run: a fresh process, its output and what it tells.

Knows nothing about servers, rounds or ratios.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
OWN, APART = Path(sys.executable), CHECKOUT / ".venv-peers" / "bin" / "python"
OPENAI = CHECKOUT / ".venv-peers-openai" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A script beside this file, the environment that it runs in, and the way in which it asks."""

    script: str
    python: Path = OWN
    way: str = ""


BARE, DISTILL = "bare aiohttp", "distill"
CONTESTANTS = {
    BARE: Contestant("bare_loop.py"),
    DISTILL: Contestant("distill_run.py"),
    "AsyncOpenAI": Contestant("openai_loop.py", OPENAI),
    "AsyncOpenAI on aiohttp": Contestant("openai_loop.py", OPENAI, "aiohttp"),
    "Curator": Contestant("curator_run.py", APART),
    "datatrove": Contestant("datatrove_run.py", APART),
    "datatrove with checkpoints": Contestant("datatrove_run.py", APART, "checkpoints"),
    "bare aiohttp on uvloop": Contestant("bare_loop.py", way="uvloop"),
}
PREPARING = Contestant("distill_run.py", way="prepare")
SEEDS = Contestant("distill_run.py", way="seeds")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked (a JSONL file of `id`, `question` and perhaps `seed`), where, and with how many requests in flight.

    `core` is the one that the process may use, None for all.
    """

    url: str
    prompts: Path
    in_flight: int
    max_tokens: int
    model: str
    core: int | None = None


def start(contestant: Contestant, settings: Settings, out: Path) -> subprocess.Popen[str]:
    """The contestant's process. Its home lies beside `out`: Curator writes into it."""
    options = {
        "--url": settings.url,
        "--prompts": settings.prompts,
        "--out": out,
        "--in-flight": settings.in_flight,
        "--max-tokens": settings.max_tokens,
        "--model": settings.model,
        "--way": contestant.way,
    }
    words = [str(part) for option, value in options.items() for part in (option, value)]
    home = out.parent / "home"
    home.mkdir(parents=True, exist_ok=True)
    paths = {"HOME": str(home), "PYTHONPATH": str(CHECKOUT) if contestant.python == OWN else ""}
    with errors_of(out).open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [str(contestant.python), str(HERE / contestant.script), *words],
            env={**os.environ, **paths},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    if settings.core is not None:
        os.sched_setaffinity(process.pid, {settings.core})
    return process


def finish(process: subprocess.Popen[str], out: Path) -> dict[str, Any]:
    """What the process tells on its last line. Raises RuntimeError with the end of its errors when it failed."""
    output, _ = process.communicate()
    if process.returncode:
        errors = errors_of(out).read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{output[-1_000:]}\n{errors[-3_000:]}")
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


def errors_of(out: Path) -> Path:
    return out.parent / f"{out.name}.stderr.txt"


def run(contestant: Contestant, settings: Settings, out: Path) -> dict[str, Any]:
    return finish(start(contestant, settings, out), out)


def require(names: list[str]) -> None:
    """Raises SystemExit for unknown contestants, and for peers whose environment is not there."""
    unknown = [name for name in names if name not in CONTESTANTS]
    if unknown:
        raise SystemExit(f"no such contestant: {', '.join(unknown)}; there are {', '.join(CONTESTANTS)}")
    if not all(CONTESTANTS[name].python.is_file() for name in names):
        raise SystemExit("the peers are not installed: run `make bench-peers`, or name others with --only")
