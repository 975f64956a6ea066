"""How a model is laid out over GPUs: chosen from its sizes and the hardware, or refused with the arithmetic.

Pure: looks at no machine. Bytes; gigabytes are 10^9. What it says of memory is computed, and was measured on no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from distill.accelerators import Hardware
from distill.errors import UsageError
from distill.serve_specs import ServeSettings
from distill.teacher_sizes import ServedSizes
from distill.teacher_splits import Split

MEAN_TRACE = 5_355
"""Tokens of a mean trace of R1 (arXiv 2501.12948v2, table 5). One that is being written holds about as many: long ones
are on their way longer."""
PROMPT_ROOM = 4_096
"""Tokens kept for a prompt beside the teacher's max_tokens."""
MOST_OVERHEAD, OVERHEAD_SHARE = 5e9, 1 / 16
"""Bytes a GPU needs beside weights and cache (activations, CUDA graphs, communication): 5 GB on GPUs of 80 GB and more,
an assumption; less on smaller ones, which hold smaller models."""
COMFORTABLE_TRACES, COMFORTABLE_LENGTHS = 32, 2
"""A replica that holds so many mean traces, and each engine of it so many of full length, needs no more GPUs: with
fewer, decoding reads all weights for few tokens, and a long trace makes others wait."""
KV_BYTES = {"auto": 2.0, "fp8": 1.0}
"""Of one value of a key; `auto` is bfloat16 for all teachers here, whatever their weights are kept in."""
MOST_SEQUENCES = 1_024
"""vLLM's own default for servers on large GPUs; more makes CUDA graphs larger than they help."""
CPU_SEQUENCES = 64
"""On two cores a small model gave the most tokens per second with 64 requests at once."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What runs where. Bytes are those of the fullest GPU; on CPUs, of main memory."""

    device: Literal["cuda", "cpu"]
    hardware: Hardware
    split: Split
    nodes: int
    """Machines that one replica spans."""
    gpus: int
    """GPUs of each of them that it takes."""
    replicas: int
    memory: float
    """What vLLM may use."""
    weights: float
    overhead: float
    kv_bytes: float
    """Of one token of context."""
    kv_tokens: int
    """Of one engine; a replica has as many engines as its data parallel size."""
    max_model_len: int
    max_num_seqs: int
    """Of one engine."""
    kv_cache_dtype: str
    dtype: str
    """Of the weights that are not quantized; `auto`: as they are published."""
    why: tuple[str, ...] = ()

    @property
    def replica_tokens(self) -> int:
        return self.kv_tokens * self.split.data

    @property
    def total_tokens(self) -> int:
        return self.replica_tokens * self.replicas

    @property
    def most_requests(self) -> int:
        """Requests that one replica works on at once."""
        return self.max_num_seqs * self.split.data


@dataclass(frozen=True, slots=True)
class Fit:
    """One split on some hardware: what it would leave for keys and values, or why it cannot be."""

    split: Split
    replicas: int
    memory: float
    overhead: float
    weights: float
    kv_bytes: float
    """Of a token of context, its share of the windows of layers that see no more included."""
    why_not: str | None
    drawback: str | None = None
    """What speaks against a split that is possible."""

    @property
    def kv_tokens(self) -> int:
        return max(0, int((self.memory - self.overhead - self.weights) / self.kv_bytes))

    def holds(self, max_model_len: int) -> bool:
        return self.why_not is None and self.kv_tokens >= max_model_len

    def comfortable(self, max_model_len: int) -> bool:
        enough = self.kv_tokens * self.split.data >= COMFORTABLE_TRACES * MEAN_TRACE
        return self.holds(max_model_len) and enough and self.kv_tokens >= COMFORTABLE_LENGTHS * max_model_len

    def arithmetic(self) -> str:
        """The split in numbers, such as `tensor parallel 8: 84.0 GB of weights + 5.0 GB overhead + … of 72.0 GB`."""
        if self.why_not is not None:
            return f"{self.split.described}: {self.why_not}"
        left = self.memory - self.overhead - self.weights
        rest = f"leaves {left / 1e9:.1f} GB, {self.kv_tokens:,} tokens" if left > 0 else f"lacks {-left / 1e9:.1f} GB"
        return (
            f"{self.split.described}: {self.weights / 1e9:.1f} GB of weights and {self.overhead / 1e9:.1f} GB overhead "
            f"of {self.memory / 1e9:.1f} GB per GPU {rest}"
        )


