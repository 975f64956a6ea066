"""The contract check: a sound student passes, and whatever is broken on purpose is found by its name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from vllm_server import CHECKOUT

from distill import specs
from distill.contract import CLOSE, OPEN, Contract, Encoded, Response, Served
from distill.errors import FAILED, ContractError
from distill.specs import StudentSpec
from distill.train import trace_check
from distill.train.check import Checked, check_contract, require
from distill.train.checking import Kept, rendered
from distill.train.findings import TODO, Name
from distill.train.student import generation_settings, name_tokens, save_contract_files, student_config
from distill.train.tokenizer import prepare_tokenizer
from distill.train.trace_check import Rendered
from train.material import spec
from train.test_student import CHATML, word_tokenizer

REPLIES = (
    Response("add 1 and 2\n\nso 3", "It is \\boxed{3}."),
    Response(None, "4"),
    Response("思考 é , it ' s so .", "5\n\n6 !"),
)
THINKING = spec()


def kept(replies: Sequence[Response] = REPLIES, *, empty_pair: bool = False) -> list[Kept]:
    return [
        Kept(f"trace-{number}", "math", "", f"How many {number}?", reply.render(empty_pair=empty_pair))
        for number, reply in enumerate(replies)
    ]


class Made:
    """A student's folder as training saves it, without weights, and traces as it trains on them."""

    def __init__(self, folder: Path, student: StudentSpec, traces: Sequence[Kept]) -> None:
        self.folder, self.student, self.contract = folder, student, student.contract
        self.tokenizer = prepare_tokenizer(student)
        config = student_config(student, self.tokenizer)
        name_tokens(config, self.tokenizer)
        generation = generation_settings(self.tokenizer)
        save_contract_files(config, generation, self.tokenizer, self.contract, folder, facts={})
        self.examples = rendered(self.contract, self.tokenizer, traces)

    def check(self, examples: Sequence[Rendered] | None = None, contract: Contract | None = None) -> Checked:
        chosen = self.examples if examples is None else examples
        return check_contract(self.folder, contract or self.contract, chosen, thinks=self.student.thinks)

    def names(self, examples: Sequence[Rendered] | None = None, contract: Contract | None = None) -> set[Name]:
        return {fault.name for fault in self.check(examples, contract).faults}

    def write_template(self, text: str) -> None:
        (self.folder / "chat_template.jinja").write_text(text, encoding="utf-8")

    def edit(self, name: str, **changed: Any) -> None:
        path = self.folder / name
        content = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**content, **changed}), encoding="utf-8")


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(student: StudentSpec = THINKING, traces: Sequence[Kept] | None = None) -> Made:
        return Made(tmp_path / "student", student, kept() if traces is None else traces)

    return made


@pytest.fixture
def chatml(tmp_path: Path, make: Make) -> Make:
    """Of a tokenizer of bytes with ChatML's tokens."""

    def made(controls: tuple[str, ...] = CHATML, traces: Sequence[Kept] | None = None, **changed: Any) -> Made:
        folder = word_tokenizer(tmp_path / "tokenizer", controls=controls)
        return make(spec(folder, **{"template": "chatml", **changed}), traces)

    return made


def with_ids(example: Rendered, change: Callable[[list[int]], list[int]], *, start: int | None = None) -> Rendered:
    ids = change(list(example.encoded.ids))
    return dataclasses.replace(example, encoded=Encoded(ids, example.encoded.loss_start if start is None else start))


# --- sound -----------------------------------------------------------------------------------------------------------


