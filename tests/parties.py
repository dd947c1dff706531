"""A consumer and a provider that have an agreement, each with a real log; and what lies between."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from connector.adapters.memory_log import MemoryLog
from connector.core.choose import choose
from connector.errors import NotFound, Reason, Unavailable
from connector.identity.ourselves import Ourselves
from connector.metering.meter import Meter
from connector.metering.types import Recorded, Reservation
from connector.model.negotiation import StoredAgreement
from connector.model.participant import Membership, Participant
from connector.model.receipt import Outcome, Quantity
from connector.operations.consuming import Consumer
from connector.ports.deliveries import Pulled
from connector.ports.peers import ReceiptProof
from tests.agreements import CONSUMERS, DOCUMENT, PURPOSE, SECRET
from tests.logs import (
    CONSUMER,
    ORIGIN,
    PROVIDER,
    PUBLIC,
    ManualClock,
    MemoryKeys,
    open_meter,
    test_key,
)

CONSUMER_ORIGIN = "tourism.example/log"
CONSUMER_KEY = test_key("the consumer's log")
AGREEMENT = CONSUMERS.terms.id
SQL = "SELECT city, count(*) FROM trips GROUP BY city"
RESULT = b"an Arrow stream, or so they say"
MOST = 1000
PAGE = 2  # receipts that the provider shows at once


def participant(did: str, origin: str, key: bytes) -> Participant:
    return Participant(
        did=did,
        name=did,
        roles=("provider", "consumer"),
        state=Membership.ACTIVE,
        signing_keys=(key,),
        endpoint="",
        log_origin=origin,
        revision=1,
    )


RECORDS = {
    PROVIDER: participant(PROVIDER, ORIGIN, PUBLIC),
    CONSUMER: participant(CONSUMER, CONSUMER_ORIGIN, CONSUMER_KEY.public_key().public_bytes_raw()),
}


def keyed(data: bytes) -> bytes:
    return hmac.digest(SECRET, data, "sha256")


def proof_of(recorded: Recorded) -> ReceiptProof:
    return ReceiptProof(
        recorded.leaf, recorded.index, tuple(recorded.inclusion()), recorded.checkpoint
    )


class Agreements:
    def __init__(self, agreement: StoredAgreement) -> None:
        self._agreement = agreement

    async def agreement(self, agreement_id: str) -> StoredAgreement:
        if agreement_id != self._agreement.terms.id:
            raise NotFound("there is no such agreement")
        return self._agreement


class Deliveries:
    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], ReceiptProof] = {}
        self.logs: dict[str, bytes] = {}
        self.pulls: dict[str, Pulled] = {}

    async def trust(self, origin: str, note: bytes) -> None:
        self.logs[origin] = note

    async def trusted(self, origin: str) -> bytes | None:
        return self.logs.get(origin)

    async def keep(self, scope: str, number: int, proof: ReceiptProof) -> None:
        self.kept.setdefault((scope, number), proof)

    async def of(self, scope: str) -> tuple[ReceiptProof, ...]:
        return tuple(proof for (kept, _), proof in sorted(self.kept.items()) if kept == scope)

    async def pull_began(self, pid: str) -> None:
        known = self.pulls.get(pid, Pulled(0, 0))
        self.pulls[pid] = Pulled(known.moved, known.open + 1)

    async def pull_ended(self, pid: str, moved: int) -> None:
        known = self.pulls[pid]
        self.pulls[pid] = Pulled(known.moved + moved, known.open - 1)

    async def pulled(self, pid: str) -> Pulled | None:
        return self.pulls.get(pid)

    async def forget_pulled(self, pid: str) -> None:
        self.pulls.pop(pid, None)


class Provider:
    """``ports.peers.ProviderPeer`` that says what a test gives it to say."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.answer: Sequence[object] = ()
        self.asked: list[tuple[str, ...]] = []
        self.down = False
        self.cosigned: list[bytes] = []
        self.left_out: set[int] = set()  # numbers of receipts that it does not show

    async def use(self, use_id: str = "u1", *, result: bytes = RESULT, **changes) -> ReceiptProof:
        """One allowed use in the provider's log, told as ``changes`` say."""
        outcome = changes.pop("outcome", Outcome.ALLOWED)
        digest = changes.pop("result_digest", keyed(result) if result else b"")
        fields = {
            "scope": AGREEMENT,
            "use_id": use_id,
            "limit": None,
            "provider": PROVIDER,
            "consumer": CONSUMER,
            "purpose": PURPOSE,
            "agreement_digest": hashlib.sha256(DOCUMENT).digest(),
            "policy_digest": bytes(32),
            "request_digest": keyed(SQL.encode()),
        }
        reservation = Reservation(**{**fields, **changes})
        await self.meter.reserve([reservation])
        allowed = outcome is Outcome.ALLOWED
        quantities = {Quantity.CALLS: 1, Quantity.BYTES_RETURNED: len(result)} if allowed else {}
        reasons = () if allowed else (Reason("count", "20 of 20 uses", "at most 20 uses"),)
        (recorded,) = await self.meter.record(
            [
                reservation.settle(
                    outcome, result_digest=digest, quantities=quantities, reasons=reasons
                )
            ]
        )
        return proof_of(recorded)

    async def execute(self, *asked):
        self.asked.append(asked)
        for part in self.answer:
            yield part

    async def receipts(self, peer, agreement_id, first, tree_size, *, use_id=""):
        self._require_up()
        tip = self.meter.checkpoint()
        size = tree_size or tip.size
        page = tuple(
            ReceiptProof(
                recorded.leaf,
                recorded.index,
                tuple(self.meter.inclusion(recorded.index, size)),
                b"",
            )
            for recorded in self.meter.receipts(agreement_id, first, MOST if use_id else PAGE)
            if recorded.index < size
            and recorded.receipt.number not in self.left_out
            and use_id in ("", getattr(recorded.receipt, "use_id", None))
        )
        return page, b"" if tree_size else tip.checkpoint

    async def consistency(self, peer, old_size, new_size):
        self._require_up()
        return tuple(self.meter.consistency(old_size, new_size))

    async def add_cosignature(self, provider, note):
        self._require_up()
        self.cosigned.append(note)

    def _require_up(self) -> None:
        if self.down:
            raise Unavailable("the other side cannot be reached")


