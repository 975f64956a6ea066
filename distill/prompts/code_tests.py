"""Tests of programming problems, from the columns in which public sets keep them.

Reads text and runs none of it: literals are parsed, a pickle is taken apart without being loaded. Knows nothing about
running programs.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import math
import pickletools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from distill.errors import InputError
from distill.records import CodeTest, storable

Form = Literal["apps", "code-contests", "livecodebench", "codeforces", "verifiable-coding", "distill"]

MOST_BYTES = 2**28
"""What the tests of one problem may take up once unpacked: LiveCodeBench's largest are about 100 MB."""
MOST_DIGITS = 4_000
"""Longer integers stay text: Python refuses to turn more than 4,300 digits into a number, and back."""


class _Digits(str):
    """An integer too long for Python's int; its repr is the literal."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)


def read_tests(value: object, form: Form, *, function: str | None = None) -> tuple[CodeTest, ...]:
    """The tests of one problem; none for an empty column. `function` is LiveCodeBench's `func_name`.

    A call's `input` is the list of its arguments and its `output` the result, both as Python literals. Raises
    InputError naming what cannot be used.
    """
    if form not in _READERS:
        raise InputError(f"there is no form of tests '{form}'", todo=f"use one of {', '.join(get_args(Form))}")
    if value is None or (isinstance(value, str | Sequence | Mapping) and not value) or value == b"":
        return ()
    try:
        tests = list(_READERS[form](value, function))
    except RecursionError as error:
        raise InputError("the tests are nested too deeply") from error
    return tuple(dict.fromkeys(tests))


def _apps(value: object, _: str | None) -> Iterator[CodeTest]:
    """APPS and TACO: `{"inputs": […], "outputs": […], "fn_name"?}` as JSON. Outputs of calls are wrapped in a list of
    one by some sources (codewars) and not by others: they are unwrapped where every one of them is."""
    columns = _mapping(_json(value))
    inputs, outputs = _list(columns.get("inputs"), "inputs"), _list(columns.get("outputs"), "outputs")
    function = columns.get("fn_name")
    if function is None:
        yield from _pairs([_text(text) for text in inputs], [_text(text) for text in outputs])
        return
    outputs = _unwrapped(outputs)
    arguments = [_literal(_list(given, "a call's arguments")) for given in inputs]
    yield from _pairs(arguments, [_literal(output) for output in outputs], _name(function))


def _code_contests(value: object, _: str | None) -> Iterator[CodeTest]:
    """`{"input": […], "output": […]}`, or several such columns by name or in a list."""
    value = _json(value)
    if isinstance(value, Mapping) and "input" not in value and "output" not in value:
        value = list(value.values())
    for column in [value] if isinstance(value, Mapping) else _list(value, "tests"):
        if column:
            given = _mapping(column)
            inputs, outputs = _list(given.get("input"), "input"), _list(given.get("output"), "output")
            yield from _pairs([_text(text) for text in inputs], [_text(text) for text in outputs])


def _livecodebench(value: object, function: str | None) -> Iterator[CodeTest]:
    """A JSON list of `{input, output, testtype}`; base64(zlib(pickle(that text))) in the private column. A list of
    such columns is read in its order."""
    columns = [value] if isinstance(value, str) else _list(value, "tests")
    if columns and isinstance(columns[0], Mapping):
        columns = [columns]
    for column in columns:
        if not column:
            continue
        text = _unpacked(column) if isinstance(column, str) and column.lstrip()[:1] not in ("[", "{") else column
        for place, row in enumerate(_list(_json(text), "tests"), start=1):
            test = _mapping(row)
            if test.get("testtype") == "functional":
                yield _call(test, function)
            elif test.get("testtype") in ("stdin", None):
                yield _stdin(test)
            else:
                raise InputError(f"test {place} has the unknown testtype {str(test['testtype'])[:40]!r}")


def _rows(value: object, _: str | None) -> Iterator[CodeTest]:
    """A list of `{input, output}`: codeforces' and, with `function` beside them, our own."""
    for row in _list(_json(value), "tests"):
        test = _mapping(row)
        name = test.get("function")
        plain = _stdin(test)
        yield plain if name is None else CodeTest(plain.input, plain.output, _name(name))


def _verifiable_coding(value: object, _: str | None) -> Iterator[CodeTest]:
    """`{language, test_cases: [{type, fn_name, input, output}]}` as JSON or as Python's repr; the list alone is
    DeepCoder's."""
    value = _json(value, or_repr=True)
    cases = _list(value.get("test_cases") if isinstance(value, Mapping) else value, "test_cases")
    calls = [case for case in map(_mapping, cases) if case.get("type") == "function_call"]
    results = [_json(case["output"]) for case in calls if case.get("output") is not None]
    wrapped = _unwrapped(results) != results
    for test in map(_mapping, cases):
        if test.get("type") == "function_call":
            call = {**test, "input": _json(test.get("input")), "output": _json(test.get("output"))}
            yield _call({**call, "output": call["output"][0]} if wrapped else call, test.get("fn_name"))
        elif test.get("type") in ("stdin_stdout", None):
            yield _stdin(test)
        else:
            raise InputError(f"a test has the unknown type {str(test['type'])[:40]!r}")


