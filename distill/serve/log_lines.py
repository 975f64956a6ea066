"""Lines of a vLLM log: which process wrote them, how serious they are, where a traceback stands and what it ends in.

The lines of all processes of a server come mixed, each behind a prefix such as `(EngineCore_DP1 pid=828) ERROR 11-26
20:59:37 [core.py:1512] `; a process that dies early writes without one. Knows no cause.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PROCESS = re.compile(r"\((?P<name>[^()]*\bpid=\d+[^()]*)\)(?: |$)")
_RANK = re.compile(r"\[(?P<name>rank\d+)\]:(?: |(?=\[)|$)")
_LEVEL = re.compile(
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) "
    r"(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d (?:\[(?P<place>[^\]]*)\]|(?P<older>\S+:\d+)\]) ?"
)
_SERVER_LEVEL = re.compile(r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL):(?: +|$)")
_TORCH_WARNING = re.compile(r"\[[WI]\d|.*\bNCCL INFO\b")
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Timeout)(?::(?: .*)?)?$")
_FRAME = re.compile(r'\s+File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)')
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
QUIET = ("DEBUG", "INFO", "WARNING")
DUMP = "dump_input.py"
"""Where vLLM prints its whole configuration and the requests at hand as an error: nothing of that is a cause."""


@dataclass(frozen=True, slots=True)
class Line:
    """`text`: without the prefix, indentation kept; `level`: empty where none was written."""

    index: int
    process: str
    level: str
    text: str

    @property
    def tells(self) -> bool:
        """Whether it may be an error: no quiet line, and neither a frame nor the source code of a traceback."""
        return self.level not in QUIET and self.text[:1].strip() != ""

    @property
    def is_exception(self) -> bool:
        return self.tells and _EXCEPTION.match(self.text) is not None

    def shown(self) -> str:
        name = self.process.split(" ")[0]
        return f"{name}: {self.text}" if name else self.text


def parsed(lines: Sequence[str]) -> list[Line]:
    return [_parsed(index, line) for index, line in enumerate(lines)]


def _parsed(index: int, line: str) -> Line:
    text = _COLOUR.sub("", line).rstrip()
    process = level = ""
    while found := _PROCESS.match(text) or _RANK.match(text):
        process, text = found["name"], text[found.end() :]
    if found := _LEVEL.match(text):
        level, text = found["level"], text[found.end() :]
        if DUMP in (found["place"] or found["older"]):
            level = "DEBUG"
    elif found := _SERVER_LEVEL.match(text):
        level, text = found["level"], text[found.end() :]
    elif _TORCH_WARNING.match(text):
        level = "INFO"
    return Line(index, process, level, text)


def place(log: Sequence[Line], of: Line) -> str | None:
    """Where an exception was raised, from the last frame above it: `all_gatherv (base_communicator.py, line 296)`."""
    for line in reversed(log[: of.index]):
        if line.process == of.process and (frame := _FRAME.match(line.text)):
            return f"{frame['function']} ({frame['file'].rpartition('/')[2]}, line {frame['line']})"
    return None


def first_of_chain(log: Sequence[Line], last: Line) -> Line:
    """The exception that a chain of them in one process began with."""
    first = last
    for line in reversed(log[: last.index]):
        if line.process == first.process and line.is_exception:
            between = [x.text for x in log[line.index : first.index] if x.process == first.process]
            if not any(text.startswith(_CHAINED) for text in between):
                break
            first = line
    return first
