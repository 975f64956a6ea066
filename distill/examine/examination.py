"""Samples a model on problems with known answers, judges what it says, and writes the score with its conditions.

Whoever is examined (a teacher, a student, a quantized file) is sampled and judged alike. Knows nothing about runs.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distill.engines import Engine
from distill.errors import RunError
from distill.examine.scoring import Graded, Score, per_problem, score
from distill.files import sha256_of, write_json
from distill.ledger import Ledger, LedgerReader
from distill.progress import bar, say
from distill.prompts.stage import require_gold
from distill.records import Prompt, Trace
from distill.sampling.fleet import Fleet
from distill.sampling.requests import Subject, tasks_by_key, wanted
from distill.sampling.scheduler import Limits, Progress, sample
from distill.sampling.subjects import in_flight
from distill.verify import BROKEN
from distill.verify.pool import VerifierPool
from distill.verify.verifiers import JUDGE, Chosen, fingerprint, names_of, require, told_without, verifier_of

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Examinee:
    """Someone to be examined: how to ask, the engine that answers, requests in flight, and the contract's hash."""

    name: str
    subject: Subject
    engine: Engine | Fleet
    concurrency: int
    contract: str


def examine(
    examinee: Examinee,
    problems: list[Prompt],
    samples: int,
    folder: Path,
    *,
    benchmark: str,
    also: Path | None = None,
    chosen: Chosen = MappingProxyType({}),
) -> dict[str, Any]:
    """Samples every problem, verifies the answers and writes FOLDER/NAME.json; the samples lie in FOLDER/NAME/.

    Samples that an interrupted examination left are used, and those of the same model in the ledger `also`; `chosen` is
    the recipe's `verify`. Raises what sampling raises, RunError for failed samples, what `verifiers.require` raises.
    """
    require_gold(problems)
    verifiers = names_of({problem.kind for problem in problems}, chosen)
    require(verifiers)
    started = time.monotonic()
    keys = tasks_by_key(problems, examinee.subject, samples)
    _sample(examinee, problems, samples, keys, folder, also)
    ledgers = [LedgerReader(folder / examinee.name), *([LedgerReader(also)] if also is not None else [])]
    answers: dict[str, Trace] = {}
    for ledger in ledgers:
        for trace in ledger.traces():
            if trace.key in keys and usable(trace, examinee.subject.max_tokens):
                answers.setdefault(trace.key, trace)
    if len(answers) < len(keys):
        raise RunError(
            f"{len(keys) - len(answers)} of {len(keys)} samples of {examinee.name} failed, so there is no fair score",
            given=first_error(folder / examinee.name),
            todo="mend that and start the same command again; it asks for those alone",
        )
    graded = grade([(keys[key], answers[key]) for key in sorted(answers)], examinee.subject.max_tokens, chosen)
    result = _result(examinee, problems, samples, benchmark, graded, time.monotonic() - started)
    result["conditions"]["verifier"] = ", ".join(map(fingerprint, verifiers))
    write_json(folder / f"{examinee.name}.json", result)
    return result


def _sample(
    examinee: Examinee, problems: list[Prompt], samples: int, keys: dict[str, Prompt], folder: Path, also: Path | None
) -> None:
    """Asks for the samples that neither ledger has."""
    limit = examinee.subject.max_tokens
    with Ledger(folder / examinee.name) as ledger:
        have = {trace.key for trace in ledger.traces() if usable(trace, limit)}
        if also is not None:
            have |= {trace.key for trace in LedgerReader(also).traces() if usable(trace, limit)}
        missing = sum(1 for key in keys if key not in have)
        if missing < len(keys):
            there = f"{len(keys) - missing} of {len(keys)} samples are there already, in {also or ledger.folder}"
            say(f"evaluate {examinee.name}: {there}")
        if missing:
            progress = Progress(len(keys), already=len(keys) - missing)
            tasks = wanted(problems, examinee.subject, samples, have)
            limits = Limits(in_flight(examinee.engine, examinee.concurrency), max_attempts=6)
            with bar(f"evaluate {examinee.name}", len(keys)) as update:
                sample(tasks, examinee.subject, examinee.engine, ledger, limits, progress, lambda p: update(p.done))


