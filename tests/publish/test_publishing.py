"""A whole run published to a Hub on loopback and pulled back, what stands in its way, and what must not go out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from upload_hub import HEAD, UploadHub

from distill.errors import DistillError, GateError, PublishError, RunError, UsageError
from distill.pipeline import recipe_of
from distill.publish import publishing
from distill.publish.content import parts_of
from distill.publish.lineage import lineage
from distill.publish.publishing import Asked
from distill.rundir import RunDir
from publish.conftest import NARROW, READER, TOKEN
from publish.pulling import environment, pulled

REPO = "org/tiny"
MODELS = (REPO, f"{REPO}-GGUF", f"{REPO}-bnb-4bit")
TRACES = f"{REPO}-traces"


def publish(run: RunDir, **asked: Any) -> Any:
    return publishing.publish(recipe_of(run), run, Asked(**{"repo": REPO, **asked}), lambda seconds: None)


def planned(run: RunDir, **asked: Any) -> publishing.Planned:
    return publishing.planned(recipe_of(run), run, Asked(**{"repo": REPO, **asked}))


def test_a_run_comes_back_as_it_was(finished: RunDir, run: RunDir, hub: UploadHub, tmp_path: Path) -> None:
    publish(run)
    assert set(hub.repos) == {*(("model", name) for name in MODELS), ("dataset", TRACES)}
    told = pulled(hub, REPO, finished, tmp_path / "home", ("student", "gguf", "traces"))
    counts = finished.stages()["filter"].counts
    assert told["rows"]["kept"] == {"train": counts["train"], "heldout": counts["heldout"]}
    assert told["rows"]["traces"] == {"train": 24}
    assert told["rows"]["prompts"] == {"train": 24}
    assert told["message"] == "user"
    assert not {"endpoint", "error", "attempts"} & set(told["columns"])
    (local,) = (finished.quantized / "gguf-q4_k_m").glob("*.gguf")
    assert hub.files(f"{REPO}-GGUF")["tiny-Q4_K_M.gguf"] == local.read_bytes()
    found = lineage(Path(told["snapshot"]))
    assert found.broken == []
    assert [link.name for link in found.links][-1] == "prompts"
    assert lineage(Path(told["snapshot"]) / "model.safetensors").broken == []


def test_a_pulled_file_that_was_changed_is_noticed(run: RunDir, hub: UploadHub, tmp_path: Path) -> None:
    publish(run, only=("student",))
    for path, content in hub.files(REPO).items():
        place = tmp_path / "pulled" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content + (b" " if path == "config.json" else b""))
    assert [line for line in lineage(tmp_path / "pulled").broken if "config.json" in line]


def test_a_second_publication_uploads_nothing(run: RunDir, hub: UploadHub) -> None:
    first = publish(run)
    before, asked = hub.uploaded_bytes, len(hub.requests)
    again = publish(run)
    assert [(one.tag, one.commit) for one in again] == [(one.tag, one.commit) for one in first]
    assert all(one.sent_files == 0 for one in again)
    assert hub.uploaded_bytes == before
    written = [r for r in hub.requests[asked:] if not r.startswith(("GET", "HEAD"))]
    assert set(written) == {"POST /api/validate-yaml"}, "which looks at cards and changes nothing"


def test_another_machine_publishes_the_same(run: RunDir, hub: UploadHub, tmp_path: Path) -> None:
    there = RunDir(shutil.copytree(run.path, tmp_path / "elsewhere" / "run"))
    publish(run)
    assert all(one.sent_files == 0 for one in publish(there))


# --- cards -----------------------------------------------------------------------------------------------------------


def head(card: str) -> dict[str, Any]:
    found = HEAD.match(card)
    assert found is not None
    return dict(yaml.safe_load(found[1]))


def test_cards_pass_the_clients_own_checks_and_say_what_they_must(run: RunDir, hub: UploadHub) -> None:
    from huggingface_hub import DatasetCard, ModelCard

    cards = planned(run).cards
    publish(run)
    assert set(hub.validated) == set(cards.values())
    for repo, text in cards.items():
        card = (DatasetCard if repo == TRACES else ModelCard)(text, ignore_metadata_errors=False)
        assert card.data.to_dict()["license"] == "mit"
        for word in ("tiny-r1", "arithmetic-sums", "recipe.yaml", "lineage.json", "24", "temperature 0.6"):
            assert word in text, (repo, word)
    student = head(cards[REPO])
    assert student["library_name"] == "transformers"
    assert student["pipeline_tag"] == "text-generation"
    assert student["datasets"] == [TRACES]
    result = student["model-index"][0]["results"][0]
    score = json.loads((run.evaluations / "student.json").read_text())
    assert result["metrics"][0]["value"] == round(100 * score["pass_at_1"], 2)
    quantized = head(cards[f"{REPO}-GGUF"])
    assert (quantized["base_model"], quantized["base_model_relation"]) == ([REPO], "quantized")
    assert [config["config_name"] for config in head(cards[TRACES])["configs"]] == [
        "kept",
        "traces",
        "verdicts",
        "prompts",
    ]
    for told in ("system prompt", "repeats itself", "language", "ollama run", "llama-cli", "vllm serve", "GPU)"):
        assert told in cards[REPO], told


def test_the_metadata_check_of_the_hub_on_loopback_can_fail(hub: UploadHub) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.url, token=TOKEN)
    for wrong in ("license: nobodys", "base_model_relation: cousin", "license: other", "a: [b"):
        with pytest.raises(ValueError, match="Invalid metadata"):
            api._validate_yaml(f"---\n{wrong}\n---\n# x\n", repo_type="model")


def test_the_commands_of_a_card_work_as_written(run: RunDir, hub: UploadHub, tmp_path: Path) -> None:
    """Its Python, from the Hub; every link of its own leads to a file or a repository of the publication."""
    import re

    publish(run)
    for repo, kind in ((REPO, "model"), (TRACES, "dataset")):
        card = hub.files(repo, kind)["README.md"].decode()
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        ended = subprocess.run(
            [sys.executable, "-c", code.replace("max_new_tokens=512", "max_new_tokens=8")],
            capture_output=True, text=True, env=environment(hub, tmp_path / "home"), check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr[-1500:]
        own = {f"https://huggingface.co/{'datasets/' if k == 'dataset' else ''}{name}" for k, name in hub.repos}
        for link in re.findall(r"\]\(([^)]+)\)", card):
            assert link in own or link in hub.files(repo, kind) or link.startswith("https://opensource.org"), link


def test_results_are_told_by_benchmark_and_ranked_only_where_all_of_it_was_asked(run: RunDir) -> None:
    from dataclasses import replace

    from distill.measures import SourceScore
    from distill.publish import card
    from distill.publish.facts import Source, gathered

    facts = gathered(recipe_of(run), run)
    asked = (
        Source("gsm8k", "MIT", None, "openai/gsm8k", "c0ffee", "en", "gsm8k", 1319),
        Source("gpqa-diamond", "CC-BY-4.0", None, "Idavidrein/gpqa", None, "en", "gpqa_diamond", 198),
        Source("mine", None, None, None, None, "en"),
    )
    told = (
        SourceScore("gsm8k", 0.5, 0.47, 0.53, 1319),
        SourceScore("gpqa-diamond", 0.25, 0.1, 0.4, 20),
        SourceScore("mine", 1.0, 0.5, 1.0, 4),
    )
    (score,) = [score for score in facts.scores if score.name == "student"]
    facts = replace(facts, problems=asked, scores=(replace(score, sources=told),))
    ranked = yaml.safe_load(str(card.eval_results("student", facts)))
    assert [(one["dataset"], one["value"]) for one in ranked] == [
        ({"id": "openai/gsm8k", "task_id": "gsm8k", "revision": "c0ffee"}, 50.0)
    ]
    assert "95% 47.0% to 53.0%" in ranked[0]["notes"]
    found = [(source.name, one.pass_at_1) for source, one, _ in card.results("student", facts)]
    assert found == [("gsm8k", 0.5), ("gpqa-diamond", 0.25), ("mine", 1.0)]
    assert card.eval_results("gguf", facts) is None


# --- what stands in the way ------------------------------------------------------------------------------------------


def nothing_shown(hub: UploadHub) -> bool:
    return not hub.repos


@pytest.mark.parametrize(
    ("token", "asked", "told"),
    [
        (None, {}, "there is no token of the Hub"),
        ("hf_" + "z" * 34, {}, "the Hub answered 401"),
        (READER, {"repo": "someone/tiny"}, "your token only reads"),
        (TOKEN, {"repo": "club/tiny"}, "you only read in club"),
        (TOKEN, {"repo": "strangers/tiny"}, "you may not publish as strangers"),
        (NARROW, {}, "your token has no right repo.write on org"),
    ],
)
def test_a_token_that_will_not_do_is_told_before_anything_is_made(
    run: RunDir,
    hub: UploadHub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    token: str | None,
    asked: Any,
    told: str,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PublishError, match=told) as caught:
        publish(run, **asked)
    assert caught.value.todo
    assert nothing_shown(hub)


def test_a_fine_grained_token_publishes_where_it_may(
    run: RunDir, hub: UploadHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", NARROW)
    publish(run, repo="someone/tiny", only=("traces",))
    assert hub.repo("someone/tiny-traces", "dataset").tags


def test_a_repository_with_other_content_is_left_alone(run: RunDir, hub: UploadHub) -> None:
    hub.put(f"{REPO}-GGUF", {"theirs.gguf": b"x"})
    before = dict(hub.repos)
    with pytest.raises(PublishError, match="holds files that no publication put there") as caught:
        publish(run)
    assert caught.value.given == "theirs.gguf"
    assert hub.repos == before
    assert list(hub.repo(f"{REPO}-GGUF").branches) == ["main"]


def test_another_runs_publication_is_left_alone(run: RunDir, hub: UploadHub) -> None:
    hub.put(REPO, {"lineage.json": json.dumps({"run": "another"}).encode()})
    with pytest.raises(PublishError, match="another run's publication"):
        publish(run)
    assert set(hub.repos) == {("model", REPO)}
    publish(run, replace=True, only=("student",))
    assert json.loads(hub.files(REPO)["lineage.json"])["run"].startswith("quickstart-")


def commit(hub: UploadHub, path: str, content: bytes) -> None:
    """By hand, on the Hub's page."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=REPO)


