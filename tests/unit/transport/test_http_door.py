"""The HTTP door as whoever reaches its port sees it."""

import asyncio
import socket
import stat
import tempfile
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from connector.adapters.memory_log import MemoryLog
from connector.errors import InternalError, Unavailable
from connector.tlog import merkle
from connector.tlog.checkpoint import verify_checkpoint
from connector.transport.http import server
from connector.transport.http.server import HttpDoor, Sources, application
from connector.transport.http.tiles import LogFiles
from tests.logs import ORIGIN, PUBLIC, open_meter, refusal

LEAVES = 300


class Door:
    def __init__(self, meter) -> None:
        self.meter = meter
        self.reason = ""
        self.error: Exception | None = None
        registry = CollectorRegistry()
        Counter("tds_uses", "Uses at the gate", registry=registry).inc(3)
        files = LogFiles(self.checkpoint, self.tile)
        sources = Sources(lambda: self.reason, files, registry)
        transport = httpx.ASGITransport(application(sources), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://door")

    async def checkpoint(self) -> bytes:
        if self.error is not None:
            raise self.error
        return self.meter.checkpoint().checkpoint

    async def tile(self, path: str) -> bytes:
        if self.error is not None:
            raise self.error
        return self.meter.log.tile(path)


@pytest.fixture
async def door():
    meter = await open_meter(MemoryLog())
    await meter.record([refusal(f"u{number}") for number in range(LEAVES)])
    door = Door(meter)
    yield door
    await door.client.aclose()
    await meter.close()


async def test_alive_is_not_ready(door) -> None:
    door.reason = "not enrolled"
    assert (await door.client.get("/healthz")).status_code == 200
    answer = await door.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "reason": "not enrolled"})
    door.reason = ""
    answer = await door.client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


async def test_metrics(door) -> None:
    answer = await door.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "tds_uses_total 3.0" in answer.text


async def test_the_newest_checkpoint_is_never_cached(door) -> None:
    answer = await door.client.get("/checkpoint")
    assert verify_checkpoint(answer.content, ORIGIN, [PUBLIC]).size == LEAVES
    assert answer.headers["cache-control"] == "no-store"


async def test_tiles_hold_hashes_of_leaves(door) -> None:
    full = await door.client.get("/tile/0/000")
    partial = await door.client.get("/tile/0/001.p/44")
    assert "immutable" in full.headers["cache-control"]
    assert (len(full.content), len(partial.content)) == (256 * 32, 44 * 32)
    assert full.content[:32] == merkle.leaf_hash(door.meter.log.leaf(0))
    assert partial.content[-32:] == merkle.leaf_hash(door.meter.log.leaf(LEAVES - 1))


NOT_SERVED = {
    "receipts": ("/tile/entries/000", 404),
    "receipts, spelt otherwise": ("/tile/%65ntries/000", 404),
    "receipts, by a way around": ("/tile/x/../entries/000", 404),
    "receipts, with a slash too many": ("/tile//entries/000", 400),
    "a tile that is not there yet": ("/tile/0/002", 404),
    "more of a tile than there is": ("/tile/0/001.p/45", 404),
    "a width of none": ("/tile/0/001.p/0", 400),
    "a number in other digits": ("/tile/0/０００", 400),
    "no tile": ("/tile/", 400),
    "a level too high": ("/tile/64/000", 400),
    "a long path": ("/tile/0/" + "x000/" * 100 + "000", 400),
    "another page": ("/admin", 404),
}


@pytest.mark.parametrize("name", NOT_SERVED)
async def test_what_is_not_served(door, name: str) -> None:
    path, status = NOT_SERVED[name]
    answer = await door.client.get(path)
    assert answer.status_code == status
    leaf = door.meter.log.leaf(0)
    assert leaf not in answer.content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_can_be_changed(door, method: str) -> None:
    for path in ("/checkpoint", "/metrics", "/tile/0/000", "/healthz"):
        assert (await door.client.request(method, path)).status_code == 405


async def test_errors_say_what_they_may(door) -> None:
    door.error = Unavailable("the log cannot be read now")
    answer = await door.client.get("/checkpoint")
    assert (answer.status_code, answer.json()) == (503, {"error": "the log cannot be read now"})
    door.error = InternalError("an invariant")
    assert (await door.client.get("/checkpoint")).status_code == 500
    door.error = ValueError("a path and a secret")
    answer = await door.client.get("/tile/0/000")
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_a_port_that_is_taken_says_so(door, socket_enabled) -> None:
    sources = Sources(lambda: "", LogFiles(door.checkpoint, door.tile), CollectorRegistry())
    first = HttpDoor(application(sources), "127.0.0.1:0")
    address = await first.open()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{address}/healthz")
    assert (answer.status_code, "server" in answer.headers) == (200, False)
    second = HttpDoor(application(sources), address)
    with pytest.raises(Unavailable, match="cannot listen") as caught:
        await second.open()
    assert "connector.toml" in caught.value.hint
    await asyncio.gather(first.close(), second.close())


def test_answers_leave_at_once(socket_enabled) -> None:
    """An answer's body is not held back until the peer has acknowledged its headers."""
    with (
        server._listen("127.0.0.1:0") as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_socket_is_for_its_owner_alone(door, socket_enabled) -> None:
    sources = Sources(lambda: "", LogFiles(door.checkpoint, door.tile), CollectorRegistry())
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder) / "run" / "door.sock"
        path.parent.mkdir()
        path.touch()  # as one that is left from before
        first = HttpDoor(application(sources), path)
        assert await first.open() == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
            assert (await client.get("http://node/healthz")).status_code == 200
        await first.close()
        assert not path.exists()
        with pytest.raises(Unavailable, match="cannot listen"):
            await HttpDoor(application(sources), path.parent / ("x" * 200)).open()
