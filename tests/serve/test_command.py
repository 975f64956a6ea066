"""Commands of every node: what stands in them, and that the installed vLLM's own parser reads them so."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from vllm_server import PYTHON_VARIABLE, vllm_python

from distill import serve, specs
from distill.errors import UsageError
from distill.serve.command import Vllm, shown
from distill.serve.planning import ServicePlan, plan, shown_addresses
from distill.serve.target import Target
from distill.serve_specs import ServeSettings

READS = Path(__file__).with_name("vllm_reads.py")
HARDWARE = ("8xH200", "2x8xH100", "4xB200", "8xH100", "1xRTX4090", "cpu")
NOT_VLLMS = {"CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE"}
"""Variables of CUDA and huggingface_hub."""


def planned(name: str, hardware: str, vllm: Vllm | None = None, **changes: object) -> ServicePlan:
    settings = ServeSettings.model_validate({"hardware": hardware, **changes})
    spec = specs.teacher(name)
    folder = Path(spec.model) if spec.is_folder else None
    return plan(Target(spec, folder, spec.architecture), settings, vllm)


def node_arguments(found: ServicePlan) -> list[tuple[str, ...]]:
    return [command.arguments for command in found.commands(shown_addresses(found.layout, 0))]


def after(arguments: tuple[str, ...], name: str) -> str | None:
    return arguments[arguments.index(name) + 1] if name in arguments else None


def test_the_command_for_r1_on_an_h200_node() -> None:
    (arguments,) = node_arguments(planned("deepseek-r1", "8xH200"))
    assert arguments[:3] == ("vllm", "serve", "deepseek-ai/DeepSeek-R1")
    assert after(arguments, "--data-parallel-size") == "8"
    assert "--enable-expert-parallel" in arguments
    assert after(arguments, "--reasoning-parser") == "deepseek_r1"
    assert after(arguments, "--load-format") == "safetensors"
    assert after(arguments, "--generation-config") == "vllm", "the model's own defaults are in no trace's record"
    assert "--trust-remote-code" not in arguments
    assert "--speculative-config" not in arguments
    assert after(arguments, "--host") == "127.0.0.1"


def test_two_machines_by_pipeline_share_one_engine() -> None:
    first, second = node_arguments(planned("deepseek-r1", "2x8xH100", tensor_parallel=8, pipeline_parallel=2))
    for rank, arguments in enumerate((first, second)):
        assert after(arguments, "--nnodes") == "2"
        assert after(arguments, "--node-rank") == str(rank)
        assert after(arguments, "--master-addr") == "HOST-0"
    assert "--headless" not in first
    assert "--headless" in second
    assert "--port" in first
    assert "--port" not in second


def test_two_machines_by_data_have_engines_of_their_own() -> None:
    first, second = node_arguments(planned("deepseek-r1", "2x8xH100", data_parallel=16, expert_parallel=True))
    assert after(first, "--data-parallel-size-local") == after(second, "--data-parallel-size-local") == "8"
    assert after(second, "--data-parallel-start-rank") == "8"
    assert after(second, "--data-parallel-address") == "HOST-0"
    assert "--nnodes" not in first
    assert "--headless" in second


def test_replicas_of_one_machine_have_gpus_and_ports_of_their_own() -> None:
    found = planned("r1-distill-llama-70b", "8xH100")
    lines = list(found.command_lines())
    assert [line for line in lines if line.startswith("#")] == ["# replica-0", "# replica-1"]
    assert "CUDA_VISIBLE_DEVICES=0,1,2,3 " in lines[1]
    assert "CUDA_VISIBLE_DEVICES=4,5,6,7 " in lines[3]
    assert "--port 8000" in lines[1]
    assert "--port 8001" in lines[3]


def test_the_cpu_build_is_started_by_its_own_file() -> None:
    vllm = Vllm("/opt/vllm/bin/python", cpu_build=True)
    (arguments,) = node_arguments(planned("tiny-r1", "cpu", vllm))
    assert arguments[0] == "/opt/vllm/bin/python"
    assert Path(arguments[1]).name == "vllm_cpu.py"
    assert arguments[2] == "serve"
    assert "--enforce-eager" in arguments


def test_remote_code_is_trusted_where_the_spec_says_so_alone() -> None:
    found = planned("deepseek-r1", "8xH200")
    trusting = Target(found.target.spec.model_copy(update={"trust_remote_code": True}), None, found.target.architecture)
    (arguments,) = node_arguments(plan(trusting, found.settings, None))
    assert "--trust-remote-code" in arguments


def test_users_arguments_come_last_and_a_key_among_them_is_refused() -> None:
    (arguments,) = node_arguments(planned("deepseek-r1", "8xH200", arguments=["--async-scheduling"]))
    assert arguments[-1] == "--async-scheduling"
    for given in ("--api-key", "--api-key=abc", "--api_key=abc"):
        with pytest.raises(ValueError, match="seen by every user of the machine; set VLLM_API_KEY"):
            ServeSettings(arguments=(given, "abc"))
    for given in ("--host", "--trust-remote", "--load-format=pt", "-tp", "--max-model-len", "--config"):
        with pytest.raises(ValueError, match="is not passed on; set"):
            ServeSettings(arguments=(given, "x"))
    ServeSettings(environment={"TOKENIZERS_PARALLELISM": "false", "VLLM_USE_FASTOKENS": "1"})
    with pytest.raises(ValueError, match="HF_TOKEN looks like a secret"):
        ServeSettings(environment={"HF_TOKEN": "abc"})


def test_what_is_shown_can_be_typed() -> None:
    found = planned("deepseek-r1", "8xH200", environment={"VLLM_LOGGING_LEVEL": "a b"})
    (command,) = found.commands(shown_addresses(found.layout, 0))
    text = shown(command)
    told = subprocess.run(
        ["bash", "-c", f'vllm() {{ printf \'%s\\n\' "$VLLM_LOGGING_LEVEL" "$@"; }}; {text}'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert told == ["a b", *command.arguments[1:]]


def everything() -> list[ServicePlan]:
    """A plan of every shipped teacher on every machine that holds it, and of the ways to spread R1 over two."""
    found = []
    for name in specs.names("teachers"):
        if specs.teacher(name).architecture is None:
            continue
        for hardware in HARDWARE:
            try:
                found.append(planned(name, hardware))
            except UsageError:
                continue
    found.append(planned("deepseek-r1", "2x8xH100", tensor_parallel=8, pipeline_parallel=2, kv_cache_dtype="fp8"))
    found.append(planned("deepseek-r1", "2x8xH100", data_parallel=16, expert_parallel=True, dtype="bfloat16"))
    return found


@pytest.mark.vllm
@pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM: {PYTHON_VARIABLE} is not set, .venv-vllm is not there")
def test_the_installed_vllm_reads_every_command_as_it_is_meant() -> None:
    plans = everything()
    assert len(plans) > 20
    cases = [(found, rank, a[2:]) for found in plans for rank, a in enumerate(node_arguments(found))]
    wrong = ["m", "--tensor-parallel-sise", "2"]
    told = vllm_says([*(list(arguments) for _, _, arguments in cases), wrong])
    assert "error" in told["commands"].pop(), "it does refuse what it does not know"
    for (found, rank, _), said in zip(cases, told["commands"], strict=True):
        assert "error" not in said, said
        split, layout = found.layout.split, found.layout
        assert said["model_tag"] == found.target.location
        assert said["served_model_name"] == [found.target.served_name]
        sizes = (said["tensor_parallel_size"], said["pipeline_parallel_size"], said["data_parallel_size"])
        assert sizes == (split.tensor, split.pipeline, split.data)
        assert said["enable_expert_parallel"] == split.expert_parallel
        assert (said["max_model_len"], said["max_num_seqs"]) == (layout.max_model_len, layout.max_num_seqs)
        assert said["headless"] == (rank > 0)
        assert said["trust_remote_code"] is False
        assert said["api_key"] is None
        assert said["load_format"] == "safetensors"
    named = {
        name for found in plans for c in found.commands(shown_addresses(found.layout, 0)) for name in c.environment
    }
    unknown = named - NOT_VLLMS - set(told["variables"])
    assert unknown == set(), "vLLM's envs.py does not know these"
    assert "VLLM_API_KEY" in told["variables"]
    parsers = {spec.reasoning_parser for spec in map(specs.teacher, specs.names("teachers"))} - {None}
    assert parsers <= set(told["parsers"])


def vllm_says(commands: list[list[str]]) -> dict[str, Any]:
    done = subprocess.run(
        [str(vllm_python()), str(READS)],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_vllm_downloads_nothing_unless_nobody_looked_for_the_files() -> None:
    def offline(**changes: object) -> str | None:
        found = planned("deepseek-r1", "8xH200", **changes)
        return found.commands(shown_addresses(found.layout, 0))[0].environment.get("HF_HUB_OFFLINE")

    assert offline() == "1"
    assert offline(skip=["model"]) is None


ALLOWED = """
import ctypes, runpy, sys
runpy.run_path(sys.argv[1], run_name="imported")
bits = ctypes.c_ulong()
ctypes.CDLL(None).syscall(158, 0x1022, ctypes.byref(bits))  # ARCH_GET_XCOMP_PERM
print(bits.value >> 18 & 1)
"""


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="AMX is of x86-64")
def test_processes_of_the_cpu_build_may_use_amx_where_there_is_one() -> None:
    """vLLM's kernels do, and its workers end in SIGILL without leave."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.is_file() else []
    wrapper = Path(serve.__file__).parent / "vllm_cpu.py"
    ended = subprocess.run([sys.executable, "-c", ALLOWED, str(wrapper)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == ("1" if "amx_tile" in flags else "0")
