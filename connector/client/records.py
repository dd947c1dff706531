"""Use records from JSON Lines, CSV and Parquet, as the columns that a report is made of.

Columns of a file: ``agreement``, ``use_id`` and ``served`` (RFC 3339 with a zone, or milliseconds
since the Unix epoch); ``purpose`` (none: empty), ``calls`` (none: 1), and the other quantities of
a receipt by their names in lower case (none: not counted). Any other column is an error: a
misspelt one must not be silent. A line of JSON that cannot be read is a row that is malformed.

Rows are read, checked and grouped by agreement and purpose by pyarrow, a few thousand at a time:
memory does not grow with the file, and there is no loop over rows. A value that cannot be is sent
as one that the node refuses as malformed, so that one judge names every refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from connector.client.reporting import UseReport
from connector.core.interface import MAX_RECORDS, Columns, Fault
from connector.errors import InvalidInput
from connector.model import fields
from connector.model.receipt import MAX_TEXT, Quantity

TEXTS = ("agreement", "use_id", "purpose", "served")
QUANTITIES = {quantity.name.lower(): quantity for quantity in Quantity}
REQUIRED = frozenset({"agreement", "use_id", "served"})
BLOCK_BYTES = 1 << 20  # of text that is read at once
SHOWN_CHARACTERS = 200  # of a line that cannot be read
_LINE = " line"  # a column with the line that a row was read from, where they were read one by one
_UNREADABLE = " unreadable"  # a column beside it: whether the line cannot be read
_USE_ID = r"^[\x21-\x7e]{1,64}$"
_NO_USE_ID = " "  # refused as malformed
_NO_NUMBER = -1  # read as unsigned: more than any amount or time
_NUMBER = r"^[0-9]{1,16}$"
_TIME = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_HINT = f"columns are {', '.join((*TEXTS, *QUANTITIES))}"


class Form(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one agreement and purpose. ``rows``: where in the batch each of them stands, an
    Arrow array. ``refusal``: why they cannot be reported at all; then there is no report."""

    rows: Any
    report: UseReport | None
    refusal: str


@dataclass(frozen=True, slots=True)
class Batch:
    """``count`` rows of the source from row ``first`` (from 0) on, in groups."""

    first: int
    count: int
    groups: tuple[Group, ...]
    _table: Any  # the rows as they were read

    def row(self, place: int) -> dict[str, Any]:
        """What a row says, for people: its columns, null where a value is no single one; or
        ``text``, the begin of a line that cannot be read, null where that is no text."""
        (found,) = self._table.slice(place, 1).to_pylist()
        line, unreadable = found.pop(_LINE, None), found.pop(_UNREADABLE, False)
        if unreadable:
            found = {"text": _shown(line)}
        elif line is not None:
            said = fields.parse_json(line)
            found = {name: _single(said.get(name)) for name in found}
        return {"row": self.first + place + 1, **found}


def form_of(path: Path) -> Form:
    """By the name's end; JSON Lines for ``-``. Raises ``InvalidInput``."""
    forms = {
        ".jsonl": Form.JSONL,
        ".ndjson": Form.JSONL,
        ".csv": Form.CSV,
        ".parquet": Form.PARQUET,
    }
    if str(path) == "-":
        return Form.JSONL
    if path.suffix not in forms:
        raise InvalidInput("a name that ends in .jsonl, .csv or .parquet, or --format, is needed")
    return forms[path.suffix]


def read_batches(source: BinaryIO, form: Form, size: int, skip: int = 0) -> Iterator[Batch]:
    """Batches of at most ``size`` rows; the first ``skip`` rows are left out.

    Raises ``InvalidInput`` for what is not of the form, after all rows before it.
    """
    if not 1 <= size <= MAX_RECORDS:
        raise InvalidInput(f"a batch has 1 to {MAX_RECORDS} records")
    read = {Form.JSONL: _json, Form.CSV: _csv, Form.PARQUET: _parquet}[form]
    first = 0
    for table in read(source):
        for start in range(0, table.num_rows, size):
            rows = table.slice(start, size)
            left_out = min(max(skip - first, 0), rows.num_rows)
            if left_out < rows.num_rows:
                kept = rows.slice(left_out)
                yield Batch(first + left_out, kept.num_rows, _groups(kept), kept)
            first += rows.num_rows


# Reading: every table has its text columns as strings, its quantities as integers or strings.


def _csv(source: BinaryIO) -> Iterator[Any]:
    try:
        reader = pyarrow.csv.open_csv(
            source,
            read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys((*TEXTS, *QUANTITIES), pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        _check(reader.schema.names)
        yield from map(_table, reader)
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"not CSV as expected: {_said(error)}") from error


def _parquet(source: BinaryIO) -> Iterator[Any]:
    try:
        file = pyarrow.parquet.ParquetFile(source)
        _check(file.schema_arrow.names)
        yield from map(_table, file.iter_batches(batch_size=MAX_RECORDS))
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"not Parquet as expected: {_said(error)}") from error


