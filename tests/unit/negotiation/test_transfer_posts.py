"""Transfers with peers that are reached over HTTPS: what we send waits as posts."""

from __future__ import annotations

import dataclasses

import pytest

from connector.errors import Unavailable
from connector.model.negotiation import AgreementState, Channel, Party, StoredAgreement
from connector.model.terms import Offer, Terms, agreement_document, parse_agreement
from connector.model.transfer import DataAddress, TransferMessage, TransferState, TransferType
from connector.negotiation import messages
from connector.ports.negotiation import Change
from tests.flows import PULL
from tests.negotiators import AIRPORT, TOURISM, Clock, Node, eventually, record_of

STRANGER = "BPNL00000003CRHK"
BASE, CALLBACK = "https://stranger.example/dsp", "https://stranger.example/callback"
AGREEMENT = "urn:uuid:agreement"
ADDRESS = DataAddress("https", "https://stranger.example/pull", (("authorization", "t"),))
START, SUSPENSION = TransferType.START, TransferType.SUSPENSION
TERMINATION = TransferType.TERMINATION


async def node(did: str, party: Party) -> tuple[Node, Channel]:
    """With an agreement in force with a stranger, where we are ``party``."""
    made, channel = Node(did), Channel(STRANGER, party)
    made.members[STRANGER] = dataclasses.replace(
        record_of(STRANGER), signing_keys=(), log_origin=""
    )
    assigner, assignee = (did, STRANGER) if party is Party.PROVIDER else (STRANGER, did)
    document = agreement_document(
        id=AGREEMENT,
        offer=Offer("offer", "dataset-7", assigner, Terms()),
        assignee=assignee,
        timestamp=Clock().now(),
        space="did:web:space.example",
        classification="general",
        secret_commitment="0",
        provider_log="a/log" if party is Party.PROVIDER else "b/log",
        consumer_log="",
    )
    agreement = StoredAgreement(
        terms=parse_agreement(document),
        pid="urn:uuid:negotiation",
        party=party,
        peer=STRANGER,
        state=AgreementState.ACTIVE,
        provider_signature="",
        secret=bytes(32),
        dataset_record="",
        address=BASE,
    )
    await made.store.commit(Change(channel=channel, agreement=agreement))
    await made.service.start()
    return made, channel


async def waiting(made: Node) -> list[tuple[str, TransferMessage]]:
    return [(post.address, messages.decode(post.body)) for post in await made.service.posts()]


async def taken(made: Node, peer_pid: str = "") -> list[TransferMessage]:
    found = await waiting(made)
    for post in await made.service.posts():
        await made.service.delivered(post, peer_pid)
    return [content for _, content in found]


async def test_a_stranger_asks_and_is_answered_where_it_said():
    airport, channel = await node(AIRPORT, Party.PROVIDER)
    ask = TransferMessage(
        TransferType.REQUEST, "c1", "", agreement_id=AGREEMENT, format=PULL, callback=CALLBACK
    )
    process = await airport.service.receive(channel, ask)
    assert process.state is TransferState.REQUESTED
    await eventually(airport.service.posts)
    ((address, start),) = await waiting(airport)
    assert address == CALLBACK
    assert (start.type, start.consumer_pid, start.provider_pid) == (START, "c1", process.pid)
    assert start.data_address.endpoint_type == "https"
    assert {post.pid for post in await airport.service.posts()} == {process.pid}
    assert await airport.store.outbox(channel, 0, 10) == ()
    await taken(airport)
    await airport.service.transfers.suspend(process.pid, "night")
    await airport.service.receive(channel, TransferMessage(TERMINATION, "c1", process.pid))
    assert [one.type for one in await taken(airport)] == [SUSPENSION]
    assert airport.dataplane.flowing == {}


