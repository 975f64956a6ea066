"""The model that learns, by its method: loaded from its saved beginning, spread over processes, saved at its end.

Knows nothing about data, schedules or losses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill import __version__
from distill.files import replacing_folder
from distill.hardware import bfloat16_in_hardware
from distill.progress import say
from distill.rundir import RunDir
from distill.train import adapters
from distill.train.architecture import sizes_of
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
        """Loaded from `untrained/`; `check_placement` has been asked before."""
        import torch

        from distill.train.loss import StudentLoss

        settings, seed = prepared.recipe.train, prepared.recipe.seed
        dtype, mixed = precision(settings, world.device)
        sharded = world.size > 1
        model = _loaded(prepared, run, world, dtype)
        if settings.method != "full":
            model = _adapted(model, prepared)
        inner = adapters.plain(model)
        if settings.activation_checkpointing or (
            settings.activation_checkpointing is None and world.device.type != "cpu"
        ):
            activation_checkpointing(inner)
        module = StudentLoss(inner, mixed=mixed and not sharded)
        if sharded:
            from distill.train.weights import load_sharded

            whole: Literal["fp32", "bf16"] = "fp32" if dtype == torch.float32 else "bf16"
            shard(module, world, precision="mixed" if mixed else whole)
            if settings.method == "full":
                load_sharded(inner, run.untrained, world)
        return Learner(model, module, settings, seed, world)

    @property
    def inner(self) -> Any:
        """The transformers model itself."""
        return adapters.plain(self.model)

    @property
    def parameters(self) -> int:
        """Of the student, without its adapter."""
        return sizes_of(self.inner.config).parameters

    @property
    def trained_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters() if parameter.requires_grad)

    def optimizer(self) -> torch.optim.Optimizer:
        return optimizer_for(self.module, self.settings, seed=self.seed)

    @contextlib.contextmanager
    def to_sample(self) -> Iterator[Any]:
        """A transformers model that answers as the student does now. All ranks together."""
        if self.model is not self.inner and self.world.size == 1:
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
        """Writes `student/`, and `adapter/` where there is one; the first rank gets what is told of its merge."""
        if self.model is self.inner:
            self._save_full(prepared, run)
            return {}
        model = self.model if self.world.size == 1 else self._gathered(prepared, run)
        if model is None:
            return {}
        with replacing_folder(run.adapter) as folder:
            adapters.save_adapter(model, folder, base=prepared.spec.base or prepared.spec.name)
        told, student = _merged(model, prepared)
        _save_plain(student, prepared, run, {"merge": told})
        return {"merge": told}

    def _save_full(self, prepared: Prepared, run: RunDir) -> None:
        if self.world.size == 1:
            _save_plain(self.inner, prepared, run, {})
        elif self.world.first:
            with replacing_folder(run.student) as folder:
                self._write_sharded(prepared, run, self.world.shared(folder))
        else:
            self._write_sharded(prepared, run, self.world.shared(None))

    def _write_sharded(self, prepared: Prepared, run: RunDir, folder: Path) -> None:
        import torch

        from distill.train.student import save_files_without_weights
        from distill.train.weights import save_weights

        save_weights(self.inner, folder, self.world, dtype=torch.bfloat16)
        if self.world.first:
            save_files_without_weights(
                self.inner, prepared.tokenizer, prepared.spec.contract, folder, facts=_facts(prepared, run)
            )

    def _gathered(self, prepared: Prepared, run: RunDir) -> Any:
        """The adapter on a student in one piece, on the CPU of the first rank; None elsewhere."""
        import torch

        from distill.train.weights import gather_full_state

        trained = dict(gather_full_state(self.inner, self.world, trained=True))
        if not self.world.first:
            return None
        dtype, _ = precision(self.settings, torch.device("cpu"))  # float32 only where this CPU has nothing smaller
        model = _adapted(_from_folder(run, dtype), prepared)
        with torch.no_grad():
            for name, parameter in adapters.plain(model).named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(trained[name])
        return model


def check_placement(settings: TrainSettings, heads: int) -> None:
    """Raises SpecError for a method, or a number of attention heads, that the processes asked for cannot share."""
    from distill.train.context_parallel import check_heads

    check_heads(heads, settings.context_parallel)


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
    from transformers import AutoConfig

    settings = prepared.recipe.train
    if settings.method == "qlora":
        from distill.train.quantized import load_quantized

        return load_quantized(run.untrained, dtype, device=world.device)
    if world.size > 1 and settings.method == "full":
        from distill.train.weights import on_meta

        return on_meta(AutoConfig.from_pretrained(run.untrained), dtype)
    model = _from_folder(run, dtype)
    return model if world.size > 1 else model.to(world.device)


def _from_folder(run: RunDir, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(run.untrained, dtype=dtype)


def _adapted(model: Any, prepared: Prepared) -> Any:
    rows = rows_to_train(prepared.spec, prepared.tokenizer)
    return adapters.with_adapter(model, prepared.recipe.train.lora, rows, seed=prepared.recipe.seed)


def _merged(model: Any, prepared: Prepared) -> tuple[dict[str, Any], Any]:
    """(how the merge compares, the student); `model` is used up."""
    import numpy as np
    import torch

    from distill.train.merging import merge

    fitting = prepared.train.within(prepared.context)
    shortest = fitting[np.argsort(prepared.train.lengths[fitting], kind="stable")][:MERGE_TRACES]
    traces = [prepared.train.example(int(place)).ids.tolist() for place in shortest]
    found = merge(model, traces, torch.bfloat16, seed=prepared.recipe.seed)
    return asdict(found.check), found.student


def _save_plain(student: Any, prepared: Prepared, run: RunDir, told: dict[str, Any]) -> None:
    from distill.train.student import save_student

    with replacing_folder(run.student) as folder:
        facts = {**_facts(prepared, run), **told}
        save_student(student, prepared.tokenizer, prepared.spec.contract, folder, facts=facts)


def _facts(prepared: Prepared, run: RunDir) -> dict[str, Any]:
    """What `distill.json` beside the weights says besides the contract."""
    from distill.train.student import saved_facts

    recipe, spec = prepared.recipe, prepared.spec
    return {
        "student": spec.name,
        "base": spec.base,
        "base_commit": saved_facts(run.untrained).get("base_commit"),
        "license": spec.license,
        "gguf_pre": spec.gguf_pre,
        "teacher": recipe.teacher,
        "recipe": recipe.name,
        "method": recipe.train.method,
        "settings": recipe.section_hash("train"),
        "trained_on": run.hashes(run.kept, run.verdicts, run.traces, run.prompts),
        "distill": __version__,
    }
