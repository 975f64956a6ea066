"""Real vLLM servers on a Ray cluster of simulated nodes: one is removed in mid-run; one replica spans two."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from vllm_server import PYTHON_VARIABLE, vllm_python

from serve.simulated import cluster
from serve.test_real_vllm import answered_some, ask, distill, generated, service

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1_500),
    pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM: {PYTHON_VARIABLE} is not set, .venv-vllm is not there"),
]


def test_a_node_is_removed_in_mid_run_and_the_replica_moves(tmp_path: Path) -> None:
    with cluster(2, 2) as nodes:
        arguments = ("tiny-r1", "--launcher", "ray", "--ray-address", nodes.address, "--set", "serve.cores=2")
        with service(tmp_path / "svc", *arguments) as running:
            (first,) = running.until_ready()
            command = distill("generate", "--prompts", "arithmetic", "--limit", "150", "--teacher", "tiny-r1")
            command += ["--endpoints", str(running.endpoints), "--samples", "2", "--out", str(tmp_path / "run")]
            command += ["--concurrency", "16"]
            with (tmp_path / "generate.out").open("w") as said:
                process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
            answered_some(tmp_path / "run", 20)
            used = next(node for node in nodes.workers if has_replica(node))
            nodes.remove_node(used, allow_graceful=False)
            limit = time.monotonic() + 400
            while not (running.urls() and running.urls() != [first]):
                assert time.monotonic() < limit, running.log()
                time.sleep(1)
            assert process.wait(900) == 0, (tmp_path / "generate.out").read_text()[-3_000:]
            (replica,) = running.replicas()
            assert replica["restarts"] == 1
    assert generated(tmp_path / "run").stages()["generate"].counts["samples"] == 300


def has_replica(node: Any) -> bool:
    """Whether an actor that guards a replica is a child of this node's raylet."""
    raylets = {process.process.pid for process in node.all_processes["raylet"]}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and "NodeActor" in (entry / "cmdline").read_text(errors="replace"):
                return True
    return False


@pytest.mark.rehearse  # minutes; the other tests here show most of it
def test_a_replica_spans_two_machines(tmp_path: Path) -> None:
    with cluster(1, 1) as nodes:
        arguments = ("tiny-r1", "--launcher", "ray", "--ray-address", nodes.address, "--hardware", "2xcpu")
        with service(tmp_path / "svc", *arguments, "--set", "serve.tensor_parallel=2") as running:
            (url,) = running.until_ready()
            key = (running.out / "serve" / "key").read_text().strip()
            with pytest.raises(Exception, match="401"):
                ask(url, "tiny-r1", "What is 1 + 1?", max_tokens=4)
            found = ask(url, "tiny-r1", "What is 1 + 1?", key=key, max_tokens=8)
            assert found["message"]["content"]
            logs = sorted(path.name for path in (running.out / "logs" / "replica-0").iterdir())
            assert logs[:2] == ["node-0.log", "node-1.log"]
            assert "all-reduce over 2 machines" in (running.out / "serve.out").read_text()
