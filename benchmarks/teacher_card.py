"""Measures the embedded teacher on 500 unseen problems and writes its card, `teachers/tiny-r1/README.md`.

python benchmarks/teacher_card.py
"""

from __future__ import annotations

import json
from pathlib import Path

from distill import specs
from distill.evaluate import stage
from distill.rundir import RunDir

PROBLEMS, SAMPLES = 500, 2
LOW, HIGH = 0.90, 0.99
"""Good, and wrong often enough that the filter has work."""

CARD = """---
license: mit
library_name: transformers
pipeline_tag: text-generation
language: en
---
# tiny-r1: DeepSeek-R1 in miniature

The embedded teacher of distill: the same architecture class as DeepSeek-R1 (`DeepseekV3ForCausalLM`: latent attention
with `kv_lora_rank` 512 and a 64-wide rope part, one dense layer, then {experts} routed experts with {active} active and
a shared one, sigmoid scores, `noaux_tc`), with {parameters:,} weights instead of 671 billion. It exists so that every
command of distill works with no GPU and no download. It knows nothing but arithmetic word problems: one to four steps,
two- and three-digit addition and subtraction, multiplication by one digit, results up to 999, irrelevant facts in some.

It keeps R1's conventions: user prompt only, `<think>\\n…\\n</think>`, the answer in `\\boxed{{}}`. Its chat template
ends with `<think>\\n`, so a reply starts inside the reasoning.

| measured | value |
|---|---|
| pass@1, temperature 0.6, top-p 0.95 | {pass_at_1:.1%} (95% {low:.1%} to {high:.1%}) |
| problems × samples, none of them in training | {problems} × {per_problem} |
| replies cut at 256 tokens | {unfinished:.1%} |
| mean reply | {mean_tokens:.0f} tokens |

**Training.** `python benchmarks/build_tiny_r1.py`: {steps} steps of {batch} problems made on the fly, seed {seed},
{minutes:.0f} minutes on two CPU cores, final loss {loss:.4f}. Problems are split by their arithmetic: no problem of the
test split, in whatever words, was seen in training.

**Measured with** `python benchmarks/teacher_card.py`.
"""


def main() -> None:
    recipe = specs.parse(
        specs.Recipe,
        json.dumps(
            {
                "name": "teacher-card",
                "seed": 7,
                "teacher": "tiny-r1",
                "evaluate": {
                    "prompts": [{"source": "arithmetic", "split": "test", "limit": PROBLEMS}],
                    "samples": SAMPLES,
                    "max_tokens": 256,
                    "models": ["teacher"],
                },
            }
        ),
        "teacher_card.py",
    )
    run = RunDir(Path(".cache/teacher-card"))
    stage.run(recipe, run)
    score = json.loads((run.evaluations / "teacher.json").read_text())
    folder = Path("teachers/tiny-r1")
    config = json.loads((folder / "config.json").read_text())
    log = [json.loads(line) for line in Path(".cache/tiny-r1/training.jsonl").read_text().splitlines()]
    import build_tiny_r1
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as weights:
        parameters = sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118  # no mapping
    card = CARD.format(
        experts=config["n_routed_experts"],
        active=config["num_experts_per_tok"],
        parameters=parameters,
        pass_at_1=score["pass_at_1"],
        low=score["interval"][0],
        high=score["interval"][1],
        problems=score["problems"],
        per_problem=SAMPLES,
        unfinished=score["unfinished"],
        mean_tokens=score["mean_tokens"],
        steps=build_tiny_r1.STEPS,
        batch=build_tiny_r1.BATCH,
        seed=build_tiny_r1.SEED,
        minutes=log[-1]["seconds"] / 60,
        loss=log[-1]["loss"],
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(f"pass@1 {score['pass_at_1']:.3f}, standard error {score['stderr']:.3f}")
    if not LOW <= score["pass_at_1"] <= HIGH:
        raise SystemExit(f"outside {LOW} to {HIGH}")


if __name__ == "__main__":
    main()
