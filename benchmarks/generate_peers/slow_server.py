"""An OpenAI-compatible server that answers every chat completion with the same reply after a fixed delay.

    python benchmarks/generate_peers/slow_server.py --delay 0.05

Prints its port. Parses as little of HTTP/1.1 as it can, so that the client is what is measured. It also keeps the time:
POST /begin with {"expected": N, "pid": P} starts a measurement, GET /measured tells when the first of the requests
arrived and the last reply was written, and the CPU seconds of process P and of this server between the two. Standard
library only; knows nothing about who asks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
NO_MESSAGES = re.compile(rb'"messages":\s*\[\s*\]')
"""Curator's look for rate limits in headers; no request of the job."""
LAST_ONE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)
THOUGHT = "First I take the number of boxes times what each of them holds, and then what is left over. " * 6
TEXT = f"<think>\n{THOUGHT.strip()}\n</think>\n\nThere are \\boxed{{42}} of them."
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "served",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop", "logprobs": None}
    ],
    "usage": {"prompt_tokens": 60, "completion_tokens": 160, "total_tokens": 220},
}
MODELS = {"object": "list", "data": [{"id": "served", "object": "model", "created": 1, "owned_by": "benchmark"}]}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of its children that ended, to the hundredth."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def answer(status: str, value: Any) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass(slots=True)
class Measured:
    """One measurement; times are those of time.time()."""

    expected: int = 0
    pid: int = 0
    requests: int = 0
    replies: int = 0
    first: float = 0.0
    last: float = 0.0
    cpu_before: float = 0.0
    cpu_after: float = 0.0
    server_before: float = 0.0
    server_after: float = 0.0

    def asked(self) -> None:
        self.requests += 1
        if self.requests == 1:
            self.cpu_before, self.server_before = cpu_seconds(self.pid), time.process_time()
            self.first = time.time()

    def replied(self) -> None:
        self.replies += 1
        if self.replies == self.expected:
            self.last = time.time()
            self.cpu_after, self.server_after = cpu_seconds(self.pid), time.process_time()

    def told(self) -> dict[str, float]:
        return {
            "requests": self.requests,
            "replies": self.replies,
            "first": self.first,
            "seconds": self.last - self.first,
            "cpu_seconds": self.cpu_after - self.cpu_before,
            "server_cpu_seconds": self.server_after - self.server_before,
        }


class Server:
    def __init__(self, delay: float) -> None:
        self.delay, self.measured = delay, Measured()
        self.completion, self.models = answer("200 OK", COMPLETION), answer("200 OK", MODELS)
        self.not_found = answer("404 Not Found", {"error": {"message": "there is no such page"}})
        self.no_messages = answer("400 Bad Request", {"error": {"message": "messages is empty"}})


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, each with a Content-Length where it has a body."""

    def __init__(self, server: Server) -> None:
        self.server, self.received = server, bytearray()
        self.transport: asyncio.Transport | None = None
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self.received, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.received) < whole:
                return
            head, body = bytes(self.received[:end]), bytes(self.received[end + 4 : whole])
            del self.received[:whole]
            self.request(head, body)

    def request(self, head: bytes, body: bytes) -> None:
        server, close = self.server, LAST_ONE.search(head) is not None
        if head.startswith(b"POST /v1/chat/completions "):
            if NO_MESSAGES.search(body):
                return self.send(server.no_messages, close)
            server.measured.asked()
            self.loop.call_later(server.delay, self.complete, close)
        elif head.startswith(b"GET /v1/models "):
            self.send(server.models, close)
        elif head.startswith(b"POST /begin "):
            server.measured = Measured(**json.loads(body))
            self.send(answer("200 OK", {}), close)
        elif head.startswith(b"GET /measured "):
            self.send(answer("200 OK", server.measured.told()), close)
        else:
            self.send(server.not_found, close)
        return None

    def complete(self, close: bool) -> None:
        if self.transport is not None:
            self.send(self.server.completion, close)
            self.server.measured.replied()

    def send(self, data: bytes, close: bool) -> None:
        assert self.transport is not None
        self.transport.write(data)
        if close:
            self.transport.close()


async def serve(delay: float) -> None:
    state = Server(delay)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.05)
    asyncio.run(serve(parser.parse_args().delay))
