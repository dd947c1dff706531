"""The feed: every event once, in order, to however many watch."""

from __future__ import annotations

import asyncio

import pytest

from connector.directory.feed import MOST_FOR_ONE
from connector.errors import InvalidInput, RateLimited, Unauthenticated, Unavailable
from connector.identity.membership import (
    HEARTBEAT,
    read_heartbeat,
    read_membership_event,
)
from connector.identity.statements import statement_kind

DID = "did:web:airport.example"


def said(world, statements):
    """Numbers of events, and ("heartbeat", number)."""
    return [
        (HEARTBEAT, read_heartbeat(statement, world.space_key).number)
        if statement_kind(statement) == HEARTBEAT
        else read_membership_event(statement, world.space_key).number
        for statement in statements
    ]


async def test_from_the_first_event_and_from_where_it_stopped(world):
    for number in range(3):
        await world.join(f"m{number}")
    assert said(world, await world.take(5)) == [1, 2, 3, 4, (HEARTBEAT, 4)]
    assert said(world, await world.take(3, after=2)) == [3, 4, (HEARTBEAT, 4)]
    assert said(world, await world.take(1, after=4)) == [(HEARTBEAT, 4)]
    await world.restart()
    assert said(world, await world.take(2, after=3)) == [4, (HEARTBEAT, 4)]


async def test_more_events_than_one_batch(world, monkeypatch):
    monkeypatch.setattr("connector.directory.feed.BATCH", 2)
    for number in range(5):
        await world.join(f"m{number}")
    assert said(world, await world.take(7)) == [1, 2, 3, 4, 5, 6, (HEARTBEAT, 6)]


async def test_new_events_as_they_happen_to_everybody(world):
    await world.join("airport")
    watches = [world.services.feed.watch(f"{DID}", 2) for _ in range(MOST_FOR_ONE)]
    watches += [world.services.feed.watch(world.ourselves.did, 2) for _ in range(MOST_FOR_ONE)]
    for watch in watches:
        assert said(world, [await anext(watch)]) == [(HEARTBEAT, 2)]
    await world.join("bank")

    async def next_event(watch):
        while statement_kind(statement := await anext(watch)) == HEARTBEAT:
            pass
        return statement

    found = await asyncio.gather(*(next_event(watch) for watch in watches))
    assert said(world, found) == [3] * len(watches)
    for watch in watches:
        await watch.aclose()


async def test_heartbeats_when_nothing_happens(world):
    first, second = said(world, (await world.take(3, after=0))[1:])
    assert first == second == (HEARTBEAT, 1)


async def test_a_slow_watcher_misses_nothing(world):
    watch = world.services.feed.watch(world.ourselves.did, 1)
    await anext(watch)
    for number in range(30):
        await world.join(f"m{number}")
    found = [await anext(watch) for _ in range(31)]
    assert said(world, found) == [*range(2, 32), (HEARTBEAT, 31)]
    await watch.aclose()


async def test_who_is_put_out_is_told_so_and_no_more(world):
    await world.join("airport")
    watch = world.services.feed.watch(DID, 2)
    await anext(watch)
    await world.services.members.suspend(DID, "")
    assert said(world, [await anext(watch)]) == [3]
    with pytest.raises(Unauthenticated):
        await anext(watch)
    with pytest.raises(Unauthenticated):
        await anext(world.services.feed.watch("did:web:nobody.example", 3))


async def test_closing_ends_every_watch_at_once(world):
    watch = world.services.feed.watch(world.ourselves.did, 1)
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    world.services.feed.close()
    with pytest.raises(Unavailable):
        await waiting


async def test_one_member_has_so_many_watches_and_frees_them(world):
    await world.join("airport")
    watches = [world.services.feed.watch(DID, 0) for _ in range(MOST_FOR_ONE)]
    for watch in watches:
        await anext(watch)
    with pytest.raises(RateLimited):
        await anext(world.services.feed.watch(DID, 0))
    await world.take(1)  # somebody else can
    await watches[0].aclose()
    await world.take(1, caller=DID)
    for watch in watches:
        await watch.aclose()
    assert not world.services.feed._watches


@pytest.mark.parametrize("after", [-1, 2, 2**63])
async def test_a_number_that_was_never_given(world, after):
    with pytest.raises(InvalidInput):
        await world.take(1, after=after)


async def test_a_watch_ends_when_its_reader_is_cancelled(world):
    """At whatever moment: waiting for a change, reading the store, or between two heartbeats."""

    async def read():
        async for _ in world.services.feed.watch(world.ourselves.did, 0):
            pass

    for steps in range(12):
        task = asyncio.ensure_future(read())
        for _ in range(steps):
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 5)
    assert not world.services.feed._watches
