"""The guard as a process of its own: whatever ends, nothing of the command is left; its output keeps to limits."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from distill.serve import guard
from serve.programs import STUBBORN, TICKING, lives, noted, python, until


class Guarded:
    """A guard, its pipes, and what it told."""

    def __init__(
        self,
        log: Path,
        command: Sequence[str],
        *,
        size: int = 1_000_000,
        files: int = 3,
        cores: str = "",
        before: Callable[[], object] | None = None,
    ) -> None:
        options = [f"--log={log}", f"--bytes={size}", f"--files={files}", f"--cores={cores}"]
        self.process = subprocess.Popen(
            [sys.executable, "-I", guard.__file__, *options, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=before,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.orders, self.reports = self.process.stdin, self.process.stdout
        first = json.loads(self.reports.readline())
        self.pid = int(first.get("pid", 0))
        self.failed = first.get("failed")

    def order(self, text: str) -> None:
        self.orders.write(text.encode())
        self.orders.flush()

    def end(self) -> dict[str, Any]:
        """What it told when the command had ended."""
        told: dict[str, Any] = json.loads(self.reports.readline())
        assert self.reports.read() == b"", "it was the last word"
        return told

    @property
    def guard_pid(self) -> int:
        return int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "node-0.log"


def test_output_and_exit_code_are_the_commands(log: Path) -> None:
    guarded = Guarded(log, python("print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"))
    assert guarded.end() == {"ended": 3, "dropped": 0, "left": []}
    assert log.read_text() == "out\nerr\n"
    assert guarded.process.wait() == 0


def test_a_signal_counts_as_128_and_its_number(log: Path) -> None:
    assert Guarded(log, python("os.kill(os.getpid(), 11)")).end()["ended"] == 139


def test_last_words_are_read_to_the_end(log: Path, tmp_path: Path) -> None:
    """A busy guard finds the command gone, and more in the pipe than it reads at a time."""
    go = tmp_path / "go"
    code = f"import fcntl\nfcntl.fcntl(1, 1031, 2**20)\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
    guarded = Guarded(log, python(code + "sys.stdout.write('x' * 299_999 + '\\n')"))
    busy = guarded.guard_pid
    os.kill(busy, signal.SIGSTOP)
    go.touch()
    until(lambda: not lives(guarded.pid))
    os.kill(busy, signal.SIGCONT)
    assert guarded.end()["ended"] == 0
    assert log.stat().st_size == 300_000


def test_a_command_that_is_not_there_is_named(log: Path) -> None:
    guarded = Guarded(log, ["/no/such/vllm", "serve"])
    assert guarded.failed == "/no/such/vllm: No such file or directory"
    assert guarded.reports.read() == b""


def test_a_session_of_its_own_without_a_terminal_or_input(log: Path) -> None:
    code = "print(os.getsid(0) == os.getpgid(0) == os.getpid(), sys.stdin.read() == '')"
    code += "; print(*(signal.getsignal(n) in (signal.SIG_DFL, signal.default_int_handler) for n in (1, 2, 15)))"
    assert Guarded(log, python(code)).end()["ended"] == 0
    assert log.read_text() == "True True\nTrue True True\n"


def test_cores(log: Path) -> None:
    core = min(os.sched_getaffinity(0))
    Guarded(log, python("print(os.sched_getaffinity(0))"), cores=str(core)).end()
    assert log.read_text() == f"{{{core}}}\n"


def test_stop_lets_it_end_by_itself(log: Path) -> None:
    code = "signal.signal(15, lambda *_: (time.sleep(0.3), print('drained', flush=True), os._exit(0)))\n"
    guarded = Guarded(log, python(code + "print('on', flush=True)\ntime.sleep(60)"))
    until(log.exists)
    began = time.monotonic()
    guarded.order("stop 30\n")
    assert guarded.end()["ended"] == 0
    assert time.monotonic() - began < 10
    assert log.read_text() == "on\ndrained\n"


def test_stop_kills_what_does_not_listen_but_not_before(log: Path) -> None:
    guarded = Guarded(log, python(STUBBORN + TICKING))
    until(log.exists)
    began = time.monotonic()
    guarded.order("stop 1.5\n")
    assert guarded.end()["ended"] == 137
    assert 1.4 < time.monotonic() - began < 6


def test_kill_is_at_once_and_hastens_a_stop(log: Path) -> None:
    guarded = Guarded(log, python(STUBBORN + TICKING))
    until(log.exists)
    began = time.monotonic()
    guarded.order("stop 600\n")
    time.sleep(0.2)
    guarded.order("kill\n")
    assert guarded.end()["ended"] == 137
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("wish", ["stop 1", "kill", ""])
def test_whatever_it_started_goes_with_it(log: Path, tmp_path: Path, wish: str) -> None:
    """One that ignores SIGTERM, one in a session of its own, one that forked twice, one that is stopped."""
    code = (
        STUBBORN
        + f"""
