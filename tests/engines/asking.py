"""Requests, and their way through an engine in this process, from start to close."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from distill.engines import Reply, Request
from distill.engines.batching import BatchEngine
from distill.records import Sampling

E = TypeVar("E", bound=BatchEngine)
T = TypeVar("T")


def request(question: str, *, tokens: int = 12, seed: int = 0, **sampling: Any) -> Request:
    asked = Sampling(**{"temperature": 0.7, **sampling})
    return Request(question, [{"role": "user", "content": question}], asked, tokens, seed)


def with_engine(engine: E, use: Callable[[E], Awaitable[T]]) -> T:
    async def run() -> T:
        await engine.start()
        try:
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(asyncio.wait_for(run(), 120))


def replies_to(engine: BatchEngine, requests: list[Request]) -> list[Reply]:
    """The replies to requests that were all sent at once, in their order."""

    async def ask(engine: BatchEngine) -> list[Reply]:
        return list(await asyncio.gather(*(engine.complete(r) for r in requests)))

    return with_engine(engine, ask)
