"""Everything a run holds about its traces as one JSONL file: every record of the ledger with its prompt and verdicts.

Nothing is left out and nothing derived, so that `distill import` of it gives the same run back. The file is written in
the ledger's order, prompts and verdicts are looked up: they wait in an SQLite database of SQLite's own, on disk and
gone with the process. In memory are one batch of the ledger and one byte per prompt.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from distill import specs
from distill.errors import DiskFullError
from distill.exchange.handing_over import line
from distill.exchange.import_store import told_more
from distill.files import reading, sha256_of
from distill.prompts.stage import read_prompts
from distill.records import Prompt, Trace, Verdict, asked_hash
from distill.rundir import RunDir
from distill.sampling.requests import Subject
from distill.sampling.subjects import teacher_subject
from distill.specs import Recipe
from distill.teacher_specs import TeacherSpec

BATCH = 4_096
AGAIN = "make it again with `distill filter RUN`"


@dataclass(frozen=True, slots=True)
class Whole:
    """What an export of the whole run holds: records, prompts with a trace, prompts without, records of no prompt."""

    records: int
    prompts: int
    unsampled: int
    unknown_prompt: int


def write_whole_run(recipe: Recipe, run: RunDir, path: Path) -> Whole:
    """One line for every record of the ledger, all revisions and failures, then one for every prompt without any."""
    subject = asking(recipe)
    with lookup() as database:
        prompts = keep_prompts(database, _prompts(run), subject)
        database.executemany("INSERT OR REPLACE INTO told VALUES (?, ?)", told_more(run.imported))
        _keep_verdicts(database, run.verdicts)
        met = bytearray(prompts)
        records = unknown = 0
        with path.open("w", encoding="utf-8") as file:
            for trace in run.ledger().records():
                place, prompt = _prompt_of(database, trace)
                if place is None:
                    unknown += 1
                else:
                    met[place] = 1
                file.write(_line(prompt, line(trace.to_json()).rstrip("\n"), _verdicts_of(database, trace)))
                records += 1
            for place, text in database.execute("SELECT place, text FROM prompts ORDER BY place"):
                if not met[place]:
                    file.write(_line(text, "null", "[]"))
    return Whole(records, sum(met), prompts - sum(met), unknown)


def _prompts(run: RunDir) -> Iterator[Prompt]:
    """The run's prompts, then those of imported traces again: with the ones that the prompts stage left out."""
    for path in (run.prompts, run.imported / "prompts.parquet"):
        if path.is_file():
            yield from read_prompts(path)


def asking(recipe: Recipe) -> Subject | None:
    """Who was asked, for the hash of what was asked; None without a teacher. Its weights are not looked at: a run is
    exported where they may not lie."""
    if not recipe.teacher:
        return None
    spec = specs.load("teachers", recipe.teacher, recipe.teacher_overrides)
    assert isinstance(spec, TeacherSpec)
    named = spec.model_copy(update={"served": True})
    return teacher_subject(named, recipe.generate.sampling, recipe.generate.max_tokens, recipe.seed)


def _line(prompt: str, trace: str, verdicts: str) -> str:
    """The parts are JSON already: most of a file is text that is only carried over."""
    return f'{{"prompt": {prompt}, "trace": {trace}, "verdicts": {verdicts}}}\n'


def prompt_with_id(database: sqlite3.Connection, name: str) -> Prompt | None:
    found = database.execute("SELECT text FROM prompts WHERE id = ?", (name,)).fetchone()
    return Prompt.from_json(json.loads(found[0])) if found is not None else None


@contextmanager
def lookup() -> Iterator[sqlite3.Connection]:
    """An empty database in a file that SQLite makes, hides and removes itself."""
    database = sqlite3.connect("", isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute(
            "CREATE TABLE prompts (place INTEGER PRIMARY KEY, asked TEXT, question TEXT UNIQUE, id TEXT, own INTEGER, "
            "text TEXT)"
        )
        database.execute("CREATE TABLE told (asked TEXT PRIMARY KEY, question TEXT) WITHOUT ROWID")
        database.execute("CREATE TABLE verdicts (trace TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        database.execute("BEGIN")  # one transaction, never ended: nobody else reads it
        yield database
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        todo = "free some space where temporary files lie (SQLITE_TMPDIR or TMPDIR names another place)"
        raise DiskFullError("there is no space left for temporary files", given=str(error), todo=todo) from error
    finally:
        database.close()


def keep_prompts(database: sqlite3.Connection, prompts: Iterable[Prompt], subject: Subject | None) -> int:
    """Prompts by what was asked, by the question's hash, each once, and by their id; `own` marks an id that is such a
    hash, since one that somebody gave may stand for another question by now."""
    count = 0
    for prompt in prompts:
        asked = asked_hash(subject.messages(prompt), subject.forced_prefix) if subject is not None else None
        own = replace(prompt, id="").id == prompt.id
        row = (count, asked, sha256_of(prompt.text), prompt.id, own, line(prompt.to_json()).rstrip("\n"))
        count += database.execute("INSERT OR IGNORE INTO prompts VALUES (?, ?, ?, ?, ?, ?)", row).rowcount
    database.execute("CREATE INDEX by_asked ON prompts (asked)")
    database.execute("CREATE INDEX by_id ON prompts (id)")
    return count


def _prompt_of(database: sqlite3.Connection, trace: Trace) -> tuple[int | None, str]:
    """(place, JSON) of the prompt that a trace answers; (None, "null") when the run does not hold it any more."""
    told = "question = (SELECT question FROM told WHERE asked = ?)"  # the teacher of an imported trace
    for where, value in (("asked = ?", trace.asked), (told, trace.asked), ("id = ? AND own", trace.prompt_id)):
        found = database.execute(f"SELECT place, text FROM prompts WHERE {where}", (value,)).fetchone()  # noqa: S608
        if found is not None:
            return int(found[0]), str(found[1])
    return None, "null"


def _keep_verdicts(database: sqlite3.Connection, path: Path) -> None:
    """The verdicts on each content as a JSON list, in the order of verdicts.parquet."""
    if not path.is_file():
        return
    for key, group in groupby(_verdicts(path), lambda verdict: f"{verdict.trace_key} {verdict.content_hash}"):
        text = json.dumps([verdict.to_json() for verdict in group], allow_nan=False)
        database.execute(
            "INSERT INTO verdicts VALUES (?, ?) ON CONFLICT (trace) DO UPDATE "
            "SET text = substr(text, 1, length(text) - 1) || ', ' || substr(excluded.text, 2)",
            (key, text),
        )


def _verdicts(path: Path) -> Iterator[Verdict]:
    import pyarrow.parquet as pq

    with reading(path, AGAIN), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            yield from (Verdict.from_json(row) for row in batch.to_pylist())


def _verdicts_of(database: sqlite3.Connection, trace: Trace) -> str:
    key = f"{trace.key} {trace.content_hash}"
    found = database.execute("SELECT text FROM verdicts WHERE trace = ?", (key,)).fetchone()
    return str(found[0]) if found is not None else "[]"
