"""Are the tests of a programming problem passed by the program that its source calls right?

What can be told without running anything is told here; a program runs only through the runner that is given, which is
the sandbox's part: `sandboxed_runner`. Knows nothing about processes.
"""

from __future__ import annotations

import ast
from typing import Protocol, Self

from distill.prompts.marks import bad_tests
from distill.prompts.solutions import compiles
from distill.records import CodeTest, Prompt
from distill.verify import PASS, Outcome, abstaining, failing
from distill.verify.comparing import same_output, same_result
from distill.verify.sandbox import DEFAULT, Limits, Ran, Sandbox, require


class RunProgram(Protocol):
    """Runs `source` on one test. Never raises for what the program does."""

    def __call__(self, source: str, test: CodeTest, /) -> Ran: ...


class SandboxedRunner:
    """A RunProgram, and a context manager: programs run in a sandbox, one as long as the program is the same."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._sandbox: Sandbox | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, source: str, test: CodeTest, /) -> Ran:
        """Raises BrokenSandboxError where the sandbox itself fails."""
        if self._sandbox is None or self._sandbox.source != source:
            self.close()
            self._sandbox = Sandbox(source, "python", self._limits)
        return self._sandbox.run(test.input, test.function)

    def close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None


def sandboxed_runner(limits: Limits = DEFAULT) -> SandboxedRunner:
    """The runner for `validate`. Raises MissingError with what to do where there is no sandbox."""
    require()
    return SandboxedRunner(limits)


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
            return failing(ran.reason or "crash")
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
