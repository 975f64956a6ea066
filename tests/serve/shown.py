"""A service in every state, and its page answering on the loopback from a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.serve.metrics import read
from distill.serve.page import Pages, serving
from distill.serve.state import ReplicaState, ServiceState

RECORDED = Path(__file__).parents[1] / "recorded" / "vllm-0.32"
FULL = (RECORDED / "metrics_full.txt").read_text(encoding="utf-8")
BUSY = (RECORDED / "metrics_busy.txt").read_text(encoding="utf-8")
NOW = 1_795_730_000.0
HOSTILE = "<script>window.injected = 1</script><img src=x onerror='window.injected = 1'>\x1b[31mred\u202ebackwards"
STATE = ServiceState(
    teacher="deepseek-r1",
    since=NOW - 3 * 86_400 - 4 * 3_600,
    pid=4_711,
    replicas=(
        ReplicaState(
            "replica-0", "ready", NOW - 7_500, "http://10.0.0.1:8000/v1", 0, None, read(BUSY), 1_234.5, pid=11
        ),
        ReplicaState("replica-1", "stuck", NOW - 61, "http://10.0.0.2:8000/v1", 2, HOSTILE, read(FULL), 3.25, pid=12),
        ReplicaState("replica-2", "failed", NOW - 5, None, 5, "GPU 0 was full\n  to do: use more GPUs"),
        ReplicaState("replica-3", "starting", NOW),
        ReplicaState("replica-4", "draining", NOW, tokens_per_second=0.0),
        ReplicaState("replica-5", "waiting", NOW, restarts=1),
        ReplicaState("replica-6", "stopped", NOW),
    ),
)


def pages(state: ServiceState = STATE) -> Pages:
    return Pages(lambda: state, lambda: {"replica-0": BUSY, "replica-1": FULL}, now=lambda: NOW)


@contextmanager
def shown(what: Pages, host: str = "127.0.0.1") -> Iterator[str]:
    """The address at which these pages answer while the block runs."""
    loop = asyncio.new_event_loop()
    ready: asyncio.Future[str] = loop.create_future()
    end = asyncio.Event()

    async def serve() -> None:
        try:
            async with serving(what, host) as address:
                ready.set_result(address)
                await end.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    def run() -> None:
        loop.run_until_complete(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    address = asyncio.run_coroutine_threadsafe(asyncio.wait_for(asyncio.shield(ready), 20), loop).result()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        loop.close()
