"""Runs a Hugging Face causal language model in this process and answers many requests in batches.

Knows nothing about teachers, students, or think tags beyond counting the tokens before a closing one.
"""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from distill.contract import CLOSE
from distill.engines import EndpointError, Reply, Request
from distill.engines.batching import BatchEngine, Waiting
from distill.engines.decoding import Row, generate
from distill.progress import quiet_transformers
from distill.records import storable


class LocalEngine(BatchEngine):
    """The Engine of a model folder or Hub id, on the best device there is; `batch` is in rows."""

    def __init__(self, model: str, *, name: str = "local", batch: int = 64, revision: str | None = None) -> None:
        super().__init__(name, batch)
        self.model_path, self.revision = model, revision
        self._model: Any = None

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

    def unload(self) -> None:
        self._model = None

    def load(self) -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        quiet_transformers()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            config = AutoConfig.from_pretrained(self.model_path, revision=self.revision)
            experts = {"experts_implementation": "grouped_mm"} if hasattr(config, "n_routed_experts") else {}
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self.model_path, revision=self.revision)
            model: Any = AutoModelForCausalLM.from_pretrained(
                self.model_path, revision=self.revision, dtype=compute_dtype(device), **experts
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise EndpointError(
                f"the model {self.model_path} cannot be loaded",
                given=str(error).splitlines()[0][:300],
                todo="give a folder with config.json, weights and tokenizer, or a Hub id that can be downloaded",
            ) from error
        if not self._tokenizer.chat_template:
            raise EndpointError(
                f"the tokenizer of {self.model_path} has no chat template", todo="use a model that can chat"
            )
        self._model = model.to(device).eval()
        self.context = config.max_position_embeddings
        self._stops = stop_ids(model, self._tokenizer)
        self._pad: int = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._stops[0]
        self._close_id: int | None = self._tokenizer.get_vocab().get(CLOSE)

    def answer(self, batch: list[Waiting]) -> None:
        rows = [Row(w.ids, w.max_tokens, w.request.sampling, w.request.seed) for w in batch]
        for index, ids in generate(self._model, rows, self._stops, self._pad, cancelled=lambda: self.closing):
            batch[index].resolve(self._reply(batch[index], ids))

    def _reply(self, waiting: Waiting, ids: list[int]) -> Reply:
        stopped = ids[-1] in self._stops
        text = self._tokenizer.decode(ids[:-1] if stopped else ids, skip_special_tokens=True)
        closed = self._close_id is not None and self._close_id in ids
        return Reply(
            storable(text),
            "stop" if stopped else "length",
            self.name,
            prompt_tokens=len(waiting.ids),
            completion_tokens=len(ids),
            reasoning_tokens=ids.index(self._close_id) if closed and self._close_id is not None else None,
            honoured=waiting.request.sampling,
        )


def compute_dtype(device: str) -> str:
    """ "auto" (the checkpoint's own) where bfloat16 is computed in hardware, else "float32".

    A CPU that only emulates bfloat16 converts at every product: float32 is faster there, for twice the memory.
    """
    import torch

    has = torch.cpu.get_capabilities()
    return "auto" if device != "cpu" or has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else "float32"


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """The token ids that end a reply: those of the model's generation config, else the tokenizer's end token."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured] if configured is not None else []
    return ids or [tokenizer.eos_token_id]
