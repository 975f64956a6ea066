"""Keys of well-known shapes and personal data are found; mathematics, code and examples of documentation pass.

No key here opens anything: each is put together from an alphabet by a fixed seed, so that no scanner of repositories
takes this file for a leak.
"""

from __future__ import annotations

import json
import random
import string
from dataclasses import replace
from pathlib import Path

import pytest
from checked_trace import PROMPT, TRACE

from distill.filter.personal import luhn
from distill.filter.secrets import find_personal, find_secrets, secrets
from distill.filter_specs import SecretSettings
from distill.records import Prompt

SETTINGS = SecretSettings()
DATA = Path(__file__).parents[1] / "data"


def drawn(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    rng = random.Random(length)
    return "".join(rng.choice(alphabet) for _ in range(length))


BASE32 = string.ascii_uppercase + "234567"
KEYS = {
    "AWS access key": "AKIA" + drawn(16, BASE32),
    "AWS temporary key": "ASIA" + drawn(16, BASE32),
    "AWS secret key": f"aws_secret_access_key = {drawn(40)}",
    "GitHub token": "ghp_" + drawn(36),
    "GitHub app token": "ghs_" + drawn(36),
    "GitHub fine-grained token": f"github_pat_{drawn(22)}_{drawn(59)}",
    "GitLab token": "glpat-" + drawn(20),
    "Hugging Face token": "hf_" + drawn(34),
    "OpenAI key": "sk-" + drawn(48),
    "OpenAI project key": "sk-proj-" + drawn(60),
    "Anthropic key": "sk-ant-api03-" + drawn(80),
    "DeepSeek key": "sk-" + drawn(32),
    "Slack token": f"xoxb-{drawn(12, string.digits)}-{drawn(24)}",
    "Slack webhook": f"https://hooks.slack.com/services/T{drawn(9, BASE32)}/B{drawn(9, BASE32)}/{drawn(24)}",
    "Google key": "AIza" + drawn(35),
    "Stripe key": "sk_live_" + drawn(24),
    "SendGrid key": f"SG.{drawn(22)}.{drawn(43)}",
    "npm token": "npm_" + drawn(36),
    "PyPI token": "pypi-AgE" + drawn(60),
    "JSON Web Token": f"eyJ{drawn(30)}.eyJ{drawn(60)}.{drawn(43)}",
    "private key": f"-----BEGIN RSA PRIVATE KEY-----\n{drawn(64)}\n",
    "OpenSSH key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{drawn(64)}\n",
    "password in an address": f"postgresql://annika:{drawn(12)}@db.acme-shop.io:5432/orders",
}
PERSONAL = {
    "e-mail": "Write to m.hoffmann@web.de today.",
    "e-mail of a company": "petra.klein82@siemens.com",
    "telephone": "Phone: +49 170 6849213",
    "telephone, American": "My cell is (212) 736-8429.",
    "telephone, Chinese": "电话：13926418507",
    "card by its groups": "4929 1374 6208 5316",
    "card by its name": "The credit card number is 4929137462085316.",
    "American Express": "3725 496353 98439",
    "IBAN": "My IBAN is DE75 5121 0800 1245 1261 99.",
    "IBAN without spaces": "account FR7630006000011234567890189",
    "social security": "Her SSN is 536-41-8207.",
}


def with_check_digit(text: str) -> str:
    """Card numbers with the last digit that makes them right."""
    for digit in string.digits:
        changed = text[:-1] + digit
        if luhn("".join(char for char in changed if char.isdigit())):
            return changed
    raise AssertionError(text)


@pytest.mark.parametrize(("name", "key"), KEYS.items())
def test_keys(name: str, key: str) -> None:
    text = f"Then we call it with\n{key}\nand get 4."
    assert [found.text.strip() in text for found in find_secrets(text)] == [True]
    for part in ({"reasoning": text}, {"answer": text}):
        assert secrets(PROMPT, replace(TRACE, **part), SETTINGS).reason == "secret"
    assert secrets(Prompt(f"Why does {text} fail?"), replace(TRACE, reasoning=text), SETTINGS).outcome == "pass", (
        "given"
    )
    assert secrets(PROMPT, replace(TRACE, answer=text), SecretSettings(secrets=False)).reason != "secret"


@pytest.mark.parametrize(("name", "text"), PERSONAL.items())
def test_personal_data(name: str, text: str) -> None:
    if "card" in name or "Express" in name:
        end = text.rstrip(".")
        text = with_check_digit(end) + text[len(end) :]
    assert len(list(find_personal(text))) == 1
    for part in ({"reasoning": text}, {"answer": text}):
        assert secrets(PROMPT, replace(TRACE, **part), SETTINGS).reason == "personal_data"
    assert secrets(Prompt(f"Is this right? {text}"), replace(TRACE, reasoning=text), SETTINGS).outcome == "pass", (
        "given"
    )
    assert secrets(PROMPT, replace(TRACE, answer=text), SecretSettings(personal_data=False)).outcome == "pass"


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "sk-your-api-key-goes-here-please",
        "sk-" + "x" * 48,
        "hf_" + "a" * 34,
        "the risk-adjusted-return-of-the-portfolio-in-question",
        "ghp_" + "abcdef123456" * 3,
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN PUBLIC KEY-----\n" + drawn(64),
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "postgresql://user:password@localhost:5432/db",
        "https://user:secret@example.com/",
        "mongodb://anna:<password>@cluster0.mongodb.net",
        "postgresql://anna:kx93hd72@localhost:5432/db and redis://anna:kx93hd72@127.0.0.1",
        "4012 8888 8888 1881 and 3714 496353 98431",
        "redis://default:${REDIS_PASSWORD}@cache.acme-shop.io",
        "https://en.wikipedia.org/wiki/Special:Search@home",
        "ratio 3://4:5@6",
        "someone@example.com, alice@example.org, bob@test.com, john.doe@gmail.com, user1@gmail.com, noreply@github.com",
        "y = A@B.T + W@x.to(device) + X.T@X.dot(y) + a@b.com",
        "@app.route and @property and user@localhost",
        "4111 1111 1111 1111 and 4242-4242-4242-4242",
        "4929 1374 6208 5318",
        "4929137462085317",
        "1234 5678 9012 3456",
        "3.1415 9265 3589 7932 3846",
        "9007199254740992 and 18446744073709551616",
        "2432902008176640000 = 20!",
        "4000 0000 0000 0000 0000",
        "4444 4444 4444 4448",
        "0101 1010 1100 0011 and 3000 4000 5000 6000 7000",
        "123-45-6789 = -6711",
        "536-41-8207",
        "SSN: 123-45-6789",
        "Call 555-0123 or phone +1 212 555 0147",
        "cell 12: 34567890123 = 3 * 11522630041",
        "He made 12 phone calls: 12345678 + 87654321 = 99999999.",
        "tell 12345678 people",
        "DE89 3704 0044 0532 0130 00 is the IBAN of the textbook.",
        "My bank account is DE75 5121 0800 1245 1261 98.",
        "AB12 3456 7890 1234 5678 in the bank",
        "192.168.0.1 and 8.8.8.8, see section 1.2.3.4",
    ],
)
def test_examples_and_numbers_pass(text: str) -> None:
    found = [*find_secrets(text), *find_personal(text)]
    assert found == []
    assert secrets(PROMPT, replace(TRACE, reasoning=text), SETTINGS).outcome == "pass"


def test_a_card_needs_an_issuer() -> None:
    for number, found in (("4929 1374 6208 5310", 1), ("5912 3407 8612 3450", 0), ("3001 3407 8612 3450", 0)):
        assert len(list(find_personal(with_check_digit(number)))) == found


def test_real_mathematics_passes() -> None:
    solutions = [
        json.loads(line)["answer"] for line in (DATA / "gsm8k_200.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    rows = (DATA / "teacher_outputs_128.jsonl").read_text(encoding="utf-8").splitlines()
    for text in (*solutions, *(json.loads(row)["text"] for row in rows)):
        assert [*find_secrets(text), *find_personal(text)] == []


def test_random_numbers_pass() -> None:
    rng = random.Random(1)
    numbers = [str(rng.randrange(10 ** rng.randint(6, 30))) for _ in range(5_000)]
    assert list(find_personal(" + ".join(numbers))) == []
    assert list(find_personal("\n".join(f"{number} = {number}" for number in numbers))) == []


def test_check_digits() -> None:
    assert luhn("79927398713")
    assert [digit for digit in string.digits if luhn(f"7992739871{digit}")] == ["3"]
