"""The layouts of published sets of traces: how each is recognised, and what its rows mean.

A reader is a pure function from a row to what it holds. Columns are those of the sets' cards, as of November 2026.
Not taken over, though kept with the original row: tests of programs, a set's own verdicts and token counts.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from distill.errors import InputError, UsageError, near
from distill.prompts.foreign import (
    Exported,
    Imported,
    Item,
    Turns,
    UnreadableRow,
    at,
    blank,
    cell,
    conversation,
    listed,
    question_in,
    require_text,
)
from distill.prompts.rows import Row
from distill.records import Kind, Prompt, Sampling, Trace, Verdict
from distill.verify.math import last_boxed

R1, QWQ = "deepseek-ai/DeepSeek-R1", "Qwen/QwQ-32B"
R1_ADVICE = Sampling(temperature=0.6, top_p=0.95)
"""The sampling that R1's card recommends, with which OpenR1-Math was made (Hugging Face, Open R1 update #2)."""
NO_GOLD = ("proof", "notfound")
"""What NuminaMath 1.5, and OpenR1-Math after it, writes for an answer where a problem has none."""
MATH_SOURCES = ("openr1math", "numinamath", "metamathqa")
"""Beginnings of the names, in AM's set, of sources of mathematics whose reference answer can be compared."""
R1_SOURCES = ("am-0309", "openr1math", "openthoughts", "dolphin-r1")
"""Beginnings of the names, in AM's set, of replies known to be R1's; other replies come from sets of many teachers."""
MODELS = {"DeepSeek-R1": R1, "QwQ-32B": QWQ}
TASK_WORDS = re.compile(
    r"Return your final response within \\boxed\{\}\. ?|Generate an executable Python function generated from the "
    r"given prompt\. (?:The function should take stdin as input and print the output\. Simply call the function after "
    r"the definition\.|Return the function body without invoking it at the final solution\.) ?"
)
"""What OpenThoughts-114k and Bespoke-Stratos put in front of a question (open_thoughts/prompt.py)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A form of rows. `columns` have to be there, and some row among the first has to pass `probe`."""

    name: str
    columns: tuple[str, ...]
    read: Callable[[Row], Iterator[Item]]
    probe: Callable[[Row], bool] = lambda row: True

    def fits(self, first: Sequence[Row]) -> bool:
        return any(all(name in row for name in self.columns) and self.probe(row) for row in first)


def items(layout: Layout, row: Row) -> list[Item]:
    """Every trace of a row, and an UnreadableRow in place of each that cannot be taken over."""
    found: list[Item] = []
    try:
        for item in layout.read(row):
            if isinstance(item, Imported):
                require_text(item.prompt.question, item.prompt.answer, item.raw, item.raw_reasoning)
            found.append(item)
    except UnreadableRow as error:
        found.append(error)
    except InputError as error:
        found.append(UnreadableRow("bad_record", error.what))
    return found


def detect(first: Sequence[Row], place: str, asked: str | None = None) -> Layout:
    """The layout of a file's first rows: the one asked for, else the most special that fits.

    Layouts that share their columns are told apart by the file's address. Raises InputError naming the columns.
    """
    columns = ", ".join(dict.fromkeys(name for row in first for name in row)) or "none"
    if asked is not None:
        chosen = named(asked)
        if not chosen.fits(first):
            what = f"{place} is not of the layout {asked}, which has the columns {', '.join(chosen.columns)}"
            raise InputError(what, given=f"columns {columns}", todo=f"leave --layout out, or use one of {_names()}")
        return chosen
    fitting = [layout for layout in LAYOUTS if layout.fits(first)]
    if not fitting:
        raise InputError(
            f"{place}: no known layout has these columns",
            given=f"columns {columns}",
            todo=f"known layouts: {_names()}; bring the rows into one, such as `messages`, and import them again",
        )
    twins = [layout for layout in fitting if layout.columns == fitting[0].columns and layout.probe is fitting[0].probe]
    told = [layout for layout in twins if _letters(layout.name) in _letters(place)]
    if len(twins) > 1 and len(told) != 1:
        raise InputError(
            f"{place} may be of the layout {' or '.join(layout.name for layout in twins)}: their columns are the same",
            given=f"columns {columns}",
            todo=f"say which: --layout {twins[0].name}",
        )
    return told[0] if len(twins) > 1 else fitting[0]


def named(name: str) -> Layout:
    known = {layout.name: layout for layout in LAYOUTS}
    if name not in known:
        raise UsageError(f"unknown layout '{name}'{near(name, list(known))}", todo=f"one of: {_names()}")
    return known[name]


def _names() -> str:
    return ", ".join(layout.name for layout in LAYOUTS)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


# --- readers -------------------------------------------------------------------------------------------------------


