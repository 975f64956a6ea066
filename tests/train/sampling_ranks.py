"""Two gloo processes that hold half of a student's weights each, sample it together and train it on.

Started by test_samples.py: python sampling_ranks.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch


def steps(student: Any, sampler: Any, *, sampled: bool) -> tuple[list[float], Any]:
    """Losses of three steps, and the report of the sampling before the second."""
    optimizer, report, losses = torch.optim.AdamW(student.parameters(), lr=1e-2), None, []
    ids = torch.arange(60)[None]
    for step in range(3):
        if step == 0 and sampled:
            report = sampler.sample(student)
        loss = student(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step == 1 and sampled:
            sampler.sample(student)
    return losses, report


def work(rank: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    from distill.records import Sampling
    from train.material import model
    from train.test_samples import sampler

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for name in ("without", "with"):
        student = model().train()
        for layer in student.model.layers:
            fully_shard(layer)
        fully_shard(student)
        asking = sampler(sampling=Sampling(temperature=1.0))
        found[name], report = steps(student, asking, sampled=name == "with")
        found["replies"] = [sample.reply for sample in report.samples] if report else None
        found["sharded"] = all(isinstance(parameter, DTensor) for parameter in student.parameters())
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(work, args=(sys.argv[1],), nprocs=2)
