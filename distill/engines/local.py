"""Runs a Hugging Face causal language model in this process and answers many requests in batches.

Knows nothing about teachers, students, or think tags beyond counting the tokens before a closing one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from distill.contract import CLOSE
from distill.engines import EndpointError, Request
from distill.engines.batching import BatchEngine, Waiting
from distill.engines.decoding import Row, generate
from distill.engines.memory import free_memory
from distill.hardware import bfloat16_in_hardware
from distill.progress import quiet_transformers


class LocalEngine(BatchEngine):
    """The Engine of a model folder or Hub id, on the best device there is; `batch` is in rows."""

    def __init__(self, model: str, *, name: str = "local", batch: int = 64, revision: str | None = None) -> None:
        super().__init__(name, batch)
        self.model_path, self.revision = model, revision
        self._model: Any = None
        self._tokenizer: Any = None

    def encode(self, request: Request) -> list[int]:
        try:
            text = self._tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:  # such as a template that knows no system role
            raise EndpointError(
                f"the chat template of {self.model_path} refuses these messages: {error}",
                given=", ".join(message["role"] for message in request.messages),
                todo="take what it refuses out of the teacher spec, such as its system prompt",
            ) from error
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def unload(self) -> None:
        self._model = None
        free_memory()

    def load(self) -> None:
        loaded = load_model(self.model_path, revision=self.revision)
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self.context, self.stops = loaded.context, loaded.stops
        pad: int | None = loaded.tokenizer.pad_token_id
        self._pad: int = pad if pad is not None else loaded.stops[0]
        self.close_id = loaded.tokenizer.get_vocab().get(CLOSE)

    def answer(self, batch: list[Waiting]) -> None:
        rows = [Row(w.ids, w.max_tokens, w.request.sampling, w.request.seed) for w in batch]
        for index, ids in generate(self._model, rows, self.stops, self._pad, cancelled=lambda: self.closing):
            batch[index].resolve(self._reply(batch[index], ids))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to generate, its tokenizer, its context in tokens, and the ids that end a reply."""

    model: Any
    tokenizer: Any
    context: int
    stops: list[int]


def load_model(path: str, *, revision: str | None = None) -> Loaded:
    """A model folder or Hub id on the best device there is. Raises EndpointError when there is none or it cannot chat.

    A quantized folder stays on the device that its quantizer put it on.
    """
    quiet_transformers()
    try:
        loaded = _loaded(path, revision)
    except Exception as error:  # damaged files make libraries raise anything: KeyError, SafetensorError, Exception
        first = next(iter(str(error).strip().splitlines()), "")
        raise EndpointError(
            f"the model {path} cannot be loaded",
            given=f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__,
            todo="give a folder with config.json, weights and tokenizer, or a Hub id that can be downloaded",
        ) from error
    if not loaded.tokenizer.chat_template:
        raise EndpointError(f"the tokenizer of {path} has no chat template", todo="use a model that can chat")
    return loaded


def _loaded(path: str, revision: str | None) -> Loaded:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.from_pretrained(path, revision=revision)
    options: dict[str, Any] = {"experts_implementation": "grouped_mm"} if hasattr(config, "n_routed_experts") else {}
    quantized = getattr(config, "quantization_config", None) is not None
    if quantized:
        options["device_map"] = {"": device}
    tokenizer: Any = AutoTokenizer.from_pretrained(path, revision=revision)
    model: Any = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=compute_dtype(device), **options)
    if not quantized:
        model = model.to(device)
    return Loaded(model.eval(), tokenizer, config.max_position_embeddings, stop_ids(model, tokenizer))


def compute_dtype(device: str) -> str:
    """ "auto" (the checkpoint's own) where bfloat16 is computed in hardware, else "float32".

    A CPU that only emulates bfloat16 converts at every product: float32 is faster there, for twice the memory.
    """
    return "auto" if device != "cpu" or bfloat16_in_hardware() else "float32"


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """The token ids that end a reply: those of the model's generation config, else the tokenizer's end token."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured] if configured is not None else []
    return ids or [tokenizer.eos_token_id]
