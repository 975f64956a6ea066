r"""Expressions: from tokens to a tree, every token used or Unreadable.

Sums, products with and without a sign, powers, roots, functions, factorials, binomials, absolute values, degrees,
percent. Knows nothing about lists, relations or units.
"""

from __future__ import annotations

from distill.verify.cursor import OPENING
from distill.verify.latex import DEEPEST, Token
from distill.verify.numerals import Numerals
from distill.verify.tidy import Unreadable
from distill.verify.values import INF, PLUS_MINUS, Node, number

_PRODUCT = frozenset(("*", "/"))
MONEY = frozenset(("dollar", "€", "£", "¥", "₹"))
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
_FUNCTION_LETTERS = frozenset("fgh")
_TO_MINUS_ONE = ["^", "{", "-", "1", "}", "("]
MOST_FACTORS, MOST_MARKS = 120, 8
"""Of one product, and after one factor: trees stay as shallow as Python's stack allows."""
_DEPTH = 2 * DEEPEST
_PAIRED = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}


class Expressions(Numerals):
    """Reads expressions from `tokens`. A subclass reads what stands around them."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.depth = self.inside_bars = 0
        self.currency: str | None = None
        self.loose = False

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > _DEPTH:
            raise Unreadable("too deep")
        parts = [] if self.next.text in ("pm", "mp") and self.next.kind == "cmd" else [self.term()]
        while True:
            token = self.next
            if token.kind == "op" and token.text in "+-" and token.text:
                self.at += 1
                part = self.term()
                parts.append(part if token.text == "+" else ("neg", part))
            elif token.kind == "cmd" and token.text in ("pm", "mp"):
                self.at += 1
                sign: Node = PLUS_MINUS if token.text == "pm" else ("neg", PLUS_MINUS)
                parts.append(("mul", (sign, self.term())))
            else:
                break
        self.depth -= 1
        return parts[0] if len(parts) == 1 else ("add", tuple(parts))

    def term(self) -> Node:
        """Factors, multiplied and divided from left to right; a product without a sign binds no closer."""
        negative = False
        while self.next.kind == "op" and self.next.text in ("-", "+"):
            negative ^= self.next.text == "-"
            self.at += 1
        node = self.factor()
        divided = False
        product: list[Node] = []
        for _ in range(MOST_FACTORS):
            token = self.next
            if token.kind == "op" and token.text in _PRODUCT:
                if token.text == "/" and self._is_unit_ahead():
                    break
                self.at += 1
                sign = -1 if self.next == Token("op", "-", self.next.spaced) else 1
                self.at += sign < 0
                other = self.factor() if sign > 0 else ("neg", self.factor())
                divided = token.text == "/"
                if divided:
                    node, product = ("div", node, other), []
                else:
                    product = [*(product or [node]), other]
                    node = ("mul", tuple(product))
            elif self._starts_factor(token):
                self.loose |= divided
                product = [*(product or [node]), self.factor()]
                node = ("mul", tuple(product))
            else:
                break
        else:
            raise Unreadable("too many factors")
        return ("neg", node) if negative else node

    def _is_unit_ahead(self) -> bool:
        return self.peek(1).kind == "word"

    def _starts_factor(self, token: Token) -> bool:
        if token.kind == "num":
            return self.tokens[self.at - 1].text == "!"
        if token.kind in ("name", "fn"):
            return True
        if token.kind == "cmd":
            return token.text in ("frac", "sqrt", "pi", "infty", "binom", "lfloor", "lceil", "angle", "triangle")
        if token.kind == "op":
            return (token.text in ("(", "[", "{") and self.at not in self.several) or (
                token.text == "|" and not self.inside_bars
            )
        return False

    def factor(self) -> Node:
        node = self.primary()
        for _ in range(MOST_MARKS):
            token = self.next
            if token.kind == "op" and token.text == "^":
                self.at += 1
                node = ("pow", node, self.script())
            elif token.kind == "op" and token.text == "!":
                self.at += 1
                node = ("fact", node)
                if self.is_sign("!"):
                    raise Unreadable("a double factorial, or two")
            elif token.kind == "cmd" and token.text == "deg":
                self.at += 1
                node = ("deg", node)
            elif token.kind == "op" and token.text == "%":
                self.at += 1
                node = ("pct", node)
            else:
                return node
        raise Unreadable("too many marks")

    def script(self, *, one_digit: bool = False) -> Node:
        """What stands after ^, or after a command that takes one argument: a group or a single thing."""
        token = self.next
        if token.kind == "op" and token.text == "{":
            return self.group("{")
        if token.kind == "op" and token.text in ("-", "+"):
            self.at += 1
            inner = self.script(one_digit=one_digit)
            return ("neg", inner) if token.text == "-" else inner
        if token.kind == "num" and not (one_digit and len(token.text) > 1):
            return self.numeral(mixed=False)
        if one_digit and token.kind == "num" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.at] = Token("num", token.text[1:])  # \frac12: each takes one digit
            return number(int(token.text[0]))
        return self.primary()

    def group(self, opening: str) -> Node:
        """One expression in brackets."""
        self.expect(opening)
        bars, self.inside_bars = self.inside_bars, 0
        node = self.expression()
        if self.next.text in ("choose", "over") and self.next.kind == "cmd":
            kind = "binom" if self.next.text == "choose" else "div"
            self.at += 1
            node = (kind, node, self.expression())
        self.inside_bars = bars
        if self.next.text != OPENING[opening]:
            raise Unreadable(f"more than an expression at {self.at}")
        self.at += 1
        return node

    def primary(self) -> Node:
        token = self.next
        kind, text = token.kind, token.text
        if kind == "num":
            return self.numeral()
        if kind == "name":
            return self.name()
        if kind == "fn":
            return self.function()
        if kind == "op":
            if text in ("(", "[", "{"):
                return self.group(text)
            if text == "|":
                return self.bars()
            if text in MONEY:
                self.at += 1
                self.currency = text
                return self.primary()
            if text == "-":
                self.at += 1
                return ("neg", self.primary())
        if kind == "cmd":
            return self.command(text)
        raise Unreadable(f"{text!r} at {self.at}")

    def command(self, text: str) -> Node:
        self.at += 1
        if text == "frac":
            above = self.script(one_digit=True)
            return ("div", above, self.script(one_digit=True))
        if text == "binom":
            above = self.script(one_digit=True)
            return ("binom", above, self.script(one_digit=True))
        if text == "sqrt":
            degree: Node | None = self.group("[") if self.is_sign("[") else None
            inner = self.script(one_digit=True)
            return ("root", degree or number(2), inner)
        if text == "pi":
            return ("const", "pi")
        if text == "infty":
            return INF
        if text in _PAIRED:
            closing, name = _PAIRED[text]
            inner = self.expression()
            self.expect(closing)
            return ("fn", name, inner)
        if text in ("angle", "triangle") and self.next.kind == "name":
            self.at += 1
            return ("sym", f"{text}:{self.tokens[self.at - 1].text}")
        raise Unreadable(f"\\{text}")

    def name(self) -> Node:
        text = self.next.text
        self.at += 1
        if self.next.kind == "op" and self.next.text == "_":
            self.at += 1
            text += "_" + self.subscript()
        while self.next.kind == "op" and self.next.text == "'":
            self.at += 1
            text += "'"
        if text in ("e", "i"):
            return ("const", text)
        if text in _FUNCTION_LETTERS and [t.text for t in self.tokens[self.at : self.at + 6]] == _TO_MINUS_ONE:
            self.at += 5
            return ("call", f"{text}^-1", self.arguments())
        if self._is_defined(text):
            return ("call", text, self.arguments())
        if (text in _FUNCTION_LETTERS or text[:2] in ("f_", "g_", "f'", "g'")) and self.is_sign("("):
            return ("call", text, self.arguments())
        return ("sym", text)

    def _is_defined(self, text: str) -> bool:
        """Whether one letter stands before `(x) =`."""
        following = [token.text for token in self.tokens[self.at : self.at + 4]]
        if len(text) != 1 or len(following) < 4:
            return False
        return (following[0], following[2], following[3]) == ("(", ")", "=") and self.peek(1).kind == "name"

    def arguments(self) -> tuple[Node, ...]:
        closes = self.partner[self.at]
        self.at += 1
        found = [self.expression()]
        while self.take(","):
            found.append(self.expression())
        if self.at != closes:
            raise Unreadable("arguments")
        self.at += 1
        return tuple(found)

    def subscript(self) -> str:
        """As text: the tokens of a group, or one token."""
        if self.is_sign("{"):
            closes = self.partner[self.at]
            text = "".join(token.text for token in self.tokens[self.at + 1 : closes])
            self.at = closes + 1
            return text
        self.at += 1
        return self.tokens[self.at - 1].text if self.at <= len(self.tokens) else ""

    def bars(self) -> Node:
        self.expect("|")
        self.inside_bars += 1
        inner = self.expression()
        self.inside_bars -= 1
        self.expect("|")
        return ("abs", inner)

    def function(self) -> Node:
        """A named function with its argument: in brackets, or the factors that follow without a sign."""
        name = self.next.text
        self.at += 1
        if name in ("sqrt", "cbrt"):
            return ("root", number(2 if name == "sqrt" else 3), self.script())
        base = power = None
        while self.next.kind == "op" and self.next.text in "_^" and self.next.text:
            sign = self.next.text
            self.at += 1
            if sign == "_":
                base = self.script(one_digit=self.next.text != "10")
            else:
                power = self.script()
        argument = self.argument()
        if name in ("abs", "floor", "ceil"):
            node: Node = ("abs", argument) if name == "abs" else ("fn", name, argument)
        elif name == "log" and base is not None:
            node = ("log", base, argument)
        elif base is not None:
            raise Unreadable("a subscript")
        elif power == ("neg", number(1)) and name in _INVERSE:
            return ("fn", _INVERSE[name], argument)
        else:
            node = ("fn", {"asin": "arcsin", "acos": "arccos", "atan": "arctan"}.get(name, name), argument)
        return ("pow", node, power) if power is not None else node

    def argument(self) -> Node:
        if self.is_sign("(") or self.is_sign("{") or self.is_sign("["):
            node = self.group(self.next.text)
            if self.is_sign("^"):  # sin(x)^2 is the square of sin(x) to most; to some sin(x^2)
                self.loose = True
            return node
        negative = self.take("-")
        node = self.factor()
        factors = [node]
        while self.next.kind == "name" or (self.next.kind == "cmd" and self.next.text in ("pi", "frac", "sqrt")):
            factors.append(self.factor())
        node = ("mul", tuple(factors)) if len(factors) > 1 else node
        if self.is_sign("/") and not self._is_unit_ahead():  # sin x/2 is read both ways
            self.loose = True
        return ("neg", node) if negative else node
