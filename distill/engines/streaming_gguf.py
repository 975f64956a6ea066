"""Talks with a GGUF file through llama.cpp in this process, token by token. Knows nothing about terminals.

Sampling is llama.cpp's own: the same settings, but not the tokens that the local engine draws for a seed.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distill.contract import Contract
from distill.engines.streaming import (
    Asked,
    Ending,
    Piece,
    Splitter,
    cut_reason,
    failures_told,
    opens_reasoning,
    reply_limit,
)
from distill.environment import install_command
from distill.errors import EndpointError
from distill.hardware import cores
from distill.records import Message

TEMPLATE_KEY = "tokenizer.chat_template"
"""Where a GGUF file keeps its chat template."""


class GgufTalker:
    """The Talker of a GGUF file: under `contract`, or without one under the chat template in the file.

    `context` limits prompt and reply together: llama.cpp reserves its memory at once. Raises EndpointError when
    llama-cpp-python is missing, or the file cannot be loaded or has no template.
    """

    def __init__(self, file: Path, contract: Contract | None, context: int) -> None:
        self._name = str(file)
        self._llama, self._context = _load(file, context)
        try:
            self._render = contract.render_prompt if contract is not None else _own_template(self._llama, file)
        except BaseException:
            self.close()
            raise

    def reply(self, messages: list[Message], asked: Asked) -> Iterator[Piece | Ending]:
        with failures_told(self._name):
            yield from self._reply(messages, asked)

    def _reply(self, messages: list[Message], asked: Asked) -> Iterator[Piece | Ending]:
        llama = self._llama
        prompt = self._render(messages)
        ids = llama.tokenize(prompt.encode(), add_bos=False, special=True)  # the text holds its BOS token already
        limit = reply_limit(len(ids), self._context, asked)
        splitter = Splitter(opened=opens_reasoning(prompt))
        text = codecs.getincrementaldecoder("utf-8")(errors="replace")  # one character may be several tokens
        count, stopped = 0, False
        for token in self._tokens(ids, asked):
            count, stopped = count + 1, _ends(llama, token)
            if not stopped:
                yield from splitter.feed(text.decode(llama.detokenize([token])))
            if stopped or count == limit:
                break
        yield from splitter.finish()
        yield Ending("stop" if stopped else cut_reason(limit, asked), count)

    def close(self) -> None:
        self._llama.close()

    def _tokens(self, ids: list[int], asked: Asked) -> Iterator[int]:
        """New token ids without end; what llama.cpp would add on its own (top-k 40, min-p 0.05) is turned off."""
        sampling = asked.sampling
        self._llama.set_seed(random.getrandbits(32) if asked.seed is None else asked.seed % 2**32)
        tokens: Iterator[int] = self._llama.generate(
            ids,
            temp=1.0 if sampling.temperature is None else sampling.temperature,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            top_k=sampling.top_k or 0,
            min_p=sampling.min_p or 0.0,
            repeat_penalty=1.0,
        )
        return tokens


def _load(file: Path, context: int) -> tuple[Any, int]:
    """The model, and the tokens that prompt and reply may have: llama.cpp rounds its own context up."""
    try:
        import llama_cpp
    except ImportError as error:
        raise EndpointError(
            "llama-cpp-python is not installed, which runs GGUF files",
            given=str(error)[:200],
            todo=install_command("quantize"),
        ) from error
    try:
        with _silent():
            looked_at = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
            known = int(looked_at.metadata[f"{looked_at.metadata['general.architecture']}.context_length"])
            looked_at.close()
            room = min(context, known)
            return llama_cpp.Llama(str(file), n_ctx=room, n_threads=cores(), n_gpu_layers=-1, verbose=False), room
    except (ValueError, KeyError, RuntimeError, OSError, AssertionError) as error:
        raise EndpointError(
            f"{file} cannot be loaded", given=str(error)[:300], todo="give a whole GGUF file of a text model"
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """llama.cpp writes its warnings straight to the file descriptor, past its own `verbose`; errors are raised."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _ends(llama: Any, token: int) -> bool:
    import llama_cpp

    return bool(llama_cpp.llama_vocab_is_eog(llama_cpp.llama_model_get_vocab(llama.model), token))


def _own_template(llama: Any, file: Path) -> Callable[[list[Message]], str]:
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    source = llama.metadata.get(TEMPLATE_KEY)
    if not source:
        raise EndpointError(
            f"{file.name} has no chat template, and no distill.json lies beside it",
            todo="copy the student's distill.json into the same folder",
        )
    written = {name: llama.detokenize([token], special=True).decode() if token >= 0 else ""
               for name, token in (("bos", llama.token_bos()), ("eos", llama.token_eos()))}  # fmt: skip
    formatter = Jinja2ChatFormatter(source, eos_token=written["eos"], bos_token=written["bos"])
    return lambda messages: str(formatter(messages=messages).prompt)