def note(name):
    with open({str(tmp_path)!r} + "/" + name, "w") as file:
        file.write(str(os.getpid()) + "\\n")
for name in ("child", "session", "orphan", "stopped"):
    if os.fork() == 0:
        if name == "session":
            os.setsid()
        if name == "orphan" and os.fork():
            os._exit(0)
        note(name)
        if name == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(600)
note("first")
time.sleep(600)
"""
    )
    guarded = Guarded(log, python(code))
    pids = [noted(tmp_path / name) for name in ("first", "child", "session", "orphan", "stopped")]
    assert all(lives(pid) for pid in pids)
    if wish:
        guarded.order(wish + "\n")
    else:
        guarded.orders.close()
    assert guarded.end()["left"] == []
    assert not any(lives(pid) for pid in pids)


def test_what_a_command_leaves_behind_goes_too(log: Path, tmp_path: Path) -> None:
    code = "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    code += f"print(child.pid, file=open({str(tmp_path / 'pid')!r}, 'w'))\nsys.exit(4)"
    guarded = Guarded(log, python(code))
    assert guarded.end()["ended"] == 4
    assert not lives(noted(tmp_path / "pid"))


def test_a_stopped_command_sees_the_wish_to_end(log: Path) -> None:
    guarded = Guarded(log, python("signal.signal(15, lambda *_: os._exit(7))\nprint('on', flush=True)\ntime.sleep(60)"))
    until(log.exists)
    os.kill(guarded.pid, signal.SIGSTOP)
    guarded.order("stop 30\n")
    assert guarded.end()["ended"] == 7


def test_it_ends_when_its_parent_is_killed(log: Path, tmp_path: Path) -> None:
    """The parent has no time to say anything."""
    parent = f"""