_READERS: Mapping[str, Callable[[object, str | None], Iterator[CodeTest]]] = {
    "apps": _apps,
    "code-contests": _code_contests,
    "livecodebench": _livecodebench,
    "codeforces": _rows,
    "verifiable-coding": _verifiable_coding,
    "distill": _rows,
}


def _unwrapped(outputs: list[Any]) -> list[Any]:
    """The results of calls out of the list of one that some sources put around every one of them."""
    if all(isinstance(output, list) and len(output) == 1 for output in outputs):
        return [output[0] for output in outputs]
    return outputs


def _stdin(test: Mapping[str, Any]) -> CodeTest:
    for field in ("input", "output"):
        if test.get(field) is None:
            raise InputError(f"a test has no '{field}'", given=repr(dict(test))[:80])
    return CodeTest(_text(test["input"]), _text(test["output"]))


def _call(test: Mapping[str, Any], function: object) -> CodeTest:
    """Arguments as a list, or as text with one JSON value a line; a result as itself or as JSON."""
    given, result = test.get("input"), test.get("output")
    if given is None or result is None:
        raise InputError("a test has no 'input' or no 'output'", given=repr(dict(test))[:80])
    if isinstance(given, str):
        given = [_json(line) for line in given.splitlines() if line.strip()]
    return CodeTest(
        _literal(_list(given, "a call's arguments")),
        _literal(_json(result) if isinstance(result, str) else result),
        _name(function),
    )


def _pairs(inputs: Sequence[str], outputs: Sequence[str], function: str | None = None) -> Iterator[CodeTest]:
    if len(inputs) != len(outputs):
        raise InputError(f"{len(inputs)} inputs and {len(outputs)} outputs do not belong together")
    for given, expected in zip(inputs, outputs, strict=True):
        yield CodeTest(given, expected, function)


def _json(value: object, *, or_repr: bool = False) -> Any:
    """Raises InputError for what is no JSON, is too long, or has a number that no literal can write."""
    if not isinstance(value, str):
        return value
    if len(value) > MOST_BYTES:
        raise InputError(f"the tests take up {len(value):,} characters, more than the {MOST_BYTES:,} that are read")
    try:
        return json.loads(value, parse_int=_integer, parse_float=_finite, parse_constant=_refused)
    except InputError:
        raise
    except ValueError as error:
        if or_repr:
            try:
                return ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError):
                pass
        raise InputError(f"the tests are not JSON: {error}", given=repr(value[:80])) from error


def _integer(digits: str) -> int | _Digits:
    return int(digits) if len(digits) <= MOST_DIGITS else _Digits(digits)


def _finite(digits: str) -> float:
    return float(digits) if math.isfinite(float(digits)) else _refused(digits)


def _refused(constant: str) -> Any:
    raise InputError(f"the tests hold the number {constant[:40]}, which is no literal")


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"expected an object of the tests, found {type(value).__name__}", given=repr(value)[:80])
    return value


def _list(value: object, name: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise InputError(f"'{name}' is no list but {type(value).__name__}", given=repr(value)[:80])
    return list(value)


def _name(function: object) -> str:
    if not isinstance(function, str) or not function.isidentifier():
        raise InputError("a test calls a function without a usable name", given=repr(function)[:80])
    return function


def _text(value: object) -> str:
    """Text of standard input or output: a list is its lines, a number its digits, and a line ends with `\\n`."""
    if isinstance(value, list | tuple):
        if any(isinstance(line, list | tuple | Mapping) for line in value):
            raise InputError("a test has lists within its list of lines", given=repr(value)[:80])
        return "\n".join(_text(line) for line in value)
    if isinstance(value, Mapping) or value is None:
        raise InputError(f"a test has {type(value).__name__} in place of text", given=repr(value)[:80])
    return storable(str(value).replace("\r\n", "\n"))


def _literal(value: object) -> str:
    return storable(repr(value))


def _unpacked(packed: str) -> str:
    """The text of base64(zlib(pickle(text))). Raises InputError for anything else that a pickle could hold: its
    operations are listed, never carried out, so that it can neither run code nor fill the memory."""
    try:
        unpacker = zlib.decompressobj()
        pickled = unpacker.decompress(base64.b64decode(packed, validate=True), MOST_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise InputError(f"the tests are neither JSON nor packed: {error}", given=repr(packed[:40])) from error
    if not unpacker.eof:
        raise InputError(f"the packed tests are cut off, or more than {MOST_BYTES:,} bytes")
    text: str | None = None
    try:
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8") and text is None:
                text = argument
            elif operation.name not in ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"):
                raise InputError(f"the packed tests are no text: their pickle wants to {operation.name}")
    except InputError:
        raise
    except (ValueError, IndexError, EOFError) as error:
        raise InputError(f"the packed tests are no pickle: {str(error)[:80]}") from error
    if text is None:
        raise InputError("the packed tests hold no text")
    return text
