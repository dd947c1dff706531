"""The catalogue: who may list what, and what words find."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import (
    Conflict,
    ConnectorError,
    InvalidInput,
    NotFound,
    Refused,
    Unauthenticated,
    VerificationFailed,
)
from connector.identity.statements import peek_statement, sign_statement
from connector.model.catalog import Classification

DID = "did:web:airport.example"


async def titles(world, query, **options):
    page = await world.services.catalog.search(query, **options)
    return [peek_statement(record, "dataset")["title"] for record in page.records]


@pytest.fixture
async def airport(world):
    return await world.join("机场集团 Airport", did=DID)


async def publish(world, candidate, *records):
    for record in records:
        await world.services.catalog.publish(candidate.did, record)


async def test_published_found_withdrawn(world, airport):
    record = airport.dataset()
    dataset = await world.services.catalog.publish(DID, record)
    assert dataset.id == "urn:flights"
    page = await world.services.catalog.search("flights")
    assert page.records == (record,)
    await world.restart()
    assert await titles(world, "flights") == ["Flights"]
    await world.services.catalog.withdraw(DID, "urn:flights")
    assert await titles(world, "flights") == await titles(world, "") == []
    with pytest.raises(NotFound):
        await world.services.catalog.withdraw(DID, "urn:flights")


async def test_a_new_version_replaces_the_old(world, airport):
    await publish(world, airport, airport.dataset(), airport.dataset(title="Departures"))
    assert await titles(world, "") == ["Departures"]
    assert await titles(world, "flights") == []


FOUND = [
    # (query, found)
    ("旅游", ["a"]),
    ("旅游局", []),
    ("客流", ["a", "b"]),
    ("游客", ["a"]),
    ("客流 航班", ["b"]),
    ("航班客流", []),  # a phrase: the two words are not side by side
    ("流", ["a", "b"]),  # one character, at an end too
    ("统计", ["a"]),
    ("计", ["a"]),
    ("游流", []),
    ("2013年航班", ["b"]),
    ("NYC航班", ["b"]),
    ("nyc", ["b"]),
    ("ｎｙｃ", ["b"]),
    ("fligh", ["b"]),
    ("flights 2013", ["b"]),
    ("light", []),
    ("机场集团", ["a", "b"]),
    ("airport 旅游", ["a"]),
    ("delay", ["b"]),
    ("über", ["b"]),
    ("ÜBER", ["b"]),
    ("!!! ", []),
    ("🙂", []),
    (" ", ["a", "b"]),
    ("", ["a", "b"]),
]


@pytest.mark.parametrize(("query", "found"), FOUND)
async def test_words_are_found(world, airport, query, found):
    await publish(
        world,
        airport,
        airport.dataset("a", title="a 旅游客流", description="游客来源，按月统计"),
        airport.dataset(
            "b",
            title="b NYC 2013年航班 flights",
            keywords=("客流", "delays", "über-long_haul"),
        ),
    )
    assert sorted(title[0] for title in await titles(world, query)) == found


HOSTILE_QUERIES = [
    '"',
    "'",
    'q" OR "zebra',
    "q OR zebra",
    "NOT q",
    "NEAR(zebra zebra)",
    "title:zebra",
    "{title}: zebra",
    "q*",
    "^q",
    "-q",
    "q) OR (zebra",
    "zebra; DROP TABLE datasets; --",
    "\x00",
    "q\x00zebra",
    "%",
    "\\",
    "﷽" * 10,
    "\u202e",
    "(" * 200,
    "AND",
]


@pytest.mark.parametrize("query", HOSTILE_QUERIES)
async def test_a_query_is_words_and_nothing_else(world, airport, query):
    await publish(world, airport, airport.dataset("z", title="zebra"))
    assert await titles(world, query) == []
    assert await titles(world, "zebra") == ["zebra"]


@pytest.mark.parametrize("query", ["x" * 257, " ".join("abcdefghijklmnopq"), "游x" * 128])
async def test_long_queries_are_refused(world, query):
    with pytest.raises(InvalidInput):
        await world.services.catalog.search(query)


async def test_titles_weigh_most(world, airport):
    await publish(
        world,
        airport,
        airport.dataset("1", title="one", description="coal"),
        airport.dataset("2", title="two coal"),
        airport.dataset("3", title="three", keywords=("coal",)),
    )
    assert await titles(world, "coal") == ["two coal", "three", "one"]


async def test_pages(world, airport):
    await publish(world, airport, *(airport.dataset(f"d{n}", title=f"set {n}") for n in range(5)))
    for query in ("", "set"):
        found, token = [], ""
        for _ in range(3):
            page = await world.services.catalog.search(query, 2, token)
            found += page.records
            token = page.next_token
        assert token == "" and len(set(found)) == 5
    page = await world.services.catalog.search("set", 2)
    with pytest.raises(InvalidInput):
        await world.services.catalog.search("other", 2, page.next_token)
    with pytest.raises(InvalidInput):
        await world.services.catalog.search("set", -1)


async def test_suspended_members_datasets_are_hidden(world, airport):
    await publish(world, airport, airport.dataset())
    await world.services.members.suspend(DID, "")
    assert await titles(world, "flights") == await titles(world, "") == []
    await world.services.members.restore(DID, "")
    assert await titles(world, "flights") == ["Flights"]
    await world.services.members.revoke(DID, "")
    assert await titles(world, "flights") == []


async def test_two_publishers_may_use_one_id(world, airport):
    """Nobody can take another's id away."""
    bank = await world.join("bank")
    await publish(world, airport, airport.dataset(title="airport's"))
    await publish(world, bank, bank.dataset(title="bank's"))
    assert sorted(await titles(world, "")) == ["airport's", "bank's"]
    await world.services.catalog.withdraw(bank.did, "urn:flights")
    assert await titles(world, "") == ["airport's"]


