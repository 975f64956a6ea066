"""Takes foreign traces over into a run: every row of every file, into the ledger and RUN/imported.

The texts stay as the set has them; reasoning and answer are derived from them as from any teacher's reply. Rows are
read one at a time, and what is there already is known by hashes: the same command again goes on where it was killed.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill.contract import prompt_messages
from distill.errors import InputError, Interrupted
from distill.exchange.foreign import Exported, Imported, UnreadableRow
from distill.exchange.import_store import ASKED, Listing, PromptStore, RowStore, VerdictStore, fingerprint
from distill.exchange.layouts import Layout, detect, items
from distill.files import now, sha256_of
from distill.ledger import Ledger
from distill.progress import LINE_SECONDS, say
from distill.prompts.rows import Row, is_remote, rows, unit_of
from distill.records import Prompt, Sampling, SamplingRecord, TeacherIdentity, Trace, asked_hash, trace_key
from distill.rundir import RunDir
from distill.sampling.requests import derive

UNKNOWN = "unknown"
"""Model and revision of a teacher that nobody told."""
ENDPOINT = "import:"
"""Begins the endpoint of an imported trace, before the name of its layout."""
HEAD = 20
"""Rows by which a file's layout is recognised."""
CUT = ("missing_close", "missing_answer_tag")
"""Faults of a reply that stopped at its token limit, where a set does not say how it ended."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user said about a set."""

    layout: str | None = None
    teacher: str | None = None
    """Who wrote the traces, whatever the set says."""
    limit: int | None = None
    """At most this many rows."""
    keep_tool_output: bool = False


@dataclass(slots=True)
class Imports:
    """What an import read and added; `teachers` counts all traces of the run."""

    rows: int = 0
    traces: int = 0
    there: int = 0
    prompts: int = 0
    golds_added: int = 0
    other_golds: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    systems: set[int] = field(default_factory=set)
    with_system: int = 0

    def counts(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "traces": self.traces,
            "already_there": self.there,
            "prompts": self.prompts,
            "golds_added": self.golds_added,
            "other_golds": self.other_golds,
            "unreadable": dict(self.unreadable.most_common()),
            "layouts": dict(self.layouts),
            "teachers": dict(self.teachers.most_common()),
            "system_prompts": len(self.systems),
        }

    def lines(self, run: RunDir) -> list[str]:
        """The same for the reader."""
        names = ", ".join(f"{name} {count}" for name, count in self.layouts.items())
        traces, prompts = f"{self.traces} traces added, {self.there} there already", f"{self.prompts} prompts added"
        found = [f"{self.rows} rows read ({names}): {traces}; {prompts}"]
        if self.unreadable:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.unreadable.most_common())
            found.append(f"not taken over: {reasons}; listed in {run.imported / 'unreadable.jsonl'}")
        if self.with_system:
            found.append(
                f"{self.with_system} traces were written under {len(self.systems)} system prompts, which are no part "
                "of the prompts here; they stay with the original rows"
            )
        if self.golds_added:
            found.append(f"{self.golds_added} questions got a gold answer that they had lacked")
        if self.other_golds:
            listed = run.imported / "other_golds.jsonl"
            found.append(f"another gold answer than before, left aside: {self.other_golds}; listed in {listed}")
        return found


def import_places(run: RunDir, places: Sequence[str], options: Options) -> Imports:
    """Every row of these files into the run. Raises InputError for a file of no known layout or without any row, and
    Interrupted; what was read until then is kept."""
    read = Imports()
    layouts = {place: _layout(place, options) for place in places if not is_remote(place)}  # before anything is written
    if not any(layouts.get(place, True) for place in places):
        raise InputError("there are no rows", given=", ".join(places), todo="give a file with at least one trace")
    with run.lock(), Ledger(run.traces) as ledger:
        taking = _Import(run, ledger, options, read)
        try:
            _read_all(places, layouts, taking)
        except KeyboardInterrupt as stop:
            what = f"interrupted after {read.rows} rows; what was read is kept"
            raise Interrupted(what, todo="start the same command again: it goes on") from stop
        finally:
            taking.flush()
        taking.prompts.merge()
        if "filter" not in run.stages():
            taking.verdicts.write(run.verdicts)
    if not read.traces and not read.there:
        raise InputError(
            f"none of the {read.rows} rows could be taken over",
            given=", ".join(f"{count} {reason}" for reason, count in read.unreadable.most_common()) or None,
            todo=f"look at {taking.unreadable.path}",
        )
    if not len(taking.prompts):
        raise InputError("not one row says which question its trace answers", todo="give a file that holds questions")
    return read


