"""Runs of several machines become one: nothing lost, nothing doubled, what does not belong together refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from http_teacher import HttpTeacher, Said
from typer.testing import CliRunner

from distill import pipeline, specs
from distill.cli import app
from distill.engines.batch_state import BatchState
from distill.errors import LockedError, RunError, UsageError
from distill.files import sha256_file, write_text
from distill.generate import taking
from distill.ledger import Ledger, encode_line
from distill.ledger.parts import read_parts
from distill.pipeline import merge
from distill.rundir import RunDir
from generate.runs import contents, prepared, questions, recipe, records, sampled, tasks


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    questions(tmp_path / "questions.jsonl", range(24))
    return tmp_path


def shards(folder: Path, of: int = 2, **how: Any) -> list[RunDir]:
    return [
        sampled(recipe(folder, generate__shard=f"{number}/{of}"), RunDir(folder / f"shard-{number}"), **how)
        for number in range(1, of + 1)
    ]


def answers(run: RunDir) -> dict[str, str]:
    return {trace.key: trace.raw for trace in run.ledger().traces()}


# --- what comes of it ----------------------------------------------------------------------------------------------


def test_shards_become_the_run_that_one_machine_would_have_made(folder: Path) -> None:
    runs, out = shards(folder, 3), RunDir(folder / "all")
    before = [contents(run) for run in runs]
    merged = merge(runs, out)
    alone = sampled(recipe(folder), RunDir(folder / "alone"))
    assert answers(out) == answers(alone)
    assert Counter(trace.key for trace in records(out)).most_common(1)[0][1] == 1
    assert (merged.samples, merged.answered, merged.missing, merged.failed, merged.others) == (48, 48, 0, 0, 0)
    assert [source.shard for source in merged.sources] == ["1/3", "2/3", "3/3"]
    assert sum(source.traces for source in merged.sources) == 48
    assert all(0 < source.traces < 48 and not source.duplicates for source in merged.sources)
    assert [contents(run) for run in runs] == before, "the sources stay as they are"
    assert pipeline.recipe_of(out) == recipe(folder)
    assert out.left_out.read_bytes() == runs[0].left_out.read_bytes()


def test_everything_after_it_goes_on_as_in_any_run(folder: Path) -> None:
    runs, out = shards(folder), RunDir(folder / "all")
    merge(runs, out)
    assert pipeline.plan(recipe(folder), out, "prompts", "generate") == {"prompts": "done", "generate": "done"}
    kept_all = recipe(folder, filter__keep="all", filter__checks=["finished"])
    pipeline.run_recipe(kept_all, out, first="filter", last="filter")
    assert out.stages()["filter"].counts["traces"] == 48


def test_only_what_is_missing_is_asked_for(folder: Path) -> None:
    """A whole shard that is not there, failures, and a trace that a run had not come to."""
    with HttpTeacher(lambda question: Said("4", reasoning="I add."), model="scripted") as teacher:
        here = {"generate__url": teacher.url, "generate__max_tokens": 50}
        names = [RunDir(folder / name) for name in ("one", "two")]
        first, second = (recipe(folder, generate__shard=f"{n}/3", **here) for n in (1, 2))
        sampled(first, names[0], failing=lambda task: task.sample == 1)
        skipped = tasks(second, prepared(second, names[1]))[0].key
        sampled(second, names[1], left_out=lambda task: task.key == skipped)
        out = RunDir(folder / "all")
        merged = merge(names, out)
        of = {n: len(tasks(recipe(folder, generate__shard=f"{n}/3"), out)) for n in (1, 2, 3)}
        assert merged.failed == of[1] // 2
        assert merged.missing_of == {"2/3": 1, "3/3": of[3]}
        assert merged.absent == ["3/3"]
        assert merged.missing == of[3] + 1
        lines = "\n".join(merged.lines())
        assert f"{of[3]} of shard 3/3, which is none of these runs" in lines
        assert "1 of shard 2/3\n" in f"{lines}\n"
        assert out.stages()["generate"].state == "incomplete"
        before = answers(out)
        pipeline.run_recipe(recipe(folder, **here), out, last="generate")
        assert len(teacher.chats) == merged.missing + merged.failed
        pipeline.run_recipe(recipe(folder, **here), out, last="generate")
        assert len(teacher.chats) == merged.missing + merged.failed
    after = answers(out)
    assert len(after) == 48
    assert {key: text for key, text in after.items() if before.get(key)} == {k: t for k, t in before.items() if t}


def test_two_runs_of_the_same_shard_count_once_by_revision(folder: Path) -> None:
    """The first answer stays, an answer stands above a failure, a higher revision above a lower one."""
    asked, out = recipe(folder, generate__shard="1/2"), RunDir(folder / "all")
    one = sampled(asked, RunDir(folder / "one"), text="one {question}", failing=lambda task: task.sample == 1)
    two = sampled(asked, RunDir(folder / "two"), text="two {question}")
    again = next(trace for trace in two.ledger().traces() if trace.sample == 0)
    with Ledger(two.traces) as ledger:
        ledger.append(replace(again, raw="two again", revision=1))
    merged = merge([one, two], out)
    traces = {trace.key: trace for trace in out.ledger().traces()}
    assert traces.keys() == {trace.key for trace in two.ledger().traces()}
    assert traces.pop(again.key).raw == "two again"
    assert {trace.raw[:3] for trace in traces.values() if trace.sample == 0} == {"one"}
    assert {trace.raw[:3] for trace in traces.values() if trace.sample == 1} == {"two"}
    half = len(tasks(asked, one)) // 2
    assert [(source.traces, source.failures, source.duplicates) for source in merged.sources] == [
        (half, half, 0),
        (2 * half, 0, half),
    ]
    assert merged.missing_of == {"2/2": merged.missing}


def test_the_same_run_copied_counts_once(folder: Path) -> None:
    (run,) = shards(folder, 1)
    copy = RunDir(folder / "copy")
    subprocess.run(["cp", "-r", run.path, copy.path], check=True)
    merged = merge([run, copy], RunDir(folder / "all"))
    assert [source.duplicates for source in merged.sources] == [0, 48]
    assert len(records(RunDir(folder / "all"))) == 48


def test_merging_again_and_adding_a_run_takes_nothing_twice(folder: Path) -> None:
    runs, out = shards(folder, 3), RunDir(folder / "all")
    assert merge(runs[:2], out).absent == ["3/3"]
    there = records(out)
    merge(runs[:2], out)
    assert records(out) == there
    merged = merge(runs[2:], out)
    assert (merged.answered, merged.missing, merged.absent, merged.missing_of) == (48, 0, [], {})
    assert len(records(out)) == 48
    brought = out.stages()["generate"].counts["merged"]
    assert [source["run"] for source in brought] == [str(run.path) for run in runs]


def test_a_run_with_failures_is_not_done(folder: Path) -> None:
    merged = merge(shards(folder, 2, failing=lambda task: task.sample == 1), RunDir(folder / "all"))
    assert (merged.answered, merged.failed, merged.missing) == (24, 24, 0)
    assert pipeline.plan(recipe(folder), RunDir(folder / "all"), "generate", "generate") == {"generate": "to run"}
    assert "  24 of those failed" in merged.lines()


def test_a_merged_run_is_a_run_to_merge(folder: Path) -> None:
    """It is no shard, so that none can be called absent; what is missing still is told by shard."""
    runs = shards(folder, 3)
    merge(runs[:1], RunDir(folder / "some"))
    merged = merge([RunDir(folder / "some"), runs[1]], RunDir(folder / "all"))
    assert merged.absent == []
    assert merged.missing_of == {"3/3": merged.missing}
    assert merged.missing == len(records(runs[2]))


def test_seconds_of_all_machines_count(folder: Path) -> None:
    runs = shards(folder)
    for seconds, run in zip((10.0, 5.5), runs, strict=True):
        state = run.start_stage("generate", "x", {}, 0, {})
        state.seconds = seconds
        run.write_stage("generate", state)
    merge(runs, RunDir(folder / "all"))
    assert RunDir(folder / "all").stages()["generate"].seconds == 15.5


def test_a_ledger_that_was_cut_off_is_merged_as_far_as_it_is_whole(folder: Path) -> None:
    runs = shards(folder)
    asked = recipe(folder, generate__shard="1/2")
    traces = records(runs[0])
    for part in runs[0].traces.iterdir():
        part.unlink()
    lines = b"".join(encode_line(trace.to_json()) for trace in traces)
    (runs[0].traces / "open-00000.log").write_bytes(lines[:-20])
    merged = merge(runs, RunDir(folder / "all"))
    assert merged.missing == 1
    assert merged.sources[0].traces == len(tasks(asked, runs[0])) - 1
    assert (runs[0].traces / "open-00000.log").read_bytes() == lines[:-20]


def test_parts_are_taken_as_files_and_copied_where_there_are_no_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = shards(folder)
    merge(runs, RunDir(folder / "linked"))
    linked = sorted(part.stat().st_ino for part in RunDir(folder / "linked").ledger().parts())
    assert linked == sorted(part.stat().st_ino for run in runs for part in run.ledger().parts())

    def no_links(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    listed = read_parts(RunDir(folder / "linked").traces)
    assert [entry.sha256 for entry in listed.values()] == [
        sha256_file(part) for part in RunDir(folder / "linked").ledger().parts()
    ]
    monkeypatch.setattr(taking.os, "link", no_links)
    merge(runs, RunDir(folder / "copied"))
    copied = [part.read_bytes() for part in RunDir(folder / "copied").ledger().parts()]
    assert copied == [part.read_bytes() for run in runs for part in run.ledger().parts()]
    assert read_parts(RunDir(folder / "copied").traces) == listed
    assert not {part.stat().st_ino for part in RunDir(folder / "copied").ledger().parts()} & set(linked)


def test_a_damaged_part_is_named_and_nothing_passes_for_whole(folder: Path) -> None:
    runs, out = shards(folder), RunDir(folder / "all")
    (part,) = runs[1].ledger().parts()
    whole = part.read_bytes()
    place = len(whole) // 3
    part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(RunError, match=r"part-\d+\.parquet") as caught:
        merge(runs, out)
    assert str(part) in str(caught.value)
    part.write_bytes(whole)
    assert merge(runs, out).answered == 48


def test_a_copy_that_is_not_what_was_copied_is_no_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, out = shards(folder), RunDir(folder / "all")

    def no_links(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(taking.os, "link", no_links)
    copies = shutil.copyfile

    def half(source: Path, target: Path) -> None:
        copies(source, target)
        if source.name.startswith("part-"):
            target.write_bytes(source.read_bytes()[:-1] + b"x")

    with monkeypatch.context() as broken:
        broken.setattr(taking.shutil, "copyfile", half)
        with pytest.raises(RunError, match="is not what was copied"):
            merge(runs, out)
    assert out.ledger().parts() == []
    assert merge(runs, out).answered == 48


def test_parts_of_a_ledger_without_a_list_are_taken_too(folder: Path) -> None:
    """Written by a version that kept none."""
    runs, out = shards(folder), RunDir(folder / "all")
    for run in runs:
        (run.traces / "parts.json").unlink()
    assert merge(runs, out).answered == 48
    assert [entry.traces for entry in read_parts(out.traces).values()] == [len(records(run)) for run in runs]
    assert not any((run.traces / "parts.json").exists() for run in runs), "the sources stay as they are"


def test_verdicts_come_along_line_by_line(folder: Path) -> None:
    runs, out = shards(folder), RunDir(folder / "all")
    common, one, two = (encode_line([name, "pass", ""]) for name in ("common", "one", "two"))
    (runs[0].path / "early-verdicts.log").write_bytes(common + one + one[:-5])
    (runs[1].path / "early-verdicts.log").write_bytes(common + b"nonsense\n" + two)
    for _ in range(2):
        merge(runs, out)
        assert (out.path / "early-verdicts.log").read_bytes() == common + one + two


# --- cut off -------------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
from distill.generate import merging
from distill.pipeline import merge
from distill.rundir import RunDir
takes = merging.take_over
def slowly(source, folder):
    print("taking", flush=True)
    time.sleep({seconds})
    return takes(source, folder)
merging.take_over = slowly
merge([RunDir(path) for path in sys.argv[2:]], RunDir(sys.argv[1]))
"""


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_killed_and_started_again_it_is_complete_and_nothing_is_doubled(folder: Path, delay: float) -> None:
    """Killed before the first or before the second source is taken over."""
    runs, out = shards(folder), RunDir(folder / "all")
    command = [sys.executable, "-c", SLOW.format(seconds=0.6), *map(str, (out.path, *(run.path for run in runs)))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    if delay:
        process.stdout.readline()
        time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    half = len(records(out))
    assert half == (len(records(runs[0])) if delay else 0)
    with pytest.raises(RunError, match="was cut off: what it has not brought yet would be bought again"):
        pipeline.run_recipe(recipe(folder), out, last="generate")
    with pytest.raises(RunError, match="was cut off"):
        merge([out, *runs], RunDir(folder / "more"))
    assert merge(runs, out).answered == 48
    assert len(records(out)) == 48
    assert pipeline.plan(recipe(folder), out, "prompts", "generate") == {"prompts": "done", "generate": "done"}


# --- refusals ------------------------------------------------------------------------------------------------------


def refused(runs: list[RunDir], out: RunDir, *told: str, kind: type[Exception] = RunError) -> None:
    before = contents(out) if out.path.is_dir() else None
    with pytest.raises(kind) as caught:
        merge(runs, out)
    for text in told:
        assert text in str(caught.value)
    assert (contents(out) if out.path.is_dir() else None) == before, "nothing was written"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"generate__samples": 3}, "generate.samples: 2 → 3"),
        ({"generate__sampling": {"temperature": 1.0}}, "generate.sampling.temperature: None → 1.0"),
        ({"seed": 5}, "seed: 0 → 5"),
        ({"generate__max_tokens": 77}, "generate.max_tokens: None → 77"),
        ({"prompts__0__limit": 5}, "prompts.0.limit: None → 5"),
        ({"generate__until_correct": 1}, "generate.until_correct: None → 1"),
        ({"teacher_overrides": {"system": "Think."}}, "teacher_overrides.system: None → Think."),
    ],
)
def test_different_recipes_are_refused_with_the_difference(folder: Path, settings: dict[str, Any], told: str) -> None:
    one = sampled(recipe(folder), RunDir(folder / "one"))
    two = sampled(recipe(folder, **settings), RunDir(folder / "two"))
    refused([one, two], RunDir(folder / "all"), told, "--reuse")
    merge([one], RunDir(folder / "all"))
    refused([two], RunDir(folder / "all"), "different recipes")


