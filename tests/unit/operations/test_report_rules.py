"""Reports: what they are held to, when that is asked anew, and what goes in none the less."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from connector.adapters.bundle import load_bundle
from connector.adapters.memory_log import MemoryLog
from connector.adapters.rego import RegoEngine
from connector.core.interface import Columns, Fault
from connector.errors import (
    ConnectorError,
    InvalidInput,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.metering.types import Report, Reported
from connector.model.catalog import Classification
from connector.model.negotiation import AgreementState, Party, StoredAgreement
from connector.model.receipt import Quantity, RecordReceipt
from connector.model.terms import (
    Constraint,
    Offer,
    Rule,
    Terms,
    agreement_document,
    parse_agreement,
)
from connector.operations import reporting
from connector.operations.reporting import Reporting, UseReport
from connector.ports.receipts import Tip
from tests.agreements import PROVIDERS
from tests.logs import CONSUMER, ORIGIN, PROVIDER, ManualClock, open_meter, until
from tests.parties import RECORDS
from tests.trips import DATASET

SIGNED = datetime(2026, 11, 1, tzinfo=UTC)
END = "2026-12-01T00:00:00Z"
OPEN = dataclasses.replace(DATASET, classification=Classification.GENERAL)
NOW_MS = 1_795_435_200_000


def agreement(*constraints: Constraint, number: int = 1, **changes: Any) -> StoredAgreement:
    document = agreement_document(
        id=f"urn:uuid:agreement-{number}",
        offer=Offer(
            "urn:uuid:offer-1",
            DATASET.id,
            PROVIDER,
            Terms((Rule("use", (Constraint("purpose", "eq", "routing"), *constraints)),)),
        ),
        assignee=CONSUMER,
        timestamp=SIGNED,
        space="did:web:space.example",
        classification=changes.pop("classification", "general"),
        secret_commitment="00" * 32,
        provider_log=ORIGIN,
        consumer_log="tourism.example/log",
    )
    return dataclasses.replace(PROVIDERS, terms=parse_agreement(document), **changes)


def column(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def columns(
    *use_ids: str, purpose: str = "routing", served: int = NOW_MS, calls: int = 1
) -> Columns:
    return Columns(
        purpose=purpose,
        use_ids="\n".join(use_ids).encode(),
        served=column([served] * len(use_ids)),
        amounts=((Quantity.CALLS, column([calls] * len(use_ids))),),
    )


def report(*use_ids: str, number: int = 1, **more: Any) -> UseReport:
    return UseReport(f"urn:uuid:agreement-{number}", columns(*use_ids, **more))


class FakeMeter:
    """Takes everything; ``held`` keeps calls waiting."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.held: asyncio.Event | None = None

    async def report(self, reports):
        self.reports += reports
        if self.held is not None:
            await self.held.wait()
        return [Reported(0, len(one.columns), len(one.columns), [], 9, b"note") for one in reports]

    def checkpoint(self) -> Tip:
        return Tip(7, b"before")


ENGINE = RegoEngine(load_bundle())  # one for all: it must end in the thread that made it


