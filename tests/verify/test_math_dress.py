"""What changes only how an answer or a gold looks turns no verdict: over the labelled pairs, and case by case."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.math import check_math
from distill.verify.stated import last_line

DATA = Path(__file__).parents[1] / "data"
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_ALONE = re.compile(r"\\boxed\{[^{}\\$]*[^{}\\$!]\}")


def boxed(answer: str, put: Callable[[str], str], where: str = "") -> str:
    """Each box whose content matches `where` with another content."""
    return _BOX.sub(lambda box: f"\\boxed{{{put(box[1])}}}" if re.search(where, box[1]) else box[0], answer)


def out_of_the_box(answer: str, before: str = "") -> str:
    alone = _ALONE.fullmatch(answer.strip()) is not None and "{- " not in answer
    return before + _BOX.sub(lambda box: box[1], answer) if alone else answer


_UNIT = r"^[^\\$_^]*\d[: ][^\\$_^]*[A-Za-z]{2}[^\\$_^]*$"
"""A number and a word behind it, without any LaTeX."""
DRESS: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "white space": lambda a, g: (boxed(a, lambda text: f" {text} "), g),
    "text": lambda a, g: (
        boxed(a, lambda text: f"\\text{{{text}}}", r"^[^\\$_^]*\d[: ][^\\$_^]*[A-Za-z]{2}[^\\$_^]*$"),
        g,
    ),
    "bold": lambda a, g: (boxed(a, lambda text: f"\\mathbf{{{text}}}", r"^[-\d.,/ ]+$"), g),
    "display": lambda a, g: (boxed(a, lambda text: f"\\displaystyle {text}", r"^[^$]*$"), g),
    "Markdown": lambda a, g: (re.sub(r"(\$?\\boxed\{[^{}]*\}\$?)", r"**\1**", a), g),
    "courtesy": lambda a, g: (a + "\n\nI hope this helps! Let me know if you have any questions.", g),
    "no box": lambda a, g: (out_of_the_box(a), g),
    "announced": lambda a, g: (out_of_the_box(a, "**Final Answer:** "), g),
    "gold in math mode": lambda a, g: (a, g if "$" in g else f"${g}$"),
    "gold with a full stop": lambda a, g: (a, f"{g}."),
}


@pytest.fixture(scope="module")
def judged() -> list[tuple[dict[str, Any], str]]:
    """Every third of the pairs, with its verdict."""
    lines = [
        line
        for name in ("math_pairs.jsonl", "math_pairs_blind.jsonl")
        for line in (DATA / name).read_text(encoding="utf-8").splitlines()
    ]
    rows = [json.loads(line) for line in lines[::3]]
    return [(row, check_math(row["answer"], row["gold"]).outcome) for row in rows]


@pytest.mark.parametrize("kind", DRESS)
def test_dress_turns_no_verdict(kind: str, judged: list[tuple[dict[str, Any], str]]) -> None:
    changed, turned = 0, []
    for row, before in judged:
        answer, gold = DRESS[kind](row["answer"], row["gold"])
        if (answer, gold) != (row["answer"], row["gold"]):
            changed += 1
            if {before, check_math(answer, gold).outcome} == {"pass", "fail"}:
                turned.append((answer, gold, before))
    assert turned == []
    assert changed >= 5


@pytest.mark.parametrize(
    ("answer", "gold", "outcome"),
    [
        ("\\boxed{\\text{5 pm}}", "17:00", PASS),
        ("\\boxed{\\text{5:30 p.m.}}", "5:30 PM.", PASS),
        ("\\boxed{\\text{5 am}}", "5 pm", failing("wrong_answer")),
        ("\\boxed{5}", "$5$.", PASS),
        ("\\boxed{6}", "$5$ and $6$", failing("wrong_answer")),
        ("4i + 3", "3 + 4i", PASS),
        ("x² + 1", "x^2 + 1", PASS),
        ("y = 7", "x = 7", failing("wrong_answer")),
        ("a = 5, b = 6", "6", abstaining("ambiguous_answer")),
        ("5, 7", "7", abstaining("ambiguous_answer")),
        ("10 m/s", "10 km/h", failing("wrong_answer")),
        ("2 hours 30 minutes", "150 minutes", PASS),
        ("10 + 20 = 30 dollars", "30", PASS),
        ("24 clips in May and 48 in April", "24", abstaining("ambiguous_answer")),
        ("all real numbers", "\\mathbb{R}", PASS),
        ("There is no solution.", "\\emptyset", PASS),
        ("blue", "\\emptyset", failing("wrong_answer")),
        ("5!", "5", PASS),
        ("The solution is $x \\in (0, 1)$. Good luck!", "(0, 1)", PASS),
        ("It is 42. Hope that helps!", "42", PASS),
        ("This gives 3/sin(x).", "3", abstaining("unparseable_answer")),
        ("So x is 3/alpha.", "3", abstaining("ambiguous_answer")),
        ("Therefore the probability is 7/thirty.", "7", abstaining("unparseable_answer")),
        ("so f(x) is 2/xyz", "2", abstaining("ambiguous_answer")),
        ("So there are 12/two ways.", "12", abstaining("unparseable_answer")),
        ("\\boxed{60 \\text{ miles square}}", "60 miles", abstaining("ambiguous_answer")),
        ("It pays \\$7200/year", "7200", PASS),
        ("\\boxed{4!!}", "8", abstaining("unparseable_answer")),
        ("希望这对你有帮助！", "42", failing("no_answer")),
        ("所以有 42 个。希望这对你有帮助！", "42", PASS),
        ("The total is **\\boxed{5}** million.", "5000000", PASS),
    ],
)
def test_answers_without_a_box_and_golds_in_dress(answer: str, gold: str, outcome: Outcome) -> None:
    assert check_math(answer, gold) == outcome


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("So 5.\n\n*I hope this helps!* 😊\nFeel free to ask.", "So 5."),
        ("Let me know if 5 is what you meant.", "Let me know if 5 is what you meant."),
        ("Hope is 5 letters away.", "Hope is 5 letters away."),
        ("I hope this helps!", "I hope this helps!"),
        ("", ""),
    ],
)
def test_courtesies_are_no_last_line(answer: str, line: str) -> None:
    assert last_line(answer) == line