@pytest.mark.parametrize("path", ["demo.png", "README.md", "model.safetensors"])
def test_what_somebody_changed_on_the_hub_is_not_lost(run: RunDir, hub: UploadHub, path: str) -> None:
    publish(run, only=("student",))
    commit(hub, path, b"---\nlicense: mit\n---\n# mine\n")
    before = hub.repo(REPO).branches["main"]
    with pytest.raises(PublishError, match="was changed on the Hub since it was published") as caught:
        publish(run, only=("student",))
    assert caught.value.given == path
    assert hub.repo(REPO).branches == {"main": before}
    (ended,) = publish(run, only=("student",), replace=True)
    assert ended.tag == "v2"
    assert set(hub.files(REPO)) == set(hub.files(REPO, revision="v1"))


def test_private_versions_are_not_shown_without_the_word(run: RunDir, hub: UploadHub) -> None:
    publish(run, only=("student",))
    (run.student / "notes.txt").write_text("about it")
    as_if_trained_so(run)
    with pytest.raises(PublishError, match="the earlier versions of org/tiny too") as caught:
        publish(run, only=("student",), public=True)
    assert caught.value.given == "v1"
    assert hub.repo(REPO).private
    publish(run, only=("student",), public=True, old_versions=True)
    assert not hub.repo(REPO).private


