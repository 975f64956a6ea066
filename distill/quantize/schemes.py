"""The quantizations there are: their names, the program each is for, and how exact each has to be. Only names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Program = Literal["transformers", "llama.cpp"]


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to make a file smaller. `bits` is what its name promises per weight; the file tells what it is."""

    name: str
    program: Program
    bits: int

    @property
    def folder(self) -> str:
        """Name of its folder below `quantized/`."""
        return self.name.replace(":", "-")

    @property
    def is_gguf(self) -> bool:
        return self.program == "llama.cpp"

    @property
    def gguf_type(self) -> str:
        """llama.cpp's name of the file type, such as `q4_k_m`."""
        return self.name.partition(":")[2]


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("nf4", "transformers", 4),
        Scheme("int8", "transformers", 8),
        Scheme("gguf:bf16", "llama.cpp", 16),
        Scheme("gguf:q8_0", "llama.cpp", 8),
        Scheme("gguf:q4_k_m", "llama.cpp", 4),
    )
}

LARGEST_ERROR: Mapping[int, float] = {4: 0.2, 5: 0.1, 6: 0.05, 8: 0.025, 16: 0.005, 32: 0.005}
"""Bits of a tensor's type → the largest relative error (Frobenius norm) that rounding can explain.

Twice and more of what trained students show (docs/results.md: NF4 0.09, Q4_K 0.07, Q6_K 0.02, Q8_0 and int8 0.01);
a scale that is half of what it should be gives 0.5.
"""


def bits_of(type_name: str) -> int:
    """Bits per weight that a tensor type's name promises: `Q4_K` → 4, `IQ4_NL` → 4, `BF16` → 16."""
    found = re.search(r"\d+", type_name)
    return int(found[0]) if found else 32
