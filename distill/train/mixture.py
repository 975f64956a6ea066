"""Which traces make up each optimizer step: phases, weights per domain, order. Random access, nothing is replayed.

Everything follows from the seed, so that a training resumed at step k sees what it would have seen. Knows nothing about
tokens beyond their number, models or files.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from distill.errors import SpecError, TrainingError, near
from distill.files import sha256_of
from distill.train_specs import Phase

Indices = npt.NDArray[np.int64]

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class PhasePosition:
    """A step inside its phase: `step_in_phase` of `steps_in_phase`, from 0; `index` is the phase's own number."""

    phase: Phase
    index: int
    step_in_phase: int
    steps_in_phase: int


class Schedule:
    """The batches of a whole training, phase after phase.

    In an epoch a domain of weight w has each of its traces floor(w) times, and a share of them once more, as large as
    the rest of w: another share every epoch until all had their turn. Epochs end with a smaller batch where the numbers
    do not divide. Traces are shuffled anew in every epoch; `short_first` and `easy_first` sort every epoch, equals
    shuffled among themselves.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int32],
        domains: Sequence[str | None],
        difficulty: Sequence[str | None],
        phases: Sequence[Phase],
        batch_size: int,
        seed: int,
        *,
        within: Indices | None = None,
    ) -> None:
        """`lengths`, `domains` and `difficulty` are those of every trace; of these only `within` take part, by default
        all. Raises SpecError for a domain that no trace has, TrainingError for a phase that cannot be trained."""
        everything = np.arange(len(lengths)) if within is None else within
        known = sorted({domain for domain in domains if domain is not None})
        for phase in phases:
            _refuse_unknown_domains(phase, known)
        self._phases = [
            _PhasePlan(phase, number, lengths, domains, difficulty, everything, batch_size, seed)
            for number, phase in enumerate(phases)
        ]
        self._ends = list(accumulate(plan.steps for plan in self._phases))

    @property
    def steps(self) -> int:
        return self._ends[-1]

    def phase_at(self, step: int) -> PhasePosition:
        """Raises IndexError beyond the last step."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of {self.steps}")
        number = bisect.bisect_right(self._ends, step)
        plan = self._phases[number]
        return PhasePosition(plan.phase, number, step - (self._ends[number] - plan.steps), plan.steps)

    def batch(self, step: int) -> Indices:
        """Indices of the step's traces; one with a weight of more than 1 may stand in it twice."""
        position = self.phase_at(step)
        return self._phases[position.index].batch(position.step_in_phase)


