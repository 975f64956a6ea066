"""What a check saw, in a line for a person who looks at a rejected trace: `distill show RUN --rejected`.

Works it out anew from the trace, since a verdict holds a reason and a number only. Secrets are named, never shown.
"""

from __future__ import annotations

from distill.filter import language, loops, secrets
from distill.filter_specs import LanguageSettings, LoopSettings, SecretSettings
from distill.prompts.language import without_formulas
from distill.records import Prompt, Trace
from distill.strict import Strict


def evidence(prompt: Prompt, trace: Trace, settings: Strict) -> str | None:
    """Where the check with these settings found something: the part, the rule and the beginning of the piece. None for
    a check whose reason says all, and where nothing is found."""
    for name, text in (("reasoning", trace.reasoning), ("answer", trace.answer)):
        found = _in_part(prompt, text, settings) if text else None
        if found is not None:
            return f"{name}: {found}"
    return None


def _in_part(prompt: Prompt, text: str, settings: Strict) -> str | None:
    if isinstance(settings, LoopSettings):
        loop = loops.find_loop(text, settings)
        return f"{loop.rule}, {loop.times:g} times: {loop.excerpt!r}" if loop else None
    if isinstance(settings, LanguageSettings):
        expected = language.expected_of(prompt.question, prompt.language)
        found = language.foreign(without_formulas(text), expected)
        return f"{found.share:.0%} foreign: {found.excerpt!r}" if found.words else None
    if isinstance(settings, SecretSettings):
        names = [item.name for item in (*secrets.find_secrets(text), *secrets.find_personal(text))]
        return ", ".join(dict.fromkeys(names)) or None
    return None
