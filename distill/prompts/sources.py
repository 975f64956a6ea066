"""Prompt sources: a built-in generator, a file, or a dataset of the Hub, as prompts. Knows nothing about sampling."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill import specs
from distill.errors import InputError, UsageError
from distill.files import sha256_of, sha256_once
from distill.problems.generators import generated
from distill.progress import say
from distill.prompts.hub import dataset_files, dataset_of, explained
from distill.prompts.mapping import Mapper, MissingColumn
from distill.prompts.rows import is_remote, rows, unit_of
from distill.records import Prompt
from distill.source_specs import PromptsPart, SourceSpec

MOST_UNUSABLE = 0.01
"""Of a published dataset this share of the rows may be unusable, and is left out; of a file of one's own none may."""
FIRST_LOOK = 100
"""So many unusable rows and not one good one: the spec is wrong, and nobody should wait for the rest."""


@dataclass(frozen=True, slots=True)
class Sourced:
    """A prompt and where it stands: `FILE, line N`, or the generator's name."""

    prompt: Prompt
    place: str


def prompts_of(part: PromptsPart, seed: int) -> Iterator[Prompt]:
    """The prompts of `sourced` alone."""
    return (item.prompt for item in sourced(part, seed))


def sourced(part: PromptsPart, seed: int) -> Iterator[Sourced]:
    """The prompts of one part of a recipe, in the source's order: at most `part.limit` after `part.skip`.

    Raises InputError naming file and row, SpecError for an unknown source.
    """
    spec = spec_for(part)
    if spec.generator is not None:
        if part.limit is None:
            raise UsageError(
                f"the source '{spec.name}' is endless", todo="say how many problems: `limit: 100`, or --limit 100"
            )
        stream = _generated(spec, part, seed)
    elif is_dataset(spec, part):
        stream = _from_dataset(spec, part)
    else:
        path = _data_file(spec, part)
        mapper = Mapper(spec, reasoning=part.reasoning)
        stream = _from_file(path, mapper)
    return itertools.islice(stream, part.skip, None if part.limit is None else part.skip + part.limit)


def read_prompts(path: Path, spec: SourceSpec) -> Iterator[Prompt]:
    """Prompts of a JSONL, Parquet or CSV file. Raises InputError naming the file, the row and the field."""
    return (item.prompt for item in _from_file(path, Mapper(spec)))


def place_of(prompt: Prompt, parts: Sequence[PromptsPart]) -> str | None:
    """Where the first prompt of this id stands in files and datasets; None when it is in none of them."""
    read = (part for part in parts if spec_for(part).generator is None)
    return next((item.place for part in read for item in sourced(part, 0) if item.prompt.id == prompt.id), None)


def data_files(parts: Sequence[PromptsPart]) -> dict[int, Path]:
    """Place of a part → the file, or the folder with a copy of a dataset, that it reads, for those that exist."""
    places: dict[int, Path | None] = {}
    for place, part in enumerate(parts):
        spec = spec_for(part)
        if spec.generator is None:
            places[place] = _copy(spec, part) if is_dataset(spec, part) else _data_file(spec, part)
    return {place: path for place, path in places.items() if path is not None and path.exists()}


