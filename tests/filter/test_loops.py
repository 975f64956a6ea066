"""Loops of several kinds are found, each by its rule; work that repeats itself by nature passes."""

from __future__ import annotations

import json
import random
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from checked_trace import PROMPT, TRACE

from distill.filter.loops import Loop, find_loop, loop
from distill.filter_specs import LoopSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from repetitive_work import legitimate, looped

SETTINGS = LoopSettings()
OUTPUTS = [
    json.loads(line)["text"]
    for line in (Path(__file__).parents[1] / "data/teacher_outputs_128.jsonl").read_text(encoding="utf-8").splitlines()
]


def rule(text: str, settings: LoopSettings = SETTINGS) -> str | None:
    found = find_loop(text, settings)
    return found.rule if found else None


def only(**changes: int | float) -> LoopSettings:
    """Settings with one rule on."""
    off = dict.fromkeys(LoopSettings.model_fields, None)
    return LoopSettings.model_validate({**off, **changes})


def novel(count: int, words: int = 12) -> list[str]:
    """Sentences of which no two are alike."""
    rng = random.Random(3)
    return [" ".join(f"w{rng.randrange(10**6)}x" for _ in range(words)) for _ in range(count)]


@pytest.mark.parametrize(("name", "text"), legitimate().items())
def test_repetitive_work_passes(name: str, text: str) -> None:
    assert find_loop(text, SETTINGS) is None
    for part in ({"reasoning": text, "answer": "4"}, {"reasoning": "add", "answer": text}):
        assert loop(PROMPT, replace(TRACE, **part), SETTINGS).outcome == "pass"


def test_real_replies_pass() -> None:
    assert [text for text in OUTPUTS if find_loop(text, SETTINGS)] == []
    assert find_loop("\n\n".join(OUTPUTS[::4]), SETTINGS) is None, "one long text of them"


@pytest.mark.parametrize("sentences", [1, 2, 5])
@pytest.mark.parametrize("part", ["reasoning", "answer"])
def test_a_real_reply_that_begins_to_loop(sentences: int, part: str) -> None:
    rng = random.Random(sentences)
    texts = [looped(text, sentences, 90, rng) for text in OUTPUTS]
    found = [loop(PROMPT, replace(TRACE, **{part: text}), SETTINGS) for text in texts]
    missed = [text[-300:] for text, outcome in zip(texts, found, strict=True) if outcome.reason != "loop"]
    assert len(missed) <= 2, missed  # the few are formulas without a word
    assert all(outcome.score is not None and outcome.score >= 4 for outcome in found if outcome.outcome == "fail")


def test_paragraphs() -> None:
    settings = only(paragraph_times=10)
    other = novel(4)
    for piece, times in (("But maybe I should look at it again.", 10), ("So x = 4 + 5, hence x = 9.", 20)):
        assert rule("\n\n".join([*other, *[piece] * times]), settings) == "paragraph"
        assert rule("\n\n".join([*other, *[piece] * (times - 1)]), settings) is None
    assert rule("\n\n".join([*other, *["Hmm, wait."] * 30]), settings) is None, "too short"
    assert rule("\n\n".join([*other, *["1 2 3 4 5 6 7 8 9 10 11 12"] * 30]), settings) is None, "holds no word"


def test_sentences() -> None:
    settings = only(sentence_times=40)
    assert rule("Let me check that again. Fine now. " * 40, settings) == "sentence"
    assert rule("Let me check that again. Fine now. " * 39, settings) is None
    assert rule("Let me check that again. " * 40, settings) == "sentence"
    assert rule("\n".join(["We add 3 to it", "and go on"] * 80), settings) == "sentence"
    assert rule("\n".join(["We add 3 to it", "and done"] * 79), settings) is None, (
        "mathematics may repeat twice as often"
    )
    spread = [part for line in novel(60) for part in (line, line[::-1], "Let me check that again.")]
    assert rule("\n".join(spread), settings) is None, "most of what stands between is new"