def test_a_sound_student_passes_and_says_what_is_proven(make: Make) -> None:
    student = make()
    checked = student.check()
    assert checked.faults == ()
    require(checked)
    learned = sum(len(example.encoded.ids) - example.encoded.loss_start for example in student.examples)
    tags = [student.tokenizer.convert_tokens_to_ids(tag) for tag in (OPEN, CLOSE)]
    assert checked.lines() == [
        f"loss: reasoning and answer whole, nothing of the prompt; 3 traces of {learned} ids, 2 reason",
        f"tags: <think> = {tags[0]}, </think> = {tags[1]}, one of each in 3 traces, none in 0",
        "stop: <｜end▁of▁sentence｜> = 720 = tokenizer = generation_config = config = template, last in every loss",
        "pad: <｜▁pad▁｜> = 721, no stop token",
        "prompt: the ids that the saved template makes, one <｜begin▁of▁sentence｜>, no system prompt",
        "template: as saved, it renders the whole conversations as they are trained on",
        "served: read back into the same reasoning and answer by vLLM's deepseek_r1 parser and ours",
    ]


@pytest.mark.parametrize("prefix", ["<think>\n", "<think>", ""])
def test_chatml_passes_with_and_without_a_forced_prefix(chatml: Make, prefix: str) -> None:
    replies = REPLIES if prefix else (REPLIES[0], REPLIES[2])
    checked = chatml(forced_prefix=prefix, traces=kept(replies)).check()
    assert checked.faults == ()
    assert any("no BOS" in line for line in checked.proven)


def test_a_student_that_never_reasons_needs_no_tags(chatml: Make) -> None:
    student = chatml(forced_prefix="", thinks=False, traces=kept([Response(None, "4"), Response(None, "x")]))
    checked = student.check()
    assert checked.faults == ()
    assert "tags: none" in checked.proven
    assert checked.proven[-1].endswith("by our parser; no reasoning parser is wanted")


def test_a_system_prompt_and_an_instruction_of_the_contract_are_no_fault(make: Make) -> None:
    checked = make(spec(system="Be brief.", instruction={"math": "Box it."})).check()
    assert checked.faults == ()
    assert any(line.endswith("the contract's system prompt") for line in checked.proven)


def test_a_question_that_quotes_a_tag_is_no_doubled_tag(make: Make) -> None:
    traces = [Kept("t", "open", "", f"What does {OPEN} mean? And {CLOSE}?", Response("r", "a").render())]
    assert make(traces=traces).check().faults == ()


def test_a_tokenizer_that_composes_letters_is_no_fault(tmp_path: Path, make: Make) -> None:
    """Qwen's does: the student learns the composed form, and servers show it."""
    folder = word_tokenizer(tmp_path / "tokenizer")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "normalizer": {"type": "NFC"}}))
    decomposed = [Response("cafe\u0301", "e\u0301")]
    student = make(spec(folder, template="chatml"), kept(decomposed))
    assert "e\u0301" not in student.tokenizer.decode(student.examples[0].encoded.ids), "it does compose them"
    assert student.check().faults == ()


def test_more_stop_tokens_are_no_fault_and_are_named(chatml: Make) -> None:
    """Llama's generation_config.json has three."""
    student = chatml(controls=(*CHATML, "<|other|>"))
    other = student.tokenizer.convert_tokens_to_ids("<|other|>")
    student.edit("generation_config.json", eos_token_id=[other, student.tokenizer.eos_token_id])
    checked = student.check()
    assert checked.faults == ()
    assert any(f"<|other|> = {other} also stops" in line for line in checked.proven)


# --- what ruins other distillations ----------------------------------------------------------------------------------

DEEPSEEK = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<｜User｜>' + message['content'] }}{% else %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
"""What DeepSeek's published template does with user and assistant messages."""
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}"
    "{% endif %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""SmolLM2-135M-Instruct's own template."""
UNSTOPPED = SMOLLM2.replace("message['content'] + '<|im_end|>' + '\\n'", "message['content'] + '\\n'").replace(
    "{% if loop.first and messages[0]['role'] != 'system' %}", "{% if false %}"
)
"""A template that never ends a turn with the stop token."""


def test_deepseeks_template_that_splits_on_the_closing_tag(make: Make) -> None:
    student = make()
    student.write_template(DEEPSEEK)
    found = student.check().faults
    assert {fault.name for fault in found} == {"stripped_reasoning"}
    assert [fault.trace_id for fault in found] == ["trace-0", "trace-1", "trace-2"], "an empty pair is lost as well"


