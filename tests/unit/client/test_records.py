"""Files of use records: the same columns from each form, and what cannot be stays to be refused."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest

from connector.client.records import (
    BLOCK_BYTES,
    QUANTITIES,
    TEXTS,
    Batch,
    Form,
    Group,
    form_of,
    read_batches,
)
from connector.errors import InvalidInput
from connector.model.receipt import Quantity

SERVED = "2026-11-24T01:02:03.123Z"
SERVED_MS = int(datetime(2026, 11, 24, 1, 2, 3, 123_000, tzinfo=UTC).timestamp() * 1000)
ROWS = [
    {
        "agreement": f"urn:{number % 3}",
        "use_id": f"u{number}",
        "purpose": ("routing", "planning")[number % 2],
        "served": SERVED,
        "calls": 1 + number % 4,
        "rows_returned": number,
    }
    for number in range(2500)
]


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist(rows)
    times = pc.cast(table["served"], pa.timestamp("us", "UTC"))
    table = table.set_column(table.column_names.index("served"), "served", times)
    purposes = table["purpose"].combine_chunks().dictionary_encode()
    return parquet(table.set_column(table.column_names.index("purpose"), "purpose", purposes))


FORMS = {
    "jsonl": (Form.JSONL, jsonl),
    "csv": (Form.CSV, csv),
    "parquet": (Form.PARQUET, as_parquet),
}


def read(data: bytes, form: Form, size: int = 1000, skip: int = 0) -> list[Batch]:
    return list(read_batches(io.BytesIO(data), form, size, skip))


def numbers(column: bytes) -> list[int]:
    return [
        int.from_bytes(column[at : at + 8], "little", signed=True)
        for at in range(0, len(column), 8)
    ]


def told(batches: list[Batch]) -> list[dict[str, Any]]:
    """The rows again, from the columns."""
    found: dict[int, dict[str, Any]] = {}
    for batch in batches:
        for group in batch.groups:
            assert group.report is not None
            columns = group.report.columns
            ids = columns.use_ids.decode().split("\n")
            amounts = {name: numbers(column) for name, column in columns.amounts}
            for at, row in enumerate(pa.array(group.rows).to_pylist()):
                assert numbers(columns.served)[at] == SERVED_MS
                found[batch.first + row] = {
                    "agreement": group.report.agreement_id,
                    "use_id": ids[at],
                    "purpose": columns.purpose,
                    "served": SERVED,
                    "calls": amounts[Quantity.CALLS][at],
                    "rows_returned": amounts[Quantity.ROWS_RETURNED][at],
                }
    return [found[row] for row in sorted(found)]


@pytest.mark.parametrize(("form", "write"), FORMS.values(), ids=FORMS)
def test_all_forms_tell_the_same(form: Form, write: Any) -> None:
    batches = read(write(ROWS), form)
    assert told(batches) == ROWS
    assert max(batch.count for batch in batches) == 1000
    assert [batch.first for batch in batches] == [0, 1000, 2000]
    assert len(batches[0].groups) == 6


@pytest.mark.parametrize(("form", "write"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("skip", [1, 999, 1000, 1700, 2499])
def test_reading_goes_on_where_it_stopped(form: Form, write: Any, skip: int) -> None:
    batches = read(write(ROWS), form, skip=skip)
    assert told(batches) == ROWS[skip:]
    assert batches[0].first == skip


@pytest.mark.parametrize(("form", "write"), FORMS.values(), ids=FORMS)
def test_nothing_is_left_after_the_last_row(form: Form, write: Any) -> None:
    assert read(write(ROWS), form, skip=len(ROWS)) == []


def test_many_blocks_of_text() -> None:
    rows = [{**row, "purpose": "p" * 500} for row in ROWS] * 3
    data = jsonl(rows)
    assert len(data) > 3 * BLOCK_BYTES
    assert told(read(data, Form.JSONL, 700)) == rows
    assert told(read(csv(rows), Form.CSV, 700)) == rows
    assert told(read(data.rstrip(b"\n"), Form.JSONL, 700)) == rows


def one(data: bytes, form: Form = Form.JSONL) -> tuple[list[str], list[int], dict[str, list[int]]]:
    (batch,) = read(data, form)
    (group,) = batch.groups
    assert group.report is not None
    columns = group.report.columns
    return (
        columns.use_ids.decode().split("\n"),
        numbers(columns.served),
        {name.name.lower(): numbers(column) for name, column in columns.amounts},
    )


def test_what_need_not_be_said() -> None:
    ids, _, amounts = one(jsonl([{"agreement": "a", "use_id": "u", "served": 1}]))
    assert (ids, amounts) == (["u"], {"calls": [1]})
    data = b"agreement,use_id,served,calls,bytes_returned\na,u,1,,7\na,v,1,2,\n"
    _, _, amounts = one(data, Form.CSV)
    assert amounts == {"calls": [1, 2], "bytes_returned": [7, 0]}


def test_texts_stay_what_they_are() -> None:
    """A reader that guesses would take them for numbers and times."""
    data = b"agreement,use_id,served\n007,0012,1\n007,2026-11-24,1\n007,true,1\n007,null,1\n"
    ids, _, _ = one(data, Form.CSV)
    assert ids == ["0012", "2026-11-24", "true", "null"]
    rows = [{"agreement": "007", "use_id": text, "served": 1} for text in ids]
    assert one(jsonl(rows))[0] == ids


TIMES: dict[str, tuple[Any, int]] = {
    "milliseconds": (SERVED_MS, SERVED_MS),
    "milliseconds in a text": (str(SERVED_MS), SERVED_MS),
    "with a zone": ("2026-11-24T09:02:03.123+08:00", SERVED_MS),
    "lower case": ("2026-11-24t01:02:03.123z", -1),
    "microseconds are cut": ("2026-11-24T01:02:03.123999Z", SERVED_MS),
    "seconds": ("2026-11-24T01:02:03Z", SERVED_MS - 123),
    "no zone": ("2026-11-24T01:02:03", -1),
    "a date": ("2026-11-24", -1),
    "month 13": ("2026-13-24T01:02:03Z", -1),
    "text": ("soon", -1),
    "nothing": (None, -1),
    "negative": ("-1", -1),
    "a fraction": ("1.5", -1),
    "digits without end": ("9" * 40, -1),
}


@pytest.mark.parametrize(("written", "read_as"), TIMES.values(), ids=TIMES)
def test_times(written: Any, read_as: int) -> None:
    rows = [{"agreement": "a", "use_id": f"u{n}", "served": written} for n in range(2)]
    rows.append({"agreement": "a", "use_id": "good", "served": SERVED})
    text = "" if written is None else str(written)
    assert one(f"agreement,use_id,served\na,u,{text}\na,v,{SERVED}\n".encode(), Form.CSV)[1] == [
        read_as,
        SERVED_MS,
    ]
    assert one(jsonl(rows))[1] == [read_as, read_as, SERVED_MS]


def test_times_that_parquet_keeps() -> None:
    for unit, per_ms in (("s", 1000), ("ms", 1), ("us", 1), ("ns", 1)):
        times = pa.array([SERVED_MS // per_ms * per_ms], pa.timestamp("ms", "UTC"))
        table = pa.table(
            {"agreement": ["a"], "use_id": ["u"], "served": times.cast(pa.timestamp(unit, "UTC"))}
        )
        assert one(parquet(table), Form.PARQUET)[1] == [SERVED_MS // per_ms * per_ms]
    local = pa.table(
        {"agreement": ["a"], "use_id": ["u"], "served": pa.array([1], pa.timestamp("ms"))}
    )
    with pytest.raises(InvalidInput, match="zone"):
        read(parquet(local), Form.PARQUET)


USE_IDS = ["", "a b", "a\nb", "a" * 65, "é", None, "\x7f", "a\t"]


@pytest.mark.parametrize("use_id", USE_IDS, ids=ascii)
def test_a_use_id_that_cannot_be_is_no_other_row_s(use_id: Any) -> None:
    rows = [{"agreement": "a", "use_id": text, "served": 1} for text in ("x", use_id, "z")]
    assert one(jsonl(rows))[0] == ["x", " ", "z"]
    assert one(parquet(pa.Table.from_pylist(rows)), Form.PARQUET)[0] == ["x", " ", "z"]


AMOUNTS: dict[str, tuple[Any, int]] = {
    "zero": (0, 0),
    "large": (2**53, 2**53),
    "negative": (-1, -1),
    "a fraction": (1.5, -1),
    "text": ("many", -1),
    "true": (True, -1),
    "beyond 64 bits": (2**70, -1),
}


@pytest.mark.parametrize(("written", "read_as"), AMOUNTS.values(), ids=AMOUNTS)
def test_amounts(written: Any, read_as: int) -> None:
    rows = [{"agreement": "a", "use_id": "u", "served": 1, "calls": written}]
    rows.append({"agreement": "a", "use_id": "v", "served": 1, "calls": 2})
    assert one(jsonl(rows))[2]["calls"] == [read_as, 2]
    data = f"agreement,use_id,served,calls\na,u,1,{written}\na,v,1,2\n".encode()
    assert one(data, Form.CSV)[2]["calls"] == [read_as, 2]


LINES = {
    "no JSON": b"{",
    "text": b"not json",
    "cut short": b'{"agreement": "a", "use_id": "u", "ser',
    "no text": b"\xff\xfe\x00",
    "a key twice": b'{"agreement": "a", "agreement": "a", "use_id": "u", "served": 1}',
    "long": b"x" * 5000,
    "a list": b"[1]",
    "a number": b"7",
    "not UTF-8": b'{"agreement": "\xff"}',
    "deep": b'{"agreement": ' + b"[" * 100_000 + b"}",
    "half a surrogate pair": b'{"agreement": "\\ud800", "use_id": "u", "served": 1}',
    "texts that are numbers": b'{"agreement": 1, "use_id": 2, "served": true}',
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_that_makes_no_sense_is_a_row_that_is_refused(line: bytes) -> None:
    good = b'{"agreement": "a", "use_id": "u", "served": "2026-11-24T01:02:03.123Z"}'
    (batch,) = read(b"\n".join([good, line, b"", good, b""]), Form.JSONL)
    assert batch.count == 3
    groups = {
        (group.report.agreement_id if group.report else None, group.refusal): rows_of(group)
        for group in batch.groups
    }
    assert groups == {("a", ""): [0, 2], (None, "malformed"): [1]}
    try:
        text = line.decode()[:200]
    except UnicodeDecodeError:
        text = None
    assert batch.row(1) == {"row": 2, "text": text}
    assert batch.row(2)["use_id"] == "u"


def rows_of(group: Group) -> list[int]:
    found: list[int] = pa.array(group.rows).to_pylist()
    return found


VALUES: dict[str, tuple[str, Any, Any]] = {
    "beyond 64 bits": ("calls", 18446744073709551616, 18446744073709551616),
    "true": ("calls", True, True),
    "a text": ("calls", "many", "many"),
    "a list": ("calls", [1], None),
    "an object": ("served", {"a": 1}, None),
    "a time that is a fraction": ("served", 1.5e12, 1.5e12),
    "a time that is true": ("served", True, True),
    "a number as a use id": ("use_id", 7, 7),
    "negative": ("calls", -1, -1),
}


@pytest.mark.parametrize(("name", "written", "shown"), VALUES.values(), ids=VALUES)
def test_a_row_is_shown_as_it_was_written(name: str, written: Any, shown: Any) -> None:
    good = {"agreement": "a", "use_id": "u", "served": SERVED, "calls": 3}
    (batch,) = read(jsonl([{**good, name: written}, good]), Form.JSONL)
    assert json.loads(json.dumps(batch.row(0)[name])) == shown
    assert type(batch.row(0)[name]) is type(shown)
    assert {**batch.row(1), **good, "row": 2} == batch.row(1)
    assert batch.row(0).keys() == batch.row(1).keys() == {"row", *TEXTS, *QUANTITIES}


def test_lines_one_by_one_are_shown_after_others_were_left_out() -> None:
    good = {"agreement": "a", "use_id": "u", "served": 1}
    data = jsonl([good]) + b"first\nsecond\n" + jsonl([good])
    (batch,) = read(data, Form.JSONL, skip=2)
    assert batch.row(0) == {"row": 3, "text": "second"}
    assert [rows_of(group) for group in batch.groups if group.report is None] == [[0]]


SPOILT = {
    "an unknown column": (Form.CSV, b"agreement,use_id,served,rows\na,u,1,2\n"),
    "an unknown field": (Form.JSONL, b'{"agreement":"a","use_id":"u","served":1,"rows":1}\n'),
    "a column less": (Form.CSV, b"agreement,use_id\na,u\n"),
    "a column twice": (Form.CSV, b"agreement,use_id,served,served\na,u,1,1\n"),
    "rows of another width": (Form.CSV, b"agreement,use_id,served\na,u,1\na,u\n"),
    "nothing": (Form.CSV, b""),
    "not Parquet": (Form.PARQUET, b"PAR1 or so they say"),
    "empty Parquet": (Form.PARQUET, b""),
    "a line without end": (Form.JSONL, b"x" * (2 * BLOCK_BYTES + 1)),
}


@pytest.mark.parametrize(("form", "data"), SPOILT.values(), ids=SPOILT)
def test_what_is_not_of_the_form(form: Form, data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read(data, form)


def test_ids_that_no_report_can_name_are_told_apart() -> None:
    rows = [
        {"agreement": "x\ny", "use_id": "u", "purpose": "z", "served": 1},
        {"agreement": "x", "use_id": "v", "purpose": "y\nz", "served": 1},
        {"agreement": "a" * 513, "use_id": "w", "served": 1},
        {"agreement": "a", "use_id": "w", "purpose": "p" * 513, "served": 1},
    ]
    (batch,) = read(jsonl(rows), Form.JSONL)
    assert len(batch.groups) == 4
    refused = [group for group in batch.groups if group.report is None]
    assert sorted(row for group in refused for row in pa.array(group.rows).to_pylist()) == [2, 3]
    assert all(group.refusal for group in refused)
    assert batch.row(1)["use_id"] == "v"
    assert batch.row(1)["row"] == 2


def test_forms_by_name() -> None:
    assert form_of(Path("x.ndjson")) is Form.JSONL
    assert form_of(Path("-")) is Form.JSONL
    assert form_of(Path("a.b.parquet")) is Form.PARQUET
    with pytest.raises(InvalidInput):
        form_of(Path("x.txt"))
