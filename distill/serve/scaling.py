"""How many replicas are wanted, from the length of their queues. Pure: asks nobody, starts nothing, has no clock.

A replica that starts costs minutes, so both directions want to be sure: the queue has to stay long, or the load low, at
every look for some time, and each change begins the waiting anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SCALE_UP_SECONDS = 60.0
"""The queue has to stay long for so long: a burst is over by then, and a large model takes longer to load."""
SCALE_DOWN_SECONDS = 300.0
"""The load has to stay low for so long: starting again what was stopped costs more than waiting."""
QUEUE_SHARE = 0.25
"""A queue is long when it is more than this share of what the ready replicas run at once: then a further replica would
have something to do, and shorten what everybody waits for."""
LOW_SHARE = 0.6
"""One fewer would do when nothing waits and all that runs would take less than this share of the places of those that
stay: it fits in without a queue, so that one that goes is not called back."""


@dataclass(frozen=True, slots=True)
class Load:
    """What all ready replicas tell together (vLLM's num_requests_waiting and num_requests_running), and how many
    requests one of them runs at once at most (its max_num_seqs). `starting` counts replicas that are not ready yet."""

    ready: int
    starting: int
    waiting: int
    running: int
    most_running: int


@dataclass(frozen=True, slots=True)
class Scaling:
    """What is remembered between two looks: since when the queue is long, since when the load is low, and the most
    requests that a replica ran while others waited: a full KV cache lets it run fewer than `most_running`."""

    long_since: float | None = None
    low_since: float | None = None
    full: float | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The number of replicas to have, why it changes (None where it does not), and what to remember."""

    replicas: int
    why: str | None
    scaling: Scaling


def wanted(now: float, load: Load, before: Scaling, *, least: int, most: int) -> Wanted:
    """How many replicas to have at second `now`, given what was remembered at the look before. Between `least` and
    `most`; changes by one, and never while one starts, but for a number that is out of these bounds."""
    have = load.ready + load.starting
    bounded = min(max(have, least), most)
    if bounded != have:
        return Wanted(bounded, f"{have} replicas are not between {least} and {most}", Scaling(full=before.full))
    if load.starting or not load.ready:
        return Wanted(have, None, Scaling(full=before.full))
    full = max(before.full or 0.0, load.running / load.ready) if load.waiting else before.full
    each = load.most_running if full is None else min(full, load.most_running)
    places, fewer = round(load.ready * each), round((load.ready - 1) * each)
    long = load.waiting > QUEUE_SHARE * places
    low = not load.waiting and load.running < LOW_SHARE * fewer
    scaling = Scaling(_since(now, before.long_since, long), _since(now, before.low_since, low), full)
    if have < most and _lasts(now, scaling.long_since, SCALE_UP_SECONDS):
        why = f"{load.waiting} requests wait, more than {QUEUE_SHARE:.0%} of {places} places, for"
        return Wanted(have + 1, f"{why} {SCALE_UP_SECONDS:.0f} s", Scaling(full=full))
    if have > least and _lasts(now, scaling.low_since, SCALE_DOWN_SECONDS):
        why = f"{load.running} requests run, less than {LOW_SHARE:.0%} of the {fewer} places of one replica fewer, for"
        return Wanted(have - 1, f"{why} {SCALE_DOWN_SECONDS:.0f} s", Scaling(full=full))
    return Wanted(have, None, scaling)


def no_room(now: float, scaling: Scaling) -> Scaling:
    """What to remember when the replica that was wanted has no place: it is asked for again after the same time."""
    return replace(scaling, long_since=now)


def _since(now: float, before: float | None, holds: bool) -> float | None:
    return (now if before is None else before) if holds else None


def _lasts(now: float, since: float | None, seconds: float) -> bool:
    return since is not None and now - since >= seconds
