"""Rows become prompts: columns by plain and dotted names, templates, choices, golds in boxes and behind marks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from distill.errors import InputError
from distill.prompts.mapping import Mapper, MissingColumn
from distill.records import Prompt
from distill.source_specs import SourceSpec


def mapped(row: dict[str, Any], *, qualify: str = "", **spec: Any) -> Prompt | None:
    return Mapper(SourceSpec.model_validate({"name": "s", **spec}), qualify=qualify).prompt(row)


def prompt(row: dict[str, Any], **spec: Any) -> Prompt:
    found = mapped(row, **spec)
    assert found is not None
    return found


PUBLISHED: dict[str, Any] = {"dataset": "org/name", "revision": "0" * 40}


def test_a_published_dataset_gives_only_what_its_spec_names() -> None:
    """Its `solution`, `source` and `language` are words of its own, not fields of a prompt."""
    row = {"question": "q", "answer": "1", "solution": "By hand.", "source": "olympiads", "language": "English"}
    found = prompt(row, **PUBLISHED)
    assert (found.solution, found.source, found.language) == (None, "s", None)
    assert prompt(row).solution == "By hand."


def test_dotted_names_reach_inside() -> None:
    row = {"question": "Who?", "answer": {"value": "Ada", "aliases": ["A. L."]}}
    assert prompt(row, columns={"answer": "answer.value"}, kind="exact").answer == "Ada"
    assert prompt({"question": "q", "answer": None}, columns={"answer": "answer.value"}, kind="open").answer is None
    assert prompt({"question": "q", "a.b": "1"}, columns={"answer": "a.b"}).answer == "1"


def test_a_missing_column_is_named_with_those_that_exist() -> None:
    with pytest.raises(MissingColumn, match=r"no column 'questoin'; did you mean 'question'\?") as caught:
        mapped({"question": "q", "gold": "1"}, columns={"question": "questoin"})
    assert caught.value.todo == "columns here: question, gold"
    with pytest.raises(MissingColumn, match=r"no column 'answer\.value'"):
        mapped({"question": "q"}, columns={"answer": "answer.value"})


def test_a_template_joins_columns_and_drops_what_is_empty() -> None:
    template = "{instruction}\n\n{context}\n\n{more}"
    row = {"instruction": "Sum up {this}.", "context": None, "more": "a\nb"}
    assert prompt(row, question=template, kind="open").question == "Sum up {this}.\n\na\nb"
    with pytest.raises(InputError, match="field 'question' is empty"):
        mapped({"instruction": " ", "context": None, "more": ""}, question=template, kind="open")
    with pytest.raises(MissingColumn, match="'context'"):
        mapped({"instruction": "x", "more": ""}, question=template, kind="open")


def test_rows_are_left_out_by_their_values() -> None:
    only = {"valid": ["Yes", "yes"], "synthetic": False, "parent": None}
    row = {"question": "q", "answer": "1", "valid": "Yes", "synthetic": False, "parent": None}
    assert mapped(row, only=only) is not None
    for key, value in (("valid", "No"), ("synthetic", True), ("parent", "p")):
        assert mapped({**row, key: value}, only=only) is None, key
    assert mapped(row, without={"valid": "Yes"}) is None
    assert mapped(row, without={"valid": ["No", "Maybe"]}) is not None


@pytest.mark.parametrize(
    ("answer", "gold", "marks"),
    [
        ("42", "42", None),
        ("proof", None, ("proof",)),
        (" notfound ", None, ("no_gold",)),
        (None, None, None),
    ],
)
def test_words_for_no_answer(answer: str | None, gold: str | None, marks: tuple[str, ...] | None) -> None:
    found = prompt({"question": "q", "answer": answer}, no_answer=["proof", "notfound"])
    assert (found.answer, found.marks) == (gold, marks)


def test_a_gold_answer_in_the_last_box() -> None:
    row = {"question": "q", "answer": r"So $\boxed{1}$, no: \boxed{\frac{1}{2}}."}
    assert prompt(row, answer_in_box=True).answer == r"\frac{1}{2}"
    for text in ("no box", r"\boxed{ }"):
        found = prompt({"question": "q", "answer": text}, answer_in_box=True)
        assert (found.answer, found.marks) == (None, ("no_gold",))


def test_choices_with_labels_of_their_own() -> None:
    spec = {"choices": {"columns": "choices.text", "labels": "choices.label"}, "columns": {"answer": "key"}}
    row = {"question": "q", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "key": "3"}
    found = prompt(row, kind="choice", **spec)
    assert (found.choices, found.answer) == (("x", "y", "z"), "C")
    assert prompt({**row, "key": "9"}, kind="choice", **spec).answer == "9", "kept as it is: a later mark tells"


def test_choices_by_place_and_by_letter() -> None:
    row = {"question": "q", "options": ["x", "y"], "answer": 1}
    assert prompt(row, kind="choice", choices={"columns": "options", "answer_is": "index"}).answer == "B"
    assert prompt({**row, "answer": "A"}, kind="choice", choices={"columns": "options"}).answer == "A"


def test_the_right_choice_is_put_anywhere_but_always_in_the_same_place() -> None:
    spec = {"choices": {"columns": ["right", "w1", "w2", "w3"], "answer_is": "first"}, "kind": "choice"}
    letters: Counter[str] = Counter()
    for number in range(400):
        row = {"question": f"q{number}", "right": "yes!", "w1": "a", "w2": "b", "w3": "c"}
        found = prompt(row, **spec)
        assert found == prompt(row, **spec)
        assert found.choices is not None
        assert found.answer is not None
        assert found.choices["ABCD".index(found.answer)] == "yes!"
        assert sorted(found.choices) == ["a", "b", "c", "yes!"]
        letters[found.answer] += 1
    assert min(letters.values()) > 60, letters


def test_ids_of_a_dataset_carry_its_name() -> None:
    assert prompt({"question": "q", "id": 7}, qualify="s:train/", **PUBLISHED, kind="open").id == "s:train/7"
    assert prompt({"question": "q", "id": 7}, kind="open").id == "7"


def test_numbers_are_read_as_text_and_nan_as_nothing() -> None:
    row = {"question": "q", "answer": 0.5, "difficulty": 3, "id": float("nan")}
    found = prompt(row)
    assert (found.answer, found.difficulty, len(found.id)) == ("0.5", "3", 16)


def test_only_needed_columns_are_asked_for() -> None:
    spec = {"columns": {"question": "p", "answer": "a.value"}, "only": {"ok": True}, "test_columns": ["t"]}
    asked = Mapper(SourceSpec.model_validate({"name": "s", **PUBLISHED, **spec})).columns
    assert {"p", "a", "ok", "t"} <= asked
    assert "solution" not in asked


def test_programs_bring_tests_and_a_solution() -> None:
    row = {"question": "q", "io": '{"inputs": ["1\\n"], "outputs": ["2\\n"]}', "solutions": '["print(2)"]'}
    spec = {"kind": "code", "tests": "apps", "columns": {"tests": "io", "solution": "solutions"}}
    found = prompt(row, **spec)
    assert found.tests is not None
    assert (found.tests[0].input, found.tests[0].output, found.solution) == ("1\n", "2\n", "print(2)")
    broken = prompt({**row, "io": '{"inputs": ["1"]}'}, **spec)
    assert (broken.tests, broken.marks) == (None, ("bad_tests",))


def test_a_choice_that_is_missing_is_no_choice() -> None:
    """The letter of the answer names the same text as before."""
    row = {"question": "q", "a": "x", "b": None, "c": "z", "answer": "C"}
    columns = {"columns": ["a", "b", "c"]}
    found = prompt(row, choices=columns, kind="choice")
    assert (found.choices, found.answer) == (("x", "z"), "B")
    with pytest.raises(InputError, match="the choice that is called right is empty"):
        prompt({**row, "answer": "B"}, choices=columns, kind="choice")
    found = prompt({"question": "q", "right": "x", "wrong": "y", "wrong2": None},
                   choices={"columns": ["right", "wrong", "wrong2"], "answer_is": "first"}, kind="choice")  # fmt: skip
    assert sorted(found.choices or ()) == ["x", "y"]
    assert (found.choices or ())["AB".index(found.answer or "")] == "x"


def test_choices_in_a_spreadsheet_are_a_json_list() -> None:
    found = prompt({"question": "q", "options": '["x", "y"]', "answer": "B"}, choices={"columns": "options"})
    assert (found.choices, found.answer) == (("x", "y"), "B")
    with pytest.raises(InputError, match="field 'choices' is text but not a JSON list"):
        prompt({"question": "q", "options": "x; y", "answer": "B"}, choices={"columns": "options"})
