"""All-reduces among the processes that would serve a model: do they arrive, are the sums right, how fast is it.

A program of its own for the server's interpreter (standard library and torch, nothing of distill), started once per
worker by `python -m torch.distributed.run` on each node. The processes find each other by a store that rank 0 keeps,
beside the collectives: so it can be told who did not come. Rank 0 prints one JSON object, whether it went well or not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

SIZES = {"cuda": (2**10, 2**13, 2**16, 2**19, 2**22, 2**25, 2**28), "cpu": (2**10, 2**13, 2**16, 2**19, 2**23)}
"""Bytes summed at once: from what a token's activations take to what fills any link; CPUs stop at 8 MiB."""
BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
REPEATS = 10
"""Of each size; the median is told."""
PATTERN = 251
"""Elements after which the numbers repeat: a prime, so that no chunk looks like its neighbour."""
POLL_SECONDS, BEAT_SECONDS, FAREWELL_SECONDS = 0.05, 0.5, 10.0
STARTING_SECONDS = 120.0
"""For importing torch, beside the time limit: from a cold disk it takes half a minute."""
JOINING_SECONDS = 30.0
"""For making the group, beside the time limit of the first sum: NCCL looks at every link."""


class NotRight(Exception):
    """What is wrong, for the reader."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every sum was right; else rank 0 has printed why."""
    parser = argparse.ArgumentParser(description=__doc__)
    # no name may be the beginning of one of the launcher's own, which would take it for that
    parser.add_argument("--device", choices=sorted(SIZES), required=True)
    parser.add_argument("--all-nodes", type=int, default=1)
    parser.add_argument("--this-node", type=int, default=0)
    parser.add_argument("--workers", type=int, required=True, help="processes on each node")
    parser.add_argument("--keeper", default="127.0.0.1", help="address of node 0")
    parser.add_argument("--keeper-port", type=int, required=True, help="free port of node 0")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of each step")
    given = parser.parse_args(arguments)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    rank, world = given.this_node * given.workers + local, given.all_nodes * given.workers
    if hasattr(signal, "alarm"):  # whatever hangs, and whoever started it died
        signal.alarm(int(STARTING_SECONDS + (len(SIZES[given.device]) + 3) * given.seconds))
    try:
        report = _run(given, rank, world, local)
    except Exception as error:  # noqa: BLE001  # whatever the backend raises is an answer
        what = str(error) if isinstance(error, NotRight) else f"{type(error).__name__}: {error}"
        report = {"ok": False, "what": " ".join(what.split())[:500]}
    if rank == 0:
        _print(report)
    elif not report["ok"]:
        sys.stderr.write(f"rank {rank}: {report['what']}\n")
    return 0 if report["ok"] else 1


