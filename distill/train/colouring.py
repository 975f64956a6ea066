"""One training text for the eye: what is learned stands out from the prompt. Knows nothing about models or files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

PROMPT_IDS, LOSS_IDS = 200, 400
"""Ids shown of a prompt and of a response; of longer ones the beginning and the end."""
DIM, GREEN, MARKED, PLAIN = "\x1b[2m", "\x1b[32m", "\x1b[1;7m", "\x1b[0m"
BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no whole letter."""


def coloured(ids: Sequence[int], loss_start: int, tokenizer: Any, *, colour: bool | None = None) -> str:
    """The text of `ids`: on a terminal the prompt dim, the loss green, its last token (the stop token) inverted;
    elsewhere the loss between ⟦ and ⟧ with its last token between « and ».

    `colour`: None asks the terminal, and NO_COLOR (no-color.org). Control characters of a text show as escapes.
    """
    if colour is None:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    prompt = _shortened(ids[:loss_start], PROMPT_IDS, tokenizer)
    loss = _shortened(ids[loss_start:-1], LOSS_IDS, tokenizer)
    stop = _text(ids[loss_start:][-1:], tokenizer)
    if colour:
        return f"{DIM}{prompt}{PLAIN}{GREEN}{loss}{MARKED}{stop}{PLAIN}"
    return f"{prompt}⟦{loss}«{stop}»⟧"


def _shortened(ids: Sequence[int], limit: int, tokenizer: Any) -> str:
    if len(ids) <= limit:
        return _text(ids, tokenizer)
    half = limit // 2
    # a letter of several tokens may be cut at either edge
    head, tail = _text(ids[:half], tokenizer).rstrip(BROKEN), _text(ids[-half:], tokenizer).lstrip(BROKEN)
    return f"{head} […{len(ids) - 2 * half:,} tokens…] {tail}"


def _text(ids: Sequence[int], tokenizer: Any) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
