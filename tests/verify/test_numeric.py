"""Numbers within a tolerance: pairs as textbooks and teachers write them, and each edge of the tolerance."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.records import Prompt
from distill.verify import PASS, abstaining, failing
from distill.verify.numeric import check_numeric, read_gold, verify
from distill.verify.quantity import read

RIGHT = [
    # (gold, answer)
    ("3.2", r"\boxed{3.2}"),
    ("3.2", r"\boxed{3.20}"),
    ("3.2", r"\boxed{3.22}"),
    ("9.81", r"\boxed{9.8 \text{ m/s}^2}"),
    ("9.8 m/s^2", r"\boxed{9.81\,\mathrm{m\,s^{-2}}}"),
    ("1.6e-19", r"\boxed{1.602 \times 10^{-19} \text{ C}}"),
    ("1.6 × 10⁻¹⁹", r"\boxed{1.6 \times 10^{-19}}"),
    ("6.02e23", r"\boxed{6.022 \cdot 10^{23}}"),
    ("300000000", r"\boxed{3 \times 10^8}"),
    ("3.0e8", r"The answer is 299,792,458 m/s."),
    ("0.75", r"\boxed{3/4}"),
    ("0.75", r"\boxed{\frac{3}{4}}"),
    ("3/4", r"\boxed{0.75}"),
    ("-0.5", r"\boxed{-\frac{1}{2}}"),
    ("1.5", r"\boxed{1 \frac{1}{2}}"),
    ("1.414", r"\boxed{\sqrt{2}}"),
    (r"\sqrt{2}", r"\boxed{1.41}"),
    ("6.28", r"\boxed{2\pi \text{ m}}"),
    ("7.39", r"\boxed{e^2}"),
    ("120", r"\boxed{5!}"),
    ("1024", r"\boxed{2^{10}}"),
    ("1267650600228229401496703205376", r"\boxed{2^{100}}"),
    ("1234", r"\boxed{1{,}234}"),
    ("1,234.5", r"\boxed{1234.5}"),
    ("15", r"\boxed{\$15}"),
    ("15", r"\boxed{$15$}"),
    ("$15.50", r"\boxed{15.5 \text{ dollars}}"),
    ("-5", r"\boxed{-\$5}"),
    ("50", r"\boxed{50\%}"),
    ("50%", r"\boxed{0.5}"),
    ("0.125", r"\boxed{12.5\%}"),
    ("12.5%", r"\boxed{12.5 \text{ percent}}"),
    ("5 km", r"\boxed{5 \text{ kilometers}}"),
    ("20 m/s", r"\boxed{20 \text{ meters per second}}"),
    ("25°C", r"\boxed{25^\circ\text{C}}"),
    ("3000000", r"\boxed{3 \text{ million}}"),
    ("2.5 billion", r"\boxed{2{,}500{,}000{,}000}"),
    ("62", r"\boxed{100 - 38 = 62}"),
    ("7", r"\boxed{x = 7}"),
    ("3.14", r"\boxed{\approx 3.1416}"),
    ("0", r"\boxed{0}"),
    ("0", r"\boxed{0.0000000000001}"),
    ("0.0", r"\boxed{0}"),
    ("18", "**Answer: 18 dollars**"),
    ("72", "#### 72"),
    ("3.2", "Thus the final answer is v = 3.2 m/s."),
    ("3.14159", "The answer is approximately 3.14, since the radius is 1."),
    ("42", "The answer is\n\n**42**"),
    ("15", "She had 20 and gave away 5, leaving 15 apples."),
    ("1200", "It costs $1,200 in total."),
    ("3200", r"The speed is therefore \(3.2\times10^3\) m/s."),
    ("5", "答案是 5。"),
    ("5", r"We use \boxed{E = mc^2}. Answer: 5"),
    ("17", r"So it is \fbox{17}."),
    ("1.41", r"\boxed{√2}"),
    ("252", r"\boxed{\dbinom{10}{5}}"),
    ("0.549", r"\boxed{\frac{1}{2}\ln 3}"),
    ("0.549", r"\boxed{\frac{\ln 3}{2}}"),
    ("0.25", r"\boxed{\text{the probability is } \frac{1}{4}}"),
    ("20", r"\boxed{\text{Tom has } 20 \text{ marbles}}"),
    ("62", r"\boxed{A = 2 \cdot 31 = 62}"),
    ("6", r"\boxed{5}, no, wait: \boxed{6}"),
    ("1000", "The result is about 1 thousand."),
    ("5000000", r"There are \boxed{5} million people."),
    ("1000", "This makes 1 thousand in all."),
    ("1000000", "She earns $1 million."),
    ("1000000", "She earns 1 million dollars a year."),
    ("1000", "This gives about 10 hundred."),
    ("12", "That makes 1 dozen eggs."),
    ("12", r"\boxed{1 \text{ dozen}}"),
    ("72", "The answer is 72 clips, not 48."),
    ("72", "It is 72, not 48."),
    ("72", "The answer is 72 (not 48)."),
    ("72", "The result is 72 clips rather than 48."),
    ("72", "So x = 72, not 48."),
    ("120", "The answer is 5!"),
    ("1.5 hours", "It takes 1.5 hours in all."),
]

WRONG = [
    ("3.2", r"\boxed{3.3}"),
    ("3.2", r"\boxed{-3.2}"),
    ("3.2", r"\boxed{32}"),
    ("1.6e-19", r"\boxed{0}"),
    ("1.6e-19", r"\boxed{1.6 \times 10^{-18}}"),
    ("1.6e-19", r"\boxed{1.6 \times 10^{19}}"),
    ("0.0", r"\boxed{0.001}"),
    ("100", r"\boxed{101}"),
    ("1000000", r"\boxed{1000001}"),
    ("100", r"\boxed{104.5}"),
    ("0.5", r"\boxed{0.54}"),
    ("0.75", r"\boxed{\frac{4}{3}}"),
    ("1.414", r"\boxed{\sqrt{3}}"),
    ("50%", r"\boxed{5}"),
    ("50%", r"\boxed{0.05}"),
    ("15", r"\boxed{\$16}"),
    ("3000000", r"\boxed{4 \text{ million}}"),
    ("1234", r"\boxed{12{,}340}"),
    ("5", r"\boxed{\text{none}}"),
    ("16", "We get 15."),
    ("16", "The answer is 15, not 14 as one may think."),
    ("20", r"\boxed{\text{Tom has } 21 \text{ marbles}}"),
    ("300000001", r"\boxed{10^{50}}"),
    ("10^{50}+1", r"\boxed{10^{50}}"),
    ("1267650600228229401496703205377", r"\boxed{2^{100}}"),
    ("1000", "This makes 2 thousand in all."),
    ("48", "The answer is 72 clips, not 48."),
    ("90", r"\boxed{2 \text{ hours}}"),
    ("91", r"\boxed{1.5 \text{ hours}}"),
    ("90", r"\boxed{1.5 \text{ apples}}"),
    ("300", r"\boxed{20^\circ\text{C}}"),
    ("73", "The answer is 72!"),
]

ABSTAINED = [
    # (gold, answer, reason)
    ("0.17", r"\boxed{0.1667}", "coarse_gold"),
    ("0.17", r"\boxed{1/6}", "coarse_gold"),
    ("100", r"\boxed{100.4}", "coarse_gold"),
    ("5 km", r"\boxed{5 \text{ m}}", "different_unit"),
    ("5 km", r"\boxed{5000 \text{ m}}", "different_unit"),
    ("90", r"\boxed{1.5 hours}", "different_unit"),
    ("90", "It takes 1.5 hours.", "different_unit"),
    ("1.5 hours", r"\boxed{90}", "different_unit"),
    ("5000", r"\boxed{5 km}", "different_unit"),
    ("5", r"\boxed{5000 \text{ m}}", "different_unit"),
    ("0.5", r"\boxed{50 \text{ cents}}", "different_unit"),
    ("2 days", r"\boxed{48}", "different_unit"),
    ("72", r"\boxed{20 m/s}", "different_unit"),
    ("20", r"\boxed{72 km/h}", "different_unit"),
    ("20000", r"\boxed{2 \text{ m}^2}", "different_unit"),
    ("298", r"\boxed{25 ^\circ C}", "different_unit"),
    ("77", r"\boxed{25 ^\circ C}", "different_unit"),
    ("25", r"\boxed{298 \text{ K}}", "different_unit"),
    ("3.14", r"\boxed{180^\circ}", "different_unit"),
    ("180", r"\boxed{3.1416 \text{ rad}}", "different_unit"),
    ("72", "The answer is 72!", "ambiguous_answer"),
    ("72", "The answer is less than 72", "ambiguous_answer"),
    ("0.72", "The result is 72 out of 100", "ambiguous_answer"),
    ("72", "The answer is seventy-two.", "ambiguous_answer"),
    ("3", r"\boxed{3 \text{ million}}", "ambiguous_answer"),
    ("5", r"\boxed{x \le 5}", "ambiguous_answer"),
    ("5", r"\boxed{x <= 5}", "ambiguous_answer"),
    ("5", r"\boxed{x != 5}", "ambiguous_answer"),
    ("1.5", r"\boxed{1.5 \pm 0.1}", "ambiguous_answer"),
    ("4", r"\boxed{x = 3, y = 4}", "ambiguous_answer"),
    ("5", r"\boxed{5 \text{ or } 6}", "ambiguous_answer"),
    ("15", r"\boxed{15 \text{ minutes } 30 \text{ seconds}}", "ambiguous_answer"),
    ("5", r"\boxed{5 \text{ thousandths}}", "ambiguous_answer"),
    ("5", r"\boxed{\text{five}}", "ambiguous_answer"),
    ("0.5", r"\boxed{\sin 30^\circ}", "ambiguous_answer"),
    ("2", r"\boxed{2xy}", "ambiguous_answer"),
    ("20", "She had 20 and gave away 5, leaving 15 apples.", "ambiguous_answer"),
    ("5", "The answer is not 5.", "ambiguous_answer"),
    ("8", r"It is $\frac{3}{4}$ of 8", "ambiguous_answer"),
    ("7", "We get x = 5 and y = 7", "ambiguous_answer"),
    ("5", r"\boxed{9^{9^{9^9}}}", "ambiguous_answer"),
    ("5", r"\boxed{1.5 \times 10^{{-999999999}}}", "ambiguous_answer"),
    ("5", r"\boxed{(((((1+1)+1)+1)+1)+1)}", "ambiguous_answer"),
    ("5", r"\boxed{99999!}", "ambiguous_answer"),
    ("5", r"\boxed{\frac{1}{0}}", "ambiguous_answer"),
    ("two", r"\boxed{2}", "unparseable_gold"),
    ("(3, 4)", r"\boxed{(3, 4)}", "unparseable_gold"),
    ("3x - 4y = 12", r"\boxed{12}", "unparseable_gold"),
    ("x^2 + y^2 = 9", r"\boxed{9}", "unparseable_gold"),
    ("12", r"\boxed{3x - 4y = 12}", "ambiguous_answer"),
    ("300000001", r"\boxed{3.0 \times 10^8}", "coarse_gold"),
    ("x^2", r"\boxed{x^2}", "unparseable_gold"),
    ("1" * 3_000, r"\boxed{1}", "unparseable_gold"),
    ("1e999999", r"\boxed{1e999999}", "unparseable_gold"),
    (None, r"\boxed{1}", "no_gold"),
    (" ", r"\boxed{1}", "no_gold"),
]


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_right(gold: str, answer: str) -> None:
    assert check_numeric(answer, gold) == PASS


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_wrong(gold: str, answer: str) -> None:
    assert check_numeric(answer, gold) == failing("wrong_answer")


@pytest.mark.parametrize(("gold", "answer", "reason"), ABSTAINED)
def test_abstains(gold: str, answer: str, reason: str) -> None:
    assert check_numeric(answer, gold) == abstaining(reason)


@pytest.mark.parametrize("answer", [None, "", " \n", "I do not know."])
def test_no_answer(answer: str | None) -> None:
    assert check_numeric(answer, "5") == failing("no_answer")


def test_of_a_prompt() -> None:
    prompt = Prompt("How fast?", kind="numeric", answer="3.2")
    assert verify(prompt, r"\boxed{3.21}") == PASS
    assert verify(prompt, r"\boxed{3.4}") == failing("wrong_answer")


def test_the_tolerance_ends_where_it_says() -> None:
    assert check_numeric(r"\boxed{1.009}", "1.00") == PASS
    assert check_numeric(r"\boxed{1.012}", "1.00") == failing("wrong_answer")
    assert check_numeric(r"\boxed{1.04}", "1.00", rel_tol=0.05) == PASS
    assert check_numeric(r"\boxed{1.009}", "1.00", rel_tol=0.001) == failing("wrong_answer")
    assert check_numeric(r"\boxed{1.4}", "1.00", abs_tol=0.5) == PASS
    assert check_numeric(r"\boxed{101}", "100", abs_tol=1) == PASS, "whoever sets an absolute one means it"


def test_golds() -> None:
    assert read_gold("3.2 m") == PASS
    assert read_gold("x > 3") == abstaining("unparseable_gold")
    assert read_gold("") == abstaining("no_gold")


@settings(deadline=None, max_examples=200)
@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9),
    st.sampled_from(
        ["{}", "${}$", r"\text{{{}}}", r"\({}\)", r"\mathbf{{{}}}", " {} ", "{}.", "x = {}", r"\approx {}"]
    ),
)
def test_a_number_is_read_as_it_is_however_dressed(number: Decimal, dress: str) -> None:
    for written in (f"{number}", f"{number:,}", f"{number:.3e}"):
        found = read(dress.format(written))
        assert found is not None
        assert found.value == Decimal(written.replace(",", ""))


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 10**9),
    st.sampled_from(["m", "km", "kg", "s", "dollars", "apples", "m/s", r"\text{ cm}^2", r"\%", "miles per hour", "J"]),
)
def test_a_unit_never_changes_whether_a_number_is_right(number: int, unit: str) -> None:
    for other in (number, number + 1):
        plain, dressed = f"\\boxed{{{other}}}", f"\\boxed{{{other} {unit}}}"
        assert check_numeric(dressed, str(number)) == check_numeric(plain, str(number))
