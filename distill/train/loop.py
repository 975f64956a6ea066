"""The training loop: packed traces, loss on the response only, cosine learning rate, checkpoints, resume, and a stop
where something is broken. One process or many alike.

Knows nothing about runs, recipes or where traces come from.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from distill.errors import Interrupted, TrainingError
from distill.train import checkpoints
from distill.train.adapters import gradients_arrive
from distill.train.attention import Kernel
from distill.train.context_parallel import split_pack
from distill.train.guards import NO_NUMBER_TODO, LossGuard
from distill.train.packing import Pack, collate, passes
from distill.train.parallel import World
from distill.train.samples import examining
from distill.train.speed import Speedometer
from distill.train_specs import TrainSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from distill.train.averaging import Averager
    from distill.train.loss import StudentLoss
    from distill.train.mixture import Schedule
    from distill.train.token_set import Example, TokenSet

LOG_STEPS = 10
HELDOUT_TIMES = 10
"""How often the held-out loss is measured at most, spread over the job."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained on what. `name` identifies the job to its checkpoints; `pad` is the padding token's id."""

    name: str
    train: TokenSet
    heldout: TokenSet
    heldout_places: npt.NDArray[np.int64]
    """Those of the held-out traces that measure the loss."""
    schedule: Schedule
    settings: TrainSettings
    pad: int
    checkpoints: Path


@dataclass(frozen=True, slots=True)
class Result:
    steps: int
    loss: float
    heldout_loss: float | None
    seconds: float
    """Of all starts together."""
    resumed_at: int
    tokens_per_s: float
    """Tokens of traces, over the seconds spent in steps of this start."""


class Watcher(Protocol):
    """Who looks on: told of every measurement, and asked after every step whether to look at the student itself."""

    def begin(self, done: int) -> None:
        """Before the first step of this start, `done` having been made by earlier ones."""
        ...

    def log(self, values: Mapping[str, Any]) -> None: ...

    def after_step(self, done: int, steps: int, stop: Callable[[], bool]) -> bool:
        """Whether the model was used for something else than training. `stop` is asked by all ranks together, and says
        whether to leave off what is being looked at."""
        ...


def learning_rate(step: int, steps: int, peak: float, settings: TrainSettings) -> float:
    """Linear warmup, then a cosine from the peak to `final_learning_rate` of it (R1: one tenth)."""
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    low = settings.final_learning_rate
    return peak * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class _Abandoned(Exception):  # a way out of a step that is not finished
    """A stop was asked for in the middle of a step; its gradients are dropped, the weights are those before it."""


