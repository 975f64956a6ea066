"""Marks on a prompt whose answer is hard to verify: what its question, gold answer, choices and tests tell by their
form alone. Pure, English and Chinese; whether a gold can be read is `gold.GoldReader`'s to say.

A mark errs on the side of silence: a good question that is left out is a loss as well.
"""

from __future__ import annotations

import re
from typing import Literal

from distill.prompts import parts
from distill.records import CodeTest, Prompt

Mark = Literal[
    "no_gold",
    "unparseable_gold",
    "no_tests",
    "bad_tests",
    "bad_choice",
    "proof",
    "multi_part",
    "figure",
    "guessable",
]
UNVERIFIABLE: tuple[Mark, ...] = (
    "no_gold",
    "no_tests",
    "proof",
    "bad_choice",
    "bad_tests",
    "unparseable_gold",
    "multi_part",
    "figure",
)
"""Marks of prompts on which no verdict can be trusted, the plainest cause first. A guessable one can be verified; its
verdict says little about the reasoning."""

_SENTINEL = re.compile(r"\s*(?:not ?found|n/a|nan|null|no answer|\?+|-+|—+)\s*", re.IGNORECASE)
"""What sources write where there is no answer; `notfound` is NuminaMath's."""

_SENTENCE = (
    r"(?:^|[.:;!?,)\]}$\n。，；：]\s*|\b(?:and|then|please|now|also|hence|to)\s+)(?:\(?(?:[a-z]|\d+|[ivx]+)[.)]\s*)?"
)
"""Where an instruction may begin: a sentence or clause, or after the label of a part."""
_ASKS_PROOF = re.compile(
    _SENTENCE.replace("|to)", ")") + r"(?:(?:dis)?prove\b(?! (?:him|her|it to|them|me|yourself)\b)"
    r"|(?:show|demonstrate|verify|establish|deduce)[\s,:]+"
    r"(?:(?:by|using|with|without|from|also|directly)\b[^.?]{0,60}?\s)?that\b)"
    r"|\b(?:give|write|provide|find|present|construct) (?:a|an|the|your) (?:[\w-]+ ){0,2}proof\b|\bwith proof\b",
    re.IGNORECASE,
)
_ASKS_PROOF_ZH = re.compile(r"求证|试证|(?<![份已以被可经能据的])证明(?![书信文件人了])")
_PROOF_ANSWER = re.compile(
    r"\s*(?:\\(?:text|mathrm)\{)?\s*(?:proof|(?:the )?proof (?:is )?(?:completed?|omitted)|proved|"
    r"proven|证明|证明略|略|见证明|\\?(?:blacksquare|square)|q\.?e\.?d\.?)\s*\}?\s*\.?\s*",
    re.IGNORECASE,
)