def usable(trace: Trace, max_tokens: int) -> bool:
    """Whether a sample drawn earlier, perhaps under another limit, tells what this limit would have given."""
    if trace.finish_reason == "error":
        return False
    limit = trace.max_tokens or 0
    if trace.finish_reason == "length":
        return limit >= max_tokens
    return trace.completion_tokens is not None or limit <= max_tokens


def first_error(folder: Path) -> str | None:
    return next((trace.error for trace in LedgerReader(folder).traces() if trace.error), None)


def grade(pairs: list[tuple[Prompt, Trace]], max_tokens: int, chosen: Chosen = MappingProxyType({})) -> list[Graded]:
    """Right means verified and finished: a reply that was cut is wrong, whatever its text happens to contain.

    Raises RunError when the verifier itself broke: that would count as wrong answers.
    """
    needed = [verifier_of(prompt.kind, chosen) for prompt, _ in pairs]
    told = [told_without(name, trace.answer) for name, (_, trace) in zip(needed, pairs, strict=True)]
    items = [(n, p, t.answer) for n, (p, t), known in zip(needed, pairs, told, strict=True) if known is None]
    with VerifierPool(JUDGE, setup=tuple(sorted({item[0] for item in items}))) as pool:
        judged = pool.map(items)
        outcomes = [known if known is not None else next(judged) for known in told]
    broken = sum(outcome.reason in BROKEN for outcome in outcomes)
    if broken:
        raise RunError(
            f"the verifier broke on {broken} of {len(outcomes)} answers", todo="report this with the samples"
        )
    graded = []
    for (prompt, trace), outcome in zip(pairs, outcomes, strict=True):
        tokens = trace.completion_tokens
        finished = trace.finish_reason == "stop" and (tokens or 0) <= max_tokens
        tokens = min(tokens, max_tokens) if tokens is not None else None  # it may be from an earlier, larger limit
        right = outcome.outcome == "pass" and finished
        graded.append(Graded(prompt.id, right, finished, tokens, abstained=outcome.outcome == "abstain"))
    return graded


def _problem(prompt: Prompt) -> list[Any]:
    tests = [[[test.input, test.output, test.function] for test in prompt.tests]] if prompt.tests else []
    return [prompt.id, prompt.text, prompt.answer, *tests]


def _result(
    examinee: Examinee, problems: list[Prompt], samples: int, benchmark: str, graded: list[Graded], seconds: float
) -> dict[str, Any]:
    """The score and everything it depends on: two scores are comparable only where `conditions` agree."""
    found: Score = score(graded)
    subject = examinee.subject
    return {
        "format": FORMAT,
        "name": examinee.name,
        "model": subject.identity.to_json(),
        "contract": examinee.contract,
        "conditions": {
            "benchmark": benchmark,
            "problems_hash": sha256_of(sorted(map(_problem, problems)))[:16],
            "samples": samples,
            "sampling": subject.sampling.to_json(),
            "max_tokens": subject.max_tokens,
        },
        **asdict(found),
        "interval": list(found.interval),
        "sources": _by_source(problems, graded),
        "seconds": round(seconds, 1),
        "per_problem": per_problem(graded),
    }


def _by_source(problems: list[Prompt], graded: list[Graded]) -> dict[str, dict[str, Any]]:
    """The score on each source's problems: one of several benchmarks together stands for none of them."""
    source = {problem.id: problem.source for problem in problems}
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({name for name in source.values() if name is not None}):
        part = score([item for item in graded if source[item.prompt_id] == name])
        found[name] = {
            "problems": part.problems,
            "samples": part.samples,
            "pass_at_1": part.pass_at_1,
            "interval": list(part.interval),
        }
    return found
