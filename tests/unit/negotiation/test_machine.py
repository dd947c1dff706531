"""The table, against the specification written down a second time."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from connector.errors import Conflict, ConnectorError
from connector.model.negotiation import Message, MessageType, Negotiation, Party, State
from connector.negotiation import machine
from connector.negotiation.messages import offer_bytes
from connector.ports.negotiation import Change
from tests.negotiators import (
    AIRPORT,
    CONSUMER_CHANNEL,
    DATASET,
    OFFER,
    PROVIDER_CHANNEL,
    TOURISM,
    Node,
)

# state | what the consumer may send | what the provider may send, each with the state it leads to
SPECIFICATION = """
none       | Request>REQUESTED                                     | Offer>OFFERED
REQUESTED  | Termination>TERMINATED                                | Offer>OFFERED Agreement>AGREED Termination>TERMINATED
OFFERED    | Request>REQUESTED ACCEPTED>ACCEPTED Termination>TERMINATED | Termination>TERMINATED
ACCEPTED   | Termination>TERMINATED                                | Agreement>AGREED Termination>TERMINATED
AGREED     | Verification>VERIFIED Termination>TERMINATED          | Termination>TERMINATED
VERIFIED   | Termination>TERMINATED                                | FINALIZED>FINALIZED Termination>TERMINATED
FINALIZED  |                                                       |
TERMINATED |                                                       |
"""  # noqa: E501  a table
NAMES = {
    "Request": MessageType.REQUEST,
    "Offer": MessageType.OFFER,
    "ACCEPTED": MessageType.ACCEPTED,
    "Agreement": MessageType.AGREEMENT,
    "Verification": MessageType.VERIFICATION,
    "FINALIZED": MessageType.FINALIZED,
    "Termination": MessageType.TERMINATION,
}


def specified():
    table = {}
    for line in SPECIFICATION.strip().splitlines():
        state, *sides = (part.strip() for part in line.split("|"))
        for party, side in zip((Party.CONSUMER, Party.PROVIDER), sides, strict=True):
            for move in side.split():
                name, leads_to = move.split(">")
                before = None if state == "none" else State(state)
                table[party, before, NAMES[name]] = State(leads_to)
    return table


LEGAL = specified()
ALL = list(itertools.product(Party, (None, *State), MessageType))


@pytest.mark.parametrize(("sender", "state", "message"), ALL)
def test_every_pair(sender, state, message):
    if (sender, state, message) in LEGAL:
        assert machine.after(sender, state, message) is LEGAL[sender, state, message]
    else:
        with pytest.raises(Conflict):
            machine.after(sender, state, message)


def test_nothing_leaves_a_final_state():
    assert {state for _, state, _ in machine.TABLE} & machine.FINAL == set()
    assert len(machine.ROWS) == len(machine.TABLE)


def test_the_diagram_in_the_documents_is_the_table():
    document = (Path(__file__).parents[3] / "docs" / "negotiation.md").read_text()
    assert f"```mermaid\n{machine.diagram()}```\n" in document


ILLEGAL = [
    (party, state, message)
    for party, state, message in ALL
    if state is not None and (party, state, message) not in LEGAL
]
PARTS = {
    MessageType.REQUEST: {"offer": offer_bytes(OFFER)},
    MessageType.OFFER: {"offer": offer_bytes(OFFER)},
    MessageType.AGREEMENT: {"agreement": b"{}", "signature": "s", "secret": bytes(32)},
    MessageType.VERIFICATION: {"signature": "s"},
    MessageType.TERMINATION: {"reason": "no"},
}


@pytest.mark.parametrize(("sender", "state", "message"), ILLEGAL)
async def test_an_illegal_message_is_refused_and_changes_nothing(sender, state, message):
    """At the service: whatever the door, the record, the outbox and the log stay as they are."""
    did = AIRPORT if sender is Party.CONSUMER else TOURISM
    channel = PROVIDER_CHANNEL if sender is Party.CONSUMER else CONSUMER_CHANNEL
    node = Node(did)
    negotiation = Negotiation(
        pid="urn:uuid:mine",
        peer_pid="urn:uuid:theirs",
        party=channel.party,
        peer=channel.peer,
        dataset=DATASET.id,
        state=state,
        offer=offer_bytes(OFFER),
        revision=1,
    )
    await node.store.commit(Change(channel=channel, negotiation=negotiation))
    pids = ("urn:uuid:theirs", "urn:uuid:mine")
    if sender is Party.PROVIDER:
        pids = (pids[1], pids[0])
    with pytest.raises(ConnectorError):
        await node.service.receive(channel, Message(message, *pids, **PARTS.get(message, {})))
    assert await node.only() == negotiation
    assert await node.store.outbox(channel, 0, 10) == ()
    assert node.store.commits == 1
    assert node.log == []


def test_only_one_crossing_is_resolved_for_the_other_side():
    for party, state, left, message in itertools.product(Party, State, (None, *State), MessageType):
        expected = (party, state, left, message) == (
            Party.CONSUMER,
            State.TERMINATED,
            State.VERIFIED,
            MessageType.FINALIZED,
        )
        assert machine.overtaken(party, state, left, message) is expected


def test_a_row_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        machine.ROWS[0].next = State.FINALIZED
