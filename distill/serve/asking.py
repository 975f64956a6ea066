"""What the service asks a replica over HTTP: its metrics, and for one token. Every answer may be that there is none.

Knows nothing about what follows from the answers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import aiohttp

METRICS_SECONDS = 10.0
"""Metrics come from memory: a server that takes longer does not answer."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks over one session. `key`: what the replicas require, None where they require none."""

    session: aiohttp.ClientSession
    model: str
    key: str | None

    async def metrics(self, root: str) -> str | None:
        """The server's Prometheus page, None where none came in time."""
        try:
            async with self.session.get(f"{root}/metrics", timeout=aiohttp.ClientTimeout(METRICS_SECONDS)) as answer:
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def token(self, root: str, seconds: float) -> str | None:
        """None when the model wrote a token within `seconds`, else why not."""
        body = {"model": self.model, "prompt": "1", "max_tokens": 1, "temperature": 0}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limit = aiohttp.ClientTimeout(seconds)
        try:
            async with self.session.post(f"{root}/v1/completions", json=body, headers=headers, timeout=limit) as answer:
                text = await answer.text()
                return _fault(answer.status, text)
        except TimeoutError:
            return f"no token within {seconds:.0f} s"
        except (aiohttp.ClientError, OSError) as error:
            return f"{type(error).__name__}: {error}"[:200]


def _fault(status: int, text: str) -> str | None:
    if status != 200:
        return f"HTTP {status}: {' '.join(text.split())[:200]}"
    try:
        told: Any = json.loads(text)
        made = told["usage"]["completion_tokens"]
    except (ValueError, KeyError, TypeError):
        return f"no completion: {' '.join(text.split())[:200]}"
    return None if isinstance(made, int) and made > 0 else "an answer without a token"
