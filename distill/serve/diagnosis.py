"""Why a vLLM server ended, from the lines of its log and its exit code: the root, not what followed from it.

Keys that are given as secrets, and what looks like one, are never told. Knows nothing about how a server is run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from distill.serve.causes_running import ENGINE_DEAD, GPU, MEMORY, PEERS, SIGNALS, TOLD_BY_NCCL
from distill.serve.causes_setup import MACHINE, MODEL, SETTINGS
from distill.serve.log_lines import Line, first_of_chain, parsed, place
from distill.serve.rules import FOLLOW, Final, Rule

RULES = (*MEMORY, *GPU, *MACHINE, *MODEL, *SETTINGS, *PEERS, ENGINE_DEAD)
"""Of two that match the same line, the first counts."""

SHOWN_LINES = 6
LINE_LIMIT = 300
"""Characters of a line that are shown."""
HIDDEN = "[hidden]"

_READY = "Application startup complete"
_FATAL = re.compile(
    r"WorkerProc (?:hit an exception|failed)|EngineCore (?:encountered a fatal error|failed to start)|"
    r"AsyncLLM output_handler failed|Exception occurred while running API servers"
)
_FOLLOWS = re.compile(
    r"(?i)(?:see|check) (?:the )?(?:root cause|stack trace)|EngineDeadError|died with exit code|died unexpectedly|"
    r"^(?:SystemExit|KeyboardInterrupt|asyncio\.exceptions\.CancelledError)\b"
)
_NCCL = re.compile(r"NCCL WARN|^Last error:|^nccl\w+Error:|Error while creating shared memory")
_CHILD = re.compile(r"(?:exit code:? |Failed core proc\(s\): \{[^}]*: )-(?P<signal>\d+)\b")
_KEYS = re.compile(
    r"(?i)(?P<before>(?:\b\w*(?:api[-_]?key|hf[-_]token|hub[-_]token|access[-_]token|secret|password)['\"]?"
    r"(?:\s*[=:]\s*|\s+)\[?['\"]?|\bbearer\s+))(?!None\b|\[)[^\s'\",\])}]{4,}"
    r"|\b(?:hf_|sk-|nvapi-)[\w-]{12,}"
    r"|(?P<scheme>://)[^\s/@]+:[^\s/@]+(?=@)"
)
"""What looks like a key: the value of an option, variable or header, a token of the hub's, a login in an address."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`cause`: a short fixed name; `what`: one sentence; `todo`: a setting or a command; `lines`: the few lines of the
    log that tell it; `final`: another start would end the same way."""

    cause: str
    what: str
    todo: str
    lines: tuple[str, ...] = ()
    final: bool = False

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"  log: {line}" for line in self.lines), f"  to do: {self.todo}"])


def diagnose(lines: Sequence[str], exit_code: int | None, secrets: Sequence[str] = ()) -> Diagnosis:
    """`lines`: of one life of one server, all of its processes; `exit_code` as subprocess gives it or a shell does
    (137), None while it lives. A server that the caller itself has killed needs no diagnosis.

    A rule that matches a line names the cause; failing that the signal that ended the server, then the first
    exception. Several rules: what was wrong beats what other processes said of it, and the earliest line wins.
    """
    log = parsed([scrubbed(line, secrets) for line in lines])
    ready = max((line.index for line in log if _READY in line.text), default=-1)
    ruled = _ruled(log, ready)
    if ruled is not None and ruled[1].rank < FOLLOW:
        return _by_rule(log, *ruled, ready)
    killed = _signal(exit_code)
    if killed in SIGNALS:
        return _by_signal(killed, "the server was ", _last(log), ready)
    root, child = _root(log, ready), _killed_child(log, ready)
    if child is not None and (root is None or child[0].index < root.index):
        return _by_signal(child[1], "a process of the server was ", child[:1], ready)
    if root is not None:
        return _by_exception(log, root)
    return _unknown(log, exit_code) if ruled is None else _by_rule(log, *ruled, ready)


def scrubbed(text: str, secrets: Sequence[str] = ()) -> str:
    """`text` without these secrets, and without what looks like a key."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _KEYS.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    return (found["before"] or found["scheme"] or "") + HIDDEN


