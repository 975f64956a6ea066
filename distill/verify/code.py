"""Is the program in an answer right? It runs on the prompt's tests inside the sandbox; what is right stays outside.

Python, and C++ where a compiler is there. Knows nothing about processes or how output is limited.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from distill.records import CodeTest, Prompt
from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.bubblewrap import compiler_here
from distill.verify.comparing import same_output, same_result
from distill.verify.final_program import Program, final_program
from distill.verify.sandbox import DEFAULT, Limits, Ran, Sandbox, available, mode_here, require

__all__ = ["fingerprint", "judge", "judge_program", "prepare", "require", "seconds", "verify"]

_MISSING = re.compile(r"^ModuleNotFoundError: No module named '(\w+)", re.MULTILINE)
_LIBRARIES = """atcoder bitarray cython gmpy2 matplotlib more_itertools mpmath networkx numba numpy pandas regex scipy
sklearn sortedcontainers sympy torch"""
OFFERED_BY_JUDGES = frozenset(_LIBRARIES.split())
"""Libraries of which some judge has one or the other and the sandbox none: a program is not wrong for using them."""


def verify(prompt: Prompt, answer: str) -> Outcome:
    """As `judge`, with the default limits, up to the first test that is not passed."""
    return judge(prompt, answer)


def judge(prompt: Prompt, answer: str, limits: Limits = DEFAULT, *, all_tests: bool = False) -> Outcome:
    """Pass, or fail with what became of the first test that is not passed: `wrong_answer`, `timeout`, `memory`,
    `crash`, `output_limit`, `processes`; with `no_code`, `does_not_compile` or `no_function` where none can run.

    Abstains with `no_tests`, `no_sandbox`, `no_compiler`, `missing_module` or `unsupported_language`. With `all_tests`
    the score is the share of tests that are passed. Raises BrokenSandboxError where the sandbox itself fails.
    """
    tests = prompt.tests or ()
    if not tests:
        return abstaining("no_tests")
    program = final_program(answer, tests[0].function)
    return failing("no_code") if program is None else judge_program(program, tests, limits, all_tests=all_tests)


def judge_program(
    program: Program, tests: Sequence[CodeTest], limits: Limits = DEFAULT, *, all_tests: bool = False
) -> Outcome:
    """The same of a program by itself, on one test or more."""
    cannot = _cannot_run(program, tests)
    if cannot is not None:
        return abstaining(cannot)
    assert program.language != "other"
    longest = max(len(ascii(test.output)) for test in tests)  # as results are handed back, and no shorter than in UTF-8
    limits = replace(limits, output_bytes=max(limits.output_bytes, 2 * longest))
    reasons = []
    with Sandbox(program.source, program.language, limits) as sandbox:
        for test in tests:
            ran = sandbox.run(test.input, test.function)
            if lacks_module(ran):
                return abstaining("missing_module")
            reasons.append(reason_of(ran, test))
            if reasons[-1] and not all_tests:
                return failing(reasons[-1])
    if not all_tests:
        return PASS
    first = next(filter(None, reasons), "")
    return Outcome("fail" if first else "pass", first, reasons.count("") / len(reasons))


def prepare() -> None:
    """Finds out what there is here, once per worker."""
    available()
    compiler_here()


def fingerprint() -> str:
    """What there is here to run programs with."""
    return f"{mode_here()} {compiler_here()}"


def seconds(prompt: Prompt) -> float:
    """More than the sandbox's own limits add up to, so that these decide: of the compiler, and of each test."""
    return 30.0 + 4 * DEFAULT.compile_seconds + DEFAULT.wall_seconds * (1 + len(prompt.tests or ()))


def reason_of(ran: Ran, test: CodeTest) -> str:
    """Why this test is not passed, empty where it is."""
    if ran.output is None:
        return ran.reason or "crash"
    same = same_output if test.function is None else same_result
    return "" if same(ran.output, test.output) else "wrong_answer"


def lacks_module(ran: Ran) -> bool:
    found = _MISSING.search(ran.errors) if ran.output is None else None
    return found is not None and found[1] in OFFERED_BY_JUDGES


def _cannot_run(program: Program, tests: Sequence[CodeTest]) -> str | None:
    if program.language == "other":
        return "unsupported_language"
    if program.language == "cpp" and any(test.function is not None for test in tests):
        return "unsupported_language"  # the tests are calls with Python's literals
    if program.language == "cpp" and compiler_here() is None:
        return "no_compiler"
    return "no_sandbox" if mode_here() is None else None
