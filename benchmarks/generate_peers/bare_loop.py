"""The least a client can do: workers over one aiohttp session, each reply appended to a file. What others cost more
than this is their own. `--way uvloop` runs it on that event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import aiohttp
from asking import Asked, Durable, Job, job, tell


async def run(job: Job, file: Durable) -> None:
    place, left = f"{job.url}/chat/completions", iter(job.prompts)
    connector = aiohttp.TCPConnector(limit=job.in_flight)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def work(left: Iterator[Asked]) -> None:
            for asked in left:
                async with session.post(place, json=job.body(asked)) as response:
                    response.raise_for_status()
                    reply = json.loads(await response.read())
                choice = reply["choices"][0]
                text, finish_reason = choice["message"]["content"], choice["finish_reason"]
                row = {"id": asked.id, "text": text, "finish_reason": finish_reason, "usage": reply["usage"]}
                file.append(row)

        await asyncio.gather(*(work(left) for _ in range(job.in_flight)))


def main() -> None:
    wanted = job()
    with Durable(wanted.out / "replies.jsonl") as file:
        if wanted.way == "uvloop":
            import uvloop

            uvloop.run(run(wanted, file))
        else:
            asyncio.run(run(wanted, file))
    tell(file.stored)


if __name__ == "__main__":
    main()
