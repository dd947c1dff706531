"""One running space, and others who do not keep to the rules at the HTTPS doors: real processes,
real TLS, real crashes."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from connector.client import Agreement, Negotiation, Transfer
from connector.errors import ConnectorError
from tests.e2e.space import START_S, Space, free_ports, space
from tests.e2e.test_https_peers import settings

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

AIRPORT, BUREAU = "did:web:airport.example", "did:web:bureau.example"
PLACES = 256  # connections that a door holds
STRANGER = ssl.create_default_context()  # who does not look whom it talks to
STRANGER.check_hostname = False
STRANGER.verify_mode = ssl.CERT_NONE
ASK = b"GET /.well-known/dspace-version HTTP/1.1\r\nHost: airport.example\r\n\r\n"


Processes = Sequence[Negotiation] | Sequence[Transfer]


@dataclass
class Held:
    space: Space
    port: int  # of the provider's door
    dataset: str
    agreement: str

    async def negotiated(self, *, follow_s: float = START_S) -> Negotiation:
        async with self.space.node("bureau") as node:
            return await node.negotiate(AIRPORT, self.dataset, follow_s=follow_s)

    async def started(self) -> Transfer:
        async with self.space.node("bureau") as node:
            found = await node.request_transfer(self.agreement)
        assert found.state == "STARTED", found
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def held(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Held]:
    folder = tmp_path_factory.mktemp("attacked")
    here, there = free_ports(2)
    async with space(folder) as found:
        await found.admit("airport", ["provider", "consumer"], settings(here, "bureau", there))
        await found.admit("bureau", ["consumer"], settings(there, "airport", here))
        async with found.node("airport") as node:
            published = await node.publish(
                large(folder / "flights.csv"),
                title="Flights",
                table="flights",
                classification="general",
                terms={"permission": [{"action": "use"}]},
            )
        it = Held(found, here, published.dataset_id, "")
        done = await it.negotiated()
        assert done.state == "FINALIZED", done
        it.agreement = done.agreement_id
        yield it


def large(path: Path) -> Path:
    """More than the buffers of a connection hold: 64 MB."""
    chance = random.Random(5)
    lines = (f"{n},{chance.randbytes(8192).hex()}" for n in range(4000))
    path.write_text("number,track\n" + "\n".join(lines) + "\n")
    return path


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def answered(port: int, asked: bytes) -> bytes:
    """The first bytes of the answer; empty if the connection was closed at once."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=STRANGER)
    except OSError:
        return b""
    try:
        writer.write(asked)
        return await asyncio.wait_for(reader.read(64), 5)
    except OSError:
        return b""
    finally:
        writer.transport.abort()


async def test_a_flood_of_connections_stops_nothing_but_its_door(held: Held) -> None:
    pid = held.space.members["airport"].pid
    before = open_files(pid)
    with ExitStack() as stack:
        for _ in range(2 * PLACES):
            silent = stack.enter_context(socket.socket())
            silent.setblocking(False)
            silent.connect_ex(("127.0.0.1", held.port))
        await asyncio.sleep(0.5)
        assert open_files(pid) <= before + PLACES + 16
        async with held.space.node("airport") as node:
            assert (await node.status()).state == "ready"
        assert await answered(held.port, ASK) == b""
        # Who never spoke TLS has no place after ten seconds, though nobody hung up.
        async with asyncio.timeout(20):
            while b"200 OK" not in await answered(held.port, ASK):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    assert (await held.negotiated()).state == "FINALIZED"


@pytest.mark.parametrize("how", ["member", "agreement", "transfer"])
async def test_a_flow_is_cut_within_a_second(held: Held, how: str) -> None:
    if how == "agreement":
        held.agreement = (await held.negotiated()).agreement_id
    transfer = await held.started()
    assert transfer.data_address is not None
    token = dict(transfer.data_address.properties)["authorization"]
    path = urlsplit(transfer.data_address.endpoint).path
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", held.port, ssl=STRANGER, limit=65_536
    )
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n".encode())
    assert b"200 OK" in await reader.read(4096)
    async with held.space.node("airport") as node, held.space.operator() as operator:
        if how == "member":
            await operator.set_membership(BUREAU, "suspended", reason="to see")
        elif how == "agreement":
            await node.end_agreement(held.agreement, reason="to see")
        else:
            (theirs,) = [one for one in await node.transfers() if one.peer_pid == transfer.pid]
            await node.decide_transfer(theirs.pid, "suspend", reason="to see")
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(1):
                while await reader.read(65_536):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # slow enough not to have all of it before
        writer.transport.abort()
        if how == "member":
            await operator.set_membership(BUREAU, "active", reason="seen")
            await held.space.until("bureau", lambda status: status.state == "ready")
    if how == "agreement":
        held.agreement = (await held.negotiated()).agreement_id


async def test_crashes_of_both_lose_nothing_and_do_nothing_twice(held: Held) -> None:
    """Kill one, the other, both, with messages on their way; then both sides say the same."""
    for killed in (("airport",), ("bureau",), ("airport", "bureau")):
        asked = [asyncio.create_task(_either(held.negotiated())) for _ in range(3)]
        asked += [asyncio.create_task(_either(held.started())) for _ in range(3)]
        await asyncio.sleep(0.15)
        for name in killed:
            held.space.members[name].kill()
        await asyncio.sleep(0.2)
        for name in killed:
            held.space.members[name].start()
        for name in killed:
            await held.space.until(name, lambda status: status.state == "ready")
        await asyncio.gather(*asked)
        async with asyncio.timeout(3 * START_S):
            while differences := await _differences(held):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        assert not differences


async def _either(call: Awaitable[object]) -> None:
    """What is asked of a node that is killed may fail."""
    with suppress(ConnectorError, AssertionError):
        await call


async def _differences(held: Held) -> list[str]:
    """What the two nodes do not say alike, or not yet; each process once on both sides."""
    async with held.space.node("airport") as ours, held.space.node("bureau") as theirs:
        return [
            *_compared(await ours.negotiations(), await theirs.negotiations()),
            *_compared(await ours.transfers(), await theirs.transfers()),
            *(_agreements(await ours.agreements()) ^ _agreements(await theirs.agreements())),
        ]


def _agreements(found: Sequence[Agreement]) -> set[str]:
    return {f"{one.id}: {one.state}" for one in found}


def _compared(provider: Processes, consumer: Processes) -> list[str]:
    at_provider = {one.pid: one for one in provider}
    found, seen = [], []
    for one in consumer:
        other = at_provider.get(one.peer_pid)
        seen.append(one.peer_pid)
        on_its_way = one.state in ("REQUESTED", "AGREED", "VERIFIED")
        if on_its_way or (other.state if other else "TERMINATED") != one.state:
            found.append(f"{one.pid}: {one.state}, {other and other.state}")
    return found + [f"{pid}: nobody's" for pid in at_provider if seen.count(pid) != 1]
