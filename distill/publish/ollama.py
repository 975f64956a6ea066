"""The two files by which Ollama talks to a GGUF file of the Hub as the student was trained: `template` and `params`.

Without them it guesses the template from a list of known ones, which a student's own is not on, and samples its own way
(https://huggingface.co/docs/hub/ollama). Go's own text/template renders them in a test; no Ollama has run them here.
"""

from __future__ import annotations

import json

from distill.contract import TEMPLATES, Contract


def template(contract: Contract) -> str:
    """The chat template in Go's language. The BOS token is left to llama.cpp, which adds it by the file's metadata."""
    form = TEMPLATES[contract.template]
    turn_of_user = f"{form.user}{{{{ .Content }}}}{form.close}"
    turn_of_assistant = f"{form.assistant}{{{{ .Content }}}}{form.stop}{form.after}"
    return (
        f"{{{{ if .System }}}}{form.system}{{{{ .System }}}}{form.close}{{{{ end }}}}"
        "{{ range .Messages }}"
        f'{{{{ if eq .Role "user" }}}}{turn_of_user}'
        f'{{{{ else if eq .Role "assistant" }}}}{turn_of_assistant}'
        "{{ end }}{{ end }}"
        f"{form.assistant}{contract.forced_prefix}"
    )


def params(contract: Contract, temperature: float, top_p: float) -> str:
    """R1's sampling and the stop token, as Ollama's parameters."""
    values = {"temperature": temperature, "top_p": top_p, "stop": [contract.stop]}
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"
