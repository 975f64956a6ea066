"""Replies recorded from a real vLLM server (written by vllm_server.py), and how to compare others with them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "recorded" / "vllm-0.32"

USED = (
    ("choices", 0, "message", "content"),
    ("choices", 0, "message", "reasoning"),
    ("choices", 0, "finish_reason"),
    ("usage", "prompt_tokens"),
    ("usage", "completion_tokens"),
    ("usage", "completion_tokens_details"),
)
"""Where OpenAIEngine looks in a chat completion."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One reply: what was asked (`sent` is None for a GET), the status, and the body as JSON: a stream is the list of
    its events, a page that is no JSON the list of its lines."""

    path: str
    sent: dict[str, Any] | None
    status: int
    body: Any


def recorded(case: str) -> Recording:
    return Recording(**json.loads((FOLDER / f"{case}.json").read_text(encoding="utf-8")))


def at(body: Any, path: tuple[str | int, ...]) -> Any:
    """What stands there; a missing key is an error, unlike null."""
    for part in path:
        body = body[part]
    return body


def same_form(ours: Any, theirs: Any, where: str = "body") -> list[str]:
    """Where `ours` has a key that `theirs` lacks or a value of another type; empty when it could be one of theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        lacking = [f"{where}.{key} is not in the recording" for key in ours if key not in theirs]
        shared = [key for key in ours if key in theirs]
        return lacking + [fault for key in shared for fault in same_form(ours[key], theirs[key], f"{where}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list):
        if not ours or not theirs:
            return [] if len(ours) == len(theirs) else [f"{where} has {len(ours)} entries, recorded {len(theirs)}"]
        return same_form(ours[0], theirs[0], f"{where}.0")
    if type(ours) is not type(theirs):
        return [f"{where} is {type(ours).__name__}, recorded {type(theirs).__name__}"]
    return []


def same_stream(ours: list[Any], theirs: list[Any]) -> list[str]:
    """The same for streams: each event of ours has the form of one of theirs, and both end alike."""
    faults = [] if ours[-1:] == theirs[-1:] else [f"the stream ends with {ours[-1:]}, recorded {theirs[-1:]}"]
    for place, event in enumerate(ours):
        found = [same_form(event, other, f"event {place}") for other in theirs]
        faults += min(found, key=len, default=["nothing was recorded"])
    return faults


def without_numbers(lines: list[str]) -> list[str]:
    """Lines of metrics without the values at their ends."""
    return [line if line.startswith("#") else line.rpartition(" ")[0] for line in lines]
