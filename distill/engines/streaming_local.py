"""Talks with a Hugging Face model folder in this process, token by token. Knows nothing about terminals.

The tokens are those that the local engine would draw for the same prompt and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from distill.contract import Contract
from distill.engines.decoding import Row, stream
from distill.engines.local import load_model
from distill.engines.streaming import (
    Asked,
    Detokenizer,
    Ending,
    Piece,
    Splitter,
    cut_reason,
    failures_told,
    opens_reasoning,
    reply_limit,
)
from distill.records import Message


class LocalTalker:
    """The Talker of a model folder: under `contract`, or without one under the tokenizer's own chat template.

    `context` limits prompt and reply together below what the model has. Raises EndpointError as
    `load_model` does.
    """

    def __init__(self, folder: str, contract: Contract | None, context: int) -> None:
        self._name = folder
        self._loaded = load_model(folder)
        self._render = _renderer(self._loaded.tokenizer, contract)
        self._context = min(context, self._loaded.context)

    def reply(self, messages: list[Message], asked: Asked) -> Generator[Piece | Ending, None, None]:
        with failures_told(self._name):
            yield from self._reply(messages, asked)

    def _reply(self, messages: list[Message], asked: Asked) -> Generator[Piece | Ending, None, None]:
        tokenizer, stops = self._loaded.tokenizer, self._loaded.stops
        prompt = self._render(messages)
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        limit = reply_limit(len(ids), self._context, asked)
        splitter = Splitter(opened=opens_reasoning(prompt))
        text = Detokenizer(lambda part: str(tokenizer.decode(part, skip_special_tokens=True)))
        count, stopped = 0, False
        for token in stream(self._loaded.model, Row(ids, limit, asked.sampling, asked.seed), stops):
            count, stopped = count + 1, token in stops
            if not stopped:
                yield from splitter.feed(text.feed(token))
        yield from splitter.feed(text.finish())
        yield from splitter.finish()
        yield Ending("stop" if stopped else cut_reason(limit, asked), count)

    def close(self) -> None:
        del self._loaded


def _renderer(tokenizer: object, contract: Contract | None) -> Callable[[list[Message]], str]:
    if contract is not None:
        return contract.render_prompt
    template = tokenizer.apply_chat_template  # type: ignore[attr-defined]  # transformers ships no types
    return lambda messages: str(template(messages, add_generation_prompt=True, tokenize=False))
