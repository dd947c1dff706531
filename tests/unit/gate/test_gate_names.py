"""Names that owners choose and that could be taken for the gate's own words."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from connector.adapters.duckdb import sources
from connector.adapters.duckdb.execute import Database
from connector.gate.describe import describe
from connector.model.catalog import Classification, Column, Dataset, Role
from connector.model.use import Obligations

COLUMNS = (
    *(Column(name, "BIGINT", Role.DIMENSION) for name in ("k0", "k1", "n", "g", "c1", "u0")),
    *(Column(name, "BIGINT", Role.MEASURE) for name in ("a0", "a1", "u1", "t", "d")),
    Column('un"it', "VARCHAR", Role.UNIT),
    Column("unit", "VARCHAR", Role.DIMENSION),
    Column("select", "BIGINT", Role.DIMENSION),
    Column("航班 号", "BIGINT", Role.MEASURE),
)
UNITS = Obligations(minimum_group=3, privacy_unit='un"it')


def dataset(table: str) -> Dataset:
    return Dataset("urn:x", "x", "", (), "did:web:x", Classification.GENERAL, table, COLUMNS, ())


@pytest.mark.parametrize(
    "table", ["trips", "released", "undecided", "group", "t", "d", 'a"b', "航班"]
)
def test_names(tmp_path: Path, table: str) -> None:
    select = ", ".join(
        f"CAST(range % {number + 2} AS {column.type}) AS {_quoted(column.name)}"
        for number, column in enumerate(COLUMNS)
    )
    source, target = tmp_path / "x.parquet", tmp_path / "x.duckdb"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {select} FROM range(4000)) TO '{source}'")
        connection.execute(f"CREATE TABLE {_quoted(table)} AS SELECT * FROM '{source}'")
        names = [column.name for column in COLUMNS]
        sources.prepare(source, names, table, target, "", 'un"it', memory_mb=256, threads=1)
        database = Database(target, memory_mb=256, threads=1)
        for core in (
            'SELECT u0, k0, g, sum(a0) AS k1, avg(a1) AS n, count("航班 号") AS a0, count(u1) AS g_'
            " FROM {} WHERE k0 + c1 > 0 GROUP BY u0, k0, g",
            'SELECT "unit", "select", n, sum(t) AS t, sum(d) AS d FROM {} WHERE n >= 0'
            ' GROUP BY "unit", "select", n',
            "SELECT k1 AS u0_, c1 AS k0_, count(*) AS n_ FROM {} GROUP BY k1, c1",
        ):
            query = core.format(_quoted(table))
            program = describe(query, dataset(table)).program(UNITS)
            result = database.run(program, row_cap=10_000, result_bytes=1 << 24)
            found = pa.ipc.open_stream(result.arrow).read_all().to_pylist()
            counted = query.replace(" FROM", ', count(DISTINCT "un""it") FROM', 1)
            whole = connection.execute(counted).fetchall()
            wanted = [row[:-1] for row in whole if row[-1] >= 3]
            assert len(wanted) > 0
            assert sorted(map(str, (tuple(map(float, row.values())) for row in found))) == sorted(
                map(str, (tuple(map(float, row)) for row in wanted))
            )
            assert result.groups_withheld == len(whole) - len(wanted)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
