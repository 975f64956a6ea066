"""Many processes train as one does: same losses, gradients and weights; nobody holds all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from train import ranks
from train.many import Setting, trained

PLAIN = Setting()
SETTINGS = [
    PLAIN,
    Setting(tied=False),
    Setting(architecture="llama", tied=False, checkpointing=True),
    Setting(tied=False, precision="mixed"),
    Setting(tied=False, context_parallel=2),
    Setting(context_parallel=2, kernel="written_out", checkpointing=True),
    Setting(adapter=True, checkpointing=True),
    Setting(adapter=True, tied=False),
]
FOUR = [Setting(context_parallel=2), Setting(tied=False, context_parallel=4), Setting()]


@pytest.fixture(scope="module")
def by_one() -> dict[Setting, dict[str, Any]]:
    """What one process makes of each setting."""
    found = {}
    for setting in {*SETTINGS, *FOUR}:
        plain = dataclasses.replace(setting, context_parallel=1, precision="fp32", checkpointing=False, kernel="apart")
        found[setting] = trained([plain])[0]
    return found


@pytest.fixture(scope="module")
def by_two() -> list[list[dict[str, Any]]]:
    return ranks.run(2, trained, SETTINGS)


@pytest.fixture(scope="module")
def by_four() -> list[list[dict[str, Any]]]:
    return ranks.run(4, trained, FOUR)


def assert_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=tolerance)
    np.testing.assert_allclose(found["norms"], expected["norms"], rtol=tolerance)
    for what in ("gradients", "weights"):
        assert found[what].keys() == expected[what].keys()
        for name, values in expected[what].items():
            np.testing.assert_allclose(found[what][name], values, atol=tolerance, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize("place", [place for place, setting in enumerate(SETTINGS) if setting.precision == "fp32"])
def test_two_ranks_train_as_one(place: int, by_two: Any, by_one: Any) -> None:
    for rank in by_two:
        assert_same(rank[place], by_one[SETTINGS[place]], 1e-5)


@pytest.mark.parametrize("place", range(len(FOUR)))
def test_four_ranks_train_as_one(place: int, by_four: Any, by_one: Any) -> None:
    for rank in by_four:
        assert_same(rank[place], by_one[FOUR[place]], 1e-5)


def test_weights_are_spread_over_all_ranks(by_two: Any, by_four: Any, by_one: Any) -> None:
    for found, settings in ((by_two, SETTINGS), (by_four, FOUR)):
        for place, setting in enumerate(settings):
            assert {kind for rank in found for kind in rank[place]["kinds"]} == {"DTensor"}
            shares = [rank[place]["held"] for rank in found]
            assert sum(shares) == by_one[setting]["held"]
            assert max(shares) < by_one[setting]["held"] / len(found) * 1.1


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32(by_two: Any, by_one: Any) -> None:
    place = SETTINGS.index(Setting(tied=False, precision="mixed"))
    found, expected = by_two[0][place], by_one[SETTINGS[place]]
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-2)
    assert found["losses"] != pytest.approx(expected["losses"], rel=1e-7)
    assert all(values.dtype == np.float32 for values in found["weights"].values())
