"""The contract check of a run: which kept traces it looks at, and `distill train RUN --check`.

What is checked, and how, is check.py's business.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill import specs
from distill.contract import Contract, parse_canonical
from distill.errors import RunError, TrainingError
from distill.files import reading
from distill.progress import quiet_transformers
from distill.rundir import RunDir
from distill.student_specs import StudentSpec
from distill.train.check import Checked, check_contract, require
from distill.train.colouring import coloured
from distill.train.student import generation_settings, name_tokens, save_contract_files, student_config
from distill.train.tokenizer import prepare_tokenizer, special_in, special_tokens
from distill.train.trace_check import Rendered

RANDOM = 8
"""Traces taken by chance, besides the longest, the shortest, and one per kind, domain and with or without reasoning."""
NONE_KEPT = "run `distill filter RUN`; where it kept none, `distill show RUN --rejected` says why"
MOST = 64
"""Traces at most: a set of hundreds of domains is not rendered twice."""
ROWS = 1_000
SHOWN = 8
"""Traces that an error names."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One kept trace as its row has it; `reply` is canonical text."""

    trace_id: str
    kind: str
    domain: str
    question: str
    reply: str


@dataclass(frozen=True, slots=True)
class RunCheck:
    """What `distill train RUN --check` found, and how it shows it. `shown` is one trace, coloured by loss."""

    checked: Checked
    student: str
    contract: Contract
    shown: str

    def lines(self, census: Sequence[str] = ()) -> list[str]:
        """For the reader; `census`, the lines about lengths, stands first."""
        head = f"contract of {self.student}: {self.contract.template}, {self.contract.hash}"
        return [*census, head, *self.checked.lines(), "", self.shown]

    def values(self) -> dict[str, Any]:
        return {
            "student": self.student,
            "template": self.contract.template,
            "contract": self.contract.hash,
            "traces": self.checked.traces,
            "proven": list(self.checked.proven),
            "findings": [{**asdict(fault), "todo": fault.todo} for fault in self.checked.faults],
        }


def check_run(recipe: specs.Recipe, run: RunDir) -> RunCheck:
    """Checks the student that `distill train` would train, on the run's kept traces; writes nothing there.

    The folder is made as training makes it, without weights: nothing big is loaded. Faults are returned, not raised.
    """
    quiet_transformers()
    spec = specs.student(recipe.student, recipe.student_overrides)
    tokenizer = prepare_tokenizer(spec)
    examples = rendered(spec.contract, tokenizer, choose(run.kept, seed=recipe.seed))
    with tempfile.TemporaryDirectory(prefix="distill-check-") as place:
        folder = Path(place)
        config = student_config(spec, tokenizer)
        name_tokens(config, tokenizer)
        save_contract_files(
            config, generation_settings(tokenizer), tokenizer, spec.contract, folder, facts={"student": spec.name}
        )
        checked = check_contract(folder, spec.contract, examples, thinks=spec.thinks)
    # the shortest that reasons, or where none does the shortest
    shown = min(examples, key=lambda example: (example.response.reasoning is None, len(example.encoded.ids)))
    return RunCheck(checked, spec.name, spec.contract, coloured(shown.encoded.ids, shown.encoded.loss_start, tokenizer))


def prove(folder: Path, spec: StudentSpec, tokenizer: Any, kept: Path, *, seed: int) -> Checked:
    """At the start of training: checks the student saved in `folder` on traces of `kept/`, encoded with the tokenizer
    that training uses. Raises ContractError that lists every fault."""
    checked = check_contract(
        folder, spec.contract, rendered(spec.contract, tokenizer, choose(kept, seed=seed)), thinks=spec.thinks
    )
    require(checked)
    return checked


def rendered(contract: Contract, tokenizer: Any, kept: Sequence[Kept]) -> list[Rendered]:
    """Kept traces as training makes them, without those that it leaves out for a special token in the reply.

    Raises TrainingError when that is all of them.
    """
    special, held = special_tokens(tokenizer), dict[str, str]()
    found = []
    for trace in kept:
        messages, response = contract.messages(trace.question, trace.kind), parse_canonical(trace.reply)
        encoded = contract.encode(tokenizer, messages, response)
        token = special_in(encoded.ids[encoded.loss_start :], special)
        if token is not None:
            held[trace.trace_id] = token
            continue
        found.append(Rendered(trace.trace_id, messages, response, encoded))
    if kept and not found:
        raise TrainingError(
            "there is nothing to train on: every reply looked at holds a special token of this student's tokenizer",
            given=", ".join(f"{token} in {trace[:12]}" for trace, token in list(held.items())[:SHOWN]),
            todo="take another student, or other traces",
        )
    return found


def choose(folder: Path, *, seed: int) -> list[Kept]:
    """Some dozen traces of kept/train-*.parquet, the same each time: the longest, the shortest, the first of each kind,
    domain and way to answer (with or without reasoning), and RANDOM by chance. One pass, a few rows in memory.

    Raises RunError when there is none.
    """
    rng = random.Random(f"check:{seed}")
    longest = shortest = None
    groups: dict[tuple[str, str, bool], Kept] = {}
    drawn: list[Kept] = []
    for number, row in enumerate(_rows(folder)):
        length = len(row.reply)
        if longest is None or length > len(longest.reply):
            longest = row
        if shortest is None or length < len(shortest.reply):
            shortest = row
        groups.setdefault((row.kind, row.domain, row.reply.startswith("<think>")), row)
        if number < RANDOM:
            drawn.append(row)
        elif (place := rng.randrange(number + 1)) < RANDOM:
            drawn[place] = row  # every row is as likely to stay as any other (Vitter's algorithm R)
    if longest is None or shortest is None:
        raise RunError("there are no kept traces", given=str(folder), todo=NONE_KEPT)
    chosen = {row.trace_id: row for row in (longest, shortest, *drawn, *groups.values())}
    return list(chosen.values())[:MOST]


def _rows(folder: Path) -> Iterator[Kept]:
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("train-*.parquet")):
        with reading(path, "make it again with `distill filter RUN`"):
            file = pq.ParquetFile(path)
            columns = [name for name in ("trace_id", "kind", "domain", "messages") if name in file.schema_arrow.names]
            for batch in file.iter_batches(ROWS, columns=columns):
                for row in batch.to_pylist():
                    question, reply = (message["content"] for message in row["messages"])
                    yield Kept(row["trace_id"], row["kind"], row.get("domain") or "", question, reply)
