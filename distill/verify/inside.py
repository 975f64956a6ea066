"""Runs inside the sandbox as its first process, and starts the program under test once per test, each time afresh.

Never imported: `sandbox_process` gives this to an interpreter without site-packages, so it knows the standard library
alone, and little of it, for the sake of its start. It knows nothing about right answers, which stay outside. It reads
orders from its standard input and writes what became of them to its standard output, each a line with a literal and
the bytes that this line counts. Outside nothing of that is trusted: the worst that a program could do to this process
is to make it say what the program can print anyway.

One file, though a long one: it is handed over as one program, compiled beforehand, since there is no folder in the
sandbox to import a second part from.
"""

from __future__ import annotations

import atexit
import bisect
import builtins
import collections
import ctypes
import functools
import gc
import heapq
import itertools
import math
import os
import resource
import select
import sys
import time
import types
from _sitebuiltins import Quitter

TYPE_CHECKING = False  # typing itself takes longer to load than most programs run
if TYPE_CHECKING:
    from typing import Any, NoReturn

ORDERS, REPLIES = 0, 1
RESULT = 3
"""Descriptor on which a program's process hands back the result of a call."""
TICK = 0.02
"""Seconds between two looks at a running program's output and threads."""
_SIGKILL = 9
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 1, 4, 22, 38, 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class Job:
    """One test: what the program gets on standard input, or which function it is called with which arguments."""

    def __init__(self, order: dict[str, Any], given: bytes) -> None:
        self.function: str | None = order["function"]
        self.given = given
        self.files = [os.memfd_create(name) for name in ("input", "output", "errors", "result")]
        if self.function is None:
            _write(self.files[0], given)
            os.lseek(self.files[0], 0, os.SEEK_SET)

    def close(self) -> None:
        for file in self.files:
            os.close(file)


def main() -> Job:
    """Serves until the orders end. Returns in a process of the program alone, with what it is to run."""
    order, source = _read_order()
    settings.update(order)
    _prctl(_PR_SET_DUMPABLE, 0)  # no other process may look into this one or take over its descriptors
    sys.set_int_max_str_digits(0)  # judges, and the programs written for them, know no such limit
    gc.freeze()
    problem = _compile(source) if settings["compile"] else ""
    program.update(source=source.decode())
    _reply({"ready": not problem}, problem.encode())
    while True:
        following = _read_order()
        job = Job(*following)
        if job.function is not None and not usual:
            usual.update(_usual_names())
        process = os.fork()
        if process == 0:
            _enter(job.files)
            return job
        _reply(*_watched(process, job))
        job.close()


settings: dict[str, Any] = {}
program: dict[str, str] = {}
usual: dict[str, Any] = {}
"""Names that a solution may use without importing them; empty until the first call."""


# --- the process that stays ----------------------------------------------------------------------------------------


def _watched(process: int, job: Job) -> tuple[dict[str, Any], bytes]:
    """Waits for the program's end, or makes it one. What it wrote, as far as the limit goes."""
    why = _wait(process, job.files[1], settings["wall_seconds"])
    status, used = _end(process)
    output, errors, result = (_content(file) for file in job.files[1:])
    if max(len(output), len(errors), len(result)) >= settings["output_bytes"]:
        why = why or "output_limit"  # files end there by RLIMIT_FSIZE
    code = os.waitstatus_to_exitcode(status)
    told = {"why": why, "code": code, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1_024}
    parts = (output, errors[-2_000:], result) if not why else (b"", errors[-2_000:], b"")
    return {**told, "parts": [len(part) for part in parts]}, b"".join(parts)


def _wait(process: int, output: int, seconds: float) -> str:
    """Until the process has ended. Why it was ended from here, empty where it did by itself."""
    deadline = time.monotonic() + seconds
    poll, handle = select.poll(), os.pidfd_open(process)
    poll.register(handle, select.POLLIN)
    poll.register(ORDERS, 0)  # nothing to read, but tells when whoever gives the orders is gone
    why = ""
    try:
        while True:
            ready = dict(poll.poll(TICK * 1_000))
            if handle in ready:
                return why
            why = why or _too_much(process, output, deadline)
            if ORDERS in ready:
                os.kill(process, _SIGKILL)
                os._exit(1)
            if why:
                os.kill(process, _SIGKILL)
    finally:
        os.close(handle)


