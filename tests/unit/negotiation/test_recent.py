"""The memory in front of a store: never older than the store, whatever overlaps or fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from connector.adapters.negotiation_store import SqliteNegotiationStore
from connector.errors import Conflict, Unavailable
from connector.model.negotiation import Negotiation, State
from connector.negotiation import recent
from connector.negotiation.recent import RecentStore
from connector.ports.negotiation import Change, Counts, Letter
from tests.negotiators import CONSUMER_CHANNEL, PROVIDER_CHANNEL, FaultyStore

NEGOTIATION = Negotiation(
    pid="p1",
    peer_pid="",
    party=CONSUMER_CHANNEL.party,
    peer=CONSUMER_CHANNEL.peer,
    dataset="d",
    state=State.REQUESTED,
    offer=b"",
    revision=1,
)


class Slow:
    """A store that holds its answers back until it is told to give them."""

    def __init__(self, store):
        self._store = store
        self.reads = 0
        self.held = None

    def __getattr__(self, name):
        call = getattr(self._store, name)

        async def slow(*args, **more):
            self.reads += name != "commit"
            result = await call(*args, **more)
            if self.held is not None and name != "commit":
                await self.held.wait()
            return result

        return slow


@pytest.fixture
def disk():
    return Slow(SqliteNegotiationStore(Path(":memory:")))


async def test_what_was_written_is_not_read_again(disk):
    store = RecentStore(disk)
    assert await store.counts(CONSUMER_CHANNEL) == Counts()
    assert await store.open_count(CONSUMER_CHANNEL) == 0
    change = Change(channel=CONSUMER_CHANNEL, negotiation=NEGOTIATION, outgoing=(b"1", b"2"))
    await store.commit(change)
    reads = disk.reads
    assert await store.negotiation("p1") == NEGOTIATION
    assert await store.counts(CONSUMER_CHANNEL) == Counts(sent=2)
    assert await store.open_count(CONSUMER_CHANNEL) == 1
    assert await store.outbox(CONSUMER_CHANNEL, 0, 1) == (Letter(1, b"1"),)
    assert await store.outbox(CONSUMER_CHANNEL, 1, 9) == (Letter(2, b"2"),)
    assert await store.outbox(CONSUMER_CHANNEL, 2, 9) == ()
    done = replace(NEGOTIATION, state=State.TERMINATED, revision=2)
    await store.commit(Change(channel=CONSUMER_CHANNEL, negotiation=done, received=1))
    assert await store.negotiation("p1") == done
    assert await store.open_count(CONSUMER_CHANNEL) == 0
    assert await store.counts(CONSUMER_CHANNEL) == Counts(sent=2, received=1)
    assert disk.reads == reads
    # Another channel is another matter.
    assert await store.counts(PROVIDER_CHANNEL) == Counts()


async def test_more_letters_than_are_remembered(disk, monkeypatch):
    monkeypatch.setattr(recent, "MAX_LETTERS", 2)
    store = RecentStore(disk)
    await store.counts(CONSUMER_CHANNEL)
    for number in range(5):
        await store.commit(Change(channel=CONSUMER_CHANNEL, outgoing=(b"%d" % number,)))
    for after in range(6):
        expected = tuple(Letter(n + 1, b"%d" % n) for n in range(after, 5))
        assert await store.outbox(CONSUMER_CHANNEL, after, 9) == expected


async def test_only_some_negotiations_are_remembered(disk, monkeypatch):
    monkeypatch.setattr(recent, "MAX_RECENT", 2)
    store = RecentStore(disk)
    for number in range(4):
        one = replace(NEGOTIATION, pid=f"p{number}")
        await store.commit(Change(channel=CONSUMER_CHANNEL, negotiation=one))
    for number in range(4):
        assert (await store.negotiation(f"p{number}")).pid == f"p{number}"
    assert len(store._negotiations) == 2


@pytest.mark.parametrize("what", ["counts", "open_count", "negotiation"])
async def test_a_read_that_a_write_overtakes_is_not_remembered(disk, what):
    store = RecentStore(disk)
    await store.commit(Change(channel=CONSUMER_CHANNEL, negotiation=NEGOTIATION))
    store = RecentStore(disk)  # as after a restart: nothing is remembered
    asked = "p1" if what == "negotiation" else CONSUMER_CHANNEL
    disk.held = asyncio.Event()
    reading = asyncio.create_task(getattr(store, what)(asked))
    await asyncio.sleep(0.01)  # it has the old answer now
    newer = replace(NEGOTIATION, state=State.TERMINATED, revision=2)
    await store.commit(
        Change(channel=CONSUMER_CHANNEL, negotiation=newer, outgoing=(b"x",), received=1)
    )
    disk.held.set()
    await reading
    fresh = RecentStore(disk)
    assert await getattr(store, what)(asked) == await getattr(fresh, what)(asked)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_after_a_failed_write_the_disk_is_asked(disk, when):
    faulty = FaultyStore(disk)
    store = RecentStore(faulty)
    await store.counts(CONSUMER_CHANNEL)
    await store.open_count(CONSUMER_CHANNEL)
    await store.commit(Change(channel=CONSUMER_CHANNEL, negotiation=NEGOTIATION))
    getattr(faulty, when).add(2)
    newer = replace(NEGOTIATION, state=State.TERMINATED, revision=2)
    change = Change(channel=CONSUMER_CHANNEL, negotiation=newer, outgoing=(b"x",), received=1)
    with pytest.raises(Unavailable):
        await store.commit(change)
    written = when == "after"
    assert await store.negotiation("p1") == (newer if written else NEGOTIATION)
    assert await store.counts(CONSUMER_CHANNEL) == Counts(written, 0, written)
    assert await store.open_count(CONSUMER_CHANNEL) == (not written)
    assert len(await store.outbox(CONSUMER_CHANNEL, 0, 9)) == written
    if written:
        with pytest.raises(Conflict):
            await store.commit(change)
    else:
        await store.commit(change)


async def test_what_is_counted_is_right_when_changes_overlap(disk):
    """Of one channel, each of another process, in order."""
    store = RecentStore(disk)
    await store.counts(CONSUMER_CHANNEL)
    await store.open_count(CONSUMER_CHANNEL)
    changes = [
        Change(
            channel=CONSUMER_CHANNEL,
            negotiation=replace(NEGOTIATION, pid=f"p{number}"),
            outgoing=(b"%d" % number,),
            received=number,
        )
        for number in (1, 2, 3)
    ]
    await asyncio.gather(*(store.commit(change) for change in changes))
    assert await store.counts(CONSUMER_CHANNEL) == Counts(3, 0, 3)
    assert await store.open_count(CONSUMER_CHANNEL) == 3
    letters = await store.outbox(CONSUMER_CHANNEL, 0, 9)
    assert [letter.body for letter in letters] == [b"1", b"2", b"3"]
    await store.commit(Change(channel=CONSUMER_CHANNEL, outgoing=(b"4",)))
    assert await store.counts(CONSUMER_CHANNEL) == Counts(4, 0, 3)
    assert len(await store.outbox(CONSUMER_CHANNEL, 0, 9)) == 4
