"""Peers that ask for what is not theirs, in the wrong role, too much, or twice."""

from __future__ import annotations

import dataclasses

import pytest

from connector.errors import Conflict, ConnectorError, InvalidInput, NotFound, RateLimited
from connector.model.negotiation import Channel, Party
from connector.model.transfer import (
    DataAddress,
    TransferError,
    TransferMessage,
    TransferState,
    TransferType,
)
from connector.negotiation import transfers as module
from connector.negotiation.automation import Automation
from connector.negotiation.frames import Envelope
from connector.negotiation.messages import check
from tests.flows import PULL
from tests.negotiators import (
    AIRPORT,
    CONSUMER_CHANNEL,
    DATASET,
    PROVIDER_CHANNEL,
    TOURISM,
    Node,
    Wire,
    eventually,
    quiet,
    record_of,
)

STRANGER = "did:web:stranger.example"
ADDRESS = DataAddress("https", "https://airport.example/pull", (("authorization", "t"),))


@pytest.fixture
async def pair():
    """(consumer, provider, agreement): connected once, and then only the test speaks."""
    tourism, airport = Node(TOURISM), Node(AIRPORT, Automation(start=False))
    for node in (tourism, airport):
        node.members[STRANGER] = record_of(STRANGER)
        await node.service.start()
    wire = Wire(tourism, airport)
    negotiation = await tourism.service.request(AIRPORT, DATASET.id)
    done = await tourism.until(negotiation.pid, lambda found: found.state == "FINALIZED")
    await quiet(tourism, airport)
    await wire.close()
    yield tourism, airport, done.agreement_id
    for node in (tourism, airport):
        await node.service.close()
        node.store.close()


def ask(agreement, pid="urn:uuid:c1", **more):
    return TransferMessage(
        TransferType.REQUEST, pid, "", **{"agreement_id": agreement, "format": PULL, **more}
    )


def say(type, consumer_pid, provider_pid, **more):
    return TransferMessage(type, consumer_pid, provider_pid, **more)


async def test_the_agreement_must_be_the_asker_s_and_in_force(pair):
    tourism, airport, agreement = pair
    for channel, wanted in (
        (Channel(STRANGER, Party.PROVIDER), agreement),
        (PROVIDER_CHANNEL, "urn:uuid:none"),
    ):
        with pytest.raises(NotFound, match="no such agreement"):
            await airport.service.receive(channel, ask(wanted))
    with pytest.raises(InvalidInput):  # a provider does not ask its consumer
        await tourism.service.receive(CONSUMER_CHANNEL, ask(agreement))
    await airport.service.end_agreement(agreement, "over")
    with pytest.raises(Conflict, match="ended"):
        await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))
    assert await airport.service.transfers.transfers() == ()


async def test_the_same_request_again_is_the_same_process(pair):
    _, airport, agreement = pair
    first = await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))
    assert (first.state, first.waiting) == (TransferState.REQUESTED, True)
    assert (await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))).pid == first.pid
    for other in (
        ask("urn:uuid:other"),
        ask(agreement, format="Other"),
        ask(agreement, callback="https://evil.example"),
    ):
        with pytest.raises(Conflict):
            await airport.service.receive(PROVIDER_CHANNEL, other)
    assert len(await airport.service.transfers.transfers()) == 1
    await airport.service.transfers.start(first.pid)
    again = await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))
    assert again.state is TransferState.STARTED
    assert airport.dataplane.starts == 1


async def test_two_peers_may_use_the_same_process_id(pair):
    _, airport, agreement = pair
    first = await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))
    with pytest.raises(NotFound):
        await airport.service.receive(Channel(STRANGER, Party.PROVIDER), ask(agreement))
    assert (await airport.service.transfers.transfer(first.pid)).peer == TOURISM


FOREIGN = {
    "another peer": (Channel(STRANGER, Party.PROVIDER), "urn:uuid:c1", None),
    "the other role": (Channel(TOURISM, Party.CONSUMER), None, "urn:uuid:c1"),
    "another id of the peer's": (PROVIDER_CHANNEL, "urn:uuid:c2", None),
    "an id that is not there": (PROVIDER_CHANNEL, "urn:uuid:c1", "urn:uuid:nothing"),
    "a termination of what was not begun": (PROVIDER_CHANNEL, "urn:uuid:c2", ""),
}


@pytest.mark.parametrize(("channel", "consumer", "provider"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("type", [TransferType.TERMINATION, TransferType.START])
async def test_a_foreign_process_is_not_there(pair, channel, consumer, provider, type):
    _, airport, agreement = pair
    process = await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))
    await airport.service.transfers.start(process.pid)
    before = await airport.service.transfers.transfer(process.pid)
    pids = (process.pid if pid is None else pid for pid in (consumer, provider))
    error = InvalidInput if type is TransferType.START and provider == "" else NotFound
    with pytest.raises(error) as caught:
        await airport.service.receive(channel, say(type, *pids))
    if error is NotFound:
        assert caught.value.message == "no such transfer"
    assert await airport.service.transfers.transfer(process.pid) == before
    assert airport.dataplane.flowing == {process.pid: "token-1"}


