"""What nvidia-smi prints, by a program of that name that prints it: the lines are those that real machines published.

H200 (`NVIDIA H200, 143771, …, 9.0`, driver 580.65.06) and A100-40 (`40960 MiB, 4 MiB, 40439 MiB, Disabled`), a list of
processes (`GPU-e82ab913-…, 1912379, 518`), MIG in a container (`[Insufficient Permissions]`), consumer cards (`[N/A]`),
and both heads of the table (`CUDA Version: 12.8`, driver 570; `CUDA UMD Version: 13.3`, driver 610), each read in
public records of such machines. Here the columns are put into the order that is asked for.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from distill.environment import Finding
from distill.serve import gpus
from distill.serve.gpus import GpuState, driver_found, gpus_found, visible
from serve.interpreters import with_modules

GIB = 2**30
H200 = [f"{i}, GPU-{i}0000000-2d6b, 143771, 143167, 9.0, 580.65.06, Disabled, 0, NVIDIA H200" for i in range(4)]
HEAD_570 = "| NVIDIA-SMI 570.124.06             Driver Version: 570.124.06     CUDA Version: 12.8     |"
HEAD_610 = "| NVIDIA-SMI 610.57.04              KMD Version: 610.57.04     CUDA UMD Version: 13.3     |"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Smi:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return Smi(tmp_path / "bin")


class Smi:
    """A program `nvidia-smi` that knows exactly the questions that are asked here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.prints(H200)

    def prints(self, listed: list[str], processes: list[str] | None = None, head: str = HEAD_570) -> None:
        def echo(lines: list[str]) -> str:
            return "\n".join(f"echo '{line}'" for line in lines) or ":"

        self.runs(f"""
        case "$*" in
          "--query-gpu={",".join(gpus.GPU_FIELDS)} --format=csv,noheader,nounits") {echo(listed)} ;;
          "--query-compute-apps={",".join(gpus.APP_FIELDS)} --format=csv,noheader,nounits") {echo(processes or [])} ;;
          "") echo "Wed Jul  2 14:56:43 2025"; {echo([head])} ;;
          *) echo "Field is not a valid field to query: $*"; exit 2 ;;
        esac""")

    def runs(self, script: str) -> None:
        program = self.folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


def changed(index: int, **fields: str) -> list[str]:
    """The four H200 with other values for one of them."""
    names = [name.partition(".")[0] if name.startswith(("mig", "ecc")) else name for name in gpus.GPU_FIELDS]
    rows = [line.split(", ") for line in H200]
    for name, value in fields.items():
        rows[index][names.index(name.replace("memory_", "memory."))] = value
    return [", ".join(row) for row in rows]


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_gpus_that_are_there_and_free(smi: Smi) -> None:
    finding = only(gpus_found(4, 140 * GIB - GIB, 8.9))
    assert (finding.topic, finding.state, finding.necessary) == ("gpus", "ok", True)
    assert finding.what == "4 × NVIDIA H200, at least 150.1 GB free on each"
    memory = (143_771 * 2**20, 143_167 * 2**20)
    last = GpuState(3, "GPU-30000000-2d6b", "NVIDIA H200", *memory, 9.0, "580.65.06", mig=False, ecc_errors=0)
    assert gpus.gpus()[3] == last


