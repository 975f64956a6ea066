"""Builds or loads a student and its tokenizer under its contract, and saves it as a Hugging Face model folder.

Knows nothing about data, optimizers or runs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.contract import CONTRACT_FILE, Contract
from distill.progress import quiet_transformers
from distill.student_specs import StudentSpec
from distill.train.architecture import VOCABULARY_MULTIPLE, base_config, config_of, padded
from distill.train.tokenizer import base_tokenizer, rows_to_train, unloadable

if TYPE_CHECKING:
    import torch


def load_student(spec: StudentSpec, tokenizer: Any, *, seed: int, dtype: torch.dtype) -> Any:
    """The untrained student: from its base, or drawn from `seed`.

    Vocabulary rows that the base has not learned start at the mean of those it has; the context is extended where the
    spec says so. Raises SpecError when the base cannot be loaded or is another one than the spec describes.
    """
    import torch
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    torch.manual_seed(seed)
    config = student_config(spec, tokenizer)
    if spec.base is None:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    else:
        model = _from_base(spec, config, dtype)
        rows = model.get_input_embeddings().num_embeddings
        if len(tokenizer) > rows:
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=VOCABULARY_MULTIPLE, mean_resizing=False)
        grown = range(rows, model.get_input_embeddings().num_embeddings)
        new = {*rows_to_train(spec, tokenizer), *grown}
        mean_rows(model, sorted(new), min(rows, len(base_tokenizer(spec))))
    name_tokens(model.config, tokenizer)
    model.generation_config = generation_settings(tokenizer)
    return model


def student_config(spec: StudentSpec, tokenizer: Any) -> Any:
    """The configuration that the student is built with; nothing big is loaded for it."""
    if spec.base is not None:
        return base_config(spec)
    assert spec.architecture is not None  # the spec has one or the other
    return config_of(spec.architecture, padded(len(tokenizer)))


def name_tokens(config: Any, tokenizer: Any) -> None:
    """The model's config says what its tokenizer says of BOS, end and padding."""
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id


def generation_settings(tokenizer: Any) -> Any:
    """R1's sampling (DeepSeek-R1 model card) for everyone who loads the student without thinking about it."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        top_k=0,  # none: left open, transformers fills in 50
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _from_base(spec: StudentSpec, config: Any, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(spec.base, config=config, revision=spec.revision, dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        raise unloadable(spec, "base", str(spec.base), error) from error


def base_commit(model: Any) -> str | None:
    """The commit of the Hub that a base was loaded from, pinned or not; None for folders and students from nothing."""
    commit: str | None = getattr(model.config, "_commit_hash", None)
    return commit


def mean_rows(model: Any, rows: Sequence[int], known: int) -> None:
    """Sets vocabulary rows, in embedding and head, to the mean of the first `known` without them.

    A base leaves such rows at their initial values or at zero, and training alone brings them up too slowly: after
    fine-tuning, Llama 3's end token had a probability of 0.05 (torchtune issue 2429).
    """
    import torch

    if not rows:
        return
    learned = torch.ones(known, dtype=torch.bool)
    learned[[row for row in rows if row < known]] = False
    with torch.no_grad():
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            weight = embeddings.weight
            mean = weight[:known][learned.to(weight.device)].float().mean(0).to(weight.dtype)
            weight[list(rows)] = mean


def save_student(model: Any, tokenizer: Any, contract: Contract, folder: Path, *, facts: dict[str, Any]) -> None:
    """Writes weights in bfloat16, tokenizer, template, generation settings, and the contract they belong to."""
    import torch

    shared: dict[int, torch.Tensor] = {}  # tied weights stay one tensor, so that they are written once
    state = {
        name: shared.setdefault(tensor.data_ptr(), tensor.to(torch.bfloat16))
        for name, tensor in model.state_dict().items()
    }
    model.save_pretrained(folder, state_dict=state)
    save_files_without_weights(model, tokenizer, contract, folder, facts=facts)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone; a server often runs as another user


def save_files_without_weights(
    model: Any, tokenizer: Any, contract: Contract, folder: Path, *, facts: dict[str, Any]
) -> None:
    config = copy.deepcopy(model.config)
    config.dtype = "bfloat16"  # of the weights in the file, whatever those in memory are
    config.architectures = [type(model).__name__]
    save_contract_files(config, generation_settings(tokenizer), tokenizer, contract, folder, facts=facts)


def save_contract_files(
    config: Any, generation: Any, tokenizer: Any, contract: Contract, folder: Path, *, facts: dict[str, Any]
) -> None:
    """Everything of a saved student but its weights: all that decides which text it sees and when it stops."""
    config.save_pretrained(folder)
    generation.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    content = {
        "contract": {
            "hash": contract.hash,
            "template": contract.template,
            "forced_prefix": contract.forced_prefix,
            "instruction": dict(contract.instruction or {}),
            "system": contract.system,
        },
        **facts,
    }
    (folder / CONTRACT_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def saved_facts(folder: Path) -> dict[str, Any]:
    """What a saved student says of itself besides its weights; nothing where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
