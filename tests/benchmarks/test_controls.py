"""The control with wrong prompts: every prompt gets another one's reply, and nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from train.material import keep

from distill.contract import Response

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import controls


def replies(folder: Path, split: str) -> list[Any]:
    return [row["messages"] for row in pq.read_table(folder / f"{split}-00000.parquet").to_pylist()]


def test_every_prompt_gets_the_reply_of_another(tmp_path: Path) -> None:
    said = [Response(f"{n} and {n}", str(n)).render() for n in range(50)]
    for folder in ("a", "b"):
        keep(tmp_path / folder, said)
        keep(tmp_path / folder, said[:7], split="heldout")
    before = {split: replies(tmp_path / "a", split) for split in ("train", "heldout")}
    for folder in ("a", "b"):
        controls.shuffle_replies(tmp_path / folder, 3)
    for split, rows in before.items():
        after = replies(tmp_path / "a", split)
        assert [row[0] for row in after] == [row[0] for row in rows], "the prompts stay where they are"
        assert all(new[1] != old[1] for new, old in zip(after, rows, strict=True))
        assert sorted(row[1]["content"] for row in after) == sorted(row[1]["content"] for row in rows)
        assert after == replies(tmp_path / "b", split), "and alike for the same seed"
