"""One node's process: started, watched, read, ended; and what a node has."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill import hardware
from distill.errors import RunError
from distill.serve import guard, node
from distill.serve.node import NodeCommand, NodeProcess
from serve.programs import SERVER, STUBBORN, TICKING, lives, python, served, until


@pytest.fixture
def process() -> Iterator[NodeProcess]:
    made = NodeProcess()
    yield made
    made.kill()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "node-0.log"


def command(code: str, **environment: str) -> NodeCommand:
    return NodeCommand(python(code), environment)


def guard_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_it_runs_until_it_is_stopped(process: NodeProcess, log: Path) -> None:
    (port,) = node.free_ports(1, "127.0.0.1")
    process.start(NodeCommand((sys.executable, str(SERVER), str(port)), {"GIVEN": "this"}), log, {"VLLM_API_KEY": "k"})
    told = served(port)
    assert told["pid"] == process.pid
    assert len({os.getsid(pid) for pid in (0, told["pid"], guard_of(told["pid"]))}) == 3, "Ctrl-C reaches neither"
    assert told["environment"]["GIVEN"] == "this"
    assert process.poll() is None
    until(lambda: process.tail(1) == ["asked for /"])
    process.stop(10)
    assert process.poll() == 128 + signal.SIGTERM
    assert process.left == ()
    assert not lives(told["pid"])
    assert process.tail(9) == [f"serving on {port}", "asked for /"], "what it said stays"


def test_the_exit_code_stays(process: NodeProcess, log: Path) -> None:
    process.start(command("sys.exit(5)"), log, {})
    until(lambda: process.poll() is not None)
    assert (process.poll(), process.poll()) == (5, 5)
    process.stop(1)
    process.kill()
    assert process.poll() == 5


def test_it_can_be_started_again_but_not_twice(process: NodeProcess, log: Path) -> None:
    process.start(command(TICKING), log, {})
    with pytest.raises(RunError, match="still runs"):
        process.start(command(TICKING), log, {})
    first = process.pid
    process.kill()
    assert process.poll() == 137
    process.start(command("print('again')"), log, {})
    assert process.pid != first
    until(lambda: process.poll() == 0)
    assert process.tail(1) == ["again"]


def test_before_a_start_there_is_nothing(process: NodeProcess) -> None:
    process.stop(1)
    process.kill()
    assert process.tail(3) == []
    assert process.log_growth() == 0
    with pytest.raises(RunError, match="no process was started"):
        process.poll()


def test_a_command_that_is_not_there(process: NodeProcess, log: Path) -> None:
    with pytest.raises(RunError, match="cannot be started: /no/vllm: No such file"):
        process.start(NodeCommand(("/no/vllm",), {}), log, {})
    assert process.poll() == 127


def test_a_secret_is_seen_by_the_command_alone(process: NodeProcess, log: Path) -> None:
    """Neither in a list of processes, nor in a log, nor in what the object shows of itself."""
    process.start(
        command("print(len(os.environ['VLLM_API_KEY']), flush=True)\n" + TICKING), log, {"VLLM_API_KEY": "sesame-7"}
    )
    until(lambda: "tick" in process.tail(1))
    assert process.tail(10_000)[0] == "8"
    assert process.pid is not None
    for pid in (process.pid, guard_of(process.pid)):
        assert b"sesame" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert "sesame" not in log.read_text()
    assert "sesame" not in f"{process!r} {vars(process)}"
    assert "VLLM_API_KEY" not in os.environ


def test_the_environment(process: NodeProcess, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of this node, without what belongs to this interpreter, and the command's own over it."""
    monkeypatch.setenv("PYTHONPATH", "/of/this/one")
    monkeypatch.setenv("ONE", "here")
    monkeypatch.setenv("TWO", "here")
    monkeypatch.setenv("THREE", "here")
    some = NodeProcess(without=["THREE"])
    some.start(
        command("print([os.environ.get(n) for n in ('PYTHONPATH', 'ONE', 'TWO', 'THREE')])", TWO="given"), log, {}
    )
    until(lambda: some.poll() is not None)
    assert some.tail(1) == ["[None, 'here', 'given', None]"]
    process.start(command("print(os.environ['PYTHONPATH'])", PYTHONPATH="/wanted"), log, {})
    until(lambda: process.poll() is not None)
    assert process.tail(1) == ["/wanted"]


def test_cores_are_kept_to(process: NodeProcess, log: Path) -> None:
    core = min(os.sched_getaffinity(0))
    process.start(NodeCommand(python("print(os.sched_getaffinity(0))"), {}, (core,)), log, {})
    until(lambda: process.poll() is not None)
    assert process.tail(1) == [f"{{{core}}}"]