def _print(report: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _run(given: argparse.Namespace, rank: int, world: int, local: int) -> dict[str, Any]:
    try:
        store = _store(given, keeper=rank == 0)
    except Exception as error:
        place = f"{given.keeper}:{given.keeper_port}"
        how = f"cannot listen at {place}" if rank == 0 else f"rank {rank} does not reach rank 0 at {place}"
        raise NotRight(f"{how} within {given.seconds:.0f} s: {error}") from error
    _arrive(store, rank, world, given.workers, given.seconds)
    threading.Thread(target=_beat, args=(_store(given), rank), daemon=True).start()
    if rank == 0:
        watched = (_store(given), world, SIZES[given.device], given.seconds)
        threading.Thread(target=_watch, args=watched, daemon=True).start()
    try:
        told = _sums(store, given, rank, world, local)
    except NotRight:
        raise
    except Exception as error:
        # who fails because another died must not be the first to end: the launcher blames that one
        raise NotRight(f"{type(error).__name__}: {error}{_silence(store, world)}") from error
    store.set(f"left/{rank}", "1")
    if rank == 0:  # the store goes with it
        _late(store, "left", world, FAREWELL_SECONDS)
    return {"ok": True, "world": world, "backend": BACKENDS[given.device], "sizes": told}


def _sums(store: Any, given: argparse.Namespace, rank: int, world: int, local: int) -> list[dict[str, float]]:
    """All of them, from the smallest; what each took."""
    import torch
    import torch.distributed as dist

    device = torch.device("cpu")
    if given.device == "cuda":
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    # longer than the watcher waits: it knows who is late
    patient = timedelta(seconds=2 * given.seconds + JOINING_SECONDS)
    group = dist.PrefixStore("group", store)  # type: ignore[attr-defined]  # torch exports it, not to type checkers
    dist.init_process_group(BACKENDS[given.device], store=group, rank=rank, world_size=world, timeout=patient)
    told = []
    for size in SIZES[given.device]:
        store.set(f"begun/{size}/{rank}", "1")
        seconds, wrong = _sum(size, rank, world, device)
        store.set(f"done/{size}/{rank}", str(wrong))
        told.append(_speed(size, seconds, world))
        _all_right(store, size, world, patient)
    return told


def _store(given: argparse.Namespace, *, keeper: bool = False) -> Any:
    """A connection of its own for each thread: one that waits would hold up the others."""
    import torch.distributed as dist

    limit = timedelta(seconds=given.seconds)
    return dist.TCPStore(  # type: ignore[attr-defined]
        given.keeper, given.keeper_port, None, keeper, timeout=limit, wait_for_workers=False
    )


def _arrive(store: Any, rank: int, world: int, workers: int, seconds: float) -> None:
    """Waits for all, and tells who did not come."""
    store.set(f"arrived/{rank}", "1")
    if rank == 0:
        store.set("absent", json.dumps(_late(store, "arrived", world, seconds)))
    else:
        store.wait(["absent"], timedelta(seconds=seconds + FAREWELL_SECONDS))
    absent = json.loads(store.get("absent"))
    if absent:
        nodes = sorted({rank // workers for rank in absent})
        of = f"node{'s' if len(nodes) > 1 else ''} {_list(nodes)}"
        raise NotRight(f"{_ranks(absent)} of {world} ({of}) did not arrive within {seconds:.0f} s")


def _beat(store: Any, rank: int) -> None:
    """Shows that this process lives, also while it waits for a sum."""
    while True:
        store.add(f"beats/{rank}", 1)
        time.sleep(BEAT_SECONDS)


def _watch(store: Any, world: int, sizes: Sequence[int], seconds: float) -> None:
    """Ends the process with a report when a step takes too long: a collective itself cannot be left."""
    for size in sizes:
        limit = seconds if size != sizes[0] else seconds + JOINING_SECONDS
        if late := _late(store, f"begun/{size}", world, limit):
            _give_up(store, world, f"{_ranks(late)} of {world} did not begin the sum of {_size(size)}", limit)
        if late := _late(store, f"done/{size}", world, seconds):
            _give_up(store, world, f"the sum of {_size(size)} did not end at {_ranks(late)} of {world}", seconds)


def _give_up(store: Any, world: int, what: str, seconds: float) -> None:
    _print({"ok": False, "what": f"{what} within {seconds:.0f} s{_silence(store, world)}"})
    os._exit(1)


def _silence(store: Any, world: int) -> str:
    """Looks for three seconds who shows no life any more."""
    try:
        before = _beats(store, world)
        time.sleep(6 * BEAT_SECONDS)
        silent = [rank for rank, (old, new) in enumerate(zip(before, _beats(store, world), strict=True)) if old == new]
    except RuntimeError:  # the store is gone, and rank 0 with it
        time.sleep(6 * BEAT_SECONDS)
        silent = [0]
    return f"; {_ranks(silent)} gave no sign of life" if silent else ""


def _beats(store: Any, world: int) -> list[int]:
    return [store.add(f"beats/{rank}", 0) for rank in range(world)]


def _sum(size: int, rank: int, world: int, device: Any) -> tuple[float, int]:
    """Median seconds of an all-reduce of so many bytes, and how many sums were wrong."""
    import torch
    import torch.distributed as dist

    pattern = torch.arange(size // 4, device=device) % PATTERN
    # whole numbers far below 2**24, so that float32 adds them exactly in any order
    mine = (pattern + rank + 1).to(torch.float32)
    expected = (pattern * world + world * (world + 1) // 2).to(torch.float32)
    seconds, wrong = [], 0
    for _ in range(REPEATS):
        summed = mine.clone()
        _settle(device)
        started = time.perf_counter()
        dist.all_reduce(summed)
        _settle(device)
        seconds.append(time.perf_counter() - started)
        wrong += int((summed != expected).sum().item())
    return sorted(seconds)[len(seconds) // 2], wrong


def _settle(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _all_right(store: Any, size: int, world: int, patient: timedelta) -> None:
    keys = [f"done/{size}/{rank}" for rank in range(world)]
    store.wait(keys, patient)
    wrong = [rank for rank, key in enumerate(keys) if int(store.get(key))]
    if wrong:
        raise NotRight(f"the sum of {_size(size)} is wrong at {_ranks(wrong)} of {world}")


def _speed(size: int, seconds: float, world: int) -> dict[str, float]:
    """Bytes per second as NCCL's own tests count them: by the data, and by what each link has to carry of it."""
    algorithm = size / seconds
    return {"bytes": size, "seconds": seconds, "algorithm": algorithm, "bus": algorithm * 2 * (world - 1) / world}


def _late(store: Any, what: str, world: int, seconds: float) -> list[int]:
    """Waits until every rank has said so; the ranks that have not when time is up."""
    deadline = time.monotonic() + seconds
    while late := [rank for rank in range(world) if not store.check([f"{what}/{rank}"])]:
        if time.monotonic() > deadline:
            return late
        time.sleep(POLL_SECONDS)
    return []


def _size(size: int) -> str:
    return f"{size // 2**20} MiB" if size >= 2**20 else f"{size // 2**10} KiB"


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {_list(ranks)}"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: none of its files is to be taken for a module that torch imports
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a sum that hangs would hold up an orderly end, a thread that speaks to the store abort it
