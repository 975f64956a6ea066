"""Where an answer states its result."""

from __future__ import annotations

import pytest

from distill.verify.stated import LONGEST, box_and_rest, boxed, last_sentence, marked, without_latex, without_markdown


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The answer is 5", "5"),
        ("Answer: 5\nSo much for the answer", "5"),
        ("The answer is 4. No, the answer is 5.", "5."),
        ("**Final Answer:**\n\n**5**\n", "5"),
        ("İ ANSWER: 5", "5"),
        ("#### 5", "5"),
        ("答案是 5", "5"),
        ("The answer to the question of how many apples there are is 5", "5"),
        ("the answering machine is 5", None),
        ("answer", None),
        ("5", None),
        ("", None),
        ("The answer is 5" + " " * LONGEST + "x", None),
    ],
)
def test_marked(answer: str, expected: str | None) -> None:
    assert marked(answer) == expected


def test_boxes() -> None:
    assert box_and_rest(r"\boxed{1} and \boxed{ \frac{1}{2} }. Done") == (r"\frac{1}{2}", ". Done")
    assert box_and_rest("none") == (None, "none")
    assert boxed(r"\fbox{5}") == "5"
    assert boxed("\\boxed{" + "1" * (LONGEST + 1) + "}") is None


def test_last_sentence() -> None:
    assert last_sentence("One. Two!\nThree? It is 3.5 m.\n\n") == "It is 3.5 m."
    assert last_sentence("- **It** is `B`") == "It is B"
    assert last_sentence(" ") == ""


def test_looks_mean_nothing() -> None:
    assert without_latex(r"\text{a \mathrm{b}}\,c~d $x$ \(y\) \$5 \left( z \right)") == r"a b c d x y \$5 ( z )"
    assert without_latex("New~York") == "New York"
    assert without_markdown("## Title\n> *so* _it_ is **2*3*4** and snake_case_name") == (
        "Title\nso it is 2*3*4 and snake_case_name"
    )
