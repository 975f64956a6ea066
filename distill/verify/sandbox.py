"""Runs programs that nobody has read inside bubblewrap: no network, no files but an interpreter's, hard limits.

One sandbox takes one program and runs it on any number of inputs, each time in a fresh process; what `inside` does
there is not trusted. Knows nothing about right answers. Run as a program it tells in JSON whether it works here.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal, Self

from distill.environment import namespace_mends
from distill.errors import MissingError
from distill.verify.bubblewrap import COMPILER_OPTIONS, compiler_here
from distill.verify.sandbox_process import GRACE, LONGEST_LINE, BrokenSandboxError, Mode, SandboxProcess
from distill.verify.system_calls import NUMBERS, call_filter

Language = Literal["python", "cpp"]
ALLOW_VARIABLE = "DISTILL_ALLOW_UNSANDBOXED"
"""Environment variable that `--allow-unsandboxed` sets to 1: it reaches the worker processes, too."""
NOBODY = 65534
"""The user and group that the kernel itself takes for unknown ones (/proc/sys/kernel/overflowuid)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run of a program may take; exceeding one ends the program, and nothing else."""

    cpu_seconds: float = 6.0
    """Of all its threads, whole seconds: LiveCodeBench's time limit. Of the processor, so that a loaded machine changes
    no verdict."""
    wall_seconds: float = 30.0
    """Against programs that sleep: five times the above, for a machine with five programs to a core."""
    memory_bytes: int = 2**30
    """Address space: four times the 256 MB of memory that Codeforces' problems allow most often, since libraries and
    the stack count here."""
    stack_bytes: int = 2**28
    """Codeforces' limit; part of the above."""
    output_bytes: int = 2**24
    """Standard output, and any one file."""
    disk_bytes: int = 2**26
    """All files together, which lie in memory: Codeforces' limit of output."""
    threads: int = 64
    """Some programs start one, for a larger stack."""
    open_files: int = 64
    compile_seconds: float = 30.0
    """Processor time of a compiler; it may take three times that by the clock."""
    compile_memory: int = 2**31


DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program did with one test: its standard output, or the result of the call as a literal; or why there is
    none: `timeout`, `memory`, `crash`, `output_limit`, `processes`, `does_not_compile`, `no_function`. `errors` is the
    end of its standard error or of the compiler's words, `cpu` the seconds it took."""

    output: str | None
    reason: str = ""
    errors: str = ""
    cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether programs can be run here: how, or why not and the commands that mend it; none, where bubblewrap is not
    allowed to work, for which environment.namespace_mends has them."""

    mode: Mode | None
    reason: str = ""
    todo: tuple[str, ...] = ()


# --- is there one? -------------------------------------------------------------------------------------------------


@cache
def available() -> Availability:
    """Asks bubblewrap to run a program with all that a sandbox needs, once per process; `mode` is never `none`."""
    if platform.system() != "Linux":
        return Availability(None, "bubblewrap only exists on Linux", ("run distill in a Linux container",))
    if platform.machine() not in NUMBERS:
        what = f"no filter of system calls for {platform.machine()}: programs could start any number of others"
        return Availability(None, what, (f"use a machine of {' or '.join(NUMBERS)}",))
    if shutil.which("bwrap") is None:
        return Availability(None, "bubblewrap is not installed", (install_command(),))
    said = ""
    for mode in _modes():
        try:
            with Sandbox("print(6 * 7)", mode=mode) as sandbox:
                ran = sandbox.run("")
        except BrokenSandboxError as error:
            said = said or str(error)
        else:
            if ran.output == "42\n":
                return Availability(mode)
            said = said or f"a program that prints 42 ended with {ran.reason}: {ran.errors[-200:]}"
    if "Unknown option" in said:
        todo = "install bubblewrap 0.8 or newer (Debian 12, Ubuntu 24.04 and later have it)"
        return Availability(None, f"this bubblewrap is too old: {said}", (todo,))
    return Availability(None, f"bubblewrap is here but does not work: {said}")


def _modes() -> tuple[Mode, ...]:
    return ("root", "namespace") if os.geteuid() == 0 else ("namespace",)


def install_command() -> str:
    """For the package manager that is here; Debian's where none is known."""
    managers = {"apt-get": "apt-get install", "dnf": "dnf install", "pacman": "pacman -S", "zypper": "zypper install"}
    found = next((command for name, command in managers.items() if shutil.which(name)), "apt-get install")
    return f"{'' if os.geteuid() == 0 else 'sudo '}{found} bubblewrap"


def unsandboxed_allowed() -> bool:
    return os.environ.get(ALLOW_VARIABLE) == "1" and platform.machine() in NUMBERS and platform.system() == "Linux"


def mode_here() -> Mode | None:
    """The sandbox that there is; `none` where there is none and the user allows that; None: programs cannot run."""
    return available().mode or ("none" if unsandboxed_allowed() else None)


def require() -> None:
    """Raises MissingError where programs cannot be run, with what to do: for a stage to ask before it begins."""
    if mode_here() is None:
        found = available()
        todo = "; ".join(
            (*(found.todo or namespace_mends()), "or, for programs that you trust as your own, --allow-unsandboxed")
        )
        raise MissingError(f"programs cannot be verified: {found.reason}", todo=f"{todo}; distill doctor says more")


# --- one program ---------------------------------------------------------------------------------------------------


