"""Seconds of `distill filter` beside the peers' way of doing the same, on a fixed corpus, stage by stage and in all.

    make bench-peers                       # once: the peers' own environment, .venv-peers
    python benchmarks/filter.py            # 20,000 traces, three rounds
    python benchmarks/filter.py --memory   # peak memory of `distill filter` at 20,000 and at 200,000 traces

The peers: math-verify in a plain pool; datatrove's MinHash; an 8-gram set as open-r1 has it. Every contestant is a
fresh process that reads the corpus and uses two more. A round is every contestant once, in an order that moves on by
one; the figures are medians over rounds. A peer's seconds begin when it has been imported; those of `distill filter`
are the whole command's, with all checks that it makes by default, of which the peers make three. `no text` is without
comparing answer and gold as texts before anything is parsed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE / "filter_peers"))
import filter_corpus  # noqa: E402
from process_memory import peak_of  # noqa: E402
from work import NO_TEXT, PROCESSES  # noqa: E402

APART = HERE.parent / ".venv-peers" / "bin" / "python"
FASTER, AS_FAST, MORE_MEMORY = 2.0, 1.0, 1.5
"""Bars: the peers' total by ours; the same without comparing texts; peak memory at ten times the traces."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A script of filter_peers, its way, the stage that it is compared in, and whether it is a peer."""

    script: str
    stage: str
    way: str = ""
    peer: bool = False
    no_text: bool = False


CONTESTANTS = {
    "math-verify in a pool": Contestant("math_pool.py", "math", peer=True),
    "distill's math": Contestant("pieces.py", "math", "math"),
    "distill's math, no text": Contestant("pieces.py", "math", "math", no_text=True),
    "datatrove's MinHash": Contestant("datatrove_minhash.py", "near", peer=True),
    "distill's near-duplicates": Contestant("pieces.py", "near", "near"),
    "8-gram set": Contestant("eight_grams.py", "contaminated", peer=True),
    "distill's contamination": Contestant("pieces.py", "contaminated", "contamination"),
    "distill filter": Contestant("distill_filter.py", "all"),
    "distill filter, no text": Contestant("distill_filter.py", "all", no_text=True),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What one contestant took, and how many traces it would leave out: of those planted for its stage, and others."""

    seconds: float
    planted: int
    others: int


def total(rounds: list[dict[str, Run]], names: list[str]) -> float:
    """The sum over contestants of the medians over rounds."""
    return sum(statistics.median(each[name].seconds for each in rounds) for name in names)


def verdicts(rounds: list[dict[str, Run]]) -> dict[str, bool]:
    """A line for every bar whose contestants ran → whether distill passes it."""
    peers = [name for name, who in CONTESTANTS.items() if who.peer]
    found = {}
    for ours, bar in (("distill filter", FASTER), ("distill filter, no text", AS_FAST)):
        if {*peers, ours} <= rounds[0].keys():
            reached = statistics.median(total([each], peers) / each[ours].seconds for each in rounds)
            found[f"the peers' total is {reached:.2f} times {ours}, wanted {bar}"] = reached >= bar
    return found


def order(names: list[str], turn: int) -> list[str]:
    """The contestants of a round, moved on by one from round to round."""
    place = turn % len(names)
    return names[place:] + names[:place]


def table(rounds: list[dict[str, Run]], planted: dict[str, set[str]]) -> list[str]:
    lines = [f"{'':<28}{'seconds':>10}{'found':>16}{'others':>10}"]
    for name in (name for name in CONTESTANTS if name in rounds[0]):
        one, stage = rounds[0][name], CONTESTANTS[name].stage
        told = f"{one.planted} of {len(planted[stage])}" if stage in planted else "-"
        lines.append(f"{name:<28}{total(rounds, [name]):>10.1f}{told:>16}{one.others:>10}")
    return lines


# --- measuring ---------------------------------------------------------------------------------------------------


def start(name: str, corpus: Path) -> subprocess.Popen[str]:
    """The contestant's process; errors go to a file of its name beside the corpus."""
    who = CONTESTANTS[name]
    python = APART if who.script.startswith("datatrove") else Path(sys.executable)
    words = [str(python), str(HERE / "filter_peers" / who.script), "--corpus", str(corpus), "--way", who.way]
    path = "" if python == APART else str(HERE.parent)
    environment = {**os.environ, "PYTHONPATH": path, NO_TEXT: "1" if who.no_text else "", "OMP_NUM_THREADS": "1"}
    with (corpus / "errors.txt").open("w", encoding="utf-8") as errors:
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)


