"""One record as a checksummed line, and groups of lines as an Arrow table. Knows nothing about files or revisions.

A line is a CRC-32 in eight hex digits, a space and the record as JSON. `encode_trace` writes and checks a record in one
pass; `rows_table` has Arrow parse the JSON, so that sealing holds neither rows as Python objects nor, for long, the
interpreter.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring_ascii as _quoted
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from distill.errors import InputError, RunError
from distill.records import Trace

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_BYTES = 16 * 2**20
"""Lines are turned into a table, and written as a row group, this many bytes at a time."""

_INT64 = 2**63
TOKEN_IDS = ("prompt_ids", "output_ids")


class _UnsureError(Exception):
    """A value that the fast writer does not know; the slow and exact way decides."""


def encode_line(record: Any) -> bytes:
    """A JSON value as one checksummed line. Non-ASCII is escaped, so a cut can never split a character."""
    return _line(json.dumps(record, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode())


def encode_trace(trace: Trace) -> bytes:
    """The line of a trace. Raises InputError, naming the field, for one that could be written but never read or sealed:
    half a surrogate pair, an integer beyond 64 bits, NaN, a wrong type."""
    try:
        return _line(_writer(Trace)(trace).encode())
    except _UnsureError:
        row = trace.to_json()
        Trace.from_json(row)
        return encode_line(row)


def decode_line(line: bytes) -> Any:
    """Raises ValueError for a line that is torn or altered."""
    return json.loads(body_of(line))


def body_of(line: bytes) -> bytes:
    """The JSON of a line. Raises ValueError for one that is torn or altered."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or len(checksum) != 8 or int(checksum, 16) != zlib.crc32(body):
        raise ValueError("checksum mismatch")
    return body


def is_whole(line: bytes) -> bool:
    try:
        body_of(line)
    except ValueError:
        return False
    return True


def read_line(line: bytes, name: str) -> Trace | None:
    """The trace of a line, None for one that is torn or altered; `name` is the file's.

    Raises RunError for a line that is whole but no trace this version knows: to put it aside would be to buy it again.
    """
    try:
        record = decode_line(line)
    except ValueError:
        return None
    try:
        return Trace.from_json(record)
    except InputError as error:
        raise RunError(
            "the ledger holds a record that this version of distill cannot read",
            given=f"{name}: {error.what}",
            todo="use the version that wrote it, or a newer one",
        ) from error