def test_too_few_and_hidden_ones(smi: Smi, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = only(gpus_found(8, 0, None))
    assert (finding.state, finding.what) == ("missing", "4 seen, 8 wanted")
    for setting, count in (("2,1", 2), ("GPU-3,0", 2), ("0,9,1", 1), ("", 0), ("-1,0", 0), ("GPU-,1", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
        finding = only(gpus_found(3, 0, None))
        assert finding.what == f"{count} of 4 visible, 3 wanted: CUDA_VISIBLE_DEVICES is {setting!r}"
        assert finding.mend == ("unset CUDA_VISIBLE_DEVICES",)
    assert [gpu.index for gpu in visible(gpus.gpus(), "2,1")] == [2, 1], "in that order"
    assert [gpu.index for gpu in visible(gpus.gpus(), "GPU-3,0")] == [3, 0]


def test_memory_that_another_process_holds_is_told_with_the_process(smi: Smi) -> None:
    used = ["GPU-10000000-2d6b, 1912379, 78000, /usr/bin/python3, train.py", "GPU-30000000-2d6b, 77, 518, [Not Found]"]
    smi.prints(changed(1, memory_free="65000"), used)
    missing, note = gpus_found(2, 100 * 10**9, None)
    assert missing.state == "missing"
    assert missing.what == (
        "100.0 GB wanted on each: GPU 1 has 68.2 of 150.8 GB free, used by process 1912379 "
        "(/usr/bin/python3, train.py, 81789 MB)"
    )
    assert missing.mend == ("export CUDA_VISIBLE_DEVICES=0,2", "ps -o user,pid,lstart,args -p 1912379")
    assert note.state == "note"
    missing, _ = gpus_found(4, 100 * 10**9, None)
    assert missing.mend == ("ps -o user,pid,lstart,args -p 1912379",), "no other four are free"
    ok, note = gpus_found(2, 10 * 10**9, None)
    assert ok.state == "ok", "room enough beside it"
    assert (note.state, "1912379" in note.what, "77" in note.what) == ("note", True, False), "GPU 3 is not ours"


def test_a_capability_below_the_formats_least_says_what_it_needs(smi: Smi) -> None:
    smi.prints(changed(2, compute_cap="8.0", name="NVIDIA A100-SXM4-80GB"))
    assert only(gpus_found(2, 0, 8.9)).state == "ok", "the third is not taken"
    finding = only(gpus_found(3, 0, 8.9))
    assert finding.state == "missing"
    assert finding.what.startswith(
        "these weights need compute capability 8.9: GPU 2 (NVIDIA A100-SXM4-80GB) has 8.0; another variant"
    )
    smi.prints(changed(2, compute_cap="10.0"))
    assert only(gpus_found(3, 0, 10.0)).what.count("has 9.0") == 2
    assert only(gpus_found(3, 0, 9.0)).state == "ok"
    smi.prints(changed(2, compute_cap="[N/A]"))
    assert only(gpus_found(3, 0, 9.0)).state == "ok", "what is not told is no reason"


def test_mig_silence_and_memory_errors_are_noted(smi: Smi) -> None:
    hidden = "[Insufficient Permissions]"
    smi.prints(changed(0, mig="Enabled", memory_free=hidden, memory_total=hidden))
    ok, mig, silent = gpus_found(2, 100 * 10**9, None)
    assert ok.state == "ok"
    assert (mig.state, mig.what[:23]) == ("note", "MIG is on for GPU 0: a ")
    assert silent.what == "the driver does not tell how much is free on GPU 0"
    smi.prints(changed(1, mig="[N/A]", ecc="3"))
    ok, errors = gpus_found(2, 0, None)
    assert (errors.state, errors.what) == ("note", "uncorrected memory errors since the driver was loaded: GPU 1: 3")
    assert only(gpus_found(1, 0, None)).state == "ok", "GPU 1 is not taken"
    smi.prints(changed(1, ecc="[N/A]"))
    assert only(gpus_found(2, 0, None)).state == "ok"


def test_a_driver_that_is_not_reached_is_quoted(smi: Smi) -> None:
    words = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    smi.runs(f"echo '{words}'; exit 9")
    finding = only(gpus_found(1, 0, None))
    assert (finding.state, finding.what) == ("missing", f"nvidia-smi: {words}")
    smi.runs("echo boom >&2; exit 1")
    assert only(gpus_found(1, 0, None)).what == "nvidia-smi: boom"
    (smi.folder / "nvidia-smi").unlink()
    assert only(gpus_found(1, 0, None)).what.startswith("nvidia-smi: nvidia-smi cannot be started")


# --- the driver, asked through the server's own torch -----------------------------------------------------------------


@pytest.fixture
def torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `torch` for the interpreter that is asked, of which each test makes what it needs."""
    return with_modules(tmp_path, monkeypatch) / "torch.py"


def module(cuda: str | None, devices: int, error: str = "pass", computing: str = "pass") -> str:
    return f"""
class version: cuda = {cuda!r}
__version__ = "2.13.0"
class cuda:
    @staticmethod
    def init(): {error}
    @staticmethod
    def device_count(): return {devices}
class Tensor:
    def sum(self): return self
    def item(self): return 8.0
def ones(count, device):
    {computing}
    return Tensor()
"""


def test_a_torch_that_computes_on_all_of_them(smi: Smi, torch: Path) -> None:
    torch.write_text(module("12.8", 4))
    finding = driver_found(sys.executable, 4)
    assert (finding.topic, finding.state) == ("driver", "ok")
    assert finding.what == "torch 2.13.0 computes with CUDA 12.8 on 4 GPUs; the driver supports CUDA 12.8"
    torch.write_text(module("13.0", 4))
    assert driver_found(sys.executable, 4).state == "note", "by compatibility, but not for all"
    smi.prints(H200, head=HEAD_610)
    finding = driver_found(sys.executable, 4)
    assert (finding.state, finding.what[-28:]) == ("ok", "the driver supports CUDA 13.3"[-28:])
    smi.prints(H200, head="no such table")
    assert driver_found(sys.executable, 4).what.endswith("which CUDA the driver supports is not told")


def test_a_torch_that_does_not(smi: Smi, torch: Path) -> None:
    old = 'raise RuntimeError("The NVIDIA driver on your system is too old (found version 12080).")'
    torch.write_text(module("13.0", 4, error=old))
    finding = driver_found(sys.executable, 4)
    assert finding.state == "missing"
    assert finding.what == (
        "torch 2.13.0 is built for CUDA 13.0, the driver supports CUDA 12.8: it is too old; RuntimeError: The NVIDIA "
        "driver on your system is too old (found version 12080)."
    )
    torch.write_text(module("12.9", 4, computing='raise RuntimeError("no kernel image is available")'))
    finding = driver_found(sys.executable, 4)
    assert (finding.state, "too old" in finding.what, "no kernel image" in finding.what) == ("missing", False, True)
    torch.write_text(module("12.8", 1))
    finding = driver_found(sys.executable, 4)
    assert (finding.state, finding.what[:42]) == ("missing", "torch 2.13.0 sees 1 of the 4 GPUs wanted; ")
    torch.write_text(module(None, 0))
    finding = driver_found(sys.executable, 4)
    assert (finding.state, "is built without CUDA" in finding.what) == ("missing", True)
    torch.write_text("raise OSError('libcudart.so.99: cannot open shared object file')")
    finding = driver_found(sys.executable, 4)
    assert (finding.state, "libcudart.so.99" in finding.what) == ("missing", True)
    assert "cannot be started" in driver_found("/no/such/python", 4).what
