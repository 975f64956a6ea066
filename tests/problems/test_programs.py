"""Programming tasks: every solution is really run on its tests, wrong programs fail, no task is in two splits."""

from __future__ import annotations

import functools
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Hashable, Sequence

import pytest

from distill.problems import programs
from distill.problems.program_task import MOST_TESTS, Task
from distill.records import Prompt
from problems.material import assert_one_split_each, take

RUNNER = """
import contextlib, io, json, sys
jobs, results = json.load(sys.stdin), []
for program, text in jobs:
    sys.stdin, printed = io.StringIO(text), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(program, "program", "exec"), {"__name__": "__main__"})
        results.append(printed.getvalue())
    except BaseException as error:
        results.append(f"{type(error).__name__}: {error}")
print(json.dumps(results))
"""
"""Runs many programs in one process: they are ours, so they need no sandbox."""


def outputs(jobs: Sequence[tuple[str, str]]) -> list[str]:
    told = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER], input=json.dumps(jobs), capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(told.stdout)
    return found


def passed(pairs: Sequence[tuple[str, Prompt]]) -> list[bool]:
    """For each (program, prompt) whether the program passes all of the prompt's tests."""
    tests = [prompt.tests or () for _, prompt in pairs]
    assert all(tests)
    jobs = [(program, t.input) for (program, _), each in zip(pairs, tests, strict=True) for t in each]
    printed = iter(outputs(jobs))
    return [sum(next(printed) == test.output for test in each) == len(each) for each in tests]


@functools.cache
def tasks(each: int) -> list[tuple[str, Task]]:
    """(family, task), `each` different ones of every family, or nearly so."""
    found: dict[str, tuple[str, Task]] = {}
    for family in programs.FAMILIES:
        for seed in range(each):
            task = family(random.Random(f"{family.__module__}{family.__name__}{seed}"))
            found[task.content] = (f"{family.__module__}.{family.__name__}", task)
    return list(found.values())


def test_there_are_more_than_twenty_families() -> None:
    assert len({family for family, _ in tasks(12)}) == len(programs.FAMILIES) == 41


def test_every_solution_passes_its_tests() -> None:
    """The expected outputs are computed on another way than the solution takes."""
    drawn = [programs.prompt_of(task) for _, task in tasks(12)] + list(take("programs", "train", 0, 300))
    pairs = [(prompt.solution or "", prompt) for prompt in drawn]
    assert [prompt.question for (_, prompt), good in zip(pairs, passed(pairs), strict=True) if not good] == []


def test_the_form_of_a_task() -> None:
    for prompt in take("programs", "train", 0, 300):
        assert (prompt.kind, prompt.domain, prompt.answer) == ("code", "code", None)
        assert prompt.tests is not None
        assert 8 <= len(prompt.tests) <= MOST_TESTS
        assert len({test.input for test in prompt.tests}) == len(prompt.tests)
        assert all(t.input.endswith("\n") and t.output.endswith("\n") and t.output.strip() for t in prompt.tests)
        assert all(t.function is None for t in prompt.tests)
        assert "{" not in prompt.question.split("\n\nInput:")[0].replace("{}", ""), "no field was left open"
        example = re.search(
            r"Example input:\n```\n(.*?)```\n\nExample output:\n```\n(.*?)```", prompt.question, re.DOTALL
        )
        assert example is not None
        assert (example[1], example[2]) in {(test.input, test.output) for test in prompt.tests}
        assert "\n\nInput: " in prompt.question
        assert "\n\nOutput: " in prompt.question


def test_inputs_keep_what_the_statement_promises() -> None:
    for _, task in tasks(12):
        for test in programs.tests_of(task):
            lines = test.input.splitlines()
            if " whole numbers between " in task.reads:
                most = int(re.findall(r"and (\d+), separated", task.reads)[0])
                assert len(lines) == 1
                assert 1 <= len(lines[0].split()) <= 30
                assert all(-most <= int(word) <= most for word in lines[0].split())
            elif "n from 1 to" in task.reads:
                assert 1 <= int(test.input) <= int(re.findall(r"to (\d+)", task.reads)[0])
            elif "rows, one a line" in task.reads:
                height, width = map(int, lines[0].split())
                assert [len(line.split()) for line in lines[1:]] == [width] * height
                assert 1 <= min(height, width) <= max(height, width) <= 6
                assert all(0 <= int(word) <= 99 for line in lines[1:] for word in line.split())
            elif "letters a-z and A-Z" in task.reads:
                assert re.fullmatch(r"[A-Za-z]+(?: [A-Za-z]+)*", lines[0])
                assert len(lines[0]) <= 200
            elif "characters a, b, c" in task.reads:
                assert re.fullmatch("[abc]{1,60}", lines[0])
            elif "brackets" in task.reads:
                allowed = re.findall(r"consists of the brackets (.*?)\. It", task.statement)[0]
                assert 1 <= len(lines[0]) <= 60
                assert set(lines[0]) <= set(allowed) - set(", ")
            else:
                base, signs = re.findall(r"given in base (\d+): the characters (.*), without", task.reads)[0]
                assert 0 <= int(lines[0], int(base)) <= 10**6
                assert signs


