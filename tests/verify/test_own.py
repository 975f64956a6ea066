"""Verifiers of one's own: the page's example in a real pool, what can go wrong with a name, and fingerprints."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill.errors import SpecError
from distill.records import CodeTest, Prompt
from distill.verify import PASS, Outcome, abstaining, failing, own
from distill.verify.pool import VerifierPool

PAGE = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text(encoding="utf-8")
PEOPLE = "CREATE TABLE people(name, age); INSERT INTO people VALUES ('Ada', 36), ('Bo', 17), ('Cy', 18);"
PROMPT = Prompt("Who is an adult?", id="p7")


def block(language: str, start: str = "") -> str:
    """The page's code block in that language that begins with `start`."""
    found = re.search(rf"^```{language}\n({re.escape(start)}.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    for cached in (own.load, own._found):
        cached.cache_clear()
    own._TOLD.clear()


def write(name: str, body: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"from distill.verify import PASS, failing\n{body}\n", encoding="utf-8")


def test_the_pages_example_judges_in_a_pool() -> None:
    """Line by line from the page: the verifier, a prompt, the recipe's name for it."""
    source = block("python", "# sqlrows.py\n")
    assert len(source.splitlines()) <= 36
    Path("sqlrows.py").write_text(source, encoding="utf-8")
    name = re.search(r"verify: (\S+:\S+)", block("yaml"))
    assert name is not None
    import json

    prompt = Prompt.from_json(json.loads(block("json")))
    said = {
        "```sql\nSELECT name FROM people WHERE age > 17;\n```": PASS,
        "First ```sql\nSELECT 1\n```, better:\n```\nselect name from people where age >= 18 order by age\n```": PASS,
        "```sql\nSELECT name FROM people\n```": failing("wrong_answer"),
        "```sql\nSELECT name, age FROM people WHERE age >= 18\n```": failing("wrong_answer"),
        "```sql\nSELECT nam FROM people\n```": failing("sql_error"),
        "```sql\nATTACH DATABASE 'taken.db' AS taken\n```": failing("sql_error"),
        "```sql\nVACUUM INTO 'taken.db'\n```": failing("sql_error"),
        "Ada and Cy": failing("no_answer"),
        "```sql\nWITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT count(*) FROM n\n```": abstaining(
            "verifier_timeout"
        ),
    }
    own.load(name[1])
    with VerifierPool(own.JUDGE, workers=2, seconds=2.0) as pool:
        found = list(pool.map((name[1], prompt, answer) for answer in said))
    assert dict(zip(said, found, strict=True)) == said
    assert not Path("taken.db").exists()


def test_the_pages_example_heeds_the_order_that_was_asked_for() -> None:
    Path("sqlrows.py").write_text(block("python", "# sqlrows.py\n"), encoding="utf-8")
    verify = own.load("sqlrows:verify")
    gold = "SELECT name FROM people ORDER BY age"
    prompt = Prompt("By age?", kind="exact", answer=gold, tests=(CodeTest(PEOPLE, ""),))
    assert verify(prompt, f"```sql\n{gold}\n```") == PASS
    assert verify(prompt, f"```sql\n{gold} DESC\n```") == failing("wrong_answer")
    assert verify(Prompt("By age?", kind="exact"), f"```sql\n{gold}\n```") == abstaining("no_gold")


def test_a_worker_that_was_not_told_the_folder_finds_the_module_too() -> None:
    write("mine_alone.py", "def verify(prompt, answer):\n    return PASS if answer == 'yes' else failing('no')")
    with VerifierPool(own.JUDGE, workers=1) as pool:
        found = list(pool.map([("mine_alone:verify", PROMPT, "yes"), ("mine_alone:verify", PROMPT, "?")]))
    assert found == [PASS, failing("no")]


@pytest.mark.parametrize(
    ("name", "body", "what", "also"),
    [
        ("chemistri:verify", "", "there is no module 'chemistri'; did you mean 'chemistry'?", "chemistry, other"),
        ("chemistry.sub:verify", "", "there is no module 'chemistry.sub'", "working directory"),
        ("chemistry:verfy", "", "module 'chemistry' has no function 'verfy'; did you mean 'verify'?", "verify"),
        ("chemistry:limit", "limit = 3", "'chemistry:limit' is no function", "int"),
        ("chemistry:one", "def one(prompt): ...", "does not take a prompt and an answer", "one(prompt)"),
        ("chemistry:more", "def more(prompt, answer, *, key): ...", "does not take a prompt and an answer", "key"),
        ("chemistry:verify", "import no_such_package", "cannot be imported", "chemistry.py:4: ModuleNotFoundError"),
        ("chemistry:verify", "1 / 0", "cannot be imported", "chemistry.py:4: ZeroDivisionError: division by zero"),
        ("chemistry:verify", "raise SystemExit(3)", "cannot be imported", "SystemExit"),
        ("chemistry:verify", "def (", "cannot be imported", "SyntaxError"),
        ("chemistry", "", "there is no verifier 'chemistry'", "module:function"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name: str, body: str, what: str, also: str) -> None:
    write("other.py", "")
    write("chemistry.py", f"def verify(prompt, answer):\n    return PASS\n{body}")
    with pytest.raises(SpecError) as caught:
        own.load(name)
    assert what in caught.value.what
    assert also in str(caught.value)
    assert caught.value.todo


@pytest.fixture
def installed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that announces the page's verifier, as pip leaves it."""
    (here / "site").mkdir()
    (here / "site" / "sqlrows.py").write_text(block("python", "# sqlrows.py\n"), encoding="utf-8")
    information = here / "site" / "sqlrows-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: sqlrows\nVersion: 1.0\n", encoding="utf-8")
    declared = block("toml")
    assert declared.startswith(f'[project.entry-points."{own.GROUP}"]')
    points = "\n".join(line.replace('"', "") for line in declared.splitlines()[1:])
    (information / "entry_points.txt").write_text(f"[{own.GROUP}]\n{points}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(here / "site"))


@pytest.mark.usefixtures("installed")
def test_an_announced_verifier_goes_by_its_name() -> None:
    assert own.known() == {"sqlrows": "sqlrows:verify"}
    gold = "SELECT name FROM people"
    prompt = Prompt("Names?", kind="exact", answer=gold, tests=(CodeTest(PEOPLE, ""),))
    with VerifierPool(own.JUDGE, workers=1) as pool:
        assert list(pool.map([("sqlrows", prompt, f"```sql\n{gold}\n```")])) == [PASS]
    with pytest.raises(SpecError, match="no verifier 'sqlrow'; did you mean 'sqlrows'") as caught:
        own.load("sqlrow")
    assert "sqlrows" in str(caught.value.todo)


@pytest.mark.parametrize("returned", ["True", "None", "('pass', '')", "1.0"])
def test_what_is_no_outcome_is_an_error_at_the_first_item(returned: str) -> None:
    write("truthful.py", f"def verify(prompt, answer):\n    return {returned}")
    with pytest.raises(SpecError, match="returned no Outcome") as caught:
        own.load("truthful:verify")(PROMPT, "yes")
    assert "return PASS" in str(caught.value)
    with VerifierPool(own.JUDGE, workers=1) as pool:
        assert list(pool.map([("truthful:verify", PROMPT, "yes")])) == [abstaining("verifier_error")]


def test_what_a_verifier_raises_is_told_once_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    write("fragile.py", "def verify(prompt, answer):\n    return {}[answer]")
    with caplog.at_level(logging.WARNING):
        for answer in ("a", "b"):
            with pytest.raises(KeyError):
                own.judge("fragile:verify", PROMPT, answer)
    assert [record.getMessage() for record in caplog.records] == [
        "verifier 'fragile:verify' failed at prompt p7: fragile.py:3: KeyError: 'a'"
    ]


def test_a_module_may_say_how_long_an_item_takes_and_warm_up() -> None:
    write("slow.py", "ready = []\ndef verify(prompt, answer):\n    return PASS\ndef prepare():\n    ready.append(1)")
    assert own.limit("slow:verify", PROMPT) == own.SECONDS
    own.warm_up("slow:verify")
    assert sys.modules["slow"].ready == [1]
    write("slower.py", "def verify(prompt, answer):\n    return PASS\ndef seconds(prompt):\n    return len(prompt.id)")
    assert own.limit("slower:verify", PROMPT) == 2.0
    own.warm_up("slower:verify")


def test_a_module_here_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    write("colorsys.py", "def verify(prompt, answer):\n    return PASS")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(SpecError, match="module 'colorsys' has no function 'verify'") as caught:
        own.load("colorsys:verify")
    assert Path.cwd() not in Path(str(caught.value.given).rsplit(" ", 1)[-1]).parents, "it says which module that is"


def test_a_fingerprint_changes_with_the_source_and_with_nothing_else() -> None:
    write("mine.py", "def verify(prompt, answer):\n    return PASS")
    first = own.fingerprint("mine:verify")
    write("unrelated.py", "")
    assert own.fingerprint("mine:verify") == first
    assert len(first) == 16
    write("mine.py", "def verify(prompt, answer):\n    return failing('no')")
    assert own.fingerprint("mine:verify") != first


def test_a_package_is_fingerprinted_as_a_whole() -> None:
    write("kit/__init__.py", "")
    write("kit/rules.py", "LIMIT = 3")
    write("kit/main.py", "def verify(prompt, answer):\n    return PASS")
    assert own.load("kit.main:verify")(PROMPT, "") == PASS
    first = own.fingerprint("kit.main:verify")
    write("kit/rules.py", "LIMIT = 4")
    assert own.fingerprint("kit.main:verify") != first
    with pytest.raises(SpecError):
        own.fingerprint("kit.none:verify")


def test_the_outcome_is_the_verifiers_own() -> None:
    write(
        "scored.py",
        "from distill.verify import Outcome\ndef verify(prompt, answer):\n    return Outcome('pass', '', 0.5)",
    )
    assert own.load("scored:verify")(PROMPT, "") == Outcome("pass", "", 0.5)
