"""A student's tokenizer: reserved tokens renamed, think tags that stay text, and which rows are to be learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.contract import CLOSE, OPEN
from distill.errors import SpecError
from distill.train.tokenizer import base_tokenizer, prepare_tokenizer, rows_to_train, special_in, special_tokens
from train.bases import CHATML, LLAMA, from_base, plain_base, word_tokenizer
from train.material import spec

RESERVED = {OPEN: "<|reserved_special_token_0|>", CLOSE: "<|reserved_special_token_1|>"}
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def ids(tokenizer: Any, *tokens: str) -> list[int]:
    """Of tokens that are one id each."""
    encoded = [tokenizer.encode(token, add_special_tokens=False) for token in tokens]
    assert all(len(one) == 1 for one in encoded), encoded
    return [one[0] for one in encoded]


def a_llama(folder: Path, **changed: Any) -> Any:
    word_tokenizer(folder, controls=LLAMA, eos="<|eot_id|>")
    return from_base(folder, **{"template": "llama3", "reserved_tokens": RESERVED, **changed})


def test_a_reserved_token_gives_its_row_to_a_think_tag(tmp_path: Path) -> None:
    student = a_llama(tmp_path / "base")
    before, tokenizer = base_tokenizer(student), prepare_tokenizer(student)
    assert ids(tokenizer, OPEN, CLOSE) == ids(before, *RESERVED.values())
    assert len(tokenizer) == len(before)
    assert not set(RESERVED.values()) & tokenizer.get_vocab().keys()
    text = "What? <|reserved_special_token_0|> is text now"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert ids(tokenizer, *HEADERS) == ids(before, *HEADERS), "the others stay where they were"
    assert tokenizer.name_or_path == before.name_or_path


def test_a_renamed_token_is_saved_and_loaded(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = prepare_tokenizer(a_llama(tmp_path / "base"))
    tokenizer.save_pretrained(tmp_path / "student")
    again: Any = AutoTokenizer.from_pretrained(tmp_path / "student")
    assert ids(again, OPEN, CLOSE) == ids(tokenizer, OPEN, CLOSE)
    assert again.get_vocab() == tokenizer.get_vocab()
    text = f"<|start_header_id|>x<|end_header_id|>{OPEN}\nwhy\n{CLOSE}\n\n3<|eot_id|>"
    encoded = again.encode(text, add_special_tokens=False)
    assert encoded == tokenizer.encode(text, add_special_tokens=False)
    assert again.decode(encoded, skip_special_tokens=True) == f"x{OPEN}\nwhy\n{CLOSE}\n\n3"
    assert (again.eos_token, again.pad_token) == ("<|eot_id|>", "<|pad|>")
    for old in RESERVED.values():
        files = [file.name for file in (tmp_path / "student").iterdir() if old in file.read_text(encoding="utf-8")]
        assert not files, f"{old} still stands in {files}"


def test_a_reserved_token_inside_the_vocabulary_is_renamed_too(tmp_path: Path) -> None:
    """Some tokenizers list control tokens among the words as well."""
    folder = word_tokenizer(tmp_path / "base", controls=LLAMA, eos="<|eot_id|>")
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["model"]["vocab"] |= {token["content"]: token["id"] for token in content["added_tokens"]}
    file.write_text(json.dumps(content), encoding="utf-8")
    student = from_base(folder, template="llama3", reserved_tokens=RESERVED)
    tokenizer = prepare_tokenizer(student)
    assert ids(tokenizer, OPEN, CLOSE) == [257, 258]
    assert not set(RESERVED.values()) & tokenizer.get_vocab().keys()
    assert len(tokenizer) == len(base_tokenizer(student))


def test_a_reserved_token_that_the_settings_name_is_not_added_again(tmp_path: Path) -> None:
    folder = word_tokenizer(tmp_path / "base", controls=LLAMA, eos="<|eot_id|>")
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    settings["extra_special_tokens"] = [*RESERVED.values(), "<|start_header_id|>"]
    file.write_text(json.dumps(settings), encoding="utf-8")
    student = from_base(folder, template="llama3", reserved_tokens=RESERVED)
    tokenizer = prepare_tokenizer(student)
    assert len(tokenizer) == len(base_tokenizer(student))
    assert "<|start_header_id|>" in tokenizer.all_special_tokens
    assert not set(RESERVED.values()) & tokenizer.get_vocab().keys()


def test_a_base_that_has_the_tags_keeps_its_reserved_tokens(tmp_path: Path) -> None:
    first = prepare_tokenizer(a_llama(tmp_path / "base"))
    first.save_pretrained(tmp_path / "student")
    student = from_base(tmp_path / "student", template="llama3", reserved_tokens=RESERVED)
    assert ids(prepare_tokenizer(student), OPEN, CLOSE) == ids(first, OPEN, CLOSE)
    assert rows_to_train(student, prepare_tokenizer(student)) == []


def test_think_tags_that_were_special_become_text(tmp_path: Path) -> None:
    folder = word_tokenizer(tmp_path / "t", controls=(*CHATML, OPEN, CLOSE))
    student = spec(folder, template="chatml")
    before, tokenizer = base_tokenizer(student), prepare_tokenizer(student)
    tags = ids(tokenizer, OPEN, CLOSE)
    assert tags == ids(before, OPEN, CLOSE)
    assert before.decode(tags, skip_special_tokens=True) == ""
    assert tokenizer.decode(tags, skip_special_tokens=True) == OPEN + CLOSE
    assert tokenizer.decode(ids(tokenizer, "<|im_end|>"), skip_special_tokens=True) == ""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reserved_tokens": {OPEN: "<|reserved_9|>"}}, "has no token <|reserved_9|>\n  given: reserved_tokens of"),
        ({"pad_token": "<|fim_pad|>"}, "has no token <|fim_pad|>\n  given: pad_token of the student spec; tokenizer: "),
    ],
)
def test_a_token_that_is_not_there_is_an_error(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        prepare_tokenizer(a_llama(tmp_path / "base", **changed))
    assert message in str(caught.value)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_rows_to_train_are_those_renamed_and_untrained(tmp_path: Path) -> None:
    student = a_llama(tmp_path / "base", untrained_tokens=HEADERS)
    tokenizer = prepare_tokenizer(student)
    assert rows_to_train(student, tokenizer) == sorted(ids(tokenizer, OPEN, CLOSE, *HEADERS))
    assert rows_to_train(a_llama(tmp_path / "base"), tokenizer) == ids(tokenizer, OPEN, CLOSE)


def test_rows_to_train_are_those_added(tmp_path: Path) -> None:
    student = from_base(plain_base(tmp_path / "base"))
    tokenizer = prepare_tokenizer(student)
    assert rows_to_train(student, tokenizer) == [len(tokenizer) - 2, len(tokenizer) - 1]
    quiet = from_base(tmp_path / "base", thinks=False, forced_prefix="")
    assert rows_to_train(quiet, prepare_tokenizer(quiet)) == []


def test_a_student_from_nothing_has_no_rows_of_its_own() -> None:
    assert rows_to_train(spec(), prepare_tokenizer(spec())) == []


def test_an_untrained_token_has_to_be_there(tmp_path: Path) -> None:
    student = a_llama(tmp_path / "base", untrained_tokens=("<|eom_id|>",))
    with pytest.raises(SpecError, match=r"has no token <\|eom_id\|>\n  given: untrained_tokens of"):
        rows_to_train(student, prepare_tokenizer(student))


def test_special_tokens_are_those_that_a_server_drops(tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "base", controls=(*CHATML, OPEN, "<filename>"))
    student = from_base(tmp_path / "base", thinks=False, forced_prefix="")  # one that thinks has plain tags anyway
    tokenizer = prepare_tokenizer(student)
    tokenizer.unk_token = "<unk>"
    tokenizer.add_tokens(["<plain>"])
    found = special_tokens(tokenizer)
    assert sorted(found.values()) == ["<filename>", "<|im_end|>", "<|im_start|>", "<|pad|>"]
    kept = tokenizer.decode([*found, *tokenizer.encode("<plain>")], skip_special_tokens=True)
    assert kept == "<plain>"


def test_a_special_token_in_a_reply_is_named_but_not_its_stop_token(tmp_path: Path) -> None:
    word_tokenizer(tmp_path / "base", controls=(*CHATML, "<filename>", "<empty>"))
    tokenizer = prepare_tokenizer(from_base(tmp_path / "base"))
    special = special_tokens(tokenizer)

    def held(text: str) -> str | None:
        return special_in(tokenizer.encode(text, add_special_tokens=False), special)

    assert held("a < filename >\n</think>b<|im_end|>") is None
    assert held("a <empty> and <filename><|im_end|>") == "<empty>"
    assert held("<|im_end|> a<|im_end|>") == "<|im_end|>"


def test_a_folder_that_is_not_there_and_a_model_that_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = from_base(Path(".cache/nothing"), description="`make it` makes its folder.")
    with pytest.raises(SpecError, match=r"\.cache/nothing: there is no such folder") as caught:
        base_tokenizer(missing)
    assert "make it first (`make it` makes its folder.)" in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SpecError, match="tokenizer of student 'tiny' cannot be loaded") as caught:
        base_tokenizer(from_base(Path("nobody/nothing")))
    assert "download it first (hf download nobody/nothing)" in str(caught.value)
