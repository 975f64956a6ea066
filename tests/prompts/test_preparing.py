"""What is left out before anything is paid for, why, and in which order the rest is sampled."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill.errors import InputError
from distill.prompts import spool as spools
from distill.prompts import stage
from distill.prompts.sources import Sourced
from distill.prompts.stage import read_prompts
from distill.records import Prompt
from distill.rundir import RunDir, StageReport
from distill.source_specs import PrepareSettings, PromptsPart
from distill.specs import EvaluateSettings, Recipe

NAMES = ("Lena", "Omar", "Ruth", "Kofi", "Mei", "Ivan", "Zoe", "Hugo")
VERBS = ("counts", "paints", "sells", "washes", "stacks", "mends", "carries", "sorts", "hides", "weighs")
THINGS = ("boats", "lamps", "bells", "drums", "kites", "ropes", "tiles", "vases", "wheels", "coats", "masks")


def row(number: int, **changed: Any) -> dict[str, Any]:
    """A question unlike the others, with a gold answer."""
    name, verb = NAMES[number % len(NAMES)], VERBS[number % len(VERBS)]
    question = f"{name} {verb} {number + 10} {THINGS[number % len(THINGS)]} on day {number * 7 + 1}. How many is that?"
    return {"question": question, "answer": str(number + 10), **changed}


def prepared(
    tmp_path: Path, rows: list[dict[str, Any]], evaluation: list[dict[str, Any]] | None = None, **settings: Any
) -> tuple[list[Prompt], StageReport]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
    extra: dict[str, Any] = {}
    if evaluation is not None:
        (tmp_path / "test.jsonl").write_text("".join(json.dumps(each) + "\n" for each in evaluation))
        extra["evaluate"] = EvaluateSettings(prompts=(PromptsPart(source=str(tmp_path / "test.jsonl")),))
    asked = Recipe(
        name="r", prompts=(PromptsPart(source=str(path)),), prepare=PrepareSettings.model_validate(settings), **extra
    )
    run = RunDir(tmp_path / "run")
    report = stage.run(asked, run)
    return list(read_prompts(run.prompts)), report


def left_out(tmp_path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(tmp_path / "run" / "left-out.parquet").to_pylist()
    return found


def test_licences_match_in_any_case_and_languages_by_their_first_part(tmp_path: Path) -> None:
    rows = [row(0, license="mit", language="pt-BR"), row(1, license=None, language="pt")]
    kept, report = prepared(tmp_path, rows, licenses=["MIT"], languages=["pt"])
    assert [prompt.language for prompt in kept] == ["pt-BR"]
    assert report.counts["left_out"] == {"license": 1}


def test_other_golds_of_near_duplicates_are_counted_too(tmp_path: Path) -> None:
    first = "Natalia sold 48 clips to friends in April, and then 24 more clips in May. How many did Natalia sell?"
    rows = [{"question": first, "answer": "72"}, {"question": first.replace("Natalia", "Miriam"), "answer": "71"}]
    _, report = prepared(tmp_path, rows)
    assert report.counts["left_out"] == {"near_duplicate": 1}
    assert "1 repeated questions have another gold answer than the first of them, which stays" in report.lines


@pytest.mark.parametrize(
    ("changed", "settings", "reason"),
    [
        ({"question": "Hi?"}, {"min_chars": 10}, "too_short"),
        ({"question": "word " * 100}, {"max_chars": 300}, "too_long"),
        ({"license": "CC-BY-NC-4.0"}, {"licenses": ["MIT"]}, "license"),
        ({"language": "fr"}, {"languages": ["en", "zh"]}, "language"),
        (
            {"question": "Combien de pommes Marie a-t-elle maintenant, si elle en achète encore trois au marché ?"},
            {"languages": "en"},
            "language",
        ),
        ({"question": "Prove that the square root of two is irrational."}, {}, "proof"),
        ({"question": "What is the area of the triangle shown in the figure?"}, {}, "figure"),
        ({"answer": "it depends on whom you ask, really"}, {}, "unparseable_gold"),
        ({"kind": "choice", "choices": ["a", "b"], "answer": "E"}, {}, "bad_choice"),
        ({"kind": "code", "tests": []}, {}, "no_tests"),
    ],
)
def test_a_prompt_is_left_out_for_its_reason(
    tmp_path: Path, changed: dict[str, Any], settings: dict[str, Any], reason: str
) -> None:
    rows = [row(n, license="MIT", language="en") for n in range(3)]
    rows.insert(1, {**row(9, license="MIT"), **changed})
    kept, report = prepared(tmp_path, rows, **settings)
    assert report.counts["left_out"] == {reason: 1}
    assert len(kept) == 3
    (gone,) = left_out(tmp_path)
    assert gone["reason"] == reason
    assert gone["place"].endswith("rows.jsonl, line 2")
    assert gone["question"] == rows[1]["question"][:200]


def test_bounds_belong_to_what_they_allow_and_an_unknown_language_is_kept(tmp_path: Path) -> None:
    rows = [row(0, question="1+1=?", answer="2"), row(1, question="12+12=?", answer="24"), row(2, question="1+1+1+1=?")]
    kept, report = prepared(tmp_path, rows, min_chars=5, max_chars=9, languages=["en"])
    assert {prompt.language for prompt in kept} == {None}, "formulas have none"
    assert (len(kept), report.counts["left_out"]) == (3, {})
    kept, _ = prepared(tmp_path, rows, min_chars=6, max_chars=8)
    assert [prompt.question for prompt in kept] == ["12+12=?"]


def test_marks_of_the_source_are_kept_and_count(tmp_path: Path) -> None:
    """A proof that the answer column names, as NuminaMath's does, is nothing that a look at the question tells."""
    kept, report = prepared(tmp_path, [row(0), row(1, marks=["proof"])])
    assert (len(kept), report.counts["left_out"]) == (1, {"proof": 1})


