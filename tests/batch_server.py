"""A scripted provider of OpenAI's batch API on loopback, in a thread; it outlives the clients that are killed.

    with BatchProvider() as provider:
        BatchApiEngine(url=provider.url, model=provider.model, state=folder / "batches.jsonl")

Its result lines have the form of vLLM's own batch runner, which `run_batch` here starts; as a program it records them:

    python tests/batch_server.py --model .cache/smollm2 --out tests/recorded/vllm-0.32/run_batch.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from aiohttp import web
from http_teacher import Fault, Said, chat_body, cut, error_body, misbehave, models_body, prompt_words
from vllm_server import CONTEXT, NAME, QUESTION, STORY, environment, vllm_python

Step = Literal["models", "upload", "create", "created", "list", "poll", "content", "end"]
"""Points at which a script can step in: `create` before the batch exists, `created` after it, before the answer;
`content` in the middle of a file; `end` is not a request: the batch would end now."""
Script = Callable[[Step, int], Fault | None]
"""Point, and how often it was reached before → what goes wrong there."""
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a batch ends: `skip` of its requests stay unanswered, told in the error file if `tells`; `faults` are those
    of a failed one; `arrange` may do anything to the lines of the output file."""

    status: str = "completed"
    skip: frozenset[str] = frozenset()
    tells: bool = True
    faults: tuple[dict[str, Any], ...] = ()
    arrange: Callable[[list[bytes]], list[bytes]] = lambda lines: lines


