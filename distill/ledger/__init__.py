"""The durable store of traces: append-only segments sealed into Parquet, one writer, nothing lost, nothing doubled.

Format and promises: `distill.ledger.writer`. Lines with a checksum serve other append-only files of a run as well.
"""

from distill.ledger.index import Entry, supersedes
from distill.ledger.lines import decode_line, encode_line
from distill.ledger.parts import PutAside
from distill.ledger.reader import LedgerReader
from distill.ledger.segments import Recovery
from distill.ledger.writer import RESERVE_BYTES, Ledger

__all__ = [
    "RESERVE_BYTES",
    "Entry",
    "Ledger",
    "LedgerReader",
    "PutAside",
    "Recovery",
    "decode_line",
    "encode_line",
    "supersedes",
]