def length_of(settings: ServeSettings, max_tokens: int, context: int, name: str) -> int:
    """Tokens of prompt and reply together. Raises UsageError for more than the model can."""
    if settings.max_model_len is not None and settings.max_model_len > context:
        raise UsageError(
            f"serve.max_model_len {settings.max_model_len:,} is more than the {context:,} tokens of {name}'s context",
            todo=f"set it to {context} or less",
        )
    return settings.max_model_len or min(context, max_tokens + PROMPT_ROOM)


def fits(sizes: ServedSizes, hardware: Hardware, settings: ServeSettings) -> Iterator[Fit]:
    """Every split of the model over this hardware that the settings allow, those that cannot be included."""
    assert hardware.gpu is not None
    memory = hardware.gpu.memory * settings.gpu_memory_utilization
    overhead = min(MOST_OVERHEAD, hardware.gpu.memory * OVERHEAD_SHARE)
    kv_bytes = KV_BYTES[settings.kv_cache_dtype]
    for split in _splits(sizes, hardware, settings):
        given = (split.tensor, split.pipeline, split.data)
        why_not = sizes.why_not(*given, expert_parallel=split.expert_parallel)
        fit = Fit(split, _replicas(split, hardware), memory, overhead, 0.0, 1.0, why_not)
        if why_not is None:
            weights = sizes.weight_bytes_per_gpu(*given, expert_parallel=split.expert_parallel)
            shares = {"tensor": split.tensor, "pipeline": split.pipeline}
            token = (
                sizes.kv_bytes_per_token(kv_bytes, **shares)
                + sizes.kv_bytes_per_window(kv_bytes, **shares) / MEAN_TRACE
            )
            drawback = sizes.drawback(*given, expert_parallel=split.expert_parallel)
            fit = replace(
                fit, weights=weights + sizes.latent_copies_per_gpu(**shares), kv_bytes=token, drawback=drawback
            )
        yield fit


