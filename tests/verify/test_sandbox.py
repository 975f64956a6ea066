"""Programs that attack: none gets out, and each has its verdict. With a protection taken out the same attack succeeds,
where that does no harm.

No attack here may do harm where the protection that it tests is broken: forks do not multiply, loops end, a signal to
all processes is signal 0, which only asks whether it may be sent.
"""

from __future__ import annotations

import errno
import os
import platform
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from distill.errors import MissingError
from distill.verify import bubblewrap, sandbox, sandbox_process, system_calls
from distill.verify.sandbox import DEFAULT, Limits, Ran, Sandbox
from distill.verify.sandbox_process import BrokenSandboxError, Mode

SHORT = replace(DEFAULT, cpu_seconds=1.0, wall_seconds=30.0)
ALLOW_ALL = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
MODES: tuple[Mode, ...] = ("root", "namespace") if os.geteuid() == 0 else ("namespace",)


def works(mode: Mode) -> bool:
    try:
        with Sandbox("print(1)", mode=mode) as box:
            return box.run("").output == "1\n"
    except BrokenSandboxError:
        return False


WORKING = tuple(mode for mode in MODES if works(mode)) if platform.system() == "Linux" else ()
pytestmark = pytest.mark.skipif(not WORKING, reason="no sandbox here: distill doctor says what is missing")
USUAL = (WORKING or MODES)[-1]
"""In a namespace, as for every user but root; the limits are the same code in each."""
in_each = pytest.mark.parametrize("mode", WORKING or MODES)


def ran(source: str, given: str = "", *, mode: Mode, limits: Limits = SHORT) -> Ran:
    with Sandbox(source, limits=limits, mode=mode) as box:
        return box.run(given)


def told(source: str, *, mode: Mode) -> str:
    found = ran(source, mode=mode)
    assert found.output is not None, found
    return found.output


# --- nothing to see, nothing to reach -------------------------------------------------------------------------------


def attempt(*expressions: str) -> str:
    """A program that prints for each expression what it gives, or the error that it meets."""
    return (
        f"import os, socket\nfor expression in {expressions!r}:\n    try: print('DONE', eval(expression))\n"
        "    except OSError as error: print(type(error).__name__)"
    )


@in_each
def test_no_file_of_the_user_can_be_read(mode: Mode, tmp_path: Path) -> None:
    tmp_path.joinpath("key").write_text("secret")
    read = attempt(f"open({str(tmp_path / 'key')!r}).read()")
    assert told(read, mode=mode) == "FileNotFoundError\n"
    assert told(read, mode="none") == "DONE secret\n"


@in_each
def test_what_is_there_is_an_interpreter_and_nothing_else(mode: Mode) -> None:
    hidden = [
        str(path) for path in (Path.home() / ".ssh", Path.cwd(), __file__, "/etc/passwd", "/sys", "/run", "/home")
    ]
    listed = (
        "import os, sys\nfor d in ('/', '/etc', '/tmp', '/dev'): print(*sorted(os.listdir(d)))\n"
        f"print([path for path in {hidden!r} if os.path.exists(path)])\n"
        "print([os.listdir(p) for p, d, _ in os.walk(sys.prefix + '/lib') if p.endswith('-packages')])"
    )
    top, etc, tmp, dev, seen, installed = told(listed, mode=mode).splitlines()
    python = Path(bubblewrap.base_interpreter()).parts[1]
    assert set(top.split()) <= {"dev", "etc", "proc", "tmp", "usr", "lib", "lib32", "lib64", "libx32", python}
    assert set(etc.split()) <= {"ld.so.cache"}
    assert tmp == ""
    assert dev == "null random stderr stdin stdout urandom zero"
    assert seen == "[]"
    assert set(installed) <= set("[], ")


