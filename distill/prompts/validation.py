"""Are the tests of a programming problem passed by the program that its source calls right?

What can be told without running anything is told here; a program runs only through the runner that is given, which is
the sandbox's part. Knows nothing about processes.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from distill.prompts.marks import bad_tests
from distill.prompts.solutions import compiles
from distill.records import CodeTest, Prompt
from distill.verify import PASS, Outcome, abstaining, failing

TOLERANCE = 1e-6
"""Absolute or relative, whichever allows more: what Codeforces' problems ask of real numbers most often."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program did with one test: its standard output, or the result of the call as a literal; or why there is
    none, such as `timeout` or `runtime_error`."""

    output: str | None
    reason: str = ""


class RunProgram(Protocol):
    """Runs `source` on one test. Never raises for what the program does."""

    def __call__(self, source: str, test: CodeTest, /) -> Ran: ...


def validate(prompt: Prompt, run_program: RunProgram | None) -> Outcome:
    """Pass, when the known solution passes every test; fail with `does_not_compile`, `bad_tests`, `wrong_answer` or the
    runner's reason; abstain with `no_tests`, `no_solution` or `no_sandbox`. Stops at the first test that is not passed.
    """
    bad = statically_bad(prompt)
    if bad is not None:
        return abstaining(bad) if bad in ("no_tests", "no_solution") else failing(bad)
    if run_program is None:
        return abstaining("no_sandbox")
    for test in prompt.tests or ():
        ran = run_program(prompt.solution or "", test)
        if ran.output is None:
            return failing(ran.reason or "runtime_error")
        same = same_output if test.function is None else same_result
        if not same(ran.output, test.output):
            return failing("wrong_answer")
    return PASS


def statically_bad(prompt: Prompt) -> str | None:
    """What can be told before anything runs: `no_tests`, `bad_tests`, `no_solution`, `does_not_compile`, or None."""
    if not prompt.tests:
        return "no_tests"
    if bad_tests(prompt.tests) or not all(_is_call(test) for test in prompt.tests if test.function is not None):
        return "bad_tests"
    if not (prompt.solution or "").strip():
        return "no_solution"
    return None if compiles(prompt.solution or "") else "does_not_compile"


def _is_call(test: CodeTest) -> bool:
    """Whether the arguments are a list of literals and the result is one; numbers of any length are."""
    try:
        arguments = ast.parse(test.input.strip(), mode="eval").body
        ast.parse(test.output.strip(), mode="eval")
    except SyntaxError as error:
        return "integer string conversion" in str(error)  # over 4,300 digits: a literal that Python will not read
    except (ValueError, RecursionError, MemoryError):
        return False
    return isinstance(arguments, ast.List)


def same_output(output: str, expected: str) -> bool:
    """As judges compare: white space at the ends of lines and empty lines at the end mean nothing. Where the texts
    differ all the same and hold numbers alone, real ones may differ by TOLERANCE; whole ones may not."""
    found, wanted = _lines(output), _lines(expected)
    if found == wanted:
        return True
    if len(found) != len(wanted):
        return False
    rows = [(one.split(), other.split()) for one, other in zip(found, wanted, strict=True)]
    return all(
        len(one) == len(other) and all(map(_near, one, other)) and all(map(_NUMBER.fullmatch, other))
        for one, other in rows
    )


def _lines(text: str) -> list[str]:
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip().split("\n")


def _near(one: str, other: str) -> bool:
    if one == other:
        return True
    if _NUMBER.fullmatch(one) is None or _NUMBER.fullmatch(other) is None or other.lstrip("+-").isdigit():
        return False
    return math.isclose(float(one), float(other), rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def same_result(output: str, expected: str) -> bool:
    """Equal as values: a tuple is a list, and real numbers may differ by TOLERANCE."""
    if output.strip() == expected.strip():
        return True
    try:
        return _equal(ast.literal_eval(output.strip()), ast.literal_eval(expected.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return False


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(other, float) and isinstance(one, int | float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)
