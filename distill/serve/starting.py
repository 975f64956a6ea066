"""`distill serve`: plans the service of a teacher, looks whether the machine is ready, and supervises it.

Knows the order of things; each is done elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill import specs
from distill.accelerators import parse_hardware
from distill.doctor import finding_lines
from distill.errors import DiskFullError, MissingError, UsageError
from distill.files import FileLock, write_text
from distill.progress import say
from distill.serve import preflight
from distill.serve.command import KEY_VARIABLE
from distill.serve.launching import Launcher
from distill.serve.node import address
from distill.serve.planning import ServicePlan, find_vllm, plan
from distill.serve.preflight import look, require
from distill.serve.replica import Plan
from distill.serve.service import Place, Service, Terms
from distill.serve.target import find
from distill.serve_specs import EVERY_ADDRESS, ServeSettings

ALL_REDUCE = "all-reduce"
SERVICES = Path("services")
"""Where a service that belongs to no run keeps its files."""


def service_of(teacher: str) -> Path:
    """Where the service of a teacher that belongs to no run says that it answers."""
    return Place(SERVICES / _name(teacher)).endpoints


def _name(teacher: str) -> str:
    return Path(teacher).expanduser().resolve().name.removesuffix(".yaml")


@dataclass(frozen=True, slots=True)
class Asked:
    """A teacher, how it is to be served, and where the service's files go."""

    teacher: str
    overrides: Mapping[str, Any]
    """Fields of the teacher's spec that a recipe sets itself."""
    settings: ServeSettings
    out: Path


def asked(teacher: str, settings: Sequence[str], options: Mapping[str, Any], out: Path | None) -> Asked:
    """What the command line asks for. `teacher`: a spec, a model folder, or a run, whose recipe then says all that the
    options do not. Raises SpecError for an unknown name or setting."""
    given = specs.overrides(settings)
    unknown = next((key for key in given if not key.startswith("serve.")), None)
    if unknown is not None:
        raise UsageError(
            f"--set {unknown}: `distill serve` takes settings of serve alone", todo="such as serve.max_model_len=16384"
        )
    changes = {**given, **{f"serve.{key}": value for key, value in options.items() if value is not None}}
    run = Path(teacher).expanduser()
    if teacher not in specs.names("teachers") and (run / "recipe.yaml").is_file():
        file = run / "recipe.yaml"
        recipe = specs.parse(specs.Recipe, specs.read(file), str(file), changes)
        return Asked(recipe.teacher, recipe.teacher_overrides, recipe.serve, out or run)
    recipe = specs.parse(specs.Recipe, "name: serve", "options", changes)
    return Asked(teacher, {}, recipe.serve, out or SERVICES / _name(teacher))


def planned(what: Asked) -> ServicePlan:
    """The plan of a service; nothing is started."""
    target = find(what.teacher, what.settings, dict(what.overrides))
    return plan(target, what.settings, find_vllm(what.settings))


def serve(what: Asked) -> None:
    """Serves until told to end. Raises what planning, the preflight and the service raise."""
    chosen = planned(what)
    for line in chosen.lines():
        say(line)
    if what.settings.launcher == "local" and chosen.layout.hardware.nodes > 1:
        what_is = f"--hardware {what.settings.hardware} is several machines, and --launcher local serves on this one"
        raise UsageError(what_is, todo="--launcher ray, or on each machine the command that --dry-run prints for it")
    if chosen.vllm is None:
        todo = "without GPUs: make vllm in a checkout; else install vLLM in an environment of its own, --python PATH"
        raise MissingError("no vLLM is found on this machine", todo=todo)
    place = Place(what.out)
    place.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(place.folder / ".lock", "service"):
        _require_ready(chosen, what)
        key = _key(what.settings, place)
        asyncio.run(_serve(chosen, what, place, key))


async def _serve(chosen: ServicePlan, what: Asked, place: Place, key: str | None) -> None:
    launcher = _launcher(chosen, what.settings)
    service = Service(place, _terms(chosen, what.settings, key), _plan(chosen, what.settings, place, key), launcher)
    try:
        await _require_cluster(chosen, what, launcher, place)
        await service.run()
    finally:
        await launcher.close()


def _launcher(chosen: ServicePlan, settings: ServeSettings) -> Launcher:
    most = max(chosen.layout.replicas, settings.most_replicas or 1)
    if settings.launcher == "ray":
        from distill.serve.on_ray import RayLauncher

        return RayLauncher(settings.ray_address, replicas=most)
    from distill.serve.local import LocalLauncher

    return LocalLauncher(
        host=_reached_at(settings),
        replicas=most,
        first_port=settings.port,
        log_bytes=settings.log_megabytes * 10**6,
    )


def _reached_at(settings: ServeSettings) -> str:
    """The address that clients take: that of this machine where the servers listen at all of them."""
    if settings.host in EVERY_ADDRESS:
        return address()
    return settings.host or "127.0.0.1"


async def _require_cluster(chosen: ServicePlan, what: Asked, launcher: Launcher, place: Place) -> None:
    """With Ray, what the machines of the cluster have to have."""
    from distill.serve.on_ray import RayLauncher
    from distill.serve.ray_preflight import require_all_reduce, require_everywhere

    if not isinstance(launcher, RayLauncher):
        return
    needed, skip = _needed(chosen, what), what.settings.skip
    here = replace(needed, workers=max(1, chosen.layout.gpus), memory=int(chosen.layout.memory))
    await require_everywhere(await launcher.cluster(), here, skip)
    if ALL_REDUCE not in skip:
        workers = chosen.layout.split.gpus // chosen.layout.nodes
        await require_all_reduce(launcher, chosen.need, needed.python, workers, place.logs.resolve())


