"""Teacher, student and source specs, and the recipe that joins them: typed, every unknown key refused with its line.

A spec is a YAML file. It is looked up by name in: a path the user gives, the checkout, the installed wheel. Knows
nothing about how a stage uses its settings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from distill.errors import SpecError, near
from distill.files import sha256_of, sha256_once
from distill.filter_specs import FilterSettings
from distill.records import Kind
from distill.serve_specs import ServeSettings
from distill.source_specs import PrepareSettings, PromptsPart, SourceSpec
from distill.strict import Strict
from distill.student_specs import StudentSpec, context_length_of
from distill.teacher_specs import HIDDEN, GenerateSettings, SamplingSpec, TeacherSpec
from distill.train_specs import TrainSettings

SpecKind = Literal["teachers", "students", "data", "recipes"]

STAGES = ("prompts", "generate", "filter", "train", "evaluate", "quantize", "report")
"""The stages of a recipe in their order."""
SCHEMES = ("nf4", "int8", "gguf:bf16", "gguf:q8_0", "gguf:q4_k_m")
"""Names of the quantizations in distill/quantize/schemes.py; a test holds the two equal."""


class EvaluateSettings(Strict):
    """Problems nobody trained on, and who is examined on them."""

    prompts: tuple[PromptsPart, ...] = ()
    samples: int = Field(4, ge=1)
    """Samples per problem; pass@1 is their mean."""
    sampling: SamplingSpec = SamplingSpec(temperature=0.6, top_p=0.95)
    """R1's evaluation settings (arXiv 2501.12948, section 3)."""
    max_tokens: int = Field(32_768, gt=0)
    concurrency: int = Field(128, ge=1)
    models: tuple[Literal["teacher", "untrained", "student"], ...] = ("teacher", "untrained", "student")
    min_pass_at_1: float | None = Field(None, ge=0, le=1)
    """The run ends with exit code 3 when the student's pass@1 is below this."""

    @model_validator(mode="after")
    def _bar_is_measured(self) -> Self:
        if self.min_pass_at_1 is not None and "student" not in self.models:
            raise ValueError("min_pass_at_1 is a bar for the student, whom models leaves out: add it, or set null")
        return self


class QuantizeSettings(Strict):
    """Smaller files of the student, each examined by the program it is for, and how much it may lose."""

    schemes: tuple[str, ...] = ()
    """`nf4` and `int8` (bitsandbytes, for transformers), `gguf:bf16`, `gguf:q8_0`, `gguf:q4_k_m` (llama.cpp)."""
    limit: int | None = Field(200, ge=1)
    """At most this many of evaluate.prompts' problems."""
    samples: int = Field(2, ge=1)
    """Samples per problem."""
    min_difference: float | None = Field(-0.05, ge=-1, le=0)
    """A gate: the lower end of the 95% interval of (file − student in bf16), paired by problem, is at least this."""
    min_four_bit_share: float | None = Field(0.8, ge=0, le=1)
    """A gate for 4-bit schemes: at least this share of the weights really is of a 4-bit type. llama.cpp falls back to
    larger types where columns are no multiple of 256, and large vocabularies stay above 4 bits: of R1-Distill-Qwen-1.5B
    NF4 makes 74% 4-bit and q4_k_m 76%, of the 7B and 8B students 80% and more (computed from their sizes)."""

    @field_validator("schemes")
    @classmethod
    def _known_schemes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in SCHEMES:
                raise ValueError(f"unknown scheme '{name}'{near(name, list(SCHEMES))}; known: {', '.join(SCHEMES)}")
        return tuple(dict.fromkeys(value))


