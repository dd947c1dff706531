"""Two parties, any interleaving: in the end both have the same state, and what flows is what the
provider's state says."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.errors import ConnectorError
from connector.model.negotiation import AgreementState
from connector.model.transfer import TransferState
from connector.negotiation import transfer_machine as machine
from connector.negotiation.automation import Automation
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
)

PERSON = st.sampled_from(["suspend", "suspend", "complete", "terminate"])
STEP = st.one_of(
    st.tuples(st.sampled_from(["airport", "tourism", "crossing"]), PERSON),
    st.tuples(st.sampled_from(["resume airport", "resume tourism"]), st.none()),
    st.tuples(st.just("request"), st.none()),
    st.tuples(st.just("end"), st.sampled_from(["airport", "tourism"])),
    st.tuples(st.just("stream"), st.integers(0, 9)),  # frames until it is cut
    st.tuples(st.just("restart"), st.sampled_from(["airport", "tourism"])),
    st.tuples(st.just("quiet"), st.none()),
)


async def act(node: Node, what: str) -> None:
    """What a person at this node tries; whether it is possible is the node's to say."""
    for process in await node.service.transfers.transfers(open_only=True):
        with contextlib.suppress(ConnectorError):
            await getattr(node.service.transfers, what)(process.pid)


async def settled(tourism: Node, airport: Node) -> None:
    """Until nothing is under way: what starts by itself is started, and all was taken."""

    async def started() -> bool:
        return not any(
            (process.state is TransferState.REQUESTED or process.resuming) and not process.waiting
            for process in await airport.service.transfers.transfers()
        )

    await quiet(tourism, airport)
    await eventually(started)
    await quiet(tourism, airport)


async def play(automatic: bool, steps) -> None:
    nodes = {"airport": Node(AIRPORT, Automation(start=automatic)), "tourism": Node(TOURISM)}
    airport, tourism = nodes["airport"], nodes["tourism"]
    await airport.service.start()
    wire = Wire(tourism, airport)
    negotiation = await tourism.service.request(AIRPORT, DATASET.id)
    await tourism.until(negotiation.pid, lambda found: found.state == "FINALIZED")
    await quiet(tourism, airport)
    (agreement,) = await tourism.service.agreements()
    faults = []

    async def again(cut_after: int | None = None) -> None:
        nonlocal wire
        await wire.close()
        faults.extend(wire.faults())
        wire = Wire(tourism, airport, cut_after)
        if cut_after is None:
            await settled(tourism, airport)

    for who, what in [("request", None), *steps, ("quiet", None)]:
        if who == "request":
            with contextlib.suppress(ConnectorError):
                await tourism.service.transfers.request(agreement.terms.id, PULL)
        elif who == "end":
            await nodes[what].service.end_agreement(agreement.terms.id, "over")
        elif who in nodes:
            await act(nodes[who], what)
        elif who == "crossing":  # the bureau's own word is on its way meanwhile
            await again(0)
            await act(airport, what)
            await act(tourism, "complete")
        elif who.startswith("resume"):
            await again()  # what one cannot take back before it is known: see transfer_machine
            await act(nodes[who.split()[1]], "start")
            await again()
        elif who == "restart":
            await wire.close()
            await nodes[what].restart()
            wire = Wire(tourism, airport, 0)
        else:
            await again(what)
    await wire.close()
    assert faults + wire.faults() == []
    await assert_agree(tourism, airport)
    for node in nodes.values():
        await node.service.close()
        node.store.close()


async def assert_agree(tourism: Node, airport: Node) -> None:
    mine = {one.pid: one for one in await tourism.service.transfers.transfers()}
    theirs = {one.peer_pid: one for one in await airport.service.transfers.transfers()}
    assert set(theirs) <= set(mine)
    for pid, here in mine.items():
        there = theirs.get(pid)
        if there is None:  # it never was, or was refused
            assert here.state is TransferState.TERMINATED
            continue
        assert here.state is there.state
        assert here.peer_pid in ("", there.pid)
        flowing = airport.dataplane.flowing.get(there.pid)
        if there.state is TransferState.STARTED and not there.waiting:
            assert here.data_address == there.data_address
            assert dict(here.data_address.properties) == {"authorization": flowing}
        else:
            assert flowing is None
            assert here.data_address is there.data_address is None
        assert (there.pid in airport.dataplane.ended) is (there.state in machine.FINAL)
    assert set(airport.dataplane.flowing) <= {one.pid for one in theirs.values()}
    (agreement,) = await airport.service.agreements()
    if agreement.state is AgreementState.ENDED:
        assert all(one.state in machine.FINAL for one in (*mine.values(), *theirs.values()))
    here = await tourism.store.counts(CONSUMER_CHANNEL)
    there = await airport.store.counts(PROVIDER_CHANNEL)
    assert (here.sent, here.received) == (there.received, there.sent)


QUIET = ("quiet", None)


@settings(max_examples=80, deadline=None)
@given(automatic=st.booleans(), come=st.booleans(), steps=st.lists(STEP, max_size=12))
@example(True, True, [("stream", 0), ("tourism", "suspend"), ("airport", "complete")])
@example(True, True, [("airport", "suspend"), ("resume tourism", None), ("end", "tourism")])
def test_any_interleaving_ends_in_the_same_state(automatic, come, steps):
    asyncio.run(play(automatic, [*([QUIET] if come else []), *steps]))
