"""Runs a Hugging Face causal language model in this process and answers many requests in batches.

Requests are sorted by prompt length, so that rows of one batch end at about the same time. Knows nothing about
teachers, students, or think tags beyond counting the tokens before a closing one.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from distill.contract import CLOSE
from distill.engines import EndpointError, RefusedError, Reply, Request
from distill.engines.decoding import Row, generate
from distill.hardware import bfloat16_in_hardware
from distill.progress import quiet_transformers
from distill.records import Sampling, storable

SORT_WINDOW = 8
"""Batches' worth of requests taken in at a time and sorted by length."""
GATHER_SECONDS = 0.02
"""How long a batch that is not full waits for further requests."""


@dataclass(slots=True)
class _Waiting:
    request: Request
    ids: list[int]
    max_tokens: int
    """What was asked for, or what the model's context leaves."""
    done: asyncio.Future[Reply]
    loop: asyncio.AbstractEventLoop

    def resolve(self, reply: Reply) -> None:
        self._settle(lambda: self.done.set_result(reply))

    def reject(self, error: BaseException) -> None:
        self._settle(lambda: self.done.set_exception(error))

    def cancel(self) -> None:
        """Does nothing to one that has its reply."""
        self.loop.call_soon_threadsafe(self.done.cancel)

    def _settle(self, how: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(lambda: None if self.done.done() else how())


class LocalEngine:
    """The Engine of a model folder or Hub id, on the best device there is; `batch` is in rows."""

    def __init__(self, model: str, *, name: str = "local", batch: int = 64, revision: str | None = None) -> None:
        self.name, self.model_path, self.batch, self.revision = name, model, batch, revision
        self.capacity = batch * SORT_WINDOW
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._closing = False
        self._model: Any = None
        self._tokenizer: Any = None

    async def start(self) -> None:
        """Loads the model. Raises EndpointError when there is none or it cannot chat."""
        await asyncio.to_thread(self._load)
        self._worker = threading.Thread(target=self._serve, name=f"engine-{self.name}", daemon=True)
        self._worker.start()

    async def complete(self, request: Request) -> Reply:
        refuse_penalties(request.sampling)
        try:
            text = self._tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:  # such as a template that knows no system role
            raise EndpointError(
                f"the chat template of {self.model_path} refuses these messages: {error}",
                given=", ".join(message["role"] for message in request.messages),
                todo="take what it refuses out of the teacher spec, such as its system prompt",
            ) from error
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        room = self._context - len(ids)
        if room < 1:
            raise RefusedError(f"a prompt of {len(ids)} tokens leaves no room in the model's {self._context}")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, ids, min(request.max_tokens, room), loop.create_future(), loop)
        self._queue.put(waiting)
        return await waiting.done

    async def close(self) -> None:
        """Stops after the current step; whoever still waits is cancelled."""
        self._closing = True
        self._queue.put(None)
        if self._worker is not None:
            await asyncio.to_thread(self._worker.join)
        self._model = None

    def _load(self) -> None:
        loaded = load(self.model_path, revision=self.revision)
        self._model, self._tokenizer, self._context, self._stops = (
            loaded.model,
            loaded.tokenizer,
            loaded.context,
            loaded.stops,
        )
        pad: int | None = loaded.tokenizer.pad_token_id
        self._pad: int = pad if pad is not None else loaded.stops[0]
        self._close_id: int | None = loaded.tokenizer.get_vocab().get(CLOSE)

    def _serve(self) -> None:
        """The worker thread: gathers requests, sorts them, runs the shortest batch, again and again."""
        pool: list[_Waiting] = []
        while self._gather(pool):
            pool.sort(key=lambda waiting: len(waiting.ids))
            batch, pool = pool[: self.batch], pool[self.batch :]
            try:
                self._answer(batch)
            except Exception as error:  # noqa: BLE001  # whatever the model raised belongs to those who wait for this batch
                for waiting in batch:
                    waiting.reject(
                        EndpointError("the model failed while generating", given=f"{type(error).__name__}: {error}")
                    )
        with contextlib.suppress(queue.Empty):
            while True:  # close() puts its None behind all who came before it
                left = self._queue.get_nowait()
                pool += [left] if left is not None else []
        for waiting in pool:
            waiting.cancel()

    def _gather(self, pool: list[_Waiting]) -> bool:
        """Adds what waits to the pool, blocking while there is nothing to do. False once the engine closes."""
        while not self._closing:
            try:
                while len(pool) < self.capacity:
                    waiting = self._queue.get(timeout=GATHER_SECONDS if pool else None)
                    if waiting is None:
                        return False
                    pool.append(waiting)
            except queue.Empty:
                pass
            pool[:] = [waiting for waiting in pool if not waiting.done.cancelled()]
            if pool:
                return True
        return False

    def _answer(self, batch: list[_Waiting]) -> None:
        rows = [Row(w.ids, w.max_tokens, w.request.sampling, w.request.seed) for w in batch]
        for index, ids in generate(self._model, rows, self._stops, self._pad, cancelled=lambda: self._closing):
            batch[index].resolve(self._reply(batch[index], ids))
        for waiting in batch:
            waiting.cancel()

    def _reply(self, waiting: _Waiting, ids: list[int]) -> Reply:
        stopped = ids[-1] in self._stops
        text = self._tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
        closed = self._close_id is not None and self._close_id in ids
        return Reply(
            storable(text),
            "stop" if stopped else "length",
            self.name,
            prompt_tokens=len(waiting.ids),
            completion_tokens=len(ids),
            reasoning_tokens=ids.index(self._close_id) if closed and self._close_id is not None else None,
            honoured=waiting.request.sampling,
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to generate, its tokenizer, its context in tokens, and the ids that end a reply."""

    model: Any
    tokenizer: Any
    context: int
    stops: list[int]


def load(path: str, *, revision: str | None = None) -> Loaded:
    """A model folder or Hub id on the best device there is. Raises EndpointError when there is none or it cannot chat.

    A quantized folder stays on the device that its quantizer put it on.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    quiet_transformers()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
        options: dict[str, Any] = (
            {"experts_implementation": "grouped_mm"} if hasattr(config, "n_routed_experts") else {}
        )
        quantized = getattr(config, "quantization_config", None) is not None
        if quantized:
            options["device_map"] = {"": device}
        tokenizer: Any = AutoTokenizer.from_pretrained(path, revision=revision)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, revision=revision, dtype=compute_dtype(device), **options
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise EndpointError(
            f"the model {path} cannot be loaded",
            given=str(error).splitlines()[0][:300],
            todo="give a folder with config.json, weights and tokenizer, or a Hub id that can be downloaded",
        ) from error
    if not tokenizer.chat_template:
        raise EndpointError(f"the tokenizer of {path} has no chat template", todo="use a model that can chat")
    if not quantized:
        model = model.to(device)
    return Loaded(model.eval(), tokenizer, config.max_position_embeddings, stop_ids(model, tokenizer))


def compute_dtype(device: str) -> str:
    """ "auto" (the checkpoint's own) where bfloat16 is computed in hardware, else "float32".

    A CPU that only emulates bfloat16 converts at every product: float32 is faster there, for twice the memory.
    """
    return "auto" if device != "cpu" or bfloat16_in_hardware() else "float32"


def refuse_penalties(sampling: Sampling) -> None:
    """The local engine has temperature, top-p, top-k and min-p; a setting it would ignore is refused instead."""
    for name in ("presence_penalty", "frequency_penalty", "repetition_penalty"):
        if getattr(sampling, name) is not None:
            raise EndpointError(
                f"the local engine has no {name}", todo="drop the setting, or use a server: generate.engine: openai"
            )


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """The token ids that end a reply: those of the model's generation config, else the tokenizer's end token."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured] if configured is not None else []
    return ids or [tokenizer.eos_token_id]
