"""The training stage on a hand-made kept folder: a student at the end, an honest error where there is nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from conftest import TOKENIZER

from distill import specs
from distill.contract import Response
from distill.errors import ContractError, DiskFullError, Interrupted, RunError, SpecError, TrainingError, UsageError
from distill.rundir import RunDir
from distill.sizes import Sizes
from distill.student_specs import Architecture
from distill.train import guards, learner, loop, stage
from distill.train.learner import Learner
from distill.train.preparing import Prepared, prepare
from train.bases import CHATML, word_tokenizer
from train.material import keep, spec
from train.stages import REPLIES, TOO_LONG, Stopping, changed, kept, recipe_in, told, weights


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_STEPS", 1)


@pytest.fixture
def recipe(tmp_path: Path) -> specs.Recipe:
    return recipe_in(tmp_path)


def test_a_student_is_trained_and_says_on_what(
    tmp_path: Path, recipe: specs.Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    run = kept(RunDir(tmp_path / "run"), [*REPLIES[:10], TOO_LONG])
    report = stage.run(recipe, run)
    counts: dict[str, Any] = report.counts
    assert (counts["traces"], counts["too_long"], counts["steps"], counts["resumed_at"]) == (10, 1, 3, 0)
    assert counts["longest"] > counts["context"] == 64
    assert counts["heldout_loss"] > 0
    assert counts["parameters"] == counts["trained_parameters"] > 0
    assert counts["census"]["splits"]["train"]["too_long"] == 1
    assert report.outputs == (run.student, run.untrained)
    facts = json.loads((run.student / "distill.json").read_text(encoding="utf-8"))
    assert (facts["student"], facts["method"]) == ("tiny", "full")
    assert facts["contract"]["hash"] == spec().contract.hash
    assert weights(run.untrained) != weights(run.student)
    assert not run.checkpoints.exists()
    assert not run.adapter.exists()
    assert {json.loads(line)["stage"] for line in run.metrics.read_text().splitlines()} == {"train"}
    assert list(told(run)) == [1, 2, 3]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("train: train: 11 traces")
    chosen = next(n for n, line in enumerate(said) if "leaves out 1 trace (9.1%)" in line and "none is cut" in line)
    holds = next(n for n, line in enumerate(said) if "the contract holds on" in line)
    assert chosen < holds, "the census comes before anything is built"


def test_the_same_run_trains_the_same_student(tmp_path: Path, recipe: specs.Recipe) -> None:
    runs = [kept(RunDir(tmp_path / name), REPLIES[:6]) for name in "ab"]
    for run in runs:
        stage.run(recipe, run)
    assert weights(runs[0].student) == weights(runs[1].student)


def test_the_students_folder_says_nothing_of_how_its_attention_was_computed(
    tmp_path: Path, recipe: specs.Recipe
) -> None:
    run = kept(RunDir(tmp_path / "run"), REPLIES[:1])
    stage.run(recipe, run)
    for name in ("config.json", "generation_config.json", "distill.json"):
        text = (run.student / name).read_text()
        assert "attn" not in text
        assert "packed" not in text


def test_heldout_traces_measure_and_are_counted(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = RunDir(tmp_path / "run")
    keep(run.kept, REPLIES[:8])
    keep(run.kept, [Response("9 8 7 6 5", "zyx").render(), TOO_LONG], split="heldout")
    counts = stage.run(changed(recipe, epochs=40, learning_rate=1e-2), run).counts
    assert (counts["traces"], counts["heldout"], counts["heldout_too_long"]) == (8, 1, 1)
    assert counts["heldout_loss"] > counts["loss"] + 0.2, "never seen, and it shows"


def test_a_job_is_another_one_with_other_settings_data_student_or_base(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = kept(RunDir(tmp_path / "run"), REPLIES[:3])
    own_tokenizer = tmp_path / "tokenizer"
    shutil.copytree(TOKENIZER, own_tokenizer)
    path = Path(recipe.student)
    path.write_text(yaml.safe_dump(spec(own_tokenizer).model_dump(mode="json", exclude_none=True)))
    first = prepare(recipe, run).name
    assert prepare(recipe, run).name == first
    how = {"gpus": 2, "checkpoint_steps": 7, "max_loss_jump": None, "trackers": ["tensorboard"]}
    assert prepare(changed(recipe, **how), run).name == first, "what decides only how it is trained"
    others = [
        prepare(changed(recipe, learning_rate=3e-4), run).name,
        prepare(recipe.model_copy(update={"seed": 9}), run).name,
        prepare(recipe, kept(RunDir(tmp_path / "more"), REPLIES[:4])).name,
    ]
    content = json.loads((own_tokenizer / "tokenizer_config.json").read_text())
    (own_tokenizer / "tokenizer_config.json").write_text(json.dumps({**content, "added": 1}))
    others.append(prepare(recipe, run).name)
    assert len({first, *others}) == 5


# --- the student that learns -----------------------------------------------------------------------------------------


class Begun(NamedTuple):
    prepared: Prepared
    run: RunDir
    student: Learner


def begun(recipe: specs.Recipe, run: RunDir) -> Begun:
    from distill.train.parallel import World
    from distill.train.training import begin

    prepared = prepare(recipe, run)
    begin(prepared, run)
    return Begun(prepared, run, Learner.of(prepared, run, World()))


@pytest.mark.parametrize("hardware", [True, False])
@pytest.mark.parametrize(
    ("precision", "method", "dtype", "mixed", "emulated"),
    [
        ("mixed", "full", torch.float32, True, (torch.float32, False)),
        ("bf16", "full", torch.bfloat16, False, (torch.bfloat16, False)),
        ("fp32", "full", torch.float32, False, (torch.float32, False)),
        ("mixed", "lora", torch.bfloat16, True, (torch.float32, False)),
        ("bf16", "lora", torch.bfloat16, True, (torch.float32, False)),
        ("fp32", "lora", torch.float32, False, (torch.float32, False)),
    ],
)
def test_a_cpu_that_only_emulates_bfloat16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: Any,
    method: Any,
    dtype: torch.dtype,
    mixed: bool,
    emulated: tuple[torch.dtype, bool],
    hardware: bool,
) -> None:
    monkeypatch.setattr(learner, "bfloat16_in_hardware", lambda: hardware)
    settings = specs.TrainSettings(precision=precision, method=method)
    found = learner.precision(settings, torch.device("cpu"))
    assert found == ((dtype, mixed) if hardware else emulated)
    slow = not hardware and (precision, method) == ("bf16", "full")
    assert ("will be very slow" in capsys.readouterr().err) == slow
    assert learner.precision(settings, torch.device("cuda")) == (dtype, mixed), "GPUs compute it"


@pytest.mark.parametrize("hardware", [True, False])
def test_the_weights_are_of_the_recipes_precision_and_seed(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch, hardware: bool
) -> None:
    monkeypatch.setattr(learner, "bfloat16_in_hardware", lambda: hardware)
    seen = []
    for seed in (1, 2, 1):
        run = kept(RunDir(tmp_path / f"run{len(seen)}"), REPLIES[:1])
        found = begun(changed(recipe, precision="mixed").model_copy(update={"seed": seed}), run).student
        assert {weight.dtype for weight in found.module.parameters()} == {torch.float32}
        assert found.module.mixed == hardware
        seen.append(float(next(found.module.parameters()).detach().sum()))
    assert seen[0] == seen[2] != seen[1]


def test_a_tokenizer_without_a_chat_template_gets_ours(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    bare = tmp_path / "bare"
    shutil.copytree(TOKENIZER, bare, ignore=shutil.ignore_patterns("chat_template.jinja", "*.safetensors"))
    content = json.loads((bare / "tokenizer_config.json").read_text())
    content.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(content))
    assert AutoTokenizer.from_pretrained(bare).chat_template is None
    run = kept(RunDir(tmp_path / "run"), REPLIES[:2])
    stage.run(recipe_in(tmp_path, student=spec(bare)), run)
    saved = AutoTokenizer.from_pretrained(run.student)
    assert saved.chat_template == spec().contract.chat_template
    prompt = saved.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<think>\n")


SIXTY_FOUR = {**(spec().architecture.model_dump() if spec().architecture else {}), "hidden_size": 64}
"""bitsandbytes' blocks are of 64 weights."""


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(5, 60)[None]).logits[0].float()
    return found


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_is_trained_saved_and_merged(tmp_path: Path, method: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    run = kept(RunDir(tmp_path / "run"))
    asked = recipe_in(tmp_path, student=spec(architecture=SIXTY_FOUR), method=method, epochs=8, learning_rate=1e-2)
    report = stage.run(asked, run)
    counts: dict[str, Any] = report.counts
    assert counts["loss"] < told(run)[1] - 0.5, "it learned"
    sizes = Sizes.of(Architecture.model_validate(SIXTY_FOUR), vocab=1)
    adapter = sizes.lora_parameters(asked.train.lora.rank)
    assert counts["trained_parameters"] == adapter < counts["parameters"]
    assert report.outputs == (run.student, run.untrained, run.adapter)
    assert counts["merge"]["kl"] < 0.02
    assert json.loads((run.student / "distill.json").read_text())["merge"] == counts["merge"]

    def load(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    student, untrained = load(run.student), load(run.untrained)
    assert "quantization" not in (run.student / "config.json").read_text()
    assert not [name for name in student.state_dict() if "lora" in name]
    if method == "qlora":
        from distill.train.quantized import load_quantized

        untrained = load_quantized(run.untrained, torch.float32, device=torch.device("cpu"))
    plain = logits(untrained)
    adapted = logits(PeftModel.from_pretrained(untrained, run.adapter).eval())
    away = float((adapted - plain).abs().max())
    assert float((logits(student) - adapted).abs().max()) < 0.05 * away, "rounded to bfloat16, and no more"


# --- stopping and going on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"method": "lora"}, {"average_checkpoints": 3}])
def test_a_stopped_training_goes_on_to_the_same_student(
    tmp_path: Path, recipe: specs.Recipe, settings: dict[str, Any]
) -> None:
    recipe = changed(recipe, epochs=4, **settings)
    whole = kept(RunDir(tmp_path / "whole"))
    stage.run(recipe, whole)
    run = Stopping(tmp_path / "cut", at=10)
    kept(run)
    with pytest.raises(Interrupted, match="training stopped after step 10 of 12"):
        stage.run(recipe, run)
    assert not run.student.exists()
    counts = stage.run(recipe, RunDir(run.path)).counts
    assert counts["resumed_at"] == 10
    assert told(run) == pytest.approx(told(whole), abs=1e-5)
    assert weights(run.student) == weights(whole.student)
    assert not run.checkpoints.exists()


def test_the_checkpoints_of_another_training_are_told_and_not_used(
    tmp_path: Path, recipe: specs.Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Stopping(tmp_path / "run", at=2)
    kept(run)
    with pytest.raises(Interrupted):
        stage.run(recipe, run)
    capsys.readouterr()
    again = RunDir(run.path)
    assert stage.run(changed(recipe, learning_rate=3e-4), again).counts["resumed_at"] == 0
    said = capsys.readouterr().err
    assert "this is another training than the interrupted" in said
    assert "begins anew; those are kept until it has ended" in said
    assert not run.checkpoints.exists()


def test_a_checkpoint_that_was_put_in_this_trainings_folder_is_told_and_not_used(
    tmp_path: Path, recipe: specs.Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Stopping(tmp_path / "run", at=2)
    kept(run)
    with pytest.raises(Interrupted):
        stage.run(recipe, run)
    (folder,) = run.checkpoints.iterdir()
    other = changed(recipe, learning_rate=3e-4)
    folder.rename(run.checkpoints / prepare(other, run).name[:12])
    assert stage.run(other, RunDir(run.path)).counts["resumed_at"] == 0
    assert "is of another training and is not used" in capsys.readouterr().err


# --- looking on ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_student_is_asked_while_it_learns_and_learns_the_same(tmp_path: Path, method: str) -> None:
    asked = {"problems": 3, "every_steps": 2, "max_tokens": 8}
    recipe = recipe_in(tmp_path, student=spec(architecture=SIXTY_FOUR), method=method, epochs=2)
    runs = [kept(RunDir(tmp_path / name), prompts=3) for name in ("asked", "not")]
    stage.run(changed(recipe, samples=asked), runs[0])
    stage.run(changed(recipe, samples={"problems": 0}), runs[1])
    files = sorted(runs[0].logs.glob("samples-*.jsonl"))
    assert [file.name for file in files] == [f"samples-{step:08d}.jsonl" for step in (2, 4, 6)]
    samples = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert {sample["problem"] for sample in samples} == {"heldout-0", "heldout-1", "heldout-2"}
    assert all(0 < sample["tokens"] <= 8 for sample in samples)
    assert list(told(runs[0], "sample_stop_rate")) == [2, 4, 6]
    assert not told(runs[1], "sample_stop_rate")
    assert told(runs[0]) == told(runs[1])
    assert weights(runs[0].student) == weights(runs[1].student)


def test_trackers_get_what_the_metrics_file_gets(tmp_path: Path, recipe: specs.Recipe) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = changed(recipe, trackers=["tensorboard"], epochs=2)
    run = Stopping(tmp_path / "run", at=3)
    kept(run)
    with pytest.raises(Interrupted):
        stage.run(recipe, run)
    stage.run(recipe, RunDir(run.path))
    (folder,) = (run.logs / "tensorboard").iterdir()
    found = accumulators.EventAccumulator(str(folder))
    found.Reload()
    for name in ("loss", "lr", "norm", "heldout_loss"):
        values = {event.step: event.value for event in found.Scalars(name)}
        assert values == pytest.approx(told(run, name), rel=1e-5), name
        assert [event.step for event in found.Scalars(name)] == sorted(values), "one curve, each step once"


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replies", "given"),
    [([], "no kept traces"), ([TOO_LONG] * 2, "2 kept traces longer than the 64 tokens")],
)
def test_nothing_to_train_on_is_an_honest_error(
    tmp_path: Path, recipe: specs.Recipe, replies: list[str], given: str
) -> None:
    from filtered import write_kept

    run = RunDir(tmp_path / "run")
    write_kept(run.kept, [], [])
    if replies:
        keep(run.kept, replies)
    with pytest.raises(TrainingError, match="nothing to train on") as caught:
        stage.run(recipe, run)
    assert given in str(caught.value)
    assert not run.student.exists()
    assert not run.untrained.exists()


def test_a_context_longer_than_the_students_own(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = kept(RunDir(tmp_path / "run"))
    with pytest.raises(SpecError) as caught:
        stage.run(changed(recipe, context_length=257), run)
    assert caught.value.exit_code == 2
    assert "257" in str(caught.value)
    assert "256" in str(caught.value)
    assert not run.untrained.exists()
    assert stage.run(changed(recipe, context_length=256), run).counts["context"] == 256


def test_heads_that_several_gpus_cannot_share(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = kept(RunDir(tmp_path / "run"))
    with pytest.raises(SpecError, match="the attention heads of the student cannot be shared") as caught:
        stage.run(changed(recipe, gpus=3, context_parallel=3), run)
    assert caught.value.exit_code == 2
    assert not run.untrained.exists(), "before anything is loaded"


def test_four_bits_are_for_one_gpu() -> None:
    specs.parse(specs.Recipe, "name: r\ntrain: {method: qlora, gpus: 1}", "r.yaml")
    with pytest.raises(SpecError, match="qlora trains on one GPU") as caught:
        specs.parse(specs.Recipe, "name: r\ntrain: {method: qlora, gpus: 2}", "r.yaml")
    assert caught.value.exit_code == 2


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_small_a_disk_is_told_before_anything_is_trained(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = kept(RunDir(tmp_path / "run"))
    prepared = prepare(recipe, run)
    free = guards.OTHER_BYTES
    monkeypatch.setattr(guards.shutil, "disk_usage", lambda path: Usage(10 * free, 9 * free, free))
    with pytest.raises(DiskFullError, match="the disk has too little space for training tiny"):
        stage.run(recipe, run)
    assert not run.untrained.exists()
    sizes = stage.sizes_of(prepared.config).parameters
    free = guards.bytes_needed(sizes, sizes, "fp32", recipe.train.keep_checkpoints)
    assert stage.run(recipe, run).counts["steps"] == 3, "just enough"


def test_an_adapter_on_a_base_in_bfloat16_is_saved_in_float32(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(stage, "check_disk", lambda folder, needed, what: asked.append(needed))
    run = kept(RunDir(tmp_path / "run"), REPLIES[:1])
    for precision in ("fp32", "bf16"):
        stage._room(prepare(changed(recipe, method="lora", precision=precision), run), run)
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("module", "built"), [("distill.train.checking", False), ("distill.train.student", True)], ids=["planned", "saved"]
)
def test_what_would_be_served_otherwise_is_not_trained(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch, module: str, built: bool
) -> None:
    """A generation config with another end token: found in the plan, before weights are loaded; and where only the
    saved student has it, there."""
    import importlib

    place = importlib.import_module(module)
    right = place.generation_settings

    def wrong(tokenizer: Any) -> Any:
        found = right(tokenizer)
        found.eos_token_id = 5
        return found

    monkeypatch.setattr(place, "generation_settings", wrong)
    run = kept(RunDir(tmp_path / "run"))
    with pytest.raises(ContractError) as caught:
        stage.run(recipe, run)
    assert "generation_config" in str(caught.value)
    assert run.untrained.exists() == built
    assert not run.student.exists()
    assert not run.metrics.exists(), "no step was made"


def test_a_damaged_kept_file_is_named(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = kept(RunDir(tmp_path / "run"), REPLIES[:1])
    file = run.kept / "train-00000.parquet"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(RunError, match=r"train-00000\.parquet cannot be read") as caught:
        stage.run(recipe, run)
    assert "distill filter" in str(caught.value)


def test_a_run_that_was_not_filtered_says_so(tmp_path: Path, recipe: specs.Recipe) -> None:
    with pytest.raises(RunError, match="no kept traces"):
        stage.run(recipe, RunDir(tmp_path / "run"))


# --- special tokens of the student's own -----------------------------------------------------------------------------


def test_one_trace_that_a_server_would_not_send_whole_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = word_tokenizer(tmp_path / "tokenizer", controls=(*CHATML, "<filename>"))
    quoting = Response("as in <filename>", "3").render()
    run = kept(RunDir(tmp_path / "run"), [*REPLIES[:4], quoting])
    recipe = recipe_in(tmp_path, student=spec(own, template="chatml"), context_length=128)
    counts: dict[str, Any] = stage.run(recipe, run).counts
    assert (counts["traces"], counts["special_token"], counts["heldout_special_token"]) == (4, 1, 0)
    assert counts["census"]["special"] == {"train": {"t4": "<filename>"}, "heldout": {}}
    assert "train: train: 1 trace left out, for <filename> in the reply" in capsys.readouterr().err
    nothing = kept(RunDir(tmp_path / "nothing"), [quoting] * 2 + [TOO_LONG])
    with pytest.raises(TrainingError, match="nothing to train on") as caught:
        stage.run(changed(recipe, context_length=64), nothing)
    assert caught.value.given == (
        "1 kept traces longer than the 64 tokens of the context; "
        "2 kept traces with special tokens of this student in their replies (<filename>)"
    )


def test_encoded_traces_of_other_trainings_go_at_the_end(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = kept(RunDir(tmp_path / "run"), REPLIES[:4])
    stage.run(recipe, run)
    first = {path.name for path in run.encoded.iterdir()}
    kept(run, REPLIES[:5])
    stage.run(recipe, run)
    second = {path.name for path in run.encoded.iterdir()}
    assert len(first) == len(second) == 2
    assert len(first & second) == 1, "the held-out ones are the same, and stay"


def test_an_adapter_of_an_earlier_student_goes(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = kept(RunDir(tmp_path / "run"), REPLIES[:1])
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").touch()
    stage.run(recipe, run)
    assert not run.adapter.exists()


# --- asked of what cannot be -----------------------------------------------------------------------------------------


def test_a_context_that_is_too_long_is_refused_before_the_run_takes_it_on(tmp_path: Path, recipe: specs.Recipe) -> None:
    from distill.pipeline import run_recipe

    run = kept(RunDir(tmp_path / "run"))
    run.recipe.write_text(specs.dump(recipe))
    with pytest.raises(SpecError, match=r"257 tokens, more than the 256 of student 'tiny'") as caught:
        run_recipe(changed(recipe, context_length=257), run, first="train", last="train")
    assert "--set train.context_length=null" in str(caught.value)
    assert run.recipe.read_text() == specs.dump(recipe)
    assert not run.manifest.exists()


def test_several_nodes_get_their_commands_before_anything_is_loaded(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stage, "begin", None)
    run = kept(RunDir(tmp_path / "run"))
    with pytest.raises(Interrupted, match="nothing is trained yet"):
        stage.run(changed(recipe, gpus=8, nodes=2), run)
    assert f"distill train {run.path} --gpus 8 --nodes 2 --node-rank 1 --master" in capsys.readouterr().err


def test_gpus_that_are_not_there_are_told_before_anything_is_encoded(
    tmp_path: Path, recipe: specs.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    run = kept(RunDir(tmp_path / "run"))
    with pytest.raises(UsageError, match="fewer GPUs"):
        stage.run(changed(recipe, gpus=8), run)
    assert not run.encoded.exists()


def test_the_commands_for_several_machines_come_after_the_contract(tmp_path: Path, recipe: specs.Recipe) -> None:
    run = kept(RunDir(tmp_path / "run"))
    found = stage.commands(changed(recipe, gpus=8, nodes=2), run)
    shared = f"distill train {run.path} --gpus 8 --nodes 2 --node-rank"
    assert [line.startswith(f"{shared} {rank} --master ") for rank, line in enumerate(found)] == [True, True]
    broken = recipe.model_copy(update={"student_overrides": {"forced_prefix": ""}})
    keep(run.kept, [Response(None, "4").render()])
    with pytest.raises(ContractError, match="what would be trained is not what would be served"):
        stage.commands(changed(broken, gpus=8, nodes=2), run)


def test_an_averages_heldout_loss_is_its_own(tmp_path: Path, recipe: specs.Recipe) -> None:
    settings = {"epochs": 4, "learning_rate": 1e-2}
    plain, mean = kept(RunDir(tmp_path / "plain")), kept(RunDir(tmp_path / "mean"))
    last = stage.run(changed(recipe, **settings), plain).counts["heldout_loss"]
    found = stage.run(changed(recipe, **settings, average_checkpoints=3), mean).counts["heldout_loss"]
    logged = told(mean, "heldout_loss")
    assert logged[max(logged)] == pytest.approx(last, abs=1e-6), "of the last step"
    assert abs(found - last) > 1e-4, "of the mean"
