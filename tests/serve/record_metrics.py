"""Records the whole metrics page of a real vLLM server for `tests/recorded/`: after a few replies, and under load.

    python tests/serve/record_metrics.py --model .cache/smollm2 --out tests/recorded/vllm-0.32

Knows nothing of what reads the pages.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vllm_server import NAME, QUESTION, STORY, ask, vllm_server

ASKED: tuple[dict[str, Any], ...] = (
    {"messages": QUESTION, "max_tokens": 64},
    {"messages": QUESTION, "max_tokens": 64},
    {"messages": STORY, "max_tokens": 8},
)
"""One after the other: two replies that stop by themselves, one that is cut."""
AT_ONCE = 20
"""More than the 16 sequences that `vllm_server` lets a server work on."""


def page(url: str) -> str:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/metrics", timeout=60) as response:
        return str(response.read().decode())


def record(model: Path, out: Path, log: Path) -> None:
    """Writes metrics_full.txt, metrics_busy.txt and metrics_usage.json, which is what the replies say they used."""
    with vllm_server(model, NAME, log, "--dtype", "float32") as url:
        replies = [ask(f"{url}/chat/completions", {"model": NAME, "temperature": 0, **body}).body for body in ASKED]
        usage = [{"finish_reason": r["choices"][0]["finish_reason"], **r["usage"]} for r in replies]
        (out / "metrics_usage.json").write_text(json.dumps(usage, indent=2) + "\n", encoding="utf-8")
        (out / "metrics_full.txt").write_text(page(url), encoding="utf-8")
        long = {"model": NAME, "messages": STORY, "max_tokens": 400, "ignore_eos": True}
        threads = [threading.Thread(target=ask, args=(f"{url}/chat/completions", long)) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        time.sleep(4)
        (out / "metrics_busy.txt").write_text(page(url), encoding="utf-8")
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Records the metrics of a real vLLM server.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    record(options.model, options.out, options.out / "server.log")
    (options.out / "server.log").unlink()