def test_what_was_private_becomes_public_as_it_is(run: RunDir, hub: UploadHub) -> None:
    publish(run, only=("traces",))
    (ended,) = publish(run, only=("traces",), public=True)
    assert (ended.tag, ended.sent_files) == ("v1", 0)
    assert not hub.repo(TRACES, "dataset").private


def test_cards_link_to_what_was_published_before(run: RunDir, hub: UploadHub) -> None:
    alone = head(planned(run, only=("gguf",)).cards[f"{REPO}-GGUF"])
    assert "base_model" not in alone, "a student from nothing that is not on the Hub"
    publish(run, only=("student",))
    publish(run, only=("gguf",))
    card = head(hub.files(f"{REPO}-GGUF")["README.md"].decode())
    assert (card["base_model"], card["base_model_relation"]) == ([REPO], "quantized")


def test_a_card_that_the_hub_does_not_take_is_found_before_anything_is_made(
    run: RunDir, hub: UploadHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.publish.card._licence", lambda names: {"license": "other"})
    with pytest.raises(PublishError, match="does not take the card of org/tiny") as caught:
        publish(run)
    assert "Invalid metadata" in str(caught.value.given)
    assert nothing_shown(hub)


def without_licences(run: RunDir) -> None:
    text = run.recipe.read_text().replace("teacher_overrides: {}", "teacher_overrides: {license: unknown}", 1)
    run.recipe.write_text(text)


def test_traces_of_no_known_licence_go_out_by_the_word_and_say_so(run: RunDir, hub: UploadHub) -> None:
    without_licences(run)
    with pytest.raises(GateError, match="under which licence the teacher's outputs are"):
        publish(run, only=("traces",))
    assert planned(run, only=("traces",), teacher_license="apache-2.0").values()["against"] == []
    publish(run, only=("traces",), anyway=True)
    card = hub.files(TRACES, "dataset")["README.md"].decode()
    assert head(card)["license"] == ["mit", "other"]
    assert head(card)["license_name"] == "unknown"


def test_settings_about_machines_stay_here(run: RunDir, hub: UploadHub) -> None:
    from distill import specs
    from distill.publish.facts import published_recipe

    recipe = specs.recipe("quickstart", {
        "filter.judge.url": "http://judge.corp.example:8000/v1",
        "filter.judge.api_key_env": "ACME_JUDGE_KEY",
        "teacher_overrides": {"model": "/mnt/acme/R1", "api.url": "http://acme.example"},
    })  # fmt: skip
    told = published_recipe(recipe)
    assert "acme" not in told.lower().replace("model: r1", "")
    assert "judge.corp" not in told
    assert "model: R1" in told


def test_a_vocabulary_goes_out_as_it_is(tmp_path: Path) -> None:
    """Merges look like paths: a tokenizer that learned from programs holds `//` and `./a`."""
    from distill.publish.content import _folder

    vocabulary = {"model": {"merges": [[":", "//"], ["./", "a/b"]], "vocab": {"/usr/bin": 0}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"name_or_path": "/data/base", "eos_token": "./x"}))
    files = {file.path: json.loads(file.read()) for file in _folder(tmp_path, lambda path: True)}
    assert files["tokenizer.json"] == vocabulary
    assert files["tokenizer_config.json"] == {"name_or_path": "base", "eos_token": "./x"}


