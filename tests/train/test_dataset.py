"""Kept traces on their way to the disk and back: the same ids, none cut, never encoded twice, no damage overlooked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TOKENIZER

from distill.contract import Contract, Response, parse_canonical
from distill.errors import ContractError, DiskFullError, RunError
from distill.train import dataset, token_set
from distill.train.dataset import encode_split, tokenizer_hash
from distill.train.token_set import IDS, INDEX, META, Example, Row, TokenSet, forget_others, stored, write_set
from distill.train.tokenizer import prepare_tokenizer
from train.bases import CHATML, from_base, word_tokenizer
from train.material import CONTRACT, tokenizer

DATA = Path(__file__).parents[1] / "data"
SOME = [Response("add 1 and 2", "3").render(), Response(None, "4").render(), Response("7 " * 50, "1").render()]


def keep(folder: Path, replies: list[str], *, split: str = "train", number: int = 0, **columns: Any) -> Path:
    """Kept rows as the filter writes them; columns given as None are left out."""
    folder.mkdir(exist_ok=True, parents=True)
    rows = [
        {
            "trace_id": f"t{number}-{place}",
            "kind": "math",
            "messages": [{"role": "user", "content": f"q{place}"}, {"role": "assistant", "content": reply}],
            "domain": "sums",
            "tokens": 40,
            "difficulty": None,
            **{name: values[place] for name, values in columns.items() if values is not None},
        }
        for place, reply in enumerate(replies)
    ]
    text = pa.string()
    messages = pa.list_(pa.struct([("role", text), ("content", text)]))
    types = {"trace_id": text, "kind": text, "messages": messages, "domain": text, "tokens": pa.int64()}
    schema = pa.schema({**types, "difficulty": text}.items())
    left_out = [name for name, values in columns.items() if values is None]
    table = pa.Table.from_pylist(rows, schema=schema).drop_columns(left_out)
    path = folder / f"{split}-{number:05d}.parquet"
    pq.write_table(table, path, row_group_size=50 if len(rows) < 10_000 else 1_024)
    return path


def real_replies() -> tuple[list[str], list[str]]:
    """(questions, replies): worked solutions of GSM8K, and a real model's replies to some, many signs in both."""
    questions, replies = [], []
    for line in (DATA / "gsm8k_200.jsonl").read_text(encoding="utf-8").splitlines()[::3]:
        row = json.loads(line)
        worked, _, gold = row["answer"].partition("#### ")
        questions.append(row["question"])
        replies.append(Response(worked, f"\\boxed{{{gold}}}").render())
    for line in (DATA / "teacher_outputs_128.jsonl").read_text(encoding="utf-8").splitlines()[::3]:
        row = json.loads(line)
        questions.append(row["question"])
        replies.append(Response(row["text"] + " é 你好 🙂", row["gold"]).render())
    return questions, replies


