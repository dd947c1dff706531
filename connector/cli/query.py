"""``connector query``: one use of an agreement at its provider."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connector.cli import output
from connector.cli.agreements import AgreementId
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node
from connector.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

    from connector.client import Receipt

MAX_SQL_BYTES = 65_536  # the provider's own limit
SHOWN_ROWS = 200  # of a table on stdout; --out and the other formats give all


class Format(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    ARROW = "arrow"


def query(
    agreement: AgreementId,
    purpose: Annotated[str, typer.Option("--purpose", help="What the result is for.")],
    sql: Annotated[str | None, typer.Option("--sql", help="One SELECT.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A file with it; - for stdin.", metavar="FILE")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="How the result is written.")
    ] = Format.TABLE,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the result to a file.", metavar="FILE")
    ] = None,
    use_id: Annotated[
        str,
        typer.Option("--use-id", help="Idempotency key: the same key is the same use."),
    ] = "",
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Run SQL at the provider, under an agreement. Each use leaves a receipt."""
    text = _sql(sql, file)
    if out is not None and form is Format.TABLE:
        form = _form_of(out)
    found = with_node(
        data,
        lambda node: node.query(agreement, text, purpose=purpose, use_id=use_id),
        doing="running at the provider",
    )
    if out is not None:
        _write_file(out, found.table, form)
    if as_json:
        result: dict[str, Any] = {"receipt": found.receipt}
        if out is None:
            result["columns"] = found.table.column_names
            result["rows"] = found.table.to_pylist()
        else:
            result["path"] = str(out)
        output.show_json(result)
        return
    if out is not None:
        output.say(f"wrote {found.table.num_rows:,} rows to {out}")
    elif form is Format.TABLE:
        _show_table(found.table)
    else:
        sys.stdout.buffer.write(encode(found.table, form))
        sys.stdout.buffer.flush()
    _note_receipt(found.receipt)


def encode(table: pa.Table, form: Format) -> bytes:
    """The table as CSV, JSON (a list of objects) or an Arrow IPC stream."""
    import json

    import pyarrow as pa
    import pyarrow.csv

    if form is Format.JSON:
        rows = output.plain(table.to_pylist())
        return (json.dumps(rows, ensure_ascii=False, default=str) + "\n").encode()
    sink = pa.BufferOutputStream()
    if form is Format.CSV:
        pyarrow.csv.write_csv(table, sink)
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _sql(sql: str | None, file: Path | None) -> str:
    if (sql is None) == (file is None):
        raise InvalidInput("give --sql TEXT or --file FILE")
    if file is None:
        text = sql or ""
    else:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{file} cannot be read") from error
    if not 0 < len(text.encode()) <= MAX_SQL_BYTES:
        raise InvalidInput(f"the SQL must have 1 to {MAX_SQL_BYTES} bytes")
    return text


def _form_of(out: Path) -> Format:
    forms = {".csv": Format.CSV, ".json": Format.JSON, ".arrow": Format.ARROW}
    if out.suffix not in forms:
        raise InvalidInput("--out needs --format, or a name that ends in .csv, .json or .arrow")
    return forms[out.suffix]


def _write_file(out: Path, table: pa.Table, form: Format) -> None:
    try:
        out.touch(mode=0o600)
        out.write_bytes(encode(table, form))
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written: {error.strerror}",
            hint="the use is counted; the same --use-id gives the result again for some minutes",
        ) from error


def _show_table(table: pa.Table) -> None:
    rows = [list(row.values()) for row in table.slice(0, SHOWN_ROWS).to_pylist()]
    output.table(table.column_names, rows, empty="no rows")
    if table.num_rows > SHOWN_ROWS:
        output.note(f"{SHOWN_ROWS} of {table.num_rows:,} rows shown; --out FILE writes all")


def _note_receipt(receipt: Receipt) -> None:
    told = ", ".join(f"{name} {amount:,}" for name, amount in receipt.quantities.items())
    output.note(f"receipt {receipt.number} of {receipt.scope}" + (f": {told}" if told else ""))
