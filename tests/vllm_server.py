"""Starts a real vLLM CPU server for tests, and records its replies for `tests/recorded/`.

    python tests/vllm_server.py --model .cache/smollm2 --out tests/recorded/vllm-0.32

Knows nothing about engines; http_teacher.py is the scripted stand-in for tests without vLLM.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON_VARIABLE = "DISTILL_VLLM_PYTHON"
CONTEXT = 2_048
"""Tokens that the server allows a prompt and its reply together."""


def vllm_python() -> Path | None:
    """The interpreter of vLLM's own environment, None when this machine has none."""
    given = os.environ.get(PYTHON_VARIABLE)
    path = Path(given) if given else CHECKOUT / ".venv-vllm" / "bin" / "python"
    return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP reply: status, and the body as JSON; a stream as the list of its events, another page as its lines."""

    status: int
    body: Any


def ask(url: str, body: dict[str, Any] | None = None, *, key: str | None = None, timeout: float = 300) -> Answer:
    """POSTs `body` as JSON, or GETs without one; error statuses are answers too."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = json.dumps(body).encode() if body is not None else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data, headers), timeout=timeout) as response:
            return Answer(response.status, content_of(response.headers.get_content_type(), response.read().decode()))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, content_of(error.headers.get_content_type(), error.read().decode()))


def content_of(kind: str, text: str) -> Any:
    if kind == "application/json":
        return json.loads(text)
    lines = text.splitlines()
    if kind != "text/event-stream":
        return lines
    events = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return [event if event == "[DONE]" else json.loads(event) for event in events]


class ServerUrl(str):
    """Where a server answers, and its process: the leader of a group."""

    process: subprocess.Popen[bytes]


@contextmanager
def vllm_server(
    model: Path, name: str, log: Path, *options: str, key: str | None = None, limit: float = 480
) -> Iterator[ServerUrl]:
    """The URL (ending in /v1) of a server that has answered a completion; its whole process group ends with the block.

    On a CPU vLLM 0.32 dies of a request with a seed whose prompt is prefilled in parts ("CPU Generator does not use
    offset", vllm/v1/worker/gpu_model_runner.py, _bookkeeping_sync), so prompts are prefilled whole here.

    Raises RuntimeError with the end of the log when it dies or is not ready within `limit` seconds.
    """
    python = vllm_python()
    if python is None:
        raise RuntimeError(f"no vLLM here: set {PYTHON_VARIABLE} or make .venv-vllm")
    port = free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--max-model-len", str(CONTEXT), "--max-num-seqs", "16", "--no-enable-chunked-prefill", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment(key), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            url = ServerUrl(f"http://127.0.0.1:{port}/v1")
            url.process = process
            wait_until_ready(process, url, name, key, log, limit)
            yield url
        finally:
            end(process)


def environment(key: str | None) -> dict[str, str]:
    """Little memory, no network, no usage statistics; the key goes in a variable, not on the command line."""
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    return {**os.environ, **settings} | ({"VLLM_API_KEY": key} if key else {})


