"""The exact command of every node of a replica: `vllm serve` with its arguments and environment.

Pure: starts nothing. Names are those of vLLM 0.32; a test has them read by vLLM's own parser and looked up in its
envs.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.serve.launching import Addresses
from distill.serve.layout import Layout
from distill.serve.node import NodeCommand
from distill.serve.target import Target
from distill.serve_specs import ServeSettings

KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM looks for the key that it requires: not on its command line, which every user of the machine can read."""
SHELL = ("vllm", "serve")
"""How a command is shown where no interpreter was found."""
LARGEST_CPU_SPACE = 8
"""GiB of keys and values on CPUs, where `free memory / 4` would be more than small models need."""


NO_ROTARY_KERNEL = '{"custom_ops": ["-rotary_embedding"]}'
"""vLLM 0.32's kernel for rotary embeddings on CPUs turns those of latent attention wrongly, and a DeepSeek-V3 then
writes nonsense; PyTorch's own operations are right (tests/serve/test_real_vllm.py has it solve problems). The kernel
was left out before (github.com/vllm-project/vllm/pull/31643), and does not heed slices (…/pull/17091)."""


@dataclass(frozen=True, slots=True)
class Vllm:
    """The interpreter that has vLLM, and what it has: a distribution for GPUs, or the CPU build."""

    python: str
    cpu_build: bool

    @property
    def start(self) -> tuple[str, ...]:
        if self.cpu_build:
            return (self.python, str(Path(__file__).with_name("vllm_cpu.py")), "serve")
        return (self.python, "-m", "vllm.entrypoints.cli.main", "serve")


def node_commands(
    target: Target, layout: Layout, settings: ServeSettings, addresses: Addresses, vllm: Vllm | None
) -> list[NodeCommand]:
    """One command per machine of a replica, the first of them with the HTTP server."""
    start = vllm.start if vllm is not None else SHELL
    common = (*start, *_model(target), *_limits(layout, settings), *_split(layout), *_device(layout, target))
    found = []
    for rank in range(layout.nodes):
        here = _http(addresses, settings) if rank == 0 else ()
        arguments = (*common, *here, *_node(layout, addresses, rank), *settings.arguments)
        found.append(NodeCommand(arguments, _environment(target, layout, settings, addresses, rank)))
    return found


def _model(target: Target) -> tuple[str, ...]:
    revision = () if target.folder is not None or target.revision is None else ("--revision", target.revision)
    parser = () if target.spec.reasoning_parser is None else ("--reasoning-parser", target.spec.reasoning_parser)
    trust = ("--trust-remote-code",) if target.spec.trust_remote_code else ()
    # safetensors: a pickle runs code when it is loaded. vllm's own generation defaults: else those of the model's
    # generation_config.json (a repetition penalty, a top-k) would apply to requests that record none
    fixed = ("--load-format", "safetensors", "--generation-config", "vllm")
    return (target.location, *revision, "--served-model-name", target.served_name, *fixed, *parser, *trust)


def _limits(layout: Layout, settings: ServeSettings) -> tuple[str, ...]:
    said = ["--max-model-len", str(layout.max_model_len), "--max-num-seqs", str(layout.max_num_seqs)]
    if layout.device == "cuda":
        said += ["--gpu-memory-utilization", f"{settings.gpu_memory_utilization:g}"]
    if layout.kv_cache_dtype != "auto":
        said += ["--kv-cache-dtype", layout.kv_cache_dtype]
    if layout.dtype != "auto":
        said += ["--dtype", layout.dtype]
    return (*said, "--disable-uvicorn-access-log")


def _split(layout: Layout) -> tuple[str, ...]:
    split = layout.split
    sizes = {"tensor": split.tensor, "pipeline": split.pipeline, "data": split.data}
    said = [word for name, size in sizes.items() if size > 1 for word in (f"--{name}-parallel-size", str(size))]
    return (*said, *(("--enable-expert-parallel",) if split.expert_parallel else ()))


def _device(layout: Layout, target: Target) -> tuple[str, ...]:
    if layout.device == "cuda":
        return ()
    latent = target.architecture is not None and target.architecture.latent_attention is not None
    # vLLM 0.32 on a CPU dies of a request with a seed whose prompt is prefilled in parts ("CPU Generator does not use
    # offset", vllm/v1/worker/gpu_model_runner.py); compiling takes 100 s and little is gained by it on a CPU
    eager = ("--enforce-eager", "--no-enable-chunked-prefill")
    return (*eager, "--compilation-config", NO_ROTARY_KERNEL) if latent else eager


def _http(addresses: Addresses, settings: ServeSettings) -> tuple[str, ...]:
    return ("--host", settings.host or addresses.hosts[0], "--port", str(addresses.port))


def _node(layout: Layout, addresses: Addresses, rank: int) -> tuple[str, ...]:
    """What joins the machines of a replica: by data each has engines of its own, else all have parts of one."""
    if layout.nodes == 1:
        return ()
    head, port = addresses.hosts[0], str(addresses.ports[0])
    headless = ("--headless",) if rank else ()
    if layout.split.data > 1:
        local = layout.split.data // layout.nodes
        first = ("--data-parallel-start-rank", str(rank * local)) if rank else ()
        joined = ("--data-parallel-size-local", str(local), "--data-parallel-address", head)
        return (*headless, *joined, "--data-parallel-rpc-port", port, *first)
    nodes = ("--nnodes", str(layout.nodes), "--node-rank", str(rank))
    return (*headless, *nodes, "--master-addr", head, "--master-port", port)


def _environment(
    target: Target, layout: Layout, settings: ServeSettings, addresses: Addresses, rank: int
) -> dict[str, str]:
    found = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_COLOR": "0"}
    if target.folder is not None or "model" not in settings.skip:  # the preflight found its files
        found["HF_HUB_OFFLINE"] = "1"
    if layout.nodes > 1:
        found["VLLM_HOST_IP"] = addresses.hosts[rank]
    devices = addresses.devices[rank] if addresses.devices else ()
    if layout.device == "cuda" and devices:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    if layout.device == "cpu":
        space = (layout.memory - layout.weights) / 2**30
        found["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, min(LARGEST_CPU_SPACE, round(space))))
        if devices:
            found["VLLM_CPU_OMP_THREADS_BIND"] = _threads(devices, layout)
    return {**found, **settings.environment}


def _threads(cores: Sequence[str], layout: Layout) -> str:
    """Each worker's cores, as vLLM reads them: `0,1|2,3` for two; with too few cores they share all."""
    workers = layout.split.gpus // layout.nodes
    each = len(cores) // workers
    if not each:
        return "|".join([",".join(cores)] * workers)
    return "|".join(",".join(cores[n * each : (n + 1) * each]) for n in range(workers))


def shown(command: NodeCommand) -> str:
    """A command as it can be typed: environment first. Never has a key in it."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in sorted(command.environment.items())]
    return " ".join([*variables, shlex.join(command.arguments)])
