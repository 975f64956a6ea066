"""The walk from a weight file to its beginning, and that it notices what was changed on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill.code_version import code_version
from distill.errors import UsageError
from distill.publish.lineage import lineage
from distill.rundir import RunDir


def gguf(run: RunDir) -> Path:
    (file,) = (run.quantized / "gguf-q4_k_m").glob("*.gguf")
    return file


def test_a_weight_file_leads_back_to_traces_teacher_recipe_and_code(finished: RunDir) -> None:
    found = lineage(gguf(finished))
    names = [link.name for link in found.links]
    assert names[1:] == ["quantize", "train", "filter", "traces and verdicts", "generate", "prompts"]
    assert found.broken == []
    facts = {name: dict(link.facts) for name, link in zip(names, found.links, strict=True)}
    assert facts["generate"]["teacher"] == "./tiny-r1"
    assert len(facts["generate"]["weights of the teacher"]) == 16
    assert facts["train"]["code"] == code_version()
    assert facts["traces and verdicts"]["kept traces"] == "24"
    assert facts["prompts"]["sources"] == "arithmetic-sums 24"
    told = "\n".join(found.lines())
    assert "every hash that could be looked at holds" in told


def test_a_run_is_walked_whole_and_a_trace_part_only_back(finished: RunDir) -> None:
    assert {link.name for link in lineage(finished.path).links} >= {"report", "evaluate", "quantize", "prompts"}
    part = next(finished.traces.glob("part-*.parquet"))
    assert [link.name for link in lineage(part).links][1:] == ["generate", "prompts"]
    assert lineage(finished.student).broken == []
    assert "evaluate" in [link.name for link in lineage(finished.evaluations / "student.json").links]


def test_a_changed_trace_part_is_noticed_from_itself(run: RunDir) -> None:
    part = next(run.traces.glob("part-*.parquet"))
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    for place in (part, run.traces, run.path):
        assert any("traces as they were sealed" in line for line in lineage(place).broken), place


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def drop_verdicts(run: RunDir) -> None:
    table = pq.read_table(run.verdicts)
    first = table.column("trace_key")[0].as_py()
    pq.write_table(table.filter([key != first for key in table.column("trace_key").to_pylist()]), run.verdicts)


def other_recipe(run: RunDir) -> None:
    run.recipe.write_text(run.recipe.read_text().replace("seed: 1", "seed: 2"))


def another_quantization(run: RunDir) -> None:
    path = run.quantized / "gguf-q4_k_m" / "quantization.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source": "0" * 16}))


def flip_a_trace(run: RunDir) -> None:
    """A byte inside, so that size and footer stay."""
    part = next(run.traces.glob("part-*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (lambda run: append(gguf(run)), "as quantization.json has it"),
        (lambda run: append(run.student / "model.safetensors"), "train: wrote student"),
        (lambda run: append(next(run.kept.glob("train-*"))), "filter: wrote kept"),
        (drop_verdicts, "traces with verdicts on their very content 23 of 24"),
        (other_recipe, "the recipe as recipe.yaml has it"),
        (another_quantization, "made of the present student"),
        (flip_a_trace, "traces as they were sealed"),
        (lambda run: run.prompts.unlink(), "prompts: wrote prompts.parquet"),
    ],
)
def test_whatever_is_changed_on_the_way_is_noticed(run: RunDir, breaks: Callable[[RunDir], None], told: str) -> None:
    breaks(run)
    broken = lineage(gguf(run)).broken
    assert any(told in line for line in broken), broken


def test_a_place_of_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="belongs to no run"):
        lineage(tmp_path)
    with pytest.raises(UsageError, match="there is no"):
        lineage(tmp_path / "nowhere")


def test_the_command_ends_with_3_where_a_hash_does_not_hold(run: RunDir) -> None:
    command = [sys.executable, "-m", "distill.cli", "lineage", str(gguf(run))]
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0
    append(gguf(run))
    ended = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert json.loads(ended.stdout)["holds"] is False
    assert "the lineage does not hold" in ended.stderr
