"""The cards: a README with the Hub's metadata for a student, its quantized files, its adapter, its traces.

Pure: facts in, text out, the same bytes for the same facts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from distill import measures
from distill.contract import OPEN
from distill.fitting import GIB, GPU_SHARE
from distill.publish.facts import Facts, Source, teacher_model, teacher_revision
from distill.publish.licences import BUILT_WITH, Terms, card_license, known
from distill.publish.traces_set import TraceSet

if TYPE_CHECKING:
    import jinja2

GPUS = (4, 6, 8, 10, 12, 16, 24, 32, 48, 80, 96, 141)
"""GB of memory that GPUs come with."""
OVERHEAD = 1e9
"""Bytes that a runtime takes besides weights and cache; an assumption, as in distill/sizes.py."""
CONTEXTS = (4_096, 16_384, 32_768)
"""Tokens of cache in the memory table: a short trace of R1, one of its longer, R1's evaluation length."""
R1_SAMPLING = "temperature 0.6 (0.5 to 0.7), top-p 0.95"
"""DeepSeek-R1's model card."""


@dataclass(frozen=True, slots=True)
class Repos:
    """Which repositories there are: part → ORG/NAME. Cards link to those of the others that are published."""

    of: dict[str, str]

    def get(self, part: str) -> str | None:
        return self.of.get(part)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file or folder of weights, for a table: `part` it lies in, `score` and `status` where it was examined."""

    name: str
    scheme: str
    bytes: float
    bits: float | None
    part: str
    score: measures.Score | None
    status: str


def model_card(part: str, facts: Facts, terms: Terms, repos: Repos, files: Sequence[WeightFile]) -> str:
    """The card of one model repository; `part` is student, gguf, adapter or a scheme of one file."""
    own = [file for file in files if file.part == part]
    values = {
        **_common(facts, terms, repos),
        "part": part,
        "repo": repos.of[part],
        "own": own,
        "files": files,
        "memory": list(_memory(facts, files if part == "student" else own)),
        "contexts": [context for context in CONTEXTS if context <= facts.positions] or [facts.positions],
    }
    return _card(_model_data(part, facts, terms, repos), "model_card.md.j2", values)


def dataset_card(facts: Facts, terms: Terms, repos: Repos, traces: TraceSet) -> str:
    values = {**_common(facts, terms, repos), "repo": repos.of["traces"], "configs": traces.configs}
    return _card(_dataset_data(facts, terms, traces), "dataset_card.md.j2", values)


def _card(data: Any, template: str, values: dict[str, Any]) -> str:
    text = _environment().get_template(template).render(values)
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{text}"


def _common(facts: Facts, terms: Terms, repos: Repos) -> dict[str, Any]:
    return {
        "facts": facts,
        "revision": teacher_revision(facts),
        "teacher_model": teacher_model(facts.teacher),
        "terms": terms,
        "repos": repos,
        "known": known,
        "built_with": BUILT_WITH if terms.llama else "",
        "funnel": list(funnel(facts)),
        "opens": OPEN,
        "imported": facts.recipe.generate.engine == "imported",
        "title": repos.of.get("student", next(iter(repos.of.values()))).partition("/")[2],
        "r1_sampling": R1_SAMPLING,
        "instruction": _instruction(facts),
    }


def _instruction(facts: Facts) -> str:
    """What the student's prompts end with, for problems of some kind."""
    told = facts.contract.instruction if facts.contract is not None else None
    return next((text for text in (told or {}).values() if text), "")


# --- metadata ------------------------------------------------------------------------------------------------------


def _model_data(part: str, facts: Facts, terms: Terms, repos: Repos) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    bases, relation = _base_of(part, facts, repos)
    datasets = [*([repos.of["traces"]] if "traces" in repos.of else []), *(s.hub for s in facts.sources if s.hub)]
    found = [
        EvalResult(
            task_type="text-generation",
            dataset_type=source.hub or source.name,
            dataset_name=source.name,
            dataset_revision=source.revision,
            metric_type="pass@1",
            metric_name=f"pass@1 ({samples} samples of {score.problems} problems; "
            f"95% {score.low:.1%} to {score.high:.1%})",
            metric_value=round(100 * score.pass_at_1, 2),
        )
        for source, score, samples in results(part, facts)
    ]
    return ModelCardData(
        base_model=bases or None,
        base_model_relation=relation if bases else None,
        datasets=list(dict.fromkeys(datasets)) or None,
        **_licence(terms.student),
        language=facts.languages,
        library_name={"gguf": "llama.cpp", "adapter": "peft"}.get(part, "transformers"),
        pipeline_tag="text-generation",
        tags=["distill", "reasoning", "distillation", *(["gguf"] if part == "gguf" else [])],
        model_name=repos.of[part].partition("/")[2] if found else None,
        eval_results=found or None,
    )


def results(part: str, facts: Facts) -> Iterator[tuple[Source, measures.SourceScore, int]]:
    """(source, score on its problems, samples of each) of the weights that a repository holds.

    Scores of an earlier distill, which were not told apart by source, are told where there was one source.
    """
    sources = {source.name: source for source in facts.problems}
    for score in _scores_of(part, facts):
        told = score.sources
        if not told and len(sources) == 1:
            (only,) = sources
            told = (measures.SourceScore(only, score.pass_at_1, score.low, score.high, score.problems),)
        for one in told:
            unknown = Source(one.source, None, None, None, None, None)
            yield sources.get(one.source, unknown), one, score.samples


