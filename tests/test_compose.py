"""Recipes from command-line options: what is left out stays the run's own."""

from __future__ import annotations

from distill import specs
from distill.compose import evaluation_recipe, quantize_recipe


def test_an_examination_takes_the_runs_problems_unless_others_are_named() -> None:
    base = specs.recipe("quickstart")
    own = evaluation_recipe(None, None, 10, [], base)
    assert [(part.source, part.split, part.limit) for part in own.evaluate.prompts] == [("arithmetic-sums", "test", 10)]
    assert (own.evaluate.samples, own.evaluate.max_tokens, own.seed) == (4, 160, base.seed)
    other = evaluation_recipe("arithmetic", 2, 5, ["evaluate.max_tokens=99"], base)
    assert [(part.source, part.split, part.limit) for part in other.evaluate.prompts] == [("arithmetic", "test", 5)]
    assert (other.evaluate.samples, other.evaluate.max_tokens) == (2, 99)
    assert evaluation_recipe(None, None, None, [], base).evaluate == base.evaluate


def test_a_quantization_limits_the_problems_of_a_generator_that_it_names() -> None:
    base = specs.recipe("quickstart")
    other = quantize_recipe(["nf4"], "arithmetic", None, 7, [], base)
    assert [(part.source, part.limit) for part in other.evaluate.prompts] == [("arithmetic", 7)]
    assert quantize_recipe(["nf4"], None, None, 7, [], base).evaluate == base.evaluate
