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
from distill.contract import CONTRACT_FILE, Contract
from distill.files import disk_full_is_clear, replacing_folder, sha256_once, write_json
from distill.progress import say
from distill.quantize import bnb, gguf_writer, serving
from distill.quantize.fidelity import Fidelity, error_fault, fidelity
from distill.quantize.schemes import SCHEMES, Scheme
from distill.rundir import QUANTIZATION

FORMAT = 3
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

    @property
    def revision(self) -> str:
        """Hash of the files that decide what the student writes."""
        return specs.folder_revision(self.folder)


def require(schemes: Sequence[str]) -> None:
    """Raises MissingError when a program that one of the schemes needs is not installed."""
    for scheme in (SCHEMES[name] for name in schemes):
        (gguf_writer if scheme.is_gguf else bnb).require()


@dataclass(frozen=True, slots=True)
class Conversion:
    """The student as a bf16 GGUF file, which the smaller ones are made of, compared with the student."""

    file: Path
    fidelity: Fidelity


def make_all(source: Source, schemes: Sequence[str], out: Path) -> dict[str, dict[str, Any]]:
    """Scheme → the facts of OUT/FOLDER/, which are made unless they are there already, of this very student.

    Raises InputError when the student cannot be loaded, RunError when a quantizer fails.
    """
    known = {name: made_before(out / SCHEMES[name].folder, source) for name in schemes}
    found: dict[str, dict[str, Any]] = {}
    with _converted(source, out, [SCHEMES[name] for name, facts in known.items() if facts is None]) as bf16:
        for name, facts in known.items():
            if facts is None:
                facts = _make(source, SCHEMES[name], out / SCHEMES[name].folder, bf16)
                say(f"quantize: {name} made, {facts['bytes'] / 1e6:,.1f} MB")
            found[name] = facts
    return found


def _make(source: Source, scheme: Scheme, folder: Path, bf16: Conversion | None) -> dict[str, Any]:
    with replacing_folder(folder) as place:
        if scheme.is_gguf:
            assert bf16 is not None
            file = place / f"{source.name}-{scheme.gguf_type}.gguf"
            if scheme.bits == 16:
                os.link(bf16.file, file)  # beside each other on one disk; the first name goes when all are made
            else:
                gguf_writer.quantize(bf16.file, file, scheme)
            shutil.copyfile(source.folder / CONTRACT_FILE, place / CONTRACT_FILE)
        else:
            bnb.write(source.folder, place, scheme)
        facts = describe(source, scheme, place, bf16)
        write_json(place / QUANTIZATION, facts)
    return facts


def describe(source: Source, scheme: Scheme, place: Path, bf16: Conversion | None) -> dict[str, Any]:
    """What lies in a folder: sizes, real types, distance from the student, and every fault that shows without a
    question being asked."""
    weights = sorted(path for pattern in WEIGHTS for path in place.glob(pattern))
    found = _fidelity(source, scheme, place, bf16)
    faults: list[str | None]
    if scheme.is_gguf:
        faults = [*serving.gguf_faults(weights[0], source.folder, source.contract, source.texts)]
        faults += [error_fault(bf16.fidelity)] if bf16 is not None and scheme.bits < 16 else []
    else:
        faults = [*serving.folder_faults(place, source.contract)]
    size = sum(path.stat().st_size for path in weights)
    return {
        "format": FORMAT,
        "scheme": scheme.name,
        "loaded_by": scheme.program,
        "file": weights[0].name if scheme.is_gguf else None,
        "bytes": size,
        "bits_per_weight": round(8 * size / found.elements, 3),
        **found.to_json(),
        "faults": [fault for fault in (*faults, error_fault(found)) if fault],
        "files": {path.name: sha256_once(path) for path in sorted(place.iterdir()) if path.name != QUANTIZATION},
        "contract": source.contract.hash,
        "gguf_pre": source.gguf_pre if scheme.is_gguf else None,
        "source": source.revision,
    }


def _fidelity(source: Source, scheme: Scheme, place: Path, bf16: Conversion | None) -> Fidelity:
    if not scheme.is_gguf:
        return fidelity(bnb.facts(source.folder, place))
    assert bf16 is not None
    if scheme.bits == 16:
        return bf16.fidelity  # it is that very file
    (file,) = place.glob("*.gguf")
    return fidelity(gguf_writer.facts(bf16.file, file))


@contextmanager
def _converted(source: Source, out: Path, missing: Sequence[Scheme]) -> Iterator[Conversion | None]:
    """The bf16 GGUF file in a folder that is gone afterwards; None when nothing is to be made of it."""
    for leftover in out.glob(".bf16.*"):  # of starts that were killed; there is one writer
        shutil.rmtree(leftover, ignore_errors=True)
    if not any(scheme.is_gguf for scheme in missing):
        yield None
        return
    place = out / f".bf16.{os.getpid()}"
    place.mkdir(parents=True)
    try:
        file = place / "bf16.gguf"
        with disk_full_is_clear(file):
            gguf_writer.convert(source.folder, file, pre=source.gguf_pre, name=source.name)
        yield Conversion(file, fidelity(gguf_writer.converted_facts(source.folder, file)))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def facts_of(folder: Path) -> dict[str, Any]:
    """What was written down when the folder was made; empty for one that is not there or says nothing readable."""
    try:
        facts = json.loads((folder / QUANTIZATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def made_before(folder: Path, source: Source) -> dict[str, Any] | None:
    """The facts of a folder that was made of this student, without a fault, and not touched since."""
    facts = facts_of(folder)
    try:
        scheme = SCHEMES[facts["scheme"]]
        wanted = (FORMAT, source.revision, source.contract.hash, source.gguf_pre if scheme.is_gguf else None)
        if (facts["format"], facts["source"], facts["contract"], facts["gguf_pre"]) != wanted or facts["faults"]:
            return None
        there = {path.name for path in folder.iterdir()} - {QUANTIZATION}
        whole = there == set(facts["files"]) and all(
            sha256_once(folder / name) == value for name, value in facts["files"].items()
        )
    except (OSError, KeyError, TypeError, AttributeError):
        return None
    return facts if whole and facts.keys() >= NEEDED else None


NEEDED = {"scheme", "bytes", "elements", "bits_per_weight", "four_bit_share", "types", "worst_tensor"}
"""Facts that the stage goes on with."""
