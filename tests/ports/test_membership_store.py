"""``ports.directory.MembershipStore``: what every implementation must do."""

from __future__ import annotations

import pytest

from connector.adapters.membership_store import SqliteMembershipStore
from connector.errors import Conflict

A, B = "did:web:a.example", "did:web:b.example"


@pytest.fixture(params=["sqlite"])
def make(request, tmp_path):
    makers = {"sqlite": lambda: SqliteMembershipStore(tmp_path / "view.db")}
    return makers[request.param]


async def test_events_are_kept_in_order(make):
    store = make()
    for number, did in ((1, A), (2, B), (3, A)):
        await store.append(number, did, f"event {number}")
    store.close()
    store = make()
    assert list(await store.after(0, 2)) == ["event 1", "event 2"]
    assert list(await store.after(2, 10)) == ["event 3"]
    assert list(await store.of(A)) == ["event 1", "event 3"]
    assert list(await store.of("did:web:c.example")) == []
    store.close()


@pytest.mark.parametrize(
    ("number", "did", "statement"),
    [(3, A, "gap"), (4, A, "gap"), (0, A, "zero"), (1, A, "other"), (1, B, "event 1")],
)
async def test_what_is_not_next_is_refused(make, number, did, statement):
    store = make()
    await store.append(1, A, "event 1")
    await store.append(1, A, "event 1")  # the same again: as after an answer that was lost
    with pytest.raises(Conflict):
        await store.append(number, did, statement)
    assert list(await store.after(0, 10)) == ["event 1"]
    store.close()
