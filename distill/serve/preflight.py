"""Is this machine ready to serve a model: every check by its name, all of them before anything is started.

The checks stand in gpus, machine, model_files, model_hashes and interconnect; here is what is needed, their order, and
what it means when one fails. Knows nothing about layouts and how a server is started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.environment import Finding
from distill.errors import InputError, MissingError, UsageError, near
from distill.serve.gpus import driver_found, gpus_found
from distill.serve.interconnect import all_reduce_found
from distill.serve.machine import Device, disk_found, limits_found, memory_found, ports_found, vllm_found
from distill.serve.model_files import ModelFiles, located, model_found
from distill.serve.model_hashes import hashes_found

LEAST_DISK = 2 * 10**9
"""Bytes for a service's rotated logs and its state; the model's files are not among them."""
REMEMBERED = "serve/model_files.json"
"""Below the service's folder: which files were hashed, so that the next start need not do it again."""


@dataclass(frozen=True, slots=True)
class Need:
    """What serving takes on this node, all replicas together."""

    device: Device
    model: str
    """A folder or a Hub id."""
    python: str
    """The interpreter that has vLLM."""
    out: Path
    """The service's folder, which need not exist yet."""
    revision: str | None = None
    trust_remote_code: bool = False
    workers: int = 1
    """Processes that hold the model; on `cuda` each takes a GPU, the first of those that are visible."""
    memory: int = 0
    """Bytes that must be free for each worker, on its GPU or of main memory."""
    least_capability: float | None = None
    """CUDA compute capability that the format of the weights needs, such as 8.9."""
    host: str = "127.0.0.1"
    ports: tuple[int, ...] = ()
    """TCP ports that are listened at on this node."""
    nodes: int = 1
    """Nodes that one replica spans."""
    disk: int = LEAST_DISK


def _gpus(need: Need) -> Iterable[Finding]:
    return gpus_found(need.workers, need.memory, need.least_capability) if need.device == "cuda" else ()


def _driver(need: Need) -> Iterable[Finding]:
    return (driver_found(need.python, need.workers),) if need.device == "cuda" else ()


def _memory(need: Need) -> Iterable[Finding]:
    return (memory_found(need.memory * need.workers),) if need.device == "cpu" else ()


def _model(need: Need) -> Iterable[Finding]:
    def found(files: ModelFiles) -> Iterable[Finding]:
        return model_found(files, revision=need.revision, trust_remote_code=need.trust_remote_code)

    return _of_files(need, "model", found)


def _hashes(need: Need) -> Iterable[Finding]:
    return _of_files(need, "hashes", lambda files: (hashes_found(files, need.out / REMEMBERED),))


def _of_files(need: Need, topic: str, found: Callable[[ModelFiles], Iterable[Finding]]) -> Iterable[Finding]:
    try:
        files = located(need.model, need.revision)
        return (files,) if isinstance(files, Finding) else found(files)
    except InputError as error:
        return (Finding(topic, "missing", error.what, necessary=True),)
    except OSError as error:
        return (Finding(topic, "missing", f"{error.filename} cannot be read: {error.strerror}", necessary=True),)


def _all_reduce(need: Need) -> Iterable[Finding]:
    if need.workers * need.nodes == 1:
        return ()
    return (all_reduce_found(need.python, need.device, need.workers, nodes=need.nodes),)


CHECKS: Mapping[str, Callable[[Need], Iterable[Finding]]] = {
    "disk": lambda need: (disk_found(need.out, need.disk),),
    "ports": lambda need: ports_found(need.host, need.ports),
    "limits": lambda need: limits_found(need.workers, need.nodes),
    "memory": _memory,
    "vllm": lambda need: (vllm_found(need.python, need.device),),
    "gpus": _gpus,
    "model": _model,
    "driver": _driver,
    "all-reduce": _all_reduce,
    "hashes": _hashes,
}
"""By the name that --skip takes; from what is known at once to what takes minutes."""
LONG = ("all-reduce", "hashes")
"""Only tried when nothing else is missing: they take long, and the first cannot work without the others."""


def look(need: Need, skip: Sequence[str] = ()) -> list[Finding]:
    """What every check found that is not skipped; without `model` nothing is hashed either.

    Raises UsageError for a name that is no check's.
    """
    for name in skip:
        if name not in CHECKS:
            what = f"there is no check '{name}'{near(name, list(CHECKS))}"
            raise UsageError(what, given=f"--skip {name}", todo=f"take one of {', '.join(CHECKS)}")
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        if name in skip or (name == "hashes" and "model" in skip):
            findings.append(Finding(name, "note", "skipped, as asked"))
        elif name in LONG and any(finding.state == "missing" for finding in findings):
            findings.append(Finding(name, "note", "not looked at: something else is missing"))
        else:
            findings += check(need)
    return findings


def require(findings: Sequence[Finding]) -> None:
    """Raises MissingError that names everything missing and the commands that mend it."""
    missing = [finding for finding in findings if finding.state == "missing"]
    if not missing:
        return
    topics = list(dict.fromkeys(finding.topic for finding in missing))
    mends = [f"{finding.topic}: {mend}" for finding in missing for mend in finding.mend]
    skips = f"or, where you know better: --skip {' --skip '.join(topics)}"
    indent = "\n         "
    raise MissingError(
        f"this machine is not ready to serve: {', '.join(topics)}",
        given=indent.join(f"{finding.topic}: {finding.what}" for finding in missing),
        todo=indent.join([*mends, skips]),
    )
