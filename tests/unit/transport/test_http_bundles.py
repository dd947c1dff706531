"""Bundles of entries over HTTP: who gets one, and that nobody else learns anything."""

from __future__ import annotations

import gzip
import ssl
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connector.adapters.memory_log import MemoryLog
from connector.errors import ConfigError, Gone
from connector.identity.statements import sign_statement
from connector.identity.tokens import (
    BEARER_LIFETIME_S,
    LOG_KIND,
    issue_bearer_token,
    issue_token,
)
from connector.tlog import merkle, tiles
from connector.transport.http.tls import ServerTls
from tests.doors import CONSUMER_KEY, STRANGER, STRANGER_KEY, Client, TestDoor, open_door
from tests.logs import CONSUMER, PROVIDER, ManualClock, open_meter, refusal, test_key

FULL, MIXED = "/tile/entries/000", "/tile/entries/001.p/44"
OTHER = "urn:uuid:agreement-2"


@pytest.fixture
async def meter():
    meter = await open_meter(MemoryLog())
    await meter.record([refusal(f"a{number}") for number in range(299)])
    await meter.record([refusal("of another", scope=OTHER)])
    yield meter
    await meter.close()


@pytest.fixture
async def door(meter, tmp_path: Path, socket_enabled: None):
    async with open_door(meter, tmp_path) as door:
        yield door


async def get(door: TestDoor, path: str, token: str = "", **headers: str) -> httpx.Response:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    async with Client(headers={"Accept-Encoding": "identity"}) as client:
        return await client.get(door.url + path, headers=sent)


_made = iter(range(10_000))


def token(door: TestDoor, did: str = CONSUMER, **more) -> str:
    key = more.pop("key", CONSUMER_KEY if did == CONSUMER else STRANGER_KEY)
    more.setdefault("jti", f"token-number-{next(_made):05}")
    more.setdefault("now", door.clock.now())
    return issue_bearer_token(
        key, LOG_KIND, did=did, audience=more.pop("audience", PROVIDER), **more
    )


def claims(door: TestDoor, **changed: object) -> dict[str, object]:
    now = door.clock.now().timestamp()
    usual = {"iss": CONSUMER, "sub": CONSUMER, "aud": PROVIDER, "iat": now, "exp": now + 60}
    made = usual | {"jti": f"token-number-{next(_made):05}"} | changed
    return {name: value for name, value in made.items() if value is not None}


async def test_a_party_gets_what_is_all_its_own(door: TestDoor) -> None:
    answer = await get(door, FULL, token(door))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["cache-control"] == "private, no-store"
    leaves = tiles.parse_bundle(answer.content, 256)
    tile = (await get(door, "/tile/0/000")).content
    assert b"".join(map(merkle.leaf_hash, leaves)) == tile


async def test_a_bundle_with_a_leaf_of_others_is_refused_whole(door: TestDoor) -> None:
    assert (await get(door, "/tile/entries/001.p/43", token(door))).status_code == 200
    answer = await get(door, MIXED, token(door))
    assert answer.status_code == 403
    assert (OTHER in answer.text, "agreement" in answer.headers) == (False, False)
    assert door.meter.log.leaf(299) not in answer.content


async def test_a_member_without_an_agreement_gets_nothing(door: TestDoor) -> None:
    assert (await get(door, FULL, token(door, STRANGER))).status_code == 403
    door.agreements.clear()
    assert (await get(door, FULL, token(door))).status_code == 403


async def test_a_grant_opens_everything_until_it_ends(door: TestDoor) -> None:
    _, secret = await door.grants.add("an auditor", 2)
    for path in (FULL, MIXED, FULL):
        assert (await get(door, path, secret)).status_code == 200
    door.clock.advance(2 * 86_400)
    assert (await get(door, FULL, secret)).status_code == 401
    _, second = await door.grants.add("another auditor", 2)
    assert (await get(door, FULL, second)).status_code == 200
    await door.grants.revoke("another auditor")
    assert (await get(door, FULL, second)).status_code == 401


async def test_a_grant_to_a_member_opens_everything_to_its_own_tokens(door: TestDoor) -> None:
    _, secret = await door.grants.add(STRANGER, 2)
    assert (await get(door, MIXED, token(door, STRANGER))).status_code == 200
    assert (await get(door, MIXED, secret)).status_code == 200
    await door.grants.revoke(STRANGER)
    assert (await get(door, MIXED, token(door, STRANGER))).status_code == 403


