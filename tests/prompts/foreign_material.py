"""Fixtures of published sets of traces, and what they are known to hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "data" / "traces"
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
SETS = tuple(EXPECTED)


def leaves(value: Any) -> set[str]:
    """Every text anywhere in a row."""
    if isinstance(value, str):
        try:
            return {value} | leaves(json.loads(value))
        except ValueError:
            return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(leaves, inner)) if inner else set()
