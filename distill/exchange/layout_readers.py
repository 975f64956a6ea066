"""What the rows of each published set of traces mean: one reader per layout, a pure function from a row to its traces.

Columns are those of the sets' cards, as of November 2026. Not taken over, though kept with the original row: tests of
programs, a set's own verdicts and token counts. Knows nothing about how a layout is recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distill.exchange.foreign import (
    Ended,
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
)
from distill.prompts.rows import Row
from distill.records import Kind, Prompt, Sampling, Trace, Verdict
from distill.verify.stated import last_boxed

R1, QWQ = "deepseek-ai/DeepSeek-R1", "Qwen/QwQ-32B"
R1_ADVICE = Sampling(temperature=0.6, top_p=0.95)
"""The sampling that R1's card recommends, with which OpenR1-Math was made (Hugging Face, Open R1 update #2)."""
NO_GOLD = ("proof", "notfound")
"""What NuminaMath 1.5, and OpenR1-Math after it, writes for an answer where a problem has none."""
MATH_SOURCES = ("openr1math", "numinamath", "metamathqa")
"""Beginnings of the names, in AM's set, of sources of mathematics whose reference answer can be compared."""
R1_SOURCES = ("am-0309", "openr1math", "openthoughts", "dolphin-r1")
"""Beginnings of the names, in AM's set, of replies known to be R1's; other replies come from sets of many teachers."""
JUDGED_ALONE: tuple[Kind, ...] = ("math", "numeric", "exact", "open")
"""Kinds of prompt that need nothing beside a gold answer."""
MODELS = {"DeepSeek-R1": R1, "QwQ-32B": QWQ}
TASK_WORDS = re.compile(
    r"Return your final response within \\boxed\{\}\. ?|Generate an executable Python function generated from the "
    r"given prompt\. (?:The function should take stdin as input and print the output\. Simply call the function after "
    r"the definition\.|Return the function body without invoking it at the final solution\.) ?"
)
"""What OpenThoughts-114k and Bespoke-Stratos put in front of a question (open_thoughts/prompt.py)."""


def openr1(row: Row) -> Iterator[Item]:
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
    if not generations and row.get("messages") is None:
        raise UnreadableRow("no_reply", "there is no generation")
    if not generations:  # rows of derived sets keep the chosen one alone
        generations = [conversation(row["messages"]).raw]
    ends, complete = listed(row.get("finish_reasons")), listed(row.get("is_reasoning_complete"))
    for place, raw in enumerate(generations):
        if not isinstance(raw, str) or blank(raw):
            yield UnreadableRow("no_reply", f"generation {place} is empty")
            continue
        end = at(ends, place)
        known: Ended = "stop" if end == "stop" else None
        if end == "length" or at(complete, place) is False:
            known = "length"
        yield Imported(prompt, raw, teacher=R1, sampling=R1_ADVICE, finish_reason=known)


def sky(source: str) -> Callable[[Row], Iterator[Item]]:
    """Reads the form of Sky-T1, with `system` beside the conversation and words about the task before the question."""

    def read(row: Row) -> Iterator[Item]:
        turns = conversation(row.get("conversations"), row.get("system"))
        words = TASK_WORDS.match(turns.question)
        domain = None if words is None else "math" if words[0].startswith("Return") else "code"
        question = turns.question[words.end() :] if words else turns.question
        yield _trace(turns, _prompt(question, domain=domain, source=source, license="apache-2.0"), R1)

    return read


def sky_text(row: Row) -> bool:
    return "<|begin_of_thought|>" in str(row.get("conversations"))


def openthoughts_metadata(row: Row) -> Iterator[Item]:
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


def openthoughts2(row: Row) -> Iterator[Item]:
    turns = conversation(row.get("conversations"), row.get("system"))
    yield _trace(turns, _prompt(turns.question, source="openthoughts2-1m", license="apache-2.0"), R1)


def openthoughts3(row: Row) -> Iterator[Item]:
    """Sixteen answers to a question are sixteen rows; there is no gold answer anywhere."""
    turns = conversation(row.get("conversations"))
    facts = {"domain": cell(row.get("domain")), "difficulty": cell(row.get("difficulty"))}
    yield _trace(turns, _prompt(turns.question, source="openthoughts3-1.2m", license="apache-2.0", **facts), QWQ)


def mixture_of_thoughts(row: Row) -> Iterator[Item]:
    """No licence is stated, and the domain is that of the set which a row comes from."""
    turns = conversation(row.get("messages"))
    origin = str(row.get("source") or "").lower()
    parents = {"math": "math", "codeforces": "code", "nemotron": "science", "science": "science"}
    domain = next((domain for name, domain in parents.items() if name in origin), None)
    yield _trace(turns, _prompt(turns.question, domain=domain, source="mixture-of-thoughts"), R1)


def am(row: Row) -> Iterator[Item]:
    """Facts stand in `info` of either message: the reference answer, and whose reply it is."""
    turns = conversation(_with_contents(row.get("messages")))
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


def am_info(row: Row) -> bool:
    return any(isinstance(turn, Mapping) and "info" in turn for turn in listed(row.get("messages")) or [])


def openmathreasoning(row: Row) -> Iterator[Item]:
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


def plain_form(column: str) -> Callable[[Row], Iterator[Item]]:
    """Reads conversations of unknown origin; columns that are named like a prompt's fields are taken for those."""

    def read(row: Row) -> Iterator[Item]:
        turns = conversation(row.get(column), row.get("system"))
        names = ("domain", "source", "license", "language", "difficulty")
        facts = {name: value for name in names if (value := cell(row.get(name))) is not None}
        kind = row["kind"] if row.get("kind") in JUDGED_ALONE else None
        prompt = _prompt(turns.question, gold=cell(row.get("answer")), kind=kind, reasoning="optional", **facts)
        yield _trace(turns, prompt, cell(row.get("model")) or cell(row.get("teacher")))

    return read


def exported(row: Row) -> Iterator[Item]:
    """Rows of `distill export --format jsonl`: the records as they are. Either may be null, not both."""
    prompt, trace = row.get("prompt"), row.get("trace")
    if not all(value is None or isinstance(value, Mapping) for value in (prompt, trace)) or (prompt or trace) is None:
        raise UnreadableRow("bad_record", "prompt and trace have to be objects")
    verdicts = (Verdict.from_json(verdict) for verdict in row.get("verdicts") or ())
    yield Exported(
        None if prompt is None else Prompt.from_json(prompt),
        None if trace is None else Trace.from_json(trace),
        tuple(verdicts),
    )


def _prompt(question: str, *, gold: str | None = None, domain: str | None = None, **facts: Any) -> Prompt:
    """Of kind math where there is a gold answer to a question of mathematics, open otherwise."""
    kind: Kind = facts.pop("kind", None) or ("math" if gold is not None and domain == "math" else "open")
    if kind in ("math", "numeric") and gold is None:
        kind = "open"
    return Prompt(question, kind=kind, answer=gold, domain=domain, **facts)


def _trace(turns: Turns, prompt: Prompt, teacher: str | None) -> Imported:
    return Imported(prompt, turns.raw, turns.raw_reasoning, turns.system, teacher)
