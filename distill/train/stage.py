"""The fourth stage: the student learns the kept traces."""

from __future__ import annotations

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
    heldout, _ = encode_kept(run.kept, "heldout", tokenizer, contract, context)
    if not examples:
        raise TrainingError(
            "there is nothing to train on",
            given=f"{census.too_long} kept traces, all longer than the {context} tokens of the context"
            if census.too_long
            else f"no kept traces in {run.kept}",
            todo="look at the rejections with `distill show RUN --rejected`, or change filter.keep",
        )
    if census.too_long:
        say(f"train: {census.too_long} traces exceed {context} tokens and are left out; none is cut")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.set_attn_implementation(attention_for(model.device.type, census))
    with replacing_folder(run.untrained) as folder:
        save_student(model, tokenizer, contract, folder, facts={"student": spec.name, "trained": False})
    name = sha256_of([recipe.section_hash("train"), run.hashes(run.kept)])
    job = Job(name, examples, heldout, settings, tokenizer.pad_token_id, recipe.seed, run.checkpoints)
    result = _train(model, job, run)
    facts = {
        "student": spec.name,
        "base": spec.base,
        "license": spec.license,
        "teacher": recipe.teacher,
        "recipe": recipe.name,
        "settings": recipe.section_hash("train"),
        "trained_on": run.hashes(run.kept, run.verdicts, run.traces, run.prompts),
        "distill": __version__,
    }
    with replacing_folder(run.student) as folder:
        save_student(model, tokenizer, contract, folder, facts=facts)
    checkpoints.remove_all(run.checkpoints)
    return _report(run, model, census, result)


SHORT_TRACES = 192
"""Mean tokens of a trace up to which attention written out trains faster on a CPU than torch's kernel, by a fifth at
128: the lengths at which benchmarks/attention_speed.py finds them equal lie between 128 and 256."""


def attention_for(device: str, census: Census) -> str:
    """transformers' name of the attention that trains fastest."""
    return "eager" if device == "cpu" and census.tokens <= SHORT_TRACES * census.fitting else "sdpa"


def _train(model: Any, job: Job, run: RunDir) -> Result:
    steps = steps_in(len(job.train), job.settings.batch_size, job.settings.epochs)
    with bar("train", steps) as update:

        def log(values: dict[str, Any]) -> None:
            run.log_metrics("train", values)
            if "loss" in values:
                update(values["step"], f"loss {values['loss']:.3f}, {values['tokens_per_s']:.0f} tokens/s")

        return train(model, job, log)


def _report(run: RunDir, model: Any, census: Census, result: Result) -> StageReport:
    counts = {
        "traces": census.fitting,
        "too_long": census.too_long,
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
