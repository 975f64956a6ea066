"""Is a trace neither too short nor too long for the student? Tokens are counted with the student's tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from distill.errors import RunError, SpecError
from distill.filter_specs import LengthSettings
from distill.records import Prompt, Trace
from distill.verify import Outcome, abstaining

if TYPE_CHECKING:
    from distill.specs import Recipe

TOKENIZER = "tokenizer.json"


def length(prompt: Prompt, trace: Trace, settings: LengthSettings, tokens: int | None) -> Outcome:
    """`too_short`, `too_long`, or `unknown_length` where nobody counted. `tokens`: of the canonical text of the reply,
    in the student's vocabulary (`trace.completion_tokens` are the teacher's). The score is that number."""
    if tokens is None:
        return abstaining("unknown_length")
    if settings.min_tokens is not None and tokens < settings.min_tokens:
        return Outcome("fail", "too_short", float(tokens))
    if settings.max_tokens is not None and tokens > settings.max_tokens:
        return Outcome("fail", "too_long", float(tokens))
    return Outcome("pass", "", float(tokens))


def tokenizer_file(recipe: Recipe) -> str:
    """The student's tokenizer.json. Raises SpecError when the recipe names no student, RunError when its tokenizer is
    not on this machine."""
    from distill import specs  # which those who only count do not need

    if not recipe.student:
        raise SpecError(
            "filter.length counts the student's tokens, and the recipe names no student", todo="set student"
        )
    spec = specs.student(recipe.student, recipe.student_overrides)
    folder = Path(spec.tokenizer or spec.base or "")
    if not (folder / TOKENIZER).is_file():
        raise RunError(
            f"filter.length counts the student's tokens, and its {TOKENIZER} is not here",
            given=str(folder),
            todo="download the student's base into a folder and set student_overrides.base to it, or leave length out",
        )
    return str((folder / TOKENIZER).resolve())


def counter(file: str) -> Callable[[str], int]:
    """Counts the tokens of a text, special tokens that a tokenizer would add left out."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(file)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
