"""What stands in a GGUF file: its tensors with their real types, context, template and stop token. Only reads.

Knows nothing about who wrote the file or what it is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.environment import missing_extra
from distill.errors import InputError


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of the header that decides how the model is talked to."""

    architecture: str
    context_length: int
    chat_template: str | None
    stop: str | None
    """The text of the token that ends a reply; None when the file names none."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as it lies in the file; `data` is still quantized, to be opened with `values`."""

    name: str
    type: str
    """llama.cpp's name, such as `Q4_K`."""
    elements: int
    data: Any

    @property
    def values(self) -> Any:
        """The weights as a float32 NumPy array, rows of the model's matrix first."""
        import gguf

        return gguf.quants.dequantize(self.data, gguf.GGMLQuantizationType[self.type])


def metadata(file: Path) -> Metadata:
    """Raises InputError for what is no GGUF file or lacks its context length."""
    reader = _reader(file)
    architecture = _content(reader, "general.architecture")
    context = _content(reader, f"{architecture}.context_length")
    if context is None:
        raise InputError(f"{file}: the file does not tell its context length", todo="make it again: `distill quantize`")
    stop = _content(reader, "tokenizer.ggml.eos_token_id")
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    known = tokens is not None and stop is not None and 0 <= stop < len(tokens.data)
    text = bytes(tokens.parts[tokens.data[stop]]).decode("utf-8") if known and tokens is not None else None
    return Metadata(architecture, int(context), _content(reader, "tokenizer.chat_template"), text)


def tensors(file: Path) -> Iterator[Tensor]:
    """Every tensor in the order of the file; memory-mapped, so only what is looked at is read."""
    for found in _reader(file).tensors:
        yield Tensor(found.name, found.tensor_type.name, int(found.n_elements), found.data)


def require() -> None:
    """Raises MissingError when the package that reads these files is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise missing_extra("GGUF files need the package gguf", "quantize") from error


def _reader(file: Path) -> Any:
    require()
    import gguf

    try:
        return gguf.GGUFReader(file)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise InputError(
            f"{file} is no GGUF file that can be read", given=str(error)[:200], todo="make it again: `distill quantize`"
        ) from error


def _content(reader: Any, key: str) -> Any:
    field = reader.fields.get(key)
    return None if field is None else field.contents()
