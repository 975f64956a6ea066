"""From kept traces to batches: the loss covers the response and nothing else, no trace is cut, none is lost."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from distill.contract import Contract, Encoded, Response
from distill.errors import ContractError, RunError
from distill.train.encoding import (
    IGNORE,
    WIDTH,
    Example,
    batches,
    collate,
    encode_kept,
    micro_batches,
    steps_in,
)
from train.material import CONTRACT, PAD, examples, tokenizer


def keep(folder: Path, replies: list[str], *, split: str = "train", kind: str = "math") -> None:
    folder.mkdir(exist_ok=True, parents=True)
    rows = [
        {
            "trace_id": f"t{number}",
            "kind": kind,
            "messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": reply}],
        }
        for number, reply in enumerate(replies)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000.parquet")


def decoded(ids: list[int]) -> str:
    return str(tokenizer().decode(ids, skip_special_tokens=False))


def test_the_loss_covers_tags_response_and_stop_token(tmp_path: Path) -> None:
    keep(tmp_path / "kept", [Response("add 1 and 2", "3").render(), Response(None, "4").render()])
    found, census = encode_kept(tmp_path / "kept", "train", tokenizer(), CONTRACT, 500)
    assert [example.trace_id for example in found] == ["t0", "t1"]
    encoded = found[0].encoded
    assert decoded(encoded.ids[encoded.loss_start :]) == "<think>\nadd 1 and 2\n</think>\n\n3<｜end▁of▁sentence｜>"
    assert decoded(encoded.ids[: encoded.loss_start]) == "<｜begin▁of▁sentence｜><｜User｜>q0<｜Assistant｜>"
    assert decoded(found[1].encoded.ids).endswith("<think>\n\n</think>\n\n4<｜end▁of▁sentence｜>")
    assert (census.fitting, census.too_long) == (2, 0)
    assert census.tokens == sum(len(example.encoded.ids) for example in found)
    inputs, labels = collate(found, PAD, torch.device("cpu"))
    for row, example in enumerate(found):
        learned = labels[row][labels[row] != IGNORE].tolist()
        assert learned == example.encoded.ids[example.encoded.loss_start :]
        assert inputs[row, : example.length].tolist() == example.encoded.ids
        assert (inputs[row, example.length :] == PAD).all()
        assert len(learned) == example.loss_tokens


def test_the_ids_are_those_met_when_serving(tmp_path: Path) -> None:
    keep(tmp_path / "kept", [Response("add", "3").render()])
    (found,), _ = encode_kept(tmp_path / "kept", "train", tokenizer(), CONTRACT, 500)
    prompt = CONTRACT.encode_prompt(tokenizer(), CONTRACT.messages("q0", "math"))
    assert found.encoded.ids[: len(prompt)] == prompt


def test_the_instruction_of_the_kind_is_in_the_prompt(tmp_path: Path) -> None:
    contract = Contract("deepseek-r1", "<think>\n", {"math": "Box it."})
    keep(tmp_path / "kept", [Response("add", "3").render()])
    (found,), _ = encode_kept(tmp_path / "kept", "train", tokenizer(), contract, 500)
    assert "q0\n\nBox it.<" in decoded(found.encoded.ids)


def test_a_trace_that_does_not_fit_is_left_out_counted_and_never_cut(tmp_path: Path) -> None:
    replies = [Response("7 " * length, "1").render() for length in (1, 50, 10, 90)]
    keep(tmp_path / "kept", replies)
    everything, whole = encode_kept(tmp_path / "kept", "train", tokenizer(), CONTRACT, 10_000)
    limit = everything[2].length
    found, census = encode_kept(tmp_path / "kept", "train", tokenizer(), CONTRACT, limit)
    assert [example.trace_id for example in found] == ["t0", "t2"]
    assert found == [everything[0], everything[2]]
    assert (census.fitting, census.too_long, census.longest) == (2, 2, whole.longest)
    none, census = encode_kept(tmp_path / "kept", "train", tokenizer(), CONTRACT, 5)
    assert (none, census.too_long, census.tokens) == ([], 4, 0)


def test_all_files_of_a_split_are_read_in_order(tmp_path: Path) -> None:
    keep(tmp_path / "kept", [Response("xyz", "1").render()])
    (tmp_path / "kept" / "train-00000.parquet").rename(tmp_path / "kept" / "train-00001.parquet")
    keep(tmp_path / "kept", [Response("uvw", "2").render()])
    keep(tmp_path / "kept", [Response("c", "3").render()], split="heldout")
    found, _ = encode_kept(tmp_path / "kept", "train", tokenizer(), CONTRACT, 500)
    assert ["uvw" in decoded(example.encoded.ids) for example in found] == [True, False]


def test_no_kept_traces_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no kept traces \(train\)"):
        encode_kept(tmp_path, "train", tokenizer(), CONTRACT, 500)


def test_a_text_that_is_not_canonical_is_refused(tmp_path: Path) -> None:
    keep(tmp_path / "kept", ["<think>no end"])
    with pytest.raises(ContractError):
        encode_kept(tmp_path / "kept", "train", tokenizer(), CONTRACT, 500)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "batch", "epochs", "steps"), [(10, 4, 1, 3), (10, 4, 2, 6), (3, 64, 0.1, 1), (8, 4, 1.5, 3)]
)
def test_steps(count: int, batch: int, epochs: float, steps: int) -> None:
    assert steps_in(count, batch, epochs) == steps


def of_length(*lengths: int) -> list[Example]:
    return [Example(f"t{n}", Encoded([1] * length, 1)) for n, length in enumerate(lengths)]


def test_every_epoch_takes_each_trace_once_in_a_new_order() -> None:
    found = examples(50)
    per_epoch = steps_in(50, 4, 1)
    stream = list(islice(batches(found, 4, 3), 3 * per_epoch))
    orders = []
    for start in range(0, len(stream), per_epoch):
        epoch = [example.trace_id for batch in stream[start : start + per_epoch] for example in batch]
        assert Counter(epoch) == Counter(example.trace_id for example in found)
        orders.append(epoch)
    assert len({tuple(order) for order in orders}) == 3
    assert stream == list(islice(batches(found, 4, 3), 3 * per_epoch)), (
        "the same seed, the same batches: what resume needs"
    )
    assert stream != list(islice(batches(found, 4, 4), 3 * per_epoch))


def test_similar_lengths_share_a_batch_and_do_not_drift() -> None:
    stream = list(islice(batches(of_length(*range(2, 202)), 10, 1), 20))
    assert all(max(e.length for e in batch) - min(e.length for e in batch) < 10 for batch in stream)
    means = [sum(e.length for e in batch) for batch in stream]
    assert means != sorted(means)


@pytest.mark.parametrize("tokens", [1, 40, 100, 10_000])
def test_parts_keep_to_their_tokens_and_lose_nothing(tokens: int) -> None:
    batch = of_length(30, 7, 19, 7, 50, 20, 3)
    parts = list(micro_batches(batch, tokens))
    assert Counter(e.trace_id for part in parts for e in part) == Counter(e.trace_id for e in batch)
    for part in parts:
        inputs, _ = collate(part, PAD, torch.device("cpu"))
        assert inputs.numel() <= tokens or len(part) == 1
        assert inputs.shape[1] % WIDTH == 0
    assert len(parts) == (1 if tokens == 10_000 else len(parts))
    assert list(micro_batches([], tokens)) == []


def test_labels_never_hold_padding() -> None:
    short, long = of_length(4, 9)
    _, labels = collate([short, long], PAD, torch.device("cpu"))
    as_lists: Any = labels.tolist()
    assert as_lists[0] == [IGNORE, 1, 1, 1, *[IGNORE] * (WIDTH - 4)]
