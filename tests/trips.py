"""A small dataset with every trap in it, and plain DuckDB over the same rows as the oracle.

Trips of vehicles (the privacy unit). Groups of one vehicle, of many rows but few vehicles, and of
many vehicles of which one alone has a value; NULL in keys, units and measures; quotes and Chinese
in texts; NaN and infinity; numbers at the ends of their types.
"""

from __future__ import annotations

import datetime
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connector.adapters.duckdb import sources
from connector.model.catalog import Classification, Column, Dataset, Role
from connector.model.use import Obligations

K = 5  # the minimum group
LONELY = 987_654  # the one vehicle's delay in city "孤岛"; it must never be seen
SPARSE = 123_456  # the one value of bonus in "满洲里", where many vehicles are
SECRET = "do-not-show"

COLUMNS = (
    Column("city", "VARCHAR", Role.DIMENSION),
    Column("month", "BIGINT", Role.DIMENSION),
    Column("day", "DATE", Role.DIMENSION),
    Column("started", "TIMESTAMP", Role.DIMENSION),
    Column("rainy", "BOOLEAN", Role.DIMENSION),
    Column("fare", "DECIMAL(38,2)", Role.DIMENSION),
    Column("big", "BIGINT", Role.DIMENSION),
    Column("vehicle", "VARCHAR", Role.UNIT),
    Column("delay", "BIGINT", Role.MEASURE),
    Column("cost", "DOUBLE", Role.MEASURE),
    Column("bonus", "BIGINT", Role.MEASURE),
    Column("huge", "BIGINT", Role.MEASURE),
    Column("remark", "VARCHAR", Role.MEASURE),
    Column("secret", "VARCHAR", Role.HIDDEN),
)
DATASET = Dataset(
    id="urn:trips",
    title="trips",
    description="",
    keywords=(),
    publisher="did:web:bus.example",
    classification=Classification.IMPORTANT,
    table="trips",
    columns=COLUMNS,
    offers=(),
)
GROUPS = Obligations(minimum_group=K, privacy_unit="vehicle", hidden_columns=("secret",))
ROWS = Obligations(hidden_columns=("secret",))
VISIBLE = tuple(column.name for column in COLUMNS if column.role is not Role.HIDDEN)


def rows() -> list[dict[str, Any]]:
    """The same rows each time."""
    made = random.Random(7)
    cities = ["满洲里", "Wu'hai", 'Bao"tou', "", None]
    found = []
    for number in range(1500):
        city = made.choice(cities)
        vehicle = None if number % 40 == 0 else f"V{made.randrange(60):02}"
        found.append(_row(made, city, vehicle, delay=made.choice([None, made.randrange(-20, 200)])))
    for _ in range(30):  # many rows, four vehicles: fewer than K
        found.append(_row(made, "few", f"V{made.randrange(4):02}", delay=1))
    found.append(_row(made, "孤岛", "V07", delay=LONELY))
    shown = next(row for row in found if row["city"] == "满洲里" and row["vehicle"])
    shown["bonus"] = SPARSE
    return found


def _row(made: random.Random, city: str | None, vehicle: str | None, delay: Any) -> dict[str, Any]:
    day = datetime.date(2013, 1, 1) + datetime.timedelta(days=made.randrange(365))
    return {
        "city": city,
        "month": day.month,
        "day": None if made.random() < 0.02 else day,
        "started": datetime.datetime(day.year, day.month, day.day, made.randrange(24)),
        "rainy": made.choice([True, False, None]),
        "fare": Decimal(made.randrange(100, 900)) / 100,
        "big": made.choice([2**63 - 1, -(2**63), 0, 1]),
        "vehicle": vehicle,
        "delay": delay,
        "cost": made.choice([1.5, 2.25, -7.0, float("nan"), float("inf"), 1e308, None]),
        "bonus": None,
        "huge": made.choice([2**63 - 1, -(2**63)]),
        "remark": made.choice(["late", "5", "x" * 50]),
        "secret": SECRET,
    }


def parquet(path: Path) -> Path:
    """Write the rows as a Parquet file."""
    kinds = {
        "city": pa.string(),
        "month": pa.int64(),
        "day": pa.date32(),
        "started": pa.timestamp("us"),
        "rainy": pa.bool_(),
        "fare": pa.decimal128(38, 2),
        "big": pa.int64(),
        "vehicle": pa.string(),
        "delay": pa.int64(),
        "cost": pa.float64(),
        "bonus": pa.int64(),
        "huge": pa.int64(),
        "remark": pa.string(),
        "secret": pa.string(),
    }
    schema = pa.schema(list(kinds.items()))
    pq.write_table(pa.Table.from_pylist(rows(), schema=schema), path)
    return path


def prepared(folder: Path) -> Path:
    """The rows as a worker prepares them."""
    target = folder / "trips.duckdb"
    source = parquet(folder / "trips.parquet")
    sources.prepare(source, VISIBLE, "trips", target, "", "vehicle", memory_mb=512, threads=1)
    return target
