"""Which traces of a run the contract check looks at, and `distill train RUN --check` as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from distill import specs
from distill.contract import Response
from distill.errors import ContractError, RunError, SpecError, TrainingError
from distill.rundir import RunDir
from distill.train.checking import MOST, RANDOM, check_run, choose, prove
from distill.train.student import load_student, save_student
from distill.train.tokenizer import prepare_tokenizer
from train.bases import CHATML, from_base, plain_base, word_tokenizer
from train.material import spec


def keep(folder: Path, rows: list[tuple[str, str, Response]], *, name: str = "train-00000") -> None:
    """Rows of (kind, domain, response); the trace's id is its place."""
    folder.mkdir(parents=True, exist_ok=True)
    table = [
        {
            "trace_id": f"{name}-{number}",
            "kind": kind,
            "domain": domain,
            "messages": [
                {"role": "user", "content": f"q{number}"},
                {"role": "assistant", "content": response.render()},
            ],
        }
        for number, (kind, domain, response) in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")


def run_with(
    folder: Path, student: dict[str, Any], rows: list[tuple[str, str, Response]]
) -> tuple[specs.Recipe, RunDir]:
    run = RunDir(folder / "run")
    keep(run.kept, rows)
    keep(run.kept, [MATH], name="heldout-00000")
    path = folder / "student.yaml"
    path.write_text(yaml.safe_dump(student), encoding="utf-8")
    recipe = specs.Recipe(name="r", student=str(path))
    run.recipe.write_text(specs.dump(recipe), encoding="utf-8")
    return recipe, run


def written(**changed: Any) -> dict[str, Any]:
    student: dict[str, Any] = spec(**changed).model_dump(mode="json", exclude_none=True)
    return student


MATH = ("math", "arithmetic", Response("one and one", "\\boxed{2}"))
ROWS = [MATH, ("open", "chat", Response(None, "Hello.")), ("math", "gsm8k", Response("because", "3"))]


# --- which traces ----------------------------------------------------------------------------------------------------


def test_the_longest_the_shortest_and_one_of_each_kind_domain_and_way_to_answer_are_chosen(tmp_path: Path) -> None:
    many = [("math", "arithmetic", Response(f"{n} plus {n}", str(2 * n))) for n in range(100, 400)]
    many[37] = ("math", "arithmetic", Response("x " * 300, "37"))
    many[211] = ("math", "arithmetic", Response("i", "1"))
    many[150] = ("code", "arithmetic", Response("one and two", "150"))
    many[151] = ("math", "gsm8k", Response("one and two", "151"))
    many[152] = ("math", "arithmetic", Response(None, "an answer without reasoning"))
    keep(tmp_path, many)
    chosen = choose(tmp_path, seed=0)
    ids = {int(row.trace_id.rpartition("-")[2]) for row in chosen}
    assert {37, 211, 150, 151, 152, 0} <= ids
    assert len(ids) == len(chosen) <= RANDOM + 6
    assert choose(tmp_path, seed=0) == chosen
    assert choose(tmp_path, seed=1) != chosen, "others by chance"
    (row,) = (row for row in chosen if row.trace_id.endswith("-151"))
    assert (row.kind, row.domain, row.question) == ("math", "gsm8k", "q151")
    assert row.reply == Response("one and two", "151").render()


def test_chance_reaches_every_part_of_every_file(tmp_path: Path) -> None:
    same = [("math", "arithmetic", Response("i", "1"))] * 40
    for number in range(3):
        keep(tmp_path, same, name=f"train-{number:05d}")
    keep(tmp_path, same, name="heldout-00000")
    found = {row.trace_id for seed in range(150) for row in choose(tmp_path, seed=seed)}
    assert len(found) == 120, "of all three files, and none of the held-out one"


def test_there_are_not_too_many(tmp_path: Path) -> None:
    keep(tmp_path, [("math", f"domain {n}", Response("i" * (n + 1), "1")) for n in range(300)])
    chosen = choose(tmp_path, seed=0)
    assert len(chosen) == MOST
    assert {"train-00000-299", "train-00000-0"} <= {row.trace_id for row in chosen}


def test_kept_traces_without_a_domain_are_read(tmp_path: Path) -> None:
    keep(tmp_path, [MATH])
    file = tmp_path / "train-00000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["domain"]), file)
    assert [row.domain for row in choose(tmp_path, seed=0)] == [""]


def test_nothing_kept(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no kept traces"):
        choose(tmp_path / "kept", seed=0)
    keep(tmp_path, [MATH])
    (tmp_path / "train-00000.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(RunError, match="cannot be read"):
        choose(tmp_path, seed=0)


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_is_checked_without_anything_written_or_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", never)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    recipe, run = run_with(tmp_path, written(), ROWS)
    before = sorted(run.path.rglob("*"))
    found = check_run(recipe, run)
    assert found.checked.faults == ()
    assert found.checked.traces == 3
    assert sorted(run.path.rglob("*")) == before
    lines = found.lines(["lengths: all fit"])
    assert lines[0] == "lengths: all fit"
    assert lines[1] == f"contract of tiny: deepseek-r1, {spec().contract.hash}"
    assert lines[-1] == (
        "<｜begin▁of▁sentence｜><｜User｜>q2<｜Assistant｜>⟦<think>\nbecause\n</think>\n\n3«<｜end▁of▁sentence｜>»⟧"
    ), "the shortest that reasons"


def test_the_folder_of_the_check_is_the_one_that_training_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the weights and what the config says of them."""
    import torch

    from distill.train import checking

    student = from_base(plain_base(tmp_path / "base"))
    recipe, run = run_with(tmp_path, student.model_dump(mode="json", exclude_none=True), ROWS[:1])
    seen: dict[str, str] = {}

    def look(folder: Path, *arguments: Any, **options: Any) -> Any:
        seen.update({path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()})
        return real(folder, *arguments, **options)

    real = checking.check_contract
    monkeypatch.setattr(checking, "check_contract", look)
    check_run(recipe, run)
    tokenizer = prepare_tokenizer(student)
    model = load_student(student, tokenizer, seed=0, dtype=torch.float32)
    save_student(model, tokenizer, student.contract, tmp_path / "saved", facts={"student": student.name})
    saved = {path.name: path for path in (tmp_path / "saved").iterdir()}
    assert set(saved) - set(seen) == {"model.safetensors"}
    for name in set(seen) - {"config.json"}:
        assert seen[name] == saved[name].read_text(encoding="utf-8"), name
    ours, theirs = json.loads(seen["config.json"]), json.loads(saved["config.json"].read_text(encoding="utf-8"))
    assert {key for key in ours | theirs if ours.get(key) != theirs.get(key)} <= {"vocab_size", "dtype"}


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    folder = word_tokenizer(tmp_path / "base", controls=CHATML)
    recipe, run = run_with(tmp_path, from_base(folder).model_dump(mode="json", exclude_none=True), ROWS)
    with pytest.raises(SpecError, match="the base of student 'tiny' cannot be loaded"):
        check_run(recipe, run)


def test_training_does_not_start_on_a_broken_contract(tmp_path: Path) -> None:
    import torch

    student = spec()
    tokenizer = prepare_tokenizer(student)
    keep(tmp_path / "kept", ROWS)
    folder = tmp_path / "untrained"
    model = load_student(student, tokenizer, seed=0, dtype=torch.float32)
    save_student(model, tokenizer, student.contract, folder, facts={})
    checked = prove(folder, student, tokenizer, tmp_path / "kept", seed=0)
    assert (checked.faults, checked.traces) == ((), 3)
    settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    (folder / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": 5}), encoding="utf-8")
    with pytest.raises(ContractError, match="stop_disagrees"):
        prove(folder, student, tokenizer, tmp_path / "kept", seed=0)
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer.add_tokens(["because"])
    with pytest.raises(ContractError, match="reasoning_outside_loss"):  # training's tokenizer is not the saved one
        prove(folder, student, tokenizer, tmp_path / "kept", seed=0)


def with_filename(folder: Path) -> dict[str, Any]:
    tokenizer = word_tokenizer(folder / "tokenizer", controls=(*CHATML, "<filename>"))
    return written(tokenizer=str(tokenizer), template="chatml")


def test_only_traces_that_are_trained_are_looked_at(tmp_path: Path) -> None:
    quoting = ("math", "arithmetic", Response("the longest of all, with <filename> in it", "3"))
    recipe, run = run_with(tmp_path, with_filename(tmp_path), [*ROWS, quoting])
    found = check_run(recipe, run).checked
    assert (found.faults, found.traces) == ((), 3)


def test_nothing_is_left_to_look_at(tmp_path: Path) -> None:
    quoting = ("math", "arithmetic", Response("as in <filename>", "3"))
    recipe, run = run_with(tmp_path, with_filename(tmp_path), [quoting, quoting])
    with pytest.raises(TrainingError, match="every reply looked at holds a special token") as caught:
        check_run(recipe, run)
    assert caught.value.given == "<filename> in train-00000-, <filename> in train-00000-"


# --- the command -----------------------------------------------------------------------------------------------------


def check(run: RunDir, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distill.cli", "train", str(run.path), "--check", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)


def test_the_command_prints_what_is_proven_and_one_trace(tmp_path: Path) -> None:
    _, run = run_with(tmp_path, written(), ROWS)
    done = check(run)
    assert (done.returncode, done.stderr) == (0, "")
    every = done.stdout.splitlines()
    lines = every[next(n for n, line in enumerate(every) if line.startswith("contract of tiny: deepseek-r1, ")) :]
    assert every[0].startswith("train: 3 traces, "), "the lengths come first"
    assert [line.partition(":")[0] for line in lines[1:8]] == [
        "loss", "tags", "stop", "pad", "prompt", "template", "served",
    ]  # fmt: skip
    assert done.stdout.endswith("<｜Assistant｜>⟦<think>\nbecause\n</think>\n\n3«<｜end▁of▁sentence｜>»⟧\n")
    assert not run.untrained.exists()
    assert not run.manifest.exists()


def test_the_command_fails_with_the_finding_and_what_to_do(tmp_path: Path) -> None:
    folder = word_tokenizer(tmp_path / "tokenizer")
    student = written(tokenizer=str(folder), template="chatml", forced_prefix="")
    _, run = run_with(tmp_path, student, ROWS)
    done = check(run, "--json")
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["name"], finding["trace_id"]) == ("answer_as_reasoning", "train-00000-1")
    assert "forced_prefix" in finding["todo"]
    assert "answer_as_reasoning" in done.stderr
    assert "Traceback" not in done.stderr
    plain = check(run)
    assert plain.returncode == 1
    assert "FAULT answer_as_reasoning" in plain.stdout
    mended = check(run, "--set", "student_overrides.forced_prefix=<think>\n", "--json")
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["findings"] == []
    assert json.loads(mended.stdout)["census"]["splits"]["heldout"]["traces"] == 1


def test_a_student_that_nobody_named(tmp_path: Path) -> None:
    _, run = run_with(tmp_path, written(), ROWS)
    done = check(run, "--student", "")
    assert done.returncode == 2
    assert "the recipe names no student" in done.stderr
