"""Datasets of the Hub, read by the real client from a server on loopback, and from copies in a folder."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hub_server import SHA, HubServer, serving

from distill.errors import InputError
from distill.prompts.sources import sourced
from distill.source_specs import PromptsPart

ROWS = 3_000
CARD = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: data/train-*}\n---\n"


def dataset(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    table = pa.table(
        {
            "problem": [f"What is {n} + {n}, asked in row {n}?" for n in range(ROWS)],
            "answer": [str(2 * n) for n in range(ROWS)],
            "traces": [random.Random(n).randbytes(1_000).hex() for n in range(ROWS)],
        }
    )
    pq.write_table(table.slice(0, 2_000), folder / "data" / "train-00000-of-00002.parquet", row_group_size=500)
    pq.write_table(table.slice(2_000), folder / "data" / "train-00001-of-00002.parquet", row_group_size=500)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    dataset(tmp_path / "hub" / "org" / "sums")
    with serving(tmp_path / "hub") as server:
        yield server


def spec_file(tmp_path: Path, **changed: Any) -> Path:
    spec = {"name": "sums", "dataset": "org/sums", "revision": SHA, "columns": {"question": "problem"}, **changed}
    path = tmp_path / "sums.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(spec))
    return path


LOOK = """
import json, sys
from distill.errors import InputError
from distill.prompts.sources import sourced
from distill.source_specs import PromptsPart
for part in json.load(sys.stdin):
    try:
        print(json.dumps([item.prompt.answer for item in sourced(PromptsPart(**part), 0)]))
    except InputError as error:
        print(json.dumps(str(error)))
"""


def asked(tmp_path: Path, url: str | None, *specs: dict[str, Any], **part: Any) -> list[Any]:
    """What sources of these specs give, their golds or an error's text, in a process that knows this Hub alone."""
    files = [spec_file(tmp_path / f"spec-{number}", **changed) for number, changed in enumerate(specs)]
    hub = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url or "http://127.0.0.1:1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={**os.environ, **hub, "HF_HUB_DISABLE_XET": "1"},
        input=json.dumps([{"source": str(file), **part} for file in files]),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


NAMED = {"files": {"train": "data/train-*.parquet"}, "expected_rows": {"train": ROWS}}
GOLDS = [str(2 * n) for n in range(ROWS)]


def test_a_dataset_is_read_from_the_hub_in_pieces(tmp_path: Path, hub: HubServer) -> None:
    """By patterns; the column that nobody asked for is not fetched."""
    assert asked(tmp_path, hub.url, NAMED) == [GOLDS]
    whole = sum(file.stat().st_size for file in (hub.root / "org" / "sums").rglob("*.parquet"))
    assert 0 < hub.bytes_sent < whole / 10


def test_what_a_spec_has_wrong_about_a_dataset(tmp_path: Path, hub: HubServer) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"revision": "f" * 40}, "org/sums has no revision ffff"),
        ({"revision": "f" * 40, **NAMED}, "org/sums has no revision ffff"),
        ({"dataset": "org/other"}, "there is no dataset org/other on the Hub, or not for you"),
        ({"dataset": "org/other", **NAMED}, "there is no dataset org/other on the Hub, or not for you"),
        ({"files": {"train": "data/none-*.parquet"}}, "org/sums holds no data/none-*.parquet"),
        ({"splits": {"train": "learn"}}, "org/sums has no split 'learn'"),
        ({"config": "other"}, "org/sums has no config 'other'"),
        ({"expected_rows": {"train": 17}}, "sums: 3000 rows in the split train, 17 are expected at this revision"),
        ({"columns": {"question": "problems"}}, "row 1: there is no column 'problems'; did you mean 'problem'?"),
    ]
    found = asked(tmp_path, hub.url, {}, *(changed for changed, _ in wrong))
    assert found[0] == GOLDS, "the card names the files"
    for said, (changed, message) in zip(found[1:], wrong, strict=True):
        assert message in said, changed


def test_a_gated_dataset_says_where_its_terms_are(tmp_path: Path, hub: HubServer) -> None:
    hub.gated.add("org/sums")
    for said in asked(tmp_path, hub.url, NAMED, {}):
        assert "accept them at https://huggingface.co/datasets/org/sums, then `hf auth login`" in said


def test_without_network_it_says_how_to_bring_a_copy_and_the_copy_works(tmp_path: Path) -> None:
    for said in asked(tmp_path, None, NAMED, {}):
        assert "the Hugging Face Hub cannot be reached for org/sums" in said
        assert f"hf download org/sums --repo-type dataset --revision {SHA} --local-dir copies/sums" in said
        assert "--set prompts.0.path=copies/sums (problems: evaluate.prompts.0.path)" in said
    dataset(tmp_path / "copies" / "sums")
    assert asked(tmp_path, None, NAMED, {}, path=str(tmp_path / "copies" / "sums")) == [GOLDS, GOLDS]


def test_a_copy_is_read_by_its_card_as_well(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "copy")
    part = PromptsPart(source=str(spec_file(tmp_path)), path=str(folder), limit=2)
    assert [item.prompt.answer for item in sourced(part, 0)] == ["0", "2"]


def write_rows(folder: Path, bad: int, good: int) -> PromptsPart:
    folder.mkdir()
    rows = [{"problem": "", "answer": "1"}] * bad + [{"problem": f"q{n}", "answer": "1"} for n in range(good)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PromptsPart(source=str(spec_file(folder.parent, files={"train": "train.jsonl"})), path=str(folder))


def test_a_few_unusable_rows_of_a_dataset_are_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = write_rows(tmp_path / "copy", bad=3, good=400)
    assert len(list(sourced(part, 0))) == 400
    assert "3 of 403 rows are unusable and left out" in capsys.readouterr().err


def test_many_unusable_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"30 of 430 rows are unusable; the first: .*train\.jsonl, line 1: field"):
        list(sourced(write_rows(tmp_path / "a", bad=30, good=400), 0))
    with pytest.raises(InputError, match="line 101: field 'question' is empty"):
        list(sourced(write_rows(tmp_path / "b", bad=5_000, good=1), 0))