def test_pad_equal_to_the_stop_token(make: Make) -> None:
    student = make()
    student.edit("tokenizer_config.json", pad_token="<｜end▁of▁sentence｜>")
    assert student.names() == {"pad_is_stop"}


def test_a_template_without_an_end_token(chatml: Make) -> None:
    student = chatml(forced_prefix="", traces=kept(REPLIES[:1]))
    student.write_template(UNSTOPPED)
    assert "missing_stop" in student.names()


def test_an_end_token_that_is_not_trained(make: Make) -> None:
    student = make()
    assert student.names([with_ids(example, lambda ids: ids[:-1]) for example in student.examples]) == {"missing_stop"}


@pytest.mark.parametrize("tag", [OPEN, CLOSE])
def test_a_doubled_tag(make: Make, tag: str) -> None:
    student = make()
    id_ = student.tokenizer.convert_tokens_to_ids(tag)
    broken = [with_ids(example, lambda ids: [*ids[:-3], id_, *ids[-3:]]) for example in student.examples]
    assert "doubled_tag" in student.names(broken)
    student.write_template(
        student.contract.chat_template.replace(
            "+ message['content'] + '<｜end", f"+ '{tag}' + message['content'] + '<｜end"
        )
    )
    assert student.names() == {"doubled_tag"}


def test_smollm2s_own_template_that_injects_a_system_prompt(chatml: Make) -> None:
    student = chatml(forced_prefix="", thinks=False, traces=kept([Response(None, "4")]))
    student.write_template(SMOLLM2)
    (fault,) = student.check().faults
    assert fault.name == "injected_system"
    assert "'<|im_start|>system\\nYou are a helpful AI assistant named Smol'" in fault.given
    assert student.student.system is None


def test_an_injected_system_prompt_and_a_missing_prefix_are_both_found(chatml: Make) -> None:
    student = chatml()
    student.write_template(SMOLLM2)
    assert student.names() == {"injected_system", "prompt_differs"}


def test_tags_split_into_several_tokens(chatml: Make) -> None:
    student = chatml(forced_prefix="", thinks=False, traces=kept(REPLIES[:1]))
    found = student.check().faults
    assert [fault.name for fault in found] == ["split_tag", "split_tag"]
    assert found[0].given == "<think> becomes < t h i n k >"
    assert {f.name for f in check_contract(student.folder, student.contract, [], thinks=True).faults} == {"split_tag"}
    assert check_contract(student.folder, student.contract, [], thinks=False).faults == ()


# --- one broken thing, one name --------------------------------------------------------------------------------------


def test_a_loss_that_starts_too_late_or_too_early(make: Make) -> None:
    student = make()

    def moved(by: Callable[[Encoded], int]) -> set[Name]:
        return student.names([with_ids(e, list, start=by(e.encoded)) for e in student.examples])

    assert moved(lambda encoded: encoded.loss_start + 1) == {"reasoning_outside_loss", "text_differs"}
    assert moved(lambda encoded: encoded.loss_start + 3) >= {"reasoning_outside_loss"}
    assert moved(lambda encoded: len(encoded.ids) - 1) >= {"reasoning_outside_loss", "answer_outside_loss"}
    assert moved(lambda encoded: len(encoded.ids)) >= {"missing_stop"}
    assert moved(lambda encoded: encoded.loss_start - 1) == {"loss_on_prompt"}
    assert moved(lambda encoded: 0) == {"loss_on_prompt"}


def test_a_trace_that_was_cut(make: Make) -> None:
    student = make(traces=kept(REPLIES[:1]))
    half = [with_ids(e, lambda ids: ids[:-6] + ids[-1:]) for e in student.examples]
    assert student.names(half) == {"answer_outside_loss"}


def test_an_answer_that_is_another(make: Make) -> None:
    student = make(traces=kept(REPLIES[:1]))
    other = [dataclasses.replace(e, response=Response("add 1 and 2", "It is \\boxed{3}.")) for e in student.examples]
    assert student.names(other) == {"text_differs"}


