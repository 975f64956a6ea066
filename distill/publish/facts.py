"""What a run tells about its student, as values for cards and for lineage.json: no path, no address, nothing of this
machine. Reads the manifest, the recipe and what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from distill import measures, specs
from distill.contract import CONTRACT_FILE, Contract
from distill.errors import SpecError
from distill.examine.models import model_contract
from distill.files import sha256_of
from distill.measures import read_object
from distill.rundir import RunDir, StageState
from distill.source_specs import SourceSpec
from distill.student_specs import StudentSpec
from distill.teacher_specs import SamplingSpec, TeacherSpec

AGAIN = "train the student again, or bring the file back"
PRIVATE_SETTINGS = {
    "url",
    "base_url",
    "endpoints",
    "api_key_env",
    "key_file",
    "served_model",
    "ray_address",
    "trackers",
    "headers",
}
"""Settings about machines and accounts, wherever they stand: a published recipe leaves them out, and its whole section
`serve`."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where prompts came from: `hub` is its dataset on the Hub, None for built-in problems and files."""

    name: str
    license: str | None
    prompts: int | None
    hub: str | None
    revision: str | None
    language: str | None
    benchmark_task: str | None = None
    rows: int | None = None
    """Of the split that was evaluated on, where the spec says."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that cards say. `counts` are the manifest's, by stage."""

    run: str
    """The recipe's name."""
    recipe: specs.Recipe
    states: Mapping[str, StageState]
    teacher: TeacherSpec
    student: StudentSpec | None
    """None, like the contract, for a run that has trained nobody yet: its traces can be published all the same."""
    contract: Contract | None
    base: str | None
    """The base's name on the Hub; None for a student from nothing, or a base that nobody named (`unnamed_base`)."""
    base_commit: str | None
    sampling: SamplingSpec
    sources: tuple[Source, ...]
    problems: tuple[Source, ...]
    """What was evaluated on."""
    training: measures.Training | None
    scores: tuple[measures.Score, ...]
    weights: tuple[measures.Weights, ...]
    comparisons: Mapping[str, measures.Comparison]
    conditions: Mapping[str, Any]
    """Of the student's score: sampling, max_tokens, verifier, hash of the problems."""
    positions: int
    """Tokens of context that the student has."""
    kv_bytes: int
    """Bytes of its cache for a token, in bfloat16."""

    def count(self, stage: str, name: str) -> Any:
        return self.states[stage].counts.get(name) if stage in self.states else None

    def score(self, name: str) -> measures.Score | None:
        return next((score for score in self.scores if score.name == name), None)

    @property
    def run_id(self) -> str:
        """Of the name, prompts, teacher and seed: more traces, another training, other files are still this run."""
        made_of = [
            self.states["prompts"].outputs.get("prompts.parquet") if "prompts" in self.states else None,
            self.teacher.model,
            teacher_revision(self),
            self.recipe.seed,
        ]
        return f"{self.run}-{sha256_of(made_of)[:12]}"

    @property
    def unnamed_base(self) -> bool:
        """Whether the student was made from a folder, and nobody says what lies in it."""
        return self.student is not None and self.student.base is not None and self.base is None

    @property
    def languages(self) -> list[str]:
        return sorted({source.language for source in self.sources if source.language} or {"en"})

    @property
    def contaminated(self) -> int:
        """Prompts and traces that were left out because an evaluation asks them."""
        left_out = self.count("prompts", "left_out") or {}
        rejected = self.count("filter", "rejected") or {}
        return int(left_out.get("contaminated", 0)) + int(rejected.get("contaminated", 0))


def gathered(recipe: specs.Recipe, run: RunDir, base: str | None = None) -> Facts:
    """`base` is the base's name on the Hub, where the spec does not tell it.

    Raises RunError where a file of the run cannot be read, SpecError where a spec of its recipe is gone."""
    states = run.stages()
    teacher = specs.load("teachers", recipe.teacher, recipe.teacher_overrides)
    assert isinstance(teacher, TeacherSpec)
    trained = (run.student / "config.json").is_file()
    student = specs.load("students", recipe.student, recipe.student_overrides) if trained else None
    assert isinstance(student, StudentSpec | None)
    about = read_object(run.student / CONTRACT_FILE, AGAIN) if trained else {}
    config = read_object(run.student / "config.json", AGAIN) if trained else {}
    files = measures.quantized(run)
    counted = states["prompts"].counts.get("sources", {}) if "prompts" in states else {}
    score = run.evaluations / "student.json"
    named = (base or student.published_as or (student.base if about.get("base_commit") else None)) if student else None
    return Facts(
        run=recipe.name,
        recipe=recipe,
        states=states,
        teacher=teacher,
        student=student,
        contract=model_contract(run.student) if trained else None,
        base=named,
        base_commit=about.get("base_commit") or (student.revision if student else None),
        sampling=recipe.generate.sampling.over(teacher.sampling),
        sources=tuple(_source(part.source, counted) for part in recipe.prompts),
        problems=tuple(_source(part.source, {}, part.split) for part in recipe.evaluate.prompts),
        training=measures.training(run),
        scores=measures.scores(run, files),
        weights=measures.weights(run, files),
        comparisons=measures.comparisons(states, files),
        conditions=read_object(score, "evaluate again").get("conditions", {}) if score.is_file() else {},
        positions=int(config.get("max_position_embeddings", 0)),
        kv_bytes=_kv_bytes(config) if trained else 0,
    )


