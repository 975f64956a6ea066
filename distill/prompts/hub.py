"""Data files of a dataset: on the Hugging Face Hub at a fixed revision, or in a folder that holds a copy of it.

Nothing is downloaded as a whole: the addresses found here are read in pieces. Knows nothing about columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.errors import InputError, near
from distill.source_specs import SourceSpec, Split


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is asked for of the Hub, and how a copy of it is given to distill, as words for the user; `{folder}` stands
    for where it lies."""

    name: str
    config: str | None
    revision: str | None
    give_copy: str


def dataset_of(spec: SourceSpec) -> Dataset:
    give = "bring the folder here and name it: --set prompts.0.path={folder} (problems: evaluate.prompts.0.path)"
    return Dataset(spec.dataset or "ORG/NAME", spec.config, spec.revision, give)


def dataset_files(spec: SourceSpec, split: Split, copy: Path | None) -> list[Path | str]:
    """The files of one split in their order: paths below `copy`, or `hf://` addresses.

    Raises InputError when there are none, when the Hub cannot be reached (saying how to get a copy), when the dataset
    does not exist there, or not for this user.
    """
    wanted, asked = spec.splits.get(split, split), dataset_of(spec)
    where = str(copy) if copy is not None else asked.name
    if split in spec.files:
        found = _matching(spec.files[split], asked, copy)
        if not found:
            what = f"{where} holds no {' or '.join(spec.files[split])}"
            raise InputError(what, todo=f"check `files` in the source spec {spec.name}, and that the copy is whole")
        return found
    named = files_by_split(asked, copy)
    if wanted not in named:
        raise InputError(
            f"{where} has no split '{wanted}'{near(wanted, list(named))}",
            todo=f"splits there: {', '.join(named)}; map ours onto them, `splits: {{train: NAME}}` in the source spec",
        )
    return [Path(file) if copy is not None else file for file in named[wanted]]


def files_by_split(asked: Dataset, copy: Path | None = None) -> dict[str, list[str]]:
    """Split → files of a dataset, or of a folder with a copy, as its card or, without one, its file names say.

    Raises InputError as `dataset_files` does.
    """
    from datasets import load_dataset_builder

    try:
        if copy is None:
            _require(asked)
        place, revision = (asked.name, asked.revision) if copy is None else (str(copy), None)
        builder = load_dataset_builder(place, asked.config, revision=revision)
    except Exception as error:  # the client raises many kinds, by its transport and version
        raise explained(error, asked, copy) from error
    return {str(name): [str(file) for file in files] for name, files in (builder.config.data_files or {}).items()}


def _matching(patterns: tuple[str, ...], asked: Dataset, copy: Path | None) -> list[Path | str]:
    if copy is not None:
        return [path for pattern in patterns for path in sorted(copy.glob(pattern)) if path.is_file()]
    from huggingface_hub import HfFileSystem

    try:
        _require(asked)
        hub, base = HfFileSystem(), f"datasets/{asked.name}@{asked.revision}"
        return [f"hf://{path}" for pattern in patterns for path in sorted(hub.glob(f"{base}/{pattern}"))]
    except Exception as error:
        raise explained(error, asked) from error


def _require(asked: Dataset) -> None:
    """Fails at once, and by the name of what is wrong, where the readers would try again for half a minute."""
    from huggingface_hub import HfApi

    HfApi().dataset_info(asked.name, revision=asked.revision)


def explained(error: Exception, asked: Dataset, copy: Path | None = None) -> InputError:
    """What a failure of the Hub's client means for the user, and how to go on."""
    from huggingface_hub import errors

    chain = list(_chain(error))
    texts = " ".join(str(link) for link in chain).lower()
    given = " ".join(f"{type(error).__name__}: {str(error).split('Example of usage')[0]}".split())[:400]

    def is_a(kind: type[Exception]) -> bool:
        return any(isinstance(link, kind) for link in chain)

    what, todo = f"the Hugging Face Hub cannot be reached for {asked.name}", _get_a_copy(asked)
    if copy is not None:
        what, todo = (
            f"{copy} cannot be read as the copy of a dataset",
            "say which of its configurations, or get it again",
        )
    elif is_a(errors.GatedRepoError) or "gated dataset" in texts:
        what = f"{asked.name} is given only to those who accept its terms"
        todo = f"accept them at https://huggingface.co/datasets/{asked.name}, then `hf auth login`"
    elif is_a(errors.RevisionNotFoundError) or "revision not found" in texts:
        what, todo = f"{asked.name} has no revision {asked.revision}", "take the commit from its page on the Hub"
    elif is_a(errors.RepositoryNotFoundError) or "repository not found" in texts:
        what = f"there is no dataset {asked.name} on the Hub, or not for you"
        todo = "check its name; for a private one `hf auth login`"
    elif "builderconfig" in texts or "config name is missing" in texts:
        what = f"{asked.name} has no config '{asked.config}'" if asked.config else f"{asked.name} has several configs"
        todo = "say which config: those there are named above"
    return InputError(what, given=given, todo=todo)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those behind it: the clients wrap each other's."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _get_a_copy(asked: Dataset) -> str:
    revision = f" --revision {asked.revision}" if asked.revision else ""
    folder = f"copies/{asked.name.rpartition('/')[2]}"
    return (
        f"on a machine with network: `hf download {asked.name} --repo-type dataset{revision} --local-dir {folder}`; "
        + asked.give_copy.format(folder=folder)
    )
