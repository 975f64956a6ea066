"""The fourth stage: the student learns the kept traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill import __version__, specs
from distill.errors import TrainingError
from distill.files import replacing_folder, sha256_of
from distill.progress import bar, say
from distill.rundir import RunDir, StageReport
from distill.train import checkpoints
from distill.train.encoding import Census, encode_kept, steps_in
from distill.train.loop import Job, Result, train
from distill.train.student import load_student, prepare_tokenizer, save_student


def run(recipe: specs.Recipe, run: RunDir) -> StageReport:
    """Writes `student/`. Raises TrainingError when nothing fits, ContractError when the tokenizer cannot serve."""
    import torch

    spec = specs.student(recipe.student, recipe.student_overrides)
    settings, contract = recipe.train, spec.contract
    tokenizer = prepare_tokenizer(spec)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    model: Any = load_student(spec, tokenizer, seed=recipe.seed, dtype=dtype)
    context = min(settings.context_length, model.config.max_position_embeddings)
    examples, census = encode_kept(run.kept, "train", tokenizer, contract, context)
    heldout, heldout_census = encode_kept(run.kept, "heldout", tokenizer, contract, context)
    if not examples:
        raise TrainingError(
            "there is nothing to train on",
            given=f"{census.too_long} kept traces, all longer than the {context} tokens of the context"
            if census.too_long
            else f"no kept traces in {run.kept}",
            todo="look at the rejections with `distill show RUN --rejected`, or change filter.keep",
        )
    too_long = census.too_long + heldout_census.too_long
    if too_long:
        of_heldout = f", {heldout_census.too_long} of them held out" if heldout_census.too_long else ""
        say(f"train: {too_long} traces exceed {context} tokens and are left out{of_heldout}; none is cut")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.set_attn_implementation(attention_for(model.device.type, census))
    with replacing_folder(run.untrained) as folder:
        save_student(model, tokenizer, contract, folder, facts={"student": spec.name, "trained": False})
    folders = {what: specs.folder_revision(folder) for what, folder in recipe.model_folders("train").items()}
    name = sha256_of([recipe.section_hash("train"), run.hashes(run.kept), folders])
    checkpoints_here = run.checkpoints / name[:12]
    _tell_of_others(run.checkpoints, checkpoints_here)
    job = Job(
        name, examples, heldout, settings, spec.phases(settings), tokenizer.pad_token_id, recipe.seed, checkpoints_here
    )
    result = _train(model, job, run)
    facts = {
        "student": spec.name,
        "base": spec.base,
        "license": spec.license,
        "gguf_pre": spec.gguf_pre,
        "teacher": recipe.teacher,
        "recipe": recipe.name,
        "settings": recipe.section_hash("train"),
        "trained_on": run.hashes(run.kept, run.verdicts, run.traces, run.prompts),
        "distill": __version__,
    }
    with replacing_folder(run.student) as folder:
        save_student(model, tokenizer, contract, folder, facts=facts)
    checkpoints.remove_all(run.checkpoints)
    return _report(run, model, census, heldout_census, result)


def _tell_of_others(folder: Path, own: Path) -> None:
    """An interrupted training with other settings, data or student keeps its checkpoints until one has ended."""
    others = sorted({path.parent.name for path in folder.glob("*/step-*")} - {own.name})
    if others:
        say(
            f"train: this is another training than the interrupted {', '.join(others)} in {folder} and begins anew; "
            "those are kept until it has ended"
        )


SHORT_TRACES = 192
"""Mean tokens of a trace up to which attention written out trains faster on a CPU than torch's kernel, by a fifth at
128: the lengths at which benchmarks/attention_speed.py finds them equal lie between 128 and 256."""


def attention_for(device: str, census: Census) -> str:
    """transformers' name of the attention that trains fastest."""
    return "eager" if device == "cpu" and census.tokens <= SHORT_TRACES * census.fitting else "sdpa"


def _train(model: Any, job: Job, run: RunDir) -> Result:
    steps = steps_in(len(job.train), job.settings.batch_size, job.phases[0].epochs)
    with bar("train", steps) as update:

        def log(values: dict[str, Any]) -> None:
            run.log_metrics("train", values)
            if "loss" in values:
                update(values["step"], f"loss {values['loss']:.3f}, {values['tokens_per_s']:.0f} tokens/s")

        return train(model, job, log)


def _report(run: RunDir, model: Any, census: Census, heldout_census: Census, result: Result) -> StageReport:
    counts = {
        "traces": census.fitting,
        "too_long": census.too_long,
        "heldout": heldout_census.fitting,
        "heldout_too_long": heldout_census.too_long,
        "tokens": census.tokens,
        "longest": census.longest,
        "parameters": model.num_parameters(),
        "steps": result.steps,
        "resumed_at": result.resumed_at,
        "loss": result.loss,
        "heldout_loss": result.heldout_loss,
        "seconds": result.seconds,
    }
    heldout = f", held-out loss {result.heldout_loss:.3f}" if result.heldout_loss is not None else ""
    line = f"{result.steps} steps over {census.fitting} traces, loss {result.loss:.3f}{heldout}"
    return StageReport(counts, (run.student, run.untrained), (line,))
