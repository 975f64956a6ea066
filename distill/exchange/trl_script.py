"""The training script that an export for TRL brings along. Knows nothing about rows or runs."""

from __future__ import annotations

from string import Template

from distill.train_specs import Phase, TrainSettings

SCRIPT = Template('''\
"""Fine-tunes a student with TRL on the rows beside this file. Written by `distill export`, tried with TRL 1.16.0.

    python train_trl.py --max-steps 1     one step, to see that all fits
    python train_trl.py                   the whole training; several GPUs: accelerate launch train_trl.py
"""

import argparse
import os
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

HERE = Path(__file__).resolve().parent
MODEL = $model
REVISION = $revision
STOP = $stop  # ends every reply; None takes the tokenizer's own end token
PAD = $pad  # another token than STOP, or STOP would never be learnt; None takes the tokenizer's own
TAGS = $tags  # have to be one token each
TEMPLATES = $templates  # training_template.jinja and chat_template.jinja lie here; else the tokenizer's own is taken
BATCH = $batch  # rows per optimizer step, over all GPUs


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fine-tunes a student on exported traces.")
    parser.add_argument("--model", default=MODEL, help="where to start: a Hub id or a folder (default: %(default)s)")
    parser.add_argument("--out", default=str(HERE / "out"), help="where the student goes (default: %(default)s)")
    parser.add_argument("--max-steps", type=int, default=-1, help="stop after so many steps")
    parser.add_argument("--batch", type=int, default=BATCH, help="rows per step, all GPUs together")
    parser.add_argument("--packing", action="store_true", help="several texts in one; wants flash attention")
    chosen = parser.parse_args()
    if chosen.model.startswith("FILL-IN"):
        parser.error("give --model, or write it at the top of this script: the export did not know it")
    return chosen


def prepared_tokenizer(model: str):
    tokenizer = AutoTokenizer.from_pretrained(model, revision=REVISION if model == MODEL else None)
    tokenizer.add_tokens([tag for tag in TAGS if len(tokenizer.encode(tag, add_special_tokens=False)) != 1])
    if PAD is not None:
        tokenizer.pad_token = PAD
    if tokenizer.pad_token is None or tokenizer.pad_token == (STOP or tokenizer.eos_token):
        raise SystemExit("choose a PAD token other than the end token, at the top of this script")
    return tokenizer


def longest(tokenizer, rows) -> int:
    """Tokens of the longest row under the template it is trained with."""
    template = (HERE / "training_template.jinja").read_text(encoding="utf-8") if TEMPLATES else None
    texts = (
        tokenizer.apply_chat_template(row["prompt"] + row["completion"], chat_template=template, tokenize=False)
        for row in rows
    )
    return max(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)


def trainer_for(chosen: argparse.Namespace) -> SFTTrainer:
    sides = {side: HERE / f"{side}.jsonl" for side in ("train", "heldout")}
    files = {side: str(path) for side, path in sides.items() if path.is_file()}
    rows = load_dataset("json", data_files=files)
    tokenizer = prepared_tokenizer(chosen.model)
    trial = chosen.max_steps > 0
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    model = AutoModelForCausalLM.from_pretrained(
        chosen.model, revision=REVISION if chosen.model == MODEL else None, dtype=$dtype
    )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=64, mean_resizing=True)
    config = SFTConfig(
        output_dir=chosen.out,
        # the default, 1024, cuts a trace before its answer. $length
        max_length=longest(tokenizer, rows["train"]) if chosen.packing else None,
        packing=chosen.packing,
        packing_strategy="bfd_split",  # the default, bfd, cuts
        eval_packing=False,
        completion_only_loss=True,
        chat_template_path=str(HERE / "training_template.jinja") if TEMPLATES else None,
        eos_token=STOP,
        per_device_train_batch_size=1,  # no padding at all
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=max(1, chosen.batch // int(os.environ.get("WORLD_SIZE", "1"))),
        num_train_epochs=$epochs,
        max_steps=chosen.max_steps,
        learning_rate=$learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": $final_learning_rate},
        warmup_steps=0 if trial else $warmup,  # a share of all steps; the first step of a warm-up changes nothing
        weight_decay=$weight_decay,
        max_grad_norm=$max_grad_norm,
        bf16=$bf16,
        eval_strategy="epoch" if "heldout" in rows and not trial else "no",
        save_strategy="no" if trial else "epoch",
        report_to="none",
        seed=$seed,
    )
    return SFTTrainer(
        model, args=config, train_dataset=rows["train"], eval_dataset=rows.get("heldout"), processing_class=tokenizer
    )


def main() -> None:
    chosen = options()
    trainer = trainer_for(chosen)
    tokenizer = trainer.processing_class
    first = trainer.train_dataset[0]
    trained = [token for token, label in zip(first["input_ids"], first["labels"], strict=True) if label != -100]
    print("The loss of the first text covers:", repr(tokenizer.decode(trained)), sep="\\n")
    trainer.train()
    if TEMPLATES:  # what serves the student: begins its replies as it learnt to begin them
        tokenizer.chat_template = (HERE / "chat_template.jinja").read_text(encoding="utf-8")
    trainer.save_model(chosen.out)


if __name__ == "__main__":
    main()
''')


def trl_script(
    *,
    model: str,
    revision: str | None,
    stop: str | None,
    pad: str | None,
    tags: list[str],
    templates: bool,
    train: TrainSettings,
    phase: Phase,
    seed: int,
    length: str,
) -> str:
    """The script with a run's settings; `templates` says that the student's chat templates lie beside it."""
    return SCRIPT.substitute(
        model=_quoted(model),
        revision=_quoted(revision),
        stop=_quoted(stop),
        pad=_quoted(pad),
        tags="[" + ", ".join(map(_quoted, tags)) + "]",
        templates=templates,
        batch=train.batch_size,
        length=f"{length[0].upper()}{length[1:]}",
        epochs=phase.epochs,
        learning_rate=phase.learning_rate,
        final_learning_rate=train.final_learning_rate,
        warmup=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        dtype="torch.bfloat16" if train.precision == "bf16" else "torch.float32",
        bf16="False" if train.precision == "fp32" else "on_gpu",
        seed=seed % 2**32,
    )


def _quoted(value: str | None) -> str:
    """A Python literal in double quotes."""
    import json

    return json.dumps(value, ensure_ascii=False) if value is not None else "None"