def _kv_bytes(config: Mapping[str, Any]) -> int:
    """A key and a value of two bytes per layer and key-value head."""
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return int(2 * 2 * config["num_hidden_layers"] * heads * head)


def _source(name: str, counted: Mapping[str, int], split: str | None = None) -> Source:
    """A file of one's own is known by its name alone."""
    shown = PurePath(name).name
    prompts = counted.get(name, counted.get(shown))
    try:
        spec = specs.load("data", name)
    except SpecError:
        return Source(shown, None, prompts, None, None, None)
    assert isinstance(spec, SourceSpec)
    rows = {str(name): number for name, number in spec.expected_rows.items()}.get(split or "")
    told = (spec.name, spec.license, prompts, spec.dataset, spec.revision, spec.language)
    return Source(*told, spec.benchmark_task, rows)


def published_recipe(recipe: specs.Recipe) -> str:
    """The recipe as YAML, without what is about machines and accounts; files by their names."""
    import yaml

    values = recipe.model_dump(mode="json")
    values.pop("serve", None)
    return str(yaml.safe_dump(without_folders(_shareable(values)), sort_keys=False, allow_unicode=True))


def _shareable(value: Any) -> Any:
    """Without private settings; overrides of a spec name them by dotted keys."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if str(key).rpartition(".")[2] not in PRIVATE_SETTINGS}
        return {key: _shareable(one) for key, one in kept.items()}
    return [_shareable(one) for one in value] if isinstance(value, list) else value


def without_folders(value: Any) -> Any:
    """Every text that is a path with a folder in front shortened to its last part."""
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_folders(one) for one in value]
    return PurePath(value).name if isinstance(value, str) and is_path(value) else value


def is_path(text: str) -> bool:
    """Whether a text names a place: absolute, from home, beginning with a dot, or a file of a kind of data."""
    if "/" not in text or "\n" in text or "://" in text:
        return False
    return (text.startswith(("/", "~", ".")) and text != "/") or PurePath(text).suffix in DATA_SUFFIXES


DATA_SUFFIXES = {".jsonl", ".json", ".csv", ".parquet", ".yaml", ".yml", ".txt"}


def lineage_values(facts: Facts) -> dict[str, Any]:
    """Of every stage: what decided it, what it read and wrote, by which code. `files` are added by the repository."""
    stages = {}
    for name, state in facts.states.items():
        if name == "report":
            continue
        counts = {key: value for key, value in state.counts.items() if not key.startswith("_") and key != "error"}
        stages[name] = {
            "recipe_hash": state.recipe_hash,
            "seed": state.seed,
            "started": state.started,
            "finished": state.finished,
            "versions": state.versions,
            "inputs": state.inputs,
            "outputs": state.outputs,
            "counts": without_folders(_shown(counts)),
        }
    teacher = facts.teacher
    return {
        "teacher": {
            "name": teacher.name,
            "model": teacher_model(teacher),
            "revision": teacher_revision(facts),
            "quantization": teacher.quantization,
            "sampling": facts.sampling.model_dump(exclude_none=True),
        },
        "student": {"name": facts.student.name, "base": facts.base, "base_commit": facts.base_commit}
        if facts.student is not None
        else None,
        "contract": facts.contract.hash if facts.contract is not None else None,
        "stages": stages,
    }


def teacher_model(teacher: TeacherSpec) -> str:
    """Its name on the Hub or at its provider, or of the folder that it lies in."""
    folder = PurePath(teacher.model).name
    return folder if is_path(teacher.model) else teacher.model


def teacher_revision(facts: Facts) -> str | None:
    """Of the spec, or of the folder that its weights were loaded from."""
    state = facts.states.get("generate")
    return facts.teacher.revision or (state.inputs.get("models/teacher") if state is not None else None)


def _shown(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a reader of a lineage has no use for: how this start of several went."""
    return {
        key: value for key, value in counts.items() if key not in ("this_start", "census", "tokens_per_s", "resumed_at")
    }
