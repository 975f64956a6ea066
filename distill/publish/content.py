"""What goes into which repository: the files of a run, and the cards, lineage and notices written for the Hub.

Files of a model folder go as they are, but for a place on this machine that a library wrote into its settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import measures
from distill.contract import CONTRACT_FILE
from distill.errors import UsageError, near
from distill.publish import card, ollama, picture
from distill.publish.facts import Facts, lineage_values, published_recipe, without_folders
from distill.publish.licences import BUILT_WITH, NOTICE, Terms
from distill.publish.publication import LINEAGE_FILE, File, Part, Publication, in_order
from distill.publish.traces_set import TraceSet, trace_set
from distill.rundir import QUANTIZATION, RunDir

SUFFIXES: Mapping[str, str] = {
    "student": "",
    "gguf": "-GGUF",
    "nf4": "-bnb-4bit",
    "int8": "-bnb-8bit",
    "adapter": "-adapter",
    "traces": "-traces",
}
"""Part → what its repository's name ends with, as the Hub's users look for it; a scheme that is not here goes by its
own name, such as -AWQ."""
LICENCE_FILE, NOTICE_FILE = "LICENSE", "NOTICE"
ADAPTER_SETTINGS = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a run is to be published: `repo` is ORG/NAME of the student, `only` and `without` name parts. `published`
    are those that lie there already, by an earlier publication: cards link to them too."""

    repo: str
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    licence_text: bytes | None = None
    published: tuple[str, ...] = ()


def parts_of(run: RunDir) -> list[str]:
    """The parts that a run has, in the order in which they are shown."""
    files = measures.quantized(run)
    schemes = {name: str(made.get("scheme", name)) for name, made in files.folders.items()}
    found = ["student"] if run.student.is_dir() else []
    found += ["gguf"] if any(scheme.startswith("gguf:") for scheme in schemes.values()) else []
    found += [name for name, scheme in schemes.items() if not scheme.startswith("gguf:")]
    found += ["adapter"] if (run.adapter / ADAPTER_SETTINGS).is_file() else []
    found += ["traces"] if run.kept.is_dir() and run.traces.is_dir() else []
    return found


def chosen_parts(run: RunDir, wanted: Wanted) -> list[str]:
    """Raises UsageError for a part that the run has not, and where nothing is left."""
    there = parts_of(run)
    for name in (*wanted.only, *wanted.without):
        if name not in there:
            raise UsageError(
                f"this run has no part '{name}'{near(name, there)}",
                given=str(run.path),
                todo=f"it has: {', '.join(there) or 'nothing to publish yet'}",
            )
    chosen = [name for name in there if (not wanted.only or name in wanted.only) and name not in wanted.without]
    if not chosen:
        raise UsageError("nothing to publish", given=str(run.path), todo="run it first, or leave --without out")
    return chosen


def repo_of(part: str, repo: str) -> str:
    return f"{repo}{SUFFIXES.get(part, f'-{part.upper()}')}"


def publication(
    facts: Facts, run: RunDir, parts: Sequence[str], wanted: Wanted, terms: Terms, work: Path
) -> Publication:
    """All repositories with all their files; what has to be written first is written below `work`."""
    there = [part for part in parts_of(run) if part in parts or part in wanted.published]
    repos = card.Repos({part: repo_of(part, wanted.repo) for part in there})
    traces = trace_set(run, work) if "traces" in parts else None
    weights = weight_files(run, facts)
    found = []
    for part in parts:
        files = list(_files(part, facts, run, repos, terms, wanted, weights, traces))
        kind = "dataset" if part == "traces" else "model"
        files.append(_lineage(facts, repos, part, files))
        found.append(Part(repos.of[part], kind, _what(part), in_order(files)))  # type: ignore[arg-type]
    return Publication(facts.run_id, tuple(found))


def _what(part: str) -> str:
    return {"gguf": "GGUF files", "traces": "traces", "adapter": "adapter", "student": "student"}.get(
        part, f"{part} weights"
    )


def _files(
    part: str,
    facts: Facts,
    run: RunDir,
    repos: card.Repos,
    terms: Terms,
    wanted: Wanted,
    weights: Sequence[card.WeightFile],
    traces: TraceSet | None,
) -> Iterator[File]:
    if part == "traces":
        assert traces is not None
        yield from traces.files
        yield _text("README.md", card.dataset_card(facts, terms, repos, traces))
    else:
        yield from _weights_of(part, facts, run, repos)
        yield _text("README.md", card.model_card(part, facts, terms, repos, weights))
        if facts.training is not None and part == "student":
            yield File.of("loss.png", picture.loss_curve(facts.training))
        if terms.llama:
            yield _text(NOTICE_FILE, f"{NOTICE.format(version=terms.llama)}\n{BUILT_WITH}\n")
        if wanted.licence_text is not None:
            yield File.of(LICENCE_FILE, wanted.licence_text)
        ranked = card.eval_results(part, facts)
        if ranked is not None:
            yield _text(".eval_results/distill.yaml", ranked)
    yield _text("recipe.yaml", published_recipe(facts.recipe))
    if part == "student":
        shown = [run.evaluations / f"{score.name}.json" for score in facts.scores]
        yield from (File.of(f"evaluations/{path.name}", path) for path in shown)


