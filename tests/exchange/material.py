"""Fixtures of published sets of traces, and what they are known to hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill.prompts.rows import rows

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


MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
TEXT, FLAGS = pa.string(), pa.list_(pa.bool_())
SCHEMAS = {
    "openr1-math": pa.schema(
        {
            **dict.fromkeys(("problem", "solution", "answer", "problem_type", "question_type", "source", "uuid"), TEXT),
            "is_reasoning_complete": FLAGS,
            "generations": pa.list_(TEXT),
            "correctness_math_verify": FLAGS,
            "correctness_llama": FLAGS,
            "finish_reasons": pa.list_(TEXT),
            "correctness_count": pa.int64(),
            "messages": MESSAGES,
        }.items()
    ),
    "mixture-of-thoughts": pa.schema({"messages": MESSAGES, "num_tokens": pa.int64(), "source": TEXT}.items()),
    "openthoughts3": pa.schema(
        {
            "difficulty": pa.int64(),
            "source": TEXT,
            "domain": TEXT,
            "conversations": pa.list_(pa.struct([("from", TEXT), ("value", TEXT)])),
        }.items()
    ),
}


def as_parquet(name: str, folder: Path) -> tuple[Path, list[int]]:
    """The fixture as Parquet, and the numbers of its rows in the fixture: what Arrow cannot hold is left out."""
    held, numbers = [], []
    for number, row in rows(FIXTURES / f"{name}.jsonl"):
        row = {key: None if value != value else value for key, value in row.items()}
        if isinstance(row.get("generations"), str):
            continue
        try:
            pa.Table.from_pylist([row], schema=SCHEMAS[name])
        except (pa.ArrowException, UnicodeEncodeError):
            continue
        held.append(row)
        numbers.append(number)
    path = folder / f"{name}.parquet"
    pq.write_table(pa.Table.from_pylist(held, schema=SCHEMAS[name]), path, row_group_size=7)
    return path, numbers
