"""Answers of the two stages against plain DuckDB over the same rows; and what must not come out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from connector.adapters.duckdb.execute import Database, Result, TooLarge
from connector.errors import Refused
from connector.gate.describe import describe
from connector.model.use import Obligations
from tests.trips import DATASET, GROUPS, LONELY, ROWS, SPARSE, K, parquet, prepared


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return Database(prepared(tmp_path_factory.mktemp("trips")), memory_mb=512, threads=2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    source = parquet(tmp_path_factory.mktemp("plain") / "trips.parquet")
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE trips AS SELECT * FROM read_parquet(?)", [str(source)])
        yield connection


def run(
    database: Database, query: str, obligations: Obligations = GROUPS, row_cap: int = 10_000
) -> Result:
    program = describe(query, DATASET).program(obligations)
    return database.run(program, row_cap=row_cap, result_bytes=1 << 24)


def table(result: Result) -> pa.Table:
    return pa.ipc.open_stream(result.arrow).read_all()


def values(result: Result) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table(result).to_pylist()]


def same(found: Sequence[Sequence[Any]], wanted: Sequence[Sequence[Any]]) -> bool:
    return len(found) == len(wanted) and all(
        len(left) == len(right) and all(map(_same_value, left, right))
        for left, right in zip(found, wanted, strict=True)
    )


def _same_value(left: Any, right: Any) -> bool:
    if isinstance(left, float | Decimal) and isinstance(right, int | float | Decimal):
        left, right = float(left), float(right)
        return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9) or str(left) == str(right)
    return bool(left == right)


# Queries an analyst writes, whose groups all have enough vehicles.
NATURAL = [
    "SELECT count(*) FROM trips",
    "SELECT month, count(*) AS n, avg(delay) AS mean FROM trips GROUP BY month ORDER BY n DESC, 1",
    "SELECT month, round(avg(delay), 1) FROM trips WHERE month BETWEEN 6 AND 8 GROUP BY 1"
    " ORDER BY 1",
    "SELECT date_trunc('month', started) AS m, sum(delay) FROM trips GROUP BY m ORDER BY m",
    "SELECT extract(quarter FROM day) AS q, count(DISTINCT vehicle) FROM trips GROUP BY q"
    " ORDER BY q",
    "SELECT year(day), quarter(started), count(*) FROM trips GROUP BY ALL"
    " ORDER BY 1, 2 NULLS FIRST",
    "SELECT CASE WHEN month <= 6 THEN 'first' ELSE 'second' END AS half, stddev(delay)"
    " FROM trips GROUP BY half ORDER BY half",
    "SELECT coalesce(rainy, false) AS wet, var_pop(delay) FROM trips GROUP BY wet ORDER BY wet",
    "SELECT rainy, 100.0 * count(delay) / count(*) AS percent FROM trips GROUP BY rainy ORDER BY 1",
    "SELECT month, count(*) FROM trips GROUP BY month HAVING count(*) > 120 ORDER BY month",
    "SELECT month, avg(delay) AS a FROM trips GROUP BY month HAVING a IS NOT NULL"
    " ORDER BY a LIMIT 3",
    "SELECT month FROM trips GROUP BY month ORDER BY month LIMIT 5 OFFSET 4",
    "SELECT count(*) FROM trips WHERE day >= '2013-03-01' AND day < DATE '2013-04-01'",
    "SELECT count(*) FROM trips WHERE started BETWEEN '2013-03-01' AND '2013-04-01 12:00:00'",
    "SELECT count(*) FROM trips WHERE started < '2013-03-01T00:00:00Z' OR month IN (11, 12)",
    "SELECT count(*) FROM trips WHERE rainy AND NOT (month = 3) AND city IS NOT NULL",
    "SELECT count(*) FROM trips WHERE city LIKE 'Wu%' AND city ILIKE '%HAI'",
    "SELECT count(*) FROM trips WHERE city NOT IN ('Wu''hai', '满洲里')",
    "SELECT count(*) FROM trips WHERE city IS DISTINCT FROM ''",
    "SELECT count(*) FROM trips WHERE fare > 5.5 AND fare <= 7",
    "SELECT month % 4 AS m, month // 4 AS d, month / 4 AS f, count(*) FROM trips GROUP BY ALL"
    " ORDER BY 1, 2, 3",
    "SELECT strftime(day, '%Y-%m') AS m, count(*) FROM trips WHERE day IS NOT NULL GROUP BY m"
    " ORDER BY m",
    "SELECT upper(left(city, 2)) || '-' || length(city) :: VARCHAR AS c, count(*) FROM trips"
    " WHERE city <> 'few' AND city <> '孤岛' GROUP BY c ORDER BY c",
    "SELECT avg(delay) - avg(month) AS d FROM trips",
    "SELECT sum(delay) + sum(month) AS d, (sum((month))) FROM trips",
    "SELECT -sum(delay) AS s, abs(-3), greatest(count(*), 5), nullif(count(*), 0) FROM trips",
    "SELECT count(DISTINCT remark) AS r, count(remark) FROM trips GROUP BY rainy ORDER BY rainy",
    "SELECT if(count(*) > 10, 'many', 'few') AS w FROM trips",
    "SELECT 'all' AS what, 1.5 AS x, DATE '2013-01-01' AS d, count(*) FROM trips",
    "SELECT concat(city, '!') AS c, count(*) FROM trips WHERE city = 'Bao\"tou' GROUP BY c",
    "SELECT t.month m, count(*) FROM trips t GROUP BY t.month ORDER BY count(*) DESC, t.month",
    'SELECT month AS "月份", count(*) AS "班次 ""all""" FROM trips GROUP BY 1 ORDER BY 1',
    "SELECT sum(fare), avg(fare) FROM trips",
    "SELECT count(*) FROM trips WHERE starts_with(city, 'Wu') OR contains(city, 'ao')",
    "SELECT dayname(day) AS d, isodow(day) AS n, count(*) FROM trips WHERE day IS NOT NULL"
    " GROUP BY ALL ORDER BY n",
    "SELECT hour(started) < 12 AS morning, avg(delay) FROM trips GROUP BY morning ORDER BY morning",
]


