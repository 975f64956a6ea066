"""Copies of a question that are still the same question, and look-alikes that are not: what overlap.py plants.

Written against real prompts, not against the code that has to find them: nothing of distill is used here.
"""

from __future__ import annotations

import random
import re
import textwrap
import unicodedata
from collections.abc import Callable

Perturb = Callable[[str, random.Random], str | None]
"""A changed copy, or None where the question has nothing to change."""

NAMES = (
    "Ingrid", "Wassily", "Oluwaseun", "Marisol", "Tariq", "Beatrix", "Yuki", "Anselm", "Fatou", "Leopold", "Svetlana",
    "Dmitri", "Xiomara", "Bruno",
)  # fmt: skip
_NOT_NAMES = (
    "january february march april may june july august september october november december monday tuesday wednesday"
    " thursday friday saturday sunday i the a an if how what he she they it his her in on at after before each every"
    " there this that these when while for with from since one two three four five six seven eight nine ten half all"
    " some many by as during calculate find first then together their its to of so and but however given out another"
    " last next yesterday today tomorrow mr mrs ms dr because christmas halloween over most nurse knowing"
    " based none twelve determine art"
)
NOT_NAMES = frozenset(_NOT_NAMES.split())
DIGITS = ("０", "٠", "०", "𝟎", "๐", "০")
"""The zero of full-width, Arabic, Devanagari, mathematical bold, Thai and Bengali digits."""


def rewrapped(text: str, rng: random.Random) -> str:
    """Lines of another width, at hyphens too; indented, quoted, with the line ends of another system, or spaced out."""
    width = rng.randint(18, 60)
    end = rng.choice(("\n", "\r\n", "\n    ", "\n> ", " \n\n", "  ", "\n\t"))
    return end.join(textwrap.wrap(text, width, break_on_hyphens=True, break_long_words=False))


def renamed(text: str, rng: random.Random) -> str | None:
    """Every proper name exchanged for another throughout; one in five for a name of two words."""
    found = dict.fromkeys(re.findall(r"(?<![\w$])[A-Z][a-z]+(?![a-z])", text))
    names = [name for name in found if name.lower() not in NOT_NAMES and not re.search(rf"\b{name.lower()}\b", text)]
    if not names:
        return None
    new = rng.sample(NAMES, min(len(names), len(NAMES)))
    for old, name in zip(names, new, strict=False):
        name = f"{name} Lu" if rng.random() < 0.2 else name
        text = re.sub(rf"\b{old}\b", name, text)
    return text


def latex(text: str, rng: random.Random) -> str:
    """Numbers in formulas with LaTeX's digit groups and fractions; spacing commands and \\text among the words."""
    text = re.sub(r"[%$]", lambda m: "\\" + m[0], text)
    text = re.sub(r"\b(\d+)/(\d+)\b", lambda m: rng.choice((r"\frac{%s}{%s}", r"\dfrac{%s}{%s}")) % m.groups(), text)
    text = re.sub(r"(?<=\d),(?=\d{3})", lambda m: rng.choice(("{,}", r"\,")), text)
    number = r"(?<![\w{.,])\d+(?:(?:\.|\{,\}|\\,)\d+)*(?![\w}])"
    text = re.sub(number, lambda m: rng.choice(("$%s$", r"\(%s\)", r"$\,%s\;$", r"$ \left. %s \right. $")) % m[0], text)
    parts = text.split(" ")
    for place, part in enumerate(parts):
        if part.isalpha() and rng.random() < 0.15:
            parts[place] = rng.choice((r"\text{%s}", r"\mathrm{%s}", r"$\text{%s}$", r"\textbf{%s}")) % part
    return "".join(part + rng.choices((" ", r"\, ", "~", r"\ ", r"\quad "), (6, 1, 1, 1, 1))[0] for part in parts)


def case(text: str, rng: random.Random) -> str:
    return rng.choice((str.upper, str.lower, str.title, str.swapcase))(text)


