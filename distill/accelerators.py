"""GPUs by their names and the machines made of them: `8xH200`, `2x8xH100`, `1x48GB`, `cpu`, `2xcpu`.

Memory is as sold, in gigabytes of 10^9 bytes, which is a little less than a driver reports: a plan from it holds.
Knows nothing about models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from distill.errors import near


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU: bytes of memory, and CUDA's compute capability, None where the name does not tell."""

    name: str
    memory: float
    capability: float | None = None


def _catalog(*rows: tuple[str, float, float]) -> Mapping[str, Accelerator]:
    return {name.upper(): Accelerator(name, gigabytes * 1e9, capability) for name, gigabytes, capability in rows}


CATALOG: Mapping[str, Accelerator] = _catalog(
    ("B300", 288, 10.3),
    ("B200", 180, 10.0),
    ("H200", 141, 9.0),
    ("H20", 96, 9.0),
    ("H100", 80, 9.0),
    ("H800", 80, 9.0),
    ("A100", 80, 8.0),
    ("A100-40GB", 40, 8.0),
    ("A800", 80, 8.0),
    ("L40S", 48, 8.9),
    ("L4", 24, 8.9),
    ("A10", 24, 8.6),
    ("A6000", 48, 8.6),
    ("RTX3090", 24, 8.6),
    ("RTX4090", 24, 8.9),
    ("RTX5090", 32, 12.0),
    ("RTXPRO6000", 96, 12.0),
    ("T4", 16, 7.5),
)
"""Names as on the command line. Memory: NVIDIA's data sheets; capability: NVIDIA's table of CUDA GPUs
(developer.nvidia.com/cuda/gpus)."""

AUTO = "auto"
NODE = 8
"""GPUs of one machine, where a name counts more of them without saying how many machines: 16xH100."""
_WORD = re.compile(r"(?:(\d+)x)?(\d+)x([a-z0-9]+?)(?:-?(\d+)gb)?", re.IGNORECASE)
_CPUS = re.compile(r"(?:(\d+)x)?cpu")
_SIZE = re.compile(r"(?:(\d+)x)?(\d+)x(\d+)gb", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hardware:
    """Machines that are alike: how many, how many GPUs in each, of what kind. No GPU: CPUs."""

    nodes: int
    gpus: int
    gpu: Accelerator | None

    @property
    def total(self) -> int:
        return self.nodes * self.gpus

    @property
    def described(self) -> str:
        if self.gpu is None:
            return "CPU" if self.nodes == 1 else f"the CPUs of {self.nodes} machines"
        each = f"{self.gpus}x{self.gpu.name} ({self.gpu.memory / 1e9:.0f} GB each)"
        return each if self.nodes == 1 else f"{self.nodes} machines of {each}"


def parse_hardware(text: str) -> Hardware | None:
    """The hardware of a name; None for `auto`. Raises ValueError that says what can be written."""
    word = text.strip().lower()
    if word == AUTO:
        return None
    if found := _CPUS.fullmatch(word):
        return Hardware(max(1, int(found[1] or 1)), 0, None)
    if found := _SIZE.fullmatch(word):
        nodes, gpus, gigabytes = found.groups()
        return _machines(nodes, int(gpus), Accelerator(f"{gigabytes}GB", float(gigabytes) * 1e9), text)
    found = _WORD.fullmatch(word)
    if found is None:
        raise ValueError(f"hardware '{text}' is not understood; write 8xH200, 2x8xH100, 1x48GB, cpu, 2xcpu or auto")
    nodes, gpus, name, gigabytes = found.groups()
    gpu = CATALOG.get(f"{name}-{gigabytes}GB".upper()) if gigabytes else None
    gpu = gpu or CATALOG.get(name.upper())
    if gpu is None:
        known = [entry.name for entry in CATALOG.values()]
        hint = near(name.upper(), known)
        raise ValueError(
            f"unknown GPU '{name}' in hardware '{text}'{hint}; known: {', '.join(known)}, or a size: 1x48GB"
        )
    if gigabytes:
        gpu = replace(gpu, memory=float(gigabytes) * 1e9)
    return _machines(nodes, int(gpus), gpu, text)


def _machines(nodes: str | None, gpus: int, gpu: Accelerator, text: str) -> Hardware:
    count = int(nodes or 1)
    if nodes is None and gpus > NODE:
        if gpus % NODE:
            raise ValueError(f"hardware '{text}': say how many machines, such as 2x{gpus // 2}x{gpu.name}")
        count, gpus = gpus // NODE, NODE
    if not count or not gpus:
        raise ValueError(f"hardware '{text}' is nothing")
    return Hardware(count, gpus, gpu)


def named_as(driver_name: str) -> Accelerator | None:
    """The catalog's entry for a name as a driver tells it, such as `NVIDIA H100 80GB HBM3`."""
    words = re.sub(r"[^A-Z0-9]+", " ", driver_name.upper()).split()
    joined = {*words, *("".join(pair) for pair in pairwise(words))}
    found = [entry for name, entry in CATALOG.items() if name in joined]
    return max(found, key=lambda entry: len(entry.name), default=None)
