"""Stands in for a vLLM server where only its life matters: listens, tells metrics, gives tokens, or fails as asked.

    python stand_in.py PORT MODE...

Modes: `oom` (ends at once with vLLM's words for too little memory), `mute` (listens and never gives a token),
`dies-after N` (ends after N completions), `dead-after N` (after N completions its engine is dead: every request gets a
500 while the port stays open, as vLLM does), `slow SECONDS` (so long per completion), `key` (requires VLLM_API_KEY),
`model NAME`.
Its metrics are named as those of the recorded server; test_stand_in.py holds them against it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="{model}"}} {running}.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="{model}"}} {waiting}.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="{model}"}} 0.25
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="{model}"}} {prompt}.0
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="{model}"}} {generated}.0
"""
OUT_OF_MEMORY = (
    "(EngineCore pid=7) ERROR 11-26 20:59:37 [core.py:1512] ValueError: No available memory for the cache blocks. "
    "Available KV cache memory: -1.27 GiB. Try increasing `gpu_memory_utilization` when initializing the engine."
)


class State:
    def __init__(self, modes: list[str]) -> None:
        self.modes = modes
        self.lock = threading.Lock()
        self.model = modes[modes.index("model") + 1] if "model" in modes else "m"
        self.running = self.done = self.generated = 0

    def number(self, mode: str) -> float | None:
        return float(self.modes[self.modes.index(mode) + 1]) if mode in self.modes else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def do_GET(self) -> None:
        s = self.state
        if self.path == "/metrics":
            text = METRICS.format(model=s.model, running=s.running, waiting=0, prompt=3 * s.done, generated=s.generated)
            self._say(200, text, "text/plain; version=0.0.4")
        else:
            self._say(200, json.dumps({"object": "list", "data": [{"id": s.model, "max_model_len": 2048}]}))

    def do_POST(self) -> None:
        s = self.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "key" in s.modes and self.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            self._say(401, json.dumps({"error": "Unauthorized"}))
            return
        dead, dies = s.number("dead-after"), s.number("dies-after")
        if dies is not None and s.done >= dies:
            os._exit(3)
        if dead is not None and s.done >= dead:
            self._say(500, json.dumps({"error": {"message": "EngineCore encountered an issue.", "code": 500}}))
            return
        with s.lock:
            s.running += 1
        if "mute" in s.modes:
            time.sleep(3_600)
        time.sleep(s.number("slow") or 0.0)
        with s.lock:
            s.running, s.done, s.generated = s.running - 1, s.done + 1, s.generated + body["max_tokens"]
        usage = {"prompt_tokens": 3, "completion_tokens": body["max_tokens"], "total_tokens": 3 + body["max_tokens"]}
        message = {"role": "assistant", "content": "It is one.\n</think>\n\n\\boxed{1}"}
        said = {"message": message} if self.path.endswith("/chat/completions") else {"text": "1"}
        choice = {"index": 0, **said, "finish_reason": "stop"}
        self._say(200, json.dumps({"id": "stand-in", "model": s.model, "choices": [choice], "usage": usage}))

    def _say(self, status: int, text: str, kind: str = "application/json") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    port, modes = int(sys.argv[1]), sys.argv[2:]
    print("stand-in starts", flush=True)
    if "oom" in modes:
        print(OUT_OF_MEMORY, flush=True)
        sys.exit(1)
    Handler.state = State(modes)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
