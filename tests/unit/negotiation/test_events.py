"""What is told of every change, to whom, and what a slow follower hears."""

from __future__ import annotations

import asyncio

import pytest

from connector.errors import Gone
from connector.model.negotiation import Party
from connector.negotiation import events
from tests.flows import PULL
from tests.negotiators import AIRPORT, DATASET, TOURISM, Node, Wire, eventually, quiet


async def heard(follower):
    follower.close()
    return [event async for event in follower]


async def test_every_step_of_both_kinds_is_told_to_every_follower():
    airport, tourism = Node(AIRPORT), Node(TOURISM)
    await airport.service.start()
    first, second = airport.service.events(), airport.service.events()
    here = tourism.service.events()
    wire = Wire(tourism, airport)
    negotiation = await tourism.service.request(AIRPORT, DATASET.id)
    done = await tourism.until(negotiation.pid, lambda found: found.state == "FINALIZED")
    transfer = await tourism.service.transfers.request(done.agreement_id, PULL)

    async def started():
        found = await tourism.service.transfers.transfer(transfer.pid)
        return found.state == "STARTED"

    await eventually(started)
    await quiet(tourism, airport)
    await wire.close()
    told = await heard(first)
    assert told == await heard(second)
    assert [event.number for event in told] == list(range(1, len(told) + 1))
    steps = [(event.kind, event.state) for event in told]
    assert steps == [
        ("negotiation", "REQUESTED"),
        ("negotiation", "AGREED"),
        ("negotiation", "VERIFIED"),
        ("negotiation", "FINALIZED"),
        ("transfer", "REQUESTED"),
        ("transfer", "STARTED"),
    ]
    last = told[-1]
    assert (last.peer, last.party, last.dataset_id) == (TOURISM, Party.PROVIDER, DATASET.id)
    assert last.agreement_id == done.agreement_id
    assert not last.waiting
    mine = [event for event in await heard(here) if event.kind == "transfer"]
    assert [event.state for event in mine] == ["REQUESTED", "STARTED"]
    assert {event.pid for event in mine} == {transfer.pid}


async def test_nothing_from_before_is_told():
    tourism = Node(TOURISM)
    await tourism.service.request(AIRPORT, DATASET.id)
    follower = tourism.service.events()
    assert await heard(follower) == []
    assert await heard(follower) == []  # the end stays the end


async def test_a_slow_follower_is_told_that_it_missed_some(monkeypatch):
    monkeypatch.setattr(events, "MAX_BEHIND", 3)
    tourism = Node(TOURISM)
    slow, quick = tourism.service.events(), tourism.service.events()
    numbers = []
    for _ in range(5):
        await tourism.service.request(AIRPORT, DATASET.id)
        numbers.append((await anext(quick)).number)
    assert numbers == [1, 2, 3, 4, 5]
    assert [(await anext(slow)).number for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(Gone):
            await anext(slow)


async def test_the_end_of_the_node_ends_its_followers():
    tourism = Node(TOURISM)
    waiting = asyncio.create_task(anext(tourism.service.events(), "the end"))
    await asyncio.sleep(0)
    await tourism.service.close()
    assert await waiting == "the end"