def test_growth_is_told_once_and_through_renamed_logs(log: Path) -> None:
    some = NodeProcess(log_bytes=1_000, log_files=4)
    log.parent.mkdir()
    log.write_text("of an earlier start\n")
    code = "for n in range(24):\n    print('x' * 99, flush=True)\n    time.sleep(0.01)\ntime.sleep(600)"
    some.start(command(code), log, {})
    grown = 0
    end = time.monotonic() + 15
    while grown < 2_400 and time.monotonic() < end:
        grown += some.log_growth()
        time.sleep(0.005)
    assert grown == 2_400
    assert some.log_growth() == 0
    assert log.with_name("node-0.log.2").exists()
    assert some.tail(15) == ["x" * 99] * 15, "from two files"
    assert len(some.tail(1_000)) == 24, "not what an earlier start said"
    some.kill()


def test_a_new_log_with_the_number_of_a_deleted_one_has_grown(process: NodeProcess, log: Path) -> None:
    """File systems give a freed inode to the next file."""
    process.start(command("print('x' * 99)"), log, {})
    until(lambda: process.poll() is not None)
    process._seen = {log.stat().st_ino: 1_000}
    assert process.log_growth() == 100


def test_a_process_that_ignores_everything_is_killed_in_time(process: NodeProcess, log: Path) -> None:
    process.start(command(STUBBORN + TICKING), log, {})
    until(log.exists)
    began = time.monotonic()
    process.stop(0.5)
    assert process.poll() == 137
    assert 0.4 < time.monotonic() - began < 5


def test_a_stop_can_be_hastened_from_another_thread(process: NodeProcess, log: Path) -> None:
    process.start(command(STUBBORN + TICKING), log, {})
    until(log.exists)
    stopping = threading.Thread(target=process.stop, args=(600,))
    stopping.start()
    time.sleep(0.2)
    assert process.poll() is None
    process.kill()
    stopping.join(5)
    assert not stopping.is_alive()
    assert process.poll() == 137


def test_a_killed_guard_leaves_nothing_of_its_session(process: NodeProcess, log: Path, tmp_path: Path) -> None:
    code = f"child = subprocess.Popen(['sleep', '600'])\nopen({str(tmp_path / 'pid')!r}, 'w').write(f'{{child.pid}}')\n"
    process.start(command(code + TICKING), log, {})
    until(lambda: "tick" in process.tail(1))
    child = int((tmp_path / "pid").read_text())
    assert process.pid is not None
    os.kill(guard_of(process.pid), signal.SIGKILL)
    until(lambda: process.poll() is not None)
    assert process.poll() == 137
    assert not lives(process.pid)
    assert not lives(child)


def test_a_guard_that_hangs_is_done_without(process: NodeProcess, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "KILL_SECONDS", 1.0)
    monkeypatch.setattr(guard, "ORPHAN_SECONDS", 0.2)
    process.start(command(TICKING), log, {})
    assert process.pid is not None
    guard_pid = guard_of(process.pid)
    os.kill(guard_pid, signal.SIGSTOP)
    process.kill()
    assert process.poll() == 137
    assert not lives(process.pid)
    os.kill(guard_pid, signal.SIGCONT)


def test_its_object_takes_the_process_along(log: Path) -> None:
    """As an actor that is dropped."""
    some = NodeProcess()
    some.start(command(TICKING), log, {})
    pid = some.pid
    assert pid is not None
    del some
    until(lambda: not lives(pid))


def test_free_ports() -> None:
    ports = node.free_ports(20, "127.0.0.1")
    assert len(set(ports)) == 20
    assert all(node.FIRST_PORT <= port <= node.LAST_PORT for port in ports)
    for port in ports:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))


def test_a_taken_port_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(node, "FIRST_PORT", port)
        monkeypatch.setattr(node, "LAST_PORT", port)
        monkeypatch.setattr(node, "PORT_TRIES", 1)
        for host in ("127.0.0.1", ""):
            with pytest.raises(RunError, match="0 free ports of the 1 needed"):
                node.free_ports(1, host)
    with pytest.raises(RunError, match="free ports"):
        node.free_ports(1, "192.0.2.1")  # no address of this machine


def test_the_address_is_one_of_this_machine() -> None:
    with socket.socket() as bound:
        bound.bind((node.address(), 0))


def test_what_a_node_has(process: NodeProcess) -> None:
    assert process.cores() == sorted(os.sched_getaffinity(0))
    assert process.address() == node.address()
    assert len(process.free_ports(2, "127.0.0.1")) == 2


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        ("3,1,2", ["3", "1", "2"]),
        ("GPU-8932f937, MIG-5c89", ["GPU-8932f937", "MIG-5c89"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        (None, ["0", "1"]),
    ],
)
def test_gpus(visible: str | None, gpus: list[str], process: NodeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: [hardware.Gpu("H200", 141 * 10**9, "570")] * 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert node.gpus() == process.gpus() == gpus
