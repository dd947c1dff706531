"""Whom we ask, how they are known, what we show them, and what we believe of their answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import (
    ConnectorError,
    InvalidInput,
    NotFound,
    PeerFault,
    Refused,
    Unauthenticated,
    Unavailable,
)
from connector.identity.ourselves import Ourselves
from connector.identity.statements import statement_kind
from connector.identity.tokens import DSP_KIND
from connector.model.catalog import parse_offers
from connector.model.participant import Membership, Participant, host_label
from connector.ports.peers import FoundPeer
from connector.transport.http.dsp import discovery
from connector.transport.http.dsp.outgoing import WEB, Answer, Outgoing, Trust
from connector.transport.http.dsp.peers import Known, Peers
from tests.logs import ManualClock

US = "did:web:us.example"
MEMBER, CONSUMER = "did:web:member.example", "did:web:consumer.example"
FOREIGN, STRANGER = "did:web:foreign.example", "did:web:stranger.example"
URL = "https://foreign.example/dsp/2025-1"
CONTEXT = ["https://w3id.org/dspace/2025/1/context.jsonld"]
KEY = Ed25519PrivateKey.generate()


def participant(did: str, endpoint: str = "", *, signs: bool = True) -> Participant:
    keys = (KEY.public_key().public_bytes_raw(),) if signs else ()
    return Participant(did, did, ("provider",), Membership.ACTIVE, keys, endpoint, "", 1)


LISTED = {
    MEMBER: participant(MEMBER, "member.example:9443"),
    CONSUMER: participant(CONSUMER),
    FOREIGN: participant(FOREIGN, signs=False),
    "plain": participant("plain", signs=False),
    "begins": participant("begins", signs=False),
}


def lookup(did: str) -> Participant:
    if did not in LISTED:
        raise Unauthenticated("not a member")
    return LISTED[did]


@dataclass
class Asked:
    method: str
    url: str
    authorization: str
    body: Any
    trust: Trust


class Web(Outgoing):
    """Answers from a table; what is not in it is not found."""

    def __init__(self, **pages: Any) -> None:
        super().__init__()
        self.pages: dict[str, Answer] = dict(pages)
        self.asked: list[Asked] = []

    async def ask(self, method: str, url: str, **given: Any) -> Answer:  # type: ignore[override]
        self.target(url, query=True)
        headers = given.get("headers") or {}
        body = json.loads(given["body"]) if given.get("body") else None
        trust = given.get("trust", WEB)
        self.asked.append(Asked(method, url, headers.get("Authorization", ""), body, trust))
        return self.pages.get(url, say(404, {}))


def say(status: int, body: Any, *links: str) -> Answer:
    headers = httpx.Headers([("Link", link) for link in links])
    return Answer(status, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def make(web: Web, *known: Known) -> Peers:
    return Peers(
        ourselves=Ourselves(US, "Us", "us.example/log", KEY),
        outgoing=web,
        known=known or (Known(FOREIGN, URL + "/", lambda: "secret-of-the-two"),),
        lookup=lookup,
        authority="space's CA",
        clock=ManualClock(),
    )


# Who is shown what.


async def test_a_member_gets_a_token_of_its_own_and_is_known_by_its_name() -> None:
    peers = make(Web())
    way = await peers.introduce(MEMBER, "https://anywhere.example/2025-1")
    assert way.trust == Trust("space's CA", host_label(MEMBER), or_web=True)
    assert way.signs
    again = await peers.introduce(MEMBER, "https://anywhere.example/2025-1")
    assert way.authorization != again.authorization
    assert statement_kind(way.authorization.removeprefix("Bearer ")) == DSP_KIND


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (URL, "Bearer secret-of-the-two"),
        ("https://foreign.example/elsewhere", "Bearer secret-of-the-two"),
        ("https://foreign.example:8443/dsp", ""),
        ("https://foreign.example.attacker.example/dsp", ""),
        ("https://attacker.example/foreign.example", ""),
    ],
)
async def test_a_token_goes_to_the_origin_it_is_for(address: str, shown: str) -> None:
    peers = make(Web())
    way = await peers.introduce(FOREIGN, address)
    assert (way.authorization, way.trust, way.signs) == (shown, WEB, False)


async def test_a_token_without_an_origin_goes_nowhere() -> None:
    peers = make(Web(), Known("begins", presents=lambda: "secret-of-the-two"))
    assert (await peers.introduce("begins", "https://x.example")).authorization == ""


async def test_a_header_of_ones_own_and_a_ca_of_ones_own() -> None:
    known = Known(FOREIGN, URL, lambda: "Basic dXM6c2VjcmV0", "their CA")
    way = await make(Web(), known).introduce(FOREIGN, URL)
    assert (way.authorization, way.trust) == ("Basic dXM6c2VjcmV0", Trust("their CA"))
    assert (await make(Web(), Known(MEMBER, URL)).introduce(MEMBER, URL)).trust.name


async def test_nobody_else_is_introduced() -> None:
    with pytest.raises(Unauthenticated):
        await make(Web()).introduce(STRANGER, URL)


# Which binding, and where.


def document(did: str, *services: dict[str, Any]) -> dict[str, Any]:
    return {"@context": ["https://www.w3.org/ns/did/v1"], "id": did, "service": list(services)}


def service(type_: str, endpoint: Any) -> dict[str, Any]:
    return {"id": "x", "type": type_, "serviceEndpoint": endpoint}


def versions(*found: tuple[str, str]) -> dict[str, Any]:
    return {"protocolVersions": [{"version": v, "path": p, "binding": "HTTPS"} for v, p in found]}


BASE = "https://host.example/root/path/2025-1"
VERSIONS = {
    "https://host.example/root/.well-known/dspace-version": say(
        200, versions(("2024-1", "/old"), ("2025-1", "/path/2025-1/"))
    )
}
DATA = service("DataService", "https://host.example/root/.well-known/dspace-version")
CATALOG = service("CatalogService", f"{BASE}/catalog")


async def test_a_member_with_an_endpoint_is_reached_over_grpc() -> None:
    web = Web()
    assert await make(web).address(MEMBER) == ""
    assert await make(web, Known(MEMBER, URL)).address(MEMBER) == URL
    assert await make(web).address(CONSUMER) == ""
    assert await make(web).address(FOREIGN) == URL
    assert [asked.url for asked in web.asked] == [
        "https://consumer.example/.well-known/did.json"  # it might have had a service
    ]


@pytest.mark.parametrize("services", [(DATA,), (CATALOG,), (CATALOG, DATA), ({"type": 7}, CATALOG)])
async def test_a_did_leads_to_its_service(services: tuple[dict[str, Any], ...]) -> None:
    web = Web()
    web.pages = {
        "https://stranger.example/.well-known/did.json": say(200, document(STRANGER, *services))
    } | VERSIONS
    peers = make(web)
    for _ in range(2):
        assert await peers.find(STRANGER) == FoundPeer(STRANGER, BASE, stranger=True)
    assert len(web.asked) == 2 if DATA in services else 1
    assert not any(asked.authorization for asked in web.asked)


@pytest.mark.parametrize(
    ("did", "url"),
    [
        ("did:web:a.example", "https://a.example/.well-known/did.json"),
        ("did:web:a.example%3A8443", "https://a.example:8443/.well-known/did.json"),
        ("did:web:a.example:b:c", "https://a.example/b/c/did.json"),
        ("did:web:a.example%3A8443:b", "https://a.example:8443/b/did.json"),
    ],
)
def test_where_a_did_document_is(did: str, url: str) -> None:
    assert discovery.document_url(did) == url


@pytest.mark.parametrize("did", ["did:web:a.example:..", "did:web:a.example:.", "did:key:z6Mk", ""])
def test_what_is_no_did_web(did: str) -> None:
    with pytest.raises(InvalidInput):
        discovery.document_url(did)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[]",
        b'{"id":"did:web:stranger.example","id":"did:web:stranger.example"}',
        document("did:web:another.example", CATALOG),
        document(STRANGER),
        {"id": STRANGER, "service": {}},
        {"id": STRANGER, "service": [CATALOG] * 65},
        document(STRANGER, service("LinkedDomains", f"{BASE}/catalog")),
        document(STRANGER, service("DataService", ["https://x.example/catalog"])),
        document(STRANGER, service("DataService", "https://host.example/other")),
        document(STRANGER, service("CatalogService", "http://host.example/catalog")),
        document(STRANGER, service("CatalogService", "https://user@host.example/catalog")),
        document(STRANGER, service("DataService", "file:///.well-known/dspace-version")),
        document(
            STRANGER, service("DataService", "https://nobody.example/.well-known/dspace-version")
        ),
    ],
)
async def test_did_documents_that_lead_nowhere(broken: Any) -> None:
    web = Web()
    web.pages = {"https://stranger.example/.well-known/did.json": say(200, broken)} | VERSIONS
    with pytest.raises(ConnectorError):
        await make(web).find(STRANGER)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        {},
        versions(),
        versions(("2024-1", "/2024-1")),
        versions(("2025-1", "2025-1")),
        versions(("2025-1", "@inside.example/x")),
        {"protocolVersions": [{"version": "2025-1", "path": "/x", "binding": "MQTT"}]},
    ],
)
async def test_a_peer_that_speaks_another_version(broken: Any) -> None:
    web = Web()
    root = "https://host.example/root"
    web.pages = {f"{root}/.well-known/dspace-version": say(200, broken)}
    found = await make(web).find(root)
    assert found == FoundPeer("", root, stranger=True)  # taken at the word of who gave the URL
    web.pages["https://stranger.example/.well-known/did.json"] = say(200, document(STRANGER, DATA))
    with pytest.raises(PeerFault):
        await make(web).find(STRANGER)


async def test_a_url_leads_to_who_is_configured_with_it() -> None:
    web = Web()
    web.pages = {
        "https://foreign.example/.well-known/dspace-version": say(
            200, versions(("2025-1", "/dsp/2025-1"))
        )
    }
    peers = make(web)
    for url in (URL, URL + "/", "https://foreign.example"):
        assert await peers.find(url) == FoundPeer(FOREIGN, URL)
    assert await peers.find(FOREIGN) == FoundPeer(FOREIGN, URL)
    assert (await peers.find("https://other.example/2025-1")).stranger


@pytest.mark.parametrize("name", ["http://foreign.example", "https://", "https://127.1", "nobody"])
async def test_what_names_no_peer(name: str) -> None:
    with pytest.raises(InvalidInput):
        await make(Web()).find(name)


# What it offers.


def dataset(id: str = "d-1", **more: Any) -> dict[str, Any]:
    constraint = {"leftOperand": "purpose", "operator": "eq", "rightOperand": "research"}
    return {
        "@id": id,
        "@type": "Dataset",
        "dct:title": "Flights",
        "hasPolicy": [
            {"@id": "o-1", "@type": "Offer", "permission": [{"action": "use"}]},
            {
                "@id": "o-2",
                "@type": "Offer",
                "permission": [{"action": "use", "constraint": [constraint]}],
                "obligation": [{"action": "acme:pay"}],
            },
        ],
        "distribution": [
            {"@type": "Distribution", "format": "HttpData-PULL", "accessService": "s"},
            {"@type": "Distribution", "format": "HttpData-PULL", "accessService": "s"},
        ],
        **more,
    }


def catalog(*datasets: dict[str, Any], participant: str = FOREIGN) -> dict[str, Any]:
    listed = {"dataset": list(datasets)} if datasets else {}
    return {
        "@context": CONTEXT,
        "@id": "c",
        "@type": "Catalog",
        "participantId": participant,
        **listed,
    }


async def test_a_catalogue_page_by_page() -> None:
    web = Web()
    second = f"{URL}/catalog/request?token=2"
    web.pages = {
        f"{URL}/catalog/request": say(
            200, catalog(dataset()), f'<{second}>; rel="next", <{URL}/x>; rel="previous"'
        ),
        second: say(200, catalog(), f'<{URL}/catalog/request>; rel="previous"'),
    }
    peers = make(web)
    peer = await peers.find(FOREIGN)
    page = await peers.catalog(peer, filter='{"keyword":"air"}')
    (found,) = page.datasets
    assert (found.id, found.title, found.formats) == ("d-1", "Flights", ("HttpData-PULL",))
    assert [offer.assigner for offer in found.offers] == [FOREIGN] * 2
    assert page.next == second
    last = await peers.catalog(peer, page=page.next)
    assert (last.datasets, last.next) == ((), "")
    first, again = web.asked
    assert (first.method, first.body["filter"]) == ("POST", [{"keyword": "air"}])
    assert (again.method, again.url, again.authorization) == (
        "POST",
        second,
        "Bearer secret-of-the-two",
    )


@pytest.mark.parametrize(
    "link",
    [
        '<https://attacker.example/x>; rel="next"',
        '<http://foreign.example/x>; rel="next"',
        "<https://foreign.example:444/x>; rel=next",
        '</catalog/request?page=2>; rel="next"',
        f'<{URL}/catalog/request>; rel="next"',
    ],
)
async def test_a_next_page_that_leads_away(link: str) -> None:
    web = Web()
    web.pages = {f"{URL}/catalog/request": say(200, catalog(dataset()), link)}
    peers = make(web)
    with pytest.raises(PeerFault):
        await peers.catalog(await peers.find(FOREIGN))


async def test_a_page_token_of_another_peer() -> None:
    peers = make(Web())
    with pytest.raises(InvalidInput):
        await peers.catalog(FoundPeer(FOREIGN, URL), page="https://attacker.example/x")


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{}",
        catalog(participant="did:web:another.example"),
        catalog(dataset() | {"hasPolicy": []}),
        catalog(dataset() | {"hasPolicy": [{"@type": "Offer", "permission": [{"action": "use"}]}]}),
        catalog(dataset() | {"distribution": "x"}),
    ],
)
async def test_catalogues_that_break_the_protocol(broken: Any) -> None:
    web = Web()
    web.pages = {f"{URL}/catalog/request": say(200, broken)}
    peers = make(web)
    with pytest.raises(PeerFault):
        await peers.catalog(await peers.find(FOREIGN))


async def test_a_dataset_by_its_id() -> None:
    web = Web()
    web.pages = {
        f"{URL}/catalog/datasets/urn:d%2F1": say(200, {"@context": CONTEXT, **dataset("urn:d/1")}),
        f"{URL}/catalog/datasets/d-2": say(200, {"@context": CONTEXT, **dataset("d-1")}),
    }
    peers = make(web)
    found = parse_offers((await peers.fetch(FOREIGN, "urn:d/1")).encode(), "urn:d/1", FOREIGN)
    assert [offer.id for offer in found] == ["o-1", "o-2"]
    assert [bool(offer.terms.others) for offer in found] == [False, False]
    with pytest.raises(PeerFault):
        await peers.fetch(FOREIGN, "d-2")
    with pytest.raises(NotFound):
        await peers.fetch(FOREIGN, "d-3")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, PeerFault),
        (400, PeerFault),
        (401, Unauthenticated),
        (403, Refused),
        (404, NotFound),
        (500, Unavailable),
    ],
)
async def test_what_a_peer_refuses(status: int, error: type[ConnectorError]) -> None:
    web = Web()
    said = {"@type": "CatalogError", "code": "no", "reason": ["not today"]}
    web.pages = {f"{URL}/catalog/request": say(status, said)}
    peers = make(web)
    with pytest.raises(error) as raised:
        await peers.catalog(await peers.find(FOREIGN))
    assert status == 301 or "not today" in raised.value.message


async def test_a_stranger_is_shown_nothing() -> None:
    web = Web()
    other = "https://other.example/2025-1"
    web.pages = {f"{other}/catalog/request": say(200, catalog(dataset(), participant="whoever"))}
    peers = make(web)
    page = await peers.catalog(await peers.find(other))
    assert page.participant == "whoever"
    assert [asked.authorization for asked in web.asked] == [""]
