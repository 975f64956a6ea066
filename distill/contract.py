"""The text contract between teacher, training and serving: templates, tags, stop tokens, rendering, parsing.

The one place that knows think tags. A teacher's reply is parsed here into reasoning and answer; a student's training
text is rendered here from them; `parse(render(x)) == x` for every response that can be rendered, and what cannot be
rendered without ambiguity is refused. Knows nothing about files, recipes or models beyond their tokenizer's encode.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from distill.errors import ContractError
from distill.files import sha256_of
from distill.records import Message

if TYPE_CHECKING:
    import jinja2

OPEN, CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
THOUGHT_OPEN, THOUGHT_CLOSE = "<|begin_of_thought|>", "<|end_of_thought|>"
SOLUTION_OPEN, SOLUTION_CLOSE = "<|begin_of_solution|>", "<|end_of_solution|>"
"""The tags of Sky-T1, which OpenThoughts-114k and Bespoke-Stratos use."""
CONTRACT_FILE = "distill.json"
"""Lies beside a student's weights and says under which contract it was trained."""

_CONTROL = re.compile(f"{OPEN}|{CLOSE}|<\\|[^<>|\\s]+\\|>|<｜[^<>｜\\s]+｜>")
"""What a tokenizer turns into a control token: think tags, and the way Qwen, Llama and DeepSeek write all others."""

ReasoningFormat = Literal["field", "tags", "r1-zero", "plain", "foreign"]
"""`foreign`: whatever published sets of traces use; see `canonical_tags`."""
Fault = Literal["missing_close", "doubled_tag", "leaked_tag", "missing_answer", "missing_answer_tag"]

STEP_BY_STEP = r"Please reason step by step, and put your final answer within \boxed{}."
"""The instruction DeepSeek-R1's model card gives for mathematics."""


