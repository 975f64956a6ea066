"""Requests to the Hub that are made again where another try may help, and errors that say what to do.

Every request of a publication may be repeated: what it wants is looked at first, or is the same a second time.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from distill.errors import DistillError, PublishError
from distill.progress import say

Found = TypeVar("Found")

TRIES = 8
"""With the pauses below about two minutes: longer outages are for the next start, which goes on where it ended."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds, doubled from try to try."""
AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another try may not meet."""
CONFLICT = (409, 412)
"""Somebody else committed in between: look again, then decide."""
ADDRESS = re.compile(r"https?://\S+")
GOES_ON = "start the same command again: it goes on where this one ended"


def asked(what: str, call: Callable[[], Found], pause: Callable[[float], None] = time.sleep) -> Found:
    """What `call` returns, tried again after connections that broke, limits on the rate and errors of the server.

    Raises PublishError when the last try failed or none could have helped.
    """
    for number in range(1, TRIES + 1):
        try:
            return call()
        except Exception as error:  # sorted by what it is; the client wraps some
            seconds = worth_another(error)
            if seconds is None:
                raise explained(what, error) from error
            if number == TRIES:
                raise explained(what, error) from error
            wait(what, error, number, seconds, pause)
    raise AssertionError


def wait(what: str, error: BaseException, number: int, seconds: float, pause: Callable[[float], None]) -> None:
    """Before try `number` + 1; `seconds` is what the server asked for, 0 where it asked for nothing."""
    own = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (number - 1)) * random.uniform(0.5, 1.0)
    waited = max(seconds, own)
    say(f"publish: {what}: {reason(error)}; again in {waited:.0f} s ({number} of {TRIES - 1})")
    pause(waited)


def worth_another(error: BaseException) -> float | None:
    """Seconds that the server wants to be left alone for, 0 where it names none; None where no try would help."""
    import httpx
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, DistillError):
        return None
    for cause in causes(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return None
        response = getattr(cause, "response", None)
        if response is not None:
            expired = response.status_code == 403 and not _of_the_hub(response)
            if response.status_code not in AGAIN and not expired:
                return None
            return _asked_to_wait(response.headers)
        if isinstance(cause, httpx.TransportError | ConnectionError | TimeoutError):
            return 0.0
    return 0.0 if type(causes(error)[-1]) is RuntimeError else None  # Xet's, which tells what went wrong as text alone


def _asked_to_wait(headers: Any) -> float:
    """Seconds, from either header that the Hub tells its limits by."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    told = headers.get("Retry-After", "")
    if told.isdigit():
        return float(told)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else 0.0


def conflicts(error: BaseException) -> bool:
    """Whether the branch has moved since it was looked at."""
    return any(getattr(getattr(one, "response", None), "status_code", None) in CONFLICT for one in causes(error))


def status_of(error: BaseException) -> int | None:
    """Status of the answer that an error is about."""
    found = (getattr(getattr(one, "response", None), "status_code", None) for one in causes(error))
    return next((status for status in found if status is not None), None)


def causes(error: BaseException) -> list[BaseException]:
    """An error and what it came of, the outermost first."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def _of_the_hub(response: Any) -> bool:
    """Whether an answer is the Hub's own, and not that of the storage behind it, whose links expire."""
    path = response.request.url.path if response.request is not None else "/api/"
    return "/api/" in path or ".git/info/lfs/" in path


def reason(error: BaseException) -> str:
    """One line without addresses, which name hosts and may hold signatures."""
    status = status_of(error)
    if status is not None:
        said = next(
            (one.response.headers.get("X-Error-Message") for one in causes(error) if hasattr(one, "response")), None
        )
        return f"the Hub answered {status}" + (f" ({said})" if said else "")
    inner = causes(error)[-1]
    said = " ".join(ADDRESS.sub("…", str(inner)).split())[:300]
    return f"{type(inner).__name__}" + (f": {said}" if said else "")


def explained(what: str, error: BaseException) -> PublishError:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes(error)):
        return PublishError(f"{what}: the client is set to stay offline", todo="unset HF_HUB_OFFLINE")
    status = status_of(error)
    todo = {
        401: "log in with `hf auth login`, or put a valid token into HF_TOKEN",
        402: "the account has no space left or this needs a paid plan: see its settings on the Hub",
        403: "use a token that may write to this repository (https://huggingface.co/settings/tokens)",
        413: "the Hub takes no file of this size: save the model in smaller shards",
    }.get(status or 0, GOES_ON)
    return PublishError(f"{what}: {reason(error)}", given=None, todo=todo)