def test_marks_can_be_kept(tmp_path: Path) -> None:
    rows = [row(0), {"question": "Prove that the square root of two is irrational.", "answer": "1"}]
    kept, _ = prepared(tmp_path, rows, drop=[])
    assert {prompt.marks for prompt in kept} == {(), ("proof",)}


def test_prompts_know_their_language(tmp_path: Path) -> None:
    kept, _ = prepared(
        tmp_path, [row(0), row(1, question="小明有12个苹果，又买了7个，现在一共有多少个苹果？", answer="19")]
    )
    assert {prompt.language for prompt in kept} == {"en", "zh"}


def test_of_questions_that_repeat_each_other_the_first_stays(tmp_path: Path) -> None:
    first = "Natalia sold 48 clips to friends in April, and then 24 more clips in May. How many did Natalia sell?"
    renamed = first.replace("Natalia", "Miriam")
    other = first.replace("24", "31")
    rows = [row(0), {"question": first, "answer": "72"}, {"question": renamed, "answer": "72"},
            {"question": other, "answer": "79"}, {"question": first, "answer": "71"}]  # fmt: skip
    kept, report = prepared(tmp_path, rows)
    assert {prompt.question for prompt in kept} == {rows[0]["question"], first, other}
    assert report.counts["left_out"] == {"near_duplicate": 1, "duplicate": 1}
    assert "1 repeated questions have another gold answer than the first of them, which stays" in report.lines
    details = {each["reason"]: each["detail"] for each in left_out(tmp_path)}
    assert details["duplicate"] == f"of {tmp_path / 'rows.jsonl'}, line 2"
    assert details["near_duplicate"].startswith(f"of {tmp_path / 'rows.jsonl'}, line 2, similarity 0.")
    _, report = prepared(tmp_path, rows, near_duplicates=False)
    assert report.counts["left_out"] == {"duplicate": 1}


