"""The loop on two ranks: the losses of one, whatever stops it, and whoever hears of the stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distill.train import loop
from train import ranks
from train.loop_ranks import Start, trained
from train.material import PLAIN

PASSES = PLAIN.model_copy(update={"micro_batch_tokens": 1, "epochs": 1.0})
"""Each trace has a pass of its own: two on each of two ranks, and one with filler for one of them at the end."""
SPOILED = PLAIN.model_copy(update={"checkpoint_steps": 2})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """On one rank and on two: uninterrupted, stopped after a held-out loss, stopped inside a step, and broken."""
    starts = [
        Start("whole"),
        Start("cut", stop_at=3),
        Start("cut", seed=1),
        Start("small", settings=PASSES),
        Start("inside", settings=PASSES, stop_pass=4),
        Start("inside", settings=PASSES, seed=1),
        Start("broken", settings=SPOILED, spoil_at=3),
    ]
    with pytest.MonkeyPatch.context() as patch:  # puts back what `trained` sets, here in this process
        patch.setattr(loop, "LOG_STEPS", 1)
        one = trained(tmp_path_factory.mktemp("one"), [starts[0], starts[3]])
    two = ranks.run(2, trained, tmp_path_factory.mktemp("two"), starts)
    return {"one": {"whole": one[0], "small": one[1]}, "two": two}


def assert_same(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name, values in theirs["weights"].items():
        np.testing.assert_allclose(mine["weights"][name], values, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("name", "place"), [("whole", 0), ("small", 3)])
def test_two_ranks_lose_what_one_does(found: dict[str, Any], name: str, place: int) -> None:
    for rank in found["two"]:
        assert rank[place]["losses"] == pytest.approx(found["one"][name]["losses"], abs=1e-5)
        assert rank[place]["heldout"] == pytest.approx(found["one"][name]["heldout"], abs=1e-5)
        assert_same(rank[place], found["one"][name])


def test_a_stop_that_one_rank_hears_of_stops_all_after_the_step(found: dict[str, Any]) -> None:
    """In the middle of a held-out loss, whose pass leaves weights gathered that the optimizer does not know."""
    for rank in found["two"]:
        whole, first, second = rank[:3]
        assert first["error"].startswith("training stopped after step 3 of 6")
        assert list(first["heldout"]) == [1, 2]
        assert list(second["heldout"]) == [3, 4, 5, 6], "the next start measures what was left off"
        assert second["resumed_at"] == 3
        assert {**first["losses"], **second["losses"]} == pytest.approx(whole["losses"], abs=1e-6)
        assert_same(second, whole)


def test_a_stop_inside_a_step_abandons_it_on_all_ranks(found: dict[str, Any]) -> None:
    for rank in found["two"]:
        whole, first, second = rank[3:6]
        assert first["error"].startswith("training stopped after step 1 of 3")
        assert second["resumed_at"] == 1
        assert {**first["losses"], **second["losses"]} == pytest.approx(whole["losses"], abs=1e-6)
        assert_same(second, whole)


def test_a_broken_loss_stops_all_ranks_with_the_same_words(found: dict[str, Any]) -> None:
    one, other = (rank[6] for rank in found["two"])
    assert one["error"] == other["error"] == "the loss is not a number at step 4"
    assert one["given"] == other["given"]
    assert one["given"].count("(nan)") == 4
