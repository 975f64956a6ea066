"""`distill serve` and a run's own service as commands, over a stand-in for vLLM; what is refused, and how."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from distill.rundir import RunDir
from distill.serve.starting import asked
from distill.specs import recipe as recipe_named
from serve.vllm_environment import vllm_environment

pytestmark = pytest.mark.timeout(120)
SKIP = ("--skip", "memory", "--skip", "vllm")


def distill(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distill.cli", *arguments],
        capture_output=True, text=True, check=False, cwd=cwd, timeout=100, env={**os.environ, **environment},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def inside(*arguments: str, cwd: Path) -> Done:
    """The command in this process: nothing is started by it, and an interpreter takes a second to begin."""
    from distill import cli

    out, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        mock.patch.object(sys, "argv", ["distill", *arguments]),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    return Done(int(ended.value.code or 0), out.getvalue(), errors.getvalue())


def test_a_run_starts_its_own_teacher_asks_it_and_ends_it(tmp_path: Path) -> None:
    python = vllm_environment(tmp_path / "env")
    command = ("generate", "--prompts", "arithmetic", "--limit", "3", "--teacher", "tiny-r1", "--out", "run")
    settings = ("--set", "generate.engine=vllm", "--set", f"serve.python={python}")
    done = distill(*command, *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tiny-r1 is served by this run itself" in done.stderr
    assert "serve: replica-0 is ready" in done.stderr
    counts = RunDir(tmp_path / "run").stages()["generate"].counts
    assert (counts["answered"], counts["failed"]) == (3, 0)
    assert not (tmp_path / "run" / "endpoints.json").exists()
    again = distill(*command, *settings, cwd=tmp_path)
    assert again.returncode == 0
    assert "is served by this run" not in again.stderr, "nothing is left to ask"


def test_a_service_that_is_lost_in_mid_run_ends_the_run_with_its_reason_and_the_next_start_goes_on(
    tmp_path: Path,
) -> None:
    python = vllm_environment(tmp_path / "env", "slow", "1")
    command = ["generate", "--prompts", "arithmetic", "--limit", "30", "--teacher", "tiny-r1", "--out", "run"]
    command += ["--concurrency", "2", "--set", "generate.max_concurrency=2"]
    command += ["--set", "generate.engine=vllm", "--set", f"serve.python={python}"]
    started = subprocess.Popen(
        [sys.executable, "-m", "distill.cli", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    run = RunDir(tmp_path / "run")
    limit = time.monotonic() + 60
    while not any(True for _ in run.ledger().records()):
        assert time.monotonic() < limit
        time.sleep(0.2)
    words = json.loads(run.endpoints.read_text())["service"]
    os.kill(words["pid"], signal.SIGKILL)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 1, said
    assert "tiny-r1 cannot be served here" in said
    assert "everything" in said or "look into" in said
    quick = vllm_environment(tmp_path / "quick")
    again = distill(*command[:-1], f"serve.python={quick}", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert run.stages()["generate"].counts["answered"] == 30


def test_after_a_kill_the_same_command_serves_its_teacher_again(tmp_path: Path) -> None:
    """What the killed one left, its file of servers above all, is not taken for a service."""
    python = vllm_environment(tmp_path / "env", "slow", "1")
    command = ["generate", "--prompts", "arithmetic", "--limit", "6", "--teacher", "tiny-r1", "--out", "run"]
    command += ["--set", "generate.engine=vllm", "--set", f"serve.python={python}"]
    started = subprocess.Popen([sys.executable, "-m", "distill.cli", *command], cwd=tmp_path, stderr=subprocess.DEVNULL)
    run = RunDir(tmp_path / "run")
    limit = time.monotonic() + 60
    while not (run.endpoints.is_file() and json.loads(run.endpoints.read_text())["endpoints"]):
        assert time.monotonic() < limit
        time.sleep(0.2)
    pid = json.loads(run.endpoints.read_text())["service"]["pid"]
    started.kill()
    started.wait()
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < limit, "the service ends with who started it"
        time.sleep(0.2)
    again = distill(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "is served by this run itself" in again.stderr


def test_a_teacher_that_cannot_be_started_says_why_in_the_command_that_wanted_it(tmp_path: Path) -> None:
    python = vllm_environment(tmp_path / "env", "oom")
    command = ("generate", "--prompts", "arithmetic", "--limit", "3", "--teacher", "tiny-r1", "--out", "run")
    done = distill(*command, "--set", "generate.engine=vllm", "--set", f"serve.python={python}", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr[done.stderr.rindex("distill: ") :]
    assert last.startswith("distill: tiny-r1 cannot be served here: every replica was given up")
    assert "No available memory for the cache blocks" in last
    assert "serve.gpu_memory_utilization" in last


def test_generate_finds_the_service_of_its_teacher_by_itself(tmp_path: Path) -> None:
    python = vllm_environment(tmp_path / "env")
    arguments = ("serve", "smollm2-135m-instruct", "--model", str(model(tmp_path)), "--python", str(python), *SKIP)
    service = subprocess.Popen(
        [sys.executable, "-m", "distill.cli", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    endpoints = tmp_path / "services" / "smollm2-135m-instruct" / "endpoints.json"
    try:
        limit = time.monotonic() + 60
        while not (endpoints.is_file() and json.loads(endpoints.read_text())["endpoints"]):
            assert service.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.1)
        teacher = ("--teacher", "smollm2-135m-instruct")
        done = distill("generate", "--prompts", "arithmetic", "--limit", "3", *teacher, "--out", "run", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "smollm2-135m-instruct is asked where its service says" in done.stderr
        second = distill(*arguments, cwd=tmp_path)
        assert second.returncode == 1
        assert "service" in second.stderr, "one service a folder"
    finally:
        service.send_signal(signal.SIGTERM)
        _, said = service.communicate(timeout=60)
    assert service.returncode == 0
    assert "is drained" in said


def test_a_host_that_others_reach_makes_a_key_that_generate_finds(tmp_path: Path) -> None:
    python = vllm_environment(tmp_path / "env")
    folder = ("--model", str(model(tmp_path)), "--python", str(python), "--host", "127.0.0.2", "--out", "svc", *SKIP)
    service = subprocess.Popen(
        [sys.executable, "-m", "distill.cli", "serve", "smollm2-135m-instruct", *folder],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        key = tmp_path / "svc" / "serve" / "key"
        limit = time.monotonic() + 60
        while not key.is_file() or not key.read_text():
            assert service.poll() is None, service.communicate()
            assert time.monotonic() < limit
            time.sleep(0.1)
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    finally:
        service.send_signal(signal.SIGTERM)
        _, said = service.communicate(timeout=60)
    assert key.read_text().strip() not in said
    assert "clients need the key in" in said


def model(folder: Path) -> Path:
    """A folder that the preflight takes for a whole model."""
    import torch
    from safetensors.torch import save_file

    place = folder / "model"
    if not place.is_dir():
        place.mkdir()
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        (place / "config.json").write_text(json.dumps(config))
        (place / "tokenizer.json").write_text("{}")
        (place / "tokenizer_config.json").write_text("{}")
        save_file({"weight": torch.zeros(4, 4)}, place / "model.safetensors")
    return place


def test_a_dry_run_prints_the_layout_and_every_nodes_command(tmp_path: Path) -> None:
    done = inside("serve", "deepseek-r1", "--hardware", "2x8xH100", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# replica-0, node 0 (HOST-0)" in done.stdout
    assert "# replica-0, node 1 (HOST-1)" in done.stdout
    assert "per GPU: 72.0 GB usable =" in done.stdout
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    told = inside("serve", "deepseek-r1", "--hardware", "8xH200", "--dry-run", "--json", cwd=tmp_path)
    values: dict[str, Any] = json.loads(told.stdout)
    assert values["data_parallel"] == 8
    assert "deepseek-ai/DeepSeek-R1" in values["commands"][0]["arguments"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("deepseek-r1", "--hardware", "8xH100", "--dry-run"), 2, ("does not fit into 8xH100", "2x8xH100")),
        (("deepseek-r2", "--dry-run"), 2, ("unknown teacher 'deepseek-r2'", "did you mean 'deepseek-r1'")),
        (("deepseek-api", "--dry-run"), 2, ("a provider's own service", "nothing to serve")),
        (("deepseek-r1", "--hardware", "8xH300", "--dry-run"), 2, ("--set", "unknown GPU 'h300'")),
        (("tiny-r1", "--set", "serve.stall_timout=3", "--dry-run"), 2, ("unknown key", "stall_timeout")),
        (("tiny-r1", "--set", "train.epochs=3", "--dry-run"), 2, ("takes settings of serve alone",)),
        (("tiny-r1", "--python", "/nowhere/python"), 2, ("/nowhere/python has no vLLM", "--python PATH")),
        (("tiny-r1", "--set", "serve.max_model_len=9999", "--dry-run"), 2, ("9,999", "2,048 tokens")),
        (("tiny-r1", "--model", "/nowhere", "--dry-run"), 2, ("there is no folder /nowhere",)),
        (("deepseek-r1", "--hardware", "2x8xH200"), 2, ("is several machines", "--launcher ray")),
        (("tiny-r1", "--skip", "hashs"), 2, ("there is no check 'hashs'", "did you mean 'hashes'")),
    ],
)
def test_bad_input_is_refused_with_the_reason_and_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    python = () if "--python" in arguments else ("--python", str(vllm_environment(tmp_path / "env")))
    done = inside("serve", *arguments, *python, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_folder_of_a_teachers_name_here_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "tiny-r1").mkdir()
    done = inside("serve", "tiny-r1", "--hardware", "cpu", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "teachers/tiny-r1 --served-model-name tiny-r1" in done.stdout


def test_a_job_for_slurm_gives_the_words_again(tmp_path: Path) -> None:
    words = ("serve", "deepseek-r1", "--hardware", "2x8xH100", "--out", "svc", "--set", "serve.max_num_seqs=9")
    done = inside(*words, "--slurm", "job.sbatch", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "job.sbatch").read_text()
    assert "#SBATCH --nodes=2" in text
    assert "#SBATCH --gpus-per-node=8" in text
    assert "serve deepseek-r1 --hardware 2x8xH100 --out svc --set serve.max_num_seqs=9 --launcher ray" in text
    assert f"#SBATCH --chdir={tmp_path}" in text
    assert "TERM@720" in text, "the drain timeout and what ends after it"
    assert "--slurm" not in text.partition("set -euo")[2]
    unnamed = inside("serve", "tiny-r1", "--slurm", "job.sbatch", cwd=tmp_path)
    assert unnamed.returncode == 2
    assert "name them, such as --hardware 2x8xH100" in unnamed.stderr


def test_settings_come_from_the_run_and_the_command_line_stands_above(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    text = "name: r\nteacher: tiny-r1\nserve: {replicas: 3, hardware: cpu}\nteacher_overrides: {max_tokens: 99}\n"
    (run / "recipe.yaml").write_text(text)
    found = asked(str(run), ["serve.max_num_seqs=7"], {"replicas": 2, "hardware": None}, None)
    assert (found.teacher, found.settings.replicas, found.settings.hardware) == ("tiny-r1", 2, "cpu")
    assert found.settings.max_num_seqs == 7
    assert found.overrides == {"max_tokens": 99}
    assert found.out == run


def test_how_a_teacher_is_served_decides_no_stage() -> None:
    """Other hardware buys nothing again."""
    plain = recipe_named("quickstart")
    other = recipe_named("quickstart", {"serve.hardware": "8xH200", "serve.max_num_seqs": 9, "generate.engine": "vllm"})
    for stage in ("prompts", "generate", "filter", "train", "evaluate", "quantize", "report"):
        assert plain.section_hash(stage) == other.section_hash(stage), stage