def test_a_copy_names_the_place_of_its_first_behind_rows_that_are_left_out(tmp_path: Path) -> None:
    """The same words in another layout are a duplicate, also far behind."""
    gone = [row(n, license="other") for n in range(3)]
    first, number = row(5, license="MIT"), 8_300  # more than are compared at once
    copy = {**first, "question": first["question"].replace(" ", "\n")}
    between = [{"question": f"{n} + {n * 7}?", "answer": str(n * 8), "license": "MIT"} for n in range(number)]
    _, report = prepared(tmp_path, [*gone, first, *between, copy], licenses=["MIT"], languages=[])
    assert report.counts["left_out"] == {"license": 3, "duplicate": 1}
    (detail,) = [each["detail"] for each in left_out(tmp_path) if each["reason"] == "duplicate"]
    assert detail == f"of {tmp_path / 'rows.jsonl'}, line 4, similarity 1.00"


def test_a_copy_that_is_left_out_for_itself_takes_no_other_along(tmp_path: Path) -> None:
    rows = [row(0, license="other"), row(0, license="MIT")]
    kept, report = prepared(tmp_path, rows, licenses=["MIT"])
    assert [prompt.license for prompt in kept] == ["MIT"]
    assert report.counts["left_out"] == {"license": 1}


def test_problems_of_an_evaluation_are_left_out_and_named(tmp_path: Path) -> None:
    asked = [row(n) for n in range(20)]
    copied = {"question": asked[3]["question"].upper().replace(" ", "\n"), "answer": "13"}
    kept, report = prepared(tmp_path, asked, evaluation=[row(50), copied])
    assert report.counts["left_out"] == {"contaminated": 1}
    assert asked[3]["question"] not in {prompt.question for prompt in kept}
    (gone,) = left_out(tmp_path)
    assert gone["detail"].startswith("test:train, problem 2: 100% of it")


def test_sets_named_for_decontamination_count_too(tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(json.dumps(row(5)) + "\n")
    part = {"source": str(tmp_path / "more.jsonl")}
    _, report = prepared(tmp_path, [row(n) for n in range(10)], decontaminate=[part])
    assert report.counts["left_out"] == {"contaminated": 1}


def test_every_row_that_is_left_out_is_listed_however_many(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": "1"} for n in range(16_500)]
    prepared(tmp_path, [*rows, row(0)], min_chars=10)
    assert len({each["question"] for each in left_out(tmp_path)}) == 16_500


def test_when_nothing_is_left_it_says_what_took_the_prompts(tmp_path: Path) -> None:
    rows = [row(n, license="GPL") for n in range(3)] + [row(4, license="MIT", question="Prove that 1 + 1 = 2.")]
    with pytest.raises(InputError, match="no prompts left: all 4 were left out") as caught:
        prepared(tmp_path, rows, licenses=["MIT"])
    assert "3 license (prepare.licenses); 1 proof (prepare.drop)" in str(caught.value)
    assert "change prepare.licenses" in str(caught.value)
    assert not (tmp_path / "run" / "prompts.parquet").exists()
    assert not (tmp_path / "run" / ".prompts").exists()


# --- selection and order -------------------------------------------------------------------------------------------


def mixed(count: int) -> list[dict[str, Any]]:
    return [row(n, domain="math" if n % 4 else "code", difficulty=str(n % 3)) for n in range(count)]


def test_prompts_are_selected_by_rules_in_their_order(tmp_path: Path) -> None:
    rules = [
        {"domain": "code", "count": 10},
        {"domain": "math", "difficulty": ["0", "1"], "count": 30},
    ]
    kept, report = prepared(tmp_path, mixed(200), select=rules)
    assert Counter(prompt.domain for prompt in kept) == {"code": 10, "math": 30}
    assert {prompt.difficulty for prompt in kept if prompt.domain == "math"} == {"0", "1"}
    assert report.counts["left_out"] == {"not_selected": 160}


def test_a_prompt_belongs_to_the_first_rule_it_fits(tmp_path: Path) -> None:
    kept, _ = prepared(tmp_path, mixed(200), select=[{"difficulty": "0", "count": 5}, {"domain": "math"}])
    assert sum(prompt.difficulty == "0" for prompt in kept) == 5
    assert all(prompt.domain == "math" for prompt in kept if prompt.difficulty != "0")


def test_few_prompts_are_sampled_more_often_to_make_up_the_count(tmp_path: Path) -> None:
    rules = [{"domain": "code", "count": 117, "max_repeats": 10}, {"domain": "math", "count": 200, "max_repeats": 1}]
    kept, report = prepared(tmp_path, mixed(200), select=rules)
    repeats = Counter(prompt.repeats for prompt in kept if prompt.domain == "code")
    assert repeats == {2: 33, 3: 17}, "50 prompts, 117 times in all"
    assert {prompt.repeats for prompt in kept if prompt.domain == "math"} == {None}
    assert report.counts["samples_of_each"] == 117 + 150
    assert "prepare.select, domain math: 150 from 150 prompts, 200 are asked for" in report.lines


def test_no_rule_is_said_to_lack_prompts_that_repeats_make_up(tmp_path: Path) -> None:
    _, report = prepared(tmp_path, mixed(40), select=[{"domain": "code", "count": 20, "max_repeats": 3}])
    assert report.counts["samples_of_each"] == 20
    assert not [line for line in report.lines if line.startswith("prepare.select")]


def test_a_rule_that_fits_no_prompt_is_told(tmp_path: Path) -> None:
    _, report = prepared(tmp_path, mixed(40), select=[{"domain": "coed"}, {"domain": "math"}])
    assert [line for line in report.lines if line.startswith("prepare.select")] == [
        "prepare.select, domain coed: 0 from 0 prompts"
    ]


def test_another_seed_draws_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in mixed(200)))
    drawn = []
    for seed in (1, 2):
        asked = Recipe(
            name="r",
            seed=seed,
            prompts=(PromptsPart(source=str(path)),),
            prepare=PrepareSettings.model_validate({"select": [{"count": 50}]}),
        )
        run = RunDir(tmp_path / str(seed))
        stage.run(asked, run)
        drawn.append({prompt.id for prompt in read_prompts(run.prompts)})
    assert 0 < len(drawn[0] & drawn[1]) < 35, "a quarter by chance"