@pytest.mark.parametrize("query", NATURAL)
def test_as_plain_duckdb(database: Database, plain: duckdb.DuckDBPyConnection, query: str) -> None:
    wanted = plain.execute(query).fetchall()
    result = run(database, query)
    assert result.groups_withheld == 0
    assert wanted
    assert same(values(result), wanted)


def test_names_as_written(database: Database) -> None:
    query = "SELECT month AS 月, COUNT(*), avg(Delay), round(avg(delay), 1) FROM trips GROUP BY 1"
    names = ["月", "count(*)", "avg(delay)", "round(avg(delay), 1)"]
    assert table(run(database, query)).column_names == names


def test_sums_of_integers_are_integers(database: Database) -> None:
    """And where 64 bits do not hold them, they are decimals."""
    found = table(run(database, "SELECT sum(delay) AS d, sum(huge) AS h FROM trips"))
    assert found.schema.field("d").type == pa.int64()
    assert found.schema.field("h").type == pa.decimal128(38, 0)


# Queries of which some groups have too few vehicles.
@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ("city", "true"),
        ("city, month", "true"),
        ("city, rainy, month", "month < 7"),
        ("day", "true"),
        ("started", "true"),
        ("fare", "true"),
        ("big", "city = 'few'"),
        ("city", "city IN ('few', '孤岛')"),
        ("city, 1 + 1", "true"),
    ],
)
def test_small_groups_are_withheld(
    database: Database, plain: duckdb.DuckDBPyConnection, keys: str, where: str
) -> None:
    select = f"SELECT {keys}, count(*), count(DISTINCT vehicle) AS v FROM trips WHERE {where}"
    grouped = f"{select} GROUP BY ALL"
    whole = plain.execute(f"{grouped} ORDER BY ALL").fetchall()
    wanted = [row for row in whole if row[-1] >= K]
    result = run(database, grouped)
    assert sorted(values(result), key=str) == sorted(wanted, key=str)
    assert result.groups_withheld == len(whole) - len(wanted)
    assert result.groups_withheld > 0


