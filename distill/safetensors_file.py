"""What stands in the header of a safetensors file: its tensors with their types and sizes. Only reads, and no weights.

Knows nothing about who wrote the file or what it is for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import InputError

LONGEST_HEADER = 100_000_000
"""Bytes that safetensors itself reads as a header at most."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header describes it; `type` is the format's name, such as `BF16`."""

    name: str
    type: str
    elements: int


def tensors(file: Path) -> list[Tensor]:
    """Every tensor in the order of the header. Raises InputError for what is no safetensors file.

    Such a file begins with the header's length in eight bytes, little-endian, and the header as JSON.
    """
    with _reading(file):
        return [_tensor(name, described) for name, described in _header(file)[1].items()]


def expected_bytes(file: Path) -> int:
    """The bytes that a whole file with this header has. Raises InputError for what is no safetensors file."""
    with _reading(file):
        length, header = _header(file)
        return 8 + length + max((int(described["data_offsets"][1]) for described in header.values()), default=0)


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(min(length, LONGEST_HEADER)))
    return length, {name: described for name, described in header.items() if name != "__metadata__"}


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        given = f"{type(error).__name__}: {error}"[:100]
        raise InputError(f"{file} is no safetensors file", given=given, todo="copy it again") from error


def _tensor(name: str, described: dict[str, Any]) -> Tensor:
    kind, shape = described["dtype"], described["shape"]
    if not isinstance(kind, str) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"{name} has a type or a shape that is none")
    return Tensor(name, kind, math.prod(shape))
