"""Traces in the language of their question pass, in many languages; mixed and wrong ones are told."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from checked_trace import TRACE
from hypothesis import strategies as st

from distill.filter.language import LATIN_LANGUAGES, _ascii_words, expected_of, foreign, language
from distill.filter_specs import LanguageSettings
from distill.prompts.function_words import FUNCTION_WORDS, NAMED
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


@hypothesis.given(st.text(st.characters(max_codepoint=127), max_size=200))
def test_words_in_ascii_are_counted_as_a_pattern_does(text: str) -> None:
    assert _ascii_words(text) == len(re.findall(r"[a-zA-Z]{2,}", text))


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


def test_a_quotation_is_no_mixture() -> None:
    for quoted in (
        "“学而时习之，不亦说乎哉”",
        "「千里之行，始于足下也啊」",
        "《三体第二部黑暗森林全集》",
        '"Волга всегда впадает прямо туда"',
    ):
        assert judged(mixed_in(f"It is called {quoted} there.")).outcome == "pass"
        assert judged(mixed_in(f"It is called {quoted[1:-1]} there.")).reason == "mixed_language"


def test_the_share_is_estimated_from_some_of_many_sentences() -> None:
    german, english = MATERIAL["sentences"]["de"], MATERIAL["sentences"]["en"]
    text = "\n".join(f"{german[n % 3]}\n{english[n % 2]}" for n in range(60))
    found = judged(text)
    assert found.reason == "mixed_language"
    assert found.score is not None
    assert 0.4 < found.score < 0.6


def test_the_score_is_that_of_the_worse_part() -> None:
    chinese = "".join(MATERIAL["sentences"]["zh"])
    for reasoning, answer in ((LONG, chinese), (chinese, LONG)):
        score = judged(reasoning, answer).score
        assert score is not None
        assert score < 0.2


class Sure:
    """A detector that answers one thing."""

    def __init__(self, code: str, sure: float) -> None:
        self.found, self.calls = (code, sure), 0

    def classify(self, text: str) -> tuple[str, float]:
        self.calls += 1
        return self.found


@pytest.mark.parametrize(
    ("code", "sure", "sentence", "outcome"),
    [
        ("de", 0.95, "xa xb xc xd xe xf xg", "fail"),
        ("de", 0.94, "xa xb xc xd xe xf xg", "pass"),
        ("de", 0.94, "xa xb nicht xd xe xf xg", "fail"),
        ("de", 0.8, "xa xb nicht xd xe xf xg", "fail"),
        ("de", 0.79, "xa xb nicht xd xe xf xg", "pass"),
        ("en", 0.99, "xa xb nicht xd xe xf xg", "pass"),
        ("hu", 0.94, "xa xb nicht xd xe xf xg", "pass"),
        ("de", 0.99, "xa xb the xd xe xf xg", "pass"),
        ("de", 0.99, "xa xb xc xd xe", "pass"),
        ("de", 0.99, "xa xb xc xd xe 5 = 7", "pass"),
    ],
)
def test_how_sure_the_detector_must_be(
    code: str, sure: float, sentence: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.filter.language.identifier", lambda languages: Sure(code, sure))
    assert judged(mixed_in(f"\n{sentence}\n")).outcome == outcome


@pytest.mark.parametrize(
    ("question", "given", "languages"),
    [
        ("Anna hat 12 Äpfel und gibt Ben 5 davon. Wie viele hat sie noch?", None, {"de"}),
        ("Anna hat 12 Äpfel und gibt Ben 5 davon. Wie viele hat sie noch?", "de_AT", {"de"}),
        ("Anna hat 12 Äpfel und gibt Ben 5 davon. Wie viele hat sie noch?", "deutsch", {"de"}),
        ("Oslo Bergen Trondheim 12 km?", "no", set()),
        ("Hva er avstanden mellom Oslo og Bergen?", "no", {"no"}),
        ("Oldja meg: 12 + 5 = ?", "hu", set()),
        ("小明有12个苹果。", "ZH-Hans", {"zh"}),
        ("Solve 3x = 5.", "en", {"en"}),
    ],
)
def test_the_language_of_a_question(question: str, given: str | None, languages: set[str]) -> None:
    assert expected_of(question, given).languages == languages


def test_a_short_exercise_taken_for_another_language_rejects_nothing() -> None:
    assert judged(LONG, prompt=Prompt("Oslo Bergen Trondheim 12 km?", language="no")).outcome == "pass"


def test_the_detector_is_asked_about_some_of_many_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Sure("en", 0.9)
    monkeypatch.setattr("distill.filter.language.identifier", lambda languages: detector)
    known = "that is the one and it is this one\n" * 200
    assert judged(known + "xa xb xc xd xe xf xg\n" * 100).outcome == "pass"
    assert 6 <= detector.calls <= 12
    detector.calls = 0
    assert judged(known).outcome == "pass"
    assert detector.calls == 0, "no sentence without a common word"