@dataclasses.dataclass
class Place:
    provider: Provider
    meter: Meter  # the consumer's
    deliveries: Deliveries
    consumer: Consumer = dataclasses.field(init=False)

    def another_consumer(self) -> Consumer:
        """The same one after a restart."""
        return Consumer(
            ourselves=CONSUMER_SELF,
            negotiations=Agreements(CONSUMERS),  # type: ignore[arg-type]
            providers=self.provider,  # type: ignore[arg-type]
            deliveries=self.deliveries,
            meter=self.meter,
            lookup=lookup,
            clock=self.meter.clock,
        )

    async def use(self, use_id: str = "u1") -> list[object]:
        return [part async for part in self.consumer.use(AGREEMENT, PURPOSE, SQL, use_id)]


def lookup(did: str) -> Participant:
    return RECORDS[did]


CONSUMER_SELF = Ourselves(CONSUMER, CONSUMER, CONSUMER_ORIGIN, CONSUMER_KEY)


@asynccontextmanager
async def two_parties() -> AsyncIterator[Place]:
    clock = ManualClock()
    provider = Provider(await open_meter(MemoryLog(), clock))
    meter = await Meter.open(
        MemoryLog(),
        core=choose("python"),
        keys=MemoryKeys(),
        origin=CONSUMER_ORIGIN,
        key=CONSUMER_KEY,
        clock=clock,
        random=random.Random(8).randbytes,
    )
    deliveries = Deliveries()
    place = Place(provider, meter, deliveries)
    place.consumer = place.another_consumer()
    yield place
    await place.consumer.close()
    await asyncio.gather(provider.meter.close(), meter.close())
