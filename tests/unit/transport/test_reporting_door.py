"""The reporters' door over real TLS, with the client; what stands behind it is made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from connector._pb.dataspace.metering.v1 import metering_pb2 as pb
from connector._pb.dataspace.metering.v1 import metering_pb2_grpc as rpc
from connector.adapters.reporter_store import SqliteReporterStore
from connector.client import reporting as client
from connector.client.reporting import Reporting, UseReport
from connector.core.interface import MAX_RECORDS, Columns, Fault
from connector.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    RateLimited,
    Reason,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.identity.certificates import make_tls_key
from connector.identity.reporters import (
    DOOR_NAME,
    ReporterFile,
    key_pem,
    make_certificate,
    make_door_certificate,
    write_file,
)
from connector.metering.types import Report, Reported
from connector.model.receipt import Quantity
from connector.operations import reporting as operations
from connector.operations.reporters import Reporters
from connector.operations.reporting import MAX_REPORTS, Answers
from connector.transport.calls import OpenCalls
from connector.transport.grpc import reporting as door_module
from connector.transport.grpc.channels import TlsIdentity
from connector.transport.grpc.guard import Guard, ReporterTls, reporter
from connector.transport.grpc.reporting import (
    MAX_STREAMS_EACH,
    MESSAGE_BYTES,
    WINDOW,
    ReportingServicer,
)
from connector.transport.grpc.server import Door
from tests.logs import ManualClock, until

NOTE = b"a signed note"


def columns(*use_ids: str, purpose: str = "routing") -> Columns:
    number = (1).to_bytes(8, "little") * len(use_ids)
    return Columns(purpose, "\n".join(use_ids).encode(), number, ((Quantity.CALLS, number),))


class Service:
    """``operations.reporting.Reporting`` that takes all, or answers what a test wants."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, Any]] = []
        self.answer: Any = None
        self.gate: asyncio.Event | None = None
        self.inside = self.most = 0

    async def report(self, name, batch):
        self.batches.append((name, batch))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if isinstance(self.answer, Exception):
                raise self.answer
            if self.answer is not None:
                return Answers(tuple(self.answer), 9, NOTE)
            taken = [
                one
                if isinstance(one, InvalidInput)
                else Reported(0, len(one.columns), len(one.columns), [], 9, NOTE)
                for one in batch
            ]
            return Answers(tuple(taken), 9, NOTE)
        finally:
            self.inside -= 1


class Place:
    """A door, its list of reporters, and a reporter's file for each name that is asked for."""

    def __init__(self, folder: Path, store: SqliteReporterStore) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.clock.time = datetime.now(UTC)  # TLS has no other
        self.calls = OpenCalls()
        self.service: Any = Service()
        self.key = make_tls_key()
        self.certificate = make_door_certificate(self.key, self.clock.now())
        self.reporters = Reporters(
            store,
            self.clock,
            endpoint="127.0.0.1:1",
            door=self.certificate,
            cut=self.calls.cut_reporter,
        )
        guard = Guard(
            ReporterTls(self.reporters.known), self.calls, self.clock, lambda *observed: None
        )
        self.door = Door(guard, self.calls, MESSAGE_BYTES)
        self.servicer = ReportingServicer(lambda: self.service, lambda: reporter().name)
        rpc.add_MeteringServiceServicer_to_server(self.servicer, self.door.server)

    async def open(self) -> None:
        await self.reporters.open()
        await self.door.open_mutual_tls(
            "127.0.0.1:0",
            lambda: TlsIdentity(key_pem(self.key), self.certificate, self.reporters.roots(), ""),
        )

    async def file(self, name: str, *, add: bool = True, door: bytes = b"", days: int = 1) -> Path:
        key = make_tls_key()
        certificate = make_certificate(key, name, self.clock.now(), days)
        if add:
            await self.reporters.add(name, certificate)
        path = self.folder / f"{name}.json"
        file = ReporterFile(
            self.door.address, name, key_pem(key), certificate, door or self.certificate
        )
        path.write_bytes(write_file(file))
        return path


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Place]:
    store = SqliteReporterStore(folder / "reporters.db")
    place = Place(folder, store)
    await place.open()
    try:
        yield place
    finally:
        await place.door.drain(0.1)
        store.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(tmp_path) as place:
        yield place


