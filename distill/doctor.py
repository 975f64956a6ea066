"""What this machine can do, what is missing, and the command that mends it. Looks, never changes or downloads.

Whatever may break (torch, a driver, a library) is tried in a process of its own, so that the doctor outlives it. Knows
nothing about recipes and runs.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill import __version__, hardware
from distill.environment import (
    CONVERTER,
    Finding,
    checkout,
    converter_command,
    converter_folder,
    hub_found,
    in_checkout,
    install_command,
    sandbox_found,
    vllm_found,
)
from distill.fitting import Fits, fit_lines, fits
from distill.probes import IMPORT_SECONDS, ask, import_errors, release, version

LEAST_PYTHON = (3, 11)
CORE: Mapping[str, tuple[str, str]] = {
    "torch": ("torch", "2.13"),
    "transformers": ("transformers", "5.10"),
    "datasets": ("datasets", "4"),
    "numpy": ("numpy", "2"),
    "orjson": ("orjson", "3.10"),
    "peft": ("peft", "0.18"),
    "py3langid": ("py3langid", "0.4"),
    "pyarrow": ("pyarrow", "20"),
    "pydantic": ("pydantic", "2.11"),
    "pyyaml": ("yaml", "6"),
    "rensa": ("rensa", "0.5"),
    "typer": ("typer", "0.20"),
    "uvloop": ("uvloop", "0.22"),
    "rich": ("rich", "14"),
    "aiohttp": ("aiohttp", "3.11"),
    "math-verify": ("math_verify", "0.9"),
    "matplotlib": ("matplotlib", "3.10"),
    "huggingface_hub": ("huggingface_hub", "1"),
    "jinja2": ("jinja2", "3.1.5"),
    "safetensors": ("safetensors", "0.6"),
}
"""Distribution → the module it brings and the least version; a test holds it equal to pyproject.toml."""
QUANTIZE: Mapping[str, str] = {
    "accelerate": "accelerate",
    "bitsandbytes": "bitsandbytes",
    "gguf": "gguf",
    "llama-cpp-python": "llama_cpp",
    "protobuf": "google.protobuf",
    "sentencepiece": "sentencepiece",
}
"""As above, for the extra of that name; llama.cpp's converter comes beside it."""
PROBLEMS: Mapping[str, str] = {"reasoning-gym": "reasoning_gym"}
"""As above, for the extra of that name."""
DEV = (
    "hatchling",
    "hypothesis",
    "mypy",
    "playwright",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "trl",
    "types-PyYAML",
)

LEAST_DISK = 2 * 10**9
"""Bytes: a run of the quickstart takes 0.1 GB, traces and checkpoints of a small student soon 2."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and for each of R1's students where it fits: column → what fits there."""

    findings: tuple[Finding, ...]
    fits: Fits

    @property
    def healthy(self) -> bool:
        """Whether the main job (prompts to examined student) can run here."""
        return not any(finding.necessary and finding.state == "missing" for finding in self.findings)


def examine() -> Diagnosis:
    """Looks at everything; takes some seconds, since libraries are really imported."""
    gpus = hardware.gpus()
    memory = hardware.memory()
    findings = [
        python_found(sys.version_info[:3]),
        Finding("distill", "ok", f"{__version__} in {Path(__file__).parent}" + (" (checkout)" if checkout() else "")),
        device_found(gpus),
        memory_found(memory),
        disk_found(Path.cwd()),
        *packages_found(),
        vllm_found(has_gpu=bool(gpus)),
        sandbox_found(),
        *hub_found(),
    ]
    return Diagnosis(tuple(findings), fits(gpus, memory))


def shown(diagnosis: Diagnosis) -> tuple[dict[str, Any], list[str]]:
    """The diagnosis as values for a machine and as lines for a reader."""
    values = {"healthy": diagnosis.healthy, "findings": [asdict(f) for f in diagnosis.findings], "fits": diagnosis.fits}
    return values, list(_lines(diagnosis))


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    for finding in diagnosis.findings:
        yield from finding_lines(finding)
    yield ""
    yield from fit_lines(diagnosis.fits)
    yield ""
    wrong = [finding.topic for finding in diagnosis.findings if finding.necessary and finding.state == "missing"]
    yield f"the main job cannot run here: {', '.join(wrong)}" if wrong else "the main job can run here"


def finding_lines(finding: Finding) -> Iterator[str]:
    """A finding and, indented, what mends it."""
    yield f"{finding.state:<8} {finding.topic:<18} {finding.what}"
    yield from (f"{'':<8} {'':<18}   mend: {command}" for command in finding.mend)


def python_found(numbers: Sequence[int]) -> Finding:
    what = ".".join(map(str, numbers))
    if tuple(numbers[:2]) >= LEAST_PYTHON:
        return Finding("python", "ok", f"{what} on {platform.system()} {platform.machine()}", necessary=True)
    mend = in_checkout("python3.11 -m venv .venv && source .venv/bin/activate")
    return Finding("python", "missing", f"{what}; distill needs 3.11 or newer", (mend,), necessary=True)


