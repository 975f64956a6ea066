"""Requests per second of `distill generate` beside a bare aiohttp loop, AsyncOpenAI, Curator and datatrove, in one run.

    make bench-peers                                           # once: the peers' own environment, .venv-peers
    python benchmarks/generate.py --json generate.json
    python benchmarks/generate.py vllm --model .cache/smollm2  # tokens/s beside the bare loop on a real vLLM server

Every contestant asks the same prompts of one local server that answers after 50 ms, in a fresh process on a core of its
own; the server has another core. The server keeps the time for all of them: from the first request's arrival to the
last reply. CPU seconds are those of the process in that time, and of the whole process with its start; peak memory is
that of the process. A round is every contestant once, in an order that moves on by one; ratios are taken within rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PEERS = Path(__file__).resolve().parent / "generate_peers"
sys.path.insert(0, str(PEERS))
import on_vllm  # noqa: E402
from asking import MAX_TOKENS, MODEL  # noqa: E402
from contestants import (  # noqa: E402
    APART,
    BARE,
    CONTESTANTS,
    DISTILL,
    OPENAI,
    OWN,
    PREPARING,
    Contestant,
    Settings,
    finish,
    require,
    run,
    start,
)

USUAL = tuple(name for name in CONTESTANTS if name != "bare aiohttp on uvloop")
BARS = {BARE: 0.7, "Curator": 3.0, "datatrove": 3.0}
"""Contestant → at least so many times its requests/s for distill."""
PACKAGES = ("aiohttp", "openai", "bespokelabs-curator", "datatrove")


@dataclass(frozen=True, slots=True)
class Run:
    """What one contestant took. Seconds and CPU seconds are of the sampling, `process_` ones of the whole process."""

    rate: float
    seconds: float
    cpu_seconds: float
    process_seconds: float
    process_cpu_seconds: float
    peak_mb: float
    server_cpu_seconds: float


def ratio(rounds: list[dict[str, Run]], name: str, other: str) -> float:
    """The median over rounds of the ratio of one contestant's rate to another's."""
    return statistics.median(each[name].rate / each[other].rate for each in rounds)


def verdicts(rounds: list[dict[str, Run]]) -> dict[str, bool]:
    """A line for every bar whose contestants ran → whether distill passes it."""
    found = {}
    for other, bar in BARS.items():
        if {DISTILL, other} <= rounds[0].keys():
            reached = ratio(rounds, DISTILL, other)
            found[f"distill has {reached:.2f} times the requests/s of {other}, wanted {bar}"] = reached >= bar
    return found


def order(names: list[str], turn: int) -> list[str]:
    """The contestants of a round, moved on by one from round to round."""
    place = turn % len(names)
    return names[place:] + names[:place]


def table(rounds: list[dict[str, Run]]) -> list[str]:
    titles = ("requests/s", "x bare", "CPU s", "process s", "its CPU s", "peak MB", "server busy")
    lines = [" " * 26 + "".join(f"{title:>12}" for title in titles)]
    for name in sorted(rounds[0], key=list(CONTESTANTS).index):
        runs = [each[name] for each in rounds]
        fields = ("rate", "cpu_seconds", "process_seconds", "process_cpu_seconds", "peak_mb")
        rate, cpu, process, process_cpu, peak = (statistics.median(getattr(r, field) for r in runs) for field in fields)
        bare = f"{ratio(rounds, name, BARE):.2f}" if BARE in rounds[0] else "-"
        busy = statistics.median(r.server_cpu_seconds / r.seconds for r in runs)
        figures = (f"{rate:.0f}", bare, f"{cpu:.2f}", f"{process:.1f}", f"{process_cpu:.1f}", f"{peak:.0f}")
        lines.append(f"{name:<26}" + "".join(f"{figure:>12}" for figure in (*figures, f"{busy:.0%}")))
    return lines


# --- measuring ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(delay: float, core: int | None) -> Iterator[str]:
    """The address of a slow server while the block lasts."""
    command = [sys.executable, str(PEERS / "slow_server.py"), "--delay", str(delay)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


def ask(address: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body is not None else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(address, data), timeout=10) as response:  # noqa: S310  # our own server
        told: dict[str, Any] = json.load(response)
        return told


def measure(contestant: Contestant, settings: Settings, out: Path, wanted: int) -> Run:
    """One contestant's run. Raises RuntimeError when the server or the contestant counts another number of replies."""
    address = settings.url.removesuffix("/v1")
    began = time.time()
    process = start(contestant, settings, out)
    ask(f"{address}/begin", {"expected": wanted, "pid": process.pid})  # long before an interpreter has started
    own = finish(process, out)
    told = ask(f"{address}/measured")
    if not told["requests"] == told["replies"] == own["stored"] == wanted:
        raise RuntimeError(f"{contestant}: {wanted} wanted, {own['stored']} stored; the server says {told}")
    return Run(
        rate=wanted / told["seconds"],
        seconds=told["seconds"],
        cpu_seconds=told["cpu_seconds"],
        process_seconds=own["ended"] - began,
        process_cpu_seconds=own["cpu_seconds"],
        peak_mb=own["peak_mb"],
        server_cpu_seconds=told["server_cpu_seconds"],
    )