# --- a response and its canonical text ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Response:
    """Reasoning (None for an answer given without) and answer, both without surrounding white space.

    Raises ContractError when either part holds a think tag or any other control token, such as a stop token in the
    middle: the text could not be parsed back, and a tokenizer would turn what is quoted into the real thing.
    """

    reasoning: str | None
    answer: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reasoning", (self.reasoning or "").strip() or None)
        object.__setattr__(self, "answer", self.answer.strip())
        for name, text in (("reasoning", self.reasoning or ""), ("answer", self.answer)):
            found = _CONTROL.search(text)
            if found:
                what = f"the {name} contains {found[0]}"
                raise ContractError(what, given=repr(text[:80]), todo="leave this trace out")

    def render(self, *, empty_pair: bool = False) -> str:
        """The canonical text; `empty_pair` writes an empty pair of tags where there is no reasoning."""
        if self.reasoning is None:
            return f"{OPEN}\n\n{CLOSE}\n\n{self.answer}" if empty_pair else self.answer
        return f"{OPEN}\n{self.reasoning}\n{CLOSE}\n\n{self.answer}"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A reply taken apart. `answer` is None when the reply ended before one; `fault` names what is wrong with it."""

    reasoning: str | None
    answer: str | None
    fault: Fault | None = None

    @property
    def response(self) -> Response:
        """Raises ContractError when the reply has a fault that leaves nothing to train on."""
        if self.fault is not None or self.answer is None:
            raise ContractError(f"the reply cannot be rendered: {self.fault or 'missing_answer'}")
        return Response(self.reasoning, self.answer)


def parse_reply(
    raw: str, raw_reasoning: str | None, style: ReasoningFormat, *, forced_prefix: str = "", cut: bool = False
) -> Parsed:
    """Takes a reply apart by the teacher's `reasoning_format`.

    `forced_prefix` is what the prompt already put before the reply, so that the reply does not repeat it; `cut` says
    that the reply stopped at its token limit. A reasoning field counts in every style but `plain`, since servers
    switch between field and tags with one option. A reply without reasoning has no fault: whether its prompt wanted
    some is not known here.
    """
    if style == "plain":
        return _plain(raw)
    if style == "foreign":
        raw, raw_reasoning = canonical_tags(raw), canonical_tags(raw_reasoning or "").strip().removesuffix(CLOSE)
    if raw_reasoning is not None and raw_reasoning.strip():
        return _unwrap_answer(_fields(raw_reasoning, raw, cut), style)
    if style == "field" and OPEN not in raw and CLOSE not in raw:
        return _plain(raw)
    opened = OPEN in forced_prefix and CLOSE not in forced_prefix
    return _unwrap_answer(_tags(raw, opened=opened), style)


def canonical_tags(text: str) -> str:
    """Think and answer tags in place of the tags of Sky-T1, where those set off the parts of the text.

    Quoted ones stay as they are, and make the reply one with a leaked tag. So does everything in a text that has think
    tags of its own.
    """
    if OPEN in text or CLOSE in text:
        return text
    thought, closing, answer = text.partition(THOUGHT_CLOSE)
    if not closing:
        thought, answer = ("", text) if not text.lstrip().startswith(THOUGHT_OPEN) else (text, "")
    if thought.lstrip().startswith(THOUGHT_OPEN):
        thought = thought.replace(THOUGHT_OPEN, OPEN, 1)
    if answer.lstrip().startswith(SOLUTION_OPEN):
        answer = answer.replace(SOLUTION_OPEN, ANSWER_OPEN, 1)
        if answer.rstrip().endswith(SOLUTION_CLOSE):
            answer = answer.rstrip().removesuffix(SOLUTION_CLOSE) + ANSWER_CLOSE
    return thought + (CLOSE if closing else "") + answer


def _plain(raw: str) -> Parsed:
    answer = raw.strip()
    if not answer:
        return Parsed(None, None, "missing_answer")
    return Parsed(None, answer, "leaked_tag" if _CONTROL.search(answer) else None)


def _fields(reasoning: str, content: str, cut: bool) -> Parsed:
    reasoning, answer = reasoning.strip(), content.strip()
    reasoning = reasoning.removeprefix(OPEN).lstrip()  # a server without the prompt's prefix echoes the opening tag
    if _CONTROL.search(reasoning) or _CONTROL.search(answer):
        return Parsed(reasoning or None, answer or None, "leaked_tag")
    if not answer:
        return Parsed(reasoning or None, None, "missing_close" if cut else "missing_answer")
    return Parsed(reasoning or None, answer)


def _tags(raw: str, *, opened: bool) -> Parsed:
    """The first closing tag ends the reasoning, as in vLLM's `deepseek_r1` parser; an opening tag is optional.

    One at the very start does no harm even behind a forced prefix: some servers echo the prefix in the reply.
    """
    text = raw.strip()
    head = text.startswith(OPEN)
    body = text.removeprefix(OPEN)
    if CLOSE not in body:
        if opened or head:
            return Parsed(body.strip() or None, None, "missing_close")
        return _plain(text)
    reasoning, answer = (part.strip() for part in body.split(CLOSE, 1))
    if OPEN in reasoning:
        return Parsed(reasoning or None, answer or None, "doubled_tag")
    if _CONTROL.search(reasoning) or _CONTROL.search(answer):
        return Parsed(reasoning or None, answer or None, "leaked_tag")
    if not answer:
        return Parsed(reasoning or None, None, "missing_answer")
    return Parsed(reasoning or None, answer)


def _unwrap_answer(parsed: Parsed, style: ReasoningFormat) -> Parsed:
    """R1-Zero's format: the answer stands between answer tags; text around them is not part of it.

    Foreign replies may have that format: those whose answer begins so.
    """
    if parsed.answer is None or parsed.fault is not None:
        return parsed
    if style != "r1-zero" and not (style == "foreign" and parsed.answer.startswith(ANSWER_OPEN)):
        return parsed
    _, opening, rest = parsed.answer.partition(ANSWER_OPEN)
    inside, closing, _ = rest.partition(ANSWER_CLOSE)
    if not opening or not closing:
        return Parsed(parsed.reasoning, parsed.answer, "missing_answer_tag")
    if parsed.answer.count(ANSWER_OPEN) > 1 or parsed.answer.count(ANSWER_CLOSE) > 1:
        return Parsed(parsed.reasoning, parsed.answer, "doubled_tag")
    return Parsed(parsed.reasoning, inside.strip() or None, None if inside.strip() else "missing_answer")


def parse_canonical(text: str) -> Response:
    """The inverse of `Response.render`. Raises ContractError for anything that is not canonical text."""
    reasoning, answer = None, text
    if text.startswith(OPEN):
        reasoning, closing, answer = text.removeprefix(f"{OPEN}\n").partition(f"\n{CLOSE}\n\n")
        if not closing:
            raise ContractError(f"canonical text opens with {OPEN} and never closes it", given=repr(text[:80]))
    response = Response(reasoning, answer)
    if text not in (response.render(), response.render(empty_pair=True)):
        raise ContractError("the text is not canonical: white space is missing or too much", given=repr(text[:80]))
    return response


# --- what a server makes of a reply ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """The two fields of a chat completion's message, as they are sent: white space included, None for null."""

    reasoning: str | None
    content: str | None


