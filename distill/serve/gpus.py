"""Whether the GPUs that a server wants are there, free, able, and reachable through its own torch.

Asks the driver's `nvidia-smi` and the server's interpreter; loads no driver and no torch itself. Knows nothing about
models and layouts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from distill.environment import Finding
from distill.errors import DistillError
from distill.probes import IMPORT_SECONDS, ask, release
from distill.serve.machine import GPU_BUILD

GPU_FIELDS = (
    "index", "uuid", "memory.total", "memory.free", "compute_cap", "driver_version", "mig.mode.current",
    "ecc.errors.uncorrected.volatile.total", "name",
)  # fmt: skip
"""As `nvidia-smi --help-query-gpu` names them. `memory.free` leaves out what the driver keeps for itself."""
APP_FIELDS = ("gpu_uuid", "pid", "used_memory", "process_name")
ASK_SECONDS = 60.0
"""Without the persistence daemon the driver first wakes every GPU, which takes seconds for each."""
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU now; memory in bytes, None where the driver does not tell (MIG, memory shared with the CPU)."""

    index: int
    uuid: str
    name: str
    total: int | None
    free: int | None
    capability: float | None
    driver: str
    mig: bool
    ecc_errors: int


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that computes on a GPU; `used` in bytes, None where the driver does not tell."""

    uuid: str
    pid: int
    used: int | None
    name: str


class SmiError(DistillError, OSError):
    """`nvidia-smi` is not there, or does not reach the driver."""


def gpus() -> list[GpuState]:
    """Every GPU that the driver lists. Raises SmiError."""
    return [_gpu(row) for row in _rows("gpu", GPU_FIELDS)]


def gpu_processes() -> list[GpuProcess]:
    """What computes on them; within a container the numbers are those of the host. Raises SmiError."""
    rows = _rows("compute-apps", APP_FIELDS)
    return [GpuProcess(uuid, int(pid), _bytes(used), name) for uuid, pid, used, name in rows if pid.isdigit()]


def visible(found: Sequence[GpuState], setting: str | None) -> list[GpuState]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; as with CUDA, none after an entry that names no GPU."""
    if setting is None:
        return list(found)
    seen: list[GpuState] = []
    for entry in (part.strip() for part in setting.split(",")):
        named = [
            gpu for gpu in found if entry == str(gpu.index) or (entry[:4] == "GPU-" and gpu.uuid.startswith(entry))
        ]
        if len(named) != 1:
            break
        seen += named
    return seen


def gpus_found(count: int, memory: int, least_capability: float | None) -> list[Finding]:
    """Whether the first `count` visible GPUs each have `memory` bytes free and at least this compute capability."""
    try:
        listed, processes = gpus(), gpu_processes()
    except SmiError as error:
        return [_missing(error.what, "nvidia-smi")]
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = visible(listed, setting)
    if len(seen) < count:
        what = f"{len(listed)} seen, {count} wanted"
        hidden = len(listed) > len(seen)
        if hidden:
            what = f"{len(seen)} of {len(listed)} visible, {count} wanted: CUDA_VISIBLE_DEVICES is {setting!r}"
        return [_missing(what, "unset CUDA_VISIBLE_DEVICES" if hidden else "nvidia-smi -L")]
    taken = seen[:count]
    findings = [*_too_old(taken, least_capability), *_not_free(taken, seen, processes, memory)]
    if not findings:
        names = ", ".join(sorted({gpu.name for gpu in taken}))
        least = min((gpu.free for gpu in taken if gpu.free is not None), default=None)
        free = f", at least {least / 1e9:.1f} GB free on each" if least is not None else ""
        findings = [Finding("gpus", "ok", f"{count} × {names}{free}", necessary=True)]
    return [*findings, *_remarks(taken, processes)]


def _too_old(taken: Sequence[GpuState], least: float | None) -> list[Finding]:
    old = [gpu for gpu in taken if least is not None and gpu.capability is not None and gpu.capability < least]
    if not old or least is None:
        return []
    have = ", ".join(f"GPU {gpu.index} ({gpu.name}) has {gpu.capability}" for gpu in old)
    what = f"these weights need compute capability {least:.1f}: {have}; another variant of the weights may do"
    return [_missing(what)]


def _not_free(
    taken: Sequence[GpuState], seen: Sequence[GpuState], processes: Sequence[GpuProcess], memory: int
) -> list[Finding]:
    full = [gpu for gpu in taken if gpu.free is not None and gpu.free < memory]
    if not full:
        return []
    each = "; ".join(_fullness(gpu, processes) for gpu in full)
    free = [gpu for gpu in seen if gpu.free is None or gpu.free >= memory]
    mend = [f"export CUDA_VISIBLE_DEVICES={','.join(str(gpu.index) for gpu in free[: len(taken)])}"]
    pids = sorted({process.pid for process in processes if process.uuid in {gpu.uuid for gpu in full}})
    stop = [f"ps -o user,pid,lstart,args -p {','.join(map(str, pids))}"] if pids else ["nvidia-smi"]
    mends = [*(mend if len(free) >= len(taken) else []), *stop]
    return [_missing(f"{memory / 1e9:.1f} GB wanted on each: {each}", *mends)]


def _fullness(gpu: GpuState, processes: Sequence[GpuProcess]) -> str:
    total = f" of {gpu.total / 1e9:.1f} GB" if gpu.total is not None else " GB"
    return f"GPU {gpu.index} has {(gpu.free or 0) / 1e9:.1f}{total} free{_users(gpu, processes)}"


