"""How a teacher is served: the recipe's section `serve`, and what `distill serve --set serve.KEY=VALUE` changes.

Nothing here decides a trace: a teacher answers alike on other hardware, so these settings are in no stage's hash.
Knows nothing about how a server is started.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from distill.accelerators import parse_hardware
from distill.strict import Strict

SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD)$")
"""Names of environment variables whose values do not belong into a recipe."""
OWN_ARGUMENTS = {
    "--host": "serve.host",
    "--port": "serve.port",
    "--uds": "serve.host",
    "--load-format": "nothing: weights are loaded from safetensors alone",
    "--trust-remote-code": "trust_remote_code in the teacher's spec",
    "--config": "the settings of serve",
    "--model": "--model of distill serve",
    "--served-model-name": "nothing: clients ask for the teacher by its own name",
    "--revision": "revision in the teacher's spec",
    "--tensor-parallel-size": "serve.tensor_parallel",
    "--pipeline-parallel-size": "serve.pipeline_parallel",
    "--data-parallel-size": "serve.data_parallel",
    "--enable-expert-parallel": "serve.expert_parallel",
    "--max-model-len": "serve.max_model_len",
    "--max-num-seqs": "serve.max_num_seqs",
    "--gpu-memory-utilization": "serve.gpu_memory_utilization",
    "--kv-cache-dtype": "serve.kv_cache_dtype",
    "--dtype": "serve.dtype",
    "-tp": "serve.tensor_parallel",
    "-pp": "serve.pipeline_parallel",
    "-dp": "serve.data_parallel",
    "-ep": "serve.expert_parallel",
}
"""Arguments of vLLM that are decided here → what to set instead."""
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  # compared with, not listened at
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeSettings(Strict):
    """Where replicas of the teacher run, how they are laid out, and when one counts as lost."""

    hardware: str = "auto"
    """`8xH200`, `2x8xH100` (two machines of eight), `1x48GB`, `cpu`, `2xcpu`, or `auto`: what this machine has."""
    cores: int | None = Field(None, ge=1)
    """On CPUs: cores of each machine that a replica gets; None: a fair share."""
    model: str | None = None
    """Folder of the weights, where the teacher's spec does not say it itself."""
    python: str | None = None
    """Interpreter of vLLM's environment; by default DISTILL_VLLM_PYTHON, else .venv-vllm, else distill's own."""
    launcher: Literal["local", "ray"] = "local"
    """`local` starts replicas on this machine, `ray` on a Ray cluster's."""
    ray_address: str | None = None
    """HOST:PORT of the cluster's head; None: the cluster that this machine belongs to."""

    replicas: int | None = Field(None, ge=1)
    """Servers to begin with, each whole by itself; None: as many as the hardware holds (one on CPUs)."""
    least_replicas: int | None = Field(None, ge=1)
    """With `most_replicas`: the number follows the queue of requests between the two."""
    most_replicas: int | None = Field(None, ge=1)

    tensor_parallel: int | None = Field(None, ge=1)
    pipeline_parallel: int | None = Field(None, ge=1)
    data_parallel: int | None = Field(None, ge=1)
    expert_parallel: bool | None = None
    """None of these four given: the layout is chosen, and what speaks for it is shown."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    """`auto` keeps keys and values in the model's own type."""
    max_model_len: int | None = Field(None, ge=16)
    """Tokens of prompt and reply together; None: the teacher's max_tokens and room for a prompt, within its context."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Requests that an engine works on at once; None: as many traces of mean length as its KV cache holds."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=0.99)
    """Share of each GPU's memory that vLLM takes."""
    arguments: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, as they are: `["--async-scheduling"]`."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Further environment variables of vLLM, no secrets."""

    host: str | None = None
    """Address to listen at; None: this machine alone, with `ray` each node's own address. Where others can reach the
    replicas, a key is made, and required of every client."""
    port: int | None = Field(None, ge=1, le=65_535)
    """Of the first replica, the next ones following; None: free ones."""
    page_port: int | None = Field(None, ge=1, le=65_535)
    """Of the page with all replicas' metrics, at loopback only; None: a free one."""

    start_timeout: float = Field(3_600.0, gt=0)
    """Seconds from the start of a replica until it has produced a token: 690 GB of weights take a while."""
    stall_timeout: float = Field(180.0, gt=0)
    """Seconds without a token from a replica, with requests in it or asked for one, after which it counts as stuck."""
    probe_seconds: float = Field(60.0, gt=0)
    """An idle replica is asked for a token that often."""
    drain_timeout: float = Field(600.0, ge=0)
    """Seconds that requests in flight may take to finish when the service is told to end."""
    max_failures: int = Field(5, ge=1)
    """Failures in a row, none of them followed by ten good minutes, after which a replica is given up."""
    skip: tuple[str, ...] = ()
    """Checks of the preflight that are left out. Without `model` nobody looked whether its files are here, and vLLM may
    download them."""
    log_megabytes: int = Field(50, ge=1)
    """Size at which a log on this machine is rotated; four files of it are kept."""

    @field_validator("hardware")
    @classmethod
    def _known_hardware(cls, value: str) -> str:
        parse_hardware(value)
        return value

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if SECRET.search(name.upper()):
                raise ValueError(
                    f"{name} looks like a secret, which would be written into the run; set it in the shell"
                )
        return value

    @field_validator("arguments")
    @classmethod
    def _not_decided_here(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for argument in value:
            name = argument.partition("=")[0].replace("_", "-")
            if len(name) > 4 and "--api-key".startswith(name):
                raise ValueError("a key on a command line is seen by every user of the machine; set VLLM_API_KEY")
            for own, instead in OWN_ARGUMENTS.items():
                if name == own or (len(name) > 4 and own.startswith(name)):  # vLLM takes beginnings of names
                    raise ValueError(f"{name} is not passed on; set {instead}")
        return value

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        least, most = self.least_replicas, self.most_replicas
        if (least is None) != (most is None):
            raise ValueError("least_replicas and most_replicas belong together")
        if least is not None and most is not None:
            if least > most:
                raise ValueError(f"least_replicas {least} is more than most_replicas {most}")
            if self.replicas is not None and not least <= self.replicas <= most:
                raise ValueError(f"replicas {self.replicas} is not between {least} and {most}")
        return self

    @model_validator(mode="after")
    def _what_ray_decides(self) -> Self:
        if self.launcher != "ray":
            return self
        if self.host is not None and self.host not in EVERY_ADDRESS:
            raise ValueError(f"host {self.host}: with ray each replica listens at its own node's address; leave it out")
        if self.port is not None:
            raise ValueError("port: with ray each node gives a free one; endpoints.json tells it")
        return self

    @property
    def splits(self) -> tuple[int | None, int | None, int | None, bool | None]:
        return (self.tensor_parallel, self.pipeline_parallel, self.data_parallel, self.expert_parallel)

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine can reach the replicas."""
        return self.host in LOOPBACK or (self.host is None and self.launcher == "local")

    @property
    def model_folder(self) -> Path | None:
        return None if self.model is None else Path(self.model).expanduser()
