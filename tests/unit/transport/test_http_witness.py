"""The witness at the HTTP door, as logs and as who is no log see it (C2SP tlog-witness)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from connector.adapters.memory_log import MemoryLog
from connector.metering.meter import Meter
from connector.metering.witness import request_for
from connector.tlog import cosignature, merkle
from connector.tlog.checkpoint import parse_checkpoint, sign_checkpoint
from connector.tlog.note import MAX_NOTE_BYTES
from connector.tlog.witness import CheckpointRequest, encode_request, parse_cosignatures
from connector.transport.http import body, patience
from tests.doors import WITNESS, WITNESS_KEY, Client, TestDoor, open_door
from tests.logs import KEY, ORIGIN, PUBLIC, open_meter, refusal, test_key

WITNESS_PUBLIC = WITNESS_KEY.public_key().public_bytes_raw()


async def grow(meter: Meter, prefix: str, count: int) -> None:
    await meter.record([refusal(f"{prefix}{number}") for number in range(count)])


@pytest.fixture
async def meter():
    meter = await open_meter(MemoryLog())
    await grow(meter, "a", 5)
    yield meter
    await meter.close()


@pytest.fixture
async def door(meter: Meter, tmp_path: Path, socket_enabled: None):
    async with open_door(meter, tmp_path, logs={ORIGIN: [PUBLIC]}) as door:
        yield door


async def post(door: TestDoor, body: bytes) -> httpx.Response:
    async with Client() as client:
        return await client.post(f"{door.url}/add-checkpoint", content=body)


async def show(door: TestDoor, old: int) -> httpx.Response:
    return await post(door, encode_request(request_for(door.meter.log, old)))


async def test_a_log_that_grows_is_cosigned(door: TestDoor) -> None:
    size = 0
    for count in (0, 1, 300, 0):
        if count:
            await grow(door.meter, f"{size}-", count)
        tip = door.meter.checkpoint()
        answer = await show(door, size)
        assert answer.status_code == 200, answer.text
        (line,) = parse_cosignatures(answer.content)
        note = cosignature.add_line(tip.checkpoint, line.line())
        time = cosignature.verify_cosignature(note, WITNESS, [WITNESS_PUBLIC])
        assert time == int(door.clock.now().timestamp())
        size = tip.size
        last = await door.witness.last(ORIGIN)
        assert last is not None
        assert (last.size, last.checkpoint) == (size, note)


async def test_what_monitors_read(door: TestDoor) -> None:
    name = hashlib.sha256(ORIGIN.encode()).hexdigest()
    async with Client(base_url=door.url) as client:
        assert (await client.get(f"/{name}/checkpoint")).status_code == 404
        await show(door, 0)
        answer = await client.get(f"/{name}/checkpoint")
        assert answer.status_code == 200
        assert cosignature.verify_cosignature(answer.content, WITNESS, [WITNESS_PUBLIC])
        for other in ("0" * 64, name.upper(), ORIGIN):
            assert (await client.get(f"/{other}/checkpoint")).status_code == 404


async def test_repeating_a_request_costs_no_write(door: TestDoor) -> None:
    await show(door, 0)
    before = await door.witness.last(ORIGIN)
    door.clock.advance(10)
    again = await show(door, 5)
    assert again.status_code == 200
    assert await door.witness.last(ORIGIN) == before
    door.clock.advance(60)
    await show(door, 5)
    after = await door.witness.last(ORIGIN)
    assert after is not None and before is not None
    assert (after.size, after.checkpoint != before.checkpoint) == (5, True)


def _body(change: Callable[[bytes], bytes]) -> Callable[[CheckpointRequest], bytes]:
    return lambda good: change(encode_request(good))


def _proof(lines: str) -> Callable[[CheckpointRequest], bytes]:
    return lambda good: f"old 5\n{lines}\n".encode() + good.checkpoint


_HASH = base64.b64encode(bytes(32)).decode()

MALFORMED: dict[str, Callable[[CheckpointRequest], bytes]] = {
    "nothing": lambda good: b"",
    "a line": lambda good: b"old 5\n",
    "no old size": lambda good: b"\n" + good.checkpoint,
    "the checkpoint alone": lambda good: good.checkpoint,
    "a size with a zero before": _body(lambda body: body.replace(b"old 5", b"old 05")),
    "a size with a sign": _body(lambda body: body.replace(b"old 5", b"old +5")),
    "a size below zero": _body(lambda body: body.replace(b"old 5", b"old -5")),
    "a size with two spaces": _body(lambda body: body.replace(b"old 5", b"old  5")),
    "a size with a space behind": _body(lambda body: body.replace(b"old 5", b"old 5 ")),
    "a size with an underscore": _body(lambda body: body.replace(b"old 5", b"old 5_0")),
    "a size in other digits": _body(lambda body: body.replace(b"old 5", "old ５".encode())),
    "a size too large": _body(lambda body: body.replace(b"old 5", b"old 9223372036854775808")),
    "a size of many digits": _body(lambda body: body.replace(b"old 5", b"old " + b"9" * 5000)),
    "another word": _body(lambda body: body.replace(b"old 5", b"Old 5")),
    "carriage returns": _body(lambda body: body.replace(b"\n", b"\r\n")),
    "no empty line": lambda good: b"old 5\n" + good.checkpoint.partition(b"\n\n")[0],
    "a proof that is not base64": _proof("!\n"),
    "a hash too short": _proof(base64.b64encode(bytes(31)).decode() + "\n"),
    "a hash too long": _proof(base64.b64encode(bytes(33)).decode() + "\n"),
    "a hash in another spelling": _proof(_HASH[:-2] + "B=\n"),
    "a hash with a space behind": _proof(_HASH + " \n"),
    "a hash in letters of elsewhere": _proof("é" + _HASH[1:] + "\n"),
    "a proof too long": _proof(f"{_HASH}\n" * 64),
    "a checkpoint without signatures": _body(lambda body: body[: body.rindex("—".encode())]),
    "a checkpoint cut short": _body(lambda body: body[:-1]),
    "a checkpoint that is not UTF-8": _body(lambda body: body + b"\xff"),
    "a checkpoint with a control character": _body(lambda body: body.replace(b"/log", b"/\0og")),
    "an old size above the new": _body(lambda body: body.replace(b"old 5", b"old 10")),
}


async def test_malformed_requests(door: TestDoor) -> None:
    await show(door, 0)
    await grow(door.meter, "b", 4)
    good = request_for(door.meter.log, 5)
    before = await door.witness.last(ORIGIN)
    for name, made in MALFORMED.items():
        answer = await post(door, made(good))
        assert answer.status_code == 400, (name, answer.text)
    assert await door.witness.last(ORIGIN) == before


async def test_requests_that_are_answered_otherwise(door: TestDoor) -> None:
    meter = door.meter
    await show(door, 0)
    await grow(meter, "b", 4)
    good = request_for(meter.log, 5)
    fork = await open_meter(MemoryLog())
    await grow(fork, "x", 9)
    same = await open_meter(MemoryLog())
    await grow(same, "y", 5)
    root = parse_checkpoint(good.checkpoint).root

    def signed(origin: str, size: int, key: str = "", root: bytes = root) -> bytes:
        return sign_checkpoint(origin, size, root, test_key(key) if key else KEY)

    spoilt = bytearray(good.checkpoint)
    at = spoilt.rindex(b" ") + 30
    spoilt[at] = ord("A") if spoilt[at] != ord("A") else ord("B")
    no_tree = merkle.EMPTY_ROOT
    empty = signed(ORIGIN, 0, root=no_tree).replace(
        base64.b64encode(no_tree), base64.b64encode(bytes(32))
    )
    cases: dict[str, tuple[CheckpointRequest, int]] = {
        "another log": (CheckpointRequest(0, (), signed("other.example/log", 9)), 404),
        "another key": (CheckpointRequest(5, good.consistency, signed(ORIGIN, 9, "thief")), 403),
        "a bad signature": (CheckpointRequest(5, good.consistency, bytes(spoilt)), 403),
        "an old size too small": (CheckpointRequest(4, good.consistency, good.checkpoint), 409),
        "an old size of none": (CheckpointRequest(0, (), good.checkpoint), 409),
        "an old size too large": (CheckpointRequest(6, good.consistency, good.checkpoint), 409),
        "no proof": (CheckpointRequest(5, (), good.checkpoint), 422),
        "a proof too long": (
            CheckpointRequest(5, (*good.consistency, bytes(32)), good.checkpoint),
            422,
        ),
        "a proof of another": (request_for(fork.log, 5), 422),
        "a fork of the same size": (CheckpointRequest(5, (), same.checkpoint().checkpoint), 422),
        "an empty tree with a root": (CheckpointRequest(0, (), empty), 422),
        "a rollback": (CheckpointRequest(5, (), signed(ORIGIN, 3)), 400),
    }
    before = await door.witness.last(ORIGIN)
    for name, (request, status) in cases.items():
        answer = await post(door, encode_request(request))
        assert answer.status_code == status, (name, answer.text)
        assert "—" not in answer.text
        if status == 409:
            assert answer.headers["content-type"] == "text/x.tlog.size"
            assert answer.content == b"5\n"
    assert await door.witness.last(ORIGIN) == before
    assert (await post(door, encode_request(good))).status_code == 200
    for each in (fork, same):
        await each.close()


async def test_two_at_once_never_roll_back(door: TestDoor) -> None:
    first = encode_request(request_for(door.meter.log, 0))
    await grow(door.meter, "b", 4)
    second = encode_request(request_for(door.meter.log, 0))
    answers = await asyncio.gather(*(post(door, body) for body in (first, second, first, second)))
    last = await door.witness.last(ORIGIN)
    assert last is not None
    for answer, size in zip(answers, (5, 9, 5, 9), strict=True):
        assert answer.status_code in (200, 409)
        if answer.status_code == 200:
            assert size == last.size


async def test_huge_requests_are_not_read_to_their_end(door: TestDoor) -> None:
    async def endless():
        for _ in range(10_000):
            yield b"A" * 65_536

    async with Client() as client:
        try:
            answer = await client.post(f"{door.url}/add-checkpoint", content=endless())
        except httpx.HTTPError:  # the door has hung up
            return
        assert answer.status_code == 413
    assert (await post(door, b"old 0\n\n" + b"x" * MAX_NOTE_BYTES * 2)).status_code == 413


async def _until_hung_up(door: TestDoor, sent: bytes) -> bytes:
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "sent", [b"", b"GET /checkpoint HTTP/1.1\r\nHost: x\r\nX-Slow:", b"\r\n\r\n"]
)
async def test_who_does_not_ask_loses_the_place(
    door: TestDoor, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(patience, "REQUEST_S", 0.05)
    assert b"200" not in await _until_hung_up(door, sent)


async def test_a_body_that_does_not_come(door: TestDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_S", 0.05)
    head = b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nold 5"
    said = await _until_hung_up(door, head)
    assert said.startswith(b"HTTP/1.1 408")


async def test_slow_is_not_silent(door: TestDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that are kept open between two requests are used again."""
    monkeypatch.setattr(patience, "REQUEST_S", 0.2)
    async with Client(base_url=door.url) as client:
        for _ in range(3):
            assert (await client.get("/healthz")).status_code == 200
            await asyncio.sleep(0.15)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods(door: TestDoor, method: str) -> None:
    async with Client(base_url=door.url) as client:
        assert (await client.request(method, "/add-checkpoint")).status_code == 405


async def test_the_time_of_a_cosignature_is_the_clocks(door: TestDoor) -> None:
    door.clock.time += timedelta(days=3)
    (line,) = parse_cosignatures((await show(door, 0)).content)
    assert int.from_bytes(line.data[:8]) == int(door.clock.now().timestamp())
