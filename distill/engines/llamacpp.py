"""Runs a GGUF file by llama.cpp in this process, many requests at once: what a file does here it does in any program
that is built on llama.cpp.

Template, tokenizer and stop tokens are the file's own. Tokens are drawn by the sampler of decoding.py, so that a file
and the model it was made from differ by their weights and the program, not by how they are sampled.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.contract import CLOSE, render_template
from distill.engines import EndpointError, Request
from distill.engines.batching import BatchEngine, Waiting
from distill.engines.decoding import Draw, Row, uniforms_of
from distill.environment import missing_extra
from distill.errors import ContractError
from distill.hardware import cores, memory

if TYPE_CHECKING:
    import torch

PROMPT_TOKENS = 2_048
"""Prompt tokens taken in per step at most, beside one token of every running sequence; a longer prompt goes alone."""
SHARE = 256
"""llama.cpp rounds the cache of each sequence up to a multiple of this many tokens."""
KV_SHARE = 0.7
"""Of the free memory, for the KV caches."""
SMALL_MODEL = 30_000_000
"""Weights up to which one thread serves: with 3M, a second one gains a fifth on idle cores, and beside other work loses
a quarter, because llama.cpp's threads wait for each other after every operation."""


class LlamaCppEngine(BatchEngine):
    """The Engine of a GGUF file; `batch` is in sequences that run side by side."""

    def __init__(self, file: Path, *, name: str = "llama.cpp", batch: int = 32) -> None:
        super().__init__(name, batch)
        self.file = file
        self._model: GgufModel | None = None

    @property
    def takes(self) -> int:
        return self.capacity  # a finished sequence makes room for the next at once

    def load(self) -> None:
        self._model = GgufModel(self.file)
        self.context, self.stops, self.close_id = self._model.context, self._model.stops, self._model.close_id

    def unload(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None

    def encode(self, request: Request) -> list[int]:
        assert self._model is not None
        try:
            return self._model.encode(self._model.render(request.messages))
        except ContractError as error:
            raise EndpointError(f"{self.file}: {error.what}", given=error.given, todo="take another model") from error

    def decode(self, ids: list[int]) -> str:
        assert self._model is not None
        return self._model.decode(ids)

    def answer(self, batch: list[Waiting]) -> None:
        assert self._model is not None
        rows = [Row(w.ids, w.max_tokens, w.request.sampling, w.request.seed) for w in batch]
        decoder = Decoder(self._model, rows, self.batch)
        try:
            for index, ids in decoder.run(cancelled=lambda: self.closing):
                batch[index].resolve(self._reply(batch[index], ids))
        finally:
            decoder.close()


@dataclass(slots=True)
class _Sequence:
    """One row that runs: how many of its tokens are in the cache, and what is still to be put there."""

    index: int
    pending: Sequence[int]
    uniforms: torch.Tensor
    position: int = 0
    new: list[int] = field(default_factory=list)


class GgufModel:
    """A loaded GGUF file: weights, vocabulary, template. Raises EndpointError when llama.cpp cannot load it."""

    def __init__(self, file: Path) -> None:
        self.api = api()
        if not file.is_file():
            raise EndpointError(f"there is no file {file}", todo="check the path")
        parameters = self.api.llama_model_default_params()
        parameters.n_gpu_layers = 999 if self.api.llama_supports_gpu_offload() else 0
        forget_log()
        self.handle = self.api.llama_model_load_from_file(os.fsencode(file), parameters)
        if not self.handle:
            raise EndpointError(
                f"llama.cpp cannot load {file}",
                given=last_lines() or None,
                todo="make the file again: `distill quantize`, or check that it is whole",
            )
        self.vocabulary = self.api.llama_model_get_vocab(self.handle)
        self.size: int = self.api.llama_vocab_n_tokens(self.vocabulary)
        self.context: int = self.api.llama_model_n_ctx_train(self.handle)
        small = self.api.llama_model_n_params(self.handle) <= SMALL_MODEL
        self.threads = 1 if small else cores()
        self.kv_bytes: int = _kv_bytes(self.api, self.handle)
        self.stops = frozenset(t for t in range(self.size) if self.api.llama_vocab_is_eog(self.vocabulary, t))
        template = self.api.llama_model_chat_template(self.handle, None)
        self.template: str | None = template.decode("utf-8") if template else None
        close = self.encode(CLOSE)
        self.close_id = close[0] if len(close) == 1 else None

    def render(self, messages: Sequence[Any]) -> str:
        """The prompt as the file's own template gives it. Raises ContractError when it has none or refuses."""
        if self.template is None:
            raise ContractError("the file has no chat template")
        return render_template(self.template, messages, bos=self._token("bos"), eos=self._token("eos"))

    def _token(self, name: str) -> str:
        token = getattr(self.api, f"llama_vocab_{name}")(self.vocabulary)
        text = self.api.llama_vocab_get_text(self.vocabulary, token) if token >= 0 else b""
        return text.decode("utf-8") if text else ""

    def encode(self, text: str) -> list[int]:
        """Token ids; the text already holds its special tokens, so none is added."""
        data = text.encode("utf-8")
        room = len(data) + 8
        found = (ctypes.c_int32 * room)()
        count = self.api.llama_tokenize(self.vocabulary, data, len(data), found, room, False, True)
        if count < 0:
            raise EndpointError("llama.cpp cannot tokenize a prompt", given=text[:80])
        return list(found[:count])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, control tokens left out; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.piece(token) for token in ids).decode("utf-8", errors="replace")

    def piece(self, token: int) -> bytes:
        room = 256
        while True:
            text = ctypes.create_string_buffer(room)
            count = self.api.llama_token_to_piece(self.vocabulary, token, text, room, 0, False)
            if count >= 0:
                return text.raw[:count]
            room = -count

    def close(self) -> None:
        if self.handle:
            self.api.llama_model_free(self.handle)
            self.handle = None


