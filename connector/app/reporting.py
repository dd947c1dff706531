"""The reporters' door: where programs of this organisation report what they served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing

import structlog

from connector import config
from connector._pb.dataspace.metering.v1.metering_pb2_grpc import (
    add_MeteringServiceServicer_to_server,
)
from connector.adapters.keys import KeyFolder
from connector.adapters.reporter_store import SqliteReporterStore
from connector.app.base import Base
from connector.identity.reporters import make_door_certificate
from connector.operations.reporters import Reporters
from connector.operations.reporting import Reporting
from connector.ports.clock import Clock
from connector.transport.calls import OpenCalls
from connector.transport.grpc.channels import TlsIdentity
from connector.transport.grpc.guard import Guard, ReporterTls, reporter
from connector.transport.grpc.reporting import MESSAGE_BYTES, ReportingServicer
from connector.transport.grpc.server import Door

log = structlog.get_logger()


@asynccontextmanager
async def open_reporters_door(
    base: Base[config.Node], reporting: Reporting
) -> AsyncIterator[Reporters]:
    """Serve reporters until the end of the context, which drains. Without ``reporting.listen``
    there is no door, and the list of reporters is kept all the same."""
    settings, calls = base.settings.reporting, OpenCalls()
    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(SqliteReporterStore(base.data / "reporters.db")))
        if not settings.listen:
            reporters = Reporters(store, base.clock, endpoint="", door=b"", cut=calls.cut_reporter)
            await reporters.open()
            yield reporters
            return
        certificate = _certificate(base.keys, base.clock)
        reporters = Reporters(
            store,
            base.clock,
            endpoint=settings.endpoint or settings.listen,
            door=certificate,
            cut=calls.cut_reporter,
        )
        await reporters.open()
        guard = Guard(ReporterTls(reporters.known), calls, base.clock, base.metrics.call)
        door = Door(guard, calls, MESSAGE_BYTES)
        servicer = ReportingServicer(  # type: ignore[abstract]  # its other calls are not offered
            lambda: reporting, lambda: reporter().name
        )
        add_MeteringServiceServicer_to_server(servicer, door.server)
        key = base.keys.reporting_key_pem()
        stack.push_async_callback(door.drain, base.settings.drain_s)
        await door.open_mutual_tls(
            settings.listen, lambda: TlsIdentity(key, certificate, reporters.roots(), "")
        )
        await door.set_serving(True)
        log.info("the node serves its reporters", door=door.address)
        yield reporters


def _certificate(keys: KeyFolder, clock: Clock) -> bytes:
    """The door's own, made at the first start: reporters pin it."""
    pem = keys.reporting_certificate()
    if pem is None:
        pem = make_door_certificate(keys.reporting_key(), clock.now())
        keys.save_reporting_certificate(pem)
    return pem