async def test_a_foreign_error_ends_nothing(pair):
    _, airport, agreement = pair
    process = await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))
    for channel in (Channel(STRANGER, Party.PROVIDER), Channel(TOURISM, Party.CONSUMER)):
        await airport.service.receive(channel, TransferError("urn:uuid:c1", process.pid, "x", ""))
    assert len(await airport.service.transfers.transfers(open_only=True)) == 1
    mine = TransferError("urn:uuid:c1", process.pid, "odd", "I do not like it")
    await airport.service.receive(PROVIDER_CHANNEL, mine)
    ended = await airport.service.transfers.transfer(process.pid)
    assert (ended.state, ended.code) == (TransferState.TERMINATED, "peer:odd")


async def test_few_may_be_open(pair, monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    tourism, airport, agreement = pair
    processes = [
        await airport.service.receive(PROVIDER_CHANNEL, ask(agreement, f"urn:uuid:c{number}"))
        for number in range(3)
    ]
    with pytest.raises(RateLimited):
        await airport.service.receive(PROVIDER_CHANNEL, ask(agreement, "urn:uuid:more"))
    assert await airport.service.receive(PROVIDER_CHANNEL, ask(agreement, "urn:uuid:c0"))
    await airport.service.transfers.terminate(processes[0].pid)
    assert await airport.service.receive(PROVIDER_CHANNEL, ask(agreement, "urn:uuid:more"))
    for _ in range(3):
        await tourism.service.transfers.request(agreement, PULL)
    with pytest.raises(RateLimited):
        await tourism.service.transfers.request(agreement, PULL)


MALFORMED = {
    "no process id": ask("a", pid=""),
    "a long process id": ask("a", pid="x" * 257),
    "a request that names the receiver's process": dataclasses.replace(ask("a"), provider_pid="p"),
    "no agreement": ask(""),
    "a long agreement's id": ask("x" * 257),
    "no format": ask("a", format=""),
    "a long format": ask("a", format="x" * 129),
    "a long callback": ask("a", callback="https://" + "x" * 2048),
    "a reason": ask("a", reason="because"),
    "a start with a format": say(TransferType.START, "c", "p", format=PULL),
    "a start with a callback": say(TransferType.START, "c", "p", callback="https://x.example"),
    "a start without the receiver's process": say(TransferType.START, "c", ""),
    "a completion with a reason": say(TransferType.COMPLETION, "c", "p", reason="x"),
    "a completion with an address": say(TransferType.COMPLETION, "c", "p", data_address=ADDRESS),
    "a suspension without the receiver's process": say(TransferType.SUSPENSION, "c", ""),
    "a long code": say(TransferType.SUSPENSION, "c", "p", code="x" * 65),
    "a long reason": say(TransferType.TERMINATION, "c", "p", reason="x" * 1025),
    "a long error": TransferError("c", "p", "x" * 65, ""),
    "an error with a long id": TransferError("c" * 257, "p", "", ""),
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
def test_what_is_out_of_bounds(message):
    with pytest.raises(InvalidInput):
        check(message, Party.CONSUMER)


OVERSIZED = {
    "no type": DataAddress(""),
    "a long type": DataAddress("x" * 257),
    "a long endpoint": DataAddress("x", "x" * 2049),
    "many properties": DataAddress("x", "", (("a", "b"),) * 33),
    "a property without a name": DataAddress("x", "", (("", "b"),)),
    "a long name": DataAddress("x", "", (("a" * 257, "b"),)),
    "a long value": DataAddress("x", "", (("a", "b" * 8193),)),
    "too much together": DataAddress("x", "", (("a", "b" * 8192),) * 4),
}


@pytest.mark.parametrize("address", OVERSIZED.values(), ids=OVERSIZED)
async def test_a_data_address_that_is_too_large_is_not_kept(pair, address):
    tourism, _, agreement = pair
    mine = await tourism.service.transfers.request(agreement, PULL)
    start = say(TransferType.START, mine.pid, "urn:uuid:p1", data_address=address)
    with pytest.raises(InvalidInput):
        await tourism.service.receive(CONSUMER_CHANNEL, start)
    with pytest.raises(InvalidInput):
        check(ask(agreement, data_address=address), Party.CONSUMER)
    assert await tourism.service.transfers.transfer(mine.pid) == mine


async def test_the_largest_data_address_is_kept(pair):
    tourism, _, agreement = pair
    mine = await tourism.service.transfers.request(agreement, PULL)
    address = DataAddress("x" * 256, "x" * 2048, (("a" * 256, "\u0000" * 8192),) * 2)
    start = say(TransferType.START, mine.pid, "urn:uuid:p1", data_address=address)
    await tourism.service.receive(CONSUMER_CHANNEL, start)
    assert (await tourism.service.transfers.transfer(mine.pid)).data_address == address


async def test_a_consumer_gives_no_address_that_a_provider_keeps(pair):
    _, airport, agreement = pair
    process = await airport.service.receive(PROVIDER_CHANNEL, ask(agreement, data_address=ADDRESS))
    assert process.data_address is None
    await airport.service.transfers.start(process.pid)
    await airport.service.transfers.suspend(process.pid)
    pids = (process.peer_pid, process.pid)
    await airport.service.receive(
        PROVIDER_CHANNEL, say(TransferType.SUSPENSION, *pids)
    )  # has crossed with ours
    resumed = await airport.service.receive(
        PROVIDER_CHANNEL, say(TransferType.START, *pids, data_address=ADDRESS)
    )
    assert resumed.data_address is None
    assert resumed.waiting


async def test_an_address_of_a_process_that_is_over_is_not_kept(pair):
    tourism, _, agreement = pair
    mine = await tourism.service.transfers.request(agreement, PULL)
    await tourism.service.transfers.terminate(mine.pid)
    start = say(TransferType.START, mine.pid, "urn:uuid:p1", data_address=ADDRESS)
    late = await tourism.service.receive(CONSUMER_CHANNEL, start)
    assert late.state is TransferState.TERMINATED
    assert late.data_address is None


async def test_a_message_whose_answer_was_lost_may_come_again(pair):
    _, airport, agreement = pair
    process = await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))
    await airport.service.transfers.start(process.pid)
    pids = (process.peer_pid, process.pid)
    for message in (TransferType.SUSPENSION, TransferType.TERMINATION):
        once = await airport.service.receive(PROVIDER_CHANNEL, say(message, *pids, code="x"))
        again = await airport.service.receive(PROVIDER_CHANNEL, say(message, *pids, code="x"))
        assert (again.state, again.revision) == (once.state, once.revision)
    with pytest.raises(Conflict):
        await airport.service.receive(
            PROVIDER_CHANNEL, say(TransferType.TERMINATION, *pids, code="y")
        )