def device_found(gpus: Sequence[hardware.Gpu]) -> Finding:
    """Asked in a process of its own: a broken torch raises, crashes or hangs there."""
    code = "import json; from distill.hardware import torch_report; print(json.dumps(torch_report()))"
    told = ask([sys.executable, "-c", code], IMPORT_SECONDS)
    if told.error is not None:
        return Finding("device", "missing", f"torch does not work: {told.error}", (install_command(),), necessary=True)
    report = json.loads(told.text.splitlines()[-1])
    if report["devices"]:
        drivers = f", driver {gpus[0].driver}" if gpus else ""
        each = ", ".join(f"{d['name']} ({_gib(d['memory'])} GiB)" for d in report["devices"])
        return Finding(
            "device", "ok", f"torch {report['version']}, CUDA {report['cuda']}{drivers}: {each}", necessary=True
        )
    native = report["bfloat16"]
    how = "bfloat16 is computed in hardware" if native else "bfloat16 is only emulated, so float32 is used"
    what = f"torch {report['version']}, CPU with {hardware.cores()} cores; {how}"
    if not gpus:
        return Finding("device", "ok", what, necessary=True)
    what += f"; the GPU here ({gpus[0].name}, driver {gpus[0].driver}) is not used"
    mend = (f"{sys.executable} -m pip install --force-reinstall torch",) if report["cuda"] is None else ("nvidia-smi",)
    return Finding("device", "note", what, mend, necessary=True)


def memory_found(memory: hardware.Memory) -> Finding:
    if memory.total is None:
        return Finding("memory", "note", "this system does not tell how much memory it has")
    free = f", {_gib(memory.free)} GiB free" if memory.free is not None else ""
    return Finding("memory", "ok", f"{_gib(memory.total)} GiB{free}")


def disk_found(place: Path) -> Finding:
    free = hardware.disk_free(place)
    if free is None:
        return Finding("disk", "note", f"how much is free in {place} cannot be told")
    what = f"{free / 1e9:.1f} GB free in {place}"
    if free >= LEAST_DISK:
        return Finding("disk", "ok", what, necessary=True)
    return Finding("disk", "missing", f"{what}; a run wants {LEAST_DISK / 1e9:.0f} GB", ("df -h .",), necessary=True)


def packages_found() -> Iterator[Finding]:
    """The core dependencies, then each extra with what it lacks; all of them but the converter really imported."""
    present = {module for name, module in {**QUANTIZE, **PROBLEMS}.items() if version(name) is not None}
    errors = import_errors([*(module for module, _ in CORE.values()), *present])
    for name, (module, least) in CORE.items():
        have, error = version(name), errors[module]
        if error is not None:
            what = f"{have} cannot be imported: {error}" if have else f"not installed; needs {least} or newer"
            yield Finding(name, "missing", what, (install_command(),), necessary=True)
        elif have is not None and release(have) < release(least):
            yield Finding(name, "missing", f"{have}; needs {least} or newer", (install_command(),), necessary=True)
        else:
            yield Finding(name, "ok", have or "of unknown version", necessary=True)
    yield quantize_found(errors)
    yield problems_found(errors)
    lacking = [name for name in DEV if version(name) is None]
    what = f"without {', '.join(lacking)}" if lacking else "the tools of the tests are here"
    yield Finding("extra: dev", "missing" if lacking else "ok", what, (install_command("dev"),) if lacking else ())


def quantize_found(errors: Mapping[str, str | None]) -> Finding:
    """`errors` tells for each module that is installed why it cannot be imported."""
    told, lacking = _told(QUANTIZE, errors)
    there = converter_folder() is not None
    told.append(CONVERTER if there else f"no {CONVERTER}")
    if not lacking and there:
        return Finding("extra: quantize", "ok", ", ".join(told))
    compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    building = "llama-cpp-python" in lacking and not compiler  # pip brings cmake itself; it cannot bring a compiler
    first = ["apt-get install build-essential"] if building else []
    told += ["no C++ compiler to build llama-cpp-python with"] if building else []
    mend = [*first, *([install_command("quantize")] if lacking else []), *([] if there else [converter_command()])]
    return Finding("extra: quantize", "missing", ", ".join(told), tuple(mend))


def problems_found(errors: Mapping[str, str | None]) -> Finding:
    """`errors` as for `quantize_found`."""
    told, lacking = _told(PROBLEMS, errors)
    mend = (install_command("problems"),) if lacking else ()
    return Finding("extra: problems", "missing" if lacking else "ok", ", ".join(told), mend)


def _told(extra: Mapping[str, str], errors: Mapping[str, str | None]) -> tuple[list[str], list[str]]:
    """What is told of each package of an extra, and the names of those that lack or cannot be imported."""
    told, lacking = [], []
    for name, module in extra.items():
        have, error = version(name), errors.get(module)
        if have is None or error is not None:
            lacking.append(name)
        told.append(f"no {name}" if have is None else f"{name} {have}" + (f" broken: {error}" if error else ""))
    return told, lacking


def _gib(count: int) -> str:
    return f"{count / 2**30:.0f}"