def test_a_cell_needs_enough_units_too(database: Database) -> None:
    """Many vehicles in the city, and one of them has a bonus."""
    query = (
        "SELECT count(*) > 100 AS many, avg(bonus), sum(bonus), count(bonus),"
        " stddev(bonus), count(DISTINCT bonus), avg(delay) IS NULL AS none"
        " FROM trips WHERE city = '满洲里'"
    )
    result = run(database, query)
    assert values(result) == [(True, None, None, None, None, None, False)]
    assert (result.groups_withheld, result.cells_withheld) == (0, 5)


def test_scanned_is_the_table_whatever_the_filter(database: Database) -> None:
    """How many rows a filter meets is a count of a group of any size."""
    scanned = {
        run(database, f"SELECT count(*) FROM trips WHERE {where}").rows_scanned
        for where in ("true", "city = '孤岛'", "city = 'nowhere'")
    }
    assert len(scanned) == 1


def test_one_and_none_look_the_same(database: Database) -> None:
    """Whether the lonely vehicle went to the island is not to be seen in a global aggregate."""
    island, nowhere = (
        run(database, f"SELECT count(*), avg(delay) FROM trips WHERE city = '{city}'")
        for city in ("孤岛", "nowhere")
    )
    assert island == nowhere


# What a group of one could answer by failing: each is true of the island's one row or of none.
TELLTALE = [
    "WHERE city = '孤岛' AND 1 / (month - month) > 0",
    "WHERE city = '孤岛' AND month // (month - month) = 1",
    "WHERE city = '孤岛' AND big * 9223372036854775 > 0",
    "WHERE city = '孤岛' AND month * 99999999999999999 * 99999999999999999 > 0",
    "WHERE city = '孤岛' AND CAST(city AS INTEGER) = 1",
    "WHERE city = '孤岛' AND CAST(city AS DATE) = DATE '2013-01-01'",
    "WHERE city = '孤岛' AND sqrt(-month) > 0",
    "WHERE city = '孤岛' AND ln(month - month) > 0",
    "WHERE city = '孤岛' AND exp(big) > 0",
    "WHERE city = '孤岛' AND pow(big, big) > 0",
    "WHERE city = '孤岛' AND -big > 0",
    "WHERE city = '孤岛' AND abs(big) > 0",
    "WHERE city = '孤岛' AND CAST(big AS SMALLINT) > 0",
    "WHERE city = '孤岛' AND substring(city, big) = ''",
    "WHERE city = '孤岛' AND left(city, big) = ''",
    "WHERE city = '孤岛' AND big + big > 0",
    "WHERE city = '孤岛' AND round(big, month) > 0",
    "WHERE city = '孤岛' AND fare * fare * fare * fare > 0",
    "WHERE city = '孤岛' AND fare > big",
    "WHERE city = '孤岛' AND fare IN (1, 2.5, 3e300)",
    "GROUP BY city, month // (month - month)",
    "GROUP BY city, big * 2",
    "GROUP BY city, -big",
    "GROUP BY city, CAST(city AS INTEGER)",
    "GROUP BY city, strftime(started, '%Y')",
    "GROUP BY big HAVING 1 // (count(*) - count(*)) = 1",
    "GROUP BY month HAVING big = 1",
]


@pytest.mark.parametrize("tail", TELLTALE)
def test_nothing_fails_because_of_a_row(database: Database, tail: str) -> None:
    try:
        result = run(database, f"SELECT count(*), avg(delay) FROM trips {tail}")
    except Refused:
        return
    assert LONELY not in [value for row in values(result) for value in row]


AGGREGATES_OF_EXTREMES = [
    "sum(huge)",
    "avg(huge)",
    "stddev(huge)",
    "var_pop(huge)",
    "sum(cost)",
    "avg(cost)",
    "stddev(cost)",
    "var_samp(cost)",
    "sum(big)",
    "avg(fare)",
    "sum(fare)",
]


@pytest.mark.parametrize("aggregate", AGGREGATES_OF_EXTREMES)
@pytest.mark.parametrize("where", ["true", "city = '孤岛'"])
def test_no_aggregate_overflows(database: Database, aggregate: str, where: str) -> None:
    run(database, f"SELECT {aggregate} FROM trips WHERE {where}")