@dataclass(slots=True)
class Job:
    """One batch at the provider."""

    id: str
    input_file: str
    metadata: dict[str, str]
    lines: list[Line]
    ending: Ending
    status: str = "validating"
    files: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class BatchProvider:
    """The server; running inside its `with` block.

    `answer` maps a question to what is said; `endings` a batch's number and lines to how it ends; `runner`, where
    given, takes the input file instead and returns the output file. A step in `holds` waits there until released.
    """

    def __init__(
        self,
        answer: Callable[[str], Said] = lambda question: Said(f"You asked: {question}"),
        *,
        endings: Callable[[int, list[Line]], Ending] = lambda number, lines: Ending(),
        script: Script = lambda step, number: None,
        runner: Callable[[bytes], bytes] | None = None,
        model: str = "scripted",
        key: str | None = None,
        context: int = 4_096,
        errors_in: Literal["body", "error"] = "body",
        keeps_metadata: bool = True,
    ) -> None:
        self.answer, self.endings, self.script, self.runner = answer, endings, script, runner
        self.model, self.key, self.context = model, key, context
        self.errors_in, self.keeps_metadata = errors_in, keeps_metadata
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.reached: dict[str, threading.Event] = defaultdict(threading.Event)
        self.holds: dict[str, threading.Event] = {}
        self.steps: Counter[str] = Counter()
        self.elsewhere = ""
        """Where a file's content is redirected to, if anywhere."""
        self.seen_keys: list[str] = []
        self.url = ""
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="batch-provider", daemon=True)
        self._ready, self._over = threading.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the scripted provider did not start")
        return self

    def __exit__(self, *_: object) -> None:
        for hold in self.holds.values():
            hold.set()
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    @property
    def bought(self) -> Counter[str]:
        """Custom id → how many batches that did not fail asked it: what is paid for."""
        return Counter(line["custom_id"] for job in self.jobs.values() if job.status != "failed" for line in job.lines)

    @property
    def sizes(self) -> list[int]:
        """Requests of each batch, in order."""
        return [len(job.lines) for job in self.jobs.values()]

    def hold(self, step: Step) -> threading.Event:
        """From now on this step waits until the event is set; `reached` tells when something waits there."""
        self.holds[step] = threading.Event()
        return self.holds[step]

    # --- the server --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        application = web.Application(client_max_size=256 * 2**20, middlewares=[self._guarded])
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/files", self._upload)
        application.router.add_post("/v1/batches", self._create)
        application.router.add_get("/v1/batches", self._list)
        application.router.add_get("/v1/batches/{id}", self._poll)
        application.router.add_get("/v1/files/{id}/content", self._content)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        self._ready.set()
        await self._over.wait()
        await runner.cleanup()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        self.seen_keys.append(given)
        if self.key is not None and given != f"Bearer {self.key}":
            return web.json_response(error_body(401, f"Incorrect API key: {given}", "auth", None), status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _step(self, step: Step) -> Fault | None:
        number = self.steps[step]
        self.steps[step] += 1
        if step in self.holds:
            self.reached[step].set()
            while not self.holds[step].is_set():
                await asyncio.sleep(0.005)
        return self.script(step, number)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        fault = await self._step("models")
        return await misbehave(fault, request) if fault else web.json_response(models_body(self.model))

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        fault = await self._step("upload")
        if fault is not None:
            return await misbehave(fault, request)
        uploaded = form["file"]
        assert isinstance(uploaded, web.FileField)
        assert form["purpose"] == "batch"
        content = uploaded.file.read()
        name = self._store(content)
        return web.json_response(file_body(name, uploaded.filename, len(content)))

    async def _create(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        fault = await self._step("create")
        if fault is not None:
            return await misbehave(fault, request)
        assert set(asked) == {"input_file_id", "endpoint", "completion_window", "metadata"}
        assert (asked["endpoint"], asked["completion_window"]) == ("/v1/chat/completions", "24h")
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        assert all(set(line) == {"custom_id", "method", "url", "body"} for line in lines)
        number = next(self._numbers)
        job = Job(f"batch_{number}", asked["input_file_id"], asked["metadata"], lines, self.endings(number, lines))
        self.jobs[job.id] = job
        fault = await self._step("created")
        return await misbehave(fault, request) if fault else web.json_response(self.body(job))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        fault = await self._step("list")
        if fault is not None:
            return await misbehave(fault, request)
        jobs = list(reversed(self.jobs.values()))
        after = request.query.get("after")
        if after:
            jobs = jobs[[job.id for job in jobs].index(after) + 1 :]
        page = jobs[: min(2, int(request.query["limit"]))]  # short pages, so that a few batches need several
        more = len(page) < len(jobs)
        return web.json_response({"object": "list", "data": [self.body(job) for job in page], "has_more": more})

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        fault = await self._step("poll")
        if fault is not None:
            return await misbehave(fault, request)
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.json_response(error_body(404, "No batch found", "invalid_request_error", None), status=404)
        if job.status == "validating":
            job.status = "in_progress"
        elif job.status == "in_progress" and not ("end" in self.holds and not self.holds["end"].is_set()):
            await self._end(job)
        elif job.status == "in_progress":
            self.reached["end"].set()
        return web.json_response(self.body(job))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        if self.elsewhere:
            raise web.HTTPFound(f"{self.elsewhere}/files/{request.match_info['id']}/content")
        content = self.files.get(request.match_info["id"])
        if content is None:
            return web.json_response(error_body(404, "No such File", "invalid_request_error", None), status=404)
        response = web.StreamResponse()
        await response.prepare(request)
        half = len(content) // 2
        await response.write(content[:half])
        fault = await self._step("content")
        if fault is not None and fault.kind == "drop":
            await asyncio.sleep(0.01)
            assert request.transport is not None
            request.transport.abort()
        elif fault is None:
            await response.write(content[half:])
        return response  # any other fault: the file ends here, as if it were whole

    # --- batches -----------------------------------------------------------------------------------------------------

    async def _end(self, job: Job) -> None:
        ending = job.ending
        job.status = ending.status
        if ending.status == "failed":
            return
        if self.runner is not None:
            output = await asyncio.to_thread(self.runner, self.files[job.input_file])
            told = [json.loads(line) for line in output.splitlines()]
            good, bad = output.splitlines(keepends=True), []
        else:
            told = [self._result(line) for line in job.lines if line["custom_id"] not in ending.skip]
            good = ending.arrange([_encoded(one) for one in told if one["response"]["status_code"] == 200])
            bad = [_encoded(one) for one in told if one["response"]["status_code"] != 200]
            skipped = [line["custom_id"] for line in job.lines if line["custom_id"] in ending.skip]
            bad += [_encoded(unanswered(name, ending.status)) for name in skipped if ending.tells]
        for name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                job.files[name] = self._store(b"".join(lines))
        completed = sum(one["response"]["status_code"] == 200 for one in told)
        job.counts = {"total": len(job.lines), "completed": completed, "failed": len(told) - completed}

    def _result(self, line: Line) -> Line:
        body = line["body"]
        words = prompt_words(body)
        if words > self.context:
            what = f"This model's maximum context length is {self.context} tokens."
            return failed_line(
                line["custom_id"], error_body(400, what, "BadRequestError", "input_tokens"), self.errors_in
            )
        said = cut(self.answer(body["messages"][-1]["content"]), body.get("max_tokens", self.context))
        return result_line(line["custom_id"], chat_body(said, body["model"], words))

    def _store(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def body(self, job: Job) -> dict[str, Any]:
        """The batch as GET /batches/{id} shows it."""
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": {"object": "list", "data": list(job.ending.faults)} if job.status == "failed" else None,
            "input_file_id": job.input_file,
            "completion_window": "24h",
            "status": job.status,
            "output_file_id": job.files.get("output_file_id"),
            "error_file_id": job.files.get("error_file_id"),
            "created_at": int(time.time()),
            "request_counts": job.counts or {"total": len(job.lines), "completed": 0, "failed": 0},
            "metadata": job.metadata if self.keeps_metadata else None,
        }


def file_body(name: str, filename: str, size: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "file",
        "bytes": size,
        "created_at": int(time.time()),
        "filename": filename,
        "purpose": "batch",
        "status": "processed",
    }


def result_line(custom_id: str, body: dict[str, Any]) -> Line:
    response = {"status_code": 200, "request_id": "req-scripted", "body": body}
    return {"id": "batch_req_scripted", "custom_id": custom_id, "response": response, "error": None}


def failed_line(custom_id: str, error: dict[str, Any], where: Literal["body", "error"]) -> Line:
    """With the server's answer in the response's body, as OpenAI does, or beside an empty one, as vLLM does."""
    in_body = where == "body"
    response = {
        "status_code": error["error"]["code"],
        "request_id": "req-scripted",
        "body": error if in_body else None,
    }
    return {
        "id": "batch_req_scripted",
        "custom_id": custom_id,
        "response": response,
        "error": None if in_body else error,
    }


def unanswered(custom_id: str, status: str) -> Line:
    """What OpenAI tells of a request that an expired or cancelled batch did not come to."""
    error = {"code": f"batch_{status}", "message": "This request could not be executed in time."}
    return {"id": "batch_req_scripted", "custom_id": custom_id, "response": None, "error": error}


def _encoded(line: Line) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


# --- vLLM's batch runner -------------------------------------------------------------------------------------------


def run_batch(model: Path, content: bytes, log: Path) -> bytes:
    """The output file of vLLM's own runner for an input file. Raises RuntimeError with the log's end when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        given, written = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        given.write_bytes(content)
        command = [str(vllm_python()), "-m", "vllm.entrypoints.openai.run_batch", "-i", str(given), "-o", str(written)]
        command += ["--model", str(model), "--served-model-name", NAME, "--max-model-len", str(CONTEXT)]
        command += ["--enforce-eager", "--max-num-seqs", "16", "--no-enable-chunked-prefill", "--dtype", "float32"]
        with log.open("wb") as output:
            ended = subprocess.run(
                command, env=environment(None), stdout=output, stderr=subprocess.STDOUT, check=False, timeout=480
            )
        if ended.returncode or not written.is_file():
            tail = log.read_text(encoding="utf-8", errors="replace")[-3_000:]
            raise RuntimeError(f"vLLM's batch runner ended with {ended.returncode}; the end of {log}:\n{tail}")
        return written.read_bytes()


CASES: dict[str, dict[str, Any]] = {
    "stop": {"messages": QUESTION, "temperature": 0, "max_tokens": 64, "seed": 1},
    "length": {"messages": STORY, "temperature": 0, "max_tokens": 8, "seed": 1},
    "too_long": {"messages": [{"role": "user", "content": "word " * CONTEXT}], "max_tokens": 64},
    "wrong_model": {"messages": QUESTION, "model": "no-such-model", "max_tokens": 8},
    "stream": {"messages": QUESTION, "max_tokens": 8, "stream": True},
}
"""custom_id of the recorded line → the request's body; the served model is filled in where none is named."""


def input_file(cases: dict[str, dict[str, Any]]) -> bytes:
    where = {"method": "POST", "url": "/v1/chat/completions"}
    return b"".join(
        _encoded({"custom_id": name, **where, "body": {"model": NAME, **body}}) for name, body in cases.items()
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Records what vLLM's batch runner writes.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs:
        options.out.write_bytes(run_batch(options.model, input_file(CASES), Path(logs) / "log"))
