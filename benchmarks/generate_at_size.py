"""800,000 traces of R1's lengths from an instant teacher: time, memory, disk, and going on after a kill.

    python benchmarks/generate_at_size.py --prompts 800000 --out runs/at-size

The real way in: a run's prompts.parquet, the generate stage, its ledger. Only the teacher is another: an engine in this
process that answers at once, with the words of real outputs (tests/data) and the length that it is to have. The process
is killed (SIGKILL) once half of the traces are sealed, and started again. Lengths are drawn by domain: the shares and
means of arXiv 2501.12948v2, appendix B.3.3, table 5 (804,745 samples, 5,355 tokens on the mean), log-normal around each
(sigma 0.6, ours: the paper gives no spread), none beyond 32,768. A token counts as four characters.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.engines import Reply, Request, TokenIds
from distill.files import sha256_of
from distill.ledger import LedgerReader
from distill.records import Prompt
from distill.specs import Recipe

DOMAINS = ((395_285, 6_094.2), (211_129, 7_435.7), (10_124, 4_928.8), (10_395, 2_739.0), (177_812, 1_419.8))
"""Samples and mean tokens of mathematics, code, STEM, logic and general questions."""
SIGMA = 0.6
LONGEST = 32_768
CHARACTERS = 4
REAL = Path(__file__).resolve().parent.parent / "tests" / "data" / "teacher_outputs_128.jsonl"
ROW_GROUP = 2_048
POOL_WORDS = 6_000_000
"""Words of the text from which replies are cut, drawn from those of real outputs as often as they stand there: far more
than a compressor looks back, so that it finds about what it finds in real text."""


class Instant:
    """An Engine that answers at once; the same request gets the same reply."""

    name = "instant"

    def __init__(self) -> None:
        texts = [json.loads(line)["text"] for line in REAL.read_text(encoding="utf-8").splitlines()]
        words = [word for text in texts for word in text.split(" ")]
        self.text = " ".join(random.Random(1).choices(words, k=POOL_WORDS))
        self.shares, self.means = [share for share, _ in DOMAINS], [mean for _, mean in DOMAINS]

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    async def probe(self) -> None:
        return

    async def progress(self) -> float | None:
        return None

    async def check_continuation(self) -> None:
        return

    async def complete(self, request: Request) -> Reply:
        draw = random.Random(request.seed)
        (mean,) = draw.choices(self.means, self.shares)
        tokens = max(16, min(LONGEST, round(draw.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA))))
        start = draw.randrange(len(self.text) - LONGEST * CHARACTERS)
        body = self.text[start : start + tokens * CHARACTERS - 100]
        cut = tokens == LONGEST
        ids = TokenIds((1,) * 60, tuple(range(tokens))) if cut and request.token_ids else None
        ending = "" if cut else "\n</think>\n\nThe answer is \\boxed{7}."
        return Reply(body + ending, "length" if cut else "stop", self.name, None, 60, tokens, token_ids=ids)


def write_prompts(path: Path, count: int) -> None:
    """So many prompts of about the length of GSM8K's, in row groups as the prompts stage writes them."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, Prompt.schema(), compression="zstd") as writer:
        for first in range(0, count, ROW_GROUP):
            rows = range(first, min(count, first + ROW_GROUP))
            asked = (Prompt(f"Problem {n}: {sha256_of(n) * 4}", id=f"p{n}", kind="math", answer="7") for n in rows)
            writer.write_table(Prompt.table(asked))


def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "at-size",
            "seed": 1,
            "teacher": "deepseek-r1",
            "generate": {"engine": "openai", "url": "http://127.0.0.1:1/v1", "concurrency": 256},
            "filter": {"checks": ["finished", "think_format", "duplicate"]},
        }
    )


def child(out: Path) -> None:
    """One start of the generate stage; prints a JSON line whenever a thousand are there, and one at its end."""
    from distill.generate import stage
    from distill.rundir import RunDir
    from distill.sampling.fleet import Fleet, FleetLimits

    begun = time.monotonic()
    first: list[float] = []

    class Noting(Instant):
        async def complete(self, request: Request) -> Reply:
            if not first:
                first.append(time.monotonic() - begun)
                tell(first=first[0])
            return await super().complete(request)

    vars(stage)["fleet_for"] = lambda *_: Fleet([Noting()], FleetLimits(256, 256))
    report = stage.run(recipe(), RunDir(out))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    tell(seconds=time.monotonic() - begun, peak_mb=peak, cpu_seconds=cpu, counts=report.counts, lines=report.lines)


def tell(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--out", str(out), "--child"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def lines_of(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def peak_of(pid: int) -> float:
    """Peak resident memory of a living process in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def rows_there(folder: Path) -> int:
    """Traces in sealed parts, by their footers."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(part).num_rows for part in folder.glob("part-*.parquet"))


def measure(out: Path, count: int) -> dict[str, Any]:
    if out.exists():
        raise SystemExit(f"{out} exists: give another --out, or remove it")
    begun = time.monotonic()
    write_prompts(out / "prompts.parquet", count)
    found: dict[str, Any] = {"prompts": count, "prompts_seconds": time.monotonic() - begun}
    begun = time.monotonic()
    process = start(out)
    peaks = []
    while process.poll() is None and rows_there(out / "traces") < count / 2:
        time.sleep(count / 100_000)
        peaks.append(peak_of(process.pid))
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = rows_there(out / "traces")
    found |= {"until_kill_seconds": time.monotonic() - begun, "there_at_kill": there, "peak_mb_first": max(peaks)}
    for values in lines_of(started := start(out)):
        found |= {"until_first_request": values["first"]} if "first" in values else values
    started.wait()
    found["disk_gb"] = bytes_of(out / "traces") / 1e9
    keys = [key for (key,) in LedgerReader(out / "traces").fields("key")]
    found["missing"], found["doubled"] = count - len(set(keys)), len(keys) - len(set(keys))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=800_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help="leave the run there")
    options = parser.parse_args()
    if options.child:
        child(options.out)
        return
    found = measure(options.out, options.prompts)
    print(json.dumps(found, indent=2))
    rate = (options.prompts - found["there_at_kill"]) / (found["seconds"] - found.get("until_first_request", 0))
    print(f"{rate:.0f} traces/s on {os.cpu_count()} cores")
    if not options.keep:
        shutil.rmtree(options.out)


if __name__ == "__main__":
    main()