# Ways to one vehicle's exact value that a clever consumer tries with allowed words alone.
ATTACKS = [
    "SELECT avg(delay) FROM trips WHERE city = '孤岛'",
    "SELECT city, avg(delay) AS a FROM trips GROUP BY city HAVING a > 900000",
    "SELECT city, sum(delay) AS a FROM trips GROUP BY city ORDER BY a DESC NULLS LAST LIMIT 1",
    "SELECT city, day, started, sum(delay) FROM trips GROUP BY ALL",
    "SELECT city, coalesce(avg(delay), 0) FROM trips GROUP BY city",
    "SELECT CASE WHEN city = '孤岛' THEN 1 ELSE 0 END AS c, sum(delay) FROM trips GROUP BY c",
    "SELECT sum(delay) FROM trips GROUP BY city = '孤岛'",
    "SELECT avg(bonus) FROM trips",
    "SELECT sum(bonus) / count(bonus) FROM trips",
    "SELECT sum(bonus) AS s FROM trips HAVING s = 123456",
    "SELECT count(*) FROM trips HAVING sum(bonus) = 123456",
    "SELECT city FROM trips GROUP BY city ORDER BY sum(bonus) DESC NULLS LAST",
    "SELECT sum(delay) - sum(bonus), sum(delay) FROM trips",
    "SELECT var_pop(bonus), stddev_pop(bonus) FROM trips",
    "SELECT count(DISTINCT vehicle), sum(delay) FROM trips WHERE city = '孤岛' OR city = 'few'",
]


@pytest.mark.parametrize("query", ATTACKS)
def test_no_single_value_comes_out(database: Database, query: str) -> None:
    try:
        found = [value for row in values(run(database, query)) for value in row]
    except Refused:
        return
    numbers = [float(value) for value in found if isinstance(value, int | float | Decimal)]
    assert not {float(LONELY), float(SPARSE)} & {abs(number) for number in numbers}
    assert "孤岛" not in found


def test_order_and_having_do_not_see_withheld_cells(database: Database) -> None:
    """The one bonus neither moves its city to the top nor lets it through HAVING."""
    having = run(database, "SELECT city FROM trips GROUP BY city HAVING sum(bonus) > 0")
    assert values(having) == []


def test_rows_where_the_contract_allows_rows(
    database: Database, plain: duckdb.DuckDBPyConnection
) -> None:
    query = (
        "SELECT city, month * 2 AS m FROM trips WHERE rainy"
        " ORDER BY started, big, vehicle, delay LIMIT 7"
    )
    assert same(values(run(database, query, ROWS)), plain.execute(query).fetchall())
    assert table(run(database, "SELECT * FROM trips", ROWS)).column_names[-1] == "remark"


def test_row_cap(database: Database) -> None:
    query = "SELECT month FROM trips GROUP BY month ORDER BY month"
    cut = run(database, query, row_cap=5)
    assert (cut.rows_returned, cut.truncated) == (5, True)
    whole = run(database, f"{query} LIMIT 5", row_cap=5)
    assert (whole.rows_returned, whole.truncated) == (5, False)
    assert not run(database, query, row_cap=12).truncated


def test_result_size(database: Database) -> None:
    program = describe("SELECT * FROM trips", DATASET).program(ROWS)
    with pytest.raises(TooLarge):
        database.run(program, row_cap=10_000, result_bytes=10_000)


def test_the_engine_is_locked(database: Database, tmp_path: Path) -> None:
    """The second layer: what the gate would never write does not work either."""
    for connection in (database._stage_one, database._stage_two):
        for statement in (
            "SET threads=64",
            "RESET lock_configuration",
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            "SELECT * FROM read_text('/etc/hostname')",
            f"ATTACH '{tmp_path}/x.db'",
            "INSTALL httpfs",
            "LOAD httpfs",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)
    with pytest.raises(duckdb.Error):
        database._stage_one.execute("DELETE FROM trips")


def test_hidden_columns_are_not_in_the_file(database: Database) -> None:
    columns = database._stage_one.table("trips").columns
    assert "secret" not in columns
    assert "vehicle" in columns
