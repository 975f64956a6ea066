"""contract.served against the parser of vLLM itself, which runs in its own environment: they agree on every text."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator

import pytest
from conftest import TOKENIZER
from vllm_server import PYTHON_VARIABLE, environment, vllm_python

from distill.contract import CLOSE, OPEN, Response, Served, parse_reply, served

TEXTS = 600
PIECES = (
    *(OPEN, CLOSE) * 6,
    *("<think", "/think>", "< think>", "<THINK>", "<｜end▁of▁sentence｜>", "<answer>", "</answer>"),
    *("", " ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", "\ufeff", "\x00"),
    *("so 1 + 1 = 2", "\\boxed{72}", "思考", "é", "e\u0301", "🧮", "{'a': 1}", "%s", "\\n"),
)
"""What texts are put together from, the tags more often than the rest."""
REAL = """
import json, sys
from transformers import AutoTokenizer
from vllm.reasoning import ReasoningParserManager
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

parser = ReasoningParserManager.get_reasoning_parser("deepseek_r1")(AutoTokenizer.from_pretrained(sys.argv[1]))
request = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "q"}])
found = [parser.extract_reasoning(text, request) for text in json.load(sys.stdin)]
print("\\nFOUND " + json.dumps(found))
"""


def texts() -> Iterator[str]:
    """Whole replies and their beginnings, then pieces in any order; the same each time."""
    for response in (Response("because", "3"), Response(None, "3"), Response("思考\n\n🧮", "e\u0301")):
        for empty_pair in (False, True):
            whole = response.render(empty_pair=empty_pair)
            yield from (whole, whole.removeprefix(OPEN), whole.removeprefix(f"{OPEN}\n"), "Well.\n" + whole, whole * 2)
            yield from (whole[:length] for length in range(0, len(whole), 3))
    rng = random.Random(32)
    for _ in range(TEXTS):
        yield "".join(rng.choices(PIECES, k=rng.randrange(9)))


@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.skipif(vllm_python() is None, reason=f"no vLLM: {PYTHON_VARIABLE} is not set, .venv-vllm is not there")
def test_our_mirror_of_the_parser_agrees_with_vllm_on_every_text() -> None:
    asked = list(texts())
    done = subprocess.run(
        [str(vllm_python()), "-c", REAL, str(TOKENIZER)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env=environment(None),
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found = [Served(*pair) for pair in json.loads(done.stdout.rpartition("\nFOUND ")[2])]
    assert len(found) == len(asked) > 500
    assert len(set(found)) > 300, "the texts differ enough to tell parsers apart"
    wrong = [(text, real, served(text)) for text, real in zip(asked, found, strict=True) if served(text) != real]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>\nr\n</think>\n\na", "\nr\n", "\n\na"),
        ("r\n</think>\n\na", "r\n", "\n\na"),
        ("dropped <think>r</think>a", "r", "a"),
        ("r</think>a</think>b", "r", "a</think>b"),
        ("<think>r<think>s</think>a", "r<think>s", "a"),
        ("a</think><think>r", "r", None),
        ("an answer without tags", "an answer without tags", None),
        ("<think>cut", "cut", None),
        ("r</think>", "r", None),
        ("r</think>\n", "r", "\n"),
        ("", "", None),
    ],
)
def test_what_a_server_with_the_parser_answers(text: str, reasoning: str, content: str | None) -> None:
    assert served(text) == Served(reasoning, content)
    assert served(text, parser=False) == Served(None, text), "and without it"


def test_what_a_student_writes_arrives_as_it_was_taught_with_and_without_the_opening_tag_in_the_prompt() -> None:
    whole = Response("because", "3").render()
    for prefix in ("", f"{OPEN}\n"):
        sent = served(whole.removeprefix(prefix))
        assert sent.content is not None
        assert parse_reply(sent.content, sent.reasoning, "field", forced_prefix=prefix).response == Response(
            "because", "3"
        )
        plain = served(whole.removeprefix(prefix), parser=False)
        assert plain.content is not None
        assert parse_reply(plain.content, None, "tags", forced_prefix=prefix).response == Response("because", "3")
