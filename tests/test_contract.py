"""The text contract: parsing of every reply format, canonical text, templates, encoding, tokenizer faults, its hash."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill import contract
from distill.contract import (
    TEMPLATES,
    Contract,
    Parsed,
    ReasoningFormat,
    Response,
    parse_canonical,
    parse_reply,
    prompt_messages,
    tokenizer_contract_faults,
)
from distill.errors import ContractError

BUILD_TEACHER = Path(__file__).parents[1] / "benchmarks" / "build_tiny_r1.py"
THINK = "<think>\n"
NO_THINK = "<think>\n\n</think>\n\n"
STYLES: tuple[ReasoningFormat, ...] = ("field", "tags", "r1-zero", "plain", "foreign")

PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "<think", "think>", "</thi", "nk>", "\n", "\n\n", " ", "\t",
    "\u3000", "\x1f", "\u2028", "\r\n", "```\n<think>\n```", "`</think>`", "<|im_end|>", "<|", "|>",
    "<｜end▁of▁sentence｜>", "42", "\\boxed{42}", "é", "e\u0301", "思考", "🧮", "\u200b", "\x00",
    "&lt;think&gt;", "<THINK>",
)  # fmt: skip
adversarial = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=10).map("".join)
"""Texts built from tags, halves of tags, other control tokens, white space of all kinds and anything else."""


def rendered(reasoning: str | None, answer: str) -> Response | None:
    """The response, or None where the contract rightly refuses it."""
    try:
        return Response(reasoning, answer)
    except ContractError:
        quoted = f"{reasoning} {answer}"
        assert re.search(r"</?think>|<\|[^<>|\s]+\|>|<｜[^<>｜\s]+｜>", quoted), f"refused without cause: {quoted!r}"
        return None


# --- responses and canonical text ------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.none() | adversarial, adversarial)
@example(None, "")
@example("", "a")
@example("a", "")
@example(" \n", "\n a \n")
@example("use ```\n<think>\n``` here", "a")
@example("ends with <think", "> starts so")
def test_what_can_be_rendered_is_parsed_back_exactly(reasoning: str | None, answer: str) -> None:
    response = rendered(reasoning, answer)
    if response is None:
        return
    assert parse_canonical(response.render()) == response
    assert parse_canonical(response.render(empty_pair=True)) == response
    if response.answer:
        parsed = Parsed(response.reasoning, response.answer)
        assert parse_reply(response.render(), None, "tags") == parsed
        assert parse_reply(response.render(empty_pair=True), None, "tags") == parsed


@settings(max_examples=200, deadline=None)
@given(st.none() | adversarial, adversarial.filter(str.strip), st.sampled_from(sorted(TEMPLATES)))
def test_a_contract_parses_what_it_trains_on(reasoning: str | None, answer: str, template: str) -> None:
    response = rendered(reasoning, answer)
    if response is None or not response.answer:
        return
    for prefix in ("", THINK, "<think>"):
        student = Contract(template, forced_prefix=prefix)
        trained = student.render_response(response)
        assert trained.startswith(prefix)
        assert trained.endswith(student.stop)
        generated = trained.removeprefix(prefix).removesuffix(student.stop)
        assert student.parse(generated).response == response


@settings(max_examples=300, deadline=None)
@given(adversarial, st.none() | adversarial, st.sampled_from(STYLES), st.sampled_from(["", THINK]), st.booleans())
def test_a_reply_without_fault_can_always_be_trained_on(
    raw: str, field: str | None, style: ReasoningFormat, prefix: str, cut: bool
) -> None:
    parsed = parse_reply(raw, field, style, forced_prefix=prefix, cut=cut)
    if parsed.fault is None:
        response = parsed.response
        assert (response.reasoning, response.answer) == (parsed.reasoning, parsed.answer)
        assert parse_canonical(response.render()) == response
    else:
        with pytest.raises(ContractError, match=parsed.fault):
            _ = parsed.response
    assert parsed.reasoning != ""
    assert parsed.answer != ""


@pytest.mark.parametrize(
    ("reasoning", "answer", "found"),
    [
        ("in a block:\n```\n<think>\n```", "a", "<think>"),
        ("and `</think>` too", "a", "</think>"),
        ("r", "the tag <think> opens", "<think>"),
        ("r", "</think>", "</think>"),
        ("r", "done<|im_end|> and on", "<|im_end|>"),
        ("r <｜User｜> more", "a", "<｜User｜>"),
        (None, "<|eot_id|>", "<|eot_id|>"),
        (None, "<|fim_pad|>", "<|fim_pad|>"),
    ],
)
def test_control_tokens_inside_a_response_are_refused(reasoning: str | None, answer: str, found: str) -> None:
    with pytest.raises(ContractError, match=re.escape(f"contains {found}")):
        Response(reasoning, answer)


@pytest.mark.parametrize(
    "text", ["a <| b", "x |> f <| y", "<||>", "a < b > c", "<THINK>", "<think", "< think >", "<|a b|>"]
)
def test_harmless_texts_are_not_refused(text: str) -> None:
    assert Response(text, text).render() == f"<think>\n{text}\n</think>\n\n{text}"


def test_canonical_text_is_exactly_as_designed() -> None:
    assert Response(" r\n\nr ", "\na ").render() == "<think>\nr\n\nr\n</think>\n\na"
    assert Response(None, "a").render() == "a"
    assert Response(" \n", "a").render() == "a"
    assert Response(None, "a").render(empty_pair=True) == "<think>\n\n</think>\n\na"
    assert Response("r", "a").render(empty_pair=True) == "<think>\nr\n</think>\n\na"


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nr",
        "<think>r</think>a",
        "<think>\nr\n</think>\na",
        "<think>\nr\n</think>\n\n a",
        "<think>\n r\n</think>\n\na",
        "<think>\nr\n</think>\n\na\n",
        " a",
        "a </think> b",
        "<think>\n<think>\nr\n</think>\n\na",
        "<think>\nr\n</think>\n\na\n</think>\n\nb",
    ],
)
def test_what_is_not_canonical_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        parse_canonical(text)


# --- replies in every format -----------------------------------------------------------------------------------------

PLAIN = [
    ("42", Parsed(None, "42")),
    (" \n42 ", Parsed(None, "42")),
    ("", Parsed(None, None, "missing_answer")),
    ("  \n", Parsed(None, None, "missing_answer")),
    ("<think>\nr\n</think>\n\n42", Parsed(None, "<think>\nr\n</think>\n\n42", "leaked_tag")),
    ("```\n</think>\n```", Parsed(None, "```\n</think>\n```", "leaked_tag")),
    ("42<|im_end|>", Parsed(None, "42<|im_end|>", "leaked_tag")),
]
TAGS = [
    ("<think>\nr\n</think>\n\n42", Parsed("r", "42")),
    ("<think>r</think>42", Parsed("r", "42")),
    ("  \n<think>\n\nr\n\n</think>\n\n\n42\n", Parsed("r", "42")),
    ("r\n</think>\n\n42", Parsed("r", "42")),  # a template that opened the tag without the spec saying so
    ("42", Parsed(None, "42")),
    ("<think>\n\n</think>\n\n42", Parsed(None, "42")),
    ("</think>42", Parsed(None, "42")),
    ("<think>\nr", Parsed("r", None, "missing_close")),
    ("<think>", Parsed(None, None, "missing_close")),
    ("<think>\nr\n</think>\n\n", Parsed("r", None, "missing_answer")),
    ("</think>", Parsed(None, None, "missing_answer")),
    ("<think>\n<think>\nr\n</think>\n\n42", Parsed("<think>\nr", "42", "doubled_tag")),
    ("Sure! <think>\nr\n</think>\n\n42", Parsed("Sure! <think>\nr", "42", "doubled_tag")),
    ("<think>\nr\n</think>\n\n42</think>", Parsed("r", "42</think>", "leaked_tag")),
    ("<think>\nr\n</think>\n\n<think>again</think>42", Parsed("r", "<think>again</think>42", "leaked_tag")),
    ("<think>\nsay `</think>`\n</think>\n\n42", Parsed("say `", "`\n</think>\n\n42", "leaked_tag")),
    ("42 <think>", Parsed(None, "42 <think>", "leaked_tag")),
    ("<think>\nr <｜User｜>\n</think>\n\n42", Parsed("r <｜User｜>", "42", "leaked_tag")),
    ("<think>\nr\n</think>\n\n42<｜end▁of▁sentence｜>", Parsed("r", "42<｜end▁of▁sentence｜>", "leaked_tag")),
    ("", Parsed(None, None, "missing_answer")),
    ("<think>\nr\n</think>\n\n<answer>42</answer>", Parsed("r", "<answer>42</answer>")),
]
OPENED = [
    ("r\n</think>\n\n42", Parsed("r", "42")),
    ("\n</think>\n\n42", Parsed(None, "42")),
    ("r and more", Parsed("r and more", None, "missing_close")),
    ("", Parsed(None, None, "missing_close")),
    ("r\n</think>", Parsed("r", None, "missing_answer")),
    ("<think>\nr\n</think>\n\n42", Parsed("r", "42")),
    ("so <think>\nr\n</think>\n\n42", Parsed("so <think>\nr", "42", "doubled_tag")),
    ("<think>\nr", Parsed("r", None, "missing_close")),
]
R1_ZERO = [
    ("<think>r</think><answer>42</answer>", Parsed("r", "42")),
    ("<think>\nr\n</think>\n<answer>\n42\n</answer>\n", Parsed("r", "42")),
    ("<think>r</think> So: <answer>42</answer> Done.", Parsed("r", "42")),
    ("<answer>42</answer>", Parsed(None, "42")),
    ("<think>r</think>42", Parsed("r", "42", "missing_answer_tag")),
    ("<think>r</think><answer>42", Parsed("r", "<answer>42", "missing_answer_tag")),
    ("<think>r</think>42</answer>", Parsed("r", "42</answer>", "missing_answer_tag")),
    ("<think>r</think></answer>42<answer>", Parsed("r", "</answer>42<answer>", "missing_answer_tag")),
    ("<think>r</think><answer> </answer>", Parsed("r", None, "missing_answer")),
    ("<think>r</think><answer>1</answer><answer>2</answer>",
     Parsed("r", "<answer>1</answer><answer>2</answer>", "doubled_tag")),
    ("<think>r</think><answer><answer>1</answer>", Parsed("r", "<answer><answer>1</answer>", "doubled_tag")),
    ("<think>write <answer>1</answer> there</think><answer>2</answer>",
     Parsed("write <answer>1</answer> there", "2")),
    ("<think>r <answer>42</answer>", Parsed("r <answer>42</answer>", None, "missing_close")),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "parsed"), PLAIN)
def test_plain_replies(raw: str, parsed: Parsed) -> None:
    assert parse_reply(raw, None, "plain") == parsed
    assert parse_reply(raw, "a field nobody asked for", "plain") == parsed


@pytest.mark.parametrize(("raw", "parsed"), TAGS)
def test_replies_with_tags(raw: str, parsed: Parsed) -> None:
    assert parse_reply(raw, None, "tags") == parsed
    assert parse_reply(raw, "", "tags") == parsed
    assert parse_reply(raw, " \n", "tags") == parsed


@pytest.mark.parametrize(("raw", "parsed"), OPENED)
def test_replies_behind_a_prompt_that_opened_the_tag(raw: str, parsed: Parsed) -> None:
    assert parse_reply(raw, None, "tags", forced_prefix=THINK) == parsed
    assert Contract("chatml", forced_prefix=THINK).parse(raw) == parsed


def test_a_prompt_that_opened_and_closed_the_tag_leaves_the_answer_alone() -> None:
    student = Contract("chatml", forced_prefix=NO_THINK)
    assert student.parse("42") == Parsed(None, "42")
    assert student.render_response(Response(None, "42")) == f"{NO_THINK}42<|im_end|>"
    with pytest.raises(ContractError, match="does not start with the forced prefix"):
        student.render_response(Response("r", "42"))


@pytest.mark.parametrize(("raw", "parsed"), R1_ZERO)
def test_replies_of_r1_zero(raw: str, parsed: Parsed) -> None:
    assert parse_reply(raw, None, "r1-zero") == parsed


@pytest.mark.parametrize(
    ("reasoning", "raw", "cut", "parsed"),
    [
        ("r", "42", False, Parsed("r", "42")),
        ("\n r\n", "\n\n42 ", False, Parsed("r", "42")),
        ("<think>\nr", "42", False, Parsed("r", "42")),
        ("<think>\n", "42", False, Parsed(None, "42")),
        ("r", "", False, Parsed("r", None, "missing_answer")),
        ("r", " \n", True, Parsed("r", None, "missing_close")),
        ("r</think>", "42", False, Parsed("r</think>", "42", "leaked_tag")),
        ("r <think> r", "42", False, Parsed("r <think> r", "42", "leaked_tag")),
        ("r", "</think>\n\n42", False, Parsed("r", "</think>\n\n42", "leaked_tag")),
        ("r", "<think>again</think>42", False, Parsed("r", "<think>again</think>42", "leaked_tag")),
        ("r<|im_end|>", "42", False, Parsed("r<|im_end|>", "42", "leaked_tag")),
    ],
)
def test_replies_with_a_reasoning_field(reasoning: str, raw: str, cut: bool, parsed: Parsed) -> None:
    assert parse_reply(raw, reasoning, "field", cut=cut) == parsed
    assert parse_reply(raw, reasoning, "tags", cut=cut) == parsed, "a server may switch to fields"
    assert parse_reply(raw, reasoning, "field", cut=cut, forced_prefix=THINK) == parsed


@pytest.mark.parametrize(
    ("raw", "cut", "parsed"),
    [
        ("<think>\nr\n</think>\n\n42", False, Parsed("r", "42")),
        ("r\n</think>\n\n42", False, Parsed("r", "42")),
        ("<think>\nr and", True, Parsed("r and", None, "missing_close")),
        ("42", False, Parsed(None, "42")),
        ("", False, Parsed(None, None, "missing_answer")),
        ("", True, Parsed(None, None, "missing_answer")),
    ],
)
@pytest.mark.parametrize("field", [None, "", "\n"])
def test_a_field_teacher_whose_server_sends_tags_instead(
    raw: str, cut: bool, parsed: Parsed, field: str | None
) -> None:
    assert parse_reply(raw, field, "field", cut=cut) == parsed


THOUGHT = "<|begin_of_thought|>\n\nr\n\n<|end_of_thought|>"
SOLUTION = "<|begin_of_solution|>\n\n42\n\n<|end_of_solution|>"


@pytest.mark.parametrize(
    ("reasoning", "raw", "parsed"),
    [
        (None, f"{THOUGHT}\n\n{SOLUTION}", Parsed("r", "42")),
        (None, f" \n{THOUGHT}{SOLUTION}\n", Parsed("r", "42")),
        (None, f"{THOUGHT}\n\n42", Parsed("r", "42")),
        (None, f"r<|end_of_thought|>{SOLUTION}", Parsed("r", "42")),
        (None, SOLUTION, Parsed(None, "42")),
        (None, "<|begin_of_thought|>\n\nr and", Parsed("r and", None, "missing_close")),
        (None, f"{THOUGHT}\n\n<|begin_of_solution|>\n\n42 a", Parsed("r", "<answer>\n\n42 a", "missing_answer_tag")),
        (None, THOUGHT, Parsed("r", None, "missing_answer")),
        (None, f"{THOUGHT}{THOUGHT}42", Parsed("r", f"{THOUGHT}42", "leaked_tag")),
        (None, f"<|begin_of_thought|>{THOUGHT}42", Parsed("<|begin_of_thought|>\n\nr", "42", "leaked_tag")),
        (None, "<think>r <|end_of_thought|> r</think>42", Parsed("r <|end_of_thought|> r", "42", "leaked_tag")),
        (None, f"<think>{SOLUTION}</think>42", Parsed(SOLUTION, "42", "leaked_tag")),
        (None, f"42 and {SOLUTION}", Parsed(None, f"42 and {SOLUTION}", "leaked_tag")),
        (None, "<think>r\n</think>\n<answer>\n42\n</answer>", Parsed("r", "42")),
        (None, "<think>r</think>42", Parsed("r", "42")),
        (None, "r</think>42", Parsed("r", "42")),
        (None, "<think>r", Parsed("r", None, "missing_close")),
        (None, "42", Parsed(None, "42")),
        (None, "<think>r</think>\nuse <answer> and </answer>", Parsed("r", "use <answer> and </answer>")),
        (None, "<think>r</think><answer>42", Parsed("r", "<answer>42", "missing_answer_tag")),
        ("r", "42", Parsed("r", "42")),
        ("<think>\nr\n</think>\n", "<answer>42</answer>", Parsed("r", "42")),
        (THOUGHT, SOLUTION, Parsed("r", "42")),
    ],
)
def test_foreign_tags_are_read_as_ours(reasoning: str | None, raw: str, parsed: Parsed) -> None:
    assert parse_reply(raw, reasoning, "foreign") == parsed


def test_r1_zero_behind_a_reasoning_parser_still_unwraps_the_answer() -> None:
    assert parse_reply("<answer>42</answer>", "r", "r1-zero") == Parsed("r", "42")
    assert parse_reply("42", "r", "r1-zero") == Parsed("r", "42", "missing_answer_tag")
    assert parse_reply("<answer>42</answer>", "r", "field") == Parsed("r", "<answer>42</answer>")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 30))
def test_a_reply_cut_anywhere_before_its_answer_has_a_fault(length: int) -> None:
    whole = "<think>\nfirst this, then that\n</think>\n\n\\boxed{42}"
    parsed = parse_reply(whole[:length], None, "tags", cut=True)
    if length >= 7:
        assert (parsed.answer, parsed.fault) == (None, "missing_close")
    assert parse_reply(whole[8 : 8 + length], None, "tags", forced_prefix=THINK, cut=True).answer is None


# --- templates -------------------------------------------------------------------------------------------------------

INSTRUCTION = {"math": contract.STEP_BY_STEP}


def test_messages_carry_the_instruction_of_their_kind_and_no_system_prompt_by_default() -> None:
    student = Contract("chatml", instruction=INSTRUCTION)
    assert student.messages("1+1?", "math") == [{"role": "user", "content": f"1+1?\n\n{contract.STEP_BY_STEP}"}]
    assert student.messages("hello", "open") == [{"role": "user", "content": "hello"}]
    assert prompt_messages("q", "open", None, "be brief") == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q"},
    ]


def test_rendered_prompts_are_those_of_the_published_templates() -> None:
    """deepseek-ai/DeepSeek-R1-Distill-Qwen-7B, Qwen2.5 and Llama-3.1, by hand."""
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert Contract("deepseek-r1", THINK).render_prompt(messages) == (
        "<｜begin▁of▁sentence｜>S<｜User｜>U<｜Assistant｜><think>\n"
    )
    assert Contract("chatml").render_prompt(messages) == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    assert Contract("llama3").render_prompt(messages) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ContractError, match="unknown role tool"):
        Contract("chatml").render_prompt([{"role": "tool", "content": "x"}])


@pytest.fixture(scope="module")
def tiny_tokenizer() -> Any:
    """The embedded teacher's tokenizer, trained on few texts: a real one, small."""
    spec = importlib.util.spec_from_file_location("build_tiny_r1", BUILD_TEACHER)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CORPUS = 200
    return module.build_tokenizer()


