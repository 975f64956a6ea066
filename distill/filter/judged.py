"""What was found out about each trace, in RUN/judged/: so that a killed filter goes on, and a changed one looks again
only at what has changed.

One Parquet file a bucket, written whole or not at all. An outcome counts as long as the trace's content, what its
prompt wants and the check's own fingerprint are the same. Files of an earlier start stay until all buckets are there.
Knows nothing about how an outcome came about or what it decides.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distill.files import reading, replacing
from distill.verify import TRANSIENT, Outcome

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
SIGNATURE = "signature"
FILES_HELD = 3
"""Files of earlier starts that are decoded at a time: buckets follow each other in about the same order."""
_NAME = re.compile(r"(\d{5})-(\d{5})\.parquet")
AGAIN = "delete the folder `judged` and run `distill filter` again; no trace is lost by that"


@dataclass(frozen=True, slots=True)
class Row:
    """A trace, known by its key, its content and what its prompt wants; and what was found."""

    key: str
    content: str
    wants: str
    outcomes: Mapping[str, Outcome]
    signature: bytes = b""
    evidence: Mapping[str, str] = field(default_factory=dict)
    by: str = ""
    """What verifies its prompt's answers, in which version."""
    row: int = -1
    """Row of its prompt."""
    tokens: int | None = None


class Judged:
    """The files under `folder`; `fingerprints`: check → what its outcomes depend on besides trace and prompt.

    SIGNATURE among them stands for the signatures.
    """

    def __init__(self, folder: Path, fingerprints: Mapping[str, str]) -> None:
        self.folder, self.fingerprints = folder, dict(fingerprints)
        self.checks = [name for name in fingerprints if name != SIGNATURE]
        self._earlier = sorted(path for path in folder.glob("*.parquet") if _NAME.fullmatch(path.name))
        self._generation = max((int(path.name[:5]) for path in self._earlier), default=-1) + 1
        self._decoded: OrderedDict[int, dict[str, Row]] = OrderedDict()
        self._hashes, self._files = self._index()

    @property
    def known(self) -> int:
        """Traces of which earlier starts found something."""
        return len(self._hashes)

    def has(self, key: str) -> bool:
        """Whether anything may be known of a trace, without a look at its content."""
        place = int(np.searchsorted(self._hashes, np.uint64(int(key[:16], 16))))
        return place < len(self._hashes) and int(self._hashes[place]) == int(key[:16], 16)

    def find(self, key: str, content: str, wants: str, by: str) -> Row | None:
        """What is known of a trace: the outcomes that still count. Another verifier leaves all but its own, and the
        judge's, who is asked because of them."""
        wanted = np.uint64(int(key[:16], 16))
        place = int(np.searchsorted(self._hashes, wanted, side="right")) - 1
        if place < 0 or self._hashes[place] != wanted:
            return None
        row = self._file(int(self._files[place])).get(key)
        if row is None or (row.content, row.wants) != (content, wants):
            return None
        if row.by == by:
            return row
        return replace(row, outcomes={n: one for n, one in row.outcomes.items() if n not in ("correct", "judge")})

    def write(self, bucket: int, rows: Sequence[Row]) -> None:
        """Adds a bucket."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {
            "key": pa.array([row.key for row in rows], pa.string()),
            "content": pa.array([row.content for row in rows], pa.string()),
            "wants": pa.array([row.wants for row in rows], pa.string()),
            "by": pa.array([row.by for row in rows], pa.string()),
        }
        for name in self.checks:
            outcomes = [row.outcomes[name] for row in rows]
            columns[f"{name}.outcome"] = pa.array([one.outcome for one in outcomes], pa.string())
            columns[f"{name}.reason"] = pa.array([one.reason for one in outcomes], pa.string())
            columns[f"{name}.score"] = pa.array([one.score for one in outcomes], pa.float64())
        columns["row"] = pa.array([row.row for row in rows], pa.int64())
        columns["tokens"] = pa.array([row.tokens for row in rows], pa.int64())
        columns["signature"] = pa.array([row.signature for row in rows], pa.binary())
        columns["evidence"] = pa.array(
            [json.dumps(dict(row.evidence)) if row.evidence else None for row in rows], pa.string()
        )
        told = json.dumps({"format": FORMAT, "checks": self.fingerprints}).encode()
        with replacing(self._path(bucket)) as temporary:
            pq.write_table(pa.table(columns).replace_schema_metadata({"distill": told}), temporary, compression="zstd")

    def read(self, bucket: int, *columns: str) -> pa.Table:
        """A bucket that this start has written, with all columns or these: key, content, wants, CHECK.outcome,
        CHECK.reason and CHECK.score of each check, row, tokens, signature, evidence (JSON or null)."""
        import pyarrow.parquet as pq

        with reading(self._path(bucket), AGAIN):
            return pq.read_table(self._path(bucket), columns=list(columns) or None)

    def finish(self) -> None:
        """Removes what earlier starts left; called when all buckets are written."""
        for path in self._earlier:
            path.unlink(missing_ok=True)

    def _path(self, bucket: int) -> Path:
        return self.folder / f"{self._generation:05d}-{bucket:05d}.parquet"

    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
        """Key → file; of a key that stands in several the newest counts. 12 bytes a trace."""
        import pyarrow.parquet as pq

        hashes, files = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        for number, path in enumerate(self._earlier):
            with reading(path, AGAIN):
                keys = pq.read_table(path, columns=["key"]).column("key").to_pylist()
            hashes.append(np.array([int(key[:16], 16) for key in keys], np.uint64))
            files.append(np.full(len(keys), number, np.int32))
        every, owners = np.concatenate(hashes), np.concatenate(files)
        order = np.argsort(every, kind="stable")
        return every[order], owners[order]

    def _file(self, number: int) -> dict[str, Row]:
        if number not in self._decoded:
            self._decoded[number] = self._read_earlier(self._earlier[number])
            if len(self._decoded) > FILES_HELD:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(number)
        return self._decoded[number]

    def _read_earlier(self, path: Path) -> dict[str, Row]:
        """What still counts of a file of an earlier start: never an outcome that tells of that time and machine."""
        import pyarrow.parquet as pq

        with reading(path, AGAIN):
            table = pq.read_table(path)
        told = _told(table)
        if told is None:
            return {}
        valid = {name for name, mark in self.fingerprints.items() if told.get(name) == mark}
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        rows: dict[str, Row] = {}
        for place in range(len(table)):
            outcomes = {}
            for name in self.checks:
                if name in valid:
                    values = (columns[f"{name}.{part}"][place] for part in ("outcome", "reason", "score"))
                    outcomes[name] = Outcome(*values)
            evidence = json.loads(columns["evidence"][place] or "{}")
            rows[columns["key"][place]] = Row(
                columns["key"][place],
                columns["content"][place],
                columns["wants"][place],
                {name: one for name, one in outcomes.items() if one.reason not in TRANSIENT},
                _real(columns["signature"][place]) if SIGNATURE in valid else b"",
                {name: text for name, text in evidence.items() if name in valid},
                by=columns["by"][place],
            )
        return rows


def _real(signature: bytes) -> bytes:
    """Nothing in the place of a signature that stands for a trace nobody could look at."""
    return signature if any(signature) else b""


def _told(table: pa.Table) -> dict[str, str] | None:
    """The fingerprints that a file's outcomes were reached with; None for a file of another format."""
    try:
        told = json.loads((table.schema.metadata or {}).get(b"distill", b"{}"))
    except ValueError:
        return None
    return dict(told["checks"]) if told.get("format") == FORMAT else None
