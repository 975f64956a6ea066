"""Who can be sampled: a teacher from its spec, or a model folder with a student's contract; and the engine for it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Container
from pathlib import Path

from distill.contract import Contract, prompt_messages
from distill.engines import Engine
from distill.engines.local import LocalEngine
from distill.errors import RunError, UsageError
from distill.records import Message, Prompt, Sampling, TeacherIdentity
from distill.rundir import RunDir
from distill.sampling.endpoints import LiveFile, Place, named
from distill.sampling.fleet import Fleet, FleetLimits
from distill.sampling.requests import Subject
from distill.specs import folder_revision
from distill.teacher_specs import GenerateSettings, SamplingSpec, TeacherSpec

API_KEY_ENV = "OPENAI_API_KEY"
FILES_KEPT = 128
"""Open files that are left for the ledger, verifiers and libraries."""


def teacher_identity(spec: TeacherSpec) -> TeacherIdentity:
    """Who a spec names. A folder is known by the spec's name and its content, so moving it changes nothing, and a
    server of the same model is the same teacher."""
    if spec.is_folder:
        return TeacherIdentity(spec.name, spec.revision or folder_revision(Path(spec.model)), spec.quantization)
    return TeacherIdentity(spec.model, spec.revision or "unspecified", spec.quantization)


def teacher_subject(spec: TeacherSpec, sampling: SamplingSpec, max_tokens: int | None, seed: int) -> Subject:
    """The teacher as a recipe asks it; settings the recipe leaves open are the teacher's own."""
    instruction: dict[str, str] = {str(kind): text for kind, text in spec.instruction.items()}

    def messages(prompt: Prompt) -> list[Message]:
        return prompt_messages(prompt.text, prompt.kind, instruction, spec.system)

    return Subject(
        teacher_identity(spec),
        messages,
        spec.reasoning_format,
        spec.forced_prefix,
        sampling.over(spec.sampling).sampling(seed),
        max_tokens or spec.max_tokens,
        reasons=spec.reasons,
    )


def model_subject(identity: TeacherIdentity, contract: Contract, sampling: Sampling, max_tokens: int) -> Subject:
    """A model examined under a student's contract, as if it were a teacher."""
    return Subject(
        identity,
        lambda prompt: contract.messages(prompt.text, prompt.kind),
        "tags",
        contract.forced_prefix,
        sampling,
        max_tokens,
        common_numbers=True,
    )


def foreign(count: int, folder: Path, subject: Subject) -> RunError:
    """The error for a ledger whose answers all belong to another teacher, sampling or set of prompts."""
    return RunError(
        f"none of the {count} traces in this run belongs to this recipe: it would all be bought again",
        given=f"{folder}, for teacher {subject.identity.model} at revision {subject.identity.revision}",
        todo="use another --out for a changed teacher, sampling or prompts",
    )


def fleet_for(spec: TeacherSpec, settings: GenerateSettings, run: RunDir, answered: Container[str]) -> Fleet:
    """Every server that a recipe asks: those at `url`, those in the file `endpoints`, else those in RUN/endpoints.json
    where there is one, else the teacher's own. `answered` holds the keys that no batch need be read for again.

    Raises UsageError when there is none, SpecError for a file that cannot be read.
    """
    if settings.engine == "batch":
        return _alone(batch_engine(spec, settings, run, answered), settings)
    if settings.engine not in ("openai", "vllm"):
        return _alone(engine_for(spec, settings), settings)
    limits = FleetLimits(
        settings.concurrency,
        most_connections(max(settings.concurrency, settings.max_concurrency)),
        settings.stall_timeout,
        settings.patience,
        continues=settings.slice_tokens is not None or settings.continue_truncated,
    )

    def build(place: Place) -> Engine:
        return server(spec, settings, place)

    hosted = settings.engine == "vllm"  # then the run's own service writes where it answers, and nothing else is asked
    file = Path(settings.endpoints) if settings.endpoints and not hosted else run.endpoints
    if hosted or settings.endpoints or (file.is_file() and not settings.urls):
        roster = LiveFile(file, build)
        if not roster.places and not roster.coming():
            raise roster.ended() or UsageError(
                f"{file} names no endpoint", todo="start the servers that write it, or give a url"
            )
        beside = [] if hosted else [place for place in named(settings.urls) if place.name not in roster.places]
        return Fleet([build(place) for place in (*beside, *roster.places.values())], limits, roster)
    return Fleet([build(place) for place in named(urls_of(spec, settings))], limits)


