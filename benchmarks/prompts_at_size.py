"""Sends 800,000 synthetic prompts through the whole prompts stage, as R1's mixture would: time and peak memory.

python benchmarks/prompts_at_size.py                   # 800,000, half an hour; writes docs/prompts-at-size.md
python benchmarks/prompts_at_size.py --count 20000     # a look

The prompts are word problems in numbers and in LaTeX, algebra, choices, programs with tests, and requests in several
languages; among them known shares of exact copies, of copies with other names, and of an evaluation set's problems.
Printed: what was found of those, seconds, and the peak of the memory of all processes together, against a limit of
2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from process_memory import peak_of

LIMIT_BYTES = 2 * 10**9
NAMES = ("Lena", "Omar", "Ruth", "Kofi", "Mei", "Ivan", "Zoe", "Hugo", "Nora", "Ravi", "Olga", "Luis", "Ida", "Tom")
THINGS = ("boats", "lamps", "bells", "drums", "kites", "ropes", "tiles", "vases", "wheels", "coats", "masks", "nails")
PLACES = ("harbour", "school", "market", "museum", "workshop", "garden", "library", "station", "theatre", "bakery")
STORY = (
    "river stone carries the old letter through quiet rooms while every narrow street remembers a song about winter "
    "light and several patient engineers who measured bridges with careful instruments before the long journey north "
    "began under heavy clouds where small birds kept their distance from wooden towers"
)
WORDS = STORY.split()
CHINESE = "小明去商店买了若干苹果和梨子然后把其中一部分分给了他的朋友请问最后还剩下多少个水果以及花费多少钱"
COPIES, RENAMED, LEAKED = 0.03, 0.03, 0.002


def word_problem(rng: random.Random) -> dict[str, Any]:
    name, thing, place = rng.choice(NAMES), rng.choice(THINGS), rng.choice(PLACES)
    a, b, c = rng.randint(10, 9_999), rng.randint(2, 999), rng.randint(2, 99)
    asides = " ".join(rng.sample(WORDS, 12))
    question = (
        f"{name} takes {a} {thing} to the {place}. There {name} sells {b} of them and packs the rest into boxes of "
        f"{c}, after {asides}. How many full boxes does {name} have, and none is left over?"
    )
    return {"question": question, "answer": str((a - b) // c), "domain": "math", "kind": "math"}


def latex(rng: random.Random) -> dict[str, Any]:
    a, b, c, d = (rng.randint(1, 999) for _ in range(4))
    asides = " ".join(rng.sample(WORDS, 8))
    question = f"Let $f(x) = \\frac{{{a}x + {b}}}{{{c}}}$, where {asides}. Find $f\\left({d}\\right)$ in lowest terms."
    return {"question": question, "answer": f"\\frac{{{a * d + b}}}{{{c}}}", "domain": "math", "kind": "math"}


def tuple_answer(rng: random.Random) -> dict[str, Any]:
    a, b, c = (rng.randint(2, 999) for _ in range(3))
    asides = " ".join(rng.sample(WORDS, 8))
    question = f"Two numbers with sum {a + b} and difference {a - b}, in lot {c}, {asides}: give them as a pair."
    return {"question": question, "answer": f"({a}, {b})", "domain": "math", "kind": "math"}


def program(rng: random.Random) -> dict[str, Any]:
    k, m = rng.randint(2, 10_000), rng.randint(2, 10_000)
    question = (
        f"Read a line with integers. Print the sum of those that leave remainder {k % m} when divided by {m}, each "
        f"multiplied by {k}. The story: {' '.join(rng.sample(WORDS, 20))}."
    )
    tests = [{"input": f"{n} {n + 1}\n" * 20, "output": f"{n * k}\n"} for n in range(10)]
    return {"question": question, "tests": tests, "domain": "code", "kind": "code"}


def request(rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.2:
        return {"question": "".join(rng.sample(CHINESE, 25)) + f"{rng.randint(10, 10**6)}？", "domain": "general",
                "kind": "open"}  # fmt: skip
    question = f"Write a short text in which {' '.join(rng.sample(WORDS, 25))}; it is number {rng.randint(1, 10**6)}."
    return {"question": question, "domain": "general", "kind": "open"}


def interval(rng: random.Random) -> dict[str, Any]:
    """Its gold is of a form that only math-verify can read, in a worker process: some 100 a second."""
    a, b, c = (rng.randint(2, 999) for _ in range(3))
    question = f"For which $x$ is $(x - {a})(x - {a + b})(x - {a + b + c}) \\geq 0$, {' '.join(rng.sample(WORDS, 8))}?"
    gold = f"[{a}, {a + b}] \\cup [{a + b + c}, \\infty)"
    return {"question": question, "answer": gold, "domain": "math", "kind": "math"}


KINDS = (
    (word_problem, 0.32),
    (latex, 0.1),
    (tuple_answer, 0.05),
    (interval, 0.03),
    (program, 0.25),
    (request, 0.25),
)


def written(count: int, path: Path, leaks: list[str]) -> dict[str, int]:
    """Writes `count` prompts, and returns how many of each planted kind are among them."""
    rng = random.Random(1)
    makers, weights = [maker for maker, _ in KINDS], [weight for _, weight in KINDS]
    recent: list[dict[str, Any]] = []
    planted = dict.fromkeys(("copies", "renamed", "leaked"), 0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            draw = rng.random()
            if draw < COPIES and recent:
                row = rng.choice(recent)
                planted["copies"] += 1
            elif draw < COPIES + RENAMED and any(_renamed(each, "Xenia") != each for each in recent):
                row = _renamed(rng.choice([r for r in recent if _renamed(r, "Xenia") != r]), "Xenia")
                planted["renamed"] += 1
            elif draw < COPIES + RENAMED + LEAKED:
                row = {"question": rng.choice(leaks).upper(), "answer": "1", "domain": "math", "kind": "math"}
                planted["leaked"] += 1
            else:
                row = rng.choices(makers, weights)[0](rng)
                if len(recent) < 1_000:
                    recent.append(row)
                else:
                    recent[rng.randrange(1_000)] = row
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return planted


def _renamed(row: dict[str, Any], to: str) -> dict[str, Any]:
    name = next((name for name in NAMES if row["question"].startswith(name + " ")), None)
    return {**row, "question": row["question"].replace(name, to)} if name else row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=800_000)
    parser.add_argument("--out", type=Path, help="write the table here as Markdown")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measured(options.count, Path(folder))
    sys.stdout.write(table)
    if options.out:
        options.out.write_text(table, encoding="utf-8")


def measured(count: int, folder: Path) -> str:
    rng = random.Random(7)
    leaks = [word_problem(rng) for _ in range(1_000)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in leaks))
    planted = written(count, folder / "prompts.jsonl", [row["question"] for row in leaks])
    recipe = {
        "name": "size",
        "prompts": [{"source": str(folder / "prompts.jsonl")}],
        "prepare": {"languages": ["en", "zh"], "select": [{"domain": ["math", "code", "general"]}]},
        "evaluate": {"prompts": [{"source": str(folder / "test.jsonl")}]},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "cli.py", "run", str(folder / "recipe.yaml"), "--until", "prompts"]
    started = time.monotonic()
    process = subprocess.Popen([*command, "--out", str(folder / "run")])
    peak = peak_of(process)
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"the stage ended with exit code {process.returncode}")
    counts = json.loads((folder / "run" / "manifest.json").read_text())["stages"]["prompts"]["counts"]
    left_out = counts["left_out"]
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    rows = [
        ("prompts read", f"{counts['read']:,}"),
        ("kept", f"{counts['prompts']:,}"),
        ("seconds", f"{seconds:,.0f} ({seconds / count * 1e6:,.0f} µs a prompt)"),
        ("peak memory of all processes", f"{peak / 1e6:,.0f} MB, {peak / LIMIT_BYTES:.0%} of the limit of 2 GB"),
        ("exact copies planted, found", f"{planted['copies']:,}, {left_out.get('duplicate', 0):,}"),
        ("copies with other names planted, found", f"{planted['renamed']:,}, {left_out.get('near_duplicate', 0):,}"),
        ("problems of the evaluation planted, found", f"{planted['leaked']:,}, {left_out.get('contaminated', 0):,}"),
        ("left out otherwise", ", ".join(f"{n:,} {reason}" for reason, n in left_out.items() if reason not in (
            "duplicate", "near_duplicate", "contaminated")) or "none"),
    ]  # fmt: skip
    lines = [f"`python benchmarks/prompts_at_size.py --count {count}`, {machine}", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)]) + "\n"


if __name__ == "__main__":
    main()
