"""Plants changed copies and look-alikes among GSM8K's questions, and measures what duplicates and contamination find.

python benchmarks/overlap.py --questions gsm8k_train_1000.jsonl           # the tables of docs/overlap.md
python benchmarks/overlap.py --questions … --tune                         # the rules compared, on the other half
python benchmarks/overlap.py --scale 200000                               # time and memory with made-up problems

Rules were chosen on the first half of the questions; the tables are measured on the second.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perturbations import HARDER, OTHER, SAME, Perturb

from distill.problems import arithmetic
from distill.prompts.contamination import NUMBERS_SHARE, SHARE, WORDS, Contamination, Hit
from distill.prompts.duplicates import NearDuplicates
from distill.prompts.language import language
from distill.prompts.words import words

EACH = 60
"""Changed copies of each kind."""


@dataclass(frozen=True, slots=True)
class Planted:
    kind: str
    original: int
    """Place among the questions of its half."""
    text: str


def planted(questions: Sequence[str], kinds: dict[str, Perturb], rng: random.Random) -> list[Planted]:
    """`EACH` copies of each kind, each of another question while they last."""
    rest: list[int] = []
    found = []
    for kind, perturb in kinds.items():
        done, passed = 0, []
        while done < EACH:
            if not rest:
                rest = [place for place in range(len(questions)) if place not in passed]
                rng.shuffle(rest)
            place = rest.pop()
            text = perturb(questions[place], rng)
            if text is None or text == questions[place]:
                passed.append(place)
                continue
            found.append(Planted(kind, place, text))
            done += 1
        rest += passed
    return found


def of_kind(all_planted: Sequence[Planted]) -> Iterator[tuple[str, list[Planted]]]:
    yield from ((kind, list(group)) for kind, group in itertools.groupby(all_planted, lambda each: each.kind))


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def header(*cells: str) -> None:
    print()
    row(*cells)
    row(*(["---"] * len(cells)))


def duplicates_of(texts: Sequence[str]) -> dict[int, int]:
    """Row → the row it repeats."""
    near = NearDuplicates()
    for text in texts:
        near.add(text)
    return {each.row: each.of for each in near.decide(lambda rows: {place: texts[place] for place in rows})}


def report(half: Sequence[str], others: Sequence[str], answers: Sequence[str], seed: int) -> None:
    rng = random.Random(seed)
    same, harder, other = (planted(half, kinds, rng) for kinds in (SAME, HARDER, OTHER))
    everything = [*same, *harder, *other]
    texts = [*half, *(each.text for each in everything)]
    repeats = duplicates_of(texts)
    contamination = Contamination(("gsm8k", question) for question in half)
    row_of = {id(each): len(half) + place for place, each in enumerate(everything)}

    def counts(group: Sequence[Planted]) -> tuple[int, int, int]:
        """(duplicates, of the right one, hits): a copy of a copy counts, as long as it leads to the question."""
        marked = [each for each in group if row_of[id(each)] in repeats]
        right = sum(repeats[row_of[id(each)]] == each.original for each in marked)
        return len(marked), right, sum(contamination.hit(each.text) is not None for each in group)

    header("copies that are the same question", "planted", "found as duplicate", "found as contamination")
    for kind, group in of_kind([*same, *harder]):
        _, right, hits = counts(group)
        row(kind, len(group), f"{right} ({right / len(group):.0%})", f"{hits} ({hits / len(group):.0%})")
    header("look-alikes that are another question", "planted", "falsely a duplicate", "hit by contamination")
    for kind, group in of_kind(other):
        marked, _, hits = counts(group)
        row(kind, len(group), f"{marked} ({marked / len(group):.0%})", f"{hits} ({hits / len(group):.0%})")
    untouched = sum(place in repeats for place in range(len(half)))
    row("the untouched questions among themselves", len(half), untouched, "")
    row("questions of the other half", len(others), "", sum(contamination.hit(text) is not None for text in others))
    row("their worked solutions", len(answers), "", sum(contamination.hit(text) is not None for text in answers))
    long = [" ".join(answers[:20]) + "\n" + each.text + "\n" + " ".join(answers[20:40]) for each in same]
    found = [contamination.hit(text) for text in long]
    right = sum(hit is not None and hit.problem == each.original for hit, each in zip(found, same, strict=True))
    row(f"(inside {len(words(long[0]))} words of solutions: the same question)", len(long), "", f"{right} found")
    made(seed)


def made(seed: int) -> None:
    """The built-in word problems: their splits share all templates and no arithmetic."""
    test, train = problems("test", 1_000, seed), problems("train", 10_000, seed)
    contamination = Contamination(("arithmetic", text) for text in test)
    row("arithmetic: train against 1,000 of test", len(train), "", sum(contamination.hit(t) is not None for t in train))
    row("arithmetic: train among itself", len(train), len(duplicates_of(train)), "")
    wrong = sum(language(text) != "en" for text in train)
    row("arithmetic: not called English", len(train), "", f"{wrong}")


def problems(split: arithmetic.Split, count: int, seed: int) -> list[str]:
    return [problem.question for problem in itertools.islice(arithmetic.problems(split, seed), count)]


# --- the rules compared --------------------------------------------------------------------------------------------


class ByGramsOnly(Contamination):
    def _renamed(self, text: str, found: list[str]) -> Hit | None:
        return None


def raw_rule(questions: Sequence[str], n: int) -> Callable[[str], bool]:
    """One shared n-gram of words as they stand between spaces, in lower case."""

    def grams(text: str) -> set[tuple[str, ...]]:
        parts = text.lower().split(" ")
        return set(zip(*(parts[place:] for place in range(n)), strict=False))

    index = set().union(*map(grams, questions))
    return lambda text: not index.isdisjoint(grams(text))


def tune(half: Sequence[str], others: Sequence[str], seed: int) -> None:
    rng = random.Random(seed)
    same, other = planted(half, SAME, rng), planted(half, OTHER, rng)
    test, train = problems("test", 1_000, seed), problems("train", 3_000, seed)
    named = [("gsm8k", question) for question in half]
    made = [("arithmetic", question) for question in test]
    kinds = [*SAME, *OTHER]
    header("rule", *kinds, "other questions", "arithmetic")

    def measure(name: str, hit: Callable[[str], object], hit_made: Callable[[str], object]) -> None:
        shares = [sum(bool(hit(each.text)) for each in group) / len(group) for _, group in of_kind([*same, *other])]
        false = sum(bool(hit(text)) for text in others)
        row(name, *(f"{share:.2f}" for share in shares), false, sum(bool(hit_made(text)) for text in train))

    for n in (8, 13):
        measure(f"one raw {n}-gram", raw_rule(half, n), raw_rule(test, n))
        once, once_made = (ByGramsOnly(each, ngram=n, share=1e-9, numbers_share=0) for each in (named, made))
        measure(f"one {n}-gram of normalised words", once.hit, once_made.hit)
    for n, share, of_numbers in itertools.product((5, 8, 13), (0.3, 0.5, 0.7, 0.9), (0.0, 0.5, 0.75, 1.0)):
        rule, rule_made = (
            Contamination(each, ngram=n, share=share, numbers_share=of_numbers) for each in (named, made)
        )
        chosen = " (chosen)" if (n, share, of_numbers) == (WORDS, SHARE, NUMBERS_SHARE) else ""
        measure(f"{share} of {n}-grams, {of_numbers} of numbers, names{chosen}", rule.hit, rule_made.hit)
    header("duplicates by", *kinds)
    sets = [frozenset(words(question)) for question in half]
    for least in (0.7, 0.8, 0.9, 0.95):
        shares = []
        for _, group in of_kind([*same, *other]):
            pairs = [(sets[each.original], frozenset(words(each.text))) for each in group]
            shares.append(sum(len(a & b) / len(a | b) >= least for a, b in pairs) / len(group))
        row(f"Jaccard similarity of word sets ≥ {least}", *(f"{share:.2f}" for share in shares))
    texts = [*half, *(each.text for each in (*same, *other))]
    repeats = duplicates_of(texts)
    found = dict.fromkeys(kinds, 0)
    for place, each in enumerate((*same, *other), len(half)):
        found[each.kind] += place in repeats
    row("similarity of problems (chosen)", *(f"{count / EACH:.2f}" for count in found.values()))


# --- time and memory -----------------------------------------------------------------------------------------------


def scale(count: int, seed: int) -> None:
    """Made-up problems, one in fifty a changed copy of an earlier one, and 10,000 under one key."""
    rng = random.Random(seed)
    texts: list[str] = []
    for problem in itertools.islice(arithmetic.problems("train", seed, steps=(3, 6)), count):
        kind = rng.choice(list(SAME)) if texts and rng.random() < 0.02 else None
        copy = SAME[kind](rng.choice(texts), rng) if kind else None
        texts.append(copy or problem.question)
    letters = "abcdefghij"
    pairs = itertools.islice(itertools.product(itertools.product(letters, repeat=2), repeat=2), 10_000)
    texts += [f"Tell me how the {'o'.join(a)}n met the {'i'.join(b)}m, in 1, 2 or 3 sentences." for a, b in pairs]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    near = NearDuplicates()
    started = time.perf_counter()
    for text in texts:
        near.add(text)
    added = time.perf_counter()
    found = near.decide(lambda rows: {place: texts[place] for place in rows})
    ended = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    header("step", "µs per prompt")
    row(f"add, {len(texts)} prompts", f"{(added - started) / len(texts) * 1e6:.0f}")
    row(
        f"decide ({len(found)} duplicates, {near.compared} pairs compared)", f"{(ended - added) / len(texts) * 1e6:.0f}"
    )
    contamination = Contamination(("arithmetic", text) for text in problems("test", 1_000, seed))
    for name, step in (("words", words), ("hit", contamination.hit), ("language", language)):
        step(texts[0])
        started = time.perf_counter()
        for text in texts[:10_000]:
            step(text)
        row(name, f"{(time.perf_counter() - started) / min(10_000, len(texts)) * 1e6:.0f}")
    print(f"\npeak memory of add and decide: {(after - before) / 1024:.0f} MB above the {before / 1024:.0f} MB before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, help="GSM8K's rows as JSON lines: question, answer")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--scale", type=int, metavar="PROMPTS")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.scale:
        scale(options.scale, options.seed)
    if options.questions:
        rows = [json.loads(line) for line in options.questions.read_text(encoding="utf-8").splitlines()]
        questions, answers = [each["question"] for each in rows], [each["answer"] for each in rows]
        middle = len(rows) // 2
        if options.tune:
            tune(questions[:middle], questions[middle:], options.seed)
        else:
            report(questions[middle:], questions[:middle], answers[:middle], options.seed)
            wrong = sum(language(question) != "en" for question in questions)
            row("GSM8K: not called English", len(questions), "", f"{wrong}")


if __name__ == "__main__":
    main()
