"""The JSON that is sent to an OpenAI-compatible server, for a chat completion and for going on with a cut one.

Knows nothing about connections or replies.
"""

from __future__ import annotations

import functools
from typing import Any

from distill.engines import Request, TokenIds
from distill.records import Sampling, field_names

SHOW_ALL = {"skip_special_tokens": False}
"""Sent to a server whose replies are continued: vLLM leaves control tokens out of a reply's text, but its /detokenize
has no such option and shows them. So every text shows what was written; the token that ended it is no part of any."""
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def request_body(request: Request, model: str, *, show_all: bool = False, stream: bool = False) -> dict[str, Any]:
    """The JSON of a chat completion. Settings that are None are left out, so that the server's own defaults hold;
    top_k, min_p and repetition_penalty stand beside the others, as vLLM and SGLang take them."""
    body = {"model": model, "messages": request.messages, "n": 1, "stream": False, "max_tokens": request.max_tokens}
    if request.response_format is not None:
        body["response_format"] = request.response_format
    return body | _options(request, show_all=show_all or request.token_ids, ids=request.token_ids, stream=stream)


def completion_body(request: Request, start: TokenIds, model: str, *, stream: bool = False) -> dict[str, Any]:
    """The JSON of a completion that goes on behind `start`."""
    ids = [*start.prompt, *start.output]
    body = {"model": model, "prompt": ids, "n": 1, "stream": False, "max_tokens": request.max_tokens}
    return body | _options(request, show_all=True, ids=True, stream=stream)


def _options(request: Request, *, show_all: bool, ids: bool, stream: bool) -> dict[str, Any]:
    options = dict(_settings(request.sampling))
    if request.seed is not None:
        options["seed"] = request.seed
    if show_all:
        options.update(SHOW_ALL)
    if ids:
        options["return_token_ids"] = True
    if stream:
        options.update(USAGE)
    return options


@functools.lru_cache(maxsize=64)  # a job asks with one set of settings, many thousand times
def _settings(sampling: Sampling) -> dict[str, Any]:
    """The settings that are given, without the base seed: each request has a seed of its own."""
    values = {name: getattr(sampling, name) for name in field_names(Sampling) if name != "seed"}
    return {name: value for name, value in values.items() if value is not None}