def test_what_the_secrets_check_rejected_stays_here(run: RunDir, hub: UploadHub) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(run.verdicts)
    checks, keys = table.column("check").to_pylist(), table.column("trace_key").to_pylist()
    place = checks.index("secrets") if "secrets" in checks else 0
    rejected = keys[place]
    for name, value in (("check", "secrets"), ("outcome", "fail")):
        column = table.column(name).to_pylist()
        column[place] = value
        number = table.schema.get_field_index(name)
        table = table.set_column(number, table.schema.field(name), pa.array(column, table.schema.field(name).type))
    pq.write_table(table, run.verdicts)
    now = run.hashes(run.verdicts)["verdicts.parquet"]
    content = json.loads(run.manifest.read_text())
    for stage in content["stages"].values():
        for told in (stage["inputs"], stage["outputs"]):
            told.update({"verdicts.parquet": now} if "verdicts.parquet" in told else {})
    run.manifest.write_text(json.dumps(content))
    publish(run, only=("traces",))
    for path, column in (("traces/traces-00000.parquet", "key"), ("verdicts/verdicts-00000.parquet", "trace_key")):
        (tmp := run.path / "pulled.parquet").write_bytes(hub.files(TRACES, "dataset")[path])
        found = pq.read_table(tmp).column(column).to_pylist()
        assert rejected not in found
        assert found


def test_traces_alone_need_no_student(run: RunDir, hub: UploadHub) -> None:
    content = json.loads(run.manifest.read_text())
    for name in ("train", "evaluate", "quantize", "report"):
        del content["stages"][name]
    run.manifest.write_text(json.dumps(content))
    for folder in (run.student, run.untrained, run.quantized, run.evaluations):
        shutil.rmtree(folder)
    run.metrics.unlink()
    publish(run)
    assert set(hub.repos) == {("dataset", TRACES)}
    assert "Trained on" not in hub.files(TRACES, "dataset")["README.md"].decode()


