"""Words that survive another form of the same text, and differ where the mathematics differs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.prompts.memo import MOST
from distill.prompts.words import number_places, numbers, words

QUESTION = "Anna's well-known shop sold 1,250 cups at $3.50 each, i.e. half of x-1. How many are left?"


@pytest.mark.parametrize(
    "other",
    [
        QUESTION.replace(" ", "\n"),
        "> " + QUESTION.replace(", ", ",\r\n> "),
        QUESTION.upper(),
        QUESTION.replace("1,250", "1{,}250 \\,").replace("$3.50", "\\$\\(3.50\\)~\\quad"),
        QUESTION.replace("1,250", r"$\left. 1\,250 \right.$").replace("cups", r"\text{cups}"),
        QUESTION.replace("1,250", "1250"),
        QUESTION.replace("'", "’").replace("-", "−").replace(" ", "\u00a0"),
        QUESTION.replace("well-known", "well–known").replace("1", "１").replace("5", "५").replace("3", "٣"),
        QUESTION.replace("shop", "sh\u00adop").replace("cups", "cu\u200bps"),
    ],
)
def test_another_form_has_the_same_words(other: str) -> None:
    assert words(other) == words(QUESTION)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\dfrac{1}{2}", "1/2"),
        (r"\frac12", "½"),
        (r"\frac{\frac{1}{2}}{x+1}", "(1/2)/(x+1)"),
        (r"2 \cdot 3 \le 7 \ne 8", "2·3 ≤ 7 ≠ 8"),
        ("x² + 3", "$x^{2}+3$"),
        (r"\sqrt{a+b}", "√(a+b)"),
        ("30°", r"$30^\circ$"),
        (r"\alpha + \pi", "α + π"),
        ("café", "cafe\u0301"),
        ("STRASSE", "straße"),
        ("ﬁnd ｘ ＋ 1", "find x + 1"),
        (r"$6$–$11$ \& $.5", "6-11 and 0.5".replace("and", "")),
        ("$5.00 and .5", "$5 and 0.5"),
        ("(A) 3 (B) 4", "A. 3 B. 4"),
        ("**Note** that", "note that"),
        ("sold **48** clips, **half of 3**", "sold 48 clips, half of 3"),
        ("Anna&#39;s &quot;shop&quot;&nbsp;x &lt; 5 &amp; y", 'Anna\'s "shop" x < 5 and y'.replace("and", "")),
    ],
)
def test_two_ways_to_write_one_thing(one: str, other: str) -> None:
    assert words(one) == words(other) != []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x + 1", "x - 1"),
        ("2**3**2", "2 3 2"),
        ("a **3** b", "a 4 b"),
        ("(x)**2 + y**2", "x 2 + y 2"),
        ("(2+3)*4", "2+3*4"),
        ("2^{x+1}", "2^{x}+1"),
        ("a < b", "a > b"),
        ("x*y", "x/y"),
        ("find 5!", "find 5"),
        ("f'(x)", "f(x)"),
        ("1.5", "15"),
        ("20%", "20"),
        (r"\sqrt{a+b}", r"\sqrt{a}+b"),
    ],
)
def test_another_formula_has_other_words(one: str, other: str) -> None:
    assert words(one) != words(other)


def test_scripts_without_spaces_give_a_word_for_each_letter() -> None:
    assert words("小明有３个苹果。") == ["小", "明", "有", "3", "个", "苹", "果"]
    assert words("りんごを५個") == ["り", "ん", "ご", "を", "5", "個"]
    assert words("사과 3개") == ["사과", "3", "개"]
    assert words("सोहन के पास ५ सेब हैं") == ["सोहन", "के", "पास", "5", "सेब", "हैं"]


def test_numbers_are_told_in_their_order_whether_in_digits_or_in_english() -> None:
    found = words("Two of 1,000 cups and half of the 12.50 left: 3/4")
    assert numbers(found) == ("2", "1000", "1/2", "12.50", "3", "4")
    assert [found[place] for place in number_places(found)] == ["two", "1000", "half", "12.50", "3", "4"]


@pytest.mark.parametrize("text", ["", "  \n\t", "😀 🎉", "\\", "$$", "...", "\u200b"])
def test_a_text_without_words(text: str) -> None:
    assert words(text) == []


def test_lone_marks_and_half_surrogates_do_no_harm() -> None:
    assert words("5 \u0301\u0301 5")[0] == "5"
    assert words("a\ud800b 7")[-1] == "7"


@pytest.mark.parametrize(
    "part", ["a ", "1,", "\\frac{", "{", "(", "* ", "^{a", "sqrt{", "\\", "\\frac ", "> ", "$5 .5 "]
)
def test_a_megabyte_of_one_part_ends(part: str) -> None:
    """A pattern that goes back and forth would take hours here, and the test's time limit would end it."""
    assert len(words(part * (1_000_000 // len(part)))) <= 1_000_000


@given(st.text())
def test_words_are_never_empty_and_read_as_themselves(text: str) -> None:
    found = words(text)
    assert all(found)
    assert all(word == word.strip() for word in found)
    assert len(numbers(found)) == len(number_places(found))


def test_an_operator_looks_beyond_white_space_and_nothing_else_does() -> None:
    assert words("48 -\n\t 5 * x + well - known, a/ b") == [
        "48",
        "-",
        "5",
        "*",
        "x",
        "+",
        "well",
        "known",
        "a",
        "/",
        "b",
    ]
    assert words("- - 5 -") == ["-", "5"]
    assert words("(a ) ( b) 3 ! 3! (c)") == ["(", "a", ")", "(", "b", ")", "3", "3", "!", "c"]


def test_pieces_that_were_met_are_kept_in_bounds() -> None:
    from distill.prompts import words as module

    text = " ".join(f"piece{n}" for n in range(2 * MOST)) + " " + "x" * 100
    assert words(text) == words(text)
    assert 0 < len(module._PIECES) <= MOST
    assert "x" * 100 not in module._PIECES