def test_where_and_how_fast_they_were_asked_may_differ(folder: Path) -> None:
    one = sampled(recipe(folder, generate__shard="1/2"), RunDir(folder / "one"))
    other = {"generate__concurrency": 7, "generate__url": "http://127.0.0.1:10/v1", "filter__keep": "all"}
    overrides = {"teacher_overrides": {"url": "http://127.0.0.1:11/v1"}}
    two = sampled(recipe(folder, generate__shard="2/2", **other, **overrides), RunDir(folder / "two"))
    assert merge([one, two], RunDir(folder / "all")).missing == 0


def test_other_prompts_are_refused_and_the_same_ones_written_otherwise_are_not(folder: Path) -> None:
    one, two = shards(folder)
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(two.prompts), two.prompts, compression="gzip")
    assert one.prompts.read_bytes() != two.prompts.read_bytes()
    assert merge([one, two], RunDir(folder / "all")).missing == 0
    questions(folder / "questions.jsonl", range(1, 25))
    three = sampled(recipe(folder, generate__shard="2/2"), RunDir(folder / "three"))
    refused([one, three], RunDir(folder / "more"), "different prompts, from row")
    refused([three], RunDir(folder / "all"), "different prompts, from row")
    three.prompts.unlink()
    refused([one, three], RunDir(folder / "more"), "has no prompts.parquet yet")