class Decoder:
    """Draws all rows to their end, at most `width` side by side; a row's tokens do not depend on its neighbours,
    but for rounding."""

    def __init__(self, model: GgufModel, rows: Sequence[Row], width: int) -> None:
        import torch

        self.model, self.rows, self.api = model, rows, model.api
        longest = max(len(row.prompt) + row.max_tokens for row in rows)
        share, limit = -(-longest // SHARE) * SHARE, int(self.api.llama_max_parallel_sequences())
        self.width = min(width, len(rows), places(share * model.kv_bytes, memory().free), limit)
        self.room = max(PROMPT_TOKENS, *(len(row.prompt) for row in rows)) + self.width
        parameters = self.api.llama_context_default_params()
        parameters.n_ctx = self.width * share
        parameters.n_seq_max = self.width
        parameters.n_batch = self.room
        parameters.n_threads = parameters.n_threads_batch = model.threads
        forget_log()
        self.context = self.api.llama_init_from_model(model.handle, parameters)
        if not self.context:
            raise EndpointError(
                f"llama.cpp has no room for {self.width} sequences of {longest} tokens",
                given=last_lines() or None,
                todo="lower evaluate.concurrency or evaluate.max_tokens",
            )
        self.batch = self.api.llama_batch_init(self.room, 0, 1)
        self.draw = Draw.of(rows, torch.device("cpu"))
        self.free = list(range(self.width))
        self.running: dict[int, _Sequence] = {}

    def run(self, *, cancelled: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, list[int]]]:
        """Yields (index into the rows, new ids) as rows finish; the ids end with a stop token unless one was cut."""
        waiting = list(range(len(self.rows)))
        while (waiting or self.running) and not cancelled():
            self._admit(waiting)
            for sequence, ended in self._step():
                if ended:
                    yield sequence.index, sequence.new

    def tokens(self) -> Iterator[int]:
        """The new ids of the only row as they are drawn, the very ones `run` gives; a stop id is the last one."""
        self._admit([0])
        while self.running:
            for sequence, _ in self._step():
                yield sequence.new[-1]

    def close(self) -> None:
        if self.context:
            self.api.llama_batch_free(self.batch)
            self.api.llama_free(self.context)
            self.context = None

    def _step(self) -> list[tuple[_Sequence, bool]]:
        """Every running row gets one more token; with each, whether that was its last."""
        asked = self._fill()
        code = self.api.llama_decode(self.context, self.batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}: {last_lines()}")
        stepped = []
        for slot, token in zip(asked, self._drawn(asked), strict=True):
            sequence = self.running[slot]
            sequence.new.append(token)
            sequence.pending = (token,)
            ended = token in self.model.stops or len(sequence.new) >= self.rows[sequence.index].max_tokens
            if ended:
                self._finish(slot)
            stepped.append((sequence, ended))
        return stepped

    def _admit(self, waiting: list[int]) -> None:
        """Gives free places to the rows that wait, as many as their prompts fit into one step."""
        room = self.room - self.width
        while waiting and self.free and len(self.rows[waiting[0]].prompt) <= room:
            index = waiting.pop(0)
            room -= len(self.rows[index].prompt)
            row = self.rows[index]
            self.running[self.free.pop()] = _Sequence(index, row.prompt, uniforms_of(row))

    def _fill(self) -> list[int]:
        """Puts every running row's pending tokens into the batch; returns the slots in the order of their logits."""
        batch, place, order = self.batch, 0, []
        for slot, sequence in self.running.items():
            for token in sequence.pending:
                batch.token[place] = token
                batch.pos[place] = sequence.position
                batch.n_seq_id[place] = 1
                batch.seq_id[place][0] = slot
                batch.logits[place] = 0
                sequence.position += 1
                place += 1
            batch.logits[place - 1] = 1
            order.append(slot)
        batch.n_tokens = place
        return order

    def _drawn(self, slots: list[int]) -> list[int]:
        import numpy as np
        import torch

        pointer = self.api.llama_get_logits(self.context)
        logits = torch.from_numpy(np.ctypeslib.as_array(pointer, shape=(len(slots), self.model.size)))
        drawn = [self.running[slot] for slot in slots]
        uniforms = torch.stack([sequence.uniforms[len(sequence.new)] for sequence in drawn])
        indices = torch.tensor([sequence.index for sequence in drawn])
        chosen: list[int] = self.draw.select(indices).tokens(logits, uniforms).tolist()
        return chosen

    def _finish(self, slot: int) -> None:
        del self.running[slot]
        self.api.llama_memory_seq_rm(self.api.llama_get_memory(self.context), slot, -1, -1)
        self.free.append(slot)


