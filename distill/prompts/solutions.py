"""Programs that a source calls right, from the columns in which public sets keep them. Runs none of them."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping

from distill.errors import InputError
from distill.prompts.code_tests import Form
from distill.records import storable

LONGEST = 2**18
"""Characters of a program that is looked at."""
_PYTHON3 = 3
"""code_contests' number of Python 3; 1 is Python 2."""
_FENCED = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)\r?\n?[ \t]*```", re.DOTALL | re.IGNORECASE)


def first_python(value: object, form: Form) -> str | None:
    """The first solution of a source's column that is Python 3 by its syntax; None where there is none.

    APPS and TACO: a list of programs, or the same as JSON. code_contests: `{language: […], solution: […]}`, of which
    those in Python 3 count. Others: one program, with or without Markdown's fence. Raises InputError for another shape.
    """
    if value is None or value == "":
        return None
    return next((source for source in _sources(value, form) if compiles(source)), None)


def _sources(value: object, form: Form) -> list[str]:
    if form == "code-contests":
        columns = value if isinstance(value, Mapping) else {}
        languages, programs = columns.get("language"), columns.get("solution")
        if not isinstance(languages, list) or not isinstance(programs, list):
            raise InputError("the solutions are no lists `language` and `solution`", given=repr(value)[:80])
        if len(languages) != len(programs):
            raise InputError(f"{len(languages)} languages and {len(programs)} solutions do not belong together")
        found = [program for language, program in zip(languages, programs, strict=True) if language == _PYTHON3]
    elif form == "apps" or not isinstance(value, str):
        found = _listed(value)
    else:
        found = [value]
    if not all(isinstance(program, str) for program in found):
        raise InputError("a solution is no text", given=repr(found)[:80])
    return [storable(unfenced(program)) for program in found]


def _listed(value: object) -> list[object]:
    try:
        programs = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise InputError(f"the solutions are not JSON: {error}", given=repr(value)[:80]) from error
    if not isinstance(programs, list | tuple):
        raise InputError(f"the solutions are no list but {type(programs).__name__}", given=repr(value)[:80])
    return list(programs)


def unfenced(program: str) -> str:
    """A program without the Markdown fence around it, and with `\\n` at the ends of its lines."""
    match = _FENCED.search(program)
    return (match[1] if match else program).replace("\r\n", "\n")


def compiles(source: str) -> bool:
    """Whether this is Python 3 by its syntax: Python 2's `print x` is not. Nothing is run."""
    if not source.strip() or len(source) > LONGEST:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape such as "\d" is only warned of
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