class Place:
    """A provider with agreements, each of which a test may change."""

    def __init__(self, meter: Any = None) -> None:
        self.clock = ManualClock()
        self.agreements: dict[str, StoredAgreement] = {}
        self.dataset = OPEN
        self.offered = True
        self.members = dict(RECORDS)
        self.fresh = True
        self.engine = ENGINE
        self.asked = self.looked_up = 0
        self.answers = True
        self.digest = self.engine.digest
        self.meter = meter or FakeMeter()
        self.observed: list[Reported] = []
        self.reading: asyncio.Event | None = None
        self.reporting = Reporting(
            did=PROVIDER,
            agreements=SimpleNamespace(agreement=self.agreement),
            datasets=SimpleNamespace(get=self.get),
            engine=self,
            meter=self.meter,
            member=self.member,
            clock=self.clock,
            observe=self.observed.append,
        )

    def holds(self, *agreements: StoredAgreement) -> None:
        self.agreements = {one.terms.id: one for one in agreements}

    async def agreement(self, agreement_id):
        self.looked_up += 1
        if agreement_id not in self.agreements:
            raise NotFound("no such agreement")
        return self.agreements[agreement_id]

    async def get(self, dataset_id):
        return SimpleNamespace(dataset=self.dataset) if self.offered else None

    async def evaluate(self, entry, document):
        self.asked += 1
        if self.reading is not None:
            await self.reading.wait()
        if not self.answers:
            raise Unavailable("no answer")
        return await self.engine.evaluate(entry, document)

    def member(self, did):
        if not self.fresh:
            raise Unavailable("the view is too old")
        if did not in self.members:
            raise Unauthenticated("not an active member")
        return self.members[did]

    async def send(self, *batch):
        return await self.reporting.report("gateway", batch)

    async def one(self, *use_ids: str, **more: Any):
        return (await self.send(report(*use_ids, **more))).answers[0]


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    place.holds(
        agreement(Constraint("count", "lteq", 20), Constraint("dateTime", "lt", END)),
        agreement(number=2),
    )
    return place


async def test_a_report_is_held_to_its_agreement(place: Place) -> None:
    answers = await place.send(report("a", "b"), report("c", number=2))
    assert (answers.size, answers.checkpoint) == (9, b"note")
    assert [one.count for one in answers.answers] == [2, 1]
    first, second = place.meter.reports
    now = int(place.clock.now().timestamp() * 1000)
    signed = int(SIGNED.timestamp() * 1000)
    assert (first.scope, first.reporter, first.limit) == ("urn:uuid:agreement-1", "gateway", 20)
    assert (first.first_ms, first.last_ms) == (signed, now + 300_000)
    assert (second.limit, second.first_ms) == (None, signed)
    assert len(place.observed) == 2


async def test_the_end_of_time_is_exact(place: Place) -> None:
    place.clock.advance(timedelta(days=30).total_seconds())
    await place.one("a")
    (sent,) = place.meter.reports
    assert sent.last_ms == int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000) - 1


def _end(place: Place) -> None:
    place.holds(agreement(state=AgreementState.ENDED))


def _leave(place: Place) -> None:
    del place.members[CONSUMER]


def _leave_ourselves(place: Place) -> None:
    del place.members[PROVIDER]


def _withdraw(place: Place) -> None:
    place.offered = False


def _classify(place: Place) -> None:
    place.dataset = DATASET


REFUSED = {
    "ended": (_end, "agreement"),
    "the consumer was suspended": (_leave, "member"),
    "we were suspended": (_leave_ourselves, "member"),
    "the dataset was withdrawn": (_withdraw, "target"),
    "the data is important now": (_classify, "tds:output"),
    "another purpose": (lambda place: None, "purpose"),
    "agreed on aggregates": (
        lambda place: place.holds(agreement(Constraint("tds:output", "eq", "aggregate"))),
        "tds:output",
    ),
    "agreed on columns": (
        lambda place: place.holds(
            agreement(Constraint("tds:hiddenColumns", "isNoneOf", ("delay",)))
        ),
        "tds:hiddenColumns",
    ),
    "agreed on a start that has not come": (
        lambda place: place.holds(agreement(Constraint("dateTime", "gt", END))),
        "dateTime",
    ),
    "agreed on what nobody understands": (
        lambda place: place.holds(agreement(Constraint("spatial", "eq", "CN"))),
        "spatial",
    ),
}


