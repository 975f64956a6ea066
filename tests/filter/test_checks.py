"""The registry of checks."""

from __future__ import annotations

from distill.filter import checks
from distill.filter_specs import CHECKS, FilterSettings


def test_the_names_of_the_checks_are_those_a_recipe_may_use() -> None:
    assert set(CHECKS) == set(checks.names())


def test_every_check_of_one_trace_can_be_loaded() -> None:
    checks.prepare(FilterSettings(checks=tuple(checks.OF_ONE)))
    assert set(checks._functions) >= set(checks.OF_ONE)