def served(text: str, *, parser: bool = True) -> Served:
    """What vLLM 0.32 answers with when a model wrote `text`; not the streaming form, which goes by tokens.

    With `--reasoning-parser deepseek_r1` (`DeepSeekR1ReasoningParser.extract_reasoning`) everything up to the first
    opening tag is dropped, the first closing tag behind it ends the reasoning, and a text that never closes it is
    reasoning as a whole: of a student that answers without tags nothing would arrive as content. A prompt that ends
    with `<think>` changes nothing, since the opening tag may be missing. Without a parser all is content, and where
    the prompt held the opening tag the content has the closing one alone. A test in vLLM's environment holds this
    function equal to vLLM's.
    """
    if not parser:
        return Served(None, text)
    before, opening, behind = text.partition(OPEN)
    reasoning, closing, content = (behind if opening else before).partition(CLOSE)
    return Served(reasoning, content or None) if closing else Served(reasoning, None)


# --- templates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Template:
    """A chat format: what opens a text, the header of each role's turn, and what ends the turns.

    `close` ends a system or user turn, `stop` is the token that ends the assistant's, `after` follows it.
    """

    name: str
    bos: str
    system: str
    user: str
    assistant: str
    close: str
    stop: str
    after: str

    def jinja(self, forced_prefix: str) -> str:
        """The Jinja source saved with a student: keeps the reasoning, adds no system prompt of its own, and puts
        `forced_prefix` behind the assistant's header for generation, as it was in training."""
        quote = _jinja_string
        return (
            "{#- distill: no default system prompt; assistant turns are kept whole -#}\n"
            + (f"{{{{- {quote(self.bos)} }}}}\n" if self.bos else "")
            + "{%- for message in messages -%}\n"
            + "{%- if message['role'] == 'system' -%}\n"
            + f"{{{{- {quote(self.system)} + message['content'] + {quote(self.close)} }}}}\n"
            + "{%- elif message['role'] == 'user' -%}\n"
            + f"{{{{- {quote(self.user)} + message['content'] + {quote(self.close)} }}}}\n"
            + "{%- elif message['role'] == 'assistant' -%}\n"
            + f"{{{{- {quote(self.assistant)} + message['content'] + {quote(self.stop + self.after)} }}}}\n"
            + "{%- else -%}\n{{- raise_exception('unknown role ' + message['role']) }}\n{%- endif -%}\n"
            + "{%- endfor -%}\n"
            + "{%- if add_generation_prompt -%}\n"
            + f"{{{{- {quote(self.assistant + forced_prefix)} }}}}\n"
            + "{%- endif -%}\n"
        )


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        # deepseek-ai/DeepSeek-R1 tokenizer_config.json: the system text stands bare behind the BOS token.
        Template(
            "deepseek-r1",
            "<｜begin▁of▁sentence｜>",
            "",
            "<｜User｜>",
            "<｜Assistant｜>",
            "",
            "<｜end▁of▁sentence｜>",
            "",
        ),
        # Qwen2.5 and SmolLM2, without the default system prompt of either; no BOS token.
        Template(
            "chatml",
            "",
            "<|im_start|>system\n",
            "<|im_start|>user\n",
            "<|im_start|>assistant\n",
            "<|im_end|>\n",
            "<|im_end|>",
            "\n",
        ),
        # meta-llama/Llama-3.1-8B-Instruct, without its date lines.
        Template(
            "llama3",
            "<|begin_of_text|>",
            "<|start_header_id|>system<|end_header_id|>\n\n",
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
            "<|eot_id|>",
            "",
        ),
    )
}


