"""Asks the student itself, while it learns: does it stop, keep to the form, loop, and find the right answer?

To examine a student is to sample it: the contract renders and parses, the engines' decoding draws, the verifiers judge.
Knows nothing about losses, optimizers or runs; neither the random state nor any weight is touched.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distill.contract import Contract
from distill.engines.decoding import Row, generate
from distill.engines.memory import free_memory
from distill.files import sha256_of
from distill.progress import say
from distill.records import Prompt, Sampling, storable
from distill.train_specs import SampleSettings
from distill.verify import BROKEN, Outcome, failing
from distill.verify.pool import VerifierPool
from distill.verify.verifiers import JUDGE, Chosen, verifier_of

ModelToSample = Callable[[], AbstractContextManager[Any]]
"""Gives the model that is sampled in place of the one in training: a copy made for it and dropped afterwards."""

CPU_CACHE_BYTES = 1_000_000_000
"""Keys and values of one batch of samples, on a CPU."""
GPU_SHARE = 0.5
"""Share of a GPU's free memory for them: while the cache grows, a layer's old and new memory stand side by side, and
the products of a step want some too."""
REPEATS, LEAST_SPAN = 4, 64
"""A tail of at least LEAST_SPAN tokens that is one piece at least REPEATS times over is a loop. Shorter ones occur in
good texts: 0.333333, a row of zeros, the same step of a sum three times. A student that has fallen into a loop stays
there to its token limit, so nothing is lost but loops that began within the last 64 tokens; a stop token ends one."""
EXAMPLES = 3
WORTH_SAMPLES = 100
"""Steps of a job from which on samples are drawn where the recipe does not say when."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply. `form` is empty for what the contract wants, else the fault's name; `outcome` is None where the
    problem's kind has no verifier or there is no gold answer."""

    problem: str
    reply: str
    tokens: int
    stopped: bool
    looped: bool
    form: str
    outcome: str | None
    reason: str
    gold: str | None


@dataclass(frozen=True, slots=True)
class SampleReport:
    """Shares of all samples. `accuracy` is over those that could be judged, a cut reply is wrong; None where none was.
    `mean_tokens` counts the stop token."""

    stop_rate: float
    tag_rate: float
    loop_rate: float
    accuracy: float | None
    mean_tokens: float
    samples: tuple[Sample, ...]

    @property
    def examples(self) -> tuple[str, ...]:
        """A few replies to read."""
        return tuple(sample.reply for sample in self.samples[:EXAMPLES])

    @property
    def metrics(self) -> dict[str, float]:
        """For metrics.jsonl and trackers."""
        found = {
            "sample_stop_rate": self.stop_rate,
            "sample_tag_rate": self.tag_rate,
            "sample_loop_rate": self.loop_rate,
            "sample_tokens": self.mean_tokens,
        }
        return found if self.accuracy is None else {**found, "sample_accuracy": self.accuracy}


