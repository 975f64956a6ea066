"""Where a teacher answers: the servers of a recipe, and a file of servers that may change while sampling goes on.

The file is JSON: `{"endpoints": [{"name": "replica-0", "url": "http://gpu1:8000/v1", "model": "..."}]}`; `name` and
`model` may be left out. Knows nothing about what is asked there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.engines import Engine
from distill.errors import SpecError, UsageError, near
from distill.progress import say

KEYS = ("name", "url", "model")


@dataclass(frozen=True, slots=True)
class Place:
    """One server: the name that its traces carry, its address, and the model's name there where it differs."""

    name: str
    url: str
    model: str | None = None


def named(urls: Sequence[str]) -> list[Place]:
    """Places for addresses of the command line: `openai` for one, `openai-0`, `openai-1`, … for several."""
    if len(set(urls)) < len(urls):
        raise UsageError("a url is given twice", given=", ".join(urls), todo="name each server once")
    return [Place("openai" if len(urls) == 1 else f"openai-{number}", url) for number, url in enumerate(urls)]


def read_places(path: Path) -> list[Place]:
    """The servers in a file. Raises SpecError naming the file, the entry and what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        todo = "start the servers that write it, or correct generate.endpoints"
        raise SpecError(f"{path} cannot be read: {error.strerror}", todo=todo) from error
    except ValueError as error:
        raise SpecError(f"{path} is not JSON: {error}") from error
    entries = content.get("endpoints") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        todo = 'write it as {"endpoints": [{"name": "replica-0", "url": "http://HOST:PORT/v1"}]}'
        raise SpecError(f"{path}: there is no list `endpoints`", todo=todo)
    places = [_place(path, number, entry) for number, entry in enumerate(entries)]
    for key, values in (("name", [p.name for p in places]), ("url", [p.url for p in places])):
        doubled = next((value for value in values if values.count(value) > 1), None)
        if doubled is not None:
            raise SpecError(f"{path}: two endpoints have the same {key}", given=doubled)
    return places


def _place(path: Path, number: int, entry: Any) -> Place:
    where = f"{path}: endpoints.{number}"
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        raise SpecError(f"{where} has no url", todo="each entry needs a url, such as http://HOST:PORT/v1")
    for key, value in entry.items():
        if key not in KEYS:
            raise SpecError(f"{where}: unknown key '{key}'{near(key, list(KEYS))}", todo=f"known: {', '.join(KEYS)}")
        if value is not None and not isinstance(value, str):
            raise SpecError(f"{where}.{key} is no text", given=repr(value)[:80])
    if "@" in entry["url"].partition("://")[2].partition("/")[0]:
        raise SpecError(f"{where}: the url holds a login", todo="put a key into the variable of generate.api_key_env")
    return Place(entry.get("name") or f"endpoint-{number}", entry["url"], entry.get("model"))


class LiveFile:
    """A Roster that follows a file of servers. One that cannot be read is told once, and the servers stay as they are.

    `build` makes the engine of a place; its name is the place's.
    """

    def __init__(self, path: Path, build: Callable[[Place], Engine]) -> None:
        self.path, self._build = path, build
        self._seen: tuple[int, int] | None = self._state()
        self.places = {place.name: place for place in read_places(path)}

    def changes(self, known: Sequence[str]) -> tuple[list[Engine], list[str]] | None:
        """Engines of the places that came, and names of those that went; a place at another address is both."""
        state = self._state()
        if state == self._seen:
            return None
        self._seen = state
        try:
            now = {place.name: place for place in read_places(self.path)}
        except SpecError as error:
            say(f"{error.what}; the servers stay as they were")
            return None
        went = [name for name in known if now.get(name) != self.places.get(name)]
        came = [place for name, place in now.items() if name not in known or name in went]
        self.places = now
        return [self._build(place) for place in came], went

    def _state(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None  # being replaced, or gone: nothing new is known
        return status.st_mtime_ns, status.st_size
