"""A node as a member of its space: everything that needs peers, from enrolment to the end."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field

import grpc
import structlog

from connector import config
from connector._pb.dataspace.catalog.v1.catalog_pb2_grpc import add_CatalogServiceServicer_to_server
from connector._pb.dataspace.metering.v1.metering_pb2_grpc import (
    add_MeteringServiceServicer_to_server,
)
from connector._pb.dataspace.negotiation.v1.negotiation_pb2_grpc import (
    add_NegotiationServiceServicer_to_server,
)
from connector._pb.dataspace.usage.v1.usage_pb2_grpc import add_UsageServiceServicer_to_server
from connector.adapters.dataset_files import LocalDatasetFiles
from connector.adapters.dataset_store import SqliteDatasetStore
from connector.adapters.delivery_store import SqliteDeliveryStore
from connector.adapters.duckdb.engine import DuckDbEngine
from connector.adapters.keys import KeyFolder
from connector.adapters.membership_store import SqliteMembershipStore
from connector.adapters.negotiation_store import SqliteNegotiationStore
from connector.adapters.pull_store import SqlitePullStore
from connector.app.base import Base
from connector.app.dsp import Behind, open_door, open_reach
from connector.app.membership import directory_record, renew_certificate, watch
from connector.app.metrics import Metrics
from connector.app.outside import served
from connector.app.process import background
from connector.app.reporting import open_reporters_door
from connector.directory.view import MembershipView
from connector.errors import ConnectorError
from connector.gate.gate import Gate
from connector.gate.pulls import Pulls
from connector.gate.results import KeptResults
from connector.identity.certificates import read_chain
from connector.identity.invitations import Space
from connector.identity.membership import MembershipEvent
from connector.identity.ourselves import log_origin
from connector.identity.tokens import TokenVerifier
from connector.metering.journal import MeterJournal
from connector.metering.refusals import RefusalLimiter
from connector.model.negotiation import StoredAgreement
from connector.model.participant import Membership
from connector.model.receipt import UseReceipt
from connector.negotiation.automation import Automation
from connector.negotiation.service import Collaborators, Negotiations
from connector.operations.books import Books
from connector.operations.catalogue import Catalogue
from connector.operations.consuming import Consumer
from connector.operations.peers import PeerCatalogues
from connector.operations.publishing import Publisher
from connector.operations.reporting import Reporting
from connector.operations.services import Services
from connector.operations.transferred import Transferred
from connector.operations.witnessing import Witnessing
from connector.transport.calls import OpenCalls
from connector.transport.grpc.catalog import CatalogServicer
from connector.transport.grpc.channels import Channels, TlsIdentity
from connector.transport.grpc.guard import Guard, MutualTls
from connector.transport.grpc.metering import MeteringServicer
from connector.transport.grpc.negotiation import ConsumerStreams, NegotiationServicer
from connector.transport.grpc.peers import GrpcDirectory, GrpcProviders
from connector.transport.grpc.server import Door
from connector.transport.grpc.usage import UsageServicer
from connector.transport.http.dsp.peers import fetcher

log = structlog.get_logger()

KEPT_RESULTS_BYTES = 256 << 20
OLD_CHANNELS_S = 60.0  # seconds that calls over channels with the old certificate may take


@dataclass(slots=True)
class Member:
    """The parts of a running member that others ask for."""

    base: Base[config.Node]
    space: Space
    view: MembershipView
    witnessing: Witnessing
    door: Door
    services: Services
    streams: ConsumerStreams
    queries: DuckDbEngine
    pulls: Pulls
    tls: TlsIdentity
    taken_up: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    _retired: set[asyncio.Task[None]] = field(default_factory=set)

    def not_ready(self) -> str:
        """Why peers would not be served now; empty if they are."""
        try:
            self.view.require_fresh()
            self.view.active(self.base.ourselves.did)
        except ConnectorError as error:
            return error.message
        if not self.taken_up:
            return f"not yet taken up: {self.witnessing.problem}"
        return self.base.meter.trouble

    async def take_up(self) -> None:
        """Once the log is known to be whole: close what the last run left open, and go on."""
        await self.witnessing.compared.wait()
        interrupted = await self.base.meter.recover(self.pulls.uses())
        await self.pulls.take_up()
        await self.services.negotiations.start()
        await self.streams.resume()
        self.taken_up = True
        self.started.set()
        log.info("the node is ready", interrupted_uses=interrupted)

    def retire(self, channel: grpc.aio.Channel) -> None:
        """Close a channel with an old certificate when its calls are over."""
        task = asyncio.create_task(channel.close(OLD_CHANNELS_S))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


@asynccontextmanager
async def open_member(base: Base[config.Node], space: Space) -> AsyncIterator[Member]:
    """Serve as a member until the end of the context, which drains."""
    settings, ourselves, clock = base.settings, base.ourselves, base.clock
    limits = settings.limits
    message_bytes = limits.message_mb << 20
    async with AsyncExitStack() as stack:
        membership = stack.enter_context(closing(SqliteMembershipStore(base.data / "members.db")))
        contracts = stack.enter_context(
            closing(SqliteNegotiationStore(base.data / "negotiations.db"))
        )
        datasets = stack.enter_context(closing(SqliteDatasetStore(base.data / "datasets.db")))
        deliveries = stack.enter_context(closing(SqliteDeliveryStore(base.data / "deliveries.db")))
        view = MembershipView(
            space=space.did,
            space_key=space.key,
            store=membership,
            clock=clock,
            max_age_s=settings.view_max_age_s,
        )
        await view.open()

        lookup, members = served(view, settings.peer), served(view, ())
        reach = await stack.enter_async_context(open_reach(base, space, lookup))
        tls = _tls(base.keys, space)
        channels = Channels(ourselves.did, ourselves.signing_key, tls, clock, message_bytes)
        stack.push_async_callback(channels.close)
        directory = GrpcDirectory(channels, lambda: directory_record(space, view))
        providers = GrpcProviders(channels, members, limits.query_timeout_s * 2)
        witnessing = Witnessing(base.meter, directory, lambda: directory_record(space, view))
        base.witness_ages(log_origin(space.did))
        queries = DuckDbEngine(base.data / "gate", limits)
        stack.push_async_callback(queries.close)
        files = LocalDatasetFiles(base.data / "files", base.data / "gate", queries.export)

        async def stop_uses(agreement: str) -> int:
            await reporting.stop(agreement)
            return await gate.stop(agreement) + await pulls.stop(agreement)

        async def agreement_of(id: str) -> StoredAgreement:
            return await negotiations.agreement(id)

        def observe(receipt: UseReceipt) -> None:
            _observe(base.metrics, receipt)

        refusals = RefusalLimiter(
            clock, per_second=limits.refusals_per_minute / 60, burst=limits.refusals_per_minute
        )
        pulls = Pulls(
            did=ourselves.did,
            base=reach.root,
            agreement=agreement_of,
            datasets=datasets,
            files=files,
            engine=base.engine,
            meter=base.meter,
            refusals=refusals,
            store=stack.enter_context(closing(SqlitePullStore(base.data / "pulls.db"))),
            clock=clock,
            random=os.urandom,
            member=lookup,
            observe=observe,
        )
        await pulls.open()
        negotiations = Negotiations(
            Collaborators(
                ourselves=ourselves,
                space=space.did,
                store=contracts,
                datasets=datasets,
                engine=base.engine,
                journal=MeterJournal(base.meter),
                lookup=lookup,
                fetch=fetcher(lookup, signed=providers.dataset, foreign=reach.peers.fetch),
                stop_uses=stop_uses,
                dataplane=pulls,
                clock=clock,
                address=reach.address,
                is_scope=lambda name: base.meter.last(name)[0] > 0,
            ),
            Automation(**dataclasses.asdict(settings.automation)),
        )
        gate = Gate(
            did=ourselves.did,
            negotiations=negotiations,
            datasets=datasets,
            engine=base.engine,
            meter=base.meter,
            queries=queries,
            refusals=refusals,
            results=KeptResults(limits.result_kept_s, KEPT_RESULTS_BYTES),
            clock=clock,
            folder=base.data / "gate",
            member=lookup,
            observe=observe,
            most_waiting=limits.uses_waiting,
        )
        reporting = Reporting(
            did=ourselves.did,
            agreements=negotiations,
            datasets=datasets,
            engine=base.engine,
            meter=base.meter,
            member=lookup,
            clock=clock,
            observe=base.metrics.report,
        )
        reporters = await stack.enter_async_context(open_reporters_door(base, reporting))
        consumer = Consumer(
            ourselves=ourselves,
            negotiations=negotiations,
            providers=providers,
            deliveries=deliveries,
            meter=base.meter,
            lookup=lookup,
            clock=clock,
        )
        stack.push_async_callback(consumer.close)
        transferred = Transferred(
            negotiations=negotiations,
            transfers=negotiations.transfers,
            consumer=consumer,
            pulls=reach.downloads(negotiations),
            deliveries=deliveries,
            meter=base.meter,
            clock=clock,
        )
        streams = ConsumerStreams(negotiations, channels, members)
        books = Books(
            ourselves=ourselves,
            space=space.did,
            meter=base.meter,
            negotiations=negotiations,
            peers=providers,
            deliveries=deliveries,
            witnessing=witnessing,
            lookup=lookup,
            history=view.history,
        )
        publisher = Publisher(
            ourselves=ourselves,
            store=datasets,
            queries=queries,
            engine=base.engine,
            directory=directory,
            journal=MeterJournal(base.meter),
            clock=clock,
            folder=base.data / "gate",
            files=files,
        )
        calls = OpenCalls()
        authenticate = MutualTls(
            ourselves.did, members, TokenVerifier(ourselves.did, started=clock.now()), clock
        )
        door = Door(Guard(authenticate, calls, clock, base.metrics.call), calls, message_bytes)
        add_CatalogServiceServicer_to_server(CatalogServicer(datasets), door.server)
        add_NegotiationServiceServicer_to_server(NegotiationServicer(negotiations), door.server)
        add_UsageServiceServicer_to_server(UsageServicer(gate, clock), door.server)
        metering = MeteringServicer(  # type: ignore[abstract]  # reports have a door of their own
            base.meter, contracts
        )
        add_MeteringServiceServicer_to_server(metering, door.server)
        catalogue = Catalogue(directory, members)
        member = Member(
            base=base,
            space=space,
            view=view,
            witnessing=witnessing,
            door=door,
            services=Services(
                publisher=publisher,
                consumer=consumer,
                negotiations=negotiations,
                transfers=negotiations.transfers,
                catalogue=catalogue,
                peers=PeerCatalogues(reach.peers, providers, catalogue, members),
                pulled=transferred,
                books=books,
                reporting=reporting,
                reporters=reporters,
                reach=streams.keep_open,
                uses=lambda scope: base.meter.counters(scope).uses,
            ),
            streams=streams,
            queries=queries,
            pulls=pulls,
            tls=tls,
        )

        def renewed(chain: bytes) -> None:
            base.keys.save_chain(chain)
            member.tls = _tls(base.keys, space)
            for old in channels.renewed(member.tls):
                member.retire(old.channel)

        async def cut(event: MembershipEvent) -> None:
            if event.participant.state is not Membership.ACTIVE:
                number = calls.cut_participant(event.participant.did)
                log.info("a member was cut off", did=event.participant.did, calls=number)

        async def deliver() -> None:
            await member.started.wait()
            await reach.courier(negotiations).run()

        async def record_transfers() -> None:
            await member.started.wait()
            await transferred.run()

        view.listen(cut)
        stack.push_async_callback(streams.close)
        stack.push_async_callback(negotiations.close)
        stack.push_async_callback(door.drain, settings.drain_s)
        behind = Behind(
            negotiations=negotiations,
            datasets=datasets,
            pulls=pulls,
            members=members,
            ready=member.not_ready,
            calls=calls,
        )
        await stack.enter_async_context(open_door(base, reach, behind))
        # Before doors that serve pulls are closed: they wait for what flows.
        stack.push_async_callback(pulls.close)
        await stack.enter_async_context(
            background(
                ("membership", lambda: watch(view, directory)),
                ("witness", witnessing.run),
                (
                    "certificate",
                    lambda: renew_certificate(
                        directory, lambda: member.tls.chain, renewed, base.keys.tls_key(), clock
                    ),
                ),
                ("take up", member.take_up),
                ("posts", deliver),
                ("transfers", record_transfers),
            )
        )
        await door.open_mutual_tls(settings.listen, lambda: member.tls)
        await door.set_serving(True)
        log.info("the node serves its peers", door=door.address)
        yield member


def _tls(keys: KeyFolder, space: Space) -> TlsIdentity:
    chain = keys.chain() or b""
    return TlsIdentity(keys.tls_key_pem(), chain, space.ca, read_chain(chain).thumbprint)


def _observe(metrics: Metrics, receipt: UseReceipt) -> None:
    metrics.use(
        receipt.outcome.name.lower(),
        tuple(sorted({reason.term for reason in receipt.reasons})),
        {quantity.name.lower(): amount for quantity, amount in receipt.quantities.items()},
    )
