"""Negotiations between two nodes over a stream, as their people see them."""

from __future__ import annotations

import pytest

from connector.errors import Conflict, NotFound, RateLimited, Refused
from connector.model.negotiation import AgreementState, Party, State
from connector.model.terms import parse_offer
from connector.negotiation import inbox
from connector.negotiation.agreements import CONCLUDED, ENDED, verify_document
from connector.negotiation.automation import Automation
from tests.negotiators import (
    AIRPORT,
    DATASET,
    TOURISM,
    UNKNOWN_TERMS,
    Node,
    Wire,
    quiet,
    terms,
)


@pytest.fixture
def airport():
    return Node(AIRPORT)


@pytest.fixture
def tourism():
    return Node(TOURISM)


@pytest.fixture
async def wire(tourism, airport):
    await airport.service.start()
    await tourism.service.start()
    wire = Wire(tourism, airport)
    yield wire
    await wire.close()
    assert wire.faults() == []


async def states_of(node, pid):
    return [negotiation.state async for negotiation in node.service.follow(pid)]


async def test_requested_agreed_verified_finalized(wire, airport, tourism):
    started = await tourism.service.request(AIRPORT, DATASET.id)
    assert started.state is State.REQUESTED
    done = await tourism.until_state(started.pid, State.FINALIZED)
    await quiet(tourism, airport)

    theirs = await airport.only()
    assert theirs.state is State.FINALIZED
    assert (theirs.pid, theirs.peer_pid) == (done.peer_pid, done.pid)
    mine = await tourism.service.agreement(done.agreement_id)
    other = await airport.service.agreement(done.agreement_id)
    assert mine.state is other.state is AgreementState.ACTIVE
    assert mine.terms == other.terms
    assert mine.secret == other.secret
    assert len(mine.secret) == 32
    for agreement in (mine, other):
        document, keys = agreement.terms.document, airport.members
        verify_document(
            agreement.provider_signature, "agreement", document, keys[AIRPORT].signing_keys
        )
        verify_document(
            agreement.consumer_signature, "agreement", document, keys[TOURISM].signing_keys
        )
    assert airport.acts() == tourism.acts() == [CONCLUDED]
    assert airport.log[0].actor == AIRPORT
    assert tourism.log[0].actor == TOURISM
    (asked,) = airport.policy.asked
    assert asked["consumer"]["did"] == TOURISM


async def test_each_side_writes_three_times_at_most_before_it_is_final(wire, airport, tourism):
    started = await tourism.service.request(AIRPORT, DATASET.id)
    await tourism.until_state(started.pid, State.FINALIZED)
    await quiet(tourism, airport)
    # A step each; and one, off the critical path, that the log has the act.
    assert (tourism.store.commits, airport.store.commits) == (4, 3)


async def test_a_counter_offer_that_is_accepted(wire, airport, tourism):
    airport.policy.says = "ask"
    started = await tourism.service.request(AIRPORT, DATASET.id, terms=terms(30))
    waiting = await airport.until_waiting()
    assert waiting.code == "approval"
    assert "count" in waiting.reason
    await airport.service.counter(waiting.pid, terms(10))
    offered = await tourism.until(started.pid, lambda n: n.state is State.OFFERED)
    assert offered.waiting
    assert parse_offer(offered.offer).terms == terms(10)
    accepted = await tourism.service.approve(started.pid)
    assert accepted.state is State.ACCEPTED
    done = await tourism.until_state(started.pid, State.FINALIZED)
    agreement = await tourism.service.agreement(done.agreement_id)
    assert agreement.terms.terms == terms(10)


async def test_a_counter_offer_is_accepted_without_asking_if_the_user_said_so(
    wire, airport, tourism
):
    airport.policy.says = "ask"
    started = await tourism.service.request(AIRPORT, DATASET.id, accept_offers=True)
    waiting = await airport.until_waiting()
    await airport.service.counter(waiting.pid, terms(10))
    await tourism.until_state(started.pid, State.FINALIZED)


