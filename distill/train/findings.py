"""What the contract check can find: a fixed name each, and what to do about it. Knows nothing about how it is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Name = Literal[
    "reasoning_outside_loss",
    "answer_outside_loss",
    "loss_on_prompt",
    "text_differs",
    "split_tag",
    "hidden_tag",
    "doubled_tag",
    "missing_tag",
    "missing_stop",
    "stop_inside",
    "stop_disagrees",
    "pad_is_stop",
    "missing_pad",
    "double_bos",
    "stray_bos",
    "injected_system",
    "prompt_differs",
    "no_template",
    "template_differs",
    "stripped_reasoning",
    "parse_mismatch",
    "answer_as_reasoning",
]

_ENCODING = "save the student again with the tokenizer that training uses; where that changes nothing, report this"
_TEMPLATE = "save the contract's own template with the student; distill does, unless the folder was changed afterwards"

TODO: Mapping[Name, str] = {
    "reasoning_outside_loss": _ENCODING,
    "answer_outside_loss": _ENCODING,
    "loss_on_prompt": _ENCODING,
    "text_differs": "a tokenizer that does not give a text back as it was cannot be trained on it; choose another base",
    "split_tag": "set thinks: true in the student spec: the tags become tokens",
    "hidden_tag": "make the tags plain added tokens, not special ones: a server leaves special tokens out of its text",
    "doubled_tag": "leave out the traces named, or use the contract's own template: it adds no tag of its own",
    "missing_tag": _ENCODING,
    "missing_stop": "use a tokenizer that knows the template's stop token, and the contract's own template",
    "stop_inside": "leave out the traces named: a server would stop in the middle of them",
    "stop_disagrees": "set eos_token and both eos_token_id to the template's stop token, or choose another template",
    "pad_is_stop": "set pad_token in the student spec to a token that never stands in a chat",
    "missing_pad": "set pad_token in the student spec to a token that never stands in a chat",
    "double_bos": "the template writes the BOS token: keep the tokenizer from adding another one",
    "stray_bos": "the template has no BOS token: keep the tokenizer from adding one",
    "injected_system": "save the contract's own template, or put that text in the student spec's `system`",
    "prompt_differs": _TEMPLATE,
    "no_template": _TEMPLATE,
    "template_differs": _TEMPLATE,
    "stripped_reasoning": _TEMPLATE,
    "parse_mismatch": "leave out the traces named, or take another base",
    "answer_as_reasoning": 'set forced_prefix: "<think>\\n", so that an empty pair of tags stands before such answers, '
    "or thinks: false for a student that never reasons",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: its name, what was found, and in which trace; None when it lies in the folder itself."""

    name: Name
    given: str
    trace_id: str | None = None

    @property
    def todo(self) -> str:
        return TODO[self.name]