def _jinja_string(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


@functools.lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)


@functools.lru_cache(maxsize=32)
def _compiled_foreign(source: str) -> jinja2.Template:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)


def _refuse(message: str) -> None:
    raise ContractError(f"the chat template refuses the messages: {message}")


def render_template(source: str, messages: Sequence[Message], *, bos: str = "", eos: str = "") -> str:
    """The prompt that any model's chat template makes of messages, under the conventions of transformers.

    Raises ContractError when the template is broken or refuses the messages.
    """
    import jinja2

    try:
        return _compiled_foreign(source).render(
            messages=list(messages), add_generation_prompt=True, bos_token=bos, eos_token=eos
        )
    except jinja2.TemplateError as error:
        raise ContractError(f"the chat template cannot be rendered: {error}") from error


# --- a student's contract ----------------------------------------------------------------------------------------


class Encoder(Protocol):
    """The part of a Hugging Face tokenizer that the contract uses."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class BatchEncoder(Protocol):
    """The same for many texts at once, which the tokenizer shares out among the processor's cores."""

    def __call__(
        self, text: list[str], *, add_special_tokens: bool, return_attention_mask: bool, verbose: bool
    ) -> Mapping[str, list[list[int]]]: ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one training text; the loss covers `ids[loss_start:]`: the tags, the response, the stop token."""

    ids: list[int]
    loss_start: int


@dataclass(frozen=True, slots=True)
class Contract:
    """How a student is talked to, in training, evaluation and serving alike.

    `forced_prefix` stands behind the assistant's header at generation (`<think>\\n` for a student that always
    reasons; it learns the tag too), `instruction` is added to the user's message by the prompt's kind, and
    `system` is None for R1's students, as R1's model card asks.
    """

    template: str
    forced_prefix: str = ""
    instruction: Mapping[str, str] | None = None
    system: str | None = None

    @property
    def _template(self) -> Template:
        return TEMPLATES[self.template]

    @property
    def stop(self) -> str:
        return self._template.stop

    @property
    def chat_template(self) -> str:
        return self._template.jinja(self.forced_prefix)

    @property
    def hash(self) -> str:
        """16 hex digits over all that decides the text a student sees and must write, canonical form included."""
        responses = [Response("reasoning", "answer"), Response(None, "answer")]
        return sha256_of(
            {
                "chat_template": self.chat_template,
                "forced_prefix": self.forced_prefix,
                "instruction": {kind: text for kind, text in (self.instruction or {}).items() if text},
                "system": self.system or None,
                "responses": [r.render(empty_pair=bool(self.forced_prefix)) + self.stop for r in responses],
            }
        )[:16]

    def messages(self, question: str, kind: str) -> list[Message]:
        """The messages of one prompt; the instruction for its kind follows the question after an empty line."""
        return prompt_messages(question, kind, self.instruction, self.system)

    def render_prompt(self, messages: Sequence[Message]) -> str:
        """The text a server would build from these messages before it generates, forced prefix included."""
        return _compiled(self.chat_template).render(messages=list(messages), add_generation_prompt=True)

    def render_response(self, response: Response) -> str:
        """What follows the assistant's header in training, stop token included."""
        text = response.render(empty_pair=bool(self.forced_prefix))
        if not text.startswith(self.forced_prefix):
            raise ContractError("the response does not start with the forced prefix", given=repr(text[:80]))
        return text + self.stop

    def parse(self, generated: str, *, cut: bool = False) -> Parsed:
        """What a generated continuation (without forced prefix and stop token) means."""
        return parse_reply(generated, None, "tags", forced_prefix=self.forced_prefix, cut=cut)

    def encode_prompt(self, tokenizer: Encoder, messages: Sequence[Message]) -> list[int]:
        """Token ids of the prompt. The text already holds its BOS token, so none is added: no double BOS."""
        return tokenizer.encode(self.render_prompt(messages), add_special_tokens=False)

    def encode(self, tokenizer: Encoder, messages: Sequence[Message], response: Response) -> Encoded:
        """Token ids of a whole training text.

        The header with its prefix and what follows are encoded apart, because at generation the server encodes
        the former alone: the ids seen in training are those met when serving.
        """
        (encoded,) = self._encoded(
            [(messages, response)], lambda texts: [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        )
        return encoded

    def encode_batch(
        self, tokenizer: BatchEncoder, items: Sequence[tuple[Sequence[Message], Response]]
    ) -> list[Encoded]:
        """What `encode` makes of each pair of messages and response, by the tokenizer's batch call."""

        def ids(texts: list[str]) -> list[list[int]]:
            # verbose: a warning for every batch with a text longer than the tokenizer's model_max_length
            return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]

        return self._encoded(items, ids)

    def _encoded(
        self,
        items: Sequence[tuple[Sequence[Message], Response]],
        ids_of: Callable[[list[str]], list[list[int]]],
    ) -> list[Encoded]:
        (prefix,) = ids_of([self.forced_prefix]) if self.forced_prefix else ([],)
        prompts = [self.render_prompt(messages) for messages, _ in items]
        rests = [self.render_response(response)[len(self.forced_prefix) :] for _, response in items]
        ids = ids_of(prompts + rests)
        found = []
        for prompt, rest in zip(ids[: len(items)], ids[len(items) :], strict=True):
            if prefix and prompt[-len(prefix) :] != prefix:
                what = "the tokenizer merges the forced prefix with the assistant's header"
                raise ContractError(what, given=self.template)
            found.append(Encoded(prompt + rest, len(prompt) - len(prefix)))
        return found


