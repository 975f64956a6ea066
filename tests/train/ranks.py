"""Real processes for tests: ranks on this machine that talk over gloo, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

PRELOADED = [
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint.state_dict",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.llama.modeling_llama",
]
"""Imported once by the server that ranks are forked from; this takes seconds."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run(size: int, function: Callable[..., Any], *args: Any, timeout: float = 120) -> list[Any]:
    """What `function(*args)`, of a module, returned on each of `size` ranks. Fails with a rank's traceback."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port, ends, processes = free_port(), [], []
    for rank in range(size):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(rank, size, port, theirs, function, args), daemon=True)
        process.start()
        theirs.close()
        ends.append(mine)
        processes.append(process)
    found: dict[int, Any] = {}
    try:
        while len(found) < size:
            ready = wait([end for rank, end in enumerate(ends) if rank not in found], timeout)
            assert ready, f"ranks {sorted(set(range(size)) - set(found))} did not answer within {timeout} s"
            for end in ready:
                rank = ends.index(end)  # type: ignore[arg-type]
                worked, found[rank] = ends[rank].recv()
                assert worked, f"rank {rank}: {found[rank]}"
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    return [found[rank] for rank in range(size)]


def _rank(
    rank: int, size: int, port: int, end: Connection, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        HF_HUB_OFFLINE="1",
    )
    try:
        end.send((True, function(*args)))
    except BaseException:
        end.send((False, traceback.format_exc()))
