"""The service over real vLLM servers: right answers, split ways, killed and frozen in the middle of a run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from vllm_server import CHECKOUT, PYTHON_VARIABLE, vllm_python

from distill.rundir import RunDir
from distill.serve.node import address

SMOLLM2 = CHECKOUT / ".cache" / "smollm2"
GSM8K = CHECKOUT / "tests" / "data" / "gsm8k_200.jsonl"
READY_SECONDS = 400
FROZEN_SECONDS = 60

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1_500),
    pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM: {PYTHON_VARIABLE} is not set, .venv-vllm is not there"),
]


@dataclass
class Running:
    """A `distill serve` process and its files."""

    out: Path
    process: subprocess.Popen[str]

    @property
    def endpoints(self) -> Path:
        return self.out / "endpoints.json"

    def urls(self) -> list[str]:
        if not self.endpoints.is_file():
            return []
        return [found["url"] for found in json.loads(self.endpoints.read_text())["endpoints"]]

    def replicas(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.out / "serve" / "service.json").read_text())["replicas"]
        return found

    def until_ready(self, count: int = 1) -> list[str]:
        limit = time.monotonic() + READY_SECONDS
        while len(self.urls()) < count:
            assert self.process.poll() is None, f"it ended: {self.log()}"
            assert time.monotonic() < limit, f"it was not ready in time: {self.log()}"
            time.sleep(0.5)
        return self.urls()

    def log(self) -> str:
        logs = [*self.out.glob("logs/*/node-0.log"), self.out / "serve.out"]
        return "\n".join(f"{path}:\n{path.read_text(errors='replace')[-3_000:]}" for path in logs if path.is_file())


def distill(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "distill.cli", *arguments]


@contextmanager
def service(out: Path, *arguments: str) -> Iterator[Running]:
    out.mkdir(parents=True)
    with (out / "serve.out").open("w") as said:
        process = subprocess.Popen(
            distill("serve", *arguments, "--out", str(out)), stdout=said, stderr=subprocess.STDOUT, text=True
        )
        running = Running(out, process)
        try:
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0, running.log()
    assert not running.endpoints.exists()
    assert servers(out) == [], "nothing is left of its servers"


def servers(out: Path) -> list[int]:
    """Processes whose environment or command names one of the service's ports or logs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(out) in entry.read_bytes().decode(errors="replace"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def ask(url: str, model: str, question: str, key: str = "", **settings: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, **settings}
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=300) as answer:
        found: dict[str, Any] = json.loads(answer.read())["choices"][0]
        return found


def generated(out: Path) -> RunDir:
    """A run whose generate stage is whole: every sample answered, each once."""
    run = RunDir(out)
    counts = run.stages()["generate"].counts
    assert counts["answered"] == counts["samples"] > 0
    assert counts["failed"] == 0
    traces = list(run.ledger().traces())
    assert len({trace.key for trace in traces}) == len(traces) == counts["samples"]
    assert not any(trace.unfinished for trace in traces)
    revisions = [(record.key, record.revision) for record in run.ledger().records()]
    assert len(set(revisions)) == len(revisions), "nothing was stored twice"
    return run


def test_generate_starts_tiny_r1_by_itself_asks_it_and_ends_it_and_it_solves_problems(tmp_path: Path) -> None:
    """DeepSeek-V3's model class with latent attention and experts, two tensor ranks: it gives the answers that the same
    weights give elsewhere."""
    out = tmp_path / "run"
    command = distill("generate", "--prompts", "arithmetic", "--limit", "60", "--teacher", "tiny-r1", "--out", str(out))
    command += ["--set", "generate.engine=vllm", "--set", "serve.tensor_parallel=2", "--set", "serve.stall_timeout=90"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_200)
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "tensor parallel 2" in done.stderr
    run = generated(out)
    assert not run.endpoints.exists()
    assert servers(out) == []
    judged = subprocess.run(distill("filter", str(out), "--json"), capture_output=True, text=True, check=True)
    kept = json.loads(judged.stdout)["stages"]["filter"]["counts"]["kept"]
    assert kept >= 0.6 * 60, "tiny-r1 solves four of five; a server that computes wrongly solves none"
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "is served by this run" not in again.stderr, "nothing is left to ask, so nothing is started"


