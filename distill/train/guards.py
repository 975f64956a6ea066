"""What stops a training: a loss that is no number or jumps, and a disk that would fill up. Knows nothing of models."""

from __future__ import annotations

import math
import shutil
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from distill.errors import DiskFullError, TrainingError

WINDOW = 100
"""Steps whose median loss a step is compared with."""
LEAST_STEPS = 20
"""Steps before the first comparison: the loss of a new student falls too fast for a median to tell anything."""
NAMED = 8
"""Traces of a step that an error names."""
NO_NUMBER_TODO = (
    "lower train.learning_rate, or use train.precision: fp32; that is another training, which starts from the beginning"
)


class LossGuard:
    """Looks at every step's loss before the optimizer uses its gradient, so that no weight ever sees a bad one.

    `max_jump` is in nats per token; None lets jumps pass. The median stands for the level, because a mean would rise
    with the very spikes it has to find.
    """

    def __init__(self, max_jump: float | None, window: int = WINDOW) -> None:
        self.max_jump = max_jump
        self._losses: deque[float] = deque(maxlen=window)

    def check(
        self, step: int, loss: float, norm: float, trace_ids: Sequence[str], losses: Sequence[float] | None = None
    ) -> None:
        """`step` counts from 1; `losses` are the traces' own means, in their order, where they are known.

        Raises TrainingError for a loss or gradient norm that is no number, and for a loss more than `max_jump` above
        the median of the steps before.
        """
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise TrainingError(
                f"the loss is not a number at step {step}",
                given="traces " + _named(trace_ids, losses),
                todo=NO_NUMBER_TODO,
            )
        if self.max_jump is not None and len(self._losses) >= LEAST_STEPS:
            median = statistics.median(self._losses)
            if loss > median + self.max_jump:
                over, count = loss - median, len(self._losses)
                raise TrainingError(
                    f"the loss jumps to {loss:.3f} at step {step}, {over:.3f} above the median {median:.3f} of the "
                    f"{count} steps before",
                    given="traces " + _named(trace_ids, losses),
                    todo="look at them with `distill show RUN`; exclude what is broken with a stricter filter.keep, or "
                    "lower train.learning_rate; to let such steps pass, set train.max_loss_jump: null "
                    f"(now {self.max_jump:g})",
                )
        self._losses.append(loss)

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint has to keep, so that a resumed training stops where an unstopped one would have."""
        return {"window": self._losses.maxlen, "losses": list(self._losses)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any], max_jump: float | None) -> LossGuard:
        guard = cls(max_jump, int(state["window"]))
        guard._losses.extend(map(float, state["losses"]))
        return guard


def _named(trace_ids: Sequence[str], losses: Sequence[float] | None) -> str:
    """The first traces, or those with the highest loss where it is known: no number counts as higher than any."""
    if losses is None:
        return ", ".join(trace[:12] for trace in trace_ids[:NAMED])
    pairs = zip(trace_ids, losses, strict=True)
    worst = sorted(pairs, key=lambda pair: -pair[1] if math.isfinite(pair[1]) else -math.inf)
    return ", ".join(f"{trace[:12]} ({loss:.3f})" for trace, loss in worst[:NAMED])


# --- the disk --------------------------------------------------------------------------------------------------------

SAVED_BYTES = 2
"""Bytes of a weight in `student/` and `untrained/`: bfloat16."""
OTHER_BYTES = 40_000_000
"""Tokenizers, logs, metrics and samples. An assumption, generous for a vocabulary of 150,000 twice."""


def bytes_needed(
    parameters: int,
    trainable: int,
    precision: Literal["fp32", "bf16", "mixed"],
    keep_checkpoints: int,
    average_checkpoints: int = 1,
) -> int:
    """The most that one training has on the disk at a time.

    A checkpoint holds the weights that are trained and AdamW's two moments, all in the type of the weights in memory:
    3 × trainable × 4 bytes (2 for `bf16`, which adapters never are). There are as many as are kept, and the new one is
    written whole before the oldest goes; an average takes its own snapshots, of weights alone. At the end `student/` is
    written while they still lie there.
    """
    per_weight = 2 if precision == "bf16" else 4
    snapshots = average_checkpoints if average_checkpoints > 1 else 0
    copies = 3 * (keep_checkpoints + 1) + snapshots
    return copies * trainable * per_weight + 2 * parameters * SAVED_BYTES + OTHER_BYTES


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Raises DiskFullError when less than `needed` bytes are free where `folder` lies or will lie."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DiskFullError(
            f"the disk has too little space for {what}: {_size(needed)} are needed, {_size(free)} are free",
            given=str(folder),
            todo="free some space, lower train.keep_checkpoints, or put the run on another disk with --out",
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