class Recipe(Strict):
    """The whole way from prompts to an examined student and its quantized files."""

    name: str
    description: str = ""
    seed: int = Field(0, ge=0, lt=2**63)
    teacher: str = ""
    """Name or path of a teacher spec."""
    teacher_overrides: dict[str, Any] = {}
    """Fields of the teacher spec that this recipe sets itself."""
    student: str = ""
    """Name or path of a student spec."""
    student_overrides: dict[str, Any] = {}
    """Fields of the student spec that this recipe sets itself."""
    prompts: tuple[PromptsPart, ...] = ()
    prepare: PrepareSettings = PrepareSettings()
    generate: GenerateSettings = GenerateSettings()
    serve: ServeSettings = ServeSettings()
    verify: str | dict[Kind, str] = {}
    """Who judges answers, where it is not the verifier of the prompt's kind: kind → a verifier's name, an entry point,
    or `module:function` of your own; a single name judges every prompt."""
    filter: FilterSettings = FilterSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    quantize: QuantizeSettings = QuantizeSettings()
    quick: bool = False
    """Take the settings under `quick_settings`: the same way in small, for a first look and for CI."""
    quick_settings: dict[str, Any] = {}
    """Dotted key → value, used when `quick` is true."""

    @property
    def benchmark(self) -> str:
        """The name of the problems that models are examined on."""
        return "+".join(f"{Path(part.source).stem}:{part.split}" for part in self.evaluate.prompts)

    def section_hash(self, stage: str) -> str:
        """Over everything that decides this stage's own work: the recipe's settings and the specs they name."""
        return sha256_of(self.decides(stage))

    def decides(self, stage: str) -> dict[str, Any]:
        """This stage's section, and what the specs it names say now, descriptions aside."""
        named: dict[str, Strict] = {}
        for place, part in enumerate(self.parts(stage)):
            if not part.names_a_file:
                named[f"source.{place}"] = load("data", part.source)
        if stage in ("generate", "filter", "evaluate") and self.teacher:
            named["teacher"] = load("teachers", self.teacher, self.teacher_overrides)
        if stage in ("train", "evaluate", "quantize") and self.student:
            named["student"] = load("students", self.student, self.student_overrides)
        left_out = _DESCRIPTIONS if stage == "quantize" else _DESCRIPTIONS | _ONLY_FOR_FILES
        contents = {
            kind: spec.model_dump(mode="json", exclude=left_out | (_ONLY_FOR_SERVING if kind == "teacher" else set()))
            for kind, spec in named.items()
        }
        return {**self.section(stage), "specs": contents}

    def parts(self, stage: str) -> tuple[PromptsPart, ...]:
        """The prompts that a stage takes from their sources."""
        problems = self.evaluate.prompts
        before = (*self.prompts, *self.prepare.decontaminate, *problems)
        return {"prompts": before, "evaluate": problems, "quantize": problems}.get(stage, ())

    def model_folders(self, stage: str) -> dict[str, Path]:
        """`teacher`, `base`, `tokenizer` → the folder that a stage loads its model from; Hub ids and folders that are
        not there are left out."""
        places: dict[str, str | None] = {}
        asks_teacher = stage in ("generate", "filter") or (stage == "evaluate" and "teacher" in self.evaluate.models)
        if asks_teacher and self.teacher:
            spec = load("teachers", self.teacher, self.teacher_overrides)
            assert isinstance(spec, TeacherSpec)
            with contextlib.suppress(SpecError):  # it is gone, which changes nothing about what it said
                places["teacher"] = _teacher_folder(spec, find("teachers", self.teacher))
        if stage == "train" and self.student:
            learner = load("students", self.student, self.student_overrides)
            assert isinstance(learner, StudentSpec)
            here = find("students", self.student)
            places["base"], places["tokenizer"] = _folder_of(learner.base, here), _folder_of(learner.tokenizer, here)
        return {name: Path(folder) for name, folder in places.items() if folder is not None}

    def require(self, stages: Sequence[str]) -> None:
        """Raises SpecError when a spec that these stages need is not named, does not exist or is wrong."""
        for stage in stages:
            self.decides(stage)
            examined = self.evaluate.models if stage == "evaluate" else ()
            if not self.teacher and (stage in ("generate", "filter") or "teacher" in examined):
                raise SpecError(
                    f"{stage}: the recipe names no teacher", todo="add `teacher: NAME` or --set teacher=NAME"
                )
            if not self.student and stage == "train":
                raise SpecError(
                    "train: the recipe names no student", todo="add `student: NAME`, or give --student NAME"
                )
            if stage == "train":
                learner = student(self.student, self.student_overrides)
                if learner.architecture is not None:
                    context_length_of(learner, learner.architecture, self.train)
            if stage == "quantize" and self.quantize.schemes and not self.evaluate.prompts:
                raise SpecError(
                    "quantize: the recipe names no problems, so nobody could tell what a file has lost",
                    todo="add evaluate.prompts to it",
                )

    def section(self, stage: str) -> dict[str, Any]:
        """The settings that decide one stage's work, as plain JSON: what is compared when a run goes on."""
        told_alone = _ONLY_FOR_SERVING | _DESCRIPTIONS
        asked = {k: v for k, v in self.teacher_overrides.items() if k.partition(".")[0] not in told_alone}
        teacher = {"teacher": self.teacher, "teacher_overrides": asked}
        left_out = _DESCRIPTIONS if stage == "quantize" else _DESCRIPTIONS | _ONLY_FOR_FILES
        changes = {k: v for k, v in self.student_overrides.items() if k not in left_out}
        student = {"student": self.student, "student_overrides": changes}
        settings = self.model_dump(mode="json")
        generate = {key: value for key, value in settings["generate"].items() if key in _DECIDES_TRACES}
        wanted = {key: settings["generate"][key] for key in _DECIDES_WANTED if settings["generate"][key]}
        if self.generate.engine == "imported":
            generate["engine"] = "imported"
        verify = {"verify": settings["verify"]} if self.verify else {}
        parts: Mapping[str, dict[str, Any]] = {
            "prompts": {
                "prompts": settings["prompts"],
                "prepare": settings["prepare"],
                "evaluate": {"prompts": settings["evaluate"]["prompts"]},
            },
            "generate": {
                **teacher,
                "generate": {**generate, **wanted},
                **(verify if wanted.get("until_correct") else {}),
            },
            "filter": {
                **teacher,
                "generate": generate,
                "verify": settings["verify"],
                "filter": {k: v for k, v in settings["filter"].items() if k not in _ONLY_WHERE},
            },
            "train": {
                **student,
                "train": {k: v for k, v in settings["train"].items() if k not in _ONLY_HOW},
            },
            "evaluate": {
                **teacher,
                **student,
                "evaluate": {k: v for k, v in settings["evaluate"].items() if k != "concurrency"},
                **verify,
            },
            "quantize": {
                **student,
                "quantize": settings["quantize"],
                "evaluate": {key: settings["evaluate"][key] for key in ("prompts", "sampling", "max_tokens")},
                **verify,
            },
            "report": {},
        }
        return {"seed": self.seed, **parts[stage]}