def test_what_cannot_be_meant_is_refused(folder: Path) -> None:
    one, two = shards(folder)
    refused([one, two], one, "is one of the runs to merge", kind=UsageError)
    refused([one, RunDir(folder / "shard-2/../shard-1")], RunDir(folder / "all"), "is given twice", kind=UsageError)
    refused([one, RunDir(folder / "nothing")], RunDir(folder / "all"), "is no run directory")
    (folder / "mine").mkdir()
    (folder / "mine/thesis.txt").write_text("precious")
    refused([one, two], RunDir(folder / "mine"), "holds something and is no run", "thesis.txt")
    other = RunDir(folder / "other-shard")
    subprocess.run(["cp", "-r", two.path, other.path], check=True)
    refused([one], other, "is a shard itself (2/2)")


def test_imported_traces_are_refused(folder: Path) -> None:
    one, two = shards(folder)
    write_text(two.recipe, specs.dump(recipe(folder, generate__engine="imported")))
    refused([one, two], RunDir(folder / "all"), "were imported", "distill import FILE FILE")


def test_traces_of_another_teacher_under_the_same_recipe_are_refused(folder: Path) -> None:
    """The spec said something else on that machine."""
    one, two = shards(folder)
    spec = folder / "scripted.yaml"
    spec.write_text(spec.read_text().replace("'1'", "'2'"))
    three = sampled(recipe(folder, generate__shard="2/2"), RunDir(folder / "three"))
    spec.write_text(spec.read_text().replace("'2'", "'1'"))
    refused([one, two, three], RunDir(folder / "all"), f"none of the {len(records(three))} traces")


