"""Talks with a GGUF file through llama.cpp in this process, token by token. Knows nothing about terminals.

The tokens are those that the engine of GGUF files would draw for the same prompt and seed.
"""

from __future__ import annotations

import codecs
from collections.abc import Generator
from pathlib import Path

from distill.contract import Contract
from distill.engines.decoding import Row
from distill.engines.llamacpp import Decoder, GgufModel
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
from distill.errors import EndpointError
from distill.records import Message


class GgufTalker:
    """The Talker of a GGUF file: under `contract`, or without one under the chat template in the file.

    `context` limits prompt and reply together below what the model has. Raises MissingError when llama-cpp-python is
    not installed, EndpointError when the file cannot be loaded or has no template.
    """

    def __init__(self, file: Path, contract: Contract | None, context: int) -> None:
        self._name = str(file)
        self._model = GgufModel(file)
        self._context = min(context, self._model.context)
        if contract is None and self._model.template is None:
            self.close()
            raise EndpointError(
                f"{file.name} has no chat template, and no distill.json lies beside it",
                todo="copy the student's distill.json into the same folder",
            )
        self._render = contract.render_prompt if contract is not None else self._model.render

    def reply(self, messages: list[Message], asked: Asked) -> Generator[Piece | Ending, None, None]:
        with failures_told(self._name):
            yield from self._reply(messages, asked)

    def _reply(self, messages: list[Message], asked: Asked) -> Generator[Piece | Ending, None, None]:
        model = self._model
        prompt = self._render(messages)
        ids = model.encode(prompt)
        limit = reply_limit(len(ids), self._context, asked)
        splitter = Splitter(opened=opens_reasoning(prompt))
        text = codecs.getincrementaldecoder("utf-8")(errors="replace")  # one character may be several tokens
        count, stopped = 0, False
        decoder = Decoder(model, [Row(ids, limit, asked.sampling, asked.seed)], 1)
        try:
            for token in decoder.tokens():
                count, stopped = count + 1, token in model.stops
                if not stopped:
                    yield from splitter.feed(text.decode(model.piece(token)))
        finally:
            decoder.close()
        yield from splitter.finish()
        yield Ending("stop" if stopped else cut_reason(limit, asked), count)

    def close(self) -> None:
        self._model.close()
