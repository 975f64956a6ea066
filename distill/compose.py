"""Recipes for verbs that are started without one: from command-line options, or from a run that already has one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distill import specs
from distill.engines.openai import is_url, required_model
from distill.errors import RunError
from distill.files import write_text
from distill.pipeline import recipe_of
from distill.progress import say
from distill.rundir import RunDir
from distill.sampling.endpoints import is_current, serves
from distill.serve_specs import ServeSettings
from distill.train_specs import MASTER, NODE_RANK

LATER = ("student", "student_overrides", "filter", "train", "evaluate", "quantize")
"""Keys of a recipe for the stages after sampling."""


def run_dir(out: Path | None, recipe_name: str) -> RunDir:
    """The run directory asked for, by default runs/NAME."""
    return RunDir(out or Path("runs") / recipe_name)


def generate_recipe(
    prompts: str,
    teacher: str,
    *,
    model: str | None,
    samples: int,
    limit: int | None,
    max_tokens: int | None,
    settings: Sequence[str],
    out: Path | None = None,
    urls: Sequence[str] = (),
    how: Mapping[str, Any] | None = None,
) -> specs.Recipe:
    """A recipe that samples one source from one teacher: a spec, or the URL of an OpenAI-compatible server.

    `urls` are further servers of it, `how` settings of `generate` by name, None where they are not given.

    A run that is there keeps what it had for the stages after: its student, its keep rule and the like. Raises
    UsageError for a URL without a model name, SpecError for unknown names and settings.
    """
    text: dict[str, Any] = {
        "name": Path(prompts).stem,
        "prompts": [{"source": prompts, **({} if limit is None else {"limit": limit})}],
        "generate": {"samples": samples, "max_tokens": max_tokens, **(how or {})},
    }
    text["generate"] = {key: value for key, value in text["generate"].items() if value is not None}
    place = run_dir(out, text["name"])
    if is_url(teacher):
        text["teacher"] = "openai-compatible"
        text["teacher_overrides"] = {"model": required_model(teacher, model)}
        text["generate"]["url"] = _one_or_several([teacher, *urls])
    else:
        spec = specs.teacher(teacher)
        text["teacher"] = teacher
        if model is not None:
            text["teacher_overrides"] = {"model": model}
        if urls:
            text["generate"]["url"] = _one_or_several(urls)
        elif not (spec.is_folder or spec.url or "endpoints" in text["generate"]):
            _say_where(text["generate"], teacher, text.get("teacher_overrides", {}), place, settings)
        if spec.is_folder and not urls and "endpoints" not in text["generate"]:
            return _over_earlier(place, text, settings)
    text["generate"] = {"engine": "openai", **text["generate"]}
    return _over_earlier(place, text, settings)


def _say_where(
    generate: dict[str, Any],
    teacher: str,
    overrides: Mapping[str, Any],
    place: RunDir,
    settings: Sequence[str],
) -> None:
    """Where a teacher answers of which the command line says nothing: its service in this run or in services/NAME, one
    that this machine can start by itself, else the usual address."""
    from distill.serve.hosting import can_host
    from distill.serve.starting import service_of

    spec = specs.teacher(teacher, overrides)

    said = {"generate.engine", "generate.url", "generate.endpoints"} & specs.overrides(settings).keys()
    if said or is_current(place.endpoints):
        return
    running = service_of(teacher).resolve()
    if is_current(running) and serves(running, spec):
        say(f"{teacher} is asked where its service says: {running}")
        generate["endpoints"] = str(running)
    elif can_host(teacher, overrides, _serving(settings)):
        generate["engine"] = "vllm"
    else:
        generate["url"] = "http://localhost:8000/v1"


def _serving(settings: Sequence[str]) -> ServeSettings:
    """The settings of `serve` among those of the command line."""
    return _parsed({"name": "serve"}, [each for each in settings if each.startswith("serve.")]).serve


def _one_or_several(urls: Sequence[str]) -> str | list[str]:
    return urls[0] if len(urls) == 1 else list(urls)


def _over_earlier(place: RunDir, text: dict[str, Any], settings: Sequence[str]) -> specs.Recipe:
    """The recipe of these keys; what a run that is there says of the stages after sampling stays."""
    if place.recipe.is_file():
        earlier = yaml.safe_load(specs.dump(recipe_of(place)))
        text = {**{key: earlier[key] for key in ("name", *LATER)}, **{k: v for k, v in text.items() if k != "name"}}
    return _parsed(text, settings)


def import_base(run: RunDir) -> dict[str, Any]:
    """What a run that traces are imported into keeps of its recipe: all of it after an import, else what concerns later
    stages. Raises RunError when a teacher was sampled there: its traces are wanted by number, not whatever is there."""
    if not run.recipe.is_file():
        return {}
    earlier: dict[str, Any] = yaml.safe_load(specs.dump(recipe_of(run)))
    if earlier["generate"]["engine"] == "imported":
        return earlier
    if any(entry.answered for entry in run.ledger().index().values()):
        raise RunError(
            f"the run {run.path} holds traces sampled from {earlier['teacher']}",
            todo="import into another --out; `distill export` brings traces of a run into one to import",
        )
    return {key: earlier[key] for key in ("name", *LATER)}


def import_recipe(
    run: RunDir, base: dict[str, Any], teachers: Mapping[str, int], settings: Sequence[str]
) -> specs.Recipe:
    """The recipe of a run with imported traces: no teacher is asked, and each later stage works without one."""
    several = "several: " + ", ".join(sorted(teachers)[:5])
    text: dict[str, Any] = {
        "name": run.path.resolve().name,
        "evaluate": {"models": ["untrained", "student"]},
        **base,
        "teacher": "imported",
        "teacher_overrides": {
            "model": next(iter(teachers)) if len(teachers) == 1 else several if teachers else "unknown"
        },
    }
    text["generate"] = {**base.get("generate", {}), "engine": "imported"}
    examined = [name for name in text["evaluate"]["models"] if name != "teacher"]
    text["evaluate"]["models"] = examined or ["untrained", "student"]
    file = str((run.imported / "prompts.parquet").resolve())
    others = [part for part in base.get("prompts", []) if Path(part["source"]).parts[-2:] != Path(file).parts[-2:]]
    text["prompts"] = [{"source": file}, *others]
    return _parsed(text, settings)


def keep_recipe(run: RunDir, recipe: specs.Recipe) -> None:
    """Makes it the run's, without `pipeline.adopt`: whatever the teachers are called now, every imported trace still
    counts."""
    with run.lock():
        write_text(run.recipe, specs.dump(recipe))


def changed_recipe(run: RunDir, settings: Sequence[str], extra: Mapping[str, Any] | None = None) -> specs.Recipe:
    """The recipe of a run with some settings changed."""
    earlier = recipe_of(run)  # names the folder when it is no run
    changes = {**specs.overrides(settings), **(extra or {})}
    changed = specs.parse(specs.Recipe, specs.read(run.recipe), str(run.recipe), changes)
    kept = earlier.student_overrides if changed.student != earlier.student else {}
    if kept and not any(key.partition(".")[0] == "student_overrides" for key in changes):
        named = ", ".join(f"{key}: {value!r}" for key, value in kept.items())
        say(f"the run's student_overrides hold for {changed.student} too ({named})")
        say("  to drop them: --set student_overrides={}")
    return changed


def joins_a_training(node_rank: int | None, master: str | None) -> bool:
    """Notes for the training stage which of several machines this is; whether it only joins the first one's training.

    In the environment: it belongs to this start on this machine, and a recipe does not.
    """
    if node_rank is not None:
        os.environ[NODE_RANK] = str(node_rank)
    if master is not None:
        os.environ[MASTER] = master
    return bool(node_rank)


def evaluation_recipe(
    benchmark: str | None,
    samples: int | None,
    limit: int | None,
    settings: Sequence[str],
    base: specs.Recipe | None = None,
) -> specs.Recipe:
    """Settings of an examination: those of a run, or plain ones, with problems and samples as asked."""
    text = _on_benchmark(base, benchmark, "evaluation")
    if limit is not None:
        for part in text["evaluate"].get("prompts", ()):
            part["limit"] = limit
    if samples is not None:
        text["evaluate"]["samples"] = samples
    return _parsed(text, settings)


def quantize_recipe(
    schemes: Sequence[str],
    benchmark: str | None,
    samples: int | None,
    limit: int | None,
    settings: Sequence[str],
    base: specs.Recipe | None = None,
) -> specs.Recipe:
    """Settings of a quantization: those of a run, or plain ones, with schemes, problems and samples as asked."""
    text = _on_benchmark(base, benchmark, "quantization")
    if benchmark is not None and limit is not None:  # a generator is endless without
        text["evaluate"]["prompts"][0]["limit"] = limit
    part = text.setdefault("quantize", {})
    if schemes:
        part["schemes"] = list(schemes)
    part |= {} if samples is None else {"samples": samples}
    part |= {} if limit is None else {"limit": limit}
    return _parsed(text, settings)


def _on_benchmark(base: specs.Recipe | None, benchmark: str | None, name: str) -> dict[str, Any]:
    """A run's recipe, or a plain one of this name, as keys and values, with the problems as asked."""
    text: dict[str, Any] = yaml.safe_load(specs.dump(base)) if base else {"name": name, "evaluate": {}}
    if benchmark is not None:
        text["evaluate"]["prompts"] = [{"source": benchmark, "split": "test"}]
    return text


def _parsed(text: dict[str, Any], settings: Sequence[str]) -> specs.Recipe:
    return specs.parse(specs.Recipe, yaml.safe_dump(text), "options", specs.overrides(settings))