@pytest.mark.parametrize("field", ["language", "license", "kind", "difficulty"])
def test_every_property_can_be_selected(tmp_path: Path, field: str) -> None:
    wanted = {"language": "zh", "license": "MIT", "kind": "open", "difficulty": "hard"}[field]
    kept, _ = prepared(tmp_path, [row(0), row(1, **{field: wanted})], select=[{field: wanted}])
    assert [getattr(prompt, field) for prompt in kept] == [wanted]


def test_repeats_end_at_their_limit(tmp_path: Path) -> None:
    kept, report = prepared(tmp_path, mixed(40), select=[{"domain": "code", "count": 1_000, "max_repeats": 3}])
    assert {prompt.repeats for prompt in kept} == {3}
    assert "prepare.select, domain code: 30 from 10 prompts, 1,000 are asked for" in report.lines


def test_the_draw_and_the_order_follow_the_seed_and_nothing_else(tmp_path: Path) -> None:
    first, _ = prepared(tmp_path, mixed(200), select=[{"count": 50}])
    again, _ = prepared(tmp_path, mixed(200), select=[{"count": 50}])
    assert first == again
    reordered, _ = prepared(tmp_path, mixed(200)[::-1], select=[{"count": 50}])
    assert [prompt.id for prompt in reordered] == [prompt.id for prompt in first], "the source's order plays no part"


def test_any_prefix_is_a_fair_sample(tmp_path: Path) -> None:
    """Sources one after the other would come first to last; in the shuffled order every part has its share early."""
    rows = [row(n, domain="math") for n in range(600)] + [row(n, domain="code") for n in range(600, 800)]
    kept, _ = prepared(tmp_path, rows)
    for length in (100, 200, 400):
        share = sum(prompt.domain == "code" for prompt in kept[:length]) / length
        spread = (0.25 * 0.75 / length) ** 0.5
        assert abs(share - 0.25) < 4 * spread, (length, share)
    plain, _ = prepared(tmp_path, rows, shuffle=False)
    assert [prompt.question for prompt in plain] == [each["question"] for each in rows]


