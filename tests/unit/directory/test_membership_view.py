"""A node's view of the directory: in order, never back, and never older than its limit."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.adapters.membership_store import SqliteMembershipStore
from connector.directory.view import MembershipView
from connector.errors import (
    ConnectorError,
    NotFound,
    PeerFault,
    Unauthenticated,
    Unavailable,
    VerificationFailed,
)
from connector.identity.membership import (
    Change,
    Heartbeat,
    read_membership_event,
    sign_heartbeat,
    sign_membership_event,
)
from connector.model.participant import Membership

AIRPORT, BANK = "did:web:airport.example", "did:web:bank.example"


class Node:
    """A view over a store of its own."""

    def __init__(self, world, folder):
        self.world, self.path, self.store = world, folder / "view.db", None

    async def open(self):
        if self.store is not None:
            self.store.close()
        self.store = SqliteMembershipStore(self.path)
        view = MembershipView(
            space=self.world.ourselves.did,
            space_key=self.world.space_key,
            store=self.store,
            clock=self.world.clock,
            max_age_s=15.0,
        )
        await view.open()
        return view


@pytest.fixture
def node(world, tmp_path):
    node = Node(world, tmp_path)
    yield node
    node.store.close()


@pytest.fixture
async def view(node):
    return await node.open()


async def hear(world, view, count):
    for statement in await world.take(count, after=view.last):
        await view.apply(statement)


def beat(world, number, *, seconds=0.0, key=None):
    time = world.clock.now() + timedelta(seconds=seconds)
    return sign_heartbeat(key or world.ourselves.signing_key, Heartbeat(number, time))


async def test_it_is_what_the_directory_says(world, view):
    await world.join("airport")
    await hear(world, view, 3)
    assert view.last == 2
    assert view.active(AIRPORT) == world.services.members.active(AIRPORT)
    assert set(view.participants) == {world.ourselves.did, AIRPORT}
    view.require_fresh()
    await world.services.members.suspend(AIRPORT, "")
    await hear(world, view, 2)
    with pytest.raises(Unauthenticated):
        view.active(AIRPORT)
    assert view.participant(AIRPORT).state is Membership.SUSPENDED
    with pytest.raises(Unauthenticated):
        view.active(BANK)
    with pytest.raises(NotFound):
        view.participant(BANK)


async def test_it_grows_old(world, view):
    assert view.age() == float("inf")
    with pytest.raises(Unavailable):
        view.require_fresh()
    await hear(world, view, 2)
    view.require_fresh()
    world.clock.pass_(15)
    assert view.age() == 15
    view.require_fresh()
    world.clock.pass_(0.1)
    with pytest.raises(Unavailable, match="too old"):
        view.require_fresh()
    await hear(world, view, 1)
    assert view.age() == 0


async def test_setting_the_clock_back_does_not_make_it_young(world, view):
    await hear(world, view, 2)
    world.clock.pass_(20)
    world.clock.wall -= timedelta(hours=1)
    with pytest.raises(Unavailable):
        view.require_fresh()


async def test_words_that_were_long_under_way_count_as_old(world, view):
    await hear(world, view, 1)
    late = beat(world, 1)
    world.clock.pass_(14)
    await view.apply(late)
    assert view.age() == 14
    world.clock.pass_(2)
    with pytest.raises(Unavailable):
        view.require_fresh()


async def test_an_event_is_not_a_heartbeat(world, view):
    """Old events, replayed, must not make a view young."""
    await world.join("airport")
    await hear(world, view, 2)
    assert view.age() == float("inf")


async def test_a_heartbeat_again_makes_nothing_younger(world, view):
    await hear(world, view, 1)
    heartbeat = beat(world, 1)
    await view.apply(heartbeat)
    world.clock.pass_(10)
    await view.apply(heartbeat)
    assert view.age() == 10


HOSTILE_HEARTBEATS = {
    "for more events than came": (lambda w: beat(w, 3), PeerFault),
    "for fewer: the directory was rolled back": (lambda w: beat(w, 1), PeerFault),
    "from before the last": (lambda w: beat(w, 2, seconds=-1), VerificationFailed),
    "from the future": (lambda w: beat(w, 2, seconds=16), VerificationFailed),
    "by another": (lambda w: beat(w, 2, key=Ed25519PrivateKey.generate()), VerificationFailed),
}


@pytest.mark.parametrize(
    ("make", "error"), HOSTILE_HEARTBEATS.values(), ids=HOSTILE_HEARTBEATS.keys()
)
async def test_hostile_heartbeats(world, view, make, error):
    await world.join("airport")
    await hear(world, view, 3)
    world.clock.since += 5
    with pytest.raises(error):
        await view.apply(make(world))
    assert view.age() == 5


def event(world, view, did, change, *, number=None, key=None, **record):
    """An event by the space (or by ``key``) about ``did``."""
    number = number or view.last + 1
    known = (
        view.participant(did)
        if did in view.participants
        else dataclasses.replace(view.participant(AIRPORT), did=did, log_origin=did)
    )
    states = {Change.SUSPENDED: Membership.SUSPENDED, Change.REVOKED: Membership.REVOKED}
    participant = dataclasses.replace(
        known, **{"revision": number, "state": states.get(change, Membership.ACTIVE)} | record
    )
    template = read_membership_event(view.recorded(AIRPORT).statement, world.space_key)
    return sign_membership_event(
        key or world.ourselves.signing_key,
        dataclasses.replace(template, number=number, type=change, participant=participant),
    )


HOSTILE_EVENTS = {
    "a gap": lambda w, v: event(w, v, BANK, Change.ADMITTED, number=4),
    "the same number again": lambda w, v: event(w, v, BANK, Change.ADMITTED, number=2),
    "an event that was applied": lambda w, v: v.recorded(AIRPORT).statement,
    "by another key": lambda w, v: event(
        w, v, BANK, Change.ADMITTED, key=Ed25519PrivateKey.generate()
    ),
    "restored, but never suspended": lambda w, v: event(w, v, AIRPORT, Change.RESTORED),
    "admitted twice": lambda w, v: event(w, v, AIRPORT, Change.ADMITTED),
    "suspended, but no member": lambda w, v: event(w, v, BANK, Change.SUSPENDED),
    "another key for the space": lambda w, v: event(
        w, v, w.ourselves.did, Change.UPDATED, signing_keys=(b"x" * 32,)
    ),
    "nothing": lambda w, v: "",
    "not a statement": lambda w, v: "a.b.c",
    "half a character": lambda w, v: "\ud800",
}


@pytest.mark.parametrize("make", HOSTILE_EVENTS.values(), ids=HOSTILE_EVENTS.keys())
async def test_hostile_events_change_nothing(world, view, node, make):
    await world.join("airport")
    await hear(world, view, 3)
    before = view.participants
    with pytest.raises(ConnectorError):
        await view.apply(make(world, view))
    assert (view.participants, view.last) == (before, 2)
    assert len(await node.store.after(0, 10)) == 2
    await world.join("bank")
    await hear(world, view, 2)  # and it goes on
    view.active(BANK)


async def test_revoked_is_final(world, view):
    await world.join("airport")
    await world.services.members.revoke(AIRPORT, "")
    await hear(world, view, 4)
    for change in (Change.RESTORED, Change.UPDATED, Change.ADMITTED):
        with pytest.raises(VerificationFailed):
            await view.apply(event(world, view, AIRPORT, change))


async def test_another_spaces_events(world, view):
    """The first event must be this space's own record."""
    await world.join("airport")
    (_, second) = await world.take(2)
    found = read_membership_event(second, world.space_key)
    first = dataclasses.replace(
        found, number=1, participant=dataclasses.replace(found.participant, revision=1)
    )
    with pytest.raises(VerificationFailed):
        await view.apply(sign_membership_event(world.ourselves.signing_key, first))