def _alone(engine: Engine, settings: GenerateSettings) -> Fleet:
    """A fleet of one that takes what it takes; how long it may be silent is its own affair."""
    most = in_flight(engine, settings.concurrency)
    return Fleet([engine], FleetLimits(most, most, stall=math.inf, patience=math.inf))


def batch_engine(spec: TeacherSpec, settings: GenerateSettings, run: RunDir, answered: Container[str]) -> Engine:
    """The engine of a provider's batch API; what was handed over is known by RUN/batches.jsonl."""
    from distill.engines.batch_api import BatchApiEngine  # brings in aiohttp

    (url,) = urls_of(spec, settings)[:1]
    return BatchApiEngine(
        url=url,
        model=settings.served_model or spec.model,
        state=run.batches,
        answered=answered,
        api_key=key_of(spec, settings),
    )


def key_of(spec: TeacherSpec, settings: GenerateSettings) -> str | None:
    """The API key, from the environment. Raises UsageError when the variable that was named for it, by the recipe or by
    the spec for its own address, is not set."""
    key = os.environ.get(settings.api_key_env or spec.api_key_env or API_KEY_ENV)
    elsewhere = bool(settings.urls or settings.endpoints)
    named = settings.api_key_env or (None if elsewhere else spec.api_key_env)
    if named and not key:
        what = f"the key of {spec.name} is to be in the environment variable {named}, which is not set"
        raise UsageError(what, todo=f"set {named} and start the same command again")
    return key


def most_connections(wanted: int) -> int:
    """As many of `wanted` connections to a server as this process may open; raises its soft limit of open files to the
    hard one, since the usual 1,024 are soon used up by several servers."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own below the hard one
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - FILES_KEPT))


def urls_of(spec: TeacherSpec, settings: GenerateSettings) -> tuple[str, ...]:
    """Addresses of the servers to ask. Raises UsageError when nothing says where they are."""
    urls = settings.urls or ((spec.url,) if spec.url else ())
    if not urls:
        todo = "set generate.url, such as http://localhost:8000/v1, or generate.endpoints"
        raise UsageError(f"nothing says where {spec.name} answers", todo=todo)
    return urls


def server(spec: TeacherSpec, settings: GenerateSettings, place: Place) -> Engine:
    """The engine of one server of a teacher."""
    from distill.engines.openai import OpenAIEngine  # brings in aiohttp

    served = settings.served_model or place.model or (spec.name if spec.is_folder else spec.model)
    return OpenAIEngine(
        url=place.url,
        model=served,
        name=place.name,
        api_key=key_of(spec, settings) if place.key_file is None else place.key(),
        timeout=settings.request_timeout,
        connections=max(settings.concurrency, settings.max_concurrency),
        stream=settings.stream,
        stall=settings.stall_timeout,
        ignores=spec.ignores,
        continues=spec.continuation == "token_ids",
    )


def engine_for(spec: TeacherSpec, settings: GenerateSettings) -> Engine:
    """The one engine that a teacher is examined with. Raises UsageError when it cannot reach this teacher."""
    if settings.engine == "local":
        revision = None if spec.is_folder else spec.revision
        return LocalEngine(spec.model, name=f"local/{spec.name}", batch=settings.concurrency, revision=revision)
    if settings.engine == "imported":
        raise UsageError(
            "the traces of this run were imported: there is no teacher here to ask",
            todo="set evaluate.models=[untrained,student], or generate.engine and the teacher to ask",
        )
    return server(spec, settings, named(urls_of(spec, settings)[:1])[0])


def in_flight(engine: Engine | Fleet, concurrency: int) -> int:
    """Requests to keep in flight: an engine in this process sorts several batches' worth, a server gets what was
    asked."""
    capacity: int = getattr(engine, "capacity", concurrency)
    return capacity
