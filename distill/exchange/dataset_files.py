"""Where the files of a set of traces lie: files and folders here, or the data files of a dataset on the Hub.

Knows nothing about what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from distill.errors import InputError, UsageError
from distill.prompts.hub import Dataset, files_by_split
from distill.prompts.rows import REMOTE, kind_of
from distill.source_specs import DATA_SUFFIXES

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
NO_DATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
"""Files about a dataset that lie beside its data."""


def files_of(
    given: Sequence[str], *, config: str | None = None, split: str | None = None, revision: str | None = None
) -> list[str]:
    """Paths or `hf://` addresses of the data files, in order. `given` are files, folders and Hub ids.

    `config` and `split` are of a dataset, in a folder or on the Hub; by default all splits are taken. Raises
    InputError for what is not there, UsageError for options that do not fit.
    """
    found: list[str] = []
    for place in given:
        path = Path(place)
        if path.is_dir():
            found += _in_folder(path, config, split, revision)
        elif path.is_file() or place.startswith(REMOTE):
            if (config, split, revision) != (None, None, None):
                raise UsageError(
                    f"--config, --split and --revision are of a dataset; {place} is one file",
                    todo="leave them out, or give the dataset's folder or its id on the Hub",
                )
            found.append(place)
        elif HUB_ID.fullmatch(place) and kind_of(place) not in DATA_SUFFIXES:
            found += _of_dataset(place, config, split, revision)
        else:
            raise InputError(
                f"there is no file or folder {place}",
                todo="check the path; a dataset's id on the Hub looks like open-r1/OpenR1-Math-220k",
            )
    return found


def _in_folder(path: Path, config: str | None, split: str | None, revision: str | None) -> list[str]:
    if (path / "recipe.yaml").is_file():
        todo = f"`distill export {path} --format jsonl --out traces.jsonl`, and import that file"
        raise UsageError(f"{path} is a run of distill", todo=todo)
    if revision is not None:
        raise UsageError(f"--revision is of a dataset on the Hub; {path} is a folder", todo="leave it out")
    if (path / "README.md").is_file() or config is not None or split is not None:
        return _of_dataset(str(path), config, split, None)
    files = sorted(file for file in path.rglob("*") if file.is_file() and kind_of(file) in DATA_SUFFIXES)
    hidden = [file for file in files if any(part.startswith(".") for part in file.relative_to(path).parts)]
    shown = [str(file) for file in files if file not in hidden and file.name not in NO_DATA]
    if not shown:
        raise InputError(f"the folder {path} holds no data files", todo=f"files end in {', '.join(DATA_SUFFIXES)}")
    return shown


def _of_dataset(place: str, config: str | None, split: str | None, revision: str | None) -> list[str]:
    """What the dataset's own card, or else the names of its files, say is its data."""
    give = "bring the folder here and give it: `distill import {folder} --out RUN`"
    folder = Path(place) if Path(place).is_dir() else None
    splits = files_by_split(Dataset(place, config, revision, give), folder)
    if split is not None and split not in splits:
        raise InputError(f"{place} has no split '{split}'", todo=f"its splits: {', '.join(splits) or 'none'}")
    found = [file for name, files in splits.items() if split in (None, name) for file in files]
    if not found:
        raise InputError(f"{place} names no data files", todo="download its files and give them or their folder")
    return found