_SHAPE = (
    r"(?:triangles?|circles?|squares?|rectangles?|quadrilateral|parallelogram|trapezoid|rhombus|polygon|pentagon|"
    r"hexagon|octagon|grid|shapes?|region|cube|map|spinner|solid|number line|graphs?|diagram|figure|picture|drawing|"
    r"image|circuit|chart|angles?|curve|structure)"
)
_DRAWN = r"(?:figure|diagram|picture|image|drawing|illustration|sketch|photo(?:graph)?|graph|chart|map)"
_SEEN = r"(?:shown|depicted|illustrated|pictured|drawn|displayed)"
_BESIDE = r"(?:at|to|on) (?:the )?(?:right|left)"
_NO_PLACE = r"(?! ?[\d$\\]| (?:of|the|an?|its?|this|that|zero|average|[a-z]\b|[a-z]-(?:axis|coordinate)))"
"""Behind `below` and its like: what follows is what it stands below, so no figure of the page is meant."""
_FIGURE = re.compile(
    rf"\b(?:in|from|on|using|see|to|per|by) (?:the|this|that|our|each) (?:(?:following|accompanying|adjacent|adjoining|"
    rf"attached|given|above|below|right|left|next) )(?:{_DRAWN})\b"
    rf"|\b(?:in|from|see|to) (?:the|this) (?:figure|diagram|picture|illustration)\b(?! of\b)"
    rf"|\b(?:the|this|following) (?:pie |bar |line )?(?:{_DRAWN})s? "
    rf"(?:(?:is |are )?(?:{_SEEN} )?(?:below|above|{_BESIDE}){_NO_PLACE}|"
    rf"shows\b(?! that)|(?:is|are) {_SEEN}\b)"
    rf"|\buse (?:the|this) (?:{_DRAWN}) to\b|\b(?:the|this) following (?:figure|diagram|picture|illustration)\b"
    rf"|\b(?:accompanying|attached) (?:{_DRAWN})"
    rf"|\b{_SHAPE} (?:[\w$]+ ){{0,2}}(?:(?:as drawn|(?:as )?(?!drawn){_SEEN})\b"
    rf"(?! (?:that|to|by|how|a|an|from|in the (?:book|movie))\b)|drawn (?:below|above|here|{_BESIDE}){_NO_PLACE}"
    rf"|(?:below|{_BESIDE})(?=[ ,.?]){_NO_PLACE})"
    rf"|\bas {_SEEN}(?: (?:below|above|here|{_BESIDE}|in (?:the )?(?:{_DRAWN}|fig)\w*)|[.,?])"
    r"|\b(?:see|in|from|to) fig(?:ure|\.)? ?\d|\(see (?:the )?fig|\bfig(?:ure|\.) ?\d+[ ,)]"
    r"|\[(?:image|figure|diagram)\]|<image>|<img\b|!\[[^\]]{0,200}\]\(|\\includegraphics",
    re.IGNORECASE,
)
_TABLE = re.compile(
    r"\b(?:table|chart) (?:below|above|shown|shows|gives|lists)\b|\bthe following (?:table|chart)\b", re.IGNORECASE
)
_TABLED = re.compile(r"[|&\t\n:]")
_FIGURE_ZH = re.compile(
    r"如[下右左上]?图(?![书片像象])|[下右左上附]图(?![书形像象])|图[0-9一二三四①②(（]|图所示|[见看据][下右左上]?图(?![书像象])"
    r"|(?<![个全通分子单简地试企意版书张向有无本森蓝拼])图中"
)
_DRAWN_IN_TEXT = ("[asy]", "\\begin{tikzpicture}", "\\begin{asy}", "<svg", "```asy", "\\begin{picture}")
"""Figures given as code: they can be read, so a question that points at them lacks nothing."""

_TWO_WAY = re.compile(
    r"[\s$\\({]*(?:(?:text|mathrm|textbf|boxed)\s*\{)?\s*(?:yes|no|true|false|correct|incorrect|right|wrong|[tf]|possible|"
    r"impossible|对|错|是|否|不是|正确|错误|能|不能|可以|不可以|可能|不可能|存在|不存在|√|×|✓|✗)\s*[}\s$).。]*",
    re.IGNORECASE,
)
_ASKS_TWO_WAY = re.compile(
    r"\b(?:true or false|true/false|yes or no|yes/no|t/f|right or wrong|correct or incorrect)\b"
    r"|判断对错|判断正误|判断题|对还是错|是否正确[？?。]|正确还是错误",
    re.IGNORECASE,
)
_TWO_WAY_SIGNS = (" or ", "/", "判断", "正确")
_ALTERNATIVES = re.compile(r"([a-z]+,\s+)?\b([a-z]+) or (?:is (?:it|he|she) )?([a-z]+)\b")
_COMPARATIVE = re.compile(r"(?:er|more|less|likely|first|better|worse|correct),\s+$")
_LETTERS = re.compile(r"(?:\\text\{)?\s*([A-Za-z]{1,20})\s*\}?\.?")
_LETTER = re.compile(r"\(?([A-Z])\)?[.)]?")