def _terms(chosen: ServicePlan, settings: ServeSettings, key: str | None) -> Terms:
    replicas = chosen.layout.replicas
    return Terms(
        chosen.target.spec.name,
        chosen.target.served_name,
        key,
        replicas,
        settings.least_replicas or replicas,
        settings.most_replicas or replicas,
        chosen.layout.most_requests,
        settings.drain_timeout,
        settings.page_port,
    )


def _plan(chosen: ServicePlan, settings: ServeSettings, place: Place, key: str | None) -> Plan:
    return Plan(
        chosen.need,
        chosen.commands,
        place.logs.resolve(),
        {} if key is None else {KEY_VARIABLE: key},
        settings.start_timeout,
        settings.stall_timeout,
        settings.probe_seconds,
        settings.max_failures,
    )


def _key(settings: ServeSettings, place: Place) -> str | None:
    """The key that clients need: the user's own, else a new one where others can reach the service. Clients of this
    user find it in a file that nobody else can read."""
    key = os.environ.get(KEY_VARIABLE) or (None if settings.loopback else secrets.token_urlsafe(32))
    place.key.unlink(missing_ok=True)
    if key is None:
        return None
    try:
        descriptor = os.open(place.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
    except OSError as error:
        raise DiskFullError(f"the key cannot be written: {error.strerror}: {place.key}") from error
    say(f"clients need the key in {place.key}; `distill generate` finds it there")
    return key


def check(what: Asked) -> tuple[dict[str, Any], list[str]]:
    """What the preflight finds, as values and as lines. Raises MissingError when something is missing."""
    chosen = planned(what)
    found = look(_needed(chosen, what), sorted(_skipped(chosen, what)))
    lines = [line for finding in found for line in finding_lines(finding)]
    if what.settings.launcher == "ray" and not any(finding.state == "missing" for finding in found):
        asyncio.run(_check_cluster(chosen, what))
        lines.append("ok       cluster            its machines can serve")
    if any(finding.state == "missing" for finding in found):
        for line in lines:
            say(line)
        require(found)
    return {"findings": [asdict(finding) for finding in found]}, lines


async def _check_cluster(chosen: ServicePlan, what: Asked) -> None:
    launcher = _launcher(chosen, what.settings)
    try:
        await _require_cluster(chosen, what, launcher, Place(what.out))
    finally:
        await launcher.close()


def _needed(chosen: ServicePlan, what: Asked) -> preflight.Need:
    """What this machine has to have: all replicas of the local launcher; with Ray, they are placed elsewhere."""
    layout, target, settings = chosen.layout, chosen.target, what.settings
    workers = layout.split.gpus * max(layout.replicas, settings.most_replicas or 1) // layout.nodes
    most = max(layout.replicas, settings.most_replicas or 1)
    ports = () if settings.port is None else tuple(range(settings.port, settings.port + most))
    return preflight.Need(
        layout.device,
        target.location,
        chosen.vllm.python if chosen.vllm is not None else sys.executable,
        what.out,
        target.revision,
        target.spec.trust_remote_code,
        workers,
        int(layout.memory / layout.split.gpus) if layout.device == "cpu" else int(layout.memory),
        None if target.spec.weights is None else target.spec.weights.least_capability,
        settings.host or "127.0.0.1",
        ports,
        layout.nodes,
    )


def _require_ready(chosen: ServicePlan, what: Asked) -> None:
    skip = _skipped(chosen, what)
    found = look(_needed(chosen, what), sorted(skip))
    for finding in found:
        if finding.state == "note" and finding.topic not in skip:
            say(f"{finding.topic}: {finding.what}")
    require(found)


def _skipped(chosen: ServicePlan, what: Asked) -> set[str]:
    """Checks that this machine need not pass: those left out, those of the cluster's machines, and the all-reduce where
    no two processes work together."""
    found = set(what.settings.skip)
    if what.settings.launcher == "ray":
        found |= {"gpus", "driver", "memory", "ports", "model", "hashes", ALL_REDUCE}
    return found if chosen.layout.split.gpus > 1 else {*found, ALL_REDUCE}


def job_words(teacher: str, settings: Sequence[str], options: Mapping[str, Any], out: Path | None) -> tuple[str, ...]:
    """The command line of a service once more, for a job: without what the job decides itself."""
    words = ["serve", teacher]
    for name, value in options.items():
        for each in value if isinstance(value, list | tuple) else (value,) if value is not None else ():
            if name not in ("launcher", "ray_address"):
                words += [f"--{name}", str(each)]
    words += [] if out is None else ["--out", str(out)]
    return (*words, *(word for setting in settings for word in ("--set", setting)))


def write_job(what: Asked, file: Path, words: Sequence[str]) -> list[str]:
    """Writes a Slurm job file that serves the teacher on a Ray cluster of its own by a command of these `words`; lines
    for the reader. Raises UsageError where the hardware is not named: this machine need not be one of the job's.
    """
    from distill.serve.slurm import END_SECONDS, SlurmJob, job_file

    if parse_hardware(what.settings.hardware) is None:
        raise UsageError("a job needs to know its machines", todo="name them, such as --hardware 2x8xH100")
    chosen = planned(what)
    hardware = chosen.layout.hardware
    drain = int(what.settings.drain_timeout) + END_SECONDS
    python = Path(sys.executable).absolute()
    job = SlurmJob(tuple(words), what.out, hardware.nodes, hardware.gpus, python, drain=drain)
    Place(what.out).logs.mkdir(parents=True, exist_ok=True)  # Slurm writes no log into a folder that is not there
    write_text(file, job_file(job))
    return [
        *chosen.lines(),
        f"{file}: read it, then `sbatch {file}`; the replicas will stand in {what.out}/endpoints.json",
    ]