def _weights_of(part: str, facts: Facts, run: RunDir, repos: card.Repos) -> Iterator[File]:
    if part == "gguf":
        for folder in _gguf_folders(run):
            (file,) = folder.glob("*.gguf")
            yield File.of(gguf_name(repos.of[part], folder), file)
        yield from _folder(_gguf_folders(run)[0], lambda path: path.name == "distill.json")
        assert facts.contract is not None
        yield _text("template", ollama.template(facts.contract))
        yield _text("params", ollama.params(facts.contract, 0.6, 0.95))
        return
    if part == "adapter":
        yield from _adapter(facts, run)
        return
    folder = run.student if part == "student" else run.quantized / part
    yield from _folder(folder, lambda path: path.name != QUANTIZATION)


def _adapter(facts: Facts, run: RunDir) -> Iterator[File]:
    """The adapter on its base as the Hub knows it, and what of the student is no weight: tokenizer, template, sampling,
    contract. Without them nobody could ask it as it was trained."""
    settings = json.loads((run.adapter / ADAPTER_SETTINGS).read_text(encoding="utf-8"))
    settings |= {"base_model_name_or_path": facts.base, "revision": facts.base_commit}
    yield _text(ADAPTER_SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    yield from _folder(run.adapter, lambda path: path.name != ADAPTER_SETTINGS)
    weights = {".safetensors", ".bin"}
    not_its_own = {"config.json", "model.safetensors.index.json"}
    yield from _folder(run.student, lambda path: path.suffix not in weights and path.name not in not_its_own)


NAMES_OF_FOLDERS = ("_name_or_path", "name_or_path", "base_model_name_or_path", "base", "tokenizer", "teacher")
"""Keys under which libraries, and the contract's file, may name a folder of this machine."""
SETTINGS_FILES = ("config.json", "tokenizer_config.json", "generation_config.json", CONTRACT_FILE)


def _folder(folder: Path, takes: Callable[[Path], bool]) -> Iterator[File]:
    """Every file below a folder but hidden ones; settings lose the names of this machine's folders."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or name.name == "README.md" or not takes(path):
            continue
        yield _cleaned(str(name), path) if str(name) in SETTINGS_FILES else File.of(str(name), path)


def _cleaned(name: str, path: Path) -> File:
    """The file itself, unless it names a folder of this machine."""
    value = json.loads(path.read_text(encoding="utf-8"))
    clean = {key: without_folders(one) if key in NAMES_OF_FOLDERS else one for key, one in value.items()}
    return (
        File.of(name, path) if clean == value else _text(name, json.dumps(clean, indent=2, ensure_ascii=False) + "\n")
    )


def _gguf_folders(run: RunDir) -> list[Path]:
    files = measures.quantized(run)
    return [
        run.quantized / name for name, made in files.folders.items() if str(made.get("scheme", "")).startswith("gguf:")
    ]


def gguf_name(repo: str, folder: Path) -> str:
    """NAME-Q4_K_M.gguf: llama.cpp and Ollama find a file of a repository by the type in its name."""
    name = repo.partition("/")[2].removesuffix(SUFFIXES["gguf"])
    return f"{name}-{gguf_type(folder)}.gguf"


def gguf_type(folder: Path) -> str:
    return folder.name.removeprefix("gguf-").upper()


def weight_files(run: RunDir, facts: Facts) -> list[card.WeightFile]:
    """The student, then every quantized file that is of it, as the tables of cards want them."""
    found = []
    for one in facts.weights:
        is_gguf = one.scheme.startswith("gguf:")
        part = "student" if one.name == "student" else "gguf" if is_gguf else one.name
        name = gguf_type(run.quantized / one.name) if is_gguf else one.name
        status = (
            ""
            if part == "student"
            else facts.comparisons[one.name].status
            if one.name in facts.comparisons
            else "not examined"
        )
        score = facts.score("student" if part == "student" else f"student-{one.name}")
        found.append(card.WeightFile(name, one.scheme, one.bytes or 0.0, one.bits_per_weight, part, score, status))
    return found


def _lineage(facts: Facts, repos: card.Repos, part: str, files: Sequence[File]) -> File:
    """What made a repository's files, and the hash of each."""
    values: dict[str, Any] = {
        "format": 1,
        "run": facts.run_id,
        "repository": repos.of[part],
        "published_with": {name: repo for name, repo in repos.of.items() if name != part},
        "files": {file.path: file.sha256 for file in sorted(files, key=lambda file: file.path)},
        **lineage_values(facts),
    }
    return _text(LINEAGE_FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _text(path: str, text: str) -> File:
    return File.of(path, text.encode())
