"""Where a teacher answers: the servers of a recipe, and a file of servers that may change while sampling goes on.

The file is JSON: `{"endpoints": [{"name": "replica-0", "url": "http://gpu1:8000/v1", "model": "...", "key_file":
"serve/key"}]}`; all but `url` may be left out. `key_file`, relative to the file itself, holds the key that the server
requires: the key stands in no file that is shown or copied with a run. A service that writes the file again every few
seconds says so under `service`: how many servers it is starting, or why it ended. Knows nothing about what is asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.engines import Engine
from distill.errors import EndpointError, SpecError, UsageError, near
from distill.progress import say
from distill.teacher_specs import TeacherSpec

KEYS = ("name", "url", "model", "key_file")


@dataclass(frozen=True, slots=True)
class Place:
    """One server: the name that its traces carry, its address, and the model's name there where it differs."""

    name: str
    url: str
    model: str | None = None
    key_file: Path | None = None

    def key(self) -> str | None:
        """What the server requires, None where nothing is said of it. Raises SpecError for a file that is not there."""
        if self.key_file is None:
            return None
        try:
            return self.key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            todo = "start the service that wrote it again, as the user who reads it"
            raise SpecError(
                f"the key of {self.name} cannot be read: {error.strerror}: {self.key_file}", todo=todo
            ) from error


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
    key = entry.get("key_file")
    key_file = path.parent / key if key is not None else None
    if key_file is not None and not key_file.resolve().is_relative_to(path.parent.resolve()):
        what = f"{where}.key_file lies outside the folder of this file, whose servers would be sent its content"
        raise SpecError(what, given=str(key), todo="name a file in that folder, relative to it")
    return Place(entry.get("name") or f"endpoint-{number}", entry["url"], entry.get("model"), key_file)


@dataclass(frozen=True, slots=True)
class ServiceWords:
    """What the service that writes a file of servers says of itself."""

    starting: int = 0
    """Servers that are being started."""
    ended: str | None = None
    """Why it gave up; whoever waits for it need wait no longer."""
    given: str | None = None
    todo: str | None = None


STALE_SECONDS = 120.0
"""A service writes its file every 10 s: one that has not for so long is gone. Clocks of shared file systems may differ
a little."""


def read_service(path: Path) -> ServiceWords | None:
    """What a service says in its file of servers; None where nobody but a person writes it, or where it is not read."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["service"]
        return ServiceWords(**{name: told.get(name) for name in ServiceWords.__slots__ if told.get(name) is not None})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def serves(path: Path, spec: TeacherSpec) -> bool:
    """Whether the servers in a file are this teacher's, as far as they say whose they are."""
    return all(place.model in (None, spec.model, spec.name) for place in read_places(path))


def is_current(path: Path) -> bool:
    """Whether a file of servers is there and not one that a service left behind which is gone."""
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return False
    words = read_service(path)
    return words is None or (words.ended is None and age < STALE_SECONDS)


class LiveFile:
    """A Roster that follows a file of servers. One that cannot be read is told once, and the servers stay as they are.

    `build` makes the engine of a place; its name is the place's.
    """

    def __init__(self, path: Path, build: Callable[[Place], Engine]) -> None:
        self.path, self._build = path, build
        self._seen: tuple[int, int] | None = self._state()
        self._unread = False
        self.places = {place.name: place for place in read_places(path)}
        self.service = read_service(path)

    def coming(self) -> bool:
        """Whether the service that writes the file lives and is starting servers."""
        return self.service is not None and self.service.starting > 0 and is_current(self.path)

    def ended(self) -> EndpointError | None:
        """Why there will be no server any more, where the service said so."""
        words = self.service
        if words is None or words.ended is None:
            return None
        return EndpointError(words.ended, given=words.given, todo=words.todo)

    def changes(self, known: Sequence[str]) -> tuple[list[Engine], list[str]] | None:
        """Engines of the places that came, and names of those that went; a place at another address is both."""
        state = self._state()
        if state == self._seen:
            return None
        try:
            now = {place.name: place for place in read_places(self.path)}
            went = [name for name in known if now.get(name) != self.places.get(name)]
            came = [self._build(place) for name, place in now.items() if name not in known or name in went]
        except SpecError as error:  # its file, or that of a key; a reader may have come between two writings
            if not self._unread:
                say(f"{error.what}; the servers stay as they were")
            self._unread = True
            return None
        self._seen, self._unread = state, False
        self.service = read_service(self.path)
        self.places = now
        return came, went

    def _state(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None  # being replaced, or gone: nothing new is known
        return status.st_mtime_ns, status.st_size
