"""Fuzz pairs (gold, answer) that try to hang, crash or blow up a verifier of mathematical answers.

``hostile(n, seed)`` yields ``n`` pairs; the same ``n`` and ``seed`` always give the same pairs, and a shorter run is a
prefix of a longer one with the same seed (every item has its own generator, seeded from ``seed`` and its index). The
module needs the standard library only. No pair has a label: the one thing a verifier owes each of them is an answer
(pass, fail or abstain) in bounded time and memory, without an exception. A few items are valid and equal, none is
meant to be judged by its verdict.

Sizes: most items are under 10 KB, about 3 in 1,000 lie between 100 KB and 400 KB, and exactly every 500th (20 in
10,000) is about a megabyte. Some items hold lone surrogates, so they cannot be encoded as UTF-8 without
``errors="surrogatepass"`` (JSON with ``ensure_ascii=True`` is fine).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

__all__ = ["FAMILIES", "hostile", "hostile_named"]

Family = Callable[[random.Random, int], str]
"""Makes the body of an answer of about the given number of characters (some families ignore the size)."""

MEGABYTE = 1_000_000
MEGA_EVERY = 500

REALISTIC: tuple[tuple[str, str], ...] = (
    (r"42", r"Adding both parts, we get \(20 + 22 = 42\)." "\n\n" r"\[\boxed{42}\]"),
    (r"\frac{3}{4}", r"The probability is therefore \(\boxed{\dfrac{3}{4}}\)."),
    (r"2\frac{1}{3}", r"Hence the length is $\boxed{2\frac{1}{3}}$ feet."),
    (r"50\%", r"So half of them remain: \(\boxed{50\%}\)."),
    (r"\$1,234.50", r"In total she pays **\(\boxed{\$1{,}234.50}\)**."),
    (r"5 \text{ cm}", r"The radius is \(\boxed{5 \text{ cm}}\)."),
    (r"60^\circ", r"Each angle measures \(\boxed{60^\circ}\)."),
    (r"(-\infty, -1) \cup [4, \infty)", r"The solution set is \[\boxed{(-\infty,-1)\cup\left[4,\infty\right)}\]"),
    (r"-1 \le x < 5", r"We conclude that \(\boxed{-1 \leq x < 5}\)."),
    (r"\{1, 2, 3\}", r"The values are \(\boxed{\{3, 2, 1\}}\)."),
    (r"(3, -4)", r"The vertex lies at \(\boxed{(3,-4)}\)."),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\[\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}}\]"),
    (r"1 \pm \sqrt{2}", r"By the quadratic formula \(x = \boxed{1 \pm \sqrt{2}}\)."),
    (r"1011_2", r"In binary, this is \(\boxed{1011_2}\)."),
    (r"3:45 \text{ pm}", r"The train arrives at \(\boxed{3:45 \text{ PM}}\)."),
    (r"\text{no solution}", r"The system is inconsistent: \(\boxed{\text{no solution}}\)."),
    (r"x^2+5x+6", r"Multiplying out gives \(\boxed{(x+2)(x+3)}\)."),
    (r"y = 2x + 3", r"The line is \(\boxed{2x - y + 3 = 0}\)."),
    (r"\frac{\sqrt{2}}{2}", r"So \(\sin 45^\circ = \boxed{\frac{1}{\sqrt{2}}}\)."),
    (r"\binom{10}{3}", r"There are \(\boxed{120}\) committees."),
    (r"2^{100}-1", r"The number of nonempty subsets is \(\boxed{2^{100}-1}\)."),
    (r"3+4i", r"The product equals \(\boxed{4i+3}\)."),
    (r"\pi", r"The area is \(\boxed{\pi \approx 3.14159}\)."),
    (r"7", "The answer is 7."),
    (r"3", "**Answer:** $x = 3$"),
    (r"5", r"\boxed{\text{The answer is } 5}"),
    (r"\frac{1}{2}", "The probability is \\boxed{½}."),
    (r"\frac{x^3}{3}+C", r"Integrating term by term, \(\boxed{\frac{x^3}{3}+C}\)."),
)

PLAIN_GOLDS: tuple[str, ...] = (*(gold for gold, _ in REALISTIC), "0", "1", "-1", "10^{50}+1", "", " ", "e^{i\\pi}")

WRAPS: tuple[str, ...] = (
    "\\boxed{%}",
    "Thus, the answer is \\(\\boxed{%}\\).",
    "We compute step by step.\n\n\\[\n\\boxed{%}\n\\]",
    "**Final Answer:** $\\boxed{%}$",
    "\\boxed{x = %}",
    "\\boxed{5} or rather \\boxed{%}",
    "\\boxed{%} \\approx \\boxed{5}",
    "The answer is %.",
    "**Answer:** $%$",
    "%",
    "\\fbox{%}",
    "\\boxed{%",
)

TOKENS: tuple[str, ...] = (
    "\\frac", "\\dfrac", "\\sqrt", "\\left(", "\\right)", "\\left[", "\\right.", "{", "}", "[", "]", "(",
    ")", "^", "_", "^{", "_{", "\\text{", "\\boxed{", "\\begin{pmatrix}", "\\end{pmatrix}", "\\begin{cases}",
    "\\end{cases}", "&", "\\\\", "\\", "$", "$$", "\\(", "\\)", "\\[", "\\]", "\\sum", "\\int", "\\prod",
    "\\lim", "\\log", "\\sin", "\\pi", "\\infty", "\\pm", "\\mp", "\\cup", "\\cap", "\\in", "\\mathbb{R}",
    "\\cdot", "\\times", "\\div", "\\%", "%", "#", "~", "!", "!!", "'", "''", "|", "\\|", "<", ">", "\\le",
    "\\ge", "\\ne", "=", "==", ":=", ",", ";", ":", ".", "..", "...", "\\dots", "\\,", "\\!", "\\quad", "+",
    "-", "*", "**", "/", "//", "0", "1", "9", "10", "1e999", "0x1F", "1_000", "x", "y", "i", "e", "E", "I",
    "oo", "nan", "inf", "zoo", "lambda", "None", "\u00bd", "\u221a", "\u03c0", "\u2212", "\u00d7", "\u2264",
    "\u221e", "\u00b2", "\u2075", "\u2083", "\u202e", "\u200b", "\ufeff", "\x00", "\ud800", "\udfff",
    "\U0001f600", " ", "  ", "\n", "\t", "</think>", "<think>", "\\operatorname{", "\\overline{", "\\not",
    "\\over", "\\choose", "\\atop",
)  # fmt: skip


def _reps(size: int, unit: str) -> int:
    """How many copies of ``unit`` make about ``size`` characters (at least one)."""
    return max(1, size // max(1, len(unit)))


def _big(rng: random.Random) -> str:
    """A number written as text, from harmless to absurd."""
    return rng.choice(
        ("7", "20", "99", "1000", "12345", "10^6", "10^9", "10^{12}", "10^{100}", "10^{10^{10}}", "9" * 40, "9^{9^9}")
    )


def _repeat(*units: str) -> Family:
    """A family that repeats one of ``units`` up to the size asked for."""

    def make(rng: random.Random, size: int) -> str:
        unit = rng.choice(units)
        return unit * _reps(size, unit)

    return make


def _nest(*shells: tuple[str, str, str]) -> Family:
    """A family of nested shells (opening, core, closing), at times with closings missing or too many."""

    def make(rng: random.Random, size: int) -> str:
        opening, core, closing = rng.choice(shells)
        depth = _reps(size, opening + closing)
        tilt = rng.choice((0, 0, 0, 0, 1, -1, depth, -depth))
        return opening * depth + core + closing * max(0, depth + tilt)

    return make


def _power_tower(rng: random.Random, size: int) -> str:
    height = rng.choice((3, 4, 5, 10, _reps(size, "9^{}")))
    base = rng.choice(("9", "2", "10", "x", "i", "-1", "0", "e", "99999", "0.1", "\\pi", "\\frac{1}{3}"))
    style = rng.randrange(3)
    if style == 0:
        return (base + "^{") * height + base + "}" * height
    if style == 1:
        return "^".join([base] * height)
    return "{" * height + base + ("}^" + base) * height


def _factorials(rng: random.Random, size: int) -> str:
    inner = rng.choice(("9", "100", "99999", "10^{9}", "n", "-5", "0.5", "(3!)", "10^{10^{10}}"))
    marks = rng.choice((1, 2, 3, 10, _reps(size, "!")))
    style = rng.randrange(4)
    if style == 0:
        return inner + "!" * marks
    if style == 1:
        depth = rng.choice((3, 6, _reps(size, "(!)")))
        return "(" * depth + inner + "!)" * depth
    if style == 2:
        return f"\\frac{{{inner}!}}{{{_big(rng)}!}}"
    return " + ".join([f"{rng.randrange(10**6)}!" for _ in range(min(200, _reps(size, "123456! + ")))])


def _digits(rng: random.Random, size: int) -> str:
    style = rng.randrange(7)
    if style == 0:
        return rng.choice("123456789") * size
    if style == 1:
        return "0" * size + "5"
    if style == 2:
        return "0." + "3" * size
    if style == 3:
        return "5." + "0" * size
    if style == 4:
        return "-" + "9" * (size // 2) + "." + "9" * (size // 2)
    if style == 5:
        return "1" + "0" * size + " \\times 10^{" + "9" * min(size, 5000) + "}"
    return "1" + ",000" * _reps(size, ",000")


def _scientific(rng: random.Random, size: int) -> str:
    exponent = rng.choice(("9", "99", "999", "99999", "999999999", "9" * 30, "-999999999", "9" * min(size, 2000)))
    return rng.choice(("1e{}", "1E+{}", "1.5 \\times 10^{{{}}}", "10^{{-{}}}", "1e-{}", "0x{}p{}")).replace(
        "{}", exponent
    )


def _huge_exponent(rng: random.Random, size: int) -> str:
    big, other = _big(rng), _big(rng)
    return rng.choice(
        (
            f"2^{{{big}}}",
            f"2^{{{big}}} - 2^{{{other}}} + 1",
            f"(1+\\sqrt{{2}})^{{{big}}}",
            f"(x+1)^{{{big}}}",
            f"(x+y+z+w)^{{{big}}} - (x-y)^{{{other}}}",
            f"(a+b+c)^{{{rng.choice((50, 200, 1000))}}}(d+e+f)^{{{rng.choice((50, 200, 1000))}}}",
            f"\\sqrt[{big}]{{2}}",
            f"\\sqrt[{big}]{{\\sqrt[{other}]{{3}}}}",
            f"7^{{{big}}} \\bmod {other}",
            f"\\frac{{1}}{{3^{{{big}}}}}",
            f"1.0000001^{{{big}}}",
            f"(3+4i)^{{{big}}}",
            f"0^{{-{big}}}",
            f"(-1)^{{{big}/3}}",
            f"{big}_{{{other}}}",
            f"\\sin({big}) + \\cos(2^{{{other}}}) + \\tan(\\frac{{\\pi}}{{2}})",
            f"\\log_{{{big}}}({other}!)",
            f"\\gcd({big}, {other})",
            f"\\lfloor \\pi \\cdot {big} \\rfloor",
        )
    )


def _binomial(rng: random.Random, size: int) -> str:
    top, bottom = _big(rng), _big(rng)
    if rng.random() < 0.2:
        return "\\binom{" * 20 + "5" + "}{2}" * 20
    command = rng.choice(("\\binom", "\\dbinom", "\\tbinom"))
    return rng.choice(
        (
            f"{command}{{{top}}}{{{bottom}}}",
            f"{{{top} \\choose {bottom}}}",
            f"C({top}, {bottom})",
            f"{{}}_{{{top}}}C_{{{bottom}}}",
            f"{command}{{-{top}}}{{{bottom}}}",
        )
    )


def _sum_product(rng: random.Random, size: int) -> str:
    upper = rng.choice((_big(rng), "\\infty", "n", "10^{10^{10}}"))
    lower = rng.choice(("k=0", "k=1", "k=-\\infty", "k", "k=10^{9}", "i<j<k"))
    term = rng.choice(
        ("k", "\\frac{1}{k}", "k!", "\\frac{1}{k^{k}}", "\\sin(k!)", "2^{2^k}", "\\binom{n}{k}", "\\sqrt{k}")
    )
    operator = rng.choice(("\\sum", "\\prod", "\\bigcup", "\\coprod"))
    one = f"{operator}_{{{lower}}}^{{{upper}}} "
    return one * rng.choice((1, 1, 2, 3, 8)) + term


def _integral(rng: random.Random, size: int) -> str:
    body = rng.choice(
        (
            "e^{-x^2}",
            "\\frac{\\sin x}{x}",
            "x^x",
            "\\sqrt{1+x^{17}}",
            "\\frac{1}{x^{100}+x+1}",
            "\\ln(\\ln(\\sin x))",
            "e^{e^{e^x}}",
            "\\frac{\\tan^7 x \\log^5 x}{\\sqrt{x^3+\\sin x}}",
        )
    )
    bounds = rng.choice(("", "_0^1", "_{-\\infty}^{\\infty}", "_{0}^{" + _big(rng) + "}", "_1^x"))
    depth = rng.choice((1, 1, 2, 5))
    tail = rng.choice(("dx", "\\,dx", "\\mathrm{d}x", "", "dx\\,dy\\,dz"))
    if rng.random() < 0.3:
        target = rng.choice(("0", "\\infty", "0^+", "-\\infty"))
        return f"\\lim_{{x \\to {target}}} " * depth + body
    return f"\\int{bounds} " * depth + body + tail * depth


def _boxes(rng: random.Random, size: int) -> str:
    unit = rng.choice(
        ("\\boxed{", "\\boxed{5} ", "\\boxed{\\frac{1}", "\\boxed ", "\\fbox{", "\\boxed{{}", "\\boxed{}} ")
    )
    return unit * _reps(size, unit) + rng.choice(("", "5", "5}", "}" * _reps(size, unit)))


def _control(rng: random.Random, size: int) -> str:
    nasty = (
        "\ud800", "\udc00", "\udfff\ud800", "\x00", "\x01", "\x08", "\x0b", "\x0c", "\x1b[2J", "\x7f",
        "\x85", "\u2028", "\u2029", "\u200b", "\u200d", "\u200e", "\u200f", "\u202e", "\u2066", "\u2069",
        "\ufeff", "\ufffe", "\uffff", "\U0010ffff", "\u0301", "\u00ad", "\u3164", "\ue000",
    )  # fmt: skip
    parts = [
        rng.choice(nasty) if rng.random() < 0.5 else rng.choice("0123456789x+-{}\\,.") for _ in range(min(size, 400))
    ]
    return "".join(parts) if rng.random() < 0.7 else "5" + rng.choice(nasty) * size


def _words(rng: random.Random, size: int) -> str:
    style = rng.randrange(5)
    if style == 0:
        return "a" * size
    if style == 1:
        return "\\" + "alpha" * _reps(size, "alpha")
    if style == 2:
        return "\\text{" + "verylongword" * _reps(size, "verylongword") + "}"
    if style == 3:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(min(size, 3000)))
    return " ".join(
        rng.choice(("the", "answer", "is", "and", "or", "not", "5", "=", "therefore")) for _ in range(size // 5)
    )


def _regex_bomb(rng: random.Random, size: int) -> str:
    units = (
        " ", ",", ".", "1,", "1, ", "1 ", "1.", "-", "- ", "1-", "x=", "=", "a,b;", "\\ ", "\\,", "\\!",
        "{,}", "\\\\", "$", "$ ", "**", "*", "_", "#", "|", "/", "1/", ":", "1:", "(", "((", "()", "0",
        "00,", " \n", "\n\n", "\t \t", "\\text{", "\\text{ }", "1 and ", "or ", "\u00a0", "\u2003", "<",
        "<<", "^\\circ", "\\%", "\\$", "\\pm", "answer ",
    )  # fmt: skip
    unit = rng.choice(units)
    tail = rng.choice(("", "!", "x", "\\", "}", "1", ")", "$"))
    return rng.choice(("", "1", "(", "\\{", "5")) + unit * _reps(size, unit) + tail


def _unary(rng: random.Random, size: int) -> str:
    unit = rng.choice(
        ("-", "--", "+", "+-", "- ", "-(", "\\pm", "\\pm\\mp", "\\neg", "!", "\\sqrt", "\\sin ", "\\ln\\ln", "'")
    )
    count = _reps(size, unit)
    closing = ")" * count if unit == "-(" and rng.random() < 0.7 else ""
    body = unit * count
    return "5" + body if unit in ("!", "'") else body + "5" + closing


def _matrix(rng: random.Random, size: int) -> str:
    kind = rng.choice(("pmatrix", "bmatrix", "vmatrix", "array", "cases", "smallmatrix", "aligned"))
    side = max(1, int((size / 4) ** 0.5))
    rows, columns = rng.choice(((side, side), (1, side * side), (side * side, 1), (2, 3)))
    cell = rng.choice(("1", "x", "9", "0", "\\pi", "x^2"))
    row = " & ".join([cell] * columns)
    options = "{" + "c" * min(columns, 500) + "}" if kind == "array" else ""
    body = f"\\begin{{{kind}}}{options} " + " \\\\ ".join([row] * rows) + f" \\end{{{kind}}}"
    return body + rng.choice(("", "", "^{-1}", f"^{{{_big(rng)}}}", " \\cdot " + body if size < 20_000 else ""))


def _collection(rng: random.Random, size: int) -> str:
    opening, closing = rng.choice(
        (("\\{", "\\}"), ("(", ")"), ("[", "]"), ("", ""), ("(", "]"), ("\\left\\{", "\\right\\}"))
    )
    count = _reps(size, "1234, ")
    style = rng.randrange(4)
    if style == 0:
        items = [str(rng.randrange(10_000)) for _ in range(count)]
    elif style == 1:
        items = [f"\\frac{{{rng.randrange(99)}}}{{{rng.randrange(99)}}}" for _ in range(max(1, count // 2))]
    elif style == 2:
        items = ["\\pm 1"] * count
    else:
        items = [f"x_{{{j}}} = \\pm\\sqrt{{{j}}}" for j in range(max(1, count // 3))]
    if rng.random() < 0.2:
        return " \\cup ".join(f"({j}, {j}.5]" for j in range(max(1, count // 2)))
    return opening + ", ".join(items) + closing


def _unicode_maths(rng: random.Random, size: int) -> str:
    style = rng.randrange(5)
    if style == 0:
        return rng.choice("\u00bd\u2153\u00bc\u215b\u2189\u215f\u221a\u221b\u03c0\u221e\u2212\u00b1") * size
    if style == 1:
        return "2" + "".join(rng.choice("\u00b2\u00b3\u2070\u2074\u2079") for _ in range(min(size, 2000)))
    if style == 2:
        return "".join(
            rng.choice("\u0660\u0665\u0967\u09ea\u0be7\uff11\uff15\U0001d7d9\u2460\u216b\u4e94\u5341")
            for _ in range(30)
        )
    if style == 3:
        return "+".join(
            ["\u00bd", "\u2154", "\u221a2", "\u03c0\u00b2"] * _reps(size, "\u00bd+\u2154+\u221a2+\u03c0\u00b2+")
        )
    return "".join(rng.choice("aа\u03b1あ漢한ابש\u0e01\U0001f600x5=+") for _ in range(min(size, 500)))


def _repeating_decimal(rng: random.Random, size: int) -> str:
    period = "".join(rng.choice("0123456789") for _ in range(min(size, 20_000)))
    return rng.choice(
        ("0.\\overline{%}", "0.1\\overline{%}", "0.(%)", "0.%\\ldots", "0.\\dot{%}", "0.%...", "%.%.%")
    ).replace("%", period)


def _markup(rng: random.Random, size: int) -> str:
    return rng.choice(
        (
            "<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>",
            "<div>" * min(_reps(size, "<div>"), 2000) + "5" + "</div>" * 3,
            "<script>while(1){}</script>",
            "<!-- " + "-" * min(size, 2000),
            '{"answer": {"value": [5, null, {"x": "\\\\boxed{5}"}]}}',
            "[" * min(size, 5000),
            '{"a":' * min(_reps(size, '{"a":'), 1000) + "5",
            "```python\nprint(2**10**9)\n```",
            "__import__('os').getpid()",
            "().__class__.__bases__[0].__subclasses__()",
            "exec('x=' * 99)",
            "lambda x: (lambda y: y)(x)",
            "Symbol('x').__class__",
            "S.Infinity - S.Infinity",
            "Integer(10)**Integer(10)**Integer(10)",
            "%s%s%s%n%x {0} {0.__class__} ${x}",
            "5; 6 # comment \\\n 7",
            "\\(" + "a" * 20 + "+)+$",
            "| a | b |\n|---|---|\n| 5 | 6 |",
            "&lt;5&gt; &#x35; &amp;" * 5,
            "==Answer== [[5]] {{frac|1|2}}",
            "<think>5</think></think><think>",
        )
    )


def _macros(rng: random.Random, size: int) -> str:
    return rng.choice(
        (
            "\\def\\a{\\a\\a}\\a",
            "\\newcommand{\\x}{\\x}\\x",
            "\\newcommand{\\a}[1]{\\b{#1}\\b{#1}}\\newcommand{\\b}[1]{\\a{#1}\\a{#1}}\\a{5}",
            "\\let\\boxed=\\relax \\boxed{5}",
            "\\loop\\iftrue\\repeat",
            "\\catcode`\\{=12 \\boxed{5}",
            "\\input{/dev/zero}",
            "\\csname boxed\\endcsname{5}",
            "\\expandafter" * min(_reps(size, "\\expandafter"), 3000) + "\\boxed{5}",
            "".join(f"\\def\\{chr(97 + j)}{{\\{chr(98 + j)}\\{chr(98 + j)}}}" for j in range(24)) + "\\a",
            "\\begin{" * 50 + "matrix" + "}" * 50,
            "\\begin{pmatrix}" * 200,
            "\\end{pmatrix}" * 200,
            "\\operatorname{" + "f" * min(size, 2000) + "}(x)",
            "\\verb|\\boxed{5}|",
            "% \\boxed{5}\n\\boxed{6}",
            "\\unknowncommand[opt]{1}{2}",
            "\\frac\\frac\\frac123456",
            "\\sqrt[\\sqrt[\\sqrt[3]{2}]{2}]{2}",
            "\\frac12345",
            "x_1_2^3^4",
            "\\left\\left\\right(\\right",
            "\\over\\over 1 \\over 2",
        )
    )


def _equations(rng: random.Random, size: int) -> str:
    degree = rng.choice((5, 17, 60, 300))
    style = rng.randrange(6)
    if style == 0:
        return " + ".join(f"{rng.randrange(1, 99)}x^{{{j}}}" for j in range(degree)) + " = 0"
    if style == 1:
        return "".join(f"(x-{j})" for j in range(degree))
    if style == 2:
        return " = ".join(["x"] * _reps(size, "x = "))
    if style == 3:
        return " < ".join(str(j) for j in range(min(degree, _reps(size, "100 < "))))
    if style == 4:
        return " + ".join(
            f"\\sqrt{{{rng.randrange(2, 10**9)} + \\sqrt{{{rng.randrange(2, 99)}}}}}" for _ in range(min(degree, 40))
        )
    return "\\sin(" * 12 + "x^{x}" + ")" * 12 + " = \\cos(\\tan(\\sqrt{x!})) \\cdot |x|^{\\pi}"


def _long_sum(rng: random.Random, size: int) -> str:
    symbol = rng.choice(("+", "-", "\\cdot ", "*", "/", "^", " ", ""))
    term = rng.choice(("1", "x", "x_{1}", "\\frac{1}{2}", "\\sqrt{2}", "2^x", "\\sin x", "(x+1)", "abc"))
    limit = rng.choice((60, 60, 500, 100_000))
    return symbol.join([term] * min(limit, _reps(size, symbol + term)))


def _soup(rng: random.Random, size: int) -> str:
    return "".join(rng.choice(TOKENS) for _ in range(max(1, min(size, 2500) // 4)))


FAMILIES: dict[str, Family] = {
    "power_tower": _power_tower,
    "factorials": _factorials,
    "digits": _digits,
    "scientific": _scientific,
    "nested_braces": _nest(
        ("{", "5", "}"), ("(", "5", ")"), ("[", "5", "]"), ("\\{", "5", "\\}"), ("|", "5", "|"), ("([{", "5", "}])")
    ),
    "nested_frac": _nest(
        ("\\frac{1}{1+", "x", "}"), ("\\frac{", "1", "}{2}"), ("\\dfrac{1}{", "2", "}"), ("\\frac", "12", "")
    ),
    "nested_root": _nest(("\\sqrt{2+", "2", "}"), ("\\sqrt[", "3", "]{2}"), ("\\sqrt{", "x", "}"), ("\\sqrt", "2", "")),
    "nested_left_right": _nest(
        ("\\left(", "5", "\\right)"), ("\\left[", "5", "\\right)"), ("\\left|", "x", "\\right|")
    ),
    "nested_script": _nest(("x^{", "2", "}"), ("x_{", "2", "}"), ("x^{x_{", "2", "}}"), ("\\overline{", "5", "}")),
    "nested_text": _nest(
        ("\\text{", "5", "}"),
        ("\\text{ is \\(", "5", "\\)}"),
        ("\\mathbf{\\mathrm{", "5", "}}"),
        ("\\boxed{", "5", "}"),
    ),
    "nested_function": _nest(
        ("\\sin(", "x", ")"),
        ("\\ln{", "x", "}"),
        ("f(g(", "x", "))"),
        ("e^{-", "x", "}"),
        ("\\lfloor ", "x", "\\rfloor"),
    ),
    "unbalanced": _repeat(
        "{", "}", "(", ")", "[", "]", "}{", ")(", "\\left(", "\\right)", "\\begin{", "\\(", "\\]", "$", "\\{", "|", "\\"
    ),
    "huge_exponent": _huge_exponent,
    "binomial": _binomial,
    "sum_product": _sum_product,
    "integral": _integral,
    "boxes": _boxes,
    "control": _control,
    "space": _repeat(" ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "\\quad ", "\\,", "\\ ", "~", "\u200b", "\x0b\x0c"),
    "words": _words,
    "regex_bomb": _regex_bomb,
    "unary": _unary,
    "matrix": _matrix,
    "collection": _collection,
    "unicode_maths": _unicode_maths,
    "repeating_decimal": _repeating_decimal,
    "markup": _markup,
    "macros": _macros,
    "equations": _equations,
    "long_sum": _long_sum,
    "soup": _soup,
}
"""The families of hostile bodies by name."""

SCALABLE: tuple[str, ...] = (
    "digits", "nested_braces", "nested_frac", "nested_root", "nested_left_right", "nested_script",
    "nested_text", "nested_function", "unbalanced", "boxes", "control", "space", "words", "regex_bomb",
    "unary", "matrix", "collection", "power_tower", "long_sum", "unicode_maths",
)  # fmt: skip
"""Families whose bodies can grow to a megabyte."""


def _size(rng: random.Random) -> int:
    """A size for an ordinary item: mostly small, spread evenly over the orders of magnitude up to 10 KB."""
    if rng.random() < 0.003:
        return rng.randrange(100_000, 400_000)
    return int(10 ** rng.uniform(0.5, 4.0))


def _mutate(rng: random.Random, text: str) -> str:
    """``text`` after a few random deletions, duplications, swaps and insertions of spans."""
    for _ in range(rng.choice((1, 1, 2, 3, 5, 10, 30))):
        if not text:
            return rng.choice(TOKENS)
        start = rng.randrange(len(text))
        stop = min(len(text), start + rng.choice((1, 1, 2, 5, 12)))
        span = text[start:stop]
        action = rng.randrange(6)
        if action == 0:
            text = text[:start] + text[stop:]
        elif action == 1:
            text = text[:stop] + span * rng.choice((1, 1, 2, 20)) + text[stop:]
        elif action == 2:
            other = rng.randrange(len(text))
            low, high = min(start, other), max(start, other)
            text = text[:low] + text[high] + text[low + 1 : high] + text[low] + text[high + 1 :] if low < high else text
        elif action == 3:
            text = text[:start] + rng.choice(TOKENS) + text[start:]
        elif action == 4:
            text = text[:start] + rng.choice(TOKENS) + text[stop:]
        else:
            text = text[:start] + span[::-1] + text[stop:]
        text = text[:20_000]
    return text


def _mutated_pair(rng: random.Random) -> tuple[str, str]:
    gold, answer = rng.choice(REALISTIC)
    if rng.random() < 0.2:
        gold = rng.choice(REALISTIC)[0]
    if rng.random() < 0.3:
        gold = _mutate(rng, gold)
    return gold, _mutate(rng, answer)


def _wrap(rng: random.Random, body: str) -> str:
    return rng.choice(WRAPS).replace("%", body)


def _item(rng: random.Random, index: int) -> tuple[str, str, str]:
    """The name of the family, the gold answer and the model's answer of one item."""
    mega = index % MEGA_EVERY == MEGA_EVERY - 1
    if not mega and rng.random() < 0.25:
        return ("mutation", *_mutated_pair(rng))
    if mega:
        # Each megabyte takes the next family that can grow, so that all come up in turn; the size is topped up below.
        name, size = SCALABLE[index // MEGA_EVERY % len(SCALABLE)], MEGABYTE
    else:
        name, size = rng.choice(list(FAMILIES)), _size(rng)
    family = FAMILIES[name]
    body = family(rng, size)
    if mega and len(body) < size // 2:
        body = body * _reps(size, body)
    answer = _wrap(rng, body)
    if not mega and rng.random() < 0.05:
        answer = _mutate(rng, answer) if len(answer) < 20_000 else answer
    chance = rng.random()
    if chance < 0.65 or (mega and chance < 0.9):
        gold = rng.choice(PLAIN_GOLDS)
    elif chance < 0.82 or mega:
        gold = body
    else:
        gold = family(rng, min(size, 10_000))
    return name, gold, answer


def hostile_named(n: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """Like ``hostile``, with the name of each item's family ahead of its pair (to report what failed)."""
    for index in range(n):
        yield _item(random.Random(f"hostile:{seed}:{index}"), index)


def hostile(n: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yields ``n`` hostile (gold, answer) pairs; the same ``n`` and ``seed`` always give the same pairs.

    The pairs cover power towers, nested factorials, long digit strings, deep and unbalanced nesting, huge sums,
    products, integrals, binomials, roots, matrices and sets, unclosed boxes, lone surrogates and control characters,
    bombs for regular expressions, macros, markup and code, and random mutations of realistic pairs. Every 500th item
    is about a megabyte long; nearly all others are under 10 KB.
    """
    for _, gold, answer in hostile_named(n, seed):
        yield gold, answer
