"""Tokens per second through `distill serve` and `distill generate` beside a bare vLLM server under a bare client.

    python benchmarks/serve.py --model .cache/smollm2 --json serve.json

Two servers run all the time with the same vLLM command: one is supervised by `distill serve`, its metrics read and its
page up; the other is started by hand. GSM8K's questions, the same seeds and settings, so that both write the same. The
two sides take turns in ABBA order, each client in a fresh process; a relay before each server keeps the time, from the
first request to the last byte of a reply. Ratios are taken within pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "generate_peers"), str(HERE.parent / "tests")]
from contestants import BARE, DISTILL, Settings  # noqa: E402
from on_vllm import BAR, Pair, take_turns, write_questions  # noqa: E402
from on_vllm import table as table_of  # noqa: E402
from relay import Relay  # noqa: E402
from vllm_server import end, free_port, wait_until_ready  # type: ignore[import-not-found]  # noqa: E402

TEACHER = "smollm2-135m-instruct"
READY_SECONDS = 480.0


def command(model: Path, in_flight: int, *more: str) -> list[str]:
    """`distill serve` as it is measured; without a prefix cache, so that nobody profits from who came first."""
    settings = {"serve.max_num_seqs": in_flight, "serve.arguments": '["--no-enable-prefix-caching"]'}
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "distill.cli", "serve", TEACHER, "--model", str(model), *changes, *more]


@contextlib.contextmanager
def supervised(model: Path, in_flight: int, folder: Path) -> Iterator[int]:
    """The port of the supervised server."""
    endpoints = folder / "service" / "endpoints.json"
    with (folder / "service.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command(model, in_flight, "--out", str(folder / "service")), stderr=log)
        try:
            limit = time.monotonic() + READY_SECONDS
            while not (endpoints.is_file() and json.loads(endpoints.read_text(encoding="utf-8"))["endpoints"]):
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError((folder / "service.log").read_text(encoding="utf-8"))
                time.sleep(0.5)
            yield urlsplit(json.loads(endpoints.read_text(encoding="utf-8"))["endpoints"][0]["url"]).port or 0
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


@contextlib.contextmanager
def by_hand(model: Path, in_flight: int, folder: Path) -> Iterator[int]:
    """The port of a server started with the command that a dry run prints."""
    told = subprocess.run(
        command(model, in_flight, "--dry-run", "--json"), capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, Any] = json.loads(told)["commands"][0]
    port, words = free_port(), list(found["arguments"])
    words[words.index("--port") + 1] = str(port)
    # the same cores: left to itself vLLM keeps one free, and is a third slower on two
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    found["environment"]["VLLM_CPU_OMP_THREADS_BIND"] = cores
    log = folder / "by-hand.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, env={**os.environ, **found["environment"]}, stdout=output, stderr=output, start_new_session=True
        )
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}/v1", TEACHER, None, log, READY_SECONDS)
            yield port
        finally:
            end(process)


def compare(model: Path, pairs: int, prompts: int, in_flight: int, max_tokens: int) -> list[Pair]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = folder / "prompts.jsonl"
        write_questions(file, prompts)
        with (
            supervised(model, in_flight, folder) as ours,
            by_hand(model, in_flight, folder) as theirs,
            Relay(ours) as relay,
            Relay(theirs) as bare,
        ):
            settings = Settings(f"http://127.0.0.1:{relay.port}/v1", file, in_flight, max_tokens, TEACHER)
            return take_turns(folder, settings, {DISTILL: relay, BARE: bare}, pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path(".cache/smollm2"))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--in-flight", type=int, default=48)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = compare(options.model.resolve(), options.pairs, options.prompts, options.in_flight, options.max_tokens)
    reached = statistics.median(pair.ratio for pair in found)
    print("\n".join(table_of(found)))
    print(f"through the service and generate: {reached:.3f} of the bare server's tokens/s (bar {BAR})")
    if options.json is not None:
        figures = {"machine": platform.platform(), "cores": os.cpu_count(), "pairs": [asdict(pair) for pair in found]}
        options.json.write_text(json.dumps({**figures, "ratio": reached}, indent=2) + "\n", encoding="utf-8")
    return 0 if reached >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