def a_report(*use_ids: str) -> UseReport:
    return UseReport("urn:a", columns(*use_ids))


async def test_a_report_goes_in_under_the_reporter_s_name(place: Place) -> None:
    async with Reporting(await place.file("gateway-1")) as reporting:
        taken = await reporting.report([a_report("a", "b"), a_report("c")])
    assert [one.count for one in taken.results] == [2, 1]
    assert (taken.tree_size, taken.checkpoint) == (9, NOTE)
    ((name, batch),) = place.service.batches
    assert name == "gateway-1"
    assert [one.columns for one in batch] == [columns("a", "b"), columns("c")]


async def test_refusals_arrive_by_name(place: Place) -> None:
    refusal = Refused([Reason("purpose", "ads", "one of: routing")])
    place.service.answer = [
        Reported(
            5, 1, 3, [(0, Fault.EXHAUSTED), (2, Fault.DUPLICATE), (3, Fault.DUPLICATE)], 9, b""
        ),
        refusal,
        NotFound("no such agreement"),
        InvalidInput("columns"),
    ]
    async with Reporting(await place.file("g")) as reporting:
        taken = await reporting.report([a_report("a")] * 4)
    first, *others = taken.results
    assert (first.first, first.count, first.calls) == (5, 1, 3)
    assert first.refused == {Fault.DUPLICATE: (2, 3), Fault.EXHAUSTED: (0,)}
    codes = [one.refusal.code for one in others if one.refusal]
    assert codes == ["refused", "not_found", "invalid_input"]
    assert others[0].refusal is not None
    assert others[0].refusal.reasons == refusal.reasons


async def test_a_wholly_refused_batch_has_a_small_answer(place: Place) -> None:
    refused = [(row, Fault.DUPLICATE) for row in range(MAX_RECORDS)]
    message = door_module._result(Reported(0, 0, 0, refused, 9, NOTE))
    assert len(message.SerializeToString()) < 2 * MAX_RECORDS + 100


# Hostile messages, on a stream that goes on.

GOOD = pb.UseReport(
    agreement_id="urn:a",
    purpose="p",
    use_ids=b"a\nb",
    served_ms=bytes(16),
    amounts=[pb.Amounts(unit=pb.QUANTITY_CALLS, values=bytes(16))],
)


def spoilt(**changes: Any) -> pb.UseReport:
    report = pb.UseReport()
    report.CopyFrom(GOOD)
    for name, value in changes.items():
        report.ClearField(name)
        if isinstance(value, list):
            getattr(report, name).extend(value)
        else:
            setattr(report, name, value)
    return report


CALLS = pb.Amounts(unit=pb.QUANTITY_CALLS, values=bytes(16))
ROWS = pb.Amounts(unit=pb.QUANTITY_ROWS_RETURNED, values=bytes(16))
HOSTILE = {
    "empty": pb.UseReport(),
    "no use ids": spoilt(use_ids=b""),
    "a use id more": spoilt(use_ids=b"a\nb\nc"),
    "a line feed at the end": spoilt(use_ids=b"a\nb\n"),
    "times are short": spoilt(served_ms=bytes(15)),
    "times are long": spoilt(served_ms=bytes(24)),
    "no amounts": spoilt(amounts=[]),
    "no calls": spoilt(amounts=[ROWS]),
    "calls twice": spoilt(amounts=[CALLS, CALLS]),
    "amounts in disorder": spoilt(amounts=[ROWS, CALLS]),
    "an unknown quantity": spoilt(amounts=[CALLS, pb.Amounts(unit=99, values=bytes(16))]),
    "no quantity": spoilt(amounts=[pb.Amounts(values=bytes(16)), CALLS]),
    "amounts are short": spoilt(amounts=[pb.Amounts(unit=pb.QUANTITY_CALLS, values=bytes(8))]),
    "a long purpose": spoilt(purpose="p" * 513),
    "one record too many": pb.UseReport(
        agreement_id="urn:a",
        use_ids=b"\n".join([b"u"] * (MAX_RECORDS + 1)),
        served_ms=bytes(8 * (MAX_RECORDS + 1)),
        amounts=[pb.Amounts(unit=pb.QUANTITY_CALLS, values=bytes(8 * (MAX_RECORDS + 1)))],
    ),
    "use ids without end": spoilt(use_ids=b"a\n" + b"b" * 1_000_000),
    "amounts without end": spoilt(amounts=[pb.Amounts()] * 200_000),
}


