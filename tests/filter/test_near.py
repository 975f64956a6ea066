"""Near-duplicate traces: copies are found as often as the curve says, and solutions of one template never."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from ledger_material import trace

from distill.filter import near
from distill.filter.near import BYTES, Duplicate, NearDuplicates, compared, signature
from distill.problems import arithmetic

DATA = Path(__file__).parents[1] / "data"
TEXT = "Natalia sold 48/2 = 24 clips in May. She sold 48 + 24 = 72 clips altogether: 七十二. Größe 3,5 \u0301"


@pytest.fixture(scope="module")
def outputs() -> list[str]:
    """128 replies of a real model, four to a question."""
    lines = (DATA / "teacher_outputs_128.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def decided(texts: Iterable[str], **named: str) -> list[Duplicate]:
    rows = NearDuplicates()
    for row, text in enumerate(texts):
        rows.add(row, signature(text, **named))
    return rows.decide()


def solved(count: int, *, wrap: Callable[[str, str], str] = "{}\n</think>\n\n{}".format) -> list[str]:
    """Traces in the form of the embedded teacher: one template for all, no arithmetic twice."""
    rng = random.Random(1)
    problems = itertools.islice(arithmetic.problems("train", 1), count)
    return [wrap(*arithmetic.solve(problem, rng)) for problem in problems]


def edited(text: str, dose: float, rng: random.Random) -> str:
    """So many of the words exchanged for others of the text, left out or doubled."""
    words = text.split(" ")
    found: list[str] = []
    for word in words:
        kind = rng.choice(["exchanged", "left out", "doubled"]) if rng.random() < dose else ""
        found += {"exchanged": [rng.choice(words)], "left out": [], "doubled": [word, word]}.get(kind, [word])
    return " ".join(found)


def jaccard(a: str, b: str) -> float:
    words, _, ends = near.tokens([a, b])
    grams, ends = near._grams(words, ends, near.WORDS)
    first, second = (set(each.tolist()) for each in np.split(grams, ends[:1]))
    return len(first & second) / len(first | second)


# --- what is found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dose", [0.01, 0.03, 0.06])
def test_copies_are_found_as_often_as_the_curve_says(outputs: list[str], dose: float) -> None:
    rng = random.Random(f"{dose}")
    pairs = [(text, edited(text, dose, rng)) for text in outputs for _ in range(2)]
    likely = [1 - (1 - jaccard(*pair) ** near.ROWS_OF_BAND) ** near.BANDS for pair in pairs]
    found = sum(bool(decided(pair)) for pair in pairs)
    spread = sum(p * (1 - p) for p in likely) ** 0.5
    assert sum(likely) - 4 * spread - 0.03 * len(pairs) <= found <= sum(likely) + 4 * spread
    assert found >= {0.01: 250, 0.03: 170, 0.06: 50}[dose]


def test_other_solutions_are_no_copies(outputs: list[str]) -> None:
    """Neither of the same question, which are rollouts worth having, nor of another."""
    assert decided(outputs) == []
    lines = (DATA / "gsm8k_200.jsonl").read_text(encoding="utf-8").splitlines()
    assert decided(json.loads(line)["answer"] for line in lines) == []


def test_the_first_stays_and_its_copies_name_it(outputs: list[str]) -> None:
    rng = random.Random(2)
    first, other = outputs[0], outputs[40]
    texts = [first, other, edited(first, 0.01, rng), " \n".join(first.split()), edited(other, 0.01, rng), first + "!"]
    wanted = [(2, 0, False), (3, 0, True), (4, 1, False), (5, 0, False)]
    assert decided(texts) == [Duplicate(*each) for each in wanted]


def test_what_is_left_out_is_like_what_stays(outputs: list[str]) -> None:
    """A chain of small edits ends where it is another text; an exact copy of a copy names the text that stays."""
    rng = random.Random(3)
    chain = [outputs[5]]
    while len(chain) < 40:
        chain.append(edited(chain[-1], 0.01, rng))
    texts = [*chain, chain[5]]
    found = decided(texts)
    out = {each.row for each in found}
    assert 20 < len(found) < 39
    assert not out & {each.of for each in found}
    assert all(jaccard(texts[each.row], texts[each.of]) > 0.4 for each in found)
    assert chain[5] != chain[0]
    assert found[-1] == Duplicate(40, 0, False)


def test_texts_of_two_prompts_do_not_meet_where_that_is_wanted(outputs: list[str]) -> None:
    texts = [outputs[0], outputs[0], outputs[0] + " Done.", outputs[0] + " Done!"]
    rows = NearDuplicates()
    for row, (text, prompt) in enumerate(zip(texts, "abab", strict=True)):
        rows.add(row, signature(text, within=prompt))
    assert rows.decide() == [Duplicate(2, 0, False), Duplicate(3, 1, False)]
    assert [each.of for each in decided(texts)] == [0, 0, 0]


# --- templates -------------------------------------------------------------------------------------------------------

PROSE = (
    "We are asked how far the train travels in the time that is given, and the way to find it is to multiply its speed "
    "by that time. The train travels at {} kilometres an hour all the way, and the journey takes {} hours without any "
    "stop on the way, so nothing has to be taken off. Multiplying the one by the other gives {} kilometres, which is a "
    "plausible distance for a train of this kind. Let me check the units once more: kilometres an hour times hours are "
    "kilometres, as they should be for a distance, so the answer that is asked for is the number above and no other."
)


def test_the_embedded_teachers_traces_are_no_copies_of_each_other() -> None:
    texts = solved(500)
    assert decided(texts) == []
    masked = [re.sub(r"\d+", "0", text) for text in texts]
    assert len(decided(masked)) > 100, "the trap is there: as datatrove reads them"


def test_a_template_in_long_prose_is_told_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [PROSE.format(speed, hours, speed * hours) for speed in range(40, 60) for hours in range(2, 12)]
    assert decided(texts) == []
    assert decided([texts[0], texts[0].replace("plausible", "likely")]) == [Duplicate(1, 0, False)]
    monkeypatch.setattr(near, "ALIKE", 0.0)
    assert len(decided(texts)) > 100, "their words alone are alike"


# --- short and odd texts ---------------------------------------------------------------------------------------------


def test_short_texts_are_copies_when_all_their_words_are_the_same() -> None:
    texts = ["The answer is 4.", "the answer is: 4", "The answer is 5.", "The answer", "answer", "Answer!", "4", "4."]
    assert decided(texts) == [Duplicate(1, 0, False), Duplicate(5, 4, False), Duplicate(7, 6, False)]


def test_a_text_without_words_repeats_only_itself_and_a_blank_one_nothing() -> None:
    texts = ["", " \n", "😀", "", "😀 ", "∀∃", "😀😀", "\ud800", "\ud801", "\ud800"]
    assert decided(texts) == [Duplicate(4, 2, True), Duplicate(9, 7, True)]


def test_scripts_without_spaces_are_compared_letter_by_letter() -> None:
    text = "小明有四十八个苹果他给了朋友一半然后又买了十二个请问他现在一共有多少个苹果答案是三十六个"
    other = "火车每小时行驶六十公里从北京到天津需要两个小时请问这段路程有多长我们把速度乘以时间得到结果"
    assert decided([text, text.replace("答案", "结果"), other]) == [Duplicate(1, 0, False)]


def test_case_width_and_composition_of_letters_say_nothing() -> None:
    texts = [
        "Die Größe des Cafés ist ４８ Quadratmeter",
        "die gröSSe".replace("SS", "ß") + " des cafe\u0301s IST 48 quadratmeter",
    ]
    assert decided(texts) == [Duplicate(1, 0, False)]


def test_letters_and_digits_are_words_of_their_own() -> None:
    words, digits, _ = near.tokens(["x12 3.5kg, 1,000 don't"])
    assert digits.tolist() == [False, True, True, True, False, True, True, False, False]
    assert len(set(words.tolist())) == 9
    for text, other in (("ab", "ba"), ("a" * 64 + "b", "a" * 65)):
        assert near.tokens([text])[0].tolist() != near.tokens([other])[0].tolist()


@pytest.mark.parametrize("text", ["7" * 1_000_000, "a " * 500_000, "字" * 500_000, "{" * 1_000_000, "é1" * 300_000])
def test_a_hostile_text_takes_linear_time(text: str) -> None:
    began = time.process_time()
    signature(text)
    assert time.process_time() - began < 5


def test_what_is_compared_of_a_trace() -> None:
    one = trace(1)
    assert compared(one) == one.raw
    whole = trace(1).__class__.from_json({**one.to_json(), "reasoning": "r", "answer": "a"})
    assert compared(whole) == "r\n</think>\n\na"


# --- the same everywhere ---------------------------------------------------------------------------------------------


def test_a_signature_is_the_same_in_every_process_and_version() -> None:
    """Stored signatures outlive a start: when this fails, `version` has to change."""
    assert near.version() == "1-2"
    assert signature(TEXT, within="p").hex() == GOLDEN
    without_numbers = hashlib.sha256(signature("no number stands in this text of nine words")).hexdigest()
    assert without_numbers.startswith("437cc20720cf36a5")
    code = f"from distill.filter.near import signature; print(signature({TEXT!r}, within='p').hex())"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert told.stdout.strip() == GOLDEN


def test_a_signature_does_not_depend_on_the_texts_read_with_it(outputs: list[str]) -> None:
    texts = [
        "",
        "?!",
        "a",
        "7",
        "1 2 3",
        "four words and more",
        "字字",
        "\ud800",
        TEXT,
        *outputs[:30],
        "é" * 70,
        "",
        " b",
    ]
    within = [str(place % 3) for place in range(len(texts))]
    alone = [signature(text, within=group) for text, group in zip(texts, within, strict=True)]
    for size in (2, 5, len(texts)):
        places = range(0, len(texts), size)
        parts = [near.signatures(texts[start : start + size], within[start : start + size]) for start in places]
        assert [mark for part in parts for mark in part] == alone
    assert near.signatures([]) == []


GOLDEN = (
    "b20c4b79cb80be48a7a0ecc0cabe001f75dc5be5f75c0cef0c7cfdb694f43b1a50a35aaa297a9a9a"
    "6c1ee238e50c06f90f9bf846dc6906497a94715af069da761edec45fef2d76a5c21bd4c61bca4725"
    "63fd4d8e54775201d63c57ff7e49148d619a93b0e8746d7e18ab8bb3f136c81d260c34a08cb80ba5"
)


def test_the_order_of_adding_changes_nothing(outputs: list[str]) -> None:
    rng = random.Random(4)
    texts = [edited(text, 0.02, rng) for text in outputs[:40] for _ in range(4)]
    signatures = list(enumerate(map(signature, texts)))
    results = []
    for seed in range(3):
        rows = NearDuplicates()
        for row, given in random.Random(seed).sample(signatures, len(signatures)):
            rows.add(row, given)
        results.append(rows.decide())
        assert rows.decide() == results[-1], "asked again"
    assert results[0] == results[1] == results[2]
    assert len(results[0]) > 60


# --- rows, memory, work ----------------------------------------------------------------------------------------------


def test_rows_that_were_never_added_repeat_nothing() -> None:
    rows = NearDuplicates()
    assert rows.decide() == []
    for row in (9, 2, 5):
        rows.add(row, signature("one and the same text of several words"))
    assert rows.decide() == [Duplicate(5, 2, True), Duplicate(9, 2, True)]
    assert len(rows) == 10


def test_a_row_is_added_once_and_whole() -> None:
    rows = NearDuplicates()
    rows.add(1, signature("a"))
    with pytest.raises(ValueError, match="row 1 is there already"):
        rows.add(1, signature("b"))
    with pytest.raises(ValueError, match="120 bytes, this one 119"):
        rows.add(2, signature("a")[1:])
    assert len(rows) == 2


def random_rows(count: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    rng = np.random.default_rng(0)
    return np.frombuffer(rng.bytes(count * BYTES), near.RECORD).copy()


def test_a_row_keeps_120_bytes() -> None:
    rows = NearDuplicates()
    for row, record in enumerate(random_rows(1_000)):
        rows.add(row, record.tobytes())
    assert BYTES == 120
    assert len(rows._rows) == 1_000 * BYTES
    assert sys.getsizeof(rows._rows) < 1.2 * 1_000 * BYTES


def added(records: Sequence[np.void]) -> NearDuplicates:
    rows = NearDuplicates()
    for row, record in enumerate(records):
        rows.add(row, record.tobytes())
    return rows


def test_the_work_is_bounded_where_many_rows_share_their_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    records = random_rows(3_000)
    records["bands"] = records["bands"][0]
    compared_pairs = 0
    alike = near._alike

    def counted(records: object, later: Sequence[int], earlier: Sequence[int]) -> object:
        nonlocal compared_pairs
        compared_pairs += len(later)
        return alike(records, later, earlier)  # type: ignore[arg-type]

    monkeypatch.setattr(near, "_alike", counted)
    assert added(list(records)).decide() == []
    assert 0 < compared_pairs <= 3_000 * near.PER_KEY * near.BANDS
    compared_pairs = 0
    records["words"], records["numbers"] = records["words"][0], records["numbers"][0]
    assert [each.of for each in added(list(records)).decide()] == [0] * 2_999
    assert compared_pairs <= 3_000 * (near.PER_KEY * near.BANDS + near.PER_ROW)


@pytest.mark.parametrize("sketch", ["words", "numbers"])
def test_equal_bands_are_not_enough(sketch: str) -> None:
    """Bands are 32 bits: among 800,000 traces a thousand pairs meet by chance."""
    records = random_rows(2)
    records[1] = records[0]
    records["exact"][1] += 1
    assert added(list(records)).decide() == [Duplicate(1, 0, False)]
    half = records[sketch].shape[1] // 2
    records[sketch][1, :half] ^= 1
    assert added(list(records)).decide() == [Duplicate(1, 0, False)]
    records[sketch][1, half] ^= 1
    assert added(list(records)).decide() == []


def test_the_first_row_of_a_band_is_found_behind_many_unlike_ones() -> None:
    records = random_rows(40)
    records["bands"] = records["bands"][0]
    records["words"][39], records["numbers"][39] = records["words"][0], records["numbers"][0]
    assert added(list(records)).decide() == [Duplicate(39, 0, False)]


def test_a_row_like_two_others_is_a_copy_of_the_one_that_stays() -> None:
    """Row 3 is like row 1, which goes because of row 0, and not like row 0; where row 2 is like it, it repeats that."""
    records = random_rows(4)
    records["bands"][1:] = records["bands"][0]
    for row, changed in ((1, 10), (3, 20)):
        records["numbers"][row] = records["numbers"][0]
        records["numbers"][row, :changed] ^= 1
    records["words"][1:] = records["words"][0]
    assert added(list(records)).decide() == [Duplicate(1, 0, False)], "row 3 is like row 1 only"
    records["numbers"][2] = records["numbers"][3]
    records["numbers"][2, 20:] ^= np.arange(12, dtype=np.uint8) % 2
    assert added(list(records)).decide() == [Duplicate(1, 0, False), Duplicate(3, 2, False)]