async def test_we_ask_a_stranger_and_hear_its_process_id():
    tourism, channel = await node(TOURISM, Party.CONSUMER)
    mine = await tourism.service.transfers.request(AGREEMENT, PULL)
    ((address, ask),) = await waiting(tourism)
    assert (address, ask.type, ask.agreement_id) == (BASE, TransferType.REQUEST, AGREEMENT)
    assert await taken(tourism, "p1")
    assert (await tourism.service.transfers.transfer(mine.pid)).peer_pid == "p1"
    start = TransferMessage(START, mine.pid, "p1", data_address=ADDRESS)
    for _ in range(2):  # its answer may be lost
        found = await tourism.service.receive(channel, start)
        assert (found.state, found.data_address) == (TransferState.STARTED, ADDRESS)
    await tourism.service.transfers.complete(mine.pid)
    (end,) = await taken(tourism)
    assert (end.consumer_pid, end.provider_pid) == (mine.pid, "p1")


async def test_an_answer_may_come_before_the_request_was_acknowledged():
    tourism, channel = await node(TOURISM, Party.CONSUMER)
    mine = await tourism.service.transfers.request(AGREEMENT, PULL)
    start = TransferMessage(START, mine.pid, "p1", data_address=ADDRESS)
    await tourism.service.receive(channel, start)
    await taken(tourism, "p1")
    found = await tourism.service.transfers.transfer(mine.pid)
    assert (found.peer_pid, found.state) == ("p1", TransferState.STARTED)


async def test_a_process_id_that_is_another_s_ends_the_process():
    tourism, _ = await node(TOURISM, Party.CONSUMER)
    for _ in range(2):
        mine = await tourism.service.transfers.request(AGREEMENT, PULL)
        await taken(tourism, "p1")
    found = await tourism.service.transfers.transfer(mine.pid)
    assert (found.state, found.code) == (TransferState.TERMINATED, "peer:pid")
    assert await tourism.service.posts() == ()


@pytest.mark.parametrize("how", ["refused", "abandon"])
async def test_a_post_that_is_lost_ends_its_process(how):
    airport, channel = await node(AIRPORT, Party.PROVIDER)
    ask = TransferMessage(
        TransferType.REQUEST, "c1", "", agreement_id=AGREEMENT, format=PULL, callback=CALLBACK
    )
    process = await airport.service.receive(channel, ask)
    await eventually(airport.service.posts)
    await airport.service.transfers.suspend(process.pid)
    post, _ = await airport.service.posts()
    if how == "refused":
        airport.dataplane.cuts = "fail"
        with pytest.raises(Unavailable):
            await airport.service.refused(post, "400", "no")
        airport.dataplane.cuts = "work"
        await airport.service.refused(post, "400", "no")
        told, code = [TERMINATION], "peer:400"
    else:
        await airport.service.abandon(post, "no answer for an hour")
        told, code = [], "unreachable"
    found = await airport.service.transfers.transfer(process.pid)
    assert (found.state, found.code) == (TransferState.TERMINATED, code)
    assert [one.type for _, one in await waiting(airport)] == told
    assert process.pid in airport.dataplane.ended
    for post in await airport.service.posts():  # nor is the termination taken
        await airport.service.refused(post, "404", "gone")
    assert await airport.service.posts() == ()


async def test_the_end_of_an_agreement_tells_a_stranger_of_each_transfer():
    airport, channel = await node(AIRPORT, Party.PROVIDER)
    for number in range(2):
        ask = TransferMessage(
            TransferType.REQUEST,
            f"c{number}",
            "",
            agreement_id=AGREEMENT,
            format=PULL,
            callback=f"{CALLBACK}/{number}",
        )
        await airport.service.receive(channel, ask)

    async def started():
        return len(await airport.service.posts()) == 2

    await eventually(started)
    await taken(airport)
    await airport.service.end_agreement(AGREEMENT, "over")
    told = await waiting(airport)
    assert {(address, one.type, one.reason) for address, one in told} == {
        (f"{CALLBACK}/{number}", TERMINATION, "over") for number in range(2)
    }
    assert airport.dataplane.flowing == {}
