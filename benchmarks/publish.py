"""Bytes per second of a publication beside huggingface_hub's own upload_folder, on a Hub on loopback, in one run.

    python benchmarks/publish.py                       # 1 GB in 8 shards, five pairs
    python benchmarks/publish.py --shards 4 --megabytes 64 --pairs 1

Both upload the same model folder by LFS into an empty repository: distill hashes, gathers on a branch, verifies, shows
and tags; the client uploads and commits. Each upload is a fresh process that keeps its own time, without the imports;
the Hub is a process of its own. The order turns from pair to pair (ABBA); the ratio is taken within pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOKEN = "hf_" + "a" * 34
SERVER = """
import sys, time
from pathlib import Path
from upload_hub import person, serving
with serving(Path(sys.argv[1]), {sys.argv[2]: person("someone")}, 16 * 2**20) as hub:
    print(hub.url, flush=True)
    time.sleep(86_400)
"""
CONTESTANTS = ("distill", "upload_folder")


def material(folder: Path, shards: int, megabytes: int) -> None:
    """A model folder of random bytes: nothing is the same twice, nothing compresses."""
    draw = random.Random(1)
    folder.mkdir()
    for number in range(1, shards + 1):
        (folder / f"model-{number:05d}-of-{shards:05d}.safetensors").write_bytes(draw.randbytes(megabytes * 10**6))
    (folder / "config.json").write_text("{}\n")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# x\n")


def upload(contestant: str, folder: Path, url: str) -> dict[str, float]:
    """Seconds, CPU seconds and peak memory of one upload; run in a process of its own."""
    from huggingface_hub import HfApi

    from distill.publish.publication import File, Part, Publication, in_order
    from distill.publish.transaction import Transaction

    api = HfApi(endpoint=url, token=TOKEN)
    started, cpu = time.monotonic(), time.process_time()
    if contestant == "distill":
        files = [File.of(path.name, path) for path in sorted(folder.iterdir())]
        files.append(File.of("lineage.json", b'{"run": "x"}'))
        Transaction(api, Publication("x", (Part("someone/x", "model", "student", in_order(files)),))).run(public=False)
    else:
        api.create_repo("someone/x", private=True)
        api.upload_folder(repo_id="someone/x", folder_path=folder)
    return {
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


@contextmanager
def hub(place: Path) -> Iterator[str]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "tests")}
    command = [sys.executable, "-c", SERVER, str(place), TOKEN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(place, ignore_errors=True)


def once(contestant: str, folder: Path, work: Path) -> dict[str, float]:
    with hub(work / "hub") as url:
        environment = {
            **os.environ,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
        }
        command = [sys.executable, __file__, "--contestant", contestant, "--folder", str(folder), "--url", url]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(ended.stderr[-2_000:])
        found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=128, help="of each shard")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        print(json.dumps(upload(given.contestant, given.folder, given.url)))
        return
    size = given.shards * given.megabytes
    print(
        f"{size} MB in {given.shards} shards, {os.cpu_count()} CPUs of {platform.machine()}, "
        f"Python {platform.python_version()}"
    )
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        material(work / "model", given.shards, given.megabytes)
        for pair in range(given.pairs):
            for name in CONTESTANTS if pair % 2 == 0 else CONTESTANTS[::-1]:
                found[name].append(once(name, work / "model", work))
            told: dict[str, Any] = {name: found[name][-1] for name in CONTESTANTS}
            print(
                f"pair {pair + 1}: "
                + ", ".join(f"{name} {size / one['seconds']:.0f} MB/s" for name, one in told.items())
            )
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(found["distill"], found["upload_folder"], strict=True)]
    for name, ones in found.items():
        rate, cpu, peak = (
            statistics.median(values)
            for values in ([size / o["seconds"] for o in ones], [o["cpu"] for o in ones], [o["peak_mb"] for o in ones])
        )
        print(f"{name:<14} {rate:7.0f} MB/s  {cpu:6.1f} s CPU  {peak:6.0f} MB peak")
    print(f"distill / upload_folder: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); bar 0.8")


if __name__ == "__main__":
    main()