async def test_a_token_is_good_for_one_request(door: TestDoor) -> None:
    once = token(door)
    assert (await get(door, FULL, once)).status_code == 200
    again = await get(door, FULL, once)
    assert (again.status_code, again.headers["www-authenticate"]) == (401, "Bearer")


async def test_tokens_that_are_not_good(door: TestDoor) -> None:
    now = door.clock.now()
    good = token(door)
    head, payload, signature = good.split(".")
    other = token(door).split(".")
    call = issue_token(
        CONSUMER_KEY,
        did=CONSUMER,
        audience=PROVIDER,
        thumbprint="t",
        now=now,
        jti="x" * 20,
    )
    bad = {
        "none": "",
        "a word": "guess",
        "of a call": call,
        "by another key": token(door, key=test_key("thief")),
        "of another member's key": token(door, key=STRANGER_KEY),
        "of nobody": token(door, "did:web:nobody.example"),
        "for another": token(door, audience=STRANGER),
        "too old": token(door, now=now - timedelta(seconds=BEARER_LIFETIME_S + 6)),
        "of tomorrow": token(door, now=now + timedelta(days=1)),
        "from before the start": token(door, now=now - timedelta(seconds=30)),
        "that lives too long": sign_statement(
            CONSUMER_KEY, "log", claims(door, exp=now.timestamp() + BEARER_LIFETIME_S + 1)
        ),
        "that never dies": sign_statement(CONSUMER_KEY, "log", claims(door, exp=None)),
        "without a number": sign_statement(CONSUMER_KEY, "log", claims(door, jti=None)),
        "with a short number": sign_statement(CONSUMER_KEY, "log", claims(door, jti="1")),
        "with more in it": sign_statement(CONSUMER_KEY, "log", claims(door, scope="all")),
        "bound to a certificate": sign_statement(
            CONSUMER_KEY, "log", claims(door, cnf={"x5t#S256": ""})
        ),
        "of one in another's name": sign_statement(
            STRANGER_KEY, "log", claims(door, sub=CONSUMER, iss=STRANGER)
        ),
        "with another's signature": f"{head}.{payload}.{other[2]}",
        "without a signature": f"{head}.{payload}.",
        "of no algorithm": "eyJhbGciOiJub25lIn0." + payload + ".",
        "huge": "x" * 8000,
        "with odd letters": "tdsg_" + "\xe9" * 20,
        "a prefix alone": "tdsg_",
    }
    for name, made in bad.items():
        answer = await get(door, FULL, made)
        assert answer.status_code == 401, (name, answer.text)
        assert len(answer.content) < 200
    assert signature
    assert (await get(door, FULL, good)).status_code == 200
    for scheme in ("Basic", "Bearerx", ""):
        answer = await get(door, FULL, Authorization=f"{scheme} {token(door)}".strip())
        assert answer.status_code == 401


async def test_without_a_token_no_path_tells_anything(door: TestDoor) -> None:
    """Not even whether a bundle is there: who it is comes before what is asked for."""
    for path in (FULL, MIXED, "/tile/entries/009", "/tile/entries/x"):
        assert (await get(door, path)).status_code == 401


PATHS = {
    "/tile/entries/002": 404,
    "/tile/entries/001": 404,
    "/tile/entries/001.p/45": 404,
    "/tile/entries/000.p/256": 400,
    "/tile/entries/000.p/0": 400,
    "/tile/entries/000.p/01": 400,
    "/tile/entries/0": 400,
    "/tile/entries/x000/000": 400,
    "/tile/entries//000": 400,
    "/tile/entries/000/": 400,
    "/tile/entries/000%0a": 400,
    "/tile/entries/000%00": 400,
    "/tile/entries/%2e%2e/0/000": 400,
    "/tile/entries/" + "x999/" * 20 + "999": 400,
    "/tile/0/../entries/000": 200,  # the client takes the dots out
}