@pytest.mark.parametrize(("spoil", "term"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_report_is_refused_by_name(place: Place, spoil: Any, term: str) -> None:
    spoil(place)
    purpose = "marketing" if term == "purpose" else "routing"
    refusal = await place.one("a", purpose=purpose)
    assert isinstance(refusal, Refused)
    assert term in [reason.term for reason in refusal.reasons]
    assert place.meter.reports == []


async def test_the_rest_of_a_batch_goes_in(place: Place) -> None:
    place.holds(agreement(), agreement(number=2, party=Party.CONSUMER))
    malformed = InvalidInput("report: columns")
    answers = await place.send(report("a", number=2), report("b", number=3), malformed, report("c"))
    kinds = [type(one) for one in answers.answers]
    assert kinds == [NotFound, NotFound, InvalidInput, Reported]
    assert [one.scope for one in place.meter.reports] == ["urn:uuid:agreement-1"]


async def test_a_batch_of_which_nothing_goes_in_has_a_checkpoint_too(place: Place) -> None:
    answers = await place.send(report("a", number=3))
    assert (answers.size, answers.checkpoint) == (7, b"before")


@pytest.mark.parametrize(
    "batch",
    [
        [],
        [InvalidInput("x")] * (reporting.MAX_REPORTS + 1),
        [report(*(f"u{n}" for n in range(5001))), report(*(f"v{n}" for n in range(5000)))],
    ],
)
async def test_a_batch_that_is_too_large(place: Place, batch: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        await place.send(*batch)
    assert place.meter.reports == []


async def test_the_engine_is_asked_once_a_minute(place: Place) -> None:
    for number in range(10):
        await place.one(f"u{number}")
    assert place.asked == 1
    await place.one("x", purpose="marketing")
    assert place.asked == 2
    place.clock.advance(reporting.HELD_S)
    await place.one("y")
    assert place.asked == 3


async def test_a_new_bundle_or_record_is_asked_about_anew(place: Place) -> None:
    await place.one("a")
    place.members[CONSUMER] = dataclasses.replace(place.members[CONSUMER], revision=2)
    await place.one("b")
    assert place.asked == 2
    place.digest = b"another bundle"
    await place.one("c")
    assert place.asked == 3


async def test_a_consumer_that_leaves_is_refused_at_once_and_may_come_back(place: Place) -> None:
    await place.one("a")
    record = place.members.pop(CONSUMER)
    assert isinstance(await place.one("b"), Refused)
    place.members[CONSUMER] = record
    assert isinstance(await place.one("b"), Reported)


async def test_nothing_goes_in_where_nobody_knows(place: Place) -> None:
    await place.one("a")
    place.fresh = False
    with pytest.raises(Unavailable):
        await place.one("b")
    place.fresh, place.answers = True, False
    with pytest.raises(Unavailable):
        await place.one("c", purpose="another")
    assert len(place.meter.reports) == 1


async def test_an_agreement_that_ends_takes_no_more(place: Place) -> None:
    await place.one("a")
    place.holds(agreement(state=AgreementState.ENDED))
    await place.reporting.stop("urn:uuid:agreement-1")
    refusal = await place.one("b")
    assert isinstance(refusal, Refused)
    assert refusal.reasons[0].term == "agreement"


async def test_an_end_waits_for_what_is_in_the_meter(place: Place) -> None:
    place.meter.held = asyncio.Event()
    sent = asyncio.create_task(place.one("a"))
    gone = asyncio.create_task(place.one("b"))
    await until(lambda: len(place.meter.reports) == 2)
    gone.cancel()  # its caller went away; the meter has it all the same
    place.holds(agreement(state=AgreementState.ENDED))
    stopped = asyncio.create_task(place.reporting.stop("urn:uuid:agreement-1"))
    other = asyncio.create_task(place.reporting.stop("urn:uuid:agreement-2"))
    await other
    assert not stopped.done()
    place.meter.held.set()
    await stopped
    assert isinstance(await sent, Reported)


async def test_an_end_during_the_decision_counts(place: Place) -> None:
    place.reading = asyncio.Event()
    sent = asyncio.create_task(place.one("a"))
    await until(lambda: place.asked == 1)
    place.holds(agreement(state=AgreementState.ENDED))
    await place.reporting.stop("urn:uuid:agreement-1")
    place.reading.set()
    assert isinstance(await sent, Refused)
    assert place.meter.reports == []


async def test_what_is_remembered_is_bounded(place: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(reporting, "MAX_RULES", 3)
    place.holds(*(agreement(number=number) for number in range(10)))
    for number in range(10):
        assert isinstance(await place.one("a", number=number), Reported)
    assert len(place.reporting._rules) == 3


async def test_refusals_drive_no_rule_out(place: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(reporting, "MAX_RULES", 3)
    monkeypatch.setattr(reporting, "MAX_REFUSALS", 3)
    await place.one("a")
    for number in range(10):
        assert isinstance(await place.one("b", purpose=f"p{number}"), Refused)
        assert isinstance(await place.one("c", number=100 + number), NotFound)
    assert len(place.reporting._refusals) == 3
    asked = place.asked
    assert isinstance(await place.one("d"), Reported)
    assert place.asked == asked


async def test_an_unknown_agreement_is_looked_up_once_a_second(place: Place) -> None:
    for _ in range(5):
        assert isinstance(await place.one("a", number=3), NotFound)
    assert place.looked_up == 1
    place.holds(agreement(number=3))
    place.clock.advance(reporting.REFUSED_S)
    assert isinstance(await place.one("a", number=3), Reported)


async def test_a_name_too_long_to_be_an_agreement_s_is_not_remembered(place: Place) -> None:
    sent = UseReport("urn:" + "a" * 1_000_000, columns("a"))
    (answer,) = (await place.send(sent)).answers
    assert isinstance(answer, NotFound)
    assert (place.looked_up, len(place.reporting._refusals)) == (0, 0)


async def test_callers_that_go_away_do_not_fill_the_meter(place: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(place.reporting, "_room", asyncio.Semaphore(3))
    place.meter.held = asyncio.Event()
    for number in range(20):
        caller = asyncio.create_task(place.one(f"u{number}"))
        for _ in range(10):
            await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait({caller})
    assert len(place.meter.reports) == 3
    waiting = asyncio.create_task(place.one("x"))
    place.meter.held.set()
    assert isinstance(await waiting, Reported)
    assert len(place.meter.reports) == 4
    assert len(place.observed) == 4  # what went in counts, whether its caller stayed or not


async def test_a_place_is_given_back_whatever_happens(place: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(place.reporting, "_room", asyncio.Semaphore(1))
    await place.one("a", number=3)
    place.answers = False
    with pytest.raises(Unavailable):
        await place.one("b")
    place.answers, place.reading = True, asyncio.Event()
    caller = asyncio.create_task(place.one("c"))
    await until(lambda: place.asked == 2)
    caller.cancel()
    await asyncio.wait({caller})
    place.reading.set()
    assert isinstance(await asyncio.wait_for(place.one("d"), 10), Reported)


async def test_failures_of_the_meter_are_the_caller_s(place: Place) -> None:
    async def fail(reports):
        raise Unavailable("the disk is full")

    place.meter.report = fail
    with pytest.raises(ConnectorError, match="disk"):
        await place.one("a")
    assert place.observed == []
    await place.reporting.stop("urn:uuid:agreement-1")


async def test_into_a_real_meter() -> None:
    meter = await open_meter(MemoryLog())
    place = Place(meter)
    place.clock = meter.clock
    place.holds(agreement(Constraint("count", "lteq", 3)))
    early = int(SIGNED.timestamp() * 1000)
    now = int(meter.clock.now().timestamp() * 1000)
    taken = await place.one("a", "b", "a", served=now)
    assert (taken.count, taken.calls, taken.refused) == (2, 2, [(2, Fault.DUPLICATE)])
    assert (await place.one("c", served=early - 1)).refused == [(0, Fault.OUT_OF_TIME)]
    assert (await place.one("c", served=now + 300_001)).refused == [(0, Fault.OUT_OF_TIME)]
    assert (await place.one("c", served=early, calls=2)).refused == [(0, Fault.EXHAUSTED)]
    last = await place.one("c", served=early)
    receipt = meter.receipts("urn:uuid:agreement-1", 3)[0].receipt
    assert isinstance(receipt, RecordReceipt)
    assert (receipt.reporter, receipt.use_id, receipt.served_ms) == ("gateway", "c", early)
    assert (last.first, last.size) == (2, 3)
    await meter.close()
