"""Makes the quantized files of one student, each in a folder of its own that appears when it is whole, and says what is
in it. Knows nothing about scores.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import specs
from distill.contract import Contract
from distill.files import disk_full_is_clear, replacing_folder, sha256_file, write_json
from distill.progress import say
from distill.quantize import bnb, gguf_writer, serving
from distill.quantize.fidelity import Fidelity, error_fault, fidelity
from distill.quantize.schemes import SCHEMES, Scheme

FACTS_FILE = "quantization.json"
FORMAT = 1
WEIGHTS = ("*.safetensors", "*.gguf")


@dataclass(frozen=True, slots=True)
class Source:
    """The student that files are made of."""

    folder: Path
    name: str
    contract: Contract
    texts: Sequence[str]
    """Questions that both tokenizers have to read alike."""
    gguf_pre: str | None
    """llama.cpp's name for the pre-tokenizer; None lets the converter recognise it."""


def require(schemes: Sequence[str]) -> None:
    """Raises MissingError when a program that one of the schemes needs is not installed."""
    for scheme in (SCHEMES[name] for name in schemes):
        (gguf_writer if scheme.is_gguf else bnb).require()


def make_all(source: Source, schemes: Sequence[str], out: Path) -> dict[str, dict[str, Any]]:
    """Scheme → the facts of OUT/FOLDER/, which are made unless they are there already, of this very student."""
    revision = specs.folder_revision(source.folder)
    known = {name: _made_before(out / SCHEMES[name].folder, revision) for name in schemes}
    found: dict[str, dict[str, Any]] = {}
    with _bf16(source, out, [SCHEMES[name] for name, facts in known.items() if facts is None]) as bf16:
        for name, facts in known.items():
            if facts is None:
                facts = _make(source, SCHEMES[name], out / SCHEMES[name].folder, bf16, revision)
                say(f"quantize: {name} made, {facts['bytes'] / 1e6:,.1f} MB")
            found[name] = facts
    return found


def _make(source: Source, scheme: Scheme, folder: Path, bf16: Path | None, revision: str) -> dict[str, Any]:
    with replacing_folder(folder) as place:
        if scheme.is_gguf:
            assert bf16 is not None
            file = place / f"{source.name}-{scheme.gguf_type}.gguf"
            if scheme.bits == 16:
                os.link(bf16, file)  # beside each other on one disk; the first name goes when all are made
            else:
                gguf_writer.quantize(bf16, file, scheme)
            shutil.copyfile(source.folder / "distill.json", place / "distill.json")
        else:
            bnb.write(source.folder, place, scheme)
        facts = describe(source, scheme, place, bf16)
        write_json(place / FACTS_FILE, {**facts, "source": revision})
    return {**facts, "source": revision}


def describe(source: Source, scheme: Scheme, place: Path, bf16: Path | None) -> dict[str, Any]:
    """What lies in a folder: sizes, real types, distance from the student, and every fault that shows without a
    question being asked."""
    weights = sorted(path for pattern in WEIGHTS for path in place.glob(pattern))
    found = _fidelity(source, scheme, place, bf16)
    if scheme.is_gguf:
        faults = serving.gguf_faults(weights[0], source.folder, source.contract, source.texts)
    else:
        faults = serving.folder_faults(place, source.contract)
    off = error_fault(found)
    size = sum(path.stat().st_size for path in weights)
    return {
        "format": FORMAT,
        "scheme": scheme.name,
        "loaded_by": scheme.program,
        "file": weights[0].name if scheme.is_gguf else None,
        "bytes": size,
        "bits_per_weight": round(8 * size / found.elements, 3),
        **found.to_json(),
        "faults": faults + ([off] if off else []),
        "weights": {path.name: sha256_file(path) for path in weights},
        "contract": source.contract.hash,
    }


def _fidelity(source: Source, scheme: Scheme, place: Path, bf16: Path | None) -> Fidelity:
    if not scheme.is_gguf:
        return fidelity(bnb.facts(source.folder, place))
    (file,) = place.glob("*.gguf")
    if scheme.bits == 16:
        return fidelity(gguf_writer.converted_facts(source.folder, file))
    assert bf16 is not None
    return fidelity(gguf_writer.facts(bf16, file))


@contextmanager
def _bf16(source: Source, out: Path, missing: Sequence[Scheme]) -> Iterator[Path | None]:
    """The bf16 GGUF file that the smaller ones are made of, in a folder that is gone afterwards; None when nothing
    is to be made of it."""
    place = out / ".bf16"
    shutil.rmtree(place, ignore_errors=True)  # of a start that was killed
    if not any(scheme.is_gguf for scheme in missing):
        yield None
        return
    place.mkdir(parents=True)
    try:
        file = place / "bf16.gguf"
        with disk_full_is_clear(file):
            gguf_writer.convert(source.folder, file, pre=source.gguf_pre, name=source.name)
        yield file
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _made_before(folder: Path, revision: str) -> dict[str, Any] | None:
    """The facts of a folder that was made of this student and has not been touched since."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        same = facts["format"] == FORMAT and facts["source"] == revision and not facts["faults"]
        whole = same and all(sha256_file(folder / name) == value for name, value in facts["weights"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if whole else None
