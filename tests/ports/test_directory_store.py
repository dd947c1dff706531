"""``ports.directory.DirectoryStore`` and ``CatalogStore``: what every implementation must do."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime

import pytest

from connector.adapters.directory_store import SqliteDirectoryStore
from connector.directory.words import index_terms, match_query
from connector.errors import Conflict
from connector.model.participant import Membership, Participant
from connector.ports.directory import InvitationRecord, Listing, Recorded

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ACT = ("member.admitted", "did:web:a.example", "signed")
INVITATION = InvitationRecord(b"d" * 32, "机场", NOW)


class Kept:
    """A store that can be opened again over what it wrote."""

    def __init__(self, make):
        self._make, self.store = make, make()

    def reopen(self):
        self.store.close()
        self.store = self._make()


@pytest.fixture(params=["sqlite"])
def kept(request, tmp_path):
    makers = {"sqlite": lambda: SqliteDirectoryStore(tmp_path / "directory.db")}
    kept = Kept(makers[request.param])
    yield kept
    kept.store.close()


def recorded(number, name="a", *, state=Membership.ACTIVE, **changes):
    participant = Participant(
        did=f"did:web:{name}.example",
        name=name,
        roles=("provider",),
        state=state,
        signing_keys=(name.encode().ljust(32, b"."),),
        endpoint="",
        log_origin=f"{name}.example/log",
        revision=number,
    )
    return Recorded(dataclasses.replace(participant, **changes), f"statement {number}")


async def test_empty(kept):
    store = kept.store
    assert await store.last_event() == 0
    assert list(await store.events_after(0, 10)) == []
    assert list(await store.records_after("", 10)) == []
    assert await store.record("did:web:a.example") is None
    assert await store.invitation(b"d" * 32) is None
    assert list(await store.pending_acts(10)) == []
    assert list(await store.search("", 0, 10)) == []


async def test_everything_is_there_after_a_restart(kept):
    await kept.store.add_invitation(INVITATION, ACT)
    await kept.store.append_event(recorded(1), ACT, spends=INVITATION.digest)
    await kept.store.append_event(recorded(2, "b"), ACT)
    await kept.store.append_event(recorded(3, state=Membership.SUSPENDED), ACT)
    await kept.store.act_logged(1)
    kept.reopen()
    store = kept.store
    assert await store.last_event() == 3
    assert list(await store.events_after(1, 10)) == ["statement 2", "statement 3"]
    assert list(await store.events_after(0, 1)) == ["statement 1"]
    first, second = await store.records_after("", 10)
    assert (
        first
        == recorded(3, state=Membership.SUSPENDED)
        == await store.record(first.participant.did)
    )
    assert second == recorded(2, "b")
    assert list(await store.records_after(first.participant.did, 10)) == [second]
    assert await store.invitation(INVITATION.digest) == dataclasses.replace(
        INVITATION, spent_by="did:web:a.example", spent_key=b"a".ljust(32, b".")
    )
    acts = await store.pending_acts(10)
    assert [(act.number, act.type, act.scope, act.statement) for act in acts] == [
        (number, *ACT) for number in (2, 3, 4)
    ]


REFUSED = {
    "a number that is not next": (recorded(3, "c"), b""),
    "a number that was": (recorded(1, "c"), b""),
    "an invitation that is spent": (recorded(2, "c"), INVITATION.digest),
    "an invitation that was never made": (recorded(2, "c"), b"x" * 32),
    "another's log origin": (recorded(2, "c", log_origin="a.example/log"), b""),
    "another's key": (recorded(2, "c", signing_keys=(b"c" * 32, b"a".ljust(32, b"."))), b""),
}


@pytest.mark.parametrize(("event", "spends"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_conflict_changes_nothing(kept, event, spends):
    store = kept.store
    await store.add_invitation(INVITATION, ACT)
    await store.append_event(recorded(1), ACT, spends=INVITATION.digest)
    free = dataclasses.replace(INVITATION, digest=b"f" * 32)
    await store.add_invitation(free, ACT)
    with pytest.raises(Conflict):
        await store.append_event(event, ACT, spends=spends or free.digest)
    assert await store.last_event() == 1
    assert len(await store.records_after("", 10)) == 1
    assert len(await store.pending_acts(10)) == 3
    assert await store.invitation(free.digest) == free
    await store.append_event(recorded(2, "c"), ACT, spends=free.digest)


async def test_a_replaced_key_stays_its_participants(kept):
    await kept.store.append_event(recorded(1), ACT)
    await kept.store.append_event(recorded(2, signing_keys=(b"n" * 32,)), ACT)
    with pytest.raises(Conflict):
        await kept.store.append_event(
            recorded(3, "b", signing_keys=recorded(1).participant.signing_keys), ACT
        )
    await kept.store.append_event(recorded(3), ACT)  # back to the old one


async def test_many_spend_one_invitation_at_once(kept):
    await kept.store.add_invitation(INVITATION, ACT)
    ends = await asyncio.gather(
        *(
            kept.store.append_event(recorded(1, f"m{n}"), ACT, spends=INVITATION.digest)
            for n in range(8)
        ),
        return_exceptions=True,
    )
    assert [type(end) for end in ends if end] == [Conflict] * 7


def listing(publisher, dataset, title, keywords=""):
    terms = (index_terms(title), index_terms(keywords), index_terms(publisher), "")
    return Listing(f"did:web:{publisher}.example", dataset, f"record of {title}", terms)


async def test_the_catalogue(kept):
    store = kept.store
    for number, name in enumerate("ab", 1):
        await store.append_event(recorded(number, name), ACT)
    await store.list_dataset(listing("a", "1", "旅游客流"), 10)
    await store.list_dataset(listing("b", "1", "航班 flights", "旅游"), 10)
    await store.list_dataset(listing("a", "2", "old"), 10)
    await store.list_dataset(listing("a", "2", "new"), 2)
    kept.reopen()
    store = kept.store

    async def found(query, offset=0, limit=10):
        records = await store.search(match_query(query), offset, limit)
        return [record.removeprefix("record of ") for record in records]

    assert await found("") == ["new", "航班 flights", "旅游客流"]
    assert await found("", 1, 1) == ["航班 flights"]
    assert await found("旅游") == ["旅游客流", "航班 flights"]
    assert await found("旅游", 1) == ["航班 flights"]
    assert await found("old") == []
    with pytest.raises(Conflict):
        await store.list_dataset(listing("a", "3", "third"), 2)
    await store.append_event(recorded(3, "a", state=Membership.SUSPENDED), ACT)
    assert await found("") == await found("旅游") == ["航班 flights"]
    assert await store.unlist_dataset("did:web:a.example", "2")
    assert not await store.unlist_dataset("did:web:a.example", "2")
    assert not await store.unlist_dataset("did:web:b.example", "2")
    await store.append_event(recorded(4, "a"), ACT)
    assert await found("") == ["航班 flights", "旅游客流"]
