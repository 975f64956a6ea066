"""The model that learns, by its method: loaded from its saved beginning, spread over processes, saved at its end.

Knows nothing about data, schedules or losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from distill import __version__
from distill.errors import SpecError
from distill.files import replacing_folder
from distill.hardware import bfloat16_in_hardware
from distill.progress import say
from distill.rundir import RunDir
from distill.train import adapters
from distill.train.attention import attending_whole
from distill.train.optimizer import optimizer_for
from distill.train.parallel import World, activation_checkpointing, shard
from distill.train.preparing import Prepared
from distill.train.tokenizer import rows_to_train
from distill.train_specs import TrainSettings

if TYPE_CHECKING:
    import torch

    from distill.train.loss import StudentLoss

MERGE_TRACES = 4
"""Kept traces on which a merged student is compared with its adapter: the shortest."""


@dataclass(slots=True)
class Learner:
    """A student in training. `model` is the transformers model, or peft's around it; `module` computes its loss."""

    model: Any
    module: StudentLoss
    settings: TrainSettings
    seed: int
    world: World

    @staticmethod
    def of(prepared: Prepared, run: RunDir, world: World) -> Learner:
        """Loaded from `untrained/`. Raises SpecError for a method that so many GPUs cannot share."""
        from distill.train.loss import StudentLoss

        settings, seed = prepared.recipe.train, prepared.recipe.seed
        dtype, mixed = precision(settings, world.device)
        sharded = world.size > 1
        if sharded and settings.method == "qlora":
            raise SpecError(
                "train.method: qlora trains on one GPU", todo="use --gpus 1, or train.method: lora on several"
            )
        model = _loaded(prepared, run, world, dtype)
        if settings.method != "full":
            rows = rows_to_train(prepared.spec, prepared.tokenizer)
            model = adapters.with_adapter(model, settings.lora, rows, seed=seed)
        inner = adapters.plain(model)
        if settings.activation_checkpointing or (settings.activation_checkpointing is None and world.device.type != "cpu"):
            activation_checkpointing(inner)
        module = StudentLoss(inner, mixed=mixed and not sharded)
        if sharded:
            from distill.train.weights import load_sharded

            shard(module, world, precision=settings.precision)
            if settings.method == "full":
                load_sharded(inner, run.untrained, world)
        return Learner(model, module, settings, seed, world)

    @property
    def inner(self) -> Any:
        """The transformers model itself."""
        return adapters.plain(self.model)

    @property
    def parameters(self) -> int:
        return int(self.inner.num_parameters())

    @property
    def trained_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters() if parameter.requires_grad)

    def optimizer(self) -> torch.optim.Optimizer:
        return optimizer_for(self.module, self.settings, seed=self.seed)

    @contextlib.contextmanager
    def to_sample(self) -> Iterator[Any]:
        """A transformers model that answers as the student does now. All ranks together."""
        if self.model is not self.inner:
            with adapters.sampling_copy(self.model) as copy:
                yield copy
            return
        root: Any = self.module
        if self.world.size > 1:
            root.unshard()  # what no layer of its own gathers: embeddings, norm, a tied head
        try:
            with attending_whole(self.inner) as model:
                yield model
        finally:
            if self.world.size > 1:
                root.reshard()

    def save(self, prepared: Prepared, run: RunDir) -> dict[str, Any]:
        """Writes `student/`, and `adapter/` where there is one, on the first rank; returns what is told of the merge."""
        told: dict[str, Any] = {}
        student = self.inner
        if self.model is not self.inner:
            with replacing_folder(run.adapter) as folder:
                adapters.save_adapter(self.model, folder, base=prepared.spec.base or prepared.spec.name)
            told["merge"], student = self._merged(prepared)
        facts = {**_facts(prepared, run), **told}
        if self.world.size == 1:
            from distill.train.student import save_student

            with replacing_folder(run.student) as folder:
                save_student(student, prepared.tokenizer, prepared.spec.contract, folder, facts=facts)
        else:
            self._save_sharded(prepared, run, facts)
        return told

    def _merged(self, prepared: Prepared) -> tuple[dict[str, Any], Any]:
        import numpy as np
        import torch

        from distill.train.merging import merge

        fitting = prepared.train.within(prepared.context)
        shortest = fitting[np.argsort(prepared.train.lengths[fitting], kind="stable")][:MERGE_TRACES]
        traces = [prepared.train.example(int(place)).ids.tolist() for place in shortest]
        found = merge(self.model, traces, torch.bfloat16, seed=self.seed)
        return asdict(found.check), found.student

    def _save_sharded(self, prepared: Prepared, run: RunDir, facts: dict[str, Any]) -> None:
        import torch

        from distill.train.student import save_sharded_student

        if not self.world.first:
            save_sharded_student(self.inner, prepared, self.world.shared(None), self.world, facts)
            return
        with replacing_folder(run.student) as folder:
            save_sharded_student(self.inner, prepared, self.world.shared(folder), self.world, facts)


def precision(settings: TrainSettings, device: torch.device) -> tuple[torch.dtype, bool]:
    """The dtype that weights are loaded in, and whether they compute in bfloat16 under autocast.

    A CPU without bfloat16 products emulates them, 70 times slower than float32 (AVX2, torch 2.13): there `mixed`
    computes in float32.
    """
    import torch

    dtype, mixed = adapters.dtypes(settings)
    if device.type != "cpu" or bfloat16_in_hardware():
        return dtype, mixed
    if settings.precision == "bf16" and settings.method == "full":
        say("train: this CPU only emulates bfloat16, and train.precision: bf16 will be very slow; fp32 is not")
        return dtype, mixed
    return torch.float32, False


def _loaded(prepared: Prepared, run: RunDir, world: World, dtype: torch.dtype) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = prepared.recipe.train
    if settings.method == "qlora":
        from distill.train.quantized import load_quantized

        return load_quantized(run.untrained, dtype, device=world.device)
    if world.size > 1 and settings.method == "full":
        from distill.train.weights import on_meta

        return on_meta(AutoConfig.from_pretrained(run.untrained), dtype)
    model: Any = AutoModelForCausalLM.from_pretrained(run.untrained, dtype=dtype)
    return model if world.size > 1 else model.to(world.device)


def _facts(prepared: Prepared, run: RunDir) -> dict[str, Any]:
    """What `distill.json` beside the weights says besides the contract."""
    recipe, spec = prepared.recipe, prepared.spec
    return {
        "student": spec.name,
        "base": spec.base,
        "license": spec.license,
        "gguf_pre": spec.gguf_pre,
        "teacher": recipe.teacher,
        "recipe": recipe.name,
        "method": recipe.train.method,
        "settings": recipe.section_hash("train"),
        "trained_on": run.hashes(run.kept, run.verdicts, run.traces, run.prompts),
        "distill": __version__,
    }