def whole_groups(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The whole lines among these, in order, in groups of about ROW_GROUP_BYTES."""
    group: list[bytes] = []
    size = 0
    for line in lines:
        if is_whole(line):
            group.append(line)
            size += len(line)
        if size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def rows_table(lines: list[bytes], name: str) -> pa.Table:
    """Whole lines as a table of Trace's schema. Raises RunError, as `read_line` does, for an unknown form."""
    import pyarrow as pa

    try:
        return _parsed(lines)
    except (pa.ArrowInvalid, _UnsureError):  # one row at a time, the exact way: it names what is wrong
        traces = (read_line(line, name) for line in lines)
        return Trace.table([trace for trace in traces if trace is not None])


def _parsed(lines: list[bytes]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    data, schema = b"".join(line[9:] for line in lines), Trace.schema()
    table = arrow_json.read_json(
        pa.BufferReader(data),
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    )
    if len(table) != len(lines) or not table.schema.equals(schema):
        raise _UnsureError
    return _with_defaults(table)


def _with_defaults(table: pa.Table) -> pa.Table:
    """Fields that a line leaves out get their default, as `Trace.from_json` gives it; where there is none, it is
    left to that to say so."""
    hints = _hints(Trace)
    for place, f in enumerate(dataclasses.fields(Trace)):
        column = table.column(f.name)
        if f.default is not None and f.default is not dataclasses.MISSING and column.null_count:
            table = table.set_column(place, table.schema.field(place), column.fill_null(f.default))
            column = table.column(f.name)
        for chunk in column.chunks:
            _require(hints[f.name], chunk)
    return table


def without_ids(table: pa.Table) -> pa.Table:
    """`table` with Trace's columns in their order, those that its file lacks filled with their defaults, and without
    token ids, which are most of the bytes of a cut trace."""
    import pyarrow as pa

    defaults = {f.name: f.default for f in dataclasses.fields(Trace)}
    columns: dict[str, Any] = {}
    for field in Trace.schema():
        if field.name in TOKEN_IDS:
            continue
        if field.name in table.column_names:
            columns[field.name] = table.column(field.name)
        elif defaults[field.name] is not dataclasses.MISSING:
            columns[field.name] = pa.array([defaults[field.name]] * len(table), field.type)
        else:
            raise InputError(f"a trace needs the field '{field.name}'")
    return pa.table(columns)


def _require(hint: Any, array: Any) -> None:
    """Raises _UnsureError where a field that must be there is null, or one of a few fixed words is another."""
    inner, optional = _optional(hint)
    if array.null_count and not optional:
        raise _UnsureError
    if get_origin(inner) is Literal and not set(array.unique().to_pylist()) <= {*get_args(inner), None}:
        raise _UnsureError
    if dataclasses.is_dataclass(inner):
        there = array.filter(array.is_valid())
        for place, field_hint in enumerate(_hints(typing.cast(type, inner)).values()):
            _require(field_hint, there.field(place))


# --- writing and checking in one pass --------------------------------------------------------------------------------


def _line(body: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(body), body)


@functools.cache
def _writer(cls: type) -> Callable[[Any], str]:
    """Record → its JSON; the writer raises _UnsureError for any value that is not plainly right."""
    steps = [
        (name, ("," if place else "{") + _quoted(name) + ":", _field(hint))
        for place, (name, hint) in enumerate(_hints(cls).items())
    ]

    def write(record: Any) -> str:
        if type(record) is not cls:
            raise _UnsureError
        return "".join([start + value(getattr(record, name)) for name, start, value in steps]) + "}"

    return write


def _field(hint: Any) -> Callable[[Any], str]:
    inner, optional = _optional(hint)
    value = _value(inner)
    return (lambda given: "null" if given is None else value(given)) if optional else value


def _value(hint: Any) -> Callable[[Any], str]:
    if get_origin(hint) is Literal:
        words = {word: _quoted(word) for word in get_args(hint)}
        return lambda given: _known(words, given)
    if get_origin(hint) is tuple and get_args(hint)[0] is int:
        return _token_ids
    if dataclasses.is_dataclass(hint):
        return _kept(_writer(typing.cast(type, hint)))
    return {str: _text, int: _int, float: _float}[hint]


def _kept(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """The teacher and the sampling of one trace are as a rule those of the next: frozen, and the very same objects."""
    last: tuple[Any, str] = (None, "")

    def written(record: Any) -> str:
        nonlocal last
        known, text = last
        if record is not known:
            text = write(record)
            last = record, text
        return text

    return written


def _known(words: dict[str, str], given: Any) -> str:
    if type(given) is not str or given not in words:
        raise _UnsureError
    return words[given]


def _text(given: Any) -> str:
    if type(given) is not str:
        raise _UnsureError
    if not given.isascii():
        try:
            given.encode()
        except UnicodeEncodeError as error:
            raise _UnsureError from error
    return _quoted(given)


def _int(given: Any) -> str:
    if type(given) is not int or not -_INT64 <= given < _INT64:
        raise _UnsureError
    return str(given)


def _float(given: Any) -> str:
    if type(given) is not float or not math.isfinite(given):
        raise _UnsureError
    return repr(given)


def _token_ids(given: Any) -> str:
    if type(given) is not tuple or not all(type(item) is int and 0 <= item < 2**31 for item in given):
        raise _UnsureError
    return "[" + ",".join(map(str, given)) + "]"


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _optional(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (types.UnionType, typing.Union):
        (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
        return inner, True
    return hint, False
