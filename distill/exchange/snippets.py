"""What TRL, Axolotl and LLaMA-Factory need beside the rows: their configuration, filled from the run, and a README.

Every setting says why it stands there. Option names were taken from TRL 1.16.0, Axolotl 0.19.0 and LLaMA-Factory 0.9.5;
docs/export.md tells what was tried. Knows nothing about rows or where they are written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from distill.contract import CLOSE, OPEN, TEMPLATES, Contract
from distill.exchange.lengths import Length
from distill.exchange.trl_script import trl_script
from distill.student_specs import StudentSpec
from distill.train_specs import Phase, TrainSettings

FILL_IN = "FILL-IN"
MODEL_GAP, TEMPLATE_GAP = f"{FILL_IN}-MODEL", f"{FILL_IN}-TEMPLATE"
"""Stand where nobody but the user knows the value."""
TRAINING_TEMPLATE, SERVING_TEMPLATE = "training_template.jinja", "chat_template.jinja"
LLAMA_FACTORY_TEMPLATES = {
    "deepseek-r1": "deepseek3",  # the same text as deepseekr1, but adds no empty think block of its own
    "chatml": "chatml",  # not qwen or smollm2, which add a system prompt, nor qwen3, which adds think blocks
    "llama3": "llama3",
}
"""Our template → the one of LLaMA-Factory that writes the same text and leaves the reply as it is."""

Setting = tuple[str, Any, str]
"""Key, value and the reason for it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What there is to train: `base` is the model to start from, None where nobody knows it; `rows` by side."""

    spec: StudentSpec | None
    base: str | None
    train: TrainSettings
    phase: Phase
    seed: int
    length: Length
    rows: Mapping[str, int]

    @property
    def contract(self) -> Contract | None:
        return self.spec.contract if self.spec else None

    @property
    def heldout(self) -> bool:
        return bool(self.rows.get("heldout"))

    @property
    def tags(self) -> list[str]:
        return [OPEN, CLOSE] if self.spec is not None and self.spec.thinks else []

    @property
    def gaps(self) -> tuple[str, ...]:
        """What the user has to fill in."""
        found = []
        if self.spec is None:
            found.append("model and chat template, as the run names no student: fill them in, or give --student SPEC")
        elif self.base is None:
            found.append(f"the model: student '{self.spec.name}' starts from nothing")
        if self.train.method != "full":
            rate = " and its learning rate" if self.train.learning_rate is None else ", whose learning rate this is"
            found.append(f"the adapter{rate}: the recipe trains by {self.train.method}, this trains every weight")
        if self.phase.mixture or self.phase.order != "shuffled":
            found.append("train.mixture and train.order: here every row is seen once an epoch, shuffled")
        return tuple(found)


def training_template(contract: Contract) -> str:
    """The chat template for training: nothing is put behind the assistant's header, so that the opening tag is in the
    loss, and a text ends with its stop token, as in our own training."""
    return dataclasses.replace(TEMPLATES[contract.template], after="").jinja("")


def tool_files(tool: str, job: Job) -> dict[str, str]:
    """File name → text of what lies beside the rows for `tool`."""
    contract = job.contract
    files = {}
    if contract is not None:
        files[SERVING_TEMPLATE] = contract.chat_template
        if tool != "llama-factory":
            files[TRAINING_TEMPLATE] = training_template(contract)
    if tool == "trl":
        files["train_trl.py"] = trl_script(
            model=job.base or MODEL_GAP,
            revision=job.spec.revision if job.spec else None,
            stop=contract.stop if contract else None,
            pad=job.spec.pad_token if job.spec else None,
            tags=job.tags,
            templates=contract is not None,
            train=job.train,
            phase=job.phase,
            seed=job.seed,
            length=job.length.told(),
        )
    elif tool == "axolotl":
        files["axolotl.yaml"] = _yaml(job, axolotl_settings(job))
    else:
        files["dataset_info.json"] = json.dumps(dataset_info(job), indent=2) + "\n"
        files["llama_factory.yaml"] = _yaml(job, llama_factory_settings(job))
    return {**files, "README.md": readme(tool, job, sorted(files))}


# --- Axolotl ---------------------------------------------------------------------------------------------------------


def axolotl_settings(job: Job) -> Iterable[Setting]:
    contract, train = job.contract, job.train
    yield "base_model", job.base or MODEL_GAP, ""
    if job.spec is not None and job.spec.revision:
        yield "revision_of_model", job.spec.revision, ""
    if contract is not None:
        yield "chat_template", "jinja", "the student's own; a stock one may drop the reasoning or add a system prompt"
        yield "chat_template_jinja", TRAINING_TEMPLATE, ""
        tokens = {"eos_token": contract.stop, **({"pad_token": job.spec.pad_token} if _pad(job) and job.spec else {})}
        yield "special_tokens", tokens, "a reply ends with this token; without it the student never stops"
        yield "eot_tokens", [contract.stop], "where Axolotl looks for the end of a turn"
        if job.tags:
            yield "tokens", job.tags, "one token each; those that the tokenizer has already stay as they are"
    else:
        yield "chat_template", "tokenizer_default", "check that it keeps the reasoning: see README.md"
    rows = {"path": "train.jsonl", "ds_type": "json", "type": "chat_template", "field_messages": "messages"}
    masks = {"roles_to_train": ["assistant"], "train_on_eos": "turn", "split_thinking": False}
    yield "datasets", [{**rows, **masks}], "split_thinking would take the reasoning out of the text that is learnt"
    if job.heldout:
        test = {**rows, "path": "heldout.jsonl", "split": "train"}
        yield "test_datasets", [{**test, **masks}], "loss on prompts that are not trained on"
    yield "sequence_len", job.length.limit, job.length.told()
    yield "excess_length_strategy", "raise", "the default, drop, leaves long traces out without an error"
    yield "sample_packing", False, "true needs flash attention, and a sequence_len that fits your memory"
    yield "train_on_inputs", False, ""
    yield "micro_batch_size", 1, ""
    yield "gradient_accumulation_steps", train.batch_size, "divide by the number of GPUs"
    yield "num_epochs", job.phase.epochs, ""
    yield "learning_rate", job.phase.learning_rate, ""
    yield "lr_scheduler", "cosine", ""
    yield "cosine_min_lr_ratio", train.final_learning_rate, ""
    yield "warmup_ratio", train.warmup, ""
    yield "weight_decay", train.weight_decay, ""
    yield "max_grad_norm", train.max_grad_norm, ""
    yield "optimizer", "adamw_torch", ""
    yield "bf16", train.precision != "fp32", ""
    yield "gradient_checkpointing", True, ""
    yield "seed", job.seed % 2**32, ""
    yield "dataset_prepared_path", "prepared", "delete it after every change: Axolotl reads it instead of the rows"
    yield "output_dir", "./out", ""


def _pad(job: Job) -> bool:
    return job.spec is not None and job.spec.pad_token is not None


# --- LLaMA-Factory ---------------------------------------------------------------------------------------------------


def dataset_info(job: Job) -> dict[str, Any]:
    """The entries for LLaMA-Factory: without `tags` it would look for from/value, human and gpt."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    form = {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {**tags, "system_tag": "system"},
    }
    names = {"distill_train": "train.jsonl", **({"distill_heldout": "heldout.jsonl"} if job.heldout else {})}
    return {name: {"file_name": file, **form} for name, file in names.items()}


