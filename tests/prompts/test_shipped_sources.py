"""Every shipped spec of a published dataset reads rows of its layout, as its card describes them, from a copy."""

from __future__ import annotations

import base64
import json
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from distill import specs
from distill.prompts.sources import sourced
from distill.records import Prompt
from distill.source_specs import PrepareSettings, PromptsPart, SourceSpec

IO = json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]})
CALL = json.dumps({"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]})
CASES = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
HIDDEN = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(CASES)))).decode()
NUMINA = {
    "problem": "What is $1+1$?", "solution": "Two.", "answer": "2", "problem_type": "Algebra",
    "question_type": "math-word-problem", "problem_is_valid": "Yes", "solution_is_valid": "Yes", "source": "amc",
    "synthetic": False,
}  # fmt: skip
MATH = {"problem": "Find $x$.", "level": "Level 5", "type": "Algebra", "solution": "So $\\boxed{\\frac12}$."}
SOLVED = "print(sum(map(int, input().split())))"
CONTEST = {
    "name": "1_A. Sum", "description": "Add two numbers.", "difficulty": 7, "input_file": "", "output_file": "",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]}, "private_tests": {"input": [], "output": []},
    "generated_tests": {"input": ["2 2\n"], "output": ["4\n"]},
    "solutions": {"language": [1, 2, 3], "solution": ["print 3", "int main(){}", SOLVED]},
}  # fmt: skip
TACO = {
    "question": "Add.", "starter_code": "", "input_output": IO, "difficulty": "EASY", "solutions": '["print(3)"]',
    "name": "sum", "source": "codeforces", "tags": "[]", "url": "https://example.org/1",
}  # fmt: skip
LIVE = {
    "question_title": "Sum", "question_content": "Add.", "platform": "leetcode", "question_id": "abc", "starter_code":
    "class Solution:", "difficulty": "easy", "public_test_cases": json.dumps(CASES), "private_test_cases": HIDDEN,
    "metadata": "{}", "contest_date": "2024-10-01T00:00:00",
}  # fmt: skip
ROBOT = {
    "prompt": "Write.",
    "prompt_id": "p1",
    "messages": [{"role": "user", "content": "Write."}],
    "category": "Rewrite",
}
ROOT = {
    "message_id": "m1", "parent_id": None, "text": "¿Qué es esto?", "role": "prompter", "lang": "es", "deleted": False,
}  # fmt: skip
GPQA = {"Question": "Which?", "Correct Answer": "this", **{f"Incorrect Answer {n}": f"that {n}" for n in (1, 2, 3)}}
KNIGHTS = {"quiz": "Two people…", "names": ["A", "B"], "solution": [True, False], "solution_text": "A is a knight.",
           "index": 1}  # fmt: skip
PAIR = {"translation": {"en": "Good day.", "zh": "你好。"}}
WEB = {"id": 1, "question": "How fast?", "answer": "3 m/s", "answer_type": "Float", "category": "Physics",
       "difficulty": "University"}  # fmt: skip

