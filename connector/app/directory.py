"""The space operator's node, put together."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import structlog

from connector import config
from connector._pb.dataspace.catalog.v1.catalog_pb2_grpc import (
    add_CatalogIndexServiceServicer_to_server,
)
from connector._pb.dataspace.directory.v1.directory_pb2_grpc import (
    add_DirectoryServiceServicer_to_server,
    add_EnrolmentServiceServicer_to_server,
)
from connector._pb.dataspace.management.v1 import management_pb2
from connector._pb.dataspace.management.v1.management_pb2_grpc import (
    add_DirectoryManagementServiceServicer_to_server,
    add_LogServiceServicer_to_server,
)
from connector._pb.dataspace.metering.v1.metering_pb2_grpc import (
    add_WitnessServiceServicer_to_server,
)
from connector.adapters.directory_store import SqliteDirectoryStore
from connector.app import logs
from connector.app.base import Base, open_base, witness_checks
from connector.app.management import http_management
from connector.app.process import allow_files, only_process, until_stopped, version
from connector.directory.authority import Authority
from connector.directory.service import DirectoryServices, open_directory
from connector.errors import InternalError, NotFound
from connector.identity.certificates import (
    chain_pem,
    issue_certificate,
    make_authority,
    read_authority,
    read_chain,
)
from connector.identity.tokens import TokenVerifier
from connector.metering.journal import MeterJournal
from connector.metering.witness import Witness
from connector.model.participant import b64url
from connector.operations.bundles import Bundles
from connector.operations.retention import Retention
from connector.operations.status import Check, Status
from connector.transport.calls import OpenCalls
from connector.transport.grpc.channels import TlsIdentity
from connector.transport.grpc.directory import (
    CatalogIndexServicer,
    DirectoryServicer,
    EnrolmentServicer,
)
from connector.transport.grpc.directory_management import DirectoryManagementServicer
from connector.transport.grpc.guard import Guard, MutualTls
from connector.transport.grpc.log_access import LogServicer
from connector.transport.grpc.metering import WitnessServicer
from connector.transport.grpc.server import Door

log = structlog.get_logger()

MESSAGE_BYTES = 4 << 20


def run(data: Path) -> None:
    """Serve the directory in the folder ``data`` until SIGTERM or SIGINT."""
    settings = config.load_directory(data)
    logs.configure(settings.log_level, settings.did)
    allow_files()
    with only_process(data):
        asyncio.run(_serve(data, settings))


async def _serve(data: Path, settings: config.Directory) -> None:
    async with AsyncExitStack() as stack:
        # Nobody witnesses the directory's log yet; its members hold what it signed.
        base = await stack.enter_async_context(open_base(data, settings, await_witness=False))
        ourselves, clock, meter, metrics = base.ourselves, base.clock, base.meter, base.metrics
        store = stack.enter_context(closing(SqliteDirectoryStore(data / "directory.db")))
        authority = _authority(base)
        services = await open_directory(
            ourselves=ourselves,
            endpoint=settings.endpoint or settings.listen,
            enrol_endpoint=settings.enrol_endpoint or settings.enrol,
            store=store,
            authority=authority,
            policy=base.engine,
            journal=MeterJournal(meter),
            clock=clock,
            heartbeat_s=settings.heartbeat_s,
            credential_days=settings.credential_days,
        )
        witness = base.witness
        if witness is None:
            raise InternalError("a directory is a witness")
        metrics.gauge("tds_membership_events", "Membership events", lambda: services.register.last)
        node = _Directory(base, services, witness)
        tls = _OwnTls(base, authority)
        calls = OpenCalls()
        authenticate = MutualTls(
            settings.did,
            services.members.active,
            TokenVerifier(settings.did, started=clock.now()),
            clock,
        )
        members = Door(Guard(authenticate, calls, clock, metrics.call), calls, MESSAGE_BYTES)
        add_DirectoryServiceServicer_to_server(
            DirectoryServicer(services.members, services.feed), members.server
        )
        add_CatalogIndexServiceServicer_to_server(
            CatalogIndexServicer(services.catalog), members.server
        )
        add_WitnessServiceServicer_to_server(WitnessServicer(witness), members.server)
        candidates = Door(Guard(None, calls, clock, metrics.call), calls, MESSAGE_BYTES)
        add_EnrolmentServiceServicer_to_server(
            EnrolmentServicer(services.enrolment), candidates.server
        )
        manager = Door(Guard(None, calls, clock, metrics.call), calls, MESSAGE_BYTES)
        management = DirectoryManagementServicer(
            services,
            status=node.status,
            diagnose=node.diagnose,
            witnessed=node.witnessed_size,
        )
        add_DirectoryManagementServiceServicer_to_server(management, manager.server)
        files = LogServicer(
            meter,
            ourselves,
            clock,
            base.grants,
            Retention(base.segments, meter, base.beside, find=None),
        )
        add_LogServiceServicer_to_server(files, manager.server)
        described = management_pb2.DESCRIPTOR.services_by_name
        offered = [
            (described["DirectoryManagementService"], management),
            (described["LogService"], files),
        ]
        await stack.enter_async_context(http_management(base, calls, offered))
        for door in (manager, candidates, members):
            stack.push_async_callback(door.drain, settings.drain_s)
        await members.open_mutual_tls(settings.listen, tls.current)
        await candidates.open_tls(settings.enrol, tls.current)
        http = base.http_door(lambda: "", _bundles(base, services), services.register.logs)
        node.http = await http.open()
        stack.push_async_callback(http.close)
        await manager.open_socket(config.socket_path(data, settings.socket))
        for door in (members, candidates, manager):
            await door.set_serving(True)
        log.info("the directory serves", members=members.address, enrolment=candidates.address)
        await until_stopped()
        services.feed.close()
        log.info("the directory stops")


@dataclass(slots=True)
class _Directory:
    """What the doors ask of the whole."""

    base: Base[config.Directory]
    services: DirectoryServices
    witness: Witness
    http: str = ""

    def status(self) -> Status:
        settings = self.base.settings
        return Status(
            did=settings.did,
            name=settings.name,
            state="ready",
            endpoint=settings.endpoint or settings.listen,
            http_endpoint=self.http,
            version=version(),
            log_size=self.base.meter.checkpoint().size,
            space=settings.did,
            view_age_seconds=0.0,
            space_key=b64url(self.services.space.key),
        )

    async def diagnose(self) -> list[Check]:
        waiting = await self.services.register.log_pending()
        size = self.base.meter.checkpoint().size
        return [
            Check("log", True, f"{size} leaves, writable"),
            Check(
                "acts",
                waiting == 0,
                f"{waiting} acts wait to be logged",
                "" if waiting == 0 else "see why the log cannot be written: the disk may be full",
            ),
            Check("members", True, f"{self.services.register.last} membership events"),
            *witness_checks(self.base.further),
        ]

    async def witnessed_size(self, origin: str) -> int:
        last = await self.witness.last(origin)
        return last.size if last else 0


def _bundles(base: Base[config.Directory], services: DirectoryServices) -> Bundles:
    async def counterparty(scope: str) -> str:
        raise NotFound("a directory has no agreements")

    return Bundles(
        base.meter.log,
        base.grants,
        did=base.ourselves.did,
        member=services.members.active,
        counterparty=counterparty,
        clock=base.clock,
    )


def _authority(base: Base[config.Directory]) -> Authority:
    """The space's CA; made at the first start."""
    keys, settings = base.keys, base.settings
    key = keys.authority_key()
    pem = keys.authority_certificate()
    if pem is None:
        pem = chain_pem(make_authority(key, settings.name, base.clock.now()))
        keys.save_authority_certificate(pem)
    return Authority(read_authority(pem), key, settings.certificate_days)


class _OwnTls:
    """The directory's own certificate, made anew before it ends."""

    def __init__(self, base: Base[config.Directory], authority: Authority) -> None:
        self._key = base.keys.tls_key()
        self._key_pem = base.keys.tls_key_pem()
        self._authority = authority
        self._settings = base.settings
        self._clock = base.clock
        self._made = self._make()

    def current(self) -> TlsIdentity:
        """Asked at each handshake."""
        if read_chain(self._made.chain).renew_at <= self._clock.now():
            self._made = self._make()
        return self._made

    def _make(self) -> TlsIdentity:
        certificate = issue_certificate(
            self._authority.certificate,
            self._authority.key,
            self._key.public_key(),
            did=self._settings.did,
            name=self._settings.name,
            now=self._clock.now(),
            days=self._settings.certificate_days,
        )
        chain = chain_pem(certificate, self._authority.certificate)
        pem = self._authority.pem
        return TlsIdentity(self._key_pem, chain, pem, read_chain(chain).thumbprint)
