"""Traces in the language of their question pass, in many languages; mixed and wrong ones are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from checked_trace import TRACE

from distill.filter.function_words import FUNCTION_WORDS, NAMED
from distill.filter.language import LATIN_LANGUAGES, expected_of, foreign, language
from distill.filter_specs import LanguageSettings
from distill.prompts.language import SCRIPTS
from distill.records import Prompt
from distill.verify import Outcome

DATA = Path(__file__).parents[1] / "data"
MATERIAL = json.loads((DATA / "other_languages.json").read_text(encoding="utf-8"))
OUTPUTS = [json.loads(line) for line in (DATA / "teacher_outputs_128.jsonl").read_text(encoding="utf-8").splitlines()]
SETTINGS = LanguageSettings()
ENGLISH = Prompt("How many apples are left in the basket?", kind="math", answer="4")
LONG = OUTPUTS[0]["text"]


def judged(reasoning: str | None, answer: str | None = "5", prompt: Prompt = ENGLISH) -> Outcome:
    return language(prompt, replace(TRACE, reasoning=reasoning, answer=answer), SETTINGS)


def mixed_in(sentence: str, text: str = LONG) -> str:
    first, _, rest = text.partition("\n")
    return f"{first} {sentence}\n{rest}"


@pytest.mark.parametrize("trace", MATERIAL["traces"], ids=lambda trace: trace["language"])
def test_traces_in_the_language_of_their_question(trace: dict[str, str]) -> None:
    for given in (None, trace["language"], f"{trace['language']}-XX"):
        found = judged(trace["reasoning"], trace["answer"], Prompt(trace["question"], language=given))
        assert (found.outcome, found.reason) == ("pass", "")


def test_real_english_replies_pass() -> None:
    found = [judged(row["text"], prompt=Prompt(row["question"])) for row in OUTPUTS]
    assert {outcome.outcome for outcome in found} == {"pass"}
    assert {outcome.score for outcome in found} == {1.0}


@pytest.mark.parametrize("sentence", MATERIAL["harmless"])
def test_names_terms_and_signs_are_no_other_language(sentence: str) -> None:
    assert judged(mixed_in(sentence)).outcome == "pass"


MIXED = [(code, text) for code, texts in MATERIAL["sentences"].items() if code != "en" for text in texts]


@pytest.mark.parametrize(("code", "sentence"), MIXED)
def test_one_sentence_of_another_language(code: str, sentence: str) -> None:
    found = judged(mixed_in(sentence))
    assert (found.outcome, found.reason) == ("fail", "mixed_language")
    assert found.score is not None
    assert 0.7 < found.score < 1
    assert judged("add", mixed_in(sentence)).reason == "mixed_language", "in the answer"
    both = Prompt(f"{ENGLISH.question} {sentence} {sentence}")
    assert judged(mixed_in(sentence), prompt=both).outcome == "pass", "the question holds both languages"


def test_the_sentences_not_looked_at_before() -> None:
    texts = [(code, text) for code, texts in MATERIAL["held_out"].items() for text in texts]
    missed = [(code, text) for code, text in texts if judged(mixed_in(text)).reason != "mixed_language"]
    assert len(missed) <= len(texts) // 10, missed


FOREIGN = [trace for trace in MATERIAL["traces"] if trace["language"] != "en" and "ABC" not in trace["question"]]
"""The one left out has nearly as many names of points in it as words."""


@pytest.mark.parametrize("trace", FOREIGN, ids=lambda trace: trace["language"])
def test_all_of_it_in_another_language(trace: dict[str, str]) -> None:
    found = judged(trace["reasoning"], trace["answer"])
    assert (found.outcome, found.reason) == ("fail", "wrong_language")
    assert found.score is not None
    assert found.score <= 0.2
    english = Prompt(trace["question"], language=trace["language"])
    found = judged(LONG, "So there are five apples left in the basket in the end.", english)
    assert (found.outcome, found.reason) == ("fail", "wrong_language")
    found = judged(trace["reasoning"], LONG)
    assert (found.outcome, found.reason) == ("fail", "mixed_language"), "reasoning in one, answer in the other"


def test_short_pieces_count_by_their_share() -> None:
    piece = " 但是"
    assert judged(LONG + piece).outcome == "pass"
    assert judged(LONG + f"{piece} so" * 30).reason == "mixed_language"
    loose = SETTINGS.model_copy(update={"most_foreign": 0.5})
    assert language(ENGLISH, replace(TRACE, reasoning=LONG + f"{piece} so" * 30), loose).outcome == "pass"


def test_the_length_of_a_stretch() -> None:
    for letters, outcome in ((9, "pass"), (10, "fail")):
        assert judged(mixed_in("甲" * letters)).outcome == outcome
    for words, outcome in ((4, "pass"), (5, "fail")):
        assert judged(mixed_in("слово " * words)).outcome == outcome
    wide = SETTINGS.model_copy(update={"stretch": 6})
    assert language(ENGLISH, replace(TRACE, reasoning=mixed_in("甲" * 11)), wide).outcome == "pass"


def test_english_in_chinese() -> None:
    chinese = next(trace for trace in MATERIAL["traces"] if trace["language"] == "zh")
    prompt = Prompt(chinese["question"])
    assert (
        judged(chinese["reasoning"] + "用 Python 或 the Chinese Remainder Theorem 也可以。", prompt=prompt).outcome
        == "pass"
    )
    for sentence in MATERIAL["sentences"]["en"]:
        assert judged(chinese["reasoning"] + sentence, prompt=prompt).reason == "mixed_language"


def test_formulas_and_code_are_left_out() -> None:
    for sign in (
        "$\\text{甲乙丙丁戊己庚辛壬癸子丑}$",
        "```\n甲乙丙丁戊己庚辛壬癸子丑\n```",
        "`甲乙丙丁戊己庚辛壬癸子丑`",
    ):
        assert judged(mixed_in(sign)).outcome == "pass"


def test_a_question_that_names_a_language_may_be_answered_in_it() -> None:
    german = " ".join(MATERIAL["sentences"]["de"])
    assert judged(german, prompt=Prompt("Say in German that we have to count the apples.")).outcome == "pass"
    assert judged(german, prompt=Prompt("Say in French that we have to count the apples.")).outcome == "fail"


def test_a_question_without_prose_leaves_the_language_to_the_trace() -> None:
    formula = Prompt("$x^2 = 4$")
    german = " ".join(MATERIAL["sentences"]["de"])
    assert judged(german, prompt=formula).outcome == "pass"
    assert judged(mixed_in(MATERIAL["sentences"]["zh"][0]), prompt=formula).reason == "mixed_language"


@pytest.mark.parametrize(("reasoning", "answer"), [(None, None), ("", ""), ("12 + 5 = 17", "17"), ("so it is", "5 kg")])
def test_too_little_prose(reasoning: str | None, answer: str | None) -> None:
    assert (judged(reasoning, answer).outcome, judged(reasoning, answer).reason) == ("abstain", "too_little_prose")


def test_what_is_expected() -> None:
    assert expected_of("How many apples are left in the basket?", None).languages == {"en"}
    assert "zh" in expected_of("What does 苹果 mean, and how many of them are there?", None).scripts
    assert expected_of("Translate this into Japanese.", "en").scripts == {"latin", "zh", "ja"}
    assert foreign("甲" * 12, expected_of("How many apples are left in the basket?", None)).longest == 6


def test_the_lists_are_of_languages_that_the_detector_knows() -> None:
    assert set(FUNCTION_WORDS) <= LATIN_LANGUAGES
    assert set(NAMED.values()) <= {code for script in SCRIPTS for code in script.languages} | {"ja"}
    english = FUNCTION_WORDS["en"]
    assert {code: english & words for code, words in FUNCTION_WORDS.items() if code != "en" and english & words} == {}
