"""A student's tokenizer under its contract: reserved tokens renamed, think tags added, stop and pad token set.

Knows nothing about weights; it says which vocabulary rows have to be learned anew.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from distill.contract import CLOSE, OPEN, tokenizer_contract_faults
from distill.errors import ContractError, SpecError
from distill.student_specs import StudentSpec

TOKENIZER_FILE, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def prepare_tokenizer(spec: StudentSpec) -> Any:
    """The student's tokenizer with its contract's template, stop token, pad token and think tags.

    Raises ContractError when it cannot serve the contract, SpecError when it cannot be loaded or lacks a token that the
    spec names.
    """
    tokenizer = _renamed(base_tokenizer(spec), spec)
    if spec.thinks:
        missing = [tag for tag in (OPEN, CLOSE) if len(tokenizer.encode(tag, add_special_tokens=False)) != 1]
        tokenizer.add_tokens(missing, special_tokens=False)
    if spec.pad_token is not None:
        _require(tokenizer, spec, "pad_token", [spec.pad_token])
        tokenizer.pad_token = spec.pad_token
    tokenizer.eos_token = spec.contract.stop
    tokenizer.chat_template = spec.contract.chat_template
    faults = tokenizer_contract_faults(tokenizer, spec.contract, thinks=spec.thinks)
    if faults:
        raise ContractError(
            f"the tokenizer of student '{spec.name}' cannot serve the template '{spec.template}'",
            given="; ".join(faults),
            todo="correct template, pad_token or tokenizer in the student spec",
        )
    return tokenizer


def base_tokenizer(spec: StudentSpec) -> Any:
    """The tokenizer as it is published."""
    from transformers import AutoTokenizer

    place = spec.tokenizer or spec.base
    try:
        return AutoTokenizer.from_pretrained(place, revision=None if spec.tokenizer else spec.revision)
    except (OSError, ValueError) as error:
        raise unloadable(spec, "tokenizer", str(place), error) from error


def unloadable(spec: StudentSpec, what: Literal["base", "tokenizer"], place: str, error: Exception) -> SpecError:
    """Why a student's base or tokenizer is not there, and how to get it."""
    folder = place.startswith((".", "/", "~"))  # no id on the Hub does
    why = "there is no such folder" if folder and not Path(place).is_dir() else str(error).splitlines()[0][:200]
    get = f"make it first ({spec.description})" if folder else f"download it first (hf download {place})"
    return SpecError(
        f"the {what} of student '{spec.name}' cannot be loaded",
        given=f"{place}: {why}",
        todo=f"{get}, or name a folder with --set student_overrides.{what}=FOLDER",
    )


def rows_to_train(spec: StudentSpec, tokenizer: Any) -> list[int]:
    """Ids, in order, of the tokens that a base has not learned: added ones, renamed ones, and those its spec calls
    untrained. A student from nothing has none, since all its rows are new."""
    if spec.base is None:
        return []
    _require(tokenizer, spec, "untrained_tokens", spec.untrained_tokens)
    before, now = base_tokenizer(spec).get_vocab(), tokenizer.get_vocab()
    new = {number for token, number in now.items() if before.get(token) != number}
    return sorted(new | {now[token] for token in spec.untrained_tokens})


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Id → token of those that servers drop from the text they send: a reply that quotes one would not arrive whole.

    Without the think tags, of which the contract check speaks, and the token for what the vocabulary does not know,
    which no text quotes.
    """
    named = set(tokenizer.all_special_ids)
    marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    found = {number: str(tokenizer.convert_ids_to_tokens(number)) for number in named | marked}
    return {n: token for n, token in found.items() if token not in (OPEN, CLOSE) and n != tokenizer.unk_token_id}


def special_in(ids: Sequence[int], special: Mapping[int, str]) -> str | None:
    """The first of `special` among these ids of a reply, its stop token aside."""
    inside = ids[:-1]
    if special.keys().isdisjoint(inside):
        return None
    return next(special[number] for number in inside if number in special)


def _renamed(tokenizer: Any, spec: StudentSpec) -> Any:
    """The tokenizer with the spec's reserved tokens under their new names, and with think tags that are plain text.

    A special token is dropped where text is decoded for a reader; think tags must not be, or no reply could be parsed.
    """
    known = tokenizer.get_vocab()
    names = {old: new for new, old in spec.reserved_tokens.items() if new not in known}
    _require(tokenizer, spec, "reserved_tokens", names)
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    tags = {tag: tag for tag in (OPEN, CLOSE) if spec.thinks and tag in special}
    return _rewritten(tokenizer, {**names, **tags}) if names or tags else tokenizer


def _require(tokenizer: Any, spec: StudentSpec, field: str, tokens: Any) -> None:
    known = tokenizer.get_vocab()
    missing = [token for token in tokens if token not in known]
    if missing:
        raise SpecError(
            f"the tokenizer of student '{spec.name}' has no token {', '.join(missing)}",
            given=f"{field} of the student spec; tokenizer: {spec.tokenizer or spec.base}",
            todo=f"correct {field}, or base and tokenizer",
        )


def _rewritten(tokenizer: Any, names: Mapping[str, str]) -> Any:
    """A copy in which the keys of `names` are called by their values, under the same ids, and are no special tokens.

    The library renames no token, so it is done in the file that it reads; what is saved later is saved from there.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        content = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))
        for token in content["added_tokens"]:
            if token["content"] in names:
                token.update(content=names[token["content"]], special=False)
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            content["model"]["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
        (folder / TOKENIZER_FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        settings = json.loads((folder / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
        if isinstance(settings.get("extra_special_tokens"), list):  # they would be added again
            settings["extra_special_tokens"] = [t for t in settings["extra_special_tokens"] if t not in names]
        (folder / TOKENIZER_CONFIG).write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
        copy = type(tokenizer).from_pretrained(folder)
    copy.name_or_path = tokenizer.name_or_path
    return copy
