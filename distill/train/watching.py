"""Looks on while a student learns: metrics to the run, to trackers and to the reader; the student's own answers.

Knows nothing about how it learns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill import specs
from distill.progress import Bar, bar, say
from distill.prompts.stage import read_prompts
from distill.records import Prompt
from distill.rundir import RunDir
from distill.train.architecture import sizes_of
from distill.train.learner import Learner, precision
from distill.train.parallel import World
from distill.train.preparing import Prepared
from distill.train.samples import Sampler, metrics_line, sample_steps, write_samples
from distill.train.speed import Speedometer, peak_of
from distill.train.trackers import Tracker, trackers


@dataclass(slots=True)
class Watch:
    """What the loop tells goes everywhere, from the first rank; samples are drawn by all ranks together."""

    prepared: Prepared
    run: RunDir
    learner: Learner
    world: World
    sampler: Sampler
    sample_at: frozenset[int]
    speed: Speedometer | None
    update: Bar
    trackers: Sequence[Tracker] = ()

    def begin(self, done: int) -> None:
        if self.world.first:
            self.trackers = _trackers(self.prepared, self.run, done)

    def log(self, values: Mapping[str, Any]) -> None:
        if not self.world.first:
            return
        self.run.log_metrics("train", values)
        for tracker in self.trackers:
            tracker.log(int(values["step"]), {k: v for k, v in values.items() if k not in ("step", "steps")})
        if "loss" in values:
            rate = f", {values['tokens_per_s']:.0f} tokens/s" if "tokens_per_s" in values else ""
            self.update(values["step"], f"loss {values['loss']:.3f}{rate}")

    def after_step(self, done: int, steps: int, stop: Callable[[], bool]) -> bool:
        """Samples the student where that is due; whether it did."""
        if done not in self.sample_at:
            return False
        report = self.sampler.sample(self.learner.inner, self.learner.to_sample, stop)
        if report is not None:
            write_samples(report, self.run.logs, done)
            self.log({"step": done, "steps": steps, **report.metrics})
            say(f"train: step {done} of {steps}: {metrics_line(report)}")
        return True


@contextlib.contextmanager
def watching(prepared: Prepared, run: RunDir, learner: Learner, world: World) -> Iterator[Watch]:
    """From before the first step to after the last."""
    recipe, steps = prepared.recipe, prepared.schedule.steps
    sampler = _sampler(prepared, run, mixed=learner.module.mixed)
    at = sample_steps(steps, recipe.train.samples) if sampler.problems else frozenset[int]()
    shown = bar("train", steps) if world.first else contextlib.nullcontext(_nowhere)
    with shown as update:
        watch = Watch(prepared, run, learner, world, sampler, at, _speedometer(prepared, learner, world), update)
        try:
            yield watch
        finally:
            for tracker in watch.trackers:
                tracker.close()


def _nowhere(done: float, remark: str = "") -> None:
    del done, remark


def _speedometer(prepared: Prepared, learner: Learner, world: World) -> Speedometer:
    import torch

    dtype, mixed = precision(learner.settings, world.device)
    peak = peak_of(world.device, torch.bfloat16 if mixed else dtype)
    adapter = 0 if learner.settings.method == "full" else learner.trained_parameters
    return Speedometer(sizes_of(prepared.config), peak, devices=world.size, adapter_parameters=adapter)


def _trackers(prepared: Prepared, run: RunDir, done: int) -> list[Tracker]:
    recipe = prepared.recipe
    if not recipe.train.trackers:
        return []
    settings = {"student": prepared.spec.name, "seed": recipe.seed, **recipe.train.model_dump(mode="json")}
    return trackers(
        recipe.train.trackers,
        run_name=run.path.name,
        run_id=prepared.name[:12],
        settings=settings,
        folder=run.logs,
        first_step=done,
    )


def _sampler(prepared: Prepared, run: RunDir, *, mixed: bool) -> Sampler:
    recipe, tokenizer = prepared.recipe, prepared.tokenizer
    evaluate, asked = recipe.evaluate, recipe.train.samples
    settings = asked.model_copy(update={"max_tokens": min(asked.max_tokens, evaluate.max_tokens)})
    return Sampler(
        prepared.spec.contract,
        tokenizer,
        _problems(recipe, run) if asked.problems else [],
        settings,
        evaluate.sampling.sampling(recipe.seed),
        seed=recipe.seed,
        stops=[tokenizer.eos_token_id],
        pad=tokenizer.pad_token_id,
        context=prepared.config.max_position_embeddings,
        mixed=mixed,
        chosen=recipe.verify,
    )


def _problems(recipe: specs.Recipe, run: RunDir) -> list[Prompt]:
    """Prompts that are held out from training, as many as are asked."""
    import pyarrow.parquet as pq

    if not run.prompts.is_file():
        return []
    heldout: set[str] = set()
    for file in sorted(run.kept.glob("heldout-*.parquet")):
        heldout.update(pq.read_table(file, columns=["prompt_id"]).column(0).to_pylist())
    wanted = sorted(heldout)[: recipe.train.samples.problems]
    return [prompt for prompt in read_prompts(run.prompts) if prompt.id in set(wanted)]
