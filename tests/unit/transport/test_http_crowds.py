"""What the HTTP doors do with many connections, and with ones that say or take nothing."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from connector.transport.http import accepting, patience, server
from connector.transport.http.server import HttpDoor

pytestmark = pytest.mark.usefixtures("socket_enabled")

HEAD = b"GET / HTTP/1.1\r\nHost: door\r\n"
ASK = HEAD + b"\r\n"


class SomeTls:
    """No handshake is made, so that no certificate is needed."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    async def watch(self) -> None:
        pass


@asynccontextmanager
async def door(*, size: int = 2, tls: SomeTls | None = None) -> AsyncIterator[tuple[str, int]]:
    async def show(_: Request) -> Response:
        return PlainTextResponse("a" * size)

    app = Starlette(routes=[Route("/", show, methods=["GET", "POST"])])
    opened = HttpDoor(app, "127.0.0.1:0", tls)  # type: ignore[arg-type]
    host, _, port = (await opened.open()).rpartition(":")
    try:
        yield host, int(port)
    finally:
        await opened.close()


async def answer(at: tuple[str, int], asked: bytes) -> bytes:
    """What comes until the end of the connection, or for half a second."""
    reader, writer = await asyncio.open_connection(*at)
    with closing(writer):
        writer.write(asked)
        found = b""
        try:
            async with asyncio.timeout(0.5):
                while piece := await reader.read(65_536):
                    found += piece
                return found + b"<end>"
        except ConnectionError:
            return found + b"<reset>"
        except TimeoutError:
            return found


async def until_ended(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(5):
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass


@pytest.mark.parametrize("tls", [None, SomeTls()], ids=["plain", "tls"])
async def test_there_are_so_many_and_no_more(
    tls: SomeTls | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 8)
    monkeypatch.setattr(patience, "REQUEST_S", 0.4)
    monkeypatch.setattr(accepting, "HANDSHAKE_S", 0.4)
    async with door(tls=tls) as at:
        silent = [await asyncio.open_connection(*at) for _ in range(8)]
        more = [await asyncio.open_connection(*at) for _ in range(8)]
        for reader, _ in more:
            await asyncio.wait_for(until_ended(reader), 0.3)
        for reader, _ in silent:
            await until_ended(reader)
        for _, writer in (*silent, *more):
            writer.close()
        if tls is None:
            assert b"200 OK" in await answer(at, ASK)


async def test_a_handshake_that_fails_leaves_nothing_in_memory() -> None:
    """Its buffers are large, and a collector of cycles would come late for them."""
    gc.collect()
    gc.disable()
    try:
        async with door(tls=SomeTls()) as at:
            for said in (b"GET / HTTP/1.1\r\n\r\n", b""):
                _, writer = await asyncio.open_connection(*at)
                writer.write(said)
                await asyncio.sleep(0.05)
                writer.transport.abort()
            await asyncio.sleep(0.1)
            assert not [each for each in gc.get_objects() if isinstance(each, SSLProtocol)]
    finally:
        gc.enable()


async def test_a_connection_that_is_gone_is_forgotten() -> None:
    async with door() as at:
        for _ in range(8):
            gone = socket.create_connection(at)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.sendall(HEAD.replace(b"GET", b"POST") + b"Content-Length: 500\r\n\r\nand so")
            await asyncio.sleep(0.02)  # it is answered, though not all of the body came
            gone.close()  # by a reset
        await asyncio.sleep(0.1)
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, patience.Patient)]


async def test_who_takes_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "STALL_S", 0.3)
    async with door(size=16 << 20) as at:
        quiet = socket.create_connection(at)
        quiet.sendall(ASK)
        await asyncio.sleep(1)
        quiet.settimeout(5)
        size = 0
        with closing(quiet):
            try:
                while piece := await asyncio.to_thread(quiet.recv, 1 << 20):
                    size += len(piece)
            except ConnectionError:
                pass
        assert 0 < size < 16 << 20


async def test_a_body_of_two_lengths_is_the_last_of_its_connection() -> None:
    """RFC 9112, section 6.3: what follows may be what somebody on the way took for a body."""
    async with door() as at:
        both = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        found = await answer(at, HEAD.replace(b"GET", b"POST") + both + ASK)
        assert found.count(b"200 OK") == 1
        assert found.endswith(b"<end>")
        assert (await answer(at, ASK + ASK)).count(b"200 OK") == 2
