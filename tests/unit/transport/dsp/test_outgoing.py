"""URLs that an attacker chose: where they lead, and what comes back from there."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import httpcore
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from connector.errors import InvalidInput, PeerFault, Unavailable
from connector.identity import certificates
from connector.model.participant import host_label
from connector.transport.http.dsp.addresses import Allowed, NotAllowed, is_public, parse_url
from connector.transport.http.dsp.outgoing import MAX_HEADERS, WEB, NotSent, Outgoing, Trust
from tests.outgoing import OK, Network, answer

DID = "did:web:airport.example"
PUBLIC, OTHER, PUBLIC6 = "8.8.8.8", "1.1.1.1", "2606:4700::1111"

# Never to be reached by a URL, whichever way it is spelled or resolved.
INSIDE = (
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
)
OUTSIDE = (PUBLIC, OTHER, "172.32.0.1", "192.167.0.1", PUBLIC6, "64:ff9b::808:808")

NO_URLS = (
    "",
    "peer.example",
    "//peer.example",
    "ftp://peer.example",
    "file:///etc/passwd",
    "https:peer.example",
    "https://",
    "https:///x",
    "https://user@peer.example",
    "https://user:secret@peer.example",
    "https://@peer.example",
    "https://peer.example@169.254.169.254",
    "https://peer.example#x",
    "https://peer.example/x#",
    "https://peer.example?x",
    "https://peer.example/?",
    "https://peer.example:",
    "https://peer.example:0",
    "https://peer.example:65536",
    "https://peer.example:80x",
    "https://peer.example:8 0",
    "https://peer.example:-1",
    "https://peer.example.",
    "https://.peer.example",
    "https://peer..example",
    "https://-peer.example",
    "https://peer.example\\@inside",
    "https://peer%2eexample",
    "https://peer\u3002example",
    "https://\uff11\uff12\uff17.0.0.1",
    "https://pe\ter.example",
    "https://peer.example/\r\nHost: inside",
    " https://peer.example",
    "https://2130706433",
    "https://0x7f000001",
    "https://0x7f.1",
    "https://0177.0.0.1",
    "https://127.1",
    "https://127.0.0.01",
    "https://127.0.0.1.",
    "https://1.2.3.4.5",
    "https://peer.0x1",
    "https://[::1",
    "https://::1",
    "https://[fe80::1%25eth0]",
    "https://[fe80::1%eth0]",
    "https://[0:0:0:0:0:0:0:1]",
    "https://[127.0.0.1]",
    "https://[v1.x]",
    "https://[peer.example]",
    f"https://{'a' * 64}.example",
    f"https://peer.example/{'a' * 2048}",
)


@pytest.mark.parametrize("url", NO_URLS)
async def test_what_is_no_url(url: str) -> None:
    network = Network()
    outgoing = network.outgoing("0.0.0.0/0", "::/0", plain_http=True)
    with pytest.raises(InvalidInput):
        await outgoing.ask("GET", url)
    assert not network.resolved
    assert not network.connected


def test_what_a_url_says() -> None:
    target = parse_url("HTTPS://Peer.Example:8443/dsp/2025-1")
    assert target.origin == ("https", "peer.example", 8443)
    assert parse_url("https://[2606:4700::1111]/x").origin == ("https", PUBLIC6, 443)
    assert parse_url("http://a_b.example").origin == ("http", "a_b.example", 80)
    assert parse_url("https://a.example/x?y=1", query=True).url == "https://a.example/x?y=1"


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_that_leads_inside(address: str) -> None:
    network = Network({"peer.example": [[address]]})
    outgoing = network.outgoing()
    with pytest.raises(NotAllowed):
        await outgoing.ask("GET", "https://peer.example/x")
    assert not network.connected


@pytest.mark.parametrize("address", INSIDE)
async def test_an_address_that_is_inside(address: str) -> None:
    network = Network()
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidInput):
        await network.outgoing().ask("GET", f"https://{host}/x")
    assert not network.connected


@pytest.mark.parametrize("address", OUTSIDE)
async def test_an_address_that_is_outside(address: str) -> None:
    network = Network({"peer.example": [[address]]})
    found = await network.outgoing().ask("GET", "https://peer.example/x")
    assert (found.status, found.body) == (200, b"{}")
    assert network.connected == [(address, 443)]


def test_the_tables_of_the_internet() -> None:
    from ipaddress import ip_address

    assert not any(is_public(ip_address(address)) for address in INSIDE)
    assert all(is_public(ip_address(address)) for address in OUTSIDE)


async def test_only_the_public_one_of_two_addresses() -> None:
    network = Network({"peer.example": [["10.0.0.1", PUBLIC, "::1"]]})
    network.answers[PUBLIC] = httpcore.ConnectError()
    with pytest.raises(NotSent):
        await network.outgoing().ask("GET", "https://peer.example")
    assert network.connected == [(PUBLIC, 443)]


async def test_a_name_is_resolved_once_for_a_connection() -> None:
    """Public when it is checked, and private a moment later."""
    network = Network({"peer.example": [[PUBLIC], ["127.0.0.1"]]})
    outgoing = network.outgoing()
    await outgoing.ask("POST", "https://peer.example/x", body=b"{}")
    assert network.resolved == ["peer.example"]
    assert network.connected == [(PUBLIC, 443)]


async def test_a_name_that_moves_inside_later() -> None:
    network = Network({"peer.example": [[PUBLIC], ["169.254.169.254"]]})
    outgoing = network.outgoing()
    await outgoing.addresses("peer.example", 443)
    with pytest.raises(NotAllowed):
        await outgoing.ask("GET", "https://peer.example/x")
    assert not network.connected


async def test_the_name_stays_in_tls_and_in_http() -> None:
    network = Network({"peer.example": [[PUBLIC]]})
    outgoing = network.outgoing()
    await outgoing.ask("GET", "https://peer.example:8443/x", headers={"Authorization": "Bearer t"})
    (stream,) = network.streams
    assert network.connected == [(PUBLIC, 8443)]
    assert stream.tls == ["peer.example"]
    assert b"Host: peer.example:8443\r\n" in stream.written
    assert b"Authorization: Bearer t\r\n" in stream.written


async def test_a_connection_for_one_name_is_not_used_for_another() -> None:
    network = Network({"peer.example": [[PUBLIC]]})
    network.answers[PUBLIC] = [answer(200, b"{}"), answer(200, b"{}")]
    outgoing = network.outgoing()
    for name in ("a.member.invalid", "b.member.invalid", "a.member.invalid"):
        await outgoing.ask("GET", "https://peer.example/x", trust=Trust(name=name))
    assert [stream.tls for stream in network.streams] == [
        ["a.member.invalid"],
        ["b.member.invalid"],
    ]


@pytest.mark.parametrize("value", ["a\r\nHost: inside", "a\nb", "\u00e9", "a\x00"])
async def test_a_token_that_would_be_another_header(value: str) -> None:
    network = Network({"peer.example": [[PUBLIC]]})
    headers = {"Authorization": value}
    with pytest.raises(InvalidInput):
        await network.outgoing().ask("GET", "https://peer.example", headers=headers)
    assert not any(stream.written for stream in network.streams)


async def test_the_next_address_when_one_does_not_answer() -> None:
    network = Network({"peer.example": [[PUBLIC6, PUBLIC]]})
    network.answers[PUBLIC6] = httpcore.ConnectTimeout()
    assert (await network.outgoing().ask("GET", "https://peer.example")).status == 200
    assert network.connected == [(PUBLIC6, 443), (PUBLIC, 443)]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_answers(status: int) -> None:
    network = Network({"peer.example": [[PUBLIC]]})
    network.answers[PUBLIC] = [answer(status, b"", "Location: https://169.254.169.254/latest")]
    found = await network.outgoing().ask("GET", "https://peer.example")
    assert found.status == status
    assert len(network.connected) == 1


async def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:3128")
    network = Network({"peer.example": [[PUBLIC]]})
    await network.outgoing().ask("GET", "https://peer.example")
    assert network.connected == [(PUBLIC, 443)]


async def test_cookies_are_not_kept() -> None:
    network = Network({"peer.example": [[PUBLIC]]})
    network.answers[PUBLIC] = [answer(200, b"{}", "Set-Cookie: a=b"), answer(200, b"{}")]
    outgoing = network.outgoing()
    for _ in range(2):
        await outgoing.ask("GET", "https://peer.example")
    assert b"Cookie" not in b"".join(stream.written for stream in network.streams)


async def test_plain_http_is_for_an_allowed_loopback() -> None:
    names = {"localhost": [["::1", "127.0.0.1"]], "peer.example": [[PUBLIC]], "lan": [["10.0.0.1"]]}
    network = Network(dict(names))
    for outgoing in (
        network.outgoing("127.0.0.0/8"),
        network.outgoing(plain_http=True),
        network.outgoing("10.0.0.0/8", plain_http=True),
    ):
        with pytest.raises(InvalidInput):
            await outgoing.ask("GET", "http://localhost:8083/x")
    open_ = network.outgoing("127.0.0.0/8", "10.0.0.0/8", plain_http=True)
    for host in ("peer.example", "lan", "10.0.0.1", PUBLIC):
        with pytest.raises(NotAllowed):
            await open_.ask("GET", f"http://{host}/x")
    assert not network.connected
    await open_.ask("GET", "http://localhost:8083/x")
    assert network.connected == [("127.0.0.1", 8083)]


async def test_a_name_that_is_allowed() -> None:
    network = Network({"lan": [["10.0.0.1", "169.254.169.254"]], "other": [["10.0.0.1"]]})
    outgoing = network.outgoing("LAN")
    await outgoing.ask("GET", "https://lan/x")
    assert network.connected == [("10.0.0.1", 443)]
    with pytest.raises(NotAllowed):
        await outgoing.ask("GET", "https://other/x")
    network.names["lan"] = [["169.254.169.254"], ["fd00:ec2::254"]]
    for _ in range(2):
        with pytest.raises(NotAllowed):
            await network.outgoing("lan").ask("GET", "https://lan/x")


@pytest.mark.parametrize("item", ["", "10.0.0.1/8", "https://x", "a b", "*.example", "10.0.0.0/33"])
def test_what_cannot_be_allowed(item: str) -> None:
    with pytest.raises(InvalidInput):
        Allowed.parse([item])


async def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(NotSent):
        await Network().outgoing().ask("GET", "https://nowhere.example")


async def test_answers_are_bounded() -> None:
    network = Network({"peer.example": [[PUBLIC]]})
    outgoing = network.outgoing()
    for broken in (
        [answer(200, b"x" * 101)],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", b"x" * 101],
        [answer(200, b"x", f"X: {'x' * MAX_HEADERS}")],
        [answer(200, b"x", "Content-Encoding: gzip")],
    ):
        network.answers[PUBLIC] = broken
        with pytest.raises(PeerFault):
            await outgoing.ask("GET", "https://peer.example", limit=100)


@pytest.mark.parametrize(
    "broken",
    [
        [],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"],
        [b"SSH-2.0-x\r\n"],
        [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000],
    ],
)
async def test_answers_that_break_off(broken: list[bytes]) -> None:
    network = Network({"peer.example": [[PUBLIC]]})
    network.answers[PUBLIC] = broken
    with pytest.raises(Unavailable) as raised:
        await network.outgoing().ask("GET", "https://peer.example")
    assert not isinstance(raised.value, NotSent)


async def test_members_are_known_by_their_own_name(tmp_path: Path, socket_enabled: None) -> None:
    """The space's CA, and the name that follows from the DID, whatever host the URL names."""
    now = datetime.now(UTC)
    authority_key, key = certificates.make_tls_key(), certificates.make_tls_key()
    authority = certificates.make_authority(authority_key, "Space", now)
    certificate = certificates.issue_certificate(
        authority, authority_key, key.public_key(), did=DID, name="Airport", now=now, days=1
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "both.pem").write_bytes(pem + certificates.chain_pem(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    network = Network({"airport.example": [["127.0.0.1"]]})
    outgoing = Outgoing(["127.0.0.1"], resolve=network.resolve)
    space = certificates.chain_pem(authority).decode()
    url = f"https://airport.example:{port}/x"
    found = await outgoing.ask("GET", url, trust=Trust(space, host_label(DID)))
    assert found.body == b"{}"
    web = Trust(space, host_label("did:web:harbour.example"), or_web=True)
    for trust in (WEB, web, Trust(space), Trust(space, host_label("did:web:harbour.example"))):
        with pytest.raises(NotSent, match="certificate") as raised:
            await outgoing.ask("GET", url, trust=trust)
        assert "by its DID" in raised.value.hint
    await outgoing.close()
    server.close()


async def test_an_answer_that_trickles() -> None:
    network = Network({"peer.example": [[PUBLIC]]})

    async def never(host: str, port: int) -> list[str]:
        await asyncio.sleep(30)
        return []

    network.resolve = never  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await network.outgoing().ask("GET", "https://peer.example", timeout_s=0.05)


@pytest.mark.parametrize("end", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
async def test_real_sockets_that_break_off(end: bytes, socket_enabled: None) -> None:
    """On this machine, without TLS: closed before and in the middle of an answer, and at rest."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(end if served == 1 else OK)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outgoing = Outgoing(["127.0.0.1"], plain_http=True)
    url = f"http://127.0.0.1:{port}/x"
    with pytest.raises(Unavailable) as raised:
        await outgoing.ask("GET", url)
    assert not isinstance(raised.value, NotSent)
    for _ in range(3):  # each answer's connection was closed while it rested
        assert (await outgoing.ask("GET", url)).body == b"{}"
        await asyncio.sleep(0.02)
    server.close()
    await server.wait_closed()
    with pytest.raises(NotSent):
        await outgoing.ask("GET", url)
    await outgoing.close()


async def test_a_server_that_says_nothing(socket_enabled: None) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outgoing = Outgoing(["127.0.0.1"], plain_http=True)
    with pytest.raises(Unavailable, match="in time"):
        await outgoing.ask("GET", f"http://127.0.0.1:{port}/x", timeout_s=0.05)
    await outgoing.close()
    server.close()
