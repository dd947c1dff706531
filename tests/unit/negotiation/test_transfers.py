"""Transfers between two nodes: every path, both roles, a person or none."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from connector.errors import Conflict, InvalidInput, NotFound, Refused, Unavailable
from connector.model.negotiation import AgreementState, Party
from connector.model.transfer import TransferState
from connector.negotiation.automation import Automation
from tests.flows import PULL
from tests.negotiators import (
    AIRPORT,
    DATASET,
    TOURISM,
    Node,
    Wire,
    eventually,
    quiet,
)

BY_HAND = Automation(start=False)
REQUESTED, STARTED, SUSPENDED, COMPLETED, TERMINATED = TransferState


class Pair:
    """A consumer and a provider with an agreement, connected."""

    def __init__(self, automation=None):
        self.airport, self.tourism = Node(AIRPORT, automation), Node(TOURISM)
        self.wire = Wire(self.tourism, self.airport)
        self.agreement = ""

    async def __aenter__(self):
        for node in self.nodes:
            await node.service.start()
        negotiation = await self.tourism.service.request(AIRPORT, DATASET.id)
        done = await self.tourism.until(negotiation.pid, lambda found: found.agreement_id != "")
        await quiet(self.tourism, self.airport)
        self.agreement = done.agreement_id
        return self

    async def __aexit__(self, *error):
        await self.wire.close()
        for node in (self.airport, self.tourism):
            await node.service.close()
            node.store.close()

    async def request(self):
        return (await self.tourism.service.transfers.request(self.agreement, PULL)).pid

    async def started(self):
        """(the consumer's process id, the provider's)."""
        pid = await self.request()
        await self.both(STARTED)
        return pid, (await self.here(self.airport)).pid

    async def here(self, node):
        return (await node.service.transfers.transfers())[0]

    async def states(self):
        processes = [await node.service.transfers.transfers() for node in self.nodes]
        return [process[0].state if process else None for process in processes]

    @property
    def nodes(self):
        return (self.tourism, self.airport)

    async def both(self, state):
        async def reached():
            return await self.states() == [state, state]

        await eventually(reached)
        await quiet(self.tourism, self.airport)
        assert self.wire.faults() == []


async def test_a_request_is_started_and_the_consumer_learns_where_the_data_is():
    async with Pair() as pair:
        here, there = await pair.started()
        mine, theirs = await pair.here(pair.tourism), await pair.here(pair.airport)
        assert (mine.pid, mine.peer_pid) == (here, there) == (theirs.peer_pid, theirs.pid)
        assert mine.data_address == theirs.data_address
        assert dict(mine.data_address.properties) == {"authorization": "token-1"}
        assert mine.dataset == theirs.dataset == DATASET.id
        assert mine.agreement_id == theirs.agreement_id == pair.agreement
        assert pair.airport.dataplane.flowing == {there: "token-1"}
        assert pair.tourism.dataplane.flowing == {}


ENDS = {
    "complete": (COMPLETED, ""),
    "terminate": (TERMINATED, "withdrawn"),
}


@pytest.mark.parametrize("who", ["tourism", "airport"])
@pytest.mark.parametrize("how", ENDS)
async def test_either_side_ends_it_and_the_flow_is_cut(who, how):
    state, code = ENDS[how]
    async with Pair() as pair:
        pids = dict(zip(("tourism", "airport"), await pair.started(), strict=True))
        transfers = getattr(pair, who).service.transfers
        await getattr(transfers, how)(pids[who])
        await pair.both(state)
        assert pair.airport.dataplane.flowing == {}
        assert pair.airport.dataplane.ended == {pids["airport"]: code}
        for node in pair.nodes:
            process = await pair.here(node)
            assert process.data_address is None
            assert process.code == code
        for again in (transfers.complete, transfers.terminate, transfers.start, transfers.suspend):
            with pytest.raises(Conflict):
                await again(pids[who])


@pytest.mark.parametrize("suspends", ["tourism", "airport"])
@pytest.mark.parametrize("resumes", ["tourism", "airport"])
async def test_either_side_suspends_and_either_resumes(suspends, resumes):
    async with Pair() as pair:
        pids = dict(zip(("tourism", "airport"), await pair.started(), strict=True))
        await getattr(pair, suspends).service.transfers.suspend(pids[suspends], "night", "at 8")
        await pair.both(SUSPENDED)
        assert pair.airport.dataplane.flowing == {}
        for node in pair.nodes:
            process = await pair.here(node)
            assert (process.code, process.reason) == ("night", "at 8")
            assert process.data_address is None
        await getattr(pair, resumes).service.transfers.start(pids[resumes])

        async def told():
            return (await pair.here(pair.tourism)).data_address is not None

        await eventually(told)
        await pair.both(STARTED)
        address = (await pair.here(pair.tourism)).data_address
        assert dict(address.properties) == {"authorization": "token-2"}
        assert pair.airport.dataplane.flowing == {pids["airport"]: "token-2"}
        await pair.tourism.service.transfers.complete(pids["tourism"])
        await pair.both(COMPLETED)


@pytest.mark.parametrize("automation", [Automation(), BY_HAND])
async def test_what_takes_long_to_start_holds_nothing_else_up(automation):
    async with Pair(automation) as pair:
        plane, transfers = pair.airport.dataplane, pair.airport.service.transfers
        await pair.request()
        await eventually(lambda: pair.airport.service.transfers.transfers())
        running = (await pair.here(pair.airport)).pid
        if not automation.start:
            await transfers.start(running)
        await pair.both(STARTED)
        plane.preparing.clear()
        await pair.request()

        async def requested():
            return (await pair.here(pair.airport)).pid != running

        await eventually(requested)
        slow = (await pair.here(pair.airport)).pid
        if not automation.start:
            starting = asyncio.create_task(transfers.start(slow))

        async def preparing():
            return plane.prepared[-1] == slow

        await eventually(preparing)
        await asyncio.wait_for(transfers.suspend(running), 1)
        await asyncio.wait_for(pair.airport.service.end_agreement(pair.agreement, "enough"), 1)
        assert plane.flowing == {}
        plane.preparing.set()
        if not automation.start:
            with pytest.raises(Conflict):
                await starting
        await pair.both(TERMINATED)
        assert plane.flowing == {}


async def test_a_person_starts_it_and_starts_it_again():
    async with Pair(BY_HAND) as pair:
        pid = await pair.request()
        await pair.both(REQUESTED)
        theirs = await pair.here(pair.airport)
        assert theirs.waiting
        assert pair.airport.dataplane.starts == 0
        await pair.airport.service.transfers.start(theirs.pid)
        await pair.both(STARTED)
        assert not (await pair.here(pair.airport)).waiting
        await pair.tourism.service.transfers.suspend(pid)
        await pair.both(SUSPENDED)
        await pair.tourism.service.transfers.start(pid)
        await pair.both(STARTED)
        assert (await pair.here(pair.airport)).waiting
        assert (await pair.here(pair.tourism)).data_address is None
        assert pair.airport.dataplane.flowing == {}
        await pair.airport.service.transfers.start(theirs.pid)
        await quiet(*pair.nodes)
        assert (await pair.here(pair.tourism)).data_address is not None
        with pytest.raises(Conflict):
            await pair.airport.service.transfers.start(theirs.pid)


@pytest.mark.parametrize("who", [0, 1])
async def test_either_side_ends_what_was_only_requested(who):
    async with Pair(BY_HAND) as pair:
        await pair.request()
        await pair.both(REQUESTED)
        node = pair.nodes[who]
        process = await pair.here(node)
        for other in ("complete", "suspend"):
            with pytest.raises(Conflict):
                await getattr(node.service.transfers, other)(process.pid)
        await node.service.transfers.terminate(process.pid, "rejected", "not today")
        await pair.both(TERMINATED)
        for each in pair.nodes:
            assert (await pair.here(each)).reason == "not today"


async def test_a_refusal_by_policy_ends_it_with_the_reasons():
    async with Pair() as pair:
        pair.airport.dataplane.says = "refuse"
        await pair.request()
        await pair.both(TERMINATED)
        for node in pair.nodes:
            process = await pair.here(node)
            assert process.code == "policy"
            assert process.reason == "count: observed 21; allowed 20"


async def test_a_person_s_start_that_the_policy_refuses_changes_nothing():
    async with Pair(BY_HAND) as pair:
        await pair.request()
        await pair.both(REQUESTED)
        before = await pair.here(pair.airport)
        for says, error in (("refuse", Refused), ("down", Unavailable)):
            pair.airport.dataplane.says = says
            with pytest.raises(error):
                await pair.airport.service.transfers.start(before.pid)
        assert await pair.here(pair.airport) == before


async def test_a_data_plane_that_does_not_answer_leaves_it_to_a_person():
    async with Pair() as pair:
        pair.airport.dataplane.says = "down"
        await pair.request()

        async def waits():
            found = await pair.airport.service.transfers.transfers()
            return found and found[0].waiting

        await eventually(waits)
        await pair.both(REQUESTED)
        theirs = await pair.here(pair.airport)
        assert theirs.code == "unavailable"
        pair.airport.dataplane.says = "allow"
        await pair.airport.service.transfers.start(theirs.pid)
        await pair.both(STARTED)


async def test_a_flow_that_cannot_be_cut_is_not_said_to_be():
    """The message is not taken, so it comes again."""
    async with Pair() as pair:
        here, there = await pair.started()
        pair.airport.dataplane.cuts = "fail"
        with pytest.raises(Unavailable):
            await pair.airport.service.transfers.suspend(there)
        assert await pair.states() == [STARTED, STARTED]
        await pair.tourism.service.transfers.complete(here)
        await pair.wire.closed()
        assert (await pair.here(pair.airport)).state is STARTED
        pair.airport.dataplane.cuts = "work"
        pair.wire = Wire(pair.tourism, pair.airport)
        await pair.both(COMPLETED)


@pytest.mark.parametrize("who", [0, 1])
async def test_the_end_of_an_agreement_ends_its_transfers(who):
    async with Pair() as pair:
        await pair.started()
        await pair.request()

        async def two():
            return len(pair.airport.dataplane.flowing) == 2

        await eventually(two)
        await quiet(*pair.nodes)
        await pair.nodes[who].service.end_agreement(pair.agreement, "we moved")
        await quiet(*pair.nodes)
        assert pair.wire.faults() == []
        assert pair.airport.dataplane.flowing == {}
        for node in pair.nodes:
            agreement = await node.service.agreement(pair.agreement)
            assert agreement.state is AgreementState.ENDED
            for process in await node.service.transfers.transfers():
                assert (process.state, process.code) == (TERMINATED, "agreement")
                assert process.reason == "we moved"
        with pytest.raises(Conflict):
            await pair.request()


async def test_what_cannot_be_requested():
    async with Pair() as pair:
        for agreement in ("urn:uuid:nothing", ""):
            with pytest.raises(NotFound):
                await pair.tourism.service.transfers.request(agreement, PULL)
        with pytest.raises(NotFound):  # the provider is not its own consumer
            await pair.airport.service.transfers.request(pair.agreement, PULL)
        for wanted in ("", "x" * 129):
            with pytest.raises(InvalidInput):
                await pair.tourism.service.transfers.request(pair.agreement, wanted)
        with pytest.raises(NotFound):
            await pair.tourism.service.transfers.start("urn:uuid:nothing")
        await pair.tourism.service.transfers.request(pair.agreement, "Carrier-Pigeon")
        await quiet(*pair.nodes)
        mine = await pair.here(pair.tourism)
        assert (mine.state, mine.code) == (TERMINATED, "peer:invalid_input")
        assert PULL in mine.reason
        assert await pair.airport.service.transfers.transfers() == ()


async def test_lists():
    async with Pair() as pair:
        here, _ = await pair.started()
        await pair.tourism.service.transfers.complete(here)
        await pair.both(COMPLETED)
        second, _ = await pair.started()
        transfers = pair.tourism.service.transfers
        assert [one.pid for one in await transfers.transfers()] == [second, here]
        assert [one.pid for one in await transfers.transfers(open_only=True)] == [second]
        assert len(await transfers.transfers(agreement_id=pair.agreement)) == 2
        assert await transfers.transfers(agreement_id="urn:uuid:other") == ()


async def test_a_restart_goes_on_with_what_was_there():
    async with Pair() as pair:
        here, there = await pair.started()
        await pair.request()

        async def two():
            return len(pair.airport.dataplane.flowing) == 2

        await eventually(two)
        await quiet(*pair.nodes)
        newer = (await pair.here(pair.airport)).pid
        await pair.airport.service.transfers.suspend(newer)
        await pair.wire.close()
        for node in pair.nodes:
            await node.restart()
        assert set(pair.airport.dataplane.resumed) == {newer, there}
        assert pair.tourism.dataplane.resumed == []
        pair.wire = Wire(pair.tourism, pair.airport)
        await pair.tourism.service.transfers.complete(here)
        await quiet(*pair.nodes)
        assert (await pair.airport.service.transfers.transfer(there)).state is COMPLETED


async def test_a_request_that_was_saved_and_not_started_is_started_after_a_restart():
    async with Pair() as pair:
        store = pair.airport.store
        store.before.add(store.commits + 2)  # the request is saved, its start is not
        await pair.request()

        async def tried():
            return pair.airport.dataplane.starts == 1 and store.commits >= min(store.before)

        await eventually(tried)
        await pair.wire.close()
        assert await pair.states() == [REQUESTED, REQUESTED]
        await pair.airport.restart()
        pair.wire = Wire(pair.tourism, pair.airport)
        await pair.both(STARTED)
        assert len(pair.airport.dataplane.flowing) == 1


async def test_crossing_messages_agree():
    """Each side speaks before it hears the other."""
    moves = ["suspend", "complete", "terminate"]
    for mine in moves:
        for theirs in moves:
            async with Pair() as pair:
                here, there = await pair.started()
                await pair.wire.close()
                await getattr(pair.tourism.service.transfers, mine)(here)
                await getattr(pair.airport.service.transfers, theirs)(there)
                pair.wire = Wire(pair.tourism, pair.airport)
                await quiet(*pair.nodes)
                assert pair.wire.faults() == []
                last = max(mine, theirs, key=["suspend", "complete", "terminate"].index)
                expected = {"suspend": SUSPENDED, "complete": COMPLETED, "terminate": TERMINATED}
                assert await pair.states() == [expected[last]] * 2
                assert pair.airport.dataplane.flowing == {}


async def test_both_resume_at_once():
    async with Pair() as pair:
        here, there = await pair.started()
        await pair.tourism.service.transfers.suspend(here)
        await pair.both(SUSPENDED)
        await pair.wire.close()
        await pair.tourism.service.transfers.start(here)
        await pair.airport.service.transfers.start(there)
        pair.wire = Wire(pair.tourism, pair.airport)
        await pair.both(STARTED)
        mine = await pair.here(pair.tourism)
        assert mine.data_address == (await pair.here(pair.airport)).data_address
        assert pair.airport.dataplane.starts == 2


async def test_a_secret_is_not_shown():
    async with Pair() as pair:
        await pair.started()
        mine = await pair.here(pair.tourism)
        assert "token-1" not in repr(mine)
        assert mine.party is Party.CONSUMER
        assert dataclasses.replace(mine) == mine


async def test_until_the_data_plane_knows_its_processes_they_are_left_alone():
    async with Pair() as pair:
        here, there = await pair.started()
        await pair.wire.close()
        airport = pair.airport
        airport.service = airport._make()  # a new run, which has not come to its start
        for call in (
            airport.service.transfers.suspend(there),
            airport.service.end_agreement(pair.agreement, "over"),
        ):
            with pytest.raises(Unavailable):
                await call
        await pair.tourism.service.transfers.complete(here)
        pair.wire = Wire(pair.tourism, airport)
        await pair.wire.closed()
        assert (await pair.here(airport)).state is STARTED
        assert airport.dataplane.ended == {}
        await airport.service.start()
        assert airport.dataplane.resumed == [there]
        pair.wire = Wire(pair.tourism, airport)
        await pair.both(COMPLETED)
