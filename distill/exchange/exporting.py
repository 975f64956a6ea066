"""A run's traces for other tools: rows to train on, the kept rows as Parquet, or everything the run holds as JSONL.

Streams: in memory are one batch of rows and what whole_run.py says of itself. Knows nothing about any tool's settings,
which are in snippets.py.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from distill import __version__, specs
from distill.contract import Contract, parse_canonical
from distill.errors import RunError, UsageError, near
from distill.exchange.handing_over import export_file, export_folder, line
from distill.exchange.lengths import Lengths, tokenizer_at_hand
from distill.exchange.snippets import Job, tool_files
from distill.exchange.whole_run import keep_prompts, lookup, prompt_with_id, write_whole_run
from distill.files import reading
from distill.prompts.stage import read_prompts
from distill.records import Message, Prompt
from distill.rundir import RunDir
from distill.specs import Recipe
from distill.student_specs import StudentSpec

Format = Literal["messages", "jsonl", "parquet"]
Tool = Literal["trl", "axolotl", "llama-factory"]
Split = Literal["train", "heldout", "all"]
SIDES = ("train", "heldout")
BATCH = 1_024
FILTER = "run `distill filter RUN` first"
AGAIN = "make it again with `distill filter RUN`"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written where: `counts` by name, `lines` for the reader."""

    out: Path
    counts: Mapping[str, int]
    lines: tuple[str, ...] = ()


@dataclass(slots=True)
class Rows:
    """Rows of each side that were written, and their lengths."""

    lengths: Lengths
    counts: Counter[str] = field(default_factory=Counter)


def export(
    recipe: Recipe,
    run: RunDir,
    format: str,  # noqa: A002  # the option's name
    *,
    tool: str | None = None,
    out: Path | None = None,
    split: str | None = None,
    student: str | None = None,
) -> Exported:
    """Writes one export. Raises UsageError for options that do not go together and for a place that is taken, RunError
    when the run holds nothing to export yet."""
    _known("--format", format, get_args(Format))
    if tool is not None:
        _known("--for", tool, get_args(Tool))
    if split is not None:
        _known("--split", split, get_args(Split))
    if tool is not None and format != "messages":
        raise UsageError(f"--for {tool} takes rows of messages", given=f"--format {format}", todo="--format messages")
    facts = {"distill": __version__, "run": str(run.path.resolve()), "format": format, "for": tool, "split": split}
    if format == "jsonl":
        if split is not None or student is not None:
            raise UsageError("--split and --student are about kept rows; jsonl holds the whole run", todo="omit them")
        return _whole(recipe, run, out or run.path / "exports" / "traces.jsonl", facts)
    sides = _sides(run, split or ("all" if tool or format == "parquet" else "train"))
    if format == "parquet":
        if student is not None:
            raise UsageError("--student is about --format messages; parquet holds the kept rows as they are")
        return _parquet(run, sides, out or run.path / "exports" / "parquet", facts)
    spec = _student(recipe, student)
    if tool is not None:
        return _for_tool(recipe, run, spec, tool, sides, out or run.path / "exports" / tool, facts)
    name = "messages.jsonl" if split in (None, "train") else f"messages-{split}.jsonl"
    return _messages(run, spec, sides, out or run.path / "exports" / name, facts)


