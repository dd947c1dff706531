"""``ManagementService``: what a person's request becomes, and how answers are told."""

import asyncio
import dataclasses
from types import SimpleNamespace

import pytest

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.adapters.memory_log import MemoryLog
from connector.adapters.reporter_store import SqliteReporterStore
from connector.errors import Conflict, InvalidInput, Reason
from connector.identity.certificates import make_tls_key
from connector.identity.reporters import make_certificate, pem_thumbprint
from connector.model.negotiation import Negotiation, Party, State
from connector.model.transfer import DataAddress, TransferProcess, TransferState
from connector.negotiation.events import Events
from connector.operations.books import Line
from connector.operations.publishing import Published
from connector.operations.reporters import Reporters
from connector.operations.status import Check, Status
from connector.ports.peers import ReceiptProof
from connector.transport.grpc.management import ManagementServicer
from tests.agreements import CONSUMERS
from tests.logs import PROVIDER, ManualClock, act, delivery, open_meter, refusal, use

SECTIONS = b'{"permission": [{"action": "use"}]}'
STARTED = Negotiation(
    pid="urn:uuid:pid",
    peer_pid="",
    party=Party.CONSUMER,
    peer=PROVIDER,
    dataset="urn:trips",
    state=State.REQUESTED,
    offer=b"{}",
    revision=1,
    updated_ms=1_700_000_000_123,
)

TRANSFER = TransferProcess(
    pid="urn:uuid:transfer",
    peer_pid="",
    party=Party.CONSUMER,
    peer=PROVIDER,
    agreement_id="urn:uuid:a",
    format="HttpData-PULL",
    state=TransferState.STARTED,
    revision=2,
    dataset="urn:trips",
    data_address=DataAddress("https", "https://a.example/pull", (("authorization", "secret"),)),
    updated_ms=1_700_000_000_123,
)


class Negotiations:
    """Writes down what it was asked; ``changes`` is what a follower sees, then it waits."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []
        self.changes: list[Negotiation] = []

    def __getattr__(self, name):
        async def asked(*arguments, **named):
            self.asked.append((name, *arguments, *named.values()))
            return 4 if name == "end_agreement" else STARTED

        return asked

    async def agreements(self, party=None):
        return (CONSUMERS,)

    async def follow(self, pid):
        assert pid == STARTED.pid
        for change in self.changes:
            yield change
        await asyncio.Event().wait()


class Transfers:
    """Writes down what it was asked; gives ``process``."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []
        self.process = TRANSFER

    def __getattr__(self, name):
        async def asked(*arguments, **named):
            self.asked.append((name, *arguments, *named.values()))
            return (self.process,) if name == "transfers" else self.process

        return asked


class Node:
    def __init__(self) -> None:
        self.transfers = Transfers()
        self.negotiations = Negotiations()
        self.member = True
        self.reached: list[str] = []
        self.published: list[object] = []
        self.lines = (Line("allowed", 3, 3), Line("refused", 2, 2))
        self.listed: list[object] = []

    def status(self):
        return Status(
            did="did:web:a.example",
            name="A",
            state="ready",
            endpoint="a.example:9443",
            http_endpoint="127.0.0.1:9080",
            version="1",
            log_size=7,
        )

    async def diagnose(self):
        return [Check("log", False, "behind", "restore the newest copy")]

    def services(self):
        if not self.member:
            raise Conflict("this node has not joined a space")

        async def publish(wanted):
            self.published.append(wanted)
            return Published("urn:trips", "urn:offer", 1500, ("mind this",))

        async def reconcile(agreement_id):
            return self.lines

        async def proof(agreement_id, number):
            assert (agreement_id, number) == ("urn:uuid:a", 3)
            return ReceiptProof(b"leaf", 5, (bytes(32), b"h" * 32), b"note")

        return SimpleNamespace(
            negotiations=self.negotiations,
            transfers=self.transfers,
            reach=self.reached.append,
            uses=lambda scope: 2,
            publisher=SimpleNamespace(publish=publish),
            books=SimpleNamespace(
                reconcile=reconcile, proof=proof, listed=lambda scope, limit: self.listed
            ),
        )


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def door(node):
    return ManagementServicer(node)