def test_smollm2_is_served_with_two_data_ranks_and_a_key(tmp_path: Path) -> None:
    if not SMOLLM2.is_dir():
        pytest.skip("no .cache/smollm2: run benchmarks/smollm2.py first")
    arguments = ["smollm2-135m-instruct", "--model", str(SMOLLM2), "--host", "0.0.0.0"]
    with service(tmp_path / "svc", *arguments, "--set", "serve.data_parallel=2") as running:
        (url,) = running.until_ready()
        key = (running.out / "serve" / "key").read_text().strip()
        assert len(key) > 30
        assert urlsplit(url).hostname == address(), "where others reach it"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(url, "smollm2-135m-instruct", "Hi", max_tokens=1)
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert key not in line.read_bytes().decode(errors="replace")
            except OSError:
                continue
        rows = GSM8K.read_text(encoding="utf-8").splitlines()[:6]
        (tmp_path / "gsm8k.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        command = distill("generate", "--prompts", "gsm8k", "--set", f"prompts.0.path={tmp_path / 'gsm8k.jsonl'}")
        command += ["--teacher", "smollm2-135m-instruct", "--endpoints", str(running.endpoints), "--max-tokens", "48"]
        command += ["--set", "prepare.near_duplicates=false", "--out", str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr[-3_000:]
        generated(tmp_path / "run")
        time.sleep(6)
        metrics = (running.out / "serve" / "metrics.prom").read_text()
        assert 'engine="1"' in metrics, "both engines tell"
        assert key not in running.log()
        for path in (*running.out.rglob("*"), *(tmp_path / "run").rglob("*")):
            if path.is_file() and path.name != "key":
                assert key.encode() not in path.read_bytes(), path


def test_a_students_folder_is_served_as_well(tmp_path: Path) -> None:
    import torch

    from distill import specs
    from distill.train.student import load_student
    from distill.train.tokenizer import prepare_tokenizer

    spec = specs.student("tiny-qwen")
    tokenizer = prepare_tokenizer(spec)
    load_student(spec, tokenizer, seed=0, dtype=torch.float32).save_pretrained(tmp_path / "tiny-qwen")
    tokenizer.save_pretrained(tmp_path / "tiny-qwen")
    with service(tmp_path / "svc", str(tmp_path / "tiny-qwen"), "--set", "serve.max_model_len=512") as running:
        (url,) = running.until_ready()
        found = ask(url, "tiny-qwen", "What is 1 + 1?", max_tokens=8)
        assert found["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.rehearse)])
def test_two_replicas_are_killed_and_frozen_under_a_running_generate(tmp_path: Path, rounds: int) -> None:
    settings = ["--set", "serve.stall_timeout=30", "--set", "serve.probe_seconds=10"]
    with service(tmp_path / "svc", "tiny-r1", "--replicas", "2", *settings) as running:
        running.until_ready(2)
        command = distill("generate", "--prompts", "arithmetic", "--limit", str(250 * rounds), "--teacher", "tiny-r1")
        command += ["--endpoints", str(running.endpoints), "--samples", "2", "--out", str(tmp_path / "run")]
        command += ["--concurrency", "16", "--slice-tokens", "32"]
        with (tmp_path / "generate.out").open("w") as said:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        for number in range(rounds):
            answered_some(tmp_path / "run", 20 * (number + 1))
            assert process.poll() is None, (tmp_path / "generate.out").read_text()[-3_000:]
            hurt(running, number)
        assert process.wait(900) == 0, (tmp_path / "generate.out").read_text()[-3_000:]
        both = running.replicas()
        assert [found["state"] for found in both] == ["ready", "ready"]
        assert all(found["restarts"] >= rounds for found in both)
    assert generated(tmp_path / "run").stages()["generate"].counts["samples"] == 500 * rounds


def answered_some(out: Path, count: int) -> None:
    limit = time.monotonic() + 300
    while sum(1 for _ in RunDir(out).ledger().records()) < count:
        assert time.monotonic() < limit
        time.sleep(0.5)


def hurt(running: Running, number: int) -> None:
    """One is killed, the other stopped for a minute; returns when both are back."""
    killed, frozen = (running.replicas()[(place + number) % 2]["pid"] for place in (0, 1))
    os.killpg(killed, signal.SIGKILL)
    os.killpg(frozen, signal.SIGSTOP)
    time.sleep(FROZEN_SECONDS)
    with contextlib.suppress(ProcessLookupError):  # it was killed and started again meanwhile
        os.killpg(frozen, signal.SIGCONT)
    limit = time.monotonic() + READY_SECONDS
    while True:
        now = running.replicas()
        if all(found["state"] == "ready" and found["restarts"] > number for found in now):
            return
        assert time.monotonic() < limit, now
        time.sleep(1)
