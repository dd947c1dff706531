"""An enterprise's node, put together: the part that is there before it is a member."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from connector import config
from connector._pb.dataspace.management.v1 import management_pb2
from connector._pb.dataspace.management.v1.management_pb2_grpc import (
    add_LogServiceServicer_to_server,
    add_ManagementServiceServicer_to_server,
)
from connector._pb.dataspace.metering.v1.metering_pb2_grpc import (
    add_MeteringServiceServicer_to_server,
)
from connector.app import logs
from connector.app.base import Base, open_base, witness_checks
from connector.app.dsp import root_url
from connector.app.enrolment import join
from connector.app.management import http_management
from connector.app.member import Member, open_member
from connector.app.process import allow_files, only_process, until_stopped, version
from connector.errors import Conflict, ConnectorError, Unauthenticated, Unavailable
from connector.identity.certificates import read_chain
from connector.identity.invitations import Space
from connector.identity.reporters import OPERATOR
from connector.model import fields
from connector.model.negotiation import StoredAgreement
from connector.model.participant import Participant, b64url
from connector.operations.bundles import Bundles
from connector.operations.retention import Retention
from connector.operations.services import Services
from connector.operations.status import Check, Status
from connector.transport.calls import OpenCalls
from connector.transport.grpc.guard import Guard
from connector.transport.grpc.log_access import LogServicer
from connector.transport.grpc.management import ManagementServicer
from connector.transport.grpc.reporting import ReportingServicer
from connector.transport.grpc.server import Door
from connector.transport.http.server import HttpDoor

log = structlog.get_logger()

MANAGEMENT_BYTES = 80 << 20  # of one message to the operator: an evidence file may be large
NOT_A_MEMBER = "not enrolled"


def run(data: Path) -> None:
    """Serve the node in the folder ``data`` until SIGTERM or SIGINT."""
    settings = config.load_node(data)
    logs.configure(settings.log_level, settings.did)
    allow_files()
    with only_process(data):
        asyncio.run(_serve(data, settings))


async def _serve(data: Path, settings: config.Node) -> None:
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(open_base(data, settings, await_witness=True))
        node = await stack.enter_async_context(_running(base))
        calls = OpenCalls()
        manager = Door(Guard(None, calls, base.clock, base.metrics.call), calls, MANAGEMENT_BYTES)
        management = ManagementServicer(node)
        add_ManagementServiceServicer_to_server(management, manager.server)
        reporting = ReportingServicer(  # type: ignore[abstract]  # its other calls are not offered
            lambda: node.services().reporting, lambda: OPERATOR
        )
        add_MeteringServiceServicer_to_server(reporting, manager.server)
        files = LogServicer(
            base.meter,
            base.ourselves,
            base.clock,
            base.grants,
            Retention(base.segments, base.meter, base.beside, node.agreement),
        )
        add_LogServiceServicer_to_server(files, manager.server)
        http = node.http_door()
        node.http = await http.open()
        stack.push_async_callback(http.close)
        described = management_pb2.DESCRIPTOR.services_by_name
        offered = [(described["ManagementService"], management), (described["LogService"], files)]
        await stack.enter_async_context(http_management(base, calls, offered))
        await manager.open_socket(config.socket_path(data, settings.socket))
        stack.push_async_callback(manager.drain, settings.drain_s)
        log.info("the node is there", http=node.http, member=node.is_member)
        await until_stopped()
        log.info("the node stops")


@asynccontextmanager
async def _running(base: Base[config.Node]) -> AsyncIterator[Node]:
    node = Node(base)
    try:
        space = base.keys.space()
        if space is not None:
            await node.serve(space)
        yield node
    finally:
        await node.close()


class Node:
    """``transport.grpc.management.Node``."""

    def __init__(self, base: Base[config.Node]) -> None:
        self._base = base
        self._stack = AsyncExitStack()
        self._member: Member | None = None
        self._joining = asyncio.Lock()
        self.http = ""

    @property
    def is_member(self) -> bool:
        return self._member is not None

    async def serve(self, space: Space) -> None:
        self._member = await self._stack.enter_async_context(open_member(self._base, space))

    async def close(self) -> None:
        await self._stack.aclose()

    async def enrol(self, invitation: str) -> None:
        base = self._base
        async with self._joining:
            space = await join(invitation, base.settings, base.ourselves, base.keys, base.clock)
            await self.serve(space)

    def services(self) -> Services:
        if self._member is None:
            raise Conflict(
                "this node has not joined a space",
                hint="get an invitation from the space's operator, then: connector enrol",
            )
        return self._member.services

    async def agreement(self, id: str) -> StoredAgreement:
        return await self.services().negotiations.agreement(id)

    def status(self) -> Status:
        base, member = self._base, self._member
        settings = base.settings
        status = Status(
            did=settings.did,
            name=settings.name,
            state=self._state(),
            endpoint=settings.endpoint or settings.listen,
            http_endpoint=self.http,
            version=version(),
            log_size=base.meter.checkpoint().size,
        )
        if member is None:
            return status
        age = member.view.age()
        return replace(
            status,
            space=member.space.did,
            space_key=b64url(member.space.key),
            view_age_seconds=age if age != float("inf") else -1.0,
            certificate_expires=fields.format_time(read_chain(member.tls.chain).not_after),
        )

    async def diagnose(self) -> list[Check]:
        base, member = self._base, self._member
        trouble = base.meter.trouble
        checks = [
            Check(
                "log",
                not trouble,
                trouble or f"{base.meter.checkpoint().size} leaves",
                "check the disk and its free space" if trouble else "",
            )
        ]
        if member is None:
            return [*checks, Check("membership", False, NOT_A_MEMBER, "connector enrol INVITATION")]
        checks += [
            _try("directory", member.view.require_fresh, "can the directory be reached?"),
            _try("membership", self._require_active, "ask the space's operator"),
            _try("witness", self._require_witnessed, "see the node's log for why"),
            self._certificate(member),
            await self._sandbox(member),
        ]
        checks += witness_checks(base.further)
        waiting = await member.services.negotiations.negotiations(waiting_only=True)
        open_ = await member.services.transfers.transfers(open_only=True)
        transfers = [process for process in open_ if process.waiting]
        return [
            *checks,
            _other_makes(base.settings.dsp),
            Check(
                "approvals", True, f"{len(waiting)} wait for a person", "connector approvals list"
            ),
            Check(
                "transfers",
                True,
                f"{len(transfers)} wait for a person",
                "connector transfer list --open",
            ),
        ]

    def http_door(self) -> HttpDoor:
        base = self._base
        bundles = Bundles(
            base.meter.log,
            base.grants,
            did=base.ourselves.did,
            member=self._peer,
            counterparty=self._counterparty,
            clock=base.clock,
        )
        return base.http_door(lambda: "" if self._state() == "ready" else self._state(), bundles)

    def _peer(self, did: str) -> Participant:
        if self._member is None:
            raise Unauthenticated("this node knows no members yet")
        self._member.view.require_fresh()
        return self._member.view.active(did)

    async def _counterparty(self, scope: str) -> str:
        return (await self.services().negotiations.agreement(scope)).peer

    def _state(self) -> str:
        if self._member is None:
            return NOT_A_MEMBER
        return self._member.not_ready() or "ready"

    def _require_active(self) -> None:
        if self._member is not None:
            self._member.view.active(self._base.ourselves.did)

    def _require_witnessed(self) -> None:
        if self._member is not None and self._member.witnessing.problem:
            raise Unavailable(self._member.witnessing.problem)

    def _certificate(self, member: Member) -> Check:
        certificate = read_chain(member.tls.chain)
        ends = fields.format_time(certificate.not_after)
        ok = certificate.not_after > self._base.clock.now()
        return Check(
            "certificate", ok, f"ends {ends}", "" if ok else "restart after enrolling anew"
        )

    async def _sandbox(self, member: Member) -> Check:
        """What shuts query workers in on this machine."""
        try:
            report = await member.queries.sandbox_report()
        except ConnectorError as error:
            return Check("sandbox", False, error.message, "see the node's log for why")
        missing = sorted(name for name, holds in report.items() if not holds)
        return Check(
            "sandbox",
            not missing,
            f"not on this machine: {', '.join(missing)}"
            if missing
            else "query workers are shut in",
            "docs/gate.md says what each protects" if missing else "",
        )


def _try(name: str, check: Callable[[], object], hint: str) -> Check:
    try:
        check()
    except ConnectorError as error:
        return Check(name, False, error.message, error.hint or hint)
    return Check(name, True, "holds")


def _other_makes(dsp: config.Dsp) -> Check:
    """Where connectors of other makes, and consumers of files, find this node."""
    root = root_url(dsp)
    if not root:
        return Check("data over https", True, "not served", "set dsp.listen in connector.toml")
    local = urlsplit(root).hostname in config.LOOPBACK
    said = f"{root}, which only this machine can reach" if local else root
    return Check("data over https", True, said, "set dsp.url to what peers reach" if local else "")
