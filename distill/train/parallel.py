"""One training over many GPUs: who is who (World), and the student's weights spread over all of them (FSDP2).

Every rank holds a slice of every weight, gradient and optimizer state, and gathers one layer at a time. Knows nothing
about data, files or how the processes were started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from distill.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh

    from distill.train.loss import StudentLoss

Precision = Literal["fp32", "bf16", "mixed"]
TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: the first one may be reading or writing a large file meanwhile."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of one training; `World()` is one process alone. Rank 0 is `first`.

    Ranks that share the tokens of a trace (`context_parallel` neighbours) see the same data: they have one data rank.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    context_parallel: int = 1
    mesh: DeviceMesh | None = None
    """[data_size, context_parallel], dimensions "data" and "context"; None for one process alone."""
    everyone: DeviceMesh | None = None
    """All ranks in one dimension, over which weights are spread."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        return self.rank // self.context_parallel

    @property
    def data_size(self) -> int:
        return self.size // self.context_parallel

    @property
    def context_rank(self) -> int:
        return self.rank % self.context_parallel

    @property
    def device(self) -> torch.device:
        import torch

        if (self.mesh is not None and self.mesh.device_type == "cpu") or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local_rank)

    def total(self, value: float) -> float:
        """The sum over data ranks of something that the ranks of one trace have in common, such as a pack's tokens."""
        return self._reduced(value if self.context_rank == 0 else 0.0, "sum")

    def total_of_parts(self, value: float) -> float:
        """The sum over all ranks, each with its own part, such as the loss of its slice of a trace."""
        return self._reduced(value, "sum")

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one rank; all ranks learn it."""
        return self._reduced(float(flag), "max") > 0

    def barrier(self) -> None:
        """Returns when all ranks have come here."""
        self._reduced(0.0, "sum")

    def shared(self, value: Any) -> Any:
        """What the first rank gave; the others' own values do not count. Any picklable object."""
        if self.mesh is None:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def _reduced(self, value: float, how: Literal["sum", "max"]) -> float:
        if self.mesh is None:
            return value
        import torch
        import torch.distributed as dist

        box = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(box, op=dist.ReduceOp.SUM if how == "sum" else dist.ReduceOp.MAX)
        return float(box)


@contextmanager
def joined(context_parallel: int = 1) -> Iterator[World]:
    """The world that torchrun started (RANK, LOCAL_RANK, WORLD_SIZE); one process alone where it did not.

    NCCL where there are GPUs, gloo on CPUs. Raises UsageError when the ranks cannot be divided so.
    """
    import torch
    import torch.distributed as dist

    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size % context_parallel:
        raise UsageError(
            "the GPUs cannot be divided into groups that share traces",
            given=f"{size} GPUs, train.context_parallel: {context_parallel}",
            todo="make train.context_parallel a divisor of the number of GPUs",
        )
    if "RANK" not in os.environ:
        yield World()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if gpu else "gloo", timeout=TIMEOUT)
    try:
        yield world_of("cuda" if gpu else "cpu", rank, size, local_rank, context_parallel)
    finally:
        dist.destroy_process_group()


def world_of(device: str, rank: int, size: int, local_rank: int, context_parallel: int) -> World:
    """The world of a process group that is there already."""
    from torch.distributed.device_mesh import init_device_mesh

    shape = (size // context_parallel, context_parallel)
    mesh = init_device_mesh(device, shape, mesh_dim_names=("data", "context"))
    return World(rank, size, local_rank, context_parallel, mesh, mesh._flatten("everyone"))


def shard(module: StudentLoss, world: World, *, precision: Precision) -> None:
    """Spreads the weights over all ranks, in place: each decoder layer is a group that is gathered when its turn comes
    and freed again, and so are the embeddings and the head where they are two matrices.

    Gradients arrive as the sum over ranks, so that losses have to be divided by the step's total beforehand: FSDP2
    averages unless told otherwise (torch 2.13, _fsdp_collectives._get_gradient_divide_factors). `mixed` keeps float32
    weights, computes in bfloat16 and adds gradients up in float32; its module must be made with `mixed=False`.
    """
    import torch
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = world.everyone
    if mesh is None:
        raise ValueError("one process alone has nobody to share with")
    if module.mixed:
        raise ValueError("sharded weights are cast by FSDP2, not by autocast")
    policy = MixedPrecisionPolicy()
    if precision == "mixed":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = module.model
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    if set(head.parameters()).isdisjoint(embeddings.parameters()):  # an adapter's rows are no `weight` of a module
        fully_shard(embeddings, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        # its backward pass begins at once: freed in between, it would only be gathered twice
        fully_shard(head, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        register_fsdp_forward_method(head, "summed_loss")
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # else a factor of 1 needs NCCL's own multiplication


def activation_checkpointing(model: Any) -> None:
    """A decoder layer keeps its input alone and computes the rest again in the backward pass."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