def test_a_public_repository_needs_the_word(run: RunDir, hub: UploadHub) -> None:
    publish(run, public=True)
    assert not hub.repo(REPO).private
    assert not hub.repo(TRACES, "dataset").private
    with pytest.raises(UsageError, match="is public already"):
        publish(run)


def failing(run: RunDir) -> None:
    content = json.loads(run.manifest.read_text())
    content["stages"]["quantize"]["counts"]["nf4"] |= {"gates": ["it may lose 30.0%"], "status": "not passed"}
    run.manifest.write_text(json.dumps(content))


def test_a_gate_that_did_not_pass_needs_the_word_and_is_told_in_the_card(run: RunDir, hub: UploadHub) -> None:
    failing(run)
    with pytest.raises(GateError, match=r"gate: nf4: it may lose 30\.0%"):
        publish(run)
    assert nothing_shown(hub)
    publish(run, without=("nf4",), only=("gguf",))
    publish(run, anyway=True, only=("nf4",))
    assert "not passed: it may lose 30.0%" in hub.files(f"{REPO}-bnb-4bit")["README.md"].decode()


def without_examination(run: RunDir) -> None:
    content = json.loads(run.manifest.read_text())
    del content["stages"]["evaluate"]
    run.manifest.write_text(json.dumps(content))


def with_a_base_from_a_folder(run: RunDir) -> None:
    overrides = {"base": "models/mine", "architecture": None}
    text = run.recipe.read_text().replace("student_overrides: {}", f"student_overrides: {json.dumps(overrides)}")
    run.recipe.write_text(text)
    content = json.loads(run.manifest.read_text())
    for stage in ("train", "evaluate", "quantize"):
        content["stages"][stage]["settings"]["student_overrides"] = overrides
    run.manifest.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (without_examination, "gate: evaluate: nobody examined the student"),
        (with_a_base_from_a_folder, "gate: base: it was trained from a folder"),
    ],
)
def test_what_nobody_knows_of_a_student_is_a_gate(
    run: RunDir, hub: UploadHub, breaks: Callable[[RunDir], None], told: str
) -> None:
    breaks(run)
    with pytest.raises(GateError, match=told):
        publish(run)
    assert nothing_shown(hub)
    publish(run, only=("traces",))


def test_a_base_from_a_folder_can_be_named(run: RunDir, hub: UploadHub) -> None:
    with_a_base_from_a_folder(run)
    assert "made from a base that is not named" in planned(run).cards[REPO]
    publish(run, only=("student",), base="some/base")
    card = hub.files(REPO)["README.md"].decode()
    assert (head(card)["base_model"], head(card)["base_model_relation"]) == (["some/base"], "finetune")
    assert "made from [some/base](https://huggingface.co/some/base)" in card


def failing_student(run: RunDir) -> None:
    content = json.loads(run.manifest.read_text())
    content["stages"]["evaluate"]["counts"]["_failed_gates"] = ["it solves too little"]
    run.manifest.write_text(json.dumps(content))


def failing_filter(run: RunDir) -> None:
    content = json.loads(run.manifest.read_text())
    content["stages"]["filter"]["counts"]["_failed_gates"] = ["too few were kept"]
    run.manifest.write_text(json.dumps(content))


def unexamined(run: RunDir) -> None:
    content = json.loads(run.manifest.read_text())
    content["stages"]["quantize"]["counts"]["nf4"] |= {"gates": [], "status": "not examined"}
    run.manifest.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("breaks", "part", "told"),
    [
        (failing_student, "gguf", "it solves too little"),
        (failing_student, "student", "it solves too little"),
        (failing_filter, "traces", "too few were kept"),
        (failing_filter, "nf4", "too few were kept"),
        (without_examination, "nf4", "nobody examined the student"),
        (unexamined, "nf4", "nf4: nobody examined it"),
    ],
)
def test_a_gate_is_of_everything_that_comes_after_it(
    run: RunDir, hub: UploadHub, breaks: Callable[[RunDir], None], part: str, told: str
) -> None:
    breaks(run)
    with pytest.raises(GateError, match=told):
        publish(run, only=(part,))
    assert nothing_shown(hub)


