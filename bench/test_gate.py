"""A query through its plan and a warm worker, beside plain DuckDB on the same rows in this process.

Both give Arrow bytes. ``gate`` is everything from the text to those bytes: parsing, the plan, two
stages, counting units, the pipe. Run with ``pytest bench/test_gate.py``; the ratio of the medians
is the overhead, printed as ``over_plain``. Rows are made up: 330,000 and ten times that, 4,000
units, groups of many sizes.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from connector.adapters.duckdb.engine import DuckDbEngine
from connector.config import Limits
from connector.gate.describe import describe
from connector.model.catalog import Classification, Column, Dataset, Role
from connector.model.use import Obligations

THREADS = 2
LIMITS = Limits(query_threads=THREADS, workers=1)
GROUPS = Obligations(minimum_group=10, privacy_unit="unit")
SIZES = {"330 thousand rows": 330_000, "3.3 million rows": 3_300_000}
COLUMNS = {
    "place": ("VARCHAR", Role.DIMENSION, "'P' || CAST(floor(100 * random() ** 3) AS INTEGER)"),
    "month": ("BIGINT", Role.DIMENSION, "1 + CAST(floor(12 * random()) AS BIGINT)"),
    "kind": ("VARCHAR", Role.DIMENSION, "'K' || CAST(floor(16 * random()) AS INTEGER)"),
    "unit": ("VARCHAR", Role.UNIT, "'U' || CAST(floor(4000 * random()) AS INTEGER)"),
    "delay": (
        "BIGINT",
        Role.MEASURE,
        "CASE WHEN random() > 0.03 THEN CAST(floor(200 * random()) AS BIGINT) - 50 END",
    ),
    "length": ("BIGINT", Role.MEASURE, "CAST(floor(3000 * random()) AS BIGINT)"),
}
DATASET = Dataset(
    id="urn:bench",
    title="bench",
    description="",
    keywords=(),
    publisher="did:web:bench.example",
    classification=Classification.IMPORTANT,
    table="trips",
    columns=tuple(Column(name, kind, role) for name, (kind, role, _) in COLUMNS.items()),
    offers=(),
)
QUERIES = {
    "by place": "SELECT place, count(*) AS n, avg(delay) AS mean FROM trips GROUP BY place"
    " ORDER BY n DESC",
    "by month, filtered": "SELECT month, round(avg(delay), 1) AS mean FROM trips"
    " WHERE kind IN ('K1', 'K2') AND month BETWEEN 6 AND 8 GROUP BY month",
    "by place, kind and month": "SELECT place, kind, month, count(*), avg(delay), sum(length)"
    " FROM trips GROUP BY ALL HAVING count(*) > 20",
    "units counted": "SELECT kind, count(DISTINCT unit) AS units, stddev(delay) FROM trips"
    " GROUP BY kind",
}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module", params=SIZES)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "trips.parquet"
    select = ", ".join(f"{made} AS {name}" for name, (_, _, made) in COLUMNS.items())
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SELECT setseed(0.5)")
        rows = f"SELECT {select} FROM range({SIZES[request.param]})"  # noqa: S608
        connection.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet)")
    return path


@pytest.fixture(scope="module")
def gate(
    loop: asyncio.AbstractEventLoop, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], bytes]]:
    folder = tmp_path_factory.mktemp("gate")
    engine = DuckDbEngine(folder, LIMITS)
    database = folder / "trips.duckdb"
    loop.run_until_complete(engine.prepare(source, tuple(COLUMNS), "trips", database, "", "unit"))

    def ask(query: str) -> bytes:
        run = engine.run(describe(query, DATASET), GROUPS, database)
        return loop.run_until_complete(run).arrow

    yield ask
    loop.run_until_complete(engine.close())


@pytest.fixture(scope="module")
def plain(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], bytes]]:
    path = tmp_path_factory.mktemp("plain") / "trips.duckdb"
    with duckdb.connect(str(path), config={"threads": THREADS}) as connection:
        connection.execute("CREATE TABLE trips AS SELECT * FROM read_parquet(?)", [str(source)])
        connection.execute("CHECKPOINT")

        def ask(query: str) -> bytes:
            table = connection.sql(query).to_arrow_table()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            data: bytes = sink.getvalue().to_pybytes()
            return data

        yield ask


@pytest.mark.parametrize("name", QUERIES)
def test_gate(
    benchmark: BenchmarkFixture,
    gate: Callable[[str], bytes],
    plain: Callable[[str], bytes],
    name: str,
) -> None:
    query = QUERIES[name]
    alone = statistics.median(_seconds(plain, query) for _ in range(15))
    result = benchmark.pedantic(gate, (query,), rounds=15, warmup_rounds=3)
    assert pa.ipc.open_stream(result).read_all().num_rows > 0
    if benchmark.stats is not None:
        benchmark.extra_info["plain_ms"] = round(alone * 1000, 2)
        benchmark.extra_info["over_plain"] = round(benchmark.stats.stats.median / alone, 2)


def _seconds(call: Callable[[str], bytes], query: str) -> float:
    started = time.perf_counter()
    call(query)
    return time.perf_counter() - started
