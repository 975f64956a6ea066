"""A student of 70B published to a Hub on loopback, killed half-way and started again: memory, time, what went twice.

    python benchmarks/publish_at_size.py                          # 141 GB in 30 shards, as Llama 70B has them
    python benchmarks/publish_at_size.py --shards 4 --megabytes 500

The shards are files with holes, each with a beginning of its own, so that no disk of that size is needed; every byte
is read, hashed and sent. The Hub hashes what arrives and keeps nothing of it. The publisher is a process of its own
that is killed (SIGKILL) when 52% of the bytes have arrived, in the middle of a shard, and then a second one goes on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
TOKEN = "hf_" + "a" * 34
REPO = "someone/seventy"
PART = 64 * 2**20


def material(folder: Path, shards: int, megabytes: int) -> None:
    folder.mkdir()
    for number in range(1, shards + 1):
        with (folder / f"model-{number:05d}-of-{shards:05d}.safetensors").open("wb") as file:
            file.write(f"shard {number}".encode())
            file.truncate(megabytes * 10**6)
    (folder / "config.json").write_text("{}\n")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# x\n")


def publish(folder: Path, url: str) -> dict[str, float]:
    """In a process of its own: seconds until everything was hashed and until the end, peak memory, what was sent."""
    from huggingface_hub import HfApi

    from distill.publish.publication import File, Part, Publication, in_order
    from distill.publish.transaction import Transaction

    started = time.monotonic()
    files = [File.of(path.name, path) for path in sorted(folder.iterdir())]
    files.append(File.of("lineage.json", b'{"run": "x"}'))
    hashed = time.monotonic() - started
    publication = Publication("x", (Part(REPO, "model", "student", in_order(files)),))
    (ended,) = Transaction(HfApi(endpoint=url, token=TOKEN), publication).run(public=False)
    return {
        "hashed": hashed,
        "seconds": time.monotonic() - started,
        "sent_gb": ended.sent_bytes / 1e9,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def start(folder: Path, url: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, __file__, "--folder", str(folder), "--url", url]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--megabytes", type=int, default=4_700, help="of each shard")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.url:
        print(json.dumps(publish(given.folder, given.url)))
        return
    sys.path.insert(0, str(TESTS))
    upload_hub: Any = importlib.import_module("upload_hub")
    size = given.shards * given.megabytes * 10**6
    print(
        f"{size / 1e9:.0f} GB in {given.shards} shards, {os.cpu_count()} CPUs of {platform.machine()}, "
        f"Python {platform.python_version()}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        material(folder, given.shards, given.megabytes)
        hub = upload_hub.UploadHub(Path(temporary) / "hub", {TOKEN: upload_hub.person("someone")}, PART, keeps=False)
        threading.Thread(target=hub.server.serve_forever, daemon=True).start()
        begun = time.monotonic()
        first = start(folder, hub.url)

        def kill(request: int) -> None:
            if hub.uploaded_bytes >= 0.52 * size:
                os.kill(first.pid, signal.SIGKILL)

        hub.watching = kill
        killed = first.wait() == -signal.SIGKILL
        hub.watching = lambda request: None
        seconds, arrived = time.monotonic() - begun, hub.uploaded_bytes
        print(f"killed: {killed}, after {seconds:.0f} s with {arrived / 1e9:.1f} GB arrived", flush=True)
        second = start(folder, hub.url)
        told, _ = second.communicate()
        found: dict[str, Any] = json.loads(told.splitlines()[-1])
        hub.server.shutdown()
    again = hub.uploaded_bytes - size
    rate = (hub.uploaded_bytes - arrived) / 1e6 / (found["seconds"] - found["hashed"])
    print(
        f"went on: {found['sent_gb']:.1f} GB committed in {found['seconds']:.0f} s, of which {found['hashed']:.0f} s "
        f"to hash everything; {rate:.0f} MB/s; {found['peak_mb']:.0f} MB peak"
    )
    print(f"sent again: {again / 1e9:.2f} GB of what was on its way; files that arrived whole twice: "
          f"{sum(times > 1 for times in hub.stored.values())}")  # fmt: skip


if __name__ == "__main__":
    main()
