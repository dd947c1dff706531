"""Members: states, lists, renewal, and what survives a failing disk or log."""

from __future__ import annotations

import asyncio

import pytest

from connector.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
    VerificationFailed,
)
from connector.identity import certificates
from connector.identity.acts import read_act
from connector.identity.membership import read_membership_event
from connector.identity.ourselves import Ourselves
from connector.model.participant import Membership

DID = "did:web:airport.example"


async def test_suspend_restore_revoke(world):
    await world.join("airport")
    members = world.services.members
    for change, state in (
        (members.suspend, Membership.SUSPENDED),
        (members.restore, Membership.ACTIVE),
        (members.revoke, Membership.REVOKED),
    ):
        recorded = await change(DID, "审计")
        event = read_membership_event(recorded.statement, world.space_key)
        assert (event.participant.state, event.reason) == (state, "审计")
        assert members.resolve(DID) == recorded
        if state is Membership.ACTIVE:
            members.active(DID)
        else:
            with pytest.raises(Unauthenticated):
                members.active(DID)
    for change in (members.suspend, members.restore, members.revoke):
        with pytest.raises(Conflict):
            await change(DID, "")
    assert world.journal.names[-3:] == ["member.suspended", "member.restored", "member.revoked"]
    act = read_act(world.journal.acts[-1][3], [world.space_key])
    assert (act.scope, act.details["reason"]) == (DID, "审计")


async def test_a_state_survives_a_restart(world):
    await world.join("airport")
    await world.services.members.suspend(DID, "")
    await world.restart()
    with pytest.raises(Unauthenticated):
        world.services.members.active(DID)
    await world.services.members.restore(DID, "")
    assert world.services.register.last == 4


async def test_what_cannot_be_done(world):
    members = world.services.members
    with pytest.raises(NotFound):
        members.resolve(DID)
    with pytest.raises(NotFound):
        await members.suspend(DID, "")
    with pytest.raises(InvalidInput):
        members.resolve("airport")
    with pytest.raises(Unauthenticated):
        members.active(DID)
    with pytest.raises(Conflict):
        await members.revoke(world.ourselves.did, "")
    await world.join("airport")
    for reason in ("x" * 257, "a\nb"):
        with pytest.raises(InvalidInput):
            await members.suspend(DID, reason)
    assert world.services.register.last == 2


async def test_two_who_suspend_at_once(world):
    await world.join("airport")
    ends = await asyncio.gather(
        *(world.services.members.suspend(DID, "") for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(end, Conflict) for end in ends) == 4
    assert world.services.register.last == 3


async def test_pages(world):
    for number in range(5):
        await world.join(f"m{number}")
    members, found, token = world.services.members, [], ""
    for _ in range(3):
        page = await members.list_participants(2, token)
        found += [record.participant.did for record in page.records]
        token = page.next_token
    assert token == ""
    assert found == sorted([f"did:web:m{n}.example" for n in range(5)] + [world.ourselves.did])
    everything = await members.list_participants()
    assert len(everything.records) == 6 and everything.next_token == ""
    for record in everything.records:
        event = read_membership_event(record.statement, world.space_key)
        assert event.participant == record.participant


async def test_a_page_fits_a_message(world, monkeypatch):
    for number in range(3):
        await world.join(f"m{number}")
    monkeypatch.setattr("connector.directory.paging.fitting", lambda statements: 1)
    token, pages = "", 0
    while True:
        page = await world.services.members.list_participants(100, token)
        assert len(page.records) == 1
        pages, token = pages + 1, page.next_token
        if not token:
            break
    assert pages == 4


@pytest.mark.parametrize("token", ["x", "é", "AAAA", "A" * 2000, "\ud800", "AAAAAAAAAAAAAAAA"])
async def test_hostile_page_tokens(world, token):
    with pytest.raises(InvalidInput):
        await world.services.members.list_participants(10, token)
    with pytest.raises(InvalidInput):
        await world.services.catalog.search("", 10, token)


async def test_a_certificate_is_renewed_for_an_active_member_alone(world):
    await world.join("airport")
    request = certificates.make_csr(certificates.make_tls_key())
    world.clock.pass_(86_400)
    renewed = certificates.read_chain(world.services.members.renew_certificate(DID, request))
    assert renewed.did == DID
    assert (renewed.not_after - world.clock.now()).days == 30
    with pytest.raises(InvalidInput):
        world.services.members.renew_certificate(DID, b"")
    await world.services.members.suspend(DID, "")
    for did in (DID, "did:web:nobody.example"):
        with pytest.raises(Unauthenticated):
            world.services.members.renew_certificate(did, request)


async def test_a_log_that_is_away_does_not_stop_a_suspension(world):
    await world.join("airport")
    world.journal.away = True
    await world.services.members.suspend(DID, "")
    with pytest.raises(Unauthenticated):
        world.services.members.active(DID)
    assert await world.services.register.log_pending() == 1
    world.journal.away = False
    await world.restart()  # the act waited in the store
    assert world.journal.names[-1] == "member.suspended"
    assert await world.services.register.log_pending() == 0


class Failing:
    """A disk that fails: before the write, or after it. Everything else is the real store's."""

    def __init__(self, store):
        self.store = store
        self.fail = ""

    def __getattr__(self, name):
        return getattr(self.store, name)

    async def append_event(self, *arguments, **options):
        if self.fail:
            failed, self.fail = self.fail, ""
            if failed == "after":
                await self.store.append_event(*arguments, **options)
            raise Unavailable("the disk")
        await self.store.append_event(*arguments, **options)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_write_that_failed_and_perhaps_happened(world, when):
    """What holds is what was stored; nothing is numbered twice, and nothing is lost."""
    failing = []
    await world.restart(wrap=lambda store: failing.append(Failing(store)) or failing[0])
    await world.join("airport")
    failing[0].fail = when
    with pytest.raises(Unavailable):
        await world.services.members.suspend(DID, "")
    state = world.services.members.resolve(DID).participant.state
    assert state is (Membership.SUSPENDED if when == "after" else Membership.ACTIVE)
    if when == "before":
        await world.services.members.suspend(DID, "")
    await world.services.members.restore(DID, "")
    events = await world.take(5)
    numbers = [read_membership_event(event, world.space_key).number for event in events[:4]]
    assert numbers == [1, 2, 3, 4]
    assert world.journal.names[-2:] == ["member.suspended", "member.restored"]


async def test_the_store_of_another_space_is_refused(world):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    world.ourselves = Ourselves(world.ourselves.did, "x", "x/log", Ed25519PrivateKey.generate())
    with pytest.raises(VerificationFailed):
        await world.restart()
    world.store.close()
    world.store = None