CONTROL = {
    "deepseek-r1": ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
}


def tokenizer_for(tiny: Any, template: str) -> Any:
    """The tiny tokenizer with a template's control tokens, its stop token as eos and a pad token of its own."""
    tokenizer = copy.deepcopy(tiny)
    tokenizer.add_tokens(list(CONTROL[template]), special_tokens=True)
    tokenizer.eos_token = TEMPLATES[template].stop
    return tokenizer


CONVERSATIONS: Sequence[list[dict[str, str]]] = (
    [{"role": "user", "content": "How many?"}],
    [{"role": "user", "content": "  white space stays \n"}],
    [{"role": "user", "content": "{{ 1+1 }} {% raw %} \\n 'quoted' \"twice\""}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "思考? é 🧮"}],
    [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\nr\n</think>\n\n2"},
        {"role": "user", "content": "And 2+2?"},
    ],
)


@pytest.mark.parametrize("prefix", ["", THINK])
@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_the_saved_chat_template_renders_what_the_contract_renders(
    tiny_tokenizer: Any, template: str, prefix: str
) -> None:
    student = Contract(template, forced_prefix=prefix)
    tokenizer = tokenizer_for(tiny_tokenizer, template)
    tokenizer.chat_template = student.chat_template
    for messages in CONVERSATIONS:
        ours = student.render_prompt(messages)
        assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == ours
        assert ours.endswith(TEMPLATES[template].assistant + prefix)
        served = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
        assert student.encode_prompt(tokenizer, messages) == served


