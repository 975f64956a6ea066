"""Tests of code against a known solution: our own programs, in a real process and in the sandbox."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from distill.prompts.validation import sandboxed_runner, statically_bad, validate
from distill.records import CodeTest, Prompt
from distill.verify import PASS, abstaining, failing
from distill.verify.sandbox import DEFAULT, Ran, available

DOUBLE = "print(int(input()) * 2)"
DOUBLE_CALL = "def double(x):\n    return x * 2"
STDIN = (CodeTest("1\n", "2\n"), CodeTest("21", "42\n\n"))
CALLS = (CodeTest("[2]", "4", "double"), CodeTest("['ab']", "'abab'", "double"), CodeTest("[(1,)]", "[1, 1]", "double"))


def run_program(source: str, test: CodeTest) -> Ran:
    """No sandbox: for the programs in this file alone."""
    if test.function is not None:
        source += f"\nprint(repr({test.function}(*{test.input})))"
    limit = 1 if "while" in source else 10
    command = [sys.executable, "-I", "-c", source]
    try:
        done = subprocess.run(command, input=test.input, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return Ran(None, "timeout")
    return Ran(done.stdout) if done.returncode == 0 else Ran(None, "crash")


def code(solution: str | None, tests: tuple[CodeTest, ...] | None = STDIN) -> Prompt:
    return Prompt("Double it.", kind="code", tests=tests, solution=solution)


def test_a_right_solution_passes_its_tests() -> None:
    assert validate(code(DOUBLE), run_program) == PASS
    assert validate(code(DOUBLE_CALL, CALLS), run_program) == PASS


@pytest.mark.parametrize(
    ("solution", "tests", "reason"),
    [
        ("print(2)", STDIN, "wrong_answer"),
        ("def double(x):\n    return x", CALLS, "wrong_answer"),
        ("raise SystemExit(1)", STDIN, "crash"),
        ("while True:\n    pass", STDIN, "timeout"),
        ("print 2", STDIN, "does_not_compile"),
        (DOUBLE, (CodeTest("1", ""),), "bad_tests"),
        (DOUBLE_CALL, (CodeTest("2", "4", "double"),), "bad_tests"),
        (DOUBLE_CALL, (CodeTest("[2", "4", "double"),), "bad_tests"),
        (DOUBLE_CALL, (CodeTest("[2]", "4 4", "double"),), "bad_tests"),
    ],
)
def test_what_fails_says_why(solution: str, tests: tuple[CodeTest, ...], reason: str) -> None:
    assert validate(code(solution, tests), run_program) == failing(reason)


def test_a_runner_that_gives_no_reason() -> None:
    assert validate(code(DOUBLE), lambda _, __: Ran(None)) == failing("crash")


def test_it_stops_at_the_first_test_that_is_not_passed() -> None:
    ran: list[str] = []

    def noting(_: str, test: CodeTest) -> Ran:
        ran.append(test.input)
        return Ran("2" if test.input == "1\n" else "41")

    assert validate(code(DOUBLE, (*STDIN, CodeTest("3", "6"))), noting) == failing("wrong_answer")
    assert ran == ["1\n", "21"]


def test_without_a_runner_only_what_needs_none_is_told() -> None:
    assert validate(code(DOUBLE), None) == abstaining("no_sandbox")
    assert validate(code(None), None) == abstaining("no_solution")
    assert validate(code("  "), None) == abstaining("no_solution")
    assert validate(code(DOUBLE, None), None) == abstaining("no_tests")
    assert validate(code("print 2"), None) == failing("does_not_compile")
    assert validate(code(None, (CodeTest("1", ""),)), None) == failing("bad_tests")


def test_calls_with_numbers_of_any_length_are_calls() -> None:
    huge = "9" * 5_000
    assert statically_bad(code(DOUBLE_CALL, (CodeTest(f"[{huge}]", huge, "double"),))) is None


@pytest.mark.skipif(available().mode is None, reason="no sandbox here")
def test_the_sandbox_is_a_runner() -> None:
    """One sandbox as long as the program is the same; the same outcomes as in a process of our own."""
    with sandboxed_runner(replace(DEFAULT, cpu_seconds=1.0)) as runner:
        assert validate(code(DOUBLE), runner) == PASS
        first = runner._sandbox
        assert validate(code(DOUBLE, STDIN[:1]), runner) == PASS
        assert runner._sandbox is first
        assert validate(code(DOUBLE_CALL, CALLS), runner) == PASS
        assert runner._sandbox is not first
        assert validate(code("print(2)"), runner) == failing("wrong_answer")
        assert validate(code("raise SystemExit(1)"), runner) == failing("crash")
        assert validate(code("while True:\n    pass"), runner) == failing("timeout")
        assert validate(code("def halve(x): return x", CALLS), runner) == failing("no_function")
    assert runner._sandbox is None
