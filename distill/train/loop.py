"""The training loop: loss on the response only, cosine learning rate, checkpoints, resume, stop on a broken loss.

Knows nothing about runs, recipes or where examples come from.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import Interrupted, TrainingError
from distill.train import checkpoints
from distill.train.encoding import IGNORE, Example, batches, collate, micro_batches, padded, steps_in
from distill.train_specs import Phase, TrainSettings

BETAS, EPSILON = (0.9, 0.95), 1e-8
"""AdamW's, as in the DeepSeek-V3 report (arXiv 2412.19437, section 4.2); not published for R1's students."""
LOG_STEPS = 10
HEAD_ROWS = 256
"""Response tokens go through the head in multiples of this many: few shapes, for the reason given at `WIDTH`."""
HELDOUT_TIMES = 10
"""How often the held-out loss is measured, spread over the job."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained on what. `name` identifies the job to its checkpoints; `pad` is the padding token's id."""

    name: str
    train: Sequence[Example]
    heldout: Sequence[Example]
    settings: TrainSettings
    phases: Sequence[Phase]
    pad: int
    seed: int
    checkpoints: Path


@dataclass(frozen=True, slots=True)
class Result:
    steps: int
    loss: float
    heldout_loss: float | None
    seconds: float
    resumed_at: int


Log = Callable[[dict[str, Any]], None]


def learning_rate(step: int, steps: int, peak: float, settings: TrainSettings) -> float:
    """Linear warmup, then a cosine from the peak to `final_learning_rate` of it (R1: one tenth)."""
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    low = settings.final_learning_rate
    return peak * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def train(model: Any, job: Job, log: Log) -> Result:
    """Trains to the end, from the newest checkpoint of this job if there is one.

    Raises TrainingError for a loss that is not a number, naming the traces of that step, and Interrupted after
    Ctrl-C or SIGTERM once a checkpoint is written.
    """
    if not job.train:
        raise TrainingError(
            "there is nothing to train on", todo="look at the rejections: `distill show RUN --rejected`"
        )
    return _Loop(model, job, log).run()


class _Loop:
    def __init__(self, model: Any, job: Job, log: Log) -> None:
        import torch

        self.model, self.job, self.log = model, job, log
        self.device = next(model.parameters()).device
        matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": job.settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=job.phases[0].learning_rate, betas=BETAS, eps=EPSILON, fused=True)
        self.steps = steps_in(len(job.train), job.settings.batch_size, job.phases[0].epochs)
        self.stop_asked = False

    def run(self) -> Result:
        first, spent = self._resume()
        started = saved = time.monotonic()
        loss, tokens, heldout = math.nan, 0, None
        every = max(1, self.steps // HELDOUT_TIMES)
        self.model.train()
        stream = itertools.islice(
            batches(self.job.train, self.job.settings.batch_size, self.job.seed), first, self.steps
        )
        with self._signals():
            for step, batch in enumerate(stream, start=first):
                loss, norm = self._step(step, batch)
                tokens += sum(example.length for example in batch)
                done = step + 1
                if done % LOG_STEPS == 0 or done == self.steps:
                    rate = tokens / (time.monotonic() - started)
                    lr = self.optimizer.param_groups[0]["lr"]
                    self.log(
                        {"step": done, "steps": self.steps, "loss": loss, "lr": lr, "norm": norm, "tokens_per_s": rate}
                    )
                if self.job.heldout and (done % every == 0 or done == self.steps):
                    heldout = self.loss_of(self.job.heldout)
                    self.log({"step": done, "steps": self.steps, "heldout_loss": heldout})
                if done < self.steps and (self._checkpoint_due(done, saved) or self.stop_asked):
                    self._save(done, spent + time.monotonic() - started)
                    saved = time.monotonic()
                if self.stop_asked and done < self.steps:
                    raise Interrupted(
                        f"training stopped after step {done} of {self.steps}, saved",
                        todo="start the same command again; it goes on from there",
                    )
        return Result(self.steps, loss, heldout, spent + time.monotonic() - started, first)

    def _step(self, step: int, batch: list[Example]) -> tuple[float, float]:
        """One optimizer step; returns the mean loss per response token and the gradient norm before clipping."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.steps, self.job.phases[0].learning_rate, self.job.settings)
        total = sum(example.loss_tokens for example in batch)
        summed = 0.0
        for part in micro_batches(batch, self.job.settings.micro_batch_tokens):
            loss = self._summed_loss(part) / total
            loss.backward()
            summed += loss.item()
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.job.settings.max_grad_norm))
        if not math.isfinite(summed) or not math.isfinite(norm):
            raise TrainingError(
                f"the loss is not a number at step {step + 1}",
                given="traces " + ", ".join(example.trace_id[:12] for example in batch[:8]),
                todo="lower train.learning_rate, or use train.precision: fp32; that is another training, which starts "
                "from the beginning",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return summed, norm

    def _summed_loss(self, part: Sequence[Example]) -> Any:
        """Cross-entropy summed over the response tokens of some examples, in float32.

        The head, the widest product of all, runs over response tokens alone, and over filler up to full `HEAD_ROWS`.
        """
        import torch

        inputs, labels = collate(part, self.job.pad, self.device)
        mixed = self.job.settings.precision == "mixed"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            hidden = self.model.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state[:, :-1]
            targets = labels[:, 1:]
            places = (targets != IGNORE).flatten().nonzero().squeeze(1)
            filler = places.new_zeros(padded(len(places), HEAD_ROWS) - len(places))
            rows = hidden.flatten(0, 1)[torch.cat([places, filler])]
            logits = self.model.get_output_embeddings()(rows)
        wanted = torch.cat([targets.flatten()[places], torch.full_like(filler, IGNORE)])
        return torch.nn.functional.cross_entropy(logits.float(), wanted, ignore_index=IGNORE, reduction="sum")

    def loss_of(self, examples: Sequence[Example]) -> float:
        """Mean loss per response token without training."""
        import torch

        self.model.eval()
        with torch.no_grad():
            parts = micro_batches(examples, self.job.settings.micro_batch_tokens)
            total = sum(float(self._summed_loss(part)) for part in parts)
        self.model.train()
        return total / sum(example.loss_tokens for example in examples)

    def _resume(self) -> tuple[int, float]:
        found = checkpoints.newest(self.job.checkpoints, self.job.name)
        if found is None:
            return 0, 0.0
        path, position = found
        checkpoints.load(path, self.model, self.optimizer)
        return position.step, position.seconds

    def _checkpoint_due(self, done: int, saved: float) -> bool:
        by_step = self.job.settings.checkpoint_steps
        by_time = time.monotonic() - saved >= self.job.settings.checkpoint_minutes * 60
        return by_time or (by_step is not None and done % by_step == 0)

    def _save(self, done: int, seconds: float) -> None:
        position = checkpoints.Position(done, self.job.name, seconds)
        checkpoints.save(
            self.job.checkpoints, position, self.model, self.optimizer, keep=self.job.settings.keep_checkpoints
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a stop after the current step; a second Ctrl-C leaves at once."""

        def ask(number: int, frame: Any) -> None:
            if self.stop_asked:
                raise KeyboardInterrupt
            self.stop_asked = True

        before = {}
        with contextlib.suppress(ValueError):  # only the main thread may handle signals
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