MALLORY = Ed25519PrivateKey.generate()
REFUSED = {
    "another's dataset": (lambda a: a.dataset(publisher="did:web:bank.example"), Unauthenticated),
    "another's signature": (lambda a: a.dataset(key=MALLORY), VerificationFailed),
    "core data": (lambda a: a.dataset(classification=Classification.CORE), Refused),
    "another kind": (lambda a: sign_statement(a.key, "act", {}), InvalidInput),
    "no dataset": (lambda a: sign_statement(a.key, "dataset", {}), InvalidInput),
    "not a statement": (lambda a: "x", InvalidInput),
}


@pytest.mark.parametrize(("make", "error"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_not_listed(world, airport, make, error):
    with pytest.raises(error):
        await world.services.catalog.publish(DID, make(airport))
    assert await titles(world, "") == []


async def test_who_may_not_list(world, airport):
    record = airport.dataset()
    for caller in ("did:web:nobody.example", world.ourselves.did):
        with pytest.raises(ConnectorError):
            await world.services.catalog.publish(caller, record)
    await world.services.members.suspend(DID, "")
    with pytest.raises(Unauthenticated):
        await world.services.catalog.publish(DID, record)
    with pytest.raises(Unauthenticated):
        await world.services.catalog.withdraw(DID, "urn:flights")


async def test_the_policy_is_asked(world, airport):
    reason = {"term": "role", "observed": "none", "allowed": "provider"}
    world.policy.answer = {"allow": False, "reasons": [reason], "obligations": {}}
    with pytest.raises(Refused) as refusal:
        await world.services.catalog.publish(DID, airport.dataset())
    assert refusal.value.reasons[0].term == "role"
    entry, document = world.policy.asked[-1]
    assert entry == "dataspace/listing/decision"
    assert document["publisher"]["roles"] == ["provider"]


async def test_one_publisher_does_not_fill_the_index(world, airport, monkeypatch):
    monkeypatch.setattr("connector.directory.catalog.MOST_FOR_ONE", 2)
    await publish(world, airport, airport.dataset("1"), airport.dataset("2"), airport.dataset("2"))
    with pytest.raises(Conflict):
        await world.services.catalog.publish(DID, airport.dataset("3"))
    assert len(await titles(world, "")) == 2