ILLEGAL = [
    (state, message)
    for state, legal in {
        TransferState.REQUESTED: {TransferType.TERMINATION},
        TransferState.STARTED: {
            TransferType.COMPLETION,
            TransferType.SUSPENSION,
            TransferType.TERMINATION,
        },
        TransferState.SUSPENDED: {TransferType.START, TransferType.TERMINATION},
        TransferState.COMPLETED: set(),
        TransferState.TERMINATED: set(),
    }.items()
    for message in TransferType
    if message not in legal and message is not TransferType.REQUEST
]


@pytest.mark.parametrize(("state", "message"), ILLEGAL)
async def test_an_illegal_message_changes_nothing(pair, state, message):
    """After steps that were all the peer's, so that nothing can have crossed."""
    _, airport, agreement = pair
    process = await airport.service.receive(PROVIDER_CHANNEL, ask(agreement))
    pids = (process.peer_pid, process.pid)
    way = {
        TransferState.SUSPENDED: TransferType.SUSPENSION,
        TransferState.COMPLETED: TransferType.COMPLETION,
        TransferState.TERMINATED: TransferType.TERMINATION,
    }
    if state is not TransferState.REQUESTED:
        await airport.service.transfers.start(process.pid)
    if state in way:
        await airport.service.receive(PROVIDER_CHANNEL, say(way[state], *pids))
    before = await airport.service.transfers.transfer(process.pid)
    letters = await airport.store.outbox(PROVIDER_CHANNEL, 0, 100)
    assert before.state is state
    illegal = say(message, *pids)
    if way.get(state) is message:  # the very same again, as when its answer was lost
        await airport.service.receive(PROVIDER_CHANNEL, illegal)
    else:
        with pytest.raises(ConnectorError):
            await airport.service.receive(PROVIDER_CHANNEL, illegal)
    assert await airport.service.transfers.transfer(process.pid) == before
    assert await airport.store.outbox(PROVIDER_CHANNEL, 0, 100) == letters


async def test_a_refused_message_on_a_stream_is_answered_with_a_transfer_error(pair):
    tourism, airport, agreement = pair
    await airport.service.end_agreement(agreement, "over")  # the consumer has not heard yet
    mine = await tourism.service.transfers.request(agreement, PULL)
    wire = Wire(tourism, airport)

    async def refused():
        return (await tourism.service.transfers.transfer(mine.pid)).state == "TERMINATED"

    await eventually(refused)
    await quiet(tourism, airport)
    errors = [
        frame.content
        for party, frame in wire.seen
        if party is Party.PROVIDER and isinstance(frame, Envelope)
        if isinstance(frame.content, TransferError)
    ]
    assert [(error.consumer_pid, error.code) for error in errors[:1]] == [(mine.pid, "conflict")]
    await wire.close()
    assert wire.faults() == []
