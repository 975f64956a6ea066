"""One trace under the contract: prompt, mask, tags, stop token, and the way back through a server's parser.

Knows a student's folder as it was saved; knows nothing about runs or where traces come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distill.contract import CLOSE, OPEN, TEMPLATES, Encoded, Response, served
from distill.errors import ContractError
from distill.records import Message
from distill.train.findings import Name
from distill.train.saved import Saved, bos_of

Found = Iterator[tuple[Name, str]]
TAG_FAULTS = {"split_tag", "hidden_tag", "no_template"}
"""Where one of these holds, replies cannot be parsed back either: that is said once."""
SHOWN = 60
"""Characters of a text that a finding shows."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One kept trace as it is trained on: the prompt's messages, the response, and the ids made of both."""

    trace_id: str
    messages: Sequence[Message]
    response: Response
    encoded: Encoded


class TraceCheck:
    """The faults of one trace; `known` are those of the folder."""

    def __init__(self, saved: Saved, example: Rendered, *, thinks: bool, known: set[Name]) -> None:
        self.saved, self.example, self.thinks, self.known = saved, example, thinks, known
        self.contract, self.ids = saved.contract, example.encoded.ids
        self.start = example.encoded.loss_start
        self.asked = self.contract.render_prompt(example.messages)
        """The prompt's text, forced prefix included."""
        self.written = saved.normal(self.contract.render_response(example.response).removesuffix(self.contract.stop))
        self.prompt = len(self.contract.encode_prompt(saved.tokenizer, example.messages))
        """Number of ids before the first that is generated."""
        prefix = self.contract.forced_prefix
        self.header = self.prompt - len(saved.tokenizer.encode(prefix, add_special_tokens=False) if prefix else [])
        """Number of ids before the first that is learned."""

    def faults(self) -> Found:
        text, served_ids = "", list[int]()
        found: list[tuple[Name, str]] = []
        if "no_template" not in self.known:
            try:
                text = self.saved.render(self.example.messages, to_answer=True)
                served_ids = self.saved.render_ids(self.example.messages)
                found += [*self._prompt(text, served_ids), *self._whole(text)]
            except ContractError as error:
                found.append(("prompt_differs", str(error)))
        found += [*self._bos(text, served_ids), *self._mask(), *self._count_tags(), *self._stop(), *self._loss()]
        for name in dict.fromkeys(name for name, _ in found):
            yield name, next(given for other, given in found if other == name)
        if not found and self.saved.stop is not None and not TAG_FAULTS & self.known:
            yield from self._parse()

    def _prompt(self, text: str, served_ids: list[int]) -> Found:
        """The ids before the response are those a server makes with the saved template."""
        if text != self.asked:
            yield from self._other_prompt(text)
        elif served_ids != self.ids[: self.prompt]:
            pairs = zip(self.ids, served_ids, strict=False)
            place = next((n for n, (ours, theirs) in enumerate(pairs) if ours != theirs), len(served_ids))
            yield "prompt_differs", f"the saved tokenizer makes other ids, from position {place} on"

    def _other_prompt(self, text: str) -> Found:
        """Where the saved template's prompt differs from the contract's, and in what."""
        question = self.example.messages[-1]["content"] or self.asked
        (ours, _, our_tail), (theirs, _, their_tail) = self.asked.rpartition(question), text.rpartition(question)
        bos, own_bos = TEMPLATES[self.contract.template].bos, self.saved.tokenizer.bos_token
        ours, theirs = ours.removeprefix(bos), theirs.removeprefix(bos)
        extra = theirs.replace(ours, "", 1) if len(theirs) > len(ours) else ""
        if extra and extra == own_bos and not bos:
            yield "stray_bos", f"the saved template writes {own_bos}, the contract's has none"
        elif extra and extra != bos:  # a second BOS is double_bos
            yield "injected_system", f"the saved template adds {extra[:SHOWN]!r}"
        if not extra or our_tail != their_tail:
            yield "prompt_differs", f"the saved template ends {text[-SHOWN:]!r}, training {self.asked[-SHOWN:]!r}"

    def _whole(self, prompt: str) -> Found:
        """The saved template renders the whole conversation as it is trained on."""
        content = self.contract.render_response(self.example.response).removesuffix(self.contract.stop)
        whole = self.saved.render([*self.example.messages, {"role": "assistant", "content": content}], to_answer=False)
        header = prompt.removesuffix(self.contract.forced_prefix)
        after = TEMPLATES[self.contract.template].after
        if whole == header + content + self.contract.stop + after:
            return
        reasoning = self.example.response.reasoning or ""
        reply = whole.removeprefix(header)
        if reasoning not in reply or (CLOSE in content and CLOSE not in reply):
            yield "stripped_reasoning", f"the saved template leaves {reply[:SHOWN]!r} of the reply"
        elif reply.count(OPEN) > content.count(OPEN) or reply.count(CLOSE) > content.count(CLOSE):
            yield "doubled_tag", f"the saved template makes {reply[:SHOWN]!r} of the reply"
        elif content in reply and not reply.rpartition(content)[2].startswith(self.contract.stop):
            yield "missing_stop", f"the saved template ends a reply with {reply.rpartition(content)[2]!r}"
        else:
            yield "template_differs", f"the saved template makes {reply[:SHOWN]!r} of the reply"

    def _bos(self, text: str, served_ids: list[int]) -> Found:
        token = bos_of(self.saved)
        if not token:
            return
        bos = self.saved.tokenizer.convert_tokens_to_ids(token)
        for who, ids, whole in (("training", self.ids, self.asked + self.written), ("a server", served_ids, text)):
            wanted = whole.count(token)
            if ids[:2] == [bos, bos]:
                yield "double_bos", f"{who} starts with {token} {token}"
            elif ids.count(bos) > wanted:
                yield "stray_bos", f"{who} has {token} {ids.count(bos)} times, the template {wanted}"

    def _mask(self) -> Found:
        if self.start < self.header:
            yield "loss_on_prompt", f"the loss starts {self.header - self.start} ids before the response"

    def _count_tags(self) -> Found:
        """As many tags as the canonical text has, all in the loss; those that the prompt's messages quote apart."""
        for tag, id_ in self.saved.tags.items():
            if id_ is None:
                continue
            quoted = sum(message["content"].count(tag) for message in self.example.messages)
            count, wanted = self.ids.count(id_) - quoted, self.written.count(tag)
            if count > wanted:
                yield "doubled_tag", f"{count} of {tag}, not {wanted}"
            elif count < wanted:
                yield "missing_tag", f"{count} of {tag}, not {wanted}"
            elif self.ids[self.start :].count(id_) < wanted:
                yield "reasoning_outside_loss", f"{tag} stands before the loss"

    def _stop(self) -> Found:
        if self.saved.stop is None:
            return
        if not self.ids or self.start >= len(self.ids) or self.ids[-1] != self.saved.stop:
            yield "missing_stop", f"the loss ends with {self.saved.tokenizer.decode(self.ids[self.start :][-5:])!r}"
        inside = [id_ for id_ in self.ids[self.header : -1] if id_ in self.saved.stops]
        if inside:
            yield "stop_inside", f"{self.saved.tokenizer.convert_ids_to_tokens(inside[0])} before the end"

    def _loss(self) -> Found:
        """What is learned, decoded, is the response and nothing else."""
        response, normal = self.example.response, self.saved.normal
        text = self.saved.decode(self.ids[max(self.start, self.header) :]).removesuffix(self.contract.stop)
        if text == self.written:
            return
        if response.reasoning is not None and normal(response.reasoning) not in text:
            yield "reasoning_outside_loss", f"the loss covers {text[:SHOWN]!r}"
        elif normal(response.answer) not in text.rpartition(CLOSE)[2]:
            yield "answer_outside_loss", f"the loss ends {text[-SHOWN:]!r}"
        else:
            yield "text_differs", f"the loss covers {text[:SHOWN]!r}, canonical is {self.written[:SHOWN]!r}"

    def _parse(self) -> Found:
        """What the student would write, as servers decode it, comes back as the same reasoning and answer."""
        text = self.saved.decode(self.ids[self.prompt : -1], skip_special_tokens=True)
        response, normal = self.example.response, self.saved.normal
        wanted = (normal(response.reasoning or ""), normal(response.answer))
        parsed = self.contract.parse(text)
        if parsed.fault is not None or (parsed.reasoning or "", parsed.answer) != wanted:
            yield "parse_mismatch", f"{text[:SHOWN]!r} is read as {parsed.fault or 'other parts'}"
            return
        if not self.thinks:
            return
        sent = served(text)
        if sent.content is None and response.reasoning is None:
            yield "answer_as_reasoning", f"{text[:SHOWN]!r} has no tags, and a server's parser takes it for reasoning"
        elif ((sent.reasoning or "").strip(), (sent.content or "").strip()) != wanted:
            yield "parse_mismatch", f"a server's parser reads {text[:SHOWN]!r} as other parts"
