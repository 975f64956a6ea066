"""The whole way with nothing of ours in it: SmolLM2-135M behind a real vLLM server, GSM8K, a pretrained student."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from publish.conftest import PEOPLE
from publish.pulling import environment, pulled
from serve.test_command import vllm_says
from upload_hub import serving
from vllm_server import CHECKOUT, PYTHON_VARIABLE, vllm_python, vllm_server

from distill import specs
from distill.hardware import bfloat16_in_hardware
from distill.pipeline import run_recipe
from distill.rundir import RunDir

MODEL = CHECKOUT / ".cache" / "smollm2"
GSM8K = str(Path(__file__).parent / "data" / "gsm8k_200.jsonl")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM: {PYTHON_VARIABLE} is not set, .venv-vllm is not there"),
    pytest.mark.skipif(not MODEL.is_dir(), reason="no .cache/smollm2: make smollm2"),
]


FOUR_BIT = ("nf4", "gguf:q4_k_m")


@pytest.mark.parametrize(
    "schemes", [FOUR_BIT, pytest.param(("nf4", "int8", "gguf:q8_0", "gguf:q4_k_m"), marks=pytest.mark.rehearse)]
)
def test_gsm8k_from_a_real_server_to_a_trained_student(tmp_path: Path, schemes: tuple[str, ...]) -> None:
    run = RunDir(tmp_path / "run")
    settings = {
        "quick": True,
        "prompts.0.path": GSM8K,
        "evaluate.prompts.0.path": GSM8K,
        "evaluate.prompts.0.skip": 100,
        "generate.max_tokens": 128,
        "evaluate.max_tokens": 32,  # whether anything is right does not matter here
        "quantize.limit": 2,
        "quantize.schemes": list(schemes),
    }
    dtype = "auto" if bfloat16_in_hardware() else "float32"
    with vllm_server(MODEL, "smollm2-135m-instruct", tmp_path / "server.log", "--dtype", dtype) as url:
        recipe = specs.recipe("gsm8k-smollm2", {**settings, "generate.url": url})
        run_recipe(recipe, run, last="filter")
    run_recipe(recipe, run)  # the teacher is gone and no longer needed
    traces = list(run.ledger().traces())
    assert len(traces) == recipe.generate.samples * 10
    assert {trace.finish_reason for trace in traces} <= {"stop", "length"}
    assert all(trace.reasoning is None and trace.raw for trace in traces), "a plain teacher: text without think tags"
    counts = run.stages()["filter"].counts
    assert counts["kept"] + sum(counts["rejected"].values()) == len(traces)
    student = json.loads((run.evaluations / "student.json").read_text())
    assert student["problems"] == 4
    assert json.loads((run.student / "config.json").read_text())["model_type"] == "llama"
    made = run.stages()["quantize"].counts
    files = {name: facts for name, facts in made.items() if not name.startswith("_")}
    assert list(files) == [name.replace(":", "-") for name in schemes]
    assert all(files[name]["gates"] == [] for name in files), "weights, template, stop token and tokens are right"
    shares = {name: files[name]["four_bit_share"] for name in files}
    assert 0.7 < shares["nf4"] < 0.8, "embeddings, a fifth of this model, stay in bfloat16"
    assert shares["gguf-q4_k_m"] < 0.5, "columns of 576 are no multiple of 256"
    assert {"Q5_0", "Q8_0"} <= set(files["gguf-q4_k_m"]["types"])
    assert all(files[name]["problems"] == 2 for name in files)
    assert "Q5_0" in run.report.read_text(encoding="utf-8")
    published_and_pulled(run, tmp_path)


def published_and_pulled(run: RunDir, tmp_path: Path) -> None:
    """By the command, to a Hub on loopback; what users load from there answers as the run's own does."""
    with serving(tmp_path / "hub", PEOPLE) as hub:
        command = [sys.executable, "-m", "distill.cli", "publish", str(run.path), "--repo", "org/gsm8k-smollm2"]
        home = environment(hub, tmp_path / "home")
        ended = subprocess.run(command, capture_output=True, text=True, env=home, check=False)
        assert ended.returncode == 0, ended.stderr
        told = pulled(hub, "org/gsm8k-smollm2", run, tmp_path / "home", ("student", "gguf", "traces"))
        assert told["rows"]["traces"] == {"train": 20}
        card = hub.files("org/gsm8k-smollm2")["README.md"].decode()
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in card
    assert "openai/gsm8k" in card
    (serve,) = re.findall(r"^vllm serve (.*)$", card, re.MULTILINE)
    (said,) = vllm_says([serve.split()])["commands"]
    assert (said["model_tag"], said["max_model_len"]) == ("org/gsm8k-smollm2", 8192)
