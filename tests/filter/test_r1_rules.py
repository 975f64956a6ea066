"""Long paragraphs and code in the reasoning, as R1's own data were cleaned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from checked_trace import PROMPT, TRACE

from distill.filter.r1_rules import code_in_reasoning, paragraphs
from distill.filter_specs import CodeSettings, ParagraphSettings
from distill.records import Prompt

PARAGRAPHS, CODE = ParagraphSettings(), CodeSettings()
DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(
    ("reasoning", "score", "reason"),
    [
        ("a" * 4_000, 4_000, ""),
        ("a" * 4_001, 4_001, "long_paragraph"),
        ("\n".join(["x = 1"] * 2_000), 5, ""),
        ("short\n\n" + "a b " * 1_001 + "\nshort", 4_004, "long_paragraph"),
        ("算" * 1_333, 3_999, ""),
        ("算" * 1_334, 4_002, "long_paragraph"),
        (None, 0, ""),
        ("", 0, ""),
    ],
)
def test_paragraphs(reasoning: str | None, score: float, reason: str) -> None:
    found = paragraphs(PROMPT, replace(TRACE, reasoning=reasoning), PARAGRAPHS)
    assert (found.outcome, found.reason, found.score) == ("fail" if reason else "pass", reason, score)


def test_paragraphs_of_the_answer_and_other_limits() -> None:
    assert paragraphs(PROMPT, replace(TRACE, answer="a" * 9_000), PARAGRAPHS).outcome == "pass"
    assert paragraphs(PROMPT, replace(TRACE, reasoning="abc"), ParagraphSettings(longest=2)).reason == "long_paragraph"


PROGRAM = "def area(a, b):\n    return a * b\nprint(area(2, 3))"


@pytest.mark.parametrize(
    "reasoning",
    [
        "Let me compute it.\n```python\nx = 2\n```\nSo it is 2.",
        "```\n1 + 1\n```",
        "   ```py\n   x = 2",
        "~~~\nx = 2\n~~~",
        f"Let me write that down.\n{PROGRAM}\nSo it is 6.",
        "#include <stdio.h>\nint main() {\n  return 0;\n}",
        "import numpy as np\nfrom math import sqrt\n",
        "for i in range(10):\n    total += i\nprint(total)",
        "public static void main(String[] args) {\n  for (int i = 0; i < 9; i++) {\n  }\n}",
    ],
)
def test_code_in_the_reasoning(reasoning: str) -> None:
    trace = replace(TRACE, reasoning=reasoning)
    found = code_in_reasoning(PROMPT, trace, CODE)
    assert (found.outcome, found.reason) == ("fail", "code_block")
    assert code_in_reasoning(replace(PROMPT, kind="code"), trace, CODE).outcome == "pass"
    for question in ("Write a Python program that adds.", "What does this print?\n```\nx\n```", "编写一个程序求和。"):
        assert code_in_reasoning(Prompt(question, kind="open"), trace, CODE).outcome == "pass"


@pytest.mark.parametrize(
    "reasoning",
    [
        None,
        "",
        "The class of all sets:\nfor each x in A we import nothing.",
        "An empty fence:\n```\n```\nand on.",
        "The function f(x) = x + 1, so print(f(2)) would give 3.",
        "print(6)",
        "Define def as the deficit. Let me import the result from before:",
        "while (n > 0) we go on",
        "| a | b |\n| --- | --- |\n| 1 | 2 |",
        "`x` and `y` are numbers",
    ],
)
def test_what_is_no_code(reasoning: str | None) -> None:
    assert code_in_reasoning(PROMPT, replace(TRACE, reasoning=reasoning), CODE).outcome == "pass"


def test_code_without_a_fence_can_be_left_alone() -> None:
    fenced, bare = f"```\n{PROGRAM}\n```", PROGRAM
    loose = CodeSettings(unfenced=False)
    assert code_in_reasoning(PROMPT, replace(TRACE, reasoning=fenced), loose).reason == "code_block"
    assert code_in_reasoning(PROMPT, replace(TRACE, reasoning=bare), loose).outcome == "pass"
    assert code_in_reasoning(PROMPT, replace(TRACE, reasoning=None, answer=fenced), CODE).outcome == "pass", (
        "the answer"
    )


def test_worked_solutions_hold_neither() -> None:
    for line in (DATA / "gsm8k_200.jsonl").read_text(encoding="utf-8").splitlines():
        trace = replace(TRACE, reasoning=json.loads(line)["answer"])
        assert paragraphs(PROMPT, trace, PARAGRAPHS).outcome == "pass"
        assert code_in_reasoning(PROMPT, trace, CODE).outcome == "pass"
