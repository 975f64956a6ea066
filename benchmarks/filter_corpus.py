"""A fixed corpus of reasoning traces for benchmarks/filter.py: the same rows on every machine, however many are asked.

Each prompt is one of GSM8K's questions with other numbers and names, each trace a solution of it in 150 to 300 words:
parts of the question, steps of the worked solution and asides in changing words and order, then an answer. The gold
answers are whole numbers, decimals, fractions, percents and expressions; at most 30% of the answers repeat theirs
letter by letter, the others write it differently or give another value. Known shares of the traces are near-copies of
another trace of the same prompt, or quote a problem of the evaluation set, which is made from other questions.

The arithmetic of the texts is not meant to come out: nothing here reads it.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perturbations import NAMES, NOT_NAMES

QUESTIONS = Path(__file__).resolve().parents[1] / "tests" / "data" / "gsm8k_200.jsonl"
SAMPLES = 4
"""Traces of a prompt."""
NEAR, CONTAMINATED = 0.05, 0.01
IDENTICAL, UNBOXED, WRONG = 0.28, 0.08, 0.2
EDITED = 0.02
"""Words of a near-copy that are not those of its original."""
VARIANTS = 2
"""Problems of the evaluation set made from one question: what more than ten share would be a template."""
WORDS = (150, 300)

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_CAPITAL = re.compile(r"(?<![\w$])[A-Z][a-z]+(?![a-z])")
_SENTENCE = re.compile(r"(?<=[.?!])\s+")
_OPENINGS = (
    "Okay, so I need to work this out.", "Let me read the problem again.", "Alright, let's go through it.",
    "First, what do we know?", "Hmm, this looks manageable.", "We are asked for a single quantity here.",
    "I'll start with what is given.", "Let's see what the problem says.", "To begin, I list the facts.",
)  # fmt: skip
_WRAPS = (
    "{}", "So {}", "Next: {}", "That means {}", "From this we get: {}", "{} That seems right.", "Let me write it: {}",
    "In other words, {}", "{} Good.", "Wait, maybe I should be careful here. {}", "Then {}", "Now {}", "Therefore {}",
    "It follows that {}", "{} I think that holds.", "Putting it down, {}", "One step further: {}", "{} Okay.",
)  # fmt: skip
_ASIDES = (
    ("Let me", "I should", "I will", "It is worth it to", "Perhaps I can", "We can", "I want to", "One could"),
    ("double-check", "go over", "recompute", "verify", "look again at", "reconsider", "simplify", "estimate"),
    ("the last step", "this amount", "the subtraction", "that total", "the given figures", "the order of steps",
     "the units", "what was asked", "the first part", "this product", "the remaining share", "the condition"),
    ("before going on", "to be safe", "once more", "because it is easy to slip", "with {a} instead of {b}",
     "since {a} is close to {b}", "by trying {a} first", "as {a} plus {b} would be {c}", "and compare it with {c}",
     "in a different way", "using round figures such as {a}", "from the end, starting at {b}"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One trace. `planted` is "", "near" or "contaminated"; `identical` says that the box holds the gold as it is."""

    id: str
    prompt: int
    sample: int
    question: str
    gold: str
    reasoning: str
    answer: str
    planted: str
    identical: bool
    right: bool

    @property
    def text(self) -> str:
        return f"{self.reasoning}\n</think>\n\n{self.answer}"


@dataclass(frozen=True, slots=True)
class Gold:
    """A gold answer, other ways to write it, and values that it is not."""

    text: str
    others: tuple[str, ...]
    wrong: tuple[str, ...]


