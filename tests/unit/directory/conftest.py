"""A directory in one process: real store, real keys, a policy and a clock that the test sets."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.adapters.directory_store import SqliteDirectoryStore
from connector.directory.authority import Authority
from connector.directory.service import open_directory
from connector.errors import Unavailable
from connector.identity import certificates, invitations
from connector.identity.invitations import Proof
from connector.identity.ourselves import Ourselves
from connector.identity.statements import public_bytes, sign_statement
from connector.model.catalog import Classification, Column, Dataset, Role, dataset_json

SPACE = "did:web:space.example"
SPACE_KEY = Ed25519PrivateKey.generate()
CA_KEY = certificates.make_tls_key()


class Clock:
    """``ports.clock.Clock`` that stands still until it is moved."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 11, 23, 12, tzinfo=UTC)
        self.since = 1000.0

    def now(self):
        return self.wall

    def monotonic(self):
        return self.since

    def pass_(self, seconds):
        self.wall += timedelta(seconds=seconds)
        self.since += seconds


class Policy:
    """Answers what it is told, and remembers what it was asked."""

    digest = bytes(32)

    def __init__(self) -> None:
        self.asked = []
        self.was_asked = asyncio.Event()
        self.allow()

    def allow(self):
        self.answer = {"allow": True, "reasons": [], "obligations": {}}

    async def evaluate(self, entry, document):
        self.asked.append((entry, document))
        self.was_asked.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Journal:
    """A log that can be away."""

    def __init__(self) -> None:
        self.acts = []
        self.away = False

    async def __call__(self, *, scope, actor, act, statement):
        if self.away:
            raise Unavailable("the log is away")
        self.acts.append((act, scope, actor, statement))

    @property
    def names(self):
        return [act for act, *_ in self.acts]


@dataclass
class Candidate:
    """Somebody with keys that wants to join."""

    did: str
    name: str
    roles: tuple[str, ...] = ("provider",)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    request: bytes = field(
        default_factory=lambda: certificates.make_csr(certificates.make_tls_key())
    )

    def proof(self, text, clock, **changes):
        invitation = invitations.open_invitation(text)
        host = self.did.removeprefix("did:web:")
        proof = Proof(
            invitation=invitation.id,
            space=invitation.space.did,
            did=self.did,
            name=self.name,
            roles=self.roles,
            endpoint=f"{host}:9443",
            log_origin=f"{host}/log",
            csr_sha256=hashlib.sha256(self.request).digest(),
            signing_key=public_bytes(self.key),
            time=clock.now(),
        )
        return invitations.sign_proof(self.key, dataclasses.replace(proof, **changes))

    def dataset(self, id="urn:flights", *, title="Flights", **changes):
        """A signed record of a dataset of its own."""
        dataset = Dataset(
            id=id,
            title=title,
            description=changes.pop("description", ""),
            keywords=changes.pop("keywords", ()),
            publisher=changes.pop("publisher", self.did),
            classification=changes.pop("classification", Classification.GENERAL),
            table="flights",
            columns=(Column("dest", "VARCHAR", Role.DIMENSION),),
            offers=(),
        )
        return sign_statement(changes.pop("key", self.key), "dataset", dataset_json(dataset))


class World:
    """The directory with everything around it; ``restart`` opens it again over the same file."""

    Candidate = Candidate

    def __init__(self, folder) -> None:
        self.path = folder / "directory.db"
        self.clock, self.policy, self.journal = Clock(), Policy(), Journal()
        ca = certificates.make_authority(CA_KEY, "space", self.clock.now())
        self.authority = Authority(ca, CA_KEY, days=30)
        self.ourselves = Ourselves(SPACE, "某市数据空间", "space.example/log", SPACE_KEY)
        self.space_key = public_bytes(SPACE_KEY)
        self.store = None

    async def open(self, wrap=lambda store: store, endpoint="space.example:9500"):
        self.store = SqliteDirectoryStore(self.path)
        self.services = await open_directory(
            ourselves=self.ourselves,
            endpoint=endpoint,
            enrol_endpoint="space.example:9501",
            store=wrap(self.store),
            authority=self.authority,
            policy=self.policy,
            journal=self.journal,
            clock=self.clock,
            heartbeat_s=0.02,
            credential_days=365,
        )
        return self.services

    async def restart(self, **options):
        self.close()
        return await self.open(**options)

    def close(self):
        if self.store is not None:
            self.services.feed.close()
            self.store.close()
            self.store = None

    async def invite(self, candidate, **options):
        invited = await self.services.enrolment.invite(candidate.name, candidate.roles, **options)
        return invited.text

    async def enrol(self, candidate, text=None, **changes):
        if text is None:
            text = await self.invite(candidate)
        proof = candidate.proof(text, self.clock, **changes)
        return await self.services.enrolment.enrol(text, candidate.request, proof)

    async def join(self, name, *, did="", roles=("provider",)):
        candidate = Candidate(did or f"did:web:{name}.example", name, roles)
        await self.enrol(candidate)
        return candidate

    async def take(self, count, after=0, caller=SPACE):
        """The first statements of a new watch."""
        watch = self.services.feed.watch(caller, after)
        try:
            return [await anext(watch) for _ in range(count)]
        finally:
            await watch.aclose()


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.open()
    yield world
    world.close()
