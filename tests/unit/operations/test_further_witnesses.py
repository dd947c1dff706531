"""A log and its further witnesses over HTTP: cosigned, held up by none, and compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from connector.adapters.http_witness import HttpWitness
from connector.adapters.memory_log import MemoryLog
from connector.errors import Conflict, PeerFault, RateLimited, Unavailable, VerificationFailed
from connector.metering.meter import Meter
from connector.metering.witness import StaleSize, request_for
from connector.operations import witnessing
from connector.operations.witnessing import FurtherWitnessing, cosignature_age
from connector.tlog import cosignature
from connector.tlog.checkpoint import parse_checkpoint
from connector.tlog.note import COSIGNATURE_V1, VerifierKey
from connector.tlog.witness import MAX_ANSWER_BYTES
from tests.doors import WITNESS, WITNESS_KEY, open_door
from tests.logs import ORIGIN, PUBLIC, ManualClock, open_meter, refusal, test_key, until

KEY = VerifierKey(WITNESS, WITNESS_KEY.public_key().public_bytes_raw(), COSIGNATURE_V1)


async def grow(meter: Meter, name: str, count: int = 1) -> None:
    await meter.record([refusal(f"{name}{number}") for number in range(count)])


def further(meter: Meter, peer: HttpWitness, key: VerifierKey = KEY) -> FurtherWitnessing:
    return FurtherWitnessing(meter, peer, key, lambda most: 0.0)


def cosigned(meter: Meter) -> int:
    note = meter.latest_cosigned(WITNESS)
    return parse_checkpoint(note).size if note else 0


@pytest.fixture
async def meter():
    meter = await open_meter(MemoryLog())
    await grow(meter, "a", 5)
    yield meter
    await meter.close()


@pytest.fixture
async def door(meter, tmp_path: Path, socket_enabled: None):
    async with open_door(meter, tmp_path, logs={ORIGIN: [PUBLIC]}) as door:
        yield door


@pytest.fixture
async def peer(door):
    peer = HttpWitness(door.url)
    yield peer
    await peer.close()


async def test_every_growth_is_cosigned_and_commits_are_gathered(
    meter, peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnessing, "EVERY_S", 0.05)
    asked = 0
    add = peer.add_checkpoint

    async def counted(request):
        nonlocal asked
        asked += 1
        return await add(request)

    monkeypatch.setattr(peer, "add_checkpoint", counted)
    one = further(meter, peer)
    assert cosignature_age(meter, WITNESS, ManualClock().now()) == float("inf")
    async with _running(one):
        await until(lambda: cosigned(meter) == 5)
        for number in range(20):
            await grow(meter, f"b{number}-")
        await until(lambda: cosigned(meter) == 25)
        assert one.problem == ""
        assert asked < 10
    assert 0 <= cosignature_age(meter, WITNESS, ManualClock().now()) + 1 <= 2


async def test_a_witness_that_is_away_holds_nothing_up(
    meter, peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnessing, "EVERY_S", 0.01)
    add, away = peer.add_checkpoint, True

    async def answer(request):
        if away:
            raise Unavailable("the witness does not answer")
        return await add(request)

    monkeypatch.setattr(peer, "add_checkpoint", answer)
    one = further(meter, peer)
    async with _running(one):
        await until(lambda: one.problem == "the witness does not answer")
        await grow(meter, "b", 3)
        away = False
        await until(lambda: cosigned(meter) == 8)
        await until(lambda: one.problem == "")


async def test_a_new_process_goes_on_from_what_is_kept(meter, peer) -> None:
    await further(meter, peer).catch_up()
    await grow(meter, "b", 3)
    again = further(meter, peer)
    assert again._size == 5
    await again.catch_up()
    assert cosigned(meter) == 8


async def test_a_409_tells_from_where(meter, peer) -> None:
    await further(meter, peer).catch_up()
    await grow(meter, "b", 3)
    lost = further(meter, peer)
    lost._size = 2
    await lost.catch_up()
    assert cosigned(meter) == 8


async def test_the_log_goes_on_being_cosigned_while_it_rests(
    meter, peer, door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnessing, "EVERY_S", 0.01)
    monkeypatch.setattr(witnessing, "AGAIN_S", 0.01)
    async with _running(further(meter, peer)):
        await until(lambda: cosigned(meter) == 5)
        door.clock.advance(1000)
        await until(lambda: cosignature_age(meter, WITNESS, door.clock.now()) == 0)


async def test_a_log_that_lost_its_tail_is_found_out(peer, meter) -> None:
    """The witness's number alone is a claim; the note that it shows is signed by this log."""
    await further(meter, peer).catch_up()
    restored = await open_meter(MemoryLog())
    await grow(restored, "a", 3)
    with pytest.raises(Conflict):
        await further(restored, peer).catch_up()
    with pytest.raises(Conflict):
        await grow(restored, "b")
    await restored.close()


async def test_a_log_with_another_past_is_found_out(peer, meter) -> None:
    await further(meter, peer).catch_up()
    other = await open_meter(MemoryLog())
    await grow(other, "x", 9)
    with pytest.raises(Conflict):
        await further(other, peer).catch_up()
    with pytest.raises(Conflict):
        await grow(other, "b")
    assert other.latest_cosigned() is None
    await other.close()