def test_a_licence_in_the_way_is_a_gate(run: RunDir, hub: UploadHub) -> None:
    text = run.recipe.read_text().replace("student_overrides: {}", "student_overrides: {license: llama3.1}")
    run.recipe.write_text(text)
    with pytest.raises(GateError, match="asks for a name that begins with Llama"):
        publish(run)
    assert nothing_shown(hub)


def test_a_llama_goes_out_by_its_name_with_notice_and_licence(run: RunDir, hub: UploadHub, tmp_path: Path) -> None:
    run.recipe.write_text(
        run.recipe.read_text().replace("student_overrides: {}", "student_overrides: {license: llama3.1}")
    )
    text = tmp_path / "LICENSE"
    text.write_text("the terms")
    publish(run, repo="org/Llama-tiny", license_file=text, only=("student",))
    files = hub.files("org/Llama-tiny")
    assert files["LICENSE"] == b"the terms"
    assert b"Llama 3.1 Community License, Copyright" in files["NOTICE"]
    card = files["README.md"].decode()
    assert "**Built with Llama**" in card
    assert head(card)["license"] == "llama3.1"


def unfinished(run: RunDir) -> None:
    content = json.loads(run.manifest.read_text())
    content["stages"]["train"]["state"] = "failed"
    run.manifest.write_text(json.dumps(content))


def without_student(run: RunDir) -> None:
    shutil.rmtree(run.student)


def touched(run: RunDir) -> None:
    (run.student / "config.json").write_text("{}")


def as_if_trained_so(run: RunDir) -> None:
    """The manifest of a run whose student has always been what it is now."""
    now = run.hashes(run.student)
    content = json.loads(run.manifest.read_text())
    for stage in content["stages"].values():
        for told in (stage["inputs"], stage["outputs"]):
            told.update({path: digest for path, digest in now.items() if path in told})
    run.manifest.write_text(json.dumps(content))


def trained_again(run: RunDir) -> None:
    rewrite_outputs(run, "train", student="0" * 64)


def filtered_again(run: RunDir) -> None:
    rewrite_outputs(run, "filter", kept="0" * 64)


def rewrite_outputs(run: RunDir, stage: str, **outputs: str) -> None:
    content = json.loads(run.manifest.read_text())
    content["stages"][stage]["outputs"] |= outputs
    run.manifest.write_text(json.dumps(content))


def better_score(run: RunDir) -> None:
    path = run.evaluations / "student.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pass_at_1": 1.0}))


def other_answers(run: RunDir) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(run.prompts).slice(1), run.prompts)


def flipped_trace(run: RunDir) -> None:
    part = next(run.traces.glob("part-*.parquet"))
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)


def with_another_recipe(run: RunDir) -> None:
    run.recipe.write_text(run.recipe.read_text().replace("epochs: 1", "epochs: 4"))


def with_an_adapter(run: RunDir) -> None:
    run.adapter.mkdir()
    (run.adapter / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("breaks", "asked", "kind", "told"),
    [
        (unfinished, {}, RunError, "train is failed, and student comes of it"),
        (trained_again, {}, RunError, "quantize worked on an earlier student: train ran again since"),
        (trained_again, {"only": ("student",)}, RunError, "evaluate worked on an earlier student: train ran again"),
        (filtered_again, {}, RunError, "train worked on an earlier kept: filter ran again since"),
        (better_score, {"only": ("student",)}, RunError, r"evaluations/student\.json is not what evaluate wrote"),
        (other_answers, {"only": ("traces",)}, RunError, r"prompts\.parquet is not what prompts wrote"),
        (flipped_trace, {"only": ("traces",)}, RunError, "traces are not what was sealed"),
        (with_another_recipe, {}, RunError, "recipe.yaml was changed since train ran"),
        (with_an_adapter, {}, UsageError, "the adapter's base has no name on the Hub"),
        (lambda run: None, {"base": "mine"}, UsageError, "--base mine: not ORG/NAME"),
        (without_student, {"only": ("student",)}, UsageError, "this run has no part 'student'"),
        (touched, {}, RunError, "student is not what train wrote"),
        (lambda run: None, {"repo": "tiny"}, UsageError, "not ORG/NAME"),
        (lambda run: None, {"repo": "org/ti--ny"}, UsageError, "no name that the Hub takes"),
        (lambda run: None, {"only": ("ggfu",)}, UsageError, "did you mean 'gguf'"),
        (lambda run: None, {"license_file": Path("nowhere")}, DistillError, "--license-file nowhere"),
    ],
)
def test_what_is_missing_or_wrong_is_told_and_nothing_is_sent(
    run: RunDir, hub: UploadHub, breaks: Callable[[RunDir], None], asked: Any, kind: type[DistillError], told: str
) -> None:
    breaks(run)
    with pytest.raises(kind, match=told):
        publish(run, **asked)
    assert nothing_shown(hub)
    assert not hub.requests


