"""Specs and recipes: every shipped one loads; a mistake is named with its line; overrides and quick settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill import specs
from distill.errors import USAGE, SpecError
from distill.source_specs import SourceSpec
from distill.specs import Recipe, StudentSpec, dump, overrides, parse
from distill.teacher_specs import TeacherSpec

ROOT = Path(__file__).parents[1]

RECIPE = """\
name: small
teacher: tiny-r1
student: tiny-qwen
prompts:
  - source: arithmetic
    limit: 100
  - source: gsm8k
    path: questions.jsonl
generate:
  samples: 4
  sampling:
    temperature: 0.6
train:
  epochs: 3
quick_settings:
  prompts.0.limit: 10
  generate.samples: 1
  train.epochs: 1
"""

STUDENT = """\
name: s
architecture:
  model_type: qwen2
  hidden_size: 256
  intermediate_size: 768
  num_hidden_layers: 2
  num_attention_heads: 4
  num_key_value_heads: 2
  max_position_embeddings: 512
tokenizer: ./tokenizer
template: chatml
"""


def refused(model: type[Any], text: str, changes: dict[str, Any] | None = None) -> str:
    with pytest.raises(SpecError) as caught:
        parse(model, text, "file.yaml", changes)
    assert caught.value.exit_code == USAGE
    return str(caught.value)


def recipe_file(folder: Path, text: str = RECIPE) -> str:
    path = folder / "small.yaml"
    path.write_text(text)
    return str(path)


# --- what is shipped -------------------------------------------------------------------------------------------------


def test_every_shipped_spec_loads() -> None:
    for kind in ("teachers", "students", "data", "recipes"):
        for path in sorted((ROOT / kind).glob("*.yaml")):
            spec = specs.load(kind, str(path))
            assert spec.name == path.stem, f"{path}: a spec is found by its file's name"  # type: ignore[attr-defined]
            assert path.stem in specs.names(kind)
            assert specs.load(kind, path.stem) == spec
            assert specs.find(kind, path.stem).samefile(path)


def test_every_shipped_recipe_names_specs_that_exist_and_has_quick_settings_that_fit() -> None:
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        for quick in (False, True):
            recipe = specs.recipe(path.stem, {"quick": quick})
            if recipe.teacher:
                specs.load("teachers", recipe.teacher, recipe.teacher_overrides)
            if recipe.student:
                student = specs.load("students", recipe.student, recipe.student_overrides)
                assert isinstance(student, StudentSpec)
                assert len(student.contract.hash) == 16
            for part in (*recipe.prompts, *recipe.evaluate.prompts):
                specs.source(part.source)


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            RECIPE.replace("  samples: 4", "  sampels: 4"),
            "line 10: unknown key 'generate.sampels'; did you mean 'samples'?",
        ),
        (
            RECIPE.replace("    limit: 100", "    limits: 100"),
            "line 6: unknown key 'prompts.0.limits'; did you mean 'limit'?",
        ),
        (
            RECIPE.replace("    temperature: 0.6", "    temprature: 0.6"),
            "line 12: unknown key 'generate.sampling.temprature'; did you mean 'temperature'?",
        ),
        (RECIPE.replace("student:", "studnet:"), "line 3: unknown key 'studnet'; did you mean 'student'?"),
        (RECIPE.replace("samples: 4", "samples: four"), "line 10: generate.samples: should be a valid integer"),
        (RECIPE.replace("samples: 4", "samples: 0"), "line 10: generate.samples: should be greater than or equal to 1"),
        (RECIPE.replace("samples: 4", "samples: 1.5"), "line 10: generate.samples: should be a valid integer"),
        (
            RECIPE.replace("    path: questions.jsonl", "    path: [a]"),
            "line 8: prompts.1.path: should be a valid string",
        ),
        (RECIPE.replace("- source: gsm8k\n    path", "- path"), "line 7: the key 'prompts.1.source' is missing"),
        (RECIPE.replace("train:\n  epochs: 3", "train: 3"), "line 13: train: "),
        (RECIPE.replace("name: small\n", ""), "line 1: the key 'name' is missing"),
        (RECIPE + "seed: -1\n", "line 19: seed: should be greater than or equal to 0"),
        (RECIPE + f"seed: {2**63}\n", "line 19: seed: should be less than 9223372036854775808"),
        (RECIPE + "train: {}\n", "line 19: the key 'train' is also in line 13"),
        (RECIPE.replace("    limit: 100", "    limit: 100\n    limit: 5"), "line 7: the key 'limit' is also in line 6"),
        (RECIPE + "filter: {keep: all, keep: verified}\n", "line 19: the key 'keep' is also in line 19"),
        (
            RECIPE + "filter:\n  keep: [finished, maths]\n",
            "line 19: filter: keep asks for maths, which checks does not run",
        ),
        (
            RECIPE + "filter:\n  checks: [finished, maths]\n",
            "line 20: filter.checks: unknown check 'maths'; known: ",
        ),
        (RECIPE + "filter:\n  keep: some\n", "line 19: filter: keep asks for some, which checks does not run"),
        (RECIPE + "filter:\n  keep: correct and\n", "line 19: filter: the keep rule cannot be read"),
        (
            RECIPE + "filter:\n  checks: [finished]\n  keep: [math]\n",
            "line 19: filter: keep asks for correct, which checks does not run",
        ),
        (
            RECIPE.replace("  samples: 4", "  until_correct: 2"),
            "line 9: generate: until_correct 2 needs as many samples",
        ),
        (RECIPE.replace("  samples: 4", "  shard: 3/2"), "line 10: generate.shard: the shards of N are 1/N to N/N"),
        (RECIPE.replace("  samples: 4", "  shard: 0/2"), "line 10: generate.shard: "),
        (
            RECIPE.replace("  samples: 4", "  url: [http://a/v1, 'http://x:y@b/v1']"),
            "line 10: generate.url: the url holds a login",
        ),
        (RECIPE.replace("samples: 4", "samples: [4"), "line 11: not YAML"),
        ("- a\n- b\n", "expected keys and values, found list"),
        ("", "expected keys and values, found NoneType"),
        ("name: 2026-13-45\n", "not YAML: month must be in 1..12"),
        ("a: 1\n---\na: 2\n", "line 2: not YAML"),
    ],
)
def test_a_mistake_in_a_recipe_names_line_and_key(text: str, message: str) -> None:
    assert refused(Recipe, text).startswith((f"file.yaml, {message}", f"file.yaml: {message}"))


def test_a_login_in_a_url_is_refused_and_not_repeated() -> None:
    with_url = RECIPE.replace("  samples: 4", "  engine: openai\n  url: http://me:sekret@host/v1")
    told = refused(Recipe, with_url)
    assert told.startswith("file.yaml, line 11: generate.url: the url holds a login")
    assert "sekret" not in told
    parse(Recipe, with_url.replace("me:sekret@host", "host:8000/a@b"), "f")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_numbers_are_finite(value: str) -> None:
    changes = overrides([f"generate.sampling.presence_penalty={value}"])
    assert "should be a finite number" in refused(Recipe, RECIPE, changes)


def test_an_alias_inside_itself_is_named() -> None:
    told = refused(Recipe, "name: r\ngenerate: &all\n  samples: 2\n  sampling: *all\n")
    assert told == "file.yaml, line 2: this part contains itself by an alias"
    twice = "name: r\nteacher_overrides: &same {revision: x}\nstudent_overrides: *same\n"
    assert parse(Recipe, twice, "f").student_overrides == {"revision": "x"}


def test_a_mistake_shows_what_was_given_what_is_known_and_how_many_follow() -> None:
    assert "given: 'four'" in refused(Recipe, RECIPE.replace("samples: 4", "samples: four"))
    unknown = refused(Recipe, RECIPE.replace("limit: 100", "limits: 100"))
    assert "known here: source, path, split, skip, limit, reasoning" in unknown
    assert "(1 more after this)" in refused(
        Recipe, RECIPE.replace("samples: 4", "samples: four").replace("epochs: 3", "epochs: x")
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            STUDENT.replace("template: chatml", "template: chatlm"),
            "line 11: template: unknown template 'chatlm'; did you mean 'chatml'?; known: deepseek-r1,",
        ),
        ("name: s\ntemplate: chatml\n", "line 1: give base (pretrained), architecture (from nothing), or both"),
        (STUDENT + "base: org/model\n", "line 1: architecture.vocab_size is missing: a base has"),
        (STUDENT.replace("  hidden", "  vocab_size: 300\n  hidden"), "line 1: architecture.vocab_size follows the tok"),
        (STUDENT + "untrained_tokens: [x]\n", "line 1: untrained_tokens and context_extension are about a base"),
        (
            STUDENT + "context_extension: {max_position_embeddings: 9, rope_theta: 9}\n",
            "line 1: untrained_tokens and context_extension are about a base",
        ),
        (STUDENT.replace("  hidden", "  head_dim: 128\n  hidden"), "line 2: architecture: a qwen2 has head_dim ="),
        (
            STUDENT.replace(
                "  hidden",
                "  rope_scaling: {factor: 8, low_freq_factor: 4, high_freq_factor: 4, "
                "original_max_position_embeddings: 9}\n  hidden",
            ),
            "line 4: architecture.rope_scaling: high_freq_factor must be greater",
        ),
        (STUDENT.replace("tokenizer: ./tokenizer\n", ""), "line 1: architecture needs a tokenizer"),
        (
            STUDENT.replace("num_attention_heads: 4", "num_attention_heads: 3"),
            "line 2: architecture: num_attention_heads must divide hidden_size",
        ),
        (
            STUDENT.replace("num_key_value_heads: 2", "num_key_value_heads: 3"),
            "line 2: architecture: num_attention_heads must divide hidden_size",
        ),
        (STUDENT.replace("qwen2", "gpt2"), "line 3: architecture.model_type: should be 'qwen2', 'qwen3' or 'llama'"),
        (
            STUDENT + 'forced_prefix: "<think>\\n"\nthinks: false\n',
            "line 1: forced_prefix is for a student that thinks",
        ),
        (STUDENT + "forced_prefix: '<think>\\n'\n", "line 1: forced_prefix is not how a response begins"),
        (STUDENT + "instruction: {maths: Think.}\n", "line 12: instruction.maths"),
    ],
)
def test_a_mistake_in_a_student_names_line_and_key(text: str, message: str) -> None:
    assert refused(StudentSpec, text).startswith(f"file.yaml, {message}")


def test_a_student_has_one_origin_and_a_contract() -> None:
    built = parse(StudentSpec, STUDENT + 'forced_prefix: "<think>\\n"\ninstruction: {math: Think.}\n', "file.yaml")
    assert built.contract.forced_prefix == "<think>\n"
    assert built.contract.messages("q", "math")[0]["content"] == "q\n\nThink."
    based = parse(StudentSpec, "name: s\nbase: org/model\ntemplate: llama3\nsystem: S\n", "file.yaml")
    assert (based.contract.template, based.contract.system, based.contract.instruction) == ("llama3", "S", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: d\ncolumns: {qestion: q}\n",
            "line 2: columns: a prompt has no field 'qestion'; did you mean 'question'?",
        ),
        ("name: d\nanswer_pattern: '#### .+'\n", "line 2: answer_pattern: the pattern needs a group"),
        ("name: d\nanswer_pattern: '(('\n", "line 2: answer_pattern: not a regular expression"),
        (
            "name: d\ngenerator: arithmetic\npath: x.jsonl\n",
            "line 1: give either generator or path or dataset, not several",
        ),
        ("name: d\ngenerator: geometry\n", "line 2: generator: should be 'arithmetic'"),
        ("name: d\nsteps: [1, 2, 3]\n", "line 2: steps"),
        ("name: d\nsteps: [4, 1]\n", "line 1: steps are the fewest and the most operations"),
        ("name: d\nsteps: [0, 1]\n", "line 1: steps are the fewest and the most operations"),
    ],
)
def test_a_mistake_in_a_source_names_line_and_key(text: str, message: str) -> None:
    assert refused(SourceSpec, text).startswith(f"file.yaml, {message}")


def test_a_mistake_in_what_is_prepared_names_line_and_key() -> None:
    for text, message in (
        ("drop: [multipart]", "line 2: prepare.drop: unknown mark 'multipart'; did you mean 'multi_part'"),
        ("languages: english", "line 2: prepare.languages: 'english' is no ISO 639-1 code"),
        ("{min_chars: 10, max_chars: 5}", "line 2: prepare: min_chars is above max_chars"),
        ("select: [{domain: math, counts: 3}]", "line 2: unknown key 'prepare.select.0.counts'"),
    ):
        body = text if text.startswith("{") else "{" + text + "}"
        assert refused(Recipe, f"name: r\nprepare: {body}\n").startswith(f"file.yaml, {message}"), text


def test_a_spec_never_changes() -> None:
    spec = parse(TeacherSpec, "name: t\nmodel: m\n", "file.yaml")
    with pytest.raises(ValueError, match="frozen"):
        spec.model = "other"  # type: ignore[misc]


# --- overrides -------------------------------------------------------------------------------------------------------


def test_overrides_are_read_as_yaml() -> None:
    given = ["train.epochs=2", "quick=true", "prompts.0.path=a=b.jsonl", "filter.keep=[math]", "teacher=", "x=1e-4"]
    assert overrides(given) == {
        "train.epochs": 2,
        "quick": True,
        "prompts.0.path": "a=b.jsonl",
        "filter.keep": ["math"],
        "teacher": None,
        "x": "1e-4",
    }
    assert parse(Recipe, "name: r\n", "f", overrides(["train.learning_rate=1e-4"])).train.learning_rate == 1e-4


@pytest.mark.parametrize("setting", ["train.epochs", "=5", ""])
def test_an_override_without_key_or_value_is_refused(setting: str) -> None:
    with pytest.raises(SpecError, match="--set takes KEY=VALUE"):
        overrides([setting])


def test_an_override_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(SpecError, match=r"--set a\.b: the value is not YAML"):
        overrides(["a.b=[1"])


def test_overrides_reach_into_lists_and_make_missing_sections() -> None:
    recipe = parse(
        Recipe,
        RECIPE,
        "f",
        {"prompts.1.limit": 7, "evaluate.samples": 2, "filter.keep": ["math"], "prompts.0.source": "x"},
    )
    assert [(part.source, part.limit) for part in recipe.prompts] == [("x", 100), ("gsm8k", 7)]
    assert recipe.prompts[1].path == "questions.jsonl"
    assert recipe.evaluate.samples == 2
    assert recipe.filter.keep == ("correct",), "as runs of version 0.1 call it"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.epoch", 2, "--set: unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("train.epochs", "many", "--set: train.epochs: should be a valid number"),
        ("prompts.0.limit", 0, "--set: prompts.0.limit: should be greater than or equal to 1"),
        ("prompts.2.limit", 5, "'prompts.2.limit': '2' is no position in a list of 2 (they start at 0)"),
        ("prompts.first.limit", 5, "'prompts.first.limit': 'first' is no position in a list of 2"),
        ("prompts.-1.limit", 5, "'prompts.-1.limit': '-1' is no position in a list of 2"),
        ("prompts.5", {}, "'prompts.5': '5' is no position in a list of 2"),
        ("train.epochs.more", 5, "'train.epochs.more': 'epochs' is a plain value and has no keys below it"),
        ("nothing.here", 5, "--set: unknown key 'nothing'"),
        ("train", None, "--set: train: "),
        ("filter.keep", ["maths"], "--set: filter: keep asks for maths, which checks does not run"),
        ("generate.until_correct", 5, "--set: generate: until_correct 5 needs as many samples"),
    ],
)
def test_a_wrong_override_is_named_as_such(key: str, value: Any, message: str) -> None:
    assert refused(Recipe, RECIPE, {key: value}).startswith(message)


# --- quick settings --------------------------------------------------------------------------------------------------


def test_quick_settings_stand_between_the_file_and_the_user(tmp_path: Path) -> None:
    name = recipe_file(tmp_path)
    plain = specs.recipe(name)
    assert (plain.prompts[0].limit, plain.generate.samples, plain.train.epochs) == (100, 4, 3)
    quick = specs.recipe(name, {"quick": True})
    assert (quick.prompts[0].limit, quick.generate.samples, quick.train.epochs) == (10, 1, 1)
    mine = specs.recipe(name, {"quick": True, "train.epochs": 2, "prompts.0.limit": 20})
    assert (mine.prompts[0].limit, mine.generate.samples, mine.train.epochs) == (20, 1, 2)
    listed = specs.recipe(name, {"quick": True, "train": {"epochs": 5}})
    assert listed.train.epochs == 5


def test_quick_in_the_file_can_be_turned_off(tmp_path: Path) -> None:
    name = recipe_file(tmp_path, RECIPE + "quick: true\n")
    assert specs.recipe(name).train.epochs == 1
    assert specs.recipe(name, {"quick": False}).train.epochs == 3


def test_a_mistake_in_the_quick_settings_is_found_when_they_are_used(tmp_path: Path) -> None:
    name = recipe_file(tmp_path, RECIPE.replace("  train.epochs: 1", "  train.epoch: 1"))
    assert specs.recipe(name).train.epochs == 3
    with pytest.raises(SpecError, match=r"unknown key 'train\.epoch'; did you mean 'epochs'"):
        specs.recipe(name, {"quick": True})


@pytest.mark.parametrize("given", [{}, {"quick": True}, {"quick": True, "train.epochs": 2, "generate.samples": 3}])
def test_a_resolved_recipe_read_again_is_the_same(tmp_path: Path, given: dict[str, Any]) -> None:
    resolved = specs.recipe(recipe_file(tmp_path), given)
    (tmp_path / "run").mkdir()
    again = specs.recipe(recipe_file(tmp_path / "run", dump(resolved)))
    assert again == resolved
    assert dump(again) == dump(resolved)
    assert yaml.safe_load(dump(resolved))["generate"]["max_attempts"] == 6, "every default is written out"


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout and a wheel with a few specs, in place of the real ones."""
    for place, kind, name in (
        ("checkout", "teachers", "tiny-r1"),
        ("checkout", "teachers", "smollm2"),
        ("wheel", "teachers", "tiny-r1"),
        ("wheel", "teachers", "big-r1"),
    ):
        folder = tmp_path / place / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(f"name: {name}\nmodel: ./{name}\ndescription: {place}\n")
    (tmp_path / "checkout" / "teachers" / "tiny-r1").mkdir()
    monkeypatch.setattr(specs, "spec_roots", lambda: [tmp_path / "checkout", tmp_path / "wheel"])
    return tmp_path


