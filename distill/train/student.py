"""Builds or loads a student and its tokenizer under its contract, and saves it as a Hugging Face model folder.

Knows nothing about data, optimizers or runs.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.contract import CLOSE, CONTRACT_FILE, OPEN, Contract, tokenizer_contract_faults
from distill.errors import ContractError, SpecError
from distill.progress import quiet_transformers
from distill.student_specs import Architecture, StudentSpec

if TYPE_CHECKING:
    import torch

VOCABULARY_MULTIPLE = 64


def prepare_tokenizer(spec: StudentSpec) -> Any:
    """The student's tokenizer with its contract's template, stop token, pad token and think tags.

    Raises ContractError when it cannot serve the contract, SpecError when it cannot be loaded.
    """
    tokenizer = _tokenizer_of(spec)
    if spec.thinks:
        missing = [tag for tag in (OPEN, CLOSE) if len(tokenizer.encode(tag, add_special_tokens=False)) != 1]
        tokenizer.add_tokens(missing, special_tokens=False)
    if spec.pad_token is not None:
        tokenizer.pad_token = spec.pad_token
    tokenizer.eos_token = spec.contract.stop
    tokenizer.chat_template = spec.contract.chat_template
    faults = tokenizer_contract_faults(tokenizer, spec.contract, thinks=spec.thinks)
    if faults:
        raise ContractError(
            f"the tokenizer of student '{spec.name}' cannot serve the template '{spec.template}'",
            given="; ".join(faults),
            todo="correct template, pad_token or tokenizer in the student spec",
        )
    return tokenizer


def _tokenizer_of(spec: StudentSpec) -> Any:
    from transformers import AutoTokenizer

    place = spec.tokenizer or spec.base
    try:
        return AutoTokenizer.from_pretrained(place, revision=None if spec.tokenizer else spec.revision)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"the tokenizer of student '{spec.name}' cannot be loaded",
            given=f"{place}: {str(error).splitlines()[0][:200]}",
            todo="download it first, or name a folder with --set student_overrides.tokenizer=FOLDER",
        ) from error


def load_student(spec: StudentSpec, tokenizer: Any, *, seed: int, dtype: torch.dtype) -> Any:
    """The untrained student: from its base, or drawn from `seed`. New vocabulary rows start at the others' mean."""
    import torch

    quiet_transformers()
    torch.manual_seed(seed)
    model = _from_architecture(spec.architecture, tokenizer, dtype) if spec.architecture else _from_base(spec, dtype)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=VOCABULARY_MULTIPLE, mean_resizing=True)
    if spec.base is not None:
        _mean_rows(model, len(_tokenizer_of(spec)), len(tokenizer))
    name_tokens(model.config, tokenizer)
    model.generation_config = generation_settings(tokenizer)
    return model


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


def _from_architecture(architecture: Architecture, tokenizer: Any, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(architecture_config(architecture, tokenizer), dtype=dtype)


def architecture_config(architecture: Architecture, tokenizer: Any) -> Any:
    from transformers import AutoConfig

    sizes = architecture.model_dump()
    vocabulary = -(-len(tokenizer) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    return AutoConfig.for_model(sizes.pop("model_type"), vocab_size=vocabulary, **sizes)


def _from_base(spec: StudentSpec, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(spec.base, revision=spec.revision, dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        raise SpecError(
            f"the base of student '{spec.name}' cannot be loaded",
            given=f"{spec.base}: {str(error).splitlines()[0][:200]}",
            todo="download it first, or name a folder with --set student_overrides.base=FOLDER",
        ) from error


def _mean_rows(model: Any, known: int, count: int) -> None:
    """Vocabulary rows `known` to `count` become the mean of those before: a base often has such rows, never trained."""
    import torch

    if known >= count:
        return
    with torch.no_grad():
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            embeddings.weight[known:count] = embeddings.weight[:known].float().mean(0).to(embeddings.weight.dtype)


def save_student(model: Any, tokenizer: Any, contract: Contract, folder: Path, *, facts: dict[str, Any]) -> None:
    """Writes weights in bfloat16, tokenizer, template, generation settings, and the contract they belong to."""
    import torch

    shared: dict[int, torch.Tensor] = {}  # tied weights stay one tensor, so that they are written once
    state = {
        name: shared.setdefault(tensor.data_ptr(), tensor.to(torch.bfloat16))
        for name, tensor in model.state_dict().items()
    }
    model.save_pretrained(folder, state_dict=state)
    config = copy.deepcopy(model.config)  # save_pretrained wrote the dtype of the weights in memory
    config.dtype = "bfloat16"
    config.architectures = [type(model).__name__]
    save_contract_files(config, model.generation_config, tokenizer, contract, folder, facts=facts)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone; a server often runs as another user


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
