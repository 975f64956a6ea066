"""datatrove's InferenceRunner on a server that is there already (`server_type="endpoint"`).

Its fastest settings: no compression of the output, no checkpoints. `--way checkpoints` keeps those, the way in which it
can be resumed as the product always can.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from asking import Job, job, tell

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from datatrove.data import Document  # type: ignore[import-not-found]
from datatrove.pipeline.inference.run_inference import (  # type: ignore[import-not-found]
    InferenceConfig,
    InferenceRunner,
)
from datatrove.pipeline.writers import JsonlWriter  # type: ignore[import-not-found]


async def rollout(document: Any, generate: Callable[[dict[str, Any]], Awaitable[Any]]) -> Any:
    messages = [{"role": "user", "content": document.text}]
    return await generate({"messages": messages, "seed": document.metadata["seed"]})


def run(job: Job) -> None:
    settings = job.settings()
    config = InferenceConfig(
        server_type="endpoint",
        endpoint_url=job.url.removesuffix("/v1"),  # on this machine it adds the whole path itself
        model_name_or_path=settings.pop("model"),
        default_generation_params=settings,
        max_concurrent_generations=job.in_flight,
    )
    checkpoints = str(job.out / "checkpoints") if job.way == "checkpoints" else None
    name = "${rank}_${chunk_index}.jsonl" if checkpoints else "${rank}.jsonl"
    writer = JsonlWriter(str(job.out / "documents"), output_filename=name, compression=None)
    runner = InferenceRunner(rollout, config, writer, checkpoints_local_dir=checkpoints)
    runner.run(Document(text=asked.question, id=asked.id, metadata={"seed": asked.seed}) for asked in job.prompts)


def stored(folder: Path) -> tuple[int, int]:
    """(documents with a reply, completion tokens of them)."""
    documents, tokens = set(), 0
    for path in folder.glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            (reply,) = row["metadata"]["rollout_results"]
            documents.add(row["id"])
            tokens += reply["usage"]["completion_tokens"]
    return len(documents), tokens


if __name__ == "__main__":
    wanted = job()
    run(wanted)
    tell(lambda: stored(wanted.out / "documents"))