def sample_steps(steps: int, settings: SampleSettings) -> frozenset[int]:
    """After which of `steps` optimizer steps the student is asked; the last is one of them."""
    if not settings.problems:
        return frozenset()
    every = settings.every_steps
    if every is not None:
        return frozenset([*range(every, steps + 1, every), steps])
    if steps < WORTH_SAMPLES:
        return frozenset()
    return frozenset(max(1, steps * quarter // 4) for quarter in (1, 2, 3, 4))


class Sampler:
    """Asks the same problems with the same seeds every time, so that two reports differ by the student alone.

    `stops` are the ids that end a reply, `context` the student's own limit in tokens. Problems beyond
    `settings.problems` and those whose prompt leaves no room for a reply are not asked. `mixed`: computed in bfloat16
    over float32 weights, as in training. `chosen` is the recipe's `verify`.
    """

    def __init__(
        self,
        contract: Contract,
        tokenizer: Any,
        problems: Sequence[Prompt],
        settings: SampleSettings,
        sampling: Sampling,
        *,
        seed: int,
        stops: Collection[int],
        pad: int,
        context: int,
        mixed: bool = False,
        chosen: Chosen = MappingProxyType({}),
    ) -> None:
        self.contract, self.tokenizer = contract, tokenizer
        self.stops, self.pad, self.mixed, self.chosen = stops, pad, mixed, chosen
        self.problems: list[Prompt] = []
        self._rows: list[Row] = []
        for problem in problems[: settings.problems]:
            ids = contract.encode_prompt(tokenizer, contract.messages(problem.text, problem.kind))
            room = min(settings.max_tokens, context - len(ids))
            if room > 0:
                own = int(sha256_of([seed, problem.id])[:8], 16) & 0x7FFFFFFF
                self.problems.append(problem)
                self._rows.append(Row(ids, room, sampling, own))

    def sample(
        self, model: Any, model_to_sample: ModelToSample | None = None, stop: Callable[[], bool] = lambda: False
    ) -> SampleReport | None:
        """Under torch.distributed every rank has to call this, with the same model; rank 0 gets the report, the others
        None, as everyone does when there is no problem to ask, or when `stop`, asked before every token, says so."""
        if not self._rows:
            return None
        given = contextlib.nullcontext(model) if model_to_sample is None else model_to_sample()
        try:
            with given as asked, examining(asked), _autocast(asked, self.mixed):
                found = self._replies(asked, stop)
        except _LeftOff:
            return None
        finally:
            free_memory()
        return self._report(found) if _rank() == 0 else None

    def _replies(self, model: Any, stop: Callable[[], bool]) -> list[list[int]]:
        """The new ids of every row, in batches that fit the memory; the longest prompts share a batch."""
        found: list[list[int]] = [[] for _ in self._rows]
        order = sorted(range(len(self._rows)), key=lambda place: -len(self._rows[place].prompt))
        size = rows_at_once(model, max(len(row.prompt) + row.max_tokens for row in self._rows))
        for start in range(0, len(order), size):
            places = order[start : start + size]
            for index, ids in generate(_Shared(model, stop), [self._rows[p] for p in places], self.stops, self.pad):
                found[places[index]] = ids
        return found

    def _report(self, replies: Sequence[list[int]]) -> SampleReport:
        samples = []
        for problem, ids in zip(self.problems, replies, strict=True):
            stopped = ids[-1] in self.stops
            text: str = self.tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
            parsed = self.contract.parse(text, cut=not stopped)
            form: str = parsed.fault or ("missing_answer" if parsed.answer is None else "")
            if not form and problem.reasoning == "required" and parsed.reasoning is None:
                form = "missing_reasoning"
            if not form and problem.reasoning == "none" and parsed.reasoning is not None:
                form = "unwanted_reasoning"
            samples.append((problem, storable(text), len(ids), stopped, loops(ids), form, parsed.answer))
        outcomes = _verified(
            [(problem, answer if stopped else None) for problem, _, _, stopped, _, _, answer in samples], self.chosen
        )
        return _summed(
            [
                Sample(
                    problem.id,
                    text,
                    tokens,
                    stopped,
                    looped,
                    form,
                    outcome.outcome if outcome else None,
                    outcome.reason if outcome else "",
                    problem.answer,
                )
                for (problem, text, tokens, stopped, looped, form, _), outcome in zip(samples, outcomes, strict=True)
            ]
        )


def _summed(samples: Sequence[Sample]) -> SampleReport:
    judged = [sample.outcome == "pass" for sample in samples if sample.outcome and sample.reason not in BROKEN]
    count = len(samples)
    return SampleReport(
        stop_rate=sum(sample.stopped for sample in samples) / count,
        tag_rate=sum(not sample.form for sample in samples) / count,
        loop_rate=sum(sample.looped for sample in samples) / count,
        accuracy=sum(judged) / len(judged) if judged else None,
        mean_tokens=sum(sample.tokens for sample in samples) / count,
        samples=tuple(samples),
    )


def _verified(pairs: Sequence[tuple[Prompt, str | None]], chosen: Chosen) -> list[Outcome | None]:
    """An outcome per problem and finished answer, None where there is no verifier for its kind or nothing to compare
    with. Without an answer it is wrong, and no verifier is started for that."""
    needed = [verifier_of(problem.kind, chosen) for problem, _ in pairs]
    able = [
        name is not None and (problem.answer is not None or bool(problem.tests))
        for name, (problem, _) in zip(needed, pairs, strict=True)
    ]
    asked = [bool(answer) and can for (_, answer), can in zip(pairs, able, strict=True)]
    items = [(name, problem, answer) for name, (problem, answer), ask in zip(needed, pairs, asked, strict=True) if ask]
    outcomes: Iterator[Outcome] = iter(())
    if items:
        with VerifierPool(JUDGE, workers=1, setup=tuple(sorted({str(item[0]) for item in items}))) as pool:
            outcomes = iter(list(pool.map(items)))
    found = zip(able, asked, strict=True)
    return [next(outcomes) if ask else failing("no_answer") if can else None for can, ask in found]


def loops(ids: Sequence[int]) -> bool:
    """Whether the ids end in a cycle: see REPEATS and LEAST_SPAN. Counting on (step 1, step 2, …) is none.

    Read from the end, a tail of period p is where the sequence agrees with itself moved by p, as far as it does; the
    z-function tells that for all p in one pass.
    """
    tail = list(reversed(ids))
    agrees = [0] * len(tail)
    left = right = 0
    for place in range(1, len(tail)):
        reach = min(right - place, agrees[place - left]) if place < right else 0
        while place + reach < len(tail) and tail[reach] == tail[place + reach]:
            reach += 1
        agrees[place] = reach
        if place + reach > right:
            left, right = place, place + reach
        if place + reach >= max(LEAST_SPAN, REPEATS * place):
            return True
    return False


def write_samples(report: SampleReport, folder: Path, step: int) -> None:
    """FOLDER/samples-STEP.jsonl, one reply a line. A disk that is full is said, and does not stop the training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(asdict(sample), ensure_ascii=False) for sample in report.samples]
        (folder / f"samples-{step:08d}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        say(f"train: the samples of step {step} could not be written ({error.strerror})")


# --- the model while it is asked -------------------------------------------------------------------------------------


@contextlib.contextmanager
def examining(model: Any) -> Iterator[None]:
    """Evaluation mode inside, afterwards every module in the mode that it had.

    Layers of bitsandbytes' 4-bit weights stay in training mode, which changes nothing of what they compute: on a CPU
    that has bfloat16 products they would repack their weights at the first forward pass in evaluation mode, and get no
    gradient from then on (bitsandbytes 0.50, nn/modules.py, Linear4bit.forward).
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for module, _ in modes:
        # own parameters alone: asking peft's trained vocabulary rows for `weight` puts a whole matrix together, which
        # sharded ones cannot
        if any(hasattr(own, "quant_state") for own in module.parameters(recurse=False)):
            module.training = True
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, _ in modes:
            if hasattr(module, "reshard"):
                module.reshard()  # FSDP leaves the outermost weights gathered after a pass without a backward


class _LeftOff(Exception):  # a way out of the middle of a reply
    """Somebody waits for the training to end."""


class _Shared:
    """A model as decoding calls it, for one process or many that hold parts of it.

    Decoding runs in inference mode, whose tensors no later training may touch; buffers that a library keeps (gathered
    weights of FSDP) would be such. Here they are made without gradients, but outside of it. With several ranks
    all take the logits of rank 0: a rounding that differed would end a row at another step, and leave ranks waiting
    for each other for ever.
    """

    def __init__(self, model: Any, stop: Callable[[], bool]) -> None:
        self._model, self._stop = model, stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, **inputs: Any) -> Any:
        import torch

        if self._stop():
            raise _LeftOff
        with torch.inference_mode(False), torch.no_grad():
            output = self._model(**inputs)
            if _world() > 1:
                logits = output.logits.contiguous()
                torch.distributed.broadcast(logits, 0)
                output.logits = logits
        return output


def rows_at_once(model: Any, tokens: int) -> int:
    """Rows of `tokens` tokens whose keys and values fit: CPU_CACHE_BYTES, or GPU_SHARE of what the GPU has free. The
    same number on every rank, that of the one with the least room; at least one."""
    import torch

    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * 4  # in float32, the widest there is
    room = CPU_CACHE_BYTES
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(model.device)
        room = int(free * GPU_SHARE)
    rows = max(1, int(room // (per_token * tokens)))
    if _world() > 1:
        agreed = torch.tensor(rows, device=model.device)
        torch.distributed.all_reduce(agreed, torch.distributed.ReduceOp.MIN)
        rows = int(agreed)
    return rows


def _autocast(model: Any, mixed: bool) -> Any:
    import torch

    return torch.autocast(model.device.type, torch.bfloat16, enabled=mixed)


def _world() -> int:
    import torch

    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _rank() -> int:
    import torch

    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def metrics_line(report: SampleReport) -> str:
    """The report in one line for a reader."""
    right = "" if report.accuracy is None else f", {report.accuracy:.0%} right"
    return (
        f"{len(report.samples)} samples: {report.stop_rate:.0%} stop, {report.tag_rate:.0%} keep to the form, "
        f"{report.loop_rate:.0%} loop{right}, {report.mean_tokens:.0f} tokens"
    )
