"""Ollama's template says what the student was trained on: rendered by Go's text/template, beside the chat template."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from jinja2 import Environment

from distill.contract import TEMPLATES
from distill.publish.ollama import params, template

GO = """
package main

import ("encoding/json"; "os"; "text/template")

type Message struct{ Role, Content string }
type Asked struct{ Template string; System string; Messages []Message }

func main() {
	var asked []Asked
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil { panic(err) }
	var said []string
	for _, one := range asked {
		var text = new(Text)
		if err := template.Must(template.New("x").Parse(one.Template)).Execute(text, one); err != nil { panic(err) }
		said = append(said, text.String())
	}
	json.NewEncoder(os.Stdout).Encode(said)
}

type Text struct{ bytes []byte }
func (t *Text) Write(p []byte) (int, error) { t.bytes = append(t.bytes, p...); return len(p), nil }
func (t *Text) String() string { return string(t.bytes) }
"""
TALKS = [
    [("user", " What is 17 + 25?\n")],
    [("system", "Be brief."), ("user", "Hi")],
    [("user", "a"), ("assistant", "\n<think>\nb\n</think>\n\nc "), ("user", "d\n\n")],
]


class Contract:
    """What a template is made of."""

    def __init__(self, name: str, forced_prefix: str) -> None:
        self.template, self.forced_prefix, self.stop = name, forced_prefix, TEMPLATES[name].stop


CONTRACTS = [Contract(name, prefix) for name in TEMPLATES for prefix in ("", "<think>\n")]


def asked(contract: Contract, talk: list[tuple[str, str]]) -> dict[str, object]:
    """As Ollama gives it to a template: all messages, and the system's text by itself besides."""
    system = next((text for role, text in talk if role == "system"), "")
    messages = [{"Role": role, "Content": text} for role, text in talk]
    return {"Template": template(contract), "System": system, "Messages": messages}  # type: ignore[arg-type]


def trained_on(contract: Contract, talk: list[tuple[str, str]]) -> str:
    """By the student's chat template, without the BOS token, which llama.cpp adds."""
    form = TEMPLATES[contract.template]
    source = Environment(autoescape=False).from_string(form.jinja(contract.forced_prefix))
    messages = [{"role": role, "content": text} for role, text in talk]
    return source.render(messages=messages, add_generation_prompt=True).removeprefix(form.bos)


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go here")
@pytest.mark.timeout(300)
def test_go_renders_what_the_chat_template_renders(tmp_path: Path) -> None:
    (tmp_path / "main.go").write_text(GO)
    cases = [(contract, talk) for contract in CONTRACTS for talk in TALKS]
    given = json.dumps([asked(*case) for case in cases])
    run = ["go", "run", str(tmp_path / "main.go")]
    ended = subprocess.run(run, input=given, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for case, said in zip(cases, json.loads(ended.stdout), strict=True):
        assert said == trained_on(*case)


@pytest.mark.parametrize(
    "contract", CONTRACTS, ids=lambda contract: f"{contract.template}{len(contract.forced_prefix)}"
)
def test_nothing_trims_a_template(contract: Contract) -> None:
    """A dash beside braces takes away the newlines that a turn ends with; Go is not everywhere to show it."""
    assert not re.search(r"\{\{-|-\}\}", template(contract))  # type: ignore[arg-type]
    told = json.loads(params(contract, 0.6, 0.95))  # type: ignore[arg-type]
    assert told == {"temperature": 0.6, "top_p": 0.95, "stop": [contract.stop]}