def _known(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise UsageError(f"{option} {given}: unknown{near(given, list(known))}", todo=f"one of: {', '.join(known)}")


def _student(recipe: Recipe, name: str | None) -> StudentSpec | None:
    if name is not None:
        return specs.student(name)
    return specs.student(recipe.student, recipe.student_overrides) if recipe.student else None


# --- kept rows -----------------------------------------------------------------------------------------------------


def _sides(run: RunDir, split: str) -> tuple[str, ...]:
    """The sides asked for that hold rows. Raises RunError when there is none."""
    if not list(run.kept.glob("train-*.parquet")):
        raise RunError("nothing was filtered in this run yet", given=str(run.kept), todo=FILTER)
    wanted = SIDES if split == "all" else (split,)
    filled = tuple(side for side in wanted if next(kept_rows(run.kept, side), None) is not None)
    if not filled:
        what = "no trace was kept" if split != "heldout" else "nothing is held out in this run"
        todo = "see `distill show RUN --rejected` for the reasons" if split != "heldout" else "set filter.heldout"
        raise RunError(what, given=str(run.kept), todo=todo)
    return filled


def kept_rows(folder: Path, side: str) -> Iterator[dict[str, Any]]:
    """The rows of kept/SIDE-*.parquet in order."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob(f"{side}-*.parquet")):
        with reading(path, AGAIN), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                yield from batch.to_pylist()


def conversation(row: Mapping[str, Any], contract: Contract | None) -> list[Message]:
    """The messages of a kept row as the student sees them: its system prompt and instruction are there, and an answer
    without reasoning gets the empty pair of tags where the student is made to open one. Without a student, as kept."""
    messages = [{"role": message["role"], "content": message["content"]} for message in row["messages"]]
    if contract is None:
        return messages
    question, reply = (message["content"] for message in messages)
    text = contract.render_response(parse_canonical(reply)).removesuffix(contract.stop)
    return [*contract.messages(question, row["kind"]), {"role": "assistant", "content": text}]


def prompt_and_completion(messages: list[Message]) -> dict[str, list[Message]]:
    """The form in which TRL computes the loss on the reply alone by itself."""
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def _write(run: RunDir, side: str, file: TextIO, contract: Contract | None, rows: Rows, *, trl: bool = False) -> None:
    for row in kept_rows(run.kept, side):
        messages = conversation(row, contract)
        file.write(line(prompt_and_completion(messages) if trl else {"messages": messages}))
        rows.counts[side] += 1
        rows.lengths.add(messages, row.get("tokens"))


def _messages(run: RunDir, spec: StudentSpec | None, sides: tuple[str, ...], out: Path, facts: Any) -> Exported:
    contract = spec.contract if spec else None
    rows = Rows(Lengths(contract))
    with export_file(out, facts) as temporary, temporary.open("w", encoding="utf-8") as file:
        for side in sides:
            _write(run, side, file, contract, rows)
    return Exported(out, dict(rows.counts), (_told(rows.counts), str(out)))


def _for_tool(
    recipe: Recipe, run: RunDir, spec: StudentSpec | None, tool: str, sides: tuple[str, ...], out: Path, facts: Any
) -> Exported:
    if "train" not in sides:
        raise UsageError("a tool needs rows to train on", given="--split heldout", todo="--split train or all")
    contract = spec.contract if spec else None
    train = recipe.train.model_copy(
        update={"method": "full"}
    )  # what our configurations do: an adapter's rate is higher
    phase, *more = spec.phases(train) if spec else train.phases_of()
    if more:
        raise UsageError(
            f"the recipe trains in {len(more) + 1} phases, and a tool's configuration is of one",
            given=", ".join(part.name for part in (phase, *more)),
            todo="export without --for, or from a recipe without train.phases",
        )
    with export_folder(out, {**facts, "student": spec.name if spec else None}) as folder:
        rows = Rows(Lengths(contract, tokenizer_at_hand(spec) if spec else None))
        for side in sides:
            with (folder / f"{side}.jsonl").open("w", encoding="utf-8") as file:
                _write(run, side, file, contract, rows, trl=tool == "trl")
        base = spec.base if spec else None
        if spec is not None and base is None and run.untrained.is_dir():
            base = str(run.untrained.resolve())  # a student from nothing: its first weights, where it was trained here
        job = Job(spec, base, recipe.train, phase, recipe.seed, rows.lengths.found(), dict(rows.counts))
        for name, text in tool_files(tool, job).items():
            (folder / name).write_text(text, encoding="utf-8")
        names = sorted(path.name for path in folder.iterdir())
    lines = [_told(rows.counts), f"{out}: {', '.join(names)}", f"how to start: {out / 'README.md'}"]
    if job.gaps:
        lines.append("to fill in by hand: " + "; ".join(job.gaps))
    return Exported(out, {**rows.counts, "longest": job.length.tokens}, tuple(lines))


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {'rows to train on' if side == 'train' else side}" for side, count in counts.items())


def _parquet(run: RunDir, sides: tuple[str, ...], out: Path, facts: Any) -> Exported:
    """One file per side: the kept rows as they are, with what is known of their prompts."""
    counts: Counter[str] = Counter()
    prompts = read_prompts(run.prompts) if run.prompts.is_file() else ()
    with export_folder(out, facts) as folder, lookup() as database:
        keep_prompts(database, prompts, None)
        for side in sides:
            counts[side] = _one_parquet(run, side, folder / f"{side}.parquet", database)
    return Exported(out, dict(counts), (_told(counts), f"{out}: {', '.join(f'{side}.parquet' for side in sides)}"))


def _one_parquet(run: RunDir, side: str, path: Path, database: sqlite3.Connection) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    messages = pa.list_(pa.struct([("role", text), ("content", text)]))
    names = ("prompt_id", "trace_id", "kind", "domain", "source", "license", "answer")
    last = [("tokens", pa.int64()), ("pass_rate", pa.float64()), ("difficulty", text)]
    schema = pa.schema([("messages", messages), *((name, text) for name in names), *last])
    rows = kept_rows(run.kept, side)
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(rows, BATCH)):
            described = [{**row, **_about(row, prompt_with_id(database, row["prompt_id"]))} for row in batch]
            writer.write_table(pa.Table.from_pylist(described, schema=schema))
            count += len(batch)
    return count


def _about(row: Mapping[str, Any], prompt: Prompt | None) -> dict[str, str | None]:
    """What is known of a row's prompt: nothing when its id stands for another question by now."""
    if prompt is None or prompt.text != row["messages"][0]["content"]:
        return {}
    return {"source": prompt.source, "license": prompt.license, "answer": prompt.answer}


# --- everything ------------------------------------------------------------------------------------------------------


def _whole(recipe: Recipe, run: RunDir, out: Path, facts: Mapping[str, Any]) -> Exported:
    if not run.prompts.is_file() and not run.ledger().index():
        raise RunError("there is nothing in this run yet", given=str(run.path), todo="run `distill generate` first")
    with export_file(out, facts) as temporary:
        whole = write_whole_run(recipe, run, temporary)
    lines = [f"{whole.records} records of {whole.prompts} prompts, and {whole.unsampled} prompts without any"]
    if whole.unknown_prompt:
        lines.append(f"{whole.unknown_prompt} records answer questions that are not in {run.prompts.name} any more")
    counts = {"records": whole.records, "prompts": whole.prompts, "unsampled": whole.unsampled}
    return Exported(out, {**counts, "unknown_prompt": whole.unknown_prompt}, (*lines, str(out)))