def _json(source: BinaryIO) -> Iterator[Any]:
    left = b""
    while block := source.read(BLOCK_BYTES):
        whole, newline, rest = (left + block).rpartition(b"\n")
        left = rest
        if len(left) > BLOCK_BYTES:
            raise InvalidInput(f"not JSON Lines: a line of more than {BLOCK_BYTES} bytes")
        if newline:
            yield _table(_json_block(whole))
    if left.strip():
        yield _table(_json_block(left))


_AS_TEXT = pa.schema(
    [
        *((name, pa.string()) for name in TEXTS),
        *((name, pa.int64()) for name in QUANTITIES),
    ]
)
_LINE_BY_LINE = _AS_TEXT.append(pa.field(_LINE, pa.binary())).append(
    pa.field(_UNREADABLE, pa.bool_())
)
_AS_NUMBER = _AS_TEXT.set(_AS_TEXT.get_field_index("served"), pa.field("served", pa.int64()))


def _json_block(block: bytes) -> Any:
    """Whole lines. Where they are not all alike, one by one: what does not fit is null."""
    if not block.strip():
        return _AS_TEXT.empty_table()
    for schema in (_AS_TEXT, _AS_NUMBER) if _is_utf8(block) else ():
        options = pyarrow.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="error"
        )
        try:
            return pyarrow.json.read_json(
                BytesIO(block),
                read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=options,
            )
        except pa.ArrowInvalid:
            continue
    rows = [_json_line(line) for line in block.split(b"\n") if line.strip()]
    return pa.Table.from_pylist(rows, schema=_LINE_BY_LINE)


