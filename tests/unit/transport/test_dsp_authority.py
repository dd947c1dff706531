"""Who calls the Dataspace Protocol's door, and what the node's DID document says."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.errors import ConfigError, RateLimited, Unauthenticated, Unavailable
from connector.identity.statements import public_bytes, sign_statement
from connector.identity.tokens import (
    DSP_KIND,
    LOG_KIND,
    TokenVerifier,
    issue_bearer_token,
)
from connector.transport.http.dsp import did, schemas
from connector.transport.http.dsp.authority import (
    MemberTokens,
    StaticTokens,
    by_bearer,
    issue_dsp_token,
)
from tests.dsp_doors import STRANGER, STRANGER_TOKEN, Caller, opened, outsider
from tests.logs import ManualClock
from tests.negotiators import AIRPORT, TOURISM, key_of, record_of

VECTORS = Path(__file__).parents[2] / "vectors" / "dsp"


class Known:
    def __init__(self) -> None:
        self.members = {TOURISM: record_of(TOURISM), STRANGER: outsider(STRANGER)}
        self.fresh = True

    def __call__(self, name: str):
        if not self.fresh:
            raise Unavailable("no fresh view")
        if name not in self.members:
            raise Unauthenticated("not an active member")
        return self.members[name]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def known():
    return Known()


@pytest.fixture
def authenticate(known, clock):
    static = StaticTokens({STRANGER: STRANGER_TOKEN}, known)
    return by_bearer([static, MemberTokens(AIRPORT, known, clock)])


def token(clock, *, by=TOURISM, audience=AIRPORT, key=None) -> str:
    return issue_dsp_token(key or key_of(by), did=by, audience=audience, clock=clock)


async def test_a_static_token_names_an_outsider(authenticate, known):
    for scheme in ("Bearer", "bearer"):
        assert (await authenticate(f"{scheme} {STRANGER_TOKEN}")).did == STRANGER
    for header in ("", STRANGER_TOKEN, "Bearer", "Bearer ", f"Basic {STRANGER_TOKEN}"):
        with pytest.raises(Unauthenticated):
            await authenticate(header)
    for wrong in (
        STRANGER_TOKEN[:-1],
        STRANGER_TOKEN + "x",
        "Bearer " + STRANGER_TOKEN,
        "é",
        "x" * 9999,
    ):
        with pytest.raises(Unauthenticated):
            await authenticate(f"Bearer {wrong}")
    del known.members[STRANGER]
    with pytest.raises(Unauthenticated):
        await authenticate(f"Bearer {STRANGER_TOKEN}")


def test_static_tokens_that_are_none(known):
    for tokens in (
        {STRANGER: "short"},
        {STRANGER: ""},
        {STRANGER: "with a space in it, long enough"},
        {STRANGER: "x" * 5000},
        {STRANGER: STRANGER_TOKEN, "other": STRANGER_TOKEN},
    ):
        with pytest.raises(ConfigError):
            StaticTokens(tokens, known)


async def test_a_member_s_token_is_good_for_one_request(authenticate, known, clock):
    once = token(clock)
    assert await authenticate(f"Bearer {once}") == record_of(TOURISM)
    with pytest.raises(Unauthenticated, match="used before"):
        await authenticate(f"Bearer {once}")
    assert await authenticate(f"Bearer {token(clock)}")


async def test_a_member_that_is_suspended_is_refused_at_once(authenticate, known, clock):
    assert await authenticate(f"Bearer {token(clock)}")
    good = token(clock)
    del known.members[TOURISM]
    with pytest.raises(Unauthenticated):
        await authenticate(f"Bearer {good}")
    known.fresh = False
    with pytest.raises(Unavailable):
        await authenticate(f"Bearer {good}")


async def test_tokens_of_members_that_are_refused(authenticate, clock):
    another = Ed25519PrivateKey.generate()
    claims = {"did": TOURISM, "audience": AIRPORT, "jti": "0123456789abcdef"}
    log = issue_bearer_token(key_of(TOURISM), LOG_KIND, now=clock.now(), **claims)
    old = issue_bearer_token(
        key_of(TOURISM), DSP_KIND, now=clock.now() - timedelta(seconds=306), **claims
    )
    long = sign_statement(
        key_of(TOURISM),
        DSP_KIND,
        {
            "iss": TOURISM,
            "sub": TOURISM,
            "aud": AIRPORT,
            "iat": clock.now().timestamp(),
            "exp": clock.now().timestamp() + 301,
            "jti": "0123456789abcdef",
        },
    )
    good = token(clock)
    for bad in (
        log,
        old,
        long,
        token(clock, audience=TOURISM),
        token(clock, key=another),
        token(clock, by="did:web:nobody.example"),
        token(clock, by=STRANGER, key=another),  # who signs nothing
        good[:-4] + "AAAA",
        good.replace(".", "", 1),
        "..",
    ):
        with pytest.raises(Unauthenticated):
            await authenticate(f"Bearer {bad}")
    assert await authenticate(f"Bearer {good}")


async def test_too_many_requests_of_one_member(known, clock):
    members = MemberTokens(AIRPORT, known, clock)
    members._tokens = TokenVerifier(
        AIRPORT, started=clock.now(), kind=DSP_KIND, lifetime_s=300, remembered=2
    )
    for _ in range(2):
        await members.authenticate(token(clock))
    with pytest.raises(RateLimited):
        await members.authenticate(token(clock))


def test_the_document():
    key = public_bytes(key_of(AIRPORT))
    found = did.did_document(AIRPORT, key, root="https://airport.example/dsp", endpoint="a:9443")
    assert found["id"] == AIRPORT
    (method,) = found["verificationMethod"]
    assert found["assertionMethod"] == found["authentication"] == [method["id"]]
    assert method["id"].startswith(AIRPORT + "#")
    catalog, data, grpc = found["service"]
    schemas.check("DidService", catalog)
    assert catalog["serviceEndpoint"] == "https://airport.example/dsp/2025-1/catalog"
    assert data["serviceEndpoint"].endswith("/dsp/.well-known/dspace-version")
    assert grpc["serviceEndpoint"] == "grpcs://a:9443"
    for name, service in (("catalogservice", catalog), ("dataservice", data)):
        example = json.loads((VECTORS / "common" / f"{name}-did-service.json").read_text())
        assert example.keys() == service.keys()
        assert (example["@context"], example["type"]) == (service["@context"], service["type"])
    assert len(did.did_document(AIRPORT, key, root="https://x", endpoint="")["service"]) == 2


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("did:web:airport.example", "/.well-known/did.json"),
        ("did:web:airport.example%3A8443", "/.well-known/did.json"),
        ("did:web:airport.example:north:one", "/north/one/did.json"),
    ],
)
def test_where_the_document_is(name, path):
    assert did.path_of(name) == path


async def test_the_document_is_open_to_everybody():
    async with opened() as place:
        response = await Caller(place).client.get("/.well-known/did.json")
        assert response.status_code == 200
        assert response.json()["id"] == AIRPORT
