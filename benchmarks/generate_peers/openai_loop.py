"""The loop people write with the official client: AsyncOpenAI, a semaphore, one task per prompt.

`--way aiohttp` gives the client its aiohttp transport. Its limits of connections are its own.
"""

from __future__ import annotations

import asyncio

from asking import Asked, Durable, Job, job, tell
from openai import AsyncOpenAI, DefaultAioHttpClient  # type: ignore[import-not-found]


async def run(job: Job, file: Durable) -> None:
    transport = DefaultAioHttpClient() if job.way == "aiohttp" else None
    room = asyncio.Semaphore(job.in_flight)
    async with AsyncOpenAI(base_url=job.url, api_key="none", http_client=transport) as client:

        async def ask(asked: Asked) -> None:
            async with room:
                reply = await client.chat.completions.create(**job.body(asked))
                choice = reply.choices[0]
                row = {"id": asked.id, "text": choice.message.content, "finish_reason": choice.finish_reason}
                file.append({**row, "usage": reply.usage.model_dump()})

        await asyncio.gather(*map(ask, job.prompts))


def main() -> None:
    wanted = job()
    with Durable(wanted.out / "replies.jsonl") as file:
        asyncio.run(run(wanted, file))
    tell(file.stored)


if __name__ == "__main__":
    main()