async def test_a_counter_request_to_a_counter_offer(wire, airport, tourism):
    airport.policy.says = "ask"
    started = await tourism.service.request(AIRPORT, DATASET.id)
    waiting = await airport.until_waiting()
    await airport.service.counter(waiting.pid, terms(5))
    await tourism.until_state(started.pid, State.OFFERED)
    airport.policy.says = "approve"
    await tourism.service.counter(started.pid, terms(7))
    done = await tourism.until_state(started.pid, State.FINALIZED)
    assert (await airport.service.agreement(done.agreement_id)).terms.terms == terms(7)
    # It was judged against the offer that it answers.
    asked = airport.policy.asked[-1]
    assert [c["right"] for c in asked["offer"]["terms"]["permission"][0]["constraint"]][1] == 5


async def test_an_offer_that_the_provider_begins_with(wire, airport, tourism):
    started = await airport.service.propose(TOURISM, DATASET.id, terms(3))
    assert (started.state, started.peer_pid) == (State.OFFERED, "")
    offered = await tourism.until_waiting()
    assert (offered.party, offered.dataset) == (Party.CONSUMER, DATASET.id)
    await tourism.service.approve(offered.pid)
    done = await airport.until_state(started.pid, State.FINALIZED)
    assert done.peer_pid == offered.pid
    await quiet(tourism, airport)
    assert (await tourism.service.agreement(done.agreement_id)).terms.terms == terms(3)


async def test_an_offer_that_the_provider_begins_with_and_takes_back(wire, airport, tourism):
    started = await airport.service.propose(TOURISM, DATASET.id)
    await airport.service.terminate(started.pid)
    await quiet(tourism, airport)
    assert (await tourism.only()).state is State.TERMINATED


async def test_a_refusal_by_policy_says_why(wire, airport, tourism):
    airport.policy.says = "refuse"
    started = await tourism.service.request(AIRPORT, DATASET.id)
    done = await tourism.until_state(started.pid, State.TERMINATED)
    assert done.code == "policy"
    assert "allowed 10" in done.reason


@pytest.mark.parametrize("says", ["ask", "down"])
async def test_a_person_approves(wire, airport, tourism, says):
    airport.policy.says = says
    started = await tourism.service.request(AIRPORT, DATASET.id)
    waiting = await airport.until_waiting()
    assert [n.pid for n in await airport.service.negotiations(waiting_only=True)] == [waiting.pid]
    airport.policy.says = "ask"
    await airport.service.approve(waiting.pid)
    await tourism.until_state(started.pid, State.FINALIZED)
    assert await airport.service.negotiations(waiting_only=True) == ()


async def test_a_person_rejects(wire, airport, tourism):
    airport.policy.says = "ask"
    started = await tourism.service.request(AIRPORT, DATASET.id)
    waiting = await airport.until_waiting()
    await airport.service.terminate(waiting.pid, "rejected", "not this year")
    done = await tourism.until_state(started.pid, State.TERMINATED)
    assert (done.code, done.reason) == ("rejected", "not this year")
    with pytest.raises(Conflict):
        await airport.service.approve(waiting.pid)


async def test_no_person_may_agree_to_what_the_policy_refuses(wire, airport, tourism):
    airport.policy.says = "ask"
    await tourism.service.request(AIRPORT, DATASET.id)
    waiting = await airport.until_waiting()
    airport.policy.says = "refuse"
    before = airport.store.commits
    with pytest.raises(Refused):
        await airport.service.approve(waiting.pid)
    with pytest.raises(Refused):
        await airport.service.counter(waiting.pid, terms(11))
    assert airport.store.commits == before
    assert (await airport.only()).state is State.REQUESTED


async def test_terms_that_nobody_understands_are_not_asked_for(wire, airport, tourism):
    with pytest.raises(Refused) as refusal:
        await tourism.service.request(AIRPORT, DATASET.id, terms=UNKNOWN_TERMS)
    assert refusal.value.reasons[0].term == "odrl:spatial"
    assert await tourism.service.negotiations() == ()


async def test_unknown_datasets_and_offers(wire, airport, tourism):
    with pytest.raises(NotFound):
        await tourism.service.request(AIRPORT, DATASET.id, offer_id="urn:uuid:other")
    airport.datasets.kept.clear()  # withdrawn after the consumer saw it
    started = await tourism.service.request(AIRPORT, DATASET.id)
    done = await tourism.until_state(started.pid, State.TERMINATED)
    assert done.code == "peer:not_found"
    await quiet(tourism, airport)
    assert await airport.service.negotiations() == ()