def _too_much(process: int, output: int, deadline: float) -> str:
    if time.monotonic() > deadline:
        return "timeout"
    if os.fstat(output).st_size >= settings["output_bytes"]:
        return "output_limit"
    try:
        threads = os.stat(f"/proc/{process}/task").st_nlink - 2  # noqa: PTH116  # pathlib is not loaded here
    except OSError:
        return ""
    return "processes" if threads > settings["threads"] else ""


def _end(process: int) -> tuple[int, Any]:
    """Of a process that has ended its status and what it used. Nothing that it may have started outlives it: as first
    process of a namespace this one may end all others."""
    alone = os.getpid() == 1
    try:  # noqa: SIM105  # contextlib is not loaded here
        os.kill(-1, _SIGKILL) if alone else os.killpg(process, _SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # it was the last one
    _, status, used = os.wait4(process, 0)
    try:
        while alone:
            os.wait()
    except ChildProcessError:
        pass
    return status, used


def _content(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", closefd=False) as whole:
        return whole.read(settings["output_bytes"])


def _compile(source: bytes) -> str:
    """Turns the source into a program with the compiler given. What the compiler said, empty where all went well."""
    files = [os.memfd_create(name) for name in ("source", "output", "errors", "result")]
    _write(files[0], source)
    os.lseek(files[0], 0, os.SEEK_SET)
    process = os.fork()
    if process == 0:
        try:
            _settle(files, settings["compile_seconds"], settings["compile_memory"], settings["disk_bytes"])
            _execute(settings["compile"])
        except BaseException as error:  # noqa: BLE001  # whatever happens, this process must not go on as its parent
            os.write(2, str(error).encode())
            os._exit(127)
    _wait(process, files[1], settings["compile_seconds"] * 3)
    status, _ = _end(process)
    said = _content(files[2])[:2_000].decode(errors="replace")
    for file in files:
        os.close(file)
    return (said or f"the compiler ended with {os.waitstatus_to_exitcode(status)}") if status else ""


# --- the process of the program ------------------------------------------------------------------------------------


def _enter(files: list[int]) -> None:
    """Becomes the program's process, with its limits; ends it where that does not work out."""
    try:
        _settle(files, settings["cpu_seconds"], settings["memory_bytes"], settings["output_bytes"])
        _install_filter(bytes.fromhex(settings["filter"]))
    except BaseException as error:  # noqa: BLE001  # a program must never run without its limits
        os.write(2, f"sandbox: {type(error).__name__}: {error}".encode())
        os._exit(125)


def _settle(files: list[int], cpu_seconds: float, memory: int, longest_file: int) -> None:
    os.setsid()
    for descriptor, file in enumerate(files):
        os.dup2(file, descriptor)
    os.closerange(len(files), 1_024)
    os.chdir(settings["folder"])
    seconds = max(1, round(cpu_seconds))
    _limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_FSIZE, longest_file)
    _limit(resource.RLIMIT_NOFILE, settings["open_files"])
    _limit(resource.RLIMIT_STACK, settings["stack_bytes"])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    if settings["user"] is not None:
        os.setgroups([])
        os.setresgid(*[settings["user"]] * 3)
        os.setresuid(*[settings["user"]] * 3)
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)  # after the change of user, which clears it
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    _, most = resource.getrlimit(kind)
    wanted = hard or soft
    hard = wanted if most == resource.RLIM_INFINITY else min(most, wanted)
    resource.setrlimit(kind, (min(soft, hard), hard))