@pytest.mark.parametrize("place", ["", "traces"])
def test_a_run_that_is_being_written_is_refused_with_its_holder(folder: Path, place: str) -> None:
    one, two = shards(folder)
    holding = "import sys; from distill.files import FileLock; from pathlib import Path; lock = FileLock("
    holding += "Path(sys.argv[1]), 'run').acquire(); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holding, str(two.path / place / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        told = (f"process {holder.pid} on", "still being written", "then merge")
        refused([one, two], RunDir(folder / "all"), *told, kind=LockedError)
    assert merge([one, two], RunDir(folder / "all")).missing == 0


def test_a_copy_that_cannot_be_written_to_is_merged_unless_somebody_holds_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    from distill.generate import mergeable

    runs = shards(folder)

    class ReadOnly:
        def __init__(self, path: Path, what: str) -> None:
            raise RunError(f"nothing can be written to this {what}: read-only file system")

    monkeypatch.setattr(mergeable, "FileLock", ReadOnly)
    with (runs[1].path / ".lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"process 7 on another")
        lock.flush()
        refused(runs, RunDir(folder / "all"), "process 7 on another", kind=LockedError)
    assert merge(runs, RunDir(folder / "all")).missing == 0


def test_batches_that_are_not_finished_are_refused(folder: Path) -> None:
    runs, out = shards(folder), RunDir(folder / "all")
    (key, other) = (trace.key for trace in records(runs[0])[:2])

    def told(*events: dict[str, Any]) -> None:
        (runs[0].path / "batches.jsonl").write_bytes(b"".join(map(encode_line, events)))

    planned = {"event": "planned", "batch": "b", "input_file": "f", "time": "2026-01-01", "asked": {"k": ["d", 1]}}
    told(planned, {"event": "created", "batch": "b", "provider_id": "p"})
    refused(runs, out, "1 batches of", "1 requests lie with the provider")
    for ending in ("done", "dropped"):
        told(planned, {"event": ending, "batch": "b"})
        assert merge(runs, RunDir(folder / ending)).missing == 0
    written_by_the_engine = {"event": "failed", "batch": "b", "ids": ["k"]}
    told(planned, {"event": "created", "batch": "b", "provider_id": "p"}, written_by_the_engine)
    assert merge(runs, RunDir(folder / "failed")).missing == 0
    state = BatchState(runs[0].path / "batches.jsonl")
    assert state.open(()) == [], "the engine itself takes it for done"
    state.close()
    told({**planned, "asked": {key: ["d", 1], other: ["d", 1]}})
    assert merge(runs, RunDir(folder / "answered")).missing == 0


# --- on the command line -------------------------------------------------------------------------------------------


def test_the_command_says_what_came_of_it(folder: Path) -> None:
    runs = shards(folder)
    arguments = ["merge", *(str(run.path) for run in runs), "--out", "all"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert f"{runs[0].path} (shard 1/2): " in shown
    assert "48 of 48 samples are in all, 0 are not" in shown
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert (told["samples"], told["answered"], told["missing"], len(told["merged"])) == (48, 48, 0, 2)
