"""Receipts a second into a log, beside the same bytes by a plain append and fdatasync.

``storage`` is framing, hashing, signing and one durable write for each batch; ``meter`` adds
everything that makes a receipt: checking, numbering, encoding. Run with
``pytest bench/test_metering.py``; batches make the figure, so the size is in each name.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from connector.adapters.segments import SegmentLog
from connector.core.interface import Leaves
from connector.metering.meter import Meter
from connector.model.receipt import Outcome
from connector.tlog import merkle
from tests.logs import open_meter, refusal, reservation, seal

SIZES = [1, 100, 1000]
LEAF = (bytes(range(256)) * 2)[:380]  # about a use receipt


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SegmentLog]:
    storage = SegmentLog(tmp_path / "log")
    yield storage
    storage.close()


@pytest.fixture
def meter(storage: SegmentLog, loop: asyncio.AbstractEventLoop) -> Iterator[Meter]:
    meter = loop.run_until_complete(open_meter(storage))
    yield meter
    loop.run_until_complete(meter.close())


def measure(benchmark: BenchmarkFixture, size: int, call: Callable[[], object]) -> None:
    benchmark.pedantic(call, rounds=30 if size > 1 else 200, warmup_rounds=3)
    if benchmark.stats is not None:
        benchmark.extra_info["receipts_per_s"] = round(size / benchmark.stats.stats.median)
        benchmark.extra_info["size"] = size
        benchmark.extra_info["baseline"] = f"test_raw_append[{size}]"


@pytest.mark.parametrize("size", SIZES)
def test_raw_append(benchmark: BenchmarkFixture, tmp_path: Path, size: int) -> None:
    """The baseline."""
    fd = os.open(tmp_path / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append() -> None:
        os.write(fd, LEAF * size)
        os.fdatasync(fd)

    measure(benchmark, size, append)
    os.close(fd)


@pytest.mark.parametrize("size", SIZES)
def test_storage(benchmark: BenchmarkFixture, storage: SegmentLog, size: int) -> None:
    leaves = Leaves((len(LEAF).to_bytes(2, "big") + LEAF) * size, merkle.leaf_hash(LEAF) * size)
    measure(benchmark, size, lambda: storage.append((), leaves, seal))
    assert storage.tip.size >= size


@pytest.mark.parametrize("size", SIZES)
def test_meter_record(
    benchmark: BenchmarkFixture, meter: Meter, loop: asyncio.AbstractEventLoop, size: int
) -> None:
    """Refusals: receipts without a reservation."""
    numbers = itertools.count()

    def record() -> None:
        drafts = [refusal(str(next(numbers))) for _ in range(size)]
        answers = loop.run_until_complete(meter.record(drafts))
        assert len(answers) == size

    measure(benchmark, size, record)


@pytest.mark.parametrize("size", SIZES)
def test_meter_use(
    benchmark: BenchmarkFixture, meter: Meter, loop: asyncio.AbstractEventLoop, size: int
) -> None:
    """Whole uses: ``size`` callers at once, each reserves and then records."""
    numbers = itertools.count()

    async def one() -> None:
        item = reservation(str(next(numbers)))
        await meter.reserve([item])
        await meter.record([item.settle(Outcome.ALLOWED)])

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(size)))

    measure(benchmark, size, lambda: loop.run_until_complete(all_of_them()))


@pytest.mark.parametrize("size", [100, 10_000])
def test_opening(
    benchmark: BenchmarkFixture, tmp_path: Path, loop: asyncio.AbstractEventLoop, size: int
) -> None:
    """Reading and checking a log of this many receipts at start."""

    async def write() -> None:
        storage = SegmentLog(tmp_path)
        meter = await open_meter(storage)
        for first in range(0, size, 100):
            await meter.record([refusal(str(n)) for n in range(first, first + 100)])
        await meter.close()
        storage.close()

    async def read() -> None:
        storage = SegmentLog(tmp_path)
        meter = await open_meter(storage)
        assert meter.checkpoint().size == size
        await meter.close()
        storage.close()

    loop.run_until_complete(write())
    benchmark.pedantic(lambda: loop.run_until_complete(read()), rounds=3)
