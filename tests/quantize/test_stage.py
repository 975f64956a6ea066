"""The stage in a run and alone: what it writes, and that a broken file ends with exit code 3 and its reason."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from distill import cli, specs
from distill.errors import MissingError
from distill.files import write_text
from distill.pipeline import plan, run_recipe
from distill.prompts.stage import write_prompts
from distill.quantize import bnb, gguf_writer
from distill.quantize.schemes import Scheme
from distill.records import Prompt
from distill.rundir import RunDir
from quantize.material import a_student, changed_json, converted_once, halve_gguf_scales, halve_scales, wrong_gguf_stop

WRONG_STOP = "ends replies with &, the contract with <.end.of.sentence.>"
SETTINGS: dict[str, Any] = {
    "quantize.schemes": ["nf4", "gguf:q4_k_m"],
    "quantize.limit": 2,
    "quantize.samples": 1,
    "quantize.min_difference": None,
    "evaluate.prompts.0.limit": 2,
    "evaluate.max_tokens": 12,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an (untrained) student, not yet quantized."""
    run = RunDir(tmp_path_factory.mktemp("runs") / "run")
    a_student(run.student)
    write_text(run.recipe, specs.dump(specs.recipe("quickstart", SETTINGS)))
    return run.path


@pytest.fixture(scope="module", autouse=True)
def conversions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_writer, "convert", converted_once(tmp_path_factory.mktemp("conversions")))
        yield


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(trained, tmp_path / "run"))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["distill", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_run_gets_files_scores_and_a_table(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = specs.recipe("quickstart", SETTINGS)
    run_recipe(recipe, run, first="quantize", last="quantize")
    for folder in ("nf4", "gguf-q4_k_m"):
        assert json.loads((run.quantized / folder / "quantization.json").read_text())["faults"] == []
        score = json.loads((run.evaluations / f"student-{folder}.json").read_text())
        reference = json.loads((run.evaluations / "student-bf16.json").read_text())
        assert score["conditions"] == reference["conditions"]
        assert (score["problems"], score["contract"]) == (2, reference["contract"])
        counts = run.stages()["quantize"].counts[folder]
        assert counts["gates"] == []
        assert counts["status"] == "no bar"
        assert counts["difference_interval"] == [-1.0, 1.0], "two problems tell nothing"
    printed = capsys.readouterr().err
    assert re.search(r"nf4 .* no bar", printed)
    assert plan(recipe, run, "quantize", "quantize") == {"quantize": "done"}
    (run.quantized / "nf4" / "config.json").write_text("{}")
    assert plan(recipe, run, "quantize", "quantize") == {"quantize": "to run"}


def test_the_students_own_samples_are_not_drawn_again(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = specs.recipe("quickstart", {**SETTINGS, "evaluate.models": ["student"], "evaluate.min_pass_at_1": None})
    run_recipe(recipe, run, first="evaluate", last="quantize")
    assert "evaluate student-bf16: 2 of 2 samples are there already" in capsys.readouterr().err
    assert plan(recipe, run, "evaluate", "quantize") == {"evaluate": "done", "quantize": "done"}


def wrong_stop(folder: Path) -> None:
    changed_json(folder / "generation_config.json", lambda content: content.update(eos_token_id=5))


def halve_nf4_scales(folder: Path) -> None:
    """Of NF4 files alone: int8 has its scales under another name."""
    if "nf4" in folder.name:
        halve_scales(folder)


def break_files_of(monkeypatch: pytest.MonkeyPatch, module: ModuleType, how: Callable[[Path], None]) -> None:
    """Whatever the writer of NF4 or of GGUF files makes is broken afterwards."""
    function = "write" if module is bnb else "quantize"
    inner = getattr(module, function)

    def write(source: Path, out: Path, scheme: Scheme) -> None:
        inner(source, out, scheme)
        how(out)

    monkeypatch.setattr(module, function, write)


@pytest.mark.parametrize(
    ("scheme", "writer", "how", "reason"),
    [
        ("nf4", bnb, halve_scales, r"\(NF4\) are 5[01]% off the student's, where rounding explains at most 20.0%"),
        ("nf4", bnb, wrong_stop, f"stop token: generation_config.json {WRONG_STOP}"),
        ("gguf:q4_k_m", gguf_writer, halve_gguf_scales, r"\(Q\d_K\) are 50% off the student's"),
        ("gguf:q4_k_m", gguf_writer, wrong_gguf_stop, f"stop token: the file {WRONG_STOP}"),
    ],
)
def test_a_broken_file_ends_with_code_3_and_its_reason(
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scheme: str,
    writer: ModuleType,
    how: Callable[[Path], None],
    reason: str,
) -> None:
    with monkeypatch.context() as broken:
        break_files_of(broken, writer, how)
        assert command(broken, "quantize", run.path, "--scheme", scheme) == 3
    told = capsys.readouterr()
    assert re.search(reason, told.err), told.err
    assert "NOT PASSED" in told.out
    examined = {path.stem for path in run.evaluations.glob("student-*.json")}
    assert examined <= {"student-bf16"}, "a file with a fault is not examined"
    assert command(monkeypatch, "quantize", run.path, "--scheme", scheme) == 0, "and is made again, not taken as it is"


def test_a_file_that_did_not_pass_is_not_forgotten_by_the_next_command(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as broken:
        break_files_of(broken, bnb, halve_nf4_scales)
        assert command(broken, "quantize", run.path, "--scheme", "nf4") == 3
        capsys.readouterr()
        assert command(broken, "quantize", run.path, "--scheme", "int8") == 3, "nf4 is made again, and broken again"
        assert "nf4: the weights of" in capsys.readouterr().err
    assert command(monkeypatch, "quantize", run.path, "--scheme", "int8") == 0, "both are whole now"
    assert {"nf4", "int8"} <= run.stages()["quantize"].counts.keys()


def test_a_student_in_a_run_is_not_judged_on_what_it_was_trained_on(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(run.prompts, [Prompt("What is 1 + 1?", kind="math", answer="2")])
    (tmp_path / "p.jsonl").write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    arguments = ("quantize", run.student, "--scheme", "nf4", "--out", tmp_path / "out")
    assert command(monkeypatch, *arguments, "--benchmark", tmp_path / "p.jsonl") == 1
    assert "1 of 1 problems of the evaluation are prompts of this run" in capsys.readouterr().err


def test_too_few_weights_in_four_bits_end_with_code_3(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("quantize", run.path, "--scheme", "gguf:q4_k_m", "--set")
    assert command(monkeypatch, *arguments, "quantize.min_four_bit_share=0.9") == 3
    assert command(monkeypatch, *arguments, "quantize.min_four_bit_share=0.8") == 0


def test_a_gate_on_what_proves_nothing_does_not_pass(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("quantize", run.path, "--scheme", "nf4", "--set", "quantize.min_difference=-0.05")
    assert command(monkeypatch, *arguments) == 3
    assert "the student itself solves 0.0%, so a loss of 5% could not show" in capsys.readouterr().err


def test_a_model_folder_alone_is_quantized_without_problems(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    assert command(monkeypatch, "quantize", run.student, "--scheme", "nf4", "--out", out, "--json") == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files["nf4"]["four_bit_share"] > 0.9
    assert files["nf4"]["status"] == "not examined"
    assert (out / "nf4" / "model.safetensors").is_file()


def test_two_models_do_not_meet(run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run.student, tmp_path / "other")
    for model in (run.student, Path("other")):
        assert command(monkeypatch, "quantize", model, "--scheme", "nf4") == 0
    assert sorted(path.parent.name for path in (tmp_path / "quantized").glob("*/nf4")) == ["other", "student"]
    assert command(monkeypatch, "quantize", "other", "--scheme", "nf4", "--limit", "3") == 2, "problems of what?"


@pytest.mark.parametrize("text", ["", "{}", "[]", None])
def test_a_folder_without_its_contract_is_named(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    contract = run.student / "distill.json"
    contract.unlink() if text is None else contract.write_text(text)
    assert command(monkeypatch, "quantize", run.student, "--scheme", "nf4") == 1
    assert "distill.json" in capsys.readouterr().err


def test_options_are_for_once_and_files_that_are_there_stay_in_the_table(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "quantize", run.path) == 0
    before, recipe = run.stages()["quantize"].counts, run.recipe.read_bytes()
    capsys.readouterr()
    assert command(monkeypatch, "quantize", run.path, "--scheme", "int8", "--samples", "2") == 0
    assert run.recipe.read_bytes() == recipe
    counts = run.stages()["quantize"].counts
    assert [name for name in counts if not name.startswith("_")] == ["nf4", "int8", "gguf-q4_k_m"]
    assert before.keys() < counts.keys()
    assert {counts[name]["samples"] for name in ("nf4", "int8", "gguf-q4_k_m")} == {4}
    assert "made" not in capsys.readouterr().err.replace("int8 made", "")


def test_the_score_of_an_earlier_file_goes_with_it(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "quantize", run.path, "--scheme", "nf4") == 0
    assert (run.evaluations / "student-nf4.json").exists()
    (run.quantized / "nf4" / "config.json").write_text("{}")
    break_files_of(monkeypatch, bnb, halve_scales)
    assert command(monkeypatch, "quantize", run.path, "--scheme", "nf4") == 3
    assert not (run.evaluations / "student-nf4.json").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere", "--scheme", "nf4"), "no run and no model folder"),
        (("STUDENT",), "give --scheme NAME, one of: nf4"),
        (("STUDENT", "--scheme", "nf5"), "unknown scheme 'nf5'; did you mean 'nf4'"),
        (("RUN", "--scheme", "awq"), "unknown scheme 'awq'"),
        (("RUN", "--out", "x"), "--out is for a model folder"),
    ],
)
def test_bad_requests_are_explained(
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    places = {"STUDENT": str(run.student), "RUN": str(run.path)}
    assert command(monkeypatch, "quantize", *(places.get(word, word) for word in arguments)) == 2
    assert told in capsys.readouterr().err


def test_a_missing_program_is_told_before_anything_is_made(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingError, match="need bitsandbytes"):
        run_recipe(specs.recipe("quickstart", SETTINGS), run, first="quantize", last="quantize")
    assert not run.quantized.exists()


def test_a_recipe_without_schemes_needs_no_student(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run_recipe(specs.Recipe(name="r"), run, first="quantize", last="quantize")
    assert run.stages()["quantize"].state == "done"
