"""Tokens per second of `distill generate` beside the bare loop, on a real vLLM server.

Both ask GSM8K's questions with the same seeds and settings, so that the model writes the same. They take turns in ABBA
order, each in a fresh process, after one run of distill that is not counted: it warms the server up, and its ledger
tells the seeds. The server keeps no prefix cache (`--no-enable-prefix-caching`), so nobody profits from who came first.
A relay in front of it keeps the time, the same way for both: from the first request to the last byte of a reply.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from contestants import BARE, CHECKOUT, CONTESTANTS, DISTILL, PREPARING, SEEDS, Settings, run
from relay import Noted, Relay

from distill.hardware import bfloat16_in_hardware

BAR = 0.95
QUESTIONS = CHECKOUT / "tests" / "data" / "gsm8k_200.jsonl"
NAME = "smollm2"


@dataclass(frozen=True, slots=True)
class Pair:
    """Tokens per second of both in one pair, and the completion tokens that each got."""

    distill: float
    bare: float
    distill_tokens: int
    bare_tokens: int

    @property
    def ratio(self) -> float:
        return self.distill / self.bare


def verdicts(pairs: list[Pair]) -> dict[str, bool]:
    reached = statistics.median(pair.ratio for pair in pairs)
    return {f"distill has {reached:.3f} of the bare loop's tokens/s, wanted {BAR}": reached >= BAR}


def table(pairs: list[Pair]) -> list[str]:
    lines = [f"{'pair':<6}{'distill':>12}{'bare':>12}{'ratio':>9}   tokens"]
    for number, pair in enumerate(pairs, 1):
        tokens = f"{pair.distill_tokens} and {pair.bare_tokens}"
        lines.append(f"{number:<6}{pair.distill:>12.1f}{pair.bare:>12.1f}{pair.ratio:>9.3f}   {tokens}")
    return lines


def turns(pair: int) -> tuple[str, str]:
    """Who is first in a pair: distill, bare; bare, distill; and so on."""
    return (DISTILL, BARE) if pair % 2 == 0 else (BARE, DISTILL)


def write_questions(file: Path, count: int) -> None:
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()][:count]
    if len(rows) < count:
        raise SystemExit(f"{QUESTIONS.name} has {len(rows)} questions")
    asked = [{"id": f"gsm8k-{n}", "question": row["question"], "kind": "open"} for n, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")


def compare(model: Path, pairs: int, prompts: int, in_flight: int, max_tokens: int) -> list[Pair]:
    """`pairs` pairs, after one run that does not count."""
    sys.path.insert(0, str(CHECKOUT / "tests"))
    from vllm_server import vllm_server  # type: ignore[import-not-found]

    dtype = "auto" if bfloat16_in_hardware() else "float32"
    options = ("--no-enable-prefix-caching", "--max-num-seqs", str(in_flight), "--dtype", dtype)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = folder / "prompts.jsonl"
        write_questions(file, prompts)
        with vllm_server(model, NAME, folder / "vllm.log", *options) as url, Relay(urlsplit(url).port or 0) as relay:
            settings = Settings(f"http://127.0.0.1:{relay.port}/v1", file, in_flight, max_tokens, NAME)
            return take_turns(folder, settings, {DISTILL: relay, BARE: relay}, pairs)


def take_turns(folder: Path, settings: Settings, relays: Mapping[str, Relay], pairs: int) -> list[Pair]:
    """`pairs` pairs of what `settings` ask, each contestant behind the relay of its name."""
    prompts = len(settings.prompts.read_text(encoding="utf-8").splitlines())
    ready, warm = folder / "ready" / "out", folder / "warm" / "out"
    run(PREPARING, settings, ready)
    shutil.copytree(ready, warm)
    run(CONTESTANTS[DISTILL], settings, warm)
    run(SEEDS, settings, warm)
    bare = replace(settings, prompts=warm / "asked.jsonl", url=f"http://127.0.0.1:{relays[BARE].port}/v1")
    if relays[BARE] is not relays[DISTILL]:
        run(CONTESTANTS[BARE], bare, folder / "warm-bare" / "out")
    found = []
    for pair in range(pairs):
        rates, tokens = {}, {}
        for name in turns(pair):
            relay, out = relays[name], folder / f"pair-{pair}-{name.partition(' ')[0]}" / "out"
            if name == DISTILL:
                shutil.copytree(ready, out)
            relay.noted = Noted()
            told = run(CONTESTANTS[name], settings if name == DISTILL else bare, out)
            if not told["stored"] == relay.noted.requests == prompts:
                raise RuntimeError(f"{name}: {prompts} wanted, {told['stored']} stored, {relay.noted}")
            tokens[name] = told["completion_tokens"]
            rates[name] = tokens[name] / relay.noted.seconds
            print(f"pair {pair + 1}, {name}: {rates[name]:.1f} tokens/s", flush=True)
        found.append(Pair(rates[DISTILL], rates[BARE], tokens[DISTILL], tokens[BARE]))
    return found
