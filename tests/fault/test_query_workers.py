"""Workers that are late, hungry, abandoned, killed or asked all at once; and what they may touch.

Queries here are programs written by hand, as no consumer could have them: the gate is not there.
"""

# Blocking calls on files in /proc are all that these tests do with them.
# ruff: noqa: ASYNC110, ASYNC221, ASYNC240

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from connector.adapters.duckdb.engine import DuckDbEngine
from connector.adapters.duckdb.process import WorkerProcess
from connector.config import Limits
from connector.errors import InvalidInput, Unavailable
from connector.gate.describe import describe
from connector.model.catalog import Dataset
from connector.model.use import Obligations
from connector.ports.query import Program, QueryFailed, QueryResult
from tests.trips import DATASET, GROUPS, SECRET, VISIBLE, parquet

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS = Limits(query_timeout_s=1.0, query_memory_mb=256, query_threads=1, workers=2, result_mb=1)
GOOD = "SELECT month, count(*) AS n FROM trips GROUP BY month"
ENDLESS = "SELECT sum(a.range * b.range) AS s FROM range(100000000) a, range(100000) b"
HUNGRY = "SELECT list(range) AS s FROM range(1000000000)"
# Neither an interrupt nor the engine's own limits stop this one.
DEAF = "SELECT levenshtein(repeat('a', 200000), repeat('b', 200000)) AS s"