@dataclass(slots=True)
class Loop:
    """One training job on one process of `world`; `module` may be sharded, `optimizer` is over its parameters."""

    module: StudentLoss
    optimizer: torch.optim.Optimizer
    job: Job
    watcher: Watcher
    world: World = field(default_factory=World)
    speed: Speedometer | None = None
    """Measures tokens per second and the share of peak compute; None measures neither."""
    averager: Averager | None = None
    stop_asked: bool = False
    unproven: bool = True
    """Nobody has seen yet that gradients arrive: at the start, and after the model was used for something else."""
    heldout_owed: bool = False
    """The held-out loss of the last step was left off for a stop; the next start measures it first."""
    guard: LossGuard = field(init=False)

    def __post_init__(self) -> None:
        self.guard = LossGuard(self.job.settings.max_loss_jump)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def run(self) -> Result:
        """Trains to the end, from the newest checkpoint of this job if there is one.

        Raises TrainingError for a broken loss, naming the traces of that step, and Interrupted after Ctrl-C or SIGTERM
        once a checkpoint is written.
        """
        steps = self.job.schedule.steps
        first, spent = self._resume()
        self.watcher.begin(first)
        started = saved = time.monotonic()
        loss, heldout = math.nan, None
        trained, in_steps = 0, 0.0
        self.module.train()
        with self._signals():
            if self.heldout_owed:
                heldout = self._heldout(first)
            for step in range(first, steps):
                begun = time.monotonic()
                if self.job.schedule.phase_at(step).step_in_phase == 0:
                    self.guard = LossGuard(self.job.settings.max_loss_jump)  # other traces, another level
                try:
                    loss, norm = self.step(step)
                except _Abandoned:
                    self._interrupt(step, spent + time.monotonic() - started)
                trained += self._measure(step, time.monotonic() - begun)
                in_steps += time.monotonic() - begun
                done = step + 1
                if done % LOG_STEPS == 0 or done == steps:
                    self._report(done, loss, norm)
                if self._heldout_due(done):
                    heldout = self._heldout(done)
                self.unproven = self.watcher.after_step(done, steps, lambda done=done: self._leave_off(done))  # type: ignore[misc]
                if self.averager is not None:
                    self.averager.add(done, self.module.model)
                if done < steps and self.world.any(self._checkpoint_due(done, saved)):
                    self._save(done, spent + time.monotonic() - started)
                    saved = time.monotonic()
                if done < steps and self.world.any(self.stop_asked):
                    self._interrupt(done, spent + time.monotonic() - started)
        seconds = spent + time.monotonic() - started
        return Result(steps, loss, heldout, seconds, first, trained / in_steps if in_steps else 0.0)

    # --- one step ---

    def step(self, step: int) -> tuple[float, float]:
        """One optimizer step: the mean loss per response token, and the gradient norm before clipping."""
        import torch

        job = self.job
        indices = job.schedule.batch(step)
        self._set_rate(step)
        total = int(job.train.loss_tokens[indices].sum())
        summed = torch.zeros((), dtype=torch.float64)
        for pack in self._packs(job.train, indices):
            loss = self.module(pack) / total
            loss.backward()
            if self.unproven:
                gradients_arrive(self.module.model)
                self.unproven = False
            summed += loss.detach().double().cpu()
            if self.world.any(self.stop_asked):
                self.optimizer.zero_grad(set_to_none=True)
                raise _Abandoned
        mean = self.world.total_of_parts(float(summed))
        norm = clipped(self.module, job.settings.max_grad_norm)
        self._guard(step, mean, norm, indices)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return mean, norm

    def _measure(self, step: int, seconds: float) -> int:
        """The tokens of a step's traces."""
        indices = self.job.schedule.batch(step)
        lengths = self.job.train.lengths[indices].tolist()
        if self.speed is not None:
            self.speed.add(lengths, int(self.job.train.loss_tokens[indices].sum()), seconds)
        return sum(lengths)

    def _packs(self, traces: TokenSet, indices: npt.NDArray[np.int64]) -> Iterator[Pack]:
        """This rank's packs of these traces; every rank gets as many."""
        capacity = self.job.settings.micro_batch_tokens * self.world.context_parallel
        for ranks in passes(traces.lengths[indices].tolist(), capacity, self.world.data_size):
            yield self._pack([traces.example(int(indices[place])) for place in ranks[self.world.data_rank]])

    def _pack(self, traces: Sequence[Example]) -> Pack:
        pack = collate(traces, pad=self.job.pad, multiple=self._multiple(traces), kernel=self._kernel)
        return split_pack(pack, self.world, pad=self.job.pad).to(self.device)

    @property
    def _kernel(self) -> Kernel:
        return "varlen" if self.device.type == "cuda" else "apart"

    def _multiple(self, traces: Sequence[Example]) -> int:
        """Rows are filled up to a multiple of this many tokens, at most a 32nd more. On a CPU every new shape costs a
        kernel and memory, a hundred of them two fifths of the speed (benchmarks/training_speed.py)."""
        if self.device.type != "cpu":
            return 1
        tokens = sum(trace.length for trace in traces)
        return max(16, 1 << max(0, tokens.bit_length() - 6))

    def _set_rate(self, step: int) -> None:
        position = self.job.schedule.phase_at(step)
        peak = position.phase.learning_rate
        rate = learning_rate(position.step_in_phase, position.steps_in_phase, peak, self.job.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _guard(self, step: int, mean: float, norm: float, indices: npt.NDArray[np.int64]) -> None:
        """Before the weights take the step: a broken one changes nothing."""
        traces = [self.job.train.example(int(index)) for index in indices]
        names = [trace.trace_id for trace in traces]
        try:
            self.guard.check(step + 1, mean, norm, names)
        except TrainingError:
            self.optimizer.zero_grad(set_to_none=True)
            self.guard.check(step + 1, mean, norm, names, [self.loss_of([trace]) for trace in traces])
            raise

    # --- looking ---

    def loss_of(self, traces: Sequence[Example]) -> float:
        """Mean loss per response token of a few traces in one pass, without training; the same on every rank."""
        with self._looking():
            summed = float(self.module(self._pack(traces)))
        everywhere = self.world.total_of_parts(summed) / self.world.data_size  # each of which had these traces
        return everywhere / sum(trace.loss_tokens for trace in traces)

    def heldout_loss(self, stop: Callable[[], bool] = lambda: False) -> float | None:
        """Mean loss per response token of the held-out traces; None when `stop`, asked after every pass, says so."""
        heldout, places, summed = self.job.heldout, self.job.heldout_places, 0.0
        with self._looking():
            for pack in self._packs(heldout, places):
                summed += float(self.module(pack))
                if stop():
                    return None
        return self.world.total_of_parts(summed) / int(heldout.loss_tokens[places].sum())

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        import torch

        with torch.no_grad(), examining(self.module):
            yield

    def _heldout_due(self, done: int) -> bool:
        steps = self.job.schedule.steps
        return len(self.job.heldout_places) > 0 and (done % -(-steps // HELDOUT_TIMES) == 0 or done == steps)

    def _leave_off(self, done: int) -> bool:
        """Whether a stop is asked for that is waited for; after the last step there is nothing left to save early."""
        return done < self.job.schedule.steps and self.world.any(self.stop_asked)

    def _heldout(self, done: int) -> float | None:
        loss = self.heldout_loss(lambda: self._leave_off(done))
        self.heldout_owed = loss is None
        if loss is None:
            return None
        self.watcher.log({"step": done, "steps": self.job.schedule.steps, "heldout_loss": loss})
        if done == self.job.schedule.steps and not math.isfinite(loss):  # earlier, the next step names its traces
            raise TrainingError("the held-out loss is not a number after the last step", todo=NO_NUMBER_TODO)
        return loss

    def _report(self, done: int, loss: float, norm: float) -> None:
        position = self.job.schedule.phase_at(done - 1)
        values: dict[str, Any] = {
            "step": done,
            "steps": self.job.schedule.steps,
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "norm": norm,
            **(self.speed.read() if self.speed is not None else {}),
        }
        self.watcher.log({**values, **({"phase": position.phase.name} if position.phase.name else {})})

    # --- stopping and going on ---

    def _resume(self) -> tuple[int, float]:
        found = checkpoints.newest(self.job.checkpoints, self.job.name, world=self.world)
        if found is None:
            return 0, 0.0
        path, position = found
        checkpoints.load(path, self.module, self.optimizer, world=self.world)
        self.guard = LossGuard.from_json(position.state, self.job.settings.max_loss_jump)
        self.heldout_owed = bool(position.state.get("heldout_owed"))
        return position.step, position.seconds

    def _checkpoint_due(self, done: int, saved: float) -> bool:
        by_step = self.job.settings.checkpoint_steps
        by_time = time.monotonic() - saved >= self.job.settings.checkpoint_minutes * 60
        return by_time or (by_step is not None and done % by_step == 0)

    def _save(self, done: int, seconds: float) -> None:
        state = {**self.guard.to_json(), "heldout_owed": self.heldout_owed}
        position = checkpoints.Position(done, self.job.name, seconds, state)
        keep = self.job.settings.keep_checkpoints
        checkpoints.save(self.job.checkpoints, position, self.module, self.optimizer, keep=keep, world=self.world)

    def _interrupt(self, done: int, seconds: float) -> NoReturn:
        self._save(done, seconds)
        raise Interrupted(
            f"training stopped after step {done} of {self.job.schedule.steps}, saved",
            todo="start the same command again; it goes on from there",
        )

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a stop after the pass under way; a second Ctrl-C leaves at once. A second SIGTERM
        does not: a cluster that sends one to every process of a job, to torchrun too, makes two of it."""

        def ask(number: int, frame: Any) -> None:
            if self.stop_asked and number == signal.SIGINT:
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


def clipped(module: torch.nn.Module, limit: float) -> float:
    """Scales the gradients so that their norm is at most `limit`; returns the norm before. Of all shards together."""
    import torch

    norm: Any = torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None], limit)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
