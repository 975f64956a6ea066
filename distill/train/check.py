"""The contract check: proves on token ids that what is trained is what will be served.

Looks at a student's folder as it was saved, its contract and some traces as they are trained on. Knows nothing about
runs, weights or the loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.contract import OPEN, TEMPLATES, Contract
from distill.errors import ContractError
from distill.train.findings import Finding, Name
from distill.train.saved import Saved, load_saved
from distill.train.trace_check import TAG_FAULTS, Found, Rendered, TraceCheck


@dataclass(frozen=True, slots=True)
class Checked:
    """What the check found, and what it has proven, a line each."""

    faults: tuple[Finding, ...]
    traces: int
    proven: tuple[str, ...]

    def lines(self) -> list[str]:
        """For the reader: what holds, then each kind of fault once."""
        return [*self.proven, *(f"FAULT {line}" for line in _by_name(self.faults))]


def check_contract(folder: Path, contract: Contract, examples: Sequence[Rendered], *, thinks: bool) -> Checked:
    """Checks a saved student against its contract on real traces. `folder` needs no weights.

    `thinks`: the tags have to be single tokens, and the student is served with a reasoning parser. Raises
    ContractError when the folder's tokenizer cannot be loaded at all.
    """
    saved = load_saved(folder, contract)
    tagged = thinks or any(OPEN in contract.render_response(example.response) for example in examples)
    faults = [Finding(name, given) for name, given in (*_stop(saved), *_pad(saved), *_tags(saved, tagged))]
    if saved.tokenizer.chat_template is None:
        faults.append(Finding("no_template", str(folder)))
    known = {fault.name for fault in faults}
    for example in examples:
        found = list(TraceCheck(saved, example, thinks=thinks, known=known).faults())
        faults += [Finding(name, given, example.trace_id) for name, given in found]
    return Checked(tuple(faults), len(examples), tuple(_proven(saved, examples, {f.name for f in faults}, thinks)))


def require(checked: Checked) -> None:
    """Raises ContractError that lists the faults, if there are any."""
    if not checked.faults:
        return
    todo = dict.fromkeys(fault.todo for fault in checked.faults)
    raise ContractError(
        "what would be trained is not what would be served",
        given="\n         ".join(_by_name(checked.faults)),
        todo="\n         ".join(todo),
    )


def _by_name(faults: Sequence[Finding]) -> list[str]:
    """The first fault of each name, with the number of others."""
    lines = []
    for name in dict.fromkeys(fault.name for fault in faults):
        first, *others = (fault for fault in faults if fault.name == name)
        where = (
            f" (trace {first.trace_id[:12]}{f' and {len(others)} more' if others else ''})" if first.trace_id else ""
        )
        lines.append(f"{name}: {first.given}{where}")
    return lines


# --- the folder --------------------------------------------------------------------------------------------------


def _stop(saved: Saved) -> Found:
    stop, tokenizer = saved.contract.stop, saved.tokenizer
    if saved.stop is None:
        count = len(tokenizer.encode(stop, add_special_tokens=False))
        yield "missing_stop", f"{stop} is no token of the vocabulary" if count == 1 else f"{stop} is {count} tokens"
        return
    for place, ids in saved.ends.items():
        if ids is None:
            yield "stop_disagrees", f"{place} is missing"
        elif saved.stop not in ids:
            theirs = ", ".join(f"{tokenizer.convert_ids_to_tokens(i)} = {i}" for i in ids) or "none"
            yield "stop_disagrees", f"the template ends with {stop} = {saved.stop}, {place} with {theirs}"


def _pad(saved: Saved) -> Found:
    stops = saved.stops
    for place, pad in saved.pads.items():
        if pad is not None and pad in stops:
            yield "pad_is_stop", f"{saved.tokenizer.convert_ids_to_tokens(pad)} = {pad} in {place}"
    if saved.pads["the tokenizer"] is None:
        yield "missing_pad", "the tokenizer names none"


def _tags(saved: Saved, wanted: bool) -> Found:
    if not wanted:
        return
    tokenizer = saved.tokenizer
    for tag, id_ in saved.tags.items():
        if id_ is None:
            pieces = tokenizer.convert_ids_to_tokens(tokenizer.encode(tag, add_special_tokens=False))
            yield "split_tag", f"{tag} becomes {' '.join(map(str, pieces))}"
        elif tag not in saved.decode([id_], skip_special_tokens=True):
            yield "hidden_tag", f"{tag} = {id_} is a special token"


# --- what was proven ---------------------------------------------------------------------------------------------


def _proven(saved: Saved, examples: Sequence[Rendered], found: set[Name], thinks: bool) -> Iterator[str]:
    """A line for each claim that nothing found stands against."""
    contract, count = saved.contract, f"{len(examples)} traces"
    if not examples:
        return
    learned = sum(len(example.encoded.ids) - example.encoded.loss_start for example in examples)
    reasoned = sum(example.response.reasoning is not None for example in examples)
    if not found & {"reasoning_outside_loss", "answer_outside_loss", "loss_on_prompt", "text_differs"}:
        yield f"loss: reasoning and answer whole, nothing of the prompt; {count} of {learned:,} ids, {reasoned} reason"
    if not found & {"split_tag", "hidden_tag", "doubled_tag", "missing_tag", "reasoning_outside_loss"}:
        pairs = sum(OPEN in contract.render_response(example.response) for example in examples)
        ids = ", ".join(f"{tag} = {id_}" for tag, id_ in saved.tags.items())
        yield f"tags: {ids}, one of each in {pairs} traces, none in {len(examples) - pairs}" if pairs else "tags: none"
    if not found & {"missing_stop", "stop_inside", "stop_disagrees"}:
        others = "".join(f"; {saved.tokenizer.convert_ids_to_tokens(i)} = {i} also stops" for i in saved.others)
        yield f"stop: {contract.stop} = {saved.stop} = {' = '.join(saved.ends)} = template, last in every loss{others}"
    if not found & {"pad_is_stop", "missing_pad"}:
        pad = saved.tokenizer.pad_token
        yield f"pad: {pad} = {saved.tokenizer.pad_token_id}, no stop token"
    if not found & {"prompt_differs", "injected_system", "double_bos", "stray_bos", "no_template"}:
        bos = TEMPLATES[contract.template].bos
        system = "the contract's system prompt" if contract.system else "no system prompt"
        yield f"prompt: the ids that the saved template makes, {f'one {bos}' if bos else 'no BOS'}, {system}"
    if not found & {"stripped_reasoning", "template_differs", "doubled_tag", "missing_stop", "no_template"}:
        yield "template: as saved, it renders the whole conversations as they are trained on"
    if not found & {"parse_mismatch", "answer_as_reasoning", *TAG_FAULTS} and _parsed_all(found):
        parser = "vLLM's deepseek_r1 parser and ours" if thinks else "our parser; no reasoning parser is wanted"
        yield f"served: read back into the same reasoning and answer by {parser}"


def _parsed_all(found: set[Name]) -> bool:
    """A trace with another fault is not parsed."""
    return found <= {"stop_disagrees", "pad_is_stop", "missing_pad"}