def wait_until_ready(
    process: subprocess.Popen[bytes], url: str, name: str, key: str | None, log: Path, limit: float
) -> None:
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and process.poll() is None:
        try:
            left = max(1.0, deadline - time.monotonic())
            if ask(f"{url}/chat/completions", body, key=key, timeout=left).status == 200:
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.5)
    state = f"ended with {process.returncode}" if process.returncode is not None else f"was not ready in {limit:.0f} s"
    tail = log.read_text(encoding="utf-8", errors="replace")[-3_000:]
    raise RuntimeError(f"the vLLM server {state}; the end of {log}:\n{tail}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and the workers it started; nothing of its group is left, whatever state they are in."""
    for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and group_lives(process):
            time.sleep(0.1)
    process.wait(timeout=10)


def group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # reaps the leader, which otherwise counts as living
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- recording ---------------------------------------------------------------------------------------------------


NAME = "smollm2"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a story about a fox. Then say what we learn from it."}]
PROMPT = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2]
PROMPT += [198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
"""Token ids of QUESTION as SmolLM2's chat template renders it, default system prompt included."""
BEGUN = [504, 3575, 282]
"""Those of "The capital of", with which the greedy answer begins."""
IDS = {"return_token_ids": True, "skip_special_tokens": False, "temperature": 0}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
GENERATED = ":generation_tokens_"
"""Lines of the metrics that are recorded."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked to be recorded; the served model is filled in where none is named. No body is a GET."""

    body: dict[str, Any] | None
    path: str = "/chat/completions"

    def url(self, url: str) -> str:
        return (url.removesuffix("/v1") if self.path in ("/detokenize", "/metrics") else url) + self.path

    def sent(self) -> dict[str, Any] | None:
        return None if self.body is None else {"model": NAME, **self.body}


def completion(**settings: Any) -> Case:
    return Case({"prompt": [*PROMPT, *BEGUN], "max_tokens": 64, **IDS, **settings}, "/completions")


CASES = {
    "models": Case(None, "/models"),
    "chat_stop": Case({"messages": QUESTION, "temperature": 0, "max_tokens": 64, "seed": 1}),
    "chat_length": Case({"messages": STORY, "temperature": 0, "max_tokens": 8, "seed": 1}),
    "wrong_model": Case({"messages": QUESTION, "model": "no-such-model", "max_tokens": 8}),
    "too_long": Case({"messages": [{"role": "user", "content": "word " * CONTEXT}], "max_tokens": 64}),
    "bad_parameter": Case({"messages": QUESTION, "temperature": -1, "max_tokens": 8}),
    "bad_type": Case({"messages": "no list", "max_tokens": 8}),
    "chat_ids": Case({"messages": QUESTION, "max_tokens": 64, **IDS}),
    "chat_stream": Case({"messages": QUESTION, "temperature": 0, "max_tokens": 64, **STREAM}),
    "chat_stream_ids": Case({"messages": QUESTION, "max_tokens": 64, **IDS, **STREAM}),
    "completion_stop": completion(),
    "completion_length": completion(max_tokens=2),
    "completion_stream": completion(**STREAM),
    "completion_wrong_model": completion(model="no-such-model"),
    "completion_too_long": completion(prompt=[504] * (CONTEXT + 1)),
    "completion_bad_parameter": completion(temperature=-1),
    "completion_bad_id": completion(prompt=[10_000_000]),
    "detokenize": Case({"tokens": [*PROMPT[-4:], *BEGUN]}, "/detokenize"),
    "detokenize_bad_id": Case({"tokens": [-1]}, "/detokenize"),
    "metrics": Case(None, "/metrics"),
}
REASONING_CASES = {
    "reasoning_stop": Case({"messages": QUESTION, "temperature": 0, "max_tokens": 64}),
    "reasoning_length": Case({"messages": QUESTION, "temperature": 0, "max_tokens": 2}),
    "reasoning_stream": Case({"messages": QUESTION, "max_tokens": 64, **IDS, **STREAM}),
}
"""Asked of a server with a reasoning parser and a key."""
KEY = "a-key-for-this-test"


def answers(url: str, cases: dict[str, Case], key: str | None = None) -> dict[str, Answer]:
    """What the server at `url` says to each case; of its metrics the lines that matter."""
    found = {name: ask(case.url(url), case.sent(), key=key) for name, case in cases.items()}
    if "metrics" in found:
        lines = [line for line in found["metrics"].body if GENERATED in line and "_bucket" not in line]
        found["metrics"] = Answer(found["metrics"].status, lines)
    return found


def record(model: Path, out: Path, log: Path) -> None:
    """Writes one JSON file per case: the path asked, the body sent, the status and the body that came back."""
    with vllm_server(model, NAME, log) as url:
        for name, answer in answers(url, CASES).items():
            write(out, name, CASES[name], answer)
    with tempfile.TemporaryDirectory() as folder:
        thinking = with_think_tokens(model, Path(folder) / "model")
        with vllm_server(thinking, NAME, log, "--reasoning-parser", "deepseek_r1", key=KEY) as url:
            for name, answer in answers(url, REASONING_CASES, KEY).items():
                write(out, name, REASONING_CASES[name], answer)
            write(out, "no_key", CASES["models"], ask(f"{url}/models"))


def write(out: Path, name: str, case: Case, answer: Answer) -> None:
    sent = case.sent()
    if sent is not None and len(json.dumps(sent)) > 1_000:
        sent = {key: "too long to keep" if key in ("messages", "prompt") else value for key, value in sent.items()}
    content = {"path": case.path, "sent": sent, "status": answer.status, "body": answer.body}
    (out / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def with_think_tokens(model: Path, folder: Path) -> Path:
    """A copy of SmolLM2 that writes </think> where it would write "of", so that vLLM's parser has work.

    The tokens for that word and for an unused mark get the tags as their text.
    """
    shutil.copytree(model, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    renamed = {"Ġof": "</think>", "<empty_output>": "<think>"}
    vocabulary = tokenizer["model"]["vocab"]
    ids = {new: vocabulary[old] for old, new in renamed.items()}
    tokenizer["model"]["vocab"] = {renamed.get(token, token): i for token, i in vocabulary.items()}
    kept = [pair for pair in tokenizer["model"]["merges"] if not {*pair, "".join(pair)} & renamed.keys()]
    tokenizer["model"]["merges"] = kept
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    added = [token for token in tokenizer["added_tokens"] if token["content"] not in renamed]
    tokenizer["added_tokens"] = sorted(
        [*added, *({"id": i, "content": content, **plain} for content, i in ids.items())], key=lambda token: token["id"]
    )
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Records the replies of a real vLLM server.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    record(options.model, options.out, options.out / "server.log")
    (options.out / "server.log").unlink()
