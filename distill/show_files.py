"""What a file or folder on disk is, in a few lines: a spec, a model folder, a GGUF file, a score. Only reads.

Loads no model: the number of weights is read from the headers of safetensors and GGUF files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from distill import gguf_file, safetensors_file, specs
from distill.contract import CONTRACT_FILE
from distill.errors import DistillError, InputError
from distill.rundir import QUANTIZATION

Shown = tuple[dict[str, Any], list[str]]
"""The same as values for a machine and as lines for a reader."""

CONFIG = "config.json"
SCORE_KEYS = {"conditions", "per_problem", "pass_at_1"}
PACKED = ("U8", "I8", "I32")
"""Types of tensors that quantizers put weights into: their sizes do not say how many."""


def path_shown(path: Path) -> Shown | None:
    """About what lies at `path`; None when it is nothing that is known here.

    Raises SpecError with the line for a spec that is wrong, InputError naming a file that cannot be read or holds what
    no reader can use, MissingError for a GGUF file without the package that reads it.
    """
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return spec_file_shown(path)
    if path.suffix == ".json" and path.is_file():
        return score_shown(path)
    if path.suffix == ".gguf" and path.is_file():
        return gguf_shown(path)
    if path.is_dir() and any((path / name).is_file() for name in (CONFIG, QUANTIZATION)):
        return model_shown(path)
    return None


# --- specs ---------------------------------------------------------------------------------------------------------


def spec_file_shown(path: Path) -> Shown:
    """A spec file, checked and with every default written out."""
    kind = spec_kind(path)
    spec = specs.load(kind, str(path)).model_dump(mode="json")
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True).rstrip()
    return {kind: {"path": str(path), "spec": spec}}, [f"# {kind}: {path}", text]


def spec_kind(path: Path) -> specs.SpecKind:
    """What a spec file is a spec of: the name of its folder says, else the kind that knows most of its keys."""
    for kind in specs.MODELS:
        if path.resolve().parent.name == kind:
            return kind
    try:
        content = yaml.safe_load(specs.read(path))
    except (yaml.YAMLError, ValueError):
        return "recipes"  # no YAML: reading it as whatever says where
    keys = set(content) if isinstance(content, dict) else set()
    return max(specs.MODELS, key=lambda kind: len(keys & specs.MODELS[kind].model_fields.keys()))


# --- models --------------------------------------------------------------------------------------------------------


def model_shown(folder: Path) -> Shown:
    """A model folder, whole or quantized: its architecture, its contract, how it was made."""
    values = {
        name: _json(folder / file) if (folder / file).is_file() else None
        for name, file in (("config", CONFIG), ("made", CONTRACT_FILE), ("quantization", QUANTIZATION))
    }
    size = sum(file.stat().st_size for pattern in ("*.safetensors", "*.gguf") for file in folder.glob(pattern))
    weights = weight_count(folder)
    lines = [f"model {folder}: {_size(size)} of weights"]
    if values["config"]:
        lines += usable(folder / CONFIG, config_lines(values["config"], weights))
    if values["made"]:
        lines += usable(folder / CONTRACT_FILE, contract_lines(values["made"]))
    else:
        lines.append(f"  no {CONTRACT_FILE}: under which contract it was trained is not known")
    if values["quantization"]:
        lines += usable(folder / QUANTIZATION, quantization_lines(values["quantization"]))
    return {"model": str(folder), "bytes": size, "weights": weights, **values}, lines


def weight_count(folder: Path) -> int | None:
    """Weights in the safetensors files, from their headers; None where there are none, or they are packed bits."""
    count, files = 0, sorted(folder.glob("*.safetensors"))
    for file in files:
        tensors = safetensors_file.tensors(file)
        if any(tensor.type in PACKED for tensor in tensors):
            return None
        count += sum(tensor.elements for tensor in tensors)
    return count if files else None


def config_lines(config: Mapping[str, Any], weights: int | None) -> Iterator[str]:
    size = {key: config.get(key, "?") for key in _SIZES}
    name = ", ".join(config.get("architectures") or [str(config.get("model_type"))])
    counted = f", {short_count(weights)} weights" if weights is not None else ""
    yield f"  {name}{counted}, {config.get('dtype') or config.get('torch_dtype') or 'unknown dtype'}"
    heads = f"{size['num_attention_heads']} heads ({size['num_key_value_heads']} key-value)"
    sizes = f"{size['num_hidden_layers']} layers, hidden {size['hidden_size']}, {heads}"
    yield f"  {sizes}, vocabulary {size['vocab_size']}, context {size['max_position_embeddings']}"
    quantized = config.get("quantization_config")
    if isinstance(quantized, dict):
        bits = next((b for b in (4, 8) if quantized.get(f"load_in_{b}bit") or quantized.get("bits") == b), None)
        yield f"  quantized by {quantized.get('quant_method', 'unknown')}" + (f", {bits} bits" if bits else "")


_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)


def contract_lines(made: Mapping[str, Any]) -> Iterator[str]:
    contract = made.get("contract")
    contract = contract if isinstance(contract, dict) else {}
    system = "with a system prompt" if contract.get("system") else "no system prompt"
    prefix = json.dumps(contract.get("forced_prefix", ""))
    yield f"  contract {contract.get('hash')}: template {contract.get('template')}, forced prefix {prefix}, {system}"
    known = {key: made[key] for key in ("student", "base", "teacher", "recipe", "license") if made.get(key)}
    if known:
        yield "  " + ", ".join(f"{key} {value}" for key, value in known.items())


def quantization_lines(made: Mapping[str, Any]) -> Iterator[str]:
    """What a quantizer noted: scheme, file and size, and the types that the weights really have."""
    file, size, bits = made.get("file"), made.get("bytes"), made.get("bits_per_weight")
    parts = [str(file)] if file else []  # null for a folder, which is loaded as a whole
    parts += [_size(size)] if isinstance(size, int) else []
    parts += [f"{bits:.2f} bits per weight"] if isinstance(bits, int | float) else []
    yield f"  scheme {made.get('scheme')}" + (f": {', '.join(parts)}" if parts else "")
    types = made.get("types")
    if isinstance(types, dict):
        yield from types_lines(types)
    share = made.get("four_bit_share")
    if isinstance(share, int | float):
        yield f"  {share:.1%} of the weights are in 4 bits"


def types_lines(types: Mapping[str, Any]) -> Iterator[str]:
    """Types by their share of the weights, the largest first; nothing where there are no weights."""
    total = sum(types.values())
    if total:
        ordered = sorted(types.items(), key=lambda pair: -pair[1])
        yield "  types: " + ", ".join(f"{name} {elements / total:.1%}" for name, elements in ordered)


def gguf_shown(file: Path) -> Shown:
    """A GGUF file by what stands in itself, and how it was made where the folder tells that of this very file."""
    types: Counter[str] = Counter()
    with _told(file):
        head = gguf_file.metadata(file)
        for tensor in gguf_file.tensors(file):
            types[tensor.type] += tensor.elements
    size = file.stat().st_size
    stop = f"stop token {json.dumps(head.stop, ensure_ascii=False)}" if head.stop else "names no stop token"
    template = "with a chat template" if head.chat_template else "no chat template"
    lines = [
        f"GGUF file {file}: {_size(size)}",
        f"  {head.architecture}, {short_count(types.total())} weights, context {head.context_length}",
        *types_lines(types),
        f"  {stop}, {template}",
    ]
    values = {"gguf": str(file), "bytes": size, "weights": types.total(), "types": dict(types), **asdict(head)}
    made = file.parent / QUANTIZATION
    content = _json(made) if made.is_file() else {}
    if content.get("file") == file.name:
        lines += usable(made, quantization_lines({**content, "types": None}))
        values["quantization"] = content
    return values, lines


# --- scores --------------------------------------------------------------------------------------------------------


def score_shown(path: Path) -> Shown | None:
    """A score file, RUN/evaluations/NAME.json; None for another JSON file."""
    score = _json(path)
    if not score.keys() >= SCORE_KEYS:
        return None
    return {"score": str(path), **score}, usable(path, score_lines(score), todo="evaluate again")


def score_lines(score: Mapping[str, Any]) -> Iterator[str]:
    conditions, (low, high) = score["conditions"], score["interval"]
    each = score["samples"] // score["problems"]
    pass_at_1 = f"pass@1 {score['pass_at_1']:.1%} (95%: {low:.1%} – {high:.1%})"
    yield f"score of {score['name']}: {pass_at_1}, {score['problems']} problems × {each} samples"
    tokens = score["mean_tokens"]
    length = f"{tokens:.1f} tokens a reply" if tokens is not None else "unknown length"
    yield f"  {score['unfinished']:.1%} unfinished, {length}, took {score['seconds']:.0f} s"
    drawn = {key: value for key, value in conditions["sampling"].items() if value is not None}
    sampling = ", ".join(f"{key} {value}" for key, value in drawn.items())
    yield f"  on {conditions['benchmark']}: {sampling}, at most {conditions['max_tokens']:,} tokens"
    yield f"  model {score['model']['model']} at {score['model']['revision']}, contract {score['contract']}"
    missed = sum(1 for right in score["per_problem"].values() if right == 0)
    yield f"  never right on {missed} problems; verifier {conditions['verifier']}"


# --- reading -------------------------------------------------------------------------------------------------------


def usable(path: Path, lines: Iterable[str], todo: str = "restore it from a copy") -> list[str]:
    """The lines about `path`. Raises InputError naming it when a value in it is of a kind that they cannot be made of.

    Not each value is checked by itself: the files are distill's own, and a wrong one is a damaged file.
    """
    with _told(path, todo):
        return list(lines)


@contextmanager
def _told(path: Path, todo: str = "restore it from a copy") -> Iterator[None]:
    try:
        yield
    except DistillError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        given = f"{type(error).__name__}: {error}"[:200]
        raise InputError(f"{path} holds a value that cannot be used", given=given, todo=todo) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", todo="restore it from a copy") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object", given=type(content).__name__)
    return content


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def short_count(weights: int) -> str:
    return f"{weights / 1e9:.2f}B" if weights >= 1e9 else f"{weights / 1e6:.1f}M"
