"""Which block of an answer is its program, on answers as models write them."""

from __future__ import annotations

import time

import pytest

from distill.verify.final_program import LONGEST, Program, final_program

READS = "n = int(input())\nprint(n * 2)\n"
BRUTE = "n = int(input())\nprint(sum(n for _ in range(2)))\n"
SOLUTION = "class Solution:\n    def twice(self, n: int) -> int:\n        return n * 2\n"
CPP = "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << 2 * n; }\n"
JAVA = "public class Main { public static void main(String[] args) { } }\n"


def block(text: str, tag: str = "python") -> str:
    return f"```{tag}\n{text}```\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (block(READS), READS),
        (f"**Approach**\n\nDouble it.\n\n{block(READS)}\n**Explanation**: see above.", READS),
        (block(READS, ""), READS),
        (block(READS, "Python"), READS),
        (block(READS, "python3"), READS),
        (block(READS, "python3.11"), READS),
        (block(READS, "py"), READS),
        (block(READS, "python title=main.py"), READS),
        (block(READS, "{.python}"), READS),
        (f"Here it is:```python\n{READS}```", READS),
        (f"```python\n{READS.rstrip()}```\nDone.", READS),
        (f"~~~python\n{READS}~~~", READS),
        (f"````python\n{READS}````", READS),
        (f"1. Do this:\n\n   ```python\n   {READS.replace(chr(10), chr(10) + '   ').rstrip()}\n   ```\n", READS),
        (block(READS).replace("\n", "\r\n"), READS),
        (block(BRUTE) + "Too slow. Better:\n" + block(READS), READS),
        (block(READS) + "For the input\n" + block("3\n", "") + "it prints\n" + block("6\n", ""), READS),
        (block(READS) + block("3\n1 2 3\n", "") + block("[2, 7]\n", "") + block("YES\n", ""), READS),
        (block(READS) + "Try it:\n" + block("echo 3 | python main.py\n", "bash"), READS),
        (block(READS) + block(">>> twice(3)\n6\n"), READS),
        (block(READS) + "The core is\n" + block("n = int(input())\n"), READS),
        (block(READS) + "The core is\n" + block("print(n * 2)\n"), READS),
        (block(READS) + block("def twice(n):\n    return n * 2\n"), READS),
        (block(READS) + f"```python\n{BRUTE[:20]}", READS),
        (block(READS) + f"```python\n{BRUTE}", READS),
        (f"```python\n{READS}", READS),
        (READS, READS),
        (block("import sys\nfor line in sys.stdin:\n    sys.stdout.write(line)\n"),
         "import sys\nfor line in sys.stdin:\n    sys.stdout.write(line)\n"),
        (block("print 'n'\nraw_input()\n"), "print 'n'\nraw_input()\n"),
        (block("print(42)\n"), "print(42)\n"),
        (block("def broken(:\n"), "def broken(:\n"),
    ],
)  # fmt: skip
def test_python_on_standard_input(answer: str, expected: str) -> None:
    assert final_program(answer) == Program(expected, "python")


@pytest.mark.parametrize(
    "answer",
    ["", "42", "The answer is 42.", "\\boxed{42}", block("3\n", ""), block("6\n", "text"), block("ls\n", "bash"),
     block("{}\n", "json"), block(">>> print(3)\n3\n"),
     "```\n```", "```python\n```", "Yes", "print", "x = 5", block("x" * (LONGEST + 1))],
)  # fmt: skip
def test_no_program(answer: str) -> None:
    assert final_program(answer) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (block(SOLUTION), SOLUTION),
        (SOLUTION, SOLUTION),
        (block("def twice(n):\n    return n * 2\n"), "def twice(n):\n    return n * 2\n"),
        (block("twice = lambda n: n * 2\n"), "twice = lambda n: n * 2\n"),
        (block(SOLUTION) + "Usage:\n" + block("print(Solution().twice(3))\n"), SOLUTION),
        (block(SOLUTION) + "Usage:\n" + block("s = Solution()\nassert s.twice(3) == 6\n"), SOLUTION),
        (block(SOLUTION) + "With input:\n" + block(READS), SOLUTION),
        (block("def twice(n): return n + n\n") + "Or faster:\n" + block(SOLUTION), SOLUTION),
        (block("def double(n):\n    return n * 2\n"), "def double(n):\n    return n * 2\n"),
    ],
)
def test_python_with_a_function_to_call(answer: str, expected: str) -> None:
    assert final_program(answer, "twice") == Program(expected, "python")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (block(CPP, "cpp"), Program(CPP, "cpp")),
        (block(CPP, "C++"), Program(CPP, "cpp")),
        (block(CPP, "c++17"), Program(CPP, "cpp")),
        (block(CPP, ""), Program(CPP, "cpp")),
        (block(READS) + block(CPP, "cpp"), Program(CPP, "cpp")),
        (block(CPP, "cpp") + block(READS), Program(READS, "python")),
        (block(CPP, "cpp") + block("for (int i = 0; i < n; i++) {}\n", "cpp"), Program(CPP, "cpp")),
        (block(JAVA, "java"), Program(JAVA, "other")),
        (block(READS) + block("int x = 0;\n", "java"), Program(READS, "python")),
        (block("fn main() {}\n", "rust"), Program("fn main() {}\n", "other")),
    ],
)
def test_other_languages(answer: str, expected: Program) -> None:
    assert final_program(answer) == expected


@pytest.mark.parametrize(
    "hostile",
    ["```" * 200_000, "```python\n" * 50_000, "`" * 600_000, "```python\nx\n```\n" * 20_000, "~~~\n" * 100_000,
     "```\n" + "(" * 200_000 + "\n```", "a" * 10**6, " " * 10**6 + "```", "```" + " " * 10**6,
     "```python" + "a" * 10**6],
)  # fmt: skip
def test_hostile_answers_take_linear_time(hostile: str) -> None:
    since = time.process_time()
    final_program(hostile)
    assert time.process_time() - since < 20
