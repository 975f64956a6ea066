"""The command line as a user meets it: real processes, files and HTTP, and everything one can do wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_teacher import Fault, HttpTeacher, Said

from distill.rundir import RunDir

CHECKOUT = Path(__file__).resolve().parent.parent
COMMANDS = (
    *("run", "generate", "import", "filter", "train", "evaluate", "compare", "reparse", "export", "show", "chat"),
    *("merge", "doctor"),
)


def distill(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "distill.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=240, check=False)


def questions(path: Path, count: int = 6) -> Path:
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(1, count + 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def right(question: str) -> Said:
    a, b = map(int, re.findall(r"\d+", question))
    return Said(f"\\boxed{{{a + b}}}", reasoning=f"I add {a} and {b} and get {a + b}.")


@pytest.fixture
def teacher() -> Iterator[HttpTeacher]:
    with HttpTeacher(right) as running:
        yield running


def generate(prompts: Path, teacher: HttpTeacher, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = ("--prompts", prompts, "--teacher", teacher.url, "--model", teacher.model, "--max-tokens", "100")
    return distill("generate", *options, "--out", out, *more)


# --- what every command promises -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    result = distill(command, "--help")
    assert result.returncode == 0
    assert f"Example: distill {command}" in " ".join(result.stdout.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "sys.argv = ['distill', 'run', '--help']\n"
        "from distill import cli\n"
        "with contextlib.suppress(SystemExit):\n"
        "    cli.main()\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'aiohttp', 'yaml') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_stages_without_a_model_of_their_own_bring_no_torch(tmp_path: Path, teacher: HttpTeacher) -> None:
    code = (
        "import sys, contextlib\n"
        "from distill import cli\n"
        "prompts, url, model, out = sys.argv[1:]\n"
        "sampled = ['--prompts', prompts, '--teacher', url, '--model', model, '--max-tokens', '100', '--out', out]\n"
        "for line in (['generate', *sampled], ['filter', out], ['report', out]):\n"
        "    sys.argv = ['distill', *line]\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        cli.main()\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    prompts = questions(tmp_path / "q.jsonl", 2)
    command = [sys.executable, "-c", code, str(prompts), teacher.url, teacher.model, str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
    assert RunDir(tmp_path / "run").report.is_file()


def test_json_is_all_there_is_on_stdout(tmp_path: Path, teacher: HttpTeacher) -> None:
    result = generate(questions(tmp_path / "q.jsonl"), teacher, tmp_path / "run", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["stages"]["generate"]["counts"]["answered"] == 6


def test_shows_specs_and_runs(tmp_path: Path, teacher: HttpTeacher) -> None:
    assert "tiny-r1" in distill("show", "teachers", cwd=tmp_path).stdout
    assert "kv_lora_rank" not in distill("show", "tiny-qwen", cwd=tmp_path).stdout
    assert "hidden_size: 256" in distill("show", "tiny-qwen", cwd=tmp_path).stdout
    generate(questions(tmp_path / "q.jsonl"), teacher, tmp_path / "run")
    assert "6 of 6 samples" in distill("show", tmp_path / "run").stdout
    assert distill("show", "nothing-like-this").returncode == 2


# --- a run over HTTP -----------------------------------------------------------------------------------------------


def test_generate_then_filter_and_look_at_the_rejected(tmp_path: Path) -> None:
    def sometimes(question: str) -> Said:
        return right(question) if "1 + 1" in question or "2 + 2" in question else Said("\\boxed{-1}", reasoning="hm")

    with HttpTeacher(sometimes) as teacher:
        assert generate(questions(tmp_path / "q.jsonl"), teacher, tmp_path / "run", "--samples", "2").returncode == 0
    filtered = distill("filter", tmp_path / "run")
    assert filtered.returncode == 0, filtered.stderr
    assert "rejected: 8 wrong_answer, 2 duplicate" in filtered.stderr
    rejected = distill("show", tmp_path / "run", "--rejected", "--reason", "wrong_answer").stdout
    assert rejected.count("wrong_answer") == 8
    assert distill("show", tmp_path / "run", "--reason", "no_such_reason").returncode == 2
    again = distill("filter", tmp_path / "run", "--set", "filter.keep=all")
    assert "12 of 12 traces kept" in again.stderr


def test_a_second_run_asks_for_nothing_and_a_larger_one_only_for_what_is_new(
    tmp_path: Path, teacher: HttpTeacher
) -> None:
    file = questions(tmp_path / "q.jsonl")
    assert generate(file, teacher, tmp_path / "run", "--limit", "4").returncode == 0
    assert generate(file, teacher, tmp_path / "run", "--limit", "4").returncode == 0
    assert len(teacher.chats) == 4
    larger = generate(file, teacher, tmp_path / "run", "--samples", "2")
    assert larger.returncode == 0, larger.stderr
    assert "12 of 12 samples" in larger.stderr
    assert len(teacher.chats) == 12


def test_a_failed_first_try_can_be_corrected_in_the_same_run(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    assert generate(tmp_path / "typo.jsonl", teacher, tmp_path / "run").returncode == 1
    wrong = distill("generate", "--prompts", file, "--teacher", teacher.url, "--model", "x", "--out", tmp_path / "run")
    assert wrong.returncode == 1
    corrected = generate(file, teacher, tmp_path / "run")
    assert corrected.returncode == 0, corrected.stderr


def test_no_key_reaches_any_file_or_message(tmp_path: Path) -> None:
    secret = "sk-very-secret-123"
    with HttpTeacher(right, key=secret) as teacher:
        file = questions(tmp_path / "q.jsonl")
        refused = generate(file, teacher, tmp_path / "run")
        assert refused.returncode == 1
        os.environ["DISTILL_TEST_KEY"] = secret
        try:
            allowed = generate(file, teacher, tmp_path / "run", "--set", "generate.api_key_env=DISTILL_TEST_KEY")
        finally:
            del os.environ["DISTILL_TEST_KEY"]
        assert allowed.returncode == 0, allowed.stderr
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert secret.encode() not in written
    assert secret not in allowed.stdout + allowed.stderr + refused.stdout + refused.stderr


def test_an_edited_file_is_read_again_and_only_what_is_new_is_paid_for(tmp_path: Path, teacher: HttpTeacher) -> None:
    file, run = questions(tmp_path / "q.jsonl", 4), tmp_path / "run"
    assert generate(file, teacher, run).returncode == 0
    assert distill("filter", run).returncode == 0
    rows = questions(file, 6).read_text().splitlines()
    file.write_text("\n".join([rows[0].replace('"2"', '"3"'), *rows[1:]]) + "\n")
    grown = generate(file, teacher, run)
    assert "6 of 6 samples" in grown.stderr
    assert len(teacher.chats) == 6
    filtered = distill("filter", run)
    assert "5 of 6 traces kept" in filtered.stderr, "the gold answer as it is now decides"
    file.unlink()
    assert "prompts: done before" in generate(file, teacher, run).stderr, "a file that is gone has not changed"


def test_sampling_more_leaves_the_rest_of_the_recipe_alone(tmp_path: Path, teacher: HttpTeacher) -> None:
    file, run = questions(tmp_path / "q.jsonl"), tmp_path / "run"
    assert generate(file, teacher, run, "--limit", "3").returncode == 0
    assert distill("filter", run, "--set", "filter.keep=all", "--set", "student=tiny-qwen").returncode == 0
    assert generate(file, teacher, run).returncode == 0
    recipe = (run / "recipe.yaml").read_text()
    assert "keep: all" in recipe
    assert "student: tiny-qwen" in recipe
    assert "6 of 6 traces kept" in distill("filter", run).stderr


def test_a_single_examination_leaves_the_recipe_alone(tmp_path: Path) -> None:
    with HttpTeacher(right, model="m") as teacher:
        file, run = questions(tmp_path / "q.jsonl"), tmp_path / "run"
        heldout = tmp_path / "heldout.jsonl"
        heldout.write_text('{"question": "What is 40 + 40?", "answer": "80"}\n')
        assert generate(file, teacher, run).returncode == 0
        before = (run / "recipe.yaml").read_bytes()
        only_teacher = ("--set", "evaluate.models=[teacher]", "--set", "evaluate.max_tokens=100")
        fails(distill("evaluate", run, "--benchmark", tmp_path / "typo.jsonl", *only_teacher), 1, "there is no file")
        assert (run / "recipe.yaml").read_bytes() == before
        done = distill("evaluate", run, "--benchmark", heldout, *only_teacher, "--json")
        assert done.returncode == 0, "a run without a student has a teacher to examine: " + done.stderr
        assert json.loads(done.stdout)["stages"]["evaluate"]["counts"]["teacher"]["pass_at_1"] == 1.0
        assert (run / "recipe.yaml").read_bytes() == before


def test_a_wrong_reasoning_format_is_corrected_without_sampling_again(tmp_path: Path) -> None:
    with HttpTeacher(lambda question: Said(f"<think>\nwell\n</think>\n\n{right(question).text}")) as teacher:
        file, run = questions(tmp_path / "q.jsonl"), tmp_path / "run"
        wrong = ("--set", "teacher_overrides.reasoning_format=plain")
        assert generate(file, teacher, run, *wrong).returncode == 0
        assert "6 leaked_tag" in distill("filter", run).stderr
        told = distill("reparse", run, "--set", "teacher_overrides.reasoning_format=tags")
        assert "6 of 6 traces read differently now" in told.stdout
        assert "6 of 6 traces kept" in distill("filter", run).stderr
        assert generate(file, teacher, run).returncode == 0, "also by the command line without the mistake"
        assert len(teacher.chats) == 6


def test_json_everywhere(tmp_path: Path, teacher: HttpTeacher) -> None:
    generate(questions(tmp_path / "q.jsonl"), teacher, tmp_path / "run")
    distill("filter", tmp_path / "run")
    spoken = {
        ("show", "teachers"): lambda told: "tiny-r1" in told["teachers"],
        ("show", "tiny-qwen"): lambda told: told["students"]["spec"]["architecture"]["hidden_size"] == 256,
        ("show", tmp_path / "run"): lambda told: told["stages"]["filter"]["counts"]["kept"] == 6,
        ("show", tmp_path / "run", "--rejected"): lambda told: told["rejected"] == [],
        ("run", "quickstart", "--dry-run"): lambda told: told["stages"]["train"] == "to run",
    }
    for command, holds in spoken.items():
        result = distill(*command, "--json", cwd=tmp_path)
        assert holds(json.loads(result.stdout)), result.stdout


def test_a_served_name_is_no_folder_even_if_there_is_one(tmp_path: Path) -> None:
    file = questions(tmp_path / "q.jsonl")
    (tmp_path / "org/name").mkdir(parents=True)
    with HttpTeacher(right, model="org/name") as teacher:
        options = ("--prompts", file, "--teacher", teacher.url, "--model", "org/name", "--out", "run")
        result = distill("generate", *options, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        (trace, *_) = RunDir(tmp_path / "run").ledger().traces()
        assert (trace.teacher.model, trace.max_tokens) == ("org/name", 32_768)


def test_evaluates_a_served_model_and_compares(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    options = (teacher.url, "--model", teacher.model, "--benchmark", file, "--samples", "2", "--set")
    for out in ("a", "b"):
        result = distill("evaluate", *options, "evaluate.max_tokens=100", "--out", tmp_path / out, "--json")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["pass_at_1"] == 1.0
    scores = tmp_path / "a" / "scripted.json", tmp_path / "b" / "scripted.json"
    assert "+0.0%" in distill("compare", *scores).stdout
    assert distill("evaluate", *options, "evaluate.max_tokens=90", "--out", tmp_path / "c").returncode == 0
    paid = len(teacher.chats)
    cut = distill("evaluate", *options, "evaluate.max_tokens=5", "--out", tmp_path / "c2", "--json")
    assert json.loads(cut.stdout)["unfinished"] == 1.0
    assert len(teacher.chats) == paid + 12
    longer = distill("evaluate", *options, "evaluate.max_tokens=100", "--out", tmp_path / "c2", "--json")
    assert json.loads(longer.stdout)["pass_at_1"] == 1.0
    assert len(teacher.chats) == paid + 24, "a sample cut under a lower limit says nothing about a higher one"
    shorter = distill("evaluate", *options, "evaluate.max_tokens=5", "--out", tmp_path / "c2", "--json")
    assert json.loads(shorter.stdout)["unfinished"] == 1.0
    assert len(teacher.chats) == paid + 24
    assert json.loads(distill("compare", *scores, "--json").stdout)["difference"] == 0
    refused = distill("compare", scores[0], tmp_path / "c" / "scripted.json")
    assert refused.returncode == 2
    assert "max_tokens: 100 and 90" in refused.stderr


# --- interruption --------------------------------------------------------------------------------------------------


def test_ctrl_c_saves_says_how_to_go_on_and_the_same_command_does(tmp_path: Path) -> None:
    import signal

    file = questions(tmp_path / "q.jsonl", 40)
    with HttpTeacher(right, latency=0.1) as teacher:
        options = ("--prompts", file, "--teacher", teacher.url, "--model", teacher.model, "--max-tokens", "100")
        command = ("generate", *options, "--out", tmp_path / "run", "--set", "generate.concurrency=2")
        running = subprocess.Popen(
            [sys.executable, "-m", "distill.cli", *map(str, command)], stderr=subprocess.PIPE, text=True
        )
        while len(teacher.chats) < 6:
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
        assert running.returncode == 130
        assert "start the same command again" in stderr
        paid = len(teacher.chats)
        saved = sum(1 for _ in RunDir(tmp_path / "run").ledger().traces())
        assert paid == saved < 40
        assert RunDir(tmp_path / "run").stages()["generate"].state == "interrupted"
        again = distill(*command)
        assert again.returncode == 0, again.stderr
        assert len(teacher.chats) == 40


def test_a_second_ctrl_c_leaves_at_once_and_says_so_plainly(tmp_path: Path) -> None:
    import signal

    with HttpTeacher(right, latency=60) as teacher:
        options = ("--prompts", questions(tmp_path / "q.jsonl"), "--teacher", teacher.url, "--model", teacher.model)
        running = subprocess.Popen(
            [sys.executable, "-m", "distill.cli", "generate", *map(str, options), "--out", str(tmp_path / "run")],
            stderr=subprocess.PIPE,
            text=True,
        )
        while len(teacher.requests) < 7:  # the list of models, and six chats that hang
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        told = ""
        while "Ctrl-C again" not in told:
            told = running.stderr.readline()
            assert told, "it ended without a word"
        running.send_signal(signal.SIGINT)
        _, rest = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "requests in flight (6)" in told
    assert rest.startswith("distill: interrupted with 0 of 6 samples saved")
    assert "Traceback" not in rest


# --- bad input: a clear message, the right exit code, nothing lost -------------------------------------------------


def fails(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


def test_unknown_recipe_key(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nteacher: tiny-r1\ntrain:\n  epoch: 3\n")
    fails(distill("run", recipe), 2, "mine.yaml, line 4", "unknown key 'train.epoch'", "did you mean 'epochs'")
    fails(distill("run", "quickstart", "--set", "trian.epochs=1"), 2, "--set", "trian")
    fails(distill("run", "quickstrat"), 2, "unknown recipe 'quickstrat'", "did you mean 'quickstart'")
    fails(distill("run", "quickstart", "--from", "cooking"), 2, "unknown stage 'cooking'")


def test_recipe_that_is_not_utf8(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_bytes("name: caf\u00e9\n".encode("latin-1"))
    fails(distill("run", recipe), 2, "mine.yaml", "not UTF-8")


def test_a_gate_that_does_not_pass_still_prints_the_result(tmp_path: Path) -> None:
    recipe = tmp_path / "gated.yaml"
    small = "prompts: [{source: arithmetic, limit: 8}]\nfilter: {keep: all, heldout: 0}\n"
    examined = "evaluate: {prompts: [{source: arithmetic, split: test, limit: 4}], samples: 1, max_tokens: 64,"
    text = f"name: g\nteacher: tiny-r1\nstudent: tiny-qwen\n{small}{examined} models: [student], min_pass_at_1: 1}}\n"
    recipe.write_text(text)
    result = distill("run", recipe, "--set", "train.epochs=1", "--out", tmp_path / "run")
    fails(result, 3, "a gate did not pass", "below evaluate.min_pass_at_1=1")
    assert re.search(r"student +0.0%", result.stdout), result.stdout
    student = ("evaluate", tmp_path / "run/student", "--benchmark", "arithmetic", "--limit", "2", "--samples", "1")
    alone = distill(*student, "--set", "evaluate.max_tokens=40", "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr


def test_options_that_would_be_ignored_are_refused(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    fails(generate(file, teacher, tmp_path / "run", "--limit", "0"), 2, "limit", "greater than or equal to 1")
    fails(generate(file, teacher, tmp_path / "run", "--max-tokens", "0"), 2, "max_tokens", "greater than 0")
    fails(distill("generate", "--prompts", "arithmetic", "--teacher", "tiny-r1", "--out", tmp_path / "e"), 2, "endless")
    assert generate(file, teacher, tmp_path / "run").returncode == 0
    fails(distill("evaluate", tmp_path / "run", "--benchmark", file, "--model", "m"), 2, "--model and --out are for")
    fails(distill("evaluate", tmp_path / "run", "--benchmark", file, "--out", "x"), 2, "--model and --out are for")


def test_damaged_files_of_a_run_are_named(tmp_path: Path, teacher: HttpTeacher) -> None:
    run = tmp_path / "run"
    assert generate(questions(tmp_path / "q.jsonl"), teacher, run).returncode == 0
    assert distill("filter", run).returncode == 0
    verdicts = (run / "verdicts.parquet").read_bytes()
    for damaged in (verdicts[:300], (run / "prompts.parquet").read_bytes()):
        (run / "verdicts.parquet").write_bytes(damaged)
        fails(distill("show", run, "--rejected"), 1, "verdicts.parquet cannot be read", "distill filter")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["filter"]["counts"] = None
    (run / "manifest.json").write_text(json.dumps(manifest))
    fails(distill("show", run), 1, "manifest cannot be read", "filter.counts is no object")


def test_a_place_that_cannot_be_written_to(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    fails(generate(file, teacher, file), 1, "nothing can be written to this run", str(file), "another --out")
    fails(generate(file, teacher, Path("/proc/run")), 1, "/proc/run")


def test_a_login_in_the_url_is_refused(tmp_path: Path, teacher: HttpTeacher) -> None:
    file, url = questions(tmp_path / "q.jsonl"), teacher.url.replace("://", "://me:sekret@")
    for model in (("--model", teacher.model), ()):
        result = distill("generate", "--prompts", file, "--teacher", url, *model, "--out", tmp_path / "run")
        fails(result, 2)
        assert "sekret" not in result.stderr
    fails(distill("evaluate", url, "--model", teacher.model, "--benchmark", file, "--out", tmp_path), 1, "a login")
    assert not (tmp_path / "run").exists()


def test_missing_file(tmp_path: Path, teacher: HttpTeacher) -> None:
    fails(generate(tmp_path / "none.jsonl", teacher, tmp_path / "run"), 1, "there is no file", "none.jsonl")
    fails(distill("run", tmp_path / "none.yaml"), 2, "there is no file")
    fails(distill("filter", tmp_path / "none"), 1, "is no run directory")


def test_malformed_jsonl_line(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    file.write_text(file.read_text() + '{"question": "What is 7 + 7?", "answer": \n')
    fails(generate(file, teacher, tmp_path / "run"), 1, "q.jsonl, line 7", "not JSON")
    assert not teacher.chats


def test_missing_gold_answer(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    file.write_text(file.read_text() + '{"question": "What is 7 + 7?"}\n')
    fails(generate(file, teacher, tmp_path / "run"), 1, "no gold answer", "What is 7 + 7?")
    assert not teacher.chats


def test_endpoint_down(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    options = ("--prompts", file, "--teacher", "http://127.0.0.1:9/v1", "--model", "m", "--out", tmp_path / "run")
    fails(distill("generate", *options), 1, "http://127.0.0.1:9/v1")
    stage = RunDir(tmp_path / "run").stages()["generate"]
    assert stage.state == "failed"
    fails(distill("generate", "--prompts", file, "--teacher", teacher.url), 2, "--model")


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "--prompts", "arithmetic", "--teacher", "URL"),
        ("evaluate", "--benchmark", "gsm8k", "URL"),
        ("chat", "URL", "What is 2 + 2?"),
    ],
)
def test_a_login_in_a_url_is_never_shown(arguments: tuple[str, ...]) -> None:
    result = distill(*(word.replace("URL", "http://me:secret@127.0.0.1:9/v1") for word in arguments))
    fails(result, 2, "a URL needs --model NAME", "127.0.0.1:9/v1")
    assert "secret" not in result.stdout + result.stderr


def test_no_such_model_at_the_endpoint(tmp_path: Path, teacher: HttpTeacher) -> None:
    options = ("--prompts", questions(tmp_path / "q.jsonl"), "--teacher", teacher.url, "--model", "gpt-99")
    fails(distill("generate", *options, "--out", tmp_path / "run"), 1, "gpt-99", "scripted")


def test_failed_requests_are_kept_as_such_and_tried_again(tmp_path: Path) -> None:
    broken = lambda number, seen: Fault("status", 400) if "3 + 3" in seen.question and number < 6 else None  # noqa: E731
    with HttpTeacher(right, faults=broken) as teacher:
        file = questions(tmp_path / "q.jsonl")
        first = generate(file, teacher, tmp_path / "run")
        assert first.returncode == 0
        assert "1 samples failed" in first.stderr
        second = generate(file, teacher, tmp_path / "run", "--set", "generate.concurrency=1")
        assert second.returncode == 0, second.stderr
        assert len(teacher.chats) == 7
    assert len([t for t in RunDir(tmp_path / "run").ledger().traces() if t.finish_reason == "stop"]) == 6


def test_an_endpoint_that_fails_every_request_is_a_failure_with_its_cause(tmp_path: Path) -> None:
    with HttpTeacher(right, faults=lambda number, seen: Fault("status", 400, message="no such option")) as teacher:
        result = generate(questions(tmp_path / "q.jsonl"), teacher, tmp_path / "run")
        fails(result, 1, "6 samples in a row failed", "no such option", "start the same command again")
        fails(distill("filter", tmp_path / "run"), 1, "all 6 samples failed")
    with HttpTeacher(right) as teacher:  # nothing was bought, so the recipe may still be corrected
        changed = generate(questions(tmp_path / "q.jsonl"), teacher, tmp_path / "run", "--set", "seed=5")
        assert changed.returncode == 0, changed.stderr


def test_a_few_failures_are_told_with_their_cause(tmp_path: Path) -> None:
    odd = lambda number, seen: Fault("status", 400, message="too odd") if "3 + 3" in seen.question else None  # noqa: E731
    with HttpTeacher(right, faults=odd) as teacher:
        result = generate(questions(tmp_path / "q.jsonl"), teacher, tmp_path / "run")
    assert result.returncode == 0
    assert "1 × the server answers 400: too odd" in result.stderr


def test_second_process_on_the_same_run(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    with RunDir(tmp_path / "run").lock():
        fails(generate(file, teacher, tmp_path / "run"), 1, "another process", f"process {os.getpid()}")
    assert not teacher.chats
    assert generate(file, teacher, tmp_path / "run").returncode == 0
    before = (tmp_path / "run/recipe.yaml").read_bytes()
    with RunDir(tmp_path / "run").lock():
        changed = ("--set", "teacher_overrides.reasoning_format=plain")
        fails(distill("reparse", tmp_path / "run", *changed), 1, "another process")
    assert (tmp_path / "run/recipe.yaml").read_bytes() == before


def test_run_made_by_another_recipe(tmp_path: Path, teacher: HttpTeacher) -> None:
    file = questions(tmp_path / "q.jsonl")
    assert generate(file, teacher, tmp_path / "run").returncode == 0
    paid = len(teacher.chats)
    changed = generate(file, teacher, tmp_path / "run", "--set", "generate.sampling.temperature=0.9")
    fails(changed, 1, "made by another recipe", "generate.sampling.temperature: None → 0.9")
    assert len(teacher.chats) == paid
    assert sum(1 for _ in RunDir(tmp_path / "run").ledger().traces()) == 6


def test_full_disk(tmp_path: Path, tiny_disk: Path) -> None:
    """The disk fills while traces come in: exit 1, what was saved stays, and with space again the run completes."""
    noise = "".join(chr(97 + (n * n) % 23) for n in range(3_000))
    long = lambda question: Said(right(question).text, reasoning=f"{noise} {question}")  # noqa: E731
    file = questions(tmp_path / "q.jsonl", 100)
    with HttpTeacher(long, latency=0.2) as teacher:
        options = ("--set", "generate.concurrency=2", "--set", "generate.max_concurrency=2", "--max-tokens", "4000")
        full = generate(file, teacher, tiny_disk / "run", *options)
        fails(full, 1, "the disk is full")
        saved = {trace.key for trace in RunDir(tiny_disk / "run").ledger().traces()}
        subprocess.run(["mount", "-o", "remount,size=8m", tiny_disk], check=True)
        paid = len(teacher.chats)
        assert 20 < paid == len(saved) < 100, "every reply that was paid for is there"
        again = generate(file, teacher, tiny_disk / "run", *options)
        assert again.returncode == 0, again.stderr
        assert len(teacher.chats) - paid == 100 - len(saved)
    kept = {trace.key for trace in RunDir(tiny_disk / "run").ledger().traces()}
    assert len(kept) == 100
    assert saved <= kept
