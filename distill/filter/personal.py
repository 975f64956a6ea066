"""E-mail addresses, telephone, card, bank account and social security numbers in a text, told from plain numbers.

A card number counts when it is grouped as on the card or named as one, its issuer exists and its check digit is right;
an IBAN by its country's length and its check digits; telephone and social security numbers behind a word that says so.
IP addresses are left alone: they belong to machines, and section and version numbers look like them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_EMAIL = re.compile(
    r"(?<![\w.+%-])(?P<local>[A-Za-z0-9][\w.+-]{1,63}+)@(?P<domain>(?:[A-Za-z0-9][A-Za-z0-9-]{1,62}\.){1,4}"
    r"(?:com|org|net|edu|gov|mil|int|info|biz|io|ai|app|dev|me|co|eu|[a-z]{2}))(?![\w(-]|\.\w)"
)
_EXAMPLE_DOMAIN = re.compile(
    r"(?:[\w-]+\.)*(?:(?:example|test|sample|domain|email|mail|company|your-?domain|your-?company|mycompany|website|site|"
    r"somewhere|mydomain|server|host|foo|bar|baz|abc|xyz|acme|school|university|business|provider|aaa|bbb|xxx)\.\w+|"
    r"[\w-]*example[\w-]*(?:\.\w+)?)",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"(?:no-?reply|info|support|contact|admin|hello|sales|help|office|mail|press|webmaster|postmaster|service|team|jobs|hr|"
    r"user\w*|name|your\w*|first\w*|last\w*|some\w*|test\w*|example\w*|foo\w*|bar\w*|abc\w*|xyz|email|me|you|student\w*|"
    r"(?:john|jane|joe)[._-]?(?:doe|smith|roe)?|alice|bob|carol|eve)\d*",
    re.IGNORECASE,
)
"""Names before the @ that are nobody's: roles, and those of examples."""
_CARD = re.compile(
    r"[3-6]\d{3}(?<![\d.,/-]\d{4})(?<!\d \d{4})(?P<gap>[ -]?)\d{4,6}(?P=gap)\d{4,5}"
    r"(?:(?P=gap)\d{4})?(?![\d/-]| \d|[.,]\d)"
)
_CARD_WORD = re.compile(
    r"\b(?:card|visa|mastercard|amex|american express|credit|debit|cvv|pan)\b|卡号|信用卡|银行卡", re.IGNORECASE
)
_ISSUERS = re.compile(
    r"4\d{15}|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}|6(?:011|4[4-9]\d|5\d\d)\d{12}|"
    r"35(?:2[89]|[3-8]\d)\d{12}"
)
"""Visa, Mastercard, American Express, Discover, JCB."""
_TEST_CARDS = frozenset(
    """4111111111111111 4242424242424242 4000056655665556 4012888888881881 5555555555554444 5105105105105100
    5200828282828210 378282246310005 371449635398431 6011111111111117 6011000990139424 3530111333300000 4000000000000002
    4539148803436467 4532015112830366 4539578763621486 1234567812345670""".split()  # noqa: SIM905
)
"""Numbers that payment services document for tests, and those with which Luhn's algorithm is taught."""
_IBAN = re.compile(
    r"[A-Z]{2}\d{2}(?<![A-Za-z0-9][A-Z]{2}\d{2})"
    r"(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?)(?![A-Za-z0-9])"
)
_IBAN_SIGNS = ("iban", "bank", "account", "konto", "账户", "账号")
_IBAN_LENGTHS = {
    pair[:2]: int(pair[2:])
    for pair in """AD24 AE23 AT20 BE16 BG22 BR29 CH21 CY28 CZ24 DE22 DK18 EE20 ES24 FI18 FR27 GB22 GR27 HR21 HU28 IE22
    IL23 IS26 IT27 LI21 LT20 LU20 LV21 MC27 MT31 NL18 NO15 PL28 PT25 RO24 SA24 SE24 SI19 SK24 SM27 TR26 UA29""".split()  # noqa: SIM905
}
_TEST_IBANS = frozenset(
    """DE89370400440532013000 GB82WEST12345698765432 GB29NWBK60161331926819 FR1420041010050500013M02606
    NL91ABNA0417164300 CH9300762011623852957 ES9121000418450200051332 IT60X0542811101000000123456 AT611904300234573201
    BE68539007547034""".split()  # noqa: SIM905
)
"""Those that the registry of IBANs and textbooks print."""
_PHONE = re.compile(
    r"(?:phone|mobile|cell|tel\b|fax\b|whatsapp|电话|手机|联系方式)[^\n\d+(]{0,24}"
    r"(?P<number>\+?\(?\d(?:[ ().-]{0,2}\d){7,14})(?![\d.,]*\d|[ ]*[=×*/+^%])",
    re.IGNORECASE,
)
_PHONE_SIGNS = ("phone", "mobile", "cell", "tel:", "tel.", "fax", "whatsapp", "电话", "手机", "联系方式")
_FICTIONAL = re.compile(r"555-?01\d\d|555-?\d{4}|1234567|12345|9876543|0000|1111|13800138000|13812345678")
_SSN = re.compile(r"\b(?:ssn|social security)\b[^\n\d]{0,40}(?P<number>\d{3}-\d{2}-\d{4})(?!\d|-)", re.IGNORECASE)
_TEST_SSN = re.compile(
    r"000-.*|666-.*|9.*|123-45-6789|987-65-4321|078-05-1120|219-09-9999|111-11-1111|.*-00-.*|.*-0000"
)
NEAR = 60
"""Characters before a number in which a word says what it is."""


def find(text: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of each."""
    if "@" in text:
        yield from _emails(text)
    lower = text.lower()
    if any(sign in lower for sign in _PHONE_SIGNS):
        for match in _PHONE.finditer(text):
            digits = re.sub(r"\D", "", match["number"])
            if 8 <= len(digits) <= 15 and not _FICTIONAL.search(digits):
                yield "telephone number", match["number"]
    if "ssn" in lower or "social security" in lower:
        for match in _SSN.finditer(text):
            if not _TEST_SSN.fullmatch(match["number"]):
                yield "social security number", match["number"]
    yield from _cards(text)
    for match in _IBAN.finditer(text) if any(sign in lower for sign in _IBAN_SIGNS) else ():
        if _is_iban(match[0].replace(" ", "")):
            yield "bank account", match[0]


def _emails(text: str) -> Iterator[tuple[str, str]]:
    for match in _EMAIL.finditer(text):
        if not _EXAMPLE_DOMAIN.fullmatch(match["domain"]) and not _ROLE.fullmatch(match["local"]):
            yield "e-mail address", match[0]


def _cards(text: str) -> Iterator[tuple[str, str]]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"[ -]", "", match[0])
        grouped = match["gap"] and [len(part) for part in re.split(r"[ -]", match[0])] in ([4, 4, 4, 4], [4, 6, 5])
        if not grouped and not _CARD_WORD.search(text, max(0, match.start() - NEAR), match.start()):
            continue
        if _ISSUERS.fullmatch(digits) and digits not in _TEST_CARDS and luhn(digits) and len(set(digits)) > 3:
            yield "card number", match[0]


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def _is_iban(text: str) -> bool:
    """By the length of its country and ISO 7064's check digits, modulo 97."""
    if _IBAN_LENGTHS.get(text[:2]) != len(text) or text in _TEST_IBANS:
        return False
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1
