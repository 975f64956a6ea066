"""Imports go one way: cli → pipeline → verbs → shared rooms → modules, and no verb imports another. Found by AST."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "distill"

VERBS = {"generate", "filter", "train", "evaluate", "quantize", "serve", "publish", "report", "plan"}
SHARED = {"prompts", "problems", "exchange", "engines", "sampling", "verify", "examine"}
MODULES = {"ledger"}
"""Modules of more than one file."""
ABOVE = {"cli": 0, "__main__": 0, "compose": 0, "chat": 0, "talkers": 0, "pipeline": 1}
"""Files at the top of the package that are no plain modules; compose, chat and talkers belong to the command line."""
LEVELS = ("the command line", "the pipeline", "a verb", "a shared room", "a module")

Sources = Mapping[str, str]
"""Path below distill/ → Python text."""


def level(room: str, sources: Sources) -> int:
    """0 for the command line, 1 the pipeline, 2 a verb, 3 a shared room, 4 a module."""
    if room in ABOVE:
        return ABOVE[room]
    if room not in MODULES and any(path.startswith(f"{room}/") for path in sources):
        assert room in VERBS | SHARED, f"distill/{room}/ is neither a verb nor a shared room; place it in this test"
        return 2 if room in VERBS else 3
    return 4


def imported(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, wherever it stands; `from a import b` gives both a and a.b."""
    package = ["distill", *Path(path).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                yield from ((node.lineno, name.lstrip(".")) for name in names)


def bad_imports(sources: Sources) -> list[str]:
    """What breaks the direction, one line each."""
    rooms = {Path(path).parts[0].removesuffix(".py") for path in sources}
    found = []
    for path, text in sorted(sources.items()):
        own = Path(path).parts[0].removesuffix(".py")
        if path == "__init__.py":
            own = "distill"
        here = 4 if own == "distill" else level(own, sources)
        for line, name in imported(path, ast.parse(text)):
            top, _, rest = name.partition(".")
            room = rest.partition(".")[0]
            if top != "distill" or room not in rooms or room in (own, "__init__"):
                continue
            there = level(room, sources)
            if there < here or (there == here == 2):
                found.append(f"distill/{path}:{line}: {LEVELS[here]} imports {LEVELS[there]}, distill.{room}")
    return list(dict.fromkeys(found))


def real_sources() -> Sources:
    return {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def test_imports_go_one_way() -> None:
    sources = real_sources()
    assert {"contract.py", "ledger/writer.py", "engines/__init__.py", "generate/stage.py"} <= set(sources)
    assert bad_imports(sources) == []


HOUSE: Sources = {
    "__init__.py": "__version__ = '1'\n",
    "cli.py": "from distill import pipeline\n",
    "pipeline.py": "from distill.generate import stage\nimport distill.train\n",
    "generate/__init__.py": "",
    "generate/stage.py": "from distill.sampling import scheduler\nfrom . import budget\n",
    "generate/budget.py": "from distill import __version__, ledger\n",
    "train/__init__.py": "",
    "sampling/scheduler.py": "from distill.engines.base import Engine\nfrom distill import ledger\n",
    "engines/base.py": "import asyncio\n",
    "ledger/__init__.py": "from .writer import Ledger\n",
    "ledger/writer.py": "from distill.records import Trace\n",
    "records.py": "import json\n",
}


def test_a_house_in_order_passes() -> None:
    assert bad_imports(HOUSE) == []


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("generate/stage.py", "from distill.train import loop", "1: a verb imports a verb, distill.train"),
        ("generate/stage.py", "import distill.train.loop as l", "1: a verb imports a verb, distill.train"),
        ("generate/stage.py", "from distill import train", "1: a verb imports a verb, distill.train"),
        ("generate/stage.py", "from .. import train", "1: a verb imports a verb, distill.train"),
        ("generate/stage.py", "from ..train import x", "1: a verb imports a verb, distill.train"),
        ("generate/stage.py", "from distill import pipeline", "1: a verb imports the pipeline, distill.pipeline"),
        (
            "train/__init__.py",
            "import os\nfrom distill.cli import app",
            "2: a verb imports the command line, distill.cli",
        ),
        ("pipeline.py", "from distill.cli import app", "1: the pipeline imports the command line, distill.cli"),
        (
            "sampling/scheduler.py",
            "from distill.generate.budget import x",
            "1: a shared room imports a verb, distill.generate",
        ),
        (
            "ledger/writer.py",
            "from distill.sampling import scheduler",
            "1: a module imports a shared room, distill.sampling",
        ),
        ("ledger/writer.py", "from ..engines.base import Engine", "1: a module imports a shared room, distill.engines"),
        ("__init__.py", "from distill.generate import stage", "1: a module imports a verb, distill.generate"),
        (
            "records.py",
            "def f():\n    if f:\n        from distill.engines import base",
            "3: a module imports a shared room, distill.engines",
        ),
        (
            "records.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from distill.train import loop",
            "3: a module imports a verb, distill.train",
        ),
        (
            "records.py",
            "import importlib\nimportlib.import_module('distill.train')",
            "2: a module imports a verb, distill.train",
        ),
        (
            "records.py",
            "try:\n    import distill.cli\nexcept ImportError:\n    pass",
            "2: a module imports the command line, distill.cli",
        ),
    ],
)
def test_a_wrong_import_is_found(path: str, text: str, expected: str) -> None:
    assert bad_imports({**HOUSE, path: text}) == [f"distill/{path}:{expected}"]


def test_a_room_nobody_placed_is_found() -> None:
    with pytest.raises(AssertionError, match="distill/helpers/ is neither a verb nor a shared room"):
        bad_imports({**HOUSE, "helpers/x.py": ""})