@in_each
def test_nothing_outside_tmp_can_be_written(mode: Mode, tmp_path: Path) -> None:
    stdlib = str(Path(os.__file__).parent)
    places = ["/", "/dev", "/etc", "/usr/lib", "/proc", "/proc/sys/kernel", stdlib, str(Path.home()), str(tmp_path)]
    words = told(attempt(*(f"open({place + '/new'!r}, 'w').write('x')" for place in [*places, "/tmp"])), mode=mode)
    *refused, own = words.splitlines()
    assert set(refused) <= {"OSError", "PermissionError", "FileNotFoundError"}, dict(zip(places, refused, strict=True))
    assert (len(refused), own) == (len(places), "DONE 1")
    assert not Path("/tmp/new").exists()
    assert told(attempt(f"open({str(tmp_path / 'new')!r}, 'w').write('x')"), mode="none") == "DONE 1\n"


@in_each
def test_no_network(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the filter of system calls nor, without it, by the namespace."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = attempt(f"socket.create_connection({server.getsockname()!r}, 5) and ''")
        assert told(connect, mode=mode) == "PermissionError\n"
        monkeypatch.setattr(sandbox, "call_filter", lambda _, **__: ALLOW_ALL)
        assert told(connect, mode=mode) == "ConnectionRefusedError\n"
        assert told(connect, mode="none") == "DONE \n"


@in_each
def test_the_environment_is_clean(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    everything = (
        "import os, glob\nprint(dict(os.environ))\nfor name in glob.glob('/proc/*/environ'):\n"
        "    try: print(open(name).read())\n    except OSError: pass"
    )
    assert "secret" not in told(everything, mode=mode)
    assert "secret" not in told("import os\nprint(dict(os.environ))", mode="none")
    monkeypatch.setitem(bubblewrap.ENVIRONMENT, "HF_TOKEN", "secret")
    assert "secret" in told(everything, mode=mode), "the test would notice"


@in_each
def test_no_other_process_can_be_seen_or_looked_into(mode: Mode) -> None:
    seen = "import os\nprint(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()))"
    assert told(seen, mode=mode) == "[1, 2]\n"
    assert str(os.getpid()) in told(seen, mode="none")
    files = ("mem", "environ", "maps", "fd/0", "fd/1", "root/etc", "cwd/x")
    words = told(attempt(*(f"open('/proc/1/{file}', 'rb').read(1)" for file in files)), mode=mode)
    assert words == "PermissionError\n" * len(files)


@in_each
def test_its_parent_cannot_be_killed(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """As first process of its namespace it does not even hear a SIGKILL from within; the next run is as the first."""
    kill = "import os, time\nassert os.getppid() == 1\nos.kill(1, 9)\ntime.sleep(0.3)\nprint(os.getppid())"
    with Sandbox(kill, limits=SHORT, mode=mode) as box:
        first, second = box.run(""), box.run("")
    for found in (first, second):
        assert found.output == "1\n" or (found.reason == "crash" and "PermissionError" in found.errors), found
    alone = told(attempt("os.kill(-1, 0)", f"os.kill({os.getpid()}, 0)"), mode=mode)
    assert alone == "ProcessLookupError\n" * 2
    monkeypatch.setattr(sandbox, "call_filter", lambda _, **__: ALLOW_ALL)
    assert told(attempt(f"os.kill({os.getpid()}, 0)"), mode="none") == "DONE None\n", "the test would notice"


# --- limits ---------------------------------------------------------------------------------------------------------


FORKS = """
import os, time
for _ in range(300):
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)
"""
SPIN = "while True: pass"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (FORKS, "crash"),
        (
            "import threading, time\nfor _ in range(2_000): threading.Thread(target=time.sleep, args=(9,)).start()",
            "processes",
        ),
        ("x = bytearray(2**31)", "memory"),
        ("x = []\nfor _ in range(20): x.append(bytes(10**8))", "memory"),
        ("for _ in range(10**5): print('x' * 1000)", "output_limit"),
        (f"for _ in range(10**5):\n    try: print('x' * 1000)\n    except OSError: pass\n{SPIN}", "output_limit"),
        ("import sys\nfor _ in range(10**5): sys.stderr.write('x' * 1000)", "output_limit"),
        ("while True: pass", "timeout"),
        ("def f(): return f()\nf()", "crash"),
        ("import ctypes\nctypes.string_at(0)", "crash"),
        ("import os\nos._exit(3)", "crash"),
        ("exit(1)", "crash"),
        ("raise SystemExit('gone')", "crash"),
        ("print(1", "does_not_compile"),
        ("a\0b", "does_not_compile"),
        ("(" * 100_000, "does_not_compile"),
        ("", ""),
        ("exit()", ""),
    ],
)
def test_each_way_of_taking_too_much_has_its_verdict(source: str, reason: str) -> None:
    since = time.monotonic()
    found = ran(source, mode=USUAL)
    assert found.reason == reason
    assert time.monotonic() - since < SHORT.wall_seconds, "its own limit ended it, not the clock"
    assert reason != "output_limit" or found.cpu < 0.9, "it was ended at once"


def test_sleeping_is_limited_by_the_clock() -> None:
    for sleep in ("import time\ntime.sleep(3600)", "import os\nos.kill(os.getpid(), 19)"):
        found = ran(sleep, mode=USUAL, limits=replace(SHORT, wall_seconds=0.5, cpu_seconds=0.4))
        assert (found.reason, found.cpu < 0.4) == ("timeout", True)


def test_the_disk_is_limited_as_a_whole_and_each_file() -> None:
    fill = (
        "import os\nnumber = 0\ntry:\n    while number < 50:\n        with open(f'/tmp/{number}', 'wb') as f:\n"
        "            f.write(bytes(10**6))\n        number += 1\nexcept OSError as error: print(number, error.strerror)"
    )
    limits = replace(SHORT, disk_bytes=8 * 10**6)
    assert re.fullmatch(r"[678] No space left on device\n", ran(fill, mode=USUAL, limits=limits).output or "")
    grow = fill.replace("'wb'", "'ab'").replace("{number}", "one")
    limits = replace(SHORT, output_bytes=3 * 10**6)
    assert ran(grow, mode=USUAL, limits=limits).output == "3 File too large\n"


def test_every_limit_is_the_one_that_is_given() -> None:
    assert ran("x = bytes(3 * 10**8)", mode=USUAL).reason == ""
    assert ran("x = bytes(3 * 10**8)", mode=USUAL, limits=replace(SHORT, memory_bytes=2**28)).reason == "memory"
    printing = "print('x' * 2_000_000)"
    assert len(ran(printing, mode=USUAL).output or "") == 2_000_001
    assert ran(printing, mode=USUAL, limits=replace(SHORT, output_bytes=10**6)).reason == "output_limit"
    opening = "f = [open('/dev/null') for _ in range(40)]\nprint(len(f))"
    assert ran(opening, mode=USUAL).output == "40\n"
    assert ran(opening, mode=USUAL, limits=replace(SHORT, open_files=30)).reason == "crash"
    threads = "import threading, time\nt = [threading.Thread(target=time.sleep, args=(1,)) for _ in range(9)]\n"
    threads += "for one in t: one.start()"
    assert ran(threads, mode=USUAL).reason == ""
    assert ran(threads, mode=USUAL, limits=replace(SHORT, threads=8)).reason == "processes"


def test_a_program_that_ignores_its_time_is_killed() -> None:
    ignoring = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    found = ran(ignoring, mode=USUAL)
    assert found.reason == "timeout"
    assert found.cpu < 5


def test_a_large_stack_and_a_thread_for_it_are_allowed() -> None:
    deep = (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**27)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "threading.Thread(target=lambda: print(depth(50_000))).start()"
    )
    assert told(deep, mode=USUAL) == "50000\n"