def state_of(path: Path) -> str:
    """Hex digest that changes with a data file. A folder of many GB counts by the names, sizes and times in it."""
    if path.is_file():
        return sha256_once(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    shown = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return sha256_of([[str(f.relative_to(path)), f.stat().st_size, f.stat().st_mtime_ns] for f in shown])


def spec_for(part: PromptsPart) -> SourceSpec:
    """A source spec by name; a data file named directly gets a plain spec of its own."""
    path = Path(part.source)
    if part.names_a_file:  # no spec says that its prompts need reasoning, so a plain teacher will do
        return SourceSpec(name=path.stem, path=part.source, reasoning="optional")
    return specs.source(part.source)


def is_dataset(spec: SourceSpec, part: PromptsPart) -> bool:
    """Whether a part reads a dataset of the Hub, or a folder with a copy, rather than one file."""
    given = _given(spec, part)
    return given.is_dir() if given is not None else spec.dataset is not None


def _generated(spec: SourceSpec, part: PromptsPart, seed: int) -> Iterator[Sourced]:
    assert spec.generator is not None
    for prompt in generated(spec.generator, part.split, seed, steps=spec.steps, operators=spec.operators):
        named = dataclasses.replace(
            prompt,
            source=spec.name,
            license=spec.license,
            reasoning=part.reasoning or spec.reasoning,
            domain=spec.domain or prompt.domain,
        )
        yield Sourced(named, f"generator {spec.generator}")


def _from_file(path: Path, mapper: Mapper) -> Iterator[Sourced]:
    found, given = 0, 0
    for number, row in rows(path, mapper.columns):
        found += 1
        where = f"{path}, {unit_of(path)} {number}"
        try:
            prompt = mapper.prompt(row)
        except InputError as caught:
            error = _with_all_columns(caught, path, mapper)
            shown = error.given or repr(dict(row))[:160]
            raise InputError(f"{where}: {error.what}", given=shown, todo=error.todo) from error
        if prompt is not None:
            given += 1
            yield Sourced(prompt, where)
    if not found:
        raise InputError(f"{path} holds no rows", todo="give a file with at least one question")
    if not given:
        raise _none_wanted(mapper.spec, found)


def _from_dataset(spec: SourceSpec, part: PromptsPart) -> Iterator[Sourced]:
    """Rows of a published dataset: a few unusable ones are left out and told, a wrong number of rows is an error."""
    mapper = Mapper(spec, reasoning=part.reasoning, qualify=f"{spec.name}:{part.split}/")
    found, given, unusable = 0, 0, []
    for file in dataset_files(spec, part.split, _copy(spec, part)):
        for number, row in _reached(file, mapper, spec):
            found += 1
            where = f"{file}, {unit_of(file)} {number}"
            try:
                prompt = mapper.prompt(row)
            except InputError as error:
                unusable.append(f"{where}: {error.what}")
                if isinstance(error, MissingColumn) or (len(unusable) > FIRST_LOOK and not given):
                    told = _with_all_columns(error, file, mapper)
                    raise InputError(f"{where}: {told.what}", given=told.given, todo=told.todo) from error
                continue
            if prompt is not None:
                given += 1
                yield Sourced(prompt, where)
    expected = spec.expected_rows.get(part.split)
    if expected is not None and found != expected:
        raise InputError(
            f"{spec.name}: {found} rows in the split {part.split}, {expected} are expected at this revision",
            todo="get the copy again, or correct `expected_rows` in the source spec",
        )
    if len(unusable) > MOST_UNUSABLE * found:
        raise InputError(f"{spec.name}: {len(unusable)} of {found} rows are unusable; the first: {unusable[0]}")
    if found and not given:
        raise _none_wanted(spec, found)
    if unusable:
        say(f"prompts: {spec.name}: {len(unusable)} of {found} rows are unusable and left out; {unusable[0]}")


def _none_wanted(spec: SourceSpec, found: int) -> InputError:
    settings = spec.model_dump(include={"only", "without"})
    return InputError(
        f"{spec.name}: all {found} rows are left out by `only` and `without` of the source spec",
        given="; ".join(f"{name}: {value}" for name, value in settings.items() if value),
        todo="compare those values with what the rows hold; in CSV every value is text, so write '\"true\"'",
    )


def _with_all_columns(error: InputError, file: Path | str, mapper: Mapper) -> InputError:
    """A missing column is told with all that the file has, also those that were not read."""
    if isinstance(error, MissingColumn):
        try:
            mapper.prompt(next(rows(file))[1])
        except MissingColumn as told:
            return told
    return error


def _reached(file: Path | str, mapper: Mapper, spec: SourceSpec) -> Iterator[tuple[int, dict[str, object]]]:
    """The rows of a file; what breaks off on the way from the Hub is told as such."""
    source = rows(file, mapper.columns)
    while True:
        try:
            number, row = next(source)
        except StopIteration:
            return
        except Exception as error:
            about_the_row = isinstance(error, InputError) and not isinstance(error.__cause__, OSError)
            if about_the_row or not is_remote(file):
                raise
            raise explained(error, dataset_of(spec)) from error
        yield number, dict(row)


def _given(spec: SourceSpec, part: PromptsPart) -> Path | None:
    """The path that a part or its spec names: beside the spec when it is there, else from the working directory."""
    given = part.path or spec.path
    if given is None:
        return None
    if part.path is None and not part.names_a_file:
        beside = specs.find("data", part.source).parent / given
        if beside.exists():
            return beside
    return Path(given)


def _copy(spec: SourceSpec, part: PromptsPart) -> Path | None:
    given = _given(spec, part)
    return given if given is not None and given.is_dir() else None


def _data_file(spec: SourceSpec, part: PromptsPart) -> Path:
    given = _given(spec, part)
    if given is None:
        raise UsageError(
            f"the source '{spec.name}' names no data file",
            todo="say where it lies: `path:` in the recipe's prompts, or --set prompts.0.path=FILE",
        )
    return given