async def test_hostile_reports_are_refused_and_the_stream_goes_on(place: Place) -> None:
    async with Reporting(await place.file("g")) as reporting:
        stream = await reporting._opened()
        for name, report in HOSTILE.items():
            request = pb.ReportUsesRequest(batch=7, reports=[report, GOOD])
            answer = await stream.send(request)
            assert answer.batch == 7
            assert [one.refusal.code for one in answer.results] == ["invalid_input", ""], name
            assert [one.count for one in answer.results] == [0, 2]


@pytest.mark.parametrize("count", [0, MAX_REPORTS + 1, 900_000])
async def test_a_batch_of_too_many_reports_is_not_looked_into(place: Place, count: int) -> None:
    """Of 2 MiB a batch may be 900,000 empty reports: the event loop has no time for them."""
    async with Reporting(await place.file("g")) as reporting:
        stream = await reporting._opened()
        answer = await stream.send(pb.ReportUsesRequest(batch=7, reports=[pb.UseReport()] * count))
        assert (answer.batch, answer.refusal.code) == (7, "invalid_input")
        assert not place.service.batches
        assert await reporting.report([a_report("a")])


async def test_a_batch_that_the_service_does_not_take_is_refused(place: Place) -> None:
    async with Reporting(await place.file("g")) as reporting:
        place.service.answer = InvalidInput("batch: too large")
        with pytest.raises(InvalidInput, match="too large"):
            await reporting.report([a_report("a")])
        place.service.answer = None
        assert await reporting.report([a_report("a")])


async def test_a_message_beyond_all_sense_ends_the_stream_and_not_the_door(place: Place) -> None:
    async with Reporting(await place.file("g"), patience_s=0.2) as reporting:
        huge = UseReport("urn:" + "a" * (MESSAGE_BYTES + 1), columns("a"))
        with pytest.raises(RateLimited):
            await reporting.report([huge])
        assert await reporting.report([a_report("a")])
    assert len(place.service.batches) == 1


# Flow


async def test_answers_come_in_order_and_no_more_is_read_than_the_window(place: Place) -> None:
    place.service.gate = asyncio.Event()
    async with Reporting(await place.file("g"), window=40) as reporting:
        stream = await reporting._opened()
        order: list[int] = []

        async def send(number: int) -> None:
            request = pb.ReportUsesRequest(batch=number, reports=[GOOD])
            order.append((await stream.send(request)).batch)

        sending = [asyncio.create_task(send(number)) for number in range(1, 41)]
        await until(lambda: place.service.inside == WINDOW)
        await asyncio.sleep(0.1)
        assert place.service.most == WINDOW
        place.service.gate.set()
        await asyncio.gather(*sending)
    assert order == list(range(1, 41))
    assert place.service.most == WINDOW


