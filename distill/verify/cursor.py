"""A place in a list of tokens: what stands there, and where its brackets close. Knows not what tokens mean."""

from __future__ import annotations

from distill.verify.latex import DEEPEST, Token
from distill.verify.tidy import Unreadable

END = Token("end", "")
OPENING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "<<": ">>"}
_CLOSING = frozenset(OPENING.values())


def paired(tokens: list[Token]) -> tuple[dict[int, int], set[int]]:
    """Where each opening bracket closes, and which of them hold a comma or semicolon of their own.

    `(0, 1]` is a pair too. Raises Unreadable for brackets that do not match, and for too many inside one another.
    """
    partner: dict[int, int] = {}
    several: set[int] = set()
    stack: list[int] = []
    for at, token in enumerate(tokens):
        if token.kind not in ("op", "cmd"):
            continue
        text = token.text
        if text in OPENING:
            stack.append(at)
            if len(stack) > DEEPEST:
                raise Unreadable("too deep")
        elif text in _CLOSING:
            if not stack:
                raise Unreadable("a bracket that was not opened")
            opened = stack.pop()
            wanted = OPENING[tokens[opened].text]
            if text != wanted and not {text, wanted} <= {")", "]"}:
                raise Unreadable("brackets that do not match")
            partner[opened] = at
        elif text in (",", ";") and stack:
            several.add(stack[-1])
    if stack:
        raise Unreadable("a bracket that does not close")
    return partner, several


class Cursor:
    """Goes through `tokens`; `at` is the next one."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.at = tokens, 0
        self.partner, self.several = paired(tokens)

    @property
    def next(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else END

    def peek(self, ahead: int) -> Token:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else END

    def is_sign(self, text: str) -> bool:
        token = self.next
        return token.kind in ("op", "cmd") and token.text == text

    def take(self, text: str) -> bool:
        if self.is_sign(text):
            self.at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise Unreadable(f"no {text} at {self.at}")