async def followed(door, **request) -> list[pb.Negotiation]:
    async with asyncio.timeout(10):
        answers = door.Negotiate(pb.NegotiateRequest(follow_seconds=1, **request), None)
        return [answer.negotiation async for answer in answers]


async def test_before_enrolment_there_is_a_status_and_nothing_else(node, door) -> None:
    node.member = False
    assert (await door.GetStatus(pb.GetStatusRequest(), None)).log_size == 7
    (check,) = (await door.Diagnose(pb.DiagnoseRequest(), None)).checks
    assert (check.ok, check.hint) == (False, "restore the newest copy")
    for call, request in (
        (door.ListAgreements, pb.ListAgreementsRequest()),
        (door.PublishDataset, pb.PublishDatasetRequest()),
        (door.ExportEvidence, pb.ExportEvidenceRequest()),
        (door.GetReceiptProof, pb.GetReceiptProofRequest()),
    ):
        with pytest.raises(Conflict):
            await call(request, None)


async def test_a_negotiation_is_begun_and_followed_to_its_end(node, door) -> None:
    final = dataclasses.replace(STARTED, state=State.FINALIZED, agreement_id="urn:uuid:a")
    node.negotiations.changes = [STARTED, final, STARTED]
    found = await followed(door, provider=PROVIDER, dataset_id="urn:trips", terms=SECTIONS)
    assert [one.state for one in found] == ["REQUESTED", "FINALIZED"]
    assert found[0].updated.startswith("2023-11-14T22:13:20.123")
    assert node.reached == [PROVIDER]
    (asked,) = node.negotiations.asked
    assert asked[:3] == ("request", PROVIDER, "urn:trips")
    assert asked[4].permissions[0].action == "use"


@pytest.mark.parametrize(
    "last",
    [
        dataclasses.replace(STARTED, waiting=True),
        dataclasses.replace(STARTED, state=State.TERMINATED, reason="no"),
    ],
)
async def test_following_ends_where_a_person_is_needed(node, door, last) -> None:
    node.negotiations.changes = [last, STARTED]
    (found,) = await followed(door, provider=PROVIDER, dataset_id="urn:trips")
    assert (found.waiting, found.reason) == (last.waiting, last.reason)


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"accept": True}, ("approve", STARTED.pid, False)),
        ({"accept": True, "accept_unenforced": True}, ("approve", STARTED.pid, True)),
        ({"accept": False}, ("terminate", STARTED.pid)),
    ],
)
async def test_a_counter_offer_is_answered(node, door, said, asked) -> None:
    node.negotiations.changes = [dataclasses.replace(STARTED, state=State.FINALIZED)]
    await followed(door, pid=STARTED.pid, **said)
    assert node.negotiations.asked == [asked]
    assert node.reached == []


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        ({"decision": "approve"}, ("approve", "p")),
        ({"decision": "reject", "reason": "too many"}, ("terminate", "p", "rejected", "too many")),
    ],
)
async def test_decisions_of_a_person(node, door, request_, asked) -> None:
    await door.DecideApproval(pb.DecideApprovalRequest(pid="p", **request_), None)
    assert node.negotiations.asked == [asked]


@pytest.mark.parametrize(
    "request_",
    [
        {"decision": ""},
        {"decision": "APPROVE"},
        {"decision": "counter", "terms": b""},
        {"decision": "counter", "terms": b'{"permissions": []}'},
        {"decision": "counter", "terms": b"\xff"},
    ],
)
async def test_a_decision_that_is_none_decides_nothing(node, door, request_) -> None:
    with pytest.raises(InvalidInput):
        await door.DecideApproval(pb.DecideApprovalRequest(pid="p", **request_), None)
    assert node.negotiations.asked == []