def finished(process: subprocess.Popen[str], corpus: Path) -> str:
    """Its output. Raises RuntimeError with the end of its errors when it failed."""
    output, _ = process.communicate()
    if process.returncode:
        errors = (corpus / "errors.txt").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{errors[-3_000:]}")
    return output


def measure(name: str, corpus: Path, planted: dict[str, set[str]]) -> Run:
    began = time.perf_counter()
    output = finished(start(name, corpus), corpus)
    if CONTESTANTS[name].stage == "all":
        return Run(time.perf_counter() - began, 0, left_out(corpus / "filtered"))
    told = json.loads(output.splitlines()[-1])
    wanted = planted[CONTESTANTS[name].stage]
    return Run(told["seconds"], len(wanted.intersection(told["found"])), len(set(told["found"]) - wanted))


def left_out(run: Path) -> int:
    counts: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    told = counts["stages"]["filter"]["counts"]
    return int(told["traces"]) - int(told["kept"])


def prepared(folder: Path, count: int, questions: Path) -> dict[str, set[str]]:
    """Writes the corpus and the run; returns stage → ids of the traces that a contestant should leave out."""
    print(f"corpus: {json.dumps(filter_corpus.write(folder, count, questions))}", flush=True)
    words = [sys.executable, str(HERE / "filter_peers" / "distill_filter.py"), "--corpus", str(folder)]
    subprocess.run([*words, "--way", "prepare"], env={**os.environ, "PYTHONPATH": str(HERE.parent)}, check=True)
    found: dict[str, set[str]] = {"math": set(), "near": set(), "contaminated": set()}
    for row in filter_corpus.read(folder):
        if row["planted"]:
            found[row["planted"]].add(row["id"])
        if not row["right"]:
            found["math"].add(row["id"])
    return found


def compare(names: list[str], runs: int, count: int, questions: Path) -> list[str]:
    """Prints and returns the lines of the report; those of bars that were not reached begin with FAILED."""
    with tempfile.TemporaryDirectory() as place:
        corpus, rounds = Path(place), []
        planted = prepared(corpus, count, questions)
        for turn in range(runs):
            found = {}
            for name in order(names, turn):
                found[name] = measure(name, corpus, planted)
                print(f"round {turn + 1}, {name}: {found[name].seconds:.1f} s", flush=True)
            rounds.append(found)
    print(json.dumps([{name: asdict(run) for name, run in each.items()} for each in rounds]), file=sys.stderr)
    marks = {True: "passed", False: "FAILED"}
    return [*table(rounds, planted), *(f"{marks[met]}: {line}" for line, met in verdicts(rounds).items())]


# --- memory --------------------------------------------------------------------------------------------------------


def memory(count: int, questions: Path) -> list[str]:
    """`distill filter` on `count` traces and on ten times as many."""
    peaks = []
    for size in (count, 10 * count):
        with tempfile.TemporaryDirectory() as place:
            prepared(Path(place), size, questions)
            process = start("distill filter", Path(place))
            peaks.append(peak_of(process))
            finished(process, Path(place))
        print(f"{size:,} traces: {peaks[-1] / 1e6:,.0f} MB", flush=True)
    ratio = peaks[1] / peaks[0]
    mark = "passed" if ratio <= MORE_MEMORY else "FAILED"
    return [
        f"{mark}: peak memory at {10 * count:,} traces is {ratio:.2f} times that at {count:,}, at most {MORE_MEMORY}"
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="traces")
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    parser.add_argument("--only", default="", help=f"some of: {'; '.join(CONTESTANTS)}")
    parser.add_argument("--questions", type=Path, default=filter_corpus.QUESTIONS, help="a file with GSM8K's columns")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    options = parser.parse_args()
    names = [name.strip() for name in options.only.split(";") if name.strip()] or list(CONTESTANTS)
    if unknown := set(names) - set(CONTESTANTS):
        raise SystemExit(f"no such contestant: {', '.join(sorted(unknown))}; there are {'; '.join(CONTESTANTS)}")
    if not APART.is_file() and "datatrove's MinHash" in names and not options.memory:
        raise SystemExit("the peers are not installed: run `make bench-peers`, or name others with --only")
    cores = f"{os.cpu_count()} cores, {PROCESSES} processes, load {os.getloadavg()[0]:.1f}"
    print(f"{cores}, Python {sys.version.split()[0]}", flush=True)
    if options.memory:
        lines = memory(options.count, options.questions)
    else:
        lines = compare(names, options.runs, options.count, options.questions)
    print("\n".join(["", *lines]))
    return 1 if any(line.startswith("FAILED") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
