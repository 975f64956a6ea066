"""Foreign traces in a run: every one of them, once, exactly; killed and resumed; filtered; exported and back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill import compose, specs
from distill.contract import STEP_BY_STEP, prompt_messages
from distill.errors import InputError, Interrupted, LockedError, RunError, UsageError
from distill.exchange import importing
from distill.exchange.dataset_files import files_of
from distill.exchange.importing import Imports, Options, import_places, plainly_asked
from distill.files import sha256_tree
from distill.generate.reparse import reparse
from distill.ledger import Ledger
from distill.pipeline import run_recipe
from distill.prompts.rows import rows
from distill.prompts.stage import read_prompts
from distill.records import Prompt, Sampling, SamplingRecord, TeacherIdentity, Trace, Verdict, asked_hash, trace_key
from distill.rundir import RunDir
from distill.sampling.requests import derive
from exchange.material import EXPECTED, FIXTURES, SCHEMAS, SETS, as_parquet, leaves


def fixture(name: str) -> str:
    return str(FIXTURES / f"{name}.jsonl")


def imported(run: RunDir, *places: str, **options: Any) -> Imports:
    """What the command does: import, recipe, the first two stages."""
    base = compose.import_base(run)
    found = import_places(run, places, Options(**options))
    compose.keep_recipe(run, compose.import_recipe(run, base, found.teachers, ()))
    run_recipe(specs.recipe(str(run.recipe)), run, last="generate")
    return found


def filtered(run: RunDir, **settings: Any) -> dict[str, Any]:
    run_recipe(specs.recipe(str(run.recipe), settings), run, last="filter")
    return run.stages()["filter"].counts


def prompts_of(run: RunDir) -> dict[str, Prompt]:
    """Hash of the question asked plainly → prompt, as the import wrote it."""
    return {plainly_asked(prompt): prompt for prompt in read_prompts(run.imported / "prompts.parquet")}


def original_rows(run: RunDir) -> list[dict[str, Any]]:
    return [row for path in sorted(run.imported.glob("rows-*.parquet")) for row in pq.read_table(path).to_pylist()]


def listed(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def written(path: Path, values: Iterable[Any]) -> str:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return str(path)


def message(question: str, reply: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]}


# --- every set, exactly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_every_trace_arrives_exactly_and_every_other_row_is_listed(name: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    found = imported(run, fixture(name))
    expected, unreadable = EXPECTED[name]["traces"], EXPECTED[name]["unreadable"]
    traces, prompts = list(run.ledger().traces()), prompts_of(run)
    assert found.traces == len(traces) == len(expected)
    source = dict(rows(fixture(name)))
    texts = {number: leaves(row) for number, row in source.items()}
    samples: Counter[tuple[str, str]] = Counter()
    for trace, told in zip(traces, expected, strict=True):
        prompt = prompts[trace.asked]
        assert prompt.question == told["question"]
        assert (trace.reasoning, trace.answer) == (told["reasoning"], told["answer"])
        assert (trace.fault, trace.finish_reason) == (told["fault"], told["finish"])
        assert (prompt.kind, prompt.answer) == (told["kind"], told["gold"])
        assert trace.teacher == TeacherIdentity(told["teacher"], "unknown")
        assert trace.raw in texts[told["row"]], "as it stands in the set"
        assert trace.sample == samples[trace.asked, trace.teacher.model]
        samples[trace.asked, trace.teacher.model] += 1
        assert trace.key == trace_key(trace.asked, trace.sample, trace.teacher, trace.sampling.requested)
        assert (trace.prompt_id, trace.endpoint, trace.attempts) == (prompt.id, f"import:{name}", 1)
    entries = listed(run.imported / "unreadable.jsonl")
    assert [[entry["row"], entry["item"], entry["reason"]] for entry in entries] == unreadable
    assert found.unreadable == Counter(reason for _, _, reason in unreadable)
    assert all(entry["file"] == fixture(name) and entry["start"] and entry["what"] for entry in entries)
    assert not list(run.imported.glob("prompts-*.parquet")), "merged into prompts.parquet"
    kept = original_rows(run)
    assert [(row["row"], row["layout"]) for row in kept] == [(number, name) for number in source]
    assert [canonical(json.loads(row["text"])) for row in kept] == [canonical(row) for row in source.values()]
    made = {key for row in kept for key in row["keys"]}
    assert made == {trace.key for trace in traces}
    assert run.stages()["generate"].counts["answered"] == len(traces)


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("name", SETS)
def test_the_same_command_again_changes_nothing(name: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    first = imported(run, fixture(name))
    before = {path.name: sha256_tree(path) for path in (run.traces, run.imported, run.recipe, run.prompts)}
    second = imported(run, fixture(name))
    assert {path.name: sha256_tree(path) for path in (run.traces, run.imported, run.recipe, run.prompts)} == before
    assert (second.traces, second.prompts) == (0, 0)
    assert second.there == first.traces + first.there
    assert (second.rows, second.unreadable) == (first.rows, first.unreadable)


def test_a_second_file_adds_and_a_copy_elsewhere_does_not(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, fixture("openr1-math"))
    copy = tmp_path / "copies" / "openr1-math.jsonl"
    copy.parent.mkdir()
    copy.write_bytes(Path(fixture("openr1-math")).read_bytes())
    again = imported(run, str(copy))
    assert (again.traces, len(original_rows(run))) == (0, 23)
    more = imported(run, fixture("openmathreasoning"), fixture("sharegpt"))
    assert more.layouts == {"openmathreasoning": 22, "sharegpt": 21}
    assert len(list(run.ledger().traces())) == sum(
        len(EXPECTED[name]["traces"]) for name in ("openr1-math", "openmathreasoning", "sharegpt")
    )
    teacher = specs.recipe(str(run.recipe)).teacher_overrides["model"]
    assert teacher == "several: Qwen/QwQ-32B, deepseek-ai/DeepSeek-R1, unknown"
    assert run.stages()["generate"].counts["imported"] == 29 + 15 + 19


def test_replies_that_differ_in_their_reasoning_alone_are_two(tmp_path: Path) -> None:
    rows = [{"problem": "2 + 2?", "deepseek_reasoning": text, "deepseek_solution": "4"} for text in ("a", "b", "a")]
    found = imported(RunDir(tmp_path / "run"), written(tmp_path / "a.jsonl", rows))
    assert (found.traces, found.there) == (2, 1)


def test_options_decide_who_wrote_them_and_what_is_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    found = imported(run, fixture("openmathreasoning"), limit=5, teacher="org/other")
    assert (found.rows, found.traces, dict(found.teachers)) == (5, 5, {"org/other": 5})
    run = RunDir(tmp_path / "tools")
    found = imported(run, fixture("openmathreasoning"), keep_tool_output=True)
    assert found.traces == len(EXPECTED["openmathreasoning"]["traces"]) + 2
    assert "tool_output" not in found.unreadable


def test_system_prompts_are_counted_and_stay_with_the_rows(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    found = imported(run, fixture("messages"))
    assert (found.with_system, len(found.systems)) == (3, 3)
    assert sum("3 traces were written under 3 system prompts" in line for line in found.lines(run)) == 1
    assert all("helper" not in prompt.question for prompt in prompts_of(run).values())
    assert sum("You are helper" in row["text"] for row in original_rows(run)) == 3


def test_a_question_with_another_gold_answer_keeps_its_first(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    found = imported(run, fixture("openr1-math"))
    (other,) = listed(run.imported / "other_golds.jsonl")
    assert (found.other_golds, other["row"], other["answer"]) == (1, 23, "41")
    prompt = next(prompt for prompt in prompts_of(run).values() if prompt.id == other["prompt_id"])
    assert prompt.answer == "30"
    same = {"problem": prompt.question, "answer": "$30$", "generations": ["<think>a</think>b"]}
    assert imported(run, written(tmp_path / "same.jsonl", [same])).other_golds == 0, "another way to write it"


def test_a_gold_answer_that_comes_later_is_added(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, written(tmp_path / "a.jsonl", [message("What is 2 + 2?", "<think>a</think>\\boxed{4}")]))
    assert [prompt.kind for prompt in prompts_of(run).values()] == ["open"]
    row = {"problem": "What is 2 + 2?", "answer": "4", "generations": ["<think>b</think>\\boxed{5}"]}
    found = imported(run, written(tmp_path / "b.jsonl", [row]))
    assert (found.golds_added, found.prompts) == (1, 0)
    assert [(prompt.kind, prompt.answer) for prompt in prompts_of(run).values()] == [("math", "4")]
    counts = filtered(run)
    assert (counts["kept"], counts["rejected"]) == (1, {"wrong_answer": 1}), "also the trace that came without one"


# --- later stages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_reparse_reads_the_same_again(name: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    found = imported(run, fixture(name))
    assert reparse(specs.recipe(str(run.recipe)), run) == (found.traces, 0)
    other = specs.recipe(str(run.recipe), {"teacher_overrides.reasoning_format": "plain"})
    assert reparse(other, run)[1] > 0
    assert reparse(specs.recipe(str(run.recipe)), run)[1] > 0, "and back"
    expected = [(told["reasoning"], told["answer"]) for told in EXPECTED[name]["traces"]]
    assert sorted(map(str, expected)) == sorted(str((t.reasoning, t.answer)) for t in run.ledger().traces())
    assert imported(run, fixture(name)).traces == 0, "a new revision is no other trace"


@pytest.mark.parametrize("name", ["openr1-math", "openmathreasoning", "openthoughts-114k-metadata", "messages"])
def test_filter_keeps_what_is_right_and_whole(name: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, fixture(name))
    of_form_and_answer = ["finished", "think_format", "correct", "duplicate"]
    counts = filtered(run, **{"filter.checks": of_form_and_answer})
    reasons = [reason(told, optional=name == "messages") for told in EXPECTED[name]["traces"]]
    assert counts["rejected"] == Counter(filter(None, reasons))
    assert counts["kept"] == reasons.count(None)
    assert counts["kept"] > 10
    kept = {row["trace_id"]: row for path in run.kept.glob("*.parquet") for row in pq.read_table(path).to_pylist()}
    for trace, why in zip(run.ledger().traces(), reasons, strict=True):
        assert (trace.key in kept) == (why is None)
        if why is None and trace.reasoning is not None:
            text = f"<think>\n{trace.reasoning}\n</think>\n\n{trace.answer}"
            assert kept[trace.key]["messages"][1]["content"] == text


def reason(told: dict[str, Any], *, optional: bool) -> str | None:
    """Why a trace of the fixtures is not trained on, by what it is known to be."""
    if told["finish"] == "length":
        return "truncated"
    if told["fault"] is not None:
        return str(told["fault"])
    if told["reasoning"] is None and not optional:
        return "empty_reasoning"
    boxed = f"\\boxed{{{told['gold']}}}"
    return "wrong_answer" if told["kind"] == "math" and boxed not in told["answer"] else None


def test_a_run_that_is_there_keeps_what_it_had_for_later_stages(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, fixture("sharegpt"))
    recipe = specs.recipe(str(run.recipe), {"student": "tiny-qwen", "train.epochs": 7, "filter.keep": "all"})
    compose.keep_recipe(run, recipe)
    imported(run, fixture("openthoughts3"))
    after = specs.recipe(str(run.recipe))
    assert (after.student, after.train.epochs, after.filter.keep) == ("tiny-qwen", 7.0, "all")
    assert after.evaluate.models == ("untrained", "student")
    assert after.generate.engine == "imported"
    assert filtered(run)["kept"] == 19 + 18


def test_a_moved_run_takes_more(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, fixture("sharegpt"))
    run.path.rename(tmp_path / "moved")
    run = RunDir(tmp_path / "moved")
    assert imported(run, fixture("openthoughts3")).traces == 20
    assert [part.source for part in specs.recipe(str(run.recipe)).prompts] == [str(run.imported / "prompts.parquet")]


def test_a_run_that_was_sampled_is_left_alone(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, fixture("sharegpt"))
    sampled = specs.recipe(str(run.recipe), {"generate.engine": "local", "teacher": "tiny-r1"})
    compose.keep_recipe(run, sampled)
    with pytest.raises(RunError, match="holds traces sampled from tiny-r1"):
        compose.import_base(run)


# --- killed, interrupted, mended ------------------------------------------------------------------------------------


def many(path: Path, count: int) -> str:
    rows = (
        message(f"What is {n % 700} + {n}?", f"<think>\nStep {n}. {'so ' * 90}</think>\n\n{n}") for n in range(count)
    )
    return written(path, rows)


def test_killed_at_any_time_it_goes_on_and_doubles_nothing(tmp_path: Path) -> None:
    file, whole, killed = many(tmp_path / "many.jsonl", 3_000), RunDir(tmp_path / "whole"), RunDir(tmp_path / "killed")
    code = (
        "import sys\nfrom distill.exchange import import_store, importing\nfrom distill.rundir import RunDir\n"
        "import_store.PART_BYTES = 50_000\n"
        "importing.import_places(RunDir(sys.argv[1]), [sys.argv[2]], importing.Options())\n"
    )
    command = [sys.executable, "-c", code, str(killed.path), file]
    seen: list[int] = []
    for kill in range(3):
        process = subprocess.Popen(command)
        before = seen[-1] if seen else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if killed.traces.is_dir() and len(killed.ledger().index()) >= before + 300:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, f"it was done before kill {kill}"
        seen.append(len(killed.ledger().index()))
    assert 0 < seen[0] < seen[-1] < 3_000
    import_places(killed, [file], Options())
    import_places(whole, [file], Options())
    texts = [[replace(trace, created="") for trace in run.ledger().traces()] for run in (killed, whole)]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 3_000
    assert len(list(killed.ledger().records())) == 3_000
    assert prompts_of(killed) == prompts_of(whole)
    assert len(list(read_prompts(killed.imported / "prompts.parquet"))) == len(prompts_of(whole))
    both = [{row["row"]: row for row in original_rows(run)} for run in (killed, whole)]
    assert both[0] == both[1]
    assert len(original_rows(killed)) == 3_000


def test_interrupted_it_says_so_and_keeps_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, read = RunDir(tmp_path / "run"), importing.rows

    def stopping(place: str) -> Iterable[Any]:
        for number, row in read(place):
            if number == 15 and (run.traces / ".lock").exists():
                raise KeyboardInterrupt
            yield number, row

    monkeypatch.setattr(importing, "rows", stopping)
    with pytest.raises(Interrupted, match="interrupted after 14 rows"):
        import_places(run, [fixture("sharegpt")], Options())
    assert len(list(run.ledger().traces())) == len(original_rows(run)) == 14
    monkeypatch.undo()
    assert import_places(run, [fixture("sharegpt")], Options()).traces == 5


def test_a_list_that_was_cut_off_is_mended(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, fixture("messages"))
    path = run.imported / "unreadable.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    imported(run, fixture("messages"))
    assert path.read_bytes() == whole


def test_two_imports_at_once_are_refused(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with run.lock(), pytest.raises(LockedError):
        import_places(run, [fixture("messages")], Options())


# --- bad input -----------------------------------------------------------------------------------------------------


def test_nothing_is_written_for_a_file_of_no_known_layout(tmp_path: Path) -> None:
    file = written(tmp_path / "odd.jsonl", [{"colour": "red"}])
    with pytest.raises(InputError, match="no known layout") as caught:
        import_places(RunDir(tmp_path / "run"), [fixture("messages"), file], Options())
    assert "columns colour" in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "there are no rows"),
        (b"\n\n", "there are no rows"),
        (b'{"messages": []}\n{"messages": "\xff"}\n', "line 2: not UTF-8 at byte"),
        (b'{"messages": []}\n[1]\n', "line 2: expected a JSON object, found list"),
        (b'{"messages": []}\n{"messages"\n', "line 2: not JSON"),
        (b'{"messages": []}\n', "none of the 1 rows could be taken over"),
    ],
)
def test_a_bad_file_is_named_with_its_line(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        import_places(RunDir(tmp_path / "run"), [str(tmp_path / "bad.jsonl")], Options())
    assert "bad.jsonl" in str(caught.value) or "unreadable.jsonl" in str(caught.value)


def test_a_bad_line_far_down_keeps_what_stands_above_it(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    good = [json.dumps(message(f"q{n}", f"<think>a</think>{n}")).encode() for n in range(40)]
    file.write_bytes(b"\n".join([*good, b'{"messages": "\xff"}']))
    run = RunDir(tmp_path / "run")
    with pytest.raises(InputError, match=r"bad\.jsonl, line 41: not UTF-8"):
        import_places(run, [str(file)], Options())
    assert len(list(run.ledger().traces())) == 40
    file.write_bytes(b"\n".join([*good, json.dumps(message("last", "<think>a</think>b")).encode()]))
    found = import_places(run, [str(file)], Options())
    assert (found.traces, found.there) == (1, 40)


def test_a_row_of_another_form_among_the_rest_is_listed(tmp_path: Path) -> None:
    good = [message(f"q{n}", f"<think>a</think>{n}") for n in range(3)]
    odd: list[dict[str, Any]] = [
        {"text": "free"},
        {"messages": 5},
        {"messages": [{"role": "user", "content": {"a": 1}}]},
    ]
    run = RunDir(tmp_path / "run")
    found = imported(run, written(tmp_path / "mixed.jsonl", [*good, *odd]))
    assert (found.traces, found.unreadable) == (3, {"not_messages": 2, "not_text": 1})


# --- where the files of a dataset lie -------------------------------------------------------------------------------


def test_a_folder_with_a_card_is_read_as_the_card_says(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("cot-0", "cot-1", "tir-0"):
        (tmp_path / "data" / f"{name}.jsonl").write_text("{}\n")
    card = "---\nconfigs:\n- config_name: one\n  data_files:\n  - split: cot\n    path: data/cot-*\n"
    card += "  - split: tir\n    path: data/tir-*\n- config_name: two\n  data_files: data/tir-0.jsonl\n---\n"
    (tmp_path / "README.md").write_text(card)

    def names(**options: str) -> list[str]:
        return [Path(file).name for file in files_of([str(tmp_path)], **options)]

    assert names(config="one") == ["cot-0.jsonl", "cot-1.jsonl", "tir-0.jsonl"], "all splits"
    assert names(config="one", split="cot") == ["cot-0.jsonl", "cot-1.jsonl"]
    assert names(config="two") == ["tir-0.jsonl"]
    with pytest.raises(InputError, match="cannot be read as the copy of a dataset") as caught:
        names()
    assert "['one', 'two']" in str(caught.value)
    with pytest.raises(InputError, match="no split 'train'") as caught:
        names(config="one", split="train")
    assert "cot, tir" in str(caught.value)


def test_a_folder_without_a_card_gives_its_data_files(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "a/1.parquet", "a/3.jsonl.zst", "notes.txt", "dataset_infos.json", ".cache/4.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(Path(file).relative_to(tmp_path)) for file in files_of([str(tmp_path)])]
    assert found == ["a/1.parquet", "a/3.jsonl.zst", "b/2.jsonl"]


def test_what_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the Hugging Face Hub cannot be reached for open-r1") as caught:
        files_of(["open-r1/OpenR1-Math-220k"])
    assert "hf download open-r1/OpenR1-Math-220k --repo-type dataset --local-dir" in str(caught.value)
    for given, told in (("gone.jsonl", "no file or folder gone.jsonl"), ("data/gone.jsonl", "no file or folder")):
        with pytest.raises(InputError, match=told):
            files_of([given])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no data files"):
        files_of([str(tmp_path / "empty")])
    with pytest.raises(UsageError, match="are of a dataset"):
        files_of([fixture("messages")], split="train")
    with pytest.raises(UsageError, match="--revision"):
        files_of([str(tmp_path / "empty")], revision="main")
    (tmp_path / "empty" / "recipe.yaml").touch()
    with pytest.raises(UsageError, match="is a run of distill"):
        files_of([str(tmp_path / "empty")])


@pytest.mark.parametrize("name", SCHEMAS)
def test_parquet_gives_the_same_traces(name: str, tmp_path: Path) -> None:
    path, numbers = as_parquet(name, tmp_path)
    run = RunDir(tmp_path / "run")
    imported(run, str(path))
    expected = [told for told in EXPECTED[name]["traces"] if told["row"] in numbers]
    assert len(expected) >= 20
    told = [(one["reasoning"], one["answer"], one["finish"]) for one in expected]
    assert [(trace.reasoning, trace.answer, trace.finish_reason) for trace in run.ledger().traces()] == told
    listed_rows = [numbers[entry["row"] - 1] for entry in listed(run.imported / "unreadable.jsonl")]
    assert listed_rows == [row for row, _, _ in EXPECTED[name]["unreadable"] if row in numbers]


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(Path(fixture("messages")).read_bytes())
    assert imported(RunDir(tmp_path / "run"), str(path)).traces == len(EXPECTED["messages"]["traces"])


# --- our own: exported and back -------------------------------------------------------------------------------------

INSTRUCTION = {"math": STEP_BY_STEP}
SAMPLING = SamplingRecord(Sampling(temperature=0.6, seed=3), Sampling(temperature=0.6))


def sampled(folder: Path) -> RunDir:
    """A run of another teacher: an instruction behind the question, several samples, a failure, a new revision."""
    run, traces, prompts = RunDir(folder), [], []
    identity = TeacherIdentity("org/teacher", "abc", "fp8")
    for n in range(6):
        prompt = Prompt(f"What is {n} + {n}? 漢", id=f"mine-{n}", kind="math", answer=str(2 * n), source="mine")
        prompts.append(prompt)
        asked = asked_hash(prompt_messages(prompt.text, prompt.kind, INSTRUCTION, None), "<think>\n")
        for sample in range(2):
            trace = Trace(
                key=trace_key(asked, sample, identity, SAMPLING.requested),
                asked=asked,
                prompt_id=prompt.id,
                sample=sample,
                raw=f"I add {n} twice.\n</think>\n\n\\boxed{{{2 * n + (sample == 1 and n == 3)}}}",
                finish_reason="stop",
                teacher=identity,
                sampling=SAMPLING,
                completion_tokens=9,
                max_tokens=100,
                seed=n,
                endpoint="local/teacher",
                attempts=2,
                created=f"2026-01-0{n + 1}T00:00:00.000+00:00",
            )
            traces.append(derive(trace, "tags", "<think>\n"))
    error = replace(traces[-1], raw="", finish_reason="error", reasoning=None, answer=None, error="gone")
    cut = replace(traces[0], raw="I add", finish_reason="length", revision=1, reasoning="I add", answer=None)
    traces = [*traces[:-1], error, replace(cut, fault="missing_close"), replace(traces[-1], revision=1)]
    with Ledger(run.traces) as ledger:
        for trace in traces:
            ledger.append(trace)
    verdict = [Verdict(trace.key, trace.content_hash, "math", "pass", "", 1.0) for trace in traces[:3]]
    pq.write_table(Prompt.table(prompts), run.prompts)
    pq.write_table(Verdict.table(verdict), run.verdicts)
    return run


def exported(run: RunDir, path: Path) -> bytes:
    """The agreed form of `distill export --format jsonl`, for every record."""
    asked = {prompt.id: prompt for prompt in read_prompts(run.prompts)}
    verdicts = (
        [Verdict.from_json(row) for row in pq.read_table(run.verdicts).to_pylist()] if run.verdicts.is_file() else []
    )
    lines = []
    for trace in run.ledger().records():
        own = [v.to_json() for v in verdicts if (v.trace_key, v.content_hash) == (trace.key, trace.content_hash)]
        line = {"prompt": asked[trace.prompt_id].to_json(), "trace": trace.to_json(), "verdicts": own}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path.read_bytes()


def plain(lines: bytes) -> list[dict[str, Any]]:
    """Records without what the prompts stage finds out about a question, which nobody had looked at before."""
    records = [json.loads(line) for line in lines.splitlines()]
    for record in records:
        for name in ("language", "marks"):
            record["prompt"].pop(name)
    return records


def test_exported_imported_and_exported_again_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    first = exported(sampled(tmp_path / "sampled"), tmp_path / "one.jsonl")
    run = RunDir(tmp_path / "run")
    found = imported(run, str(tmp_path / "one.jsonl"))
    assert (found.traces, found.prompts, found.unreadable) == (14, 6, {})
    second = exported(run, tmp_path / "two.jsonl")
    assert plain(second) == plain(first)
    again = imported(run, str(tmp_path / "two.jsonl"))
    assert (again.traces, again.there) == (0, 14)
    assert exported(run, tmp_path / "three.jsonl") == second


def test_traces_asked_with_an_instruction_find_their_questions(tmp_path: Path) -> None:
    exported(sampled(tmp_path / "sampled"), tmp_path / "one.jsonl")
    run = RunDir(tmp_path / "run")
    imported(run, str(tmp_path / "one.jsonl"))
    counts = filtered(run)
    assert counts["traces"] == 12
    assert counts["rejected"] == {"truncated": 1, "wrong_answer": 1, "duplicate": 4}
    assert reparse(specs.recipe(str(run.recipe)), run) == (12, 0), "how their teacher writes is not known here"
    edited = replace(next(read_prompts(run.prompts)), question="Another one?")
    file = tmp_path / "edited.parquet"
    pq.write_table(Prompt.table([edited]), file)
    other = specs.recipe(str(run.recipe), {"prompts": [{"source": str(file)}]})
    with pytest.raises(RunError, match="none of the"):
        run_recipe(other, run, last="filter", adopting=False)


def test_foreign_traces_that_were_exported_are_the_same_traces(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    imported(run, fixture("openthoughts-114k"))
    exported(run, tmp_path / "one.jsonl")
    other = RunDir(tmp_path / "other")
    imported(other, str(tmp_path / "one.jsonl"))
    assert [trace.to_json() for trace in other.ledger().records()] == [t.to_json() for t in run.ledger().records()]
    assert imported(other, fixture("openthoughts-114k")).traces == 0
    assert reparse(specs.recipe(str(other.recipe)), other) == (21, 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trace": {"sample": 7}}, "wrong_key"),
        ({"trace": {"raw": "other text"}}, "other_record"),
        ({"prompt": {"question": "Quite another?"}}, "id_taken"),
        ({"trace": {"surprise": 1}}, "bad_record"),
        ({"verdicts": [{"check": "math"}]}, "bad_record"),
    ],
)
def test_a_record_that_was_edited_is_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    exported(sampled(tmp_path / "sampled"), tmp_path / "one.jsonl")
    run = RunDir(tmp_path / "run")
    imported(run, str(tmp_path / "one.jsonl"))
    (_, row), *_ = rows(tmp_path / "one.jsonl")
    edited = {
        **row,
        **{key: {**row[key], **value} if isinstance(value, dict) else value for key, value in change.items()},
    }
    with pytest.raises(InputError, match="none of the 1 rows") as caught:
        import_places(run, [written(tmp_path / "edited.jsonl", [edited])], Options())
    assert f"1 {reason}" in str(caught.value)