async def test_an_owner_s_words_arrive_whole(node, door) -> None:
    request = pb.PublishDatasetRequest(
        source="/srv/flights",
        title="Flights",
        hidden_columns=["a", "b"],
        privacy_unit="tailnum",
        terms=SECTIONS,
        accept_free_sql=True,
        csv_null="NA",
    )
    answer = await door.PublishDataset(request, None)
    (wanted,) = node.published
    for field in dataclasses.fields(wanted):
        told = getattr(request, field.name)
        found = getattr(wanted, field.name)
        assert (str(found) if field.name == "source" else found) == (
            tuple(told) if isinstance(found, tuple) else told
        )
    assert (answer.rows, list(answer.warnings)) == (1500, ["mind this"])


async def test_agreements_with_their_uses(door) -> None:
    (found,) = (await door.ListAgreements(pb.ListAgreementsRequest(), None)).agreements
    assert found.document == CONSUMERS.terms.document
    assert (found.party, found.state, found.uses) == ("consumer", "active", 2)


async def test_ending_says_how_many_uses_it_stopped(node, door) -> None:
    request = pb.EndAgreementRequest(agreement_id="urn:uuid:a", reason="done")
    assert (await door.EndAgreement(request, None)).stopped_uses == 4
    assert node.negotiations.asked == [("end_agreement", "urn:uuid:a", "done")]


async def test_books_agree_or_not(node, door) -> None:
    assert (await door.Reconcile(pb.ReconcileRequest(), None)).agree
    node.lines = (*node.lines, Line("calls", 3, 2))
    answer = await door.Reconcile(pb.ReconcileRequest(), None)
    assert not answer.agree
    assert [(line.name, line.provider, line.consumer) for line in answer.lines][-1] == (
        "calls",
        3,
        2,
    )


async def test_each_kind_of_receipt_has_its_summary(node, door) -> None:
    meter = await open_meter(MemoryLog())
    allowed = await use(meter, "u1", rows=9)
    assert allowed is not None
    reasons = (Reason("purpose", "ads", "tourism"),)
    node.listed = [allowed, *await meter.record([refusal("u2", reasons=reasons), act()])]
    node.listed += await meter.record([delivery(allowed, rows=9)])
    found = (await door.ListReceipts(pb.ListReceiptsRequest(), None)).receipts
    await meter.close()
    assert [one.kind for one in found] == ["use", "use", "act", "delivery"]
    assert [one.outcome for one in found] == ["allowed", "refused", "", "allowed"]
    assert [one.number for one in found] == [1, 2, 3, 4]
    assert found[0].quantities["rows_returned"] == 9
    assert [reason.term for reason in found[1].reasons] == ["purpose"]
    assert found[2].act == "agreement.ended"
    assert all(len(one.leaf_hash) == 32 for one in found)


async def test_a_receipt_with_its_proof(door) -> None:
    request = pb.GetReceiptProofRequest(agreement_id="urn:uuid:a", number=3)
    found = await door.GetReceiptProof(request, None)
    assert (found.leaf, found.index, found.checkpoint) == (b"leaf", 5, b"note")
    assert list(found.inclusion) == [bytes(32), b"h" * 32]


