"""What both kinds of node have before anything else: keys, a name, a policy engine, a log."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from connector import config
from connector.adapters.clock import SystemClock
from connector.adapters.grant_store import SqliteGrantStore
from connector.adapters.http_witness import HttpWitness
from connector.adapters.keys import KeyFolder
from connector.adapters.segments import SegmentLog
from connector.adapters.witness_store import SqliteWitnessStore
from connector.app.engine import open_engine
from connector.app.metrics import Metrics
from connector.app.process import background, version
from connector.core.choose import choose
from connector.identity.ourselves import Ourselves, log_origin
from connector.metering.meter import Meter
from connector.metering.witness import Witness
from connector.operations.bundles import Bundles
from connector.operations.grants import Grants
from connector.operations.retention import seal_in_background
from connector.operations.status import Check
from connector.operations.witnessing import FurtherWitnessing, cosignature_age
from connector.ports.clock import Clock
from connector.ports.policy import PolicyEngine
from connector.ports.segments import Segments
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.note import parse_verifier_key
from connector.transport.http.server import HttpDoor, Sources, application
from connector.transport.http.tiles import LogFiles
from connector.transport.http.tls import ServerTls
from connector.transport.http.witness import WitnessDoor

MEBIBYTE = 1 << 20
NICE = 10  # of 19, of the thread for work that has time

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
    segments: Segments
    beside: Executor
    """One thread, of low priority, for work that has time."""
    engine: PolicyEngine
    metrics: Metrics
    grants: Grants
    further: tuple[FurtherWitnessing, ...]
    witness: Witness | None

    def http_door(
        self,
        ready: Callable[[], str],
        bundles: Bundles,
        members: Callable[[], Mapping[str, Sequence[bytes]]] = dict,
    ) -> HttpDoor:
        """The HTTP door; ``ready`` gives the empty string or why the node is not.

        ``members``: origins and keys of the logs that are witnessed besides the configured ones.
        Raises ``ConfigError``.
        """
        return HttpDoor(
            application(
                Sources(
                    ready=ready,
                    files=LogFiles(
                        checkpoint=self._checkpoint,
                        tile=lambda path: asyncio.to_thread(self.meter.log.tile, path),
                        bundle=bundles.bundle,
                    ),
                    registry=self.metrics.registry,
                    witness=self._witness_door(members),
                )
            ),
            self.settings.http,
            self.tls(),
        )

    def tls(self) -> ServerTls | None:
        """With the operator's certificate of the web's PKI, if there is one. Raises
        ``ConfigError``."""
        https, files = self.settings.https, self.data
        return ServerTls(files / https.certificate, files / https.key) if https.key else None

    async def _checkpoint(self) -> bytes:
        """The newest, with its cosignatures if it has any."""
        tip, cosigned = self.meter.checkpoint(), self.meter.latest_cosigned()
        if cosigned is not None and parse_checkpoint(cosigned).size == tip.size:
            return cosigned
        return tip.checkpoint

    def _witness_door(
        self, members: Callable[[], Mapping[str, Sequence[bytes]]]
    ) -> WitnessDoor | None:
        witness = self.witness
        if witness is None:
            return None
        configured: dict[str, list[bytes]] = {}
        for value in self.settings.witness_for:
            key = parse_verifier_key(value)
            configured.setdefault(key.name, []).append(key.public_key)
        return WitnessDoor(
            logs=lambda: {**configured, **members()},
            add=lambda request, origin, keys: witness.add_checkpoint(
                request, origin=origin, keys=keys
            ),
            last=witness.last,
        )

    def _cosignature_age(self, name: str) -> float:
        return cosignature_age(self.meter, name, self.clock.now())

    def witness_ages(self, *names: str) -> None:
        """Show how old the cosignatures of these witnesses are."""
        for name in names:
            self.metrics.gauge_of(
                "tds_witness_cosignature_age_seconds",
                "Age of the newest cosignature of this log, by witness",
                "witness",
                name,
                partial(self._cosignature_age, name),
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
        beside = stack.enter_context(ThreadPoolExecutor(1, "beside", initializer=_step_back))
        storage = stack.enter_context(
            closing(
                SegmentLog(
                    data / "log", core=core, segment_bytes=settings.log.segment_mb * MEBIBYTE
                )
            )
        )
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
        metrics.gauge(
            "tds_log_failing", "1 while commits of the log fail", lambda: bool(meter.trouble)
        )
        metrics.gauge("tds_log_leaves", "Leaves in the log", lambda: meter.checkpoint().size)
        grants = Grants(
            stack.enter_context(closing(SqliteGrantStore(data / "grants.db"))), clock, os.urandom
        )
        await grants.open()
        further = [_further(meter, one, stack) for one in settings.witness]
        base = Base(
            data=data,
            settings=settings,
            ourselves=ourselves,
            keys=keys,
            clock=clock,
            meter=meter,
            segments=storage,
            beside=beside,
            engine=engine,
            metrics=metrics,
            grants=grants,
            further=tuple(further),
            witness=_witness(data, settings, ourselves, clock, stack),
        )
        base.witness_ages(*(one.name for one in further))
        works: list[tuple[str, Callable[[], Awaitable[None]]]]
        works = [(f"witness {one.name}", one.run) for one in further]
        if settings.log.seal:
            works.append(("sealing", partial(seal_in_background, storage, beside)))
        await stack.enter_async_context(background(*works))
        yield base


def _step_back() -> None:
    """The calling thread gets what others leave."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def witness_checks(further: Sequence[FurtherWitnessing]) -> list[Check]:
    """Whether each further witness cosigns."""
    hint = "is it there, and does it know this log's key? (connector log keys)"
    return [
        Check(f"witness {one.name}", not one.problem, one.problem or "cosigns", hint)
        for one in further
    ]


def _further(meter: Meter, witness: config.Witnessed, stack: AsyncExitStack) -> FurtherWitnessing:
    peer = HttpWitness(witness.url)
    stack.push_async_callback(peer.close)
    jitter = random.SystemRandom()
    key = parse_verifier_key(witness.vkey)
    return FurtherWitnessing(meter, peer, key, lambda most: jitter.uniform(0, most))


def _witness(
    data: Path,
    settings: config.Node | config.Directory,
    ourselves: Ourselves,
    clock: Clock,
    stack: AsyncExitStack,
) -> Witness | None:
    """A directory witnesses its members' logs, a node those that it is configured for."""
    if not settings.witness_for and not isinstance(settings, config.Directory):
        return None
    store = stack.enter_context(closing(SqliteWitnessStore(data / "witness.db")))
    return Witness(store, name=ourselves.log_origin, key=ourselves.signing_key, clock=clock)