# --- no process is left ---------------------------------------------------------------------------------------------


def descendants(of: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found, more = {of}, True
    while more:
        new = {process for process, parent in parents.items() if parent in found} - found
        found, more = found | new, bool(new)
    return found - {of}


def alive(processes: set[int]) -> set[int]:
    def state(process: int) -> str:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "X"

    return {process for process in processes if state(process) not in "XZ"}


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(600)", "MARK"])
    os._exit(0)
time.sleep(0.3)
print("left")
"""


def marked(mark: str) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.joinpath("cmdline").read_bytes().endswith(b"\0" + mark.encode() + b"\0"):
                found.add(int(entry.name))
        except OSError:
            continue
    return found


@in_each
def test_nothing_outlives_a_program(mode: Mode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A daemon cannot even be started; with that allowed it ends with its program, in a namespace and not without."""
    daemon = DAEMON.replace("MARK", tmp_path.name)
    assert ran(daemon, mode=mode).reason == "crash"
    monkeypatch.setattr(sandbox, "call_filter", lambda _, **__: ALLOW_ALL)
    with Sandbox(daemon, limits=SHORT, mode=mode) as box:
        assert box.run("").output == "left\n"
        assert not marked(tmp_path.name)
    assert ran(daemon, mode="none").output == "left\n"
    left = marked(tmp_path.name)
    assert len(left) == 1, "the test would notice"
    os.kill(left.pop(), signal.SIGKILL)


@in_each
def test_a_program_dies_with_whoever_started_it(mode: Mode) -> None:
    code = (
        "from distill.verify.sandbox import Sandbox\n"
        f"with Sandbox('import time\\nwhile True: time.sleep(1)', mode={mode!r}) as box: box.run('')"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as worker:
        started = set[int]()
        while len(alive(started)) < 3:  # bubblewrap, the first process in it, the program
            assert worker.poll() is None
            time.sleep(0.05)
            started = descendants(worker.pid)
        worker.kill()
    deadline = time.monotonic() + 20
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(started)


def test_limits_do_not_come_from_the_process_that_asks() -> None:
    """A worker may have less address space itself than the program is allowed."""
    code = (
        "import resource\nfrom distill.verify.sandbox import Sandbox\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_AS)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (400 * 10**6, hard))\n"
        "with Sandbox('x = bytes(6 * 10**8)', mode=MODE) as box: print(box.run('').reason or 'fine')"
    ).replace("MODE", repr(USUAL))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.stderr) == ("fine\n", "")


# --- one sandbox, many runs -----------------------------------------------------------------------------------------


@in_each
def test_its_own_streams_can_be_opened_by_name(mode: Mode) -> None:
    copied = (
        "text = open('/dev/stdin').read()\nopen('/dev/stderr', 'w').write('x')\nopen('/dev/stdout', 'w').write(text)"
    )
    found = ran(copied, "in", mode=mode)
    assert (found.output, found.errors) == ("in", "x")


def test_each_run_is_a_process_of_its_own() -> None:
    source = "import sys\nassert not hasattr(sys, 'seen')\nsys.seen = True\nprint(input()[::-1], __name__)"
    with Sandbox(source, mode=USUAL) as box:
        assert [box.run(text).output for text in ("ab\n", "cd\n")] == ["ba __main__\n", "dc __main__\n"]
        assert box.run("").reason == "crash"
        assert box.run("ef").output == "fe __main__\n"


def test_a_program_is_run_as_an_interpreter_runs_it() -> None:
    """What is written at the end, by whom, and with which exit code."""
    for source, output in [
        ("import sys\nsys.stdout.write('no newline')", "no newline"),
        ("import atexit\natexit.register(print, 'last')\nprint('first')", "first\nlast\n"),
        ("import threading as t, time\nt.Thread(target=lambda: (time.sleep(.2), print('late'))).start()", "late\n"),
        ("f = open(1, 'w')\nprint('never closed', file=f)", "never closed\n"),
        ("import sys\nsys.stdout = open('/dev/stdout', 'w')\nprint('replaced')", "replaced\n"),
        ("print(open('/dev/stdin').read())", "in\n\n"),
        ("print(open(0).read(), end='')", "in\n"),
        ("import sys\nprint(sys.stdin.readline(), sys.argv, __file__)", "in\n ['program.py'] program.py\n"),
        ("import os\nprint(os.read(0, 9), os.fstat(0).st_size)", "b'in\\n' 3\n"),
        ("import os\nprint(sorted(os.listdir('/proc/self/fd')))", "['0', '1', '2', '3']\n"),  # 3 is the listing's own
        ("print(len(str(2**40_000)))", "12042\n"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(1))", "P(x=1)\n"),
        ("print({*'abcdef'} == {*'fedcba'}, hash('a') == hash('a'))", "True True\n"),
        ("import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))))", "<class '__main__.A'>\n"),
        ("print('é', '😀')", "é 😀\n"),
    ]:
        assert ran(source, "in\n", mode=USUAL).output == output, source


def test_the_order_of_a_set_of_texts_is_the_same_each_time() -> None:
    once, again = (told("print({*'abcdefgh'})", mode=USUAL) for _ in range(2))
    assert once == again


def called(source: str, arguments: str, function: str = "f") -> Ran:
    with Sandbox(source, limits=SHORT, mode=USUAL) as box:
        return box.run(arguments, function)


def test_calls() -> None:
    source = """
import errno
import os
class Solution:
    def largest(self, a: List[int]) -> Optional[int]: return max(a)
    @staticmethod
    def queue(a): return deque(a)
def largest(a): return "not this one"
def add(a, b): return a + b
mirrored = lambda text: text[::-1]
def same(a):
    print("noise")
    return a
def power(a): return pow(a, 2, 5)
def ten(a): return a * 10
def every(*a): return a
def leaves(a): os._exit(0)
def unknown(a): return b
def spins(a):
    while True: pass
def long(a): return "x" * 10**8
if __name__ == "__main__":
    raise ValueError
print(largest(input()))
"""
    with Sandbox(source, limits=SHORT, mode=USUAL) as box:
        for function, arguments, output in [
            ("largest", "[[3, 5]]", "5"),
            ("queue", "[[1]]", "deque([1])"),
            ("add", "[1, 2.5]", "3.5"),
            ("mirrored", "['éa']", "'a\\xe9'"),
            ("same", "[{'a': (1, None, True)}]", "{'a': (1, None, True)}"),
            ("power", "[3]", "4"),
            ("ten", f"[{'9' * 5_000}]", "9" * 5_000 + "0"),
            ("ten", f"[-{'9' * 5_000}, ]", "-" + "9" * 5_000 + "0"),
            ("every", "[]", "()"),
        ]:
            assert box.run(arguments, function).output == output, function
        for function, reason in [
            ("missing", "no_function"),
            ("add", "crash"),
            ("unknown", "crash"),
            ("leaves", "crash"),
            ("spins", "timeout"),
            ("long", "output_limit"),
        ]:
            assert box.run("[1]", function).reason == reason, function
    assert called("def f(a:", "[1]").reason == "does_not_compile"
    assert called("class Solution:\n    pass", "[1]").reason == "no_function"


def test_a_result_cannot_be_passed_off_without_being_known() -> None:
    """What a program writes to the channel of results is no more than what it could have returned."""
    for trick in ("os._exit(0)", "os.write(3, b'=5'); os._exit(0)", "os.write(3, b'nonsense'); os._exit(0)"):
        found = called(f"import os\ndef f(a): {trick}", "[1]")
        assert found.output in (None, "5"), trick
        assert found.output is not None or found.reason == "crash"
    equal_to_all = "class Yes:\n    def __eq__(self, other): return True\n    def __repr__(self): return 'yes'\n"
    assert called(equal_to_all + "def f(a): return Yes()", "[1]").output == "yes"


@pytest.mark.parametrize("reply", [b"", b"x\n", b"{}\n", b'{"length": -1}\n', b'{"length": 1e99}\n', b"[" * 20_000,
                                   b'{"length": 99999999999}\n', b'{"ready": True, "length": 2}\n{'])  # fmt: skip
def test_what_comes_from_there_is_not_trusted(reply: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    liar = f"import os\nos.write(1, {reply!r})"
    monkeypatch.setattr(sandbox_process, "_inside", lambda: liar)
    with Sandbox("print(1)", mode=USUAL) as box, pytest.raises(BrokenSandboxError):
        box.run("")


@pytest.mark.parametrize("parts", ["[]", "[1, 1]", "[1, 1, 1]", "[-1, 2, 1]", '"x"', "None", "[2, 0, 1e999]"])
def test_a_reply_of_another_form_is_a_crash(parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = f'{{"why": "", "code": 0, "cpu": 0, "peak": 0, "parts": {parts}, "length": 2}}\n12'
    ready = '{"ready": True, "length": 0}\n'
    liar = f"import os\nos.write(1, {(ready + told).encode()!r})\nos.read(0, 9**9)\nos.read(0, 9**9)"
    monkeypatch.setattr(sandbox_process, "_inside", lambda: liar)
    with Sandbox("print(1)", mode=USUAL) as box:
        assert box.run("").reason == "crash"


def test_a_program_without_its_limits_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "call_filter", lambda _, **__: b"\0" * 8)
    with Sandbox("print(1)", mode=USUAL) as box, pytest.raises(BrokenSandboxError, match="sandbox: OSError"):
        box.run("")


# --- C++ ------------------------------------------------------------------------------------------------------------

needs_compiler = pytest.mark.skipif(bubblewrap.compiler_here() is None, reason="no C++ compiler here")

CALLS = r"""
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TRY(call) { errno = 0; int got = call, why = errno; printf("%d %d\n", got, why); fflush(stdout); }
int main() {
  TRY(fork()) TRY(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) TRY(syscall(SYS_clone3, 0, 0))
  TRY(syscall(SYS_socket, 40, 1, 0)) TRY(syscall(SYS_memfd_create, "x", 0)) TRY(syscall(SYS_unshare, 0x10000000))
  TRY(syscall(SYS_io_uring_setup, 1, 0))
#ifdef __x86_64__
  TRY(syscall(SYS_vfork)) TRY(syscall(0x40000000 | 57)) TRY(syscall(0x40000000 | 41, 2, 1, 0))
#endif
}
"""
BOMB = r"""
#include <pthread.h>
#include <unistd.h>
void *wait(void *) { pause(); return 0; }
int main() {
  pthread_attr_t small; pthread_attr_init(&small); pthread_attr_setstacksize(&small, 16384);
  pthread_t thread;
  for (int i = 0; i < 2000; i++) pthread_create(&thread, &small, wait, 0);
  pause();
}
"""


@needs_compiler
@pytest.mark.parametrize(
    ("source", "given", "output", "reason"),
    [
        ("#include <iostream>\nint main() { long a; std::cin >> a; std::cout << 2 * a; }", "21", "42", ""),
        ("int main() { return x; }", "", None, "does_not_compile"),
        ('#include "/etc/passwd"\nint main() {}', "", None, "does_not_compile"),
        ("int main() { return 1; }", "", None, "crash"),
        ("int main() { for (;;); }", "", None, "timeout"),
        ("#include <cstdio>\nint main() { for (int i = 0; i < 4000000; i++) puts(\"xxxxxxxxxxxxxxxxxxxxxxx\"); }",
         "", None, "output_limit"),
        ("#include <cstdlib>\n#include <cstring>\n"
         "int main() { for (int i = 0; i < 60; i++) memset(malloc(1 << 24), 1, 1 << 24); }",
         "", None, "memory"),
        ("int f(int n) { volatile char x[99]; x[0] = n; return n ? 1 + f(n - 1) + x[0] - (char)n : 0; }\n"
         "#include <cstdio>\nint main() { printf(\"%d\", f(500000)); }", "", "500000", ""),
        (BOMB, "", None, "processes"),
        (CALLS, "", "-1 11\n-1 11\n-1 38\n-1 1\n-1 1\n-1 1\n-1 1\n"
         + ("-1 11\n-1 38\n-1 38\n" if platform.machine() == "x86_64" else ""), ""),
    ],
)  # fmt: skip
def test_cpp(source: str, given: str, output: str | None, reason: str) -> None:
    with Sandbox(source, "cpp", replace(SHORT, memory_bytes=2**28), mode=USUAL) as box:
        found = box.run(given)
        assert (found.output, found.reason) == (output, reason)
        assert reason or box.run(given).output == output


# --- is there one? --------------------------------------------------------------------------------------------------


@pytest.fixture
def forgetful() -> Iterator[None]:
    sandbox.available.cache_clear()
    yield
    sandbox.available.cache_clear()


def program(folder: Path, script: str) -> None:
    folder.joinpath("bwrap").write_text(f"#!/bin/sh\n{script}\n")
    folder.joinpath("bwrap").chmod(0o755)


def test_root_needs_no_user_namespace() -> None:
    powers = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    if os.geteuid() != 0 or powers is None or not int(powers[1], 16) >> 21 & 1:  # CAP_SYS_ADMIN
        pytest.skip("no root's rights here")
    assert WORKING == MODES
    assert told("import os\nprint(os.getuid(), os.getgid(), os.getgroups())", mode="root") == "65534 65534 []\n"


def test_it_is_available(forgetful: None) -> None:
    assert sandbox.available() == sandbox.Availability(WORKING[0])
    assert sandbox.mode_here() == WORKING[0]
    sandbox.require()


@pytest.mark.parametrize(
    ("script", "reason", "todo"),
    [
        (None, "bubblewrap is not installed", "bubblewrap"),
        ("echo 'bwrap: Unknown option --size' >&2; exit 1", "too old", "0.8 or newer"),
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions", ""),
        ("exec cat", "does not work", ""),
    ],
)
def test_without_one_programs_are_refused_unless_the_user_allows_it(
    script: str | None, reason: str, todo: str, forgetful: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if script is not None:
        program(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path) if script is None else f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(sandbox.ALLOW_VARIABLE, raising=False)
    found = sandbox.available()
    assert found.mode is None
    assert reason in found.reason
    assert todo in " ".join(found.todo)
    assert sandbox.mode_here() is None
    with pytest.raises(MissingError, match="--allow-unsandboxed"):
        sandbox.require()
    with pytest.raises(MissingError):
        sandbox.run("print(1)")
    monkeypatch.setenv(sandbox.ALLOW_VARIABLE, "1")
    assert sandbox.mode_here() == "none"
    assert sandbox.run("print(1)").output == "1\n"


def test_unsandboxed_programs_still_have_limits_and_a_folder_that_goes() -> None:
    limits = replace(SHORT, wall_seconds=2.0)
    with Sandbox("import os\nopen('x', 'w')\nprint(os.getcwd())", limits=limits, mode="none") as box:
        folder = Path((box.run("").output or "").strip())
        assert folder.joinpath("x").exists()
    assert not folder.exists()
    for source, reason in [
        ("while True: pass", "timeout"),
        ("import time\ntime.sleep(99)", "timeout"),
        ("x = bytearray(2**31)", "memory"),
        ("for _ in range(10**5): print('x' * 1000)", "output_limit"),
        (FORKS, "crash"),
        ("import os\nos.kill(os.getppid(), 0)", "crash"),
        ("import os\nos.kill(-1, 0)", "crash"),
    ]:
        assert ran(source, mode="none", limits=limits).reason == reason, source


def test_one_sandbox_beside_another() -> None:
    """Threads may each have one: a bomb in one leaves the others alone."""
    found: list[str | None] = []

    def honest() -> None:
        found.append(ran("import threading\nthreading.Thread(target=print, args=(1,)).start()", mode=USUAL).output)

    threads = [threading.Thread(target=honest) for _ in range(3)]
    many = "import threading, time\nfor _ in range(2_000): threading.Thread(target=time.sleep, args=(9,)).start()"
    with Sandbox(many, limits=SHORT, mode=USUAL) as bomb:
        for thread in threads:
            thread.start()
        assert bomb.run("").reason == "processes"
    for thread in threads:
        thread.join()
    assert found == ["1\n"] * 3


# --- the filter -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "headers"),
    [("x86_64", ("x86_64-linux-gnu/asm/unistd_64.h", "asm/unistd_64.h")), ("aarch64", ("asm-generic/unistd.h",))],
)
def test_the_numbers_are_those_of_the_kernel(machine: str, headers: tuple[str, ...]) -> None:
    path = next((path for path in (Path("/usr/include", header) for header in headers) if path.is_file()), None)
    if path is None:
        pytest.skip("no headers of the kernel here")
    there = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    numbers = system_calls.NUMBERS[machine]
    assert {name: int(there[name]) for name in numbers if name in there} == {
        n: numbers[n] for n in numbers if n in there
    }
    assert len(set(numbers) - set(there)) <= 1  # memfd_secret is missing from some headers


def test_every_call_that_is_refused_has_a_number() -> None:
    for machine, numbers in system_calls.NUMBERS.items():
        lacking = {"fork", "vfork"} if machine == "aarch64" else set()
        assert set(system_calls.REFUSED) - set(numbers) == lacking
    assert system_calls.call_filter("riscv64") is None


def decided(code: bytes, architecture: int, number: int, argument: int = 0) -> tuple[int, int]:
    """What the kernel would do by this filter: its action and the error number with it."""
    data = struct.pack("<iIQ6Q", number, architecture, 0, argument, 0, 0, 0, 0, 0)
    place, held = 0, 0
    while True:
        kind, jump, otherwise, value = struct.unpack_from("<HBBI", code, place * 8)
        place += 1
        if kind == 0x20:  # load
            (held,) = struct.unpack_from("<I", data, value)
        elif kind == 0x06:  # return
            return value & 0xFFFF0000, value & 0xFFFF
        else:
            holds = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[kind]
            place += jump if holds else otherwise


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_filter_call_by_call(machine: str, architecture: int) -> None:
    numbers, allow, refuse = system_calls.NUMBERS[machine], (0x7FFF0000, 0), 0x00050000
    code, own = (system_calls.call_filter(machine, signals=signals) for signals in (True, False))
    assert code is not None
    assert own is not None
    for name in system_calls.REFUSED:
        if name in numbers:
            expected = (refuse, errno.EAGAIN if name in ("fork", "vfork") else errno.EPERM)
            assert decided(code, architecture, numbers[name]) == expected, name
    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"):
        assert decided(code, architecture, numbers[name]) == allow, name
        assert decided(own, architecture, numbers[name]) == (refuse, errno.EPERM), name
    assert decided(code, architecture, numbers["clone3"]) == (refuse, errno.ENOSYS)
    for flags, expected in [(0x11, (refuse, errno.EAGAIN)), (0x3D0F00, allow), (0x4111, (refuse, errno.EAGAIN))]:
        assert decided(code, architecture, numbers["clone"], flags) == expected, "a thread or a process"
    for other in (0xC000003E, 0xC00000B7, 0x40000003, 0):
        if other != architecture:
            assert decided(code, other, 999)[0] == 0x80000000, "another machine's numbers"
    assert decided(code, architecture, 0x40000000 | 41) == (refuse, errno.ENOSYS), "the second table of x86_64"
    assert decided(code, architecture, 500) == allow
