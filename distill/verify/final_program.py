"""The program that an answer ends with: which of its fenced blocks is meant, and in which language.

Reads text and runs none of it. Knows nothing about tests beyond the name of the function that they call.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Language = Literal["python", "cpp", "other"]

_PYTHON = "python python2 python3 py py3 pypy pypy3"
_CPP_TAGS = "cpp c++ cc cxx cplusplus"
_OTHERS = """c java javascript js typescript ts go golang rust rs csharp c# cs kotlin kt ruby rb php swift scala haskell
hs perl pascal lua julia r dart d ocaml elixir erlang racket clojure nim zig fortran"""
_TAGS: dict[str, Language] = {
    **dict.fromkeys(_PYTHON.split(), "python"),
    **dict.fromkeys(_CPP_TAGS.split(), "cpp"),
    **dict.fromkeys(_OTHERS.split(), "other"),
}
"""What stands behind an opening fence, in small letters and without a version. Other tags mark no program."""
_VERSION = re.compile(r"(?<=[a-z+])[\d.]+$")
_OPENING = re.compile(r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<tag>[\w+#.-]*)[^`~\n]*$")
_READS = re.compile(r"\b(?:input|raw_input)\s*\(|\bstdin\b|\bopen\s*\(\s*0\b|\bfileinput\b|\bos\.read\s*\(|=\s*input\b")
_PRINTS = re.compile(r"\bprint\b|\bstdout\b|\bos\.write\s*\(|\bopen\s*\(\s*1\b")
_CPP = re.compile(r"^\s*#\s*include\b", re.MULTILINE)
_MAIN = re.compile(r"\bmain\s*\(")
LONGEST = 2**18
"""Characters of a program that is looked at, as for the solutions of sources."""


@dataclass(frozen=True, slots=True)
class Program:
    source: str
    language: Language


@dataclass(frozen=True, slots=True)
class _Block:
    text: str
    tag: str
    closed: bool


def final_program(answer: str, function: str | None = None) -> Program | None:
    """The last block that is a whole program: one that reads and prints, or defines `function` where that is given.

    Where there is none, the last block that can be a program at all, closed ones first; without any fence the answer
    itself, if it is a whole program. None where there is no code.
    """
    best, best_rank = None, (False, False)
    blocks = [_Block(answer, "", closed=True)] if "```" not in answer and "~~~" not in answer else _blocks(answer)
    for block in blocks:
        language = _language(block)
        if language is None:
            continue
        rank = (_is_whole(block.text, language, function), block.closed)
        if rank >= best_rank and (rank[0] or block.text is not answer):
            best, best_rank = Program(block.text, language), rank
    return best


def _blocks(answer: str) -> Iterator[_Block]:
    """The fenced blocks, without the indentation of their fence; the last may lack its closing fence."""
    fence, tag, indent, lines = "", "", 0, list[str]()
    for line in answer.replace("\r\n", "\n").split("\n"):
        bare = line.strip()
        if not fence:
            opening = _OPENING.search(line) if "```" in line or "~~~" in line else None
            if opening is not None:
                fence, tag, lines = opening["fence"], opening["tag"].lower(), []
                indent = len(line) - len(line.lstrip())
        elif bare.startswith(fence) and not bare.strip(fence[0]):
            yield _Block("\n".join(lines) + "\n", tag, closed=True)
            fence = ""
        elif bare.endswith(fence) and not bare.endswith(fence[0] * 4):
            lines.append(line.rstrip()[: -len(fence)])
            yield _Block("\n".join(lines) + "\n", tag, closed=True)
            fence = ""
        else:
            lines.append(line[indent:] if not line[:indent].strip() else line)
    if fence and lines:
        yield _Block("\n".join(lines), tag, closed=False)


def _language(block: _Block) -> Language | None:
    """None for what is no program: an example's input or output, a session, a shell's command, nothing."""
    if not block.text.strip() or len(block.text) > LONGEST or block.text.lstrip().startswith(">>>"):
        return None
    if block.tag:
        return _TAGS.get(block.tag) or _TAGS.get(_VERSION.sub("", block.tag))
    if _CPP.search(block.text):
        return "cpp"
    return "python" if _is_python(block.text) else None


def _is_python(text: str) -> bool:
    """Whether this is Python that does something: sample data such as `[2, 7]` or `YES` is Python, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in body)


def _is_whole(text: str, language: Language, function: str | None) -> bool:
    if language == "other":
        return _MAIN.search(text) is not None or (function or "Solution") in text
    if function is not None:
        return re.search(rf"\b{re.escape(function)}\s*[(=]", text) is not None and _defines(text, language, function)
    if language == "cpp":
        return _MAIN.search(text) is not None
    return _READS.search(text) is not None and _PRINTS.search(text) is not None


def _defines(text: str, language: Language, function: str) -> bool:
    """In C++ a definition and a call look much alike; a class or several lines tell them apart well enough."""
    if language == "cpp":
        return "{" in text
    return (
        re.search(rf"\bdef\s+{re.escape(function)}\s*\(|^\s*{re.escape(function)}\s*=", text, re.MULTILINE) is not None
    )
