"""The meter in this process, under load: what ``bench.metering`` measures without the wire.

The log is a ``SegmentLog`` on disk with its keys in files, the clock and the random bytes are the
machine's. Batches are made in the same process, which costs a few percent of the figure.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.rows import Batches
from connector.adapters.clock import SystemClock
from connector.adapters.segments import SegmentLog
from connector.adapters.segments.log import SEGMENT_BYTES
from connector.core.interface import Core
from connector.metering.meter import Meter

SCOPE = "urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e"
ORIGIN = "provider.example/log"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@asynccontextmanager
async def opened(
    folder: Path, core: Core, *, segment_bytes: int = SEGMENT_BYTES
) -> AsyncIterator[Meter]:
    """The meter over the log in ``folder``."""
    with (
        closing(SegmentLog(folder, core=core, segment_bytes=segment_bytes)) as storage,
        closing(core.open_keys(folder / "keys")) as keys,
    ):
        meter = await Meter.open(
            storage,
            core=core,
            keys=keys,
            origin=ORIGIN,
            key=KEY,
            clock=SystemClock(),
            random=os.urandom,
        )
        yield meter
        await meter.close()


@dataclass
class Pump:
    """Batches into one meter, each record once."""

    meter: Meter
    batches: Batches
    scope: str = SCOPE
    number: int = 0
    receipts: int = 0

    async def one(self) -> None:
        self.number += 1
        (answer,) = await self.meter.report([self.batches.report(self.number, self.scope)])
        assert answer.count == self.batches.rows, answer.refused
        self.receipts += answer.count

    async def for_seconds(self, seconds: float, in_flight: int) -> float:
        """Receipts a second, ``in_flight`` batches under way all the time."""
        until = time.perf_counter() + seconds

        async def keep_on() -> None:
            while time.perf_counter() < until:
                await self.one()

        return await self._rated(*(keep_on() for _ in range(in_flight)))

    async def until(self, size: int, in_flight: int) -> float:
        """Receipts a second, until the log has ``size`` of them or a little more."""

        async def keep_on() -> None:
            while self.meter.checkpoint().size < size:
                await self.one()

        return await self._rated(*(keep_on() for _ in range(in_flight)))

    async def paced(self, rate: float, seconds: float) -> list[float]:
        """Milliseconds of each of ``rate`` batches a second, from when it was due."""
        began = time.perf_counter()
        found: list[float] = []

        async def one(due: float) -> None:
            await self.one()
            found.append((time.perf_counter() - due) * 1000)

        async with asyncio.TaskGroup() as tasks:
            for number in range(int(rate * seconds)):
                due = began + number / rate
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                tasks.create_task(one(due))
        return found

    async def _rated(self, *calls: object) -> float:
        before, started = self.receipts, time.perf_counter()
        await asyncio.gather(*calls)  # type: ignore[call-overload]
        return (self.receipts - before) / (time.perf_counter() - started)