def encoded(kept: Path, folder: Path, split: str = "train", contract: Contract = CONTRACT, **changed: Any) -> TokenSet:
    return encode_split(kept, split, changed.pop("tokenizer", None) or tokenizer(), contract, folder, **changed)


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many traces were encoded so far, by batch."""
    found: list[int] = []
    real = Contract.encode_batch

    def counting(self: Contract, tokenizer: Any, items: Any) -> Any:
        found.append(len(items))
        return real(self, tokenizer, items)

    monkeypatch.setattr(Contract, "encode_batch", counting)
    return found


# --- what is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "contract",
    [
        CONTRACT,
        Contract("deepseek-r1", "<think>\n", {"math": "Box it."}, "Be brief."),
        Contract("chatml"),
        Contract("llama3", "<think>\n"),
    ],
    ids=["r1", "instructed", "chatml", "llama3"],
)
def test_ids_are_those_of_the_contract_one_by_one(tmp_path: Path, contract: Contract) -> None:
    questions, replies = real_replies()
    messages = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        for question, reply in zip(questions, replies, strict=True)
    ]
    keep(tmp_path / "kept", replies, messages=messages)
    found = encoded(tmp_path / "kept", tmp_path / "cache", contract=contract)
    assert len(found) == len(replies) == 67 + 43
    for index, (question, reply) in enumerate(zip(questions, replies, strict=True)):
        alone = contract.encode(tokenizer(), contract.messages(question, "math"), parse_canonical(reply))
        example = found.example(index)
        assert example.ids.tolist() == alone.ids
        assert example.loss_start == alone.loss_start
        assert example.trace_id == f"t0-{index}"
        assert example.length == found.lengths[index] == len(alone.ids)
        assert example.loss_tokens == found.loss_tokens[index] == len(alone.ids) - alone.loss_start
    assert found.tokens == sum(found.lengths.tolist())
    assert (found.lengths.dtype, found.loss_tokens.dtype, found.example(0).ids.dtype) == (np.int32,) * 3


def test_the_loss_covers_tags_response_and_stop_token(tmp_path: Path) -> None:
    keep(tmp_path / "kept", SOME)
    first, second, _ = (encoded(tmp_path / "kept", tmp_path / "cache").example(index) for index in range(3))
    text = tokenizer().decode(first.ids)
    assert (
        text
        == "<｜begin▁of▁sentence｜><｜User｜>q0<｜Assistant｜><think>\nadd 1 and 2\n</think>\n\n3<｜end▁of▁sentence｜>"
    )
    assert tokenizer().decode(first.ids[: first.loss_start]) == "<｜begin▁of▁sentence｜><｜User｜>q0<｜Assistant｜>"
    assert tokenizer().decode(second.ids).endswith("<think>\n\n</think>\n\n4<｜end▁of▁sentence｜>")


def test_domains_difficulty_and_older_files_without_them(tmp_path: Path) -> None:
    keep(tmp_path / "new", SOME, domain=["math", None, "code"], difficulty=["Level 5", "easy", None])
    found = encoded(tmp_path / "new", tmp_path / "cache")
    assert list(found.domains) == ["math", None, "code"]
    assert list(found.difficulty) == ["Level 5", "easy", None]
    keep(tmp_path / "old", SOME, difficulty=None, tokens=None)
    assert list(encoded(tmp_path / "old", tmp_path / "cache").difficulty) == [None] * 3
    keep(tmp_path / "oldest", SOME, difficulty=None, domain=None, tokens=None)
    assert list(encoded(tmp_path / "oldest", tmp_path / "cache").domains) == [None] * 3


def test_files_in_order_and_splits_apart(tmp_path: Path) -> None:
    keep(tmp_path / "kept", SOME[1:], number=1)
    keep(tmp_path / "kept", SOME[:1], number=0)
    keep(tmp_path / "kept", SOME, split="heldout", number=7)
    train, heldout = (encoded(tmp_path / "kept", tmp_path / "cache", split) for split in ("train", "heldout"))
    assert [train.example(index).trace_id for index in range(len(train))] == ["t0-0", "t1-0", "t1-1"]
    assert [heldout.example(index).trace_id for index in range(3)] == ["t7-0", "t7-1", "t7-2"]


def test_none_is_cut_and_a_context_is_asked_for_on_reading(tmp_path: Path) -> None:
    keep(tmp_path / "kept", [Response("7 " * length, "1").render() for length in (1, 50, 10, 90)])
    found = encoded(tmp_path / "kept", tmp_path / "cache")
    assert found.within(int(found.lengths[2])).tolist() == [0, 2]
    assert found.within(int(found.lengths[2]) - 1).tolist() == [0]
    assert found.within(10**6).tolist() == [0, 1, 2, 3]
    assert found.within(5).tolist() == []


def test_nothing_held_out_is_an_empty_set(tmp_path: Path) -> None:
    keep(tmp_path / "kept", [], split="heldout")
    found = encoded(tmp_path / "kept", tmp_path / "cache", "heldout")
    assert (len(found), found.tokens, found.within(9).tolist(), list(found.domains)) == (0, 0, [], [])
    assert (len(again := encoded(tmp_path / "kept", tmp_path / "cache", "heldout")), again.folder) == (0, found.folder)


def test_a_long_set_is_the_same_as_a_short_one_many_times(tmp_path: Path, unheard: list[int]) -> None:
    """Over the bounds of batches, row groups and parts of the index."""
    count = token_set.INDEX_BATCH + 200
    keep(tmp_path / "kept", [Response(str(number), "1").render() for number in range(count)])
    found = encoded(tmp_path / "kept", tmp_path / "cache")
    assert sum(unheard) == len(found) == count
    assert max(unheard) <= dataset.BATCH
    for index in (0, 49, 50, 63, 64, token_set.INDEX_BATCH - 1, token_set.INDEX_BATCH, count - 1):
        assert f"\n{index}\n" in tokenizer().decode(found.example(index).ids)
        assert found.example(np.int64(index)).trace_id == f"t0-{index}"


# --- encoded once ----------------------------------------------------------------------------------------------------


def test_the_same_content_is_encoded_once(tmp_path: Path, unheard: list[int]) -> None:
    keep(tmp_path / "kept", SOME)
    first = encoded(tmp_path / "kept", tmp_path / "cache")
    assert unheard == [3]
    shutil.copytree(tmp_path / "kept", tmp_path / "copy")
    from transformers import AutoTokenizer

    shutil.copytree(TOKENIZER, tmp_path / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors"))
    loaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    loaded(["padded", "in other calls"], padding=True, truncation=True, max_length=3)
    loaded.chat_template = "another"
    again = encoded(tmp_path / "copy", tmp_path / "cache", tokenizer=loaded)
    assert (again.folder, unheard) == (first.folder, [3])
    assert again.example(2).ids.tolist() == first.example(2).ids.tolist()


def test_other_content_is_encoded_anew(tmp_path: Path, unheard: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    import copy

    other = copy.deepcopy(tokenizer())
    other.add_tokens(["q0"])
    keep(tmp_path / "kept", SOME)
    keep(tmp_path / "kept", SOME, split="heldout")
    keep(tmp_path / "more", [*SOME, SOME[0]])
    cache = tmp_path / "cache"
    folders = [
        encoded(tmp_path / "kept", cache).folder,
        encoded(tmp_path / "kept", cache, "heldout").folder,
        encoded(tmp_path / "more", cache).folder,
        encoded(tmp_path / "kept", cache, contract=Contract("deepseek-r1")).folder,
        encoded(tmp_path / "kept", cache, tokenizer=other).folder,
        encoded(tmp_path / "kept", cache, key="given by the caller").folder,
        encoded(tmp_path / "kept", cache, key="another").folder,
    ]
    monkeypatch.setattr(dataset, "FORMAT", token_set.FORMAT + 1)
    folders.append(encoded(tmp_path / "kept", cache).folder)
    assert len(set(folders)) == len(folders) == len(unheard)


def test_the_tokenizer_counts_by_what_it_does() -> None:
    import copy

    other = copy.deepcopy(tokenizer())
    assert tokenizer_hash(other) == tokenizer_hash(tokenizer())
    other.split_special_tokens = True
    assert tokenizer_hash(other) != tokenizer_hash(tokenizer())
    plain = SimpleNamespace(get_vocab=lambda: {"a": 0}, special_tokens_map={})
    assert tokenizer_hash(plain) != tokenizer_hash(SimpleNamespace(get_vocab=lambda: {"b": 0}, special_tokens_map={}))


def shortened(folder: Path) -> None:
    with (folder / IDS).open("rb+") as file:
        file.truncate((folder / IDS).stat().st_size - 4)


def flipped(folder: Path) -> None:
    content = bytearray((folder / INDEX).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / INDEX).write_bytes(content)


def of_a_later_format(folder: Path) -> None:
    meta = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps({**meta, "format": token_set.FORMAT + 1}))


DAMAGE = {
    "ids cut": shortened,
    "ids gone": lambda folder: (folder / IDS).unlink(),
    "index flipped": flipped,
    "index gone": lambda folder: (folder / INDEX).unlink(),
    "no meta": lambda folder: (folder / META).unlink(),
    "meta of nothing": lambda folder: (folder / META).write_text("[]"),
    "meta cut": lambda folder: (folder / META).write_text('{"format": 1, "si'),
    "later format": of_a_later_format,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_set_is_noticed_and_made_again(tmp_path: Path, unheard: list[int], damage: Any) -> None:
    keep(tmp_path / "kept", SOME)
    first = encoded(tmp_path / "kept", tmp_path / "cache")
    before = [first.example(index).ids.tolist() for index in range(3)]
    damage(first.folder)
    assert stored(first.folder) is None
    again = encoded(tmp_path / "kept", tmp_path / "cache")
    assert (again.folder, unheard) == (first.folder, [3, 3])
    assert [again.example(index).ids.tolist() for index in range(3)] == before
    assert stored(again.folder) is not None


def test_what_was_cut_off_leaves_nothing_that_counts(
    tmp_path: Path, unheard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path / "kept", SOME * 60)
    counting = Contract.encode_batch

    def dying(self: Contract, tokenizer: Any, items: Any) -> Any:
        if len(unheard) == 2:
            raise KeyboardInterrupt
        return counting(self, tokenizer, items)

    monkeypatch.setattr(Contract, "encode_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        encoded(tmp_path / "kept", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(Contract, "encode_batch", counting)
    found = encoded(tmp_path / "kept", tmp_path / "cache")
    killed = found.folder.with_name(f".{found.folder.name}.1.tmp")
    found.folder.rename(killed)
    again = encoded(tmp_path / "kept", tmp_path / "cache")
    assert (len(again), killed.exists()) == (180, False)


def test_a_set_may_be_written_over_and_others_forgotten(tmp_path: Path) -> None:
    rows = [Row(Example(f"t{n}", np.arange(n, dtype=np.int32), 0), f"d{n % 2}", None) for n in range(2, 6)]
    first = write_set(tmp_path / "a", iter(rows[:1]))
    assert (first.example(0).loss_start, first.example(0).loss_tokens) == (1, 1), "nothing predicts the first token"
    second = write_set(tmp_path / "a", iter(rows))
    assert (len(second), second.tokens) == (4, 14)
    assert second.domains[0] is second.domains[2]
    other = write_set(tmp_path / "b", iter(rows))
    (tmp_path / "not-ours").mkdir()
    (tmp_path / ".train-01234567.77.tmp").mkdir()  # of an encoding that was killed
    forget_others(tmp_path, [second])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "not-ours"]
    assert not other.folder.exists()


# --- room on the disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk whose free bytes the test says; otherwise the real one."""
    told = SimpleNamespace(free=10**12)
    monkeypatch.setattr(dataset.shutil, "disk_usage", lambda path: told)
    return told


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, room: SimpleNamespace, unheard: list[int]
) -> None:
    file = keep(tmp_path / "kept", SOME, tokens=[1_000_000, 2_000_000, 3_000_000])
    needed = dataset._bytes_of([file])
    assert 24_000_000 < needed < 24_010_000, "four bytes a token"
    room.free = needed - 1
    with pytest.raises(DiskFullError, match=r"about 0\.024 GB needed, 0\.024 GB free") as caught:
        encoded(tmp_path / "kept", tmp_path / "deep" / "cache")
    assert caught.value.given == str(tmp_path / "deep" / "cache")
    assert (unheard, (tmp_path / "deep").exists()) == ([], False)
    room.free = needed
    found = encoded(tmp_path / "kept", tmp_path / "deep" / "cache")
    room.free = 0
    assert encoded(tmp_path / "kept", tmp_path / "deep" / "cache").folder == found.folder, "nothing is to be written"