def write_prompts(file: Path, count: int) -> None:
    """Different questions of about 200 characters."""
    draw = random.Random(1)
    with file.open("w", encoding="utf-8") as lines:
        for n in range(count):
            boxes, each, kept = draw.randint(2, 99), draw.randint(2, 99), draw.randint(2, 999)
            question = f"On sheet {n + 1} a shop has {boxes} boxes with {each} pencils in each of them, and {kept} "
            question += "more on the shelf. It sells half of its boxes, unopened. How many pencils are left there?"
            lines.write(json.dumps({"id": f"sheet-{n + 1}", "question": question, "kind": "open"}) + "\n")


def compare(names: list[str], runs: int, prompts: int, in_flight: int, delay: float) -> list[dict[str, Run]]:
    """The rounds, each contestant → its run."""
    cores: list[int | None] = [*sorted(os.sched_getaffinity(0))]
    server_core, client_core = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    rounds: list[dict[str, Run]] = []
    with tempfile.TemporaryDirectory() as place, server(delay, server_core) as address:
        folder = Path(place)
        write_prompts(folder / "prompts.jsonl", prompts)
        settings = Settings(f"{address}/v1", folder / "prompts.jsonl", in_flight, MAX_TOKENS, MODEL, client_core)
        ready = folder / "ready" / "out"
        if DISTILL in names:
            run(PREPARING, settings, ready)
        for turn in range(runs):
            found = {}
            for name in order(names, turn):
                out = folder / f"run-{turn}-{list(CONTESTANTS).index(name)}" / "out"
                if name == DISTILL:
                    shutil.copytree(ready, out)
                found[name] = measure(CONTESTANTS[name], settings, out, prompts)
                shutil.rmtree(out.parent)
                print(f"round {turn + 1}, {name}: {found[name].rate:.0f} requests/s", flush=True)
            rounds.append(found)
    return rounds


# --- the report --------------------------------------------------------------------------------------------------


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {models[0] if models else platform.processor() or 'unknown'}, {platform.system()}"


def versions(python: Path) -> dict[str, str]:
    """Of the interpreter and of the contestants' packages, as far as they are in its environment."""
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {d.metadata['Name']: d.version for d in m.distributions()}\n"
        "named = {name: found[name] for name in sys.argv[1:] if name in found}\n"
        "print(json.dumps({'python': platform.python_version(), **named}))"
    )
    output = subprocess.run([str(python), "-c", code, *PACKAGES], capture_output=True, text=True, check=True).stdout
    told: dict[str, str] = json.loads(output)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("peers", "vllm"), default="peers")
    parser.add_argument("--only", default="", help=f"some of: {', '.join(CONTESTANTS)}")
    parser.add_argument("--runs", type=int, default=None, help="rounds (3), or pairs with vllm (5)")
    parser.add_argument("--prompts", type=int, default=None, help="5,000, with vllm 200")
    parser.add_argument("--in-flight", type=int, default=None, help="256, with vllm 64")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds until the server answers")
    parser.add_argument("--model", type=Path, default=Path(".cache/smollm2"), help="model folder, with vllm")
    parser.add_argument("--max-tokens", type=int, default=96, help="of a reply, with vllm")
    parser.add_argument("--json", type=Path, default=None, help="file for all figures")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that servers are ended too
    environments = {python.parent.parent.name: versions(python) for python in (OWN, APART, OPENAI) if python.is_file()}
    figures: dict[str, Any] = {"machine": machine(), "versions": environments, "load": os.getloadavg()[0]}
    print(f"{figures['machine']}; load {figures['load']:.1f}; {json.dumps(environments)}", flush=True)
    if options.what == "vllm":
        limits = (options.runs or 5, options.prompts or 200, options.in_flight or 64, options.max_tokens)
        found = on_vllm.compare(options.model, *limits)
        lines, passed, figures["pairs"] = on_vllm.table(found), on_vllm.verdicts(found), [asdict(p) for p in found]
    else:
        names = [name.strip() for name in options.only.split(",") if name.strip()] or list(USUAL)
        require(names)
        asked = (options.prompts or 5_000, options.in_flight or 256, options.delay)
        rounds = compare(names, options.runs or 3, *asked)
        lines, passed = table(rounds), verdicts(rounds)
        figures["rounds"] = [{name: asdict(run) for name, run in each.items()} for each in rounds]
    print("\n".join(["", *lines, *(f"{'passed' if met else 'FAILED'}: {line}" for line, met in passed.items())]))
    if options.json is not None:
        options.json.write_text(json.dumps({**figures, "verdicts": passed}, indent=2) + "\n", encoding="utf-8")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
