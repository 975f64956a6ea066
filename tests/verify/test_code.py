"""Verdicts on programs: our own problems' solutions pass, changed ones fail, whatever is odd has its reason."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from distill.problems import programs
from distill.records import CodeTest, Prompt
from distill.verify import PASS, Outcome, abstaining, bubblewrap, code, failing, sandbox
from distill.verify.sandbox import DEFAULT, available

pytestmark = pytest.mark.skipif(available().mode is None, reason="no sandbox here: distill doctor says what is missing")

SHORT = replace(DEFAULT, cpu_seconds=1.0, wall_seconds=10.0)
STDIN = (CodeTest("1\n", "2\n"), CodeTest("21\n", "42\n"), CodeTest("-3\n", "-6\n"))
CALLS = (CodeTest("[2]", "4", "twice"), CodeTest("['ab']", "'abab'", "twice"), CodeTest("[[1]]", "[1, 1]", "twice"))


def prompt(tests: tuple[CodeTest, ...] | None = STDIN) -> Prompt:
    return Prompt("Double it.", kind="code", tests=tests)


def answer(program: str, tag: str = "python") -> str:
    return f"We double the number.\n\n```{tag}\n{program}\n```\n\nFor 1 this prints:\n```\n2\n```\n"


def judged(program: str, tests: tuple[CodeTest, ...] | None = STDIN, tag: str = "python") -> Outcome:
    return code.judge(prompt(tests), answer(program, tag), SHORT)


def assert_told_apart(families: Sequence[programs.Family]) -> None:
    """The solution passes; with an x behind every line that it prints it fails."""
    for family in families:
        task = programs.prompt_of(family(random.Random(family.__name__)))
        assert task.solution is not None
        assert code.verify(task, answer(task.solution)) == PASS, task.content
        changed = "_print = print\ndef print(*a, **k): _print(*a, 'x', **k)\n" + task.solution
        assert code.verify(task, answer(changed)) == failing("wrong_answer"), task.content


def test_the_solutions_of_our_own_problems_pass_and_changed_ones_fail() -> None:
    assert_told_apart(programs.FAMILIES[::8])


@pytest.mark.slow
def test_those_of_all_our_own_problems() -> None:
    assert_told_apart(programs.FAMILIES)


def test_the_last_test_counts_as_the_first() -> None:
    """A program that knows all tests but one."""
    assert judged("print({'1': 2, '21': 42, '-3': -6}[input()])") == PASS
    assert judged("print({'1': 2, '21': 42}.get(input(), 0))") == failing("wrong_answer")
    assert judged("print({'21': 42, '-3': -6}.get(input(), 0))") == failing("wrong_answer")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("print(int(input()) * 2)", PASS),
        ("def main():\n    print(int(input()) * 2)\nif __name__ == '__main__':\n    main()", PASS),
        ("print(int(input()) * 2, end='  \\n\\n')", PASS),
        ("print(int(input()) * 3)", failing("wrong_answer")),
        ("print('Result:', int(input()) * 2)", failing("wrong_answer")),
        ("n = input()\nprint()", failing("wrong_answer")),
        ("input(print())\nwhile True: pass", failing("timeout")),
        ("print(input(), bytearray(2**31))", failing("memory")),
        ("print(int(input()) // 0)", failing("crash")),
        ("print(int(input()) * 2)\nexit(1)", failing("crash")),
        ("input()\nfor _ in range(10**5): print('x' * 1_000)", failing("output_limit")),
        ("print int(input()) * 2", failing("does_not_compile")),
        ("import numpy as np\nprint(np.int64(input()) * 2)", abstaining("missing_module")),
        ("import numpi\nprint(input())", failing("crash")),
        ("print(input(), '\ud800')", failing("wrong_answer")),
    ],
)
def test_programs_on_standard_input(program: str, expected: Outcome) -> None:
    assert judged(program) == expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def twice(n):\n    return n * 2", PASS),
        ("class Solution:\n    def twice(self, n: List[int]):\n        return n * 2", PASS),
        (
            "class Solution:\n    def twice(self, n):\n        return tuple(n * 2) if isinstance(n, list) else n * 2",
            PASS,
        ),
        ("def twice(n):\n    return n", failing("wrong_answer")),
        ("def twice(n):\n    print(n * 2)", failing("wrong_answer")),
        (
            "class All:\n    def __eq__(self, other): return True\ndef twice(n):\n    return All()",
            failing("wrong_answer"),
        ),
        ("import os\ndef twice(n):\n    os._exit(0)", failing("crash")),
        ("def double(n):\n    return n * 2", failing("no_function")),
        ("def twice(n):\n    while True: pass", failing("timeout")),
        ("from sortedcontainers import SortedList\ndef twice(n):\n    return n * 2", abstaining("missing_module")),
    ],
)
def test_calls(program: str, expected: Outcome) -> None:
    assert judged(program, CALLS) == expected


def test_the_program_with_the_function_is_taken_not_the_example_after_it() -> None:
    usage = "\n\n```python\nnumber = int(input())\nprint(twice(number))\n```\n"
    assert code.verify(prompt(CALLS), answer("def twice(n):\n    return n * 2") + usage) == PASS


def test_what_cannot_be_judged_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    good = "print(int(input()) * 2)"
    assert judged(good, None) == judged(good, ()) == abstaining("no_tests")
    assert code.verify(prompt(), "The answer is 42.") == failing("no_code")
    assert judged("class Main { void main() {} }", tag="java") == abstaining("unsupported_language")
    assert judged("int twice(int n) { return 2 * n; }", CALLS, tag="cpp") == abstaining("unsupported_language")
    monkeypatch.setattr(code, "compiler_here", lambda: None)
    assert judged("int main() { }", tag="cpp") == abstaining("no_compiler")
    monkeypatch.setattr(code, "mode_here", lambda: None)
    assert judged(good) == abstaining("no_sandbox")


@pytest.mark.skipif(bubblewrap.compiler_here() is None, reason="no C++ compiler here")
def test_cpp() -> None:
    program = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << FACTOR * n << std::endl; }"
    assert judged(program.replace("FACTOR", "2"), tag="cpp") == PASS
    assert judged(program.replace("FACTOR", "3"), tag="cpp") == failing("wrong_answer")
    assert judged(program, tag="cpp") == failing("does_not_compile")


def test_all_tests_can_be_counted() -> None:
    """The score is the share passed, the reason that of the first which is not."""
    program = "n = int(input())\nif n < 0: exit(1)\nprint(n * 2 if n < 9 else 0)"
    assert code.judge(prompt(), answer(program), SHORT) == failing("wrong_answer")
    found = code.judge(prompt(), answer(program), SHORT, all_tests=True)
    assert (found.outcome, found.reason, found.score) == ("fail", "wrong_answer", pytest.approx(1 / 3))
    found = code.judge(prompt(), answer("print(int(input()) * 2)"), SHORT, all_tests=True)
    assert (found.outcome, found.reason, found.score) == ("pass", "", 1.0)
    slow = "n = int(input())\nwhile n == 21: pass\nprint(n * 2)"
    found = code.judge(prompt(), answer(slow), SHORT, all_tests=True)
    assert (found.outcome, found.reason, found.score) == ("fail", "timeout", pytest.approx(2 / 3))


def test_it_stops_at_the_first_test_that_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    run: Callable[..., sandbox.Ran] = sandbox.Sandbox.run

    def noting(box: sandbox.Sandbox, given: str, function: str | None = None) -> sandbox.Ran:
        ran.append(given)
        return run(box, given, function)

    monkeypatch.setattr(sandbox.Sandbox, "run", noting)
    assert judged("print(2 if input() == '1' else 0)") == failing("wrong_answer")
    assert ran == ["1\n", "21\n"]


def test_the_expected_output_never_enters_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    send = sandbox.SandboxProcess.send

    def noting(process: sandbox.SandboxProcess, order: dict[str, object], content: bytes) -> None:
        sent.append(repr(order).encode() + content)
        send(process, order, content)

    monkeypatch.setattr(sandbox.SandboxProcess, "send", noting)
    tests = (CodeTest("1\n", "SECRET-1\n"), CodeTest("2\n", "SECRET-2\n"))
    assert judged("print('SECRET-' + input())".replace("SECRET", "SEC' + 'RET"), tests) == PASS
    assert len(sent) == 3
    assert not any(b"SECRET" in content for content in sent)


def test_an_expected_output_may_be_longer_than_the_limit() -> None:
    tests = (CodeTest("1\n", "x" * 300_000),)
    limits = replace(SHORT, output_bytes=10_000)
    found = [code.judge(prompt(tests), answer(f"input()\nprint('x' * {n})"), limits) for n in (300_000, 3_000_000)]
    assert found == [PASS, failing("output_limit")]


def test_what_a_program_leaves_does_not_reach_the_next_answer() -> None:
    leaves = "input()\nopen('/tmp/left', 'w').write('2')\nprint(open('/tmp/left').read())"
    assert judged(leaves, STDIN[:1]) == PASS
    assert judged("input()\nprint(open('/tmp/left').read())", STDIN[:1]) == failing("crash")


def test_the_limit_of_an_item_is_above_what_its_tests_may_take() -> None:
    most = DEFAULT.compile_seconds * 3 + len(STDIN) * DEFAULT.wall_seconds
    assert code.seconds(prompt()) > most
    assert code.seconds(prompt(STDIN * 10)) > DEFAULT.compile_seconds * 3 + 10 * len(STDIN) * DEFAULT.wall_seconds
    assert code.seconds(prompt(None)) > 0


def in_worker(queue: multiprocessing.Queue[Outcome]) -> None:
    import resource

    code.prepare()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**31, hard))
    queue.put(code.verify(prompt(), answer("print(int(input()) * 2)")))


def test_it_runs_in_a_daemon_with_a_memory_limit() -> None:
    """As the pool's workers are, which may have no children of multiprocessing."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[Outcome] = context.Queue()
    worker = context.Process(target=in_worker, args=(queue,), daemon=True)
    worker.start()
    assert queue.get(timeout=120) == PASS
    worker.join()