class _PhasePlan:
    """The epochs of one phase."""

    def __init__(
        self,
        phase: Phase,
        number: int,
        lengths: npt.NDArray[np.int32],
        domains: Sequence[str | None],
        difficulty: Sequence[str | None],
        within: Indices,
        batch_size: int,
        seed: int,
    ) -> None:
        self.phase, self._batch_size, self._seed = phase, batch_size, [seed, number]
        members = _members(phase, lengths, domains, within)
        self._shares = [
            (Fraction(str(_weight(phase, domain))), self._shuffled(indices, "domain", domain))
            for domain, indices in members.items()
        ]
        self._keys = _sort_keys(phase, lengths, difficulty, np.concatenate([ids for _, ids in self._shares]))
        whole, part = divmod(Fraction(str(phase.epochs)), 1)
        per_epoch = [-(-self._size(epoch) // batch_size) for epoch in range(int(whole) + bool(part))]
        self._ends = list(accumulate(per_epoch))
        unfinished = (1 - part) * per_epoch[-1] if part else Fraction(0)
        self.steps = max(1, round(self._ends[-1] - unfinished))
        self._latest: tuple[int, Indices] | None = None

    def batch(self, step: int) -> Indices:
        epoch = bisect.bisect_right(self._ends, step)
        start = (step - (self._ends[epoch - 1] if epoch else 0)) * self._batch_size
        return self._epoch(epoch)[start : start + self._batch_size]

    def _size(self, epoch: int) -> int:
        return sum(len(_turn(indices, weight, epoch)) for weight, indices in self._shares)

    def _epoch(self, epoch: int) -> Indices:
        if self._latest is None or self._latest[0] != epoch:
            parts = [_turn(indices, weight, epoch) for weight, indices in self._shares]
            order = self._shuffled(np.concatenate(parts), "epoch", epoch)
            if self._keys is not None:
                order = order[np.argsort(self._keys[order], kind="stable")]
            self._latest = epoch, order
        return self._latest[1]

    def _shuffled(self, indices: Indices, *purpose: str | int | None) -> Indices:
        # RandomState, because numpy promises that its stream never changes: a training can be resumed years later
        state = np.random.RandomState(int(sha256_of([*self._seed, *purpose])[:8], 16))
        return indices[state.permutation(len(indices))]


def _turn(indices: Indices, weight: Fraction, epoch: int) -> Indices:
    """What of a domain an epoch has. The share goes round the domain, and none is missed or repeated at its edges."""
    whole, part = divmod(weight, 1)
    start, end = (-(-turn * part * len(indices) // 1) for turn in (epoch, epoch + 1))
    share = indices[np.arange(int(start), int(end)) % len(indices)]
    return np.concatenate([*[indices] * int(whole), share])


def _weight(phase: Phase, domain: str | None) -> float:
    return 1.0 if domain is None else phase.mixture.get(domain, 1.0)


def _refuse_unknown_domains(phase: Phase, known: list[str]) -> None:
    for domain in phase.mixture:
        if domain not in known:
            raise SpecError(
                f"no kept trace is of the domain '{domain}'{near(domain, known)}",
                given=f"the mixture of {_named(phase)}",
                todo=f"this run's domains: {', '.join(known) or 'none'}",
            )


def _members(
    phase: Phase, lengths: npt.NDArray[np.int32], domains: Sequence[str | None], within: Indices
) -> dict[str | None, Indices]:
    """Domain → its traces that take part. Raises TrainingError, with the reason, when there are none at all."""
    longest = phase.longest if phase.longest is not None else np.iinfo(np.int32).max
    fitting = within[(lengths[within] >= phase.shortest) & (lengths[within] <= longest)]
    found: dict[str | None, list[int]] = {}
    for index in fitting.tolist():
        found.setdefault(domains[index], []).append(index)
    weighted = {domain: np.array(ids) for domain, ids in found.items() if _weight(phase, domain) > 0}
    if weighted:
        return weighted
    if not len(within):
        why = "no trace fits the context"
    elif not len(fitting):
        upper = f" and at most {phase.longest:,}" if phase.longest is not None else ""
        why = f"none of the {len(within):,} traces has at least {phase.shortest:,}{upper} tokens"
    else:
        zero = ", ".join(sorted(domain for domain in found if domain is not None))
        why = f"the mixture gives all of the {len(fitting):,} traces the weight 0: {zero}"
    raise TrainingError(
        f"{_named(phase)} has nothing to train on",
        given=why,
        todo="change train.mixture, shortest, longest or context_length",
    )


def _sort_keys(
    phase: Phase, lengths: npt.NDArray[np.int32], difficulty: Sequence[str | None], members: Indices
) -> npt.NDArray[np.float64] | None:
    """Trace → what it is sorted by, None where it is not."""
    if phase.order == "shuffled":
        return None
    if phase.order == "short_first":
        return lengths.astype(np.float64)
    keys = np.full(len(lengths), np.inf)
    keys[members] = hardness([difficulty[index] for index in members.tolist()])
    unknown = int(np.isinf(keys[members]).sum())
    if 2 * unknown > len(members):
        raise TrainingError(
            f"{_named(phase)} cannot go from easy to hard: most of its prompts have no number as their difficulty",
            given=f"{unknown:,} of {len(members):,} traces",
            todo="use train.order: short_first or shuffled, or name the column in the source spec (columns.difficulty)",
        )
    return keys


def hardness(labels: Sequence[str | None]) -> npt.NDArray[np.float64]:
    """The number in each label (`Level 5` → 5), infinity where there is none: those come last.

    Numbers of which none leaves 0 to 1 and some are broken are solve rates, and turned round: a high one is easy.
    """
    matches = [_NUMBER.search(label) if label else None for label in labels]
    numbers = np.array([float(match[0]) if match else np.inf for match in matches])
    given = numbers[np.isfinite(numbers)]
    if len(given) and given.min() >= 0 and given.max() <= 1 and (given % 1 != 0).any():
        numbers[np.isfinite(numbers)] *= -1
    return numbers


def _named(phase: Phase) -> str:
    return f"the phase '{phase.name}'" if phase.name else "the training"
