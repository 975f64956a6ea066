"""What the checks of a trace reject among clean traces, what they find of planted faults, and what they cost.

python benchmarks/checks.py                                             # on the data of the repository
python benchmarks/checks.py --questions gsm8k_train_1000.jsonl --run runs/quickstart   # the tables of docs/checks.md

Planted: sentences of other languages (tests/data/other_languages.json), loops (repetitive_work.py). Cost is the time of
the processor for 1,000 characters, and as a multiple of zlib.compress of the same text in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from repetitive_work import legitimate, looped

from distill.filter import checks
from distill.filter_specs import FilterSettings
from distill.prompts.stage import read_prompts
from distill.records import Prompt, Sampling, SamplingRecord, TeacherIdentity, Trace
from distill.rundir import RunDir
from distill.verify import Outcome

DATA = Path(__file__).parents[1] / "tests/data"
Pair: TypeAlias = tuple[Prompt, Trace]
NAMES = ("language", "loop", "paragraphs", "code_in_reasoning", "answer_present", "refusal", "secrets")
CHECKS: dict[str, Callable[[Prompt, Trace], Outcome]] = {
    name: partial(checks.check, name, settings=FilterSettings()) for name in NAMES
}
TIMES = (2, 4, 8, 16, 32, 64)
"""Rounds of a planted loop."""
ENGLISH = Prompt("How many apples are left in the basket?", kind="math", language="en")


def trace_of(reasoning: str | None, answer: str | None) -> Trace:
    sampling = SamplingRecord(Sampling())
    raw = (reasoning or "") + (answer or "")
    return Trace("k", "a", "p", 0, raw, "stop", TeacherIdentity("t", "1"), sampling, reasoning=reasoning, answer=answer)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def worked_solutions(path: Path) -> Iterator[Pair]:
    for row in rows(path):
        solution, gold = row["answer"].split("####")
        yield (
            Prompt(row["question"], kind="math"),
            trace_of(solution.strip(), f"The answer is \\boxed{{{gold.strip()}}}."),
        )


def corpora(questions: Path, run: Path | None) -> dict[str, list[Pair]]:
    """Clean traces by where they come from, each prompt with its language as `prompts` would write it."""
    replies = [(Prompt(row["question"], kind="math"), row["text"]) for row in rows(DATA / "teacher_outputs_128.jsonl")]
    material = json.loads((DATA / "other_languages.json").read_text(encoding="utf-8"))
    layouts = json.loads((DATA / "traces/expected.json").read_text(encoding="utf-8"))
    found: dict[str, list[Pair]] = {
        "worked solutions (GSM8K)": list(worked_solutions(questions)),
        "replies of a 0.5B model": [(prompt, trace_of(text, "\\boxed{1}")) for prompt, text in replies],
        "fixtures in foreign layouts": [
            (Prompt(row["question"], kind=row["kind"], answer=row["gold"]), trace_of(row["reasoning"], row["answer"]))
            for layout in layouts.values()
            for row in layout["traces"]
        ],
        "repetitive work": [
            (Prompt(f"Work it out: {name}", kind="math"), trace_of(text, "\\boxed{1}"))
            for name, text in legitimate().items()
            if "Chinese" not in name
        ],
        "traces in 11 languages": [
            (Prompt(row["question"], kind="open"), trace_of(row["reasoning"], row["answer"]))
            for row in material["traces"]
        ],
    }
    if run is not None:
        folder = RunDir(run)
        by_id = {prompt.id: prompt for prompt in read_prompts(folder.prompts)}
        found["tiny-r1"] = [(by_id[trace.prompt_id], trace) for trace in folder.ledger().traces()]
    return found


def rejected(name: str, pairs: Sequence[Pair]) -> Counter[str]:
    outcomes = (CHECKS[name](prompt, trace) for prompt, trace in pairs)
    return Counter(outcome.reason for outcome in outcomes if outcome.outcome == "fail")


def print_clean(found: Mapping[str, list[Pair]]) -> None:
    print(f"\n| rejected of | traces | {' | '.join(CHECKS)} |\n| --- {'| --- ' * (len(CHECKS) + 1)}|")
    for corpus, pairs in found.items():
        counts = [rejected(name, pairs) for name in CHECKS]
        cells = [", ".join(f"{count} {reason}" for reason, count in cell.items()) or "0" for cell in counts]
        print(f"| {corpus} | {len(pairs)} | {' | '.join(cells)} |")
    lines = [line for pairs in found.values() for _, trace in pairs for line in (trace.reasoning or "").split("\n")]
    print(f"\nlongest line of reasoning: {max(len(line.encode()) for line in lines)} bytes, of {len(lines)}")


def share(reasonings: Sequence[str], check: str) -> str:
    failed = sum(CHECKS[check](ENGLISH, trace_of(text, "5")).outcome == "fail" for text in reasonings)
    return f"{failed / len(reasonings):.0%}" if failed < len(reasonings) else "100%"


def print_languages(replies: Sequence[str]) -> None:
    """Sentences of another language at several doses in each of the replies."""
    material = json.loads((DATA / "other_languages.json").read_text(encoding="utf-8"))
    groups = {
        "zh, ja, ko, ru": [text for code in ("zh", "ja", "ko", "ru") for text in material["sentences"][code]],
        "de, fr, es": [text for code in ("de", "fr", "es") for text in material["sentences"][code]],
        f"held out: {', '.join(material['held_out'])}": [t for texts in material["held_out"].values() for t in texts],
    }
    print("\n| mixed into 128 replies | one word | quoted | half a sentence | one | three | every other | all |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, sentences in groups.items():
        rng = random.Random(1)
        doses: list[list[str]] = [[] for _ in range(7)]
        for reply in replies:
            lines = [line for line in reply.split("\n") if line.strip()]
            sentence = rng.choice(sentences)
            word = sentence[:2] if " " not in sentence else max(sentence.split(), key=len)
            half = (
                sentence[: len(sentence) // 2]
                if " " not in sentence
                else " ".join(sentence.split()[: sentence.count(" ") // 2 + 1])
            )
            prose = [place for place, line in enumerate(lines) if line[-1] in ".,:" and "\\" not in line] or [
                len(lines) - 1
            ]
            place = rng.choice(prose)
            for dose, piece in enumerate((word, f"“{word}”", half, sentence)):
                doses[dose].append("\n".join([*lines[:place], f"{lines[place]} {piece}", *lines[place + 1 :]]))
            places = rng.sample(prose, min(3, len(prose)))
            doses[4].append(
                "\n".join(f"{x} {rng.choice(sentences)}" if n in places else x for n, x in enumerate(lines))
            )
            doses[5].append("\n".join(f"{x} {rng.choice(sentences)}" for x in lines))
            doses[6].append("\n".join(rng.choice(sentences) for _ in lines))
        print(f"| {name} | {' | '.join(share(texts, 'language') for texts in doses)} |")
    print("\nharmless sentences (names, terms, signs):", end=" ")
    print(share([f"{reply}\n{text}" for reply in replies for text in material["harmless"]], "language"))


def print_loops(replies: Sequence[str]) -> None:
    print(f"\n| the last sentences of a reply, over and over | {' | '.join(f'{times} times' for times in TIMES)} |")
    print(f"| --- {'| --- ' * len(TIMES)}|")
    long = [reply for reply in replies if reply.count(". ") + reply.count("\n") > 12]
    for sentences, counted in ((1, False), (3, False), (8, False), (3, True), (8, True)):
        rng = random.Random(2)
        cells = [
            share([looped(text, sentences, times, rng, counted=counted) for text in long], "loop") for times in TIMES
        ]
        print(f"| {sentences}{', each round with its number' if counted else ''} | {' | '.join(cells)} |")


def seconds(work: Callable[[Prompt, Trace], object], pairs: Sequence[Pair]) -> float:
    """Of the processor, the best of five."""
    found = []
    for _ in range(5):
        begun = time.process_time()
        for prompt, trace in pairs:
            work(prompt, trace)
        found.append(time.process_time() - begun)
    return min(found)


def print_cost(found: Mapping[str, list[Pair]]) -> None:
    short = [(ENGLISH, trace) for _, trace in found["replies of a 0.5B model"]]
    joined = ["\n\n".join(trace.raw for _, trace in short[start : start + 20]) for start in range(0, 100, 20)]
    texts = {"1,000 characters": short, "20,000 characters": [(ENGLISH, trace_of(text, "5")) for text in joined]}
    size = {name: sum(len(trace.raw) for _, trace in pairs) / 1e9 for name, pairs in texts.items()}
    unit = {name: seconds(lambda _, trace: zlib.compress(trace.raw.encode()), pairs) for name, pairs in texts.items()}
    print(f"\n| µs per 1,000 characters (times zlib) | {' | '.join(texts)} |\n| --- | --- | --- |")
    for check, work in CHECKS.items():
        spent = {name: seconds(work, pairs) for name, pairs in texts.items()}
        cells = [f"{spent[name] / size[name]:.0f} ({spent[name] / unit[name]:.2f})" for name in texts]
        print(f"| {check} | {' | '.join(cells)} |")
    print(f"| zlib.compress | {' | '.join(f'{unit[name] / size[name]:.0f}' for name in texts)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=Path, default=DATA / "gsm8k_200.jsonl")
    parser.add_argument("--run", type=Path, help="a finished run whose traces are right")
    arguments = parser.parse_args()
    found = corpora(arguments.questions, arguments.run)
    print_clean(found)
    replies = [trace.reasoning or "" for _, trace in found["replies of a 0.5B model"]]
    print_languages(replies)
    print_loops(replies)
    print_cost(found)


if __name__ == "__main__":
    main()
