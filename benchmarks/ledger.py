"""Fills a ledger with the traces of a whole run and opens it again: time, disk and peak memory.

python benchmarks/ledger.py                                # 800,000 traces of 5,355 tokens on average, as R1's set
python benchmarks/ledger.py --traces 20000 --short         # a look: tiny texts, as many parts as the long ones make

The texts are cut from real replies (tests/data/teacher_outputs_128.jsonl), so that they compress as replies do; their
lengths are drawn from a log-normal distribution of the given mean, cut at 32,768 tokens. Printed: seconds and CPU
seconds of appending, with and without the sealing that it leaves behind, bytes on the disk, and, each in a fresh
process, how long opening takes and the peak of its memory: sealed, and with an open segment as a killed writer leaves
it. The limits are those of the issue: 5 s and 500 MB.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from distill.ledger import Ledger, LedgerReader, writer
from distill.records import Sampling, SamplingRecord, TeacherIdentity, Trace

TEXTS = Path(__file__).parents[1] / "tests" / "data" / "teacher_outputs_128.jsonl"
CHARACTERS_PER_TOKEN = 4
LONGEST, SPREAD = 32_768, 0.9
"""Tokens of R1's limit, and sigma of the logarithm of the lengths."""
BYTES_A_TRACE = 45_000
"""Of JSON, for a trace of the mean length of R1's set: by this many parts are made of short ones."""
SECONDS, MEGABYTES = 5.0, 500.0


def traces(count: int, mean: float, first: int = 0) -> Iterator[Trace]:
    """Traces of about `mean` tokens; the same for the same numbers."""
    replies = [json.loads(line)["text"] for line in TEXTS.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(first)
    rng.shuffle(replies)
    book = "\n\n".join(replies)
    book *= 1 + 2 * LONGEST * CHARACTERS_PER_TOKEN // len(book)
    teacher = TeacherIdentity("deepseek-ai/DeepSeek-R1", "main")
    sampling = SamplingRecord(Sampling(temperature=0.6, top_p=0.95, seed=1))
    for number in range(first, first + count):
        drawn = int(rng.lognormvariate(math.log(mean) - SPREAD**2 / 2, SPREAD))
        tokens = min(LONGEST, max(2, drawn))
        start = rng.randrange(len(book) // 2)
        text = book[start : start + tokens * CHARACTERS_PER_TOKEN]
        split = len(text) * 4 // 5
        finish, key = "length" if drawn >= LONGEST else "stop", sha256(str(number).encode()).hexdigest()
        yield Trace(
            key=key,
            asked=sha256(key.encode()).hexdigest(),
            prompt_id=key[:16],
            sample=0,
            raw=f"{text[:split]}\n</think>\n\n{text[split:]}",
            finish_reason="length" if finish == "length" else "stop",
            teacher=teacher,
            sampling=sampling,
            reasoning=text[:split].strip(),
            answer=text[split:].strip(),
            prompt_tokens=rng.randrange(50, 400),
            completion_tokens=tokens,
            max_tokens=LONGEST,
            seed=number,
            endpoint="http://127.0.0.1:8000/v1",
            created="2026-01-01T00:00:00.000+00:00",
        )


def fill(folder: Path, count: int, mean: float) -> None:
    making = time.perf_counter()
    for _ in traces(min(count, 2_000), mean):
        pass
    making = (time.perf_counter() - making) / min(count, 2_000) * count
    start, used = time.perf_counter(), time.process_time()
    slowest, size = 0.0, 0
    with Ledger(folder) as ledger:
        for trace in traces(count, mean):
            began = time.perf_counter()
            ledger.append(trace)
            slowest = max(slowest, time.perf_counter() - began)
            size += len(trace.raw)
        appended = time.perf_counter() - start
    closed, used = time.perf_counter() - start, time.process_time() - used
    disk = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{count} traces, {size / count:.0f} characters each, {len(LedgerReader(folder).parts())} parts")
    print(
        f"appending: {appended:.1f} s, of which about {making:.1f} s to make the traces; longest {slowest * 1e3:.0f} ms"
    )
    print(f"with the last sealing: {closed:.1f} s; CPU in all {used:.1f} s, {used / count * 1e6:.0f} µs a trace")
    print(f"on the disk: {disk / 2**20:.0f} MiB, {disk / count:.0f} bytes a trace; peak {peak():.0f} MB")


def peak() -> float:
    """Megabytes of this process at their most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000


def opened(folder: Path) -> None:
    start, used = time.perf_counter(), time.process_time()
    ledger = Ledger(folder)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    kept = ledger.index()
    print(f"{len(kept)} traces, {ledger.tokens} tokens: {seconds:.2f} s ({used:.2f} CPU s), peak {peak():.0f} MB")
    ledger.close()


def killed(folder: Path, count: int, mean: float) -> None:
    """Appends and dies with the segment open."""
    writer.SEAL_BYTES = 2**40
    ledger = Ledger(folder)
    size = 0
    for trace in traces(10**9, mean, first=count):
        ledger.append(trace)
        size += 2 * len(trace.raw) + 1_500
        if size >= 64 * 2**20:
            break
    print(f"an open segment of {ledger.segments()[0].stat().st_size / 2**20:.0f} MiB more")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=800_000)
    parser.add_argument("--tokens", type=float, default=5_355, help="mean of a reply")
    parser.add_argument("--short", action="store_true", help="tiny texts; parts as many as of long ones")
    parser.add_argument("--out", type=Path, help="where the ledger is written; a temporary folder by default")
    parser.add_argument("--step", choices=("fill", "open", "kill"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    mean = 20.0 if given.short else given.tokens
    if given.short:
        writer.SEAL_BYTES = int(writer.SEAL_BYTES * 1_300 / BYTES_A_TRACE)
    if given.step:
        steps = {"fill": lambda: fill(given.out, given.traces, mean), "open": lambda: opened(given.out)}
        steps.get(given.step, lambda: killed(given.out, given.traces, mean))()
        return 0
    with tempfile.TemporaryDirectory(dir=given.out) as folder:
        command = [sys.executable, __file__, "--traces", str(given.traces), "--tokens", str(given.tokens)]
        command += ["--out", f"{folder}/traces", *(["--short"] if given.short else [])]
        for step in ("fill", "open", "kill", "open"):
            print(f"--- {step}", flush=True)
            subprocess.run([*command, "--step", step], check=step != "kill")
    print(f"limits of opening: {SECONDS:.0f} s, {MEGABYTES:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