def _layout(place: str, options: Options) -> Layout | None:
    """The layout of a file, None where it holds no rows: looked at before anything is written."""
    head = [row for _, row in itertools.islice(rows(place), HEAD)]
    return detect(head, place, options.layout) if head else None


def _read_all(places: Sequence[str], layouts: Mapping[str, Layout | None], taking: _Import) -> None:
    """Hands every row on, those of files on the Hub with the layout that is seen only now."""
    last, read, limit = time.monotonic(), taking.read, taking.options.limit
    for place in places:
        layout = layouts[place] if place in layouts else _layout(place, taking.options)
        if layout is None:
            continue
        for number, row in rows(place):
            if limit is not None and read.rows >= limit:
                return
            taking.row(place, number, layout, row)
            if time.monotonic() - last >= LINE_SECONDS:
                last = time.monotonic()
                say(f"import: {read.rows} rows, {read.traces} traces; {place}, {unit_of(place)} {number}")


class _Import:
    """One import at work: the stores it writes to, and hashes of what the ledger holds."""

    def __init__(self, run: RunDir, ledger: Ledger, options: Options, read: Imports) -> None:
        self.ledger, self.options, self.read = ledger, options, read
        self.prompts = PromptStore(run.imported)
        self.rows = RowStore(run.imported)
        self.verdicts = VerdictStore(run.imported)
        self.unreadable = Listing(run.imported / "unreadable.jsonl", ("file", "row", "item", "reason"))
        self.golds = Listing(run.imported / "other_golds.jsonl", ("file", "row", "answer"))
        self.asked = Listing(run.imported / ASKED, ("asked", "text"))
        self._samples: dict[int, int] = {}  # content → which sample of its question and teacher it is
        self._next: dict[int, int] = {}
        self._records: dict[int, int] | None = None  # key and revision → the whole record; only records of ours need it
        for trace in ledger.records():
            self._note(trace)

    def flush(self) -> None:
        """Prompts and lists after the traces they tell of: what is missing is made again from the same rows."""
        self.ledger.commit()
        for store in (self.prompts, self.rows, self.verdicts, self.unreadable, self.golds, self.asked):
            store.flush()

    def row(self, place: str, number: int, layout: Layout, row: Row) -> None:
        """Everything in one row, and the row itself."""
        self.read.rows += 1
        self.read.layouts[layout.name] += 1
        keys: list[str] = []
        for position, item in enumerate(items(layout, row)):
            try:
                if isinstance(item, UnreadableRow):
                    raise item
                keys += self._take(item, layout, place, number)
            except UnreadableRow as error:
                self.read.unreadable[error.reason] += 1
                entry = {"file": place, "row": number, "item": position, "reason": error.reason, "what": error.what}
                self.unreadable.add(**entry, start=ascii(dict(row))[:200])
        self.rows.add(place, number, layout.name, row, list(dict.fromkeys(keys)))

    def _take(self, item: Imported | Exported, layout: Layout, place: str, number: int) -> list[str]:
        """The key of the trace, where there is one."""
        if isinstance(item, Exported):
            item = item if item.trace is None else self._checked(item, item.trace)
        elif item.tools and not self.options.keep_tool_output:
            raise UnreadableRow("tool_output", "code and its output stand in the reasoning (--keep-tool-output)")
        if item.prompt is not None:
            self._take_prompt(item.prompt, place, number)
        if isinstance(item, Exported):
            return [] if item.trace is None else [self._take_exported(item.trace, item)]
        if item.system is not None:
            self.read.with_system += 1
            self.read.systems.add(fingerprint(item.system))
        return [self._take_foreign(item, layout)]

    def _take_prompt(self, prompt: Prompt, place: str, number: int) -> None:
        found = self.prompts.take(prompt)
        self.read.prompts += found == "new"
        self.read.golds_added += found == "gold_added"
        if found == "other_gold":
            self.read.other_golds += 1
            self.golds.add(file=place, row=number, prompt_id=prompt.id, answer=prompt.answer)

    def _take_foreign(self, item: Imported, layout: Layout) -> str:
        teacher = TeacherIdentity(self.options.teacher or item.teacher or UNKNOWN, UNKNOWN)
        asked = plainly_asked(item.prompt)
        trace = Trace(
            key="",
            asked=asked,
            prompt_id=item.prompt.id,
            sample=0,
            raw=item.raw,
            raw_reasoning=item.raw_reasoning,
            finish_reason=item.finish_reason or "stop",
            teacher=teacher,
            sampling=SamplingRecord(item.sampling),
            endpoint=f"{ENDPOINT}{layout.name}",
            created=now(),
        )
        trace = derive(trace, "foreign", "")
        if item.finish_reason is None and trace.fault in CUT:
            trace = replace(trace, finish_reason="length")
        group, content = _identities(trace)
        sample = self._samples.get(content)
        key = trace_key(asked, self._next.get(group, 0) if sample is None else sample, teacher, item.sampling)
        if sample is not None:
            self.read.there += 1
        else:
            self._append(replace(trace, key=key, sample=self._next.get(group, 0)))
        return key

    def _checked(self, item: Exported, trace: Trace) -> Exported:
        """The record, under the number that it has here. Raises UnreadableRow when its key is not its own, or when
        another record stands in its place."""
        if self._records is None:
            self._records = {}
            for there in self.ledger.records():
                self._records[fingerprint(there.key, there.revision)] = _content(there)
        if trace.key != trace_key(trace.asked, trace.sample, trace.teacher, trace.sampling.requested):
            raise UnreadableRow("wrong_key", "the trace's key is not that of its fields: was the row edited?")
        number = self._number(trace)
        if number != trace.sample:
            key = trace_key(trace.asked, number, trace.teacher, trace.sampling.requested)
            trace = replace(trace, key=key, sample=number)
            item = Exported(item.prompt, trace, tuple(replace(verdict, trace_key=key) for verdict in item.verdicts))
        known = self._records.get(fingerprint(trace.key, trace.revision))
        if known is not None and known != _content(trace):
            raise UnreadableRow("other_record", f"the run holds another revision {trace.revision} of trace {trace.key}")
        return item

    def _number(self, trace: Trace) -> int:
        """Which sample a record is here. Nobody chose the number of an imported trace: where another text has it
        already, as when two runs are put together, it gets the next."""
        group, content = _identities(trace)
        taken = content in self._samples or fingerprint(trace.key, 0) in (self._records or ())
        if not taken or not (trace.endpoint or "").startswith(ENDPOINT):
            return trace.sample
        return self._samples.get(content, self._next.get(group, 0))

    def _take_exported(self, trace: Trace, item: Exported) -> str:
        """The record as it is. What was asked may have held an instruction of its teacher: it is noted whose question
        that was."""
        if item.prompt is not None and trace.asked != plainly_asked(item.prompt):
            self.asked.add(asked=trace.asked, text=sha256_of(item.prompt.text))
        for verdict in item.verdicts:
            self.verdicts.add(verdict)
        if fingerprint(trace.key, trace.revision) in (self._records or ()):
            self.read.there += 1
        else:
            self._append(trace)
        return trace.key

    def _append(self, trace: Trace) -> None:
        self.ledger.append(trace)
        self._note(trace)
        self.read.traces += 1

    def _note(self, trace: Trace) -> None:
        """Remembers a record that the ledger holds."""
        group, content = _identities(trace)
        self.read.teachers[trace.teacher.model] += content not in self._samples
        self._samples.setdefault(content, trace.sample)
        self._next[group] = max(self._next.get(group, 0), trace.sample + 1)
        if self._records is not None:
            self._records[fingerprint(trace.key, trace.revision)] = _content(trace)


def plainly_asked(prompt: Prompt) -> str:
    """The hash of a question asked as it is, as the teacher spec `imported` asks it."""
    return asked_hash(prompt_messages(prompt.text, prompt.kind, None, None), "")


def _identities(trace: Trace) -> tuple[int, int]:
    """(the samples that a trace is one of, its content among them)."""
    who = _fingerprints(trace.teacher, trace.sampling.requested)
    return (
        fingerprint(trace.asked, who),
        fingerprint(trace.asked, who, trace.raw, trace.raw_reasoning, trace.finish_reason),
    )


def _content(trace: Trace) -> int:
    """All of a record but when it was made: two runs that import the same set get the same records at other times."""
    return fingerprint({**trace.to_json(), "created": ""})


@functools.lru_cache(maxsize=256)
def _fingerprints(teacher: TeacherIdentity, sampling: Sampling) -> str:
    return teacher.fingerprint + sampling.fingerprint
