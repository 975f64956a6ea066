"""The stage on several processes: the student that one process makes, by every method that several share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.files import write_json
from distill.rundir import RunDir
from distill.train import stage
from train.bases import from_base, plain_base
from train.stages import changed, kept, recipe_in, told

ASKED = {"problems": 2, "every_steps": 2, "max_tokens": 4}


def trained(folder: Path, recipe: Any) -> RunDir:
    run = kept(RunDir(folder), prompts=2)
    write_json(run.recipe, recipe.model_dump(mode="json"))
    stage.run(recipe, run)
    return run


@pytest.mark.parametrize(
    ("tied", "settings"),
    [
        pytest.param(False, {"method": "lora", "average_checkpoints": 2}, marks=pytest.mark.rehearse),
        pytest.param(True, {"context_parallel": 2}, marks=pytest.mark.slow),
        pytest.param(True, {"method": "lora"}, marks=pytest.mark.rehearse),
    ],
)
def test_two_processes_make_the_student_of_one(tmp_path: Path, tied: bool, settings: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import load_file

    student = from_base(plain_base(tmp_path / "base", tied=tied))
    recipe = recipe_in(tmp_path, student=student, samples=ASKED, **settings)
    one = trained(tmp_path / "one", changed(recipe, context_parallel=1))
    two = trained(tmp_path / "two", changed(recipe, gpus=2))
    assert told(two, "loss") == pytest.approx(told(one, "loss"), rel=1e-4)
    assert told(two, "heldout_loss") == pytest.approx(told(one, "heldout_loss"), rel=1e-4)
    assert told(two, "sample_tokens") == told(one, "sample_tokens")
    assert two.adapter.exists() == one.adapter.exists()
    found, expected = (load_file(run.student / "model.safetensors") for run in (two, one))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        close = torch.testing.assert_close  # both are rounded, an adapter's merge by chance
        close(found[name].float(), weight.float(), atol=2e-3, rtol=2**-6, msg=name)