async def test_paths(door: TestDoor) -> None:
    _, secret = await door.grants.add("an auditor", 2)
    for path, status in PATHS.items():
        assert (await get(door, path, secret)).status_code == status, path
    raw = "/tile/0/%2e%2e/entries/000"
    assert (await get(door, raw)).status_code == 400


async def test_a_partial_bundle_stays_when_the_full_one_is_there(door: TestDoor) -> None:
    _, secret = await door.grants.add("an auditor", 2)
    full = (await get(door, FULL, secret)).content
    part = (await get(door, "/tile/entries/000.p/7", secret)).content
    assert full.startswith(part)
    assert len(tiles.parse_bundle(part, 7)) == 7
    assert (await get(door, "/tile/0/000.p/7")).content == (await get(door, "/tile/0/000")).content[
        : 7 * 32
    ]


async def test_entries_whose_retention_has_ended(door: TestDoor, monkeypatch) -> None:
    def dropped(path: str) -> bytes:
        raise Gone("these entries were dropped when their retention ended")

    monkeypatch.setattr(door.meter.log, "bundle", dropped)
    _, secret = await door.grants.add("an auditor", 2)
    answer = await get(door, FULL, secret)
    assert (answer.status_code, "retention" in answer.text) == (410, True)
    assert (await get(door, FULL)).status_code == 401
    assert (await get(door, "/tile/0/000")).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzipped", False),
        ("*", False),
    ],
)
async def test_compression(door: TestDoor, accepted: str, packed: bool) -> None:
    _, secret = await door.grants.add("an auditor", 2)
    headers = {"Accept-Encoding": accepted, "Authorization": f"bearer {secret}"}
    async with (
        Client(headers=headers) as client,
        client.stream("GET", door.url + FULL) as answer,
    ):
        body = b"".join([piece async for piece in answer.aiter_raw()])
    assert (answer.headers.get("content-encoding") == "gzip") is packed
    assert "Authorization" in answer.headers["vary"]
    assert len(tiles.parse_bundle(gzip.decompress(body) if packed else body, 256)) == 256


async def test_only_the_head(door: TestDoor) -> None:
    _, secret = await door.grants.add("an auditor", 2)
    headers = {"Authorization": f"Bearer {secret}", "Accept-Encoding": "identity"}
    async with Client(base_url=door.url, headers=headers) as client:
        for path in ("/checkpoint", "/tile/0/000", FULL):
            answer = await client.head(path)
            assert (answer.status_code, answer.content) == (200, b"")
            assert int(answer.headers["content-length"]) > 0


# TLS


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed one for the loopback interface."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = ManualClock().now()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "door.pem", folder / "door.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, secret


async def _seen(url: str, trusted: Path) -> str:
    context = ssl.create_default_context(cafile=str(trusted))
    async with httpx.AsyncClient(verify=context) as client:
        answer = await client.get(url.replace("127.0.0.1", "localhost") + "/checkpoint")
        stream = answer.extensions["network_stream"]
        certificate = stream.get_extra_info("ssl_object").getpeercert()
        assert answer.status_code == 200
        return str(dict(item[0] for item in certificate["subject"])["commonName"])


async def test_https_with_a_certificate_that_is_renewed(
    meter, tmp_path: Path, socket_enabled: None
) -> None:
    pem, secret = certificate(tmp_path, "first")
    tls = ServerTls(pem, secret)
    async with open_door(meter, tmp_path / "door", tls=tls) as door:
        assert await _seen(door.url, pem) == "first"
        assert not tls.refresh()
        certificate(tmp_path, "second")
        assert tls.refresh()
        assert await _seen(door.url, pem) == "second"
        secret.write_text("nonsense")
        assert not tls.refresh()
        assert await _seen(door.url, pem) == "second"
        async with Client() as client:
            with pytest.raises(httpx.HTTPError):
                await client.get(door.url.replace("https", "http") + "/healthz")


def test_files_that_make_no_certificate(tmp_path: Path) -> None:
    pem, secret = certificate(tmp_path, "door")
    nothing = tmp_path / "nothing.pem"
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    (tmp_path / "other").mkdir()
    _, foreign = certificate(tmp_path / "other", "other")
    for one, two in ((nothing, secret), (pem, nothing), (nonsense, secret), (pem, foreign)):
        with pytest.raises(ConfigError, match="https"):
            ServerTls(one, two)