def test_sentences_in_a_row() -> None:
    settings = only(consecutive_times=4)
    assert rule("I see. " + "Let me check that again. " * 4, settings) == "consecutive"
    assert rule("I see. " + "Let me check that again. " * 3 + "Or not.", settings) is None
    assert rule("x = 4 gives 12 here.\n" * 16, settings) == "consecutive"
    assert rule("x = 4 gives 12 here.\n" * 15, settings) is None
    assert rule("让我再检查一遍这个结果。" * 4, settings) == "consecutive"
    assert rule("Wait. " * 30, settings) is None, "too short"


def test_pieces() -> None:
    settings = only(gram_times=20)
    piece = "so the number that we were looking for is the one that we had found before this"
    rounds = [f"{piece} {extra}" for extra in novel(21, 3)]
    assert rule(" ".join(rounds), settings) == "gram"
    assert rule(" ".join(rounds[:20]), settings) is None
    assert rule(" ".join(f"{piece[:60]} {extra}" for extra in novel(40, 3)), settings) is None, "shorter pieces"
    assert rule("no " * 315, settings) == "gram", "a piece that overlaps itself counts once for its length"
    assert rule("no " * 314, settings) is None
    chinese = "，不满足条件所以我们必须继续尝试下一个数字直到找到答案为止吧啊呢"
    assert rule("".join(f"{number}{chinese}" for number in range(30, 51)), settings) == "gram"
    assert rule("0 1 " * 990, settings) is None
    assert rule("0 1 " * 1_200, settings) == "gram", "what holds no word, beyond any matrix"


def test_a_cycle_at_the_end() -> None:
    settings = only(cycle_times=8)
    start = " ".join(novel(3))
    cycle = " and then we take the next one and look whether it may be the last one of them all,"
    assert rule(start + cycle * 8, settings) == "cycle"
    assert rule(start + cycle * 8 + cycle[:30], settings) == "cycle", "cut in the middle of a round"
    assert rule(start + cycle * 6, settings) is None
    assert rule(start + cycle * 12 + " So the answer is 4, which we have seen before.", settings) is None
    assert find_loop(start + cycle * 8, settings) == Loop("cycle", 8, find_loop(start + cycle * 8, settings).excerpt)  # type: ignore[union-attr]
    assert rule(start + " we take 5 and add 7 to it, which gives us 12 once more," * 33, settings) == "cycle"
    assert rule(start + " we take 5 and add 7 to it, which gives us 12 once more," * 31, settings) is None
    assert rule(start + " ha" * 130, settings) is None, "shorter than a cycle must be"
    assert rule(start + " ha" * 140, settings) == "cycle"


def test_compression() -> None:
    settings = only(most_compressible=30.0)
    block = " ".join(novel(30))
    assert rule("\n".join([block] * 80), settings) == "compressible"
    assert rule("\n".join([block] * 4), settings) is None
    found = find_loop("\n".join([block] * 80), settings)
    assert found is not None
    assert found.times > 30


def test_compression_of_what_holds_no_word_or_repeats_no_piece() -> None:
    settings = only(most_compressible=30.0)
    assert rule("0 1 " * 900, settings) is None
    assert rule("0 1 " * 1_100, settings) == "compressible"
    assert rule("no we " * 330, settings) is None, "too short to say"
    assert rule("no we " * 340, settings) == "compressible"
    rng = random.Random(5)
    letters = " ".join("ab" * rng.randint(1, 12) for _ in range(2_000))
    assert rule(letters, only(most_compressible=4.0)) is None
    assert len(letters) / len(zlib.compress(letters.encode(), 1)) > 4


def test_a_cycle_that_holds_its_own_end_twice() -> None:
    end = "and so we come back to where we began, do we not"
    cycle = f" first we look at the left side, {end} then we look at the other side, {end}"
    assert rule("Well then." + cycle * 8, only(cycle_times=8)) == "cycle"
    assert rule("Well then." + cycle * 7, only(cycle_times=8)) is None


def test_each_rule_can_be_turned_off() -> None:
    text = "Let me check that again. " * 400
    assert rule(text) == "sentence"
    assert rule(text, only()) is None


def test_the_score_tells_how_often() -> None:
    outcome = loop(PROMPT, replace(TRACE, reasoning="I see. " + "Let me check that again. " * 9), SETTINGS)
    assert (outcome.outcome, outcome.reason, outcome.score) == ("fail", "loop", 9.0)