async def test_a_restart_goes_on_from_the_last_event_and_is_stale(world, view, node):
    await world.join("airport")
    await hear(world, view, 3)
    again = await node.open()
    assert again.last == 2
    assert again.active(AIRPORT)
    with pytest.raises(Unavailable):
        again.require_fresh()
    await hear(world, again, 1)
    again.require_fresh()
    assert len(await again.history(AIRPORT)) == 1


async def test_a_store_that_was_tampered_with_is_not_believed(world, view, node):
    await world.join("airport")
    await world.services.members.suspend(AIRPORT, "")
    await hear(world, view, 4)
    await node.store._sqlite.write(lambda db: db.execute("DELETE FROM events WHERE number = 2"))
    with pytest.raises(PeerFault):
        await node.open()


async def test_a_store_that_was_cut_is_caught_up(world, view, node):
    await world.join("airport")
    await world.services.members.suspend(AIRPORT, "")
    await hear(world, view, 4)
    await node.store._sqlite.write(lambda db: db.execute("DELETE FROM events WHERE number = 3"))
    again = await node.open()
    with pytest.raises(Unavailable):
        again.require_fresh()  # or the airport would be served
    await hear(world, again, 2)
    with pytest.raises(Unauthenticated):
        again.active(AIRPORT)


async def test_listeners_hear_before_anything_is_waited_for(world, view, node):
    await world.join("airport")
    await hear(world, view, 3)
    heard, stored = [], asyncio.Event()

    async def listener(event):
        heard.append((event.type, event.participant.state, view.participant(AIRPORT).state))

    async def slow(event):
        await stored.wait()

    async def broken(event):
        raise Unavailable("a listener's own trouble")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    for one in (slow, broken, listener):
        view.listen(one)
    end = view.listen(listener)
    end()
    await world.services.members.suspend(AIRPORT, "")
    (statement,) = await world.take(1, after=2)
    applying = asyncio.ensure_future(view.apply(statement))
    await asyncio.sleep(0)  # apply runs to its first wait
    await asyncio.sleep(0)  # the listeners run
    assert heard == [(Change.SUSPENDED, Membership.SUSPENDED, Membership.SUSPENDED)]
    await applying
    stored.set()


async def test_a_disk_that_fails_does_not_keep_a_suspended_member(world, view, node, monkeypatch):
    await world.join("airport")
    await hear(world, view, 3)
    await world.services.members.suspend(AIRPORT, "")
    (statement,) = await world.take(1, after=2)

    async def fail(*arguments):
        raise Unavailable("the disk")

    with monkeypatch.context() as patch:
        patch.setattr(node.store, "append", fail)
        with pytest.raises(Unavailable):
            await view.apply(statement)
    with pytest.raises(Unauthenticated):
        view.active(AIRPORT)
    await world.join("bank")
    await hear(world, view, 2)  # stores both
    assert (await node.open()).last == 4