def _install_filter(code: bytes) -> None:
    """seccomp(2): from here on the process can start no other."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    held = ctypes.create_string_buffer(code, len(code))
    _prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(Program(len(code) // 8, ctypes.cast(held, ctypes.c_void_p))))


def _execute(command: list[str]) -> NoReturn:
    import signal

    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what it starts would, too
        signal.signal(ignored, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606  # the compiler, or what it made


def _prctl(*arguments: Any) -> None:
    padded = [*arguments, *[0] * (5 - len(arguments))]
    if _LIBC.prctl(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in padded)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({arguments[0]}) failed")


# --- orders and replies --------------------------------------------------------------------------------------------


def _read_order() -> tuple[dict[str, Any], bytes]:
    line = b""
    while not line.endswith(b"\n"):
        line += _read(1)
    order: dict[str, Any] = eval(line, {"__builtins__": {}})  # noqa: S307  # a literal from outside, where it is trusted
    return order, _read(order["length"])


def _read(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(ORDERS, min(count, 2**20))
        if not part:
            os._exit(0)
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _reply(told: dict[str, Any], content: bytes) -> None:
    _write(REPLIES, repr({**told, "length": len(content)}).encode() + b"\n" + content)


def _write(file: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


# --- what the program's process runs -------------------------------------------------------------------------------


def prepared(job: Job) -> tuple[Any, dict[str, Any]]:
    """The compiled program and the names it runs in: of a main module, or of a library whose function is called."""
    for name in ("exit", "quit"):  # site adds them, and programs end themselves with them
        setattr(builtins, name, Quitter(name, "end of file"))
    sys.argv = ["program.py"]
    sys.path[:] = [path for path in sys.path if path]
    module = types.ModuleType("__main__" if job.function is None else "solution")
    sys.modules[module.__name__] = module
    try:
        code = compile(program["source"], "program.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _hand_back(f"!{type(error).__name__}")
    if job.function is None:
        os.close(RESULT)
    else:
        module.__dict__.update(usual)
    module.__dict__["__file__"] = "program.py"
    return code, module.__dict__


def _usual_names() -> dict[str, Any]:
    """What LeetCode's Python has imported before a solution: answers use `List` and `deque` as if built in."""
    import operator
    import random
    import re
    import string
    import typing

    modules = (typing, collections, itertools, functools, heapq, bisect, math)
    names = {name: getattr(m, name) for m in modules for name in getattr(m, "__all__", dir(m)) if name[0] != "_"}
    names.update((m.__name__, m) for m in (*modules, operator, random, re, string))
    return {name: value for name, value in names.items() if not hasattr(builtins, name)}


def arguments_of(job: Job) -> list[Any]:
    """Many numbers are read as JSON, ten times as fast and in a fraction of the memory."""
    text = job.given.decode()
    found: list[Any]
    if len(text) > 10_000 and not text.strip("0123456789-+.eE,[] \n"):
        import json

        try:
            found = json.loads(text)
        except ValueError:
            pass  # `[1,]` or `.5`
        else:
            return found
    found = eval(text, {"__builtins__": {}})  # noqa: S307  # a test's own literals, within the sandbox
    return found


def call(job: Job, names: dict[str, Any], arguments: list[Any]) -> None:
    """Calls the function, of a class Solution or by itself, and hands its result back as a literal."""
    assert job.function is not None
    solution = names.get("Solution")
    if isinstance(solution, type) and hasattr(solution, job.function):
        function = getattr(solution(), job.function)
    elif callable(names.get(job.function)):
        function = names[job.function]
    else:
        _hand_back("!no_function")
    _write(RESULT, b"=" + ascii(function(*arguments)).encode())


def _hand_back(problem: str) -> NoReturn:
    _write(RESULT, problem.encode())
    os._exit(0)


def live(job: Job) -> NoReturn:
    """The program's whole life. It ends as an interpreter does, but for what costs most and nobody sees: taking the
    interpreter itself apart."""
    ended = 0
    names: dict[str, Any] = {}
    try:
        arguments = arguments_of(job) if job.function is not None else []
        code, names = prepared(job)
        try:
            exec(code, names)  # noqa: S102  # what all this is for
        except EOFError:
            if job.function is None:
                raise  # a call's program may have a main part that reads input, of which there is none
        if job.function is not None:
            call(job, names, arguments)
    except BaseException as error:  # noqa: BLE001  # whatever a program raises
        ended = _told(error)
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()  # waits for threads that are no daemons
        atexit._run_exitfuncs()
        _flush(sys.stdout)
        _flush(sys.__stdout__)
        names.clear()  # files that are still open are written when they go
        gc.collect()
        _flush(sys.__stdout__)
    except BaseException as error:  # noqa: BLE001
        ended = ended or _told(error)
    os._exit(ended)


def _flush(stream: Any) -> None:
    if stream is not None and not getattr(stream, "closed", False):
        stream.flush()


def _told(error: BaseException) -> int:
    """The exit code for what ended the program, after its last words where an interpreter has some."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        os.write(2, str(error.code).encode(errors="replace"))
        return 1
    for tell in (lambda: sys.excepthook(type(error), error, error.__traceback__), lambda: _last_words(error)):
        try:  # noqa: SIM105
            tell()
        except BaseException:  # noqa: BLE001, S110  # there may be no memory or no room to tell
            pass
    return 1


def _last_words(error: BaseException) -> None:
    os.write(2, f"\n{type(error).__name__}\n".encode())


if __name__ == "__main__":
    _job = main()
    if settings["compile"]:
        os.set_inheritable(RESULT, False)
        _execute(["./program"])
    live(_job)
