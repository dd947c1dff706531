"""SQL from nowhere is understood or refused; what is understood is answered as DuckDB would.

1. Words of SQL in any order, and good queries with pieces exchanged: ``describe`` gives a plan or
   ``Refused``, never anything else; and the program of a plan runs or fails without a value.
2. Queries made of all that is allowed: the released groups are exactly those of plain DuckDB
   that have enough units, with the same values.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.duckdb.execute import Database
from connector.errors import Refused
from connector.gate.describe import describe
from tests.trips import DATASET, GROUPS, LONELY, SECRET, SPARSE, K, parquet, prepared

_WORDS = """
SELECT FROM WHERE GROUP BY HAVING ORDER LIMIT OFFSET AS AND OR NOT IN BETWEEN LIKE IS NULL TRUE
CASE WHEN THEN ELSE END DISTINCT ALL FILTER OVER WITH UNION JOIN ON INTERVAL DATE TIMESTAMP
VALUES PIVOT QUALIFY WINDOW TABLESAMPLE LATERAL EXCLUDE COLUMNS struct map lambda ROW ARRAY AT
TIME ZONE COLLATE ESCAPE ILIKE GLOB SIMILAR TO count sum avg max min median list stddev round
coalesce CAST date_trunc extract trips city month day vehicle delay bonus secret big fare n x
* ( ) , . ; + - / % = < > <> || :: ' " '' "" -- /* */ 1 2.5 1e9 0x1 'a' '孤岛' [ ] { } -> ? $1 @ #
"""
WORDS = [
    *_WORDS.split(),
    "\n",
    "\t",
    "\N{NO-BREAK SPACE}",
    "\N{FULLWIDTH LEFT PARENTHESIS}",
    "\N{RIGHT SINGLE QUOTATION MARK}",
    "\N{ZERO WIDTH SPACE}",
]
GOOD = [
    "SELECT month, count(*) AS n, avg(delay) FROM trips GROUP BY month ORDER BY n DESC",
    "SELECT round(sum(delay) - sum(bonus), 1) FROM trips WHERE city LIKE 'W%' AND month IN (1, 2)",
    "SELECT CASE WHEN rainy THEN 'a' ELSE 'b' END AS c, count(DISTINCT vehicle) FROM trips"
    " GROUP BY ALL HAVING count(*) > 3 LIMIT 5",
    "SELECT date_trunc('month', started) AS m, stddev(cost) FROM trips GROUP BY m",
]
FORBIDDEN = {float(LONELY), float(SPARSE)}


def pieces(query: str) -> list[str]:
    return query.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split(" ")


@st.composite
def mutated(draw: st.DrawFn) -> str:
    words = pieces(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(words)))
        stop = min(len(words), start + draw(st.integers(0, 2)))
        words[start:stop] = draw(st.lists(st.sampled_from(WORDS), max_size=3))
    return " ".join(words)


hostile = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=30).map(lambda w: "SELECT " + " ".join(w)),
    mutated(),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(prepared(tmp_path_factory.mktemp("trips")), memory_mb=512, threads=1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    source = parquet(tmp_path_factory.mktemp("plain") / "trips.parquet")
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("CREATE TABLE trips AS SELECT * FROM read_parquet(?)", [str(source)])
        yield connection


def run(database: Database, query: str) -> tuple[list[tuple[Any, ...]], int]:
    program = describe(query, DATASET).program(GROUPS)
    result = database.run(program, row_cap=100_000, result_bytes=1 << 26)
    rows = pa.ipc.open_stream(result.arrow).read_all().to_pylist()
    return [tuple(row.values()) for row in rows], result.groups_withheld


@given(hostile)
def test_understood_or_refused(database: Database, query: str) -> None:
    try:
        rows, _ = run(database, query)
    except Refused:
        return
    except duckdb.Error:
        return  # a worker says a constant text instead
    for value in (value for row in rows for value in row):
        assert value != SECRET
        assert not isinstance(value, int | float) or abs(float(value)) not in FORBIDDEN


keys = st.lists(
    st.sampled_from(
        [
            "city",
            "month",
            "rainy",
            "month % 4",
            "month // 5",
            "month / 4",
            "-month",
            "date_trunc('month', day)",
            "extract(quarter FROM started)",
            "dayofweek(day)",
            "left(city, 2)",
            "lower(city) || '.'",
            "coalesce(city, '?')",
            "coalesce(rainy, month > 6)",
            "CASE WHEN month BETWEEN 3 AND 5 THEN 'spring' WHEN rainy THEN 'wet' END",
            "CASE month WHEN 1 THEN 1 WHEN 2 THEN 3 ELSE 0 END",
            "nullif(month, 3)",
            "round(fare)",
            "CAST(month AS VARCHAR)",
            "length(city)",
            "strftime(started, '%m')",
            "greatest(month, 6)",
            "if(rainy, 1, 2)",
        ]
    ),
    max_size=3,
    unique=True,
)
values = st.lists(
    st.sampled_from(
        [
            "count(*)",
            "count(delay)",
            "count(DISTINCT vehicle)",
            "count(DISTINCT delay)",
            "sum(delay)",
            "avg(delay)",
            "sum(month)",
            "stddev(delay)",
            "var_pop(delay)",
            "avg(delay) - avg(month)",
            "sum(delay) + sum(month)",
            "count(bonus)",
            "round(avg(delay), 2)",
            "100 * sum(delay) / count(*)",
            "count(*) > 40",
            "CASE WHEN count(*) > 40 THEN 'many' ELSE 'few' END",
            "coalesce(sum(delay), 0) + count(*)",
        ]
    ),
    min_size=1,
    max_size=4,
    unique=True,
)
conditions = st.sampled_from(
    [
        "",
        "month > 3",
        "month IN (1, 2, 3) OR rainy",
        "NOT (month = 1 AND rainy)",
        "month NOT BETWEEN 2 AND 11",
        "city = '满洲里' OR city LIKE '%hai'",
        "city IS NULL",
        "city IS NOT DISTINCT FROM NULL",
        "day >= '2013-06-01'",
        "started < TIMESTAMP '2013-03-01 00:00:00' AND rainy IS NOT TRUE",
        "fare > 3.5",
        "fare BETWEEN 2 AND 8 AND big > 0",
        "month + 1 = 2 + 3",
        "month % 2 = 0 AND -month < -4",
        "length(city) > 3",
        "CASE WHEN rainy THEN month > 6 ELSE month < 6 END",
        "2 * month - 3 < month OR city <> 'few'",
        "extract(month FROM day) = 5",
        "upper(city) = 'FEW'",
    ]
)


@given(keys, values, conditions)
def test_released_groups_are_those_with_enough_units(
    database: Database,
    plain: duckdb.DuckDBPyConnection,
    group: list[str],
    select: list[str],
    where: str,
) -> None:
    filtered = f" WHERE {where}" if where else ""
    grouped = f" GROUP BY {', '.join(str(n + 1) for n in range(len(group)))}" if group else ""
    items = [*group, *select]
    named = ", ".join(f"{item} AS c{number}" for number, item in enumerate(items))
    found, withheld = run(database, f"SELECT {named} FROM trips{filtered}{grouped}")
    guarded = [*group, *(AGGREGATE.sub(_guarded, value) for value in select)]
    whole = plain.execute(
        f"SELECT {', '.join(guarded)}, count(DISTINCT vehicle) FROM trips{filtered}{grouped}"
    ).fetchall()
    enough = [row[:-1] for row in whole if row[-1] >= K]
    assert withheld == len(whole) - len(enough)
    assert _sorted(found) == _sorted(enough)


AGGREGATE = re.compile(r"\b(count|sum|avg|stddev|var_pop)\((DISTINCT )?([a-z]+)\)")


def _guarded(found: re.Match[str]) -> str:
    """The oracle's words for an aggregate that enough units must stand behind."""
    units = f"count(DISTINCT CASE WHEN {found[3]} IS NOT NULL THEN vehicle END)"
    return f"(CASE WHEN {units} >= {K} THEN {found[0]} END)"


def _sorted(rows: Sequence[Sequence[Any]]) -> list[tuple[str, ...]]:
    return sorted(tuple(map(_written, row)) for row in rows)


def _written(value: Any) -> str:
    with contextlib.suppress(TypeError, ValueError):
        if not isinstance(value, str | bool) and value is not None:
            number = float(value)
            return "nan" if math.isnan(number) else f"{number:.9g}"
    return str(value)
