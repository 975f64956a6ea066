"""What the licences of teacher, base and prompts ask of a student and of a set of traces that are passed on.

Rules of known licences, as a publisher would read them; no advice by a lawyer, and it says so where it refuses. Knows
nothing about repositories.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Licence:
    """`hub` is its name in a card's metadata, `link` its text."""

    hub: str
    title: str
    link: str
    commercial: bool = True
    share_alike: bool = False
    llama: str | None = None
    """Version of Llama whose community licence this is: it asks for a name, a notice and its own text."""


def _cc(parts: str, version: str = "4.0") -> Licence:
    return Licence(
        f"cc-{parts}-{version}",
        f"CC {parts.upper()} {version}",
        f"https://creativecommons.org/licenses/{parts}/{version}/",
        commercial="nc" not in parts,
        share_alike="sa" in parts,
    )


def _llama(version: str) -> Licence:
    short = version.replace(".", "_")
    return Licence(
        f"llama{version}",
        f"Llama {version} Community License",
        f"https://www.llama.com/llama{short}/license/",
        llama=version,
    )


LICENCES: Mapping[str, Licence] = {
    licence.hub: licence
    for licence in (
        Licence("mit", "MIT", "https://opensource.org/license/mit"),
        Licence("apache-2.0", "Apache 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
        Licence("bsd-3-clause", "BSD 3-Clause", "https://opensource.org/license/bsd-3-clause"),
        Licence("cc0-1.0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        Licence("cc", "a Creative Commons licence of no named kind", "https://creativecommons.org/licenses/"),
        _cc("by"),
        _cc("by-sa"),
        _cc("by-nc"),
        _cc("by-nc-sa"),
        _cc("by", "3.0"),
        _cc("by-sa", "3.0"),
        _cc("by-nc", "3.0"),
        _llama("3.1"),
        _llama("3.2"),
        _llama("3.3"),
    )
}
"""Name in a card (huggingface.co/docs/hub/repositories-licenses) → what it asks for."""

NOTICE = (
    "Llama {version} is licensed under the Llama {version} Community License, "
    "Copyright © Meta Platforms, Inc. All Rights Reserved."
)
"""The notice that has to stand in a file of that name beside the weights (Llama 3.1, 3.2 and 3.3 licences, 1.b.iii)."""
BUILT_WITH = "Built with Llama"
"""What has to be shown prominently (the same, 1.b.i)."""


def known(name: str) -> Licence | None:
    """A licence by its name in a card; None for one whose terms are not in the table. Llamas of other
    versions are under Meta's licence of theirs: since Llama 3 they all ask for the same."""
    if name in LICENCES:
        return LICENCES[name]
    version = re.fullmatch(r"llama-?(\d+(?:\.\d+)?)", name)
    return _llama(version[1]) if version and float(version[1]) >= 3 else None


def named(text: str | None) -> tuple[str, ...]:
    """The licences that a spec names, by their names in a card: `MIT, llama3.1` → (`mit`, `llama3.1`)."""
    found = tuple(part.strip().lower() for part in (text or UNKNOWN).split(",") if part.strip())
    return found or (UNKNOWN,)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something that stands in the way of passing a thing on, and what would remove it."""

    about: Literal["student", "traces"]
    what: str
    todo: str

    def __str__(self) -> str:
        return f"{self.what} ({self.todo})"


@dataclass(frozen=True, slots=True)
class Terms:
    """`student` and `traces`: the licences to name in their cards. `llama` is a version whose licence the student's
    name, card and files have to follow."""

    student: tuple[str, ...]
    traces: tuple[str, ...]
    conflicts: tuple[Conflict, ...]
    llama: str | None = None


def terms(
    *,
    teacher: str | None,
    base: str | None,
    prompts: Mapping[str, str | None],
    name: str,
    licence_text: bool,
    chosen: str | None = None,
) -> Terms:
    """What applies to a student of this base, taught by this teacher on these prompts (source → licence).

    `name` is the repository's own name, without the organisation; `licence_text` whether the base's licence is at hand
    to be put beside the weights; `chosen` the licence that the user wants for the student.
    """
    of_base, of_teacher = named(base), named(teacher)
    student = named(chosen) if chosen else of_base
    conflicts = [
        *_unknown(of_base, of_teacher, student),
        *_of_prompts(prompts, student),
        *_chosen(of_base, student, chosen),
    ]
    found = [licence.llama for licence in map(known, (*of_base, *of_teacher)) if licence is not None]
    llama = next((version for version in found if version), None)
    if llama is not None:
        conflicts += _as_llama(llama, name, in_base=any(_is_llama(one) for one in of_base), text=licence_text)
    traces = tuple(sorted({*of_teacher, *(one for text in prompts.values() for one in named(text))}))
    return Terms(student, traces, (*conflicts, *_of_traces(prompts)), llama)


def _unknown(of_base: tuple[str, ...], of_teacher: tuple[str, ...], student: tuple[str, ...]) -> list[Conflict]:
    """What nobody names, and what has a name but no terms in the table: neither is free to be passed on."""
    found = []
    if UNKNOWN in of_base:
        todo = "name it in the student's spec, as `license`"
        found.append(Conflict("student", "nobody says under which licence the student's base is", todo))
    if UNKNOWN in of_teacher:
        what, todo = (
            "nobody says under which licence the teacher's outputs are",
            "name it with --teacher-license, or in the teacher's spec",
        )
        found += [Conflict("student", what, todo), Conflict("traces", what, todo)]
    for about, names in (("its base", of_base), ("it", student), ("its teacher", of_teacher)):
        for name in names:
            if name != UNKNOWN and known(name) is None and not (about == "it" and name in of_base):
                what = f"{about} is under {name}, whose terms are not known here"
                todo = "read them; where they allow it, publish with --anyway"
                found.append(Conflict("student", what, todo))
                found += [Conflict("traces", what, todo)] if about == "its teacher" else []
    return found


def _of_prompts(prompts: Mapping[str, str | None], student: tuple[str, ...]) -> list[Conflict]:
    """Prompts whose licence the student's would go beyond."""
    free = [one for one in student if _commercial(one)]
    limited = sorted(source for source, text in prompts.items() if not _commercial(text))
    if not free or not limited:
        return []
    listed = ", ".join(f"{source} ({prompts[source]})" for source in limited)
    return [
        Conflict(
            "student",
            f"it learned from prompts that are not for commercial use, {listed}, and would be offered for it under "
            + ", ".join(student),
            "offer it under such a licence too: --license cc-by-nc-4.0; or train without them",
        )
    ]


def _chosen(of_base: tuple[str, ...], student: tuple[str, ...], chosen: str | None) -> list[Conflict]:
    """A base's licence that goes on to whatever is made from it cannot be exchanged."""
    bound = [one for one in of_base if (found := known(one)) is not None and (found.llama or found.share_alike)]
    bound += [one for one in of_base if not _commercial(one) and one not in bound]
    if chosen and any(one not in student for one in bound):
        return [
            Conflict("student", f"its base is under {', '.join(bound)}, which stays with it", "leave --license out")
        ]
    return []


def _as_llama(version: str, name: str, *, in_base: bool, text: bool) -> list[Conflict]:
    found = []
    if not name.lower().startswith("llama"):
        how = "is made from Llama" if in_base else "learned from what a Llama wrote"
        what = f"it {how}, whose licence asks for a name that begins with Llama, and is called {name}"
        found.append(Conflict("student", what, f"--repo ORG/Llama-{name}"))
    if in_base and not text:
        what = f"the Llama {version} licence asks that its text goes with the weights, and it is not at hand"
        found.append(Conflict("student", what, "give it: --license-file FILE, the base's own LICENSE"))
    return found


def _of_traces(prompts: Mapping[str, str | None]) -> list[Conflict]:
    """The set holds the questions themselves."""
    found = []
    unknown = sorted(source for source, text in prompts.items() if UNKNOWN in named(text))
    if unknown:
        what = f"nobody says under which licence the prompts of {', '.join(unknown)} are, and the traces hold them"
        todo = "name it with --prompts-license, or leave the traces out: --without traces"
        found.append(Conflict("traces", what, todo))
    strange = sorted({one for text in prompts.values() for one in named(text) if known(one) is None} - {UNKNOWN})
    if strange:
        what = f"prompts are under {', '.join(strange)}, whose terms are not known here"
        todo = "read them; where they allow it, publish with --anyway; else --without traces"
        found.append(Conflict("traces", what, todo))
    alike = {
        one
        for text in prompts.values()
        for one in named(text)
        if (licence := known(one)) is not None and licence.share_alike
    }
    others = {one for text in prompts.values() for one in named(text) if not _commercial(one)} - alike
    if len(alike) > 1 or (alike and others):
        what = f"the prompts are under licences that no one set can follow: {', '.join(sorted(alike | others))}"
        found.append(Conflict("traces", what, "leave the traces out: --without traces; or sample the sources apart"))
    return found


def _commercial(text: str | None) -> bool:
    """A name that says so of itself is believed, in the table or not."""
    return all(
        licence.commercial if (licence := known(one)) is not None else not re.search(r"\bnc\b|non-?commercial", one)
        for one in named(text)
    )


def _is_llama(name: str) -> bool:
    licence = known(name)
    return licence is not None and licence.llama is not None


def card_license(names: Iterable[str]) -> str | list[str]:
    """As a card's metadata has it: one name, or a list of several; what the Hub does not know is `other`."""
    found = [licence.hub if (licence := known(name)) is not None else "other" for name in names]
    unique = list(dict.fromkeys(found))
    return unique[0] if len(unique) == 1 else unique