async def test_all_streams_share_what_the_door_holds(place: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(door_module, "MAX_STREAMS", 2)
    place.service.gate = asyncio.Event()
    file = await place.file("g")
    async with (
        Reporting(file) as one,
        Reporting(file) as two,
        Reporting(file, patience_s=0.2) as three,
    ):
        sending = [asyncio.create_task(each.report([a_report("a")])) for each in (one, two)]
        await until(lambda: place.service.inside == 2)
        with pytest.raises(RateLimited, match="too many streams"):
            await three.report([a_report("a")])
        place.service.gate.set()
        await asyncio.gather(*sending)
        await one.__aexit__(None, None, None)
        await until(lambda: place.calls._calls.__len__() == 1)
        assert await three.report([a_report("a")])


async def test_one_reporter_does_not_shut_the_others_out(place: Place) -> None:
    """Streams that stand idle are counted, and forgotten when they end."""
    channels = [client._open(await place.file(name)) for name in ("idle", "other")]
    stubs = [rpc.MeteringServiceStub(channel) for channel in channels]
    idle = [stubs[0].ReportUses() for _ in range(MAX_STREAMS_EACH)]
    for call in idle:
        await call.write(pb.ReportUsesRequest(batch=1, reports=[GOOD]))
        assert (await call.read()).batch == 1
    one_more = stubs[0].ReportUses()
    assert await one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "this reporter" in str(await one_more.details())
    other = stubs[1].ReportUses()
    await other.write(pb.ReportUsesRequest(batch=2, reports=[GOOD]))
    assert (await other.read()).batch == 2
    assert set(place.servicer._streams) == {"idle", "other"}
    for call in (*idle, other):
        call.cancel()
    await until(lambda: not place.servicer._streams)
    for channel in channels:
        await channel.close()


async def test_streams_that_are_reset_leave_no_more_in_the_node_than_it_has_room_for(
    place: Place,
) -> None:
    """With the service itself, before a meter that does not come on."""
    go, inside = asyncio.Event(), 0

    async def meter_report(reports: Any) -> list[Reported]:
        nonlocal inside
        inside += len(reports)
        await go.wait()
        return [Reported(0, 2, 2, [], 9, NOTE) for _ in reports]

    async def held(name: str, batch: Any) -> list[Report]:
        return [
            Report(
                scope="urn:a", reporter=name, limit=None, first_ms=0, last_ms=1, columns=one.columns
            )
            for one in batch
        ]

    service = operations.Reporting(
        did="",
        agreements=SimpleNamespace(),
        datasets=SimpleNamespace(),
        engine=SimpleNamespace(),
        meter=SimpleNamespace(report=meter_report),
        member=lambda did: None,
        clock=place.clock,
        observe=lambda reported: None,
    )
    service._held = held
    place.service = service
    channel = client._open(await place.file("g"))
    stub = rpc.MeteringServiceStub(channel)
    for _ in range(20):
        call = stub.ReportUses()
        wanted = min(inside + WINDOW, operations.MAX_UNDER_WAY)
        for number in range(WINDOW):
            await call.write(pb.ReportUsesRequest(batch=number, reports=[GOOD]))
        await until(partial(lambda wanted: inside == wanted, wanted))
        call.cancel()
        await until(lambda: not place.servicer._streams)
    assert inside == len(service._under_way) == operations.MAX_UNDER_WAY
    await until(lambda: place.servicer._room._value == door_module.MAX_BATCHES)
    go.set()
    await until(lambda: not service._under_way)
    await channel.close()


async def test_a_node_that_takes_a_batch_and_never_answers(place: Place, monkeypatch: Any) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 0.2)
    place.service.gate = asyncio.Event()
    file = await place.file("g")
    async with Reporting(file, patience_s=0.1) as reporting:
        with pytest.raises(Unavailable, match="does not answer"):
            await asyncio.wait_for(reporting.report([a_report("a")]), 30)
    async with Reporting(file, patience_s=30) as reporting:
        stream = await reporting._opened()
        stream._answer_s = 0.2
        seen = len(place.service.batches)
        sending = asyncio.create_task(reporting.report([a_report("a")]))
        await until(lambda: len(place.service.batches) == seen + 2)  # again, on a new stream
        place.service.gate.set()
        assert (await sending).results[0].count == 1
        assert stream.ended


async def test_a_failure_of_the_node_ends_the_stream_and_the_batch_comes_again(
    place: Place,
) -> None:
    place.service.answer = Unavailable("the disk is full")
    async with Reporting(await place.file("g"), patience_s=10) as reporting:
        sending = asyncio.create_task(reporting.report([a_report("a")]))
        await until(lambda: len(place.service.batches) >= 2)
        place.service.answer = None
        taken = await sending
    assert taken.results[0].count == 1