def test_a_name_is_looked_up_in_the_checkout_then_in_the_wheel(shipped: Path) -> None:
    assert specs.names("teachers") == ["big-r1", "smollm2", "tiny-r1"]
    assert specs.find("teachers", "tiny-r1") == shipped / "checkout" / "teachers" / "tiny-r1.yaml"
    assert specs.find("teachers", "big-r1") == shipped / "wheel" / "teachers" / "big-r1.yaml"


def test_a_path_is_taken_as_it_is(shipped: Path) -> None:
    path = shipped / "wheel" / "teachers" / "tiny-r1.yaml"
    assert specs.find("teachers", str(path)) == path
    with pytest.raises(SpecError, match=r"there is no file .*missing\.yaml") as caught:
        specs.find("teachers", str(shipped / "missing.yaml"))
    assert "shipped teachers: big-r1, smollm2, tiny-r1" in str(caught.value)


def test_an_unknown_name_lists_the_known_ones(shipped: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown teacher 'tiny-r2'; did you mean 'tiny-r1'\?") as caught:
        specs.find("teachers", "tiny-r2")
    assert "one of: big-r1, smollm2, tiny-r1 (`distill show teachers`)" in str(caught.value)
    assert caught.value.exit_code == USAGE
    for kind, word in (("students", "student"), ("data", "prompt source"), ("recipes", "recipe")):
        with pytest.raises(SpecError, match=f"unknown {word} 'x'"):
            specs.find(kind, "x")  # type: ignore[arg-type]


def test_folders_beside_a_spec_are_resolved_wherever_one_stands(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shipped / "wheel")
    folder = shipped / "checkout" / "teachers" / "tiny-r1"
    assert specs.teacher("tiny-r1").model == str(folder.resolve())
    relative = os.path.relpath(shipped / "checkout" / "teachers" / "tiny-r1.yaml")
    assert specs.teacher(relative).model == str(folder.resolve())
    with pytest.raises(SpecError, match=r"there is no folder \./smollm2"):
        specs.teacher("smollm2")
    here = shipped / "checkout" / "teachers" / "tiny-r1.yaml"
    assert specs.resolve_folder("deepseek-ai/DeepSeek-R1", here) == "deepseek-ai/DeepSeek-R1"
    assert specs.resolve_folder("/nowhere", here) == "/nowhere"


def test_who_a_teacher_is_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Hub id stays one where a folder of that name happens to lie; beside the spec it is meant."""
    spec = tmp_path / "specs" / "big.yaml"
    spec.parent.mkdir()
    spec.write_text("name: big\nmodel: org/Big\n")
    (tmp_path / "org" / "Big").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "specs"):
        monkeypatch.chdir(place)
        assert (specs.teacher(str(spec)).model, specs.teacher(str(spec)).is_folder) == ("org/Big", False)
    (spec.parent / "org" / "Big").mkdir(parents=True)
    found = specs.teacher(str(spec))
    assert (found.model, found.is_folder) == (str(spec.parent / "org" / "Big"), True)
    monkeypatch.chdir(tmp_path)
    spec.write_text("name: big\nmodel: ./org/Big\n")
    assert specs.teacher(str(spec)).model == str(spec.parent / "org" / "Big")
    assert specs.teacher("deepseek-r1").served, "R1's weights lie at a server, whatever is downloaded here"


def test_the_model_folders_of_a_stage_are_those_it_loads(tmp_path: Path) -> None:
    recipe = parse(Recipe, RECIPE, "f")
    teacher = Path(specs.teacher("tiny-r1").model)
    assert recipe.model_folders("generate") == recipe.model_folders("filter") == {"teacher": teacher}
    assert recipe.model_folders("train") == {"tokenizer": teacher}
    assert recipe.model_folders("evaluate") == {"teacher": teacher}
    student_alone = parse(Recipe, RECIPE + "evaluate: {models: [student]}\n", "f")
    assert student_alone.model_folders("evaluate") == student_alone.model_folders("prompts") == {}
    gone = tmp_path / "gone.yaml"
    gone.write_text("name: gone\nmodel: ./not-there\n")
    assert parse(Recipe, f"name: r\nteacher: {gone}\n", "f").model_folders("filter") == {}


def test_a_bar_for_a_student_that_nobody_examines_is_refused() -> None:
    text = RECIPE + "evaluate: {models: [teacher], min_pass_at_1: 0.5}\n"
    with pytest.raises(SpecError, match="min_pass_at_1 is a bar for the student, whom models leaves out"):
        parse(Recipe, text, "f")


# --- what decides a stage --------------------------------------------------------------------------------------------


def changed_stages(key: str, value: Any) -> set[str]:
    base, other = parse(Recipe, RECIPE, "f"), parse(Recipe, RECIPE, "f", {key: value})
    return {stage for stage in specs.STAGES if base.section_hash(stage) != other.section_hash(stage)}


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("description", "other words", set()),
        ("generate.concurrency", 3, set()),
        ("generate.max_attempts", 3, set()),
        ("generate.url", "http://elsewhere/v1", set()),
        ("generate.request_timeout", 5, set()),
        ("train.micro_batch_tokens", 64, set()),
        ("train.checkpoint_steps", 5, set()),
        ("prompts.0.limit", 7, {"prompts"}),
        ("generate.samples", 5, {"generate", "filter"}),
        ("generate.sampling.temperature", 1.0, {"generate", "filter"}),
        ("teacher", "deepseek-r1", {"generate", "filter", "evaluate"}),
        ("teacher_overrides", {"revision": "x"}, {"generate", "filter", "evaluate"}),
        ("filter.keep", "all", {"filter"}),
        ("filter.heldout", 0.1, {"filter"}),
        ("student", "tiny-llama", {"train", "evaluate", "quantize"}),
        ("quantize.samples", 9, {"quantize"}),
        ("student_overrides", {"gguf_pre": "llama-bpe"}, {"quantize"}),
        ("evaluate.max_tokens", 9, {"evaluate", "quantize"}),
        ("train.epochs", 4, {"train"}),
        ("evaluate.samples", 9, {"evaluate"}),
        ("seed", 1, set(specs.STAGES)),
    ],
)
def test_a_setting_touches_the_stages_whose_work_it_decides(key: str, value: Any, stages: set[str]) -> None:
    assert changed_stages(key, value) == stages


def test_an_edited_spec_makes_its_stages_run_again(tmp_path: Path) -> None:
    """The recipe names a spec; what the spec says counts too, its description does not."""
    file = tmp_path / "mine.yaml"
    text = (specs.find("students", "tiny-qwen")).read_text(encoding="utf-8")

    def hashes(content: str) -> dict[str, str]:
        file.write_text(content, encoding="utf-8")
        named = parse(Recipe, f"name: r\nteacher: tiny-r1\nstudent: {file}\n", "r")
        return {stage: named.section_hash(stage) for stage in specs.STAGES}

    before = hashes(text)
    assert hashes(text.replace("description: ", "description: Other words. ")) == before
    after = hashes(text.replace("num_hidden_layers: 5", "num_hidden_layers: 3").replace("parameters:", "# parameters:"))
    assert {stage for stage in specs.STAGES if before[stage] != after[stage]} == {"train", "evaluate", "quantize"}
