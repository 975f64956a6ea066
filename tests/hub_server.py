"""A Hugging Face Hub on loopback, as far as reading datasets needs it: repositories are folders below a root.

Speaks the paths that huggingface_hub 1.x and datasets 5.x ask for; what it does not know is a 404 and is remembered.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"
"""The one commit of every repository."""


class HubServer:
    """`root/ORG/NAME/…` are the datasets; `gated` names those that need terms accepted, `requests` what was asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.bytes_sent = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # answers at once, not after a delayed acknowledgement

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                hub.answer(self, body=True, posted=self.rfile.read(size))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool, posted: bytes = b"") -> None:
        parts = urlsplit(handler.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        self.requests.append(f"{handler.command} {path}")
        words = path.strip("/").split("/")
        if words[:2] == ["api", "datasets"] and len(words) >= 4:
            self._api(handler, "/".join(words[2:4]), words[4:], query, posted)
        elif words[0] == "datasets" and len(words) > 5 and words[3] == "resolve":
            self._file(handler, "/".join(words[1:3]), words[4], "/".join(words[5:]), body)
        else:
            self.unknown.append(path)
            self._refuse(handler, 404, "EntryNotFound")

    def _api(
        self, handler: BaseHTTPRequestHandler, repo: str, rest: list[str], query: dict[str, Any], posted: bytes
    ) -> None:
        folder = self.root / repo
        if not folder.is_dir():
            return self._refuse(handler, 404, "RepoNotFound")
        revision = rest[1] if len(rest) > 1 else SHA
        if revision not in (SHA, "main"):
            return self._refuse(handler, 404, "RevisionNotFound")
        if not rest or rest[0] == "revision":
            files = [{"rfilename": str(f.relative_to(folder))} for f in sorted(folder.rglob("*")) if f.is_file()]
            known = {"id": repo, "sha": SHA, "private": False, "gated": False, "tags": [], "_id": "x", "cardData": {}}
            return self._json(handler, {**known, "downloads": 0, "likes": 0, "siblings": files})
        if rest[0] == "tree":
            below = folder / "/".join(rest[2:])
            if not below.is_dir():
                return self._refuse(handler, 404, "EntryNotFound")
            found = sorted(below.rglob("*") if query.get("recursive") == ["True"] else below.iterdir())
            return self._json(handler, [self._entry(folder, item) for item in found])
        if rest[0] == "paths-info":
            asked = json.loads(posted)["paths"] if posted.startswith(b"{") else parse_qs(posted.decode())["paths"]
            paths = [folder / name for name in asked]
            return self._json(handler, [self._entry(folder, item) for item in paths if item.exists()])
        self.unknown.append("/".join(rest))
        return self._refuse(handler, 404, "EntryNotFound")

    def _entry(self, folder: Path, item: Path) -> dict[str, Any]:
        name = str(item.relative_to(folder))
        if item.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {"type": "file", "path": name, "oid": hashlib.sha1(item.read_bytes()).hexdigest(),
                "size": item.stat().st_size}  # fmt: skip

    def _file(self, handler: BaseHTTPRequestHandler, repo: str, revision: str, name: str, body: bool) -> None:
        if repo in self.gated:
            return self._refuse(handler, 403, "GatedRepo")
        path = self.root / repo / name
        if revision not in (SHA, "main"):
            return self._refuse(handler, 404, "RevisionNotFound")
        if not path.is_file():
            return self._refuse(handler, 404, "EntryNotFound")
        content = path.read_bytes()
        first, last, asked = 0, len(content) - 1, handler.headers.get("Range")
        if asked:
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
        part = content[first : last + 1]
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        handler.send_header("Content-Length", str(len(part)))
        handler.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        handler.send_header("X-Repo-Commit", SHA)
        handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        if body:
            handler.wfile.write(part)
            self.bytes_sent += len(part)
        return None

    def _json(self, handler: BaseHTTPRequestHandler, value: Any) -> None:
        content = json.dumps(value).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _refuse(self, handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
        handler.send_response(status)
        handler.send_header("X-Error-Code", code)
        handler.send_header("X-Error-Message", code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@contextmanager
def serving(root: Path) -> Iterator[HubServer]:
    hub = HubServer(root)
    thread = threading.Thread(target=hub.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()
        thread.join()