import subprocess, sys, time
given = [sys.executable, "-I", {guard.__file__!r}, "--log={log}", "--bytes=1000", "--files=2", "--", "sleep", "600"]
guarded = subprocess.Popen(given, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(guarded.stdout.readline().decode(), end="", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(json.loads(process.stdout.readline())["pid"])
        assert lives(pid)
        process.kill()
    until(lambda: not lives(pid), 5)


def test_sigterm_to_the_guard_ends_the_command_and_ctrl_c_does_not(log: Path) -> None:
    guarded = Guarded(log, python("signal.signal(15, lambda *_: os._exit(9))\n" + TICKING))
    until(log.exists)
    os.kill(guarded.guard_pid, signal.SIGINT)
    os.kill(guarded.guard_pid, signal.SIGHUP)
    time.sleep(0.3)
    assert lives(guarded.pid)
    os.kill(guarded.guard_pid, signal.SIGTERM)
    assert guarded.end()["ended"] == 9


def test_a_parent_that_takes_no_signals_hands_nothing_of_that_on(log: Path) -> None:
    def deaf() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    code = "print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
    code += "usual = signal.SIG_DFL, signal.default_int_handler\n"
    code += "print(*(signal.getsignal(n) in usual for n in (1, 2, 15)), flush=True)\n"
    guarded = Guarded(log, python(code + "time.sleep(600)"), before=deaf)
    until(lambda: log.exists() and log.read_text() == "set()\nTrue True True\n")
    os.kill(guarded.guard_pid, signal.SIGTERM)
    assert guarded.end()["ended"] == 143


def test_one_that_has_ended_is_none_of_the_processes() -> None:
    with subprocess.Popen(["true"], start_new_session=True) as ended:
        until(lambda: not lives(ended.pid))  # a zombie: nobody has asked for its exit code
        assert guard.processes_of(ended.pid, None) == []
        assert ended.pid not in guard.processes_of(-1, os.getpid())


def test_a_killed_guard_takes_its_command_along(log: Path) -> None:
    guarded = Guarded(log, ["sleep", "600"])
    os.kill(guarded.guard_pid, signal.SIGKILL)
    until(lambda: not lives(guarded.pid), 5)


def test_the_guard_is_nobodys_child(log: Path) -> None:
    """Ray ends the children of a worker with SIGKILL when that ends."""
    guarded = Guarded(log, python(TICKING))
    assert guarded.process.wait(5) == 0
    assert lives(guarded.guard_pid)
    guarded.order("kill\n")
    guarded.end()


def test_logs_are_renamed_and_only_so_many_are_kept(log: Path) -> None:
    lines = [f"line {number:04d}" for number in range(500)]
    code = "for n in range(500):\n    print(f'line {n:04d}', flush=True)\n"
    Guarded(log, python(code), size=1_024, files=3).end()
    kept = [log.with_name("node-0.log.2"), log.with_name("node-0.log.1"), log]
    assert sorted(log.parent.iterdir()) == sorted(kept)
    assert all(path.stat().st_size <= 1_024 for path in kept)
    found = [path.read_text().splitlines() for path in kept]
    together = list(itertools.chain.from_iterable(found))
    assert together == lines[-len(together) :], "whole lines, in order, none missing"
    assert len(together) > 200


def test_a_line_that_never_ends_is_kept_within_the_limit(log: Path) -> None:
    Guarded(log, python("sys.stdout.write('x' * 100_000)"), size=1_000, files=2).end()
    assert sum(path.stat().st_size for path in log.parent.iterdir()) <= 2_000


def test_one_file_alone(log: Path) -> None:
    Guarded(log, python("print('x' * 999 + '\\n' + 'end')"), size=1_000, files=1).end()
    assert [path.name for path in log.parent.iterdir()] == ["node-0.log"]
    assert log.read_text() == "end\n"


def test_a_start_goes_on_with_the_log(log: Path) -> None:
    Guarded(log, python("print('one')")).end()
    Guarded(log, python("print('two')")).end()
    assert log.read_text() == "one\ntwo\n"


def test_a_disk_that_takes_nothing_does_not_hold_the_command_up(log: Path) -> None:
    log.parent.mkdir()
    log.symlink_to("/dev/full")
    guarded = Guarded(log, python("for _ in range(2_000):\n    print('x' * 999)"))
    assert guarded.end() == {"ended": 0, "dropped": 2_000_000, "left": []}


def test_what_found_no_place_is_told_in_the_log_once_there_is_some(log: Path) -> None:
    log.parent.write_text("no folder")
    code = f"print('lost', flush=True)\ntime.sleep(0.5)\nos.unlink({str(log.parent)!r})\nprint('found', flush=True)"
    assert Guarded(log, python(code)).end() == {"ended": 0, "dropped": 5, "left": []}
    assert log.read_text() == "\n[5 bytes of output are missing here]\nfound\n"


def test_a_disk_that_hangs_does_not_hold_the_command_up(log: Path) -> None:
    """A pipe that nobody reads takes nothing, and blocks who writes."""
    log.parent.mkdir()
    os.mkfifo(log)
    held = os.open(log, os.O_RDWR)
    try:
        guarded = Guarded(log, python("for _ in range(12_000):\n    print('x' * 999)"), size=10**9)
        told = guarded.end()
    finally:
        os.close(held)
    assert told["ended"] == 0
    assert told["dropped"] > 3_000_000