@pytest.mark.parametrize("prefix", ["", THINK])
@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_a_whole_conversation_is_prompt_and_trained_response(tiny_tokenizer: Any, template: str, prefix: str) -> None:
    student = Contract(template, forced_prefix=prefix)
    tokenizer = tokenizer_for(tiny_tokenizer, template)
    tokenizer.chat_template = student.chat_template
    question = student.messages("1+1?", "math")
    for response in (Response("one and one\n\nmake two", "\\boxed{2}"), Response(None, "2")):
        content = response.render(empty_pair=bool(prefix))
        answered = [*question, {"role": "assistant", "content": content}]
        whole = tokenizer.apply_chat_template(answered, tokenize=False)
        prompt = student.render_prompt(question).removesuffix(prefix)
        assert whole == prompt + student.render_response(response) + TEMPLATES[template].after


@pytest.mark.parametrize("prefix", ["", "<think>", THINK])
@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_training_ids_start_with_the_served_prompt_and_the_loss_covers_tag_to_stop(
    tiny_tokenizer: Any, template: str, prefix: str
) -> None:
    student = Contract(template, forced_prefix=prefix)
    tokenizer = tokenizer_for(tiny_tokenizer, template)
    tokenizer.chat_template = student.chat_template
    messages = student.messages("Maya has 48 apples.", "math")
    response = Response("Start with 48 apples.", "Maya has \\boxed{48} apples.")
    encoded = student.encode(tokenizer, messages, response)
    served = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert encoded.ids[: len(served)] == served
    loss = encoded.ids[encoded.loss_start :]
    assert loss[0] == tokenizer.convert_tokens_to_ids("<think>")
    assert loss[-1] == tokenizer.convert_tokens_to_ids(student.stop)
    assert loss.count(loss[-1]) == 1
    assert tokenizer.decode(loss) == student.render_response(response)
    assert response.reasoning is not None
    assert response.reasoning in tokenizer.decode(loss)
    headers = tokenizer.encode(student.render_prompt(messages).removesuffix(prefix), add_special_tokens=False)
    assert encoded.ids[: encoded.loss_start] == headers
    bos = TEMPLATES[template].bos
    if bos:
        assert encoded.ids.count(tokenizer.convert_tokens_to_ids(bos)) == 1
        assert encoded.ids[0] == tokenizer.convert_tokens_to_ids(bos)


