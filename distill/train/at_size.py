"""A training at its real size without a GPU: fake tensors, a fake process group, and memory counted by every storage.

The very path of a real training: StudentLoss, `shard`, activation checkpointing, one pack of tokens forwards and
backwards, clipping, an optimizer step. Nothing is computed; what is measured is which tensors stand at the same time.
What a GPU's allocator loses between them, and what CUDA and NCCL take for themselves, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from distill.sizes import Sizes
from distill.train.attention import Segments
from distill.train.context_parallel import check_heads, split_pack
from distill.train.loss import StudentLoss
from distill.train.packing import Pack
from distill.train.parallel import Precision, World, activation_checkpointing, shard, world_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Optimizer = Callable[[Any], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class Layout:
    """How many GPUs, how they share a trace, and what one pass of one trace is."""

    ranks: int
    context_parallel: int = 1
    tokens: int = 32_768
    """Tokens of a pack, of which each rank has its part; all but one are inside the loss."""
    precision: Precision = "mixed"
    checkpointing: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes on one rank, in the second pass of a step: gradients of the first one and optimizer state are there."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    """Kept when the last layer has run forwards."""
    peak: int
    phase: str
    """Where the peak lies: forward, backward or step."""

    @property
    def working(self) -> int:
        """At the peak besides all of these: gathered layers, a layer's recomputed activations, logits, buffers."""
        return self.peak - self.parameters - self.gradients - self.optimizer - self.activations


def adamw(module: Any) -> torch.optim.Optimizer:
    """Two moments of each trained weight, in its own precision."""
    return torch.optim.AdamW([weight for weight in module.parameters() if weight.requires_grad], fused=True)


def config_with(sizes: Sizes) -> PretrainedConfig:
    """The configuration of a Qwen2 or Llama with these sizes."""
    from transformers import AutoConfig

    config: PretrainedConfig = AutoConfig.for_model(
        "qwen2" if sizes.qkv_bias else "llama",
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        tie_word_embeddings=sizes.tied,
    )
    return config


def measure(
    config: PretrainedConfig,
    layout: Layout,
    *,
    prepare: Callable[[Any], Any] = lambda model: model,
    optimizer: Optimizer = adamw,
) -> Measured:
    """Memory of one rank for a transformers configuration. `prepare` changes the model first, as an adapter does."""
    check_heads(config.num_attention_heads, layout.context_parallel)
    with _fake_world(layout) as world:
        pack = _pack(layout, world)
        with torch._subclasses.FakeTensorMode() as fake:
            module = _module(config, layout, world, prepare)
            return _measured(module, _faked(fake, pack), optimizer(module))


def _module(config: Any, layout: Layout, world: World, prepare: Callable[[Any], Any]) -> StudentLoss:
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if layout.precision == "bf16" else torch.float32
    model = prepare(AutoModelForCausalLM.from_config(config, dtype=dtype))
    module = StudentLoss(model, mixed=layout.ranks == 1 and layout.precision == "mixed").train()
    if layout.checkpointing:
        activation_checkpointing(model)
    if layout.ranks > 1:
        shard(module, world, precision=layout.precision)
        assert all(isinstance(weight, DTensor) for weight in module.parameters())
    return module


