"""The parts of one use, each alone in this process: what of a use's time is whose.

The parts are the ones that the node runs, with their own files and their own worker process; the
wire, the tokens and the consumer's checks are what ``bench.system`` measures on top.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from bench.figures import Figure, figure
from connector.adapters.bundle import load_bundle
from connector.adapters.duckdb.engine import DuckDbEngine
from connector.adapters.rego import RegoEngine
from connector.adapters.segments import SegmentLog
from connector.config import Limits
from connector.gate.describe import describe
from connector.metering.meter import Meter
from connector.model.catalog import Classification, Column, Dataset, Role
from connector.model.receipt import Outcome
from connector.model.use import Obligations
from connector.policy import decisions, inputs
from tests import policy_cases
from tests.logs import open_meter, reservation

COUNT = 200
DECISIONS = 1000
ANSWER = json.dumps(
    {
        "allow": True,
        "reasons": [],
        "obligations": {
            "minimum_group": 10,
            "privacy_unit": "tailnum",
            "row_cap": 0,
            "hidden_columns": ["hour"],
        },
    }
)
# The columns of the tables that bench.system makes.
FEW = Dataset(
    id="urn:uuid:few",
    title="few",
    description="",
    keywords=(),
    publisher=policy_cases.PROVIDER,
    classification=Classification.IMPORTANT,
    table="few",
    columns=(
        Column("month", "BIGINT", Role.DIMENSION),
        Column("carrier", "VARCHAR", Role.DIMENSION),
        Column("origin", "VARCHAR", Role.DIMENSION),
        Column("tailnum", "VARCHAR", Role.UNIT),
        Column("dep_delay", "BIGINT", Role.MEASURE),
        Column("arr_delay", "BIGINT", Role.MEASURE),
        Column("distance", "BIGINT", Role.MEASURE),
    ),
    offers=(),
)


async def measure(folder: Path, database: Path, sql: str) -> list[Figure]:
    """``database``: a prepared file with the table ``few``; ``folder``: an empty one, for files."""
    syncs = _syncs(folder / "plain")
    sync = ("append 400 bytes and fdatasync", statistics.median(syncs))
    found = [*await _policy(), figure("use_part_describe_ms", "ms", _describing(sql))]
    with closing(SegmentLog(folder / "log")) as storage:
        meter = await open_meter(storage)
        reserving, recording = await _metering(meter)
        await meter.close()
    found.append(figure("use_part_reserve_ms", "ms", reserving, baseline=sync))
    found.append(figure("use_part_record_ms", "ms", recording, baseline=sync))
    found.append(figure("use_part_worker_ms", "ms", await _worker(folder, database, sql)))
    return found


async def _times(count: int, call: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of each call."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        found.append((time.perf_counter() - started) * 1000)
    return found


async def _policy() -> list[Figure]:
    engine = RegoEngine(load_bundle())
    document = policy_cases.usage()

    async def decide() -> None:
        answer = await engine.evaluate(decisions.USAGE, document)
        assert decisions.read_usage(answer, engine.digest).allow

    async def without() -> None:
        inputs.encode(document)
        assert decisions.read_usage(json.loads(ANSWER), engine.digest).allow

    times, bare = await _times(DECISIONS, decide), await _times(DECISIONS, without)
    rate = ("its input written, a fixed answer read", 1000 / statistics.median(bare))
    alone = (rate[0], statistics.median(bare))
    rates = [1000 / each for each in times]
    return [
        figure("use_part_decision_ms", "ms", times, baseline=alone),
        figure("decision_embedded_per_s", "1/s", rates, baseline=rate),
    ]


def _describing(sql: str) -> list[float]:
    found = []
    for _ in range(COUNT):
        started = time.perf_counter()
        describe(sql, FEW)
        found.append((time.perf_counter() - started) * 1000)
    return found


async def _metering(meter: Meter) -> tuple[list[float], list[float]]:
    reserving, recording = [], []
    for number in range(COUNT):
        item = reservation(f"use-{number}")
        reserving += await _times(1, lambda item=item: meter.reserve([item]))  # type: ignore[misc]
        draft = item.settle(Outcome.ALLOWED)
        recording += await _times(1, lambda draft=draft: meter.record([draft]))  # type: ignore[misc]
    return reserving, recording


async def _worker(folder: Path, database: Path, sql: str) -> list[float]:
    """One query in a warm worker process, there and back."""
    engine = DuckDbEngine(folder / "gate", Limits())
    plan = describe(sql, FEW)
    obligations = Obligations(10, "tailnum", 0, ())
    try:
        await engine.run(plan, obligations, database)
        return await _times(COUNT, lambda: engine.run(plan, obligations, database))
    finally:
        await engine.close()


def _syncs(path: Path) -> list[float]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    found = []
    try:
        for _ in range(COUNT):
            started = time.perf_counter()
            os.write(fd, bytes(400))
            os.fdatasync(fd)
            found.append((time.perf_counter() - started) * 1000)
    finally:
        os.close(fd)
    return found