def _users(gpu: GpuState, processes: Sequence[GpuProcess]) -> str:
    told = [
        f"process {process.pid} ({process.name}{f', {process.used / 1e6:.0f} MB' if process.used is not None else ''})"
        for process in processes
        if process.uuid == gpu.uuid
    ]
    return f", used by {', '.join(told)}" if told else ""


def _remarks(taken: Sequence[GpuState], processes: Sequence[GpuProcess]) -> list[Finding]:
    """What need not stop a server, and may explain one that fails."""
    notes = []
    used = [f"GPU {gpu.index}{_users(gpu, processes)[1:]}" for gpu in taken if _users(gpu, processes)]
    if used:
        notes.append(Finding("gpus", "note", f"not ours alone: {'; '.join(used)}", ("nvidia-smi",)))
    if sliced := [str(gpu.index) for gpu in taken if gpu.mig]:
        what = f"MIG is on for GPU {', '.join(sliced)}: a process sees one slice with its memory, not the GPU"
        notes.append(Finding("gpus", "note", what, ("nvidia-smi -L",)))
    if silent := [str(gpu.index) for gpu in taken if gpu.free is None]:
        notes.append(Finding("gpus", "note", f"the driver does not tell how much is free on GPU {', '.join(silent)}"))
    if wrong := [f"GPU {gpu.index}: {gpu.ecc_errors}" for gpu in taken if gpu.ecc_errors]:
        what = f"uncorrected memory errors since the driver was loaded: {', '.join(wrong)}"
        notes.append(Finding("gpus", "note", what, ("nvidia-smi -q -d ECC,ROW_REMAPPER",)))
    return notes


_ASK_TORCH = """
import json, torch
told = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": 0, "error": None}
try:
    if told["cuda"]:
        torch.cuda.init()
        for place in range(torch.cuda.device_count()):
            torch.ones(8, device=f"cuda:{place}").sum().item()
            told["devices"] += 1
except Exception as error:
    told["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
print(json.dumps(told))
"""
"""Computes on every device: a driver too old fails at the first, a GPU that torch has no code for at its own."""


def driver_found(python: str, count: int) -> Finding:
    """Whether the server's own torch computes on `count` GPUs with this driver."""
    told = ask([python, "-c", _ASK_TORCH], IMPORT_SECONDS, ours=False)
    try:
        report = json.loads(told.text.splitlines()[-1])
        cuda, devices, error = report["cuda"], int(report["devices"]), report["error"]
    except (IndexError, ValueError, KeyError, TypeError):
        return _missing(f"torch of {python} does not tell: {told.error or 'no answer'}", topic="driver")
    torch = f"torch {report['version']}"
    if cuda is None:
        return _missing(f"{torch} of {python} is built without CUDA", *GPU_BUILD, topic="driver")
    most = cuda_of_driver()
    known = f"the driver supports CUDA {most}" if most else "which CUDA the driver supports is not told"
    if error is not None:
        older = most is not None and release(most)[:1] < release(cuda)[:1]
        what = f"{torch} is built for CUDA {cuda}, {known}" + (": it is too old" if older else "") + f"; {error}"
        return _missing(what, "nvidia-smi", topic="driver")
    if devices < count:
        what = f"{torch} sees {devices} of the {count} GPUs wanted; {known}"
        return _missing(what, "nvidia-smi -L", "env | grep CUDA_VISIBLE_DEVICES", topic="driver")
    if most is not None and release(most) < release(cuda):
        what = f"{torch} computes with CUDA {cuda}, but {known}: kernels that are compiled at the start may fail"
        return Finding("driver", "note", what, ("nvidia-smi",))
    return Finding("driver", "ok", f"{torch} computes with CUDA {cuda} on {devices} GPUs; {known}", necessary=True)


def cuda_of_driver() -> str | None:
    """The newest CUDA that the driver runs, from the head of nvidia-smi; driver 610 calls it `CUDA UMD Version`."""
    told = re.search(r"CUDA (?:UMD )?Version: *(\d+\.\d+)", ask(["nvidia-smi"], ASK_SECONDS).text)
    return told[1] if told else None


def _missing(what: str, *mend: str, topic: str = "gpus") -> Finding:
    return Finding(topic, "missing", what, mend, necessary=True)


def _rows(of: str, fields: Sequence[str]) -> list[list[str]]:
    """The CSV lines, cut into as many values as there are fields: the last one may hold commas."""
    told = ask(["nvidia-smi", f"--query-{of}={','.join(fields)}", "--format=csv,noheader,nounits"], ASK_SECONDS)
    lines = [line for line in told.text.splitlines() if line.strip()]
    if told.error is not None:  # it tells its errors on stdout
        raise SmiError(f"nvidia-smi: {lines[-1].strip() if lines else told.error}")
    rows = [[value.strip() for value in line.split(",", len(fields) - 1)] for line in lines]
    return [row for row in rows if len(row) == len(fields)]


def _gpu(row: Sequence[str]) -> GpuState:
    index, uuid, total, free, capability, driver, mig, ecc, name = row
    return GpuState(
        index=int(index),
        uuid=uuid,
        name=name,
        total=_bytes(total),
        free=_bytes(free),
        capability=_capability(capability),
        driver=driver,
        mig=mig == "Enabled",
        ecc_errors=int(ecc) if ecc.isdigit() else 0,
    )


def _bytes(mebibytes: str) -> int | None:
    """None for `[N/A]` and `[Insufficient Permissions]`."""
    return int(mebibytes) * MEBIBYTE if mebibytes.isdigit() else None


def _capability(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
