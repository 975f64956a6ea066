"""A student's folder as a server loads it: tokenizer, template, config and generation settings, without weights."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.contract import CLOSE, OPEN, TEMPLATES, Contract
from distill.errors import ContractError
from distill.records import Message


@dataclass(frozen=True, slots=True)
class Saved:
    """What a folder says. `ends`: place → the ids it ends a text with, None where the place is missing; `pads`: place
    → its padding id; `tags`: think tag → its id, None where it is no single token; `stop`: the id of the contract's."""

    contract: Contract
    tokenizer: Any
    ends: Mapping[str, tuple[int, ...] | None]
    pads: Mapping[str, int | None]
    tags: Mapping[str, int | None]
    stop: int | None

    @property
    def stops(self) -> set[int]:
        """Every id at which some server stops."""
        named = {id_ for ids in self.ends.values() for id_ in ids or ()}
        return named if self.stop is None else named | {self.stop}

    @property
    def others(self) -> list[int]:
        """Those besides the contract's own."""
        return sorted(id_ for id_ in self.stops if id_ != self.stop)

    def render(self, messages: Sequence[Message], *, to_answer: bool) -> str:
        """The saved template's text. Raises ContractError when the template refuses the messages."""
        import jinja2

        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=to_answer
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise ContractError(f"the saved template cannot be rendered: {error}") from error
        return text

    def render_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt's ids as a server makes them."""
        ids: list[int] = self.tokenizer.apply_chat_template(
            list(messages), tokenize=True, add_generation_prompt=True, return_dict=False
        )
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """As servers do it: white space stays as it is."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def normal(self, text: str) -> str:
        """The text in the Unicode form that the tokenizer itself brings it to; Qwen's composes accents (NFC)."""
        form = type(getattr(self.tokenizer, "backend_tokenizer", None) and self.tokenizer.backend_tokenizer.normalizer)
        match form.__name__:
            case "NFC" | "NFD" | "NFKC" | "NFKD" as name:
                return unicodedata.normalize(name, text)
            case _:
                return text


def load_saved(folder: Path, contract: Contract) -> Saved:
    """Reads a folder with the Auto classes, as everybody will. Raises ContractError without a usable tokenizer."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ContractError(
            "the saved tokenizer cannot be loaded",
            given=f"{folder}: {str(error).splitlines()[0][:200]}",
            todo="save the student again",
        ) from error
    config, generation = _loaded(AutoConfig, folder), _loaded(GenerationConfig, folder)
    settings = {"tokenizer": tokenizer, "generation_config": generation, "config": config}
    return Saved(
        contract,
        tokenizer,
        {place: None if what is None else _ids(what.eos_token_id) for place, what in settings.items()},
        {
            "the tokenizer": tokenizer.pad_token_id,
            **{place: what.pad_token_id for place, what in settings.items() if what not in (None, tokenizer)},
        },
        {tag: _single(tokenizer, tag) for tag in (OPEN, CLOSE)},
        _single(tokenizer, contract.stop),
    )


def bos_of(saved: Saved) -> str:
    """The template's BOS token; where it has none, the tokenizer's, and the empty string where that has none either."""
    return TEMPLATES[saved.contract.template].bos or saved.tokenizer.bos_token or ""


def _loaded(kind: Any, folder: Path) -> Any:
    try:
        return kind.from_pretrained(folder)
    except (OSError, ValueError):
        return None


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    return () if value is None else (value,) if isinstance(value, int) else tuple(value)


def _single(tokenizer: Any, token: str) -> int | None:
    """The id of a token that is one: encoded alone, and known to the vocabulary, where vLLM's parser looks."""
    ids = tokenizer.encode(token, add_special_tokens=False)
    return ids[0] if len(ids) == 1 and tokenizer.get_vocab().get(token) == ids[0] else None