def test_the_estimate_is_no_less_than_what_is_written(tmp_path: Path) -> None:
    questions, replies = real_replies()
    messages = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        for question, reply in zip(questions, replies, strict=True)
    ]
    counts = [len(tokenizer().encode(reply, add_special_tokens=False)) for reply in replies]
    counted = keep(tmp_path / "counted", replies, messages=messages, tokens=counts)
    found = encoded(tmp_path / "counted", tmp_path / "cache")
    size = sum(path.stat().st_size for path in found.folder.iterdir())
    assert size <= dataset._bytes_of([counted]) <= 2 * size


def test_replies_that_nobody_counted_are_estimated_by_their_text(tmp_path: Path) -> None:
    long = [Response("seven " * 10_000, "1").render()] * 3
    some = keep(tmp_path / "some", long, tokens=[15_000, None, None])
    none = keep(tmp_path / "none", long, tokens=None)
    assert dataset._bytes_of([some]) > 60_000 + 0.3 * dataset._bytes_of([none])
    assert dataset._bytes_of([none]) > 50_000


def test_a_disk_that_fills_up_all_the_same(tmp_path: Path, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(tmp_path / "kept", [Response("1 " * 400, "1").render()] * 300)
    monkeypatch.setattr(dataset, "_bytes_of", lambda files: 0)
    with pytest.raises(DiskFullError, match="the disk is full"):
        encoded(tmp_path / "kept", tiny_disk)
    assert list(tiny_disk.iterdir()) == []


# --- bad input -------------------------------------------------------------------------------------------------------


def test_no_kept_traces(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there are no kept traces \(train\)"):
        encoded(tmp_path, tmp_path / "cache")


GOOD = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "4"}]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"messages": [GOOD, GOOD, [GOOD[0], {"role": "assistant", "content": "<think>no end"}]]}, "never closes it"),
        ({"messages": [GOOD, GOOD, [GOOD[0], {"role": "assistant", "content": " 4"}]]}, "white space"),
        (
            {"messages": [GOOD, GOOD, [GOOD[0], {"role": "assistant", "content": "<|im_end|>"}]]},
            r"contains <\|im_end\|>",
        ),
        ({"messages": [GOOD, GOOD, [GOOD[0], {"role": "assistant", "content": None}]]}, ""),
        ({"messages": [GOOD, GOOD, GOOD[:1]]}, "not enough values"),
        ({"messages": [GOOD, GOOD, [*GOOD, GOOD[0]]]}, "too many values"),
        ({"messages": [GOOD, GOOD, None]}, ""),
        ({"trace_id": ["a", "b", None]}, "no trace_id"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, columns: dict[str, Any], why: str) -> None:
    keep(tmp_path / "kept", [Response(str(n), "1").render() for n in range(100)])
    keep(tmp_path / "kept", SOME, number=1, **columns)
    with pytest.raises(RunError, match=r"row 2 of train-00001\.parquet cannot be trained on") as caught:
        encoded(tmp_path / "kept", tmp_path / "cache")
    assert caught.value.given is not None
    assert caught.value.given.startswith(str(tmp_path / "kept" / "train-00001.parquet"))
    assert re.search(why, caught.value.given)
    assert list((tmp_path / "cache").iterdir()) == []


