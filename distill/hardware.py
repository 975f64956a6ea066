"""What this machine has: memory, disk, cores, accelerators. Reads, never changes; knows nothing about models.

Every answer may be None: a machine that does not tell is no error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEMINFO = Path("/proc/meminfo")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's memory limit stands (control groups, version 2 and 1)."""
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of main memory: all that this process may use, and what is free now."""

    total: int | None
    free: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU as its driver names it; memory in bytes."""

    name: str
    memory: int
    driver: str


def memory() -> Memory:
    """From /proc/meminfo, within the container's limit; elsewhere (macOS) the total alone."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
        total: int | None = _kibibytes(lines["MemTotal"])
        free: int | None = _kibibytes(lines["MemAvailable"])
    except (OSError, ValueError, KeyError):
        total, free = _total_by_sysconf(), None
    limit = _container_limit()
    if limit is not None and (total is None or limit < total):
        total, free = limit, min(free, limit) if free is not None else None
    return Memory(total, free)


def disk_free(place: Path) -> int | None:
    """Bytes that may still be written below `place`."""
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def gpus() -> list[Gpu]:
    """What the NVIDIA driver lists, torch or no torch; empty where there is none."""
    try:
        told = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S603
        rows = [line.rsplit(",", 2) for line in told.splitlines() if line.strip()]
        return [Gpu(name.strip(), int(mebibytes) * 2**20, driver.strip()) for name, mebibytes, driver in rows]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def bfloat16_in_hardware() -> bool:
    """Whether this CPU computes bfloat16 itself; one that emulates it converts at every product."""
    import torch

    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))


def torch_report() -> dict[str, Any]:
    """What torch says and really can do, as JSON: version, CUDA, devices, bfloat16. Raises whatever torch raises."""
    import torch

    devices = []
    for place in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.ones(8, 8, device=f"cuda:{place}").sum().item()  # a driver too old fails here, not before
        properties = torch.cuda.get_device_properties(place)
        devices.append({"name": properties.name, "memory": properties.total_memory})
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "devices": devices,
        "bfloat16": torch.cuda.is_bf16_supported() if devices else bfloat16_in_hardware(),
    }


def _kibibytes(value: str) -> int:
    return int(value.split()[0]) * 1024


def _total_by_sysconf() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def _container_limit() -> int | None:
    for path in CGROUP_LIMITS:
        try:
            return int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):  # not there, or the word "max"
            continue
    return None
