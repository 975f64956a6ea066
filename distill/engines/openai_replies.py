"""Reads what an OpenAI-compatible server answers: completions, lists of models, errors, metrics.

Knows nothing about connections. What cannot be read is an AttemptError, with whose fault it seems to be.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any, Literal

from distill.engines import AttemptError, Fault, RefusedError, Reply, TokenIds
from distill.records import Sampling, storable

EXCERPT = 300
"""Characters of a server's own message that go into ours."""
PASSING_FINISH: Mapping[str, Fault] = {"abort": "request", "error": "request", "insufficient_system_resource": "busy"}
"""How vLLM and SGLang, and DeepSeek's API, end a reply when the server, not the model, stopped it."""
CONTENT = ("content",)
REASONING = ("reasoning", "reasoning_content")
"""Where a message holds the answer and the separate reasoning; the second name is the older one, and DeepSeek's."""
FINISH: Mapping[str, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}
BUSY_STATUS = (408, 429, 503, 529)
"""The server asks for less; 408: it was too slow to take the request in, 529: some gateways' word for overload."""
GATEWAY_STATUS = (502, 504, *range(520, 528))
"""A gateway tells that nothing answers behind it; 520 to 527 are Cloudflare's."""
_GENERATED = re.compile(rb"^(?:vllm|sglang):generation_tokens_total(?:\{.*\})? +([-+.0-9eE]+)", re.MULTILINE)


def fault_of(status: int) -> Fault:
    """Whose fault an error status is. A 500 is the request's: a server that is at its end stops answering at all, one
    that goes on has failed at this, and whoever sees many in a row may think otherwise."""
    return "busy" if status in BUSY_STATUS else "endpoint" if status in GATEWAY_STATUS else "request"


def parsed(content: bytes) -> Any:
    """The JSON of a reply; blank lines before it, which DeepSeek's API sends to keep a connection alive, do no harm."""
    import orjson

    try:
        return orjson.loads(content)
    except ValueError:  # Python's own takes what is no strict JSON: NaN, half a surrogate pair
        pass
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise AttemptError(f"the server's reply of {len(content)} bytes is not JSON") from None


def read_reply(body: Any, endpoint: str, honoured: Sampling | None = None) -> Reply:
    """The reply in a chat completion's JSON. Raises AttemptError for a form no completion has, RefusedError for an
    ending other than the model's own or the token limit."""
    choice = _first_choice(body)
    message, reason = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, dict):
        raise AttemptError(f"the server broke the reply off (finish_reason {reason})")
    finish = finish_of(reason)
    text, reasoning = text_in(message, *CONTENT), text_in(message, *REASONING)
    usage = body.get("usage")
    counted = token_count(usage.get("completion_tokens_details"), "reasoning_tokens") if usage else None
    return Reply(
        text=text or "",
        finish_reason=finish,
        endpoint=endpoint,
        reasoning=reasoning,
        prompt_tokens=token_count(usage, "prompt_tokens"),
        completion_tokens=token_count(usage, "completion_tokens"),
        # vLLM 0.32 counts from a <think> that the model wrote itself: 0 when the prompt already opened it, as R1's does
        reasoning_tokens=None if counted == 0 and reasoning else counted,
        honoured=honoured,
        token_ids=_token_ids(body.get("prompt_token_ids"), choice.get("token_ids")),
    )


def read_completion(body: Any, endpoint: str, honoured: Sampling | None = None) -> Reply:
    """The same of a completion without messages, where vLLM puts both lists of ids into the choice."""
    choice = _first_choice(body)
    finish = finish_of(choice.get("finish_reason"))
    return Reply(
        text=text_in(choice, "text") or "",
        finish_reason=finish,
        endpoint=endpoint,
        prompt_tokens=token_count(body.get("usage"), "prompt_tokens"),
        completion_tokens=token_count(body.get("usage"), "completion_tokens"),
        honoured=honoured,
        token_ids=_token_ids(choice.get("prompt_token_ids"), choice.get("token_ids")),
    )


def _first_choice(body: Any) -> dict[str, Any]:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise AttemptError("the server's reply holds no choices")
    if not isinstance(body.get("usage"), dict | None):
        body["usage"] = None  # a word instead of counts is no reason to lose a reply
    return choices[0]


def _token_ids(prompt: Any, output: Any) -> TokenIds | None:
    for ids in (prompt, output):
        if not isinstance(ids, list) or not all(type(one) is int and one >= 0 for one in ids):
            return None
    return TokenIds(tuple(prompt), tuple(output)) if prompt else None


def detokenized(body: Any) -> str | None:
    """The text in vLLM's answer to POST /detokenize, None for anything else."""
    text = body.get("prompt") if isinstance(body, dict) else None
    return text if isinstance(text, str) else None


def generated_tokens(page: bytes) -> float | None:
    """Tokens generated since the server's start, in the Prometheus metrics of vLLM or SGLang; the sum where there are
    several engines, None on a page that does not tell."""
    found = _GENERATED.findall(page)
    try:
        return math.fsum(map(float, found)) if found else None
    except ValueError:
        return None


def finish_of(reason: Any) -> Literal["stop", "length"]:
    """How a reply ended. Raises AttemptError when the server broke it off, RefusedError for another ending than the
    model's own or the token limit."""
    if reason is None or (isinstance(reason, str) and reason in PASSING_FINISH):
        fault: Fault = PASSING_FINISH[reason] if reason else "request"
        raise AttemptError(f"the server broke the reply off (finish_reason {reason})", fault=fault)
    if not isinstance(reason, str) or reason not in FINISH:
        raise RefusedError(f"the server ended the reply with finish_reason '{excerpt(storable(str(reason)))}'")
    return FINISH[reason]


def text_in(message: Mapping[str, Any], *fields: str) -> str | None:
    """The first of these fields that holds text; the others may be missing, null or empty."""
    found = None
    for field in fields:
        value = message.get(field)
        if value is not None and not isinstance(value, str):
            raise AttemptError(f"the reply's {field} is {type(value).__name__}, not text")
        found = found or value
    return storable(found) if found else None


def token_count(counts: Any, field: str) -> int | None:
    """A field of a usage object, None where it holds no count."""
    value = counts.get(field) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def model_names(content: bytes) -> list[str] | None:
    """Names in the answer to GET /models; None when it is no such list."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    entries = body.get("data") if isinstance(body, dict) else body
    if not isinstance(entries, list):
        return None
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def server_message(content: bytes) -> str:
    """A server's own words about an error, on one line: OpenAI's `error.message`, else what comes nearest."""
    text = content.decode("utf-8", errors="replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        error = body.get("error", body.get("detail", body.get("message")))
        found = error.get("message") if isinstance(error, dict) else error
        text = found if isinstance(found, str) else json.dumps(found if found is not None else body)
    return " ".join(storable(text).split())


def excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