def test_many_buckets_and_row_groups_give_the_same_file_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = mixed(500)
    whole, _ = prepared(tmp_path, rows, select=[{"count": 300}])
    monkeypatch.setattr(spools, "BUCKET_BYTES", 2_000)
    monkeypatch.setattr(spools, "GROUP_BYTES", 3_000)
    pieces, _ = prepared(tmp_path, rows, select=[{"count": 300}])
    assert pieces == whole
    assert pq.ParquetFile(tmp_path / "run" / "prompts.parquet").num_row_groups > 10


def test_a_bucket_of_several_row_groups_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "GROUP_ROWS", 7)
    kept, report = prepared(tmp_path, mixed(100))
    assert len(kept) == report.counts["prompts"] == 100
    assert pq.ParquetFile(tmp_path / "run" / "prompts.parquet").num_row_groups == 15


def test_large_prompts_close_a_row_group_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "GROUP_BYTES", 3_000)
    test = {"input": "1 " * 700, "output": "1"}
    rows = [row(n, kind="code", answer=None, tests=[test]) for n in range(6)]
    spooled = spools.Spool(tmp_path / "spool")
    for number, each in enumerate(rows):
        spooled.add(Sourced(Prompt.from_json(each), f"line {number}"))
    spooled.close()
    assert [first for first, _ in spooled.groups()] == [0, 2, 4]


def test_what_a_killed_start_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "run" / ".prompts").mkdir(parents=True)
    (tmp_path / "run" / ".prompts" / "prompts.parquet").write_bytes(b"half")
    kept, _ = prepared(tmp_path, [row(0)])
    assert len(kept) == 1


# --- bad input -----------------------------------------------------------------------------------------------------


def refused(tmp_path: Path, content: bytes, **settings: Any) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    asked = Recipe(name="r", prompts=(PromptsPart(source=str(path)),), prepare=PrepareSettings.model_validate(settings))
    with pytest.raises(InputError) as caught:
        stage.run(asked, RunDir(tmp_path / "run"))
    assert not (tmp_path / "run" / "prompts.parquet").exists()
    return str(caught.value)


GOOD = json.dumps(row(0)).encode() + b"\n"


def test_bad_rows_are_named(tmp_path: Path) -> None:
    assert "rows.jsonl, line 2: there is no column 'question'" in refused(tmp_path, GOOD + b'{"query": "q"}\n')
    assert "columns here: query" in refused(tmp_path, GOOD + b'{"query": "q"}\n')
    assert "line 2: field 'question' must be str" in refused(tmp_path, GOOD + b'{"question": ["q"], "answer": "1"}\n')
    assert "line 2: not UTF-8 at byte 16" in refused(tmp_path, GOOD + b'{"question": "q\xff", "answer": "1"}\n')
    assert "line 2: field 'answer' must be str or null" in refused(
        tmp_path, GOOD + b'{"question": "q", "answer": [1]}\n'
    )


def test_a_line_of_50_mb(tmp_path: Path) -> None:
    """As a question it is too long and left out; broken, it is named and quoted in short."""
    text = b"word " * 10_000_000
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b'{"question": "' + text + b'", "answer": "1"}\n')
    run = RunDir(tmp_path / "run")
    report = stage.run(Recipe(name="r", prompts=(PromptsPart(source=str(path)),)), run)
    assert report.counts["left_out"] == {"too_long": 1}
    assert len(left_out(tmp_path)[0]["question"]) == 200
    said = (
        refused(tmp_path / "broken", GOOD + b'{"question": "' + text) if (tmp_path / "broken").mkdir() is None else ""
    )
    assert "line 2: not JSON" in said
    assert len(said) < 500
