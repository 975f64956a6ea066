"""Small runs to report on: a real ledger, real verdicts and kept files, written by the rooms that own those formats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filtered import Judged, write_kept, write_verdicts
from ledger_material import write_all

from distill import specs
from distill.files import write_json, write_text
from distill.prompts.stage import write_prompts
from distill.records import Prompt, Sampling, SamplingRecord, TeacherIdentity, Trace
from distill.rundir import RunDir, StageState
from distill.teacher_specs import GenerateSettings
from distill.verify import PASS, Outcome, failing

RECIPE = specs.Recipe(
    name="small",
    description="A run for tests.",
    seed=3,
    teacher="/home/somebody/teachers/wise.yaml",
    student="tiny",
    generate=GenerateSettings(samples=2),
)
TEACHER = TeacherIdentity("org/wise", "1")
HOSTILE = (
    "</div></details></main><script>window.injected = 1; alert(1)</script><img src=x onerror='window.injected = 2'>"
    "<style>body { display: none }</style><svg onload='window.injected = 3'></svg> {{ 7 * 7 }} &lt; "
    "\x00\x07\x1b[31mred\x1b[0m \x9b2J \u202eturned\u202c <!-- 你好，世界"
)
"""What a reply could try; a trace with half a surrogate pair is refused by the ledger already."""


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"What is {n} + {n}?", id=f"p{n}", kind="math", answer=str(2 * n)) for n in range(count)]


def trace(prompt: Prompt, sample: int, **changed: Any) -> Trace:
    """A right one of 40 to 49 tokens, unless something is changed."""
    answer = f"\\boxed{{{prompt.answer}}}"
    plain = Trace(
        key=f"{prompt.id}-{sample}",
        asked="asked",
        prompt_id=prompt.id,
        sample=sample,
        raw=f"<think>\nadd\n</think>\n\n{answer}",
        reasoning="add",
        answer=answer,
        finish_reason="stop",
        teacher=TEACHER,
        sampling=SamplingRecord(Sampling()),
        completion_tokens=40 + len(prompt.id) * 3 + sample,
        reasoning_tokens=30,
    )
    return replace(plain, **changed)


FATES: list[tuple[dict[str, Any], dict[str, Outcome]]] = [
    # by the number of the sample modulo their number: how the trace differs, which checks it fails
    ({}, {}),
    ({}, {}),
    ({"answer": "\\boxed{0.5}"}, {"correct": failing("wrong_answer")}),
    ({}, {}),
    (
        {"finish_reason": "length", "answer": None, "completion_tokens": 256},
        {"finished": failing("truncated"), "think_format": failing("missing_answer"), "correct": failing("no_answer")},
    ),
    ({}, {}),
    ({"finish_reason": "error", "raw": "", "error": "HTTP 500"}, {}),
    ({}, {"duplicate": failing("duplicate")}),
    ({}, {}),
    ({"raw": HOSTILE, "reasoning": HOSTILE, "answer": HOSTILE}, {"correct": failing("wrong_answer")}),
]
CHECKS = ("finished", "think_format", "correct", "duplicate")


def judged(asked: Sequence[Prompt]) -> list[Judged]:
    found = []
    for place in range(2 * len(asked)):
        changed, failures = FATES[place % len(FATES)]
        prompt = asked[place // 2]
        outcomes = {name: failures.get(name, PASS) for name in CHECKS}
        found.append(Judged(prompt, trace(prompt, place % 2, **changed), outcomes))
    return found


def sampled(folder: Path, count: int = 40) -> tuple[RunDir, list[Judged]]:
    """A run with prompts and traces, nothing judged."""
    run, asked = RunDir(folder), prompts(count)
    write_text(run.recipe, specs.dump(RECIPE))
    write_prompts(run.prompts, asked)
    items = judged(asked)
    write_all(run.traces, [item.trace for item in items])
    return run, items


def filtered(folder: Path, count: int = 40) -> tuple[RunDir, list[Judged]]:
    """The same with verdicts and kept traces; two prompts are held out."""
    run, items = sampled(folder, count)
    items = [item for item in items if item.trace.finish_reason != "error"]
    write_verdicts(run.verdicts, items)
    kept = [item for item in items if all(outcome == PASS for outcome in item.outcomes.values())]
    heldout = [item for item in kept if item.prompt.id in ("p0", "p5")]
    write_kept(run.kept, [item for item in kept if item not in heldout], heldout)
    return run, items


def stage(run: RunDir, name: str, counts: dict[str, Any], **changed: Any) -> None:
    values: dict[str, Any] = {
        "state": "done", "started": "2026-01-02T03:04:05.000+00:00", "finished": "2026-01-02T04:00:00.000+00:00",
        "recipe_hash": "f" * 64, "settings": {}, "seed": 3, "seconds": 75.0, "versions": {"distill": "0.1.0"},
        **changed,
    }  # fmt: skip
    run.write_stage(name, StageState(counts=counts, **values))


def log(run: RunDir, *lines: dict[str, Any]) -> None:
    for values in lines:
        run.log_metrics("train", values)


def score(run: RunDir, name: str, right: float, **changed: Any) -> None:
    """A score file as `evaluate` writes it."""
    content = {
        "format": 1, "name": name, "conditions": {"benchmark": "sums:test", "samples": 4}, "problems": 300,
        "samples": 1_200, "pass_at_1": right, "stderr": 0.01, "unfinished": 0.01, "mean_tokens": 81.5, "abstained": 0.0,
        "interval": [max(0.0, right - 0.02), min(1.0, right + 0.02)], "seconds": 9.0, "per_problem": {}, **changed,
    }  # fmt: skip
    write_json(run.evaluations / f"{name}.json", content)


def quantized(run: RunDir, name: str, scheme: str, size: int, types: dict[str, int], **changed: Any) -> None:
    """What the quantize stage says of one file."""
    content = {
        "format": 1, "scheme": scheme, "file": None, "bytes": size, "elements": sum(types.values()),
        "bits_per_weight": 8 * size / max(1, sum(types.values())), "types": types, "four_bit_share": 0.8,
        "loaded_by": "llama.cpp", "worst_tensor": {"name": "blk.0.ffn_down.weight", "relative_error": 0.08}, **changed,
    }  # fmt: skip
    write_json(run.path / "quantized" / name / "quantization.json", content)


def weight_file(path: Path, tensors: dict[str, tuple[str, list[int]]], size: int) -> None:
    """A safetensors file with this header and `size` bytes of zeros."""
    described = {n: {"dtype": t, "shape": s, "data_offsets": [0, 0]} for n, (t, s) in tensors.items()}
    header = json.dumps({"__metadata__": {"format": "pt"}, **described}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def finished(folder: Path, count: int = 40) -> tuple[RunDir, list[Judged]]:
    """A whole run: trained, examined, quantized twice, one of them failing its gate."""
    run, items = filtered(folder, count)
    stage(run, "prompts", {"prompts": count, "left_out": {"duplicate": 2}})
    stage(run, "generate", {"samples": 2 * count}, starts=2, seconds=4_000.0)
    stage(run, "filter", {"traces": len(items)})
    train = sum(all(o == PASS for o in item.outcomes.values()) and item.prompt.id not in ("p0", "p5") for item in items)
    counts = {"traces": train - 1, "too_long": 1, "tokens": 5_000, "parameters": 1_000}
    stage(run, "train", counts, settings={"train": {"epochs": 2.0}})
    for step in (10, 20, 30, 40):
        log(run, {"step": step, "steps": 40, "loss": 4 / step, "lr": 1e-3 / step})
        log(run, {"step": step, "steps": 40, "heldout_loss": 5 / step})
    weight_file(run.student / "model.safetensors", {"a": ("BF16", [30, 30]), "b": ("F32", [100])}, 2_200)
    for name, right in (("teacher", 0.97), ("untrained", 0.0), ("student", 0.86)):
        score(run, name, right)
    stage(run, "evaluate", {})
    compared = {}
    for name, scheme, size, difference in (("nf4", "nf4", 600, -0.05), ("gguf-q4_k_m", "gguf:q4_k_m", 700, -0.01)):
        quantized(run, name, scheme, size, {"Q4_K": 790, "Q6_K": 207, "F32": 3})
        score(run, f"student-{name}", 0.86 + difference, problems=200, samples=400)
        gates = ["it loses 5.0 points"] if difference < -0.03 else []
        interval = [difference - 0.02, difference + 0.02]
        compared[name] = {
            "pass_at_1": 0.8, "difference": difference, "difference_interval": interval, "gates": gates,
            "status": "not passed" if gates else "passed",
        }  # fmt: skip
    stage(run, "quantize", {**compared, "_failed_gates": ["nf4: it loses 5.0 points"]})
    return run, items