class Sandbox:
    """One program and where it runs; a context manager. Starts when first needed, again if it broke.

    Raises BrokenSandboxError where it cannot, and MissingError when `mode` is None and `mode_here` gives none.
    """

    def __init__(
        self, source: str, language: Language = "python", limits: Limits = DEFAULT, *, mode: Mode | None = None
    ) -> None:
        if mode is None:
            require()
        self.source, self.language, self.limits = source, language, limits
        self.mode: Mode = mode or mode_here() or "none"
        self._process: SandboxProcess | None = None
        self._refused: Ran | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None

    def run(self, given: str, function: str | None = None) -> Ran:
        """Runs the program with `given` as its standard input, or calls its function with this list of literals."""
        if self._refused is not None:
            return self._refused
        if self._process is None and (refused := self._start()) is not None:
            self.close()
            self._refused = refused
            return refused
        assert self._process is not None
        try:
            self._process.send({"function": function}, given.encode(errors="replace"))
            told, content = self._process.receive(self.limits.wall_seconds + GRACE, 3 * self.limits.output_bytes)
        except BrokenSandboxError as error:
            self.close()
            if self.mode == "none":  # there a program can end the process that watches it
                return Ran(None, "crash", str(error))
            raise
        return _judged(told, content, function is not None, self.limits)

    def _start(self) -> Ran | None:
        """A Ran when the program does not compile, None when it can be run."""
        compiler = compiler_here() if self.language == "cpp" else None
        if self.language == "cpp" and compiler is None:
            raise BrokenSandboxError("no C++ compiler")
        self._process = SandboxProcess(self.mode, self.limits.disk_bytes, compiler)
        command = [compiler, *COMPILER_OPTIONS, "-", "-o", "program"] if compiler else None
        code = call_filter(platform.machine(), signals=self.mode != "none") or b""
        order = {
            **asdict(self.limits),
            "wall_seconds": max(self.limits.wall_seconds, self.limits.cpu_seconds),
            "compile": command,
            "filter": code.hex(),
            "user": NOBODY if self.mode == "root" else None,
            "folder": self._process.folder,
        }
        self._process.send(order, self.source.encode(errors="replace"))
        told, content = self._process.receive(4 * self.limits.compile_seconds + GRACE, LONGEST_LINE)
        ready = told.get("ready") is True
        return None if ready else Ran(None, "does_not_compile", content.decode(errors="replace"))


def run(
    source: str,
    given: str = "",
    limits: Limits = DEFAULT,
    *,
    language: Language = "python",
    function: str | None = None,
) -> Ran:
    """One program on one input. For several inputs a Sandbox starts once."""
    with Sandbox(source, language, limits) as sandbox:
        return sandbox.run(given, function)


def _judged(told: dict[str, Any], content: bytes, called: bool, limits: Limits) -> Ran:
    """What became of a run, from what was told of it; a form that is not the agreed one is a crash."""
    try:
        why, code, cpu, peak = str(told["why"]), int(told["code"]), float(told["cpu"]), int(told["peak"])
        sizes = [int(size) for size in told["parts"]]
        if len(sizes) != 3 or min(sizes) < 0 or sum(sizes) != len(content) or not math.isfinite(cpu):
            raise ValueError("sizes that do not add up")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return Ran(None, "crash", f"a reply of another form: {error}")
    output, errors, result = (
        content[sum(sizes[:place]) : sum(sizes[: place + 1])].decode(errors="replace") for place in range(3)
    )
    if code == 125 and errors.startswith("sandbox: "):
        raise BrokenSandboxError(errors)
    ended = Ran(None, "", errors, cpu)
    if why in ("timeout", "output_limit", "processes"):
        return replace(ended, reason=why)
    if result.startswith("!"):
        return replace(ended, reason="no_function" if result == "!no_function" else "does_not_compile")
    if code != 0:
        return replace(ended, reason=_ending(code, errors, cpu, peak, limits))
    if called:
        return replace(ended, output=result[1:]) if result.startswith("=") else replace(ended, reason="crash")
    return replace(ended, output=output)


_ABORTED, _KILLED, _FAULT, _OVER_CPU, _OVER_SIZE = -6, -9, -11, -24, -25
"""SIGABRT, SIGKILL, SIGSEGV, SIGXCPU, SIGXFSZ, as exit codes."""
_NEARLY_ALL = 0.75
"""Of the address space: a program that dies with so much of it in use asked for more than was left."""


def _ending(code: int, errors: str, cpu: float, peak: int, limits: Limits) -> str:
    """Why a program ended badly, from its exit code or the signal, its last words and what it used."""
    if code == _OVER_CPU or (code == _KILLED and cpu >= 0.9 * limits.cpu_seconds):
        return "timeout"  # killed by RLIMIT_CPU's hard limit where it ignored the soft one
    if code == _OVER_SIZE:
        return "output_limit"
    last = errors.rstrip().rpartition("\n")[2]
    if last.startswith("MemoryError") or "std::bad_alloc" in errors:
        return "memory"
    starved = code in (_ABORTED, _KILLED, _FAULT) and peak >= _NEARLY_ALL * limits.memory_bytes
    return "memory" if starved else "crash"


def main() -> None:
    """Prints what `available` found as one line of JSON."""
    told = {**asdict(available()), "compiler": compiler_here()}
    print(json.dumps(told))  # noqa: T201  # its one line is its answer


if __name__ == "__main__":
    main()
