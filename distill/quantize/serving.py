"""Whether a quantized file would be talked to as the student was trained: template, stop token, and token ids.

Knows nothing about weights or scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill import gguf_file
from distill.contract import CLOSE, OPEN, Contract
from distill.engines.llamacpp import GgufModel
from distill.errors import EndpointError

PROBES = (
    "What is 17 + 25? A shop sells 1,234.50 kg of rice at $3.99 each.",
    "  leading spaces,\ttabs\n\nand\r\nlines\n\n\n   ",
    "I'm sure they've said: don't, won't, it's 100% \\boxed{\\frac{3}{4}} and x^2 = 2^{10}.",
    "def f(x):\n    return x ** 2 + 1  # a comment\n",
    "Größe, naïve, 北京有多少人? Сколько? ۱۲۳ 🙂",
    "123456789 3.14159 1e-5 0x1F 2024-11-25",
)
"""Texts on which pre-tokenizers differ: digits, contractions, white space, code, scripts."""


def folder_faults(folder: Path, contract: Contract) -> list[str]:
    """What in a folder for transformers differs from the contract; empty when all is well."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    ends = settings.get("eos_token_id")
    stop = tokenizer.convert_tokens_to_ids(contract.stop)
    found = _faults(tokenizer.chat_template, tokenizer.eos_token, contract)
    if stop not in (ends if isinstance(ends, list) else [ends]):
        name = tokenizer.convert_ids_to_tokens(ends) if isinstance(ends, int) else ends
        found.append(f"stop token: generation_config.json ends replies with {name}, the contract with {contract.stop}")
    return found


def gguf_faults(file: Path, student: Path, contract: Contract, texts: Sequence[str]) -> list[str]:
    """What in a GGUF file differs from the contract, as llama.cpp itself reads it.

    `texts` are tokenized by both programs, whose token ids have to agree.
    """
    from transformers import AutoTokenizer

    head = gguf_file.metadata(file)
    found = _faults(head.chat_template, head.stop, contract)
    tokenizer: Any = AutoTokenizer.from_pretrained(student)
    try:
        model = GgufModel(file)
    except EndpointError as error:
        why = (error.given or error.what).replace(str(file), file.name)  # no path of this machine in the facts
        return [*found, f"llama.cpp cannot load the file: {why}"]
    try:
        if tokenizer.convert_tokens_to_ids(contract.stop) not in model.stops:
            found.append(f"stop token: llama.cpp does not end replies at {contract.stop}")
        framed = [contract.render_prompt([{"role": "user", "content": text}]) for text in (*PROBES, *texts)]
        framed += [f"{OPEN}\n{text}\n{CLOSE}\n\n{text}{contract.stop}" for text in PROBES]
        other = [text for text in framed if model.encode(text) != tokenizer.encode(text, add_special_tokens=False)]
        if other:
            found.append(
                f"tokens: llama.cpp reads {len(other)} of {len(framed)} texts as other tokens than the student's "
                f"tokenizer, such as {other[0][:60]!r}; correct gguf_pre in the student spec"
            )
    finally:
        model.close()
    return found


def _faults(template: str | None, stop: str | None, contract: Contract) -> list[str]:
    found = []
    if template != contract.chat_template:
        found.append("template: the file's chat template is not the one that the student was trained with")
    if stop != contract.stop:
        found.append(f"stop token: the file ends replies with {stop}, the contract with {contract.stop}")
    return found
