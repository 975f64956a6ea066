"""The verifier of mathematical answers beside math-verify alone: how often right, and how fast.

    python benchmarks/verify_math.py pairs FILE…       rates over labelled pairs (JSON lines: gold, answer, right, form)
    python benchmarks/verify_math.py speed [--answers N] [--workers N]

math-verify is called as its README says, `verify(parse(f"${gold}$"), parse(answer))`, with its own time limits; what it
does not find equal counts as wrong, for it never abstains. For speed both run in the same pool of processes.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.verify import PASS, Outcome, failing
from distill.verify.math import check_math, literal, prepare
from distill.verify.pool import Item, VerifierPool

MATH = "distill.verify.math:check_math"
"""For a VerifierPool."""
DATA = Path(__file__).parents[1] / "tests" / "data"
PAIRS = tuple(DATA / f"math_pairs{which}.jsonl" for which in ("", "_blind", "_held_back"))
IDENTICAL = 0.28
"""Share of the answers that are the gold text."""
RIGHT = 0.7
WORDS = ("so", "we", "add", "the", "parts", "and", "find", "that", "each", "has", "a", "value", "which", "gives", "it")
Judge = Callable[[str, str], Outcome]


def alone(answer: str, gold: str) -> Outcome:
    """math-verify as a person would call it."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    try:
        equal = math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(answer))
    except Exception:  # noqa: BLE001  # whatever it fails with, it has not found them equal
        equal = False
    return PASS if equal else failing("wrong_answer")


def read(answer: str, gold: str) -> Outcome:
    """The verifier without its comparison of texts."""
    return check_math(answer, gold, fast=False)


@dataclass(slots=True)
class Rates:
    """Counts over labelled pairs."""

    right: int = 0
    wrong: int = 0
    called_right: int = 0
    called_wrong: int = 0
    abstained: int = 0

    def add(self, right: bool, outcome: Outcome) -> None:
        self.right += right
        self.wrong += not right
        self.called_right += outcome.outcome == "pass" and not right
        self.called_wrong += outcome.outcome == "fail" and right
        self.abstained += outcome.outcome == "abstain"

    def row(self) -> str:
        lost = f"{self.called_wrong:3} of {self.right:3} ({100 * self.called_wrong / max(1, self.right):4.1f} %)"
        untold = f"{self.abstained:3} ({100 * self.abstained / max(1, self.right + self.wrong):4.1f} %)"
        return f"{self.called_right:3} of {self.wrong:3} | {lost} | {untold}"


def pairs(files: Sequence[Path]) -> None:
    prepare()
    for file in files:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        print(f"\n{file.name}: {len(rows)} pairs\n")
        print("| judge | wrong called right | right called wrong | abstained |\n|---|---|---|---|")
        for name, judge in (
            ("distill", check_math),
            ("distill, no texts compared", read),
            ("math-verify alone", alone),
        ):
            rates, forms = Rates(), dict[str, Rates]()
            for row in rows:
                outcome = judge(row["answer"], row["gold"])
                rates.add(row["right"], outcome)
                forms.setdefault(row["form"], Rates()).add(row["right"], outcome)
            print(f"| {name} | {rates.row()} |")
            bad = {form: r for form, r in forms.items() if r.called_right or r.called_wrong or r.abstained}
            for form, r in sorted(bad.items()):
                print(f"    {form}: {r.row()}")


def corpus(count: int) -> list[Item]:
    """(answer, gold) of that many replies: golds of GSM8K and of the labelled pairs, numbers three times in four."""
    draw = random.Random(0)
    golds = [
        json.loads(line)["answer"].rpartition("#### ")[2]
        for line in (DATA / "gsm8k_200.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    rows = [json.loads(line) for file in PAIRS for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "\\boxed" in row["answer"]]
    found: list[Item] = []
    while len(found) < count:
        words = " ".join(draw.choices(WORDS, k=60))
        if draw.random() < 0.75:
            gold = draw.choice(golds)
            box = next(written(gold, draw))
        else:
            row = draw.choice(rows)
            gold = row["gold"]
            if draw.random() < IDENTICAL and row["right"]:
                box = gold
            else:
                found.append((f"{words}.\n\n{row['answer']}", gold))
                continue
        found.append((f"{words}.\n\nThus the answer is \\(\\boxed{{{box}}}\\).", gold))
    return found


def written(gold: str, draw: random.Random) -> Iterator[str]:
    """A number as replies write it: the same text, another form, or another number."""
    number = float(gold.replace(",", ""))
    if draw.random() < IDENTICAL:
        yield gold
    if draw.random() > RIGHT:
        number += draw.choice((-10, -1, 1, 2, 0.5, 10, 100))
    text = f"{number:g}" if number == int(number) and abs(number) < 1e5 else f"{number:.2f}"
    yield draw.choice(
        (rf"\${text}", f"{text}.00" if "." not in text else text, rf"{text} \text{{ dollars}}", f"{text} apples",
         f"x = {text}", rf"\frac{{{number * 2:.0f}}}{{2}}", rf"{number:,.2f}", rf"\text{{{text}}}", f"{text}.")
    )  # fmt: skip


def speed(answers: int, workers: int) -> None:
    items = corpus(answers)
    same = sum(f"\\boxed{{{gold}}}" in answer or literal(answer) == literal(gold) for answer, gold in items)
    print(f"{answers:,} answers, {100 * same / len(items):.0f} % string-identical to the gold, {workers} workers\n")
    print("| judge | wall, s | answers/s | pass | fail | abstain |\n|---|---|---|---|---|---|")
    for name, function in (
        ("distill", MATH),
        ("distill, no texts compared", "verify_math:read"),
        ("math-verify alone", "verify_math:alone"),
    ):
        with VerifierPool(function, workers=workers) as pool:
            list(pool.map(items[: 20 * workers]))  # started and warm
            started = time.perf_counter()
            outcomes: list[Any] = list(pool.map(items))
            taken = time.perf_counter() - started
        counts = [sum(found.outcome == kind for found in outcomes) for kind in ("pass", "fail", "abstain")]
        print(f"| {name} | {taken:.1f} | {len(items) / taken:,.0f} | {' | '.join(map(str, counts))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pairs").add_argument("files", nargs="*", type=Path, default=list(PAIRS))
    timed = commands.add_parser("speed")
    timed.add_argument("--answers", type=int, default=20_000)
    timed.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.command == "pairs":
        pairs(chosen.files)
    else:
        speed(chosen.answers, chosen.workers)


if __name__ == "__main__":
    main()