@pytest.mark.parametrize("party", list(Party))
@pytest.mark.parametrize("state", [State.REQUESTED, State.OFFERED, State.ACCEPTED, State.AGREED])
async def test_either_side_may_terminate_before_the_end(party, state):
    manual = Automation(decide=False, agree=False, finalize=False, verify=False)
    airport, tourism = Node(AIRPORT, manual), Node(TOURISM, manual)
    wire = Wire(tourism, airport)
    started = await tourism.service.request(AIRPORT, DATASET.id)
    theirs = await airport.until_waiting()
    if state in (State.OFFERED, State.ACCEPTED):
        await airport.service.counter(theirs.pid, terms(10))
        await tourism.until_state(started.pid, State.OFFERED)
    if state is State.ACCEPTED:
        await tourism.service.approve(started.pid)
    if state is State.AGREED:
        await airport.service.approve(theirs.pid)
    await quiet(tourism, airport)
    assert (await tourism.only()).state is (await airport.only()).state is state
    node, pid = (tourism, started.pid) if party is Party.CONSUMER else (airport, theirs.pid)
    await node.service.terminate(pid, "withdrawn", "changed our mind")
    await quiet(tourism, airport)
    for one in (await tourism.only(), await airport.only()):
        assert (one.state, one.reason) == (State.TERMINATED, "changed our mind")
    assert airport.acts() == tourism.acts() == []
    assert await tourism.service.agreements() == await airport.service.agreements() == ()
    await wire.close()


async def test_every_automatic_step_can_be_a_persons():
    manual = Automation(decide=False, agree=False, finalize=False, verify=False)
    airport, tourism = Node(AIRPORT, manual), Node(TOURISM, manual)
    wire = Wire(tourism, airport)
    started = await tourism.service.request(AIRPORT, DATASET.id)
    theirs = await airport.until_waiting()
    await airport.service.counter(theirs.pid, terms(10))
    for node, pid, state in (
        (tourism, started.pid, State.OFFERED),
        (airport, theirs.pid, State.ACCEPTED),
        (tourism, started.pid, State.AGREED),
        (airport, theirs.pid, State.VERIFIED),
    ):
        waiting = await node.until_state(pid, state)
        assert waiting.waiting
        with pytest.raises(NotFound):
            await node.service.agreement(waiting.agreement_id)
        await node.service.approve(pid)
    await tourism.until_state(started.pid, State.FINALIZED)
    await wire.close()


async def test_a_termination_that_comes_too_late_ends_the_agreement(airport, tourism):
    airport.automation = Automation(finalize=False)
    await airport.restart()
    wire = Wire(tourism, airport)
    started = await tourism.service.request(AIRPORT, DATASET.id)
    theirs = await airport.until_waiting()
    await tourism.until_state(started.pid, State.VERIFIED)
    await wire.close()
    # Nothing passes now, so the two cross.
    await tourism.service.terminate(started.pid, "withdrawn", "no budget")
    await airport.service.approve(theirs.pid)
    wire = Wire(tourism, airport)
    await quiet(tourism, airport)
    assert (await tourism.only()).state is (await airport.only()).state is State.FINALIZED
    for node in (tourism, airport):
        (agreement,) = await node.service.agreements()
        assert (agreement.state, agreement.ended_reason) == (AgreementState.ENDED, "no budget")
        assert node.acts() == [CONCLUDED, ENDED]
    await wire.close()


async def test_too_many_open_negotiations(airport, tourism, monkeypatch):
    monkeypatch.setattr(inbox, "MAX_OPEN", 2)
    airport.policy.says = "ask"
    wire = Wire(tourism, airport)
    for _ in range(2):
        await tourism.service.request(AIRPORT, DATASET.id)
    with pytest.raises(RateLimited):
        await tourism.service.request(AIRPORT, DATASET.id)
    await wire.close()


async def test_following_shows_each_state(wire, airport, tourism):
    airport.policy.says = "ask"
    started = await tourism.service.request(AIRPORT, DATASET.id)
    follower = tourism.service.follow(started.pid)
    assert (await anext(follower)).state is State.REQUESTED
    await airport.service.approve((await airport.until_waiting()).pid)
    passed = [n.state async for n in follower]
    assert passed == [State.AGREED, State.VERIFIED, State.FINALIZED]
    assert await states_of(tourism, started.pid) == [State.FINALIZED]
    with pytest.raises(NotFound):
        await states_of(tourism, "urn:uuid:none")
