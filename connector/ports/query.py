"""Running checked queries over prepared data, and preparing it. ``connector.adapters.duckdb``.

What travels here is SQL that ``connector.gate`` wrote itself, never a consumer's text, with the
numbers that the engine needs in order to withhold small groups before anything else sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from connector.errors import ConnectorError
from connector.model.use import Obligations

# A column that ``prepare`` adds to the table when there is a privacy unit: one bit of 64, chosen
# by a hash of the unit, NULL where the unit is. The bits that a group has, counted, prove at
# least so many distinct units, at a fraction of what counting distinct values costs.
UNIT_BIT = "__unit_bit"

# Names under which the second stage finds the groups that may be released, and the exact count
# those that a lower bound did not decide.
RELEASED = "__released"
UNDECIDED = "__undecided"


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """``type`` is an SQL type name as DuckDB writes it, as the prepared table will have it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What a source holds: columns in their order, and the number of rows."""

    columns: tuple[SourceColumn, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Program:
    """A query in two stages, as the gate wrote it.

    ``core`` is the first stage, over the prepared table. Of an aggregate query it gives, in this
    order: ``keys`` group keys ``k0, k1 ...``; with a ``minimum_group``, the number of rows ``n``
    and ``counts`` numbers of distinct units ``u0, u1 ...`` (u0 of the whole group, each other of
    the rows in which the column of an aggregate is not NULL); the aggregates ``a0, a1 ...``, of
    which number i is guarded by the count ``guards[i]``.

    ``exact`` is empty if the counts are exact. Otherwise they are lower bounds, and ``exact``
    gives ``g, u0, u1 ...`` for the groups of a table ``UNDECIDED(g, k0, k1 ...)``.

    ``final`` is the second stage, over the table ``RELEASED(k0 ..., a0 ...)``; empty for a query
    for rows, which has one stage. ``row_cap`` is the most rows released; 0 means the engine's
    own limit alone. ``limit`` and ``offset`` are the query's own, of the last stage.
    """

    table: str
    core: str
    exact: str
    final: str
    keys: int
    counts: int
    guards: tuple[int, ...]
    minimum_group: int
    row_cap: int
    limit: int | None
    offset: int


class QueryPlan(Protocol):
    """A query that was understood, before its obligations are known."""

    def program(self, obligations: Obligations) -> Program:
        """Raises ``Refused`` if what the query does cannot be released under them at all."""
        ...


@dataclass(frozen=True, slots=True)
class QueryResult:
    """``arrow`` is an Arrow IPC stream of exactly one result.

    ``rows_scanned`` is the size of the table, whatever the query filtered: how many rows a filter
    met would be a count of a group of any size. ``cells_withheld`` counts the aggregates of
    released groups that rest on too few units and are NULL. ``truncated``: the row cap cut rows.
    """

    arrow: bytes
    rows_scanned: int
    rows_returned: int
    groups_withheld: int
    cells_withheld: int
    truncated: bool
    duration_ms: int


_FAILURES: Mapping[str, str] = {
    "query_timeout": "the query took longer than this node allows",
    "query_memory": "the query needed more memory than this node allows",
    "query_too_large": "the result is larger than this node allows",
    "query_failed": "the query could not be run",
}


class QueryFailed(ConnectorError):
    """The engine did not finish. The message is one constant text for each ``code``.

    ``query_timeout``: the deadline passed. ``query_memory``: out of memory. ``query_too_large``:
    the result is larger than the limit. ``query_failed``: anything else; the engine's own words
    may hold values of the data and go nowhere.
    """

    def __init__(self, code: str) -> None:
        self.code = code if code in _FAILURES else "query_failed"
        super().__init__(_FAILURES[self.code])


class QueryEngine(Protocol):
    """Coroutines may overlap; those that find no worker free wait for one, in order. A cancelled
    coroutine stops its work at once. ``prepare`` and ``export`` alone write, and what they wrote
    is on stable storage, whole or not there."""

    async def inspect(self, source: Path, csv_null: str) -> SourceInfo:
        """Columns and rows of a Parquet or CSV file, or of a folder of them.

        ``csv_null`` is a text that means NULL in CSV files, besides nothing at all. Raises
        ``InvalidInput`` when the source is not there, empty, mixed or not readable.
        """
        ...

    async def prepare(
        self,
        source: Path,
        columns: tuple[str, ...],
        table: str,
        target: Path,
        csv_null: str,
        privacy_unit: str = "",
    ) -> int:
        """Copy ``columns`` into the table ``table`` of the new file ``target``; rows copied.

        ``privacy_unit`` is one of the columns, or empty. Raises as ``inspect``, also for a column
        of a type that cannot be queried (lists, structs, blobs).
        """
        ...

    async def export(
        self, database: Path, table: str, columns: tuple[str, ...], target: Path
    ) -> None:
        """Write these columns of all rows of a prepared table to the new Parquet file ``target``.

        Raises ``Unavailable``.
        """
        ...

    async def run(self, plan: QueryPlan, obligations: Obligations, database: Path) -> QueryResult:
        """Raises ``Refused`` (from the plan), ``QueryFailed``, ``Unavailable`` (no data file, no
        worker)."""
        ...

    async def close(self) -> None:
        """Stop every worker. What still runs fails with ``Unavailable``."""
        ...
