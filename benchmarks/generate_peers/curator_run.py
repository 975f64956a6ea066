"""bespokelabs-curator's online processor on an OpenAI-compatible server, its limits raised out of the way.

Cache, viewer and telemetry are off, by the variables that it reads when it is imported. Its `openai` backend is the one
that speaks aiohttp itself; a request of its own cannot have its own seed, so all have the same.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from asking import Job, job, tell

LITELLM = importlib.util.find_spec("litellm")
assert LITELLM is not None
assert LITELLM.origin is not None
os.environ |= {
    "CURATOR_DISABLE_CACHE": "1",
    "CURATOR_VIEWER": "0",
    "TELEMETRY_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    # it counts tokens with tiktoken, whose vocabulary litellm brings along; without this it would be fetched
    "TIKTOKEN_CACHE_DIR": str(Path(LITELLM.origin).parent / "litellm_core_utils" / "tokenizers"),
}
from bespokelabs import curator  # type: ignore[import-not-found]  # noqa: E402  # reads the variables above

UNLIMITED = 10**9
"""Requests and tokens a minute: so many that its limiter never waits."""


class Asker(curator.LLM):  # type: ignore[misc]
    def prompt(self, row: dict[str, Any]) -> str:
        text: str = row["question"]
        return text

    def parse(self, row: dict[str, Any], response: str) -> dict[str, Any]:
        return {"id": row["id"], "text": response}


def run(job: Job) -> None:
    settings = job.settings()
    asker = Asker(
        model_name=settings.pop("model"),
        backend="openai",
        generation_params={**settings, "seed": 1},
        backend_params={
            "base_url": job.url,
            "api_key": "none",
            "max_requests_per_minute": UNLIMITED,
            "max_tokens_per_minute": UNLIMITED * 1_000,
            "max_concurrent_requests": job.in_flight,
            "require_all_responses": True,
        },
    )
    asker([{"id": asked.id, "question": asked.question} for asked in job.prompts], working_dir=str(job.out))


def stored(folder: Path) -> tuple[int, int]:
    """(rows with a reply, completion tokens of them)."""
    rows, tokens = set(), 0
    for path in folder.glob("*/responses_*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert row["response_message"], line[:500]
            rows.add(row["generic_request"]["original_row_idx"])
            tokens += row["token_usage"]["output"]
    return len(rows), tokens


if __name__ == "__main__":
    wanted = job()
    run(wanted)
    tell(lambda: stored(wanted.out))
