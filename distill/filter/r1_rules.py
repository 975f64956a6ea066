"""Two rules by which R1's own training data were cleaned (arXiv 2501.12948v2, B.3.3): no long paragraphs, and no code
blocks in the reasoning of tasks that are no code. The third, no mixed languages, is in language.py.

R1 left out such traces because they are hard to read. Which numbers it used is not published.
"""

from __future__ import annotations

import re

from distill.filter_specs import CodeSettings, ParagraphSettings
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, failing

_FENCED = re.compile(r"^[ \t]*(```|~~~)[^\n`]*\n(.*?)(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_CODE_LINE = re.compile(
    r"^[ \t]*(?:import [\w.]+(?: as \w+)?|from [\w.]+ import [\w*, ]+|(?:async )?def \w+\([^()\n]*\)(?: -> [^\n]+)?:|"
    r"class \w+(?:\([\w., ]*\))?:|#include ?[<\"][\w./]+[>\"]|int main\([^()\n]*\) ?\{?|using namespace std;|"
    r"public (?:static )?(?:class|void|int) \w+.*\{|(?:for|while|if) ?\([^()\n]*;[^()\n]*\) ?\{|"
    r"for \w+(?:, ?\w+)* in (?:range|enumerate|zip)\(.*\):|function \w+\([^()\n]*\) ?\{|print\(.*\))[ \t]*$",
    re.MULTILINE,
)
UNFENCED_LINES = 2
"""Lines of code from which there is a block without a fence: one may be quoted."""
_ASKS_CODE = re.compile(
    r"```|\b(?:python|javascript|java|c\+\+|rust|golang|sql|bash|html|regex|latex|pseudo-?code|"
    r"source code|leetcode|stdin)\b"
    r"|\b(?:write|implement|complete|give|fix|debug|run|following) (?:\w+ ){0,4}"
    r"(?:code|program|function|script|class|query)\b"
    r"|(?:编写|写出|写一个|实现)[^。？\n]{0,12}(?:程序|代码|函数|算法)|代码",
    re.IGNORECASE,
)


def paragraphs(prompt: Prompt, trace: Trace, settings: ParagraphSettings) -> Outcome:
    """`long_paragraph`: a line of the reasoning is longer than allowed. The score is the longest, in bytes of UTF-8.

    A line break ends a paragraph here: lists, tables and derivations can be read however long they are.
    """
    longest = max(map(_bytes, (trace.reasoning or "").split("\n")))
    return Outcome(
        "fail" if longest > settings.longest else "pass", *_named("long_paragraph", longest, settings.longest)
    )


def _named(reason: str, found: int, most: int) -> tuple[str, float]:
    return (reason if found > most else "", float(found))


def _bytes(line: str) -> int:
    return len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))


def code_in_reasoning(prompt: Prompt, trace: Trace, settings: CodeSettings) -> Outcome:
    """`code_block`: the reasoning holds code although neither the prompt's kind nor its question is about any."""
    text = trace.reasoning or ""
    if prompt.kind == "code" or not _has_code(text, settings) or _ASKS_CODE.search(prompt.text):
        return PASS
    return failing("code_block")


def _has_code(text: str, settings: CodeSettings) -> bool:
    if ("```" in text or "~~~" in text) and any(match[2].strip() for match in _FENCED.finditer(text)):
        return True
    if not settings.unfenced or not any(sign in text for sign in _SIGNS):
        return False
    return sum(1 for _ in _CODE_LINE.finditer(text)) >= UNFENCED_LINES


_SIGNS = ("import ", "def ", "class ", "#include", "int main", "std;", "public ", "):\n", ") {", "){", "print(")
