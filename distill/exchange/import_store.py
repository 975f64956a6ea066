"""What lies under RUN/imported: prompts, original rows, verdicts that came along, and lists of what was not taken over.

Every store knows what it holds by hashes: a row offered again, by a second start or a second file, adds nothing.
Parts are written whole or not at all. Knows nothing about layouts or traces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distill.exchange.foreign import UnreadableRow
from distill.files import canonical_json, disk_full_is_clear, reading, replacing, sha256_of
from distill.records import Prompt, Verdict
from distill.verify.math import literal

ASKED = "asked.jsonl"
PART_BYTES = 16 * 2**20
"""Text that is held before it is written as a part."""
READ_ROWS = 1_024
AGAIN = "move the folder `imported` away and import again; traces that are there already are not doubled"


def fingerprint(*parts: Any) -> int:
    """96 bits of a hash, as a number: a set of a million takes less memory than of any other form."""
    return int.from_bytes(hashlib.blake2b(canonical_json(parts).encode(), digest_size=12).digest())


class Parts:
    """Numbered Parquet files STEM-NNNNN.parquet that only ever grow in number."""

    def __init__(self, folder: Path, stem: str, schema: Any) -> None:
        self.folder, self.stem, self.schema = folder, stem, schema
        self._rows: list[Mapping[str, Any]] = []
        self._size = 0

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.stem}-[0-9][0-9][0-9][0-9][0-9].parquet"))

    def add(self, row: Mapping[str, Any], size: int) -> None:
        self._rows.append(row)
        self._size += size
        if self._size >= PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what is held as the next part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._rows:
            return
        number = int(self.paths()[-1].stem.rpartition("-")[2]) + 1 if self.paths() else 0
        with replacing(self.folder / f"{self.stem}-{number:05d}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(self._rows, schema=self.schema), temporary, compression="zstd")
        self._rows, self._size = [], 0

    def read(self, *columns: str) -> Iterator[Mapping[str, Any]]:
        """The rows of all parts in order, those still held left out."""
        for path in self.paths():
            yield from table_rows(path, *columns)


def table_rows(path: Path, *columns: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file that an import wrote, by default with all columns."""
    import pyarrow.parquet as pq

    with reading(path, AGAIN), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(READ_ROWS, columns=list(columns) or None):
            yield from batch.to_pylist()


