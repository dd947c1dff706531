"""Running one program in a worker: first stage, withholding, second stage, Arrow.

Two engines that share nothing: one on the prepared file, read-only and locked, for the first
stage; one in memory, empty and locked, that is shown the released groups and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from connector.gate.output import undecided, withhold
from connector.ports.query import RELEASED, UNDECIDED, Program

# Before a file is opened, and after: no extensions, no other files, no temporary files, and no
# way to change any of it.
_CONFIG = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "temp_directory": "",
}
_LOCK = (
    "SET python_enable_replacements=false",
    "SET disabled_filesystems='LocalFileSystem'",
    "SET lock_configuration=true",
)


class TooLarge(Exception):
    """The result has more bytes than may leave."""


@dataclass(frozen=True, slots=True)
class Result:
    """``arrow`` is an IPC stream."""

    arrow: bytes
    rows_scanned: int
    rows_returned: int
    groups_withheld: int
    cells_withheld: int
    truncated: bool


class Database:
    """A prepared file. ``memory_mb`` is for both engines together, in mebibytes."""

    def __init__(self, path: Path, *, memory_mb: int, threads: int) -> None:
        self._stage_one = _connect(str(path), memory_mb, threads, read_only=True)
        self._stage_two = _connect(":memory:", max(memory_mb // 4, 64), 1, read_only=False)
        self._rows: dict[str, int] = {}

    def run(self, program: Program, *, row_cap: int, result_bytes: int) -> Result:
        """``row_cap`` is the most rows that leave. Raises DuckDB's errors, ``TooLarge``."""
        if program.final:
            found, groups, cells = self._groups(program, row_cap)
        else:
            found, groups, cells = self._query(program.core, program, row_cap), 0, 0
        truncated = found.num_rows > row_cap
        arrow = _stream(found.slice(0, row_cap), result_bytes)
        return Result(
            arrow=arrow,
            rows_scanned=self._table_rows(program.table),
            rows_returned=min(found.num_rows, row_cap),
            groups_withheld=groups,
            cells_withheld=cells,
            truncated=truncated,
        )

    def _groups(self, program: Program, row_cap: int) -> tuple[pa.Table, int, int]:
        core = _only_select(self._stage_one, program.core).to_arrow_table()
        exact = None
        if program.exact:
            questions = undecided(core, program)
            if questions.num_rows:
                exact = self._exact(questions, program.exact)
        released = withhold(core, program, exact)
        self._stage_two.register(RELEASED, released.table)
        try:
            found = self._limited(self._stage_two, program.final, program, row_cap)
        finally:
            self._stage_two.unregister(RELEASED)
        return found, released.groups_withheld, released.cells_withheld

    def _exact(self, questions: pa.Table, sql: str) -> pa.Table:
        self._stage_one.register(UNDECIDED, questions)
        try:
            return _only_select(self._stage_one, sql).to_arrow_table()
        finally:
            self._stage_one.unregister(UNDECIDED)

    def _query(self, sql: str, program: Program, row_cap: int) -> pa.Table:
        return self._limited(self._stage_one, sql, program, row_cap)

    def _limited(
        self, connection: duckdb.DuckDBPyConnection, sql: str, program: Program, row_cap: int
    ) -> pa.Table:
        """At most one row more than the cap, which then says that there are more."""
        limit = row_cap + 1 if program.limit is None else min(program.limit, row_cap + 1)
        sql = f"{sql} LIMIT {limit:d} OFFSET {program.offset:d}"
        return _only_select(connection, sql).to_arrow_table()

    def _table_rows(self, table: str) -> int:
        if table not in self._rows:
            self._rows[table] = self._stage_one.table(_quoted(table)).count("*").fetchall()[0][0]
        return self._rows[table]


def _connect(
    path: str, memory_mb: int, threads: int, *, read_only: bool
) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        path,
        read_only=read_only,
        config={**_CONFIG, "memory_limit": f"{memory_mb}MiB", "threads": threads},
    )
    for statement in _LOCK:
        connection.execute(statement)
    return connection


def _only_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    """The gate wrote this SQL; that it is one SELECT is asked of the engine's own parser too."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise duckdb.ParserException("not one SELECT")
    return connection.sql(sql)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _stream(table: pa.Table, most_bytes: int) -> bytes:
    if table.nbytes > most_bytes:
        raise TooLarge
    table = table.combine_chunks()
    columns = [_narrow(column) for column in table.columns]
    table = pa.table(columns, schema=_schema(table.column_names, columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    if len(data) > most_bytes:
        raise TooLarge
    return data


def _schema(names: Sequence[str], columns: Sequence[pa.ChunkedArray]) -> pa.Schema:
    return pa.schema([(name, column.type) for name, column in zip(names, columns, strict=True)])


def _narrow(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """128-bit sums, which travel as 38-digit decimals, as 64-bit integers where they fit."""
    if column.type != pa.decimal128(38, 0):
        return column
    try:
        return pc.cast(column, pa.int64())
    except pa.ArrowInvalid:
        return column
