"""Grants to read the whole log: kept as hashes, listed, ended."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from connector.adapters.grant_store import SqliteGrantStore
from connector.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from connector.operations import grants as module
from connector.operations.grants import PREFIX, Grants
from tests.logs import ManualClock

DAY = 86_400


@pytest.fixture
def store(tmp_path: Path):
    with closing(SqliteGrantStore(tmp_path / "grants.db")) as store:
        yield store


async def opened(store: SqliteGrantStore, clock: ManualClock | None = None) -> Grants:
    grants = Grants(store, clock or ManualClock(), Random(3).randbytes)
    await grants.open()
    return grants


async def test_they_outlast_the_process(store, tmp_path: Path) -> None:
    _, token = await (await opened(store)).add("an auditor", 3)
    again = await opened(store)
    assert again.holder(token).name == "an auditor"
    assert [grant.name for grant in again.listed()] == ["an auditor"]
    await again.revoke("an auditor")
    last = await opened(store)
    with pytest.raises(Unauthenticated):
        last.holder(token)
    assert last.listed() == ()


async def test_the_token_is_kept_nowhere(store, tmp_path: Path) -> None:
    _, token = await (await opened(store)).add("an auditor", 3)
    assert token.startswith(PREFIX)
    assert len(token) >= len(PREFIX) + 43, "256 bits"
    secret = token.removeprefix(PREFIX).encode()
    assert all(secret not in content for content in _contents(tmp_path))


async def test_they_end(store) -> None:
    clock = ManualClock()
    grants = await opened(store, clock)
    grant, token = await grants.add("did:web:auditor.example", 1)
    clock.advance(DAY - 1)
    assert grants.holder(token) == grant
    assert grants.covers("did:web:auditor.example")
    clock.advance(1)
    with pytest.raises(Unauthenticated):
        grants.holder(token)
    assert not grants.covers("did:web:auditor.example")
    assert len(grants.listed()) == 1, "it is shown until it is revoked"


async def test_a_name_has_one(store) -> None:
    grants = await opened(store)
    await grants.add("an auditor", 1)
    with pytest.raises(Conflict) as caught:
        await grants.add("an auditor", 2)
    assert "revoke" in caught.value.hint
    await grants.revoke("an auditor")
    await grants.add("an auditor", 2)
    with pytest.raises(NotFound):
        await grants.revoke("nobody")


@pytest.mark.parametrize(
    ("name", "days"),
    [("", 1), ("x" * 257, 1), ("a\nb", 1), ("a\x1b[2J", 1), ("a", 0), ("a", -1), ("a", 3651)],
)
async def test_grants_that_are_not_made(store, name: str, days: int) -> None:
    grants = await opened(store)
    with pytest.raises(InvalidInput):
        await grants.add(name, days)
    assert grants.listed() == ()


async def test_the_list_has_an_end(store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GRANTS", 2)
    grants = await opened(store)
    for name in ("a", "b"):
        await grants.add(name, 1)
    with pytest.raises(Conflict):
        await grants.add("c", 1)


def _contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]
