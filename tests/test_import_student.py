"""Published traces alone make a student: no teacher, no server, a real pretrained model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exchange.material import FIXTURES

from distill import compose, specs
from distill.exchange.importing import Options, import_places
from distill.pipeline import run_recipe
from distill.rundir import RunDir

CHECKOUT = Path(__file__).resolve().parent.parent
GSM8K = str(Path(__file__).parent / "data" / "gsm8k_200.jsonl")

REJECTED = {
    "truncated": 3,
    "wrong_answer": 2,
    "mixed_language": 2,
    "near_duplicate": 2,
    "doubled_tag": 1,
    "empty_reasoning": 1,
    "loop": 1,
}
"""What the set holds on purpose: cut replies, wrong ones, foreign words, copies, bad tags, a sentence 220 times."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not (CHECKOUT / ".cache" / "smollm2").is_dir(), reason="no .cache/smollm2: make smollm2"),
]


def test_an_imported_set_trains_examines_and_quantizes_a_student_without_any_teacher(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    found = import_places(run, [str(FIXTURES / "openr1-math.jsonl")], Options())
    settings = [
        "student=smollm2-135m",
        "student_overrides.thinks=true",
        'student_overrides.forced_prefix="<think>\\n"',
        "filter.heldout=0",
        "train.epochs=1",
        "train.batch_size=8",
        "train.micro_batch_tokens=1024",
        "train.context_length=512",
        "evaluate.samples=1",
        "evaluate.max_tokens=24",
        "quantize.schemes=[nf4]",
        "quantize.limit=2",
        "quantize.samples=1",
        "quantize.min_difference=null",
        "quantize.min_four_bit_share=null",
        f"evaluate.prompts=[{{source: gsm8k, path: {GSM8K}, limit: 2}}]",
    ]
    compose.keep_recipe(run, compose.import_recipe(run, {}, found.teachers, settings))
    run_recipe(specs.recipe(str(run.recipe)), run)
    counts = run.stages()["filter"].counts
    assert counts["rejected"] == REJECTED
    assert counts["kept"] == found.traces - sum(REJECTED.values()) == 17
    progress = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in progress if line["stage"] == "train" and "loss" in line][-1] == 3
    assert {path.stem for path in run.evaluations.glob("*.json")} >= {"untrained", "student", "student-nf4"}
    assert (run.quantized / "nf4").is_dir()
    assert run.report.is_file()
