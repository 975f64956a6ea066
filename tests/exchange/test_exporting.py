"""What an export holds, row by row; where it goes and what it never overwrites; what it refuses."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import TOKENIZER
from filtered import write_kept
from ledger_material import write_all
from test_cli import distill

from distill import specs
from distill.contract import STEP_BY_STEP
from distill.errors import DistillError, RunError, UsageError
from distill.exchange import handing_over, whole_run
from distill.exchange.exporting import export
from distill.exchange.lengths import Length, Lengths, tokenizer_at_hand
from distill.exchange.snippets import FILL_IN, LLAMA_FACTORY_TEMPLATES
from distill.ledger import Ledger
from distill.prompts.stage import write_prompts
from distill.records import Prompt, Trace, Verdict
from distill.rundir import RunDir
from distill.sampling import subjects
from exchange.exported import (
    CHATML_STUDENT,
    PROMPTS,
    R1_STUDENT,
    judged_by_hand,
    kept,
    run_by_hand,
    subject,
    traces,
    write_specs,
)

SPANISH, GREETING = PROMPTS[1], PROMPTS[2]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- messages --------------------------------------------------------------------------------------------------------


def test_messages_are_the_kept_rows_in_their_order(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    made = export(recipe, run, "messages")
    assert made.out == run.path / "exports" / "messages.jsonl"
    assert made.counts == {"train": 2}
    assert lines(made.out) == [
        {
            "messages": [
                {"role": "user", "content": "What is 1 + 1?"},
                {"role": "assistant", "content": "<think>\n1 and 1\n\nis 2\n</think>\n\n\\boxed{2}"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": SPANISH.question},
                {"role": "assistant", "content": "<think>\nsumo dos y dos, 你好 🙂\n</think>\n\n\\boxed{4}"},
            ]
        },
    ]
    assert "你好 🙂" in made.out.read_text(encoding="utf-8"), "readable, not escaped"
    (heldout,) = lines(export(recipe, run, "messages", split="heldout").out)
    assert heldout["messages"][1] == {"role": "assistant", "content": "Hello\u2028there\nand there"}
    every = lines(export(recipe, run, "messages", split="all").out)
    assert every == [*lines(made.out), heldout]


def test_several_samples_of_a_prompt_are_several_rows(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    items = [item for item in judged_by_hand(traces(recipe)) if item.prompt.id == "one"]
    write_kept(run.kept, items, [])
    rows = lines(export(recipe, run, "messages").out)
    assert [row["messages"][0]["content"] for row in rows] == ["What is 1 + 1?"] * 2
    assert len({row["messages"][1]["content"] for row in rows}) == 2


def test_messages_are_what_the_student_is_asked_and_has_to_say(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", CHATML_STUDENT)
    asked, _ = lines(export(recipe, run, "messages").out)
    assert asked["messages"][:2] == [
        {"role": "system", "content": "You work out sums."},
        {"role": "user", "content": f"What is 1 + 1?\n\n{STEP_BY_STEP}"},
    ]
    greeted = lines(export(recipe, run, "messages", split="heldout").out)[0]["messages"]
    assert greeted[1:] == [
        {"role": "user", "content": "Say hello."},
        {"role": "assistant", "content": "Hello\u2028there\nand there"},
    ]
    opened = export(recipe, run, "messages", split="heldout", student=_spec(tmp_path, R1_STUDENT), out=tmp_path / "o")
    assert lines(opened.out)[0]["messages"][-1]["content"] == "<think>\n\n</think>\n\nHello\u2028there\nand there"


def _spec(folder: Path, student: dict[str, Any]) -> str:
    path = folder / "other.yaml"
    path.write_text(yaml.safe_dump(student, allow_unicode=True))
    return str(path)


# --- jsonl -----------------------------------------------------------------------------------------------------------


def test_the_whole_run_comes_back_from_its_lines(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    made = export(recipe, run, "jsonl")
    rows = lines(made.out)
    ledger = traces(recipe)
    assert [list(row) for row in rows] == [["prompt", "trace", "verdicts"]] * 6
    assert [Trace.from_json(row["trace"]) for row in rows[:5]] == ledger == list(run.ledger().records())
    by_id = {prompt.id: prompt for prompt in PROMPTS}
    assert [Prompt.from_json(row["prompt"]) for row in rows[:5]] == [by_id[trace.prompt_id] for trace in ledger]
    assert rows[5] == {"prompt": PROMPTS[3].to_json(), "trace": None, "verdicts": []}
    stored = [Verdict.from_json(row) for row in pq.read_table(run.verdicts).to_pylist()]
    told = [Verdict.from_json(verdict) for row in rows for verdict in row["verdicts"]]
    assert sorted(map(str, told)) == sorted(map(str, stored))
    assert [len(row["verdicts"]) for row in rows] == [3, 0, 3, 3, 3, 0], "a failure has none"
    assert rows[2]["verdicts"][1] == {
        "trace_key": ledger[2].key,
        "content_hash": ledger[2].content_hash,
        "check": "math",
        "outcome": "fail",
        "reason": "wrong_answer",
        "score": 0.25,
        "detail": "",
    }
    assert made.counts == {"records": 5, "prompts": 3, "unsampled": 1, "unknown_prompt": 0}


def test_verdicts_belong_to_a_content(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    first = traces(recipe)[0]
    write_all(run.traces, [replace(first, revision=1, answer="other")])
    rows = lines(export(recipe, run, "jsonl").out)
    assert [bool(row["verdicts"]) for row in rows if row["trace"] and row["trace"]["key"] == first.key] == [True, False]


def test_verdicts_that_stand_apart_are_put_together(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    table = pq.read_table(run.verdicts)
    stored = sorted(table.to_pylist(), key=lambda row: row["check"])
    pq.write_table(Verdict.table([Verdict.from_json(row) for row in stored]), run.verdicts)
    rows = lines(export(recipe, run, "jsonl").out)
    assert [v["check"] for v in rows[0]["verdicts"]] == ["finished", "kept", "math"]


def test_an_edited_question_is_not_given_to_the_trace_of_the_old_one(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    write_prompts(run.prompts, [replace(PROMPTS[0], question="What is 5 + 5?"), *PROMPTS[1:]])
    made = export(recipe, run, "jsonl")
    rows = lines(made.out)
    assert [row["prompt"] for row in rows if row["trace"] and row["trace"]["prompt_id"] == "one"] == [None] * 3
    assert [row["prompt"]["question"] for row in rows if row["trace"] is None] == [
        "What is 5 + 5?",
        "Nobody was asked this.",
    ]
    assert made.counts["unknown_prompt"] == 3


def test_a_derived_id_leads_to_the_prompt_when_the_teacher_is_asked_otherwise_now(tmp_path: Path) -> None:
    _, run = run_by_hand(tmp_path / "run")
    changed = write_specs(tmp_path / "again", None)
    text = (tmp_path / "again" / "teacher.yaml").read_text().replace("Think.", "Think twice.")
    (tmp_path / "again" / "teacher.yaml").write_text(text)
    rows = lines(export(changed, run, "jsonl").out)
    found = {row["trace"]["prompt_id"]: row["prompt"] for row in rows if row["trace"]}
    assert found[SPANISH.id] == SPANISH.to_json(), "its id is the question's own hash"
    assert found["one"] is None, "an id that somebody gave may stand for another question by now"
    assert found[GREETING.id] == GREETING.to_json()


def test_a_run_in_the_making_is_exported_too(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    run.verdicts.unlink()
    late = replace(traces(recipe)[0], key="f" * 64)
    with Ledger(run.traces) as ledger:
        ledger.append(late)
        ledger.commit()
        rows = lines(export(recipe, run, "jsonl").out)
    assert Trace.from_json(rows[5]["trace"]) == late
    assert not any(row["verdicts"] for row in rows)


def test_a_line_is_one_line_for_every_reader(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    for made in (export(recipe, run, "jsonl"), export(recipe, run, "messages", split="all")):
        text = made.out.read_text(encoding="utf-8")
        assert len(text.splitlines()) == text.count("\n")
        assert "\u2028" in json.dumps(lines(made.out), ensure_ascii=False), "and the character is still there"


# --- parquet ---------------------------------------------------------------------------------------------------------


def test_parquet_is_what_was_kept_and_what_is_known_of_it(tmp_path: Path) -> None:
    import datasets

    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    out = export(recipe, run, "parquet").out
    loaded = datasets.load_dataset(
        "parquet",
        data_files={side: str(out / f"{side}.parquet") for side in ("train", "heldout")},
        cache_dir=str(tmp_path / "cache"),
    )
    first = loaded["train"][0]
    assert first == {
        **kept(run, "train")[0],
        "source": "sums",
        "license": "MIT",
        "answer": "2",
    }
    assert first["difficulty"] == "Level 1"
    assert [row["messages"] for side in loaded for row in loaded[side]] == [row["messages"] for row in kept(run)]
    assert pq.ParquetFile(out / "train.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    write_prompts(run.prompts, [replace(PROMPTS[0], question="What is 5 + 5?"), *PROMPTS[1:]])
    edited = pq.read_table(export(recipe, run, "parquet").out / "train.parquet").to_pylist()
    assert [row["answer"] for row in edited] == [None, "4"], "an id that stands for another question now"
    only = export(recipe, run, "parquet", split="heldout", out=tmp_path / "only")
    assert sorted(path.name for path in only.out.glob("[!.]*")) == ["heldout.parquet"]


def test_rows_kept_by_a_version_that_knew_no_difficulty_are_exported_all_the_same(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    for path in run.kept.iterdir():
        pq.write_table(pq.read_table(path).drop_columns("difficulty"), path)
    exported = pq.read_table(export(recipe, run, "parquet").out / "train.parquet").to_pylist()
    assert [row["difficulty"] for row in exported] == [None, None]
    assert len(lines(export(recipe, run, "messages").out)) == 2


# --- tools -----------------------------------------------------------------------------------------------------------


def test_trl_gets_prompt_and_completion(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", CHATML_STUDENT)
    made = export(recipe, run, "messages", tool="trl")
    first = lines(made.out / "train.jsonl")[0]
    assert list(first) == ["prompt", "completion"]
    assert [message["role"] for message in first["prompt"]] == ["system", "user"]
    assert first["completion"][0]["content"].endswith("\\boxed{2}")
    assert len(lines(made.out / "heldout.jsonl")) == 1
    script = (made.out / "train_trl.py").read_text(encoding="utf-8")
    ast.parse(script)
    assert 'STOP = "<|im_end|>"' in script
    assert 'PAD = "<|endoftext|>"' in script
    assert "TAGS = []" in script
    assert f"num_train_epochs={recipe.train.phases_of()[0].epochs}," in script
    ruff = Path(sys.executable).with_name("ruff")
    checked = subprocess.run([ruff, "check", "--isolated", made.out / "train_trl.py"], check=False)
    assert checked.returncode == 0


@pytest.mark.parametrize("tool", ["trl", "axolotl", "llama-factory"])
def test_a_tool_without_heldout_rows_is_not_told_of_any(tmp_path: Path, tool: str) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT, heldout=0)
    out = export(recipe, run, "messages", tool=tool).out
    assert not (out / "heldout.jsonl").exists()
    told = b"".join(content for name, content in data(out).items() if name.endswith((".yaml", ".json")))
    assert b"heldout" not in told
    left = export(*run_by_hand(tmp_path / "two", R1_STUDENT), "messages", tool=tool, split="train").out
    assert not (left / "heldout.jsonl").exists()


def test_axolotl_cuts_nothing_and_trains_on_the_reply_with_its_end(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    out = export(recipe, run, "messages", tool="axolotl").out
    config = yaml.safe_load((out / "axolotl.yaml").read_text(encoding="utf-8"))
    (data,) = config["datasets"]
    assert (data["path"], data["type"], data["field_messages"]) == ("train.jsonl", "chat_template", "messages")
    assert (data["roles_to_train"], data["train_on_eos"], data["split_thinking"]) == (["assistant"], "turn", False)
    assert config["test_datasets"][0]["path"] == "heldout.jsonl"
    assert config["excess_length_strategy"] == "raise"
    assert (config["chat_template"], config["chat_template_jinja"]) == ("jinja", "training_template.jinja")
    assert config["eot_tokens"] == ["<｜end▁of▁sentence｜>"] == [config["special_tokens"]["eos_token"]]
    assert config["tokens"] == ["<think>", "</think>"]
    assert config["gradient_accumulation_steps"] == recipe.train.batch_size
    assert config["learning_rate"] == recipe.train.phases_of()[0].learning_rate
    assert config["train_on_inputs"] is False
    assert list(lines(out / "train.jsonl")[0]) == ["messages"]


def test_llama_factory_gets_its_tags_and_a_template_that_changes_nothing(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    out = export(recipe, run, "messages", tool="llama-factory").out
    info = json.loads((out / "dataset_info.json").read_text())
    assert {name: entry["file_name"] for name, entry in info.items()} == {
        "distill_train": "train.jsonl",
        "distill_heldout": "heldout.jsonl",
    }
    assert info["distill_train"]["formatting"] == "sharegpt"
    assert info["distill_train"]["columns"] == {"messages": "messages"}
    assert info["distill_train"]["tags"] == {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    config = yaml.safe_load((out / "llama_factory.yaml").read_text(encoding="utf-8"))
    assert (config["template"], config["enable_thinking"], config["packing"]) == ("deepseek3", None, False)
    assert (config["dataset"], config["eval_dataset"]) == ("distill_train", "distill_heldout")
    assert config["add_tokens"] == "<think>,</think>"
    assert config["cutoff_len"] >= Length(_longest(out, run, recipe), exact=True).tokens
    assert "warmup_ratio" not in config, "newer transformers do not know it, and refuse it"


def _longest(out: Path, run: RunDir, recipe: specs.Recipe) -> int:
    from transformers import AutoTokenizer

    from distill.contract import parse_canonical

    contract, tokenizer = specs.student(recipe.student).contract, AutoTokenizer.from_pretrained(TOKENIZER)
    sizes = []
    for row in kept(run):
        question, reply = (message["content"] for message in row["messages"])
        encoded = contract.encode(tokenizer, contract.messages(question, row["kind"]), parse_canonical(reply))
        sizes.append(len(encoded.ids))
    assert out.is_dir()
    return max(sizes)


def test_every_template_has_one_of_llama_factorys() -> None:
    from distill.contract import TEMPLATES

    assert set(LLAMA_FACTORY_TEMPLATES) == set(TEMPLATES)


@pytest.mark.parametrize("tool", ["trl", "axolotl", "llama-factory"])
def test_what_the_run_does_not_know_is_left_to_fill_in_and_said(tmp_path: Path, tool: str) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    made = export(recipe, run, "messages", tool=tool)
    assert "to fill in by hand: model and chat template" in made.lines[-1]
    text = b"".join(contents(made.out).values()).decode()
    assert FILL_IN in text
    assert "**To fill in:**" in (made.out / "README.md").read_text(encoding="utf-8")
    assert not list(made.out.glob("*.jinja"))
    assert "--student" in made.lines[-1]
    known, there = run_by_hand(tmp_path / "known", {**CHATML_STUDENT, "architecture": None, "base": "org/base"})
    complete = export(known, there, "messages", tool=tool)
    assert FILL_IN not in b"".join(v for k, v in contents(complete.out).items() if k != "train_trl.py").decode()
    assert not any("to fill in" in line for line in complete.lines)


def test_a_student_from_nothing_starts_from_its_first_weights(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    made = export(recipe, run, "messages", tool="axolotl")
    assert "starts from nothing" in made.lines[-1]
    run.untrained.mkdir()
    again = export(recipe, run, "messages", tool="axolotl")
    assert yaml.safe_load((again.out / "axolotl.yaml").read_text())["base_model"] == str(run.untrained.resolve())


# --- lengths -------------------------------------------------------------------------------------------------------


def test_the_longest_text_is_counted_by_the_students_tokenizer(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    made = export(recipe, run, "messages", tool="llama-factory")
    assert made.counts["longest"] == _longest(made.out, run, recipe)
    assert "counted with the student's tokenizer" in (made.out / "llama_factory.yaml").read_text(encoding="utf-8")


def test_without_a_tokenizer_the_limit_is_an_upper_bound_and_says_so(tmp_path: Path) -> None:
    absent = {**R1_STUDENT, "tokenizer": "org/not-here"}
    recipe, run = run_by_hand(tmp_path / "run", absent)
    made = export(recipe, run, "messages", tool="llama-factory")
    text = (made.out / "llama_factory.yaml").read_text(encoding="utf-8")
    assert "no tokenizer was at hand; the teacher counted up to" in text
    assert made.counts["longest"] >= _longest(made.out, run, write_specs(tmp_path / "with", R1_STUDENT))
    assert "upper bound" in (made.out / "README.md").read_text(encoding="utf-8")


def test_no_tokenizer_is_downloaded_to_count_with(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    asked: list[dict[str, Any]] = []

    def absent(place: str, **how: Any) -> None:
        asked.append({"place": place, **how})
        raise OSError("not here")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", absent)
    spec = specs.StudentSpec(name="hub", base="org/base", revision="abc", template="chatml")
    assert tokenizer_at_hand(spec) is None
    assert asked == [{"place": "org/base", "revision": "abc", "local_files_only": True}]


def test_a_short_text_after_a_long_one_changes_nothing() -> None:
    lengths = Lengths(None)
    for size in (10, 500, 20):
        lengths.add([{"role": "user", "content": ""}, {"role": "assistant", "content": "x" * size}], size)
    assert lengths.found() == Length(564, False, 500)
    assert lengths.found().limit == 576
    assert Length(564 + 5, True).limit == 640, "room for what a tool adds"


# --- where it goes ---------------------------------------------------------------------------------------------------

WAYS: list[dict[str, Any]] = [
    {"format": "messages"},
    {"format": "jsonl"},
    {"format": "parquet"},
    {"format": "messages", "tool": "axolotl"},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_earlier_export_is_replaced_and_anything_else_is_not(tmp_path: Path, way: dict[str, Any]) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    out = tmp_path / "given" / "out"
    made = export(recipe, run, **way, out=out)
    assert made.out == out
    before = contents(tmp_path / "given")
    export(recipe, run, **way, out=out)
    assert contents(tmp_path / "given") == before, "the same run, the same bytes"
    touched = out if out.is_file() else min(out.glob("[!.]*"))
    touched.write_bytes(touched.read_bytes() + b"\n")
    mine = contents(tmp_path / "given")
    with pytest.raises(UsageError, match="changed after it was written") as refused:
        export(recipe, run, **way, out=out)
    assert refused.value.todo == handing_over.ELSEWHERE
    assert contents(tmp_path / "given") == mine


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_file_or_folder_of_somebody_else_is_left_alone(tmp_path: Path, way: dict[str, Any]) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError):
        export(recipe, run, **way, out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError):
        export(recipe, run, **way, out=tmp_path / "folder")
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    for precious in (run.path, run.kept, run.prompts, run.traces):
        before = contents(run.path)
        with pytest.raises(UsageError):
            export(recipe, run, **way, out=precious)
        assert contents(run.path) == before


def test_a_student_trained_in_the_folder_is_not_deleted_by_the_next_export(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    out = export(recipe, run, "messages", tool="trl").out
    (out / "out").mkdir()
    (out / "out" / "model.safetensors").write_text("weights")
    with pytest.raises(UsageError, match="there is a folder"):
        export(recipe, run, "messages", tool="trl")
    assert (out / "out" / "model.safetensors").read_text() == "weights"


def test_an_empty_folder_may_be_given(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    (tmp_path / "out").mkdir()
    assert (export(recipe, run, "messages", tool="trl", out=tmp_path / "out").out / "train.jsonl").is_file()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("late", [False, True], ids=["before the record", "after the record"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_killed_at_the_end_the_old_export_stands_and_the_next_one_goes_through(
    tmp_path: Path, way: dict[str, Any], late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    out = tmp_path / "given" / "out"
    export(recipe, run, **way, out=out)
    old = data(tmp_path / "given")
    write_all(run.traces, [replace(traces(recipe)[0], key="f" * 64)])
    write_kept(run.kept, judged_by_hand(traces(recipe))[:1], [])
    real = handing_over.write_json

    def killed(*given: Any) -> None:
        if late:
            real(*given)
        raise Killed

    monkeypatch.setattr(handing_over, "write_json", killed)
    with pytest.raises(Killed):
        export(recipe, run, **way, out=out)
    monkeypatch.setattr(handing_over, "write_json", real)
    assert data(tmp_path / "given") == old
    export(recipe, run, **way, out=out)
    assert data(tmp_path / "given") != old
    assert not list((tmp_path / "given").glob(".*.tmp"))


def data(folder: Path) -> dict[str, bytes]:
    """What was exported, without the record of it."""
    return {name: content for name, content in contents(folder).items() if not name.endswith(handing_over.RECORD)}


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ({"format": "json"}, "--format json: unknown; did you mean 'jsonl'"),
        ({"format": "messages", "tool": "tlr"}, "--for tlr: unknown"),
        ({"format": "messages", "split": "test"}, "--split test: unknown"),
        ({"format": "parquet", "tool": "trl"}, "--for trl takes rows of messages"),
        ({"format": "jsonl", "split": "train"}, "jsonl holds the whole run"),
        ({"format": "jsonl", "student": "tiny-qwen"}, "jsonl holds the whole run"),
        ({"format": "parquet", "student": "tiny-qwen"}, "the kept rows as they are"),
        ({"format": "messages", "tool": "trl", "split": "heldout"}, "needs rows to train on"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_named(tmp_path: Path, way: dict[str, Any], said: str) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    with pytest.raises(UsageError, match=said) as refused:
        export(recipe, run, **way)
    assert refused.value.exit_code == 2
    assert not (run.path / "exports").exists()


def test_a_run_that_holds_nothing_yet_says_what_to_do(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run", heldout=0)
    with pytest.raises(RunError, match="nothing is held out"):
        export(recipe, run, "messages", split="heldout")
    write_kept(run.kept, [], [])
    with pytest.raises(RunError, match="no trace was kept") as nothing:
        export(recipe, run, "messages")
    assert "--rejected" in str(nothing.value.todo)
    for path in run.kept.iterdir():
        path.unlink()
    for way in WAYS:
        if way["format"] != "jsonl":
            with pytest.raises(RunError, match="nothing was filtered") as unfiltered:
                export(recipe, run, **way)
            assert "distill filter" in str(unfiltered.value.todo)
    empty = RunDir(tmp_path / "empty")
    with pytest.raises(RunError, match="nothing in this run yet"):
        export(recipe, empty, "jsonl")
    write_prompts(empty.prompts, list(PROMPTS))
    assert [row["trace"] for row in lines(export(recipe, empty, "jsonl").out)] == [None] * 4


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    (run.kept / "train-00000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DistillError, match=r"train-00000\.parquet cannot be read"):
        export(recipe, run, "messages")
    run.verdicts.write_bytes(b"PAR1 not really")
    with pytest.raises(DistillError, match=r"verdicts\.parquet cannot be read"):
        export(recipe, run, "jsonl")
    assert not (run.path / "exports" / "traces.jsonl").exists()


def test_no_room_for_the_lookup_is_told_as_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = run_by_hand(tmp_path / "run")
    real = whole_run.sqlite3.connect

    def small(*a: Any, **k: Any) -> Any:
        database = real(*a, **k)
        database.execute("PRAGMA max_page_count = 4")
        return database

    monkeypatch.setattr(whole_run.sqlite3, "connect", small)
    with pytest.raises(DistillError, match="no space left for temporary files") as full:
        export(recipe, run, "jsonl")
    assert "SQLITE_TMPDIR" in str(full.value.todo)


def test_on_the_command_line(tmp_path: Path) -> None:
    _, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    told = distill("export", run.path, "--format", "jsonl", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == {
        "out": str(run.path / "exports" / "traces.jsonl"),
        "records": 5,
        "prompts": 3,
        "unsampled": 1,
        "unknown_prompt": 0,
    }
    plain = distill("export", run.path, "--out", tmp_path / "rows.jsonl")
    assert plain.returncode == 0, plain.stderr
    assert "2 rows to train on" in plain.stdout
    assert str(tmp_path / "rows.jsonl") in plain.stdout
    assert distill("export", tmp_path, "--format", "jsonl").returncode == 1
    assert distill("export", run.path, "--format", "xml").returncode == 2
    (tmp_path / "rows.jsonl").write_text("mine")
    assert distill("export", run.path, "--out", tmp_path / "rows.jsonl").returncode == 2


def test_it_asks_as_the_teacher_was_asked_and_reads_no_weights_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, _ = run_by_hand(tmp_path / "run")
    found = whole_run.asking(recipe)
    assert found is not None
    assert found.messages(PROMPTS[0]) == subject(recipe).messages(PROMPTS[0])

    def read(folder: Path) -> str:
        raise AssertionError("hashing 1.3 TB of DeepSeek-R1 would take an hour")

    monkeypatch.setattr(subjects, "folder_revision", read)
    here = recipe.model_copy(update={"teacher_overrides": {"model": str(tmp_path), "revision": None}})
    assert whole_run.asking(here) is not None


@pytest.mark.parametrize("tool", ["trl", "axolotl", "llama-factory"])
def test_a_tool_trains_every_weight_at_the_rate_for_that(tmp_path: Path, tool: str) -> None:
    recipe, run = run_by_hand(tmp_path / "run", R1_STUDENT)
    plain = data(export(recipe, run, "messages", tool=tool, out=tmp_path / "plain").out)
    settings = recipe.train.model_copy(update={"method": "lora", "learning_rate": None, "mixture": {"sums": 2.0}})
    adapted = recipe.model_copy(update={"train": settings})
    made = export(adapted, run, "messages", tool=tool, out=tmp_path / "adapted")
    said = "\n".join(made.lines)
    assert "the adapter and its learning rate: the recipe trains by lora, this trains every weight" in said
    assert "train.mixture and train.order" in said

    def settings_of(content: bytes) -> list[bytes]:
        return [line for line in content.splitlines() if not line.startswith(b"# To fill in")]

    for name, content in data(made.out).items():
        if name != "README.md":
            assert settings_of(content) == settings_of(plain[name]), name