def _ruled(log: Sequence[Line], ready: int) -> tuple[Line, Rule] | None:
    """The line and the rule that tell most; what was said before the server was ready tells little of its end."""
    found = (
        ((rule.rank == FOLLOW, line.index <= ready, rule.rank, line.index, order), line, rule)
        for line in log
        if line.tells
        for order, rule in enumerate(RULES)
        if rule.pattern.search(line.text)
    )
    best = min(found, key=lambda one: one[0], default=None)
    return None if best is None else (best[1], best[2])


def _by_rule(log: Sequence[Line], line: Line, rule: Rule, ready: int) -> Diagnosis:
    match = rule.pattern.search(line.text)
    groups = {} if match is None else {name: (text or "").strip() for name, text in match.groupdict().items()}
    words = {**groups, "place": place(log, line) or "an unknown place"}
    more = (other for other in log if other.tells and _NCCL.search(other.text)) if rule.cause in TOLD_BY_NCCL else ()
    lines = _shown([line, *more])
    return Diagnosis(
        rule.cause, rule.what.format_map(words), rule.todo.format_map(words), lines, _is(rule.final, ready)
    )


def _by_signal(number: int, subject: str, lines: Sequence[Line], ready: int) -> Diagnosis:
    cause, what, todo, final = SIGNALS[number]
    return Diagnosis(cause, subject + what, todo, _shown(lines), _is(final, ready))


def _is(final: Final, ready: int) -> bool:
    return final == "always" or (final == "loading" and ready < 0)


def _killed_child(log: Sequence[Line], ready: int) -> tuple[Line, int] | None:
    """The first line by which vLLM says that a signal ended one of its processes, and which."""
    for line in log[ready + 1 :]:
        found = _CHILD.search(line.text) if line.tells else None
        if found is not None and int(found["signal"]) in SIGNALS:
            return line, int(found["signal"])
    return None


def _signal(exit_code: int | None) -> int:
    """The number of the signal in an exit code; 0 for none."""
    if exit_code is None:
        return 0
    return -exit_code if exit_code < 0 else max(0, exit_code - 128)


def _root(log: Sequence[Line], ready: int) -> Line | None:
    """The exception that everything began with: the first after the first line that a process calls fatal; without
    such a line, the one that began the last chain of exceptions."""
    raised = [line for line in log if line.is_exception and line.index > ready and not _FOLLOWS.search(line.text)]
    fatal = next((line.index for line in log if line.index > ready and line.tells and _FATAL.search(line.text)), None)
    if fatal is not None:
        return next((line for line in raised if line.index > fatal), None)
    return first_of_chain(log, raised[-1]) if raised else None


def _by_exception(log: Sequence[Line], root: Line) -> Diagnosis:
    where = place(log, root)
    what = f"vLLM ended with {_cut(root.text)}" + (f" in {where}" if where else "")
    return Diagnosis("unknown", what, "read the log around these lines", _shown([root]))


def _unknown(log: Sequence[Line], exit_code: int | None) -> Diagnosis:
    errors = [line for line in log if line.level in ("ERROR", "CRITICAL") and line.text.strip()]
    lines = errors[-SHOWN_LINES:] or list(_last(log))
    ended = "vLLM tells no error" if exit_code is None else f"vLLM ended with exit code {exit_code} and tells no error"
    return Diagnosis("unknown", ended, "read the log of the replica", _shown(lines))


def _last(log: Sequence[Line]) -> Sequence[Line]:
    written = [line for line in log if line.text.strip()]
    return written[-3:]


def _shown(lines: Sequence[Line]) -> tuple[str, ...]:
    """The first few, each text once, however many processes say it."""
    once = {line.text.strip(): line for line in reversed(lines)}
    kept = sorted(once.values(), key=lambda line: line.index)
    return tuple(_cut(line.shown().strip()) for line in kept[:SHOWN_LINES])


def _cut(text: str) -> str:
    return text if len(text) <= LINE_LIMIT else text[: LINE_LIMIT - 1] + "…"