async def test_reporters_are_added_listed_and_removed(node, door, tmp_path) -> None:
    clock = ManualClock()
    store = SqliteReporterStore(tmp_path / "reporters.db")
    reporters = Reporters(
        store, clock, endpoint="h.example:1", door=b"door", cut=lambda name: len(name)
    )
    services = node.services()
    services.reporters = reporters
    node.services = lambda: services
    certificate = make_certificate(make_tls_key(), "gateway", clock.now(), 10)
    request = pb.AddReporterRequest(name="gateway", certificate=certificate)
    added = await door.AddReporter(request, None)
    assert (added.endpoint, added.door) == ("h.example:1", b"door")
    (found,) = (await door.ListReporters(pb.ListReportersRequest(), None)).reporters
    assert (found.name, found.thumbprint) == ("gateway", pem_thumbprint(certificate))
    assert (found.added, found.expires) == ("2026-11-23T12:00:00.000Z", "2026-12-03T12:00:00.000Z")
    removed = await door.RemoveReporter(pb.RemoveReporterRequest(name="gateway"), None)
    assert removed.streams == 7
    assert not (await door.ListReporters(pb.ListReportersRequest(), None)).reporters
    store.close()


@pytest.mark.parametrize("wanted", ["", "Other-PULL"])
async def test_a_transfer_is_asked_for_over_the_stream_to_its_provider(node, door, wanted) -> None:
    request = pb.RequestTransferRequest(agreement_id="urn:uuid:a", format=wanted)
    answer = await door.RequestTransfer(request, None)
    assert node.transfers.asked == [("request", "urn:uuid:a", wanted or "HttpData-PULL")]
    assert node.reached == [PROVIDER]
    assert (answer.transfer.pid, answer.transfer.dataset_id) == (TRANSFER.pid, "urn:trips")
    assert answer.transfer.updated.startswith("2023-11-14T22:13:20.123")
    node.transfers.process = dataclasses.replace(TRANSFER, address="https://a.example/dsp")
    await door.RequestTransfer(request, None)
    assert node.reached == [PROVIDER]  # a peer by HTTPS has no stream


async def test_where_the_data_is_is_the_consumer_s_to_know(node, door) -> None:
    listed = await door.ListTransfers(pb.ListTransfersRequest(agreement_id="a"), None)
    assert b"secret" not in listed.SerializeToString()
    assert node.transfers.asked == [("transfers", "a", False)]
    found = await door.GetTransfer(pb.GetTransferRequest(pid="p"), None)
    assert dict(found.data_address.properties) == {"authorization": "secret"}
    node.transfers.process = dataclasses.replace(TRANSFER, party=Party.PROVIDER)
    found = await door.GetTransfer(pb.GetTransferRequest(pid="p"), None)
    assert not found.HasField("data_address")


@pytest.mark.parametrize(
    ("action", "asked"),
    [
        ("start", ("start", "p")),
        ("resume", ("start", "p")),
        ("suspend", ("suspend", "p", "c", "r")),
        ("complete", ("complete", "p")),
        ("terminate", ("terminate", "p", "c", "r")),
    ],
)
async def test_what_is_decided_about_a_transfer(node, door, action, asked) -> None:
    request = pb.DecideTransferRequest(pid="p", action=action, code="c", reason="r")
    await door.DecideTransfer(request, None)
    assert node.transfers.asked == [asked]


@pytest.mark.parametrize("action", ["", "Start", "approve"])
async def test_a_decision_about_a_transfer_that_is_none(node, door, action) -> None:
    with pytest.raises(InvalidInput):
        await door.DecideTransfer(pb.DecideTransferRequest(pid="p", action=action), None)
    assert node.transfers.asked == []


async def test_events_are_told_from_the_first_answer_on(node, door) -> None:
    events = Events()
    node.negotiations.events = events.follow
    answers = door.FollowEvents(pb.FollowEventsRequest(), None)
    assert not (await anext(answers)).HasField("event")
    events.tell(STARTED)
    events.tell(TRANSFER)
    first, second = [(await anext(answers)).event for _ in range(2)]
    assert (first.kind, first.state, first.number) == ("negotiation", "REQUESTED", 1)
    assert (second.kind, second.state, second.number) == ("transfer", "STARTED", 2)
    assert (second.party, second.peer, second.agreement_id) == ("consumer", PROVIDER, "urn:uuid:a")
    events.close()
    assert [answer async for answer in answers] == []