def test_a_response_that_cannot_follow_the_forced_prefix_is_refused(tiny_tokenizer: Any) -> None:
    student = Contract("chatml", forced_prefix="Well, ")
    with pytest.raises(ContractError, match="does not start with the forced prefix"):
        student.encode(tokenizer_for(tiny_tokenizer, "chatml"), [{"role": "user", "content": "x"}], Response("r", "a"))


class Words:
    """An encoder whose tokens are whatever stands between spaces: it merges the prefix into the header."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [len(word) for word in text.split(" ")]


def test_a_tokenizer_that_merges_prefix_and_header_is_refused() -> None:
    with pytest.raises(ContractError, match="merges the forced prefix"):
        Contract("chatml", forced_prefix=THINK).encode(Words(), [{"role": "user", "content": "x"}], Response("r", "a"))


# --- the tokenizer's faults ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_a_fitting_tokenizer_has_no_faults(tiny_tokenizer: Any, template: str) -> None:
    student = Contract(template, forced_prefix=THINK)
    assert tokenizer_contract_faults(tokenizer_for(tiny_tokenizer, template), student, thinks=True) == []


def test_pad_equal_to_the_stop_token_is_a_fault(tiny_tokenizer: Any) -> None:
    tokenizer = tokenizer_for(tiny_tokenizer, "chatml")
    tokenizer.pad_token = "<|im_end|>"
    assert tokenizer_contract_faults(tokenizer, Contract("chatml"), thinks=True) == [
        "the pad token <|im_end|> is the stop token, which would never be trained"
    ]


def test_pad_equal_to_another_eos_is_a_fault(tiny_tokenizer: Any) -> None:
    tokenizer = tokenizer_for(tiny_tokenizer, "chatml")
    tokenizer.eos_token = tokenizer.pad_token
    faults = tokenizer_contract_faults(tokenizer, Contract("chatml"), thinks=True)
    assert faults == [
        f"the tokenizer's end token is {tokenizer.pad_token}, the template's <|im_end|>",
        f"the pad token {tokenizer.pad_token} is the stop token, which would never be trained",
    ]


def test_a_missing_pad_token_is_a_fault(tiny_tokenizer: Any) -> None:
    tokenizer = tokenizer_for(tiny_tokenizer, "chatml")
    tokenizer.pad_token = None
    assert tokenizer_contract_faults(tokenizer, Contract("chatml"), thinks=True) == ["there is no pad token"]


class Splitting:
    """A real tokenizer that does not know one token: it comes in pieces."""

    def __init__(self, tokenizer: Any, unknown: str) -> None:
        self.tokenizer, self.unknown = tokenizer, unknown

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        pieces: list[int] = []
        for index, part in enumerate(text.split(self.unknown)):
            for piece in ([self.unknown[:1], self.unknown[1:]] if index else []) + [part]:
                pieces += self.tokenizer.encode(piece, add_special_tokens=add_special_tokens)
        return pieces


@pytest.mark.parametrize("unknown", ["<think>", "</think>", "<|im_end|>"])
def test_a_split_tag_or_stop_token_is_a_fault(tiny_tokenizer: Any, unknown: str) -> None:
    tokenizer = Splitting(tokenizer_for(tiny_tokenizer, "chatml"), unknown)
    faults = tokenizer_contract_faults(tokenizer, Contract("chatml"), thinks=True)
    assert len(faults) == 1
    assert re.fullmatch(rf"{re.escape(unknown)} is \d+ tokens, not one", faults[0])


def test_a_student_that_does_not_think_may_split_the_tags(tiny_tokenizer: Any) -> None:
    tokenizer = Splitting(tokenizer_for(tiny_tokenizer, "chatml"), "<think>")
    assert tokenizer_contract_faults(tokenizer, Contract("chatml"), thinks=False) == []


class AlwaysBos:
    """A tokenizer that puts a BOS token before everything, asked or not."""

    def __init__(self, tokenizer: Any, bos: str) -> None:
        self.tokenizer, self.bos = tokenizer, tokenizer.convert_tokens_to_ids(bos)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return [self.bos, *ids] if len(ids) > 1 else ids


@pytest.mark.parametrize("template", ["deepseek-r1", "llama3"])
def test_a_doubled_bos_token_is_a_fault(tiny_tokenizer: Any, template: str) -> None:
    bos = TEMPLATES[template].bos
    tokenizer = AlwaysBos(tokenizer_for(tiny_tokenizer, template), bos)
    faults = tokenizer_contract_faults(tokenizer, Contract(template), thinks=True)
    assert faults == [f"the text starts with {bos} twice"]


# --- the hash --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "plain", "thinking"),
    [
        ("deepseek-r1", "36de79f7ae36092e", "5c9e7aeff53caada"),
        ("chatml", "c72d8344f427bc57", "b1fce94fa7b3c01f"),
        ("llama3", "5497e1705315ce0c", "0a132cd294d948cd"),
    ],
)
def test_the_hash_of_each_template_is_pinned(template: str, plain: str, thinking: str) -> None:
    """A change here makes every earlier run another contract: it has to be deliberate."""
    assert Contract(template).hash == plain
    assert Contract(template, THINK, INSTRUCTION).hash == thinking


def test_the_hash_changes_with_every_ingredient(monkeypatch: pytest.MonkeyPatch) -> None:
    base = Contract("chatml", THINK, INSTRUCTION, "be brief")
    changed = {
        "template": dataclasses.replace(base, template="llama3"),
        "prefix": dataclasses.replace(base, forced_prefix=""),
        "shorter prefix": dataclasses.replace(base, forced_prefix="<think>"),
        "instruction": dataclasses.replace(base, instruction={"math": "Think hard."}),
        "kind": dataclasses.replace(base, instruction={"open": contract.STEP_BY_STEP}),
        "no instruction": dataclasses.replace(base, instruction=None),
        "system": dataclasses.replace(base, system="be long"),
        "no system": dataclasses.replace(base, system=None),
    }
    hashes = {name: other.hash for name, other in changed.items()} | {"base": base.hash}
    assert len(set(hashes.values())) == len(hashes), hashes
    for name in ("bos", "system", "user", "assistant", "close", "stop", "after"):
        template = dataclasses.replace(TEMPLATES["chatml"], **{name: "<|other|>"})
        monkeypatch.setattr(contract, "TEMPLATES", {**TEMPLATES, "chatml": template})
        assert base.hash not in hashes.values(), name
    monkeypatch.setattr(contract, "TEMPLATES", TEMPLATES)
    assert base.hash == hashes["base"]


@pytest.mark.parametrize("name", ["OPEN", "CLOSE"])
def test_the_hash_covers_the_canonical_form(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    student = Contract("chatml")
    before = student.hash
    monkeypatch.setattr(contract, name, "<reason>")
    assert student.hash != before
    monkeypatch.undo()

    def tight(self: Response, *, empty_pair: bool = False) -> str:
        return f"<think>{self.reasoning}</think>{self.answer}"

    monkeypatch.setattr(Response, "render", tight)
    assert student.hash != before


def test_the_hash_ignores_what_changes_nothing() -> None:
    assert Contract("chatml", instruction={}).hash == Contract("chatml").hash
    assert Contract("chatml", instruction={"math": ""}).hash == Contract("chatml").hash
    assert Contract("chatml", system="").hash == Contract("chatml").hash
    one, other = {"math": "a", "open": "b"}, {"open": "b", "math": "a"}
    assert Contract("chatml", instruction=one).hash == Contract("chatml", instruction=other).hash
