"""Two parties, any interleaving: in the end both have the same state, and nobody was misled."""

from __future__ import annotations

import asyncio

from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.errors import ConnectorError
from connector.model.negotiation import AgreementState, State
from connector.negotiation.automation import Automation
from tests.negotiators import (
    AIRPORT,
    CONSUMER_CHANNEL,
    DATASET,
    PROVIDER_CHANNEL,
    TOURISM,
    Node,
    Wire,
    quiet,
    terms,
)

MANUAL = Automation(decide=False, agree=False, finalize=False, verify=False)

PERSON = st.sampled_from(["approve", "approve", "approve", "counter", "terminate", "end"])
STEP = st.one_of(
    st.tuples(st.sampled_from(["airport", "tourism"]), PERSON),
    st.tuples(st.just("stream"), st.integers(0, 9)),  # frames until it is cut
    st.tuples(st.just("restart"), st.sampled_from(["airport", "tourism"])),
    st.tuples(st.just("quiet"), st.none()),
)


async def act(node: Node, what: str) -> None:
    """What a person at this node tries; whether it is possible is the node's to say."""
    for negotiation in await node.service.negotiations():
        try:
            if what == "approve":
                await node.service.approve(negotiation.pid)
            elif what == "counter":
                await node.service.counter(negotiation.pid, terms(7))
            elif what == "terminate":
                await node.service.terminate(negotiation.pid)
            elif negotiation.agreement_id:
                await node.service.end_agreement(negotiation.agreement_id, "over")
        except ConnectorError:
            pass


async def play(begins: str, automatic: bool, steps) -> None:
    automation = Automation() if automatic else MANUAL
    nodes = {"airport": Node(AIRPORT, automation), "tourism": Node(TOURISM, automation)}
    airport, tourism = nodes["airport"], nodes["tourism"]
    airport.policy.says = "ask"
    if begins == "airport":
        await airport.service.propose(TOURISM, DATASET.id)
    else:
        await tourism.service.request(AIRPORT, DATASET.id)
    faults = []
    wire = None
    for who, what in [*steps, ("quiet", None)]:
        if who in nodes:
            await act(nodes[who], what)
            continue
        if wire is not None:
            await wire.close()
            faults += wire.faults()
        if who == "restart":
            await nodes[what].restart()
            wire = None
            continue
        wire = Wire(tourism, airport, what)
        if who == "quiet":
            await quiet(tourism, airport)
    await wire.close()
    assert faults + wire.faults() == []
    await assert_agree(tourism, airport)
    for node in nodes.values():
        node.store.close()


async def assert_agree(tourism: Node, airport: Node) -> None:
    (mine,) = await tourism.service.negotiations()
    theirs = await airport.service.negotiations()
    if not theirs:  # both ended it before a word had passed
        assert mine.state is State.TERMINATED
        return
    (other,) = theirs
    assert mine.state is other.state
    kept = [await node.service.agreements() for node in (tourism, airport)]
    if mine.state is State.FINALIZED:
        ((here,), (there,)) = kept
        assert here.terms == there.terms
        assert mine.agreement_id == other.agreement_id == here.terms.id
        assert here.state is there.state
        ended = here.state is AgreementState.ENDED
        for node in (tourism, airport):
            assert node.acts() == ["agreement.concluded", "agreement.ended"][: 1 + ended]
    else:
        assert kept == [(), ()]
        assert tourism.log == airport.log == []
    here = await tourism.store.counts(CONSUMER_CHANNEL)
    there = await airport.store.counts(PROVIDER_CHANNEL)
    assert (here.sent, here.received) == (there.received, there.sent)


# How far it has come before chance takes over: what is interesting may be near the end.
QUIET = ("quiet", None)
WAY = [
    QUIET,
    ("airport", "approve"),
    QUIET,
    ("tourism", "approve"),
    QUIET,
    ("airport", "approve"),
    QUIET,
    ("tourism", "approve"),
    QUIET,
]


@settings(max_examples=80, deadline=None)
@given(
    begins=st.sampled_from(["airport", "tourism"]),
    automatic=st.booleans(),
    come=st.integers(0, len(WAY)),
    steps=st.lists(STEP, max_size=12),
)
@example("tourism", False, 5, [("stream", 0), ("airport", "approve"), ("tourism", "terminate")])
def test_any_interleaving_ends_in_the_same_state(begins, automatic, come, steps):
    asyncio.run(play(begins, automatic, [*WAY[:come], *steps]))