def _measured(module: StudentLoss, pack: Any, optimizer: torch.optim.Optimizer) -> Measured:
    counter = Counter()
    with counter, _head_as_on_a_gpu():
        inputs = counter.add(pack.input_ids, pack.position_ids, pack.places, pack.targets, pack.segments.bounds)
        parameters = counter.add(*module.parameters(), *module.buffers()) - inputs
        for weight in module.parameters():
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
        gradients = counter.now - inputs - parameters
        optimizer.step()
        state = counter.now - inputs - parameters - gradients
        before, peaks = counter.now, {}
        kept: list[int] = []
        hook = module.model.get_decoder().register_forward_hook(lambda *_: kept.append(counter.now))
        counter.peak = counter.now
        loss = module(pack)
        hook.remove()
        peaks["forward"] = counter.peak_and_restart()
        (loss / pack.loss_tokens).backward()
        del loss
        peaks["backward"] = counter.peak_and_restart()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        peaks["step"] = counter.peak_and_restart()
        assert counter.now < before * 1.01, "something of a pass stays behind"
    phase = max(peaks, key=lambda phase: peaks[phase])
    return Measured(parameters, gradients, state, kept[0] - before, peaks[phase] - inputs, phase)


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages that came to be inside it and are still there; `peak` is the most so far.

    Storages may be resized behind torch's dispatcher: FSDP2 frees gathered weights so, hence the patched `resize_`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._sizes: Any = WeakIdKeyDictionary()
        self._resize = torch.UntypedStorage.resize_

    def __enter__(self) -> Counter:
        counter, resize = self, self._resize

        def resize_(storage: torch.UntypedStorage, size: int) -> Any:
            found = resize(storage, size)
            counter._seen(storage)
            return found

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *args: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*args)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        torch.utils._pytree.tree_map_only(torch.Tensor, self._tensor, found)
        return found

    def add(self, *tensors: torch.Tensor) -> int:
        """Counts tensors that were there before; returns the bytes of all."""
        for tensor in tensors:
            self._tensor(tensor)
        return self.now

    def peak_and_restart(self) -> int:
        found, self.peak = self.peak, self.now
        return found

    def _tensor(self, tensor: torch.Tensor) -> None:
        local = getattr(tensor, "_local_tensor", tensor)
        self._seen(local.untyped_storage())

    def _seen(self, storage: torch.UntypedStorage) -> None:
        size, holder = storage.size(), self._sizes.get(storage)
        if holder is None:
            holder = self._sizes[storage] = _Held(self)
        self.now += size - holder.size
        holder.size = size
        self.peak = max(self.peak, self.now)


class _Held:
    """The bytes of one storage; goes with it."""

    __slots__ = ("counter", "size")

    def __init__(self, counter: Counter) -> None:
        self.counter, self.size = counter, 0

    def __del__(self) -> None:
        self.counter.now -= self.size


@contextmanager
def _fake_world(layout: Layout) -> Iterator[World]:
    """Rank 0 of a process group that only claims to have sent anything."""
    if layout.ranks == 1:
        yield World()
        return
    import torch.distributed as dist
    from torch.distributed._tools import fake_collectives  # noqa: F401 (registers collectives on fake tensors)
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=layout.ranks, store=FakeStore())
    try:
        yield world_of("cpu", 0, layout.ranks, 0, layout.context_parallel)
    finally:
        dist.destroy_process_group()


def _pack(layout: Layout, world: World) -> Any:
    count = layout.tokens
    pack = Pack(
        torch.zeros(1, count, dtype=torch.int64),
        torch.arange(count)[None],
        torch.arange(count - 1),
        torch.zeros(count - 1, dtype=torch.int64),
        Segments(torch.tensor([0, count], dtype=torch.int32), (count,), "varlen"),
        count,
        count - 1,
    )
    return split_pack(pack, world, pad=0)


def _faked(fake: Any, pack: Any) -> Any:
    import dataclasses

    segments = dataclasses.replace(pack.segments, bounds=fake.from_tensor(pack.segments.bounds))
    names = ("input_ids", "position_ids", "places", "targets")
    tensors = {name: fake.from_tensor(getattr(pack, name).contiguous()) for name in names}
    return dataclasses.replace(pack, segments=segments, **tensors)


@contextmanager
def _head_as_on_a_gpu() -> Iterator[None]:
    """torch's chunked cross-entropy keeps two float32 copies of the head more on a CPU than on a GPU, because a CPU has
    no bfloat16 product that sums up in float32. Here it takes the GPU's way, only that a chunk's logits have 2 bytes
    instead of 4 (torch 2.13, nn/modules/linear_cross_entropy.py)."""
    from torch.nn.modules import linear_cross_entropy_options as options

    key = ("cpu", torch.bfloat16)
    default, resolve = options._AUTO_DEFAULTS[key], options.LinearCrossEntropyOptions._resolve_auto_acc_dtype
    options._AUTO_DEFAULTS[key] = options._AUTO_DEFAULTS[("cuda", torch.bfloat16)]
    options.LinearCrossEntropyOptions._resolve_auto_acc_dtype = staticmethod(lambda dtype, device: None)  # type: ignore[method-assign]
    try:
        yield
    finally:
        options._AUTO_DEFAULTS[key] = default
        options.LinearCrossEntropyOptions._resolve_auto_acc_dtype = staticmethod(resolve)  # type: ignore[method-assign]
