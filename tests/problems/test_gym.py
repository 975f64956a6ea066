"""What distill does when reasoning-gym is not there, and when it is."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from distill.errors import DistillError, MissingError
from distill.problems import generators, gym


@pytest.mark.parametrize("name", ["algebra", "counting"])
def test_without_reasoning_gym_the_command_that_brings_it_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingError, match="need reasoning-gym, which is not installed") as caught:
        generators.generated(name, "train", 0)
    assert isinstance(caught.value, DistillError)
    assert "[problems]'" in str(caught.value)
    assert next(generators.generated("unit-conversion", "train", 0)).answer, "the others do without"


def test_nothing_imports_it_before_it_is_needed() -> None:
    code = (
        "import sys; from distill.problems import generators; next(generators.generated('programs', 'train', 0)); "
        "print([name for name in ('reasoning_gym', 'sympy', 'matplotlib') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_an_item_follows_from_the_generator_given() -> None:
    draw = gym.task("count_bits", max_n=1000)
    first = [draw(random.Random(seed)) for seed in range(20)]
    assert first == [draw(random.Random(seed)) for seed in range(20)]
    assert len({item.values["number"] for item in first}) > 10
    assert all(item.answer == str(item.values["binary"].count("1")) for item in first)