ROWS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "gsm8k": ([{"question": "q", "answer": "1+1\n#### 1,234"}], {"answer": "1,234"}),
    "numinamath-1.5": (
        [{**NUMINA, "problem_is_valid": "Incomplete"}, {**NUMINA, "synthetic": True}, NUMINA],
        {"answer": "2", "solution": None, "source": "numinamath-1.5", "kind": "math"},
    ),
    "openr1-math": (
        [{**NUMINA, "uuid": "u1", "generations": ["<think>"], "correctness_llama": None}],
        {"id": "openr1-math:train/u1", "answer": "2"},
    ),
    "math": ([MATH], {"answer": "\\frac12", "difficulty": "Level 5", "solution": None}),
    "code-contests": (
        [{**CONTEST, "input_file": "input.txt"}, CONTEST],
        {"kind": "code", "difficulty": "7", "solution": SOLVED},
    ),
    "taco": ([TACO], {"question": "Add.", "difficulty": "EASY", "solution": "print(3)", "source": "taco"}),
    "apps": (
        [
            {
                "id": 5,
                "question": "Add.",
                "starter_code": "def add(a, b):",
                "input_output": CALL,
                "solutions": "",
                "difficulty": "interview",
                "url": "u",
            }
        ],
        {"id": "apps:train/5", "question": "Add.\n\ndef add(a, b):", "solution": None},
    ),
    "livecodebench": ([LIVE], {"id": "livecodebench:test/abc", "question": "Add.\n\nclass Solution:"}),
    "webinstruct-verified": (
        [{**WEB, "category": "Economics"}, {**WEB, "answer_type": "Multiple Choice"}, WEB],
        {"id": "webinstruct-verified:train/1", "answer": "3 m/s", "domain": "stem"},
    ),
    "arc-challenge": (
        [{"id": "x", "question": "q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}],
        {"choices": ("a", "b"), "answer": "B", "kind": "choice"},
    ),
    "sciq": (
        [
            {
                "question": "q",
                "correct_answer": "r",
                "distractor1": "a",
                "distractor2": "b",
                "distractor3": "c",
                "support": "long",
            }
        ],
        {"kind": "choice"},
    ),
    "knights-and-knaves": ([KNIGHTS], {"question": "Two people…", "answer": "A is a knight.", "solution": None}),
    "logiqa-2": (
        [{"id": 1, "answer": 2, "text": "All…", "type": {"x": True}, "question": "Which?", "options": ["a", "b", "c"]}],
        {"question": "All…\n\nWhich?", "answer": "C", "choices": ("a", "b", "c")},
    ),
    "no-robots": (
        [{**ROBOT, "category": "Chat"}, {**ROBOT, "category": "Coding"}, ROBOT],
        {"id": "no-robots:train/p1", "question": "Write.", "kind": "open", "reasoning": "optional"},
    ),
    "dolly": (
        [{"instruction": "Sum up.", "context": "A text.", "response": "r", "category": "summarization"}],
        {"question": "Sum up.\n\nA text.", "answer": None},
    ),
    "oasst2": (
        [{**ROOT, "parent_id": "m0"}, {**ROOT, "deleted": True}, {**ROOT, "role": "assistant"}, ROOT],
        {"id": "oasst2:train/m1", "language": "es", "question": "¿Qué es esto?"},
    ),
    "self-cognition": ([{"query": "你是谁？", "response": "我是{{NAME}}", "tag": "zh"}], {"reasoning": "none"}),
    "trivia-qa": (
        [
            {
                "question": "Who?",
                "question_id": "t",
                "answer": {"value": "Ada", "aliases": ["A"]},
                "entity_pages": {"title": ["x"]},
            }
        ],
        {"answer": "Ada", "kind": "exact", "reasoning": "none"},
    ),
    "translation-en-zh": ([PAIR], {"question": "Translate into Chinese:\n\nGood day.", "language": "en"}),
    "translation-zh-en": ([PAIR], {"question": "把下面的句子翻译成英文：\n\n你好。", "language": "zh"}),
    "math-500": (
        [{**MATH, "answer": "1/2", "subject": "Algebra", "level": 5, "unique_id": "test/1.json"}],
        {"id": "math-500:test/test/1.json", "answer": "1/2", "difficulty": "5"},
    ),
    "aime-2024": (
        [{"id": 60, "problem": "p", "solution": "s", "answer": "204", "url": "u", "year": "2024"}],
        {"id": "aime-2024:test/60", "answer": "204"},
    ),
    "gpqa-diamond": ([GPQA], {"kind": "choice", "question": "Which?"}),
}


def published() -> list[str]:
    return [name for name in specs.names("data") if specs.source(name).dataset is not None]


def copy_of(spec: SourceSpec, split: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """The rows in a file that the spec's first pattern matches, or, without one, as the card of a dataset names it."""
    pattern = spec.files.get(split, (f"data/{split}-*.parquet",))[0]  # type: ignore[call-overload]
    path = folder / pattern.replace("*", "00000")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if not spec.files:
        files = [{"split": split, "path": f"data/{split}-*"}]
        card = {"configs": [{"config_name": spec.config or "default", "data_files": files}]}
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")


def test_every_published_source_is_here() -> None:
    assert set(published()) == set(ROWS)


@pytest.mark.parametrize("name", published())
def test_a_spec_reads_the_layout_of_its_dataset(name: str, tmp_path: Path) -> None:
    """The rows that it leaves out stand before the one that it reads: so nothing comes after that, and the number of
    rows, which is not that of the real set, is never looked at."""
    rows, expected = ROWS[name]
    spec = specs.source(name)
    split = "train" if "train" in (spec.files or {"train": ()}) else "test"
    copy_of(spec, split, rows, tmp_path / "copy")
    part = PromptsPart(source=name, split=split, path=str(tmp_path / "copy"), limit=1)  # type: ignore[arg-type]
    (item,) = sourced(part, 0)
    prompt = item.prompt
    assert {key: getattr(prompt, key) for key in expected} == expected
    assert (prompt.license, prompt.domain) == (spec.license, spec.domain)
    assert prompt.marks is None
    _right_choice(name, prompt)


def _right_choice(name: str, prompt: Prompt) -> None:
    if prompt.kind == "code":
        assert prompt.tests
        assert prompt.tests[0].input.split() in (["1", "2"], ["[1,", "2]"])
    if name in ("sciq", "gpqa-diamond"):
        assert prompt.choices is not None
        assert prompt.answer is not None
        assert prompt.choices["ABCD".index(prompt.answer)] in ("r", "this")


@pytest.mark.parametrize("name", published())
def test_a_published_source_is_pinned_counted_and_licensed(name: str) -> None:
    spec = specs.source(name)
    assert spec.name == name
    assert re.fullmatch("[0-9a-f]{40}", spec.revision or "")
    assert spec.source
    assert "huggingface.co/datasets/" in spec.source
    assert spec.license
    assert spec.expected_rows or name == "webinstruct-verified", "its number of rows could not be looked up"


def test_the_mixture_has_the_papers_counts() -> None:
    """arXiv 2501.12948v2, appendix B.3.3, table 5."""
    paper = {"math": 395_285, "code": 211_129, "stem": 10_124, "logic": 10_395, "general": 177_812}
    recipe = specs.recipe("deepseek-r1-mixture")
    assert {"no_gold", *PrepareSettings().drop} <= set(recipe.prepare.drop), "notfound would end the run behind 10 GB"
    sources = [specs.source(part.source) for part in recipe.prompts]
    found: dict[str, int] = dict.fromkeys(paper, 0)
    for rule in recipe.prepare.select:
        assert rule.count is not None
        domains = set(rule.domain) | {source.domain for source in sources if source.name in rule.source}
        (domain,) = domains
        found[str(domain)] += rule.count
    assert found == paper
    assert sum(found.values()) == 804_745
    evaluated = {(part.source, part.split) for part in recipe.prepare.decontaminate}
    assert {("math-500", "test"), ("aime-2024", "test"), ("livecodebench", "test")} <= evaluated
    assert not evaluated & {(part.source, part.split) for part in recipe.prompts}
    assert {source.reasoning for source in sources if source.domain == "general"} == {"none", "optional"}
