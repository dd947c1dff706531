"""What both kinds of node have before anything else: keys, a name, a policy engine, a log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from connector import config
from connector.adapters.clock import SystemClock
from connector.adapters.keys import KeyFolder
from connector.adapters.segments import SegmentLog
from connector.app.engine import open_engine
from connector.app.metrics import Metrics
from connector.app.process import version
from connector.core.choose import choose
from connector.identity.ourselves import Ourselves, log_origin
from connector.metering.meter import Meter
from connector.ports.clock import Clock
from connector.ports.policy import PolicyEngine
from connector.transport.http.server import Sources

log = structlog.get_logger()

S = TypeVar("S", config.Node, config.Directory)


@dataclass(frozen=True, slots=True)
class Base(Generic[S]):
    data: Path
    settings: S
    ourselves: Ourselves
    keys: KeyFolder
    clock: Clock
    meter: Meter
    engine: PolicyEngine
    metrics: Metrics

    def sources(self, ready: Callable[[], str]) -> Sources:
        """What the HTTP door shows; ``ready`` gives the empty string or why the node is not."""
        return Sources(
            ready=ready,
            checkpoint=lambda: asyncio.to_thread(lambda: self.meter.checkpoint().checkpoint),
            tile=lambda path: asyncio.to_thread(self.meter.log.tile, f"tile/{path}"),
            registry=self.metrics.registry,
        )


@asynccontextmanager
async def open_base(data: Path, settings: S, *, await_witness: bool) -> AsyncIterator[Base[S]]:
    """``await_witness``: the log issues nothing before it is compared with what its witness saw.

    Raises ``ConfigError``, ``Conflict``, ``CorruptLog`` or ``Unavailable``: the node cannot run.
    """
    clock = SystemClock()
    metrics = Metrics(version())
    keys = KeyFolder(data / "keys")
    ourselves = Ourselves(settings.did, settings.name, log_origin(settings.did), keys.signing_key())
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(settings.policy))
        core = choose(settings.core)
        metrics.core(core.name, core.detail)
        log.info("metering core", core=core.name, detail=core.detail)
        storage = stack.enter_context(closing(SegmentLog(data / "log", core=core)))
        uses = stack.enter_context(closing(core.open_keys(data / "log" / "keys")))
        meter = await Meter.open(
            storage,
            core=core,
            keys=uses,
            origin=ourselves.log_origin,
            key=ourselves.signing_key,
            clock=clock,
            random=os.urandom,
            await_witness=await_witness,
        )
        stack.push_async_callback(meter.close)
        metrics.gauge("tds_log_leaves", "Leaves in the log", lambda: meter.checkpoint().size)
        yield Base(data, settings, ourselves, keys, clock, meter, engine, metrics)