def _openr1(row: Row) -> Iterator[Item]:
    """Generations in a list, flags in parallel ones, each of which may be null or shorter."""
    answer = cell(row.get("answer"))
    prompt = _prompt(
        question_in(row, "problem"),
        gold=None if answer is not None and answer.lower() in NO_GOLD else answer,
        domain="math",
        source="openr1-math",
        license="apache-2.0",
    )
    generations = listed(row.get("generations"))
    if not generations:  # rows of derived sets keep the chosen generation alone
        generations = [conversation(row.get("messages")).raw]
    ends, complete = listed(row.get("finish_reasons")), listed(row.get("is_reasoning_complete"))
    for place, raw in enumerate(generations):
        if not isinstance(raw, str) or blank(raw):
            yield UnreadableRow("no_reply", f"generation {place} is empty")
            continue
        end = at(ends, place)
        cut = end == "length" or at(complete, place) is False
        known = "length" if cut else "stop" if end == "stop" else None
        yield Imported(prompt, raw, teacher=R1, sampling=R1_ADVICE, finish_reason=known)


def _sky(source: str) -> Callable[[Row], Iterator[Item]]:
    """Reads the form of Sky-T1, with `system` beside the conversation and words about the task before the question."""

    def read(row: Row) -> Iterator[Item]:
        turns = conversation(row["conversations"], row.get("system"))
        words = TASK_WORDS.match(turns.question)
        domain = None if words is None else "math" if words[0].startswith("Return") else "code"
        question = turns.question[words.end() :] if words else turns.question
        yield _trace(turns, _prompt(question, domain=domain, source=source, license="apache-2.0"), R1)

    return read


def _sky_text(row: Row) -> bool:
    return "<|begin_of_thought|>" in str(row.get("conversations"))


def _openthoughts_metadata(row: Row) -> Iterator[Item]:
    """Reasoning and reply in columns of their own; the gold answer is boxed in the known solution."""
    domain, starter = cell(row.get("domain")), cell(row.get("starter_code"))
    question = question_in(row, "problem") + (f"\n{starter}" if starter else "")
    solution = row.get("ground_truth_solution")
    boxed = last_boxed(solution) if domain == "math" and isinstance(solution, str) else None
    prompt = _prompt(question, gold=cell(boxed), domain=domain, source="openthoughts-114k", license="apache-2.0")
    thought, reply = row.get("deepseek_reasoning"), row.get("deepseek_solution")
    if not isinstance(reply, str) or (blank(reply) and blank(thought)):
        raise UnreadableRow("no_reply", "the column 'deepseek_solution' is empty")
    yield Imported(prompt, reply, thought if isinstance(thought, str) else None, teacher=R1)


def _openthoughts2(row: Row) -> Iterator[Item]:
    turns = conversation(row["conversations"], row.get("system"))
    yield _trace(turns, _prompt(turns.question, source="openthoughts2-1m", license="apache-2.0"), R1)


def _openthoughts3(row: Row) -> Iterator[Item]:
    """Sixteen answers to a question are sixteen rows; there is no gold answer anywhere."""
    turns = conversation(row["conversations"])
    facts = {"domain": cell(row.get("domain")), "difficulty": cell(row.get("difficulty"))}
    yield _trace(turns, _prompt(turns.question, source="openthoughts3-1.2m", license="apache-2.0", **facts), QWQ)


def _mixture_of_thoughts(row: Row) -> Iterator[Item]:
    """No licence is stated, and the domain is that of the set which a row comes from."""
    turns = conversation(row["messages"])
    origin = str(row.get("source") or "").lower()
    parents = {"math": "math", "codeforces": "code", "nemotron": "science", "science": "science"}
    domain = next((domain for name, domain in parents.items() if name in origin), None)
    yield _trace(turns, _prompt(turns.question, domain=domain, source="mixture-of-thoughts"), R1)


def _am(row: Row) -> Iterator[Item]:
    """Facts stand in `info` of either message: the reference answer, and whose reply it is."""
    turns = conversation(_with_contents(row["messages"]))
    asked, said = _info(turns.asking), _info(turns.replying)
    answer, origin = cell(asked.get("reference_answer")), _letters_of_source(asked)
    maths = origin.startswith(MATH_SOURCES)
    source = "am-deepseek-r1-distilled"
    prompt = _prompt(
        turns.question, gold=answer, domain="math" if maths else None, source=source, license="cc-by-nc-4.0"
    )
    yield _trace(turns, prompt, R1 if _letters_of_source(said).startswith(R1_SOURCES) else None)


def _with_contents(messages: Any) -> Any:
    """Messages whose text stands only in `info`, as reasoning and reply."""
    turns = []
    for turn in listed(messages) or []:
        info = _info(turn) if isinstance(turn, Mapping) else {}
        if isinstance(turn, Mapping) and turn.get("content") is None and info.get("answer_content") is not None:
            turn = {**turn, "content": info["answer_content"], "reasoning_content": info.get("think_content")}
        turns.append(turn)
    return turns


