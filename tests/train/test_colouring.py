"""One trace for the eye: what is learned is told from what is not, on a terminal and elsewhere."""

from __future__ import annotations

import io
import os
import pty
import sys

import pytest

from distill.contract import Encoded, Response
from distill.train.colouring import DIM, GREEN, LOSS_IDS, MARKED, PLAIN, PROMPT_IDS, coloured
from train.material import CONTRACT, tokenizer

HEAD, STOP = "<｜begin▁of▁sentence｜><｜User｜>", "<｜end▁of▁sentence｜>"


def encoded(question: str, response: Response) -> Encoded:
    return CONTRACT.encode(tokenizer(), CONTRACT.messages(question, "math"), response)


def shown(question: str, response: Response, *, colour: bool | None = False) -> str:
    example = encoded(question, response)
    return coloured(example.ids, example.loss_start, tokenizer(), colour=colour)


def test_brackets_stand_around_the_loss_and_its_stop_token() -> None:
    assert shown("1+1?", Response("why", "2")) == f"{HEAD}1+1?<｜Assistant｜>⟦<think>\nwhy\n</think>\n\n2«{STOP}»⟧"


def test_colours_say_the_same() -> None:
    text = shown("1+1?", Response("why", "2"), colour=True)
    assert text == (f"{DIM}{HEAD}1+1?<｜Assistant｜>{PLAIN}{GREEN}<think>\nwhy\n</think>\n\n2{MARKED}{STOP}{PLAIN}")


def test_a_loss_without_a_stop_token_shows_it() -> None:
    example = encoded("1+1?", Response("why", "2"))
    text = coloured(example.ids[:-1], example.loss_start, tokenizer(), colour=False)
    assert text.endswith("\n\n«2»⟧")
    assert coloured(example.ids, len(example.ids), tokenizer(), colour=False).endswith(f"{STOP}⟦«»⟧")


def test_long_parts_lose_their_middle_and_say_how_much() -> None:
    question, reasoning = "7 8 9 " * 300, "1 2 3 " * 500
    example = encoded(question, Response(reasoning, "the answer"))
    text = shown(question, Response(reasoning, "the answer"))
    prompt, loss = example.loss_start, len(example.ids) - example.loss_start - 1
    assert f"[…{prompt - PROMPT_IDS:,} tokens…]" in text.partition("⟦")[0]
    assert f"[…{loss - LOSS_IDS:,} tokens…]" in text.partition("⟦")[2]
    assert text.startswith(HEAD + "7 8 9 7")
    assert f"the answer«{STOP}»⟧" in text
    assert "9 7 8 9 <｜Assistant｜>⟦<think>\n1 2 3 1" in text


def test_a_cut_letter_is_left_out_and_control_characters_are_escaped() -> None:
    text = shown("é" * 400, Response("🧮" * 400, "\x1b[31mred\x07\tand\nblack"))
    assert "\ufffd" not in text
    assert "\\x1b[31mred\\x07\tand\nblack" in text


@pytest.mark.parametrize(("no_color", "wanted"), [("", True), ("1", False)])
def test_a_terminal_is_asked(monkeypatch: pytest.MonkeyPatch, no_color: str, wanted: bool) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    main, other = pty.openpty()
    try:
        with os.fdopen(other, "w") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            text = coloured([719, 720], 1, tokenizer())
    finally:
        os.close(main)
    assert (DIM in text) is wanted
    assert ("⟦" in text) is not wanted
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert "\x1b" not in coloured([719, 720], 1, tokenizer())