async def test_patience_ends_with_what_the_node_said(place: Place) -> None:
    place.service.answer = Unavailable("the disk is full")
    async with Reporting(await place.file("g"), patience_s=0.2) as reporting:
        with pytest.raises(Unavailable, match="the disk is full"):
            await reporting.report([a_report("a")])
    place.service.answer = Conflict("the log is behind")
    async with Reporting(place.folder / "g.json", patience_s=10) as reporting:
        with pytest.raises(Conflict, match="the log is behind"):
            await reporting.report([a_report("a")])


# Who may


async def test_a_reporter_that_is_removed_is_cut_and_stays_out(place: Place) -> None:
    place.service.gate = asyncio.Event()
    file = await place.file("g")
    other = await place.file("h")
    async with Reporting(file, patience_s=0.3) as reporting, Reporting(other) as stays:
        sending = asyncio.create_task(reporting.report([a_report("a")]))
        staying = asyncio.create_task(stays.report([a_report("b")]))
        await until(lambda: place.service.inside == 2)
        assert await place.reporters.remove("g") == 1
        with pytest.raises(Unauthenticated):
            await sending
        place.service.gate.set()
        assert await staying
        with pytest.raises(Unauthenticated):
            await reporting.report([a_report("c")])
    async with Reporting(file, patience_s=0.3) as reporting:
        with pytest.raises(Unavailable, match="does not know this reporter"):
            await reporting.report([a_report("d")])


async def test_a_reporter_added_while_the_door_is_open_is_served(place: Place) -> None:
    for name in ("first", "second"):
        async with Reporting(await place.file(name)) as reporting:
            assert await reporting.report([a_report("a")])


async def test_whose_certificate_nobody_registered(place: Place) -> None:
    async with Reporting(await place.file("g", add=False), patience_s=0.3) as reporting:
        with pytest.raises(Unavailable, match="does not know"):
            await reporting.report([a_report("a")])
    assert place.service.batches == []


async def test_the_door_s_own_certificate_is_no_reporter_s(place: Place) -> None:
    """It is among what TLS trusts, so that this is never empty."""
    path = place.folder / "door.json"
    file = ReporterFile(
        place.door.address, "g", key_pem(place.key), place.certificate, place.certificate
    )
    path.write_bytes(write_file(file))
    async with Reporting(path, patience_s=0.3) as reporting:
        with pytest.raises((Unauthenticated, Unavailable)):
            await reporting.report([a_report("a")])
    assert place.service.batches == []


async def test_an_expired_certificate(place: Place) -> None:
    file = await place.file("g")
    place.clock.advance(2 * 86_400)
    async with Reporting(file, patience_s=0.3) as reporting:
        with pytest.raises((Unauthenticated, Unavailable)):
            await reporting.report([a_report("a")])
    assert place.service.batches == []


async def test_a_door_that_is_not_the_pinned_one_gets_no_report(place: Place) -> None:
    other = make_door_certificate(make_tls_key(), place.clock.now())
    async with Reporting(await place.file("g", door=other), patience_s=0.3) as reporting:
        with pytest.raises(Unavailable):
            await reporting.report([a_report("a")])
    assert place.service.batches == []


@pytest.mark.parametrize("name", ["ListReceipts", "GetCheckpoint", "AddCosignature"])
async def test_a_reporter_may_do_nothing_else(place: Place, name: str) -> None:
    channel = client._open(await place.file("g"))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(rpc.MeteringServiceStub(channel), name)(getattr(pb, f"{name}Request")())
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await channel.close()


async def test_no_certificate_no_call(place: Place) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=place.certificate)
    options = [("grpc.ssl_target_name_override", DOOR_NAME)]
    async with grpc.aio.secure_channel(place.door.address, credentials, options=options) as channel:
        call = rpc.MeteringServiceStub(channel).ReportUses()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            await call.write(pb.ReportUsesRequest(batch=1, reports=[GOOD]))
            await call.read()
    assert place.service.batches == []


async def test_the_list_is_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as place:
        await place.file("g")
        await place.file("h")
        await place.reporters.remove("h")
    async with opened(tmp_path) as place:
        assert [one.name for one in place.reporters.listed()] == ["g"]