def test_a_stop_token_in_the_middle(make: Make) -> None:
    student = make()
    inside = [with_ids(e, lambda ids: [*ids[:-3], 720, *ids[-3:]]) for e in student.examples]
    assert "stop_inside" in student.names(inside)
    digit = student.examples[0].encoded.ids[-4]
    student.edit("generation_config.json", eos_token_id=[720, digit])
    assert student.names() >= {"stop_inside"}, "one that only the generation settings name stops too"


@pytest.mark.parametrize(
    ("file", "key", "value", "said"),
    [
        ("tokenizer_config.json", "eos_token", "<｜User｜>", "tokenizer with <｜User｜>"),
        ("generation_config.json", "eos_token_id", 717, "generation_config with"),
        ("generation_config.json", "eos_token_id", [716, 717], "generation_config with"),
        ("generation_config.json", "eos_token_id", None, "generation_config with none"),
        ("config.json", "eos_token_id", 717, ", config with"),
    ],
)
def test_a_place_that_names_another_stop_token(make: Make, file: str, key: str, value: Any, said: str) -> None:
    student = make()
    student.edit(file, **{key: value})
    found = [fault for fault in student.check().faults if fault.name == "stop_disagrees"]
    assert len(found) == 1
    assert said in found[0].given


def test_missing_files_and_tokens(make: Make) -> None:
    student = make()
    (student.folder / "generation_config.json").unlink()
    assert student.names() == {"stop_disagrees"}
    (student.folder / "config.json").unlink()
    assert [fault.given for fault in student.check().faults] == ["generation_config is missing", "config is missing"]
    (student.folder / "tokenizer.json").unlink()
    with pytest.raises(ContractError, match="the saved tokenizer cannot be loaded"):
        student.check()


def test_a_stop_token_that_the_vocabulary_does_not_have(make: Make) -> None:
    student = make()
    contract = dataclasses.replace(student.contract, template="llama3", forced_prefix="")
    assert "missing_stop" in student.names([], contract)


def test_a_stop_token_that_becomes_the_unknown_one(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "user": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
    fast.save_pretrained(tmp_path)
    faults = check_contract(tmp_path, Contract("chatml"), [], thinks=True).faults
    assert ("missing_stop", "<|im_end|> is no token of the vocabulary") in {(f.name, f.given) for f in faults}
    assert [fault.given for fault in faults if fault.name == "split_tag"] == [
        "<think> becomes <unk>",
        "</think> becomes <unk>",
    ]


@pytest.mark.parametrize("place", ["config.json", "generation_config.json"])
def test_a_padding_that_some_place_takes_for_the_stop_token(make: Make, place: str) -> None:
    student = make()
    student.edit(place, pad_token_id=720)
    assert student.names() == {"pad_is_stop"}


def test_a_padding_that_only_the_generation_settings_stop_at(make: Make) -> None:
    student = make()
    student.edit("generation_config.json", eos_token_id=[720, 721])
    assert "pad_is_stop" in student.names()


def test_no_padding(make: Make) -> None:
    student = make()
    student.edit("tokenizer_config.json", pad_token=None)
    assert student.names() == {"missing_pad"}


def test_tags_that_servers_leave_out(tmp_path: Path, make: Make) -> None:
    folder = word_tokenizer(tmp_path / "tokenizer", controls=(*CHATML, OPEN, CLOSE))
    student = make(spec(folder, template="chatml"))
    assert student.names() == set(), "special tags of a base are made text"
    path = student.folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["special"] = token["special"] or token["content"] in (OPEN, CLOSE)
    path.write_text(json.dumps(content), encoding="utf-8")
    assert student.names() == {"hidden_tag"}


def test_a_missing_tag(make: Make) -> None:
    student = make(traces=kept(REPLIES[:1]))
    close = student.tokenizer.convert_tokens_to_ids(CLOSE)
    without = [with_ids(e, lambda ids: [id_ for id_ in ids if id_ != close]) for e in student.examples]
    assert "missing_tag" in student.names(without)


def test_a_doubled_bos_token(make: Make) -> None:
    student = make()
    doubled = [with_ids(e, lambda ids: ids[:1] + ids, start=e.encoded.loss_start + 1) for e in student.examples]
    assert "double_bos" in student.names(doubled)
    student.write_template("{{- bos_token -}}" + student.contract.chat_template)
    assert student.names() == {"double_bos"}


def test_a_bos_token_that_the_template_does_not_have(chatml: Make) -> None:
    student = chatml(controls=(*CHATML, "<|bos|>"), forced_prefix="", thinks=False, traces=kept([Response(None, "4")]))
    student.edit("tokenizer_config.json", bos_token="<|bos|>")
    assert student.names() == set()
    bos = student.tokenizer.convert_tokens_to_ids("<|bos|>")
    assert "stray_bos" in student.names(
        [with_ids(e, lambda ids: [bos, *ids], start=e.encoded.loss_start + 1) for e in student.examples]
    )
    student.write_template("{{- bos_token -}}" + student.contract.chat_template)
    assert student.names() == {"stray_bos"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<think>\\n", ""),
        ("<think>\\n", "<think>"),
        ("'<｜User｜>' + message['content']", "'<｜User｜>' + message['content'] | trim + ' '"),
        ("{{- '<｜begin▁of▁sentence｜>' }}", ""),
        ("message['role'] == 'user'", "message['role'] == 'nobody'"),
    ],
)
def test_a_saved_template_that_asks_otherwise(make: Make, old: str, new: str) -> None:
    student = make()
    assert old in student.contract.chat_template
    student.write_template(student.contract.chat_template.replace(old, new))
    assert "prompt_differs" in student.names()