_DESCRIPTIONS = {"description", "license", "distillation_terms", "source", "published_as", "benchmark_task"}
_ONLY_FOR_FILES = {"gguf_pre"}
"""Fields of a student spec that decide its quantized files and nothing before: correcting one repeats no training."""
_ONLY_FOR_SERVING = {"architecture", "weights", "reasoning_parser", "trust_remote_code", "variant_of"}
"""Fields of a teacher spec by which `distill serve` plans and starts it; who it is and how it is asked, they do not
say."""
_DECIDES_TRACES = ("samples", "sampling", "max_tokens")
_DECIDES_WANTED = ("until_correct", "shard", "continue_truncated")
"""Settings that leave some of those traces out, or go on with some: they decide when sampling is done, no identity."""
_ONLY_WHERE = ("engine", "workers", "ray_address")
"""Settings of the filter that change where it works, not what it finds."""
_OF_ONE_START = {"retry_failed"}
_ONLY_HOW = (
    "micro_batch_tokens",
    "checkpoint_minutes",
    "checkpoint_steps",
    "keep_checkpoints",
    "max_loss_jump",
    "samples",
    "trackers",
    "gpus",
    "nodes",
    "context_parallel",
    "activation_checkpointing",
)
"""Settings that change how a training is done and watched, not what it learns."""


# --- finding and loading -------------------------------------------------------------------------------------------

Spec = TypeVar("Spec", bound=Strict)

MODELS: Mapping[SpecKind, type[Strict]] = {
    "teachers": TeacherSpec,
    "students": StudentSpec,
    "data": SourceSpec,
    "recipes": Recipe,
}
"""Kind → what a spec of it is checked against."""