@dataclass(frozen=True)
class Written:
    """A plan that is one statement."""

    sql: str

    def program(self, obligations: Obligations) -> Program:
        return Program("trips", self.sql, "", "", 0, 0, (), 0, 0, None, 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DuckDbEngine]:
    engine = DuckDbEngine(tmp_path_factory.mktemp("gate"), LIMITS)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parquet(tmp_path_factory.mktemp("source") / "trips.parquet")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(
    engine: DuckDbEngine, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    target = tmp_path_factory.mktemp("data") / "trips.duckdb"
    assert await engine.prepare(source, VISIBLE, "trips", target, "", "vehicle") == 1531
    return target


async def ask(engine: DuckDbEngine, database: Path, query: str = GOOD) -> QueryResult:
    return await engine.run(describe(query, DATASET), GROUPS, database)


def workers() -> set[int]:
    """Processes of ours that live."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, rest = status.read_text().split(" ", 1)
            state, parent = rest.rsplit(")", 1)[1].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.add(int(pid))
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_an_answer(engine: DuckDbEngine, database: Path) -> None:
    result = await ask(engine, database)
    table = pa.ipc.open_stream(result.arrow).read_all()
    assert sum(table.column("n").to_pylist()) == result.rows_scanned == 1531
    assert result.rows_returned == table.num_rows == 12


async def test_workers_are_kept_warm_and_spawned(engine: DuckDbEngine, database: Path) -> None:
    await ask(engine, database)
    before = workers()
    for _ in range(5):
        await ask(engine, database)
    assert workers() == before
    for pid in before:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert b"-I" in arguments  # an interpreter of its own, not a copy of this one


async def test_the_node_never_loads_the_engine() -> None:
    code = (
        "import sys; import connector.adapters.duckdb.engine;"
        "sys.exit('duckdb' in sys.modules or 'pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("sql", [ENDLESS, DEAF])
async def test_deadline(engine: DuckDbEngine, database: Path, sql: str) -> None:
    with pytest.raises(QueryFailed) as failed:
        await engine.run(Written(sql), Obligations(), database)
    assert failed.value.code == "query_timeout"
    assert (await ask(engine, database)).rows_returned == 12


async def test_memory(engine: DuckDbEngine, database: Path) -> None:
    with pytest.raises(QueryFailed) as failed:
        await engine.run(Written(HUNGRY), Obligations(), database)
    assert failed.value.code in ("query_memory", "query_timeout")
    assert (await ask(engine, database)).rows_returned == 12


async def test_result_too_large(engine: DuckDbEngine, database: Path) -> None:
    sql = "SELECT repeat(remark, 1000) AS r FROM trips"
    with pytest.raises(QueryFailed) as failed:
        await engine.run(Written(sql), Obligations(), database)
    assert failed.value.code == "query_too_large"


FAILING = [
    "SELECT error(vehicle) FROM trips",
    "SELECT CAST(city AS INTEGER) FROM trips",
    "SELECT nothing FROM trips",
    "SELECT * FROM nowhere",
    "DELETE FROM trips",
    "SELECT 1; SELECT 2",
    "not even SQL",
]


@pytest.mark.parametrize("sql", FAILING)
async def test_failures_have_one_text(engine: DuckDbEngine, database: Path, sql: str) -> None:
    with pytest.raises(QueryFailed) as failed:
        await engine.run(Written(sql), Obligations(), database)
    assert str(failed.value) == "the query could not be run"
    assert failed.value.__cause__ is None


async def test_a_worker_that_failed_is_not_used_again(engine: DuckDbEngine, database: Path) -> None:
    await ask(engine, database)
    before = workers()
    for _ in range(2):
        with pytest.raises(QueryFailed):
            await engine.run(Written("SELECT error('x')"), Obligations(), database)
    await until(lambda: len(workers() & before) <= len(before) - 1)
    assert (await ask(engine, database)).rows_returned == 12


async def test_cancelling_kills(engine: DuckDbEngine, database: Path) -> None:
    await ask(engine, database)
    before = workers()
    task = asyncio.create_task(engine.run(Written(DEAF), Obligations(), database))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: len(workers() & before) < len(before) or not before)
    assert (await ask(engine, database)).rows_returned == 12


async def test_a_killed_worker_is_replaced(engine: DuckDbEngine, database: Path) -> None:
    await ask(engine, database)
    killed = workers()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in killed))
    assert (await ask(engine, database)).rows_returned == 12


async def test_killed_while_it_runs(engine: DuckDbEngine, database: Path) -> None:
    await ask(engine, database)
    task = asyncio.create_task(engine.run(Written(DEAF), Obligations(), database))
    await asyncio.sleep(0.3)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(QueryFailed):
        await task
    assert (await ask(engine, database)).rows_returned == 12


async def test_many_at_once(engine: DuckDbEngine, database: Path) -> None:
    """All are answered, in turn, by no more workers than there may be."""
    tasks = [asyncio.create_task(ask(engine, database)) for _ in range(64)]
    most = 0
    while not all(task.done() for task in tasks):
        most = max(most, len(workers()))
        await asyncio.sleep(0.005)
    assert {task.result().rows_returned for task in tasks} == {12}
    assert 1 <= most <= LIMITS.workers


async def test_some_given_up_while_they_wait(engine: DuckDbEngine, database: Path) -> None:
    tasks = [asyncio.create_task(ask(engine, database)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in found[::2])
    assert all(isinstance(each, QueryResult) for each in found[1::2])
    assert len(workers()) <= LIMITS.workers


async def test_another_file_gets_another_worker(
    engine: DuckDbEngine, source: Path, database: Path, tmp_path: Path
) -> None:
    """Also the same path with a new file behind it."""
    target = tmp_path / "other.duckdb"
    for rows in (("city",), ("city", "vehicle")):
        await engine.prepare(source, rows, "trips", target, "", "")
        query = describe("SELECT * FROM trips", replace_columns(rows))
        result = await engine.run(query, Obligations(), target)
        assert len(pa.ipc.open_stream(result.arrow).schema) == len(rows)
        assert (await ask(engine, database)).rows_returned == 12
        assert len(workers()) <= LIMITS.workers


def replace_columns(names: tuple[str, ...]) -> Dataset:
    columns = tuple(column for column in DATASET.columns if column.name in names)
    return replace(DATASET, columns=columns)


async def test_an_export_is_whole_or_not_there(
    engine: DuckDbEngine, database: Path, tmp_path: Path
) -> None:
    target = tmp_path / "files" / "rows.parquet"
    await engine.export(database, "trips", ("city", "month"), target)
    assert pq.read_table(target).column_names == ["city", "month"]
    with pytest.raises(Unavailable):
        await engine.export(database, "trips", ("nobody",), tmp_path / "files" / "other.parquet")
    assert [path.name for path in target.parent.iterdir()] == ["rows.parquet"]


async def test_no_file(engine: DuckDbEngine, tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        await ask(engine, tmp_path / "gone.duckdb")


@pytest.mark.parametrize("content", [b"", b"not a database", b"\0" * 20_000])
async def test_a_spoilt_file(engine: DuckDbEngine, tmp_path: Path, content: bytes) -> None:
    spoilt = tmp_path / "spoilt.duckdb"
    spoilt.write_bytes(content)
    with pytest.raises(QueryFailed):
        await ask(engine, spoilt)


async def test_closing_stops_what_runs(database: Path, tmp_path: Path) -> None:
    engine = DuckDbEngine(tmp_path, LIMITS)
    await ask(engine, database)
    task = asyncio.create_task(engine.run(Written(DEAF), Obligations(), database))
    await asyncio.sleep(0.2)
    await engine.close()
    with pytest.raises(Unavailable):
        await task
    with pytest.raises(Unavailable):
        await ask(engine, database)


ORPHAN = """
import asyncio, sys
from pathlib import Path
from connector.adapters.duckdb.process import WorkerProcess
async def main():
    worker = await WorkerProcess.spawn()
    request = {"do": "open", "database": sys.argv[1], "memory_mb": 256, "threads": 1}
    await worker.ask(request)
    print(worker.pid, flush=True)
    program = {"table": "trips", "core": sys.argv[2], "exact": "", "final": "", "keys": 0,
               "counts": 0, "guards": [], "minimum_group": 0, "row_cap": 0, "limit": None,
               "offset": 0}
    await worker.ask({"do": "run", "program": program, "row_cap": 1, "result_bytes": 1000,
                      "timeout_s": 60.0, "threads": 1})
asyncio.run(main())
"""


async def test_a_worker_dies_with_the_node(database: Path) -> None:
    """Killed outright, in the middle of a query that listens to nobody."""
    node = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHAN, str(database), DEAF, stdout=asyncio.subprocess.PIPE
    )
    assert node.stdout is not None
    worker = int(await node.stdout.readline())
    assert Path(f"/proc/{worker}").exists()
    node.kill()
    await node.wait()
    await until(lambda: not Path(f"/proc/{worker}").exists())


async def test_the_sandbox_holds_here(engine: DuckDbEngine) -> None:
    """On the Linux that this is tested on; elsewhere the report says what does not hold."""
    report = await engine.sandbox_report()
    assert report["dies_with_parent"]
    assert report["limits"]
    assert report["seccomp"]
    assert report["unprivileged"]


TOUCHES: dict[str, str] = {
    "its own file": "read_blob('{database}')",
    "another file": "read_text('/etc/passwd')",
    "a folder": "glob('/etc/*')",
    "the environment": "(SELECT getenv('PATH') AS x)",
}


@pytest.mark.parametrize("name", TOUCHES)
async def test_the_engine_reaches_nothing(engine: DuckDbEngine, database: Path, name: str) -> None:
    sql = f"SELECT * FROM {TOUCHES[name].format(database=database)} AS t"
    try:
        result = await engine.run(Written(sql), Obligations(), database)
    except QueryFailed:
        return
    found = pa.ipc.open_stream(result.arrow).read_all().to_pylist()
    assert not [value for row in found for value in row.values() if value]


async def test_a_worker_has_no_environment_and_no_files(database: Path) -> None:
    os.environ["TDS_TEST_SECRET"] = "tell nobody"
    worker = await WorkerProcess.spawn()
    try:
        await worker.ask({"do": "open", "database": "", "memory_mb": 256, "threads": 1})
        environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
        assert b"SECRET" not in environment
        opened = [str(link.readlink()) for link in Path(f"/proc/{worker.pid}/fd").iterdir()]
        assert all(name.startswith(("pipe:", "/dev/null")) for name in opened), opened
    finally:
        del os.environ["TDS_TEST_SECRET"]
        worker.kill()
        await worker.gone()


async def test_hidden_values_are_not_in_the_file(database: Path) -> None:
    assert SECRET.encode() not in database.read_bytes()


async def test_an_interrupted_preparation_leaves_nothing(source: Path, tmp_path: Path) -> None:
    engine = DuckDbEngine(tmp_path, LIMITS)
    task = asyncio.create_task(
        engine.prepare(source, VISIBLE, "trips", tmp_path / "x.duckdb", "", "vehicle")
    )
    await until(lambda: any(tmp_path.iterdir()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []
    await engine.close()


async def test_what_a_crash_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".0123.unfinished").mkdir()
    (tmp_path / ".0123.unfinished" / "rows.duckdb").write_bytes(b"x")
    (tmp_path / "kept.duckdb").write_bytes(b"x")
    DuckDbEngine(tmp_path, LIMITS)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.duckdb"]


async def test_a_bad_source_is_the_owners_to_mend(engine: DuckDbEngine, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        await engine.inspect(tmp_path / "gone.csv", "")
    assert refused.value.message == "source: there is no such file or folder"