def test_a_saved_tokenizer_that_makes_other_ids(make: Make) -> None:
    student = make()
    path = student.folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["H"], vocabulary["o"] = vocabulary["o"], vocabulary["H"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "prompt_differs" in student.names()


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{% if %}", "{{ messages + 1 }}"])
def test_a_saved_template_that_cannot_be_rendered(make: Make, source: str) -> None:
    student = make(traces=kept(REPLIES[:1]))
    student.write_template(source)
    (fault,) = student.check().faults
    assert fault.name == "prompt_differs"
    assert fault.given.startswith("the saved template cannot be rendered: ")


def test_no_template(make: Make) -> None:
    student = make()
    (student.folder / "chat_template.jinja").unlink()
    assert student.names() == {"no_template"}


def test_a_saved_template_that_changes_the_reply(make: Make) -> None:
    student = make(traces=kept(REPLIES[:1]))
    content = "'<｜Assistant｜>' + message['content']"
    assert content in student.contract.chat_template
    student.write_template(student.contract.chat_template.replace(content, f"{content}.replace('It', 'it')"))
    assert student.names() == {"template_differs"}


def test_an_answer_that_a_reasoning_parser_takes_for_reasoning(chatml: Make) -> None:
    student = chatml(forced_prefix="", traces=kept([REPLIES[0], Response(None, "4")]))
    (fault,) = student.check().faults
    assert (fault.name, fault.trace_id) == ("answer_as_reasoning", "trace-1")


@pytest.mark.parametrize("thinks", [True, False])
def test_text_that_a_server_leaves_out(chatml: Make, thinks: bool) -> None:
    """A special token whose form no check of the traces knows."""
    student = chatml(thinks=thinks, forced_prefix="<think>\n" if thinks else "", traces=kept([Response(None, "4")]))
    (sound,), reply = student.examples, Response("because" if thinks else None, "a<unk>b")
    encoded = student.contract.encode(student.tokenizer, sound.messages, reply)
    assert student.names([Rendered("quoting", sound.messages, reply, encoded)]) == {"parse_mismatch"}


def test_a_server_that_parses_otherwise(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_check, "served", lambda text: Served(None, text))
    assert make().names() == {"parse_mismatch"}


# --- the error -------------------------------------------------------------------------------------------------------


def test_the_error_names_every_fault_once_with_what_to_do(make: Make) -> None:
    student = make()
    student.write_template(DEEPSEEK)
    student.edit("generation_config.json", pad_token_id=720)
    with pytest.raises(ContractError, match="what would be trained is not what would be served") as caught:
        require(student.check())
    text = str(caught.value)
    assert caught.value.exit_code == FAILED
    assert text.count("pad_is_stop:") == text.count("stripped_reasoning:") == 1
    assert "(trace trace-0 and 2 more)" in text
    assert TODO["pad_is_stop"] in text
    assert text.count(TODO["stripped_reasoning"]) == 1


def test_the_lines_claim_nothing_that_was_found_broken(make: Make) -> None:
    student = make()
    student.write_template(DEEPSEEK)
    student.edit("generation_config.json", pad_token_id=720)
    lines = student.check().lines()
    assert [line.split(":")[0] for line in lines] == [
        "loss",
        "tags",
        "stop",
        "prompt",
        "FAULT pad_is_stop",
        "FAULT stripped_reasoning",
    ]


def test_every_name_has_a_test_and_a_line_in_the_guide() -> None:
    own = Path(__file__).read_text(encoding="utf-8").replace(Path(__file__).name, "")
    guide = (CHECKOUT / "docs" / "contract.md").read_text(encoding="utf-8")
    for name in TODO:
        assert f'"{name}"' in own, name
        assert f"`{name}`" in guide, name


# --- real outputs ----------------------------------------------------------------------------------------------------


def real_rows() -> list[Kept]:
    """Real replies to GSM8K questions that stopped, plain and as reasoning before the gold answer, and the worked
    solutions of GSM8K itself."""
    data = CHECKOUT / "tests" / "data"
    replies, solutions = (
        [json.loads(line) for line in (data / name).read_text(encoding="utf-8").splitlines()]
        for name in ("teacher_outputs_128.jsonl", "gsm8k_200.jsonl")
    )
    found = []
    for number, row in enumerate(row for row in replies if row["finish_reason"] == "stop"):
        parts = Response(row["text"], f"\\boxed{{{row['gold']}}}")
        for name, response in (("plain", Response(None, row["text"])), ("reasoned", parts)):
            found.append(Kept(f"{name}-{number}", "math", "gsm8k", row["question"], response.render()))
    for number, row in enumerate(solutions):
        solution, _, gold = row["answer"].partition("####")
        found.append(Kept(f"gold-{number}", "math", "gsm8k", row["question"], Response(solution, gold).render()))
    return found


def test_real_outputs_pass_with_the_quickstarts_student(make: Make) -> None:
    rows = real_rows()
    assert len(rows) == 430
    checked = make(specs.student("tiny-qwen"), rows).check()
    assert checked.faults == ()
    assert "430 traces" in checked.proven[0]


@pytest.mark.skipif(not (CHECKOUT / ".cache" / "smollm2").is_dir(), reason="no .cache/smollm2: run make smollm2 first")
@pytest.mark.parametrize("thinks", [False, True])
def test_real_outputs_pass_with_smollm2(make: Make, thinks: bool) -> None:
    student = specs.student("smollm2-135m", {"thinks": thinks, "forced_prefix": "<think>\n" if thinks else ""})
    rows = [row for row in real_rows() if thinks or row.trace_id.startswith("plain")]
    made = make(student, rows)
    assert made.check().faults == ()
    made.write_template(SMOLLM2)
    assert "injected_system" in made.names()


@pytest.mark.skipif(not (CHECKOUT / ".cache" / "smollm2").is_dir(), reason="no .cache/smollm2: run make smollm2 first")
def test_a_tokenizer_that_loads_as_another_class_beside_its_config(make: Make) -> None:
    """transformers 5 takes it from config.json: beside a Qwen2's, SmolLM2's tokenizer splits numbers otherwise."""
    made = make(specs.student("smollm2-135m"), [row for row in real_rows() if row.trace_id.startswith("plain")])
    assert made.names() == set()
    made.edit("config.json", model_type="qwen2")
    assert "prompt_differs" in made.names()