def spec_roots() -> list[Path]:
    """Where shipped specs lie: the checkout's top folder, then the wheel's `distill/specs`."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    roots = [checkout] if (checkout / "pyproject.toml").is_file() else []
    return [*roots, package / "specs"]


def names(kind: SpecKind) -> list[str]:
    """Names of the shipped specs of one kind."""
    return sorted({path.stem for root in spec_roots() for path in (root / kind).glob("*.yaml")})


def find(kind: SpecKind, name: str) -> Path:
    """The file of a spec: a path as given, else by name. Raises SpecError that lists what exists."""
    given = Path(name)
    if given.suffix in (".yaml", ".yml"):
        if given.is_file():
            return given
        raise SpecError(f"there is no file {given}", todo=f"check the path; shipped {kind}: {', '.join(names(kind))}")
    for root in spec_roots():
        path = root / kind / f"{name}.yaml"
        if path.is_file():
            return path
    known = names(kind)
    raise SpecError(
        f"unknown {_singular(kind)} '{name}'{near(name, known)}",
        todo=f"give a path to a .yaml file or one of: {', '.join(known)} (`distill show {kind}`)",
    )


def load(kind: SpecKind, name: str, overrides: Mapping[str, Any] | None = None) -> Strict:
    """The spec of this name or path, `overrides` (dotted key → value) laid over it."""
    path = find(kind, name)
    return parse(MODELS[kind], read(path), str(path), overrides)


def teacher(name: str, overrides: Mapping[str, Any] | None = None) -> TeacherSpec:
    spec = load("teachers", name, overrides)
    assert isinstance(spec, TeacherSpec)
    folder = _teacher_folder(spec, find("teachers", name))
    return spec.model_copy(update={"model": folder}) if folder is not None else spec


def _teacher_folder(spec: TeacherSpec, file: Path) -> str | None:
    """The folder of a teacher's weights, None for a Hub id or a served name.

    Such a name is a folder only beside the spec: who a teacher is, and so every trace's identity, must not depend on
    what lies in the working directory. Raises SpecError when a path in so many words leads nowhere.
    """
    if spec.served:
        return None
    if spec.model.startswith(("./", "../", "/")):
        folder = resolve_folder(spec.model, file)
        return folder if Path(folder).is_dir() else None
    beside = file.parent / spec.model
    return str(beside.resolve()) if beside.is_dir() else None


def student(name: str, overrides: Mapping[str, Any] | None = None) -> StudentSpec:
    """The student spec of this name; folders in it resolved."""
    spec = load("students", name, overrides)
    assert isinstance(spec, StudentSpec)
    here = find("students", name)
    given = {"base": spec.base, "tokenizer": spec.tokenizer}
    folders = {key: resolve_folder(value, here) for key, value in given.items() if value is not None}
    return spec.model_copy(update=folders)


def source(name: str) -> SourceSpec:
    spec = load("data", name)
    assert isinstance(spec, SourceSpec)
    return spec


def recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name or path. `quick: true`, in the file or the overrides, brings in its quick settings; what the
    user overrides stands above those."""
    plain = load("recipes", name, overrides)
    assert isinstance(plain, Recipe)
    if not plain.quick:
        return plain
    given = dict(overrides or {})
    quick = load("recipes", name, {**{k: v for k, v in plain.quick_settings.items() if k not in given}, **given})
    assert isinstance(quick, Recipe)
    return quick.model_copy(update={"quick_settings": {}})  # they are in: a resolved recipe read again must not change


def resolve_folder(value: str, beside: Path) -> str:
    """A model path as an absolute folder when one is there, else the value itself (a Hub id or a served name).

    Looked up beside the spec file, then in the working directory, then in the checkout.
    """
    folder = _folder_of(value, beside)
    if folder is None and value.startswith(("./", "../")):
        what = f"there is no folder {value}"
        raise SpecError(what, given=str(beside), todo="build or download the model there first")
    return folder or value


def _folder_of(value: str | None, beside: Path) -> str | None:
    """The absolute folder that a model path names, None when it is something else or not there."""
    candidates = [beside.parent / (value or ""), Path.cwd() / (value or ""), *(r / (value or "") for r in spec_roots())]
    found = (str(folder.resolve()) for folder in candidates if folder.is_dir())
    return next(found, None) if value else None


DECIDING_FILES = ("*.safetensors", "config.json", "generation_config.json", "tokenizer*.json", "chat_template.jinja")
"""Files of a model folder that decide what it writes; a card or a log beside them does not."""


def folder_revision(folder: Path) -> str:
    """16 hex digits over the files of a model folder that decide what it writes."""
    files = sorted({path for pattern in DECIDING_FILES for path in folder.glob(pattern)})
    hashes = [[path.name, sha256_once(path)] for path in files]
    return sha256_of(hashes)[:16]