# A witness that lies, or is somebody else's machine altogether.

Answer = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def _server(answer: bytes, *, hang: bool = False, asked: list[bytes] | None = None):
    """Gives every connection the same bytes; its URL. ``asked`` gains the heads of requests."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(head)
            writer.write(answer)
            await writer.drain()
            if hang:
                await asyncio.sleep(5)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def http(status: int, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def lines(meter: Meter, name: str = WITNESS, key: str = "the witness", time: int = 9) -> bytes:
    return (
        f"{cosignature.cosign(meter.checkpoint().checkpoint, name, test_key(key), time)}\n".encode()
    )


LIES: dict[str, tuple[Callable[[Meter], bytes], type[Exception]]] = {
    "nothing": (lambda meter: b"", Unavailable),
    "no HTTP": (lambda meter: b"220 mail.example\r\n", Unavailable),
    "an empty answer": (lambda meter: http(200, b""), PeerFault),
    "words": (lambda meter: http(200, b"ok\n"), PeerFault),
    "a line without its end": (lambda meter: http(200, lines(meter)[:-1]), PeerFault),
    "not UTF-8": (lambda meter: http(200, b"\xff\n"), PeerFault),
    "another's signature": (
        lambda meter: http(200, lines(meter, "other.example/w", "other")),
        VerificationFailed,
    ),
    "a forged signature": (
        lambda meter: http(200, lines(meter)[:-20] + b"AAAAAAAAAAAAAAAAAA=\n"),
        PeerFault,
    ),
    "the name with another key": (
        lambda meter: http(200, lines(meter, key="thief")),
        VerificationFailed,
    ),
    "a huge answer": (lambda meter: http(200, b"x" * (MAX_ANSWER_BYTES + 1)), PeerFault),
    "a huge reason": (lambda meter: http(403, b"x" * 5000), PeerFault),
    "many lines": (lambda meter: http(200, lines(meter) * 40), PeerFault),
    "a redirect": (
        lambda meter: http(302, b"", "Location: http://127.0.0.1:1/add-checkpoint"),
        PeerFault,
    ),
    "a size that is none": (lambda meter: http(409, b"five\n"), PeerFault),
    "a size below zero": (lambda meter: http(409, b"-1\n"), PeerFault),
    "the same size each time": (lambda meter: http(409, b"3\n"), PeerFault),
    "patience": (lambda meter: http(429, b""), RateLimited),
    "trouble": (lambda meter: http(503, b""), Unavailable),
    "that it is not consistent": (lambda meter: http(422, b""), PeerFault),
    "unknown": (lambda meter: http(404, b""), PeerFault),
    "packed": (lambda meter: http(200, b"\x1f\x8b", "Content-Encoding: gzip"), PeerFault),
}


@pytest.mark.parametrize("name", LIES)
async def test_lies(meter, socket_enabled: None, name: str) -> None:
    made, error = LIES[name]
    async with _server(made(meter)) as url:
        peer = HttpWitness(url)
        with pytest.raises(error):
            await further(meter, peer).catch_up()
        await peer.close()
    assert meter.latest_cosigned() is None
    await grow(meter, "still")


async def test_a_claim_that_it_cannot_show_bars_nothing(meter, socket_enabled: None) -> None:
    async with _server(http(409, b"1000\n")) as url:
        peer = HttpWitness(url)
        with pytest.raises(PeerFault):
            await further(meter, peer).catch_up()
        await peer.close()
    await grow(meter, "still")


async def test_silence_ends(meter, socket_enabled: None) -> None:
    for said in (b"", b"HTTP/1.1 200 X\r\nContent-Length: 5000\r\n\r\nx"):
        async with _server(said, hang=True) as url:
            peer = HttpWitness(url, timeout_s=0.1)
            with pytest.raises(Unavailable):
                await peer.add_checkpoint(request_for(meter.log, 0))
            await peer.close()


async def test_nothing_is_remembered_of_an_answer(meter, socket_enabled: None) -> None:
    asked: list[bytes] = []
    cookies = [f"Set-Cookie: c{number}={'x' * 200}; Path=/" for number in range(20)]
    async with _server(http(409, b"3\n", *cookies), asked=asked) as url:
        peer = HttpWitness(url)
        for _ in range(3):
            with pytest.raises(StaleSize):
                await peer.add_checkpoint(request_for(meter.log, 0))
        await peer.close()
    assert len(asked) == 3
    assert len({len(head) for head in asked}) == 1
    assert b"cookie" not in asked[2].lower()


async def test_the_size_in_a_409_is_told(meter, socket_enabled: None) -> None:
    async with _server(http(409, b"3\n", "Content-Type: text/x.tlog.size")) as url:
        peer = HttpWitness(url)
        with pytest.raises(StaleSize) as caught:
            await peer.add_checkpoint(request_for(meter.log, 0))
        assert caught.value.size == 3
        await peer.close()


@asynccontextmanager
async def _running(one: FurtherWitnessing):
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
