"""Tests and solutions in the shapes, and with the oddities, of the public sets; and what is refused."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import Any

import pytest

from distill.errors import InputError
from distill.prompts import code_tests
from distill.prompts.code_tests import Form, read_tests
from distill.prompts.solutions import LONGEST, compiles, first_python, unfenced
from distill.records import CodeTest

HUGE = "9" * 5_000


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def apps(**columns: Any) -> str:
    return json.dumps(columns)


def listed(*pairs: tuple[str, str]) -> tuple[CodeTest, ...]:
    return tuple(CodeTest(given, expected) for given, expected in pairs)


LCB = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}, {"input": "4 5", "output": "9", "testtype": "stdin"}]
FUNCTIONAL = [{"input": '[1, 2]\n"a"\ntrue', "output": "null", "testtype": "functional"}]
CC = {"input": ["1\n", "2\n"], "output": ["2\n", "4\n"]}
CASES = {"language": "python", "test_cases": [{"type": "stdin_stdout", "fn_name": None, "input": "1", "output": "2"}]}

READ: dict[str, tuple[Any, Form, tuple[CodeTest, ...]]] = {
    "APPS": (apps(inputs=["1\n", "2\n"], outputs=["2\n", "4\n"]), "apps", listed(("1\n", "2\n"), ("2\n", "4\n"))),
    "lists of lines": (apps(inputs=[["3", "1 2"]], outputs=[["6", "7"]]), "apps", listed(("3\n1 2", "6\n7"))),
    "numbers for text": (apps(inputs=[1, [2, 3]], outputs=[4, 5.5]), "apps", listed(("1", "4"), ("2\n3", "5.5"))),
    "a huge number": (f'{{"inputs": [{HUGE}], "outputs": ["1"]}}', "apps", listed((HUGE, "1"))),
    "no tests at all": ("", "apps", ()),
    "a null column": (None, "apps", ()),
    "empty lists": (apps(inputs=[], outputs=[]), "apps", ()),
    "the same twice": (apps(inputs=["1", "1"], outputs=["2", "2"]), "apps", listed(("1", "2"))),
    "half a pair": ('{"inputs": ["\\ud800"], "outputs": ["1"]}', "apps", listed(("�", "1"))),
    "a call": (
        apps(fn_name="f", inputs=[[1, "a"], [[2, None]]], outputs=[True, [1, 2]]),
        "apps",
        (CodeTest("[1, 'a']", "True", "f"), CodeTest("[[2, None]]", "[1, 2]", "f")),
    ),
    "wrapped results": (
        apps(fn_name="f", inputs=[[1], [2]], outputs=[[1], ["x"]]),
        "apps",
        (CodeTest("[1]", "1", "f"), CodeTest("[2]", "'x'", "f")),
    ),
    "results of which one is a list of one": (
        apps(fn_name="f", inputs=[[1], [2]], outputs=[[1], [1, 2]]),
        "apps",
        (CodeTest("[1]", "[1]", "f"), CodeTest("[2]", "[1, 2]", "f")),
    ),
    "a huge number in a call": (
        f'{{"fn_name": "f", "inputs": [[-{HUGE}]], "outputs": [{HUGE}]}}',
        "apps",
        (CodeTest(f"[-{HUGE}]", HUGE, "f"),),
    ),
    "parsed already": ({"inputs": ["1"], "outputs": ["2"]}, "apps", listed(("1", "2"))),
    "code_contests": (CC, "code-contests", listed(("1\n", "2\n"), ("2\n", "4\n"))),
    "code_contests, by name": (
        {"public_tests": CC, "private_tests": {"input": [], "output": []}, "generated_tests": {"input": ["2\n", "3"],
         "output": ["4\n", "6"]}}, "code-contests", listed(("1\n", "2\n"), ("2\n", "4\n"), ("3", "6")),
    ),
    "code_contests, as a list": ([CC, None, {}], "code-contests", listed(("1\n", "2\n"), ("2\n", "4\n"))),
    "LiveCodeBench": (json.dumps(LCB), "livecodebench", listed(("1 2\n", "3\n"), ("4 5", "9"))),
    "LiveCodeBench, private": (packed(json.dumps(LCB)), "livecodebench", listed(("1 2\n", "3\n"), ("4 5", "9"))),
    "LiveCodeBench, both": (
        [json.dumps(LCB[:1]), packed(json.dumps(LCB[1:]))], "livecodebench", listed(("1 2\n", "3\n"), ("4 5", "9")),
    ),
    "LiveCodeBench, long": (
        packed(json.dumps([{"input": "x" * 100_000, "output": "é", "testtype": "stdin"}])),
        "livecodebench",
        listed(("x" * 100_000, "é")),
    ),
    "LiveCodeBench, a call": (
        json.dumps(FUNCTIONAL), "livecodebench", (CodeTest("[[1, 2], 'a', True]", "None", "solve"),),
    ),
    "codeforces": ([{"input": "1\r\n2\r\n", "output": "3\r\n"}], "codeforces", listed(("1\n2\n", "3\n"))),
    "our own": (
        [{"input": "1", "output": "2"}, {"input": "[1]", "output": "2", "function": "f"}],
        "distill",
        (CodeTest("1", "2"), CodeTest("[1]", "2", "f")),
    ),
    "our own, as JSON": ('[{"input": "1", "output": ""}]', "distill", listed(("1", ""))),
    "verifiable coding": (json.dumps(CASES), "verifiable-coding", listed(("1", "2"))),
    "verifiable coding, repr": (repr(CASES), "verifiable-coding", listed(("1", "2"))),
    "DeepCoder": (CASES["test_cases"], "verifiable-coding", listed(("1", "2"))),
    "verifiable coding, calls": (
        [{"type": "function_call", "fn_name": "f", "input": given, "output": result}
         for given, result in ([[1, 2], [3]], ["[4, 5]", "[9]"])],
        "verifiable-coding",
        (CodeTest("[1, 2]", "3", "f"), CodeTest("[4, 5]", "9", "f")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_tests_are_read(name: str) -> None:
    value, form, expected = READ[name]
    assert read_tests(value, form, function="solve") == expected


class Hostile:
    def __reduce__(self) -> Any:
        return (print, ("this must never run",))


REFUSED: dict[str, tuple[Any, Form, str]] = {
    "different numbers": (apps(inputs=["1"], outputs=[]), "apps", "1 inputs and 0 outputs"),
    "code_contests, different numbers": ({"input": ["1"], "output": ["1", "2"]}, "code-contests", "1 inputs and 2 o"),
    "no inputs": (apps(outputs=["1"]), "apps", "'inputs' is no list but NoneType"),
    "one text": (apps(inputs="1", outputs="2"), "apps", "'inputs' is no list but str"),
    "no object": ("[1, 2]", "apps", "expected an object of the tests, found list"),
    "no JSON": ("{'inputs': []", "apps", "not JSON"),
    "nested lines": (apps(inputs=[[["1"]]], outputs=["1"]), "apps", "lists within its list of lines"),
    "null for text": (apps(inputs=[None], outputs=["1"]), "apps", "NoneType in place of text"),
    "no arguments": (apps(fn_name="f", inputs=[1], outputs=[1]), "apps", "'a call's arguments' is no list but int"),
    "no name": (apps(fn_name="a b", inputs=[[1]], outputs=[1]), "apps", "without a usable name"),
    "not finite": ('{"inputs": [NaN], "outputs": ["1"]}', "apps", "NaN, which is no literal"),
    "too large": ('{"inputs": [1e999], "outputs": ["1"]}', "apps", "1e999, which is no literal"),
    "deep": ('{"inputs": ' + "[" * 100_000 + "]" * 100_000 + "}", "apps", "nested too deeply"),
    "a pickled object": (packed(Hostile()), "livecodebench", "pickle wants to"),
    "a pickled list": (packed(["x"]), "livecodebench", "pickle wants to EMPTY_LIST"),
    "a pickled number": (packed(7), "livecodebench", "pickle wants to BININT1"),
    "two texts": (
        base64.b64encode(zlib.compress(b"\x80\x04\x8c\x01a\x8c\x01b.")).decode(), "livecodebench", "SHORT_BINUNICODE"),
    "no text": (base64.b64encode(zlib.compress(b"\x80\x04.")).decode(), "livecodebench", "hold no text"),
    "no pickle": (base64.b64encode(zlib.compress(b"what is this")).decode(), "livecodebench", "no pickle|wants to"),
    "cut off": (packed("[" + "x" * 10_000)[:20] + "==", "livecodebench", "cut off|neither JSON nor packed"),
    "no base64": ("what is this?", "livecodebench", "neither JSON nor packed"),
    "an unknown testtype": ('[{"input": "", "output": "", "testtype": "odd"}]', "livecodebench", "testtype 'odd'"),
    "no function's name": (json.dumps(FUNCTIONAL), "livecodebench", "without a usable name"),
    "no output": ([{"input": "1"}], "codeforces", "a test has no 'output'"),
    "null output": ([{"input": "1", "output": None}], "distill", "a test has no 'output'"),
    "an unknown type": ([{"type": "odd", "input": "1", "output": "2"}], "verifiable-coding", "unknown type 'odd'"),
    "a row that is none": (["x"], "distill", "expected an object"),
    "a call without a result": ([{"type": "function_call", "fn_name": "f", "input": []}], "verifiable-coding", "no 'o"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_with_tests_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    value, form, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        read_tests(value, form)
    assert capsys.readouterr().out == "", "no pickle was carried out"


def test_an_unknown_form() -> None:
    with pytest.raises(InputError, match="no form of tests 'odd'"):
        read_tests("[]", "odd")  # type: ignore[arg-type]


def test_a_zip_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_tests, "MOST_BYTES", 1_000)
    with pytest.raises(InputError, match="cut off, or more than 1,000 bytes"):
        read_tests(packed("x" * 100_000), "livecodebench")
    with pytest.raises(InputError, match="more than the 1,000"):
        read_tests(json.dumps(["x" * 1_000]), "apps")


PYTHON2, PYTHON3 = "print 'hello'", "print('hello')"


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (json.dumps([PYTHON2, PYTHON3, "x = 1"]), "apps", PYTHON3),
        ([PYTHON3], "apps", PYTHON3),
        (json.dumps([PYTHON2]), "apps", None),
        ("[]", "apps", None),
        ("", "apps", None),
        (None, "code-contests", None),
        ({"language": [1, 2, 3, 3], "solution": ["x = 0", "int main(){}", PYTHON2, PYTHON3]}, "code-contests", PYTHON3),
        ({"language": [1, 2], "solution": ["x = 0", "y = 0"]}, "code-contests", None),
        ({"language": [], "solution": []}, "code-contests", None),
        ("```python\nprint('hello')\n```", "verifiable-coding", PYTHON3),
        ("Here it is:\n```py\r\nprint('hello')\r\n```\nDone.", "verifiable-coding", PYTHON3),
        ("```\nprint('hello')\n```", "verifiable-coding", PYTHON3),
        (PYTHON3, "verifiable-coding", PYTHON3),
        ("for x in y:\r\n    pass\r\n", "distill", "for x in y:\n    pass\n"),
        ("```python\n" + PYTHON2 + "\n```", "verifiable-coding", None),
    ],
)
def test_the_first_solution_in_python_3(value: Any, form: Form, expected: str | None) -> None:
    assert first_python(value, form) == expected


@pytest.mark.parametrize(
    ("value", "form", "message"),
    [
        ("{", "apps", "not JSON"),
        ('"x"', "apps", "no list but str"),
        ("[1]", "apps", "no text"),
        ("x", "code-contests", "no lists"),
        ({"language": [3], "solution": []}, "code-contests", "1 languages and 0 solutions"),
    ],
)
def test_solutions_of_another_shape(value: Any, form: Form, message: str) -> None:
    with pytest.raises(InputError, match=message):
        first_python(value, form)


@pytest.mark.parametrize(
    "source",
    ["", " \n", PYTHON2, "exec 'x'", "x = \0", "(" * 10_000, "-" * 100_000 + "1", "if x:\npass", "x = 1\n" * LONGEST],
    ids=lambda source: ascii(source)[:12],
)
def test_what_is_no_program(source: str) -> None:
    assert not compiles(source)


def test_a_warning_is_no_error(recwarn: pytest.WarningsRecorder) -> None:
    assert compiles("import re\nre.compile('\\d')")
    assert not recwarn.list
    assert unfenced("a ``` b") == "a ``` b"
