"""From a spec's sizes to transformers' configuration and back: built without weights, compared, its context extended.

Knows nothing about weights or training; of a tokenizer only its length counts, for a student from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distill.errors import SpecError
from distill.sizes import Sizes
from distill.student_specs import Architecture, StudentSpec
from distill.train.tokenizer import prepare_tokenizer, unloadable

PLAIN = ("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings")  # fmt: skip
"""Fields of an Architecture that a configuration has under the same name."""


def config_of(architecture: Architecture, vocab_size: int) -> Any:
    """The configuration of a model with these sizes and `vocab_size` rows in its embedding."""
    from transformers import AutoConfig

    values = {name: getattr(architecture, name) for name in PLAIN}
    return AutoConfig.for_model(
        values.pop("model_type"),
        **{**values, "vocab_size": vocab_size},
        head_dim=architecture.head_size,
        rope_parameters=_rope(architecture),
        initializer_range=architecture.initializer_range,
    )


def sizes_of(config: Any) -> Sizes:
    """The sizes of a model by its configuration."""
    return Sizes(
        hidden=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        tied=config.tie_word_embeddings,
        qkv_bias=config.model_type == "qwen2",
        qk_norm=config.model_type == "qwen3",
    )


def _rope(architecture: Architecture) -> dict[str, Any]:
    """The rotary embedding in transformers 5's form, which keeps theta and scaling in one place."""
    scaling = architecture.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": architecture.rope_theta}
    values = scaling.model_dump()
    return {"rope_type": values.pop("type"), "rope_theta": architecture.rope_theta, **values}


def check_architecture(spec: StudentSpec, config: Any) -> None:
    """Raises SpecError when a base's configuration is not the architecture that its spec says it has."""
    if spec.architecture is None:
        return
    expected = {name: getattr(spec.architecture, name) for name in PLAIN}
    expected |= {"head_dim": spec.architecture.head_size, "attention_bias": False, "mlp_bias": False}
    expected |= {"sliding_window": None}  # no model that a spec can describe attends to less than everything
    found = {name: getattr(config, name, None) for name in expected}
    found["head_dim"] = found["head_dim"] or config.hidden_size // config.num_attention_heads
    # Qwen2's biases are no choice, and only Llama has a switch for those of the feed-forward block
    found |= {name: found[name] or False for name in ("attention_bias", "mlp_bias")}
    differences = _differences(expected, found)
    differences += _differences(_rope(spec.architecture), getattr(config, "rope_parameters", None) or {})
    if differences:
        raise SpecError(
            f"the base of student '{spec.name}' is not the architecture in its spec",
            given=f"{spec.base}: {'; '.join(differences)}",
            todo="correct architecture in the student spec, or name the base it describes; without it: "
            "--set student_overrides.architecture=null",
        )


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} is {found.get(name)}, the spec says {expected.get(name)}"
        for name in sorted({*expected, *found})
        if not _same(found.get(name), expected.get(name))
    ]


def _same(left: Any, right: Any) -> bool:
    """Equal, or equal as float32, which is what some formats keep numbers in (1e-5 of a GGUF file: 9.99999974e-06)."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-6)
    return bool(left == right)


def extend_context(spec: StudentSpec, config: Any) -> None:
    """Gives a configuration the positions and the rotary theta of the spec's context extension, if it has one.

    Has to come before the model is built, which computes its frequencies once. Raises SpecError when the extension
    would not lengthen the context, or the base scales its frequencies already.
    """
    extension = spec.context_extension
    if extension is None:
        return
    base = config.max_position_embeddings
    if extension.max_position_embeddings <= base or extension.rope_theta <= config.rope_parameters["rope_theta"]:
        raise SpecError(
            f"the context_extension of student '{spec.name}' extends nothing",
            given=f"{extension.max_position_embeddings} positions and theta {extension.rope_theta:g}; the base has "
            f"{base} and {config.rope_parameters['rope_theta']:g}",
            todo="give more of both, or drop context_extension",
        )
    if config.rope_parameters["rope_type"] != "default":
        raise SpecError(
            f"the context_extension of student '{spec.name}' is for a base without rope scaling",
            given=f"{spec.base}: {config.rope_parameters}",
            todo="drop context_extension: this base was extended by its publisher",
        )
    config.max_position_embeddings = extension.max_position_embeddings
    config.rope_parameters = {**config.rope_parameters, "rope_theta": extension.rope_theta}


def base_config(spec: StudentSpec) -> Any:
    """The configuration of the spec's base, from its folder or the Hub, checked and with its context extended."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(spec.base, revision=spec.revision)
    except (OSError, ValueError, KeyError) as error:
        raise unloadable(spec, "base", str(spec.base), error) from error
    check_architecture(spec, config)
    extend_context(spec, config)
    return config


def meta_student(spec: StudentSpec) -> Any:
    """The student as a model without memory for its weights (torch's meta device), its context extended.

    From the spec's architecture where it has one, so that nothing is downloaded; a base's vocabulary has the rows it is
    published with.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = planned_config(spec)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def planned_config(spec: StudentSpec) -> Any:
    """What `meta_student` builds: the configuration of the spec's architecture, else of its base."""
    if spec.architecture is None:
        return base_config(spec)
    vocabulary = spec.architecture.vocab_size
    if vocabulary is None:
        vocabulary = padded(len(prepare_tokenizer(spec)))
    config = config_of(spec.architecture, vocabulary)
    extend_context(spec, config)
    return config


VOCABULARY_MULTIPLE = 64
"""An embedding that grows gets a multiple of this many rows, which matrix kernels are fastest with."""


def padded(tokens: int) -> int:
    return -(-tokens // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