def test_wrong_programs_fail() -> None:
    """One that prints what the example shows, one that prints the input, one that knows all tests but the last."""
    drawn = take("programs", "train", 0, 300)
    wrong = []
    for prompt in drawn:
        assert prompt.tests is not None
        outputs_of = Counter(test.output for test in prompt.tests)
        commonest = outputs_of.most_common(1)[0][0]
        table = {test.input.strip(): test.output for test in prompt.tests[:-1]}
        wrong.append((f"print({commonest!r}, end='')", prompt))
        wrong.append(("import sys\nprint(sys.stdin.read(), end='')", prompt))
        wrong.append((f"import sys\nprint({table!r}.get(sys.stdin.read().strip(), '?'), end='')", prompt))
        wrong.append(("raise SystemExit", prompt))
    assert not any(passed(wrong))


def test_the_tests_tell_a_task_from_its_sisters() -> None:
    """The solution of the same family with other parameters fails. Some sisters differ only in rare cases, and a
    solution for more kinds of brackets rightly passes for fewer; so nearly all is what can be asked."""
    pairs = []
    by_family: dict[str, list[Task]] = {}
    for family, task in tasks(8):
        by_family.setdefault(family, []).append(task)
    for family, members in by_family.items():
        for task in members:
            prompt = programs.prompt_of(task)
            pairs += [(family, other.solution, prompt) for other in members if other is not task]
    results = passed([(program, prompt) for _, program, prompt in pairs])
    fooled = Counter(family for (family, _, _), good in zip(pairs, results, strict=True) if good)
    assert sum(fooled.values()) < 0.02 * len(pairs), fooled
    assert all(count <= 8 for count in fooled.values()), fooled


@pytest.mark.parametrize("drawn", [10, pytest.param(25, marks=pytest.mark.rehearse)])
def test_no_two_tasks_are_the_same_under_two_names(drawn: int) -> None:
    """Tasks of one family that print the same for all of many inputs."""
    seen: dict[tuple[str, tuple[str, ...]], str] = {}
    for family, task in tasks(drawn):
        if family.endswith(("_brackets", "_base")):  # what they read differs with the parameters
            continue
        texts = [text for seed in range(48) for text in task.inputs(random.Random(seed))]
        if family.endswith("_occurrences"):  # its inputs are full of its own pattern
            texts = ["".join(random.Random(seed).choices("abc", k=60)) for seed in range(150)]
        key = (family, tuple(map(task.expected, texts)))
        assert seen.setdefault(key, task.content) == task.content, (task.content, seen[key])


def statement(prompt: Prompt) -> Hashable:
    """What has to be done: the text from the second sentence that belongs to the task on, without the example."""
    opening = next(opening for opening in programs._OPENINGS if prompt.question.startswith(opening))
    return prompt.question.removeprefix(opening).split("Example input:")[0]


def test_one_split_each() -> None:
    assert_one_split_each("programs", statement, (700, 100, 100))


def test_the_tests_follow_from_the_task_alone() -> None:
    family = programs.FAMILIES[0]
    one, other = (programs.prompt_of(family(random.Random(3)), opening) for opening in programs._OPENINGS[:2])
    assert one.tests == other.tests
    assert one.question != other.question


@pytest.mark.parametrize("seed", range(3))
def test_contents_name_all_parameters(seed: int) -> None:
    """Two tasks of one content are one task, with the same statement, tests and solution."""
    by_content: dict[str, Task] = {}
    for family in programs.FAMILIES:
        for place in range(60):
            task = family(random.Random(f"{seed}{place}"))
            first = by_content.setdefault(task.content, task)
            assert (first.statement, first.reads, first.solution) == (task.statement, task.reads, task.solution)
            assert first.inputs(random.Random(0)) == task.inputs(random.Random(0))