class PromptStore:
    """prompts.parquet, each question once: parts gather what is new, and are merged into it at the end."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "prompts.parquet"
        self._parts = Parts(folder, "prompts", Prompt.schema())
        self._golds: dict[int, int] = {}
        self._ids: dict[str, int] = {}
        for row in self._records():
            prompt = Prompt.from_json(row)
            self._note(prompt, fingerprint(prompt.text))

    def __len__(self) -> int:
        return len(self._golds)

    def take(self, prompt: Prompt) -> str:
        """`new`, `known`, `gold_added` to a question that had none, or `other_gold` than the one it keeps.

        Raises UnreadableRow for an id that another question has: results would be mixed up.
        """
        question, gold = fingerprint(prompt.text), _gold(prompt)
        if self._ids.get(prompt.id, question) != question:
            raise UnreadableRow("id_taken", f"the id '{prompt.id}' belongs to another question already")
        known = self._golds.get(question)
        if known is not None and (known or not gold):
            return "other_gold" if known and gold and known != gold else "known"
        self._note(prompt, question)
        self._parts.add(prompt.to_json(), len(prompt.text) + 200)
        return "new" if known is None else "gold_added"

    def flush(self) -> None:
        self._parts.flush()

    def merge(self) -> None:
        """Writes prompts.parquet anew when there are parts. Of a question's records the first with a gold answer
        counts, or the first."""
        import pyarrow.parquet as pq

        self.flush()
        if not self._parts.paths():
            return
        best: dict[int, tuple[int, int]] = {}
        for place, row in enumerate(self._records()):
            prompt = Prompt.from_json(row)
            question, gold = fingerprint(prompt.text), _gold(prompt)
            if question not in best or (gold and not best[question][1]):
                best[question] = (place, gold)
        chosen = {place for place, _ in best.values()}
        with (
            replacing(self.path) as temporary,
            pq.ParquetWriter(temporary, Prompt.schema(), compression="zstd") as file,
        ):
            batch: list[Prompt] = []
            for place, row in enumerate(self._records()):
                if place in chosen:
                    batch.append(Prompt.from_json(row))
                if len(batch) >= READ_ROWS:
                    file.write_table(Prompt.table(batch))
                    batch = []
            if batch:
                file.write_table(Prompt.table(batch))
        for path in self._parts.paths():
            path.unlink()

    def _records(self) -> Iterator[Mapping[str, Any]]:
        if self.path.is_file():
            yield from table_rows(self.path)
        yield from self._parts.read()

    def _note(self, prompt: Prompt, question: int) -> None:
        self._golds[question] = _gold(prompt) or self._golds.get(question, 0)
        if prompt.id != sha256_of([prompt.question, list(prompt.choices or ())])[:16]:
            self._ids[prompt.id] = question


def _gold(prompt: Prompt) -> int:
    """A number for a gold answer, the same for two ways to write it, or 0 for none."""
    return fingerprint(literal(prompt.answer)) if prompt.answer is not None and prompt.answer.strip() else 0


class RowStore:
    """rows-NNNNN.parquet: each row as the set has it, where it stood, and the keys of the traces made of it."""

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        text = pa.string()
        columns = {"file": text, "row": pa.int64(), "layout": text, "text": text, "hash": text, "keys": pa.list_(text)}
        self._parts = Parts(folder, "rows", pa.schema(list(columns.items())))
        self._seen = {int(row["hash"], 16) for row in self._parts.read("hash")}
        self.flush = self._parts.flush

    def add(self, place: str, number: int, layout: str, row: Mapping[str, Any], keys: list[str]) -> None:
        """`row` becomes JSON text; one whose records hold all that is in it (`distill`) is not written twice."""
        text = json.dumps(row, ensure_ascii=True, default=str)
        known = fingerprint(Path(place).name, number, text)
        if known not in self._seen:
            self._seen.add(known)
            told = layout == "distill" and bool(keys) and set(row) <= {"prompt", "trace", "verdicts"}
            values = {"file": place, "row": number, "layout": layout, "text": None if told else text}
            self._parts.add({**values, "hash": f"{known:024x}", "keys": keys}, len(text))


class VerdictStore:
    """verdicts-NNNNN.parquet: verdicts that came along with traces of ours."""

    def __init__(self, folder: Path) -> None:
        self._parts = Parts(folder, "verdicts", Verdict.schema())
        self._seen = {fingerprint(row) for row in self._parts.read()}
        self.flush = self._parts.flush

    def add(self, verdict: Verdict) -> None:
        known = fingerprint(verdict.to_json())
        if known not in self._seen:
            self._seen.add(known)
            self._parts.add(verdict.to_json(), 200)

    def write(self, path: Path) -> None:
        """All of them as one file, for readers of a run whose traces nobody has judged here yet."""
        import pyarrow.parquet as pq

        self.flush()
        if self._parts.paths():
            with (
                replacing(path) as temporary,
                pq.ParquetWriter(temporary, Verdict.schema(), compression="zstd") as file,
            ):
                for part in self._parts.paths():
                    with pq.ParquetFile(part) as source:
                        for batch in source.iter_batches(READ_ROWS):
                            file.write_batch(batch)


def told_more(folder: Path) -> Iterator[tuple[str, str]]:
    """(hash of what was asked, hash of the question's text) of imported traces whose teacher was told more."""
    path = folder / ASKED
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):  # a kill may have cut the last off
                    entry = json.loads(line)
                    yield entry["asked"], entry["text"]


def texts_asked(folder: Path) -> dict[str, str]:
    """All that `told_more` tells."""
    return dict(told_more(folder))


class Listing:
    """A JSONL file that grows by entries it does not have; one that was cut off while it was written is dropped."""

    def __init__(self, path: Path, identity: tuple[str, ...]) -> None:
        self.path, self._identity = path, identity
        self._new: list[str] = []
        whole, torn = [], b""
        if path.is_file():
            *whole, torn = path.read_bytes().split(b"\n")
        if torn:
            with replacing(path) as temporary:
                temporary.write_bytes(b"".join(line + b"\n" for line in whole))
        self._seen = {self._known(json.loads(line)) for line in whole}

    def add(self, **entry: Any) -> None:
        known = self._known(entry)
        if known not in self._seen:
            self._seen.add(known)
            self._new.append(json.dumps(entry, ensure_ascii=True) + "\n")
            if len(self._new) >= READ_ROWS:
                self.flush()

    def flush(self) -> None:
        if self._new:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with disk_full_is_clear(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write("".join(self._new))
            self._new = []

    def _known(self, entry: Mapping[str, Any]) -> int:
        return fingerprint(*(entry[name] for name in self._identity))
