"""A teacher's own service for as long as a stage asks it: `distill serve RUN` as a process that ends with this one.

Knows when the service answers, not how it does.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill import specs
from distill.errors import DistillError, EndpointError, MissingError
from distill.files import write_json, write_text
from distill.progress import say
from distill.rundir import RunDir
from distill.serve.node import NodeCommand, NodeProcess
from distill.serve.service import Place
from distill.serve_specs import ServeSettings
from distill.specs import Recipe, dump

LOOK_SECONDS = 0.5
END_SECONDS = 60.0
"""Beyond the drain timeout, for the service to end its servers."""
LOG = "service.log"
SPOKEN = "distill: "
"""How the command line begins what ended it."""


def can_host(teacher: str, overrides: Mapping[str, Any], settings: ServeSettings) -> bool:
    """Whether this machine has GPUs that hold a teacher, its weights' sizes known, and vLLM to serve it with."""
    from distill import hardware
    from distill.serve.planning import find_vllm, plan
    from distill.serve.target import find

    spec = specs.teacher(teacher, overrides)
    if spec.architecture is None or not hardware.gpus():
        return False
    try:
        vllm = find_vllm(settings)
        if vllm is None or vllm.cpu_build:
            raise MissingError("no vLLM for GPUs is found")
        plan(find(teacher, settings, dict(overrides)), settings, vllm)
    except DistillError as error:
        say(f"{spec.name} is not served here by itself: {error.what}")
        return False
    return True


@contextlib.contextmanager
def hosted(recipe: Recipe, run: RunDir) -> Iterator[None]:
    """The service of a run's teacher, ready when the block begins and gone when it has ended.

    Raises EndpointError with the service's own last words when it ends before it is ready.
    """
    place = Place(run.path)
    if not run.recipe.is_file():
        write_text(run.recipe, dump(recipe))
    service, log = NodeProcess(), place.logs / LOG
    heard = log.stat().st_size if log.is_file() else 0
    say(f"{recipe.teacher} is served by this run itself; its log: {log}")
    command = (sys.executable, "-m", "distill.cli", "serve", str(run.path))
    package = str(Path(__file__).resolve().parents[2])  # a checkout need not be installed
    service.start(NodeCommand(command, {"PYTHONPATH": package}), log, {})
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(recipe.teacher, service, place, log, heard, done), daemon=True)
    try:
        watch.start()
        while not _answers(place.endpoints, service.pid):
            if service.poll() is not None:
                done.set()
                watch.join()
                raise _ended(recipe.teacher, log)
            time.sleep(LOOK_SECONDS)
        yield
    finally:
        done.set()
        service.stop(recipe.serve.drain_timeout + END_SECONDS)


def _watch(teacher: str, service: NodeProcess, place: Place, log: Path, heard: int, done: threading.Event) -> None:
    """Tells what the service says; where it ends unasked, whoever follows its file of servers is told why."""
    while not done.wait(LOOK_SECONDS):
        heard = _tell(log, heard)
        if service.poll() is not None:
            ended = _ended(teacher, log)
            told = {"ended": ended.what, "given": ended.given, "todo": ended.todo}
            write_json(place.endpoints, {"endpoints": [], "service": told})
            return
    _tell(log, heard)


def _answers(endpoints: Path, pid: int | None) -> bool:
    """Whether a replica stands in the file that this very service writes."""
    try:
        told = json.loads(endpoints.read_text(encoding="utf-8"))
        return bool(told["endpoints"]) and told["service"]["pid"] == pid
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _tell(log: Path, heard: int) -> int:
    """What the service said since; how much of its log that makes."""
    try:
        with log.open("rb") as file:
            file.seek(heard)
            text = file.read()
    except OSError:
        return heard
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        say(f"  serve: {line}")
    return heard + len(whole)


def _ended(teacher: str, log: Path) -> EndpointError:
    """What the service's last error said: its lines are those of every DistillError."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    last = max((number for number, line in enumerate(lines) if line.startswith(SPOKEN)), default=None)
    words = lines[last:] if last is not None else lines[-1:]
    told = {part: _after(words, f"  {part}: ") for part in ("given", "to do")}
    what = words[0].removeprefix(SPOKEN) if words else "nothing"
    return EndpointError(
        f"{teacher} cannot be served here: {what}", given=told["given"], todo=told["to do"] or f"look into {log}"
    )


def _after(lines: list[str], start: str) -> str | None:
    return next((line.removeprefix(start) for line in lines if line.startswith(start)), None)