def test_rows_are_numbered_over_batches(tmp_path: Path) -> None:
    replies = [Response(str(n), "1").render() for n in range(200)]
    keep(tmp_path / "kept", [*replies[:170], "<think>no end", *replies])
    with pytest.raises(RunError, match=r"row 170 of train-00000"):
        encoded(tmp_path / "kept", tmp_path / "cache")


@pytest.mark.parametrize("missing", ["trace_id", "kind", "messages"])
def test_a_missing_column_is_named(tmp_path: Path, missing: str) -> None:
    keep(tmp_path / "kept", SOME, **{missing: None})
    with pytest.raises(RunError, match=r"train-00000\.parquet cannot be read") as caught:
        encoded(tmp_path / "kept", tmp_path / "cache")
    assert missing in str(caught.value.given)


@pytest.mark.parametrize("content", [b"", b"PAR1 not really", "cut"])
def test_a_damaged_file_is_named(tmp_path: Path, content: Any) -> None:
    file = keep(tmp_path / "kept", SOME)
    file.write_bytes(file.read_bytes()[:-100] if content == "cut" else content)
    with pytest.raises(RunError, match=r"train-00000\.parquet cannot be read"):
        encoded(tmp_path / "kept", tmp_path / "cache")


def test_a_tokenizer_that_merges_prefix_and_header_is_no_fault_of_the_row(tmp_path: Path) -> None:
    keep(tmp_path / "kept", SOME)

    def merging(texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(text)] for text in texts]}

    with pytest.raises(ContractError, match="merges the forced prefix"):
        CONTRACT.encode_batch(merging, [(CONTRACT.messages("q", "math"), Response("r", "a"))])