def _replicas(split: Split, hardware: Hardware) -> int:
    """Replicas that fit beside each other, none of them over more machines than it has to be."""
    if split.gpus >= hardware.gpus:
        return hardware.total // split.gpus
    return hardware.nodes * (hardware.gpus // split.gpus)


def _splits(sizes: ServedSizes, hardware: Hardware, settings: ServeSettings) -> Iterator[Split]:
    wanted = settings.splits
    if wanted[:3] != (None, None, None):
        tensor, pipeline, data = (count or 1 for count in wanted[:3])
        for expert in (False, True) if wanted[3] is None else (wanted[3],):
            yield Split(tensor, pipeline, data, expert)
        return
    for machines in range(1, hardware.nodes + 1):
        each = [n for n in range(1, hardware.gpus + 1) if hardware.gpus % n == 0] if machines == 1 else [hardware.gpus]
        for gpus in each:
            for split in _over(machines, gpus, sizes):
                if wanted[3] in (None, split.expert_parallel):
                    yield split


def _over(machines: int, gpus: int, sizes: ServedSizes) -> Iterator[Split]:
    """Splits over some machines: tensors inside one, pipeline stages from one to the next; a model with experts also
    by data, each engine with its own requests and all of them sharing the experts."""
    for expert in (False, True) if sizes.architecture.experts is not None and gpus * machines > 1 else (False,):
        yield Split(gpus, machines, 1, expert)
    if sizes.architecture.experts is not None and gpus * machines > 1:
        for tensor in (n for n in range(1, gpus + 1) if gpus % n == 0):
            data = machines * gpus // tensor
            if data > 1:
                yield Split(tensor, 1, data, True)


def best(found: list[Fit], max_model_len: int) -> Fit | None:
    """The fewest GPUs for a replica that is comfortable, then the most tokens of context on all the hardware, then the
    simplest; where none is comfortable, the most tokens. None where not even one request of full length fits."""
    holding = [fit for fit in found if fit.holds(max_model_len)]
    comfortable = [fit for fit in holding if fit.comfortable(max_model_len)]

    def total(fit: Fit) -> int:
        return fit.kv_tokens * fit.split.data * fit.replicas

    def simplicity(fit: Fit) -> tuple[bool, int, int, bool]:
        return (fit.drawback is None, -fit.split.pipeline, -fit.split.tensor, not fit.split.expert_parallel)

    if comfortable:
        return max(comfortable, key=lambda fit: (-fit.split.gpus, total(fit), simplicity(fit)))
    return max(holding, key=lambda fit: (total(fit), -fit.split.gpus, simplicity(fit)), default=None)


def choose(
    name: str,
    sizes: ServedSizes,
    hardware: Hardware,
    settings: ServeSettings,
    max_model_len: int,
    elsewhere: Callable[[], str] = str,
) -> Layout:
    """The layout on GPUs. Raises UsageError with the arithmetic where none fits; `elsewhere` says what would.

    `max_model_len`: tokens of prompt and reply together.
    """
    if settings.dtype == "float32":
        todo = "leave serve.dtype out, or set bfloat16 or float16"
        raise UsageError("on GPUs nothing is laid out in float32, which doubles weights and context", todo=todo)
    found = list(fits(sizes, hardware, settings))
    capability = hardware.gpu.capability if hardware.gpu else None
    least = sizes.weights.least_capability
    if least is not None and capability is not None and capability < least:
        raise UsageError(
            f"{hardware.described} cannot compute {name}'s {sizes.weights.format} weights: they need compute "
            f"capability {least:g}, this has {capability:g}",
            todo=elsewhere() or None,
        )
    _refuse_too_many(found, hardware, settings)
    chosen = best([fit for fit in found if fit.replicas], max_model_len)
    if chosen is None:
        raise _too_small(name, sizes, hardware, found, max_model_len, elsewhere)
    replicas = settings.replicas or settings.least_replicas or chosen.replicas
    most = settings.most_replicas or replicas
    if max(replicas, most) > chosen.replicas:
        what = f"{max(replicas, most)} replicas of {chosen.split.gpus} GPUs do not fit into {hardware.described}"
        raise UsageError(what, todo=f"at most {chosen.replicas}: --replicas {chosen.replicas}")
    nodes = -(-chosen.split.gpus // hardware.gpus)
    sequences = settings.max_num_seqs or max(1, min(MOST_SEQUENCES, chosen.kv_tokens // min(MEAN_TRACE, max_model_len)))
    return Layout(
        "cuda",
        hardware,
        chosen.split,
        nodes,
        chosen.split.gpus // nodes,
        replicas,
        chosen.memory,
        chosen.weights,
        chosen.overhead,
        chosen.kv_bytes,
        chosen.kv_tokens,
        max_model_len,
        sequences,
        settings.kv_cache_dtype,
        settings.dtype,
        tuple(_why(chosen, found, max_model_len, settings)),
    )


def _refuse_too_many(found: list[Fit], hardware: Hardware, settings: ServeSettings) -> None:
    if all(value is None for value in settings.splits[:3]):
        return
    gpus, data = found[0].split.gpus, found[0].split.data
    machines = -(-gpus // hardware.gpus)
    if gpus <= hardware.total and data > 1 and data % machines:
        what = f"{found[0].split.described} spans {machines} machines, which {data} data ranks cannot be shared among"
        raise UsageError(what, todo=f"make serve.data_parallel a multiple of {machines}, or use pipeline_parallel")
    if gpus > hardware.total:
        what = f"{found[0].split.described} takes {gpus} GPUs; {hardware.described} has {hardware.total}"
        raise UsageError(what, todo="lower serve.tensor_parallel, pipeline_parallel or data_parallel")
    if gpus > hardware.gpus and gpus % hardware.gpus:
        what = f"{found[0].split.described} takes {gpus} GPUs, which is no whole number of machines of {hardware.gpus}"
        raise UsageError(what, todo=f"make it a multiple of {hardware.gpus}, or {hardware.gpus} and less")


def _too_small(
    name: str,
    sizes: ServedSizes,
    hardware: Hardware,
    found: list[Fit],
    max_model_len: int,
    elsewhere: Callable[[], str],
) -> UsageError:
    possible = [fit for fit in found if fit.why_not is None and fit.replicas]
    if not possible:
        reasons = list(dict.fromkeys(fit.arithmetic() for fit in found))
        return UsageError(f"{name} cannot be split like that", given="; ".join(reasons[:3]), todo=elsewhere() or None)
    closest = max(possible, key=lambda fit: fit.memory - fit.overhead - fit.weights)
    room = hardware.total * (closest.memory - closest.overhead)
    if closest.memory - closest.overhead <= closest.weights:
        what = (
            f"{name} does not fit into {hardware.described}: {sizes.file_bytes / 1e9:.0f} GB of "
            f"{sizes.weights.format} weights, and {hardware.total} × ({closest.memory / 1e9:.1f} − "
            f"{closest.overhead / 1e9:.1f}) GB = {room / 1e9:.0f} GB to hold them"
        )
        return UsageError(what, given=closest.arithmetic(), todo=elsewhere() or None)
    what = f"{name} leaves no room for one request of {max_model_len:,} tokens on {hardware.described}"
    lower = f"--set serve.max_model_len={max(16, closest.kv_tokens // 1_024 * 1_024)}"
    todo = " or ".join(part for part in (lower if closest.kv_tokens >= 1_024 else "", elsewhere()) if part)
    return UsageError(what, given=closest.arithmetic(), todo=todo or None)


def _why(chosen: Fit, found: list[Fit], max_model_len: int, settings: ServeSettings) -> Iterator[str]:
    if any(value is not None for value in settings.splits):
        yield "the split was asked for"
        return
    same = [fit for fit in found if fit.split.gpus == chosen.split.gpus and fit.holds(max_model_len) and fit != chosen]
    smaller = [fit for fit in found if fit.split.gpus < chosen.split.gpus and not fit.comfortable(max_model_len)]
    if smaller:
        closest = max(smaller, key=lambda fit: (fit.split.gpus, fit.why_not is None, fit.kv_tokens))
        yield f"fewer GPUs for a replica do not do: {closest.arithmetic()}"
    if same:
        other = max(same, key=lambda fit: fit.kv_tokens * fit.split.data)
        ours, theirs = chosen.kv_tokens * chosen.split.data, other.kv_tokens * other.split.data
        yield f"{chosen.split.described} holds {ours:,} tokens of context, {other.split.described} {theirs:,}"
    if chosen.split.data > 1:
        yield "by data: each engine keeps the keys and values of its own requests, which tensor parallel would repeat"
    yield "multi-token prediction stays off: with many requests at once it costs more than it brings"


def on_cpu(
    sizes: ServedSizes | None,
    settings: ServeSettings,
    hardware: Hardware,
    max_model_len: int,
    memory: float | None,
    dtype: str,
) -> Layout:
    """The layout on CPUs, for tests and small models: one replica unless more are asked for. It spans all machines when
    it is split over as many workers.

    `memory`: bytes of main memory that are free, None where nobody knows; `dtype`: what weights are computed in there.
    Raises UsageError when the weights alone do not fit.
    """
    tensor, pipeline, data = (count or 1 for count in settings.splits[:3])
    split = Split(tensor, pipeline, data, bool(settings.expert_parallel))
    why_not = sizes.why_not(tensor, pipeline, data, expert_parallel=split.expert_parallel) if sizes else None
    if why_not:
        raise UsageError(f"{split.described}: {why_not}")
    replicas = settings.replicas or settings.least_replicas or 1
    most = max(replicas, settings.most_replicas or 1)
    value = 4 if dtype == "float32" else 2
    weights = float(sizes.parameters * value) if sizes else 0.0
    kv_bytes = float(sizes.kv_bytes_per_token(value)) if sizes else 0.0
    share = memory / most if memory is not None else None
    if share is not None and weights > share:
        what = f"{most} × {weights / 1e9:.1f} GB of weights do not fit into {(memory or 0) / 1e9:.1f} GB of free memory"
        raise UsageError(what, todo="a smaller teacher, fewer replicas, or --hardware with GPUs")
    sequences = settings.max_num_seqs or CPU_SEQUENCES
    wanted = kv_bytes * max(max_model_len, sequences * min(max_model_len, MEAN_TRACE))
    space = min(wanted, (share - weights) / 4) if share is not None else wanted
    return Layout(
        "cpu",
        hardware,
        split,
        1 if split.gpus % hardware.nodes else hardware.nodes,
        0,
        replicas,
        space + weights,
        weights,
        0.0,
        kv_bytes,
        int(space / kv_bytes) if kv_bytes else 0,
        max_model_len,
        sequences,
        "auto",
        dtype,
        ("on CPUs: for trying things, and for small models",),
    )