def _is_utf8(block: bytes) -> bool:
    """Which pyarrow takes for granted in JSON."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _json_line(line: bytes) -> dict[str, str | int | bytes | None]:
    unreadable: dict[str, str | int | bytes | None] = {_LINE: line, _UNREADABLE: True}
    try:
        value = fields.parse_json(line)
    except InvalidInput:
        return unreadable
    if not isinstance(value, dict):
        return unreadable
    _check({*value, *REQUIRED})
    if not all(isinstance(value.get(name), str | None) for name in ("agreement", "purpose")):
        return unreadable  # whose record it is cannot be said
    row: dict[str, str | int | bytes | None] = {_LINE: line, _UNREADABLE: False}
    for name, found in value.items():
        if name in QUANTITIES:
            row[name] = _NO_NUMBER if found is not None else None
            if type(found) is int and 0 <= found < 2**63:
                row[name] = found
        elif name == "served" and type(found) is int:
            row[name] = str(found)
        elif isinstance(found, str):
            row[name] = found
    return row


def _shown(line: bytes) -> str | None:
    try:
        return line.strip().decode()[:SHOWN_CHARACTERS]
    except UnicodeDecodeError:
        return None


def _single(value: Any) -> str | float | None:
    return value if isinstance(value, str | int | float) else None


def _check(names: Iterable[str]) -> None:
    found = list(names)
    unknown = sorted(set(found) - set(TEXTS) - set(QUANTITIES))
    if unknown:
        raise InvalidInput(f"a column that is not known: {unknown[0][:64]!r}", hint=_HINT)
    if missing := sorted(REQUIRED - set(found)):
        raise InvalidInput(f"there is no column {missing[0]}", hint=_HINT)
    if len(set(found)) != len(found):
        raise InvalidInput("a column is there twice", hint=_HINT)


def _table(batch: Any) -> Any:
    return pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch


def _said(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


# Grouping


def _groups(table: Any) -> tuple[Group, ...]:
    agreement, purpose = (
        pc.fill_null(_texts(table, name), "") for name in ("agreement", "purpose")
    )
    amounts = dict(_amounts(table))
    columns = [_use_ids(table), _served(table), *amounts.values()]
    unreadable = (
        _array(table, _UNREADABLE)
        if _UNREADABLE in table.column_names
        else pa.repeat(pa.scalar(False), table.num_rows)
    )
    groups = []
    for rows, place in _alike(agreement, purpose, unreadable):
        if unreadable[place].as_py():
            groups.append(Group(rows, None, Fault.MALFORMED.name.lower()))
            continue
        scope, why = agreement[place].as_py(), purpose[place].as_py()
        use_ids, served, *numbers = (column.take(rows) for column in columns)
        if len(scope) > MAX_TEXT or len(why) > MAX_TEXT:
            text = f"agreement and purpose have at most {MAX_TEXT} characters"
            groups.append(Group(rows, None, text))
            continue
        report = UseReport(
            scope,
            Columns(
                purpose=why,
                use_ids=_joined(use_ids),
                served=_numbers(served),
                amounts=tuple(
                    (quantity, _numbers(column))
                    for quantity, column in zip(amounts, numbers, strict=True)
                ),
            ),
        )
        groups.append(Group(rows, report, ""))
    return tuple(groups)


def _alike(agreement: Any, purpose: Any, unreadable: Any) -> Iterator[tuple[Any, int]]:
    """For each agreement and purpose, and for what is unreadable, its rows, in their order, and
    one of them."""
    agreements, purposes = agreement.dictionary_encode(), purpose.dictionary_encode()
    number = len(purposes.dictionary)
    codes = pc.add(
        pc.multiply(agreements.indices.cast(pa.int64()), number), purposes.indices.cast(pa.int64())
    )
    codes = pc.if_else(unreadable, pa.scalar(-1, pa.int64()), codes)
    order = pc.sort_indices(codes)  # a stable sort
    start = 0
    for end in pc.run_end_encode(codes.take(order)).run_ends.to_pylist():
        rows = order.slice(start, end - start)
        yield rows, rows[0].as_py()
        start = end


def _texts(table: Any, name: str) -> Any:
    if name not in table.column_names:
        return pa.nulls(table.num_rows, pa.string())
    return _array(table, name).cast(pa.string())


def _use_ids(table: Any) -> Any:
    found = _texts(table, "use_id")
    good = pc.fill_null(pc.match_substring_regex(found, _USE_ID), False)
    return pc.if_else(good, found, _NO_USE_ID)


def _served(table: Any) -> Any:
    found = _array(table, "served")
    kind = found.type
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            raise InvalidInput("served: a time without its zone", hint="write it with its zone")
        found = pc.floor_temporal(found, unit="millisecond").cast(pa.timestamp("ms", "UTC"))
        return pc.fill_null(found.cast(pa.int64()), _NO_NUMBER)
    if pa.types.is_integer(kind):
        return pc.fill_null(_whole(found), _NO_NUMBER)
    found = found.cast(pa.string())
    return pc.coalesce(_whole(found), _times(found), pa.scalar(_NO_NUMBER, pa.int64()))


def _times(found: Any) -> Any:
    """Milliseconds of RFC 3339 texts; null for others."""
    good = pc.fill_null(pc.match_substring_regex(found, _TIME), False)
    texts = pc.if_else(good, found, pa.scalar(None, pa.string()))
    try:
        micros = texts.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    except pa.ArrowInvalid:  # a month 13: one by one
        return pa.array([_time(text) for text in texts.to_pylist()], pa.int64())
    return pc.divide(micros, 1000)


def _time(text: str | None) -> int | None:
    try:
        return int(fields.parse_time(text).timestamp() * 1000) if text else None
    except (InvalidInput, OverflowError):
        return None


def _amounts(table: Any) -> Iterator[tuple[Quantity, Any]]:
    """Calls, and whatever else is counted in any of the rows."""
    for name, quantity in QUANTITIES.items():
        found = _array(table, name) if name in table.column_names else None
        if found is not None and found.null_count < len(found):
            nothing = pa.scalar(1 if name == "calls" else 0, pa.int64())
            numbers = pc.fill_null(_whole(found), _NO_NUMBER)
            yield quantity, pc.if_else(pc.is_null(found), nothing, numbers)
        elif name == "calls":
            yield quantity, pa.repeat(pa.scalar(1, pa.int64()), table.num_rows)


def _whole(found: Any) -> Any:
    """Whole numbers as 64-bit integers; null for what is none."""
    if pa.types.is_integer(found.type):
        if found.type == pa.uint64():
            large = pc.greater(found, pa.scalar(2**63 - 1, pa.uint64()))
            found = pc.if_else(large, pa.scalar(None, pa.uint64()), found)
        return found.cast(pa.int64())
    texts = found.cast(pa.string())
    good = pc.fill_null(pc.match_substring_regex(texts, _NUMBER), False)
    return pc.if_else(good, texts, pa.scalar(None, pa.string())).cast(pa.int64())


def _array(table: Any, name: str) -> Any:
    """One array, and not the one of a dictionary."""
    found = table.column(name).combine_chunks()
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    return found


def _joined(texts: Any) -> bytes:
    lists = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    joined: str = pc.binary_join(lists, "\n")[0].as_py()
    return joined.encode()


def _numbers(column: Any) -> bytes:
    """Of an array of 64-bit integers without nulls; Arrow keeps them little-endian."""
    data = memoryview(column.buffers()[1])
    return bytes(data[column.offset * 8 : (column.offset + len(column)) * 8])
