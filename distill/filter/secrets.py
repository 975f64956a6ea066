"""Keys, tokens, passwords, e-mail addresses, telephone and account numbers in a trace, which its question did not give.

Only shapes that leave little doubt, with their checksums where they have one: mathematics is full of numbers, and a
right trace left out is a loss. So a bare number counts by its grouping or by the words before it. Examples that
documentation is full of pass. Why no library does it: docs/checks.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from distill.filter import personal
from distill.filter_specs import SecretSettings
from distill.records import Prompt, Trace
from distill.verify import PASS, Outcome, failing


class Shape(NamedTuple):
    """A kind of secret: a text that occurs in every one, its pattern, and where to read about it."""

    name: str
    sign: str
    pattern: re.Pattern[str]


def _shape(name: str, sign: str, pattern: str) -> Shape:
    return Shape(name, sign, re.compile(pattern))


_B = r"(?<![A-Za-z0-9_-])"
_E = r"(?![A-Za-z0-9_-])"
SHAPES = (
    _shape(
        "private key",
        "-----BEGIN",
        r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----[\s\\nr]{0,8}"
        r"(?:[A-Z][\w-]+:[^\n]{0,80}\n|\s){0,8}[A-Za-z0-9+/=]{40}",
    ),
    *(_shape("AWS access key", sign, rf"{_B}{sign}[A-Z2-7]{{16}}{_E}") for sign in ("AKIA", "ASIA")),
    _shape(
        "AWS secret key",
        "aws",
        r"(?i:aws_?(?:secret)?_?(?:access)?_?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?P<key>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    ),
    *(_shape("GitHub token", f"gh{kind}_", rf"{_B}gh{kind}_[A-Za-z0-9]{{36}}{_E}") for kind in "pousr"),
    _shape("GitHub token", "github_pat_", rf"{_B}github_pat_[A-Za-z0-9]{{22}}_[A-Za-z0-9]{{59}}{_E}"),
    _shape("GitLab token", "glpat-", rf"{_B}glpat-[A-Za-z0-9_-]{{20,}}"),
    _shape("Hugging Face token", "hf_", rf"{_B}hf_[A-Za-z0-9]{{34,40}}{_E}"),
    _shape("OpenAI key", "sk-", rf"{_B}sk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{{20,}}"),
    _shape("Slack token", "xox", rf"{_B}xox[abeoprs]-[A-Za-z0-9-]{{20,}}"),
    _shape(
        "Slack webhook",
        "hooks.slack.com",
        r"hooks\.slack\.com/(?:services|workflows)/[A-Z0-9]{8,12}/[A-Z0-9]{8,12}/[A-Za-z0-9]{20,}",
    ),
    _shape("Google API key", "AIza", rf"{_B}AIza[A-Za-z0-9_-]{{35}}{_E}"),
    _shape("Stripe key", "k_live_", rf"{_B}[rs]k_live_[A-Za-z0-9]{{20,}}"),
    _shape("SendGrid key", "SG.", rf"{_B}SG\.[A-Za-z0-9_-]{{22}}\.[A-Za-z0-9_-]{{43}}{_E}"),
    _shape("npm token", "npm_", rf"{_B}npm_[A-Za-z0-9]{{36}}{_E}"),
    _shape("PyPI token", "pypi-", rf"{_B}pypi-AgE[A-Za-z0-9_-]{{50,}}"),
    _shape(
        "JSON Web Token",
        "eyJ",
        rf"{_B}eyJ[A-Za-z0-9_-]{{10,2000}}\.eyJ[A-Za-z0-9_-]{{10,4000}}\.[A-Za-z0-9_-]{{20,1000}}",
    ),
    _shape(
        "password in an address",
        "://",
        r"[a-z][a-z0-9+]{1,15}://[^\s:@/?#\"'<>]{1,60}:(?P<password>[^\s:@/\"'<>]{4,80})@(?P<host>[\w.-]{2,80})",
    ),
)
"""As their issuers document them, and as the rules of gitleaks and detect-secrets have them."""
_EXAMPLE = re.compile(
    r"example|sample|dummy|fake|your|xxxx|\*\*\*|\.\.\.|placeholder|redacted|123456|abcdef|changeme|secret|passw|token",
    re.IGNORECASE,
)
"""What documentation writes into a key: those keys open nothing."""
_JWT_IO = "eyJzdWIiOiIxMjM0NTY3ODkw"
"""The payload of the example token that jwt.io shows."""
_NO_PASSWORD = re.compile(
    r"(?:pass(?:word|wd)?|pw|pwd|secret|token|user(?:name)?|admin|root|test|postgres|guest|[<{$%\[*x].*)\d{0,4}",
    re.IGNORECASE,
)
_LOCAL = re.compile(
    r"localhost|127\.0\.0\.1|0\.0\.0\.0|host|hostname|db|database|server|(?:[\w-]+\.)*example(?:\.\w+)?|[\w.-]+\.(?:local|test|invalid|internal)",
    re.IGNORECASE,
)
LEAST_DIFFERENT = 8
"""Different characters behind the prefix of a key that was drawn at random."""


class Found(NamedTuple):
    """What kind of data, and the text of it. The text is for a person's eyes: log it nowhere."""

    name: str
    text: str


def secrets(prompt: Prompt, trace: Trace, settings: SecretSettings) -> Outcome:
    """`secret`: a key, token, private key or password in an address. `personal_data`: an e-mail address, a telephone,
    card, bank account or social security number. What stands in the question as well is nobody's secret."""
    parts = [text for text in (trace.reasoning, trace.answer) if text]
    if settings.secrets and any(_unasked(prompt, find_secrets(text)) for text in parts):
        return failing("secret")
    if settings.personal_data and any(_unasked(prompt, find_personal(text)) for text in parts):
        return failing("personal_data")
    return PASS


def _unasked(prompt: Prompt, found: Iterator[Found]) -> bool:
    return any(item.text not in prompt.text for item in found)


def find_secrets(text: str) -> Iterator[Found]:
    """Each secret in `text`, kind by kind."""
    for shape in SHAPES:
        if shape.sign in text:
            for match in shape.pattern.finditer(text):
                if _is_real(shape, match):
                    yield Found(shape.name, match[0])


def find_personal(text: str) -> Iterator[Found]:
    """Each piece of personal data in `text`."""
    for name, match in personal.find(text):
        yield Found(name, match)


def _is_real(shape: Shape, match: re.Match[str]) -> bool:
    found = match[0]
    if shape.sign == "://":
        return not _NO_PASSWORD.fullmatch(match["password"]) and not _LOCAL.fullmatch(match["host"])
    if shape.sign == "-----BEGIN":
        return True
    if shape.sign == "eyJ":
        return _JWT_IO not in found
    if shape.sign == "aws":
        found = match["key"]
    if shape.sign == "sk-" and not (any(map(str.isdigit, found)) and any(map(str.isupper, found))):
        return False  # sk-learn-like words joined by hyphens
    return len(set(found[-20:])) >= LEAST_DIFFERENT and not _EXAMPLE.search(found)