def question_marks(prompt: Prompt) -> tuple[Mark, ...]:
    """The marks of one prompt in the order of `Mark`; empty for one that can be verified, or that wants no verdict."""
    found: set[Mark] = set()
    kind, text, answer = prompt.kind, prompt.question, (prompt.answer or "").strip()
    lower = text.lower()
    if _lacks_figure(text, lower):
        found.add("figure")
    if kind == "code":
        found.update(_tests_marks(prompt.tests))
    elif kind != "open":
        if not answer or (_SENTINEL.fullmatch(answer) and answer not in (prompt.choices or ())):
            found.add("no_gold")
        elif kind == "choice":
            found.update(_choice_marks(answer, prompt.choices or ()))
        if kind != "choice":  # there a letter is asked for, whatever is proved or labelled on the way
            if _is_proof(text, lower, answer):
                found.add("proof")
            elif parts.has_many(text, lower):
                found.add("multi_part")
        if _is_guessable(text, lower, answer, prompt.choices or ()):
            found.add("guessable")
    return tuple(mark for mark in _ORDER if mark in found) if found else ()


_ORDER: tuple[Mark, ...] = (*UNVERIFIABLE, "guessable")


def _is_proof(text: str, lower: str, answer: str) -> bool:
    if len(answer) < 30 and _PROOF_ANSWER.fullmatch(answer):
        return True
    if "证" in text and _ASKS_PROOF_ZH.search(text):
        return True
    hints = ("prov", "show", "verify", "establish", "deduce", "demonstrate", "proof")
    return any(hint in lower for hint in hints) and _ASKS_PROOF.search(text) is not None


_HINTS = (
    *(
        "fig",
        "diagram",
        "picture",
        "image",
        "shown",
        "drawing",
        "graph",
        "chart",
        "map",
        "illustrat",
        "below",
        "depict",
    ),
    *("drawn", "sketch", "photo", " right", " left", "![", "<img", "displayed", "table"),
)


def _lacks_figure(text: str, lower: str) -> bool:
    """Whether the question points at a figure that is not in its text."""
    hinted = any(hint in lower for hint in _HINTS)
    chinese = "图" in text and _FIGURE_ZH.search(text) is not None
    if not (hinted or chinese) or any(code in lower for code in _DRAWN_IN_TEXT):
        return False
    if chinese or _FIGURE.search(text) is not None:
        return True
    return ("table" in lower or "chart" in lower) and _TABLE.search(text) is not None and not _TABLED.search(text)


def _is_guessable(text: str, lower: str, answer: str, choices: tuple[str, ...]) -> bool:
    """Right half of the time without a thought: yes or no, true or false, one of two."""
    if len(choices) == 2 or (len(answer) <= 30 and _TWO_WAY.fullmatch(answer)):
        return True
    if choices:
        return False
    if any(sign in lower for sign in _TWO_WAY_SIGNS) and _ASKS_TWO_WAY.search(lower):
        return True
    word = _LETTERS.fullmatch(answer)
    if word is None or " or " not in lower:
        return False
    for match in _ALTERNATIVES.finditer(lower):
        third = match[1] is not None and _COMPARATIVE.search(match[1]) is None
        if word[1].lower() in (match[2], match[3]) and not third:
            return True
    return False


def _choice_marks(answer: str, choices: tuple[str, ...]) -> tuple[Mark, ...]:
    """The answer has to name exactly one of the choices, by its letter or by its text."""
    letter = _LETTER.fullmatch(answer)
    by_letter = {ord(letter[1]) - ord("A")} if letter else set()
    wanted = " ".join(answer.split())
    by_text = {place for place, choice in enumerate(choices) if " ".join(choice.split()) == wanted}
    named = {place for place in by_letter | by_text if place < len(choices)}
    return () if len(choices) > 1 and len(named) == 1 else ("bad_choice",)


def _tests_marks(tests: tuple[CodeTest, ...] | None) -> tuple[Mark, ...]:
    if not tests:
        return ("no_tests",)
    return ("bad_tests",) if bad_tests(tests) else ()


def bad_tests(tests: tuple[CodeTest, ...]) -> bool:
    """Tests that check nothing or cannot all hold: no expected output at all, a call without a result, calls of several
    functions or of none that can be called, two outputs for one input."""
    function = tests[0].function
    if function is not None and not function.isidentifier():
        return True
    if not any(test.output.strip() for test in tests):
        return True
    expected: dict[str, str] = {}
    for test in tests:
        if test.function != function or (function is not None and not test.output.strip()):
            return True
        if expected.setdefault(test.input.rstrip(), test.output.rstrip()) != test.output.rstrip():
            return True
    return False