def prompt_messages(
    question: str, kind: str, instruction: Mapping[str, str] | None, system: str | None
) -> list[Message]:
    """Messages for one question, the same for teachers and students: system only if there is one, never a default."""
    suffix = (instruction or {}).get(kind)
    content = f"{question}\n\n{suffix}" if suffix else question
    system_part: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*system_part, {"role": "user", "content": content}]


def tokenizer_contract_faults(tokenizer: Any, contract: Contract, *, thinks: bool) -> list[str]:
    """What keeps a tokenizer from serving the contract; empty when all is well.

    Checked: think tags and the stop token are one known token each, the tokenizer ends texts with the stop token, the
    pad token is another one, and the text's own BOS token is the only one.
    """
    faults = []
    single = [contract.stop, *((OPEN, CLOSE) if thinks else ())]
    for token in single:
        ids = tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            faults.append(f"{token} is {len(ids)} tokens, not one")
        elif ids[0] == tokenizer.unk_token_id:
            faults.append(f"{token} is unknown to the tokenizer")
    if tokenizer.eos_token != contract.stop:
        faults.append(f"the tokenizer's end token is {tokenizer.eos_token}, the template's {contract.stop}")
    if tokenizer.pad_token_id is None:
        faults.append("there is no pad token")
    elif tokenizer.pad_token in (contract.stop, tokenizer.eos_token):
        faults.append(f"the pad token {tokenizer.pad_token} is the stop token, which would never be trained")
    bos = TEMPLATES[contract.template].bos
    ids = contract.encode_prompt(tokenizer, [{"role": "user", "content": "x"}])
    if bos and len(ids) > 1 and ids[0] == ids[1]:
        faults.append(f"the text starts with {bos} twice")
    return faults
