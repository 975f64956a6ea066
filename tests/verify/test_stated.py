"""Where an answer states its result, and what only changes the looks of a text."""

from __future__ import annotations

import pytest

from distill.verify.plain import LONGEST, without_latex, without_markdown
from distill.verify.stated import box, last_sentence, short_box, told


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
        ("The answer should be 5", "5"),
        ("The answer isn't 4, it is 5", "5"),
        ("The result is 5", "5"),
        ("The correct option (of all) is 5", "5"),
        ("Solution: first we add.\nSo it is 5", None),
        ("The answer is 4. Wait, that is wrong.\nIt is 5", None),
        ("The answer is 5. The 4 is wrong.", "5. The 4 is wrong."),
        ("The answer is 5, not 4 instead.", "5, not 4 instead."),
        ("the answering machine is 5", None),
        ("answer", None),
        ("5", None),
        ("", None),
        ("The answer is 5" + " " * LONGEST + "x", None),
    ],
)
def test_told(answer: str, expected: str | None) -> None:
    found = told(answer)
    assert (None if found is None else found.line) == expected


def test_told_knows_what_follows() -> None:
    found = told("The answer is\n\n$$\n5\n$$\nIndeed.")
    assert found is not None
    assert (found.line, found.rest) == ("$$", "$$\n5\n$$\nIndeed.")


def test_boxes() -> None:
    found = box(r"\boxed{1} and so \boxed{ \frac{1}{2} }. Done")
    assert found is not None
    assert (found.content, found.rest, found.joined, found.changed) == (r" \frac{1}{2} ", ". Done", False, False)
    joined = box(r"\boxed{1} or \boxed{2}")
    assert joined is not None
    assert (joined.content, joined.joined, joined.changed) == ("1, 2", True, True)
    scaled = box(r"\fbox{5} million")
    assert scaled is not None
    assert (scaled.text, scaled.content, scaled.changed) == (r"5 \text{ million}", "5", True)
    bare = box(r"It is \boxed 7.")
    assert bare is not None
    assert (bare.content, bare.rest) == ("7", ".")
    assert box("none") is None
    assert short_box(r"\boxed{ }") is None
    assert short_box("\\boxed{" + "1" * LONGEST + "}") is not None
    assert short_box("\\boxed{" + "1" * (LONGEST + 1) + "}") is None


def test_last_sentence() -> None:
    assert last_sentence("One. Two!\nThree? It is 3.5 m.\n\n") == "It is 3.5 m."
    assert last_sentence("- **It** is `B`") == "It is B"
    assert last_sentence("一。二") == "二"
    assert last_sentence(" ") == ""


def test_looks_mean_nothing() -> None:
    assert without_latex(r"\text{a \mathrm{b}}\,c~d $x$ \(y\) \$5 \left( z \right)") == r"a b c d x y \$5 ( z )"
    assert without_markdown("> 7") == "> 7", "no quotation"
    assert without_latex("New~York") == "New York"
    assert without_markdown("## Title\n> *so* _it_ is **2*3*4** and snake_case_name") == (
        "Title\nso it is 2*3*4 and snake_case_name"
    )