def llama_factory_settings(job: Job) -> Iterable[Setting]:
    contract, train = job.contract, job.train
    yield "model_name_or_path", job.base or MODEL_GAP, ""
    if job.spec is not None and job.spec.revision:
        yield "model_revision", job.spec.revision, ""
    yield "stage", "sft", ""
    yield "do_train", True, ""
    yield "finetuning_type", "full", ""
    yield "dataset_dir", ".", "where dataset_info.json lies"
    yield "dataset", "distill_train", ""
    if job.heldout:
        yield "eval_dataset", "distill_heldout", "loss on prompts that are not trained on"
        yield "eval_strategy", "epoch", ""
        yield "per_device_eval_batch_size", 1, ""
    template = LLAMA_FACTORY_TEMPLATES[contract.template] if contract else TEMPLATE_GAP
    yield "template", template, "writes the student's own format and leaves the reply as it is"
    if contract is not None and contract.system is None:
        yield "default_system", "", "no system prompt of the template's own"
    yield "enable_thinking", None, "only for reasoning templates (qwen3, deepseekr1): false would cut all reasoning out"
    if job.tags:
        yield "add_tokens", ",".join(job.tags), "one token each; those that the tokenizer has already stay as they are"
        yield "resize_vocab", True, ""
    yield "cutoff_len", job.length.limit, f"the default, 2048, cuts traces without an error; {job.length.told()}"
    yield "packing", False, "with true, traces over cutoff_len are dropped, and texts in a pack see each other"
    yield "train_on_prompt", False, ""
    yield "per_device_train_batch_size", 1, ""
    yield "gradient_accumulation_steps", train.batch_size, "divide by the number of GPUs"
    yield "num_train_epochs", job.phase.epochs, ""
    yield "learning_rate", job.phase.learning_rate, ""
    yield "lr_scheduler_type", "cosine_with_min_lr", ""
    yield "lr_scheduler_kwargs", {"min_lr_rate": train.final_learning_rate}, ""
    steps = -(-job.rows["train"] // train.batch_size) * job.phase.epochs
    yield "warmup_steps", round(steps * train.warmup), "a number: warmup_ratio is gone from newer transformers"
    yield "weight_decay", train.weight_decay, ""
    yield "max_grad_norm", train.max_grad_norm, ""
    yield "bf16", train.precision != "fp32", ""
    yield "seed", job.seed % 2**32, ""
    yield "output_dir", "out", ""
    yield "logging_steps", 10, ""
    yield "report_to", "none", ""


# --- text ------------------------------------------------------------------------------------------------------------


def _yaml(job: Job, settings: Iterable[Setting]) -> str:
    """YAML with a comment over what needs one; each value as JSON, which YAML reads alike."""
    lines = ["# Written by `distill export`; README.md says how to start and what to watch."]
    lines += [f"# To fill in: {gap}." for gap in job.gaps]
    for key, value, reason in settings:
        if reason:
            lines.append(f"# {reason}")
        lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


COMMANDS = {
    "trl": "pip install 'trl>=1.16' && python train_trl.py --max-steps 1   # one step; leave --max-steps out to train",
    "axolotl": "axolotl preprocess axolotl.yaml --debug && axolotl train axolotl.yaml",
    "llama-factory": "llamafactory-cli train llama_factory.yaml",
}
PITFALLS: Mapping[str, tuple[str, ...]] = {
    "trl": (
        "`max_length` is 1,024 by default: a longer trace loses its answer without an error. The script sets None.",
        "Rows with `messages` train on the prompt too; `prompt` and `completion` train on the reply alone.",
        "Packing with the strategy `bfd` cuts what is too long; `--packing` here takes `bfd_split` and a length that "
        "every text fits in. It wants flash attention: without, texts in a pack may see each other.",
        "The chat templates of DeepSeek-R1's students and of Qwen3 leave reasoning out of earlier turns or of all.",
    ),
    "axolotl": (
        "Traces over `sequence_len` are dropped by default; here they stop the preprocessing.",
        "`axolotl preprocess --debug` prints the tokens with their labels: look that the loss begins with the opening "
        "tag and ends with the stop token.",
        "`split_thinking` is for templates that read `reasoning_content`, as Qwen3's; this one keeps the text whole.",
    ),
    "llama-factory": (
        "`cutoff_len` is 2,048 by default and cuts traces without an error.",
        "Templates named after reasoning models add or remove think blocks of their own (`enable_thinking`).",
        "The folder that it writes gets LLaMA-Factory's chat template; copy chat_template.jinja over it to serve.",
    ),
}


def readme(tool: str, job: Job, files: Iterable[str]) -> str:
    lines = [
        f"# Traces for {tool}",
        "",
        f"{', '.join(f'{count} rows in {side}.jsonl' for side, count in job.rows.items())}; {job.length.told()}. "
        f"Beside them: {', '.join(files)}. Written by `distill export`.",
        "",
    ]
    lines += [f"**To fill in:** {gap}." for gap in job.gaps] + [""] * bool(job.gaps)
    lines += ["Start it in this folder:", "", f"    {COMMANDS[tool]}", "", "What to watch:", ""]
    lines += [f"- {pitfall}" for pitfall in PITFALLS[tool]]
    if job.contract is not None:
        lines.append(
            f"- A reply ends with `{job.contract.stop}`, which is in the loss. Serve the student with "
            f"chat_template.jinja, the template it was trained under."
        )
    if job.contract is not None and job.contract.forced_prefix:
        lines.append(
            "- chat_template.jinja begins every reply with the opening tag. In training the reply writes it itself, so "
            "it is in the loss."
        )
    if not job.length.exact:
        lines.append(
            "- The length limit is an upper bound. Count with the student's tokenizer before you plan memory by it."
        )
    return "\n".join(lines) + "\n"
