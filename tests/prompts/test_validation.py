"""Tests of code against a known solution: our own programs in a real process, and how outputs are compared."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distill.prompts.validation import Ran, same_output, same_result, statically_bad, validate
from distill.records import CodeTest, Prompt
from distill.verify import PASS, abstaining, failing

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
    return Ran(done.stdout) if done.returncode == 0 else Ran(None, "runtime_error")


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
        ("raise SystemExit(1)", STDIN, "runtime_error"),
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
    assert validate(code(DOUBLE), lambda _, __: Ran(None)) == failing("runtime_error")


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
    assert same_result(huge + "\n", huge)
    assert not same_result(huge, "8" + huge[1:])


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("2\n", "2"),
        ("2  \n3\t\n\n\n", "2\n3"),
        ("a  \nb\t\n", "a\nb"),
        ("2\r\n3\r\n", "2\n3\n"),
        ("", "\n"),
        ("0.3333333", "0.3333333333"),
        ("1.0", "1.00"),
        ("1e-7", "0.0"),
        ("3.14159 2.718281", "3.141590  2.7182812"),
        ("1 0.5", "1 0.50"),
        ("1000000.1", "1000000.2"),
        ("2 3", "2 3"),
    ],
)
def test_outputs_that_are_equal(output: str, expected: str) -> None:
    assert same_output(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("3", "2"),
        ("1 2", "12"),
        (" 2", "2x"),
        ("a  b", "a b"),
        ("a 0.5", "a 0.50"),
        ("2\n3", "2 3"),
        ("2\n\n3", "2\n3"),
        ("10000001", "10000000"),
        ("1.0", "1"),
        ("0.333", "0.3333333333"),
        ("nan", "0.5"),
        ("inf", "1e400"),
        ("Yes", "YES"),
        ("1 2", "1 2 3"),
        ("", "0.0"),
        ("1_0.0", "10.0"),
    ],
)
def test_outputs_that_differ(output: str, expected: str) -> None:
    assert not same_output(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [("(1, 2)", "[1, 2]"), ("[1,2]", "[1, 2]"), ("0.30000000000000004", "0.3"), ("1", "1.0"), ("'a'", '"a"'),
     ("True", "True"),
     ("{'a': (1,)}", "{'a': [1]}"), ("None", "None\n"), ("[[0.1]]", "[(0.1000000001,)]")],
)  # fmt: skip
def test_results_that_are_equal(output: str, expected: str) -> None:
    assert same_result(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [("[1, 2]", "[2, 1]"), ("[1]", "[1, 2]"), ("'1'", "1"),
     ("0.31", "0.3"), ("None", "0"), ("{'a': 1}", "{'b': 1}"),
     ("<object>", "1"), ("__import__('os')", "1"), ("10000001", "10000000"), ("(" * 1_000, "1"), ("", "1")],
)  # fmt: skip
def test_results_that_differ(output: str, expected: str) -> None:
    assert not same_result(output, expected)