# --- memory ----------------------------------------------------------------------------------------------------------

MEMORY = """
import sys
from pathlib import Path
from types import SimpleNamespace
from distill.contract import Contract
from distill.train.dataset import encode_split

class Bytes:  # a tokenizer that takes no time and next to no memory: what grows is ours
    special_tokens_map, added_tokens_decoder, all_special_ids, unk_token_id = {}, {}, [], None
    def get_vocab(self):
        return {chr(number): number for number in range(256)}
    def __call__(self, texts, **_):
        return {"input_ids": [list(text.encode()) for text in texts]}

def memory(what):  # of this program alone; getrusage would count the one that started it
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024

def encoded(name):
    return encode_split(Path(sys.argv[1]) / name, "train", Bytes(), Contract("chatml"), Path(sys.argv[2]))

encoded("few")
Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
before = memory("VmHWM")
found = encoded("many")
print(len(found), found.tokens, memory("VmHWM") - before)
"""


def test_memory_stays_flat(tmp_path: Path) -> None:
    """While 20,000 traces are encoded the process grows by a quarter of what their ids alone take."""
    text = Response("12 + 34 = 46, so " * 60, "46").render()
    keep(tmp_path / "few", [text] * 500)
    keep(tmp_path / "many", [text] * 20_000)
    command = [sys.executable, "-c", MEMORY, str(tmp_path), str(tmp_path / "cache")]
    root = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **root})
    traces, tokens, grown = map(int, done.stdout.split())
    assert (traces, tokens > 20_000_000) == (20_000, True)
    assert grown < tokens * 4 / 4