def test_parts_are_those_that_the_run_has(run: RunDir) -> None:
    assert parts_of(run) == ["student", "gguf", "nf4", "traces"]
    shutil.rmtree(run.quantized)
    assert parts_of(run) == ["student", "traces"]


# --- what must not go out --------------------------------------------------------------------------------------------


def test_nothing_of_this_machine_is_in_anything_that_is_uploaded(
    run: RunDir, hub: UploadHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for in what arrived, not by the code that scans."""
    import io

    import pyarrow.parquet as pq

    monkeypatch.setenv("LOGNAME", "wilhelmina")
    monkeypatch.setattr("socket.gethostname", lambda: "workstation-7")
    publish(run)
    private = [TOKEN, str(run.path), str(Path.cwd()), "wilhelmina", "workstation-7", "127.0.0.1"]
    looked = 0
    for repo in hub.repos.values():
        for path, content in hub.files(repo.name, repo.kind).items():
            if path.endswith(".parquet"):  # compressed: its rows are what a reader sees
                rows = pq.read_table(io.BytesIO(content))
                content = json.dumps([rows.to_pylist(), str(rows.schema.metadata)], default=str).encode()
                looked += 1
            for text in private:
                assert text.encode() not in content, (repo.name, path, text)
    assert looked >= 4


@pytest.mark.parametrize(
    ("name", "text"),
    [("student/notes.txt", "by wilhelmina"), ("student/notes.txt", TOKEN), ("student/config.json", "workstation-7")],
)
def test_something_private_in_a_file_stops_everything(
    run: RunDir, hub: UploadHub, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv("LOGNAME", "wilhelmina")
    monkeypatch.setattr("socket.gethostname", lambda: "workstation-7")
    path = run.path / name
    if path.suffix == ".json":
        path.write_text(json.dumps({**json.loads(path.read_text()), "made_on": text}))
    else:
        path.write_text(text)
    as_if_trained_so(run)
    with pytest.raises(PublishError, match="must not leave this machine") as caught:
        publish(run, only=("student",))
    assert name.removeprefix("student/") in str(caught.value.given)
    assert text not in str(caught.value)
    assert nothing_shown(hub)


def test_a_place_that_a_library_wrote_into_settings_is_shortened(run: RunDir, hub: UploadHub) -> None:
    path = run.student / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_name_or_path": "/data/models/base"}))
    as_if_trained_so(run)
    publish(run, only=("student",))
    assert json.loads(hub.files(REPO)["config.json"])["_name_or_path"] == "base"


def test_a_dry_run_shows_every_file_size_and_card_and_asks_nobody(run: RunDir, hub: UploadHub) -> None:
    plan = planned(run)
    told = "\n".join(plan.lines())
    for part in plan.publication.parts:
        assert all(file.path in told for file in part.files)
        assert plan.cards[part.repo] in told
    values = plan.values()["repositories"][REPO]
    assert values["bytes"] == sum(file["bytes"] for file in values["files"].values())
    assert not hub.requests


def test_the_command(run: RunDir, hub: UploadHub, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "distill.cli",
        "publish",
        str(run.path),
        "--repo",
        REPO,
        "--only",
        "traces",
        "--json",
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment(hub, tmp_path / "home"), check=False
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)["published"][TRACES]
    assert (told["tag"], told["public"]) == ("v1", False)
    failing(run)
    whole = [*command[:5], "--repo", REPO]
    ended = subprocess.run(whole, capture_output=True, text=True, env=environment(hub, tmp_path / "home"), check=False)
    assert ended.returncode == 3, ended.stderr
    assert "gate: nf4" in ended.stderr