def eval_results(part: str, facts: Facts) -> str | None:
    """For a file in .eval_results/: what shows on a model's page and in a benchmark's ranking, in the Hub's schema of
    today (https://huggingface.co/docs/hub/eval-results). None without a benchmark that was asked as a whole: a share of
    its problems would be ranked as if it were all of them."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    sampling = ", ".join(f"{name} {value}" for name, value in (facts.conditions.get("sampling") or {}).items())
    entries = [
        EvalResultEntry(
            dataset_id=source.hub,
            task_id=source.benchmark_task,
            dataset_revision=source.revision,
            value=round(100 * score.pass_at_1, 2),
            date=str(facts.states["evaluate" if part == "student" else "quantize"].finished)[:10],
            notes=f"pass@1, {samples} samples a problem, {sampling}, 95% {score.low:.1%} to {score.high:.1%}",
        )
        for source, score, samples in results(part, facts)
        if source.hub and source.benchmark_task and score.problems == source.rows
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False) if entries else None


def _base_of(part: str, facts: Facts, repos: Repos) -> tuple[list[str], str]:
    """The model that this one was made from, and how, in the Hub's words."""
    if part in ("student", "adapter"):
        return ([facts.base] if facts.base else []), "finetune" if part == "student" else "adapter"
    student = repos.get("student")
    if student:
        return [student], "quantized"
    return ([facts.base] if facts.base else []), "finetune"  # of the base, for want of the student on the Hub


def _scores_of(part: str, facts: Facts) -> list[measures.Score]:
    if part == "student":
        return [score for score in facts.scores if score.name == "student"]
    if part in ("gguf", "adapter"):
        return []  # several files: their scores stand in the table, each beside its own
    return [score for score in facts.scores if score.name == f"student-{part}"]


def _licence(names: Sequence[str]) -> dict[str, Any]:
    """The Hub asks for a name where the licence is `other`."""
    found = card_license(names)
    others = [name for name in names if known(name) is None]
    return {"license": found, **({"license_name": "-".join(others)} if others else {})}


def _dataset_data(facts: Facts, terms: Terms, traces: TraceSet) -> Any:
    from huggingface_hub import DatasetCardData

    rows = sum(traces.configs[0].rows.values()) if traces.configs else 0
    configs = [
        {
            "config_name": config.name,
            **({"default": True} if number == 0 else {}),
            "data_files": [{"split": split, "path": path} for split, path in config.splits.items()],
        }
        for number, config in enumerate(traces.configs)
    ]
    return DatasetCardData(
        **_licence(terms.traces),
        language=facts.languages,
        task_categories=["text-generation"],
        size_categories=_size(rows),
        source_datasets=[source.hub for source in facts.sources if source.hub] or None,
        pretty_name=f"Traces of {facts.run}",
        tags=["distill", "reasoning", "distillation", "synthetic"],
        configs=configs,
    )


def _size(rows: int) -> str:
    """The Hub's own steps."""
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if rows < limit:
            return name
    return "1M<n<10M"


# --- what tables show ----------------------------------------------------------------------------------------------


def funnel(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """(step, number, what left it and why) from prompts to trained tokens, as the stages counted them."""

    def reasons(counts: Any) -> str:
        return ", ".join(f"{number:,} {reason}" for reason, number in (counts or {}).items())

    if "prompts" in facts.states:
        yield "Prompts", _number(facts.count("prompts", "prompts")), reasons(facts.count("prompts", "left_out"))
    if "generate" in facts.states:
        lost = {
            "cut at the token limit": facts.count("generate", "cut"),
            "looped": facts.count("generate", "looped"),
            "failed": facts.count("generate", "failed"),
        }
        yield "Samples asked", _number(facts.count("generate", "samples")), ""
        yield "Traces", _number(facts.count("generate", "answered")), reasons({k: v for k, v in lost.items() if v})
    if "filter" in facts.states:
        yield "Kept", _number(facts.count("filter", "kept")), reasons(facts.count("filter", "rejected"))
    if "train" in facts.states:
        left = {
            "held out to measure the loss": facts.count("filter", "heldout"),
            "longer than the context": facts.count("train", "too_long"),
            "with a special token in the reply": facts.count("train", "special_token"),
        }
        yield "Trained on", _number(facts.count("train", "traces")), reasons({k: v for k, v in left.items() if v})
        epochs = f"{facts.recipe.train.epochs:g} epoch{'s' if facts.recipe.train.epochs != 1 else ''} of it"
        yield "Tokens, prompts included", _number(facts.count("train", "tokens")), epochs


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "unknown"


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """GB of one file's weights, and for each context the GB in all and the smallest GPU that holds them."""

    name: str
    weights: float
    cells: tuple[str, ...]


def _memory(facts: Facts, own: Sequence[WeightFile]) -> Iterator[MemoryRow]:
    contexts = [context for context in CONTEXTS if context <= facts.positions] or [facts.positions]
    for file in own:
        cells = []
        for context in contexts:
            needed = file.bytes + facts.kv_bytes * context + OVERHEAD
            gpu = next((size for size in GPUS if size * GIB * GPU_SHARE >= needed), None)
            cells.append(f"{needed / 1e9:.1f} GB" + (f" ({gpu} GB GPU)" if gpu else " (several GPUs)"))
        yield MemoryRow(file.name, file.bytes / 1e9, tuple(cells))


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # Markdown, of values that distill itself recorded
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    environment.filters["source"] = _told_source
    environment.filters["name_of"] = lambda source: PurePath(source).name  # a file of one's own by its name alone
    return environment


def _told_source(source: Source) -> str:
    link = f"[{source.name}](https://huggingface.co/datasets/{source.hub})" if source.hub else source.name
    count = f", {source.prompts:,} prompts" if source.prompts is not None else ""
    return f"{link} ({source.license or 'licence unknown'}{count})"
