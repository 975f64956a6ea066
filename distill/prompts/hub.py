"""Data files of a dataset: on the Hugging Face Hub at a fixed revision, or in a folder that holds a copy of it.

Nothing is downloaded as a whole: the addresses found here are read in pieces. Knows nothing about columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distill.errors import DistillError, InputError, near
from distill.source_specs import SourceSpec, Split


def dataset_files(spec: SourceSpec, split: Split, copy: Path | None) -> list[Path | str]:
    """The files of one split in their order: paths below `copy`, or `hf://` addresses.

    Raises InputError when there are none, when the Hub cannot be reached (saying how to get a copy), when the dataset
    does not exist there, or not for this user.
    """
    wanted = spec.splits.get(split, split)
    if copy is not None:
        return _in_folder(spec, split, wanted, copy)
    try:
        return _on_hub(spec, split, wanted)
    except DistillError:
        raise
    except Exception as error:  # the client raises many kinds, by its transport and version
        raise explained(error, spec) from error


def _in_folder(spec: SourceSpec, split: Split, wanted: str, folder: Path) -> list[Path | str]:
    if split in spec.files:
        found = [path for pattern in spec.files[split] for path in sorted(folder.glob(pattern)) if path.is_file()]
        return _some(list(found), f"{folder} holds no {' or '.join(spec.files[split])}", spec)
    try:
        named = _by_card(str(folder), spec.config, None)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is no copy of a dataset: {str(error)[:200]}", todo=_get_a_copy(spec)) from error
    return [Path(file) for file in _of_split(named, wanted, str(folder))]


def _on_hub(spec: SourceSpec, split: Split, wanted: str) -> list[Path | str]:
    from huggingface_hub import HfApi, HfFileSystem

    assert spec.dataset is not None
    HfApi().dataset_info(spec.dataset, revision=spec.revision)  # fails at once and by name where the others try again
    if split in spec.files:
        base = f"datasets/{spec.dataset}@{spec.revision}"
        hub = HfFileSystem()
        found = [f"hf://{path}" for pattern in spec.files[split] for path in sorted(hub.glob(f"{base}/{pattern}"))]
        return _some(list(found), f"{spec.dataset} holds no {' or '.join(spec.files[split])}", spec)
    return list(_of_split(_by_card(spec.dataset, spec.config, spec.revision), wanted, spec.dataset))


def _some(found: list[Path | str], what: str, spec: SourceSpec) -> list[Path | str]:
    if not found:
        raise InputError(what, todo=f"check `files` in the source spec {spec.name}, and that the copy is whole")
    return found


def _by_card(place: str, config: str | None, revision: str | None) -> dict[str, list[str]]:
    """Split → files, as the dataset's card or, without one, its file names say."""
    from datasets import load_dataset_builder

    builder = load_dataset_builder(place, config, revision=revision)
    return {str(name): [str(file) for file in files] for name, files in (builder.config.data_files or {}).items()}


def _of_split(named: dict[str, list[str]], wanted: str, where: str) -> list[str]:
    if wanted not in named:
        raise InputError(
            f"{where} has no split '{wanted}'{near(wanted, list(named))}",
            todo=f"splits there: {', '.join(named)}; map ours onto them, `splits: {{train: NAME}}` in the source spec",
        )
    return named[wanted]


def explained(error: Exception, spec: SourceSpec) -> InputError:
    """What a failure of the Hub's client means for the user, and how to go on."""
    from huggingface_hub import errors

    chain = list(_chain(error))
    texts = " ".join(str(link) for link in chain).lower()

    def is_a(kind: type[Exception]) -> bool:
        return any(isinstance(link, kind) for link in chain)

    what, todo = f"the Hugging Face Hub cannot be reached for {spec.dataset}", _get_a_copy(spec)
    if is_a(errors.GatedRepoError) or "gated dataset" in texts:
        what = f"{spec.dataset} is given only to those who accept its terms"
        todo = f"accept them at https://huggingface.co/datasets/{spec.dataset}, then `hf auth login`"
    elif is_a(errors.RevisionNotFoundError) or "revision not found" in texts:
        what, todo = f"{spec.dataset} has no revision {spec.revision}", f"correct `revision` in the spec {spec.name}"
    elif is_a(errors.RepositoryNotFoundError) or "repository not found" in texts:
        what = f"there is no dataset {spec.dataset} on the Hub, or not for you"
        todo = "check its name; for a private one `hf auth login`"
    elif "builderconfig" in texts:
        what, todo = f"{spec.dataset} has no config '{spec.config}'", f"correct `config` in the spec {spec.name}"
    return InputError(what, given=f"{type(error).__name__}: {str(error)[:200]}", todo=todo)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those behind it: the clients wrap each other's."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _get_a_copy(spec: SourceSpec) -> str:
    revision = f" --revision {spec.revision}" if spec.revision else ""
    folder = f"copies/{spec.name}"
    return (
        f"on a machine with network: `hf download {spec.dataset or 'ORG/NAME'} --repo-type dataset{revision} "
        f"--local-dir {folder}`; bring the folder here and name it: --set prompts.0.path={folder}"
    )
