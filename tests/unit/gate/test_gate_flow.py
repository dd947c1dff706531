"""The way of one use. Policy and query engine do as they are told; the meter is real."""

import asyncio
import dataclasses
import hashlib
import hmac
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector.adapters.memory_log import MemoryLog
from connector.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    RateLimited,
    Reason,
    Refused,
    Unavailable,
)
from connector.gate.gate import ENDED, WENT_AWAY, Gate, Released
from connector.gate.results import KeptResults
from connector.metering.meter import Meter
from connector.metering.refusals import RefusalLimiter
from connector.model.negotiation import Party
from connector.model.receipt import MAX_USE_ID, Outcome, Quantity, UseReceipt
from connector.model.use import MAX_REQUEST_BYTES, Use
from connector.ports.datasets import PublishedDataset
from connector.ports.query import QueryFailed, QueryResult
from connector.tlog import merkle
from connector.tlog.checkpoint import verify_checkpoint
from tests.agreements import DOCUMENT, SECRET
from tests.agreements import PROVIDERS as AGREEMENT
from tests.logs import CONSUMER, ORIGIN, PROVIDER, PUBLIC, ManualClock, open_meter
from tests.negotiators import record_of
from tests.trips import DATASET

SQL = "SELECT city, count(*) FROM trips GROUP BY city"
ROWS = b"an Arrow stream"
RESULT = QueryResult(ROWS, 1500, 4, 2, 1, False, 12)
WRONG = Reason("purpose", "ads", "tourism")


class Agreements:
    def __init__(self) -> None:
        self.kept = {AGREEMENT.terms.id: AGREEMENT}

    async def agreement(self, agreement_id):
        if agreement_id not in self.kept:
            raise NotFound("there is no such agreement")
        return self.kept[agreement_id]


class Datasets:
    def __init__(self) -> None:
        self.published: PublishedDataset | None = PublishedDataset(
            DATASET, "", "trips.duckdb", 1500, True, False
        )

    async def get(self, dataset_id):
        assert dataset_id == DATASET.id
        return self.published


class Policy:
    """Allows, refuses with ``reasons``, or answers ``answer``."""

    digest = b"p" * 32

    def __init__(self) -> None:
        self.reasons: tuple[Reason, ...] = ()
        self.answer: object = None
        self.down = False
        self.documents: list[dict] = []

    async def evaluate(self, entry, document):
        assert entry == "dataspace/usage/decision"
        self.documents.append(document)
        if self.down:
            raise Unavailable("no answer")
        if self.answer is not None:
            return self.answer
        return {
            "allow": not self.reasons,
            "reasons": [dataclasses.asdict(reason) for reason in self.reasons],
            "obligations": {
                "minimum_group": 5,
                "privacy_unit": "vehicle",
                "row_cap": 0,
                "hidden_columns": ["secret"],
            },
        }


