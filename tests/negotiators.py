"""What tests of negotiations share: two nodes in one process, and a stream that can be cut."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.adapters.negotiation_store import SqliteNegotiationStore
from connector.errors import ConnectorError, Unauthenticated, Unavailable
from connector.identity.ourselves import Ourselves, log_origin
from connector.identity.statements import public_bytes, sign_statement
from connector.model.catalog import Classification, Column, Dataset, Role, dataset_json
from connector.model.negotiation import Channel, Negotiation, Party, State
from connector.model.participant import Membership, Participant
from connector.model.terms import Constraint, Offer, Rule, Terms
from connector.negotiation.automation import Automation
from connector.negotiation.frames import Frame
from connector.negotiation.service import Collaborators, Negotiations
from connector.ports.datasets import PublishedDataset
from connector.ports.negotiation import Act, Change, Counts
from tests.flows import Flows

SPACE = "did:web:space.example"
AIRPORT, TOURISM = "did:web:airport.example", "did:web:tourism.example"
PATIENCE_S = 10.0  # a test that waits longer is stuck


def terms(uses: int = 20, *more: Constraint) -> Terms:
    constraints = (
        Constraint("purpose", "eq", "tourism-planning"),
        Constraint("count", "lteq", uses),
        *more,
    )
    return Terms(permissions=(Rule("use", constraints),))


UNKNOWN_TERMS = terms(20, Constraint("odrl:spatial", "eq", "moon"))
OFFER = Offer("urn:uuid:offer-1", "urn:uuid:flights", AIRPORT, terms())
DATASET = Dataset(
    id="urn:uuid:flights",
    title="Flights",
    description="",
    keywords=(),
    publisher=AIRPORT,
    classification=Classification.IMPORTANT,
    table="flights",
    columns=(Column("tailnum", "VARCHAR", Role.UNIT), Column("dest", "VARCHAR", Role.DIMENSION)),
    offers=(OFFER,),
)


def key_of(did: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(did.encode()).digest())


def ourselves(did: str) -> Ourselves:
    return Ourselves(did, did, log_origin(did), key_of(did))


def record_of(did: str) -> Participant:
    return Participant(
        did=did,
        name=did,
        roles=("provider", "consumer"),
        state=Membership.ACTIVE,
        signing_keys=(public_bytes(key_of(did)),),
        endpoint="",
        log_origin=log_origin(did),
        revision=1,
    )


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 11, 23, 12, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


class Policy:
    """``approve``, ``ask``, ``refuse``, or ``down``."""

    digest = bytes(32)

    def __init__(self) -> None:
        self.says = "approve"
        self.asked: list[dict] = []

    async def evaluate(self, entry, document):
        assert entry == "dataspace/negotiation/decision"
        self.asked.append(document)
        if self.says == "down":
            raise Unavailable("no answer")
        reasons = [{"term": "count", "observed": "20", "allowed": "10"}]
        allow = self.says == "approve"
        return {
            "allow": allow,
            "reasons": [] if allow else reasons,
            "obligations": {},
            "outcome": self.says,
        }


class Datasets:
    def __init__(self, *published: PublishedDataset) -> None:
        self.kept = {one.dataset.id: one for one in published}

    async def get(self, dataset_id):
        return self.kept.get(dataset_id)


class FaultyStore:
    """A store whose next commits fail: before anything happened, or after everything did."""

    def __init__(self, store: SqliteNegotiationStore) -> None:
        self._store = store
        self.commits = 0
        self.before: set[int] = set()  # numbers of the commits that fail with nothing written
        self.after: set[int] = set()  # numbers of those that fail and were written all the same

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def commit(self, change: Change) -> tuple[Act, ...]:
        self.commits += 1
        number = self.commits
        if number in self.before:
            raise Unavailable("the disk is full")
        acts = await self._store.commit(change)
        if number in self.after:
            raise Unavailable("the disk went away")
        return acts


class Node:
    """One participant. ``restart`` is what a process that was killed does next."""

    def __init__(self, did: str, automation: Automation | None = None, path: Path | None = None):
        self.did = did
        self.me = ourselves(did)
        self.store = FaultyStore(SqliteNegotiationStore(path or Path(":memory:")))
        self.policy = Policy()
        self.dataset_record = sign_statement(key_of(AIRPORT), "dataset", dataset_json(DATASET))
        published = PublishedDataset(DATASET, self.dataset_record, "flights.duckdb", 3, True, False)
        self.datasets = Datasets(*[published] if did == AIRPORT else [])
        self.log: list[Act] = []  # what the journal was given, without what it had already
        self.log_down = False
        self.stopped: list[str] = []
        self.dataplane = Flows()
        self.members = {AIRPORT: record_of(AIRPORT), TOURISM: record_of(TOURISM)}
        self.automation = automation or Automation()
        self.service = self._make()

    def _make(self) -> Negotiations:
        return Negotiations(
            Collaborators(
                ourselves=self.me,
                space=SPACE,
                store=self.store,
                datasets=self.datasets,
                engine=self.policy,
                journal=self.journal,
                lookup=self.lookup,
                fetch=self.fetch,
                stop_uses=self.stop_uses,
                dataplane=self.dataplane,
                clock=Clock(),
            ),
            self.automation,
        )

    async def restart(self) -> None:
        await self.service.close()
        self.service = self._make()
        await self.service.start()

    async def journal(self, *, scope, actor, act, statement):
        if self.log_down:
            raise Unavailable("the log cannot be written")
        entry = Act(act, scope, actor, statement)
        if entry not in self.log:
            self.log.append(entry)

    def lookup(self, did: str) -> Participant:
        if did not in self.members:
            raise Unauthenticated("not an active member")
        return self.members[did]

    async def fetch(self, provider: str, dataset_id: str) -> str:
        return self.dataset_record

    async def stop_uses(self, agreement_id: str) -> int:
        self.stopped.append(agreement_id)
        return 2

    def acts(self) -> list[str]:
        return [act.type for act in self.log]

    async def only(self) -> Negotiation:
        """The one negotiation that this node knows."""
        (negotiation,) = await self.service.negotiations()
        return negotiation

    async def until(self, pid: str, good: Callable[[Negotiation], bool]) -> Negotiation:
        async with asyncio.timeout(PATIENCE_S):
            async for negotiation in self.service.follow(pid):
                if good(negotiation):
                    return negotiation
        raise AssertionError(f"rests in {negotiation.state}: {negotiation.reason}")

    async def until_state(self, pid: str, state: State) -> Negotiation:
        return await self.until(pid, lambda negotiation: negotiation.state is state)

    async def until_waiting(self) -> Negotiation:
        """Until a person here must decide about the one negotiation."""
        await eventually(self.service.negotiations)
        return await self.until((await self.only()).pid, lambda found: found.waiting)


PROVIDER_CHANNEL = Channel(TOURISM, Party.PROVIDER)  # at the airport
CONSUMER_CHANNEL = Channel(AIRPORT, Party.CONSUMER)  # at the bureau


class Wire:
    """One stream between a consumer and a provider; ``cut_after`` frames it breaks, and the
    frame that is due then is lost. ``seen`` are the frames that passed, with their sender."""

    def __init__(self, consumer: Node, provider: Node, cut_after: int | None = None) -> None:
        self._nodes = {Party.CONSUMER: consumer, Party.PROVIDER: provider}
        self._queues: dict[Party, asyncio.Queue[Frame | None]] = {p: asyncio.Queue() for p in Party}
        self._left = cut_after
        self._open = True
        self.seen: list[tuple[Party, Frame]] = []
        self.errors: list[Exception] = []
        self._tasks = [
            asyncio.create_task(self._run(Party.CONSUMER, CONSUMER_CHANNEL)),
            asyncio.create_task(self._run(Party.PROVIDER, PROVIDER_CHANNEL)),
        ]

    async def _run(self, party: Party, channel: Channel) -> None:
        async def send(frame: Frame) -> None:
            await asyncio.sleep(0)
            if self._left is not None:
                if self._left == 0:
                    self.cut()
                self._left -= 1
            if not self._open:
                raise Unavailable("the stream is broken")
            self.seen.append((party, frame))
            self._queues[party.other].put_nowait(frame)

        try:
            await self._nodes[party].service.exchange(channel, self._incoming(party), send)
        except ConnectorError as error:
            self.errors.append(error)
        finally:
            self.cut()

    async def _incoming(self, party: Party) -> AsyncIterator[Frame]:
        while (frame := await self._queues[party].get()) is not None:
            yield frame

    def faults(self) -> list[Exception]:
        """What went wrong besides a cut."""
        return [error for error in self.errors if not isinstance(error, Unavailable)]

    def cut(self) -> None:
        if self._open:
            self._open = False
            for queue in self._queues.values():
                queue.put_nowait(None)

    async def closed(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        self.cut()
        await self.closed()


async def quiet(*nodes: Node) -> None:
    """Until every message was taken on both sides."""
    await eventually(lambda: _equal(*nodes))


async def eventually(good: Callable[[], Awaitable[object]]) -> None:
    """For what a test sees only by looking."""
    async with asyncio.timeout(PATIENCE_S):
        while not await good():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def _equal(consumer: Node, provider: Node) -> bool:
    here: Counts = await consumer.store.counts(CONSUMER_CHANNEL)
    there: Counts = await provider.store.counts(PROVIDER_CHANNEL)
    return (here.sent, here.received) == (there.received, there.sent)


def changed_document(document: bytes, **changes) -> bytes:
    return json.dumps({**json.loads(document), **changes}).encode()


def other_terms(offer: Offer, changed: Terms) -> Offer:
    return dataclasses.replace(offer, terms=changed)
