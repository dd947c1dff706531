"""``ports.negotiation.NegotiationStore``: what every implementation must do."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from connector.adapters import negotiation_store
from connector.adapters.negotiation_store import SqliteNegotiationStore
from connector.errors import Conflict
from connector.model.negotiation import (
    AgreementState,
    Channel,
    Negotiation,
    Party,
    State,
    StoredAgreement,
)
from connector.model.terms import Offer, Terms, agreement_document, parse_agreement
from connector.model.transfer import DataAddress, TransferProcess, TransferState
from connector.negotiation.recent import RecentStore
from connector.ports.negotiation import Act, Change, Counts, Letter

A, B = "did:web:a.example", "did:web:b.example"
CHANNEL = Channel(A, Party.CONSUMER)
OTHERS = (Channel(A, Party.PROVIDER), Channel(B, Party.CONSUMER))


def negotiation(pid="p1", channel=CHANNEL, **changes):
    return replace(
        Negotiation(
            pid=pid,
            peer_pid=f"peer of {pid}",
            party=channel.party,
            peer=channel.peer,
            dataset="航班",
            state=State.REQUESTED,
            offer=b"\x00offer",
            revision=1,
            accept_offers=True,
            dataset_record="record",
            updated_ms=5,
        ),
        **changes,
    )


def agreement(id_="urn:uuid:1", pid="p1", channel=CHANNEL, **changes):
    document = agreement_document(
        id=id_,
        offer=Offer("offer", "航班", A, Terms()),
        assignee=B,
        timestamp=datetime(2026, 11, 23, tzinfo=UTC),
        space="did:web:space.example",
        classification="general",
        secret_commitment="0",
        provider_log="a/log",
        consumer_log="b/log",
    )
    stored = StoredAgreement(
        terms=parse_agreement(document),
        pid=pid,
        party=channel.party,
        peer=channel.peer,
        state=AgreementState.ACTIVE,
        provider_signature="signed",
        secret=bytes(range(32)),
        dataset_record="record",
    )
    return replace(stored, **changes)


def transfer(pid="t1", channel=CHANNEL, **changes):
    return replace(
        TransferProcess(
            pid=pid,
            peer_pid=f"peer of {pid}",
            party=channel.party,
            peer=channel.peer,
            agreement_id="urn:uuid:1",
            format="HttpData-PULL",
            state=TransferState.REQUESTED,
            revision=1,
            dataset="航班",
            address="https://a.example/dsp",
            updated_ms=5,
        ),
        **changes,
    )


FULL = transfer(
    state=TransferState.STARTED,
    data_address=DataAddress("t", "https://a.example/pull", (("名", "\x00"), ("名", ""))),
    waiting=True,
    code="c",
    reason="r",
    left=TransferState.SUSPENDED,
    resuming=True,
    heard="00",
)


class Kept:
    """A store that can be opened again over what it wrote."""

    def __init__(self, make):
        self._make, self.store = make, make()

    def reopen(self):
        self.store.close()
        self.store = self._make()


class Remembering(RecentStore):
    """The memory in front of a store must be told from it by nothing but speed."""

    def close(self):
        self._store.close()


@pytest.fixture(params=["sqlite", "recent"])
def kept(request, tmp_path):
    def sqlite():
        return SqliteNegotiationStore(tmp_path / "negotiations.db")

    makers = {"sqlite": sqlite, "recent": lambda: Remembering(sqlite())}
    kept = Kept(makers[request.param])
    yield kept
    kept.store.close()


async def test_empty(kept):
    store = kept.store
    assert await store.negotiation("p1") is None
    assert await store.by_peer_pid(CHANNEL, "p1") is None
    assert await store.by_peer_pid(CHANNEL, "") is None
    assert await store.open_count(CHANNEL) == 0
    assert await store.negotiations(waiting_only=False, limit=10) == ()
    assert await store.agreement("urn:uuid:1") is None
    assert await store.agreements(party=None, limit=10) == ()
    assert await store.transfer("t1") is None
    assert await store.transfer_by_peer_pid(CHANNEL, "t1") is None
    assert await store.transfer_by_peer_pid(CHANNEL, "") is None
    assert await store.open_transfers(CHANNEL) == 0
    assert await store.transfers(limit=10) == ()
    assert await store.counts(CHANNEL) == Counts()
    assert await store.outbox(CHANNEL, 0, 10) == ()
    assert await store.pending_acts(CHANNEL) == ()
    assert await store.channels_with_acts() == ()


async def test_one_change_is_kept_whole_and_for_good(kept):
    act = Act("agreement.concluded", "urn:uuid:1", B, "signed")
    await kept.store.commit(
        Change(
            channel=CHANNEL,
            negotiation=negotiation(waiting=True, left=State.VERIFIED),
            agreement=agreement(),
            transfers=(FULL, transfer("t2", peer_pid="")),
            outgoing=(b"one", b"two"),
            correlation_id="abc",
            received=1,
            acts=(act,),
        )
    )
    kept.reopen()
    store = kept.store
    expected = negotiation(waiting=True, left=State.VERIFIED)
    assert await store.negotiation("p1") == expected
    assert await store.by_peer_pid(CHANNEL, "peer of p1") == expected
    assert await store.negotiations(waiting_only=True, limit=10) == (expected,)
    assert await store.agreement("urn:uuid:1") == agreement()
    assert await store.transfer("t1") == FULL
    assert await store.transfer_by_peer_pid(CHANNEL, "peer of t1") == FULL
    assert await store.transfers(limit=10) == (transfer("t2", peer_pid=""), FULL)
    assert await store.counts(CHANNEL) == Counts(sent=2, acknowledged=0, received=1)
    letters = (Letter(1, b"one", "abc"), Letter(2, b"two", "abc"))
    assert await store.outbox(CHANNEL, 0, 10) == letters
    assert await store.outbox(CHANNEL, 0, 1) == letters[:1]
    assert await store.outbox(CHANNEL, 1, 10) == letters[1:]
    (pending,) = await store.pending_acts(CHANNEL)
    assert replace(pending, number=0) == act
    assert await store.channels_with_acts() == (CHANNEL,)
    for other in OTHERS:
        assert await store.by_peer_pid(other, "peer of p1") is None
        assert await store.open_count(other) == 0
        assert await store.transfer_by_peer_pid(other, "peer of t1") is None
        assert await store.open_transfers(other) == 0
        assert await store.counts(other) == Counts()
        assert await store.outbox(other, 0, 10) == ()
        assert await store.pending_acts(other) == ()


def whole(**parts):
    """A change that would write something everywhere."""
    return Change(
        channel=CHANNEL, **{"outgoing": (b"x",), "acts": (Act("t", "s", A, "signed"),), **parts}
    )


CONFLICTS = {
    "a process id that exists": whole(negotiation=negotiation(peer_pid="another")),
    "a peer's process id that exists": whole(negotiation=negotiation("p2", peer_pid="peer of p1")),
    "a revision too old": whole(negotiation=negotiation(revision=2, code="x")),
    "a revision too new": whole(negotiation=negotiation(revision=4, code="x")),
    "a change of what is not there": whole(negotiation=negotiation("p9", revision=2)),
    "an agreement that exists": whole(agreement=agreement(ended_reason="x")),
    "an agreement's revision": whole(agreement=agreement(revision=3, ended_reason="x")),
    "a transfer that exists": whole(transfers=(transfer(peer_pid="another"),)),
    "a transfer of a peer's that exists": whole(transfers=(transfer("t2", peer_pid="peer of t1"),)),
    "a transfer's revision": whole(transfers=(transfer(revision=3),)),
    "a change of a transfer that is not there": whole(transfers=(transfer("t9", revision=2),)),
    "a good transfer and a bad one": whole(transfers=(transfer("t2"), transfer("t1"))),
    "a message again": whole(received=1),
    "a message too early": whole(received=3),
    "a good part and a bad one": whole(negotiation=negotiation(revision=3), received=7),
}


@pytest.mark.parametrize("change", CONFLICTS.values(), ids=CONFLICTS.keys())
async def test_a_conflict_changes_nothing(kept, change):
    store = kept.store
    await store.commit(
        whole(negotiation=negotiation(), agreement=agreement(), transfers=(transfer(),), received=1)
    )
    await store.commit(Change(channel=CHANNEL, negotiation=negotiation(revision=2)))

    async def everything():
        return (
            await store.negotiations(waiting_only=False, limit=10),
            await store.agreements(party=None, limit=10),
            await store.transfers(limit=10),
            await store.outbox(CHANNEL, 0, 10),
            await store.counts(CHANNEL),
            await store.pending_acts(CHANNEL),
        )

    before = await everything()
    with pytest.raises(Conflict):
        await store.commit(change)
    assert await everything() == before


async def test_two_that_change_the_same_revision(kept):
    store = kept.store
    await store.commit(Change(channel=CHANNEL, negotiation=negotiation()))
    changes = [
        Change(channel=CHANNEL, negotiation=negotiation(revision=2, code=code)) for code in "ab"
    ]
    results = await asyncio.gather(*(store.commit(c) for c in changes), return_exceptions=True)
    assert [isinstance(result, Conflict) for result in results].count(True) == 1


async def test_empty_peer_pids_do_not_collide(kept):
    for pid in ("p1", "p2"):
        change = Change(channel=CHANNEL, negotiation=negotiation(pid, peer_pid=""))
        await kept.store.commit(change)
    assert await kept.store.by_peer_pid(CHANNEL, "") is None


async def test_the_same_peer_pid_of_two_peers(kept):
    for pid, channel in (("p1", CHANNEL), ("p2", OTHERS[0]), ("p3", OTHERS[1])):
        value = negotiation(pid, channel, peer_pid="same")
        await kept.store.commit(Change(channel=channel, negotiation=value))
        assert await kept.store.by_peer_pid(channel, "same") == value


async def test_acknowledged_letters_are_forgotten_and_the_numbers_go_on(kept):
    store = kept.store
    await store.commit(Change(channel=CHANNEL, outgoing=(b"1", b"2", b"3")))
    await store.commit(Change(channel=OTHERS[0], outgoing=(b"other",)))
    await store.commit(Change(channel=CHANNEL, acknowledged=2))
    await store.commit(Change(channel=CHANNEL, acknowledged=1, outgoing=(b"4",)))
    assert await store.outbox(CHANNEL, 0, 10) == (Letter(3, b"3"), Letter(4, b"4"))
    assert await store.counts(CHANNEL) == Counts(sent=4, acknowledged=2, received=0)
    await store.commit(Change(channel=CHANNEL, acknowledged=4))
    await store.commit(Change(channel=CHANNEL, outgoing=(b"5",)))
    assert await store.outbox(CHANNEL, 0, 10) == (Letter(5, b"5"),)
    assert await store.outbox(OTHERS[0], 0, 10) == (Letter(1, b"other"),)


async def test_acts_wait_until_they_are_logged(kept):
    store = kept.store
    acts = tuple(Act("agreement.ended", f"s{number}", A, "signed") for number in range(3))
    saved = await store.commit(Change(channel=CHANNEL, acts=acts))
    pending = await store.pending_acts(CHANNEL)
    assert saved == pending
    assert [act.scope for act in pending] == ["s0", "s1", "s2"]
    await store.commit(Change(channel=CHANNEL, logged=(pending[0].number, pending[2].number)))
    assert [act.scope for act in await store.pending_acts(CHANNEL)] == ["s1"]


async def test_lists_are_newest_first(kept):
    store = kept.store
    states = (AgreementState.PROPOSED, AgreementState.ACTIVE, AgreementState.ENDED)
    for number, state in enumerate(states):
        channel = OTHERS[0] if state is AgreementState.ENDED else CHANNEL
        await store.commit(
            Change(
                channel=channel,
                negotiation=negotiation(f"p{number}", channel),
                agreement=agreement(f"urn:uuid:{number}", f"p{number}", channel, state=state),
            )
        )
    listed = await store.negotiations(waiting_only=False, limit=2)
    assert [one.pid for one in listed] == ["p2", "p1"]
    assert await store.negotiations(waiting_only=True, limit=2) == ()

    async def ids(party):
        found = await store.agreements(party=party, limit=10)
        return [one.terms.id for one in found]

    assert await ids(None) == ["urn:uuid:2", "urn:uuid:1"]
    assert await ids(Party.PROVIDER) == ["urn:uuid:2"]
    assert await ids(Party.CONSUMER) == ["urn:uuid:1"]


async def test_open_ones_are_counted(kept):
    store = kept.store
    for number, state in enumerate(State):
        await store.commit(
            Change(channel=CHANNEL, negotiation=negotiation(f"p{number}", state=state))
        )
    assert await store.open_count(CHANNEL) == len(State) - 2


async def test_old_terminated_ones_are_forgotten(kept, monkeypatch):
    monkeypatch.setattr(negotiation_store, "MAX_TERMINATED", 2)
    store = kept.store
    other = negotiation("other", OTHERS[0], state=State.TERMINATED)
    await store.commit(Change(channel=OTHERS[0], negotiation=other))
    for number in range(4):
        await store.commit(
            Change(
                channel=CHANNEL,
                negotiation=negotiation(f"p{number}", state=State.TERMINATED),
                agreement=agreement(
                    f"urn:uuid:{number}", f"p{number}", state=AgreementState.PROPOSED
                ),
            )
        )
    await store.commit(
        Change(channel=CHANNEL, negotiation=negotiation("done", state=State.FINALIZED))
    )
    kept.reopen()
    store = kept.store
    listed = await store.negotiations(waiting_only=False, limit=10)
    assert [one.pid for one in listed] == ["done", "p3", "p2", "other"]
    assert await store.agreement("urn:uuid:0") is None
    assert await store.agreement("urn:uuid:3") is not None


async def test_transfers_are_listed_newest_first_and_counted(kept):
    store = kept.store
    for number, state in enumerate(TransferState):
        one = transfer(f"t{number}", state=state, agreement_id=f"urn:uuid:{number % 2}")
        await store.commit(Change(channel=CHANNEL, transfers=(one,)))
    other = transfer("other", OTHERS[0], agreement_id="urn:uuid:9")
    await store.commit(Change(channel=OTHERS[0], transfers=(other,)))

    async def pids(**wanted):
        return [one.pid for one in await store.transfers(**{"limit": 10, **wanted})]

    assert await pids() == ["other", "t4", "t3", "t2", "t1", "t0"]
    assert await pids(limit=2) == ["other", "t4"]
    assert await pids(open_only=True) == ["other", "t2", "t1", "t0"]
    assert await pids(agreement_id="urn:uuid:0") == ["t4", "t2", "t0"]
    assert await pids(agreement_id="urn:uuid:0", open_only=True) == ["t2", "t0"]
    assert await store.open_transfers(CHANNEL) == 3
    assert await store.open_transfers(OTHERS[0]) == 1


async def test_a_transfer_is_changed_one_revision_at_a_time(kept):
    store = kept.store
    await store.commit(Change(channel=CHANNEL, transfers=(transfer(peer_pid=""),)))
    changed = replace(FULL, revision=2)
    await store.commit(Change(channel=CHANNEL, transfers=(changed,)))
    assert await store.transfer("t1") == changed
    changes = [
        Change(channel=CHANNEL, transfers=(replace(changed, revision=3, code=code),))
        for code in "ab"
    ]
    results = await asyncio.gather(*(store.commit(c) for c in changes), return_exceptions=True)
    assert [isinstance(result, Conflict) for result in results].count(True) == 1


async def test_old_transfers_that_are_over_are_forgotten(kept, monkeypatch):
    monkeypatch.setattr(negotiation_store, "MAX_TERMINATED", 2)
    store = kept.store
    ends = (TransferState.TERMINATED, TransferState.COMPLETED)
    other = transfer("other", OTHERS[0], state=TransferState.TERMINATED)
    await store.commit(Change(channel=OTHERS[0], transfers=(other,)))
    for number in range(4):
        one = transfer(f"t{number}", state=ends[number % 2])
        await store.commit(Change(channel=CHANNEL, transfers=(one,)))
    await store.commit(Change(channel=CHANNEL, transfers=(transfer("new"),)))
    kept.reopen()
    listed = await kept.store.transfers(limit=10)
    assert [one.pid for one in listed] == ["new", "t3", "t2", "other"]


async def test_a_consumers_transfers_that_are_over_wait_until_they_are_recorded(kept):
    store, ours, theirs = kept.store, CHANNEL, OTHERS[0]
    for number, state in enumerate(TransferState):
        one = transfer(f"t{number}", ours, state=state)
        await store.commit(Change(channel=ours, transfers=(one,)))
        one = transfer(f"p{number}", theirs, state=state)
        await store.commit(Change(channel=theirs, transfers=(one,)))

    async def pids(limit=10):
        return [one.pid for one in await store.unrecorded(limit=limit)]

    assert await pids() == ["t3", "t4"]
    assert await pids(limit=1) == ["t3"]
    await store.recorded("t3")
    await store.recorded("t9")
    kept.reopen()
    store = kept.store
    assert await pids() == ["t4"]
    later = transfer("t3", ours, state=TransferState.TERMINATED, revision=2)
    await store.commit(Change(channel=ours, transfers=(later,)))
    assert await store.transfer("t3") == later
    assert await pids() == ["t4"], "what is recorded stays so"


async def test_transfers_of_an_earlier_version_are_still_to_be_recorded(tmp_path):
    path = tmp_path / "negotiations.db"
    with closing(SqliteNegotiationStore(path)) as store:
        one = transfer("old", state=TransferState.COMPLETED)
        await store.commit(Change(channel=CHANNEL, transfers=(one,)))
    with closing(sqlite3.connect(path)) as earlier:
        earlier.executescript(
            "DROP INDEX transfers_unrecorded; ALTER TABLE transfers DROP COLUMN recorded;"
            "PRAGMA user_version = 3"
        )
    with closing(SqliteNegotiationStore(path)) as store:
        assert await store.unrecorded(limit=10) == (one,)
