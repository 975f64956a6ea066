"""Real vLLM servers killed in the middle of a run and started again elsewhere: complete, each trace once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from vllm_server import CHECKOUT, PYTHON_VARIABLE, vllm_python, vllm_server

from distill.ledger import LedgerReader
from distill.rundir import RunDir

SMOLLM2 = CHECKOUT / ".cache" / "smollm2"
GSM8K = Path(__file__).resolve().parent.parent / "data" / "gsm8k_200.jsonl"

QUESTIONS = 6

FLOAT32 = ("--dtype", "float32")
"""A CPU without bfloat16 products emulates them, and a token then takes seconds."""

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1_500),
    pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM: {PYTHON_VARIABLE} is not set, .venv-vllm is not there"),
]


@dataclass(frozen=True)
class Case:
    """A teacher behind vLLM: its folder, what is asked of it, and in slices of how many tokens."""

    teacher: str
    model: Path
    prompts: tuple[str, ...]
    slice_tokens: int
    max_tokens: int


def real_questions(folder: Path) -> tuple[str, ...]:
    """GSM8K's own rows, through its source spec."""
    rows = GSM8K.read_text(encoding="utf-8").splitlines()[:QUESTIONS]
    (folder / "gsm8k.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return ("--prompts", "gsm8k", "--set", f"prompts.0.path={folder / 'gsm8k.jsonl'}")


def generate(folder: Path, case: Case) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "distill.cli", "generate", *case.prompts, "--teacher", case.teacher]
    command += ["--endpoints", str(folder / "endpoints.json"), "--out", str(folder / "run"), "--concurrency", "8"]
    command += ["--slice-tokens", str(case.slice_tokens), "--max-tokens", str(case.max_tokens), "--samples", "2"]
    command += ["--set", "filter.checks=[finished]", "--set", "prepare.near_duplicates=false"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tell(folder: Path, url: str) -> None:
    """The file of endpoints, replaced as a whole: a reader never sees half of it."""
    beside = folder / "endpoints.new"
    beside.write_text(json.dumps({"endpoints": [{"name": f"at-{url.rpartition(':')[2][:-3]}", "url": url}]}))
    beside.replace(folder / "endpoints.json")


@pytest.mark.rehearse  # tests/serve/test_real_vllm.py kills servers under a sliced run in every .ci/run
@pytest.mark.parametrize("name", ["tiny-r1", "smollm2"])
def test_a_server_is_killed_and_another_takes_its_place(tmp_path: Path, name: str) -> None:
    if name == "smollm2" and not SMOLLM2.is_dir():
        pytest.skip("no .cache/smollm2: run benchmarks/smollm2.py first")
    case = {
        "smollm2": Case("smollm2-135m-instruct", SMOLLM2, real_questions(tmp_path), 16, 64),
        "tiny-r1": Case(
            "tiny-r1", CHECKOUT / "teachers/tiny-r1", ("--prompts", "arithmetic", "--limit", str(QUESTIONS)), 32, 128
        ),
    }[name]
    traces = tmp_path / "run" / "traces"
    with vllm_server(case.model, case.teacher, tmp_path / "first.log", *FLOAT32) as first:
        tell(tmp_path, first)
        process = generate(tmp_path, case)
        while process.poll() is None and sum(1 for _ in LedgerReader(traces).records()) < 8:
            time.sleep(0.2)
        assert process.poll() is None, process.communicate()[0]
        os.killpg(first.process.pid, signal.SIGKILL)
    at_the_kill = {trace.key: trace for trace in LedgerReader(traces).traces()}
    with vllm_server(case.model, case.teacher, tmp_path / "second.log", *FLOAT32) as second:
        assert process.poll() is None, "it waits for a server"
        tell(tmp_path, second)
        output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-3_000:]
    run = RunDir(tmp_path / "run")
    counts = run.stages()["generate"].counts
    assert counts["answered"] == counts["samples"] == 2 * QUESTIONS
    assert counts["failed"] == 0
    found = list(run.ledger().traces())
    assert len({trace.key for trace in found}) == len(found) == counts["samples"]
    assert not any(trace.unfinished for trace in found)
    whole = {trace.key: trace for trace in found}
    for key, before in at_the_kill.items():
        assert whole[key].raw.startswith(before.raw.rstrip("\ufffd")), (
            "what was paid for is the beginning of what is there"
        )
    records = list(run.ledger().records())
    assert len({record.endpoint for record in records}) == 2, "both have answered"
    revisions = [(record.key, record.revision) for record in records]
    assert len(set(revisions)) == len(revisions), "no slice was stored twice"