def _info(turn: Row) -> Mapping[str, Any]:
    info = turn.get("info")
    return info if isinstance(info, Mapping) else {}


def _letters_of_source(info: Mapping[str, Any]) -> str:
    return re.sub(r"\s+", "", (cell(info.get("source")) or "").lower())


def _am_info(row: Row) -> bool:
    return any(isinstance(turn, Mapping) and "info" in turn for turn in listed(row.get("messages")) or [])


def _openmathreasoning(row: Row) -> Iterator[Item]:
    """An answer that the majority of solutions voted for, or that a proof was turned into, is no gold answer."""
    mode, raw = cell(row.get("inference_mode")), row.get("generated_solution")
    if mode == "genselect":
        raise UnreadableRow("genselect", "the problem is a choice between solutions, not a question")
    if not isinstance(raw, str) or cell(raw) is None:
        raise UnreadableRow("no_trace", "a problem without a solution by any teacher")
    extracted = row.get("problem_type") == "has_answer_extracted"
    prompt = _prompt(
        question_in(row, "problem"),
        gold=cell(row.get("expected_answer")) if extracted else None,
        domain="math",
        source="openmathreasoning",
        license="cc-by-4.0",
        difficulty=cell(row.get("pass_rate_72b_tir")),
    )
    model = cell(row.get("generation_model"))
    tools = mode == "tir" or "<tool_call>" in raw
    yield Imported(prompt, raw, teacher=MODELS.get(model, model) if model else None, tools=tools)


def _plain_form(*columns: str) -> Callable[[Row], Iterator[Item]]:
    """Reads conversations of unknown origin; columns that are named like a prompt's fields are taken for those."""

    def read(row: Row) -> Iterator[Item]:
        turns = conversation(next(row[name] for name in columns if name in row), row.get("system"))
        names = ("domain", "source", "license", "language", "difficulty")
        facts = {name: value for name in names if (value := cell(row.get(name))) is not None}
        kind = row["kind"] if row.get("kind") in get_args(Kind) else None
        prompt = _prompt(turns.question, gold=cell(row.get("answer")), kind=kind, reasoning="optional", **facts)
        yield _trace(turns, prompt, cell(row.get("model")) or cell(row.get("teacher")))

    return read


def _exported(row: Row) -> Iterator[Item]:
    """Rows of `distill export --format jsonl`: the records as they are."""
    if not isinstance(row["prompt"], Mapping) or not isinstance(row["trace"], Mapping):
        raise UnreadableRow("bad_record", "prompt and trace have to be objects")
    verdicts = (Verdict.from_json(verdict) for verdict in row.get("verdicts") or ())
    yield Exported(Prompt.from_json(row["prompt"]), Trace.from_json(row["trace"]), tuple(verdicts))


def _prompt(question: str, *, gold: str | None = None, domain: str | None = None, **facts: Any) -> Prompt:
    """Of kind math where there is a gold answer to a question of mathematics, open otherwise."""
    kind = facts.pop("kind", None) or ("math" if gold is not None and domain == "math" else "open")
    if kind in ("math", "numeric") and gold is None:
        kind = "open"
    return Prompt(question, kind=kind, answer=gold, domain=domain, **facts)


def _trace(turns: Turns, prompt: Prompt, teacher: str | None) -> Imported:
    return Imported(prompt, turns.raw, turns.raw_reasoning, turns.system, teacher)


LAYOUTS: tuple[Layout, ...] = (
    Layout("distill", ("prompt", "trace"), _exported),
    Layout("openr1-math", ("problem", "generations"), _openr1),
    Layout(
        "openthoughts-114k-metadata", ("problem", "deepseek_reasoning", "deepseek_solution"), _openthoughts_metadata
    ),
    Layout("openmathreasoning", ("problem", "generated_solution"), _openmathreasoning),
    Layout("openthoughts-114k", ("system", "conversations"), _sky("openthoughts-114k"), _sky_text),
    Layout("bespoke-stratos", ("system", "conversations"), _sky("bespoke-stratos-17k"), _sky_text),
    Layout("openthoughts3", ("conversations", "difficulty", "domain"), _openthoughts3),
    Layout("openthoughts2", ("conversations", "question", "source", "id"), _openthoughts2),
    Layout("mixture-of-thoughts", ("messages", "num_tokens", "source"), _mixture_of_thoughts),
    Layout("am-deepseek-r1-distilled", ("messages",), _am, _am_info),
    Layout("messages", ("messages",), _plain_form("messages")),
    Layout("sharegpt", ("conversations",), _plain_form("conversations")),
)
"""From the most special to the plainest."""


def first_rows(rows: Iterable[tuple[int, Row]], count: int = 20) -> tuple[list[Row], Iterator[tuple[int, Row]]]:
    """The first rows to recognise a layout by, and all rows again from the first."""
    rows = iter(rows)
    head = list(itertools.islice(rows, count))
    return [row for _, row in head], itertools.chain(head, rows)
