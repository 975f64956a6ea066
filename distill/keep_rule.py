"""The keep rule: what a trace's verdicts mean for training, as `filter.keep` says it.

`verified`: right, and nothing else against it. `all`: whole and well-formed. A list of checks: each has to pass. Or an
expression over checks, such as `(correct or judge) and not loop.fail and score.score >= 0.7`: a check's name holds when
it passed; `.fail` and `.abstain` ask for these, `.score` is its number, `.reason` its reason. Whatever the rule, a
trace that is cut or malformed is left out. Knows nothing about how a verdict came about.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distill.errors import near

ALWAYS = ("finished", "think_format")
"""Checks that have to pass whatever the rule says: nothing could be rendered from such a reply."""
PSEUDO = ("judge", "majority")
"""Checks that `verified` takes for no objection: the judge counts where the verifier could not tell, and what most of
the samples say is no gold answer."""
_ASKED = ("fail", "abstain")
"""`.pass` would be no name: Python's word for doing nothing."""
_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.GtE: lambda a, b: a >= b,
    ast.Gt: lambda a, b: a > b,
    ast.LtE: lambda a, b: a <= b,
    ast.Lt: lambda a, b: a < b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}


class Told(Protocol):
    """The outcome of a check."""

    @property
    def outcome(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def score(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class _NotMade:
    outcome: str = "abstain"
    reason: str = "not_checked"
    score: float | None = None


Outcomes = Mapping[str, Told]
NOT_MADE = _NotMade()


@dataclass(frozen=True, slots=True)
class Rule:
    """Why a trace is left out: `reason(outcomes)` is empty for one that stays."""

    checks: tuple[str, ...]
    """The checks it looks at."""
    _tree: ast.expr | None = None
    _required: tuple[str, ...] = ()
    _verified: bool = False

    @property
    def scored(self) -> frozenset[str]:
        """The checks whose scores it looks at."""
        nodes = ast.walk(self._tree) if self._tree is not None else ()
        asked = (node.value for node in nodes if isinstance(node, ast.Attribute) and node.attr == "score")
        return frozenset(name.id for name in asked if isinstance(name, ast.Name))

    def decides(self, outcomes: Outcomes) -> tuple[str, str]:
        """(check, reason) of the first thing that keeps a trace out; two empty texts for one that stays."""
        for name in ALWAYS:
            if name in outcomes and outcomes[name].outcome != "pass":
                return name, outcomes[name].reason
        if self._verified:
            return _verified(outcomes)
        for name in self._required:
            found = outcomes.get(name, NOT_MADE)
            if found.outcome != "pass":
                return name, found.reason
        if self._tree is not None and not _holds(self._tree, outcomes):
            return _blamed(self._tree, outcomes)
        return "", ""


def rule_of(keep: str | Sequence[str], checks: Sequence[str]) -> Rule:
    """The rule that `filter.keep` writes. Raises ValueError for one that cannot be read, or asks for a check that is
    not among `checks`."""
    if keep == "verified":
        return Rule(tuple(checks), _verified=True)
    if keep == "all":
        return Rule(tuple(name for name in ALWAYS if name in checks))
    if not isinstance(keep, str):
        _require_known(keep, checks)
        return Rule(tuple(keep), _required=tuple(keep))
    try:
        tree = ast.parse(keep, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what = f"the keep rule cannot be read: {getattr(error, 'msg', error)}"
        raise ValueError(f"{what}; write it like `(correct or judge) and not loop.fail`") from error
    names = list(dict.fromkeys(_names(tree)))
    _require_known(names, checks)
    return Rule(tuple(names), _tree=tree)


def _require_known(names: Sequence[str], checks: Sequence[str]) -> None:
    for name in names:
        if name not in checks and len(names) == 1 and (close := near(name, ["verified", "all"])):
            raise ValueError(f"keep says {name}{close}")
        if name not in checks:
            what = f"keep asks for {name}, which checks does not run{near(name, list(checks))}"
            raise ValueError(f"{what}; it runs: {', '.join(checks)}")


def _verified(outcomes: Outcomes) -> tuple[str, str]:
    """Right by the verifier, or by the judge where the verifier could not tell; for open prompts, which have no
    verifier, not wrong by the judge; and no other check failed. An abstention of another check is nothing against a
    trace: a text too short for its language to be told is no fault."""
    correct, judge = outcomes.get("correct"), outcomes.get("judge", NOT_MADE)
    if correct is None:
        pass
    elif correct.outcome == "fail":
        return "correct", correct.reason
    elif judge.outcome == "fail" and (correct.outcome == "abstain" or correct.reason == "open"):
        return "judge", judge.reason
    elif correct.outcome == "abstain" and judge.outcome != "pass":
        return "correct", correct.reason
    for name, found in outcomes.items():
        if found.outcome == "fail" and name not in ("correct", *PSEUDO):
            return name, found.reason
    return "", ""


# --- expressions -----------------------------------------------------------------------------------------------------


def _names(tree: ast.expr) -> list[str]:
    """The checks of an expression in their order. Raises ValueError for whatever is no rule."""
    if isinstance(tree, ast.BoolOp):
        return [name for part in tree.values for name in _names(part)]
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        return _names(tree.operand)
    if isinstance(tree, ast.Name):
        return [tree.id]
    if isinstance(tree, ast.Attribute) and isinstance(tree.value, ast.Name) and tree.attr in _ASKED:
        return [tree.value.id]
    if isinstance(tree, ast.Compare):
        _require_comparison(tree)
        assert isinstance(tree.left, ast.Attribute)
        assert isinstance(tree.left.value, ast.Name)
        return [tree.left.value.id]
    raise ValueError(
        f"the keep rule has a part that is none: {ast.unparse(tree)}; it takes names of checks, `.fail`, `.abstain`, "
        "`.score >= 0.7`, `.reason == 'wrong_answer'`, and, or, not"
    )


def _require_comparison(tree: ast.Compare) -> None:
    left, right = tree.left, tree.comparators[0]
    value = right.value if isinstance(right, ast.Constant) else None
    attribute = left.attr if isinstance(left, ast.Attribute) and isinstance(left.value, ast.Name) else None
    number = attribute == "score" and isinstance(value, int | float) and not isinstance(value, bool)
    text = attribute == "reason" and isinstance(value, str) and isinstance(tree.ops[0], ast.Eq | ast.NotEq)
    if len(tree.ops) != 1 or type(tree.ops[0]) not in _COMPARED or not (number or text):
        raise ValueError(
            f"the keep rule compares what cannot be compared: {ast.unparse(tree)}; write `check.score >= 0.7` or "
            "`check.reason == 'wrong_answer'`"
        )


def _holds(tree: ast.expr, outcomes: Outcomes) -> bool:
    if isinstance(tree, ast.BoolOp):
        join = all if isinstance(tree.op, ast.And) else any
        return join(_holds(part, outcomes) for part in tree.values)
    if isinstance(tree, ast.UnaryOp):
        return not _holds(tree.operand, outcomes)
    if isinstance(tree, ast.Compare):
        return _compares(tree, outcomes)
    wanted = tree.attr if isinstance(tree, ast.Attribute) else "pass"
    return _of(tree, outcomes).outcome == wanted


def _compares(tree: ast.Compare, outcomes: Outcomes) -> bool:
    """A score that is not there makes every comparison false."""
    assert isinstance(tree.left, ast.Attribute)
    assert isinstance(tree.comparators[0], ast.Constant)
    found = _of(tree.left, outcomes)
    value: Any = found.score if tree.left.attr == "score" else found.reason
    return value is not None and bool(_COMPARED[type(tree.ops[0])](value, tree.comparators[0].value))


def _of(tree: ast.expr, outcomes: Outcomes) -> Told:
    name = tree.value if isinstance(tree, ast.Attribute) else tree
    assert isinstance(name, ast.Name)
    return outcomes.get(name.id, NOT_MADE)


def _blamed(tree: ast.expr, outcomes: Outcomes) -> tuple[str, str]:
    """The check that most plainly keeps a trace out: of `and` the first part that does not hold, of `or` the first."""
    if isinstance(tree, ast.BoolOp):
        return _blamed(next(part for part in tree.values if not _holds(part, outcomes)), outcomes)
    if isinstance(tree, ast.UnaryOp):
        name = _names(tree.operand)[0]
        return name, outcomes.get(name, NOT_MADE).reason or f"not_{name}"
    if isinstance(tree, ast.Compare):
        assert isinstance(tree.left, ast.Attribute)
        found, name = _of(tree.left, outcomes), _names(tree)[0]
        return name, found.reason or f"{name}_{tree.left.attr}"
    name, found = _names(tree)[0], _of(tree, outcomes)
    return name, found.reason or f"{name}_{found.outcome}"
