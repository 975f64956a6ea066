"""A small real HTTP server, started as a replica is: it says who it is, in which place, and what it was given.

    python small_server.py PORT [HOST]

GET anything gives JSON: pid, the Ray node's id where there is one, chosen environment variables, CPU cores.
"""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "VLLM_API_KEY", "GIVEN", "PYTHONPATH", "OMP_NUM_THREADS")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        told = {
            "pid": os.getpid(),
            "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
            "ray": sorted(name for name in os.environ if name.startswith("RAY_")),
            "cores": sorted(os.sched_getaffinity(0)),
            "arguments": sys.argv,
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        print(f"asked for {self.path}", flush=True)


if __name__ == "__main__":
    print(f"serving on {sys.argv[1]}", flush=True)
    ThreadingHTTPServer((sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