def unicode_forms(text: str, rng: random.Random) -> str:
    """Digits of another script, with typographic quotes, dashes, spaces, invisible characters, split accents."""
    zero = ord(rng.choice(DIGITS))
    text = "".join(chr(zero + int(char)) if char in "0123456789" else char for char in text)
    text = text.replace("'", "’").replace(" ", rng.choice((" ", "\u00a0", "\u2009", "\u3000")))
    text = text.replace("-", rng.choice(("-", "‐", "\u2011")))
    words = text.split(" ")
    words = [
        w[:2] + rng.choice(("\u00ad", "\u200b")) + w[2:] if len(w) > 5 and w.isalpha() and rng.random() < 0.3 else w
        for w in words
    ]
    return unicodedata.normalize("NFD", " ".join(words))


def instructed(text: str, rng: random.Random) -> str:
    before = rng.choice(("", "Question: ", "Solve the following math problem step by step. ", "Problem:\n"))
    after = rng.choice(
        (
            "\nPlease reason step by step, and put your final answer within \\boxed{}.",
            "\n\nLet's think step by step.",
            " Show your work.",
            "\nAnswer:",
        )
    )
    return before + text + after


def misspelt(text: str, rng: random.Random) -> str | None:
    """Two neighbouring letters of one long word exchanged."""
    long = [m for m in re.finditer(r"[a-z]{6,}", text) if m[0][2] != m[0][3]]
    if not long:
        return None
    found = rng.choice(long)
    at = found.start() + 2
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def all_at_once(text: str, rng: random.Random) -> str | None:
    changed = renamed(text, rng)
    return None if changed is None else rewrapped(latex(unicode_forms(changed, rng), rng), rng)


def other_numbers(text: str, rng: random.Random) -> str | None:
    """Every number another one."""
    if not re.search(r"\d", text):
        return None
    return re.sub(r"\d+", lambda m: str(int(m[0]) + rng.randint(1, 9)), text)


def one_other_number(text: str, rng: random.Random) -> str | None:
    found = list(re.finditer(r"\d+", text))
    if not found:
        return None
    one = rng.choice(found)
    return text[: one.start()] + str(int(one[0]) + rng.randint(1, 9)) + text[one.end() :]


def other_question(text: str, rng: random.Random) -> str | None:
    """The same story, and a last sentence that asks for something else."""
    story, asked = _last_sentence(text)
    if not story or not asked.endswith("?"):
        return None
    questions = (
        "How many are left at the end?",
        "What is the average per day?",
        "By how much is the larger amount greater than the smaller one?",
        "What share of the whole is the first amount?",
        "Who has the least, and how much is it?",
        "How much is it in all?",
    )
    return f"{story} {rng.choice(questions)}"


def more_for_less(text: str, rng: random.Random) -> str | None:
    """One word that turns what is told or asked: more and less, buy and sell."""
    turns = (
        ("more", "fewer"), ("less", "more"), ("fewer", "more"), ("total", "average"), ("altogether", "each"),
        ("left", "gone"), ("buys", "sells"), ("bought", "sold"), ("gave", "took"), ("gives", "takes"), ("lost", "won"),
        ("sold", "bought"), ("earn", "spend"), ("before", "after"), ("increased", "decreased"), ("older", "younger"),
        ("week", "month"), ("spend", "save"), ("longer", "shorter"), ("won", "lost"), ("cost", "weigh"),
    )  # fmt: skip
    found = [(m, new) for old, new in turns for m in re.finditer(rf"\b{old}\b", text)]
    if not found:
        return None
    match, new = rng.choice(found)
    return text[: match.start()] + new + text[match.end() :]


def _last_sentence(text: str) -> tuple[str, str]:
    parts = re.split(r"(?<=[.!?])\s+", text.strip())
    return " ".join(parts[:-1]), parts[-1]


SAME: dict[str, Perturb] = {
    "re-wrapped lines": rewrapped,
    "changed names": renamed,
    "LaTeX spacing": latex,
    "case": case,
    "Unicode digits": unicode_forms,
}
"""The five kinds that are asked for."""
HARDER: dict[str, Perturb] = {
    "instructions around it": instructed,
    "a misspelt word": misspelt,
    "names, LaTeX, Unicode, lines": all_at_once,
}
OTHER: dict[str, Perturb] = {
    "all numbers changed": other_numbers,
    "one number changed": one_other_number,
    "another question asked": other_question,
    "one word turned round": more_for_less,
}