def base(path: Path) -> list[tuple[str, str]]:
    """(question, worked solution) of a file with GSM8K's columns, without the calculator's marks."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [(row["question"], re.sub(r"<<.*?>>", "", row["answer"]).split("####")[0].strip()) for row in rows]


def evaluation(path: Path = QUESTIONS) -> list[str]:
    """The problems of the evaluation set: changed copies of every fourth question of the file, which no prompt uses."""
    rng = random.Random("evaluation")
    return [changed(pair, rng)[0] for pair in base(path)[3::4] for _ in range(VARIANTS)]


def rows(count: int, path: Path = QUESTIONS) -> Iterator[Row]:
    """The first `count` traces."""
    used = [pair for place, pair in enumerate(base(path)) if place % 4 != 3]
    problems = evaluation(path)
    for prompt in range((count + SAMPLES - 1) // SAMPLES):
        yield from _of_prompt(prompt, used, problems)[: count - prompt * SAMPLES]


def _of_prompt(prompt: int, used: Sequence[tuple[str, str]], problems: Sequence[str]) -> list[Row]:
    rng = random.Random(f"prompt {prompt}")
    question, solution = changed(rng.choice(used), rng)
    question = f"Sheet {prompt + 1}: {question}"  # no two prompts are the same
    gold = _gold(rng)
    made: list[Row] = []
    for sample in range(SAMPLES):
        draw, planted = rng.random(), ""
        reasoning = _reasoning(question, solution, rng)
        if draw < NEAR * SAMPLES / (SAMPLES - 1) and made:
            planted, reasoning = "near", _edited(made[-1].reasoning, rng)
        elif draw > 1 - CONTAMINATED:
            planted, reasoning = "contaminated", f"{_leak(rng.choice(problems), rng)}\n{reasoning}"
        value, identical, right = _written(gold, rng)
        answer = made[-1].answer if planted == "near" else value
        if planted == "near":
            identical, right = made[-1].identical, made[-1].right
        key = f"{prompt}-{sample}"
        made.append(Row(key, prompt, sample, question, gold.text, reasoning, answer, planted, identical, right))
    return made


# --- texts -----------------------------------------------------------------------------------------------------------


def changed(pair: tuple[str, str], rng: random.Random) -> tuple[str, str]:
    """A question and its solution with other numbers of as many digits and other names, the same in both."""
    text = "\0".join(pair)
    numbers: dict[str, str] = {}
    names = {name for name in _CAPITAL.findall(text) if name.lower() not in NOT_NAMES}
    renamed = dict(zip(sorted(names), rng.choices(NAMES, k=len(names)), strict=True))

    def number(match: re.Match[str]) -> str:
        old = match[0]
        if old not in numbers:
            whole, _, part = old.partition(".")
            new = str(rng.randint(10 ** (len(whole) - 1), 10 ** len(whole) + 9))
            numbers[old] = f"{new}.{rng.randint(1, 9)}" if part else new
        return numbers[old]

    text = _NUMBER.sub(number, text)
    text = _CAPITAL.sub(lambda match: renamed.get(match[0], match[0]), text)
    question, _, solution = text.partition("\0")
    return question, solution


def _reasoning(question: str, solution: str, rng: random.Random) -> str:
    wanted = rng.randint(*WORDS) - 25
    parts = [rng.choice(_OPENINGS), *(part for part in _SENTENCE.split(question) if rng.random() < 0.5)]
    steps = [line for line in solution.splitlines() if line]
    if rng.random() < 0.3:
        rng.shuffle(steps)
    parts += [rng.choice(_WRAPS).format(step) for step in steps if rng.random() < 0.9]
    size = sum(len(part.split()) for part in parts)
    while size < wanted:
        aside = " ".join(rng.choice(words) for words in _ASIDES)
        aside = aside.format(a=rng.randint(2, 999), b=rng.randint(2, 999), c=rng.randint(2, 1_999)) + "."
        parts.insert(rng.randint(1, len(parts)), aside)
        size += len(aside.split())
    return "".join(part + rng.choice((" ", " ", "\n", "\n\n")) for part in parts).strip()


def _edited(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    return " ".join(rng.choice(words) if rng.random() < EDITED else word for word in words)


def _leak(problem: str, rng: random.Random) -> str:
    """As it is, or with its lines broken anew, in capitals, or with another name."""
    how = rng.randrange(4)
    if how == 1:
        return problem.replace(". ", ".\n")
    if how == 2:
        return problem.upper()
    if how == 3:
        return re.sub(r"\b(?:" + "|".join(NAMES) + r")\b", "Wilhelmina", problem)
    return problem


# --- answers ---------------------------------------------------------------------------------------------------------


def _gold(rng: random.Random) -> Gold:
    kind = rng.choices((_whole, _decimal, _fraction, _percent, _expression), (82, 7, 6, 2, 3))[0]
    return kind(rng)


def _whole(rng: random.Random) -> Gold:
    n = rng.randint(2, 10 ** rng.randint(1, 5) + 9)
    others: tuple[str, ...] = (
        f"{n}.00",
        f"\\${n}",
        f"{n} \\text{{ dollars}}",
        f"x = {n}",
        f"\\frac{{{2 * n}}}{{2}}",
        f"{n}.0",
        f"{n:,}",
    )
    others = tuple(other for other in others if other != str(n))
    return Gold(str(n), others, (str(n + 1), f"{n * 2}.0", f"\\frac{{{n}}}{{2}}", f"{n + 10} \\text{{ apples}}"))


def _decimal(rng: random.Random) -> Gold:
    n = rng.randint(1, 4_999) * 2 + 1
    text = f"{n / 2:.1f}"
    others = (f"{text}0", f"\\frac{{{n}}}{{2}}", f"{n}/2", f"\\${text}0", f"{n // 2}\\frac{{1}}{{2}}")
    return Gold(text, others, (f"{n / 2 + 1:.1f}", f"\\frac{{{n}}}{{3}}", str(n)))


def _fraction(rng: random.Random) -> Gold:
    a, b = rng.randint(1, 40), rng.choice((3, 7, 9, 11, 13))
    a += a % b == 0
    others = (f"{a}/{b}", f"\\dfrac{{{a}}}{{{b}}}", f"\\frac{{{2 * a}}}{{{2 * b}}}", f"\\tfrac{{{a}}}{{{b}}}")
    return Gold(f"\\frac{{{a}}}{{{b}}}", others, (f"\\frac{{{b}}}{{{a + 1}}}", f"{a / b:.1f}1", str(a * b)))


def _percent(rng: random.Random) -> Gold:
    n = rng.randint(2, 99)
    return Gold(f"{n}\\%", (f"{n} \\%", f"{n}.0\\%", f"\\text{{{n}\\%}}"), (f"{n + 1}\\%", f"{100 - n + 200}\\%"))


def _expression(rng: random.Random) -> Gold:
    a, b = rng.randint(2, 19), rng.randint(2, 19)
    forms = (
        Gold(f"{a}\\sqrt{{{b}}}", (f"{a} \\cdot \\sqrt{{{b}}}", f"\\sqrt{{{a * a * b}}}"), (f"{a + 1}\\sqrt{{{b}}}",)),
        Gold(f"({a}, {b})", (f"\\left({a}, {b}\\right)", f"({a},\\,{b})"), (f"({b}, {a + 1})",)),
        Gold(f"{a}x + {b}", (f"{b} + {a}x", f"{a}x+{b}"), (f"{a}x - {b}",)),
        Gold(f"[{a}, {a + b}]", (f"\\left[{a}, {a + b}\\right]",), (f"[{a}, {a + b + 1}]",)),
    )
    return rng.choice(forms)


def _written(gold: Gold, rng: random.Random) -> tuple[str, bool, bool]:
    """(the answer, whether its box is the gold letter by letter, whether it is right)."""
    draw = rng.random()
    if draw < IDENTICAL:
        return f"{rng.choice(_ENDS)} $\\boxed{{{gold.text}}}$.", True, True
    if draw < IDENTICAL + UNBOXED:
        return f"The answer is ${rng.choice(gold.others)}$.", False, True
    if draw < IDENTICAL + UNBOXED + WRONG:
        return f"{rng.choice(_ENDS)} $\\boxed{{{rng.choice(gold.wrong)}}}$.", False, False
    return f"{rng.choice(_ENDS)} $\\boxed{{{rng.choice(gold.others)}}}$.", False, True


_ENDS = ("So the answer is", "Altogether that gives", "The result is", "Hence we arrive at", "**Final answer:**")


# --- files -----------------------------------------------------------------------------------------------------------


def write(folder: Path, count: int, path: Path = QUESTIONS, *, parts: int = 2) -> dict[str, int]:
    """Writes traces-N.jsonl (`text` and the fields of Row), in order, and evaluation.jsonl; returns what is in."""
    folder.mkdir(parents=True, exist_ok=True)
    problems = [{"id": f"e{n}", "question": text, "kind": "open"} for n, text in enumerate(evaluation(path))]
    _lines(folder / "evaluation.jsonl", problems)
    told: Counter[str] = Counter()
    made = rows(count, path)
    for part in range(parts):
        size = count // parts + (part < count % parts)
        _lines(folder / f"traces-{part}.jsonl", (_counted(next(made), told) for _ in range(size)))
    return dict(told)


def _counted(row: Row, told: Counter[str]) -> dict[str, object]:
    told.update({"traces": 1, "words": len(row.text.split()), "identical": row.identical, "right": row.right})
    told[row.planted or "plain"] += 1
    return {**asdict(row), "text": row.text}


def _lines(path: Path, found: Iterator[dict[str, object]] | list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in found:
            file.write(json.dumps(row) + "\n")


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The traces that `write` wrote, in order."""
    for path in sorted(folder.glob("traces-*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