def read(path: Path) -> str:
    """The text of a spec file. Raises SpecError when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: not UTF-8 at byte {error.start + 1}", todo="convert the file to UTF-8") from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error


def parse(model: type[Spec], text: str, where: str, overrides: Mapping[str, Any] | None = None) -> Spec:
    """A spec from YAML text. Raises SpecError naming `where`, the line and the key of the first thing wrong."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SpecError(f"{where}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(value, dict):
        raise SpecError(f"{where}: expected keys and values, found {type(value).__name__}")
    _refuse_doubled(node, where)
    for key, replacement in (overrides or {}).items():
        _set(value, key.split("."), replacement, key)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _explain(error, model, node, where, set(overrides or {})) from error


def kept_in(file: Path) -> Recipe:
    """The recipe that a run keeps in its recipe.yaml."""
    return parse(Recipe, read(file), str(file))


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML, every default written out."""
    kept = recipe.model_dump(mode="json", exclude={"generate": _OF_ONE_START})
    return yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)


def overrides(settings: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts of the command line as dotted key → value; the value is read as YAML."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise SpecError(f"--set takes KEY=VALUE, such as train.epochs=2, not '{setting}'")
        try:
            found[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise SpecError(f"--set {key}: the value is not YAML: {value}") from error
    return found


def _set(tree: Any, path: list[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        tree = tree[_position(tree, part, key)] if isinstance(tree, list) else tree.setdefault(part, {})
        if not isinstance(tree, dict | list):
            raise SpecError(f"'{key}': '{part}' is a plain value and has no keys below it")
    if isinstance(tree, list):
        tree[_position(tree, path[-1], key)] = value
    else:
        tree[path[-1]] = value


def _position(items: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise SpecError(f"'{key}': '{part}' is no position in a list of {len(items)} (they start at 0)")
    return int(part)


def _explain(error: ValidationError, model: type[Strict], node: Any, where: str, overridden: set[str]) -> SpecError:
    first = error.errors()[0]
    noise = ("literal[", "tuple[", "function-")  # pydantic names the alternative it tried, as if it were a key
    path = [part for part in first["loc"] if not (isinstance(part, str) and part.startswith(noise))]
    key = ".".join(map(str, path))
    line, stands = _line(node, path)
    whole = first["type"] == "value_error"  # of a section whose settings do not go together: a given one among them
    by_user = any(
        key == k or key.startswith(k + ".") or (k.startswith(key + ".") and (whole or not stands)) for k in overridden
    )
    place = "--set" if by_user else f"{where}, line {line}"
    more = len({tuple(e["loc"][: len(path)]) for e in error.errors()}) - 1
    also = f" ({more} more after this)" if more > 0 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        what = f"unknown key '{key}'{near(str(path[-1]), known)}"
        return SpecError(f"{place}: {what}{also}", todo=f"known here: {', '.join(known)}" if known else None)
    if first["type"] == "missing":
        return SpecError(f"{place}: the key '{key}' is missing{also}")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    hidden = isinstance(first["input"], dict) or first["type"] == HIDDEN
    given = None if hidden else repr(first["input"])[:120]
    return SpecError(f"{place}: {f'{key}: ' if key else ''}{message}{also}", given=given)


def _refuse_doubled(node: Any, where: str, above: tuple[int, ...] = ()) -> None:
    """YAML lets a key stand twice, dropping the first, and an alias inside itself; here both are errors."""
    if id(node) in above:
        raise SpecError(f"{where}, line {node.start_mark.line + 1}: this part contains itself by an alias")
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise SpecError(f"{where}, line {line}: the key '{key.value}' is also in line {seen[key.value]}")
                seen[key.value] = line
            _refuse_doubled(child, where, above)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_doubled(child, where, above)


def _line(node: Any, path: Sequence[str | int]) -> tuple[int, bool]:
    """The 1-based line of the deepest part of `path` that stands in the file, and whether all of it does."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                return line, False
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line, False
    return line, True


def _fields_at(model: type[Strict], path: Sequence[str | int]) -> list[str]:
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        arguments = [annotation, *getattr(annotation, "__args__", ())]
        nested = [a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)]
        if not nested:
            return []
        current = nested[0]
    return list(current.model_fields)


def _singular(kind: SpecKind) -> str:
    return {"teachers": "teacher", "students": "student", "data": "prompt source", "recipes": "recipe"}[kind]
