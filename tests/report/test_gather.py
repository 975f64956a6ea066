"""What is read from a run: numbers that add up and equal the ledger's, the latest training, bounded samples, errors."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from filtered import rejection
from ledger_material import write_all

from distill import measures
from distill.errors import RunError
from distill.ledger import LedgerReader
from distill.records import Trace
from distill.report.gather import Report, Step, gather, reads, stage_facts
from distill.report.traces import SHOWN, Sample, read_ledger
from distill.rundir import RunDir
from distill.specs import folder_revision
from report import material


def funnel(report: Report) -> dict[str, Step]:
    return {step.name: step for step in report.funnel}


def test_every_step_of_the_funnel_follows_from_the_one_before(tmp_path: Path) -> None:
    run, items = material.finished(tmp_path / "run")
    report = gather(material.RECIPE, run)
    steps = [step for step in report.funnel if step.of]
    assert [step.name for step in steps] == [
        "Samples asked", "Traces answered", "Finished whole", "Kept", "For training", "Trained on",
    ]  # fmt: skip
    for before, after in pairwise(steps):
        assert after.number == before.number + sum(change.number for change in after.changes), after
    traces = list(LedgerReader(run.traces).traces())
    found = funnel(report)
    assert found["Prompts"].number == 40
    assert found["Samples asked"].number == 80
    assert found["Traces answered"].number == sum(t.finish_reason != "error" for t in traces) == len(items)
    assert found["Finished whole"].number == sum(t.finish_reason == "stop" for t in traces)
    kept = sum(rejection(item) is None for item in items)
    assert found["Kept"].number == kept
    assert found["Tokens trained on"].number == 5_000
    assert "2 epochs" in found["Tokens trained on"].remark


def test_reasons_are_the_filters_own_and_add_up(tmp_path: Path) -> None:
    run, items = material.filtered(tmp_path / "run")
    ledger = read_ledger(run)
    assert ledger is not None
    told = [rejection(item) for item in items]
    assert dict(ledger.reasons) == {reason: told.count(reason) for reason in {*told} - {None}}
    assert ledger.reasons.total() == ledger.fates["rejected"]
    assert ledger.objections["correct", "no_answer"] == ledger.reasons["truncated"], "failed as well, but not first"
    assert "no_answer" not in ledger.reasons


def test_traces_that_nobody_asked_for_join_instead_of_spoiling_the_sum(tmp_path: Path) -> None:
    run, _ = material.sampled(tmp_path / "run", 5)
    other = [material.trace(prompt, 7) for prompt in material.prompts(3)]
    write_all(run.traces, other)
    steps = [step for step in gather(material.RECIPE, run).funnel if step.of]
    assert [change.number for change in steps[1].changes] == [-1, 3]
    assert steps[1].number == 12


def test_a_run_with_traces_alone_and_one_with_a_training_alone(tmp_path: Path) -> None:
    run, _ = material.sampled(tmp_path / "traces")
    report = gather(material.RECIPE, run)
    assert [step.name for step in report.funnel][-1] == "Finished whole"
    assert report.ledger is not None
    assert len(report.ledger.examples["unjudged"]) == SHOWN
    assert (report.training, report.scores, report.weights, report.filtered) == (None, (), (), False)
    alone = RunDir(tmp_path / "training")
    material.log(alone, {"step": 10, "steps": 10, "loss": 1.0, "lr": 1e-3})
    report = gather(material.RECIPE, alone)
    assert (report.funnel, report.ledger) == ((), None)
    assert report.training is not None
    assert report.training.loss == ((10, 1.0),)
    nothing = gather(material.RECIPE, RunDir(tmp_path / "nothing"))
    assert (nothing.funnel, nothing.training, nothing.scores) == ((), None, ())
    assert all(stage.state == "not started" for stage in nothing.stages)


def loss(*pairs: tuple[int, float], steps: int = 40) -> Iterator[dict[str, Any]]:
    return ({"step": step, "steps": steps, "loss": value, "lr": value / 10} for step, value in pairs)


def test_only_the_latest_training_is_shown(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    material.log(run, *loss((10, 9.0), (20, 9.0), (30, 9.0), steps=30), {"step": 30, "steps": 30, "heldout_loss": 9.0})
    material.log(run, *loss((10, 4.0), (20, 3.0), (30, 2.9)), {"step": 30, "steps": 40, "heldout_loss": 2.9})
    with run.metrics.open("a") as file:
        file.write('{"time": "torn\n[1]\n')
    material.log(run, *loss((20, 3.1), (30, 2.5)), {"step": 30, "steps": 40, "heldout_loss": 2.6}, *loss((40, 2.0)))
    material.log(run, {"step": 40, "steps": 40, "loss": float("nan")})
    run.log_metrics("other", {"step": 1, "steps": 1, "loss": 7.0})
    found = measures.training(run)
    assert found is not None
    assert found.loss == ((10, 4.0), (20, 3.1), (30, 2.5))
    assert found.heldout == ((30, 2.6),)
    assert (found.steps, found.unreadable) == (40, 2)


def test_a_training_begun_again_with_as_many_steps_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    material.log(run, {"step": 4, "steps": 40, "heldout_loss": 8.0}, *loss((10, 9.0), (20, 9.0)))
    material.log(run, *loss((10, 1.0)))
    found = measures.training(run)
    assert found is not None
    assert found.loss == ((10, 1.0),)


def test_examples_are_few_spread_over_reasons_and_the_same_in_any_order(tmp_path: Path) -> None:
    run, items = material.filtered(tmp_path / "run", 100)
    ledger = read_ledger(run)
    assert ledger is not None
    rejected, kept = ledger.examples["rejected"], ledger.examples["kept"]
    assert len(rejected) == len(kept) == SHOWN
    counts = [sum(one.deciding == reason for one in rejected) for reason in ledger.reasons]
    assert max(counts) - min(counts) <= 1, "reasons take turns"
    assert [one.trace.key for one in kept] != [i.trace.key for i in items if not rejection(i)][:SHOWN]
    assert all(one.prompt is not None and one.prompt.id == one.trace.prompt_id for one in (*kept, *rejected))
    again = RunDir(tmp_path / "again")
    write_all(again.traces, [item.trace for item in reversed(items)])
    for path in (run.verdicts, run.kept, run.prompts):
        (again.path / path.name).symlink_to(path)
    turned = read_ledger(again)
    assert turned is not None
    assert turned.examples == ledger.examples


def test_a_large_ledger_is_read_without_holding_its_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = material.prompts(1)[0]

    def many(reader: LedgerReader) -> Iterator[Trace]:
        for number in range(3_000):
            yield material.trace(prompt, number, raw="x" * 20_000 + str(number))

    monkeypatch.setattr(LedgerReader, "traces", many)
    tracemalloc.start()
    try:
        ledger = read_ledger(RunDir(tmp_path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ledger is not None
    assert ledger.answered == 3_000
    assert peak < 10 * 2**20, "60 MB of text went by"


def test_a_sample_keeps_the_smallest_hashes() -> None:
    traces = [material.trace(material.prompts(1)[0], number) for number in range(50)]
    one, other = Sample(5), Sample(5)
    for item in traces:
        one.offer(item)
    for item in reversed(traces):
        other.offer(item)
    assert one.taken() == other.taken()
    assert len(one.taken()) == 5


def test_scores_stand_in_the_order_of_interest(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run")
    material.score(run, "another", 0.5)
    report = gather(material.RECIPE, run)
    names = [score.name for score in report.scores]
    assert names == ["teacher", "untrained", "student", "student-gguf-q4_k_m", "student-nf4", "another"]
    assert {(s.problems, s.samples) for s in report.scores} == {(300, 4), (200, 2)}
    assert report.smallest is not None
    assert report.smallest.name == "gguf-q4_k_m", "nf4 is smaller, but did not pass"
    assert report.failed_gates == ("nf4: it loses 5.0 points",)


def test_the_students_types_are_read_from_its_file(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run")
    student = measures.weights(run, measures.quantized(run))[0]
    assert student.types == {"BF16": 900, "F32": 100}
    assert student.bytes == (run.student / "model.safetensors").stat().st_size
    assert student.bits_per_weight == pytest.approx(student.bytes * 8 / 1_000)


def test_what_a_quantized_file_does_not_say_is_unknown(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    wrong = {"bytes": "big", "worst_tensor": None, "bits_per_weight": None, "four_bit_share": True}
    material.quantized(run, "odd", "odd", 10, {}, **wrong)
    (odd,) = measures.weights(run, measures.quantized(run))
    assert (odd.bytes, odd.types, odd.bits_per_weight, odd.worst_error, odd.four_bit_share) == (
        None,
        {},
        None,
        None,
        None,
    )


def test_a_stage_whose_input_was_made_anew_is_stale(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    material.stage(run, "train", {}, outputs={"student": "new"})
    material.stage(run, "evaluate", {"error": "out of memory"}, inputs={"student": "old", "models/x": "1"})
    material.stage(run, "report", {})
    found = {stage.name: stage for stage in stage_facts(run.stages())}
    assert found["evaluate"].stale == ("student",)
    assert found["evaluate"].error == "out of memory"
    assert "report" not in found
    assert found["filter"].state == "not started"


def test_files_of_an_earlier_student_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = material.finished(tmp_path / "run", 5)
    now = folder_revision(run.student)
    material.quantized(run, "nf4", "nf4", 600, {"NF4": 10}, source="of another")
    material.quantized(run, "gguf-q4_k_m", "gguf:q4_k_m", 700, {"Q4_K": 10}, source=now)
    material.score(run, "student-int8", 0.5)
    material.score(run, "student-bf16", 0.86)
    hashed: list[Path] = []
    monkeypatch.setattr(measures, "folder_revision", lambda folder: hashed.append(folder) or now)
    report = gather(material.RECIPE, run)
    assert hashed == [run.student], "over all weights: once"
    assert [one.name for one in report.weights] == ["student", "gguf-q4_k_m"]
    names = {score.name for score in report.scores}
    assert names == {"teacher", "untrained", "student", "student-bf16", "student-gguf-q4_k_m"}
    assert set(report.comparisons) == {"gguf-q4_k_m"}
    assert report.left_out == (
        "quantized/nf4 was made of an earlier student and is left out; run `distill quantize RUN`",
        "evaluations/student-int8.json is the score of a file that is not in quantized/ any more and is left out; "
        "run `distill quantize RUN`",
    )
    shutil.rmtree(run.student)
    alone = gather(material.RECIPE, run)
    assert [one.name for one in alone.weights] == ["gguf-q4_k_m", "nf4"], "nothing tells of which student"
    assert (alone.left_out, len(alone.scores)) == ((), 7)


@pytest.mark.parametrize(
    ("counted", "status"),
    [
        ({"gates": [], "difference": -0.01, "status": "passed"}, "passed"),
        ({"gates": ["it loses"], "difference": -0.01, "status": "not passed"}, "not passed"),
        ({"gates": [], "difference": -0.01, "status": "no bar"}, "no bar"),
        ({"gates": []}, "not examined"),
        ({"gates": [], "difference": -0.01, "status": ["odd"]}, "not examined"),
    ],
)
def test_the_standing_of_a_file_is_as_counted(tmp_path: Path, counted: dict[str, Any], status: str) -> None:
    run = RunDir(tmp_path)
    material.stage(run, "quantize", {"nf4": counted})
    assert gather(material.RECIPE, run).status("nf4") == status


def test_it_reads_only_what_is_there(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run")
    names = {str(path.relative_to(run.path)) for path in reads(run)}
    assert {"recipe.yaml", "traces", "kept", "evaluations/student.json", "quantized/nf4/quantization.json"} <= names
    assert not {"manifest.json", "student", "report.html"} & names, "the manifest changes with the report itself"
    assert reads(RunDir(tmp_path / "nothing")) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"pass_at_1": "x", "interval": [0, 1], "problems": 1}', "\udcff"])
def test_a_damaged_score_is_named(tmp_path: Path, text: str) -> None:
    run, _ = material.finished(tmp_path / "run", 5)
    (run.evaluations / "student.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match=r"student\.json") as caught:
        gather(material.RECIPE, run)
    assert "--from evaluate" in str(caught.value)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for name in ("verdicts.parquet", "kept/train-00000.parquet", "traces/part-00000.parquet", "prompts.parquet",
                 "quantized/nf4/quantization.json", "student/model.safetensors"):  # fmt: skip
        run, _ = material.finished(tmp_path / name.replace("/", "-"), 5)
        path = run.path / name
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(RunError, match=path.name.replace(".", r"\.")):
            gather(material.RECIPE, run)


def test_a_superseded_record_counts_once(tmp_path: Path) -> None:
    run, items = material.sampled(tmp_path / "run", 5)
    cut = next(item.trace for item in items if item.trace.finish_reason == "length")
    write_all(run.traces, [replace(cut, revision=1, finish_reason="stop")])
    ledger = read_ledger(run)
    assert ledger is not None
    assert (ledger.answered, ledger.ended["length"]) == (9, 0)


def test_what_a_training_went_through_is_told_by_its_own_settings(tmp_path: Path) -> None:
    run, _ = material.finished(tmp_path / "run")
    counts = {"traces": 9, "too_long": 1, "special_token": 2, "tokens": 50}
    open_ones = {"train": {"learning_rate": None, "epochs": None}, "specs": {"student": {"learning_rate": 7e-5}}}
    material.stage(run, "train", counts, settings=open_ones)
    report = gather(material.RECIPE, run)
    assert report.peak_rate == 7e-5
    found = funnel(report)
    assert found["Tokens trained on"].remark == "per epoch, prompts included; 2 epochs"
    changes = {change.name: change.number for change in found["Trained on"].changes}
    assert changes["with a special token of the student's in the reply"] == -2
    phased = {"train": {"phases": [{"name": "a", "epochs": 1}, {"name": "b", "learning_rate": 1e-3}]}}
    material.stage(run, "train", counts, settings=phased)
    report = gather(material.RECIPE, run)
    assert report.peak_rate == 1e-3
    assert funnel(report)["Tokens trained on"].remark.endswith("; 1 epochs in a, 2 epochs in b")
    for unknown in ({}, {"train": {"speed": 3}}, {"train": {}, "specs": 1}):
        material.stage(run, "train", counts, settings=unknown)
        report = gather(material.RECIPE, run)
        assert report.peak_rate == 1e-3 / 10, "the highest that was logged"
        assert "an unknown number of epochs" in funnel(report)["Tokens trained on"].remark