# --- special tokens of the student's own -----------------------------------------------------------------------------


def with_filename(folder: Path) -> Any:
    """The tokenizer of a student to which `<filename>` is no text."""
    return prepare_tokenizer(
        from_base(word_tokenizer(folder, controls=(*CHATML, "<filename>")), forced_prefix="<think>\n")
    )


def test_replies_that_a_server_would_not_send_whole_are_left_out_and_named(tmp_path: Path) -> None:
    replies = [
        SOME[0],
        Response("as in <filename>", "3").render(),
        SOME[1],
        Response(None, "<filename>").render(),
    ]
    keep(tmp_path / "kept", replies, difficulty=["1", "2", "3", "4"])
    own, chatml = with_filename(tmp_path / "base"), Contract("chatml", "<think>\n")
    for _ in range(2):  # made, and found again
        found = encoded(tmp_path / "kept", tmp_path / "cache", contract=chatml, tokenizer=own)
        assert found.special == {"t0-1": "<filename>", "t0-3": "<filename>"}
        assert [found.example(n).trace_id for n in range(len(found))] == ["t0-0", "t0-2"]
        assert list(found.difficulty) == ["1", "3"]
        assert (
            found.example(1).ids.tolist()
            == chatml.encode(own, chatml.messages("q2", "math"), parse_canonical(SOME[1])).ids
        )
    other = encoded(tmp_path / "kept", tmp_path / "cache")
    assert (other.special, len(other)) == ({}, 4), "plain text to another student"


def test_a_question_may_hold_a_special_token(tmp_path: Path) -> None:
    """A server reads it just so."""
    messages = [{"role": "user", "content": "what is <filename>?"}, {"role": "assistant", "content": SOME[1]}]
    keep(tmp_path / "kept", SOME[1:2], messages=[messages])
    own = with_filename(tmp_path / "base")
    found = encoded(tmp_path / "kept", tmp_path / "cache", contract=Contract("chatml", "<think>\n"), tokenizer=own)
    assert (found.special, len(found)) == ({}, 1)