def places(bytes_each: int, free: int | None) -> int:
    """How many sequences the free memory holds beside each other; one is tried in any case.

    An evaluation with R1's 32,768 tokens takes 0.9 to 11 GB a sequence (distill/sizes.py): the number asked for would
    not fit.
    """
    return 1_000_000 if free is None else max(1, int(free * KV_SHARE) // max(1, bytes_each))


def _kv_bytes(api: Any, handle: Any) -> int:
    """Bytes of KV cache per token: keys and values of every layer in 16 bits."""
    heads = max(1, api.llama_model_n_head(handle))
    width = api.llama_model_n_embd(handle) // heads * max(1, api.llama_model_n_head_kv(handle))
    size: int = 2 * 2 * api.llama_model_n_layer(handle) * width
    return size


_log: deque[str] = deque(maxlen=50)
_api: list[Any] = []


def api() -> Any:
    """llama.cpp's functions, its log kept for error messages instead of printed. Raises MissingError without it."""
    if not _api:
        try:
            from llama_cpp import llama_cpp
        except ImportError as error:
            raise missing_extra("GGUF files need llama-cpp-python", "quantize") from error

        def note(level: int, text: bytes, _: Any) -> None:
            _log.append(text.decode("utf-8", errors="replace"))

        keep = llama_cpp.llama_log_callback(note)
        llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        _api.extend((llama_cpp, keep))  # the callback has to outlive this function
    return _api[0]


def forget_log() -> None:
    """Before what may fail, so that `last_lines` tells of that and of no earlier file."""
    _log.clear()


def last_lines() -> str:
    """What llama.cpp's log says of a failure, the last lines of it."""
    telling = [line.strip() for line in "".join(_log).splitlines() if "error" in line or "fail" in line]
    return "; ".join(telling[-3:])[:300]