class Queries:
    """Gives ``result`` or raises ``error``; waits for ``hold`` first, if there is one."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.runs = 0
        self.reserved_before_run = True
        self.cancelled = 0

    async def run(self, plan, obligations, database):
        self.runs += 1
        assert (obligations.minimum_group, database.name) == (5, "trips.duckdb")
        counters = self._meter.counters(AGREEMENT.terms.id)
        self.reserved_before_run &= counters.reserved > 0
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return RESULT


class Place:
    def __init__(self, meter: Meter, clock: ManualClock, *, burst: int, most_waiting: int) -> None:
        self.meter, self.clock = meter, clock
        self.agreements, self.datasets, self.policy = Agreements(), Datasets(), Policy()
        self.queries = Queries(meter)
        self.observed: list[UseReceipt] = []
        self.gate = Gate(
            did=PROVIDER,
            negotiations=self.agreements,  # type: ignore[arg-type]
            datasets=self.datasets,  # type: ignore[arg-type]
            engine=self.policy,
            meter=meter,
            queries=self.queries,  # type: ignore[arg-type]
            refusals=RefusalLimiter(clock, per_second=1, burst=burst),
            results=KeptResults(600, 1 << 20),
            clock=clock,
            folder=Path("gate"),
            member=record_of,
            observe=self.observed.append,
            most_waiting=most_waiting,
        )

    def uses(self) -> tuple[int, int]:
        counters = self.meter.counters(AGREEMENT.terms.id)
        return counters.uses, counters.reserved


def use(use_id: str = "u1", **changes) -> Use:
    asked = Use(
        use_id, AGREEMENT.terms.id, CONSUMER, "tourism", SQL, datetime(2026, 11, 23, tzinfo=UTC)
    )
    return dataclasses.replace(asked, **changes)


@pytest.fixture
async def place():
    clock = ManualClock()
    meter = await open_meter(MemoryLog(), clock)
    yield Place(meter, clock, burst=50, most_waiting=8)
    await meter.close()


def proven(released: Released) -> None:
    """The receipt is in the log under a checkpoint that the log signed."""
    proof = released.proof
    checkpoint = verify_checkpoint(proof.checkpoint, ORIGIN, [PUBLIC])
    merkle.verify_inclusion(
        merkle.leaf_hash(proof.leaf), proof.index, checkpoint.size, proof.inclusion, checkpoint.root
    )


async def test_an_allowed_use(place) -> None:
    released = await place.gate.use(use())
    receipt = released.receipt
    proven(released)
    assert released.result == ROWS
    assert receipt.outcome is Outcome.ALLOWED
    assert receipt.result_digest == hmac.digest(SECRET, ROWS, "sha256")
    assert receipt.request_digest == hmac.digest(SECRET, SQL.encode(), "sha256")
    assert receipt.agreement_digest == hashlib.sha256(DOCUMENT).digest()
    assert receipt.policy_digest == Policy.digest
    assert receipt.quantities[Quantity.ROWS_SCANNED] == 1500
    assert receipt.quantities[Quantity.GROUPS_WITHHELD] == 2
    assert receipt.quantities[Quantity.BYTES_RETURNED] == len(ROWS)
    assert place.uses() == (1, 0)
    assert place.queries.reserved_before_run
    assert place.observed == [receipt]


async def test_the_policy_is_asked_once_with_the_counters(place) -> None:
    await place.gate.use(use("u1"))
    await place.gate.use(use("u2"))
    assert len(place.policy.documents) == 2
    assert [d["counters"]["uses"] for d in place.policy.documents] == [0, 1]


def _down(place) -> None:
    place.policy.down = True


def _denied(place) -> None:
    place.policy.reasons = (WRONG,)


def _garbled(place) -> None:
    place.policy.answer = {"allow": "true", "reasons": [], "obligations": {}}


def _withdrawn(place) -> None:
    place.datasets.published = None


def _nothing(place) -> None:
    pass


REFUSED = {
    "denied by policy": (_denied, {}, "purpose"),
    "no policy answer": (_down, {}, "policy"),
    "an answer that is no decision": (_garbled, {}, "policy"),
    "the dataset is not offered any more": (_withdrawn, {}, "target"),
    "another statement": (_nothing, {"query": "DROP TABLE trips"}, "statement"),
    "an unknown agreement": (_nothing, {"agreement_id": "urn:uuid:other"}, "agreement"),
    "another consumer's agreement": (_nothing, {"consumer": "did:web:x.example"}, "agreement"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_has_a_receipt_and_takes_nothing(place, name: str) -> None:
    prepare, changes, term = REFUSED[name]
    prepare(place)
    released = await place.gate.use(use(**changes))
    proven(released)
    assert released.receipt.outcome is Outcome.REFUSED
    assert [reason.term for reason in released.receipt.reasons] == [term]
    assert released.result == released.receipt.result_digest == b""
    assert place.queries.runs == 0
    assert place.uses() == (0, 0)


async def test_our_own_agreement_as_a_consumer_gives_no_use(place) -> None:
    place.agreements.kept[AGREEMENT.terms.id] = dataclasses.replace(AGREEMENT, party=Party.CONSUMER)
    released = await place.gate.use(use())
    assert released.receipt.outcome is Outcome.REFUSED
    assert released.receipt.scope == CONSUMER, "an agreement that is not the caller's is not named"


FAILURES = {
    "a timeout": (QueryFailed("query_timeout"), Outcome.FAILED),
    "no worker": (Unavailable("no worker"), Outcome.FAILED),
    "a fault of ours": (ZeroDivisionError("secret value 42"), Outcome.FAILED),
    "obligations it cannot keep": (Refused([Reason("output", "a row", "groups")]), Outcome.REFUSED),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_query_that_does_not_end_gives_the_allowance_back(place, name: str) -> None:
    place.queries.error, outcome = FAILURES[name]
    released = await place.gate.use(use())
    proven(released)
    assert released.receipt.outcome is outcome
    assert released.result == b""
    assert "42" not in str(released.receipt.reasons)
    assert place.uses() == (0, 0)


async def test_parallel_uses_get_exactly_the_allowance(place) -> None:
    place.gate.most_waiting = 64
    answers = await asyncio.gather(*(place.gate.use(use(f"u{number}")) for number in range(32)))
    outcomes = [answer.receipt.outcome for answer in answers]
    assert outcomes.count(Outcome.ALLOWED) == 3
    assert outcomes.count(Outcome.REFUSED) == 29
    assert {answer.receipt.number for answer in answers} == set(range(1, 33))
    (reason,) = {reason for answer in answers for reason in answer.receipt.reasons}
    assert (reason.term, reason.observed) == ("count", "3 of 3 uses")


async def test_the_same_use_again_gives_the_same_receipt_and_result(place) -> None:
    first = await place.gate.use(use())
    again = await place.gate.use(use())
    assert (again.receipt, again.result) == (first.receipt, ROWS)
    assert (place.queries.runs, place.uses()) == (1, (1, 0))
    assert len(place.observed) == 1, "a repeated answer is not a use"
    place.clock.advance(601)
    late = await place.gate.use(use())
    assert (late.receipt, late.result) == (first.receipt, b"")


@pytest.mark.parametrize("changes", [{"purpose": "ads"}, {"query": SQL + " LIMIT 1"}])
async def test_a_use_id_is_of_one_request(place, changes) -> None:
    await place.gate.use(use())
    with pytest.raises(Conflict, match="another request"):
        await place.gate.use(use(**changes))


async def test_the_same_use_does_not_run_twice_at_once(place) -> None:
    place.queries.hold = asyncio.Event()
    first = asyncio.create_task(place.gate.use(use()))
    await _runs(place, 1)
    with pytest.raises(Conflict, match="running now"):
        await place.gate.use(use())
    place.queries.hold.set()
    assert (await first).receipt.outcome is Outcome.ALLOWED


async def test_too_many_at_once_are_told_to_come_back(place) -> None:
    place.gate.most_waiting = 1
    place.queries.hold = asyncio.Event()
    first = asyncio.create_task(place.gate.use(use()))
    await _runs(place, 1)
    with pytest.raises(Unavailable, match="too many"):
        await place.gate.use(use("u2"))
    place.queries.hold.set()
    await first
    assert (await place.gate.use(use("u2"))).receipt.number == 2


async def test_one_member_does_not_take_all_places(place) -> None:
    place.queries.hold = asyncio.Event()
    waiting = [asyncio.create_task(place.gate.use(use(f"u{number}"))) for number in range(3)]
    await _runs(place, 3)
    place.gate.most_waiting = 6
    with pytest.raises(RateLimited, match="one member"):
        await place.gate.use(use("u4"))
    other = await place.gate.use(use(consumer="did:web:x.example"))
    assert other.receipt.outcome is Outcome.REFUSED, "it was heard: the agreement is not its own"
    place.queries.hold.set()
    await asyncio.gather(*waiting)


async def test_an_agreement_that_ends_while_a_use_is_decided_gives_no_result(place) -> None:
    evaluate = place.policy.evaluate

    async def ends_meanwhile(entry, document):
        assert await place.gate.stop(AGREEMENT.terms.id) == 0
        return await evaluate(entry, document)

    place.policy.evaluate = ends_meanwhile
    released = await place.gate.use(use())
    assert released.receipt.outcome is Outcome.INTERRUPTED
    assert released.receipt.reasons == (ENDED,)
    assert (place.queries.runs, place.uses()) == (0, (0, 0))


async def test_an_agreement_that_ends_stops_its_uses(place) -> None:
    place.queries.hold = asyncio.Event()
    running = [asyncio.create_task(place.gate.use(use(f"u{number}"))) for number in range(2)]
    await _runs(place, 2)
    assert await place.gate.stop("urn:uuid:another") == 0
    assert await place.gate.stop(AGREEMENT.terms.id) == 2
    assert place.uses() == (0, 0), "on return each has its receipt"
    for task in running:
        released = await task
        assert released.receipt.outcome is Outcome.INTERRUPTED
        assert released.receipt.reasons == (ENDED,)
        assert released.result == b""


async def test_a_caller_that_goes_away_leaves_a_receipt(place) -> None:
    place.queries.hold = asyncio.Event()
    task = asyncio.create_task(place.gate.use(use()))
    await _runs(place, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.queries.cancelled == 1, "the query was stopped"
    recorded = place.meter.find(AGREEMENT.terms.id, "u1")
    assert recorded is not None
    assert recorded.receipt.outcome is Outcome.INTERRUPTED
    assert recorded.receipt.reasons == (WENT_AWAY,)
    assert place.uses() == (0, 0)


async def test_refusals_are_rate_limited_and_uses_are_not(place) -> None:
    place.gate.refusals = RefusalLimiter(place.clock, per_second=1, burst=2)
    place.policy.reasons = (WRONG,)
    for number in range(2):
        await place.gate.use(use(f"r{number}"))
    with pytest.raises(RateLimited):
        await place.gate.use(use("r2"))
    assert place.meter.last(AGREEMENT.terms.id)[0] == 2
    place.policy.reasons = ()
    assert (await place.gate.use(use("u1"))).receipt.outcome is Outcome.ALLOWED


async def test_without_a_durable_receipt_nothing_is_released() -> None:
    meter = await open_meter(MemoryLog(), await_witness=True)
    place = Place(meter, ManualClock(), burst=50, most_waiting=8)
    with pytest.raises(Unavailable, match="not yet compared"):
        await place.gate.use(use())
    assert place.queries.runs == 0
    assert meter.checkpoint().size == 0
    await meter.close()


class FullDisk(MemoryLog):
    """Refuses while it is ``full``."""

    full = False

    def append(self, records, leaves, seal):
        if self.full:
            raise Unavailable("the log cannot be written")
        return super().append(records, leaves, seal)


@pytest.mark.parametrize("error", [None, QueryFailed("query_timeout")])
async def test_a_full_disk_releases_nothing_and_costs_no_allowance(error) -> None:
    log = FullDisk()
    meter = await open_meter(log)
    place = Place(meter, ManualClock(), burst=50, most_waiting=8)
    place.queries.hold = asyncio.Event()
    place.queries.error = error
    running = asyncio.create_task(place.gate.use(use()))
    await _runs(place, 1)
    log.full = True
    place.queries.hold.set()
    with pytest.raises(Unavailable):
        await running
    with pytest.raises(Unavailable):
        await place.gate.use(use("u2"))
    log.full = False
    place.queries.error = None
    again = await place.gate.use(use())
    expected = Outcome.FAILED if error else Outcome.INTERRUPTED
    assert (again.receipt.outcome, again.result) == (expected, b"")
    assert place.uses() == (0, 0), "what was not released was given back"
    for number in range(3):
        released = await place.gate.use(use(f"later{number}"))
        assert released.receipt.outcome is Outcome.ALLOWED
    await meter.close()


NO_USE = {
    "no id": {"use_id": ""},
    "a long id": {"use_id": "x" * (MAX_USE_ID + 1)},
    "an id with a line break": {"use_id": "a\nb"},
    "no agreement": {"agreement_id": ""},
    "a long agreement": {"agreement_id": "x" * 257},
    "a long purpose": {"purpose": "x" * 257},
    "no query": {"query": ""},
    "a long query": {"query": "x" * (MAX_REQUEST_BYTES + 1)},
}


@pytest.mark.parametrize("name", NO_USE)
async def test_what_is_no_use_leaves_nothing(place, name: str) -> None:
    with pytest.raises(InvalidInput):
        await place.gate.use(use(**NO_USE[name]))
    assert place.meter.checkpoint().size == 0


async def _runs(place: Place, number: int) -> None:
    async with asyncio.timeout(10):
        while place.queries.runs < number:  # noqa: ASYNC110
            await asyncio.sleep(0)
